"""
Tests for evaluating SPF.
"""

import pytest
import spf
from hypothesis import given, settings, strategies
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.bridge import Bridge
from ppolicy.errors import DNSError, DNSTimeout
from ppolicy.spf import Evaluation, asciiDomain, evaluate, harmless
from ppolicy.testing import FakeResolver, waiting

CLIENT = "192.0.2.1"


def txt(*texts):
    return {"TXT": [(text.encode(),) for text in texts]}


def evaluated(records, sender="alice@example.net", address=CLIENT, helo="mail.example.net", **more):
    """
    The L{Evaluation}, and what the resolver was asked.
    """
    resolver, results = FakeResolver(records), []
    waiting(Bridge(Clock()), lambda: evaluate(resolver, address, helo, sender, **more)).addBoth(results.append)
    assert isinstance(results[0], Evaluation), results
    return results[0], resolver.asked


@pytest.mark.parametrize(
    ("record", "result", "status", "explanation"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", "pass", 250, "sender SPF authorized"),
        ("v=spf1 -all", "fail", 550, "SPF fail - not authorized"),
        ("v=spf1 ~all", "softfail", 250, "domain owner discourages use of this host"),
        ("v=spf1 ?all", "neutral", 250, "access neither permitted nor denied"),
        ("v=spf1 nonsense", "permerror", 550, "SPF Permanent Error: Unknown mechanism found: nonsense"),
        ("other text", "none", 250, ""),
    ],
)
def test_results(record, result, status, explanation):
    """Each result comes with the status and the text that 2.7 gave."""
    found, _ = evaluated({"example.net": txt(record)})
    assert found[:5] == (result, status, explanation, "mailfrom", "example.net")


def test_details():
    """An evaluation tells what matched, in which record, and how long the DNS says so."""
    found, _ = evaluated({"example.net": txt("v=spf1 a:mx.example.net -all"), "mx.example.net": {"A": [CLIENT]}})
    assert found.mechanism == "a:mx.example.net"
    assert found.record == "v=spf1 a:mx.example.net -all"
    assert found.ttl == 300


@pytest.mark.parametrize("kind", ["TXT", "A", "MX"])
@pytest.mark.parametrize("error", [DNSError("10.9.8.7:53: SERVFAIL"), DNSTimeout("10.9.8.7:53: no answer")])
def test_trouble(kind, error):
    """Trouble of the DNS is a temperror whose explanation names no name server; the problem does."""
    records = {"example.net": {**txt("v=spf1 a mx -all"), kind: error}}
    found, _ = evaluated(records)
    assert (found.result, found.status) == ("temperror", 451)
    assert found.explanation == f"SPF Temporary Error: DNS: example.net {kind} is not known now"
    assert "10.9.8.7" in found.problem


@pytest.mark.parametrize(
    ("sender", "helo", "identity", "domain"),
    [
        ("", "mail.example.net", "helo", "mail.example.net"),
        ("alice@example.net", "", "mailfrom", "example.net"),
        ('"a@example.org"@example.net', "x.example", "mailfrom", "example.net"),
        ("@example.net", "x.example", "mailfrom", "example.net"),
        ("example.net", "x.example", "mailfrom", "example.net"),
        ("alice@bücher.example", "x.example", "mailfrom", "xn--bcher-kva.example"),
        ("alice@faß.example", "x.example", "mailfrom", "xn--fa-hia.example"),
        ("alice@☃.example", "x.example", "mailfrom", "xn--n3h.example"),
        ("alice@BÜCHER.example", "x.example", "mailfrom", "xn--bcher-kva.example"),
        ("alice@example.net.", "x.example", "mailfrom", "example.net"),
        ("alice@bücher.example.", "x.example", "mailfrom", "xn--bcher-kva.example"),
        ("", "mail.example.net.", "helo", "mail.example.net"),
    ],
)
def test_identity(sender, helo, identity, domain):
    """MAIL FROM is what is evaluated, HELO where there is no sender; domains are A-labels, without a last dot."""
    found, asked = evaluated({domain: txt("v=spf1 -all")}, sender, helo=helo)
    assert (found.result, found.identity, found.domain) == ("fail", identity, domain)
    assert asked == [(domain, "TXT")]


