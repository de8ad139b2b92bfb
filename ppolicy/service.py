"""
Start and stop everything, in order: ports, state, the first generation; reload.
"""

import fcntl
import grp
import logging
import os
import pwd
import resource
import signal
import sys
import time
from pathlib import Path

from twisted.application.service import Application, Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.persisted.sob import IPersistable
from twisted.python.util import switchUID
from zope.interface import implementer

from ppolicy import __version__, config, garbage, listeners
from ppolicy.bridge import Bridge
from ppolicy.cache import ResultCache
from ppolicy.control import ControlListener
from ppolicy.errors import ConfigError, PPolicyError
from ppolicy.logs import ToTwisted
from ppolicy.options import AT_START
from ppolicy.policy import Generation
from ppolicy.protocol import Outbox, PolicyListener
from ppolicy.requestlog import FORMS
from ppolicy.services import Services
from ppolicy.sqlite import SQLite
from ppolicy.target import Target, parse
from ppolicy.threads import ThreadPool
from ppolicy.verbs import Verbs
from ppolicy.watchdog import Watchdog
from ppolicy.writer import LineWriter

# Seconds that a stopping server gives the requests it is working on.
GRACE = 5.0
REPEATS = 50_000
SWITCH = 0.0005

_OURS = str(Path(__file__).parent)


class Server:
    """
    What the generations of one running server share.

    @ivar generation: the one that serves.
    @ivar connections: the open L{PolicyProtocol}s.
    @ivar requests: how many came in, C{overLimit} of them beyond connLimit; C{failures} got returnOnFatalError.
    @ivar repeats: answers of checks that count, for requests that Postfix sends again.
    """

    def __init__(self, reactor, options, dryRun=False):
        watch = Watchdog(reactor.seconds, isOurs=lambda name: name.startswith((_OURS, "<frozen")))
        self.bridge = Bridge(reactor, watch)
        self.cache = ResultCache(options.cacheSize)
        self.repeats = ResultCache(REPEATS)
        self.modulePool = ThreadPool(self.bridge, "module", options.workerThreads)
        self.policyPool = ThreadPool(self.bridge, "policy", options.workerThreads)
        self.services = None
        self.dryRun = dryRun
        self.generation = None
        self.connections = set()
        self.outbox = Outbox(self.bridge)
        self.requestLog = None
        self.requests = self.overLimit = self.failures = 0

    def portOf(self, address):
        """
        What a policy function gets as C{port} for a connection that came in at this address.
        """
        host = getattr(address, "host", "").removeprefix("::ffff:")
        name = getattr(address, "name", None) or ""
        path = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        return listeners.Port(getattr(address, "type", "UNIX"), host, getattr(address, "port", ""), path)

    def retire(self, generation):
        """
        Stop a generation that was replaced, once its last request is answered.
        """
        if generation is not self.generation and not generation.active and not generation.stopped:
            generation.stopped = True
            generation.stop()


def stateFolder(configuration):
    """
    The folder of everything that is kept: C{stateDir}, else what systemd gives, else the system's, else beside
    ppolicy.conf.
    """
    if configuration.options.stateDir is not None:
        return configuration.options.stateDir
    given = os.environ.get("STATE_DIRECTORY")  # systemd: a list with colons
    if given:
        return Path(given.split(":")[0])
    system = Path("/var/lib/ppolicy")
    if system.is_dir() and os.access(system, os.W_OK):
        return system
    return configuration.folder / "state"


def openDatabase(reactor, configuration, readOnly=False):
    """
    The database that the option C{database} names, by default a file in the state folder; not yet started.
    """
    target = databaseTarget(configuration)
    if target.path is not None:
        return SQLite(reactor, target.path, readOnly)
    from ppolicy.mariadb import MariaDB  # the driver is needed by those who use it

    return MariaDB(reactor, target, readOnly)


def databaseTarget(configuration):
    """
    The L{Target} of a configuration.
    """
    if configuration.options.database is None:
        return Target(path=stateFolder(configuration) / "ppolicy.sqlite")
    return parse(configuration.options.database, configuration.folder)


def controlPath(configuration):
    """
    The control socket.
    """
    return configuration.options.controlSocket or stateFolder(configuration) / "control.sock"


