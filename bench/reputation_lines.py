"""
The lines about the DNS and what is asked in it: SPF, lists, cold clients.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from bench.dns_lines import Unbound, answering
from bench.load import BUILD
from bench.servers import ROOT, Floor, PPolicy, Server
from bench.table import Gate, Row, ratios

POLICYD_SPF = Path("/usr/bin/policyd-spf")

SPF = """
    modules = {"spf": ("SPF", {"checkHelo": True})}

    def check(factory, data, port):
        code, spf = factory.check("spf", data)
        action, text = spf.answer(data)
        return "prepend", text or spf.header(data)
    """

COLD = """
    dnsLists = {f"LIST{number}": {"zone": f"list{number}.listed.example", "codes": {"127.0.0.2": 1}}
                for number in range(10)}
    modules = {
        "lists": ("DnsblScore", {"dnsbl": list(dnsLists), "params": ["client_address"]}),
        "name": ("Resolve", {"param": "client_address", "type": "ip->name->ip"}),
        "spf": ("SPF", {}),
        "mx": ("Resolve", {"param": "sender", "type": "name->mx"}),
    }

    def check(factory, data, port):
        (score, _), (name, _), (code, spf), (mx, _) = factory.checkAll(data, "lists", "name", "spf", "mx")
        return "dunno", ""
    """

CACHED = """
    dnsLists = {f"LIST{number}": {"zone": f"list{number}.listed.example", "codes": {"127.0.0.2": 1}}
                for number in range(10)}
    modules = {
        "lists": ("DnsblScore", {"dnsbl": list(dnsLists), "params": ["client_address"]}),
        "spf": ("SPF", {}),
    }

    def check(factory, data, port):
        score, lists = factory.check("lists", data)
        code, spf = factory.check("spf", data)
        return "dunno", ""
    """

# Every domain below net has one SPF record, and one mail host.
DOMAINS = [
    'local-zone: "net." redirect',
    """local-data: 'net. 300 TXT "v=spf1 ip4:192.0.2.0/24 mx include:_spf.example.org ~all"'""",
    'local-data: "net. 300 MX 10 mail.example.org."',
    'local-data: "net. 300 A 192.0.2.80"',
    'local-data: "mail.example.org. 300 A 192.0.2.25"',
    """local-data: '_spf.example.org. 300 TXT "v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.0/24 -all"'""",
]
DELAY = 50
# SPF is the deepest: the record, its MX, their addresses.
DEPTH = 3
CLIENTS = 200
KNOWN = 2000
RATE = 1000


class SlowDNS(Server):
    """
    A name server that takes L{DELAY} milliseconds for each answer.
    """

    def __init__(self, folder):
        super().__init__("name server", folder)

    def command(self):
        return [BUILD / "slowdns", self.port, DELAY]

    def connect(self):
        return answering(self.port)


class PolicydSPF(Server):
    """
    Debian's policyd-spf in one process, silent; it looks at HELO and MAIL FROM, as its default is.
    """

    def __init__(self, folder, dnsPort):
        super().__init__("policyd-spf", folder)
        self._dnsPort = dnsPort
        self.configuration = self.folder / "policyd-spf.conf"
        self.configuration.write_text(
            "debugLevel = -1\nTestOnly = 1\nHELO_reject = Fail\nMail_From_reject = Fail\n"
        )

    def command(self):
        return ["/usr/bin/python3", ROOT / "bench" / "spfpeer.py", self.port, self._dnsPort, self.configuration]


def spf(bench):
    """
    SPF of HELO and MAIL FROM, nothing cached by us, against policyd-spf: one connection each, as that has one.
    """
    with ExitStack() as stack:
        resolver = Unbound(bench.folder, DOMAINS)
        bench.start(stack, resolver)
        theirs = [PolicydSPF(bench.folder, resolver.port)] if POLICYD_SPF.exists() else []
        address = [f"127.0.0.1:{resolver.port}"]
        bare = PPolicy("SPF", bench.folder, SPF, dnsServers=address, dnsCacheSize=0, cacheSize=0)
        cached = PPolicy("SPF, DNS cached", bench.folder, SPF, dnsServers=address, cacheSize=0)
        servers = (*theirs, bare, cached)
        expected = dict.fromkeys(servers, "prepend")
        bench.start(stack, *servers)
        *peer, ours, known = bench.measureInTurn(servers, expected, mode="uniq", connections=1)
        many = bench.measureInTurn((bare, cached), expected, mode="uniq", connections=8)
        bench.ask(bare, cached)
    rows = []
    if peer:
        rows.append(Row("policyd-spf, HELO and MAIL FROM, 1 connection", peer[0]))
        gates = [
            Gate("x policyd-spf", ratios(many[0], peer[0], "rate"), atLeast=2.5),
            Gate("CPU", ratios(many[0], peer[0], "cpu"), atMost=0.6),
        ]
    else:
        gates = []
    peer = peer[0] if peer else None
    return [
        *rows,
        Row("SPF, no caches, 1 connection", ours, None, peer),
        Row("SPF, no caches, 8 connections", many[0], None, peer, gates),
        Row("SPF, DNS cached, 1 connection", known, None, peer),
        Row("SPF, DNS cached, 8 connections", many[1], None, peer),
    ]


def cold(bench):
    """
    Cold clients, ten lists, reverse name, SPF and MX each, with a resolver that takes its time; and known ones
    beside them.
    """
    with ExitStack() as stack:
        resolver = SlowDNS(bench.folder)
        bench.start(stack, resolver)
        address = [f"127.0.0.1:{resolver.port}"]
        server = PPolicy("cold clients", bench.folder, COLD, dnsServers=address, dnsCacheSize=0)
        bench.start(stack, server)
        known = {"population": KNOWN, "connections": 8, "rate": RATE}
        alone, beside, cold_ = [], [], []
        for _ in range(bench.rounds):
            # The cold ones of the round before have taken some of their places in the cache.
            bench.fill(server, "dunno", KNOWN, mode="each", population=KNOWN, connections=100)
            alone.append(bench.measure(server, "dunno", **known))
            with ThreadPoolExecutor(1) as pool:
                under = pool.submit(bench.measure, server, "dunno", mode="uniq", connections=CLIENTS)
                time.sleep(0.1 * bench.seconds)  # until they are in flight, no longer all at their beginning
                beside.append(bench.measure(server, "dunno", settle=False, seconds=0.8 * bench.seconds, **known))
                cold_.append(under.result())
        bench.ask(server)
    times = [sample.p50 / 1000 / (DEPTH * DELAY) for sample in cold_]
    return [
        Row(
            f"cold clients, resolver of {DELAY} ms, {CLIENTS} connections",
            cold_,
            gates=[Gate(f"p50 / ({DEPTH} x {DELAY} ms)", times, atMost=2.5)],
        ),
        Row(f"known clients alone, {RATE} requests/s", alone),
        Row(
            "known clients beside them",
            beside,
            gates=[Gate("p99 x alone", ratios(beside, alone, "p99"), atMost=2)],
        ),
    ]


def cachedReputation(bench):
    """
    SPF and ten lists from the cache of results.
    """
    with ExitStack() as stack:
        floor = Floor(bench.folder)
        resolver = SlowDNS(bench.folder)
        server = PPolicy("SPF and DnsblScore", bench.folder, CACHED, dnsServers=[f"127.0.0.1:{resolver.port}"])
        bench.start(stack, floor, resolver, server)
        bench.fill(server, "dunno", KNOWN, mode="each", population=KNOWN)
        servers = (floor, server)
        base, ours = bench.measureInTurn(servers, dict.fromkeys(servers, "dunno"), population=KNOWN)
        bench.ask(server)
    return [
        Row("floor, zipf, 8 connections", base),
        Row(
            "SPF and DnsblScore, cached", ours, base, gates=[Gate("rate", ratios(ours, base, "rate"), atLeast=0.3)]
        ),
    ]
