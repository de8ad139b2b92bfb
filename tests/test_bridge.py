"""
Tests for the bridge: waiting in greenlets.
"""

import gc
import weakref
from contextvars import ContextVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.bridge import Bridge, currentRequest, inReactor, timeLeft, wait, waitAll
from ppolicy.errors import DeadlineExceeded, WaitError


class BridgeTests(SynchronousTestCase):
    """
    Each test has a bridge on a clock of its own, and a list that the work writes into.
    """

    def setUp(self):
        self.clock = Clock()
        self.bridge = Bridge(self.clock)
        self.seen = []

    def start(self, function, timeout=30.0, after=None):
        return self.bridge.start(lambda _: self.seen.append(function()), None, timeout, after)

    def caught(self, function, *kinds):
        """
        A function that gives what it raised.
        """

        def work():
            try:
                return function()
            except kinds or (Exception, DeadlineExceeded) as error:
                return error

        return work

    def test_atOnce(self):
        """
        Work that waits for nothing is done when start() returns.
        """
        self.assertTrue(self.start(lambda: 1))
        self.assertEqual([1], self.seen)
        self.assertEqual(0, self.bridge.working)

    def test_failureIsFreed(self):
        """
        What a failed wait has raised is freed with the request, without the garbage collector.
        """

        class Refused(Exception):
            """One that can be looked at weakly."""

        def failing():
            try:
                wait(fired)
            except Refused as error:
                return weakref.ref(error)

        gc.disable()
        self.addCleanup(gc.enable)
        for late in (True, False):
            fired = Deferred() if late else fail(Refused())
            self.start(failing)
            if late:
                fired.errback(Refused())
                self.clock.advance(0)
            self.assertIsNone(self.seen.pop()(), late)

    def test_giveWay(self):
        """
        In a round that takes long, work that will take long lets the others of the round go first.
        """
        for seconds, order in ((0.0, ["much", "other"]), (0.01, ["other", "much"])):
            self.seen.clear()
            outer = self.bridge.begin()
            self.clock.advance(seconds)
            self.start(lambda: self.bridge.giveWay() or "much")
            self.start(lambda: "other")
            self.bridge.end(outer)
            self.clock.advance(0)
            self.assertEqual(order, self.seen)
            self.assertEqual(0, self.bridge.working)

    def test_giveWayToNobody(self):
        """
        Outside of a round there is nobody to let go first.
        """
        self.clock.advance(5)
        self.assertTrue(self.start(lambda: self.bridge.giveWay() or "much"))
        self.bridge.giveWay()
        self.assertEqual(["much"], self.seen)

    def test_newcomers(self):
        """
        Between pieces of work that had to wait, requests begin that have come meanwhile.
        """

        def newcomers():
            self.seen.append("newcomers")
            self.bridge.looked()

        def work(number):
            wait(fired[number])
            self.clock.advance(0.00015)
            return number

        self.bridge.newcomers = newcomers
        fired = [Deferred() for _ in range(2)]
        for number in range(2):
            self.start(lambda number=number: work(number))
        for one in fired:
            one.callback(None)
        self.clock.advance(0)
        self.assertEqual([0, "newcomers", 1, "newcomers"], self.seen)
        self.bridge.breathe()  # nobody can have come since
        self.assertEqual(4, len(self.seen))
        self.clock.advance(1)
        self.bridge.breathe()
        self.assertEqual(5, len(self.seen))

    def test_atEnd(self):
        """
        What is left for the end of a round is done once, whatever goes wrong with other parts of it.
        """
        outer = self.bridge.begin()
        self.bridge.atEnd(lambda: self.seen.append("one"))
        self.bridge.atEnd(lambda: 1 / 0)
        self.bridge.atEnd(lambda: self.seen.append("two"))
        self.assertEqual([], self.seen)
        self.bridge.end(outer)
        self.assertEqual(["one", "two"], self.seen)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.bridge.atEnd(lambda: self.seen.append("three"))
        self.clock.advance(0)
        self.assertEqual(["one", "two", "three"], self.seen)

    def test_firedAlready(self):
        """
        A Deferred that has fired costs no wait.
        """
        self.assertTrue(self.start(lambda: wait(succeed(2))))
        self.assertEqual([2], self.seen)

    def test_failedAlready(self):
        """
        The exception of a failed Deferred is raised where it is waited for.
        """
        self.start(self.caught(lambda: wait(fail(ValueError("no")))))
        self.assertIsInstance(self.seen[0], ValueError)

    def test_waits(self):
        """
        Work goes on when the Deferred fires, and tells its end.
        """
        deferred, ended = Deferred(), []
        self.assertFalse(self.start(lambda: wait(deferred), after=lambda: ended.append(True)))
        self.assertEqual(1, self.bridge.working)
        deferred.callback("late")
        self.assertEqual([], self.seen)  # resumed from the reactor's greenlet only
        self.clock.advance(0)
        self.assertEqual((["late"], [True], 0), (self.seen, ended, self.bridge.working))

    def test_firedByOtherWork(self):
        """
        Work that fires what other work waits for goes on first; the other is resumed by the reactor.
        """
        deferred, order = Deferred(), []
        self.bridge.start(lambda _: order.append(wait(deferred)), None, 30)

        def fire(_):
            deferred.callback("second")
            order.append("first")

        self.bridge.start(fire, None, 30)
        self.clock.advance(0)
        self.assertEqual(["first", "second"], order)

    def test_timeout(self):
        """
        After its timeout a wait raises TimeoutError, and the Deferred is cancelled.
        """
        cancelled = []
        deferred = Deferred(cancelled.append)
        self.start(self.caught(lambda: wait(deferred, 2)))
        self.clock.advance(1.9)
        self.assertEqual([], self.seen)
        self.clock.advance(0.2)
        self.clock.advance(0)
        self.assertIsInstance(self.seen[0], TimeoutError)
        self.assertEqual([deferred], cancelled)

    def test_deadline(self):
        """
        The request's deadline ends a wait whatever its own timeout, with an exception no module catches.
        """
        self.start(self.caught(lambda: self.caught(lambda: wait(Deferred(), 50), Exception)()), timeout=3)
        self.clock.advance(3)
        self.clock.advance(0)
        self.assertIsInstance(self.seen[0], DeadlineExceeded)

    def test_waitBeyondDeadline(self):
        """
        Once the deadline has passed, every further wait raises at once.
        """

        def work():
            first = self.caught(lambda: wait(Deferred()))()
            return [first, self.caught(lambda: wait(Deferred()))()]

        self.start(work, timeout=1)
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual([DeadlineExceeded] * 2, [type(error) for error in self.seen[0]])

    def test_giveUp(self):
        """
        Every wait can be ended at once, and what waited goes on to its end.
        """
        for _ in range(3):
            self.start(self.caught(lambda: wait(Deferred())))
        self.bridge.giveUp("stopping")
        self.clock.advance(0)
        self.assertEqual([DeadlineExceeded] * 3, [type(error) for error in self.seen])
        self.assertEqual(0, self.bridge.working)

    def test_lateResult(self):
        """
        A result that comes after the timeout resumes nobody, and its failure is not left unhandled.
        """
        deferred = Deferred()
        self.start(self.caught(lambda: wait(deferred, 1)))
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual(1, len(self.seen))
        deferred.callback(None)
        self.clock.advance(5)
        self.assertEqual(1, len(self.seen))
        self.assertEqual([], self.flushLoggedErrors())

    def test_firesAsTimeRunsOut(self):
        """
        A Deferred that fires in the same turn as the timeout resumes the work once.
        """
        deferred = Deferred()
        self.start(self.caught(lambda: wait(deferred, 1)))
        self.clock.callLater(1, deferred.callback, "value")
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual(1, len(self.seen))
        self.assertEqual(0, self.bridge.working)

    def test_waitAll(self):
        """
        Many are waited for at once; one that fails, or is late, gives its exception in its place.
        """
        quick, never = Deferred(), Deferred()
        self.start(lambda: waitAll([quick, succeed(1), fail(KeyError("k")), never], 2))
        quick.callback("q")
        self.clock.advance(2)
        self.clock.advance(0)
        first, second, third, fourth = self.seen[0]
        self.assertEqual(("q", 1), (first, second))
        self.assertEqual([KeyError, TimeoutError], [type(third), type(fourth)])

    def test_waitAllNone(self):
        """
        Waiting for nothing is done at once.
        """
        self.start(lambda: waitAll([]))
        self.assertEqual([[]], self.seen)

    def test_waitElsewhere(self):
        """
        Where nothing may wait, wait() says so.
        """
        self.assertRaises(WaitError, wait, Deferred())

    def test_slices(self):
        """
        When much work goes on at the same moment, the reactor comes to its sockets in between.
        """
        fired = Deferred()

        def work(number):
            wait(gates[number])
            self.clock.rightNow += 0.001
            return number

        gates = [Deferred() for _ in range(4)]
        for number in range(4):
            self.start(lambda number=number: work(number))
        for gate in gates:
            gate.callback(None)
        self.clock.callLater(0, fired.callback, None)
        fired.addCallback(lambda _: self.seen.append("reactor"))
        for _ in range(4):
            self.clock.advance(0)
        self.assertEqual([0, "reactor", 1, 2, 3], self.seen)
        self.assertEqual(0, self.bridge.working)

    def test_context(self):
        """
        Work sees the context variables of who started it, and what it sets is gone with it.
        """
        variable = ContextVar("variable", default=0)
        variable.set(7)

        def work():
            before = variable.get()
            variable.set(8)
            return before

        self.start(work)
        self.start(work)
        self.assertEqual([7, 7], self.seen)
        self.assertEqual(7, variable.get())

    def test_currentRequest(self):
        """
        The running code can ask what it works for, and how long it has.
        """
        self.bridge.start(lambda data: self.seen.append((currentRequest(), timeLeft())), {"a": "b"}, 5)
        self.assertEqual([({"a": "b"}, 5.0)], self.seen)
        self.assertIsNone(currentRequest())
        self.assertIsNone(timeLeft())

    def test_workRaises(self):
        """
        Work that raises, be it SystemExit, is logged; the greenlet serves on.
        """

        def exit(_):
            raise SystemExit(3)

        self.assertTrue(self.bridge.start(exit, None, 30))
        self.assertEqual(1, len(self.flushLoggedErrors(SystemExit)))
        self.assertTrue(self.start(lambda: 4))
        self.assertEqual([4], self.seen)

    def test_pooled(self):
        """
        Greenlets are used again: as many as wait at once are enough.
        """
        for _ in range(50):
            self.start(lambda: 1)
        self.assertEqual(1, len(self.bridge._pool))

    def test_run(self):
        """
        run() gives the result as a Deferred.
        """
        deferred = Deferred()
        result = self.bridge.run(lambda one: one + wait(deferred), 1)
        self.assertNoResult(result)
        deferred.callback(2)
        self.clock.advance(0)
        self.assertEqual(3, self.successResultOf(result))
        self.failureResultOf(self.bridge.run(lambda: 1 / 0), ZeroDivisionError)

    def test_startedInsideWork(self):
        """
        run() called by work starts the other work from the reactor's greenlet.
        """
        self.start(lambda: wait(self.bridge.run(lambda: "inner")))
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(["inner"], self.seen)

    def test_watchHeldBack(self):
        """
        Methods of services run with the watchdog held back, and waiting disarms it as well.
        """
        watch = self.bridge.watch
        bridge = self.bridge
        deferred = Deferred()

        class Service:
            def __init__(self):
                self.bridge = bridge

            @inReactor
            def method(self):
                return watch.armed

        def work():
            watch.armed = True
            inside = Service().method()
            wait(deferred)
            return inside, watch.armed

        self.start(work)
        self.assertFalse(watch.armed)
        deferred.callback(None)
        self.clock.advance(0)
        self.assertEqual([(False, True)], self.seen)
