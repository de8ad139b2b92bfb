"""
DNS messages: a question as octets, and what a reply says (RFC 1035, 4).

Of a reply only what L{TYPES} names is understood. It is read as strictly as dnspython reads it, which the tests
compare, in an eighth of its time. Nothing that a reply says makes its reading take longer than its size does.
"""

import struct
from socket import AF_INET6, inet_ntoa, inet_ntop

import dns.exception
import dns.rdata

from ppolicy.address import aLabels

# Types that can be asked for.
TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
NOERROR, NXDOMAIN = 0, 3
_RCODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}
_OPT, _TSIG = 41, 250

# Octets of UDP that pass without fragments (RFC 9715), said with EDNS0 (RFC 6891, 6.1).
_PAYLOAD = 1232
_EDNS = b"\0" + struct.pack("!HHIH", _OPT, _PAYLOAD, 0, 0)
# Recursion desired; AD set: say whether the answer was validated (RFC 6840, 5.7).
_FLAGS = 0x0120
# Of a reply: it is from who is in charge of the zone; who sent it looks names up.
_AUTHORITATIVE, _RECURSIVE = 0x0400, 0x0080
_IN = 1
_header = struct.Struct("!HHHHHH")
_record = struct.Struct("!HHIH")
_pair = struct.Struct("!HH")

# What is followed at most: pointers of one name, as in dnspython; in a whole message labels and pointers behind
# pointers, and records of types that only dnspython reads.
_POINTERS = 16
_BEHIND = 4000
_FOREIGN = 100

_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/"


def onWire(name):
    """
    A domain name in lower case as a message has it.

    @param name: text, with or without a dot at its end; "." is the root; what is not ASCII becomes IDNA.
    @return: octets, None for what is no domain name: labels of 1 to 63 octets, 253 in all (RFC 1035, 2.3.4).
    """
    if name == ".":
        return b"\0"
    if len(name) > 254 or "\\" in name:
        return None
    name = name.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = aLabels(name)
        except UnicodeError:
            return None
    if len(name) > 253:
        return None
    labels = name.encode("ascii").split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        return None
    return b"".join([bytes((len(label),)) + label for label in labels]) + b"\0"


def nameOf(wire):
    """
    The text of a name that L{onWire} has made.
    """
    return _Names(wire).to(0)


def question(number, wire, kind):
    """
    A question.

    @param number: its identity, 16 bits.
    @param wire: a name, as L{onWire} gives it.
    @param kind: a number of L{TYPES}.
    """
    return b"".join((_header.pack(number, _FLAGS, 1, 0, 0, 1), wire, _pair.pack(kind, _IN), _EDNS))


class Reply:
    """
    What the reply to a question says.

    @ivar name: what was asked for, as text.
    @ivar code: L{NOERROR}, L{NXDOMAIN}, or what the server could not do.
    @ivar truncated: is there more than fits? What is there is not looked at then (RFC 2181, 9): some servers cut
        it off and still count it.
    @ivar authentic: does the server say that it has validated the answer?
    @ivar records: [(owner, type, seconds to live, value)] of the answer. A value is a text: an address or a host;
        for MX (preference, host), for TXT the tuple of its strings, octets; for SOA its minimum in seconds. Names
        are in lower case, without a dot at the end; the root is empty.
    @ivar negative: for how many seconds it holds that there is nothing (RFC 2308, 5); None when it is not said.
    @raises ValueError: when the octets are no reply to this question, or no DNS message.
    """

    __slots__ = ("_flags", "_foreign", "authentic", "code", "name", "negative", "records", "truncated")

    def __init__(self, octets, wire, kind):
        place = 12 + len(wire)
        # The question is there as it was asked, but for capital letters.
        if octets[4:6] != b"\0\1" or octets[12 : place + 4].lower() != (wire + _pair.pack(kind, _IN)).lower():
            raise ValueError("another question was asked")
        _, flags, _, answers, authorities, additionals = _header.unpack_from(octets)
        if flags & 0xF800 != 0x8000:  # a reply, to a standard query
            raise ValueError("no reply")
        self._flags = flags
        self.code = flags & 15
        self.truncated = flags & 0x0200 != 0
        self.authentic = flags & 0x20 != 0
        self.negative = None
        self._foreign = _FOREIGN
        names = _Names(octets)
        place += 4
        if self.truncated:
            self.name, self.records = names.to(12), []
            return
        try:
            self.records, place = self._section(names, place, answers)
            if authorities:
                authority, place = self._section(names, place, authorities)
                self.negative = min(
                    (min(ttl, value) for _, kind, ttl, value in authority if kind == "SOA"), default=None
                )
            if additionals:
                place = self._additional(names, place, additionals)
        except (IndexError, struct.error):
            raise ValueError("a message that ends too soon") from None
        if place != len(octets):
            raise ValueError("octets behind the message")
        self.name = names.to(12)

    @property
    def trouble(self):
        """
        Why there is no answer in it; None when there is. Who looks nothing up has no answer either when it only
        refers to other servers, or has nothing to say: that is not known to be nothing (RFC 2308, 2.2).
        """
        if self.code not in (NOERROR, NXDOMAIN):
            return _RCODES.get(self.code, f"code {self.code}")
        knows = self._flags & (_AUTHORITATIVE | _RECURSIVE) or self.records or self.negative is not None
        return None if knows or self.code == NXDOMAIN else "it looks nothing up for us"

    def _section(self, names, place, count):
        """
        So many records from a place on.

        @return: (records, the place behind them).
        """
        records = []
        octets = names.octets
        size = len(octets)
        for _ in range(count):
            owner, place = names.at(place, size)
            kind, group, ttl, length = _record.unpack_from(octets, place)
            place += 10
            end = place + length
            if end > size:
                raise ValueError("a record that ends too late")
            reader = _READERS.get(kind)
            if reader is None or group != _IN:
                self._skip(names, kind, group, place, end)
            else:
                kindName, read = reader
                if ttl > 0x7FFFFFFF:  # RFC 2181, 8
                    ttl = 0
                records.append((owner, kindName, ttl, read(names, place, end)))
            place = end
        return records, place

    def _additional(self, names, place, count):
        """
        The last section: of use is only what EDNS says.

        @return: the place behind it.
        """
        octets = names.octets
        found = False
        for _ in range(count):
            if octets[place : place + 3] == b"\0\0\x29":
                if found:
                    raise ValueError("EDNS twice")
                found = True
                _, group, ttl, length = _record.unpack_from(octets, place + 1)
                self.code |= ttl >> 24 << 4  # RFC 6891, 6.1.3
                place += 11
                if length:
                    if place + length > len(octets):
                        raise ValueError("a record that ends too late")
                    self._foreigner(names, _OPT, group, place, place + length)
                    place += length
            else:
                _, place = self._section(names, place, 1)
        return place

    def _skip(self, names, kind, group, place, end):
        if kind in (_OPT, _TSIG):
            raise ValueError("a record that does not belong there")
        self._foreigner(names, kind, group, place, end)

    def _foreigner(self, names, kind, group, place, end):
        """
        A record that we have no use for: dnspython finds out whether it is well-formed.
        """
        self._foreign -= 1
        if self._foreign < 0:
            raise ValueError("too many records of types that were not asked for")
        try:
            dns.rdata.from_wire(group, kind, names.octets, place, end - place)
        except dns.exception.DNSException as error:
            raise ValueError(f"a record of type {kind}: {error}") from None


