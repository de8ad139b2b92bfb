"""
What a state store promises, in memory and in the embedded SQLite; tests/live has the same with a server.
"""

import math
import threading
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.internet.defer import DeferredList, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ppolicy import localtable, state
from ppolicy.errors import BackendError
from ppolicy.sqlite import SQLite
from tests.conformance import COLUMNS, Conformance, OnDatabase


class SlotTests:
    """
    What takes a clock that stands still.
    """

    @inlineCallbacks
    def test_addSlots(self):
        """
        Each of the ten slots of a window leaves it in its turn.
        """
        sums = []
        for number in range(25):
            sums.append((yield self.add(1 << number, 100)))
            self.advance(10)
        self.assertEqual([sum(1 << n for n in range(max(0, last - 9), last + 1)) for last in range(25)], sums)


class MemoryTests(SlotTests, Conformance, TestCase):
    """
    In memory only.
    """

    counts = False

    def database(self):
        return None


class SQLiteTests(SlotTests, OnDatabase, TestCase):
    """
    In memory before a file.
    """

    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "state.sqlite"
        super().setUp()

    def database(self):
        return SQLite(reactor, self.path)

    @inlineCallbacks
    def test_loadedAgain(self):
        """
        Another store of the same file goes on where the one before ended, with every kind.
        """
        yield self.touch()
        yield self.take(0.01, 3, 2)
        yield self.add(5, 1000)
        yield self.put("k", "s")
        self.stores.remove(self.store)
        yield self.store.stop()
        self.store = self.makeStore()
        self.assertEqual(2, (yield self.touch())[3])
        self.assertEqual((False, 1, math.inf), (yield self.take(0.01, 3, 4)))
        self.assertEqual(6, (yield self.add(1, 1000)))
        self.assertEqual(["s"], (yield self.senders()))

    @inlineCallbacks
    def test_badRowForgotten(self):
        """
        A row that cannot be written does not keep those of write-behind from the file for ever.
        """
        try:
            yield self.run_(self.store.put, "texts", "bad", "a\udcffb", 100)
        except BackendError:
            pass  # that is what SQLite says to it
        table = self.store.table("texts", kind="value")
        yield self.run_(table.put, "good", {"value": "v"}, 100, None, True)
        yield deferLater(reactor, 0.6)
        connection = self.store.database.dbapi()
        self.addCleanup(connection.close)
        self.assertIn(("good",), connection.execute("SELECT name FROM texts").fetchall())

    @inlineCallbacks
    def test_missingAlone(self):
        """
        An operation whose table is missing, whatever is done about it, fails alone, not with those it came with.
        """
        submit = self.store.database.submit
        self.patch(self.store.database, "prepare", lambda connection: None)
        operations = [
            lambda connection: connection.execute("CREATE TABLE one (n INTEGER)").fetchall(),
            lambda connection: connection.execute("INSERT INTO nowhere VALUES (1)"),
            lambda connection: connection.execute("INSERT INTO one VALUES (1)").fetchall(),
        ]
        results = yield DeferredList([submit(operation) for operation in operations], consumeErrors=True)
        self.assertEqual([True, False, True], [isFine for isFine, _ in results])
        self.assertEqual(BackendError, results[1][1].type)
        rows = yield submit(lambda connection: connection.execute("SELECT * FROM one").fetchall())
        self.assertEqual([(1,)], rows)

    @inlineCallbacks
    def test_loadTogether(self):
        """
        Two look-ups, or two tables that load, in one moment do not get in each other's way.
        """
        yield self.touch()
        for lane in (self.store.database.read, self.store.database.load):
            look = partial(lane, lambda connection: connection.execute("SELECT count(*) FROM touched").fetchone())
            for _ in range(3):
                results = yield gatherResults([look() for _ in range(10)], consumeErrors=True)
                self.assertEqual([(1,)] * 10, results)

    @inlineCallbacks
    def test_tablesAtStart(self):
        """
        A new start with several tables loads all of them, and no database has a problem.
        """
        names = [f"table{number}" for number in range(8)]
        for name in names:
            yield self.run_(self.store.add, name, "k", 1, 1000)
        self.stores.remove(self.store)
        yield self.store.stop()
        store = self.makeStore()
        for name in names:
            store.table(name, kind="add")
        yield deferLater(reactor, 0.3)
        self.assertIsNone(store.database.problem)
        self.assertEqual([1] * 8, [len(store.tables[name]) for name in names])

    @inlineCallbacks
    def test_deletedWhileLoading(self):
        """
        What is deleted while the table is loaded does not come back with it.
        """
        keys = [f"k{number}" for number in range(3000)]
        yield self.together([(self.store.put, "texts", key, "v", 1000) for key in keys])
        self.stores.remove(self.store)
        yield self.store.stop()
        store = self.makeStore()
        for key in keys[:40]:
            self.assertTrue((yield self.run_(store.delete, "texts", key)))
        yield deferLater(reactor, 0.2)
        left = yield self.together([(store.get, "texts", key) for key in keys[:40]])
        self.assertEqual([None] * 40, left)

    @inlineCallbacks
    def test_stopWhileLoading(self):
        """
        A store that is stopped while it loads leaves no thread behind.
        """
        before = set(threading.enumerate())
        for number in range(5):
            store = self.makeStore()
            store.table(f"table{number}", COLUMNS)
            self.stores.remove(store)
            yield store.stop()
        yield deferLater(reactor, 0.3)
        self.assertEqual(set(), {thread.name for thread in set(threading.enumerate()) - before})


class SmallFrontTests(SQLiteTests):
    """
    The same where hardly anything stays in memory: nearly every row is read from the file.
    """

    def setUp(self):
        self.patch(state, "SIZE", 8)
        self.patch(localtable, "EVICTED", 0)
        return super().setUp()