@pytest.mark.parametrize(
    "helo",
    [
        "",
        "localhost",
        "[192.0.2.1]",
        "192.0.2.1",
        "a..example",
        ".",
        "a.",
        "a.example..",
        "a b.example",
        "\udcff.x",
    ],
)
def test_noDomain(helo):
    """What is no domain name of several labels is none, and nothing is asked."""
    found, asked = evaluated({}, "", helo=helo)
    assert (found.result, found.status, found.explanation, asked) == ("none", 250, "", [])
    assert found.problem == "no domain name of several parts"


@pytest.mark.parametrize("address", ["", "unknown", "list", "list6", "192.0.2.300", "::1::2", "\udcff"])
def test_noAddress(address):
    """A client without an address has no result, and nothing is asked."""
    found, asked = evaluated({"example.net": txt("v=spf1 -all")}, address=address)
    assert (found.result, asked) == ("none", [])


@pytest.mark.parametrize("address", ["::ffff:192.0.2.1", "::FFFF:C000:201"])
def test_mapped(address):
    """An IPv4 address within IPv6 is one of IPv4."""
    assert evaluated({"example.net": txt("v=spf1 ip4:192.0.2.1 -all")}, address=address)[0].result == "pass"


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1"])
def test_scope(address):
    """The interface of a link-local address is no part of it."""
    found, _ = evaluated({"example.net": txt("v=spf1 ip6:fe80::/64 -all")}, address=address)
    assert found.result == "pass"


@pytest.mark.parametrize(
    ("record", "text", "explanation"),
    [
        ("-all exp=why.example.net", "%{i} may not send for %{d}", "192.0.2.1 may not send for example.net"),
        ("-all exp=why.example.net", "tab\there\r\nDATA", "tab?here??DATA"),
        ("-all exp=why.example.net", "%{l}", "al?ce"),
        ("-all exp=why.example.net", "é", "SPF fail - not authorized"),
        ("-all exp=why.example.net", "%wrong", "SPF fail - not authorized"),
        ("-all exp=why.example.net", "x" * 5000, "x" * 400),
        ("-all exp=why.example.net", "No. %{i}%_%% " + "a.b " * 70, "No. 192.0.2.1 % " + "a.b " * 70),
        ("-all exp=why.example.net", "No. %{i} " + "a.b " * 70 + "50%", "SPF fail - not authorized"),
        ("-all exp=nothing.example.net", "", "SPF fail - not authorized"),
        ("-all exp=trouble.example.net", "", "SPF fail - not authorized"),
        ("-all EXP=why.example.net", "why", "why"),
        ("~all exp=why.example.net", "why", "domain owner discourages use of this host"),
    ],
)
def test_explanation(record, text, explanation):
    """The owner's explanation of a fail is told, as printable ASCII of limited length, else a standard text."""
    records = {
        "example.net": txt(f"v=spf1 {record}"),
        "why.example.net": txt(text),
        "trouble.example.net": DNSTimeout("no answer"),
    }
    assert evaluated(records, "alïce@example.net")[0].explanation == explanation


def test_explanationOnDemand():
    """The explanation is looked up only for a fail."""
    records = {"example.net": txt("v=spf1 ip4:192.0.2.1 -all exp=why.example.net")}
    assert evaluated(records)[1] == [("example.net", "TXT")]
    assert evaluated(records, address="192.0.2.2")[1] == [("example.net", "TXT"), ("why.example.net", "TXT")]


def test_lookupLimit():
    """Ten mechanisms may look something up, the eleventh is a permerror (RFC 7208, 4.6.4)."""
    hosts = {f"h{i}.example.net": {"A": ["198.51.100.1"]} for i in range(11)}
    for count, result in ((10, "fail"), (11, "permerror")):
        record = " ".join(f"a:h{i}.example.net" for i in range(count))
        assert evaluated({"example.net": txt(f"v=spf1 {record} -all"), **hosts})[0].result == result, count


@pytest.mark.parametrize(
    ("count", "limit", "result"), [(2, 2, "fail"), (3, 2, "permerror"), (3, 3, "fail"), (1, 0, "permerror")]
)
@pytest.mark.parametrize("void", [None, {"A": []}])
def test_voidLimit(count, limit, result, void):
    """No such name and no such record are void look-ups; more than voidLimit are a permerror."""
    hosts = {} if void is None else {f"h{i}.example.net": void for i in range(count)}
    record = " ".join(f"a:h{i}.example.net" for i in range(count))
    records = {"example.net": txt(f"v=spf1 {record} -all"), **hosts}
    assert evaluated(records, voidLimit=limit)[0].result == result


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("REDIRECT=other.example.net", "softfail"),
        ("Redirect=other.example.net redirect=other.example.net", "permerror"),
        ("a=1 ip4:192.0.2.1 a=2 A=3 -all", "pass"),
        ("a=%{d} a=%{d} b=%{d} a=%{i} -all", "fail"),
        ("a=1 a=%wrong ip4:192.0.2.1", "permerror"),
        ("%=x ip4:192.0.2.1", "permerror"),
    ],
)
def test_modifiers(record, result):
    """
    The case of a modifier does not matter (RFC 7208, 4.6.1); unknown ones are ignored however often they appear
    (RFC 7208, 6).
    """
    records = {"example.net": txt(f"v=spf1 {record}"), "other.example.net": txt("v=spf1 ~all")}
    assert evaluated(records)[0].result == result


