"""
Tests for the pool of worker threads.
"""

import threading

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ppolicy.bridge import Bridge, inReactor, wait
from ppolicy.errors import DeadlineExceeded, Overload, WaitError
from ppolicy.threads import ThreadPool


class ThreadPoolTests(TestCase):
    """
    Real threads with the real reactor.
    """

    def setUp(self):
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)
        self.pool = ThreadPool(self.bridge, "test", 2)
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)
        self.addCleanup(self.pool.stop)

    def inGreenlet(self, function, timeout=5.0):
        return self.bridge.run(function, timeout=timeout)

    @inlineCallbacks
    def test_result(self):
        """
        The result of a call in a thread comes back, and so does its exception.
        """
        name = yield self.inGreenlet(lambda: wait(self.pool.run(lambda: threading.current_thread().name)))
        self.assertEqual("ppolicy test", name)
        yield self.assertFailure(self.inGreenlet(lambda: wait(self.pool.run(lambda: 1 / 0))), ZeroDivisionError)
        self.assertEqual((0, 0), (self.pool.busy, self.pool.writtenOff))

    @inlineCallbacks
    def test_queued(self):
        """
        Calls beyond the number of threads wait for their turn.
        """
        results = [self.inGreenlet(lambda n=n: wait(self.pool.run(self._gated, n))) for n in range(4)]
        yield deferLater(reactor, 0.05)
        self.assertEqual(2, self.pool.busy)
        self.gate.set()
        got = []
        for result in results:
            got.append((yield result))
        self.assertEqual([0, 1, 2, 3], got)

    def _gated(self, value):
        self.gate.wait(20)
        return value

    @inlineCallbacks
    def test_overload(self):
        """
        Beyond threads and queue a call is refused at once.
        """
        results = [self.inGreenlet(lambda n=n: wait(self.pool.run(self._gated, n))) for n in range(4)]
        yield self.assertFailure(self.inGreenlet(lambda: self.pool.run(self._gated, 9)), Overload)
        self.gate.set()
        yield gatherResults(results)

    @inlineCallbacks
    def test_writtenOff(self):
        """
        A thread that passes the deadline is written off, others take its place, and up to a bound only.
        """
        for _ in range(2):
            yield self.assertFailure(
                self.inGreenlet(lambda: wait(self.pool.run(self._gated, 1)), timeout=0.05), DeadlineExceeded
            )
        self.assertEqual((0, 2), (self.pool.busy, self.pool.writtenOff))
        yield self.assertFailure(self.inGreenlet(lambda: self.pool.run(self._gated, 9)), Overload)
        self.gate.set()
        yield deferLater(reactor, 0.1)
        self.assertEqual((0, 0), (self.pool.busy, self.pool.writtenOff))
        result = yield self.inGreenlet(lambda: wait(self.pool.run(lambda: "again")))
        self.assertEqual("again", result)

    @inlineCallbacks
    def test_writtenOffInQueue(self):
        """
        A call whose time is up before a thread was free is never made.
        """
        made = []
        busy = [self.inGreenlet(lambda n=n: wait(self.pool.run(self._gated, n))) for n in range(2)]
        yield self.assertFailure(
            self.inGreenlet(lambda: wait(self.pool.run(made.append, 1)), timeout=0.05), DeadlineExceeded
        )
        self.gate.set()
        yield gatherResults(busy)
        yield deferLater(reactor, 0.05)
        self.assertEqual([], made)
        self.assertEqual((0, 0), (self.pool.busy, self.pool.writtenOff))

    @inlineCallbacks
    def test_waitInThread(self):
        """
        wait() in a worker thread blocks that thread, until the request's deadline at most.
        """

        def work():
            return wait(deferLater(reactor, 0.01, lambda: "waited"))

        self.assertEqual("waited", (yield self.inGreenlet(lambda: wait(self.pool.run(work)))))

        def tooLong():
            try:
                wait(deferLater(reactor, 60), 0.05)
            except TimeoutError:
                return "timed out"

        self.assertEqual("timed out", (yield self.inGreenlet(lambda: wait(self.pool.run(tooLong)))))

    @inlineCallbacks
    def test_noWaitOutsideRequests(self):
        """
        A thread that works for no request, such as a reload, may not wait().
        """
        deferred = self.pool.run(lambda: wait(Deferred()))
        yield self.assertFailure(deferred, WaitError)

    @inlineCallbacks
    def test_serviceFromThread(self):
        """
        A service's method called in a worker thread runs in the reactor's thread, and may wait there.
        """
        bridge = self.bridge

        class Service:
            def __init__(self):
                self.bridge = bridge

            @inReactor
            def method(self, value):
                wait(deferLater(reactor, 0.01))
                return value, threading.current_thread() is threading.main_thread()

        service = Service()
        result = yield self.inGreenlet(lambda: wait(self.pool.run(service.method, 5)))
        self.assertEqual((5, True), result)
