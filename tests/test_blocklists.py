"""
Tests for the catalogue of lists, and for a site's own ones.
"""

import re

import pytest

from ppolicy.blocklists import CATALOGUE, DEAD, KINDS, DeadList, compiled, deadZone, find, matches, readable
from ppolicy.errors import ConfigError, ParamError
from ppolicy.ownlists import parse

# Codes


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("127.0.0.2", ["127.0.0.2"], ["127.0.0.3", "127.0.1.2", "128.0.0.2", "127.0.0.22", "127.0.0.02", ""]),
        ("127.0.0.4-7", ["127.0.0.4", "127.0.0.7"], ["127.0.0.3", "127.0.0.8"]),
        ("127.0.*.3", ["127.0.0.3", "127.0.255.3"], ["127.0.3.2", "127.1.0.3"]),
        ("127.0.0.&8", ["127.0.0.8", "127.0.0.12", "127.0.0.255"], ["127.0.0.4", "127.0.0.16"]),
        ("127.0.0.0/24", ["127.0.0.0", "127.0.0.255"], ["127.0.1.0"]),
        ("127.0.0.8/30", ["127.0.0.8", "127.0.0.11"], ["127.0.0.7", "127.0.0.12"]),
        ("127.0.2.0/23", ["127.0.2.0", "127.0.3.255"], ["127.0.1.255", "127.0.4.0"]),
        ("127.0.0.0/8", ["127.0.0.1", "127.255.255.255"], ["126.255.255.255", "128.0.0.0"]),
    ],
)
def test_pattern(pattern, inside, outside):
    """
    A pattern stands for the addresses that it says, and for no other text.
    """
    assert all(matches(pattern, address) for address in inside)
    assert not any(matches(pattern, address) for address in outside)


@pytest.mark.parametrize(
    "pattern",
    ["", "127", "127.0.0", "127.0.0.0.0", "127.0.0.256", "127.0.0.7-4", "127.0.0.&3", "10.0.0.2", "0.0.0.0/0", "x"]
    + ["126.0.0.0/7", "127.0.0.1/24", "127.0.0.-1", "*.0.0.2", "127.0.0.2\n", "127.0.0.2/33"],
)
def test_noPattern(pattern):
    """
    What is none, or lies outside of 127.0.0.0/8, is refused.
    """
    with pytest.raises(ValueError):
        compiled(pattern)


# The catalogue


@pytest.mark.parametrize("one", CATALOGUE.values(), ids=lambda one: one.name)
def test_catalogue(one):
    """
    Each list has what is needed to ask it, a source for its scores, and no dead zone.
    """
    assert one.kind in KINDS
    assert one.zone or one.keyZone
    assert one.codes
    assert one.source
    assert one.ipv4 or one.ipv6
    for zone in (one.zone, one.keyZone):
        assert deadZone(zone) is None
        assert "{key}" not in one.zone
    for pattern in (*[code.pattern for code in one.codes], *one.errors):
        assert compiled(pattern)
    for code in one.codes:
        assert code.meaning
        assert code.score < 0 if one.kind == "white" else code.score > 0
    # What every list must never list would be no hit even if it were.
    assert not one.meant("127.0.0.1")


@pytest.mark.parametrize(
    ("name", "address", "meanings"),
    [
        ("ZEN", "127.0.0.2", ["SBL"]),
        ("ZEN", "127.0.0.3", ["CSS"]),
        ("ZEN", "127.0.0.7", ["XBL"]),
        ("ZEN", "127.0.0.9", ["DROP"]),
        ("ZEN", "127.0.0.11", ["PBL"]),
        ("ZEN", "127.0.0.12", []),
        ("ZEN", "127.0.0.8", []),
        ("PBL", "127.0.0.2", []),
        ("PBL", "127.0.0.10", ["PBL"]),
        ("DNSWL", "127.0.5.3", ["high"]),
        ("DNSWL", "127.0.5.4", []),
        ("DNSWL_HI", "127.0.5.3", ["high"]),
        ("DNSWL_HI", "127.0.5.0", []),
        ("DNSWL_NONE", "127.0.5.0", ["known"]),
        ("SURBL", "127.0.0.24", ["domain of phishers", "domain with malware"]),
        ("MAILSPIKE", "127.0.0.20", []),
        ("MAILSPIKE_WHITE", "127.0.0.10", []),
        ("DBL", "127.0.1.255", []),
    ],
)
def test_meant(name, address, meanings):
    """
    An answer means what the list has said it does, and else nothing.
    """
    found = [code.meaning for code in CATALOGUE[name].meant(address)]
    assert len(found) == len(meanings)
    assert all(text.startswith(begin) for text, begin in zip(found, meanings, strict=True))


