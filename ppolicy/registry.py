"""
The class behind a module type: the type's name finds the file, nothing is registered.
"""

import importlib.machinery
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import ppolicy
from ppolicy.check import Check
from ppolicy.errors import ConfigError
from ppolicy.parameter import didYouMean, shown
from ppolicy.reading import explained

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
    @ivar hidden: {file of the site: bundled file that it hides} as met so far.
    """

    def __init__(self, folders=()):
        self._bundled = bundledFolder()
        self._folders = [Path(folder) for folder in folders if Path(folder).resolve() != self._bundled.resolve()]
        self.hidden = {}

    def find(self, typeName):
        """
        @raises ConfigError: when there is no such module, or it cannot be imported.
        """
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", typeName):
            raise ConfigError(f"{shown(typeName)} is no name of a check module")
        package().__path__[:] = map(str, [*self._folders, self._bundled])
        try:
            path = self._locate(typeName)
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from error
        module = _import(typeName, path)
        cls = getattr(module, typeName, None)
        if not isCheck(cls):
            hint = didYouMean(typeName, [name for name, one in vars(module).items() if isCheck(one)])
            raise ConfigError(f"{path} has no class {typeName} that is a Check{hint}")
        if cls.blocking is None and path.parent == self._bundled:
            cls.blocking = False
        return cls

    def _locate(self, typeName):
        bundled = self._bundled / f"{fileName(typeName)}.py"
        for folder in self._folders:
            for stem in (fileName(typeName), typeName):
                path = folder / f"{stem}.py"
                if path.is_file():
                    if bundled.is_file():
                        self.hidden[path] = bundled
                    return path
        if bundled.is_file():
            return bundled
        places = ", ".join([*map(str, self._folders), "the bundled modules"])
        hint = didYouMean(typeName, bundledTypes())
        raise ConfigError(f"no check module {typeName}: no {fileName(typeName)}.py in {places}{hint}")


class _Source(importlib.machinery.SourceFileLoader):
    """
    Makes modules from their text alone: to bytecode a file that changed within the same second is the old one.
    """

    def get_code(self, fullname):
        return self.source_to_code(self.get_data(self.path), self.path)


# What each module was made of when it was imported: file and text.
_imported: dict[str, tuple[Path, bytes]] = {}


def _import(typeName, path):
    """
    The module in a file, imported anew when it is another file than last time, or a changed one: the new
    generation gets new classes, the old one keeps its own.
    """
    name = f"{package().__name__}.{path.stem}"
    loaded = sys.modules.get(name)
    try:
        origin = (path, path.read_bytes())
        if loaded is not None and loaded.__file__ == str(path) and _imported.get(name, origin) == origin:
            _imported[name] = origin
            return loaded
        spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if loaded is not None:
            sys.modules[name] = loaded
        raise ConfigError(_notImported(typeName, path, error)) from error
    _imported[name] = origin
    setattr(package(), path.stem, module)
    return module


def _notImported(typeName, path, error):
    line, sentence = explained(error, path)
    if isinstance(error, ModuleNotFoundError) and error.name:
        needed = error.name.partition(".")[0]
        if needed == "Base":
            sentence = "the Base of ppolicy 2.7 has moved, write: from ppolicy.Base import Base"
        elif needed != "ppolicy":
            sentence = f"{typeName} needs the Python package {needed}, which is not installed"
    return f"{path}:{line}: {sentence}" if line else f"{path}: {sentence}"


def isCheck(value):
    """
    Is this a class of checks?
    """
    return inspect.isclass(value) and issubclass(value, Check) and value is not Check


def bundledFolder():
    """
    Where the bundled modules are.
    """
    return Path(package().__file__).parent


def bundledTypes():
    """
    The names of the bundled module types, sorted; their files are read as text, not imported.
    """
    names = []
    for path in bundledFolder().glob("*.py"):
        names += re.findall(r"^class ([A-Z]\w*)\(\w*Check\)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return sorted(names)
