"""
Tests for the DumpDataDB check module.
"""

import sqlite3
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.internet.defer import fail, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ppolicy import dumptable
from ppolicy.bridge import Bridge
from ppolicy.errors import BackendError, ConfigError
from ppolicy.sqlite import SQLite
from ppolicy.state import StateStore
from ppolicy.testing import make

DATA = {"sender": "alice@example.net", "recipient": "bob@example.org"}


class DumpTests(TestCase):
    """
    Requests in a real file.
    """

    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "dump.sqlite"
        self.patch(dumptable, "FLUSH", 0.05)
        self.patch(dumptable, "LOOK", 0.1)
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)
        self.state = StateStore(self.bridge, SQLite(reactor, self.path))
        self.state.start()
        self.addCleanup(self.state.stop)

    def dump(self, **parameters):
        check = make("DumpDataDB", self.state, **parameters)
        check.start()
        self.addCleanup(lambda: deferLater(reactor, 0.05))
        self.addCleanup(check.stop)
        return check

    def ask(self, check, data=DATA):
        return self.bridge.run(check.check, data)

    def read(self, query):
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    @inlineCallbacks
    def until(self, condition):
        ends = reactor.seconds() + 20
        while not condition():
            self.assertLess(reactor.seconds(), ends, "it never came true")
            yield deferLater(reactor, 0.01)

    def untilRead(self, expected, query):
        """
        Wait until this is what is in the file.
        """

        def isThere():
            try:
                return self.read(query) == expected
            except sqlite3.OperationalError:  # no table yet
                return False

        return self.until(isThere)

    @inlineCallbacks
    def test_rows(self):
        """
        Each attribute and the date are rows with the number that the check returns.
        """
        check = self.dump()
        code, number = yield self.ask(check)
        self.assertEqual(1, code)
        yield self.untilRead([(3,)], "SELECT count(*) FROM dump")
        rows = dict(self.read(f"SELECT key, value FROM dump WHERE id = {number}"))
        self.assertEqual(DATA, {key: rows[key] for key in DATA})
        self.assertLess(abs(time.time() - int(rows["date"])), 5)

    @inlineCallbacks
    def test_stop(self):
        """
        Nothing that was taken is lost by a clean stop.
        """
        state = StateStore(self.bridge, SQLite(reactor, self.path))
        state.start()
        check = make("DumpDataDB", state)
        check.start()
        yield deferLater(reactor, 0.1)
        for _ in range(750):
            self.assertEqual(1, (yield self.ask(check))[0])
        check.stop()
        yield state.stop()
        self.assertEqual([(750,)], self.read("SELECT count(DISTINCT id) FROM dump"))

    @inlineCallbacks
    def test_lostAtStop(self):
        """
        When the database is away at the end, the log tells how many records are lost.
        """
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        check = make("DumpDataDB", self.state)
        check.start()
        yield deferLater(reactor, 0.1)
        self.patch(self.state.database, "submit", lambda *_, **__: fail(BackendError("away", later=True)))
        for _ in range(3):
            yield self.ask(check)
        check.stop()
        told = []
        while not told:
            yield deferLater(reactor, 0.01)
            told = [text for text in map(formatEvent, events) if text and "lost" in text]
        self.assertEqual(["dump: 3 records are lost: away"], told)

    @inlineCallbacks
    def test_answerLost(self):
        """
        Records that were written although it did not look so keep no others from being written.
        """
        check = self.dump()
        yield deferLater(reactor, 0.1)
        submit = self.state.database.submit
        late = BackendError("no answer", later=True)

        def lose(*arguments, **keywords):
            return submit(*arguments, **keywords).addCallback(lambda _: fail(late))

        self.patch(self.state.database, "submit", lose)
        yield self.ask(check)
        while check.status()["problem"] is None:
            yield deferLater(reactor, 0.01)
        self.patch(self.state.database, "submit", submit)
        yield self.ask(check)
        while check.status()["problem"] is not None or check.status()["waiting"]:
            yield deferLater(reactor, 0.01)
        yield submit(lambda connection: None)
        self.assertEqual([(2,)], self.read("SELECT count(DISTINCT id) FROM dump"))

    @inlineCallbacks
    def test_numbers(self):
        """
        Numbers grow, are never given twice, and fit into 63 bits.
        """
        check = self.dump()
        numbers = []
        for _ in range(50):
            numbers.append((yield self.ask(check))[1])
        self.assertEqual(sorted(set(numbers)), numbers)
        self.assertLess(numbers[-1], 1 << 63)

    @inlineCallbacks
    def test_hostile(self):
        """
        Whatever a client sends is a value, and harms nothing.
        """
        check = self.dump()
        texts = {"a": "'; DROP TABLE dump; --", "b": "\udcff", "c": "nul\0l", "d": "x" * 10_000, "e%s": "{} %s ?"}
        yield self.ask(check, texts)
        yield self.untilRead([(6,)], "SELECT count(*) FROM dump")
        rows = dict(self.read("SELECT key, value FROM dump"))
        self.assertEqual("'; DROP TABLE dump; --", rows["a"])
        self.assertEqual(("\\xff", 4000, "{} %s ?"), (rows["b"], len(rows["d"]), rows["e%s"]))

    @inlineCallbacks
    def test_hostileNames(self):
        """
        Whatever an attribute is called, its record is written, and so are those behind it.
        """
        check = self.dump()
        for name in ("date", "\udcff", "x" * 300):
            yield self.ask(check, {name: "1", "x" * 255: "2"})
        yield self.untilRead([(3,)], "SELECT count(DISTINCT id) FROM dump")
        self.assertEqual(
            [("\\xff",)], self.read("SELECT key FROM dump WHERE key NOT IN ('date') AND key NOT LIKE 'x%'")
        )
        dates = self.read("SELECT value FROM dump WHERE key = 'date'")
        self.assertEqual([True] * 3, [abs(time.time() - int(date)) < 5 for (date,) in dates])

    @inlineCallbacks
    def test_splitByRecords(self):
        """
        A table that is full is put aside, nothing is lost.
        """
        check = self.dump(split="records", interval=3)

        def counts():
            tables = [name for (name,) in self.read("SELECT name FROM sqlite_master WHERE name LIKE 'dump%'")]
            return {name: self.read(f"SELECT count(DISTINCT id) FROM {name}")[0][0] for name in tables}

        for _ in range(7):
            yield self.ask(check)
            yield deferLater(reactor, 0.15)
        yield self.until(lambda: len(counts()) > 1 and "dump" in counts() and sum(counts().values()) == 7)

    @inlineCallbacks
    def test_splitByDate(self):
        """
        When a new period has begun the old table is put aside under the name of its own period.
        """
        old = int((time.time() - 400 * 86400) * 1e6) * 1024
        check = self.dump(split="date", interval="year")
        yield deferLater(reactor, 0.05)
        yield self.state.database.submit(
            lambda connection: connection.execute("INSERT INTO dump VALUES (?, 'date', '1')", (old,)) and None
        )
        yield self.ask(check)
        year = time.strftime("%Y", time.localtime(time.time() - 400 * 86400))
        yield self.untilRead([(old,)], f"SELECT id FROM dump_{year} WHERE value = '1'")

    @inlineCallbacks
    def test_splitByDateReadsLittle(self):
        """
        Whether a new period has begun is found out without reading the whole table.
        """
        check = self.dump(split="date", interval="month")
        yield deferLater(reactor, 0.2)
        looks = check._dump._records
        plan = yield self.state.database.submit(
            lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {looks.text}", looks.bound({})).fetchall()
        )
        self.assertTrue(plan)
        self.assertNotIn("SCAN", str(plan))

    @inlineCallbacks
    def test_retention(self):
        """
        What is older than retention is removed, tables that were put aside too.
        """
        old = int((time.time() - 1000) * 1e6) * 1024
        check = self.dump(retention=500)
        yield deferLater(reactor, 0.05)

        def prepare(connection):
            connection.execute("INSERT INTO dump VALUES (?, 'date', '1')", (old,))
            connection.execute("CREATE TABLE dump_2020 AS SELECT * FROM dump")
            connection.execute("CREATE TABLE dump_of_mine AS SELECT * FROM dump")

        yield self.state.database.submit(prepare)
        _, number = yield self.ask(check)
        yield self.untilRead([(number,)], "SELECT DISTINCT id FROM dump")
        yield self.untilRead([], "SELECT name FROM sqlite_master WHERE name = 'dump_2020'")
        self.assertEqual([(old,)], self.read("SELECT id FROM dump_of_mine"))

    @inlineCallbacks
    def test_retentionOfMany(self):
        """
        However many requests there are in a time, as many are removed.
        """
        self.patch(dumptable, "LOOK", 3600)
        old = int((time.time() - 1000) * 1e6) * 1024

        def prepare(connection):
            connection.execute("CREATE TABLE dump (id BIGINT, key TEXT, value TEXT, PRIMARY KEY (id, key))")
            for number in range(500):
                for key in range(10):
                    connection.execute("INSERT INTO dump VALUES (?, ?, '')", (old + number * 1024, f"key{key}"))

        yield self.state.database.submit(prepare)
        self.dump(retention=500)
        yield self.untilRead([(0,)], "SELECT count(*) FROM dump")

    @inlineCallbacks
    def test_untidy(self):
        """
        A table that cannot be split is a problem, as long as that is so.
        """
        check = self.dump(split="records", interval=1)
        yield self.ask(check)
        yield deferLater(reactor, 0.3)
        self.assertIsNone(check.status()["problem"])

        def prepare(connection):
            connection.execute("INSERT INTO dump VALUES (1, 'date', '1')")
            connection.execute("CREATE VIEW broken AS SELECT * FROM missing")

        yield self.state.database.submit(prepare)
        yield self.until(lambda: "broken" in (check.status()["problem"] or ""))
        yield self.state.database.submit(lambda connection: connection.execute("DROP VIEW broken") and None)
        yield self.until(lambda: check.status()["problem"] is None)

    @inlineCallbacks
    def test_neverTidied(self):
        """
        Where nothing is to be split or removed, a database that is away is no reason why that cannot be done.
        """
        check = self.dump()
        self.patch(self.state.database, "submit", lambda *_: fail(BackendError("is away", later=True)))
        yield deferLater(reactor, 0.5)
        self.assertIsNone(check.status()["problem"])

    @inlineCallbacks
    def test_notRemoved(self):
        """
        Records that cannot be removed are a problem, too.
        """
        check = self.dump(retention=500)
        yield deferLater(reactor, 0.1)
        old = int((time.time() - 1000) * 1e6) * 1024

        def prepare(connection):
            connection.execute("CREATE TRIGGER kept BEFORE DELETE ON dump BEGIN SELECT RAISE(ABORT, 'kept'); END")
            connection.execute("INSERT INTO dump VALUES (?, 'date', '1')", (old,))

        yield self.state.database.submit(prepare)
        yield self.until(lambda: "kept" in (check.status()["problem"] or ""))
        yield self.state.database.submit(lambda connection: connection.execute("DROP TRIGGER kept") and None)
        yield self.until(lambda: check.status()["problem"] is None)

    @inlineCallbacks
    def test_locked(self):
        """
        While the database does not answer, mail goes on, and what waits is written later; beyond the bound
        records are dropped.
        """
        self.patch(dumptable, "BOUND", 3)
        check = self.dump()
        yield deferLater(reactor, 0.1)
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        codes = []
        for _ in range(5):
            codes.append((yield self.ask(check))[0])
        self.assertEqual([1, 1, 1, 0, 0], codes)
        other.execute("COMMIT")
        other.close()
        yield self.untilRead([(3,)], "SELECT count(DISTINCT id) FROM dump")

    @inlineCallbacks
    def test_dryRun(self):
        """
        A request that is only tried is not written.
        """
        check = self.dump()
        check.dryRun = True
        yield self.ask(check)
        yield deferLater(reactor, 0.3)
        self.assertEqual([], self.read("SELECT * FROM dump"))


class ParameterTests(SynchronousTestCase):
    """
    What cannot work is refused.
    """

    def test_interval(self):
        """
        The interval must fit the way of splitting.
        """
        for wrong in (
            {"split": "records"},
            {"split": "records", "interval": "day"},
            {"split": "date", "interval": 5},
            {"split": "date", "interval": "fortnight"},
            {"interval": 5},
            {"table": "a b"},
        ):
            self.assertRaises(ConfigError, make("DumpDataDB", **wrong).start)

    def test_noInterval(self):
        """
        What is not used may be written out as nothing.
        """
        for nothing in (None, 0):
            self.assertEqual(nothing, make("DumpDataDB", split=None, interval=nothing).interval)
