"""
Does the name of a host look like one that a provider makes up for the addresses of its customers?
"""

import re

from ppolicy.address import registeredDomain

# Words, whole ones between digits and separators, that such names have.
_MADE_UP = """
    dsl adsl vdsl xdsl sdsl hdsl dslb dynadsl internetdsl dial dialup dialin dialer isdn ras ppp pppoe pppoa bras
    dyn dynamic dynamicip dynip dynamisch dinamic dinamico dinamica dynamique ddns dhcp dip ipt pool pools
    cable cablemodem catv modem docsis hfc ftth fttx fttb fttc gpon pon broadband bband wimax wifi wlan hotspot
    lte umts gprs mobile cpe cust customer customers client clients subscriber subscribers user users residential
"""
_WORDS = frozenset(_MADE_UP.split())
# Pieces of longer words.
_PARTS = re.compile(
    r"dialup|dynamic|dynip|dhcp|adsl|vdsl|xdsl|pppoe|broadband|cablemodem|dsl(?:pool|link|net|user)"
)
# Words of hosts that are meant to send mail, or that have their address for good.
_CHOSEN = """
    mx mxout mxa mxb esmtp out outbound outgoing mout outmail relay relays relayout mta mtas mtaout send sender
    postfix exim exchange newsletter bounce bounces list lists listserv imap static fixed
"""
_SERVERS = frozenset(_CHOSEN.split())
# The last two numbers of an address, behind a word that says so.
_TWO = re.compile(r"(?:^|[^a-z])(?:ip|host|h|x|net)[-.]?(\d{1,3})[-.x](\d{1,3})(?!\d)")


def looksDynamic(name, address):
    """
    @param name: the host's name, or empty.
    @param address: its C{ipaddress} address.
    @return: why it looks so, in a sentence; None when it does not.
    """
    host = name.lower().strip(".")[:255]
    domain = registeredDomain(host)
    if domain is None or host == domain:
        return None
    # What the provider is called says nothing: dsl.net may well have a mail server.
    own = host[: -len(domain) - 1]
    words = re.findall(r"[a-z]+", own)
    if any(
        word in _SERVERS or word.startswith(("mail", "smtp")) or word.endswith(("mail", "smtp")) for word in words
    ):
        return None
    word = next((word for word in words if word in _WORDS), None)
    if word is None and (match := _PARTS.search(own)):
        word = match[0]
    if word is not None:
        return f"its name says {word}"
    return "its name has its address in it" if _hasAddress(own, address) else None


def _hasAddress(own, address):
    return _hasIPv4(own, address.packed) if address.version == 4 else _hasIPv6(own, address)


def _hasIPv4(own, octets):
    """
    Is the address written in a name: its numbers in a row, forward or backward, three of them at least, or two
    behind a word that says so; or without anything between, in hexadecimal, or as one number?
    """
    numbers = [int(digits) for digits in re.findall(r"(?<!\d)\d{1,3}(?!\d)", own)]
    rows = list(octets), list(reversed(octets))
    for row in rows:
        if any(numbers[at : at + 3] in (row[:3], row[1:]) for at in range(len(numbers) - 2)):
            return True
    forms = {str(int.from_bytes(octets, "big"))}
    for row in rows:
        padded = [f"{number:03}" for number in row]
        forms |= {"".join(padded), "".join(padded[:3]), "".join(padded[1:]), "".join(map(str, row))}
    if any(digits in forms for digits in re.findall(r"(?<!\d)\d{7,12}(?!\d)", own)):
        return True
    squeezed = re.sub(r"[-._]", "", own)
    if any(bytes(row).hex() in squeezed for row in rows):
        return True
    return any([int(one), int(other)] in (rows[0][2:], rows[1][:2]) for one, other in _TWO.findall(own))


def _hasIPv6(own, address):
    """
    Is it, or the half that tells customers or hosts apart, written in a name, in any form?
    """
    digits = address.exploded.replace(":", "")
    squeezed = re.sub(r"[-._]", "", own)
    if any(part in squeezed for part in (digits[:16], digits[16:], digits[::-1][:16], digits[::-1][16:])):
        return True
    return any(text.replace(":", "-") in own for text in (address.compressed, address.exploded))
