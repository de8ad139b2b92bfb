"""
Run ppolicy.conf, and report every mistake in it at once.
"""

import ast
import difflib
import inspect
import linecache
import logging
import os
import stat
import sys
import traceback
import types
from pathlib import Path

from ppolicy.check import Check
from ppolicy.errors import BrokenAnswer, ConfigError, Mistake
from ppolicy.listeners import parsePort
from ppolicy.options import IGNORED, Options
from ppolicy.parameter import didYouMean, toMistakes
from ppolicy.registry import Registry
from ppolicy.reply import ReplyEncoder, isPermanent

MODULE_NAME = "ppolicy_conf"

_PLACES = ("/etc/ppolicy/ppolicy.conf", "/etc/postfix/ppolicy.conf")


class CheckSpec:
    """
    One entry of C{modules}: name, class, accepted parameters and where it stands.
    """

    def __init__(self, name, cls, parameters, file, line):
        self.name = name
        self.cls = cls
        self.parameters = parameters
        self.file = file
        self.line = line

    def create(self):
        """
        An instance with its parameters, not yet started.
        """
        check = self.cls(self.name)
        check.assume(self.parameters)
        return check


class Configuration:
    """
    A configuration without mistakes.

    @ivar path: the file.
    @ivar folder: where it lies; relative paths start here.
    @ivar options: the L{Options}.
    @ivar specs: a L{CheckSpec} for each entry of C{modules}.
    @ivar policy: the function C{check(factory, data, port)}.
    @ivar encoder: the L{ReplyEncoder} for its answers.
    @ivar warnings: L{Mistake}s that do not keep it from being used.
    """


def find(given=None, beside=None):
    """
    The configuration file to use: the given one, else C{$PPOLICY_CONF}, else ppolicy.conf in the present
    folder (or C{beside} the .tac), else the system's.

    @raises ConfigError: when there is none, or when one that was only found by chance is not safe to run.
    """
    if given or os.environ.get("PPOLICY_CONF"):
        return Path(given or os.environ["PPOLICY_CONF"]).absolute()
    local = Path(beside or Path.cwd()) / "ppolicy.conf"
    if local.is_file():
        status = local.stat()
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
            raise ConfigError(
                f"{local} belongs to somebody else or may be written by everybody; name it with -c if you trust it"
            )
        return local.absolute()
    for place in _PLACES:
        if Path(place).is_file():
            return Path(place)
    raise ConfigError(f"no configuration: there is no {local}, no {' and no '.join(_PLACES)}; name one with -c")


def load(path):
    """
    @return: a L{Configuration}.
    @raises ConfigError: with all mistakes.
    """
    return _Reading(Path(path).absolute()).configuration()


def glance(path):
    """
    What a file says about where its server keeps things, however wrong the rest of it may be.

    @return: a L{Configuration} with path, folder and options, of which C{stateDir} and C{controlSocket} are set.
    """
    reading = _Reading(Path(path).absolute())
    reading.execute()
    result = Configuration()
    result.path, result.folder, result.options = reading.path, reading.folder, Options()
    names = ("stateDir", "controlSocket")
    values = {name: reading.names[name] for name in names if name in reading.names}
    accepted = Options.accept(values, reading.folder, [])
    result.options.assume({name: one.default for name, one in Options.declared().items()} | accepted)
    return result


