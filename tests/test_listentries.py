"""
Tests for the entries of lists, as text files have them.
"""

import ipaddress
import re
import signal
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppolicy import listentries
from ppolicy.listentries import parse


def entriesOf(text, caseSensitive=False):
    """
    The entries of a text in which nothing is wrong.
    """
    entries, mistakes = parse(text.encode("utf-8", "surrogateescape"), caseSensitive)
    assert mistakes == []
    return entries


def mistakesOf(text):
    return parse(text.encode("utf-8", "surrogateescape"))[1]


def matched(entries, value):
    """
    The entry that counts, as it is written, or None.
    """
    found = entries.find(value)
    return found and found[0]


class TestFormat:
    def test_lines(self):
        """Comments, blank lines and white space are nothing, and lines are counted with them."""
        entries = entriesOf("# comment\n\n  \t \n  one  \r\n\t# comment\n\ttwo\t# comment\n#three\nfour#five")
        assert len(entries) == 3
        assert entries.find("one") == ("one", "", 4)
        assert entries.find("two") == ("two", "", 6)
        assert entries.find("three") is None
        assert entries.find("four#five") == ("four#five", "", 8)
        assert entries.find("") is None

    def test_text(self):
        """What follows an entry is handed out, without comments and white space around it."""
        entries = entriesOf("a  reason why\nb\treason#1\t# not this\nc#d # x\n/e f/i  text # x\n192.0.2.0/24 net")
        assert entries.find("a") == ("a", "reason why", 1)
        assert entries.find("b") == ("b", "reason#1", 2)
        assert entries.find("c#d") == ("c#d", "", 3)
        assert entries.find("The E Flat") == ("/e f/i", "text", 4)
        assert entries.find("192.0.2.9") == ("192.0.2.0/24", "net", 5)

    @pytest.mark.parametrize("octets", [b"", b"\xef\xbb\xbf", b"\n\n", b"# nothing", b"\xef\xbb\xbf# nothing\n"])
    def test_nothing(self, octets):
        """A list may be empty, and finds nothing."""
        entries, mistakes = parse(octets)
        assert (len(entries), mistakes) == (0, [])
        assert [entries.find(value) for value in ("", "a", "a@b.c", "192.0.2.1", "::")] == [None] * 5

    def test_byteOrderMark(self):
        """A BOM at the beginning belongs to no entry."""
        entries, mistakes = parse(b"\xef\xbb\xbfone text\ntwo")
        assert mistakes == []
        assert entries.find("one") == ("one", "text", 1)
        assert entries.find("two") == ("two", "", 2)

    def test_notUtf8(self):
        """An octet that is no UTF-8 is found by the same octet in a value, and by no other."""
        entries = entriesOf("caf\udce9 text\udcff\nma\u00dfe")
        assert entries.find("CAF\udce9") == ("caf\udce9", "text\udcff", 1)
        assert entries.find("caf\u00e9") is None
        assert matched(entries, "MA\u1e9eE") == "ma\u00dfe"
        assert matched(entries, "masse") is None

    def test_onlyNewlinesEndLines(self):
        """What Unicode calls a line end or white space is part of a value."""
        entries = entriesOf("one\u2028two\na\u00a0b\nc\u0085d")
        assert len(entries) == 3
        assert matched(entries, "one\u2028two") == "one\u2028two"
        assert matched(entries, "a\u00a0b") == "a\u00a0b"

    def test_sameTwice(self):
        """Of two entries that are the same the first counts, and only that is counted."""
        entries = entriesOf("a first\nA second\n192.0.2.0/24 first\n::ffff:192.0.2.0/120 second\n.b\n.B")
        assert len(entries) == 3
        assert entries.find("A") == ("a", "first", 1)
        assert entries.find("192.0.2.1") == ("192.0.2.0/24", "first", 3)

    def test_hashesThatCollide(self, monkeypatch):
        """Entries whose hashes are all the same are told apart by what is written."""
        monkeypatch.setattr(listentries, "hash", lambda key: 7, raising=False)
        entries = entriesOf("a\nb\nA\n.c\n192.0.2.0/24\nd")
        assert len(entries) == 5
        assert [matched(entries, value) for value in ("A", "b", "x.c", "192.0.2.1", "d", "e")] == [
            *("a", "b", ".c", "192.0.2.0/24", "d"),
            None,
        ]


