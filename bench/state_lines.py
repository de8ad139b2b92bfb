"""
What is measured of the checks that remember: greylisting, limits and lists.
"""

import sqlite3
import time
from contextlib import ExitStack
from statistics import median

from sqlalchemy.dialects.sqlite import dialect

from bench.load import BenchError
from bench.servers import MARIADB, POSTGREY, RATE_LIMIT, ROOT, Floor, MariaDB, Postgrey, PPolicy, RateLimit, ask
from bench.table import Gate, Row, ratios
from ppolicy.controlclient import ask as control
from ppolicy.schema import ddl, stateTable

GREYLIST = """
    modules = {"greylist": ("Greylist", %r)}

    def check(factory, data, port):
        code, info = factory.check("greylist", data)
        if code == -1:
            return "DEFER_IF_PERMIT", f"4.7.1 Greylisted, please try again in {info[1]} seconds"
        return "dunno", ""
    """

LIMIT = """
    from ppolicy.check import Check

    class Limit(Check):
        blocking = False
        once = False

        def start(self):
            self._buckets = self.state.table("limits", ("sender",), kind="take")

        def check(self, data):
            allowed, left, after = self.state.take("limits", data["sender"], rate=1000.0, burst=1_000_000)
            return (1 if allowed else -1), left

    modules = {"limit": (Limit, {})}

    def check(factory, data, port):
        code, left = factory.check("limit", data)
        return ("dunno", "") if code == 1 else ("DEFER_IF_PERMIT", "4.7.1 Too many mails")
    """

# The server purges by itself after a minute, then each minute: here when the bench says so.
PURGED = """
    import ppolicy.state
    from ppolicy.check import Check

    ppolicy.state.PURGE = 1_000_000.0

    class Purge(Check):
        blocking = False

        def check(self, data):
            self.state.tables["greylist"].purge()
            return 1, None

    modules = {"greylist": ("Greylist", {}), "purge": (Purge, {})}

    def check(factory, data, port):
        if data["sender"] == "purge@example.net":
            factory.check("purge", data)
            return "dunno", ""
        code, info = factory.check("greylist", data)
        if code == -1:
            return "DEFER_IF_PERMIT", f"4.7.1 Greylisted, please try again in {info[1]} seconds"
        return "dunno", ""
    """

LIST = """
    modules = {
        "trivial": ("Dummy", {}),
        "list": ("List", {"param": "sender", "table": "senders", "column": "sender", "cacheAll": True}),
    }

    def check(factory, data, port):
        if data["sender"] == "one@example.net":
            factory.check("trivial", data)
            return "dunno", ""
        code, row = factory.check("list", data)
        return ("dunno", "") if code == 1 else ("DEFER_IF_PERMIT", "4.7.1 Not in the list")
    """

TRIPLETS = 400_000  # more than a LocalTable has in memory
POPULATION = 100_000
SMALL = 10_000
EXPIRED = 1_000_000
LISTED = 1_000_000

_LOADS = 60.0


def greylist(bench):
    """
    New triplets only, against postgrey: with an empty table in each round, and with one larger than memory holds.
    """
    kinds = (("write-behind", True), ("on disk first", False))
    with ExitStack() as stack:
        floor = Floor(bench.folder)
        theirs = [Postgrey(bench.folder)] if POSTGREY.exists() else []
        bare, logging, large = [
            [
                PPolicy(f"greylist, {how}{what}", bench.folder, GREYLIST % {"writeBehind": behind}, requestLog=log)
                for how, behind in kinds
            ]
            for what, log in (("", None), (", request log", "keyvalue"), (f", {TRIPLETS:,} known", None))
        ]
        servers = (floor, *theirs, *bare, *logging, *large)
        expected = dict.fromkeys(servers, "DEFER_IF_PERMIT") | {floor: "dunno"}
        bench.start(stack, *servers)
        for server in large:
            bench.fill(server, expected[server], TRIPLETS, mode="uniq")
        base, *rest = bench.measureInTurn(servers, expected, fresh=(*theirs, *bare, *logging), mode="uniq")
        bench.ask(floor, *large)
    rows = [Row("floor, uniq, 8 connections", base)]
    peer = rest.pop(0) if theirs else None
    rows.append(Row("postgrey, no whitelists", peer, base) if peer else _missing(POSTGREY))
    for server, samples in zip((*bare, *logging, *large), rest, strict=True):
        gates = []
        if peer and server in bare:
            gates.append(Gate("x postgrey", ratios(samples, peer, "rate"), atLeast=10 if server is bare[0] else 6))
        if server is bare[0]:
            gates.append(Gate("x floor", ratios(samples, base, "rate"), atLeast=0.2))
        rows.append(Row(server.name, samples, base, peer, gates))
    return rows


def _missing(program):
    return Row(program.name, notes=[f"skipped: there is no {program} (Debian: make bench installs it as root)"])


