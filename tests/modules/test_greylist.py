"""
Tests for the Greylist check module.
"""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.errors import BackendError, ConfigError
from ppolicy.testing import make, memoryState

MAIL = {"sender": "alice@example.net", "recipient": "bob@example.org", "client_address": "192.0.2.1"}


class GreylistTests(SynchronousTestCase):
    """
    One greylist with short times, on a clock.
    """

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1e9)
        self.greylist = make(
            "Greylist", memoryState(self.clock), delay=600, mustRetry=3600, expiration=86400, writeBehind=True
        )
        self.greylist.start()

    def check(self, **changes):
        return self.greylist.check({**MAIL, **changes})

    def test_firstContact(self):
        """
        The first mail of a triplet is deferred, with the seconds to wait.
        """
        self.assertEqual((-1, ("greylisting in progress: 600s", 600)), self.check())

    def test_tooEarly(self):
        """
        A retry before the delay is deferred for the rest of it, however often it comes.
        """
        self.check()
        self.clock.advance(100)
        self.assertEqual((-1, ("greylisting in progress: 500s", 500)), self.check())
        self.clock.advance(499)
        self.assertEqual((-1, ("greylisting in progress: 1s", 1)), self.check())

    def test_passes(self):
        """
        A retry after the delay passes, and the answer may be cached as long as the triplet is known.
        """
        self.check()
        self.clock.advance(600)
        self.assertEqual((1, ("greylisting passed", 86400), 86400), self.check())

    def test_staysKnown(self):
        """
        A triplet that passed stays known from its last mail on, and starts again after expiration.
        """
        self.check()
        self.clock.advance(600)
        self.check()
        for _ in range(3):
            self.clock.advance(86399)
            self.assertEqual(1, self.check()[0])
        self.clock.advance(86400)
        self.assertEqual(-1, self.check()[0])

    def test_mustRetry(self):
        """
        A triplet that did not come back in time starts again, early retries notwithstanding.
        """
        self.check()
        self.clock.advance(500)
        self.check()
        self.clock.advance(3100)
        self.assertEqual((-1, ("greylisting in progress: 600s", 600)), self.check())

    def test_differentMail(self):
        """
        Each of sender, recipient and client makes another triplet.
        """
        self.check()
        self.clock.advance(600)
        for change in ({"sender": "x@y"}, {"recipient": "x@y"}, {"client_address": "192.0.3.1"}):
            self.assertEqual(-1, self.check(**change)[0], change)

    def test_case(self):
        """
        Upper and lower case are the same mail.
        """
        self.check()
        self.clock.advance(600)
        self.assertEqual(1, self.check(sender="ALICE@Example.NET", recipient="Bob@example.org")[0])

    def test_nullSender(self):
        """
        Bounces have an empty sender, and are greylisted as any mail.
        """
        self.assertEqual(-1, self.check(sender="")[0])
        self.clock.advance(600)
        self.assertEqual(1, self.check(sender="")[0])

    def test_postmaster(self):
        """
        Mail to postmaster always gets through.
        """
        for recipient in ("postmaster", "postmaster@example.org", "PostMaster@Example.org"):
            self.assertEqual((2, ("mail to postmaster is not greylisted", 0)), self.check(recipient=recipient))

    def test_malformedSender(self):
        """
        A sender without a domain is told apart.
        """
        self.assertEqual(-2, self.check(sender="alice")[0])

    def test_lastAtSign(self):
        """
        A quoted local part may hold another @.
        """
        self.assertEqual(-1, self.check(sender="a@b@example.net")[0])

    def test_databaseTrouble(self):
        """
        When the triplet cannot be read or written the answer is unknown.
        """

        class Broken:
            def touch(self, *args, **keywords):
                raise BackendError("database is locked")

        self.greylist._triplets = Broken()
        self.assertEqual((0, ("greylisting is not possible: database is locked", 0)), self.check())

    def test_deferralIsNotCached(self):
        """
        A triplet that waits must be looked up each time; one that passed need not.
        """
        self.assertEqual((0, 86400), (self.greylist.cacheNegative, self.greylist.cachePositive))

    def test_timesThatCannotWork(self):
        """
        A delay longer than mustRetry would never let anything through.
        """
        greylist = make("Greylist", delay=600, mustRetry=600)
        self.assertIn("mustRetry", str(self.assertRaises(ConfigError, greylist.start)))

    def test_tableName(self):
        """
        A table name that is no identifier refuses the start.
        """
        self.assertRaises(ConfigError, make("Greylist", table="a; DROP TABLE b").start)
