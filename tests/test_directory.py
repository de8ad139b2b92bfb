"""
Tests for asking several servers from threads.
"""

import threading

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ppolicy import directory
from ppolicy.bridge import Bridge
from ppolicy.directory import Directory, Lost
from ppolicy.errors import BackendError


class FakeSession:
    """
    A session with a server of L{Net}.
    """

    def __init__(self, net, server):
        self.net = net
        self.server = server
        self.used = 0.0
        self.usable = True
        net.sessions.append(self)

    def isUsable(self):
        return self.usable

    def close(self):
        self.net.closed.append(self)


class Net:
    """
    Servers as a test wants them.

    @ivar down: servers that take no connection.
    @ivar hanging: servers at which connecting ends when C{gate} is set.
    """

    def __init__(self):
        self.down, self.hanging = set(), set()
        self.gate = threading.Event()
        self.sessions, self.closed, self.tried = [], [], []

    def connect(self, server, seconds):
        self.tried.append(server)
        if server in self.hanging:
            self.gate.wait(20)
        if server in self.down:
            raise Lost(f"{server}: is down")
        return FakeSession(self, server)


class DirectoryTests(TestCase):
    """
    Real threads with the real reactor, and servers that do what they are told.
    """

    timeout = 30

    def setUp(self):
        self.net = Net()
        self.addCleanup(self.net.gate.set)
        self.patch(directory, "RETRY", 0.05)
        self.patch(Lost.__init__, "__defaults__", (0.05,))
        self.patch(directory, "_GRACE", 0.1)
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)
        self.directory = self.made()

    def made(self, size=2, seconds=5.0):
        made = Directory(self.bridge, "test", ["a", "b"], self.net.connect, size, seconds, seconds)
        self.addCleanup(made.stop)
        return made

    def where(self):
        return self.directory.ask(lambda session, seconds: session.server)

    @inlineCallbacks
    def until(self, condition):
        end = reactor.seconds() + 10
        while not condition():
            self.assertLess(reactor.seconds(), end, "it takes too long")
            yield deferLater(reactor, 0.01)

    @inlineCallbacks
    def test_kept(self):
        """
        The first server is asked, and its session is used again.
        """
        for _ in range(3):
            self.assertEqual("a", (yield self.where()))
        self.assertEqual(["a"], self.net.tried)

    @inlineCallbacks
    def test_order(self):
        """
        A server that fails goes to the end of the order; one that answers stays in front.
        """
        self.net.down = {"a"}
        self.assertEqual("b", (yield self.where()))
        self.assertEqual(("b", "a"), self.directory.servers)
        self.net.down, self.net.tried = set(), []
        self.net.sessions[0].usable = False
        self.assertEqual("b", (yield self.where()))
        self.assertEqual(["b"], self.net.tried)

    @inlineCallbacks
    def test_status(self):
        """
        A directory is well while one server is; why another was of no use is told beside it, until it is of use.
        """
        self.net.down = {"a"}
        yield self.where()
        status = self.directory.status()
        self.assertEqual(
            (None, 1, 0, 0), tuple(status[one] for one in ("problem", "sessions", "working", "waiting"))
        )
        self.assertEqual({"b": {"lastTrouble": None}, "a": {"lastTrouble": "a: is down"}}, status["servers"])
        self.net.down = {"a", "b"}
        self.net.sessions[0].usable = False
        yield self.assertFailure(self.where(), BackendError)
        self.assertIn("is down", self.directory.status()["problem"])
        self.net.down = set()
        yield self.until(lambda: not self.directory.broken)
        self.assertIsNone(self.directory.status()["problem"])

    @inlineCallbacks
    def test_stale(self):
        """
        A session that the server has closed, or that was idle for long, is not used.
        """
        yield self.where()
        self.net.sessions[0].usable = False
        yield self.where()
        self.assertEqual(self.net.sessions[:1], self.net.closed)
        self.net.sessions[1].used -= directory.IDLE + 1
        yield self.where()
        self.assertEqual((3, self.net.sessions[:2]), (len(self.net.sessions), self.net.closed))

    @inlineCallbacks
    def test_lostWhileAsked(self):
        """
        When a kept session turns out to be lost the question is asked once more, of the other server first.
        """
        yield self.where()

        def ask(session, seconds):
            if session is self.net.sessions[0]:
                raise Lost("gone")
            return session.server

        self.assertEqual("b", (yield self.directory.ask(ask)))
        self.assertEqual(self.net.sessions[:1], self.net.closed)

    @inlineCallbacks
    def test_lostAlways(self):
        """
        A question that every session is lost over is asked at most once a session, and fails.
        """
        asked = []

        def ask(session, seconds):
            asked.append(session.server)
            raise Lost("gone")

        yield self.assertFailure(self.directory.ask(ask), BackendError)
        self.assertEqual(["a", "b"], asked)

    @inlineCallbacks
    def test_questionFails(self):
        """
        An error that is about the question alone keeps the session, and closes no breaker.
        """

        def ask(session, seconds):
            raise BackendError("not this")

        error = yield self.assertFailure(self.directory.ask(ask), BackendError)
        self.assertEqual("not this", str(error))
        yield self.where()
        self.assertEqual((1, [], False), (len(self.net.sessions), self.net.closed, self.directory.broken))

    @inlineCallbacks
    def test_breaker(self):
        """
        While no server answers questions fail at once; when one does they are asked again, without a restart.
        """
        self.net.down = {"a", "b"}
        error = yield self.assertFailure(self.where(), BackendError)
        self.assertEqual("b: is down", str(error))
        self.assertTrue(self.directory.broken)
        self.failureResultOf(self.where(), BackendError)
        yield self.until(lambda: len(self.net.tried) >= 6)
        self.net.down = {"a"}
        yield self.until(lambda: not self.directory.broken)
        self.assertEqual("b", (yield self.where()))
        self.assertIsNone(self.directory.problem)

    @inlineCallbacks
    def test_waitingFails(self):
        """
        What waits while the breaker opens fails with it.
        """
        self.net.hanging = self.net.down = {"a", "b"}
        asked = [self.assertFailure(self.where(), BackendError) for _ in range(6)]
        self.net.gate.set()
        for one in asked:
            self.assertIn("is down", str((yield one)))

    @inlineCallbacks
    def test_hangs(self):
        """
        A thread that hangs is given up in time; the other server answers, by a probe of its own.
        """
        self.directory = self.made(size=1, seconds=0.2)
        self.net.hanging = {"a"}
        begin = reactor.seconds()
        error = yield self.assertFailure(self.where(), BackendError)
        self.assertIn("no answer within 0.2 s", str(error))
        self.assertLess(reactor.seconds() - begin, 5)
        yield self.until(lambda: not self.directory.broken)
        self.assertEqual("b", (yield self.where()))
        late = len(self.net.closed)
        self.net.gate.set()
        yield self.until(lambda: len(self.net.closed) > late)
        self.assertEqual("a", self.net.closed[-1].server)

    @inlineCallbacks
    def test_allHang(self):
        """
        Servers that hang for ever take no more threads than may be written off, and it ends when they do.
        """
        self.directory = self.made(size=1, seconds=0.05)
        self.net.hanging = {"a", "b"}
        before = threading.active_count()
        for _ in range(5):
            yield self.assertFailure(self.where(), BackendError)
            yield deferLater(reactor, 0.2)
        self.assertLessEqual(threading.active_count() - before, 3)
        self.net.gate.set()
        yield self.until(lambda: not self.directory.broken)

    @inlineCallbacks
    def test_bounds(self):
        """
        There are as many sessions as are allowed, and no more questions wait than that.
        """
        self.patch(directory, "QUEUE", 3)
        self.net.hanging = {"a"}
        asked = [self.where() for _ in range(5)]
        error = self.failureResultOf(self.where(), BackendError).value
        self.assertEqual("test: 3 questions are waiting already", str(error))
        self.net.gate.set()
        for one in asked:
            self.assertEqual("a", (yield one))
        self.assertEqual(2, len(self.net.sessions))

    @inlineCallbacks
    def test_givenUp(self):
        """
        A question whose asker has given up is not asked any more.
        """
        self.directory = self.made(size=1)
        self.net.hanging, asked = {"a"}, []
        first = self.where()
        given = self.directory.ask(lambda session, seconds: asked.append(1))
        given.addErrback(lambda _: None)
        given.cancel()
        self.net.gate.set()
        yield first
        yield self.where()
        self.assertEqual([], asked)

    @inlineCallbacks
    def test_bug(self):
        """
        What is raised that is no trouble of a server comes to who asked, and the next question is asked as ever.
        """
        yield self.assertFailure(self.directory.ask(lambda session, seconds: 1 / 0), ZeroDivisionError)
        self.assertEqual("a", (yield self.where()))

    @inlineCallbacks
    def test_stop(self):
        """
        Stopped, it closes its sessions, also those of questions under way, and takes no question.
        """
        yield self.where()
        gate = threading.Event()
        self.addCleanup(gate.set)
        busy = self.directory.ask(lambda session, seconds: gate.wait(20))
        yield deferLater(reactor, 0.05)
        self.directory.stop()
        self.failureResultOf(self.where(), BackendError)
        gate.set()
        yield busy
        self.assertEqual(self.net.sessions, self.net.closed)

    @inlineCallbacks
    def test_stopWhileBroken(self):
        """
        Stopped, it probes no more.
        """
        self.net.down = {"a", "b"}
        yield self.assertFailure(self.where(), BackendError)
        self.directory.stop()
        tried = len(self.net.tried)
        yield deferLater(reactor, 0.2)
        self.assertEqual(tried, len(self.net.tried))