class PPolicyService(Service):
    """
    The whole server as a Twisted service. Nothing is opened before C{privilegedStartService}.
    """

    name = "ppolicy"  # type: ignore[assignment]
    log = Logger()

    def __init__(self, configuration, reactor=None):
        self._reactor = reactor
        self.configuration = configuration
        self.server = None
        self._ports = {}
        self._control = None
        self._lock = None
        self.writer = None
        self._logging = None
        self.started = time.time()
        self._reloadPool = None
        self._reloading = None
        self._reloadAgain = False

    # Start

    def privilegedStartService(self):
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        # Deadlines must not jump when the wall clock is set; the reactor takes its clock from here.
        self._reactor.seconds = time.monotonic
        # A busy worker thread must not keep the interpreter from the reactor for long.
        sys.setswitchinterval(SWITCH)
        self.server = Server(self._reactor, self.configuration.options)
        self._raiseFileLimit()
        self._ports = self._bind(self.configuration.options.ppolicyPort, {})

    def startService(self):
        try:
            self._startAll()
        except OSError as error:
            raise ConfigError(str(error)) from None
        super().startService()
        self._reactor.callWhenRunning(self._takeSignals)

    def _startAll(self):
        configuration, options, server = self.configuration, self.configuration.options, self.server
        self._logging = ToTwisted()
        logging.getLogger().addHandler(self._logging)
        self._setLogLevel(options)
        folder = stateFolder(configuration)
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._dropPrivileges(options, folder)
        self._lock = lockFolder(folder)
        self.writer = LineWriter(_target(configuration))
        self.writer.start()
        self._setRequestLog(options)
        if options.requestLog and self.writer.goesNowhere():
            self.log.warn(
                "request lines go to stdout, which is /dev/null here; set logTarget to a file or 'syslog'"
            )
        server.services = Services(server.bridge, configuration, openDatabase(self._reactor, configuration))
        server.services.start()
        self._reloadPool = ThreadPool(server.bridge, "reload", 1)
        generation = Generation(1, configuration, server)
        generation.start()
        server.generation = generation
        server.bridge.watch.start()
        self._listenControl(controlPath(configuration))
        self._warn(configuration.warnings)
        garbage.begin()
        self.log.info(
            "ppolicy {version} serves {ports} with {path}",
            version=__version__,
            ports=", ".join(self.listeners()),
            path=configuration.path,
        )

    def _bind(self, ports, present):
        """
        All wanted ports, those of C{present} kept as they are.

        @raises ConfigError: when one cannot be bound; then the new ones are closed again.
        """
        bound = {}
        folder = self.configuration.folder
        try:
            for port in ports:
                for wanted in listeners.parsePort(port, folder):
                    if wanted in present:
                        bound[wanted] = present[wanted]
                        continue
                    listening = listeners.listen(self._reactor, wanted, PolicyListener(self.server))
                    if isinstance(listening, Deferred):
                        listening = _result(listening, wanted)
                    if listening is not None:
                        bound[wanted] = listening
        except ConfigError:
            for wanted, port in bound.items():
                if wanted not in present:
                    port.stopListening()
            raise
        return bound

    def _listenControl(self, path):
        listeners.removeStale(path)
        self._control = self._reactor.listenUNIX(str(path), ControlListener(Verbs(self).table()), mode=0o660)

    def _dropPrivileges(self, options, folder):
        if options.user is None:
            if os.geteuid() == 0:
                self.log.warn("running as root; set the option user to run without its privileges")
            return
        try:
            user = pwd.getpwnam(options.user)
        except KeyError:
            raise ConfigError(f"user: there is no user {options.user}") from None
        try:
            group = grp.getgrnam(options.group).gr_gid if options.group else user.pw_gid
        except KeyError:
            raise ConfigError(f"group: there is no group {options.group}") from None
        if os.geteuid() != 0:
            if os.geteuid() != user.pw_uid:
                raise ConfigError(f"user: only root can become {options.user}")
            return
        os.chown(folder, user.pw_uid, group)
        os.initgroups(options.user, group)
        switchUID(user.pw_uid, group)

    def _raiseFileLimit(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if hard != resource.RLIM_INFINITY and hard < self.configuration.options.connLimit + 100:
            self.log.warn("at most {hard} files may be open, too few for connLimit", hard=hard)

    def _setLogLevel(self, options):
        level = options.logLevel
        logging.getLogger().setLevel(level.upper() if isinstance(level, str) else level)

    def _setRequestLog(self, options):
        form = FORMS.get(options.requestLog)
        self.server.requestLog = form(self.writer) if form else None

    def _takeSignals(self):
        # Twisted's own handling of SIGTERM would end the process by that signal; exit 0 says it was clean.
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.callFromThread(self._terminate))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._hangup))

    def _terminate(self):
        self.log.info("SIGTERM, stopping")
        if self._reactor.running:
            self._reactor.stop()

    def _hangup(self):
        self.reload().addErrback(lambda failure: failure.trap(PPolicyError))

    def _warn(self, warnings):
        for warning in warnings:
            self.log.warn("{warning}", warning=str(warning))

    # Stop

    @inlineCallbacks
    def stopService(self):
        super().stopService()
        server = self.server
        yield DeferredList([maybeDeferred(port.stopListening) for port in self._ports.values()])
        ends = self._reactor.seconds() + GRACE
        while server.bridge.working and self._reactor.seconds() < ends:
            yield deferLater(self._reactor, 0.02)
        if server.bridge.working:
            server.bridge.giveUp("the server is stopping")
            yield deferLater(self._reactor, 0.02)
        for connection in list(server.connections):
            connection.hangUp()
        if self._control is not None:
            yield maybeDeferred(self._control.stopListening)
        server.generation.stop()
        yield _within(self._reactor, server.services.stop(), GRACE)
        server.bridge.stop()
        server.bridge.watch.stop()
        for pool in (server.modulePool, server.policyPool, self._reloadPool):
            pool.stop()
        self.writer.stop()
        garbage.end()
        logging.getLogger().removeHandler(self._logging)
        os.close(self._lock)

    # Reload

    def reload(self):
        """
        Build and start the next generation beside the present one, then swap.

        @return: a Deferred of a dictionary for the control socket; it fails with L{ConfigError} when the new
            configuration is refused, and the present one goes on.
        """
        if self._reloading is not None:
            self._reloadAgain = True  # the file may have changed after it was read
            waiting = Deferred()
            self._reloading.append(waiting)
            return waiting
        self._reloading = []
        return self._reload().addBoth(self._reloaded)

    def _reloaded(self, result):
        waiting, self._reloading = self._reloading, None
        if self._reloadAgain:
            self._reloadAgain = False
            self.reload().addBoth(lambda last: [one.callback(last) for one in waiting] and None)
        return result

    @inlineCallbacks
    def _reload(self):
        server = self.server
        number = server.generation.number + 1
        try:
            generation = yield self._reloadPool.run(self._build, number)
            try:
                ports = self._bind(generation.options.ppolicyPort, self._ports)
            except ConfigError:
                generation.stop()
                raise
        except ConfigError as error:
            self.log.error(
                "reload refused, generation {number} goes on:\n{error}", number=number - 1, error=str(error)
            )
            raise
        old, self._ports = self._ports, ports
        for wanted, port in old.items():
            if wanted not in ports:
                port.stopListening()
        predecessor, server.generation = server.generation, generation
        self.configuration = generation.configuration
        server.cache.resize(generation.options.cacheSize)
        server.services.follow(generation.options)
        self._setLogLevel(generation.options)
        self._setRequestLog(generation.options)
        warnings = [*generation.configuration.warnings, *_notNow(predecessor.options, generation.options)]
        self._warn(warnings)
        self.log.info("generation {number} serves {ports}", number=number, ports=", ".join(self.listeners()))
        server.retire(predecessor)
        return {"generation": number, "warnings": [str(warning) for warning in warnings]}

    def _build(self, number):
        """
        In a thread, because a configuration may take its time.
        """
        configuration = config.load(self.configuration.path)
        self.server.services.prepare(configuration)
        generation = Generation(number, configuration, self.server)
        generation.start(self.server.generation)
        return generation

    def listeners(self):
        """
        The ports as text.
        """
        return [listeners.describe(wanted) for wanted in self._ports]