class _Names:
    """
    The names in a message.

    Pointers lead back only, and what they lead to ends before the name: so none can be followed for ever.
    """

    __slots__ = ("_known", "_left", "octets")

    def __init__(self, octets):
        self.octets = octets
        self._known = {}
        self._left = _BEHIND

    def at(self, place, end):
        """
        The name at a place, as text.

        @return: (name, the place behind it).
        @raises ValueError: when it does not end before C{end}, or is no name.
        @raises IndexError: when the message ends before it does.
        """
        octets = self.octets
        size = octets[place]
        if size < 192:
            return self._walk(place, end)
        target = (size & 63) << 8 | octets[place + 1]
        if target not in self._known:
            self._known[target] = self._walk(place, end)[0]
        elif place + 2 > end:
            raise ValueError("a name that ends too late")
        return self._known[target], place + 2

    def to(self, target):
        """
        The name that a pointer to this place, where one begins, means.
        """
        return self._known.get(target) or self._walk(target, len(self.octets))[0]

    def _walk(self, place, end):
        octets = self.octets
        labels = []
        total, hops, start, behind = 1, 0, place, None
        while True:
            size = octets[place]
            place += 1
            if size < 64:
                total += size + 1
                place += size
                if place > end:
                    raise ValueError("a name that ends too late")
                if not size:
                    return text(labels), place if behind is None else behind
                if total > 255:
                    raise ValueError("a name that is too long")
                labels.append(octets[place - size : place])
            elif size >= 192:
                target = (size & 63) << 8 | octets[place]
                place += 1
                if place > end or target >= start:
                    raise ValueError("a pointer that does not lead back")
                hops += 1
                if hops > _POINTERS:
                    raise ValueError("too many pointers")
                if behind is None:
                    behind = place
                end = start
                start = place = target
            else:
                raise ValueError("a label of an unknown kind")
            if hops:
                self._left -= 1
                if self._left < 0:
                    raise ValueError("too many pointers")


def text(labels):
    """
    Labels as the text of a name in lower case; a backslash goes before what is no letter, digit, hyphen,
    underscore or slash, and before the three decimal digits of what is not even printable (RFC 1035, 5.1).
    """
    joined = b".".join(labels)
    if len(joined.translate(None, _PLAIN)) >= (len(labels) or 1):
        return ".".join(["".join(map(_escaped, label)) for label in labels])
    return joined.decode("ascii").lower()


def _escaped(octet):
    if octet in _PLAIN:
        return chr(octet).lower()
    return f"\\{chr(octet)}" if 32 < octet < 127 else f"\\{octet:03}"


def _four(names, place, end):
    if end - place != 4:
        raise ValueError("an address of another length")
    return inet_ntoa(names.octets[place:end])


def _sixteen(names, place, end):
    if end - place != 16:
        raise ValueError("an address of another length")
    return inet_ntop(AF_INET6, names.octets[place:end])


def _host(names, place, end):
    name, behind = names.at(place, end)
    if behind != end:
        raise ValueError("octets behind a name")
    return name


def _exchange(names, place, end):
    if end - place < 3:
        raise ValueError("a mail exchange of another length")
    return int.from_bytes(names.octets[place : place + 2], "big"), _host(names, place + 2, end)


def _strings(names, place, end):
    octets = names.octets
    strings = []
    while place < end:
        behind = place + 1 + octets[place]
        strings.append(octets[place + 1 : behind])
        place = behind
    if place != end or not strings:
        raise ValueError("strings of another length")
    return tuple(strings)


def _minimum(names, place, end):
    _, place = names.at(place, end)
    _, place = names.at(place, end)
    if end - place != 20:
        raise ValueError("a start of authority of another length")
    return int.from_bytes(names.octets[end - 4 : end], "big")


_READERS = {
    TYPES[name]: (name, read)
    for name, read in {
        "A": _four,
        "NS": _host,
        "CNAME": _host,
        "SOA": _minimum,
        "PTR": _host,
        "MX": _exchange,
        "TXT": _strings,
        "AAAA": _sixteen,
    }.items()
}