class _Reading:
    """
    One reading of a file: what it set, where, and what is wrong with it.
    """

    def __init__(self, path):
        self.path = path
        self.folder = path.parent
        self.mistakes = []
        self.warnings = []
        self.tree = ast.Module([], [])
        self.module = types.ModuleType(MODULE_NAME)
        self.module.__file__ = str(path)
        self.names = self.module.__dict__
        self.names["modules"] = {}

    def mistake(self, sentence, line=None):
        self.mistakes.append(Mistake(sentence, self.path, line))

    def warning(self, sentence, line=None):
        self.warnings.append(Mistake(sentence, self.path, line))

    def configuration(self):
        if not self.execute():
            raise ConfigError(*self.mistakes)
        self.places = _Places(self.tree)
        options = self._options()
        self._leftOvers()
        result = Configuration()
        result.path, result.folder, result.options = self.path, self.folder, options
        result.encoder = self._answers(options)
        result.specs = self._checks(options)
        result.policy = self._policy()
        if self.mistakes:
            raise ConfigError(*sorted(self.mistakes, key=lambda one: one.line or 0))
        result.warnings = self.warnings
        return result

    def execute(self):
        """
        Run the file statement by statement. False when a syntax error or an exception ended it.
        """
        file = str(self.path)
        try:
            source = self.path.read_bytes()
        except OSError as error:
            self.mistake(f"cannot be read: {error.strerror}")
            return False
        linecache.checkcache(file)
        try:
            self.tree = ast.parse(source, file)
        except (SyntaxError, ValueError) as error:  # ValueError: a NUL byte
            self.mistake(f"{type(error).__name__}: {getattr(error, 'msg', error)}", getattr(error, "lineno", None))
            return False
        sys.modules[MODULE_NAME] = self.module
        for statement in self.tree.body:
            try:
                # The file is the administrator's own program: running it is what ppolicy is for.
                exec(compile(ast.Module([statement], []), file, "exec"), self.names)  # noqa: S102
            except BaseException as error:  # noqa: BLE001 - any exception, SystemExit too, is a mistake
                frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == file]
                self.mistake(f"{type(error).__name__}: {error}", frames[-1].lineno if frames else statement.lineno)
                return False
        return True

    def _options(self):
        values = {name: self.names[name] for name in Options.declared() if name in self.names}
        found = []
        accepted = Options.accept(values, self.folder, found)
        self.mistakes += toMistakes(found, "", self.path, self.places.assigned, None)
        options = Options()
        options.assume({name: one.default for name, one in Options.declared().items()} | accepted)
        for name, why in IGNORED.items():
            if name in values:
                self.warning(f"{name} is ignored: {why}", self.places.assigned.get(name))
        if options.cacheEngine == "memcache":
            self.warning(
                "cacheEngine 'memcache' is not there yet: the local cache is used",
                self.places.assigned.get("cacheEngine"),
            )
        line = self.places.assigned.get
        for port in options.ppolicyPort:
            try:
                parsePort(port, self.folder)
            except ValueError as error:
                self.mistake(f"ppolicyPort: {error}", line("ppolicyPort"))
        if not options.ppolicyPort:
            self.mistake("ppolicyPort: an empty list listens nowhere", line("ppolicyPort"))
        if isinstance(options.logLevel, str) and options.logLevel.upper() not in logging.getLevelNamesMapping():
            self.mistake(
                f"logLevel: must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not {options.logLevel!r}",
                line("logLevel"),
            )
        for folder in options.modulePath:
            if not folder.is_dir():
                self.mistake(f"modulePath: {folder} is no folder", line("modulePath"))
        database = options.database
        if isinstance(database, dict) or (isinstance(database, str) and database.startswith("mysql")):
            self.warning(
                "database: MySQL and MariaDB are not there yet, state is kept in the embedded SQLite",
                line("database"),
            )
        elif isinstance(database, str) and not database.startswith("sqlite:///"):
            self.mistake(
                "database: must be a URL such as sqlite:////var/lib/ppolicy/ppolicy.sqlite", line("database")
            )
        return options

    def _leftOvers(self):
        """
        Names that are no options: mistakes where they resemble one, else warnings where nothing uses them.
        """
        options = [*Options.declared(), "check"]
        for name, line in self.places.assigned.items():
            value = self.names.get(name)
            if name in options or name not in self.names or name.startswith("_"):
                continue
            if isinstance(value, type | types.ModuleType) or callable(value):
                continue
            close = difflib.get_close_matches(name, options, 1, 0.8)
            if close:
                self.mistake(f"{name} is no option, did you mean {close[0]}?", line)
            elif name not in self.places.used:
                self.warning(f"{name} is no option, and nothing uses it", line)

    def _answers(self, options):
        encoder = ReplyEncoder(options.restrictionClasses, options.replyUtf8)
        for name in ("returnOnFatalError", "returnOnConnLimit"):
            line = self.places.assigned.get(name)
            try:
                encoder.encode(getattr(options, name), {})
            except BrokenAnswer as error:
                self.mistake(f"{name}: {error}", line)
                continue
            if isPermanent(getattr(options, name)):
                self.mistake(f"{name}: must not refuse or discard mail for good, it is our own trouble", line)
        return encoder

    def _checks(self, options):
        registry = Registry(options.modulePath)
        specs = []
        for name, line in self.places.duplicates:
            self.mistake(f"modules: {name!r} is there twice", line)
        modules = self.names["modules"]
        for name, entry in modules.items() if isinstance(modules, dict) else ():
            line = self.places.checks.get(name) or self.places.assigned.get("modules")
            if not isinstance(name, str) or not name:
                self.mistake(f"modules: the name {name!r} is no text", line)
                continue
            if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], dict)):
                self.mistake(f"{name}: must be (type, {{parameter: value, …}})", line)
                continue
            cls = self._class(registry, name, entry[0], line)
            if cls is None:
                continue
            found = []
            parameters = cls.accept(entry[1], self.folder, found)
            self.mistakes += toMistakes(
                found, f"{name} ({cls.__name__}): ", self.path, self.places.parameters.get(name, {}), line
            )
            timeout = parameters.get("timeout")
            if isinstance(timeout, int | float) and timeout >= options.requestTimeout:
                self.warning(
                    f"{name} ({cls.__name__}): timeout {timeout:g} is not below requestTimeout, "
                    f"which ends it after {options.requestTimeout:g} s",
                    line,
                )
            specs.append(CheckSpec(name, cls, parameters, self.path, line))
        for path, hidden in registry.hidden:
            self.warning(f"{path} hides the bundled {hidden.name}", self.places.assigned.get("modulePath"))
        return specs

    def _class(self, registry, name, kind, line):
        if isinstance(kind, str):
            try:
                return registry.find(kind)
            except ConfigError as error:
                self.mistake(f"{name}: {error}", line)
                return None
        if inspect.isclass(kind) and issubclass(kind, Check):
            return kind
        self.mistake(f"{name}: the type must be the name of a check module or a class of yours, a Check", line)
        return None

    def _policy(self):
        line = self.places.functions.get("check")
        policy = self.names.get("check")
        if policy is None:
            close = difflib.get_close_matches("check", self.places.functions, 1, 0.6)
            self.mistake(
                f"there is no function check(factory, data, port){f', is it {close[0]}?' if close else ''}",
                self.places.functions.get(close[0]) if close else None,
            )
            return None
        if not callable(policy):
            self.mistake("check must be a function check(factory, data, port)", self.places.assigned.get("check"))
            return None
        if inspect.iscoroutinefunction(policy):
            self.mistake("check must be a plain function, not async: it may wait all the same", line)
            return None
        try:
            inspect.signature(policy).bind(None, None, None)
        except TypeError:
            self.mistake("check must take three arguments: check(factory, data, port)", line)
        known = self.names["modules"]
        for name, where in self.places.asked(inspect.signature(policy)):
            if isinstance(known, dict) and name not in known:
                self.mistake(f"factory.check: there is no module {name!r}{didYouMean(name, known)}", where)
        return policy


