"""
How Sphinx builds the site from docs/: see `make docs`.
"""

from ppolicy import __version__, pages
from ppolicy.registry import Registry, bundledTypes

project = "ppolicy"
author = "the ppolicy authors"
version = release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"ppolicy {__version__}"
html_show_copyright = False
html_copy_source = False
exclude_patterns = ["man"]
nitpicky = True


def addModules(app, name, source):
    """
    Put the modules, as they are now, below what docs/modules.md says.
    """
    if name == "modules":
        source[0] += "\n" + pages.modules(map(Registry().find, bundledTypes()))


def setup(app):
    app.connect("source-read", addModules)
    return {"parallel_read_safe": True}
