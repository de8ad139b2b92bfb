"""
Tests for the Sleep check module.
"""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.bridge import Bridge
from ppolicy.errors import ConfigError
from ppolicy.testing import make


class SleepTests(SynchronousTestCase):
    """
    Time is that of a clock; nobody really sleeps.
    """

    def setUp(self):
        self.clock = Clock()
        self.bridge = Bridge(self.clock)

    def sleep(self, timeout=30.0, **parameters):
        return self.bridge.run(make("Sleep", **parameters).check, {}, timeout=timeout)

    def test_sleeps(self):
        """
        The answer comes after the wait, not before.
        """
        result = self.sleep(sleep=5)
        self.clock.advance(4.9)
        self.assertNoResult(result)
        self.clock.advance(0.1)
        self.clock.advance(0)
        self.assertEqual((1, 5), self.successResultOf(result))

    def test_manyAtOnce(self):
        """
        Many sleep at the same time.
        """
        results = [self.sleep() for _ in range(200)]
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual([(1, 1)] * 200, [self.successResultOf(result) for result in results])

    def test_neverBeyondTheDeadline(self):
        """
        The wait ends before the request's time is up.
        """
        result = self.sleep(sleep=50, timeout=3)
        self.clock.advance(2.95)
        self.clock.advance(0)
        code, seconds = self.successResultOf(result)
        self.assertEqual((1, 2.9), (code, round(seconds, 3)))

    def test_notCached(self):
        """
        Every request waits.
        """
        self.assertEqual(0, make("Sleep").hashArg({}))

    def test_maximum(self):
        """
        A wait as long as Postfix's own time-out is refused.
        """
        self.assertIn("at most 100", str(self.assertRaises(ConfigError, make, "Sleep", sleep=101)))
