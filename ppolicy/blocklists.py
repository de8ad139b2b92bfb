"""
The lists of the DNS that checks can ask: what they are called, what their answers mean, and which are dead.

A list is a zone that has an address record for whatever is on it (RFC 5782). What the address means is for each
list to define; that it does not want to answer (too many questions, no subscription) it says with an address as
well. So an address counts only when it is one of those that the list defines.
"""

import dataclasses
import ipaddress
import re
from functools import lru_cache

from ppolicy.errors import ParamError

KINDS = ("client", "domain", "white")
SELFTESTS = ("strict", "negative-only", None)
NAMES = ("domain", "host", "both")
# Addresses with which any list refuses to answer; Spamhaus began it, others do the same.
REFUSALS = ("127.255.0.0/16",)
_LONGEST_TEXT = 300
_LOOPBACK = "127."


@dataclasses.dataclass(frozen=True)
class Code:
    """
    What some addresses of a list mean.

    @ivar pattern: four numbers with dots between; each may also be C{2-5}, C{*} for any, or C{&8} for all that
        have this bit. Or a network, C{127.0.0.0/24}.
    @ivar score: is added to that of the mail, negative for what is good.
    """

    pattern: str
    meaning: str
    score: float


@dataclasses.dataclass(frozen=True)
class BlockList:
    """
    One list.

    @ivar name: what ppolicy.conf calls it.
    @ivar zone: with C{{key}} in the place of the subscriber's key; empty when it cannot be asked without one.
    @ivar kind: 'client' lists addresses, 'domain' lists names, 'white' lists addresses that are good.
    @ivar codes: the L{Code}s that count.
    @ivar errors: patterns of addresses that say that the list does not answer us.
    @ivar selftest: 'strict' when it has both test points of RFC 5782, section 5; 'negative-only' when only what
        must never be listed can be tested; None when nothing is tested.
    @ivar test: the name that a domain list always lists.
    @ivar names: which part of a host's name a domain list wants: 'domain' is the registered one.
    @ivar ipv4, ipv6: which addresses it knows.
    @ivar note: what its user should know.
    @ivar source: where codes and scores are from, and of when.
    @ivar keyZone: the zone of those who have a key.
    @ivar default: is it asked where a check names no lists?
    """

    name: str
    zone: str
    kind: str
    codes: tuple = ()
    errors: tuple = ()
    selftest: str | None = "strict"
    test: str = "test"
    names: str = "domain"
    ipv4: bool = True
    ipv6: bool = False
    note: str = ""
    source: str = ""
    keyZone: str = ""
    default: bool = False
    key: str | None = dataclasses.field(default=None, repr=False)

    def question(self, subject):
        """
        The name to be asked for, of a reversed address or a domain.
        """
        zone = self.zone if self.key is None else self.zone.replace("{key}", self.key)
        return f"{subject}.{zone}"

    @property
    def shownZone(self):
        """
        The zone without the key, for logs and people.
        """
        return self.zone.replace("{key}", "***")

    def hide(self, text):
        """
        A text from elsewhere without the key in it.
        """
        return text if self.key is None else re.sub(re.escape(self.key), "***", text, flags=re.I)

    def meant(self, address):
        """
        The L{Code}s of one address of an answer; several when it is made of bits.
        """
        return [code for code in self.codes if matches(code.pattern, address)]

    def refusal(self, addresses):
        """
        Why an answer says nothing about what was asked for, in a sentence; empty when it may.
        """
        for address in addresses:
            if not address.startswith(_LOOPBACK):
                return f"it answers {address[:40]}, which is outside of 127.0.0.0/8"
            if any(matches(pattern, address) for pattern in (*self.errors, *REFUSALS)):
                return f"it answers with the error code {address}"
        return ""


def matches(pattern, address):
    """
    Is an IPv4 address one of those that a pattern stands for?
    """
    parts = address.split(".")
    return len(parts) == 4 and all(part in allowed for part, allowed in zip(parts, compiled(pattern), strict=True))


@lru_cache(1000)
def compiled(pattern):
    """
    The four sets of numbers, as texts, that a pattern allows.

    @raises ValueError: when it is none, or more than 127.0.0.0/8.
    """
    if "/" in pattern:
        network = ipaddress.IPv4Network(pattern)
        first, last = network.network_address.packed, network.broadcast_address.packed
        ranges = [range(low, high + 1) for low, high in zip(first, last, strict=True)]
    else:
        ranges = [_numbers(part) for part in pattern.split(".")]
    if len(ranges) != 4 or list(ranges[0]) != [127]:
        raise ValueError(pattern)
    return tuple(frozenset(map(str, numbers)) for numbers in ranges)


