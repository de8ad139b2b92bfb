"""
Tests for the answers of whois servers, each in the words of its registry.
"""

from ipaddress import ip_address

import pytest

from ppolicy import whoistext
from ppolicy.origin import Origin

IANA = b"""\
% IANA WHOIS server
% for more information on IANA, visit http://www.iana.org

refer:        whois.ripe.net

inetnum:      9.0.0.0 - 9.255.255.255
organisation: RIPE NCC
status:       ALLOCATED

whois:        whois.ripe.net
"""

ARIN = b"""\
#
# ARIN WHOIS data and services
#

NetRange:       9.0.0.0 - 9.255.255.255
CIDR:           9.0.0.0/8
NetName:        EXAMPLE-9
Organization:   Example Corporation (EXC)
RegDate:        1992-03-19

OrgName:        Example Corporation
OrgId:          EXC
Country:        US
RegDate:        1989-01-01

OrgTechName:    Nobody

NetRange:       9.2.2.0 - 9.2.4.255
CIDR:           9.2.2.0/23, 9.2.4.0/24
NetName:        EXAMPLE-CUSTOMER
OriginAS:       AS64496
Customer:       Customer (C1)
RegDate:        2010-05-06

CustName:       Customer
Country:        CA
RegDate:        2010-05-05
"""

RIPE = b"""\
% This is the RIPE Database query service.

% Information related to '9.2.3.0 - 9.2.3.255'

inetnum:        9.2.3.0 - 9.2.3.255
netname:        EXAMPLE-NET
descr:          a description
country:        CZ
org:            ORG-EX1-RIPE
created:        2003-02-01T10:11:12Z
source:         RIPE # Filtered

organisation:   ORG-EX1-RIPE
org-name:       Example s.r.o.
country:        SK
created:        2001-01-01T00:00:00Z

% Information related to '9.2.0.0/16AS64496'

route:          9.2.0.0/16
descr:          Example
origin:         AS64496
"""

LACNIC = b"""\
% Joint Whois - whois.lacnic.net

inetnum:     9.2/16
status:      allocated
aut-num:     AS64497
owner:       Ejemplo S.A.
ownerid:     XX-EJSA-LACNIC
country:     AR
created:     20030201
changed:     20050101
"""

SIX = b"""\
inet6num:       2620:fe::/48
netname:        NINE
country:        CH

route6:         2620:fe::/48
origin:         AS19281
"""

NONE = {
    "ripe": b"%ERROR:101: no entries found\n%\n% No entries found in source RIPE.\n",
    "arin": b"# comment\n\nNo match found for n + 9.2.3.4.\n",
    "lacnic": b"% No match for 9.2.3.4\n",
}


@pytest.mark.parametrize(
    ("answer", "host", "expected"),
    [
        (
            ARIN,
            "whois.arin.net",
            Origin("9.2.2.0/23", "CA", 64496, "Customer", "arin", "2010-05-06"),
        ),
        (
            ARIN.partition(b"NetRange:       9.2.2.0")[0],
            "whois.arin.net",
            Origin("9.0.0.0/8", "US", 0, "Example Corporation (EXC)", "arin", "1992-03-19"),
        ),
        (
            RIPE,
            "whois.ripe.net",
            Origin("9.2.3.0/24", "CZ", 64496, "Example s.r.o.", "ripencc", "2003-02-01"),
        ),
        (
            RIPE.partition(b"organisation")[0],
            "whois.example.net",
            Origin("9.2.3.0/24", "CZ", 0, "a description", "whois.example.net", "2003-02-01"),
        ),
        (
            LACNIC,
            "whois.lacnic.net",
            Origin("9.2.0.0/16", "AR", 64497, "Ejemplo S.A.", "lacnic", "2003-02-01"),
        ),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_origin(answer, host, expected, end):
    """
    The smallest network that has the address counts, with what stands below it.
    """
    assert whoistext.origin(answer.replace(b"\n", end), ip_address("9.2.3.4"), host) == expected


def test_six():
    """
    IPv6 is told from IPv4.
    """
    found = whoistext.origin(RIPE + b"\n" + SIX, ip_address("2620:fe::fe"), "whois.ripe.net")
    assert found == Origin("2620:fe::/48", "CH", 19281, "NINE", "ripencc", "")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\x00" * 100,
        b"inetnum: 8.0.0.0 - 8.255.255.255\ncountry: US\n",
        b"inetnum: 9.2.3.255 - 9.2.3.0\n",
        b"inetnum: 9.2.3.0 - 2001:db8::\n",
        b"inetnum: 9.2.3.0/99\n",
        b"inetnum: 0.0.0.0 - 255.255.255.255\nnetname: IANA-BLK\n",
        b"inetnum: 9.0.0.0 - 9.255.255.255\nnetname: NON-RIPE-NCC-MANAGED-ADDRESS-BLOCK\n",
        b"route: 9.2.0.0/16\norigin: AS64496\n",
        *NONE.values(),
    ],
)
def test_noOrigin(answer):
    """
    Where no network has the address, or one that stands for all others, nothing is known.
    """
    assert whoistext.origin(answer, ip_address("9.2.3.4"), "whois.example.net") is None


