"""
Tests for what is known of an address, and how its texts are made harmless.
"""

from ipaddress import ip_address

import pytest

from ppolicy import origin
from ppolicy.origin import Origin


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Example \t\n Networks ", "Example Networks"),
        (b"Caf\xc3\xa9 \xff", "Café \ufffd"),
        ("a\x1b[31m\x00\u202eb", "a?[31m??b"),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 97 + "..."),
        ("", ""),
    ],
)
def test_plain(text, expected):
    """
    A text is on one line, printable and short.
    """
    assert origin.plain(text) == expected


@pytest.mark.parametrize(
    ("convert", "text", "expected"),
    [
        (origin.country, " cz ", "CZ"),
        (origin.country, "CZE", ""),
        (origin.country, "čz", ""),
        (origin.country, "EU # Europe", ""),
        (origin.country, "", ""),
        (origin.asNumber, "AS64496", 64496),
        (origin.asNumber, "64496 64497", 64496),
        (origin.asNumber, "as64496, AS64497", 64496),
        (origin.asNumber, "4294967295", 4294967295),
        (origin.asNumber, "4294967296", 0),
        (origin.asNumber, "99999999999999", 0),
        (origin.asNumber, "1.10", 0),
        (origin.asNumber, "NA", 0),
        (origin.asNumber, "٣", 0),
        (origin.date, "2004-01-15", "2004-01-15"),
        (origin.date, "20040115", "2004-01-15"),
        (origin.date, "2004-01-15T10:00:00Z", "2004-01-15"),
        (origin.date, "15.1.2004", ""),
        (origin.date, "2004-99-15", ""),
        (origin.date, "", ""),
    ],
)
def test_values(convert, text, expected):
    """
    Countries, numbers of autonomous systems and dates have one form; what is none is nothing.
    """
    assert convert(text) == expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("192.0.2.0", "192.0.2.255", "192.0.2.0/24"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.0", "192.0.3.1", "192.0.2.0 - 192.0.3.1"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::/32"),
    ],
)
def test_shownNetwork(first, last, expected):
    """
    A range is a network where it is one.
    """
    assert origin.shownNetwork(ip_address(first), ip_address(last)) == expected


def test_stored():
    """
    What is stored is read again as it was.
    """
    one = Origin("192.0.2.0/24", "CZ", 64496, "Čes\nká", "ripencc", "2004-01-15")
    again = origin.fromText(origin.toText(one))
    assert isinstance(again, Origin)
    assert again == one._replace(organisation="Čes ká")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        '["", "", "1", "", "", ""]',
        '["", "", true, "", "", ""]',
        '["", "", 1, "", "", "", ""]',
        '[null, "", 1, "", "", ""]',
    ],
)
def test_storedByOthers(text):
    """
    What somebody else has written into the database is nothing.
    """
    assert origin.fromText(text) is None
