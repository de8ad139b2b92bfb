"""
The entries of a list of values, as text files have them: what a value is looked up in.

One entry a line. White space around it is nothing, C{#} starts a comment at the beginning of a line or after white
space, blank lines are skipped. After the entry and white space may stand a text, which is handed out with it::

    example.com             as a whole, without regard to case
    user@example.com        the same
    user@                   this local part at any domain
    @example.com            any address of exactly this domain
    .example.com            this domain and all below it; of a mail address, what follows the last @
    192.0.2.0/24  reason    an address, or the addresses of a network, IPv4 or IPv6
    /^dyn[0-9]+\\./i         a regular expression, searched in the value; i ignores case in any list

Of several entries that fit, the first of these counts: the value itself, C{user@}, C{@domain}, the longest domain,
the longest network, the first regular expression. Of two that are the same, the first counts. A value that is an
IP address is never taken for a domain.

The octets are UTF-8; what is none stands for itself (surrogateescape), as in requests.

Regular expressions are the site's own code: they run in the server, on the first 2048 characters of a value. One
that runs away is interrupted by the watchdog, but only in the reactor's thread: elsewhere it holds the whole
process, so C{find()} belongs there.
"""

import io
import re
import socket
from array import array

from ppolicy.errors import Mistake

LONGEST = 10_000  # characters of a line
SEARCHED = 2048  # characters of a value that a regular expression sees
MISTAKES = 1000  # that are listed of one file

_BOM = b"\xef\xbb\xbf"
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_REGEX = re.compile(r"/((?:[^/\\]|\\.)*)/([^ \t]*)")
_VALUE = re.compile(r"[^ \t]+")

# What nobody means as a plain value. Without a slash, digits and colons may be a fingerprint or a time.
_MEANT = re.compile(r"[0-9.]*\.[0-9.]*/.*|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*/.*|[0-9]+(?:\.[0-9]+){3}")
# What others write for a network or for anything: here it is a value like any other.
_PART = re.compile(r"(?:[0-9]{1,3}\.){2}[0-9]{1,3}|(?:[0-9]{1,3}\.){2,4}")
_ADDRESS = 45  # characters of the longest address, an IPv4 address within IPv6 (INET6_ADDRSTRLEN)
_DOMAIN = 253  # characters of the longest domain without its root (RFC 1035, 2.3.4)

_ALL = 128
_MAPPED = 96  # IPv4 addresses are those below ::ffff:0:0/96 (RFC 4291, 2.5.5.2)


