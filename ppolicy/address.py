"""
Names and addresses of hosts, as policies ask about them.

For a policy: C{from ppolicy.address import registeredDomain, isPrivate, networkOf, isLiteral}.
"""

import ipaddress
from functools import lru_cache

import idna
from publicsuffixlist import PublicSuffixList


@lru_cache(1)
def _suffixes():
    return PublicSuffixList(only_icann=True)


def aLabels(name):
    """
    A domain name with A-labels in place of what is not ASCII, the same ones that Postfix delivers to (UTS #46, not
    transitional): in IDNA of 2003, which Python's own codec has, C{faß.example} is another domain,
    C{fass.example}.

    @raises UnicodeError: when there are characters that no name has.
    """
    if name.isascii():
        return name
    labels = idna.uts46_remap(name, False).split(".")
    return ".".join([one if one.isascii() else f"xn--{one.encode('punycode').decode('ascii')}" for one in labels])


def address(text):
    """
    @return: an C{ipaddress.IPv4Address} or C{IPv6Address}, one of IPv4 where it is mapped into IPv6; None when the
        text is no address.
    """
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if found.version == 6 else found


def isAddress(text):
    """
    Is it an IP address?
    """
    return address(text) is not None


def isPrivate(text):
    """
    Is it an address that nobody out there can have: private, of this host, of this link, reserved
    (the registries of RFC 6890)? What is no address is not.
    """
    found = address(text)
    return found is not None and not (found.is_global and not found.is_multicast)


def networkOf(text, ipv4=24, ipv6=64):
    """
    The network of an address, such as C{192.0.2.0/24} or C{2001:db8::/64}; what is no address stays as it is.

    @param ipv4, ipv6: how many bits count.
    """
    found = address(text)
    if found is None:
        return text
    return str(ipaddress.ip_network((found, ipv4 if found.version == 4 else ipv6), strict=False))


def isLiteral(helo):
    """
    Is a HELO name an address: a literal C{[192.0.2.1]}, C{[IPv6:2001:db8::1]} (RFC 5321, 4.1.3), or one without
    the brackets, which is no valid name either?
    """
    if helo.startswith("[") and helo.endswith("]"):
        helo = helo[1:-1]
        if helo[:5].lower() == "ipv6:":
            helo = helo[5:]
    return isAddress(helo)


def registeredDomain(name):
    """
    The part of a host name that somebody has registered, C{example.co.uk} of C{mail.example.co.uk}; None for a
    public suffix itself and for what is no name. By the public suffix list (https://publicsuffix.org), as the
    installed package publicsuffixlist has it; its private section, of hosting companies, does not count.

    @param name: of a host, or a mail address, whose domain is taken.
    """
    domain = name.rpartition("@")[2].strip(".").lower()
    if not domain or len(domain) > 253 or isLiteral(domain):
        return None
    return _suffixes().privatesuffix(domain)
