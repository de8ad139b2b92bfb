"""
What is measured: the lines of the table and their gates, and what all of them need.
"""

import itertools
import resource
import socket
import threading
import time
from contextlib import ExitStack, contextmanager

from bench import country_lines, dns_lines, limit_lines, reputation_lines, state_lines
from bench.load import measure
from bench.progress import Progress
from bench.servers import Floor, PPolicy
from bench.table import Gate, Row, ratios

TRIVIAL = """
    modules = {"dummy": ("Dummy", {})}

    def check(factory, data, port):
        code, info = factory.check("dummy", data)
        return "dunno", ""
    """

SENDERS = """
    from ppolicy.check import Check

    class Sender(Check):
        blocking = False

        def hashArg(self, data):
            return data["sender"]

        def check(self, data):
            return 1, data["sender"]

    modules = {"sender": (Sender, {})}

    def check(factory, data, port):
        code, info = factory.check("sender", data)
        return "dunno", ""
    """

SLEEP = """
    modules = {"sleep": ("Sleep", {"sleep": 1})}

    def check(factory, data, port):
        code, info = factory.check("sleep", data)
        return "dunno", ""
    """

IDLE = 5000
ENTRIES = 100_000
SLEEPERS = 200

_seeds = itertools.count(1)


class Bench:
    """
    How long and how often to measure, and where.

    @ivar rows: of the large table in the line "growth".
    @ivar remarks: what went wrong, as sentences.
    @ivar errors: how much of that is in no row of the table.
    """

    def __init__(self, folder, seconds, rounds, rows):
        self.folder = folder
        self.seconds = seconds
        self.rounds = rounds
        self.rows = rows
        self.remarks = []
        self.errors = 0
        self.progress = Progress(0)

    def measureInTurn(self, servers, expected, fresh=(), **load):
        """
        Measure one server after the other, round after round; all of them run all the time.

        @param fresh: those of the servers that begin each round with nothing remembered.
        @return: a list of samples for each server.
        """
        samples = [[] for _ in servers]
        for server in servers:
            if server not in fresh:
                self._warmUp(server, expected[server], load)
        for number in range(self.rounds):
            self.progress.round(number + 1, self.rounds)
            for server, taken in zip(servers, samples, strict=True):
                if server in fresh:
                    server.renew()
                    self._warmUp(server, expected[server], load)
                taken.append(self.measure(server, expected[server], **load))
                if server in fresh:
                    self.ask(server)
        return samples

    def measure(self, server, expected, **load):
        """
        Measure one server once, with requests of its own.
        """
        return measure(server, next(_seeds), expected, **{"seconds": self.seconds} | load)

    def fill(self, server, expected, requests, **load):
        """
        Send so many requests, whatever time that takes.
        """
        self.count(server, measure(server, next(_seeds), expected, requests=requests, **load))

    def _warmUp(self, server, expected, load):
        self.count(server, self.measure(server, expected, **load | {"seconds": min(0.5, self.seconds)}))

    def start(self, stack, *servers):
        """
        Start servers that the stack stops.
        """
        for server in servers:
            stack.callback(server.stop)
            server.start()

    def count(self, server, sample):
        """
        Note the errors of a sample that gets no row in the table.
        """
        self.errors += sample.errors
        if sample.errors:
            self.remarks.append(f"{server.name}: {sample.errors:.0f} errors")

    def ask(self, *servers):
        """
        Note what went wrong.
        """
        for server in servers:
            self.remarks += server.remarks()


def trivial(bench):
    """
    One cached check: what the server itself costs, and what it costs to be told of it.
    """
    with ExitStack() as stack:
        floor = Floor(bench.folder)
        quiet = PPolicy("trivial", bench.folder, TRIVIAL)
        metrics = bench.folder / "metrics.sock"
        watched = PPolicy("trivial, metrics read each second", bench.folder, TRIVIAL, metrics=f"unix:{metrics}")
        forgetful = PPolicy("trivial, historySize = 0", bench.folder, TRIVIAL, historySize=0)
        logging = PPolicy("trivial, request log", bench.folder, TRIVIAL, requestLog="keyvalue")
        servers = (floor, quiet, watched, forgetful, logging)
        bench.start(stack, *servers)
        stack.enter_context(_reading(metrics))
        base, bare, read, bald, logged = bench.measureInTurn(servers, dict.fromkeys(servers, "dunno"))
        bench.ask(*servers)
    return [
        Row("floor, zipf, 8 connections", base),
        Row(quiet.name, bare, base, gates=_againstFloor(bare, base, 0.35, 3.2)),
        Row(watched.name, read, base, gates=[_more(read, bare, 1.5)]),
        Row(forgetful.name, bald, base),
        Row(logging.name, logged, base, gates=[*_againstFloor(logged, base, 0.29, 4.0), _more(logged, bare, 4.0)]),
    ]


