"""
Tests for names and addresses of hosts.
"""

import pytest

from ppolicy.address import aLabels, isAddress, isLiteral, isPrivate, networkOf, registeredDomain


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Mail_1.Example.org.", "Mail_1.Example.org."),
        ("Bücher.Example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("☃.example", "xn--n3h.example"),
        ("_dmarc.a。ü", "_dmarc.a.xn--tda"),
        ("１.example", "1.example"),
    ],
)
def test_aLabels(name, expected):
    """Names beyond ASCII are the ones that Postfix delivers to."""
    assert aLabels(name) == expected


def test_noLabels():
    """Characters that no name has make none."""
    with pytest.raises(UnicodeError):
        aLabels("\udcff.example")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3", True),
        ("172.31.255.255", True),
        ("172.32.0.1", False),
        ("192.168.0.1", True),
        ("100.64.0.1", True),
        ("127.0.0.1", True),
        ("169.254.1.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("255.255.255.255", True),
        ("8.8.8.8", False),
        ("::1", True),
        ("fe80::1", True),
        ("fd00::1", True),
        ("ff02::1", True),
        ("2606:4700::1111", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:8.8.8.8", False),
        ("mail.example.org", False),
        ("", False),
    ],
)
def test_isPrivate(text, expected):
    """What nobody out there can have is private, of IPv4, of IPv6, and mapped."""
    assert isPrivate(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_networkOf(text, expected):
    """A network is written without the bits that do not count; what is no address stays."""
    assert networkOf(text) == expected


def test_networkOfOtherSize():
    """How many bits count is the caller's choice."""
    assert networkOf("192.0.2.77", 16, 48) == "192.0.0.0/16"
    assert networkOf("2001:db8:1:2:3::4", 16, 48) == "2001:db8:1::/48"


@pytest.mark.parametrize(
    ("helo", "expected"),
    [
        ("[192.0.2.1]", True),
        ("192.0.2.1", True),
        ("[IPv6:2001:db8::1]", True),
        ("[ipv6:2001:db8::1]", True),
        ("2001:db8::1", True),
        ("[mail.example.org]", False),
        ("mail.example.org", False),
        ("[]", False),
        ("", False),
        ("192.0.2", False),
    ],
)
def test_isLiteral(helo, expected):
    """An address in brackets is a literal; one without is no better name."""
    assert isLiteral(helo) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mail.example.com", "example.com"),
        ("example.com", "example.com"),
        ("MAIL.Example.CO.UK.", "example.co.uk"),
        ("alice@lists.example.org", "example.org"),
        ("com", None),
        ("co.uk", None),
        ("[192.0.2.1]", None),
        ("192.0.2.1", None),
        ("", None),
        ("alice@", None),
        ("bücher.example.de", "example.de"),
        ("x" * 300 + ".example.com", None),
        ("a.github.io", "github.io"),
    ],
)
def test_registeredDomain(name, expected):
    """The registered domain stands one label below a public suffix; who hosts others has registered one, too."""
    assert registeredDomain(name) == expected


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "::"])
def test_isAddress(text):
    """Addresses of both families are."""
    assert isAddress(text)
    assert not isAddress(f"{text}x")