@implementer(IPersistable)
class _NotSaved:
    """
    twistd pickles an application when it ends, unless told -o; ours has its state elsewhere.
    """

    def setStyle(self, style):
        pass

    def save(self, tag=None, filename=None, passphrase=None):
        pass


def makeService(configuration):
    """
    The service for a configuration that was read and found good.
    """
    return PPolicyService(configuration)


def makeApplication(configuration):
    """
    The Twisted application with the service in it.
    """
    application = Application("ppolicy")
    application.setComponent(IPersistable, _NotSaved())
    makeService(configuration).setServiceParent(application)
    return application


def _target(configuration):
    target = configuration.options.logTarget
    return target if target in ("stdout", "syslog") else configuration.folder / target


def lockFolder(folder):
    """
    Take a state folder for this process: two servers on one would not see each other's changes.

    @return: the lock's file descriptor; closing it, or the end of the process, gives the folder back.
    @raises ConfigError: when another process has it.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.read(lock, 20).decode("ascii", "replace").strip()
        os.close(lock)
        raise ConfigError(f"stateDir: {folder} is in use by another server (pid {pid})") from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode("ascii"))
    return lock


def _result(deferred, wanted):
    """
    What a Deferred that has fired already holds; endpoints of the local host are that quick.
    """
    results = []
    deferred.addBoth(results.append)
    if not results:
        deferred.cancel()
        raise ConfigError(f"ppolicyPort: {wanted.description} is not there at once")
    if isinstance(results[0], Exception) or hasattr(results[0], "getErrorMessage"):
        raise ConfigError(f"ppolicyPort: {wanted.description}: {results[0].getErrorMessage()}")
    return results[0]


def _within(reactor, deferred, seconds):
    """
    The Deferred, but not for longer than that.
    """
    return deferred.addTimeout(seconds, reactor).addErrback(lambda _: None)


def _notNow(old, new):
    return [
        f"{name} has changed: this takes effect when the server is started again"
        for name in AT_START
        if getattr(old, name) != getattr(new, name)
    ]
