"""
What is measured of limits: two windows for each sender, in a file and in memory, with few and with many senders.
"""

import json
from contextlib import ExitStack

from bench.servers import RATE_LIMIT, Floor, PPolicy, RateLimit
from bench.table import Gate, Row, ratios

# Nobody reaches them.
LIMITS = [(1_000_000_000, 60), (2_000_000_000, 86400)]

POLICY = """
    modules = {"limit": ("DOS", %r)}

    def check(factory, data, port):
        code, sums = factory.check("limit", data)
        return ("dunno", "") if code == -1 else ("DEFER_IF_PERMIT", "4.7.1 Too many mails")
    """

FEW = 1_000
MANY = 1_000_000


def _policy(**parameters):
    return POLICY % {"params": "sender", "limits": LIMITS, **parameters}


class TwoLimits(RateLimit):
    """
    policyd-rate-limit with the same two limits.
    """

    def __init__(self, folder):
        super().__init__(folder)
        settings = json.loads(self.configuration.read_text())
        self.configuration.write_text(json.dumps({**settings, "limits": LIMITS}))


def limits(bench):
    """
    Two limits for each of 10,000 senders, against policyd-rate-limit; what has a file begins with nothing.
    """
    with ExitStack() as stack:
        floor = Floor(bench.folder)
        theirs = [TwoLimits(bench.folder)] if RATE_LIMIT.exists() else []
        file = PPolicy("DOS, two windows, write-behind", bench.folder, _policy())
        first = PPolicy("DOS, two windows, on disk first", bench.folder, _policy(writeBehind=False))
        memory = PPolicy("DOS, two windows, in memory", bench.folder, _policy(memory=True))
        ours = (file, first, memory)
        servers = (floor, *theirs, *ours)
        bench.start(stack, *servers)
        base, *rest = bench.measureInTurn(servers, dict.fromkeys(servers, "dunno"), fresh=(*theirs, file, first))
        bench.ask(floor)
    peer = rest.pop(0) if theirs else None
    rows = [Row("floor, zipf over 10,000", base)]
    if peer:
        rows.append(Row("policyd-rate-limit, two limits", peer, base))
    else:
        rows.append(Row("policyd-rate-limit", notes=[f"skipped: there is no {RATE_LIMIT}"]))
    for server, samples in zip(ours, rest, strict=True):
        gates = []
        if peer and server is file:
            gates.append(Gate("x policyd-rate-limit", ratios(samples, peer, "rate"), atLeast=15))
        if server is not first:
            atLeast = 0.12 if server is file else 0.30
            gates.append(Gate("x floor", ratios(samples, base, "rate"), atLeast=atLeast))
        rows.append(Row(server.name, samples, base, gates=gates))
    return rows


def limitGrowth(bench):
    """
    Limits for a thousand senders and for a million, all of which are known.
    """
    rows = []
    for name, parameters, options in (
        ("DOS", {}, {}),
        ("DOS, all in memory too", {}, {"stateSize": 2 * MANY}),
        ("DOS, in memory", {"memory": True}, {}),
    ):
        with ExitStack() as stack:
            few, many = [
                PPolicy(f"{name}, {count:,} keys", bench.folder, _policy(**parameters), **options)
                for count in (FEW, MANY)
            ]
            bench.start(stack, few, many)
            for server, count in ((few, FEW), (many, MANY)):
                bench.fill(server, "dunno", count, mode="each", population=count, connections=32)
            samples = [[], []]
            for _ in range(bench.rounds):
                for server, count, taken in zip((few, many), (FEW, MANY), samples, strict=True):
                    taken.append(bench.measure(server, "dunno", population=count))
            resident = many.memory() / 1024
            bench.ask(few, many)
        gates = [
            Gate("time", ratios(*samples, "rate"), atMost=1.3),
            Gate("CPU", ratios(samples[1], samples[0], "cpu"), atMost=1.3),
        ]
        rows += [Row(few.name, samples[0]), Row(many.name, samples[1], gates=gates, notes=[f"{resident:.0f} MB"])]
    return rows
