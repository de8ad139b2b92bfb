"""
One generation of the configuration: its checks at work. A reload starts the next one beside it.
"""

import functools
import inspect
import itertools

from twisted.logger import Logger

from ppolicy.bridge import wait
from ppolicy.errors import BackendError, ConfigError, Mistake
from ppolicy.logs import logFailure
from ppolicy.policy import ThreadFactory

log = Logger()

_tokens = itertools.count()


class _Slot:
    """
    A started check with what asking it needs, looked up once.

    @ivar token: stands for the check in the cache until its results are forgotten; C{mark} stands for it among
        the answers to requests that Postfix may send again. Both are kept over a reload that did not change type
        or parameters.
    """

    def __init__(self, spec, check):
        self.spec = spec
        self.check = check
        self.name = spec.name
        self.ask = check.check
        self.hashArg = check.hashArg
        self.coroutine = inspect.iscoroutinefunction(check.check)
        self.blocking = check.blocking is not False and not self.coroutine
        self.once = check.once
        self.token = self.mark = str(next(_tokens))
        self.ttl = (check.cacheUnknown, check.cachePositive, check.cacheNegative)
        prefix = f"{check.saveResultPrefix}{spec.name}"
        self.prefix = prefix if check.saveResult else None
        self.codeKey, self.infoKey = f"{prefix}_code", f"{prefix}_info"
        self.timeKey, self.cacheKey = f"{prefix}_time", f"{prefix}_cache"
        self.asked = self.hits = self.failures = 0
        self.seconds = 0.0

    def same(self, other):
        """
        Would the other one give the same answers?
        """
        return self.spec.cls is other.spec.cls and self.spec.parameters == other.spec.parameters


class Generation:
    """
    A configuration whose checks are started.

    @ivar number: 1 for the first, one more with each reload.
    @ivar active: requests it is working on.
    @ivar answer: C{answer(factory, data, port)}, the policy function as it is to be called.
    """

    def __init__(self, number, configuration, server):
        self.number = number
        self.configuration = configuration
        self.options = configuration.options
        self.encoder = configuration.encoder
        self.server = server
        self.bridge = server.bridge
        self.cache = server.cache
        self.active = 0
        self.stopped = False
        self.slots = {}
        self._unchanged = set()
        self.inFlight = {}
        self._asksDatabase = False
        self.timeout = self.options.requestTimeout
        self.fatal = self.encoder.encode(self.options.returnOnFatalError, {})
        self.full = self.encoder.encode(self.options.returnOnConnLimit, {})
        self.answer = self._inThread if self.options.policyThreads else configuration.policy

    def start(self, predecessor=None):
        """
        Start all checks.

        @raises ConfigError: with what every check that refused has to say; the others are stopped again.
        """
        mistakes = []
        for spec in self.configuration.specs:
            check, self._asksDatabase = None, False
            try:
                check = spec.create(self)
                self.server.services.equip(check)
                check.forgetResults = functools.partial(self.forget, spec.name)
                check.dryRun = self.server.dryRun
                check.factory = self
                check.start()
            except BaseException as error:  # noqa: BLE001 - any exception, SystemExit too, refuses the start
                if check is None or not self._isExcused():
                    mistakes += self._refusals(spec, error)
                    continue
                sentence = f"{spec}: start() is not tried to its end, it asks the database: {error}"
                self.configuration.warnings.append(Mistake(sentence, spec.file, spec.line))
            self.slots[spec.name] = _Slot(spec, check)
        if mistakes:
            self.stop()
            raise ConfigError(*mistakes)
        former = predecessor.slots if predecessor is not None else {}
        self._unchanged = {name for name, slot in self.slots.items() if name in former and slot.same(former[name])}

    def countOn(self, predecessor):
        """
        Take over the place of another one: what was counted of a check is counted since the server's start, and
        what is cached of one that did not change is of use.
        """
        for name, slot in self.slots.items():
            old = predecessor.slots.get(name)
            if old is not None:
                slot.asked, slot.hits = old.asked, old.hits
                slot.failures, slot.seconds = old.failures, old.seconds
                if name in self._unchanged:
                    slot.token, slot.mark = old.token, old.mark

    def forget(self, name):
        """
        What a check has answered so far is true no longer, nor may be what it is being asked now.
        """
        # Looking for it in the cache takes milliseconds, and a request may change a list: under another token it
        # is not found any more, and leaves the cache with what is old. Who has taken our place has the same token.
        for generation in (self, self.server.generation):
            slot = generation.slots.get(name) if generation is not None else None
            if slot is not None:
                slot.token = str(next(_tokens))

    def _isExcused(self):
        """
        Does it say nothing that a check has not started? One written for 2.7 may create its tables then.
        """
        return self.server.dryRun and self._asksDatabase

    def _refusals(self, spec, error):
        where = f"{spec.name} ({spec.cls.__name__})"
        if isinstance(error, ConfigError):
            return [Mistake(f"{where}: {one.sentence}", spec.file, spec.line) for one in error.mistakes]
        logFailure(log, f"{where}: start() failed")
        return [Mistake(f"{where}: start() failed with {type(error).__name__}: {error}", spec.file, spec.line)]

    def stop(self):
        """
        Stop all checks; what one of them does wrong keeps none of the others running.
        """
        for slot in self.slots.values():
            try:
                slot.check.stop()
            except Exception:  # noqa: BLE001 - a site's own code
                logFailure(log, f"{slot.name}: stop() failed")

    def _inThread(self, factory, data, port):
        return wait(self.server.policyPool.run(self.configuration.policy, ThreadFactory(factory), data, port))

    # What modules of 2.7 use of their factory.

    def getConfig(self, name, default=None):
        """
        The value of an option.
        """
        return getattr(self.options, name, default)

    def getDbConnection(self):
        """
        A new DB-API connection to the database; the caller closes it. It blocks: use it in a blocking module.
        In a dry run nothing can be written to it.

        @raises BackendError: where none is open, as for C{ppolicy check}.
        """
        self._asksDatabase = True
        database = self.server.services.state.database
        if database is None or (self.server.dryRun and not database.readOnly):
            raise BackendError("no database is open")
        return database.dbapi()

    def releaseDbConnection(self, connection):
        """
        What modules for 2.7 call when they are done with a connection: it is closed.
        """
        connection.close()
