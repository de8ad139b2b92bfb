"""
Tests for questions that are answered behind the requests.
"""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.bridge import Bridge, wait
from ppolicy.enquiries import Enquiries
from ppolicy.errors import BackendError


class EnquiriesTests(SynchronousTestCase):
    """
    Work that waits until the test lets it go on.
    """

    def setUp(self):
        self.clock = Clock()
        self.begun = {}

    def make(self, perMinute=100, **more):
        return Enquiries(Bridge(self.clock), self.work, perMinute, **more)

    def work(self, key, *asked):
        self.begun[key] = done = Deferred()
        return wait(done), asked

    def finish(self, key, result):
        done = self.begun[key]
        (done.errback if isinstance(result, Exception) else done.callback)(result)
        self.clock.advance(0)

    def answer(self, enquiries, key):
        results = []
        enquiries.answer(key).addCallback(results.append)
        return results

    def test_once(self):
        """
        Equal questions are asked once, and all who wait get the answer.
        """
        enquiries = self.make()
        self.assertTrue(enquiries.ask("a", 1))
        one = self.answer(enquiries, "a")
        self.assertTrue(enquiries.ask("a", 1))
        two = self.answer(enquiries, "a")
        gone = enquiries.answer("a")
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.assertEqual({"underWay": 1, "waiting": 0}, enquiries.status())
        self.finish("a", "yes")
        self.assertEqual([[("yes", (1,))]] * 2, [one, two])
        self.assertEqual([None], self.answer(enquiries, "a"))
        self.assertEqual({"underWay": 0, "waiting": 0}, enquiries.status())

    def test_atOnce(self):
        """
        Only so many are under way at a time, the next one begins when one is done.
        """
        enquiries = self.make(atOnce=2)
        for key in "abc":
            enquiries.ask(key)
        self.assertEqual(["a", "b"], list(self.begun))
        self.finish("a", None)
        self.assertEqual(["a", "b", "c"], list(self.begun))

    def test_perMinute(self):
        """
        In any minute only so many begin; the others wait for their turn.
        """
        enquiries = self.make(perMinute=2)
        enquiries.ask("a")
        self.clock.advance(20)
        for key in "bcd":
            enquiries.ask(key)
        for key in "ab":
            self.finish(key, None)
        self.assertEqual(["a", "b"], list(self.begun))
        self.clock.advance(39.9)
        self.assertEqual(["a", "b"], list(self.begun))
        self.clock.advance(0.2)
        self.assertEqual(["a", "b", "c"], list(self.begun))
        self.clock.advance(20)
        self.assertEqual(["a", "b", "c", "d"], list(self.begun))

    def test_bound(self):
        """
        Only so many wait; one too many is told, one that waits already is not.
        """
        enquiries = self.make(atOnce=1, most=2)
        self.assertEqual([True, True, True, False, True], [enquiries.ask(key) for key in "abcdc"])
        self.finish("a", None)
        self.assertTrue(enquiries.ask("d"))

    def test_failure(self):
        """
        What fails gives no answer and is logged; what takes too long gives none either.
        """
        enquiries = self.make(seconds=5)
        enquiries.ask("a")
        enquiries.ask("b")
        one, two = self.answer(enquiries, "a"), self.answer(enquiries, "b")
        self.finish("a", BackendError("trouble"))
        self.assertEqual([None], one)
        self.assertEqual(1, len(self.flushLoggedErrors(BackendError)))
        for _ in range(60):
            self.clock.advance(0.1)
        self.assertEqual([None], two)
        self.assertEqual({"underWay": 0, "waiting": 0}, enquiries.status())

    def test_stop(self):
        """
        What waits when it stops is not begun any more, and nothing is left in the reactor.
        """
        enquiries = self.make(perMinute=1)
        enquiries.ask("a")
        self.finish("a", None)
        enquiries.ask("b")
        waiting = self.answer(enquiries, "b")
        enquiries.stop()
        self.assertEqual([None], waiting)
        self.assertFalse(enquiries.ask("c"))
        self.clock.advance(120)
        self.assertEqual(["a"], list(self.begun))
        self.assertEqual([], self.clock.getDelayedCalls())


@pytest.mark.parametrize("wanted", [1, 7])
def test_synchronous(wanted):
    """
    Work that need not wait is done in its turn, too.
    """
    clock, done = Clock(), []
    enquiries = Enquiries(Bridge(clock), done.append, perMinute=100, atOnce=1)
    for number in range(wanted):
        assert enquiries.ask(number)
    clock.advance(0)
    assert done == list(range(wanted))