class _Places:
    """
    Line numbers of what a configuration defines.

    @ivar assigned: {name: line} of top-level values; C{functions} the same of functions.
    @ivar used: names that are read anywhere.
    @ivar checks: {check name: line}; C{parameters} {check name: {parameter: line}}.
    @ivar duplicates: (check name, line) of names that stand twice in the modules dictionary.
    """

    def __init__(self, tree):
        self.tree = tree
        self.assigned, self.functions, self.checks, self.parameters = {}, {}, {}, {}
        self.duplicates = []
        self.used = {
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        self._block(tree.body)

    def _block(self, body):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.functions[node.name] = node.lineno
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    self.assigned.pop(alias.asname or alias.name, None)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    self._target(target, node)
            for inner in ("body", "orelse", "finalbody"):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    self._block(getattr(node, inner, []))
            for handler in getattr(node, "handlers", []):
                self._block(handler.body)

    def _target(self, target, node):
        if isinstance(target, ast.Tuple | ast.List):
            for one in target.elts:
                self._target(one, node)
        elif isinstance(target, ast.Name):
            self.assigned[target.id] = node.lineno
            if target.id == "modules" and isinstance(node.value, ast.Dict):
                self._dictionary(node.value)
        elif (
            isinstance(target, ast.Subscript)
            and isinstance(target.value, ast.Name)
            and target.value.id == "modules"
            and isinstance(target.slice, ast.Constant)
        ):
            self._check(target.slice, node.value)

    def _dictionary(self, literal):
        seen = set()
        for key, value in zip(literal.keys, literal.values, strict=True):
            if isinstance(key, ast.Constant):
                if key.value in seen:
                    self.duplicates.append((key.value, key.lineno))
                seen.add(key.value)
                self._check(key, value)

    def _check(self, key, value):
        self.checks[key.value] = key.lineno
        if isinstance(value, ast.Tuple) and len(value.elts) == 2 and isinstance(value.elts[1], ast.Dict):
            self.parameters[key.value] = {
                one.value: one.lineno for one in value.elts[1].keys if isinstance(one, ast.Constant)
            }

    def asked(self, signature):
        """
        (check name, line) of each C{factory.check('name', …)} in the file, the name written out.
        """
        factory = next(iter(signature.parameters), None)
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "check"
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == factory
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                yield node.args[0].value, node.lineno