@pytest.mark.parametrize(
    ("name", "addresses", "word"),
    [
        ("ZEN", ["127.255.255.252"], "127.255.255.252"),
        ("ZEN", ["127.255.255.254"], "127.255.255.254"),
        ("ZEN", ["127.0.0.2", "127.255.255.255"], "127.255.255.255"),
        ("DNSWL", ["127.0.0.255"], "127.0.0.255"),
        ("DNSWL", ["127.0.10.3"], "127.0.10.3"),
        ("SPAMCOP", ["127.255.255.254"], "error code"),
        ("SPAMCOP", ["192.0.2.1"], "outside of 127.0.0.0/8"),
        ("SPAMCOP", ["127.0.0.2", "8.8.8.8"], "outside of 127.0.0.0/8"),
        ("SURBL", ["127.0.0.1"], "127.0.0.1"),
        ("ZEN", ["127.0.0.2", "127.0.0.99"], ""),
        ("DNSWL", ["127.0.11.3"], ""),
        ("ZEN", [], ""),
    ],
)
def test_refusal(name, addresses, word):
    """
    An error code, or an address that no list may have, says nothing about what was asked for.
    """
    refusal = CATALOGUE[name].refusal(addresses)
    assert word in refusal
    assert bool(refusal) == bool(word)


# Names


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ZEN", "ZEN"),
        ("zen.spamhaus.org", "ZEN"),
        ("BL.SpamCop.net.", "SPAMCOP"),
        ("RCVD_IN_XBL", "XBL"),
        ("__RCVD_IN_ZEN", "ZEN"),
        ("RCVD_IN_BL_SPAMCOP_NET", "SPAMCOP"),
        ("SBLXBL", "SBLXBL"),
        ("UCEPROTECTL1", "UCEPROTECT1"),
        ("RCVD_IN_DNSWL_HI", "DNSWL_HI"),
        ("list.dnswl.org", "DNSWL"),
    ],
)
def test_found(name, found):
    """
    A list has a name, that of ppolicy 2.7 or of its zone.
    """
    assert find(name, {}).name == found


@pytest.mark.parametrize(
    "name",
    [
        *("NJABL", "NJABLDYNA", "SORBS", "SORBSDUL", "MAPS-RBL", "RCVD_IN_NJABL_DUL", "RCVD_IN_SORBS_WEB", "ORDB"),
        *("DNS_FROM_AHBL_RHSBL", "DSBLLIST", "DNS_FROM_RFC_DSN", "RCVD_IN_WHOIS_BOGONS", "NIXSPAM", "WPBL", "UBL"),
        *("CBL", "BUS-CZ", "MSRBLSPAM", "DULRU"),
    ],
)
def test_deadName(name):
    """
    The name of a dead list in the catalogue of ppolicy 2.7 is understood: it says since when.
    """
    found = find(name, {})
    assert isinstance(found, DeadList)
    assert re.fullmatch(rf"{name} \([\w.-]+\) is dead since [\w ]+: .+", found.reason)


@pytest.mark.parametrize("name", ["FIVETEN", "KROPKADUL", "DNS_FROM_SECURITYSAGE", "DRBL-VOTE-CROCO", "SWINOG"])
def test_forgottenName(name):
    """
    So is one of which nobody knows what has become of it.
    """
    found = find(name, {})
    assert isinstance(found, DeadList)
    assert "dnsLists" in found.reason


