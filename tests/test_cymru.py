"""
Tests for what Team Cymru's DNS says of addresses.
"""

from ipaddress import ip_address

import pytest
from twisted.internet.task import Clock

from ppolicy import cymru
from ppolicy.bridge import Bridge
from ppolicy.errors import BackendError, DNSTimeout
from ppolicy.origin import Origin
from ppolicy.testing import FakeResolver

FOUR, SIX = "4.3.2.9.origin.asn.cymru.com", "AS64496.asn.cymru.com".lower()
NAME = {SIX: {"TXT": [(b"64496 | CZ | ripencc | 2004-01-15 | EXAMPLE-AS - Example, Networks, CZ",)]}}
CONTROL = {"8.8.8.8.origin.asn.cymru.com": {"TXT": [(b"15169 | 8.8.8.0/24 | US | arin |",)]}}
KNOWN = Origin("9.2.3.0/24", "CZ", 64496, "EXAMPLE-AS - Example, Networks", "ripencc", "2003-02-01")


def ask(records, address="9.2.3.4"):
    """
    What is found out, or the exception.
    """
    results = []
    dns = FakeResolver(records)
    work = Bridge(Clock()).run(cymru.ask, dns, ip_address(address))
    work.addBoth(lambda result: results.append(getattr(result, "value", result)))
    return results[0]


def test_known():
    """
    Network, country, number, registry and date come from one answer, the organisation from another.
    """
    records = {FOUR: {"TXT": [(b"64496 | 9.2.3.0/24 | CZ | ripencc | 2003-02-01",)]}}
    assert ask(records | NAME) == KNOWN


def test_six():
    """
    IPv6 has a zone of its own.
    """
    name = f"{ip_address('2620:fe::fe').reverse_pointer.removesuffix('.ip6.arpa')}.origin6.asn.cymru.com"
    found = ask({name: {"TXT": [(b"19281 | 2620:fe::/48 | US | arin | 2014-03-12",)]}}, "2620:fe::fe")
    assert found == Origin("2620:fe::/48", "US", 19281, "", "arin", "2014-03-12")


def test_nothing():
    """
    An address that is not announced is nothing; when nobody could say it is an error.
    """
    assert ask(CONTROL) is None
    assert ask({FOUR: {"A": ["127.0.0.2"]}, **CONTROL}) is None
    assert isinstance(ask({FOUR: DNSTimeout("late"), **CONTROL}), DNSTimeout)


@pytest.mark.parametrize("address", ["9.2.3.4", "2620:fe::fe"])
def test_nothingAtAll(address):
    """
    A resolver that says of any name that it does not exist says nothing.
    """
    assert str(ask({}, address)).endswith(".asn.cymru.com has nothing for any address")
    late = {"8.8.8.8.origin.asn.cymru.com": DNSTimeout("late")}
    assert isinstance(ask(late, address), BackendError)


@pytest.mark.parametrize("trouble", [{}, {SIX: DNSTimeout("late")}, {SIX: {"TXT": [(b"rubbish",)]}}])
def test_noName(trouble):
    """
    Without the name of the autonomous system all else is known.
    """
    records = {FOUR: {"TXT": [(b"64496 | 9.2.3.0/24 | CZ | ripencc | 2003-02-01",)]}}
    assert ask(records | trouble) == KNOWN._replace(organisation="")


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (["64496 | 9.0.0.0/8 | US | arin | ", "64497 | 9.2.3.0/24 | CZ | ripencc | "], (64497, "9.2.3.0/24")),
        (["64497 | 9.2.3.0/24 | CZ | ripencc | ", "64496 | 9.0.0.0/8 | US | arin | "], (64497, "9.2.3.0/24")),
        (["64496 64497 | 9.2.3.0/24 | CZ | ripencc | 2003-02-01"], (64496, "9.2.3.0/24")),
        (["NA | 9.2.3.0/24 | | other |"], (0, "9.2.3.0/24")),
        (["64496 | 9.2.3.0/24"], (64496, "9.2.3.0/24")),
        (["rubbish", "64496 | 9.2.3.0/24 | CZ"], (64496, "9.2.3.0/24")),
    ],
)
def test_best(records, expected):
    """
    The smallest network decides, of several numbers the first; fields may be missing.
    """
    found = cymru.best([(one.encode(),) for one in records], ip_address("9.2.3.4"))
    assert (found.asn, found.network) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"|",
        b"rubbish",
        b"64496 | CZ | ripencc",
        b"64496 | 192.0.2.0/24 | CZ | ripencc | 2003-02-01",
        b"64496 | 2001:db8::/32 | CZ | ripencc | 2003-02-01",
        b"64496 | 9.2.3.0/99 | CZ | ripencc |",
        b"\xff\x00\x1b | \xff | \n",
    ],
)
def test_rubbish(text):
    """
    An answer about something else, or about nothing, is trouble.
    """
    assert isinstance(ask({FOUR: {"TXT": [(text,)]}}), BackendError)


def test_harmless():
    """
    Whatever a record says is short and printable.
    """
    records = {
        FOUR: {"TXT": [(b"64496 | 9.2.3.0/24 | <b> | " + b"\x1b\n" * 500 + b" | \x00",)]},
        SIX: {"TXT": [(b"64496 | | | | " + b"\x00\xffx" * 500,)]},
    }
    found = ask(records)
    for text in (found.network, found.country, found.organisation, found.registry, found.allocated):
        assert text.isprintable()
        assert len(text) <= 100
