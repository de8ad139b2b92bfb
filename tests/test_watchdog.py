"""
Tests for the watchdog: who holds the reactor.
"""

import sys

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.errors import DeadlineExceeded
from ppolicy.watchdog import Watchdog


class WatchdogTests(SynchronousTestCase):
    """
    The ticks of the signal are made by hand, on a clock that stands still between them.
    """

    def setUp(self):
        self.clock = Clock()
        self.watch = Watchdog(self.clock.seconds)

    def tick(self, seconds):
        self.clock.advance(seconds)
        self.watch._tick(None, sys._getframe())

    def test_quick(self):
        """
        Code that holds the reactor for a short time is nobody's business.
        """
        self.watch.since = self.clock.seconds()
        self.watch.armed = True
        self.tick(0.19)
        self.assertIsNone(self.watch.blocked)

    def test_reported(self):
        """
        Code that holds it longer is reported with function, file, line and milliseconds.
        """
        self.watch.since = self.clock.seconds()
        self.tick(0.25)
        self.clock.advance(0.75)
        with capturedLogs() as logs:
            self.watch.report()
        (event,) = logs
        self.assertEqual(
            (LogLevel.warn, 1000, "WatchdogTests.tick", __file__),
            (event["log_level"], event["milliseconds"], event["function"], event["filename"]),
        )
        self.assertEqual(1, self.watch.reports)

    def test_interrupted(self):
        """
        After two seconds armed code is interrupted, and again at every tick that finds it running.
        """
        self.watch.since = self.clock.seconds()
        self.watch.armed = True
        self.watch._isOurs = lambda name: True  # no frame of this test is to be interrupted where it catches
        self.addCleanup(sys.settrace, None)
        self.assertRaises(DeadlineExceeded, self.tick, 2.1)
        self.assertRaises(DeadlineExceeded, self.tick, 0.05)

    def test_caught(self):
        """
        Code that catches every interrupt is interrupted again where it caught it.
        """
        self.addCleanup(sys.settrace, None)
        self.watch._isOurs = lambda name: name != __file__
        self.watch.since = self.clock.seconds()
        self.watch.armed = True
        caught = []

        def stubborn():
            while len(caught) < 10:
                try:
                    self.tick(2.1)
                except DeadlineExceeded as error:
                    caught.append(error)

        self.assertRaises(DeadlineExceeded, stubborn)
        self.assertLess(len(caught), 3)

    def test_notArmed(self):
        """
        Code of our own is never interrupted.
        """
        self.watch.since = self.clock.seconds()
        self.tick(60)
        self.assertIsNotNone(self.watch.blocked)

    def test_nobodyRuns(self):
        """
        While no code runs, nothing is found, however long.
        """
        for _ in range(5):
            self.tick(10)
        self.assertIsNone(self.watch.blocked)

    def test_ourOwnFrames(self):
        """
        The place named is the innermost that is not the server's own.
        """
        watch = Watchdog(self.clock.seconds, isOurs=lambda name: name == __file__)
        watch.since = self.clock.seconds()
        self.clock.advance(1)
        watch._tick(None, sys._getframe())
        self.assertNotEqual(__file__, watch.blocked[1])
