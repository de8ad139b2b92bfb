"""
Which name servers are asked: the option `dnsServers`, else those of the system.
"""

import ipaddress
import re
from pathlib import Path

from ppolicy.address import isAddress

PATH = "/etc/resolv.conf"
# Resolvers for everybody, which DNS lists refuse: https://www.spamhaus.org/faqs/dnsbl-usage/
_PUBLIC = {
    *("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),
    *("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),
    *("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),
    *("208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53"),
}
# What the C library asks where nothing is said, resolv.conf(5).
_DEFAULT = ("127.0.0.1", 53)


def nameServers(wanted, path=PATH):
    """
    @param wanted: the option: as L{nameServer} takes it, of each; nothing for those of the system.
    @return: [(address, port)].
    """
    return list(map(nameServer, wanted)) or systemServers(path)


def systemServers(path=PATH):
    """
    The name servers of resolv.conf. As with the C library a line that cannot be read takes nothing away from the
    others.
    """
    try:
        lines = Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    found = [words[1] for words in map(str.split, lines) if words[:1] == ["nameserver"] and len(words) > 1]
    return [(host, 53) for host in dict.fromkeys(found) if isAddress(host)] or [_DEFAULT]


def publicServers(servers):
    """
    Those of L{nameServers} that are resolvers for everybody.
    """
    return [host for host, _ in servers if host in _PUBLIC]


def nameServer(text):
    """
    @param text: 'address', 'address:port' or '[v6]:port'.
    @return: (address, port).
    @raises ValueError: when it is none of these.
    """
    match = re.fullmatch(r"\[(?P<v6>.*)\](:(?P<p6>\d{1,5}))?|(?P<v4>[^:]*):(?P<p4>\d{1,5})|(?P<bare>.*)", text)
    host, port = match["v6"] or match["v4"] or match["bare"], int(match["p6"] or match["p4"] or 53)
    try:
        version = ipaddress.ip_address(host or "").version
    except ValueError:
        version = None
    if version is None or (match["v6"] and version == 4) or not 0 < port < 65536:
        raise ValueError(f"{text!r} is none of 'address', 'address:port', '[v6]:port'")
    return host, port