def known(bench):
    """
    Triplets that have passed: with results cached, as is the default, and asking the table each time.
    """
    with ExitStack() as stack:
        floor = Floor(bench.folder)
        cached, asked = [
            PPolicy(f"greylist, {POPULATION:,} known{what}", bench.folder, GREYLIST % {"delay": 0, **parameters})
            for what, parameters in (("", {}), (", not cached", {"cachePositive": 0}))
        ]
        servers = (floor, cached, asked)
        bench.start(stack, *servers)
        for server in (cached, asked):
            bench.fill(server, "dunno", POPULATION, mode="each", population=POPULATION)
        base, *ours = bench.measureInTurn(servers, dict.fromkeys(servers, "dunno"), population=POPULATION)
        bench.ask(*servers)
    gate = Gate("x floor", ratios(ours[0], base, "rate"), atLeast=0.25)
    return [
        Row(f"floor, zipf over {POPULATION:,}", base),
        Row(cached.name, ours[0], base, gates=[gate]),
        Row(asked.name, ours[1], base),
    ]


def mariadb(bench):
    """
    New triplets on a MariaDB, on disk before the answer.
    """
    if not MARIADB.exists():
        return [_missing(MARIADB)]
    rows = []
    with ExitStack() as stack:
        theirs = [Postgrey(bench.folder)] if POSTGREY.exists() else []
        database = MariaDB(bench.folder)
        bench.start(stack, database)
        ours = PPolicy("greylist, MariaDB", bench.folder, GREYLIST % {}, mariadb=database)
        servers = (*theirs, ours)
        bench.start(stack, *servers)
        for connections in (32, 1):
            *peers, samples = bench.measureInTurn(
                servers,
                dict.fromkeys(servers, "DEFER_IF_PERMIT"),
                fresh=servers,
                mode="uniq",
                connections=connections,
            )
            many = f"{connections} connection{'s' if connections > 1 else ''}"
            peer = peers[0] if peers else None
            rows.append(Row(f"postgrey, {many}", peer) if peer else _missing(POSTGREY))
            gates = []
            if peer and connections == 32:
                gates.append(Gate("x postgrey", ratios(samples, peer, "rate"), atLeast=3))
            rows.append(Row(f"{ours.name}, {many}", samples, None, peer, gates))
    return rows


def take(bench):
    """
    A limit for each sender, none of which is reached, against policyd-rate-limit; both begin with nothing.
    """
    with ExitStack() as stack:
        floor = Floor(bench.folder)
        theirs = [RateLimit(bench.folder)] if RATE_LIMIT.exists() else []
        ours = PPolicy("take, 10,000 senders", bench.folder, LIMIT)
        servers = (floor, *theirs, ours)
        bench.start(stack, *servers)
        base, *peers, samples = bench.measureInTurn(
            servers, dict.fromkeys(servers, "dunno"), fresh=(*theirs, ours)
        )
        bench.ask(floor)
    rows = [Row("floor, zipf over 10,000", base)]
    rows += [Row("policyd-rate-limit", peer, base) for peer in peers] or [_missing(RATE_LIMIT)]
    gates = [Gate("x policyd-rate-limit", ratios(samples, peer, "rate"), atLeast=15) for peer in peers]
    return [*rows, Row(ours.name, samples, base, gates=gates)]


def growth(bench):
    """
    New triplets in a large table and in a small one, and while many old ones are purged.
    """
    short = {"seconds": min(1.0, bench.seconds), "mode": "uniq"}
    with ExitStack() as stack:
        begin = bench.folder / "small.sqlite"
        _fill(begin, SMALL)
        small = PPolicy(f"greylist, {SMALL:,} rows", bench.folder, PURGED, original=begin)
        large = PPolicy(f"greylist, {bench.rows:,} rows, {EXPIRED:,} expired", bench.folder, PURGED)
        file = large.kept / "ppolicy.sqlite"
        _fill(file, bench.rows, EXPIRED)
        servers = (small, large)
        started = time.monotonic()
        bench.start(stack, *servers)
        large.finishLoading()
        loaded = time.monotonic() - started
        few, many = bench.measureInTurn(
            servers, dict.fromkeys(servers, "DEFER_IF_PERMIT"), fresh=(small,), **short
        )
        resident, most = large.memory() / 1024, large.memory("VmHWM") / 1024
        purging, left = _purging(bench, large, file, short)
        bench.ask(large)
    gates = [
        Gate("time", ratios(few, many, "rate"), atMost=1.5),
        Gate("CPU", ratios(many, few, "cpu"), atMost=1.5),
        Gate("MB", [resident], atMost=400),
    ]
    slower = [sample.p99 / quiet.p99 for sample, quiet in zip(purging, many, strict=False)]
    calm = Gate("x p99", slower, atMost=3)
    return [
        Row(small.name, few),
        Row(large.name, many, gates=gates, notes=[f"loaded after {loaded:.0f} s, {most:.0f} MB at most"]),
        Row("the same while these are purged", purging, gates=[calm], notes=[f"{left:,} were left at the end"]),
    ]


