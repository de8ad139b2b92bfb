"""
Tests for the DnsblScore check module.
"""

from twisted.trial.unittest import SynchronousTestCase

from ppolicy.blocklists import CATALOGUE
from ppolicy.errors import ConfigError, DNSTimeout
from ppolicy.testing import FakeResolver, make, waiting

POINTS = {
    "2.0.0.127.zen.spamhaus.org": {"A": ["127.0.0.2"]},
    "2.0.0.127.bl.spamcop.net": {"A": ["127.0.0.2"]},
    "2.0.0.127.psbl.surriel.com": {"A": ["127.0.0.2"]},
}
ZEN, SPAMCOP, DNSWL = "4.3.2.1.zen.spamhaus.org", "4.3.2.1.bl.spamcop.net", "4.3.2.1.list.dnswl.org"
LISTED = {"A": ["127.0.0.2"]}
LATE = DNSTimeout("late")


class DnsblScoreTests(SynchronousTestCase):
    """
    Lists in a resolver that knows what it is given.
    """

    def check(self, records=(), **parameters):
        self.dns = FakeResolver({**POINTS, **dict(records)})
        check = make("DnsblScore", dns=self.dns, **parameters)
        check.start()
        self.addCleanup(check.stop)
        return check

    def ask(self, check, **data):
        """
        The whole answer.
        """
        request = {"client_address": "1.2.3.4", "sender": "x@mail.example.org", **data}
        return self.successResultOf(waiting(check.state.bridge, check.check, request))

    def test_sum(self):
        """
        The code is the sum of the scores of the lists that hit; the information says which.
        """
        records = {
            ZEN: {"A": ["127.0.0.4", "127.0.0.10"], "TXT": [(b"https://example.org",)]},
            SPAMCOP: LISTED,
            DNSWL: {"A": ["127.0.5.1"]},
            "example.org.dbl.spamhaus.org": {"A": ["127.0.1.2"]},
        }
        code, info = self.ask(self.check(records))
        # XBL and PBL, SpamCop, low trust of DNSWL, DBL
        self.assertEqual(round(0.724 + 3.558 + 1.246 - 0.7 + 2.5, 4), code)
        self.assertEqual((code, {}, ""), (info["score"], info["unknown"], info["reason"]))
        self.assertEqual({"ZEN", "SPAMCOP", "DNSWL", "DBL"}, set(info["listed"]))
        self.assertEqual(["127.0.0.4", "127.0.0.10"], info["listed"]["ZEN"]["codes"])
        self.assertEqual("https://example.org", info["listed"]["ZEN"]["text"])
        self.assertEqual(-0.7, info["listed"]["DNSWL"]["score"])

    def test_defaultLists(self):
        """
        Without names the lists are asked that the catalogue says, and no list that is off.
        """
        check = self.check()
        self.assertEqual([one for one in CATALOGUE.values() if one.default], check.lists)
        self.assertEqual((0, {"score": 0, "listed": {}, "unknown": {}, "reason": ""}), self.ask(check))

    def test_white(self):
        """
        A white list only makes the sum smaller.
        """
        check = self.check({DNSWL: {"A": ["127.0.5.3"]}}, dnsbl=["DNSWL", "SPAMCOP"])
        self.assertEqual(-5.0, self.ask(check)[0])

    def test_threshold(self):
        """
        With a threshold the code is 1 when the sum reaches it, else -1; in either spelling.
        """
        for name in ("threshold", "treshold"):
            for threshold, code in ((1.2, 1), (1.246, 1), (1.3, -1), (-1, 1), (0, 1)):
                check = self.check({SPAMCOP: LISTED}, dnsbl=["SPAMCOP"], **{name: threshold})
                self.assertEqual(code, self.ask(check)[0], threshold)
        check = self.check(dnsbl=["SPAMCOP"], threshold=1, treshold=1)
        self.assertEqual(-1, self.ask(check)[0])

    def test_someUnknown(self):
        """
        The sum is that of the lists that have answered; the others are named, and the answer is kept for shorter.
        """
        records = {ZEN: {"A": ["127.255.255.254"]}, SPAMCOP: LISTED}
        code, info, seconds = self.ask(self.check(records, dnsbl=["ZEN", "SPAMCOP", "PSBL"]))
        self.assertEqual((1.246, 1800), (code, seconds))
        self.assertEqual({"ZEN": "suspended: it answers with the error code 127.255.255.254"}, info["unknown"])
        code, info, seconds = self.ask(self.check(records, dnsbl=["ZEN", "PSBL"], threshold=1, cacheUnknown=7))
        self.assertEqual((-1, 7), (code, seconds))

    def test_allUnknown(self):
        """
        When no list has answered the code is 0, with a threshold as well.
        """
        for records in (
            {ZEN: LATE, SPAMCOP: LATE},
            {ZEN: {"A": ["8.8.8.8"]}, SPAMCOP: {"A": ["127.255.255.254"]}},
        ):
            for threshold in (None, 3, -3):
                code, info = self.ask(self.check(records, dnsbl=["ZEN", "SPAMCOP"], threshold=threshold))
                self.assertEqual(0, code)
                self.assertEqual({"ZEN", "SPAMCOP"}, set(info["unknown"]))

    def test_whiteListOverQuota(self):
        """
        A white list that does not want to answer makes nothing better.
        """
        for address in ("127.0.0.255", "127.0.10.3"):
            records = {DNSWL: {"A": [address]}, SPAMCOP: LISTED}
            code, info, _ = self.ask(self.check(records, dnsbl=["DNSWL", "SPAMCOP"]))
            self.assertEqual((1.246, ["DNSWL"]), (code, list(info["unknown"])))

    def test_domains(self):
        """
        Lists of domains are asked for the registered domains of the attributes in params, each once.
        """
        check = self.check(
            {"bad.co.uk.dbl.spamhaus.org": {"A": ["127.0.1.2"]}},
            dnsbl=["DBL"],
            params=["sender", "helo_name", "reverse_client_name", "client_name"],
        )
        data = {"helo_name": "[1.2.3.4]", "reverse_client_name": "a.Bad.co.uk", "client_name": "mail.example.org"}
        code, info = self.ask(check, **data)
        self.assertEqual(2.5, code)
        asked = [name for name, kind in self.dns.asked if kind == "A" and name.endswith("dbl.spamhaus.org")]
        subjects = ["example.org", "bad.co.uk"]
        self.assertEqual(
            subjects, [name.removesuffix(".dbl.spamhaus.org") for name in asked if "invalid" not in name]
        )

    def test_scoreOnce(self):
        """
        Two bad domains on one list count once.
        """
        bad = {"A": ["127.0.1.2"]}
        check = self.check(
            {"one.org.dbl.spamhaus.org": bad, "two.org.dbl.spamhaus.org": bad},
            dnsbl=["DBL"],
            params=["sender", "helo_name"],
        )
        self.assertEqual(2.5, self.ask(check, sender="x@one.org", helo_name="mail.two.org")[0])

    def test_params(self):
        """
        Lists of addresses are not asked where client_address is not among the params.
        """
        check = self.check({ZEN: LISTED}, dnsbl=["ZEN", "DBL"], params=["sender"])
        self.assertEqual(0, self.ask(check)[0])
        self.assertFalse([name for name, _ in self.dns.asked if name.endswith(".zen.spamhaus.org")])

    def test_nothingToAsk(self):
        """
        About a private address and the empty sender there is nothing to ask: 0, or below the threshold.
        """
        for parameters, expected in (({}, 0), ({"threshold": 3}, -1)):
            check = self.check(**parameters)
            code, info = self.ask(check, client_address="10.0.0.1", sender="")
            self.assertEqual(expected, code)
            self.assertEqual("10.0.0.1 is a private or reserved address; there is no domain", info["reason"])
            self.assertEqual([], self.dns.asked)

    def test_ipv6(self):
        """
        A client with IPv6 is looked up in lists that know it.
        """
        name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.f.4.0.1.0.a.2"
        check = self.check({f"{name}.zen.spamhaus.org": LISTED}, dnsbl=["ZEN", "SPAMCOP"])
        self.assertEqual(2.596, self.ask(check, client_address="2a01:4f8::1")[0])
        self.assertFalse([one for one, _ in self.dns.asked if one.endswith("spamcop.net")])

    def test_names27(self):
        """
        The default lists of 2.7 start: what lives is asked, what is dead is unknown and makes no sum 0.
        """
        names = ["RCVD_IN_XBL", "RCVD_IN_NJABL_DUL", "RCVD_IN_BL_SPAMCOP_NET", "DNS_FROM_RFC_WHOIS"]
        code, info = self.ask(self.check({ZEN: {"A": ["127.0.0.4"]}}, dnsbl=names))
        self.assertEqual((0.724, ["XBL"]), (code, list(info["listed"])))
        self.assertEqual({"RCVD_IN_NJABL_DUL", "DNS_FROM_RFC_WHOIS"}, set(info["unknown"]))
        self.assertEqual(0, self.ask(self.check(dnsbl=["NJABL", "SORBS"], threshold=-1))[0])

    def test_mistakes(self):
        """
        All lists that cannot be used are named at once; params and thresholds are checked.
        """
        for parameters, sentences in (
            ({"dnsbl": ["XYZ", "ZEN", "dnsbl.sorbs.net"]}, ["there is no list 'XYZ'", "dnsbl.sorbs.net is dead"]),
            ({"dnsbl": []}, ["dnsbl: names no list"]),
            ({"params": ["recipient"]}, ["params: 'recipient' is none of client_address, sender"]),
            ({"params": []}, ["params: name some of"]),
            ({"threshold": 1, "treshold": 2}, ["threshold and treshold are the same"]),
        ):
            error = self.assertRaises(ConfigError, lambda: make("DnsblScore", **parameters).start())
            self.assertEqual(len(sentences), len(error.mistakes))
            for sentence in sentences:
                self.assertIn(sentence, str(error))

    def test_hashArg(self):
        """
        A result is kept for the client and the sender's domain.
        """
        check = self.check()
        same = check.hashArg({"client_address": "1.2.3.4", "sender": "a@Example.org", "helo_name": "x"})
        self.assertEqual(same, check.hashArg({"client_address": "1.2.3.4", "sender": "b@example.org"}))
        self.assertNotEqual(same, check.hashArg({"client_address": "1.2.3.5", "sender": "a@example.org"}))
        self.assertNotEqual(same, check.hashArg({"client_address": "1.2.3.4", "sender": "a@example.net"}))
        self.assertEqual(0, check.hashArg({"client_address": ["1.2.3.4"]}))
