"""
Tests for what checks call to ask the DNS.
"""

import gc

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.bridge import Bridge
from ppolicy.dns import Ahead, reverseName
from ppolicy.errors import BackendError, DNSError
from ppolicy.testing import FakeResolver


class AheadTests(SynchronousTestCase):
    """
    Asking what will be needed in a moment.
    """

    def setUp(self):
        self.resolver = FakeResolver({"a.test": {"A": ["192.0.2.1"]}, "b.test": DNSError("SERVFAIL")})
        self.ahead = Ahead(self.resolver)

    def test_once(self):
        """
        What was begun is not asked again, by whatever letters; the next one who asks has an answer of its own.
        """
        self.ahead.begin("a.test", "A")
        self.ahead.begin("A.test", "A")
        self.assertEqual([("a.test", "A")], self.resolver.asked)
        self.assertEqual(("192.0.2.1",), self.successResultOf(self.ahead.ask("A.Test", "A")).records)
        self.assertEqual(1, len(self.resolver.asked))
        self.assertEqual(("192.0.2.1",), self.successResultOf(self.ahead.ask("a.test", "A")).records)
        self.assertEqual(2, len(self.resolver.asked))

    def test_lookup(self):
        """
        Who waits for an answer may ask again, by whatever letters, and it is there; trouble is asked for anew.
        """
        looked = [
            self.successResultOf(Bridge(Clock()).run(self.ahead.lookup, name, "A"))
            for name in ("a.test", "A.Test")
        ]
        self.assertEqual([("192.0.2.1",)] * 2, [answer.records for answer in looked])
        self.assertEqual([("a.test", "A")], self.resolver.asked)
        for _ in range(2):
            self.failureResultOf(Bridge(Clock()).run(self.ahead.lookup, "b.test", "A"), DNSError)
        self.assertEqual(3, len(self.resolver.asked))

    def test_other(self):
        """
        What was not begun is asked.
        """
        self.ahead.begin("a.test", "A")
        self.assertEqual((), self.successResultOf(self.ahead.ask("a.test", "TXT")).records)

    def test_trouble(self):
        """
        Trouble is for who asks; when nobody does, nobody hears of it.
        """
        self.ahead.begin("b.test", "A")
        self.failureResultOf(self.ahead.ask("b.test", "A"), DNSError)
        gc.collect()  # what other tests have left is not ours
        self.flushLoggedErrors()
        self.ahead.begin("b.test", "A")
        del self.ahead
        gc.collect()
        self.assertEqual([], self.flushLoggedErrors())


class ReverseTests(SynchronousTestCase):
    """
    Names for addresses.
    """

    def test_reverseName(self):
        """
        The labels go backwards, those of IPv6 digit by digit; mapped IPv4 addresses count as themselves.
        """
        six = "1.0.0.0." + "0.0.0.0." * 5 + "8.b.d.0.1.0.0.2"
        for address, zone, expected in (
            ("192.0.2.1", None, "1.2.0.192.in-addr.arpa"),
            ("192.0.2.1", "bl.example", "1.2.0.192.bl.example"),
            ("2001:DB8::1", None, f"{six}.ip6.arpa"),
            ("2001:db8::1", "bl.example", f"{six}.bl.example"),
            ("::ffff:192.0.2.1", "bl.example", "1.2.0.192.bl.example"),
            ("::FFFF:c000:201", None, "1.2.0.192.in-addr.arpa"),
        ):
            self.assertEqual(expected, reverseName(address, zone))

    def test_noAddress(self):
        """
        What is no address raises.
        """
        for address in (
            "",
            "unknown",
            "192.0.2",
            "192.0.2.256",
            "1.2.3.4.5",
            "fe80::1%eth0",
            "::g",
            "192.0.2.1\n",
        ):
            self.assertRaises(BackendError, reverseName, address)
