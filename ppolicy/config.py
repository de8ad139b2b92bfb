"""
A configuration: what ppolicy.conf means, or every mistake in it at once.
"""

import difflib
import inspect
import os
import types
from pathlib import Path

from ppolicy import foresight
from ppolicy.check import Check
from ppolicy.errors import BrokenAnswer, ConfigError, Mistake
from ppolicy.listeners import Unix, parsePort
from ppolicy.options import IGNORED, Options
from ppolicy.parameter import described, shown, toMistakes
from ppolicy.places import Places, replaced
from ppolicy.reading import Reading, explained
from ppolicy.registry import Registry, isCheck
from ppolicy.reply import ReplyEncoder, isPermanent
from ppolicy.resolvconf import nameServers, publicServers
from ppolicy.statefolder import stateFolder
from ppolicy.target import unused
from ppolicy.validation import furtherChecks


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

    def __str__(self):
        return f"{self.name} ({self.cls.__name__})"

    def create(self, factory=None):
        """
        An instance with its parameters, not yet started.
        """
        return self.cls.made(self.name, self.parameters, factory)


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


def load(path):
    """
    @return: a L{Configuration}.
    @raises ConfigError: with all mistakes.
    """
    return _Reading(Path(path).absolute()).configuration()


class _Reading(Reading):
    """
    One reading of a file: what it set, where, and what is wrong with it.
    """

    def __init__(self, path):
        super().__init__(path)
        self.mistakes = []
        self.warnings = []

    def mistake(self, sentence, line=None):
        self.mistakes.append(Mistake(sentence, self.path, line))

    def warning(self, sentence, line=None):
        self.warnings.append(Mistake(sentence, self.path, line))

    def configuration(self):
        end = self.execute()
        self.places = Places(self.tree)
        result = Configuration()
        result.path, result.folder, result.options = self.path, self.folder, self._options()
        self._leftOvers()
        for name, line, again in replaced(self.tree, Options.declared()):
            self.warning(f"{name} is there again in line {again}: this one has no effect", line)
        result.encoder = self._answers(result.options)
        result.specs = self._checks(result.options, result.encoder)
        result.policy = self._policy(result.encoder) if end is None else None
        mistakes = sorted(self.mistakes, key=_line)
        if end is not None:
            mistakes.append(end)
        if mistakes:
            raise ConfigError(*mistakes)
        self._resolvers(result)
        self._folders(result)
        result.warnings = sorted(self.warnings, key=_line)
        return result

    def _options(self):
        line = self.places.assigned.get
        # A function, class or module is the administrator's own, whatever its name; unless it was assigned.
        values = {
            name: self.names[name]
            for name in Options.declared()
            if name in self.names and (name in self.places.assigned or not _isCode(self.names[name]))
        }
        found = []
        accepted = Options.accept(values, self.folder, found)
        self.mistakes += toMistakes(found, "", self.path, self.places.assigned, None)
        options = Options()
        options.assume({name: one.default for name, one in Options.declared().items()} | accepted)
        for name, check, value, *more in furtherChecks(options, self.folder):
            try:
                if value is not None:
                    check(value, *more)
            except ConfigError as error:
                for one in error.mistakes:
                    self.mistake(one.sentence, line(name))
            except ValueError as error:
                self.mistake(f"{name}: {error}", line(name))
        # There is nothing to be found in the others. Unlike Path.is_dir() this never raises.
        options.modulePath = [folder for folder in options.modulePath if os.path.isdir(folder)]  # noqa: PTH112
        for name, why in IGNORED.items():
            if name in values:
                self.warning(f"{name} is ignored: {why}", line(name))
        if options.cacheEngine == "memcache":
            self.warning("cacheEngine 'memcache' is not there yet: the local cache is used", line("cacheEngine"))
        for key in unused(options.database):
            self.warning(f"database: {key} is ignored: connections are made as they are needed", line("database"))
        if options.group is not None and options.user is None:
            self.warning("group has no effect without user", line("group"))
        return options

    def _leftOvers(self):
        """
        Names that are no options: mistakes where they resemble one, else warnings where nothing uses them.
        """
        options = Options.declared()
        for name, line in self.places.assigned.items():
            if name in options or name == "check" or name not in self.names or name.startswith("_"):
                continue
            if _isCode(self.names[name]):
                continue
            close = difflib.get_close_matches(name, options, 1, 0.8)
            if close:
                self.mistake(f"{name} is no option, did you mean {close[0]}?", line)
            elif name not in self.places.used:
                self.warning(f"{name} is no option, and nothing uses it", line)

    def _resolvers(self, configuration):
        if any(spec.cls.asksLists for spec in configuration.specs):
            for host in publicServers(nameServers(configuration.options.dnsServers)):
                self.warning(
                    f"dnsServers: many DNS lists refuse {host}, a resolver for everybody; have a caching one on"
                    " this host, see docs/dns.md",
                    self.places.assigned.get("dnsServers"),
                )

    def _folders(self, configuration):
        options = configuration.options
        values = [("ppolicyPort", port) for port in options.ppolicyPort]
        if options.metrics is not None:
            values.append(("metrics", options.metrics))
        parsed = [(name, wanted) for name, value in values for wanted in parsePort(value, self.folder)]
        sockets = [(name, wanted.path) for name, wanted in parsed if isinstance(wanted, Unix)]
        if options.controlSocket is not None and options.controlSocket.parent != stateFolder(configuration):
            sockets.append(("controlSocket", options.controlSocket))
        for name, path in sockets:
            if not os.path.isdir(path.parent):  # noqa: PTH112 - never raises
                self.warning(
                    f"{name}: there is no folder {path.parent}: make it, unless systemd does",
                    self.places.assigned.get(name),
                )

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
                self.mistake(
                    f"{name}: must not refuse or discard mail for good, it is our own trouble: take 450", line
                )
        return encoder

    def _checks(self, options, encoder):
        registry = Registry(options.modulePath)
        specs = []
        for sentence, line in self.places.twice:
            self.mistake(sentence, line)
        for name, entry in options.modules.items():
            line = self.places.checks.get(name) or self.places.assigned.get("modules")
            if not isinstance(name, str) or not name:
                self.mistake(f"modules: the name {shown(name)} of a check is no text", line)
                continue
            if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], dict)):
                self.mistake(f"{name}: must be a pair, ('Type', {{'parameter': value, …}})", line)
                continue
            try:
                cls = _class(registry, entry[0])
            except ConfigError as error:
                self.mistake(f"{name}: {error}", line)
                continue
            specs.append(self._spec(CheckSpec(name, cls, {}, self.path, line), entry[1], options, encoder))
        for path, hidden in registry.hidden.items():
            self.warning(f"{path} hides the bundled {hidden.name}", self.places.assigned.get("modulePath"))
        return specs

    def _spec(self, spec, given, options, encoder):
        """
        Fill in the parameters.
        """
        lines = self.places.parameters.get(spec.name, {})
        found = []
        try:
            spec.parameters = spec.cls.accept(given, self.folder, found)
        except ConfigError as error:
            found.append((None, str(error)))
        except Exception as error:  # noqa: BLE001 - PARAMS of a module for 2.7 may be anything
            found.append((None, f"its parameters are badly declared: {explained(error, self.path)[1]}"))
        self.mistakes += toMistakes(found, f"{spec}: ", self.path, lines, spec.line)
        for name, sentence in foresight.misspelt(spec.parameters, self.places.items):
            self.warning(f"{spec}: {name}: {sentence}", lines.get(name, spec.line))
        for name in spec.cls.answers:
            try:
                encoder.encode(spec.parameters.get(name), {})
            except BrokenAnswer as error:
                self.mistake(f"{spec}: {name}: {error}", lines.get(name, spec.line))
        if spec.cls.check is Check.check:
            self.warning(f"{spec}: it has no check(self, data) that could answer", spec.line)
        for name in ("check", "hashArg"):
            if not _takesData(spec.cls, name):
                self.mistake(f"{spec}: {name} must take the request: {name}(self, data)", spec.line)
        timeout = spec.parameters.get("timeout")
        if isinstance(timeout, int | float) and timeout >= options.requestTimeout:
            self.warning(
                f"{spec}: timeout is not below requestTimeout, which ends it after {options.requestTimeout:g} s",
                lines.get("timeout", spec.line),
            )
        return spec

    def _policy(self, encoder):
        policy = self.names.get("check")
        lines = self.places.assigned | self.places.functions
        line = lines.get("check")
        if policy is None:
            own = [name for name in lines if inspect.isfunction(self.names.get(name))]
            close = difflib.get_close_matches("check", own, 1, 0.6)
            self.mistake(
                f"there is no function check(factory, data, port){f', is it {close[0]}?' if close else ''}",
                lines[close[0]] if close else None,
            )
            return None
        if not callable(policy) or isinstance(policy, type):
            self.mistake("check must be a function check(factory, data, port)", line)
            return None
        if inspect.iscoroutinefunction(policy) or inspect.isasyncgenfunction(policy):
            self.mistake("check must be a plain function, not async: it may wait all the same", line)
            return None
        if inspect.isgeneratorfunction(policy):
            self.mistake("check must return its answer, not yield it", line)
            return None
        try:
            signature = inspect.signature(policy)
            signature.bind(None, None, None)
        except (TypeError, ValueError):  # ValueError: one of Python's own that does not tell
            self.mistake("check must take three arguments: check(factory, data, port)", line)
            return None
        for found in foresight.look(self.tree, self.names, signature, encoder):
            tell = self.mistake if found.certain else self.warning
            tell(found.sentence, found.line)
        return policy


def _line(mistake):
    return mistake.line or 0


def _isCode(value):
    return callable(value) or isinstance(value, types.ModuleType)


def _class(registry, kind):
    """
    The class of a check, from its name or as it is.
    """
    if isinstance(kind, str):
        return registry.find(kind)
    if isCheck(kind):
        return kind
    given = kind.__name__ if isinstance(kind, type) else described(type(kind))
    raise ConfigError(f"its type must be the name of a check module or a class of checks, not {given}")


def _takesData(cls, name):
    """
    Can this method be called with a request? It may want more than that, from the policy.
    """
    method = inspect.getattr_static(cls, name, None)
    if not inspect.isfunction(method):
        return True  # who does not write a plain method knows why
    try:
        inspect.signature(method).bind_partial(None, None)
    except TypeError:
        return False
    return True