def test_manyNames():
    """More than ten MX are a permerror; of more than ten names of an address the first ten are looked at."""
    many = {"MX": [(1, f"m{i}.example.net") for i in range(11)]}
    assert evaluated({"example.net": {**txt("v=spf1 mx -all"), **many}})[0].result == "permerror"
    reverse = {"1.2.0.192.in-addr.arpa": {"PTR": [f"h{i}.example.net" for i in range(12)]}}
    hosts = {f"h{i}.example.net": {"A": ["198.51.100.1" if i < 10 else CLIENT]} for i in range(12)}
    found, asked = evaluated({"example.net": txt("v=spf1 ptr -all"), **reverse, **hosts})
    assert found.result == "fail"
    assert ("h9.example.net", "A") in asked
    assert ("h10.example.net", "A") not in asked


def test_asksInParallel():
    """Includes of a record, and the hosts of its MX, are asked for at once."""
    records = {
        "example.net": txt("v=spf1 include:a.example.net ?include:b.example.net include:%{d}.c.example.net -all"),
        "a.example.net": txt("v=spf1 -all"),
        "b.example.net": {**txt("v=spf1 mx -all"), "MX": [(1, "m1.example.net"), (2, "m2.example.net")]},
        "m2.example.net": {"A": [CLIENT]},
    }
    found, asked = evaluated(records)
    assert found.result == "neutral"
    order = [name for name, _ in asked]
    assert order == [
        *("example.net", "a.example.net", "b.example.net"),
        *("b.example.net", "m1.example.net", "m2.example.net"),
    ]


def test_circle():
    """A name of the client whose CNAMEs lead in a circle is passed over; trouble with one is a temperror."""
    reverse = {"1.2.0.192.in-addr.arpa": {"PTR": ["a.example.net", "b.example.net"]}}
    good = {"b.example.net": {"A": [CLIENT]}, "example.net": txt("v=spf1 ptr -all")}
    circle = {"a.example.net": {"A": DNSError("a chain"), "CNAME": ["c.example.net"]}}
    for aliases, result in (
        (["a.example.net"], "pass"),
        ([], "temperror"),
        (DNSTimeout("no answer"), "temperror"),
    ):
        records = {**reverse, **good, **circle, "c.example.net": {"CNAME": aliases}}
        assert evaluated(records)[0].result == result, aliases


def test_unusualNames():
    """Hosts with unusual characters, which the resolver escapes, are asked for as they are."""
    records = {
        "example.net": {
            **txt("v=spf1 mx -all"),
            "MX": [(1, "foo\\:bar.example.net"), (2, "a\\.b\\032.example.net")],
        },
        "foo:bar.example.net": {"A": [CLIENT]},
    }
    found, asked = evaluated(records)
    assert found.result == "pass"
    assert ("a\\.b\\032.example.net", "A") in asked


def test_asciiOnly():
    """A local part that is not ASCII is in no name that is asked for, and matches nothing (RFC 8616, 4)."""
    record = "v=spf1 exists:%{l}.example.net -exists:%{L}.x.example.net ~all"
    for sender in ("ü@example.net", "\udcff@example.net"):
        found, asked = evaluated({"example.net": txt(record), "*": {"A": ["127.0.0.2"]}}, sender)
        assert found.result == "softfail"
        assert all(name.isascii() for name, _ in asked)


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 a:" + "%%." * 5000 + "example.net -all",
        "v=spf1 a:" + "%{d}." * 200 + "example.net -all",
        "v=spf1 a:." + "a" * 15000 + "! -all",
        "v=spf1 " + "x=%%." * 3000 + " -all",
        "v=spf1 exists:%{i" + "9" * 6000 + "}.example.net -all",
        "v=spf1 exists:%{i" + "9" * 100 + "}.example.net -all",
        "v=spf1 " + "ip4:198.51.100.1 " * 900 + "-all",
        "v=spf1 include:example.net -all",
        "v=spf1 redirect=example.net",
        "v=spf1 \xff",
        "v=spf1 a:example.net//129 -all",
    ],
)
def test_hostileRecord(record):
    """No record makes more of an evaluation than a result, in a moment."""
    assert evaluated({"example.net": {"TXT": [(record.encode("latin-1"),)]}})[0].result in (
        ("permerror", "fail", "temperror")
    )


