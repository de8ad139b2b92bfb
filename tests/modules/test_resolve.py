"""
Tests for the Resolve check module.
"""

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.errors import ConfigError, DNSError, DNSTimeout
from ppolicy.testing import FakeResolver, make, waiting

BACK, BACK6 = "1.2.0.192.in-addr.arpa", "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"
RECORDS = {
    BACK: {"PTR": ["other.example.net", "mail.example.net"]},
    "2.2.0.192.in-addr.arpa": {"PTR": ["nowhere.example.net"]},
    "3.2.0.192.in-addr.arpa": DNSTimeout("no answer"),
    "4.2.0.192.in-addr.arpa": {"PTR": ["trouble.example.net", "other.example.net"]},
    "5.2.0.192.in-addr.arpa": {"PTR": ["trouble.example.net"]},
    "6.2.0.192.in-addr.arpa": {"PTR": ["null.example.net"]},
    "7.2.0.192.in-addr.arpa": {"PTR": []},
    BACK6: {"PTR": ["mail.example.net"]},
    "mail.example.net": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"], "MX": [(10, "mail.example.net")]},
    "other.example.net": {"A": ["192.0.2.99"]},
    "nowhere.example.net": {},
    "trouble.example.net": DNSError("SERVFAIL"),
    "null.example.net": {"A": ["192.0.2.6"], "MX": [(0, "")]},
    "half.example.net": {"A": DNSError("SERVFAIL"), "AAAA": ["2001:db8::1"]},
    "halftrouble.example.net": {"A": DNSError("SERVFAIL"), "AAAA": []},
    "halfnameless.example.net": {"A": ["192.0.2.7"], "AAAA": DNSError("SERVFAIL")},
    "9.2.0.192.in-addr.arpa": {"PTR": [""]},
    "10.2.0.192.in-addr.arpa": {"PTR": ["xn--bcher-kva.example.net"]},
    "xn--bcher-kva.example.net": {"A": ["192.0.2.10"]},
    "bücher.example.net": {"A": ["192.0.2.10"]},
}