def _numbers(part):
    match = re.fullmatch(r"(?P<any>\*)|&(?P<bit>\d{1,3})|(?P<low>\d{1,3})(?:-(?P<high>\d{1,3}))?", part)
    if match is None:
        raise ValueError(part)
    if match["any"]:
        return range(256)
    if match["bit"]:
        bit = int(match["bit"])
        if bit not in (1, 2, 4, 8, 16, 32, 64, 128):
            raise ValueError(part)
        return [number for number in range(256) if number & bit]
    low = int(match["low"])
    high = int(match["high"] or low)
    if not low <= high <= 255:
        raise ValueError(part)
    return range(low, high + 1)


def readable(texts, limit=_LONGEST_TEXT):
    """
    What TXT records say, as one line of text.

    @param texts: a tuple of octet strings for each record.
    """
    text = " ".join(b"".join(strings[:8])[:limit].decode("ascii", "replace") for strings in texts[:4])
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


# The catalogue

_SPAMASSASSIN = "SpamAssassin trunk of October 2024, network tests without Bayes"
_OURS = "a careful guess, 2026"
_SPAMHAUS_CODES = "Spamhaus; scores: " + _SPAMASSASSIN
_SPAMHAUS_ERRORS = ("127.255.255.252", "127.255.255.254-255")
_SPAMHAUS_NOTE = (
    "does not answer public resolvers, nor more than its fair use allows; with a key of its Data Query Service it "
    "answers through any resolver"
)
_SBL = (
    Code("127.0.0.2", "SBL, a source of spam", 2.596),
    Code("127.0.0.3", "CSS, a source of spam found automatically", 3.558),
    Code("127.0.0.9", "DROP, a network that criminals have", 2.596),
)
_XBL = (Code("127.0.0.4-7", "XBL, a machine that somebody has broken into", 0.724),)
_PBL = (Code("127.0.0.10-11", "PBL, an address that is not to send mail itself", 3.558),)


def _zen(name, codes, default=False):
    # All of them in the zone that has everything, so that several need one question.
    return BlockList(
        name,
        "zen.spamhaus.org",
        "client",
        codes,
        _SPAMHAUS_ERRORS,
        ipv6=True,
        note=_SPAMHAUS_NOTE,
        source=_SPAMHAUS_CODES,
        keyZone="{key}.zen.dq.spamhaus.net",
        default=default,
    )


_TRUST = (
    Code("127.0.2-255.0", "known, no trust", -0.0001),
    Code("127.0.2-255.1", "low trust", -0.7),
    Code("127.0.2-255.2", "medium trust", -2.3),
    Code("127.0.2-255.3", "high trust", -5.0),
)


def _dnswl(name, codes, default=False):
    return BlockList(
        name,
        "list.dnswl.org",
        "white",
        codes,
        ("127.0.0.255", "127.0.10.*"),
        selftest="negative-only",  # its test point has 127.0.10.0, with which it refuses to answer as well
        ipv6=True,
        note="who asks too much gets 127.0.0.255 or 127.0.10.x for everything",
        source=_SPAMASSASSIN,
        default=default,
    )


def _plain(name, zone, score, meaning, source, codes="127.0.0.2", **more):
    return BlockList(name, zone, "client", (Code(codes, meaning, score),), source=source, **more)


