"""
Tests for which hosts take the mail of a domain.
"""

from ipaddress import ip_address

import pytest
from twisted.internet.task import Clock

from ppolicy.bridge import Bridge
from ppolicy.errors import DNSError, DNSTimeout
from ppolicy.mailhosts import Guard, isLocal, mailHosts
from ppolicy.testing import FakeResolver

ONE, TWO, THREE, FOUR = "9.9.9.1", "9.9.9.2", "9.9.9.3", "9.9.9.4"
SIX = "2620:fe::9"


def found(records, domain="example.net", guard=None, **keywords):
    """
    What is found, or the error.
    """
    results = []
    dns = FakeResolver(records)
    guard = guard or Guard(["mx.example.org"])
    keywords.setdefault("shuffle", lambda records: None)
    Bridge(Clock()).run(lambda: mailHosts(dns, domain, guard, **keywords)).addBoth(results.append)
    (result,) = results
    return getattr(result, "value", result)


def targets(records, **keywords):
    return found(records, **keywords).targets


def test_order():
    """
    Hosts come in the order of their preference, with their addresses.
    """
    records = {
        "example.net": {"MX": [(10, "a.example"), (20, "b.example")]},
        "a.example": {"A": [ONE]},
        "b.example": {"A": [TWO], "AAAA": [SIX]},
    }
    result = found(records)
    assert result.exists
    assert result.isWhole
    assert result.names == ["a.example", "b.example"]
    assert result.targets == [("a.example", ONE), ("b.example", TWO), ("b.example", SIX)]


def test_shuffled():
    """
    Equal preferences come in any order (RFC 5321, 5.1), others never.
    """
    records = {
        "example.net": {"MX": [(10, "a.example"), (10, "b.example"), (20, "c.example")]},
        "a.example": {"A": [ONE]},
        "b.example": {"A": [TWO]},
        "c.example": {"A": [THREE]},
    }
    assert [host for host, _ in targets(records, shuffle=list.reverse)] == ["b.example", "a.example", "c.example"]


def test_most():
    """
    At most three, each host's first address before any second one, no address twice.
    """
    records = {
        "example.net": {"MX": [(10, "a.example"), (20, "b.example"), (30, "c.example")]},
        "a.example": {"A": [ONE, FOUR]},
        "b.example": {"A": [ONE]},
        "c.example": {"A": [THREE]},
    }
    result = found(records)
    assert result.targets == [("a.example", ONE), ("c.example", THREE), ("a.example", FOUR)]
    assert found(records, most=1).targets == [("a.example", ONE)]
    assert not found(records, most=1).isWhole


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({}, "example.net does not exist"),
        ({"example.net": {"MX": [(0, "")]}}, "example.net takes no mail (null MX)"),
        ({"example.net": {}}, "no mail host of example.net has an address"),
        ({"example.net": {"MX": [(0, "a.example")]}}, "no mail host of example.net has an address"),
    ],
)
def test_none(records, reason):
    """
    That there is no mail host is told with the reason; a null MX wins over addresses (RFC 7505).
    """
    result = found(records)
    assert (result.exists, result.reason, result.targets) == (False, reason, [])


def test_nullAmongOthers():
    """
    A null MX beside others is passed over.
    """
    records = {"example.net": {"MX": [(0, ""), (10, "a.example")]}, "a.example": {"A": [ONE]}}
    assert targets(records) == [("a.example", ONE)]


def test_noMX():
    """
    Without MX records it is the domain itself; with some its own address counts no more (RFC 5321, 5.1).
    """
    assert targets({"example.net": {"A": [ONE], "AAAA": [SIX]}}) == [("example.net", ONE), ("example.net", SIX)]
    assert not found({"example.net": {"A": [ONE], "MX": [(0, "a.example")]}}).exists


def test_trouble():
    """
    Trouble of the DNS is an error, where nothing else is known, and never tells that there is no host.
    """
    error = DNSTimeout("late")
    assert found({"example.net": error}) is error
    assert found({"example.net": {"MX": error, "A": [ONE]}}) is error
    assert found({"example.net": {"AAAA": error}}) is error
    records = {"example.net": {"MX": [(10, "a.example"), (20, "b.example")]}, "a.example": DNSError("no")}
    assert isinstance(found(records), DNSError)
    result = found(records | {"b.example": {"A": [TWO]}})
    assert result.targets == [("b.example", TWO)]
    assert not result.isWhole


def test_many():
    """
    However many records there are, few are looked up.
    """
    hosts = [(number, f"h{number}.example") for number in range(500)]
    records = {"example.net": {"MX": hosts}}
    records |= {host: {"A": [f"9.9.{number // 256}.{number % 256}" for number in range(400)]} for _, host in hosts}
    result = found(records)
    assert len(result.names) == 10
    assert not result.isWhole
    assert result.targets == [("h0.example", f"9.9.0.{number}") for number in range(3)]


