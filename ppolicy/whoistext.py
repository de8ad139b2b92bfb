"""
What the answers of registries to whois questions say about an address, and who else is to be asked.

RFC 3912 says nothing about the text of an answer. All five registries write C{name: value}, in blocks with empty
lines between them; the names differ.
"""

import re
from ipaddress import ip_address, ip_network
from itertools import islice

from ppolicy.origin import Origin, asNumber, country, date, plain, shownNetwork

# Names of values, in the words of ARIN, of RIPE, APNIC and AFRINIC, of LACNIC, and of national registries.
_NETWORKS = ("netrange", "cidr", "inetnum", "inet6num", "ipv4 address", "ipv6 address")
_ROUTES = ("route", "route6")
_NAMES = ("orgname", "org-name", "custname", "owner", "organization", "organization name", "organisation name")
_NAMES_ELSE = ("descr", "netname", "network name")
_NUMBERS = ("originas", "aut-num", "origin")
_DATES = ("regdate", "created", "registration date")
_REFERRALS = ("refer", "referralserver", "whois")
# Ranges that a registry shows for what it has nothing of.
_PLACEHOLDERS = ("non-ripe-ncc-managed-address-block", "iana-blk", "iana-netblock", "not-managed-by")
_NOTHING = re.compile(
    rb"^[%# \t]{0,9}(?:error:101: {0,3})?(?:no (?:match|entries|data|record|object)|not found\b)",
    re.IGNORECASE | re.MULTILINE,
)
_HOST = re.compile(
    r"(?:whois://)?(?P<host>(?=.{4,253}(?:[:/]|$))(?:[a-z0-9][a-z0-9-]{0,62}\.)+[a-z][a-z0-9-]{0,62})\.?"
    r"(?::[0-9]{1,5})?/?",
    re.ASCII,
)
# Lines of an answer, names in a block and ranges of addresses that are looked at.
_LINES = 2000
_MOST = 200
_RANGES = 500

REGISTRIES = {
    "whois.arin.net": "arin",
    "whois.ripe.net": "ripencc",
    "whois.apnic.net": "apnic",
    "whois.lacnic.net": "lacnic",
    "whois.afrinic.net": "afrinic",
}


def blocks(octets):
    """
    @return: a list of {name in lower case: [values]}.
    """
    found: list = [{}]
    for line in map(str.strip, octets.decode("utf-8", "replace").split("\n", _LINES)[:_LINES]):
        if not line:
            if found[-1]:
                found.append({})
        elif line[0] not in "%#":
            name, colon, value = line.partition(":")
            if colon and len(name) < 40 and value.strip() and len(found[-1]) < _MOST:
                values = found[-1].setdefault(name.strip().lower(), [])
                if len(values) < _MOST:
                    values.append(value.strip())
    return [block for block in found if block]


def referral(octets):
    """
    The host that is to be asked instead, None when there is none; its port does not count.
    """
    for block in blocks(octets):
        for name in _REFERRALS:
            for value in block.get(name, ()):
                match = _HOST.fullmatch(value.lower())
                if match:
                    return match["host"]
    return None


def saysNothing(octets):
    """
    Does the registry say that it has nothing?
    """
    return _NOTHING.search(octets) is not None


def origin(octets, address, host):
    """
    What is said about the smallest network that has the address.

    @param host: that answered.
    @return: an L{Origin}, or None.
    """
    all_ = blocks(octets)
    found = [one for one in islice(_ranges(all_, _NETWORKS), _RANGES) if _has(one, address)]
    if not found:
        return None
    _, first, last, at = min((int(last) - int(first), first, last, at) for first, last, at in found)
    routes = [one for one in islice(_ranges(all_, _ROUTES), _RANGES) if _has(one, address)]
    number = _number(all_[routes[0][2]]) if routes else 0
    block, about = all_[at], all_[at : _end(all_, at)]
    names = " ".join(block.get("netname", ())).lower()
    if int(first) == 0 or names.startswith(_PLACEHOLDERS):
        return None
    return Origin(
        shownNetwork(first, last),
        _first(about, ("country",), country),
        _number(block) or number,
        _first(about, _NAMES, plain) or _first([block], _NAMES_ELSE, plain),
        REGISTRIES.get(host, plain(host)),
        _first([block], _DATES, date),
    )


def _end(all_, at):
    """
    Where the blocks end that belong to that of a network: before the next one of a network or route.
    """
    for following in range(at + 1, len(all_)):
        if any(name in all_[following] for name in (*_NETWORKS, *_ROUTES)):
            return following
    return len(all_)


def _first(some, names, convert):
    """
    The first value of any of these names that can be converted.
    """
    for block in some:
        for name in names:
            for value in block.get(name, ()):
                converted = convert(value)
                if converted:
                    return converted
    return ""


def _number(block):
    return _first([block], _NUMBERS, asNumber) or 0


def _ranges(all_, names):
    """
    (first, last, number of the block) of every range of addresses.
    """
    for at, block in enumerate(all_):
        for name in names:
            for value in block.get(name, ()):
                for text in value.partition("(")[0].split(","):
                    ends = _ends(text)
                    if ends is not None:
                        yield *ends, at


def _has(one, address):
    first, last, _ = one
    return first.version == address.version and first <= address <= last


def _ends(text):
    first, dash, last = text.partition("-")
    try:
        if dash:
            ends = ip_address(first.strip()), ip_address(last.strip())
            return ends if ends[0].version == ends[1].version and ends[0] <= ends[1] else None
        first, slash, bits = text.strip().partition("/")
        if slash and ":" not in first:  # LACNIC leaves out octets of 0
            first = ".".join([*first.split("."), "0", "0", "0"][:4])
        network = ip_network(f"{first}{slash}{bits}", strict=False)
    except ValueError:
        return None
    return network[0], network[-1]