TERMS = ["all", "a", "mx", "ptr", "include:", "exists:", "ip4:", "ip6:", "redirect=", "exp=", "x="]
ARGUMENTS = [
    "",
    "example.net",
    "%{d}",
    "%{p}",
    "%{l1r-}",
    "%{i",
    "192.0.2.1/33",
    "2001:db8::/32",
    "/0",
    "//129",
    "%%",
    "é",
]


@given(
    strategies.lists(
        strategies.tuples(
            strategies.sampled_from(["", "+", "-", "~", "?", "="]),
            strategies.sampled_from(TERMS),
            strategies.sampled_from(ARGUMENTS) | strategies.text(max_size=20),
        ),
        max_size=6,
    ),
    strategies.sampled_from([CLIENT, "2001:db8::1"]),
    strategies.text(max_size=10),
)
@settings(max_examples=150, deadline=None)
def test_anyRecord(terms, address, local):
    """Whatever a record and a sender look like, there is a result, with a text that is harmless."""
    record = "v=spf1 " + " ".join(map("".join, terms))
    names = {"MX": [(1, "example.net")], "A": [CLIENT], "AAAA": ["2001:db8::1"], "PTR": ["example.net"]}
    found, _ = evaluated(
        {
            "example.net": {"TXT": [(record.encode("utf-8", "surrogatepass"),)], **names},
            "1.2.0.192.in-addr.arpa": names,
        },
        f"{local}@example.net",
        address=address,
    )
    assert found.result in spf.EXPLANATIONS
    assert "pyspf failed" not in found.problem
    assert found.explanation.isascii()
    assert found.explanation.isprintable()


class Silent(FakeResolver):
    """
    A resolver that answers some names, and others never.
    """

    def ask(self, name, kind):
        if name in self.records:
            return super().ask(name, kind)
        self.asked.append((name, kind))
        return Deferred()


class TimeTests(SynchronousTestCase):
    """
    How long an evaluation may take.
    """

    def evaluate(self, records, requestTimeout=30.0, **more):
        self.clock = Clock()
        resolver = Silent(records)
        return waiting(
            Bridge(self.clock),
            lambda: evaluate(resolver, CLIENT, "mail.example.net", "alice@example.net", **more),
            timeout=requestTimeout,
        )

    def test_budget(self):
        """One budget holds for all look-ups of an evaluation: when it is used up the result is a temperror."""
        found = self.evaluate({"example.net": txt("v=spf1 a:h1.example.net -all")}, timeout=5)
        self.clock.pump([1] * 4)
        self.assertNoResult(found)
        self.clock.pump([1, 0.1])
        result = self.successResultOf(found)
        self.assertEqual(("temperror", 451), result[:2])
        self.assertIn("5 s", result.problem)

    def test_request(self):
        """An evaluation ends before the time for the request is up, so that it can still be answered."""
        for requestTimeout, ends in ((10.0, 9), (1.0, 0.5)):
            found = self.evaluate({}, requestTimeout)
            self.clock.pump([0.25] * int(ends * 4 - 1))
            self.assertNoResult(found)
            self.clock.pump([0.25, 0.1])
            self.assertEqual("temperror", self.successResultOf(found).result)

    def test_explanation(self):
        """Silence where the explanation is looked up changes nothing of the result."""
        found = self.evaluate({"example.net": txt("v=spf1 -all exp=why.example.net")})
        self.clock.pump([1] * 21)
        self.assertEqual(("fail", 550, "SPF fail - not authorized"), self.successResultOf(found)[:3])


def test_asciiDomain():
    """A domain in Unicode becomes A-labels; what is none becomes None."""
    assert asciiDomain("Example.net") == "Example.net"
    assert asciiDomain("пример.example") == "xn--e1afmkfd.example"
    assert asciiDomain("x" * 64 + ".example") is None


def test_harmless():
    """What is not printable ASCII becomes a question mark."""
    assert harmless("a\x00b\x7fc\x1b[0md\xe9e") == "a?b?c?[0md?e"
