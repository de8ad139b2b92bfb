"""
DNS messages: a question as octets, and what a reply says (RFC 1035, 4).

Of a reply only what L{TYPES} names is understood. It is read as strictly as dnspython reads it, which the tests
compare, in an eighth of its time.
"""

import struct
from socket import AF_INET6, inet_ntoa, inet_ntop

# Types that can be asked for.
TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
_TYPE_NAMES = {number: name for name, number in TYPES.items()}
NOERROR, NXDOMAIN = 0, 3
_RCODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}

# Octets of UDP that pass without fragments (RFC 9715), said with EDNS0 (RFC 6891, 6.1).
_PAYLOAD = 1232
_EDNS = b"\0" + struct.pack("!HHIH", 41, _PAYLOAD, 0, 0)
# Recursion desired; AD set: say whether the answer was validated (RFC 6840, 5.7).
_FLAGS = 0x0120
_IN = 1
_header = struct.Struct("!HHHHHH")
_record = struct.Struct("!HHIH")
_pair = struct.Struct("!HH")


def onWire(name):
    """
    A domain name in lower case as a message has it.

    @param name: text, with or without a dot at its end; what is not ASCII becomes IDNA.
    @return: octets, None for what is no domain name: labels of 1 to 63 octets, 253 in all (RFC 1035, 2.3.4).
    """
    name = name.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    if len(name) > 253:
        return None
    labels = name.encode("ascii").split(b".") if name else []
    if not all(0 < len(label) < 64 for label in labels):
        return None
    return b"".join([bytes((len(label),)) + label for label in labels]) + b"\0"


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

    @ivar code: L{NOERROR}, L{NXDOMAIN}, or what the server could not do.
    @ivar truncated: is there more than fits?
    @ivar authentic: does the server say that it has validated the answer?
    @ivar records: [(owner, type, seconds to live, value)] of the answer. A value is a text: an address or a host;
        for MX (preference, host), for TXT the tuple of its strings, octets; for SOA its minimum in seconds. Names
        are in lower case, without a dot at the end.
    @ivar negative: for how many seconds it holds that there is nothing (RFC 2308, 5); None when it is not said.
    @raises ValueError: when the octets are no reply to this question, or no DNS message.
    """

    __slots__ = ("authentic", "code", "negative", "records", "truncated")

    def __init__(self, octets, wire, kind):
        place = 12 + len(wire)
        # The question is there as it was asked, but for capital letters.
        if (
            len(octets) < place + 4
            or octets[4:6] != b"\0\1"
            or octets[12:place].lower() != wire
            or octets[place : place + 4] != _pair.pack(kind, _IN)
        ):
            raise ValueError("another question was asked")
        _, flags, _, answers, authorities, additionals = _header.unpack_from(octets)
        if flags & 0xF800 != 0x8000:  # a reply, to a standard query
            raise ValueError("no reply")
        self.code = flags & 15
        self.truncated = bool(flags & 0x0200)
        self.authentic = bool(flags & 0x20)
        self.negative = None
        place += 4
        try:
            self.records, place = _section(octets, place, answers)
            authority, place = _section(octets, place, authorities)
            _, place = _section(octets, place, additionals)
        except (IndexError, struct.error):
            raise ValueError("a message that ends too soon") from None
        if place != len(octets):
            raise ValueError("octets behind the message")
        for _, name, ttl, value in authority:
            if name == "SOA":
                self.negative = min(ttl, value)

    @property
    def trouble(self):
        """
        Why there is no answer in it; None when there is.
        """
        return None if self.code in (NOERROR, NXDOMAIN) else _RCODES.get(self.code, f"code {self.code}")


def _section(octets, place, count):
    """
    So many records from a place on.

    @return: (records, the place behind them).
    """
    records = []
    for _ in range(count):
        owner, place = _name(octets, place, len(octets))
        kind, group, ttl, length = _record.unpack_from(octets, place)
        place += 10
        end = place + length
        if end > len(octets):
            raise ValueError("a record that ends too late")
        read = _READERS.get(kind) if group == _IN else None
        if read is not None:
            records.append((owner, _TYPE_NAMES[kind], ttl, read(octets, place, end)))
        place = end
    return records, place


def _name(octets, place, end):
    """
    A name as text; pointers lead back only, so that none can be followed for ever.

    @return: (name, the place behind it).
    """
    labels, behind, lowest, total = [], place, place, 1
    while True:
        size = octets[place]
        place += 1
        if size >= 192:
            target = (size & 63) << 8 | octets[place]
            behind = max(behind, place + 1)
            if target >= lowest or place >= end:
                raise ValueError("a pointer that does not lead back")
            place = lowest = target
            continue
        if size >= 64:
            raise ValueError("a label of an unknown kind")
        behind = max(behind, place + size)
        if behind > end:
            raise ValueError("a name that ends too late")
        if not size:
            return text(labels), behind
        total += size + 1
        if total > 255:
            raise ValueError("a name that is too long")
        labels.append(octets[place : place + size])
        place += size


def text(labels):
    """
    Labels as the text of a name, with a backslash before what is no letter, digit or other sign of ASCII.
    """
    name = b".".join(labels)
    if name.count(b".") >= len(labels) > 0 or b"\\" in name:
        name = b".".join(label.replace(b"\\", b"\\\\").replace(b".", b"\\.") for label in labels)
    return name.decode("ascii", "backslashreplace").lower()


def _exactly(size):
    def read(octets, place, end):
        if end - place != size:
            raise ValueError("an address of another length")
        return octets[place:end]

    return read


_four, _sixteen = _exactly(4), _exactly(16)


def _host(octets, place, end):
    name, behind = _name(octets, place, end)
    if behind != end:
        raise ValueError("octets behind a name")
    return name


def _exchange(octets, place, end):
    return int.from_bytes(octets[place : place + 2], "big"), _host(octets, place + 2, end)


def _strings(octets, place, end):
    strings = []
    while place < end:
        behind = place + 1 + octets[place]
        strings.append(octets[place + 1 : behind])
        place = behind
    if place != end or not strings:
        raise ValueError("strings of another length")
    return tuple(strings)


def _minimum(octets, place, end):
    _, place = _name(octets, place, end)
    _, place = _name(octets, place, end)
    if end - place != 20:
        raise ValueError("a start of authority of another length")
    return int.from_bytes(octets[end - 4 : end], "big")


_READERS = {
    TYPES["A"]: lambda octets, place, end: inet_ntoa(_four(octets, place, end)),
    TYPES["AAAA"]: lambda octets, place, end: inet_ntop(AF_INET6, _sixteen(octets, place, end)),
    TYPES["NS"]: _host,
    TYPES["CNAME"]: _host,
    TYPES["PTR"]: _host,
    TYPES["MX"]: _exchange,
    TYPES["TXT"]: _strings,
    TYPES["SOA"]: _minimum,
}