@pytest.mark.parametrize("zone", [*DEAD, "dnsbl.sorbs.net", "SPAM.dnsbl.SORBS.net.", "relays.ordb.org"])
def test_deadZone(zone):
    """
    A dead zone, and what is below it, is a mistake, with a sentence that says since when and why.
    """
    with pytest.raises(ParamError, match=r"is dead since .+: .+; take it out of the configuration"):
        find(zone, {})
    with pytest.raises(ConfigError, match=r"is dead since .+: .+; take it out of the configuration"):
        parse({"OURS": {"zone": zone}})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ZENN", "there is no list 'ZENN'; there is ABUSIX, BARRACUDA"),
        ("", "there is no list ''"),
        ("bl.example.org", "there is no list with the zone bl.example.org; define one: dnsLists"),
        ("notsorbs.net", "there is no list with the zone"),
        ("ABUSIX", "ABUSIX needs a key"),
    ],
)
def test_notFound(name, sentence):
    """
    Any other name is a mistake that says what to do.
    """
    with pytest.raises(ParamError, match=re.escape(sentence)):
        find(name, {})


def test_readable():
    """
    What a list explains is one line of bounded length, without anything that could disturb a log.
    """
    assert readable([(b"Blocked - see ", b"https://example.org/")]) == "Blocked - see https://example.org/"
    assert readable([(b"one",), (b"two",)]) == "one two"
    assert readable([(b"a\r\nb\x1b[2J\xff",)]) == "a  b [2J�"
    assert len(readable([(b"x" * 255, b"y" * 255)] * 50)) == 300
    assert readable([]) == ""


# A site's own lists


def test_ownLists():
    """
    A zone is enough; codes may be scored each for itself, or all alike.
    """
    lists = parse(
        {
            "PLAIN": {"zone": "BL.example.org."},
            "SCORED": {"zone": "b.example.org", "codes": {"127.0.0.2": 2.5, "127.0.0.3": ("relay", 4)}},
            "NETWORK": {"zone": "c.example.org", "codes": "127.0.0.0/24", "score": 1.5, "kind": "domain"},
            "SEVERAL": {"zone": "d.example.org", "codes": ["127.0.0.4", "127.0.0.6"], "selftest": None},
            "WHITE": {"zone": "w.example.org", "kind": "white", "errors": "127.0.0.9", "ipv6": True},
        }
    )
    shown = {
        name: (one.zone, one.kind, [(code.pattern, code.meaning, code.score) for code in one.codes])
        for name, one in lists.items()
    }
    assert shown == {
        "PLAIN": ("bl.example.org", "client", [("127.0.0.2", "listed", 1)]),
        "SCORED": ("b.example.org", "client", [("127.0.0.2", "listed", 2.5), ("127.0.0.3", "relay", 4)]),
        "NETWORK": ("c.example.org", "domain", [("127.0.0.0/24", "listed", 1.5)]),
        "SEVERAL": ("d.example.org", "client", [("127.0.0.4", "listed", 1), ("127.0.0.6", "listed", 1)]),
        "WHITE": ("w.example.org", "white", [("127.0.0.2", "listed", -1)]),
    }
    assert lists["WHITE"].errors == ("127.0.0.9",)
    assert lists["WHITE"].ipv6
    assert lists["SEVERAL"].selftest is None
    assert lists["PLAIN"].selftest == "strict"
    assert find("PLAIN", lists) is find("bl.example.org", lists)
    assert parse({}) == {}


def test_changedList():
    """
    What is given for a list of the catalogue replaces what it has; the rest stays.
    """
    lists = parse({"SPAMCOP": {"score": 4}, "DNSWL": {"codes": {"127.0.*.3": -8}}})
    assert [(code.pattern, code.score) for code in lists["SPAMCOP"].codes] == [("127.0.0.2", 4.0)]
    assert lists["SPAMCOP"].zone == "bl.spamcop.net"
    assert lists["SPAMCOP"].source == "ppolicy.conf"
    assert [(code.pattern, code.score) for code in lists["DNSWL"].codes] == [("127.0.*.3", -8.0)]
    assert lists["DNSWL"].errors == CATALOGUE["DNSWL"].errors
    assert find("SPAMCOP", lists) is lists["SPAMCOP"]