class TestKinds:
    def test_plain(self):
        """A plain value is compared as a whole, in any case."""
        entries = entriesOf("Example.com\nUser@Example.org\nfoo/bar\nAB:CD:EF\n12345\n1.2")
        for value in ("example.COM", "user@example.ORG", "FOO/bar", "ab:cd:ef", "12345", "1.2"):
            assert entries.find(value), value
        for value in ("www.example.com", "x@example.com", "example.co", "2user@example.org", "foo"):
            assert entries.find(value) is None, value

    def test_caseSensitive(self):
        """A list may tell cases apart, but never those of domains."""
        entries = entriesOf("Value\nUser@\n@Example.com\n.Example.org\n/Abc/\n/Xyz/i", caseSensitive=True)
        for value in ("Value", "User@a.b", "x@EXAMPLE.com", "x.example.ORG", "-Abc", "xyz"):
            assert entries.find(value), value
        for value in ("value", "user@a.b", "-abc"):
            assert entries.find(value) is None, value

    def test_sigma(self):
        """A capital sigma is both small ones, wherever it stands."""
        entries = entriesOf(".\u03a3\n\u039f\u03a3")
        assert matched(entries, "A.\u03a3") == ".\u03a3"
        assert matched(entries, "\u03bf\u03c3") == matched(entries, "\u03bf\u03c2") == "\u039f\u03a3"

    def test_domain(self):
        """A domain holds itself, what is below it, and addresses there."""
        entries = entriesOf(".example.com")
        for value in ("example.com", "a.b.Example.com", "u@example.com", '"a@b"@x.example.com', ".example.com"):
            assert matched(entries, value) == ".example.com", value
        for value in ("badexample.com", "com", "example.com.org", "example.com@example.org", "example.com.", ""):
            assert entries.find(value) is None, value

    def test_longestDomain(self):
        """The longest of the domains that fit counts, wherever it stands."""
        entries = entriesOf(".com\n.a.example.com\n.example.com")
        assert matched(entries, "x.a.example.com") == ".a.example.com"
        assert matched(entries, "x@a.example.com") == ".a.example.com"
        assert matched(entries, "b.example.com") == ".example.com"
        assert matched(entries, "example.net.com") == ".com"

    def test_longDomain(self):
        """Of a value that is longer than any domain, the end is looked at."""
        longest = ".".join(["a" * 62] * 4)[:249] + ".com"
        entries = entriesOf(f".example.com\n.{longest}")
        assert len(longest) == 253
        assert matched(entries, "x" * 100_000 + ".example.com") == ".example.com"
        assert matched(entries, "x." * 100_000 + "example.com") == ".example.com"
        assert matched(entries, longest) == f".{longest}"
        assert matched(entries, f"x.{longest}") == f".{longest}"
        assert matched(entries, f"x{longest}") is None

    def test_partsOfAddresses(self):
        """A local part is found at any domain, and a domain without those below it."""
        entries = entriesOf("Postmaster@\n@Example.com\na@b@")
        for value in ("postmaster@x.y", "postmaster@", "POSTMASTER@example.com"):
            assert matched(entries, value) == "Postmaster@", value
        for value in ("x@example.COM", "@example.com", "x@y@example.com"):
            assert matched(entries, value) == "@Example.com", value
        assert matched(entries, "a@b@c") == "a@b@"
        for value in ("postmaster", "example.com", "x@sub.example.com", "notpostmaster@x", "@", "@@"):
            assert entries.find(value) is None, value

    def test_dotBeforeAnAddress(self):
        """A mail address may begin with a dot."""
        entries = entriesOf(".foo@example.com")
        assert entries.find(".foo@example.com")
        assert entries.find("x.foo@example.com") is None

    def test_networks(self):
        """An address is in a network of its family, and the longest prefix counts."""
        entries = entriesOf("192.0.2.0/24\n192.0.0.0/8\n192.0.2.64/26\n192.0.2.65\n2001:DB8::/32\n2001:db8::1")
        for value, entry in {
            "192.0.2.65": "192.0.2.65",
            "192.0.2.66": "192.0.2.64/26",
            "192.0.2.128": "192.0.2.0/24",
            "192.9.9.9": "192.0.0.0/8",
            "193.0.0.0": None,
            "2001:db8:0:0:0::1": "2001:db8::1",
            "2001:DB8::2": "2001:DB8::/32",
            "2001:db9::": None,
            "::c000:240": None,
            "192.0.2.0/24": None,
            "192.0.2.065": None,
            "192.0.2": None,
            "[192.0.2.65]": None,
            "fe80::1%eth0": None,
            "192.0.2.6\u0665": None,
        }.items():
            assert matched(entries, value) == entry, value

    def test_mapped(self):
        """An IPv4 address within IPv6 is in networks of both, an IPv4 address in those of IPv4 only."""
        entries = entriesOf("192.0.2.0/24\n::ffff:198.51.100.0/120\n::/0")
        for value in ("192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201"):
            assert matched(entries, value) == "192.0.2.0/24", value
        assert matched(entries, "198.51.100.1") == "::ffff:198.51.100.0/120"
        assert matched(entries, "::ffff:203.0.113.1") == "::/0"
        assert matched(entries, "203.0.113.1") is None
        assert matched(entriesOf("0.0.0.0/0"), "203.0.113.1") == "0.0.0.0/0"
        assert matched(entriesOf("0.0.0.0/0"), "2001:db8::1") is None

    def test_addressIsNoDomain(self):
        """The end of an address is no domain."""
        entries = entriesOf(".2.1")
        assert entries.find("192.0.2.1") is None
        assert entries.find("192.0.a.2.1")

    def test_notMeant(self):
        """What looks like a pattern, a part of an address or several entries is a plain value, with a warning."""
        entries, warnings = parse(b"*.example.com\n10.1.2\n10.1.\n192.0.2.1.\na@b.c, d@b.c\n1.5a\n/a*,/\n")
        assert entries.find("mail.example.com") is entries.find("10.1.2.3") is entries.find("a@b.c") is None
        assert [line for line, _ in warnings] == [1, 2, 3, 4, 5]
        assert warnings == entries.warnings
        assert warnings[1] == (2, "10.1.2 is no network; write one as 192.0.2.0/24")

    def test_hostBits(self):
        """An address with the length of a network is that network, with a warning."""
        entries, mistakes = parse(b"a\n192.0.2.1/24\n2001:db8::1/32\n::ffff:1.2.3.4/104\n192.0.2.4/32")
        assert matched(entries, "192.0.2.200") == "192.0.2.1/24"
        assert matched(entries, "2001:db8:1::") == "2001:db8::1/32"
        assert (
            mistakes
            == entries.warnings
            == [
                (2, "192.0.2.1/24 is an address within 192.0.2.0/24, which is used"),
                (3, "2001:db8::1/32 is an address within 2001:db8::/32, which is used"),
                (4, "::ffff:1.2.3.4/104 is an address within 1.0.0.0/8, which is used"),
            ]
        )

    def test_regex(self):
        """A regular expression is searched in the value, in any case, in the order of lines."""
        entries = entriesOf("/b#c d/ one\n/^x\\/[\\/]?y$/\n/c/ two\n/^$/ empty\n/d\\\\/")
        assert entries.find("aB#C De") == ("/b#c d/", "one", 1)
        assert matched(entries, "X/y") == "/^x\\/[\\/]?y$/"
        assert entries.find("abc") == ("/c/", "two", 3)
        assert entries.find("") == ("/^$/", "empty", 4)
        assert matched(entries, "d\\") == "/d\\\\/"
        assert entries.find("zzz") is None
        assert len(entries) == 5

    def test_regexSeesTheBeginning(self):
        """Of a long value a regular expression sees the beginning."""
        entries = entriesOf("/x/")
        assert entries.find("a" * 2047 + "x")
        assert entries.find("a" * 2048 + "x") is None

    def test_regexIsInterrupted(self):
        """A signal ends a regular expression that runs away, as that of the watchdog does."""

        class Interrupted(BaseException):
            pass

        def interrupt(*_):
            raise Interrupted

        entries = entriesOf("/^(a+)+$/")
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted):
                entries.find("a" * 60 + "b")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert entries.find("aaa")

    def test_precedence(self):
        """The closer an entry describes a value, the earlier it counts."""
        lines = ["/a/", "/user/", ".com", ".example.com", "@example.com", "user@", "user@example.com"]
        for count in range(3, len(lines) + 1):
            assert matched(entriesOf("\n".join(lines[:count])), "user@example.com") == lines[count - 1]
        assert matched(entriesOf("/a/\n/user/"), "user@example.com") == "/a/"
        assert matched(entriesOf("/1/\n192.0.0.0/8\n192.0.2.0/24"), "192.0.2.1") == "192.0.2.0/24"
        assert matched(entriesOf("/1/\n192.0.3.0/24"), "192.0.2.1") == "/1/"