_ALL = (
    _zen("ZEN", (*_SBL, *_XBL, *_PBL), default=True),
    _zen("SBL", _SBL),
    _zen("XBL", _XBL),
    _zen("SBLXBL", (*_SBL, *_XBL)),
    _zen("PBL", _PBL),
    _plain("SPAMCOP", "bl.spamcop.net", 1.246, "spam was reported", _SPAMASSASSIN, default=True),
    _plain("PSBL", "psbl.surriel.com", 2.7, "sent to a spam trap", _SPAMASSASSIN, default=True),
    BlockList(
        "MAILSPIKE",
        "bl.mailspike.net",
        "client",
        (
            Code("127.0.0.2", "takes part in a wave of spam", 2.7),
            Code("127.0.0.10", "worst reputation", 2.5),
            Code("127.0.0.11", "very bad reputation", 1.7),
            Code("127.0.0.12", "bad reputation", 0.9),
        ),
        selftest="negative-only",
        source=_SPAMASSASSIN,
        default=True,
    ),
    BlockList(
        "MAILSPIKE_WHITE",
        "rep.mailspike.net",
        "white",
        (Code("127.0.0.20", "excellent reputation", -1.0),),
        selftest="negative-only",
        source=_SPAMASSASSIN,
    ),
    _dnswl("DNSWL", _TRUST, default=True),
    *(_dnswl(f"DNSWL_{level}", (code,)) for level, code in zip(("NONE", "LOW", "MED", "HI"), _TRUST, strict=True)),
    BlockList(
        "IADB_VOUCHED",
        "iadb.isipp.com",
        "white",
        (Code("127.0.1.255", "vouched for", -2.2),),
        selftest="negative-only",
        source=_SPAMASSASSIN,
    ),
    _plain("SEM", "bl.spameatingmonkey.net", 1.0, "sent spam", _OURS, "127.0.0.2-3", selftest="negative-only"),
    _plain(
        "SEM_IPV6",
        "bl.ipv6.spameatingmonkey.net",
        1.0,
        "sent spam",
        _OURS,
        "127.0.0.2-3",
        selftest="negative-only",
        ipv4=False,
        ipv6=True,
    ),
    _plain(
        "BLOCKLIST_DE",
        "bl.blocklist.de",
        1.0,
        "attacked a server",
        _OURS,
        "127.0.0.2-21",
        selftest="negative-only",
    ),
    _plain("VIRUSFREE", "bip.virusfree.cz", 1.0, "part of a botnet", _OURS, selftest="negative-only"),
    _plain(
        "BARRACUDA",
        "b.barracudacentral.org",
        1.0,
        "poor reputation",
        _OURS,
        selftest="negative-only",
        note="answers only resolvers whose address is registered at barracudacentral.org",
    ),
    _plain(
        "DRONEBL",
        "dnsbl.dronebl.org",
        1.0,
        "an abused machine",
        _OURS,
        "127.0.0.3-19",
        selftest="negative-only",
        ipv6=True,
    ),
    _plain(
        "UCEPROTECT1",
        "dnsbl-1.uceprotect.net",
        0.5,
        "sent to a spam trap",
        _OURS,
        selftest="negative-only",
        note="takes money for quick removal: never refuse mail for it alone",
    ),
    BlockList(
        "SPAMRATS",
        "all.spamrats.com",
        "client",
        (
            Code("127.0.0.36", "dynamic address", 1.0),
            Code("127.0.0.37", "no reverse name, and abused", 1.0),
            Code("127.0.0.38", "sent spam", 1.0),
        ),
        selftest="negative-only",
        source=_OURS,
    ),
    _plain(
        "SPAMRATS_DYNA",
        "dyna.spamrats.com",
        1.0,
        "dynamic address",
        _OURS,
        "127.0.0.36",
        selftest="negative-only",
    ),
    BlockList(
        "ABUSIX",
        "",
        "client",
        (
            Code("127.0.0.2-3", "sent spam", 1.5),
            Code("127.0.0.4", "a machine that somebody has broken into", 1.0),
            Code("127.0.0.11-12", "an address that is not to send mail itself", 1.0),
        ),
        selftest="negative-only",
        source=_OURS,
        keyZone="{key}.combined.mail.abusix.zone",
        note="needs a key from abusix.com",
    ),
    BlockList(
        "DBL",
        "dbl.spamhaus.org",
        "domain",
        (
            Code("127.0.1.2", "domain of spammers", 2.5),
            Code("127.0.1.4", "domain of phishers", 2.5),
            Code("127.0.1.5", "domain with malware", 2.5),
            Code("127.0.1.6", "domain that commands a botnet", 2.5),
            Code("127.0.1.102-106", "honest domain, abused", 1.0),
        ),
        _SPAMHAUS_ERRORS,
        selftest="negative-only",
        test="dbltest.com",
        note=_SPAMHAUS_NOTE,
        source="Spamhaus; scores: " + _OURS,
        keyZone="{key}.dbl.dq.spamhaus.net",
        default=True,
    ),
    BlockList(
        "SURBL",
        "multi.surbl.org",
        "domain",
        (
            Code("127.0.0.&8", "domain of phishers", 1.0),
            Code("127.0.0.&16", "domain with malware", 1.0),
            Code("127.0.0.&64", "abused domain", 1.0),
            Code("127.0.0.&128", "honest domain, broken into", 1.0),
        ),
        ("127.0.0.&1",),
        selftest="negative-only",
        test="test.surbl.org",
        note="does not answer public resolvers",
        source="SURBL; scores: " + _OURS,
    ),
    BlockList(
        "URIBL",
        "multi.uribl.com",
        "domain",
        (
            Code("127.0.0.&2", "domain of spammers", 1.5),
            Code("127.0.0.&4", "domain of mass mailers", 0.5),
            Code("127.0.0.&8", "domain that is probably of spammers", 0.5),
        ),
        ("127.0.0.&1",),
        selftest="negative-only",
        test="test.uribl.com",
        note="does not answer public resolvers",
        source="URIBL; scores: " + _OURS,
    ),
)

