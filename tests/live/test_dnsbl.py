"""
DNS lists through a running server, as a name server on a socket has them: good ones, and all that may be wrong
with a list. Nothing of it ever becomes a listing or a white-listing.
"""

import os
import time

import pytest

from tests.dnsserver import DNSServer

CLIENT, OTHER = "4.3.2.1", "5.3.2.1"
NEVER, ALWAYS = "1.0.0.127", "2.0.0.127"
ZEN, DNSWL, DBL = "zen.spamhaus.org", "list.dnswl.org", "dbl.spamhaus.org"
KEY = "s3cretKey0123456789"

# The caches are off, so that each request asks the lists.
POLICY = """
    off = {'cachePositive': 0, 'cacheUnknown': 0, 'cacheNegative': 0}
    modules = {
        'black': ('Dnsbl', {'dnsbl': 'ZEN', **off}),
        'white': ('Dnsbl', {'dnsbl': 'DNSWL', **off}),
        'ours': ('Dnsbl', {'dnsbl': 'OURS', **off}),
        'score': ('DnsblScore', {'dnsbl': ['ZEN', 'DNSWL', 'DBL', 'OURS'], **off}),
        'dynamic': ('DnsblDynamic', {'check_name': False, **off}),
    }

    def check(factory, data, port):
        codes = {name: factory.check(name, data)[0] for name in modules}
        return '450', ' '.join(f'{name}={code}' for name, code in codes.items())
"""


def records(**more):
    """
    Three good lists, nobody on them; C{more} is by zone {subject: [addresses]}.
    """
    zones = {
        ZEN: {ALWAYS: ["127.0.0.2", "127.0.0.4", "127.0.0.10"]},
        DNSWL: {ALWAYS: ["127.0.10.0"]},
        DBL: {"dbltest.com": ["127.0.1.2"]},
        f"{KEY.lower()}.bl.example.org": {ALWAYS: ["127.0.0.2"]},
    }
    for zone, listed in more.items():
        zones[zone] = zones[zone] | listed
    return {f"{name}.{zone}": {"A": values} for zone, listed in zones.items() for name, values in listed.items()}


@pytest.fixture
def dns():
    """
    The name server.
    """
    with DNSServer(records()) as server:
        yield server


@pytest.fixture
def server(makeServer, dns):
    """
    A running server that asks it.
    """
    own = {"OURS": {"zone": "{key}.bl.example.org", "key": KEY}}
    return makeServer(POLICY, dnsServers=[dns.address], dnsTimeout=2.0, dnsLists=own)


def codes(server, address="1.2.3.4", **attributes):
    """
    {check: code} for a client.
    """
    data = {"client_address": address, "sender": "x@example.net", "reverse_client_name": "www.example.net"}
    action = server.request({"request": "smtpd_access_policy", **data, **attributes})
    return {name: float(code) for name, _, code in (word.partition("=") for word in action.split()[1:])}


def suspended(server):
    """
    {list: why it is suspended} as ppolicy status shows it.
    """
    lists = server.status()["backends"]["dns"]["lists"]
    return {name: one["problem"] for name, one in lists.items() if one["problem"]}


def test_good(server, dns):
    """
    What is listed is, what is not is not, and no list is suspended.
    """
    assert codes(server) == {"black": -1, "white": -1, "ours": -1, "score": 0, "dynamic": -1}
    dns.records = records(**{ZEN: {OTHER: ["127.0.0.10"]}, DNSWL: {OTHER: ["127.0.5.1"]}})
    assert codes(server, "1.2.3.5") == {"black": 1, "white": 1, "ours": -1, "score": 2.858, "dynamic": 1}
    assert suspended(server) == {}


@pytest.mark.parametrize(
    "personality",
    [
        "listed",
        "silence",
        "SERVFAIL",
        "REFUSED",
        "FORMERR",
        "rubbish",
        "loop",
        "wrong id",
        "short",
        "truncated always",
    ],
)
def test_everything(makeServer, personality):
    """
    Whatever all lists do, the code is 0 for everybody, also for the first request that a server gets.
    """
    with DNSServer(records(), personality=personality) as dns:
        own = {"OURS": {"zone": "{key}.bl.example.org", "key": KEY}}
        server = makeServer(POLICY, dnsServers=[dns.address], dnsTimeout=1.0, dnsLists=own)
        for address in ("1.2.3.4", "1.2.3.5", "2a01:4f8::1"):
            found = codes(server, address)
            # The one list that knows no IPv6 is not asked for it.
            assert found.pop("ours") == (-1 if ":" in address else 0)
            assert found == {"black": 0, "white": 0, "score": 0, "dynamic": 0}
        assert KEY.lower() not in server.log().lower()


