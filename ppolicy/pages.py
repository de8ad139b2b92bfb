"""
Renders pages of docs/ in Markdown: the options, the commands, the check modules.
"""

import inspect
import re
import textwrap

from ppolicy.check import Check
from ppolicy.commandtree import entries
from ppolicy.options import Options
from ppolicy.parameter import typeName

_OPTIONS = """\
# The options of ppolicy.conf

An option is set by a line such as `requestTimeout = 20` in ppolicy.conf. Below
are type and default of each. This page is made by `python -m ppolicy.reference`.
"""

_COMMANDS = """\
# The command ppolicy

`ppolicy COMMAND --help` tells the same. This page is made by
`python -m ppolicy.reference`, and so is the manual page ppolicy(1).
"""


def options():
    """
    The text of docs/options.md.
    """
    return "\n\n".join([_OPTIONS.rstrip(), *_options()]) + "\n"


def _options():
    for name, one in sorted(Options.declared().items()):
        yield f"## {name}\n\n{_kind(one)}\n\n{escaped(one.help)}"


def _kind(one):
    """
    Type and default of a parameter.
    """
    return f"`{typeName(one.type)}`, {'required' if one.required else f'default `{one.default!r}`'}"


def commands(main):
    """
    The text of docs/commands.md.
    """
    return "\n\n".join([_COMMANDS.rstrip(), *map(_command, entries(main))]) + "\n"


def _command(entry):
    lines = [f"## {entry.name}", f"```text\n{entry.name} {entry.usage}".rstrip() + "\n```"]
    lines += map(_paragraph, entry.paragraphs)
    lines += [_explained(f"`{written}`", text) for written, text in entry.options]
    return "\n\n".join([*lines, *map(_paragraph, entry.more)])


def _paragraph(text):
    return f"```text\n{text}\n```" if "\n" in text else escaped(text)


def modules(classes):
    """
    A section for each of these check modules.
    """
    return "\n\n".join(map(_module, classes)) + "\n"


def _module(cls):
    about, _, rest = inspect.cleandoc(cls.__doc__).partition("\n\nCheck arguments:\n")
    takes, _, rest = rest.partition("\n\nCheck returns:\n")
    returns, _, examples = rest.partition("\n\nExamples:\n")
    common = Check.declared()
    parameters = [
        _explained(f"`{name}`: {_kind(one)}", one.help)
        for name, one in sorted(cls.declared().items())
        if not (common.get(name) is one and name.startswith("saveResult"))
    ]
    return "\n\n".join(
        [
            f"## {cls.__name__}",
            *map(_prose, about.split("\n\n")),
            f"### Parameters of {cls.__name__}",
            *parameters,
            f"### What {cls.__name__} takes and returns",
            f"```text\n{inspect.cleandoc(takes)}\n```",
            f"```text\n{inspect.cleandoc(returns)}\n```",
            f"### Examples of {cls.__name__}",
            f"```python\n{inspect.cleandoc(examples)}\n```",
        ]
    )


def _prose(paragraph):
    """
    A paragraph of a docstring; one that is indented stands as it is.
    """
    if paragraph.startswith("    "):
        return f"```text\n{inspect.cleandoc(paragraph)}\n```"
    return escaped(paragraph)


def escaped(text):
    """
    A plain text in Markdown, in lines; what stands in backticks is left alone.
    """
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    whole = "".join([one if one.startswith("`") else re.sub(r"([\\*<])", r"\\\1", one) for one in parts])
    return "\n".join(textwrap.wrap(whole, 80, break_long_words=False, break_on_hyphens=False))


def _explained(term, text):
    """
    An entry of a list of definitions.
    """
    return f"{term}\n: {textwrap.indent(escaped(text), '  ').strip()}"
