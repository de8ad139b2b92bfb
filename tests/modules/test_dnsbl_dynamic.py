"""
Tests for the DnsblDynamic check module.
"""

from ipaddress import ip_address

import pytest
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.dynamicname import looksDynamic
from ppolicy.errors import ConfigError, DNSTimeout
from ppolicy.testing import FakeResolver, make, waiting

POINT = {"2.0.0.127.zen.spamhaus.org": {"A": ["127.0.0.2"]}}
PBL = "4.3.2.1.zen.spamhaus.org"
IPV4, IPV6 = "93.184.16.34", "2a01:4f8:1:2:3:4:5:6"

DYNAMIC = [
    # words
    *("dsl-55.example.net", "adsl4.pool7.example.net", "dialup-12.nyc.example.net", "host9.dynamic.example.net"),
    *("p5.dip0.t-ipconnect.de", "ppp-1.example.co.uk", "cable77.example.com", "abc.dyn.example.org"),
    *("cpe-99.example.net", "c1.broadband8.example.net", "x.dhcp12.example.net", "a.customer.example.com.br"),
    *("cablemodem4.example.net", "xyz.dynamicpool.example.net", "DSL-55.Example.NET."),
    # the address in any form
    *("93-184-16-34.example.net", "93.184.16.34.example.net", "34.16.184.93.example.net"),
    *("host-34-16-184-93.example.net", "a93x184x16x34.example.net", "093184016034.example.net"),
    *("net093184016.example.net", "5db81022.example.net", "h5DB81022-rt.example.net", "2210b85d.example.net"),
    *("1572343842.example.net", "184-16-34.example.net", "93-184-16.city.example.net", "ip-16-34.example.net"),
    *("931841634.example.net", "93_184_16_34.example.net"),
]
CHOSEN = [
    *("mail.example.net", "mail-93-184-16-34.example.net", "mx1.dsl.example.net", "smtp3.pool.example.net"),
    *(
        "out-5.dynamic.example.net",
        "outbound93-184-16-34.example.net",
        "relay.adsl.example.net",
        "mta7.example.net",
    ),
    *("mailout2.dyn.example.net", "webmail.dsl.example.net", "static-93-184-16-34.example.net"),
    *("www.example.net", "server7.example.net", "host-1-2-3-4.example.net", "a16-34.example.net", "example.net"),
    *("dsl.net", "mail.dsl.net", "www.adsl-provider.com", "dynamic.example", "com", "", "unknown", "x", "..."),
    *("[93.184.16.34]", "93.184.16.34", "pooled.example.net", "cables.example.net", "\udcff.example.net"),
    "a" * 5000 + ".example.net",
]


@pytest.mark.parametrize("name", DYNAMIC)
def test_looksDynamic(name):
    """
    A name that a provider has made up is told by its words, or by the address in it.
    """
    assert looksDynamic(name, ip_address(IPV4)).startswith("its name ")


@pytest.mark.parametrize("name", CHOSEN)
def test_looksChosen(name):
    """
    One that somebody has chosen is not; neither is what a provider itself is called.
    """
    assert looksDynamic(name, ip_address(IPV4)) is None


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [
        ("2a01-4f8-1-2-3-4-5-6.example.net", True),
        ("2a0104f8000100020003000400050006.example.net", True),
        ("x-2a0104f800010002.example.net", True),
        ("0003000400050006.city.example.net", True),
        ("6.0.0.0.5.0.0.0.4.0.0.0.3.0.0.0.example.net", True),
        ("2a01-04f8-0001-0002.example.net", True),
        ("2a01-4f8-9-9.example.net", False),
        ("www6.example.net", False),
        ("mx-2a01-4f8-1-2-3-4-5-6.example.net", False),
    ],
)
def test_ipv6Name(name, dynamic):
    """
    The same with IPv6, where half of the address is enough.
    """
    assert (looksDynamic(name, ip_address(IPV6)) is not None) == dynamic


