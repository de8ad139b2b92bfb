"""
Where an address comes from: network, country, autonomous system, registry.
"""

import json
import re
from ipaddress import ip_network, summarize_address_range
from typing import NamedTuple

# Characters of a text that are kept.
LONGEST = 100
# The largest number of an autonomous system (RFC 6793, 4).
_AS = (1 << 32) - 1


class Origin(NamedTuple):
    """
    What is known of an address; texts are printable and short, and empty where nobody says.

    @ivar network: that it belongs to, as C{192.0.2.0/24}, or C{first - last} where it is not one network.
    @ivar country: two capital letters.
    @ivar asn: the number of the autonomous system that announces it, 0 when that is not known.
    @ivar organisation: who it is assigned to.
    @ivar registry: 'arin', 'ripencc', 'apnic', 'lacnic', 'afrinic'; or the host that said it.
    @ivar allocated: when, C{2004-01-15}.
    """

    network: str = ""
    country: str = ""
    asn: int = 0
    organisation: str = ""
    registry: str = ""
    allocated: str = ""


def plain(text):
    """
    A text that can be shown anywhere: printable, of single words apart, cut.

    @param text: also octets, which should be UTF-8.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = " ".join(text.split())
    text = "".join(one if one.isprintable() else "?" for one in text[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def country(text):
    """
    A code of a country, empty when it is none.
    """
    return text.strip().upper() if re.fullmatch(r"\s*[A-Za-z]{2}\s*", text, re.ASCII) else ""


def asNumber(text):
    """
    The number of an autonomous system, as C{AS64496} or C{64496}; the first one of several; 0 when it is none.
    """
    match = re.match(r"\s*(?:AS)?([0-9]{1,10})(?![0-9.])", text, re.ASCII | re.IGNORECASE)
    number = int(match[1]) if match else 0
    return number if number <= _AS else 0


def date(text):
    """
    The day of C{2004-01-15}, C{20040115} or C{2004-01-15T00:00:00Z}, empty when it is none.
    """
    match = re.match(r"\s*([0-9]{4})-?([01][0-9])-?([0-3][0-9])(?![0-9])", text, re.ASCII)
    return "-".join(match.groups()) if match else ""


def shownNetwork(first, last):
    """
    A range of addresses as a text.
    """
    if first == last:
        return str(ip_network(first))
    networks = list(summarize_address_range(first, last))
    return str(networks[0]) if len(networks) == 1 else f"{first} - {last}"


def toText(origin):
    """
    An L{Origin} as it is stored.
    """
    return json.dumps(origin)


def fromText(text):
    """
    The L{Origin} that was stored, None when that is not what it is.
    """
    try:
        values = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, list) or [type(one) for one in values] != [str, str, int, str, str, str]:
        return None
    return Origin(*(plain(one) if isinstance(one, str) else one for one in values))