class Entries:
    """
    The entries of one list, never changed once they are read.

    A million of them have to fit, so the octets are kept as they are, and of each entry its hash, offset and line
    in arrays, found by open addressing: that takes a third of the memory of a dictionary of texts, and goes at
    once when another list takes its place. What stands there is read again when the hash is the same.

    @ivar mistakes: (line, sentence) of each line that is not used.
    @ivar warnings: (line, sentence) of what is used, but may be meant otherwise.
    """

    def __init__(self, octets=b"", caseSensitive=False):
        self.mistakes = []
        self.warnings = []
        self._octets = octets
        self._caseSensitive = caseSensitive
        self._regexes = []
        self._prefixes = set()
        # Entry 0 is none, so that a slot of 0 is a free one.
        self._hashes = array("q", [0])
        self._offsets = array("I", [0])
        self._lines = array("I", [0])
        self._read()
        self._index()
        self._prefixes = sorted(self._prefixes, reverse=True)

    def __len__(self):
        return self._count + len(self._regexes)

    def find(self, value):
        """
        @return: (the entry as it is written, the text after it or '', its line) of the entry that counts for this
            value, or None.
        """
        number = self._at(value if self._caseSensitive else folded(value)) or self._within(value)
        if number:
            entry, text = _split(self._written(self._offsets[number]))
            return entry, text, self._lines[number]
        searched = value[:SEARCHED]
        for pattern, offset, line in self._regexes:
            if pattern.search(searched):
                return *_split(self._written(offset)), line
        return None

    def _within(self, value):
        """
        The number of the entry that holds the value among others, else 0.
        """
        address, written = _address(value)
        if address is not None:
            for prefix in self._prefixes:
                # ::/0 is the Internet of IPv6, unless somebody writes an IPv4 address that way.
                if prefix < _MAPPED and written == socket.AF_INET:
                    break
                number = self._at(_network(address, prefix))
                if number:
                    return number
            return 0
        local, at, domain = value.rpartition("@")
        domain = folded(domain)
        if at:
            local = local if self._caseSensitive else folded(local)
            number = self._at(f"{local}@") or self._at(f"@{domain}")
            if number:
                return number
        if len(domain) > _DOMAIN:
            domain = domain[-_DOMAIN - 1 :].partition(".")[2]
        while domain:
            number = self._at(f".{domain}")
            if number:
                return number
            domain = domain.partition(".")[2]
        return 0

    def _at(self, key):
        """
        The number of the entry under this key, else 0.
        """
        wanted = hash(key)
        place = wanted & self._mask
        while number := self._slots[place]:
            if self._hashes[number] == wanted and self._keyOf(number) == key:
                return number
            place = (place + 1) & self._mask
        return 0

    def _keyOf(self, number):
        return self._key(_split(self._written(self._offsets[number]))[0])

    def _written(self, offset):
        end = self._octets.find(b"\n", offset)
        return self._octets[offset : end if end >= 0 else None]

    def _key(self, entry):
        """
        What an entry is found under: its text, or the octets of a network.

        @raises Mistake: when it is none.
        """
        # Domains are the same in any case, whatever the list (RFC 4343).
        if entry[0] == "@" or (entry[0] == "." and "@" not in entry):
            labels = entry[1:].split(".")
            if "@" in entry[1:] or "" in labels or len(entry) > _DOMAIN + 1:
                raise Mistake(f"{_shown(entry)}: after the {entry[0]} there is no domain")
            return folded(entry)
        address, prefix = _addresses(entry)
        if address is not None:
            return _network(address, prefix)
        return entry if self._caseSensitive else folded(entry)

    def _read(self):
        offset = len(_BOM) if self._octets.startswith(_BOM) else 0
        stream = io.BytesIO(self._octets)
        stream.seek(offset)
        for line, octets in enumerate(stream, 1):
            try:
                self._add(octets, offset, line)
            except Mistake as mistake:
                _note(self.mistakes, line, mistake.sentence)
            offset += len(octets)

    def _add(self, octets, offset, line):
        # No character has more than four octets.
        if len(octets) > LONGEST and len(_decoded(octets[: 4 * LONGEST + 4].rstrip(b"\r\n"))) > LONGEST:
            raise Mistake(f"the line has more than {LONGEST} characters")
        octets = octets.strip()
        if not octets or octets.startswith(b"#"):
            return
        control = _CONTROL.search(octets)
        if control:
            raise Mistake(f"the line has a control character, \\x{control[0][0]:02x}")
        if octets.startswith(b"/"):
            self._regexes.append((self._compiled(_decoded(octets)), offset, line))
            return
        entry = _decoded(octets.split(None, 1)[0])
        key = self._key(entry)
        if isinstance(key, bytes):
            self._prefixes.add(key[-1])
            if "/" in entry and _network(_addresses(entry)[0], _ALL)[:-1] != key[:-1]:
                _note(self.warnings, line, f"{entry} is an address within {_shownNetwork(key)}, which is used")
        elif "*" in entry:
            _note(self.warnings, line, f"{_shown(entry)}: a * stands for itself; see the module List in MODULES")
        elif entry[-1] in ",;":
            _note(
                self.warnings, line, f"{_shown(entry)}: the {entry[-1]} is part of it; one line is for one entry"
            )
        elif "0" <= entry[0] <= "9" and _PART.fullmatch(entry):
            _note(self.warnings, line, f"{entry} is no network; write one as 192.0.2.0/24")
        self._hashes.append(hash(key))
        self._offsets.append(offset)
        self._lines.append(line)

    def _compiled(self, written):
        parts = _REGEX.match(written)
        if parts is None:
            raise Mistake(f"{_shown(written)}: the / at the end of the regular expression is missing")
        pattern, flags = parts.groups()
        if flags not in ("", "i"):
            raise Mistake(f"{_shown(parts[0])}: after the last / there may be an i, or white space and a text")
        if not pattern:
            raise Mistake("an empty regular expression fits everything; write /^/ if that is meant")
        try:
            return re.compile(pattern, 0 if self._caseSensitive and not flags else re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as error:
            raise Mistake(f"{_shown(parts[0])} is no regular expression: {_shown(str(error))}") from error

    def _index(self):
        """
        Give each entry the first free slot from where its hash points to. At most half of them are taken.
        """
        size = 1 << (2 * len(self._hashes)).bit_length()
        self._mask = size - 1
        self._slots = slots = array("I", [0]) * size
        self._count = 0
        hashes, mask = self._hashes, self._mask
        for number in range(1, len(hashes)):
            wanted = hashes[number]
            place = wanted & mask
            while other := slots[place]:
                if hashes[other] == wanted and self._keyOf(other) == self._keyOf(number):
                    break
                place = (place + 1) & mask
            else:
                slots[place] = number
                self._count += 1


def parse(octets, caseSensitive=False):
    """
    @return: the L{Entries} and a list of (line, sentence): the mistakes, whose lines are not used, and the
        warnings, which are C{entries.warnings} too.
    """
    entries = Entries(octets, caseSensitive)
    return entries, sorted(entries.mistakes + entries.warnings)


def folded(text):
    """
    The same text for all that differ in case only. Not C{casefold()}: ss and sharp s are two domains (RFC 5894,
    7.2). The small sigma of C{lower()} depends on what is around it, which is cut off here.
    """
    return text.lower().replace("\u03c2", "\u03c3")


def _note(notes, line, sentence):
    if len(notes) < MISTAKES:
        notes.append((line, sentence))
    elif len(notes) == MISTAKES:
        notes.append((line, f"{sentence}; what follows this line is not listed any more"))


def _decoded(octets):
    return octets.decode("utf-8", "surrogateescape")


def _split(octets):
    """
    (entry, text after it) of a line that has an entry.
    """
    line = _decoded(octets.strip())
    end = (_REGEX if line.startswith("/") else _VALUE).match(line).end()
    return line[:end], _COMMENT.sub("", line[end:].lstrip(" \t"), count=1).rstrip(" \t")


def _address(text):
    """
    (the number of an address in the space of IPv6, family it is written in), or (None, None).
    """
    # Most values are no addresses, and an exception for each is slow.
    if len(text) > _ADDRESS or not (":" in text or "0" <= text[-1:] <= "9"):
        return None, None
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        packed = socket.inet_pton(family, text)
    except (OSError, ValueError):
        return None, None
    number = int.from_bytes(packed, "big")
    return (number if family == socket.AF_INET6 else 0xFFFF << 32 | number), family


def _addresses(entry):
    """
    (number of an address in it, length of its prefix in IPv6) of an entry that is a network, else (None, None).

    @raises Mistake: when it must be meant as one.
    """
    address, slash, length = entry.partition("/")
    number, family = _address(address)
    if number is None:
        if len(entry) <= 2 * _ADDRESS and _MEANT.fullmatch(entry):
            raise Mistake(f"{_shown(entry)} is no address and no network")
        return None, None
    base = 0 if family == socket.AF_INET6 else _MAPPED
    if not slash:
        return number, _ALL
    if not re.fullmatch("[0-9]{1,3}", length) or base + int(length) > _ALL:
        raise Mistake(f"{_shown(entry)} is no network: after the / stands a number from 0 to {_ALL - base}")
    return number, base + int(length)


def _network(number, prefix):
    """
    The key of a network: octets, so that their hash is a random one, unlike that of numbers.
    """
    host = _ALL - prefix
    return (number >> host << host).to_bytes(16, "big") + bytes([prefix])


def _shownNetwork(key):
    packed, prefix = key[:16], key[16]
    if prefix >= _MAPPED and packed.startswith(bytes(10) + b"\xff\xff"):
        return f"{socket.inet_ntop(socket.AF_INET, packed[12:])}/{prefix - _MAPPED}"
    return f"{socket.inet_ntop(socket.AF_INET6, packed)}/{prefix}"


def _shown(text):
    """
    The beginning of a text from the file, in a sentence that can be printed.
    """
    text = text if len(text) <= 60 else f"{text[:60]}..."
    return text.encode("utf-8", "backslashreplace").decode()