def test_manyWithoutAddress():
    """
    That those which are looked up have no address does not say that there is none.
    """
    hosts = [(number, f"h{number}.example") for number in range(11)]
    records = {"example.net": {"MX": hosts}, "h10.example": {"A": [ONE]}}
    result = found(records)
    assert (result.exists, result.targets, result.isWhole, result.isOwn) == (True, [], False, False)
    assert result.reason == "the first 10 mail hosts of example.net have no address"
    assert not found({"example.net": {"MX": hosts[:10]}}).exists


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.9.9.9", "::ffff:127.0.0.1", "0.0.0.0", "::"])
def test_ourAddress(address):
    """
    We never ask ourselves, whatever else is allowed. That a host has an address that every host has does not mean
    that we take its mail; better hosts are asked.
    """
    kind = "AAAA" if ":" in address else "A"
    for allowed in (False, True):
        records, guard = {"example.net": {kind: [address]}}, Guard(allowPrivate=allowed)
        result = found(records, guard=guard)
        assert (result.exists, result.targets, result.isOwn) == (True, [], False)
        assert result.reason == "its mail hosts have no public address"
        result = found(records, guard=Guard(["EXAMPLE.net"], allowed))
        assert (result.exists, result.targets, result.isOwn) == (True, [], True)
        assert result.reason == "this host itself takes its mail"
        records |= {"example.org": {"MX": [(5, "a.example"), (6, "example.net")]}, "a.example": {"A": [ONE]}}
        assert targets(records, domain="example.org", guard=guard) == [("a.example", ONE)]


def test_ourName():
    """
    Where a host has our name, it and those behind it are not asked; better ones are (RFC 5321, 5.1).
    """
    hosts = {"a.example": {"A": [ONE]}, "mx.example.org": {"A": [TWO]}, "b.example": {"A": [THREE]}}
    mx = [(20, "mx.example.org"), (20, "b.example"), (30, "a.example")]
    assert targets({"example.net": {"MX": mx}} | hosts) == []
    result = found({"example.net": {"MX": [(10, "a.example"), *mx]}} | hosts)
    assert result.targets == [("a.example", ONE)]
    assert not result.isOwn
    assert not result.isWhole
    guard = Guard(["MX.example.org.", ONE])
    assert found({"example.net": {"MX": [(10, "a.example"), *mx]}} | hosts, guard=guard).isOwn


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.1.1",
        "100.64.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "255.255.255.255",
        "fd00::1",
        "fe80::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:10.1.2.3",
        "64:ff9b::10.1.2.3",
        "2002:a01:203::1",
    ],
)
def test_private(address):
    """
    Addresses that are not public are not asked, in whatever they are wrapped.
    """
    kind = "AAAA" if ":" in address else "A"
    result = found({"example.net": {kind: [address]}})
    assert (result.exists, result.targets, result.isOwn) == (True, [], False)
    assert result.reason == "its mail hosts have no public address"
    assert targets({"example.net": {"A": [ONE], kind: [address, ONE]}})[0][1] == ONE


def test_allowed():
    """
    Private networks are allowed all together, or one by one; with a list even our own addresses.
    """
    records = {"example.net": {"A": ["10.1.2.3", "127.0.0.1"]}}
    own = Guard(allowPrivate=["127.0.0.0/8"])
    assert [address for _, address in targets(records, guard=own)] == ["127.0.0.1"]
    assert targets({"example.net": {"A": ["10.1.2.3"]}}, guard=Guard(allowPrivate=True)) != []
    assert targets({"example.net": {"A": ["10.1.2.3"]}}, guard=Guard(allowPrivate=["10.0.0.0/8"])) != []
    assert targets({"example.net": {"A": ["224.0.0.1"]}}, guard=Guard(allowPrivate=True)) == []
    with pytest.raises(ValueError, match="network"):
        Guard(allowPrivate=["home"])


def test_literal():
    """
    An address in brackets is its own mail host.
    """
    assert targets({}, domain=f"[{ONE}]") == [(ONE, ONE)]
    assert targets({}, domain=f"[ipv6:{SIX}]") == [(SIX, SIX)]
    assert found({}, domain="[127.0.0.1]").targets == []
    assert not found({}, domain="[9.9.9.999]").exists


def test_isLocal():
    """
    An address of loopback is one of ours, a public one that others have is not.
    """
    assert isLocal(ip_address("127.0.0.1"))
    assert not isLocal(ip_address(ONE))
    assert not isLocal(ip_address(SIX))
