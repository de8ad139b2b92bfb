"""
Start and stop everything, in order: ports, state, the first generation; reload.
"""

import logging
import os
import resource
import sys
import time

from twisted.application.service import Application, Service
from twisted.internet.defer import Deferred, fail, inlineCallbacks, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.persisted.sob import IPersistable
from zope.interface import implementer

from ppolicy import __version__, config, garbage, inherited, listeners, logoption, privileges, signals, statefolder
from ppolicy.control import ControlListener
from ppolicy.errors import ConfigError, PPolicyError
from ppolicy.generation import Generation
from ppolicy.logs import ToTwisted
from ppolicy.notify import Supervisor
from ppolicy.options import AT_START
from ppolicy.ports import Ports
from ppolicy.privacy import Privacy, readKey
from ppolicy.protocol import PolicyListener
from ppolicy.requestlog import FORMS, RequestLog
from ppolicy.server import Server
from ppolicy.services import Services, openDatabase
from ppolicy.statefolder import controlPath, stateFolder
from ppolicy.threads import ThreadPool
from ppolicy.timers import Timers
from ppolicy.verbs import Verbs
from ppolicy.writer import LineWriter

# Seconds that a stopping server gives the requests it is working on.
GRACE = 5.0
# Seconds of these for a connection that has sent nothing yet: Postfix connects when it has something to ask.
FIRST_REQUEST = 1.0
SWITCH = 0.0005


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
        self._supervisor = None
        self._timers = None
        self._inherited = None
        self._ports = None
        self._control = None
        self._metrics = None
        self._lock = None
        self._folder = None  # of the state, which a reload does not change
        self.writer = None
        self._logging = None
        self.started = time.time()
        self.refusal = None  # of the last reload
        self._reloadPool = None
        self._reloading = None
        self._reloadAgain = False

    # Start

    def privilegedStartService(self):
        signals.hold()
        self._supervisor = Supervisor()
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        # Deadlines must not jump when the wall clock is set; the reactor takes its clock from here.
        self._reactor.seconds = time.monotonic
        # A busy worker thread must not keep the interpreter from the reactor for long.
        sys.setswitchinterval(SWITCH)
        if self.configuration.options.metrics is not None:
            # An extra. Later it is another user who would have to read it.
            from ppolicy import metrics  # noqa: F401
        self.server = Server(self._reactor, self.configuration.options)
        self._raiseFileLimit()
        self._inherited = inherited.take()
        self._ports = Ports(self._reactor, self._inherited, lambda: PolicyListener(self.server))
        wanted = self.configuration.options.ppolicyPort, self.configuration.folder
        unclaimed = self._ports.unclaimed(*wanted)
        if unclaimed:
            raise ConfigError(*unclaimed)
        self._ports.use(self._ports.bind(*wanted))

    def startService(self):
        try:
            self._startAll()
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None
        super().startService()
        self._reactor.callWhenRunning(self._serving)

    def _startAll(self):
        configuration, options, server = self.configuration, self.configuration.options, self.server
        self._logging = ToTwisted()
        logging.getLogger().addHandler(self._logging)
        self._setLogLevel(options)
        self._folder = stateFolder(configuration)
        self._takeFolder(options, self._folder)
        self.writer = LineWriter(_target(configuration))
        try:
            self.writer.start()
        except OSError as error:
            raise ConfigError(f"logTarget: {self.writer.target}: {error.strerror}") from None
        self._tellDecisions(options, self._privacy(options))
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

    def _takeFolder(self, options, folder):
        """
        The last thing done as root is to see to the state folder.
        """
        account = privileges.account(options)
        if account is None:
            statefolder.make(folder)
            if os.geteuid() == 0:
                self.log.warn("running as root; set the option user to run without its privileges")
        else:
            user, group, _ = account
            statefolder.make(folder, user, group)
            privileges.become(*account)
        self._lock = statefolder.lockFolder(folder)

    def _listenControl(self, path):
        verbs = Verbs(self)
        self._control = listeners.listen(
            self._reactor,
            listeners.Unix(path, 0o660, -1, -1),
            ControlListener(verbs.table(), verbs.streams()),
            "controlSocket",
        )
        if self.configuration.options.metrics is not None:
            from ppolicy import metrics

            self._metrics = metrics.listen(self._reactor, self, verbs)

    def _raiseFileLimit(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if hard != resource.RLIM_INFINITY and hard < self.configuration.options.connLimit + 100:
            self.log.warn("at most {hard} files may be open, too few for connLimit", hard=hard)

    def _setLogLevel(self, options):
        level = options.logLevel
        logging.getLogger().setLevel(level.upper() if isinstance(level, str) else level)

    def _privacy(self, options):
        return Privacy(readKey(self._folder)) if options.privacy == "hash" else None

    def _tellDecisions(self, options, privacy):
        """
        Who is told of decisions, and how much.
        """
        form = FORMS.get(options.requestLog)
        decisions = self.server.decisions
        decisions.conceal(privacy)
        decisions.log = RequestLog(self.writer, form) if form else None
        decisions.history.resize(options.historySize)

    def _serving(self):
        """
        The reactor turns: whoever started the server may know.
        """
        supervisor = self._supervisor
        supervisor.ready(self.summary())
        if supervisor.interval is not None:
            self._timers = Timers(self.server.bridge)
            self._timers.every(supervisor.interval, lambda: supervisor.alive(self.summary()))
        signals.take(self._reactor, self._terminate, self._hangup)

    def summary(self):
        """
        What the server does, in one line.
        """
        server = self.server
        refused = ", the last reload was refused" if self.refusal else ""
        connections = f"{len(server.connections)} connections"
        return f"generation {server.generation.number} serves {self._ports}; {connections}{refused}"

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
        self._supervisor.stopping(3 * GRACE)
        yield self._ports.stop()
        yield self._finish()
        for port in (self._control, self._metrics):
            if port is not None:
                yield maybeDeferred(port.stopListening)
        server.generation.stop()
        yield _within(self._reactor, server.services.stop(), GRACE)
        server.bridge.stop()
        server.bridge.watch.stop()
        for pool in (server.modulePool, server.policyPool, self._reloadPool):
            pool.stop()
        server.decisions.settle()
        self.writer.stop()
        if self._timers is not None:
            self._timers.stop()
        garbage.end()
        logging.getLogger().removeHandler(self._logging)
        os.close(self._lock)

    @inlineCallbacks
    def _finish(self):
        """
        Answer what has come in, for some seconds, and close each connection as soon as it is owed nothing.
        """
        server = self.server
        begun = self._reactor.seconds()
        waited = 0.0
        while (server.connections or server.bridge.working) and waited < GRACE:
            for connection in list(server.connections):
                connection.finish(waited > FIRST_REQUEST)
            yield deferLater(self._reactor, 0.02)
            waited = self._reactor.seconds() - begun
        for connection in list(server.connections) if self._inherited.sockets else ():
            # Without an answer, Postfix asks again; it will be heard, because it can connect.
            connection.transport.abortConnection()
        server.bridge.giveUp("the server is stopping")
        yield deferLater(self._reactor, 0.02)
        for connection in list(server.connections):
            connection.hangUp()

    # Reload

    def reload(self):
        """
        Build and start the next generation beside the present one, then swap.

        @return: a Deferred of a dictionary for the control socket; it fails with L{ConfigError} when the new
            configuration is refused, and the present one goes on.
        """
        if not self.running:
            return fail(PPolicyError("the server is stopping, nothing was reloaded"))
        if self._reloading is not None:
            self._reloadAgain = True  # the file may have changed after it was read
            waiting = Deferred()
            self._reloading.append(waiting)
            return waiting
        self._reloading = []
        self._supervisor.reloading()
        return self._reload().addBoth(self._reloaded)

    def _reloaded(self, result):
        waiting, self._reloading = self._reloading, None
        if self.running:
            self._supervisor.ready(self.summary())
        if self._reloadAgain:
            self._reloadAgain = False
            self.reload().addBoth(lambda last: [one.callback(last) for one in waiting] and None)
        return result

    @inlineCallbacks
    def _reload(self):
        server = self.server
        self.writer.reopen()
        number = server.generation.number + 1
        try:
            generation, privacy = yield self._reloadPool.run(self._build, number)
            try:
                if not self.running:
                    raise ConfigError("the server is stopping")
                wanted = generation.options.ppolicyPort, generation.configuration.folder
                ports = self._ports.bind(*wanted)
            except ConfigError:
                generation.stop()
                raise
        except ConfigError as error:
            self.refusal = f"the last one was refused: {error}"
            self.log.error(
                "reload refused, generation {number} goes on:\n{error}", number=number - 1, error=str(error)
            )
            raise
        self._ports.use(ports)
        self.refusal = None
        predecessor, server.generation = server.generation, generation
        generation.countOn(predecessor)
        self.configuration = generation.configuration
        server.cache.resize(generation.options.cacheSize)
        server.services.follow(generation.options)
        self._setLogLevel(generation.options)
        self._tellDecisions(generation.options, privacy)
        warnings = [*generation.configuration.warnings, *_notNow(predecessor.options, generation.options)]
        warnings += [
            f"{sentence}; until then its connections wait for ever" for sentence in self._ports.unclaimed(*wanted)
        ]
        self._warn(warnings)
        self.log.info("generation {number} serves {ports}", number=number, ports=", ".join(self.listeners()))
        server.retire(predecessor)
        return {"generation": number, "warnings": [str(warning) for warning in warnings]}

    def _build(self, number):
        """
        In a thread, because a configuration may take its time.
        """
        configuration = config.load(self.configuration.path)
        privacy = self._privacy(configuration.options)
        self.server.services.prepare(configuration)
        generation = Generation(number, configuration, self.server)
        generation.start(self.server.generation)
        return generation, privacy

    def listeners(self):
        """
        The ports as text.
        """
        return self._ports.described() if self._ports is not None else []


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
    options = configuration.options
    return logoption.parse(options.logTarget, configuration.folder, options.domain)


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