class TestMistakes:
    @pytest.mark.parametrize(
        "line, sentence",
        [
            ("192.0.2.0/33", "192.0.2.0/33 is no network: after the / stands a number from 0 to 32"),
            ("2001:db8::/129", "2001:db8::/129 is no network: after the / stands a number from 0 to 128"),
            ("192.0.2.0/", "192.0.2.0/ is no network: after the / stands a number from 0 to 32"),
            ("192.0.2.0/-1", "192.0.2.0/-1 is no network: after the / stands a number from 0 to 32"),
            ("192.0.2.0/\u0662", "192.0.2.0/\u0662 is no network: after the / stands a number from 0 to 32"),
            (
                "192.0.2.0/255.255.255.0",
                "192.0.2.0/255.255.255.0 is no network: after the / stands a number from 0 to 32",
            ),
            ("192.0.2.256", "192.0.2.256 is no address and no network"),
            ("192.0.2.01", "192.0.2.01 is no address and no network"),
            ("10.0/16", "10.0/16 is no address and no network"),
            ("2001:db8:::/32", "2001:db8:::/32 is no address and no network"),
            (".", ".: after the . there is no domain"),
            ("..example.com", "..example.com: after the . there is no domain"),
            (".example.com.", ".example.com.: after the . there is no domain"),
            ("." + "a" * 254, "." + "a" * 59 + "...: after the . there is no domain"),
            ("@", "@: after the @ there is no domain"),
            ("@a@b", "@a@b: after the @ there is no domain"),
            ("@\udcff@", "@\\udcff@: after the @ there is no domain"),
            ("/abc", "/abc: the / at the end of the regular expression is missing"),
            ("/abc\\/", "/abc\\/: the / at the end of the regular expression is missing"),
            ("/", "/: the / at the end of the regular expression is missing"),
            ("// comment", "an empty regular expression fits everything; write /^/ if that is meant"),
            ("/a/x", "/a/x: after the last / there may be an i, or white space and a text"),
            ("/a/b/", "/a/b/: after the last / there may be an i, or white space and a text"),
            ("/a(/", "/a(/ is no regular expression: missing ), unterminated subpattern at position 1"),
            ("/a{2,1}/", "/a{2,1}/ is no regular expression: min repeat greater than max repeat at position 2"),
            ("/a{99999999999}/", "/a{99999999999}/ is no regular expression: the repetition number is too large"),
            ("a\0b", "the line has a control character, \\x00"),
            ("a text\rb", "the line has a control character, \\x0d"),
            ("/\x1b/", "the line has a control character, \\x1b"),
        ],
    )
    def test_mistake(self, line, sentence):
        """Each is reported with its line, and the other lines are used."""
        entries, mistakes = parse(f"# x\none\n{line}\ntwo".encode("utf-8", "surrogateescape"))
        assert mistakes == entries.mistakes == [(3, sentence)]
        assert len(entries) == 2
        assert entries.find("one")
        assert entries.find("two") == ("two", "", 4)

    def test_allOfThem(self):
        """Mistakes and warnings come together, in the order of lines."""
        assert [line for line, _ in mistakesOf("/(/\n192.0.2.1/24\na\n192.0.2.1/99\n.")] == [1, 2, 4, 5]

    def test_notWithoutBound(self):
        """A file that is all wrong does not fill the memory, or the log, with what is wrong."""
        mistakes = mistakesOf("@\n" * 5000)
        assert len(mistakes) == 1001
        assert mistakes[-1] == (
            1001,
            "@: after the @ there is no domain; what follows this line is not listed any more",
        )

    @pytest.mark.parametrize("one", ["x", "\u00e9", "\U0001f4e7", "\udcff", "#", " "])
    def test_hugeLine(self, one):
        """A line has at most 10,000 characters, whatever they are."""
        assert mistakesOf(one * 10_000 + "\r\nb") == []
        assert mistakesOf(one * 10_001 + "\r\nb") == [(1, "the line has more than 10000 characters")]
        assert mistakesOf("a\n" + one * 500_000) == [(2, "the line has more than 10000 characters")]

    def test_binary(self):
        """A file that is no text at all is refused, whatever it is."""
        assert mistakesOf("one\ntwo\n".encode("utf-16").decode("utf-8", "surrogateescape"))
        assert mistakesOf("\0" * 100_000) == [(1, "the line has more than 10000 characters")]
        assert mistakesOf("\x7fELF\x02\x01\n") == [(1, "the line has a control character, \\x7f")]

    @settings(max_examples=150, deadline=None)
    @given(octets=st.binary(max_size=200), value=st.text(max_size=40))
    def test_neverRaises(self, octets, value):
        """Whatever stands in a list, or is looked up: it is a mistake or it is not."""
        entries, mistakes = parse(octets)
        entries.find(value)
        for sentence in (sentence for _, sentence in mistakes):
            sentence.encode("utf-8")

    def test_hostileValues(self):
        """Values that nobody means are just not found."""
        entries = entriesOf("a\n.example.com\nuser@\n192.0.2.0/24\n::/0\n/never/")
        for value in (
            "\0",
            "192.0.2.1\0",
            "\ud800",
            ":\ud800",
            "\udcff.1",
            ":" * 45,
            "@" * 9999,
            "." * 9999,
            "1" * 45,
        ):
            assert entries.find(value) is None, value