CATALOGUE = {one.name: one for one in _ALL}

# Zones that are dead, with all that is below them: since when, and what became of them.
DEAD = {
    "ordb.org": ("December 2006", "it was closed, and in 2008 it listed everything"),
    "dsbl.org": ("2009", "it was closed"),
    "njabl.org": ("March 2013", "it was closed, and was seen to list everything since"),
    "ahbl.org": ("January 2015", "it lists everything, on purpose"),
    "rfc-ignorant.org": ("November 2012", "it was closed"),
    "sorbs.net": ("June 2024", "it was emptied"),
    "ix.dnsbl.manitu.net": ("January 2025", "it is empty"),
    "wpbl.info": ("2024", "its name servers do not answer"),
    "dnsbl.inps.de": ("2020", "it was closed"),
    "unsubscore.com": ("before 2026", "it does not answer"),
    "megarbl.net": ("before 2026", "it listed everything"),
    "emailbasura.org": ("before 2026", "it listed everything"),
    "dul.ru": ("before 2026", "it listed everything"),
    "msrbl.net": ("before 2026", "it listed everything, twice"),
    "burnt-tech.com": ("before 2026", "it listed everything"),
    "dnsbl.cyberlogic.net": ("before 2026", "it was closed"),
    "virbl.bit.nl": ("before 2026", "it was closed"),
    "virbl.dnsbl.bit.nl": ("before 2026", "it was closed"),
    "mail-abuse.com": ("before 2026", "it was merged into a commercial service"),
    "mail-abuse.org": ("before 2026", "it was merged into a commercial service"),
    "blackholes.us": ("before 2026", "it was closed"),
    "opm.blitzed.org": ("2006", "it was closed"),
    "spamcannibal.org": ("2018", "it was closed, and listed everything"),
    "completewhois.com": ("before 2026", "it was closed"),
    "cbl.abuseat.org": ("before 2026", "all it had is in XBL: take ZEN"),
    "score.senderscore.com": ("February 2026", "it answers an error code to who is not registered"),
}

