"""
Tests for the Dnsbl check module.
"""

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.errors import ConfigError, DNSTimeout
from ppolicy.testing import FakeResolver, make, waiting

ZEN = "zen.spamhaus.org"
POINTS = {
    f"2.0.0.127.{ZEN}": {"A": ["127.0.0.2", "127.0.0.4", "127.0.0.10"]},
    "2.0.0.127.bl.spamcop.net": {"A": ["127.0.0.2"]},
}


class DnsblTests(SynchronousTestCase):
    """
    Lists in a resolver that knows what it is given.
    """

    def check(self, records=(), **parameters):
        self.dns = FakeResolver({**POINTS, **dict(records)})
        check = make("Dnsbl", dns=self.dns, **parameters)
        check.start()
        self.addCleanup(check.stop)
        return check

    def ask(self, check, **data):
        result = waiting(check.state.bridge, check.check, {"client_address": "1.2.3.4", **data})
        return self.successResultOf(result)

    def test_listed(self):
        """
        A client that is listed gives 1, with the codes, what they mean, and the list's explanation.
        """
        records = {f"4.3.2.1.{ZEN}": {"A": ["127.0.0.4", "127.0.0.10"], "TXT": [(b"see https://example.org",)]}}
        code, info = self.ask(self.check(records, dnsbl="ZEN"))
        self.assertEqual(1, code)
        self.assertEqual(("ZEN", ["127.0.0.4", "127.0.0.10"], 4.282), (info["list"], info["codes"], info["score"]))
        self.assertIn("broken into; PBL", info["meaning"])
        self.assertEqual("see https://example.org", info["text"])

    def test_notListed(self):
        """
        One that is not gives -1.
        """
        self.assertEqual((-1, "not listed"), self.ask(self.check(dnsbl="ZEN")))

    def test_zoneAsName(self):
        """
        A list may be named by its zone.
        """
        records = {"4.3.2.1.bl.spamcop.net": {"A": ["127.0.0.2"]}}
        self.assertEqual(1, self.ask(self.check(records, dnsbl="bl.spamcop.net"))[0])

    def test_unknown(self):
        """
        Whatever goes wrong is 0: no answer, error codes, addresses of somebody else, a list of everything.
        """
        bad = {"A": ["127.0.0.2"]}
        for records, reason in (
            ({f"4.3.2.1.{ZEN}": DNSTimeout("late")}, "late"),
            ({f"4.3.2.1.{ZEN}": {"A": ["127.255.255.254"]}}, "suspended: it answers with the error code"),
            (
                {f"4.3.2.1.{ZEN}": {"A": ["127.0.0.2", "127.255.255.252"]}},
                "suspended: it answers with the error code",
            ),
            ({f"4.3.2.1.{ZEN}": {"A": ["192.0.2.80"]}}, "suspended: it answers 192.0.2.80, which is outside"),
            ({f"1.0.0.127.{ZEN}": bad, f"4.3.2.1.{ZEN}": bad}, "suspended: it lists 1.0.0.127"),
            (
                {f"1.0.0.127.{ZEN}": DNSTimeout("late"), f"4.3.2.1.{ZEN}": bad},
                "it lists this, but could not be tested",
            ),
            ({f"2.0.0.127.{ZEN}": {}}, "suspended: it does not list its test point"),
        ):
            code, info = self.ask(self.check(records, dnsbl="ZEN"))
            self.assertEqual(0, code, info)
            self.assertIn(reason, info)

    def test_whiteListOverQuota(self):
        """
        A white list that does not want to answer trusts nobody.
        """
        for address in ("127.0.0.255", "127.0.10.3", "127.255.255.255", "192.0.2.1"):
            check = self.check({"4.3.2.1.list.dnswl.org": {"A": [address]}}, dnsbl="DNSWL")
            self.assertEqual(0, self.ask(check)[0], address)
        check = self.check({"4.3.2.1.list.dnswl.org": {"A": ["127.0.5.3"]}}, dnsbl="DNSWL")
        code, info = self.ask(check)
        self.assertEqual((1, -5.0), (code, info["score"]))

    def test_trust(self):
        """
        Whom DNSWL merely knows is not one whom it trusts highly, which was a name of its own in 2.7.
        """
        for address, code in (("127.0.5.0", -1), ("127.0.5.2", -1), ("127.0.5.3", 1)):
            check = self.check({"4.3.2.1.list.dnswl.org": {"A": [address]}}, dnsbl="RCVD_IN_DNSWL_HI")
            self.assertEqual(code, self.ask(check)[0], address)

    def test_notAsked(self):
        """
        Nobody is asked about private and reserved addresses, nor a list about addresses that it does not know.
        """
        for address, reason in (
            ("192.168.1.2", "192.168.1.2 is a private or reserved address"),
            ("127.0.0.1", "127.0.0.1 is a private"),
            ("fe80::1", "fe80::1 is a private"),
            ("::ffff:10.0.0.1", "10.0.0.1 is a private"),
            ("2a01:4f8::1", "SPAMCOP knows no IPv6"),
            ("", "there is no client address"),
            ("unknown", "there is no client address"),
            (["1.2.3.4"], "there is no client address"),
        ):
            code, info = self.ask(self.check(dnsbl="SPAMCOP"), client_address=address)
            self.assertEqual(-1, code)
            self.assertIn(reason, info)
            self.assertEqual([], self.dns.asked)
        self.assertEqual(
            -1,
            self.successResultOf(waiting(self.check(dnsbl="ZEN").state.bridge, self.check(dnsbl="ZEN").check, {}))[
                0
            ],
        )

    def test_ipv6(self):
        """
        A list that knows IPv6 is asked nibble by nibble; an IPv4 address in the form of IPv6 as itself.
        """
        name = f"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.f.4.0.1.0.a.2.{ZEN}"
        check = self.check({name: {"A": ["127.0.0.3"]}, f"4.3.2.1.{ZEN}": {"A": ["127.0.0.3"]}}, dnsbl="ZEN")
        for address in ("2a01:4f8::1", "2A01:04F8:0:0::1", "::ffff:1.2.3.4", "1.2.3.4"):
            self.assertEqual(1, self.ask(check, client_address=address)[0], address)
        self.assertEqual(-1, self.ask(check, client_address="2a01:4f8::2")[0])

    def test_domain(self):
        """
        A list of domains is asked for the registered domain of the sender, or of another attribute.
        """
        records = {"example.co.uk.dbl.spamhaus.org": {"A": ["127.0.1.2"]}}
        check = self.check(records, dnsbl="DBL")
        for sender, code in (("x@a.b.Example.co.uk", 1), ("x@example.co.uk.", 1), ("x@other.co.uk", -1)):
            self.assertEqual(code, self.ask(check, sender=sender)[0], sender)
        for sender in ("", "x", "x@co.uk", "x@[1.2.3.4]", "x@1.2.3.4", "\udcff@\udcff"):
            asked = len(self.dns.asked)
            self.assertEqual(-1, self.ask(check, sender=sender)[0], sender)
            self.assertLessEqual(len(self.dns.asked), asked + 1)
        check = self.check(records, dnsbl="DBL", param="helo_name")
        self.assertEqual(1, self.ask(check, helo_name="mail.example.co.uk", sender="x@other.uk")[0])
        self.assertEqual(-1, self.ask(check, helo_name="mail.other.co.uk", sender="x@example.co.uk")[0])

    def test_wholeName(self):
        """
        A list of a site's own may be asked for whole host names.
        """
        for names, asked in (("host", {"a.example.org"}), ("both", {"a.example.org", "example.org"})):
            check = self.check(dnsbl="DBL")
            check.blocklists.configure({"NAMES": {"zone": "n.example.net", "kind": "domain", "names": names}})
            check.dnsbl = "NAMES"
            check.start()
            self.ask(check, sender="x@A.example.org")
            ours = {name.removesuffix(".n.example.net") for name, _ in self.dns.asked}
            self.assertEqual(asked, ours - {"test", "invalid"})

    def test_dead(self):
        """
        A dead list by its name of 2.7 is warned about once and answers 0, without a question.
        """
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        check = self.check(dnsbl="NJABL")
        for _ in range(2):
            code, info = self.ask(check)
            self.assertEqual(0, code)
            self.assertIn("NJABL (njabl.org) is dead since March 2013", info)
        self.assertEqual([], self.dns.asked)
        self.assertEqual(1, len([event for event in events if "the answer is always 0" in str(event)]))

    def test_mistakes(self):
        """
        A list that nobody knows, a dead zone, and an attribute that a list has nothing about are refused.
        """
        for parameters, sentence in (
            ({"dnsbl": "XYZ"}, "there is no list 'XYZ'"),
            ({"dnsbl": "dnsbl.sorbs.net"}, "dnsbl.sorbs.net is dead since June 2024: it was emptied"),
            ({"dnsbl": "ABUSIX"}, "ABUSIX needs a key"),
            ({"dnsbl": "ZEN", "param": "sender"}, "ZEN can be asked for client_address, not for 'sender'"),
            ({"dnsbl": "DBL", "param": "client_address"}, "DBL can be asked for sender or helo_name or"),
            ({}, "dnsbl: is required"),
        ):
            error = self.assertRaises(ConfigError, lambda: make("Dnsbl", **parameters).start())
            self.assertIn(sentence, str(error))

    def test_hashArg(self):
        """
        A result is kept for the client, of a list of domains for the domain of the sender.
        """
        check = self.check(dnsbl="ZEN")
        self.assertEqual(
            check.hashArg({"client_address": "2A01::1"}), check.hashArg({"client_address": "2a01::1"})
        )
        self.assertNotEqual(
            check.hashArg({"client_address": "1.2.3.4"}), check.hashArg({"client_address": "1.2.3.5"})
        )
        check = self.check(dnsbl="DBL")
        self.assertEqual(check.hashArg({"sender": "a@Example.org"}), check.hashArg({"sender": "b@example.org"}))
        self.assertNotEqual(check.hashArg({"sender": "a@example.org"}), check.hashArg({"sender": "a@example.net"}))
        self.assertEqual(0, check.hashArg({"sender": ["a@example.org"]}))
        self.assertEqual((21600, 1800, 43200), (check.cachePositive, check.cacheUnknown, check.cacheNegative))

    def test_otherList(self):
        """
        A result is not kept over a change of what the list is.
        """
        check = self.check(dnsbl="ZEN")
        before = check.hashArg({"client_address": "1.2.3.4"})
        check.start()
        self.assertEqual(before, check.hashArg({"client_address": "1.2.3.4"}))
        check.blocklists.configure({"ZEN": {"codes": "127.0.0.2"}})
        check.start()
        self.assertNotEqual(before, check.hashArg({"client_address": "1.2.3.4"}))

    def test_inUse(self):
        """
        A list is in use from start to stop.
        """
        check = self.check(dnsbl="ZEN")
        self.assertEqual({"ZEN": ""}, check.blocklists.status())
        check.stop()
        self.assertEqual({}, check.blocklists.status())