@pytest.mark.parametrize("answer", NONE.values(), ids=NONE)
def test_saysNothing(answer):
    """
    Each registry has its words for it that there is nothing.
    """
    assert whoistext.saysNothing(answer)


@pytest.mark.parametrize(
    "answer",
    [b"", IANA, ARIN, RIPE, b"%ERROR:201: access denied for 192.0.2.1\n", b"Too many requests, try again later\n"],
)
def test_saysSomething(answer):
    """
    A refusal, or an answer, is not nothing.
    """
    assert not whoistext.saysNothing(answer)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("refer: whois.ripe.net", "whois.ripe.net"),
        ("whois:   WHOIS.RIPE.NET", "whois.ripe.net"),
        ("ReferralServer:  whois://whois.apnic.net", "whois.apnic.net"),
        ("ReferralServer:  whois://whois.apnic.net:43/", "whois.apnic.net"),
        ("ReferralServer:  whois://whois.apnic.net:4321", "whois.apnic.net"),
        ("ReferralServer:  rwhois://rwhois.example.net:4321", None),
        ("refer: 127.0.0.1", None),
        ("refer: localhost", None),
        ("refer: [::1]", None),
        ("refer: whois.ripe.net -h 127.0.0.1", None),
        ("refer: a..b.net", None),
        ("refer: whois.ripe.net\x00.evil.net", None),
        (f"refer: {'a' * 63}.net", f"{'a' * 63}.net"),
        (f"refer: {'a' * 64}.net", None),
        (f"refer: {'a.' * 130}net", None),
        ("refer:", None),
        ("remarks: refer: whois.ripe.net", None),
        ("% refer: whois.ripe.net", None),
    ],
)
def test_referral(line, expected):
    """
    Another server is taken when it is a host's name, and speaks whois.
    """
    assert whoistext.referral(f"\n{line}\n".encode()) == expected
    assert whoistext.referral(IANA) == "whois.ripe.net"


@pytest.mark.parametrize(
    "answer",
    [
        b"\n" * 65536,
        b"%" * 65536,
        b"% " * 32768,
        b"a:b\n" * 16384,
        b"cidr:" + b"9.2.3.0/24," * 5957,
        b"cidr: 9.2.3.0/24\n\n" * 3640,
        b"inetnum: " + b"(" * 65000,
        b"refer: " + b"a." * 32000,
        b"refer: " + b"a" * 65000,
    ],
)
def test_hostile(answer):
    """
    Long answers are read as far as they are of use; nothing in them is searched again and again.
    """
    found = whoistext.origin(answer, ip_address("9.2.3.4"), "whois.example.net")
    whoistext.referral(answer)
    whoistext.saysNothing(answer)
    assert found is None or found.network == "9.2.3.0/24"