@pytest.mark.parametrize(
    ("zone", "address", "expected"),
    [
        (ZEN, "127.255.255.252", {"black": 0, "dynamic": 0, "score": 0}),
        (ZEN, "127.255.255.254", {"black": 0, "dynamic": 0, "score": 0}),
        (ZEN, "127.255.255.255", {"black": 0, "dynamic": 0, "score": 0}),
        (ZEN, "192.0.2.80", {"black": 0, "dynamic": 0, "score": 0}),
        (DNSWL, "127.0.0.255", {"white": 0, "score": 0}),
        (DNSWL, "127.0.10.3", {"white": 0, "score": 0}),
        (DNSWL, "192.0.2.80", {"white": 0, "score": 0}),
        (DBL, "127.255.255.254", {"score": 0}),
        (DBL, "192.0.2.80", {"score": 0}),
    ],
)
def test_refusals(server, dns, zone, address, expected):
    """
    A list that answers everybody with an error code, or with somebody's web server, is suspended; others go on.
    """
    dns.records = records() | {f"*.{zone}": {"A": [address]}}
    for name in [name for name in dns.records if name.endswith(f".{zone}") and not name.startswith("*")]:
        del dns.records[name]
    good = {"black": -1, "white": -1, "ours": -1, "score": 0, "dynamic": -1}
    for client in ("1.2.3.4", "1.2.3.5"):
        assert codes(server, client) == good | expected
    assert len(suspended(server)) >= 1
    assert all(address in why for why in suspended(server).values())
    server.waitForLog("is suspended")


def test_wildcard(server, dns):
    """
    A server that starts when a list has begun to list everything does not believe its first listing either.
    """
    assert codes(server)["black"] == -1
    server.terminate()
    dns.records = records() | {f"{name}.{ZEN}": {"A": ["127.0.0.2"]} for name in ("*", NEVER)}
    server.start()
    assert codes(server, "1.2.3.9")["black"] == 0
    assert "as if it listed everything" in suspended(server)["ZEN"]


if os.environ.get("PPOLICY_LONG"):

    def test_comesBack(server, dns):
        """
        A suspended list is tested again after a minute, and asked again when it is good.
        """
        dns.minimum = dns.ttl = 1
        dns.records = records(**{ZEN: {CLIENT: ["127.255.255.254"]}})
        assert codes(server)["black"] == 0
        dns.records = records(**{ZEN: {OTHER: ["127.0.0.2"]}})
        asked = len(dns.asked)
        assert codes(server, "1.2.3.5")["black"] == 0
        assert not [name for name, _ in dns.asked[asked:] if name.endswith(ZEN)]
        server.waitForLog("is asked again", timeout=75)
        assert codes(server, "1.2.3.5")["black"] == 1


def test_slowTest(server, dns):
    """
    A listing of which nobody can say whether the list lists everything is unknown, in bounded time.
    """
    dns.records = records(**{ZEN: {CLIENT: ["127.0.0.2"]}})
    dns.personalities = {f"{NEVER}.{ZEN}": "silence"}
    begun = time.monotonic()
    found = codes(server)
    assert (found["black"], found["score"], found["dynamic"]) == (0, 0, -1)
    assert time.monotonic() - begun < 15


def test_keyIsSecret(server, dns):
    """
    The key of a subscription is asked with, and shown nowhere.
    """
    dns.personalities = {f"{OTHER}.{KEY.lower()}.bl.example.org": "loop"}
    dns.records = records(**{f"{KEY.lower()}.bl.example.org": {CLIENT: ["127.255.255.254"]}})
    assert codes(server, "1.2.3.5")["ours"] == 0
    assert codes(server)["ours"] == 0
    assert f"{CLIENT}.{KEY.lower()}.bl.example.org" in [name for name, _ in dns.asked]
    server.waitForLog("the list OURS (***.bl.example.org) is suspended")
    assert KEY.lower() not in f"{server.log()} {suspended(server)}".lower()