@contextmanager
def _reading(path):
    """
    Meanwhile, somebody reads the metrics each second, as Prometheus would more seldom.
    """
    stop = threading.Event()

    def read():
        while not stop.wait(1):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                while connection.recv(65536):
                    pass

    thread = threading.Thread(target=read)
    thread.start()
    yield
    stop.set()
    thread.join()


def _more(samples, base, most):
    """
    A gate: at most so many microseconds of CPU more for each request.
    """
    return Gate(
        "CPU us more", [one.cpu - other.cpu for one, other in zip(samples, base, strict=True)], atMost=most
    )


def _againstFloor(samples, base, rate, cpu):
    return [
        Gate("rate", ratios(samples, base, "rate"), atLeast=rate),
        Gate("CPU", ratios(samples, base, "cpu"), atMost=cpu),
    ]


def latency(bench):
    """
    The same with few and with many connections: how long an answer takes.
    """
    rows = []
    with ExitStack() as stack:
        floor = Floor(bench.folder)
        quiet = PPolicy("trivial latency", bench.folder, TRIVIAL)
        logging = PPolicy("trivial latency, request log", bench.folder, TRIVIAL, requestLog="keyvalue")
        servers = (floor, quiet, logging)
        bench.start(stack, *servers)
        for connections in (1, 64, 200):
            base, bare, logged = bench.measureInTurn(
                servers, dict.fromkeys(servers, "dunno"), connections=connections
            )
            many = f"{connections} connection{'s' if connections > 1 else ''}"
            spread = [sample.p99 / sample.p50 for sample in bare]
            gates = [Gate("p99/p50", spread, atMost=3)] if connections == 64 else []
            rows += [
                Row(f"floor, zipf, {many}", base),
                Row(f"trivial, {many}", bare, base, gates=gates),
                Row(f"trivial, request log, {many}", logged, base),
            ]
        bench.ask(*servers)
    return rows


def memory(bench):
    """
    Memory, and many requests that wait at once.
    """
    return [_idle(bench), _cache(bench), _sleepers(bench)]


def _idle(bench):
    title = f"memory: {IDLE:,} idle connections"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 1000:
        return Row(title, notes=[f"skipped: at most {hard} files may be open (ulimit -Hn)"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        server = PPolicy("idle connections", bench.folder, TRIVIAL)
        bench.start(stack, server)
        bench.count(server, bench.measure(server, "dunno", seconds=min(1, bench.seconds)))
        before = server.memory()
        with ExitStack() as connections:
            for _ in range(IDLE):
                connections.enter_context(server.connect())
            time.sleep(0.5)
            each = (server.memory() - before) / IDLE
            present = server.status()["connections"]["open"]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        bench.ask(server)
    return Row(title, gates=[Gate("KB each", [each], atMost=40)], notes=[f"{present:,} were open"])


def _cache(bench):
    with ExitStack() as stack:
        server = PPolicy("cache", bench.folder, SENDERS, cacheSize=ENTRIES)
        bench.start(stack, server)
        bench.count(server, bench.measure(server, "dunno", seconds=min(1, bench.seconds), mode="same"))
        before = server.memory()
        bench.fill(server, "dunno", ENTRIES, mode="uniq")
        full = server.memory()
        bench.fill(server, "dunno", 2 * ENTRIES, mode="uniq")
        after = server.memory()
        entries = server.status()["cache"]["entries"]
        bench.ask(server)
    return Row(
        f"memory: {3 * ENTRIES:,} senders, cacheSize {ENTRIES:,}",
        gates=[Gate("entries", [entries], atMost=ENTRIES)],
        notes=[
            f"RSS {before / 1024:.0f} MB, {(full - before) / 1024:+.0f} MB after {ENTRIES:,} senders, "
            f"{(after - full) / 1024:+.0f} MB after the rest"
        ],
    )


def _sleepers(bench):
    with ExitStack() as stack:
        server = PPolicy("sleep", bench.folder, SLEEP)
        bench.start(stack, server)
        samples = [
            bench.measure(server, "dunno", seconds=60, requests=SLEEPERS, connections=SLEEPERS)
            for _ in range(bench.rounds)
        ]
        bench.ask(server)
    slowest = [sample.worst / 1e6 for sample in samples]
    return Row(f"{SLEEPERS} requests in Sleep(1) at once", samples, gates=[Gate("seconds", slowest, atMost=1.2)])


LINES = {
    "trivial": trivial,
    "latency": latency,
    "greylist": state_lines.greylist,
    "known": state_lines.known,
    "mariadb": state_lines.mariadb,
    "take": state_lines.take,
    "limits": limit_lines.limits,
    "limitGrowth": limit_lines.limitGrowth,
    "growth": state_lines.growth,
    "list": state_lines.cachedList,
    "country": country_lines.country,
    "dns": dns_lines.lookups,
    "spf": reputation_lines.spf,
    "cold": reputation_lines.cold,
    "reputation": reputation_lines.cachedReputation,
    "memory": memory,
}