class TestMemory:
    def test_compact(self):
        """An entry takes what is written, and less than 50 octets more."""
        octets = b"".join(b"user%d@host.example.com\n" % number for number in range(20_000))
        tracemalloc.start()
        try:
            entries, _ = parse(octets)
            assert tracemalloc.get_traced_memory()[1] < 20_000 * 50
        finally:
            tracemalloc.stop()
        assert len(entries) == 20_000
        assert entries.find("user19999@host.example.com")[2] == 20_000


# What values and entries are made of, so that they meet.
LABELS = st.sampled_from(["a", "B", "ab", "Com", "x"])
DOMAINS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
LOCALS = st.sampled_from(["u", "V", "u.v", "a@b"])
MAILS = st.builds("{}@{}".format, LOCALS, DOMAINS)
OCTETS = st.sampled_from([0, 1, 127, 128, 255])
IPV4 = st.builds("192.0.{}.{}".format, OCTETS, OCTETS)
IPV6 = st.one_of(st.builds("2001:DB8::{:x}:{:x}".format, OCTETS, OCTETS), IPV4.map("::ffff:{}".format))
VALUES = st.one_of(DOMAINS, MAILS, IPV4, IPV6, st.text("aBu.@/1:", max_size=6))
ENTRIES = st.one_of(
    *(DOMAINS, MAILS, IPV4, IPV6),
    *(DOMAINS.map(".{}".format), DOMAINS.map("@{}".format), LOCALS.map("{}@".format)),
    st.builds("{}/{}".format, IPV4, st.integers(0, 32)),
    st.builds("{}/{}".format, IPV6, st.integers(0, 128)),
    st.sampled_from(["/^a/", "/b$/i", "/[uV]@/", "/\\.1/", "/ab.*x/"]),
)