class ResolveTests(SynchronousTestCase):
    def ask(self, value, kind, records=RECORDS):
        check = make("Resolve", param="helo_name", type=kind, dns=FakeResolver(records))
        check.start()
        return self.successResultOf(waiting(check.state.bridge, check.check, {"helo_name": value}))

    def test_codes(self):
        """
        1 when every step finds something, and leads back where it should; -1 when not; 0 when nobody can say.
        """
        for kind, cases in {
            "ip->name": {
                "192.0.2.1": 1,
                "192.0.2.7": -1,
                "192.0.2.8": -1,
                "192.0.2.3": 0,
                "192.0.2.9": -1,
                "2001:db8::1": 1,
            },
            "name->ip": {
                "mail.example.net": 1,
                "Mail.Example.NET.": 1,
                "nowhere.example.net": -1,
                "missing.example.net": -1,
                "trouble.example.net": 0,
                "half.example.net": 1,
                "halftrouble.example.net": 0,
            },
            "name->mx": {
                "mail.example.net": 1,
                "alice@mail.example.net": 1,
                "other.example.net": -1,
                "null.example.net": -1,
                "trouble.example.net": 0,
            },
            "ip->name->ip": {
                "192.0.2.1": 1,
                "::ffff:192.0.2.1": 1,
                "2001:db8::1": 1,
                "2001:DB8:0::1": 1,
                "192.0.2.2": -1,
                "192.0.2.3": 0,
                "192.0.2.4": 0,
                "192.0.2.5": 0,
                "192.0.2.6": 1,
            },
            "name->ip->name": {
                "mail.example.net": 1,
                "Bücher.example.net": 1,
                "other.example.net": -1,
                "trouble.example.net": 0,
                "halfnameless.example.net": 0,
            },
            "ip1->name->ip2": {"192.0.2.1": 1, "192.0.2.4": 1, "192.0.2.2": -1, "192.0.2.5": 0},
            "ip->name->mx": {"192.0.2.1": 1, "192.0.2.6": -1, "192.0.2.2": -1, "192.0.2.5": 0},
            "name1->ip->name2": {"mail.example.net": 1, "half.example.net": 1, "nowhere.example.net": -1},
        }.items():
            for value, expected in cases.items():
                self.assertEqual(expected, self.ask(value, kind)[0], (kind, value))

    def test_information(self):
        """
        The information says how far the way went.
        """
        self.assertEqual(
            (1, "192.0.2.1 -> other.example.net mail.example.net -> 192.0.2.99 192.0.2.1"),
            self.ask("192.0.2.1", "ip->name->ip"),
        )
        self.assertEqual((-1, "192.0.2.2 -> nowhere.example.net has no ip"), self.ask("192.0.2.2", "ip->name->ip"))
        self.assertEqual((0, "192.0.2.3: no answer"), self.ask("192.0.2.3", "ip->name"))
        self.assertEqual(
            (-1, "other.example.net -> 192.0.2.99 has no name"), self.ask("other.example.net", "name->ip->name")
        )

    def test_elsewhere(self):
        """
        A way that leads somewhere else does not lead back.
        """
        records = {BACK: {"PTR": ["other.example.net"]}, "other.example.net": {"A": ["192.0.2.99"]}}
        self.assertEqual(
            (-1, "192.0.2.1 -> other.example.net -> 192.0.2.99 does not lead back"),
            self.ask("192.0.2.1", "ip->name->ip", records),
        )

    def test_empty(self):
        """
        Nothing can be said of nothing, such as the empty sender.
        """
        self.assertEqual((0, "helo_name is empty"), self.ask("", "name->mx"))

    def test_noName(self):
        """
        An address is no name, a name no address.
        """
        self.assertEqual((-1, "192.0.2.1 is no name"), self.ask("192.0.2.1", "name->ip"))
        self.assertEqual((-1, "mail.example.net is no IP address"), self.ask("mail.example.net", "ip->name"))
        self.assertEqual((-1, "fe80::1%eth0 is no IP address"), self.ask("fe80::1%eth0", "ip->name"))

    def test_late(self):
        """
        What nobody answers is unknown before the time for the request is up: the policy goes on.
        """
        resolver = FakeResolver({})
        resolver.ask = lambda name, kind: Deferred()
        check = make("Resolve", param="client_address", type="ip->name->ip", dns=resolver)
        check.start()
        bridge = check.state.bridge
        answer = waiting(bridge, check.check, {"client_address": "192.0.2.1"}, timeout=5)
        bridge.reactor.pump([4.6, 0, 0])
        self.assertEqual((0, "192.0.2.1: no answer in time"), self.successResultOf(answer))
        bridge.stop()

    def test_bound(self):
        """
        However many names an address has, ten are followed.
        """
        names = [f"n{number}.example.net" for number in range(1000)]
        resolver = FakeResolver({BACK: {"PTR": names}})
        check = make("Resolve", param="client_address", type="ip->name->ip", dns=resolver)
        check.start()
        found = self.successResultOf(waiting(check.state.bridge, check.check, {"client_address": "192.0.2.1"}))
        self.assertEqual(-1, found[0])
        self.assertEqual([(BACK, "PTR"), *((name, "A") for name in names[:10])], resolver.asked)

    def test_hashArg(self):
        """
        A result is kept for the value that it depends on, however it is written.
        """
        check = make("Resolve", param="sender", type="name->mx")
        check.start()
        self.assertEqual(check.hashArg({"sender": "A@Example.org"}), check.hashArg({"sender": "b@example.org."}))
        self.assertNotEqual(check.hashArg({"sender": "A@Example.org"}), check.hashArg({"sender": "b@example.net"}))


@pytest.mark.parametrize("parameters", [{}, {"param": "sender"}, {"param": "sender", "type": "mx->name"}])
def test_mistakes(parameters):
    """What to translate and how must be said."""
    with pytest.raises(ConfigError):
        make("Resolve", **parameters)