def _purging(bench, server, file, load):
    """
    Measure while expired rows are deleted.

    @return: the samples, and how many rows were left at the end of the last.
    """
    with server.connect() as connection:
        ask(connection, "purge@example.net")
    samples, left = [], EXPIRED
    while len(samples) < bench.rounds:
        sample = bench.measure(server, "DEFER_IF_PERMIT", **load, settle=False)
        before, left = left, _expired(file)
        if not before or (samples and not left):
            break  # it was over before this one ended
        samples.append(sample)
    if left == EXPIRED:
        raise BenchError(f"{server.name} does not purge:\n{server.said()}")
    return samples, left


def _expired(file):
    connection = sqlite3.connect(file, timeout=10)
    ((count,),) = connection.execute("SELECT count(*) FROM greylist WHERE expires <= ?", (time.time(),))
    connection.close()
    return count


def _fill(path, living, expired=0):
    """
    Make a database with triplets that nobody asks for. Those that have expired came one after the other, with any
    keys; the others are in the order of their keys, which takes a fraction of the time.
    """
    table = stateTable("greylist", "touch", ("sender", "recipient", "client_address"))
    create, *indexes = ddl(table, dialect())
    insert = """
        INSERT INTO greylist
        WITH RECURSIVE number(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < :rows)
        SELECT randomblob(16) AS digest, :now - 600, :now, :now - 600, 2,
            :now + :least + abs(random() % :most), printf('filler%d@example%d.net', i % 7919, i % 4999),
            printf('rcpt%d@example.org', i % 613), printf('198.51.100.%d', i % 250)
        FROM number
        """
    now = time.time()
    connection = sqlite3.connect(path, isolation_level=None)
    for setting in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-200000"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("BEGIN")
    connection.execute(create)
    connection.execute(f"{insert} ORDER BY digest", {"rows": living, "now": now, "least": 86400, "most": 2592000})
    if expired:
        connection.execute(insert, {"rows": expired, "now": now, "least": 0, "most": 1})
    for index in indexes:
        connection.execute(index)
    connection.execute("COMMIT")
    connection.close()


def cachedList(bench):
    """
    A list that is kept in memory as a whole: how long it loads, and what that does to other requests.
    """
    title = f"list of {LISTED:,} in memory"
    if not (ROOT / "modules" / "list.py").exists():
        return [Row(title, notes=["skipped: there is no check List"])]
    with ExitStack() as stack:
        floor = Floor(bench.folder)
        server = PPolicy(title, bench.folder, LIST)
        _fillList(server.kept / "ppolicy.sqlite")
        bench.start(stack, server)
        seconds, slowest, usual = _loading(server)
        bench.start(stack, floor)
        server.settle()
        resident, most = server.memory() / 1024, server.memory("VmHWM") / 1024
        servers = (floor, server)
        base, samples = bench.measureInTurn(servers, dict.fromkeys(servers, "dunno"), population=LISTED)
        bench.ask(*servers)
    gates = [Gate("seconds to load", [seconds], atMost=30), Gate("MB", [resident], atMost=300)]
    notes = [
        f"{most:.0f} MB at most",
        f"a trivial check took {slowest * 1000:.1f} ms at most while it loaded, usually {usual * 1000:.2f}",
    ]
    return [Row(f"floor, zipf over {LISTED:,}", base), Row(title, samples, base, gates=gates, notes=notes)]


def _fillList(path):
    """
    Make a database with the senders that policyload has.
    """
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE senders (sender VARCHAR(255))")
    connection.execute(
        "INSERT INTO senders WITH RECURSIVE number(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < ?)"
        " SELECT printf('user%d@example%d.net', i % 7919, i % 4999) FROM number",
        (LISTED,),
    )
    connection.commit()
    connection.close()


def _loading(server):
    """
    Ask a trivial check over and over until the list is loaded.

    @return: seconds until the list answered from memory, the longest answer of the trivial check, the usual one.
    """
    begin = time.monotonic()
    times = []
    path = server.kept / "control.sock"
    with server.connect() as connection:
        while control(path, "status")["backends"]["database"]["waiting"]:
            for _ in range(20):
                sent = time.monotonic()
                ask(connection)
                times.append(time.monotonic() - sent)
                time.sleep(0.001)
            if time.monotonic() - begin > _LOADS:
                raise BenchError(f"{server.name} is not loaded after {_LOADS:.0f} s:\n{server.said()}")
        if ask(connection, "user1@example1.net") != "dunno":
            raise BenchError(f"{server.name} lacks what is in the table:\n{server.said()}")
    if not times:
        raise BenchError(f"{server.name} was loaded before anybody could ask")
    return time.monotonic() - begin, max(times), median(times)