class DnsblDynamicTests(SynchronousTestCase):
    """
    Lists in a resolver that knows what it is given.
    """

    def check(self, records=(), **parameters):
        self.dns = FakeResolver({**POINT, **dict(records)})
        check = make("DnsblDynamic", dns=self.dns, **parameters)
        check.start()
        self.addCleanup(check.stop)
        return check

    def ask(self, check, **data):
        request = {"client_address": "1.2.3.4", "reverse_client_name": "www.example.net", **data}
        return self.successResultOf(waiting(check.state.bridge, check.check, request))

    def test_list(self):
        """
        A client in a list of dynamic addresses is dynamic, whatever its name; one that is there as a source of
        spam is not.
        """
        for name in ("www.example.net", "mail.example.net", "unknown"):
            code, info = self.ask(self.check({PBL: {"A": ["127.0.0.10"]}}), reverse_client_name=name)
            self.assertEqual(
                (1, "listed in PBL", ["127.0.0.10"]), (code, info["reason"], info["listed"]["PBL"]["codes"])
            )
        self.assertEqual(-1, self.ask(self.check({PBL: {"A": ["127.0.0.2", "127.0.0.4"]}}))[0])

    def test_name(self):
        """
        A name that looks dynamic needs no list; check_name=False does without.
        """
        check = self.check()
        code, info = self.ask(check, reverse_client_name="dsl-5.example.net")
        self.assertEqual((1, "its name says dsl"), (code, info["reason"]))
        self.assertEqual([], self.dns.asked)
        self.assertEqual(-1, self.ask(self.check(check_name=False), reverse_client_name="dsl-5.example.net")[0])

    def test_whichName(self):
        """
        The reverse name counts, the verified one only where there is no other.
        """
        check = self.check()
        for reverse, name, code in (
            ("dsl-5.example.net", "", 1),
            ("www.example.net", "dsl-5.example.net", -1),
            ("unknown", "dsl-5.example.net", 1),
            (None, "dsl-5.example.net", 1),
            ("unknown", "", -1),
            (["dsl-5.example.net"], "", -1),
        ):
            self.assertEqual(code, self.ask(check, reverse_client_name=reverse, client_name=name)[0])

    def test_neither(self):
        """
        What neither list nor name says to be dynamic is not.
        """
        self.assertEqual((-1, {"reason": "nothing says so", "listed": {}, "unknown": {}}), self.ask(self.check()))

    def test_trouble(self):
        """
        When no list has answered it is unknown; when some have, the answer is kept for shorter.
        """
        records = {PBL: DNSTimeout("late")}
        code, info = self.ask(self.check(records))
        self.assertEqual((0, {"PBL": "late"}), (code, info["unknown"]))
        code, info, seconds = self.ask(self.check(records, dnsbl=["PBL", "SPAMRATS_DYNA"]))
        self.assertEqual((-1, 1800), (code, seconds))
        for address in ("127.255.255.254", "192.0.2.1"):
            self.assertEqual(0, self.ask(self.check({PBL: {"A": [address]}}))[0])

    def test_names27(self):
        """
        The lists of 2.7 are dead: a name that looks dynamic is all there is.
        """
        check = self.check(dnsbl=["NJABLDYNA", "KROPKADUL", "SORBSDUL"])
        code, info = self.ask(check)
        self.assertEqual((0, {"NJABLDYNA", "KROPKADUL", "SORBSDUL"}), (code, set(info["unknown"])))
        self.assertEqual(1, self.ask(check, reverse_client_name="ppp7.example.net")[0])

    def test_notAsked(self):
        """
        Private addresses are not dynamic, and nobody is asked about them.
        """
        check = self.check()
        for address in ("10.1.2.3", "fe80::1", "", None, "x"):
            self.assertEqual(
                -1, self.ask(check, client_address=address, reverse_client_name="dsl-5.example.net")[0]
            )
        self.assertEqual([], self.dns.asked)

    def test_ipv6(self):
        """
        Clients with IPv6 are looked up as well.
        """
        name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.f.4.0.1.0.a.2.zen.spamhaus.org"
        self.assertEqual(1, self.ask(self.check({name: {"A": ["127.0.0.11"]}}), client_address="2a01:4f8::1")[0])

    def test_noList(self):
        """
        Without lists the name decides.
        """
        check = self.check(dnsbl=[])
        self.assertEqual(-1, self.ask(check)[0])
        self.assertEqual(1, self.ask(check, reverse_client_name="dsl-5.example.net")[0])
        self.assertEqual([], self.dns.asked)

    def test_mistakes(self):
        """
        There must be something to go by, and the lists must be of addresses.
        """
        for parameters, sentence in (
            ({"dnsbl": [], "check_name": False}, "there is nothing to go by"),
            ({"dnsbl": ["DNSWL"]}, "DNSWL is no list of addresses that are dynamic"),
            ({"dnsbl": ["DBL"]}, "DBL is no list of addresses that are dynamic"),
            ({"dnsbl": ["dul.ru"]}, "dul.ru is dead"),
        ):
            error = self.assertRaises(ConfigError, lambda: make("DnsblDynamic", **parameters).start())
            self.assertIn(sentence, str(error))

    def test_hashArg(self):
        """
        A result is kept for the client's address and name.
        """
        check = self.check()
        same = check.hashArg({"client_address": "1.2.3.4", "reverse_client_name": "A.example.net"})
        self.assertEqual(same, check.hashArg({"client_address": "1.2.3.4", "client_name": "a.example.net"}))
        self.assertNotEqual(same, check.hashArg({"client_address": "1.2.3.4"}))
        self.assertNotEqual(same, check.hashArg({"client_address": "1.2.3.5", "client_name": "a.example.net"}))