def addressOf(value):
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def inNetwork(address, entry):
    """
    The length of the prefix, in IPv6, of the network that an address is in; -1 when it is not.
    """
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return -1
    ways = [(address, 96 if address.version == 4 else 0)]
    if address.version == 4:
        ways.append((ipaddress.ip_address(f"::ffff:{address}"), 0))
    elif address.ipv4_mapped:
        ways.append((address.ipv4_mapped, 96))
    for way, base in ways:
        if way in network:
            length = network.prefixlen + base
            return -1 if address.version == 4 and length < 96 else length
    return -1


def rank(entry, line, value, caseSensitive):
    """
    How close an entry is to a value, the closest first, or None: slowly, and by the words of the documentation.
    """
    folded = (lambda text: text) if caseSensitive else str.lower
    if entry.startswith("/"):
        pattern, _, flags = entry[1:].rpartition("/")
        exact = caseSensitive and not flags
        return (5, line) if re.search(pattern, value, 0 if exact else re.IGNORECASE) else None
    address = addressOf(value)
    if addressOf(entry.partition("/")[0]):
        length = -1 if address is None else inNetwork(address, entry)
        return (4, -length, line) if length >= 0 else None
    local, at, domain = value.rpartition("@")
    domain = domain.lower()
    if entry.startswith("."):
        below = address is None and f".{domain}".endswith(entry.lower())
        return (3, -len(entry), line) if below else None
    if entry.endswith("@"):
        return (1, line) if at and folded(local) == folded(entry[:-1]) else None
    if entry.startswith("@"):
        return (2, line) if at and domain == entry[1:].lower() else None
    return (0, line) if folded(entry) == folded(value) else None


class TestReference:
    @settings(max_examples=400, deadline=None)
    @given(
        lines=st.lists(ENTRIES, max_size=25),
        values=st.lists(VALUES, min_size=1, max_size=10),
        caseSensitive=st.booleans(),
    )
    def test_asTheDocumentationSays(self, lines, values, caseSensitive):
        """What is found is what a scan of all entries by the words of the documentation finds."""
        entries, _ = parse("\n".join(f"{entry} text" for entry in lines).encode(), caseSensitive)
        assert entries.mistakes == []
        for value in [*values, *lines]:
            ranks = [
                (rank(entry, line, value, caseSensitive), (entry, "text", line))
                for line, entry in enumerate(lines, 1)
            ]
            best = min((one for one in ranks if one[0]), default=(None, None))
            assert entries.find(value) == best[1], value