# Names of ppolicy 2.7's catalogue, without what SpamAssassin's rules put in front, that a live list has now.
_RENAMED = {
    "BL_SPAMCOP_NET": "SPAMCOP",
    "UCEPROTECTL1": "UCEPROTECT1",
}
# How names of that catalogue begin whose list is dead.
_DEAD_NAMES = (
    ("NJABL", "njabl.org"),
    ("SORBS", "sorbs.net"),
    ("MAPS", "mail-abuse.org"),
    ("DSBL", "dsbl.org"),
    ("ORDB", "ordb.org"),
    ("AHBL", "ahbl.org"),
    ("AHWL", "ahbl.org"),
    ("RFC_", "rfc-ignorant.org"),
    ("MSRBL", "msrbl.net"),
    ("BUS-", "blackholes.us"),
    ("WHOIS_", "completewhois.com"),
    ("NIXSPAM", "ix.dnsbl.manitu.net"),
    ("WPBL", "wpbl.info"),
    ("UBL", "unsubscore.com"),
    ("EMAILBASURA", "emailbasura.org"),
    ("DULRU", "dul.ru"),
    ("BURNTTECH", "burnt-tech.com"),
    ("CYBERLOGIC", "dnsbl.cyberlogic.net"),
    ("VIRBL", "virbl.dnsbl.bit.nl"),
    ("SPAMCANNIBAL", "spamcannibal.org"),
    ("OPM", "opm.blitzed.org"),
    ("CBL", "cbl.abuseat.org"),
)
# How its other names begin: small and private lists of the years around 2008.
_FORGOTTEN = re.compile(
    r"(?:DRBL-|DNSBLAU|DNSBLORID|DNSBLUCEPN|BSP|RANGERS|TQM3|CASA-|CANTV|CABTV|TRANSIP|UCEPROTECTL[23]|ISIPP|IADB2?$|"
    r"WADB|HABEAS_|SSC_|RFC_IGNORANT|KROPKA|FIVETEN|SECURITYSAGE|RBLJP|IMP-|RBLRO|NETHER|NLRU|KUN|SQUAWK|TUBERLIN|"
    r"SECURITYPLANET|CSMA|GIRL|GIPPER|GRIP|SDERB|TOR(?:EXIT)?$|ARIXDICT|BGISOC|(?:PSS|SSFABEL|WSFF|VBL|FLOWGO|LNSG|"
    r"INTERSIL|WYTNIJTO|JIPPG-ABUSE|TRIUMF|NOMOREFUNN|LTAMS|KUNDENSE|PDLVISI|BRAINERD|HILLIBL|TOLKIENBL|LIUBL|OUTBLAZE|"
    r"MAILDEFLECTOR|UCBE|UUINTRUDERS|TECHNOVISIONBL|HIL|DEADBEEFBL|INFORMATIONWAVEBL|KITHRUP|REDHAWK|SNARK|VOX|"
    r"SCHULTERBL|KEMPTBL|ICMFORBIDDEN|ANT|PWBL|OLSENTECH|JAMDSBL|CHICKENBONERFL|PILBL|DNSBLINFO|SOLID|FIRSTBASE|MXES|"
    r"ORID|SPAMRBL|KRAKOWMA|NOSPAMPL|ECHELONPL|ALPHANET|FPSNBL|CBNDNSBL|NLWL|BITONLY|BITALL|WOODYBL|ZEBL|SWINOG|T-FWL|"
    r"EFNET|INTERSERVER|CART00NEY|CATCHSPAM|0SPAM|MCUTW|DIESPAMMER|LOSABL|ATT|WEBOTRUST|FNRBL|DYNIP|MAILPROVE|APEWS|"
    r"RSBL|ORVEDB|DUINV)$)"
)


@dataclasses.dataclass(frozen=True)
class DeadList:
    """
    A list of ppolicy 2.7's catalogue that nobody can ask any more.

    @ivar reason: what became of it, in a sentence.
    """

    name: str
    reason: str


def deadZone(zone):
    """
    Why nobody may ask a zone, as the end of a sentence that begins with it; None when it is not known to be dead.
    """
    zone = zone.lower().strip(".")
    for dead, (since, why) in DEAD.items():
        if zone == dead or zone.endswith(f".{dead}"):
            return f"is dead since {since}: {why}"
    return None


def find(name, own):
    """
    The list that a name in ppolicy.conf stands for.

    @param name: that of a list, or its zone.
    @param own: {name: L{BlockList}} of the site's own lists; they go before the catalogue's.
    @return: a L{BlockList}, or a L{DeadList} when the name is one that only ppolicy 2.7 knew.
    @raises ParamError: when there is none, or it must not be asked.
    """
    known = {**CATALOGUE, **own}
    if name in known:
        return _usable(known[name])
    if "." in name:
        return _byZone(name, known)
    old = re.sub(r"^_*(?:RCVD_IN_|DNS_FROM_)?", "", name)
    old = _RENAMED.get(old, old)
    if old in known:
        return _usable(known[old])
    for begin, zone in _DEAD_NAMES:
        if old.startswith(begin):
            return DeadList(name, f"{name} ({zone}) {deadZone(zone)}")
    if _FORGOTTEN.match(old):
        return DeadList(name, f"{name} of ppolicy 2.7 is not known any more; if it lives, define it in dnsLists")
    raise ParamError(
        f"there is no list {name!r}; there is {', '.join(sorted(known))}, and dnsLists defines others"
    )


def _byZone(name, known):
    dead = deadZone(name)
    if dead is not None:
        raise ParamError(f"{name} {dead}; take it out of the configuration")
    zone = name.lower().strip(".")
    for one in known.values():
        if one.zone == zone:
            return one
    raise ParamError(
        f"there is no list with the zone {name}; define one: dnsLists = {{'NAME': {{'zone': {name!r}}}}}"
    )


def _usable(one):
    if not one.zone:
        raise ParamError(f"{one.name} needs a key: dnsLists = {{{one.name!r}: {{'key': '...'}}}}")
    return one