SECRET = "s3cretKey0123456789"


def test_key(tmp_path):
    """
    A key goes into the name that is asked for, and nowhere else; it may be in a file.
    """
    (tmp_path / "key").write_text(f"{SECRET}\n")
    lists = parse(
        {
            "ZEN": {"keyFile": "key"},
            "ABUSIX": {"key": SECRET},
            "OURS": {"zone": "{key}.Bl.example.org", "key": SECRET},
        },
        tmp_path,
    )
    zones = {
        "ZEN": "zen.dq.spamhaus.net",
        "PBL": "zen.dq.spamhaus.net",  # the same zone, so the same key
        "ABUSIX": "combined.mail.abusix.zone",
        "OURS": "bl.example.org",
    }
    for name, zone in zones.items():
        one = find(name, lists)
        assert one.question("2.0.0.127") == f"2.0.0.127.{SECRET}.{zone}"
        assert one.shownZone == f"***.{zone}"
        assert SECRET not in f"{one} {one!r}"
        assert one.hide(f"no answer for x.{SECRET.lower()}.{zone}") == f"no answer for x.***.{zone}"
    assert find("DBL", lists).key is None


@pytest.mark.parametrize(
    ("own", "sentences"),
    [
        ("x", ["dnsLists: must be a dictionary {'NAME': {'zone': …}}, not a text"]),
        ({5: {}}, ["dnsLists: the name 5 of a list must be of letters"]),
        ({"a b": {}}, ["dnsLists: the name 'a b' of a list must be of letters"]),
        ({"A": "bl.example.org"}, ["dnsLists: A: must be a dictionary with its zone, not a text"]),
        ({"A": {}}, ["dnsLists: A: needs a zone, such as 'bl.example.org'"]),
        ({"A": {"zone": 5}}, ["dnsLists: A: needs a zone"]),
        ({"A": {"zone": "x.org", "code": 1}}, ["dnsLists: A: 'code' is no key of a list, did you mean codes?"]),
        ({"A": {"zone": "x.org", "kind": "black"}}, ["A: kind must be 'client', 'domain' or 'white'"]),
        ({"A": {"zone": "x.org", "kind": ["client"]}}, ["A: kind must be 'client', 'domain' or 'white'"]),
        ({"A": {"zone": "x.org", "selftest": True}}, ["A: selftest must be 'strict', 'negative-only' or None"]),
        ({"A": {"zone": "x.org", "names": None}}, ["A: names must be 'domain', 'host' or 'both'"]),
        ({"A": {"zone": "x.org", "ipv6": 1}}, ["A: ipv6 must be True or False"]),
        ({"A": {"zone": "x.org", "ipv4": False}}, ["A: ipv4 or ipv6 must be True"]),
        ({"A": {"zone": "x.org", "note": 1}}, ["A: note must be a text"]),
        *(
            ({"A": {"zone": "x.org", "kind": "domain", "test": name}}, ["A: test must be a name that is always"])
            for name in ("invalid", "INVALID", "", "a..b", "test.", "x" * 64)
        ),
        ({"A": {"zone": "x.org", "test": 1}}, ["A: test must be a name"]),
        ({"A": {"zone": "example"}}, ["A: 'example' is no zone of the DNS"]),
        ({"A": {"zone": "a..org"}}, ["A: 'a..org' is no zone of the DNS"]),
        ({"A": {"zone": "bl example.org"}}, ["is no zone of the DNS"]),
        ({"A": {"zone": "x.org\n"}}, ["is no zone of the DNS"]),
        ({"A": {"zone": "a." * 100 + "org"}}, ["is no zone of the DNS"]),
        ({"A": {"zone": "x.org", "codes": {"127.0.0.2": "5"}}}, ["A: codes must be {'127.0.0.2': score}"]),
        ({"A": {"zone": "x.org", "codes": {"127.0.0.2": True}}}, ["A: codes must be"]),
        ({"A": {"zone": "x.org", "codes": {"127.0.0.2": float("nan")}}}, ["A: codes must be"]),
        ({"A": {"zone": "x.org", "codes": {"127.0.0.2": (1, 2)}}}, ["A: codes must be"]),
        ({"A": {"zone": "x.org", "codes": {2: 5}}}, ["A: codes must be"]),
        ({"A": {"zone": "x.org", "codes": [2]}}, ["A: codes must be"]),
        ({"A": {"zone": "x.org", "codes": {}}}, ["A: codes must be"]),
        ({"A": {"zone": "x.org", "codes": None}}, ["A: codes must be"]),
        ({"A": {"zone": "x.org", "codes": "10.0.0.1"}}, ["A: codes: '10.0.0.1' is no address in 127.0.0.0/8"]),
        ({"A": {"zone": "x.org", "errors": ["1"]}}, ["A: errors: '1' is no address in 127.0.0.0/8"]),
        ({"A": {"zone": "x.org", "errors": 5}}, ["A: errors must be a list of texts"]),
        ({"A": {"zone": "x.org", "score": "5"}}, ["A: score must be a number"]),
        ({"A": {"zone": "x.org", "score": -5}}, ["A: 127.0.0.2: a list of what is bad has none below 0"]),
        ({"A": {"zone": "x.org", "kind": "white", "score": 5}}, ["A: 127.0.0.2: a white list has scores below 0"]),
        ({"DNSWL": {"kind": "client"}}, ["DNSWL: 127.0.2-255.0: a list of what is bad has none below 0"]),
        ({"A": {"zone": "x.org", "score": 5, "codes": {"127.0.0.2": 5}}}, ["score goes with codes that have"]),
        ({"A": {"zone": "x.org", "key": "k"}}, ["A: it has a key, so its zone must have {key} in it"]),
        ({"A": {"zone": "{key}.x.org"}}, ["A: its zone has {key} in it, so it needs a key"]),
        ({"A": {"zone": "{key}.x.org", "key": None}}, ["A: key must be a text", "so it needs a key"]),
        ({"SPAMCOP": {"key": "k"}}, ["SPAMCOP: this list has no keys"]),
        ({"ABUSIX": {}}, ["ABUSIX: needs a key"]),
        ({"ZEN": {"key": "k", "keyFile": "f"}}, ["ZEN: give either key or keyFile"]),
        ({"ZEN": {"keyFile": "/nowhere/key"}}, ["ZEN: keyFile /nowhere/key cannot be read: No such file"]),
        ({"ZEN": {"keyFile": "/dev/null"}}, ["ZEN: the first line of keyFile is no key"]),
        ({"ZEN": {"keyFile": 5}}, ["ZEN: keyFile must be a path"]),
        (
            {"A": {}, "B": {"zone": "x.org", "ipv6": 1, "kind": 5}},
            ["A: needs a zone", "B: kind must", "B: ipv6 must"],
        ),
    ],
)
def test_mistakes(own, sentences):
    """
    Every mistake is reported at once, in a sentence that says what is wrong.
    """
    with pytest.raises(ConfigError) as error:
        parse(own)
    found = [one.sentence for one in error.value.mistakes]
    assert len(found) == len(sentences), found
    for one, sentence in zip(found, sentences, strict=True):
        assert sentence in one


@pytest.mark.parametrize(
    "given",
    [
        {"key": f"{SECRET} x"},
        {"key": [SECRET]},
        {"zone": f"{SECRET}.zen.dq.spamhaus.net"},
        {"zone": f"{SECRET}.combined.mail.abusix.zone"},
        {"zone": "example.org", "key": SECRET},
        {"zone": "example..{key}.org", "key": SECRET},
    ],
)
def test_keyIsSecret(given):
    """
    No sentence about a mistake has the key in it.
    """
    with pytest.raises(ConfigError) as error:
        parse({"ZEN": given})
    assert SECRET not in str(error.value)
