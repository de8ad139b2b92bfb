"""
Which hosts take the mail of a domain, and which of them may be asked.
"""

import random
from ipaddress import IPv6Address, ip_address, ip_network
from socket import AF_INET, AF_INET6, SOCK_DGRAM, socket
from typing import NamedTuple

from ppolicy.errors import DNSError

# Hosts whose addresses are looked up; a domain may have any number.
_LOOKED_UP = 10
# Addresses of each kind that a host may have.
_ADDRESSES = 8
# IPv4 addresses behind a translator (RFC 6052, 2.1).
_NAT64 = ip_network("64:ff9b::/96")


class MailHosts(NamedTuple):
    """
    @ivar exists: are there hosts, with addresses, that take mail for the domain?
    @ivar isWhole: is every host that there is among the targets?
    @ivar isOwn: does this host itself take the mail?
    @ivar names: of all the hosts, the best first.
    @ivar targets: (host, address) in the order in which they are to be asked.
    @ivar reason: why there are none, or no more, a sentence; it is harmless to show.
    """

    exists: bool
    reason: str
    targets: list = []
    names: list = []
    isWhole: bool = False
    isOwn: bool = False


class Guard:
    """
    Whom we never connect to: ourselves, and addresses that mean something on our own network only.

    @param names: of this host.
    @param allowPrivate: True to allow addresses of private networks; or a list of networks, all of whose addresses
        are allowed, even our own.
    @raises ValueError: when one of them is no network.
    """

    def __init__(self, names=(), allowPrivate=False):
        self._names = {name.lower().removesuffix(".") for name in names if name}
        isList = isinstance(allowPrivate, list | tuple)
        self._allowed = [ip_network(one) for one in allowPrivate] if isList else []
        self._allowsPrivate = allowPrivate is True

    def isOwnName(self, host):
        """
        Is this a name, or an address, of this host?
        """
        return host.lower() in self._names

    def isOwn(self, address):
        """
        Is this an address of this host?
        """
        address = _plain(address)
        if any(address in network for network in self._allowed):
            return False
        return self.isOwnName(str(address)) or _isAnybodys(address) or isLocal(address)

    def isSurelyOwn(self, host, addresses):
        """
        Is this host, with these addresses, ourselves, by its name or an address that no other host has? Whoever
        owns a domain may say that it has an address of loopback.
        """
        return self.isOwnName(host) or any(self.isOwn(one) and not _isAnybodys(_plain(one)) for one in addresses)

    def refuses(self, address):
        """
        May this address, which is not our own, not be connected to?
        """
        address = _plain(address)
        if any(address in network for network in self._allowed):
            return False
        if address.is_multicast or address.is_reserved or address.is_unspecified:
            return True
        return not self._allowsPrivate and not address.is_global


def _plain(address):
    """
    An address, the one of IPv4 where it is wrapped into one of IPv6.
    """
    address = ip_address(address)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ip_address(int(address) & 0xFFFFFFFF)
    return address


def _isAnybodys(address):
    """
    Does every host have this address?
    """
    return address.is_loopback or address.is_unspecified


def isLocal(address):
    """
    Is it an address of one of our interfaces? Whoever talks to himself talks from the same address. Nothing is
    sent.
    """
    with socket(AF_INET6 if address.version == 6 else AF_INET, SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
            return probe.getsockname()[0] == str(address)
        except OSError:  # no way there
            return False


def mailHosts(dns, domain, guard, most=3, shuffle=random.shuffle):
    """
    The hosts for the mail of a domain (RFC 5321, 5.1): by preference of the MX records, equal ones in any order;
    the domain itself where there is no MX record. It waits.

    Where this host is one of them, those that are not better than it are left out: mail for them would come from
    here (RFC 5321, 5.1), and so would our question to them come back.

    @param domain: in ASCII, or an address in brackets.
    @return: L{MailHosts}.
    @raises DNSError: when nobody could say.
    """
    if domain.startswith("["):
        return _ofLiteral(domain, guard)
    answer = dns.lookup(domain, "MX")
    if not answer.exists:
        return MailHosts(False, f"{domain} does not exist")
    records = [(preference, host) for preference, host in answer.records if host]
    if answer.records and not records:
        return MailHosts(False, f"{domain} takes no mail (null MX)")  # RFC 7505, 3
    shuffle(records)
    records.sort(key=lambda record: record[0])
    hosts = records[:_LOOKED_UP] or [(0, domain)]
    found, trouble = _addresses(dns, hosts)
    if not any(found.values()):
        if trouble is not None:
            raise trouble
        if len(records) > len(hosts):
            return MailHosts(True, f"the first {len(hosts)} mail hosts of {domain} have no address")
        return MailHosts(False, f"no mail host of {domain} has an address")
    return _targets(hosts, found, guard, most, trouble is not None or len(records) > len(hosts))


def _ofLiteral(domain, guard):
    text = domain[1:-1].removeprefix("ipv6:")
    try:
        ip_address(text)
    except ValueError:
        return MailHosts(False, f"{domain} is no address")
    return _targets([(0, text)], {text: [text]}, guard, 1)


def _addresses(dns, hosts):
    """
    @return: ({host: its addresses, those of IPv4 first}, a L{DNSError} when something could not be looked up).
    """
    names = list(dict.fromkeys(host for _, host in hosts))
    answers = dns.lookupAll([(name, kind) for name in names for kind in ("A", "AAAA")])
    found, trouble = {name: [] for name in names}, None
    for number, answer in enumerate(answers):
        if isinstance(answer, DNSError):
            trouble = answer
        else:
            found[names[number // 2]] += answer.records[:_ADDRESSES]
    return found, trouble


def _targets(hosts, found, guard, most, lacking=False):
    """
    @param lacking: are there more hosts or addresses than these?
    """
    own = [
        preference
        for preference, host in hosts
        if guard.isOwnName(host) or any(guard.isOwn(address) for address in found[host])
    ]
    better = [(preference, host) for preference, host in hosts if not own or preference < min(own)]
    targets = [(host, address) for _, host in better for address in found[host] if not guard.refuses(address)]
    isOwn = not better and any(guard.isSurelyOwn(host, found[host]) for _, host in hosts)
    if isOwn:
        reason = "this host itself takes its mail"
    elif not targets:
        reason = "its mail hosts have no public address"
    else:
        reason = ""
    names = list(dict.fromkeys(host for _, host in hosts))
    targets = _eachHostFirst(targets)[:most]
    isWhole = not lacking and {host for host, _ in targets} == set(names)
    return MailHosts(True, reason, targets, names, isWhole, isOwn=isOwn)


def _eachHostFirst(targets):
    """
    The first address of every host, then the second ones; none twice.
    """
    turn: dict = {}
    order = []
    for number, (host, _) in enumerate(targets):
        turn[host] = turn.get(host, 0) + 1
        order.append((turn[host], number))
    unique: dict = {}
    for _, number in sorted(order):
        unique.setdefault(targets[number][1], targets[number])
    return list(unique.values())
