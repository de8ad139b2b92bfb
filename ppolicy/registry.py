"""
The class behind a module type: the type's name finds the file, nothing is registered.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path

import ppolicy
from ppolicy.check import Check
from ppolicy.errors import ConfigError
from ppolicy.parameter import didYouMean

BUNDLED = Path(__file__).parent.parent / "modules"


def package():
    """
    The package C{ppolicy.modules}: as installed, or in a bare checkout the folder beside C{ppolicy}.
    """
    name = "ppolicy.modules"
    if name in sys.modules:
        return sys.modules[name]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    spec = importlib.util.spec_from_file_location(
        name, BUNDLED / "__init__.py", submodule_search_locations=[str(BUNDLED)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    ppolicy.modules = module
    return module


def fileName(typeName):
    """
    C{DnsblScore} lives in C{dnsbl_score}, C{LookupLDAP} in C{lookup_ldap}, C{DOS} in C{dos}.
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", typeName).lower()


class Registry:
    """
    Finds classes in the site's folders and then among the bundled modules.

    @param folders: those of the option C{modulePath}, first one first.
    @ivar hidden: (file of the site, bundled file that it hides) pairs met so far.
    """

    def __init__(self, folders=()):
        self._package = package()
        self._bundled = [path for path in self._package.__path__ if path not in _siteFolders]
        self._folders = [str(folder) for folder in folders]
        self.hidden = []

    def find(self, typeName):
        """
        @raises ConfigError: when there is no such module, or it cannot be imported.
        """
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", typeName):
            raise ConfigError(f"{typeName!r} is no name of a module type")
        found = self._locate(typeName)
        if found is None:
            places = ", ".join([*self._folders, "the bundled modules"])
            hint = didYouMean(typeName, bundledTypes())
            raise ConfigError(f"no check module {typeName}: no {fileName(typeName)}.py in {places}{hint}")
        path, stem = found
        _siteFolders.update(self._folders)
        self._package.__path__[:] = [*self._folders, *self._bundled]
        module = self._import(typeName, path, stem)
        cls = getattr(module, typeName, None)
        if not (inspect.isclass(cls) and issubclass(cls, Check)):
            raise ConfigError(f"{path} has no class {typeName} that is a Check")
        if cls.blocking is None and str(path.parent) in self._bundled:
            cls.blocking = False
        return cls

    def _locate(self, typeName):
        for folder in self._folders:
            for stem in (fileName(typeName), typeName):
                path = Path(folder) / f"{stem}.py"
                if path.is_file():
                    for bundled in self._bundled:
                        if (Path(bundled) / f"{fileName(typeName)}.py").is_file():
                            self.hidden.append((path, Path(bundled) / f"{fileName(typeName)}.py"))
                    return path, stem
        for folder in self._bundled:
            path = Path(folder) / f"{fileName(typeName)}.py"
            if path.is_file():
                return path, fileName(typeName)
        return None

    def _import(self, typeName, path, stem):
        name = f"{self._package.__name__}.{stem}"
        loaded = sys.modules.get(name)
        stamp = (str(path), path.stat().st_mtime_ns)
        if loaded is not None and _stamps.get(name, stamp) == stamp and loaded.__file__ == str(path):
            _stamps[name] = stamp
            return loaded
        # Another file, or a changed one: the new generation gets new classes, the old one keeps its own.
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            if error.name and not error.name.startswith("ppolicy"):
                raise ConfigError(f"{typeName} needs the Python package {error.name}: {error}") from error
            raise ConfigError(f"{path}: {error}") from error
        except Exception as error:
            raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
        _stamps[name] = stamp
        return module


_siteFolders: set[str] = set()
_stamps: dict[str, tuple[str, int]] = {}


def bundledTypes():
    """
    The names of the bundled module types, sorted; their files are read as text, not imported.
    """
    names = []
    for folder in package().__path__:
        if folder in _siteFolders:
            continue
        for path in sorted(Path(folder).glob("*.py")):
            names += re.findall(r"^class ([A-Z]\w*)\(\w*Check\)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return sorted(names)
