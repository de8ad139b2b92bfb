"""
Tests for the state store: in memory, and the same in front of SQLite.
"""

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults, inlineCallbacks
from twisted.internet.task import Clock, deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ppolicy import localtable, sqlite, state, writebehind
from ppolicy.bridge import Bridge
from ppolicy.errors import BackendError, ConfigError
from ppolicy.purge import AT_ONCE
from ppolicy.rows import digestOf
from ppolicy.sqlite import SQLite
from ppolicy.state import StateStore
from ppolicy.statement import Compiled
from ppolicy.testing import memoryState

COLUMNS = ("sender", "recipient")


class TouchTests(SynchronousTestCase):
    """
    What touch() promises, in memory.
    """

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1000)
        self.table = memoryState(self.clock).table("seen", COLUMNS)

    def touch(self, key=("a", "b"), **keywords):
        return self.table.touch(key, **{"ttl": 100, "firstTtl": 10, "columns": ("a", "b"), **keywords})

    def test_new(self):
        """
        The first touch is new: first, previous and present time are one.
        """
        self.assertEqual((1000, 1000, 1000, 1, 1010), self.touch())

    def test_again(self):
        """
        The second touch tells the first and the previous one, counts, and prolongs the life to ttl.
        """
        self.touch()
        self.clock.advance(5)
        self.touch()
        self.clock.advance(3)
        self.assertEqual((1008, 1000, 1005, 3, 1108), self.touch())

    def test_settle(self):
        """
        A touch before the row has settled counts, but does not prolong its life.
        """
        self.touch(settle=6)
        self.clock.advance(5)
        self.assertEqual((1005, 1000, 1000, 2, 1010), self.touch(settle=6))
        self.clock.advance(1)
        self.assertEqual((1006, 1000, 1005, 3, 1106), self.touch(settle=6))

    def test_expired(self):
        """
        A row whose time is up counts as new.
        """
        self.touch()
        self.clock.advance(10)
        self.assertEqual((1010, 1010, 1010, 1, 1020), self.touch())

    def test_keys(self):
        """
        Different keys are different rows, also when their texts join alike.
        """
        self.touch(("ab", "c"))
        self.assertEqual(1, self.touch(("a", "bc"))[3])
        self.assertEqual(2, self.touch(("ab", "c"))[3])

    def test_clockSetBack(self):
        """
        When the clock is set back, nobody waits until it has caught up.
        """
        self.touch()
        self.clock.rightNow = 500
        now, first, previous, _, _ = self.touch()
        self.assertEqual((500, 500, 500), (now, first, previous))
        self.clock.rightNow = 590
        self.touch()
        self.clock.rightNow = 550
        now, first, previous, _, _ = self.touch()
        self.assertEqual((550, 500, 550), (now, first, previous))

    def test_bound(self):
        """
        Memory is bounded: the row that was not touched for longest goes first.
        """
        self.table.store.size = 10
        self.patch(localtable, "EVICTED", 0)
        for number in range(11):
            self.touch((str(number),))
        self.assertEqual(10, len(self.table))
        self.assertEqual(2, self.touch(("10",))[3])
        self.assertEqual(1, self.touch(("0",))[3])

    def test_purge(self):
        """
        Expired rows are removed.
        """
        self.touch(("old",))
        self.clock.advance(10)
        self.touch(("young",))
        self.table.purge()
        self.assertEqual(1, len(self.table))

    def test_names(self):
        """
        A table or column name that is no identifier is refused.
        """
        store = memoryState()
        for name in ("a b", "a;drop", "", "1a", 'a"', "sqlite_x", "x" * 64, "é"):
            self.assertRaises(ConfigError, store.table, name, COLUMNS)
            if name != "sqlite_x":
                self.assertRaises(ConfigError, store.table, "fine", (name,))

    def test_shared(self):
        """
        Two checks with one table see the same rows; with other columns it is refused.
        """
        store = memoryState()
        self.assertIs(store.table("seen", COLUMNS), store.table("seen", COLUMNS))
        self.assertRaises(ConfigError, store.table, "seen", ("sender",))


class Add:
    """
    A step on a list that has one number: add to it.
    """

    lives = 100.0

    def __init__(self, n):
        self.n = n

    def __call__(self, row, now):
        row = row or [0]
        row[0] += self.n
        return row, bool(self.n), (row[0], now)


class Keep:
    """
    A step that keeps a list, whatever is there.
    """

    lives = 100.0

    def __init__(self, row):
        self.row = row

    def __call__(self, row, now):
        return self.row, True, None


class ChangeTests(SynchronousTestCase):
    """
    What change() promises, in memory.
    """

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1000)
        self.table = memoryState(self.clock).table("sums", COLUMNS, "value")

    def add(self, n, **keywords):
        return self.table.change(("a", "b"), Add(n), **keywords)

    def test_steps(self):
        """
        A step gets what the one before has left, and the time in milliseconds.
        """
        self.assertEqual([(1, 1_000_000), (3, 1_000_000)], [self.add(1), self.add(2)])

    def test_unchanged(self):
        """
        What a step has not changed is not kept.
        """
        self.add(0)
        self.assertIsNone(self.table.get(("a", "b")))

    def test_expired(self):
        """
        When its time is up, a list is none.
        """
        self.add(1)
        self.clock.advance(100)
        self.assertEqual(1, self.add(1)[0])

    def test_text(self):
        """
        It stands there as a text; one that somebody has made unusable is none.
        """
        self.add(7)
        self.assertEqual("[7]", self.table.get(("a", "b"))["value"])
        for text in ("", "[", "{}", "7", '["x"]', "[]", "[null]"):
            self.table.put(("a", "b"), {"value": text}, 100)
            self.assertEqual(1, self.add(1)[0], text)


class SQLiteTests(TestCase):
    """
    The same rows in a real file, with the real reactor.
    """

    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "state.sqlite"
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)
        self.now = 1000.0
        self.stores = []
        self.addCleanup(self._stopAll)  # the last one is the first: before the folder goes

    def store(self, **keywords):
        store = StateStore(self.bridge, SQLite(reactor, self.path, **keywords), clock=lambda: self.now)
        store.start()
        self.stores.append(store)
        return store

    @inlineCallbacks
    def _stopAll(self):
        for store in self.stores:
            yield store.stop()

    @inlineCallbacks
    def close(self, store):
        self.stores.remove(store)
        yield store.stop()

    def touch(self, store, key, columns=("a", "b"), **keywords):
        table = store.table("seen", COLUMNS)
        return self.bridge.run(
            lambda: table.touch(key, **{"ttl": 100, "firstTtl": 10, "columns": columns, **keywords})
        )

    def rows(self):
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute("SELECT sender, recipient, first, last, count, expires FROM seen").fetchall()
        finally:
            connection.close()

    @inlineCallbacks
    def test_onDiskBeforeTheAnswer(self):
        """
        Without write-behind a row is in the file when touch() returns.
        """
        store = self.store()
        yield self.touch(store, ("k",), ("s", "r"))
        self.assertEqual([("s", "r", 1000.0, 1000.0, 1, 1010.0)], self.rows())

    @inlineCallbacks
    def test_writeBehind(self):
        """
        With write-behind a row is in the file within a second, and in any case after a clean stop.
        """
        store = self.store()
        yield self.touch(store, ("k",), behind=True)
        yield deferLater(reactor, 0.8)
        self.assertEqual(1, len(self.rows()))
        yield self.touch(store, ("l",), behind=True)
        yield self.close(store)
        self.assertEqual(2, len(self.rows()))

    @inlineCallbacks
    def test_remembered(self):
        """
        Another start finds what was there.
        """
        store = self.store()
        yield self.touch(store, ("k",))
        yield self.close(store)
        self.now = 1005.0
        result = yield self.touch(self.store(), ("k",))
        self.assertEqual((1005.0, 1000.0, 1000.0, 2, 1105.0), result)
        self.assertEqual([("a", "b", 1000.0, 1005.0, 2, 1105.0)], self.rows())

    @inlineCallbacks
    def test_larger(self):
        """
        A table larger than memory: rows that are not in memory are read from the file.
        """
        self.patch(state, "SIZE", 20)
        self.patch(localtable, "EVICTED", 0)
        store = self.store()
        for number in range(100):
            yield self.touch(store, (str(number),), behind=True)
        yield self.close(store)
        store = self.store()
        table = store.table("seen", COLUMNS)
        while not table._load.isDone:  # until then it may have more in memory
            yield deferLater(reactor, 0.01)
        for number in range(100):
            result = yield self.touch(store, (str(number),))
            self.assertEqual(2, result[3], number)
        self.assertLessEqual(len(table), 20)

    @inlineCallbacks
    def test_evicted(self):
        """
        What has left the memory of a running server is found again, whether the file was read before or not.
        """
        self.patch(state, "SIZE", 20)
        self.patch(localtable, "EVICTED", 0)
        store = self.store()
        for count in (1, 2, 3):
            for number in range(50):
                result = yield self.touch(store, (str(number),), behind=True)
                self.assertEqual(count, result[3], number)
            yield deferLater(reactor, 0.3)

    @inlineCallbacks
    def test_manyToBeWritten(self):
        """
        However many rows are to be written, a row that leaves the memory, and a command that wants to see all of
        them, have but some made ready in a turn of the reactor.
        """
        self.patch(state, "FLUSH", 1000)
        self.patch(state, "SIZE", 100)
        self.patch(localtable, "EVICTED", 20)
        self.patch(writebehind, "_TURN", 10)
        store = self.store()
        yield self.touch(store, ("first",))
        table = store.table("seen", COLUMNS)
        while not table._load.isDone:  # until then it may have more in memory
            yield deferLater(reactor, 0.01)
        for number in range(120):
            yield self.touch(store, (f"{number}",), behind=True)
        yield deferLater(reactor, 0)  # the last touch may have waited, and its greenlet be the one that goes on
        self.assertEqual(100, len(table))
        self.assertEqual(90, len(table._dirty))
        found = self.bridge.run(table.scan)
        self.assertEqual(80, len(table._dirty))
        self.assertEqual(121, len((yield found)))
        self.assertEqual(0, len(table._dirty))

    def slowLoads(self, store):
        """
        Have loads end, once they have read the file, when these Deferreds do.
        """
        ends, load = [], store.database.load

        def slow(operation):
            ends.append(Deferred())
            return gatherResults([load(operation), ends[-1]]).addCallback(lambda results: results[0])

        self.patch(store.database, "load", slow)
        return ends

    @inlineCallbacks
    def test_changedWhileLoading(self):
        """
        What is changed after a load has read it, and has left the memory before that ends, is not undone by it.
        """
        self.patch(state, "SIZE", 20)
        self.patch(localtable, "EVICTED", 0)
        store = self.store()
        for number in range(20):
            yield self.touch(store, (str(number),), behind=True)
        yield deferLater(reactor, 0.3)
        ends = self.slowLoads(store)
        store.table("seen", COLUMNS)._load.begin()
        yield deferLater(reactor, 0.1)
        for number in range(100):
            yield self.touch(store, (str(number),), behind=True)
        ends[0].callback(None)
        yield deferLater(reactor, 0.1)
        for number in range(20):
            result = yield self.touch(store, (str(number),))
            self.assertEqual(3, result[3], number)

    @inlineCallbacks
    def test_replacedWhileLoading(self):
        """
        When another file takes the place of one that is being loaded, only the load of that one counts.
        """
        self.patch(state, "SIZE", 20)
        store = self.store()
        yield self.touch(store, ("first",))
        yield deferLater(reactor, 0.3)
        ends = self.slowLoads(store)
        load = store.table("seen", COLUMNS)._load
        load.again()
        yield deferLater(reactor, 0.1)
        other = (
            store.table("seen", COLUMNS)
            .schema.insert()
            .values(
                key=digestOf(("k",), None)[0],
                first=900,
                last=900,
                previous=900,
                count=1,
                expires=2000,
                sender="",
                recipient="",
            )
        )
        yield store.database.submit(lambda connection: Compiled(other, store.database.dialect)(connection))
        load.again()
        yield deferLater(reactor, 0.1)
        for end in ends:
            end.callback(None)
        yield deferLater(reactor, 0.1)
        self.assertTrue(load.isDone)
        result = yield self.touch(store, ("k",))
        self.assertEqual(2, result[3])

    @inlineCallbacks
    def test_tableAddedMeanwhile(self):
        """
        A table that a reload adds while others are flushed or purged, which it does in a thread, is no obstacle.
        """
        store = self.store()
        yield self.touch(store, ("k",))
        table = store.table("seen", COLUMNS)
        for name in ("flush", "purge"):
            self.patch(table, name, lambda name=name: store.table(f"after_{name}", COLUMNS))
            self.patch(store, f"_{name}Later", lambda: None)
        store._flush()
        store._purge()
        yield deferLater(reactor, 0.1)
        self.assertEqual({"seen", "after_flush", "after_purge"}, set(store.tables))

    @inlineCallbacks
    def test_comesAndGoes(self):
        """
        A key that leaves the memory again and again takes room in the filter once: the file is not read again.
        """
        self.patch(state, "SIZE", 20)
        self.patch(localtable, "EVICTED", 0)
        store = self.store()
        yield self.touch(store, ("first",))
        yield deferLater(reactor, 0.3)
        rooms = []
        for _ in range(3):
            for number in range(50):
                yield self.touch(store, (str(number),), behind=True)
            rooms.append(store.table("seen", COLUMNS)._load._filter.room)
        self.assertEqual(rooms[1], rooms[2])

    @inlineCallbacks
    def test_notDeleted(self):
        """
        A row that the database refuses to delete is still there, be it of a large table or of one that memory
        holds as a whole.
        """
        store = self.store()
        yield self.touch(store, ("other",))
        yield deferLater(reactor, 0.3)  # the filter is there
        refuse = "CREATE TRIGGER refuse BEFORE DELETE ON seen BEGIN SELECT RAISE(ABORT, 'kept'); END"
        yield store.database.submit(lambda connection: connection.execute(refuse))
        table = store.table("seen", COLUMNS)
        for isComplete in (True, False):
            yield self.touch(store, ("k", f"{isComplete}"))
            table._load.isComplete = isComplete
            yield self.assertFailure(self.bridge.run(table.delete, ("k", f"{isComplete}")), BackendError)
            result = yield self.touch(store, ("k", f"{isComplete}"))
            self.assertEqual(2, result[3])

    @inlineCallbacks
    def test_refused(self):
        """
        Of rows that are written later those that the database refuses are told in the log, the others are written.
        """
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        store = self.store()
        yield self.touch(store, ("first",))
        when = "WHEN NEW.sender = 'bad' BEGIN SELECT RAISE(ABORT, 'bad'); END"
        trigger = f"CREATE TRIGGER refuse BEFORE INSERT ON seen {when}"
        yield store.database.submit(lambda connection: connection.execute(trigger) and None)
        for key in ("good", "bad", "fine"):
            yield self.touch(store, (key,), (key, ""), behind=True)
        table = store.table("seen", COLUMNS)
        rows = yield self.bridge.run(table.scan)
        self.assertEqual({"a", "good", "fine"}, {row["sender"] for row in rows})
        told = [event for event in events if event["log_namespace"] == "ppolicy.writebehind.WriteBehind"]
        self.assertEqual(1, len(told), told)
        self.assertIn("1 rows of table seen are lost", formatEvent(told[0]))

    @inlineCallbacks
    def test_turns(self):
        """
        Many rows of write-behind are made ready in turns; a stop between two of them loses none.
        """
        self.patch(state, "FLUSH", 1000)
        self.patch(writebehind, "_TURN", 10)
        store = self.store()
        table = store.table("sums", COLUMNS, "value")
        for number in range(35):
            yield self.bridge.run(table.change, (str(number), ""), Add(number + 1), None, True)
        table.flush()
        self.assertEqual(25, len(table._dirty))
        yield deferLater(reactor, 0)
        self.assertLess(len(table._dirty), 25)
        for number in range(35, 70):
            yield self.bridge.run(table.change, (str(number), ""), Add(number + 1), None, True)
        yield self.close(store)
        table = self.store().table("sums", COLUMNS, "value")
        for number in range(70):
            found = yield self.bridge.run(table.get, (str(number), ""))
            self.assertEqual(f"[{number + 1}]", found["value"])

    @inlineCallbacks
    def test_fewAhead(self):
        """
        However many rows are to be written, some portions are under way at most: the last of all would come so
        late that it was taken for lost, and sent again and again.
        """
        self.patch(state, "FLUSH", 1000)
        self.patch(writebehind, "_TURN", 10)
        self.patch(writebehind, "_AHEAD", 3)
        store = self.store()
        table = store.table("seen", COLUMNS)
        submit, ends = store.database.submit, []

        def slow(*arguments, **keywords):
            ends.append(Deferred())
            return gatherResults([submit(*arguments, **keywords), ends[-1]]).addCallback(
                lambda results: results[0]
            )

        # The last thing that is sent for written() only tells that all is there.
        for send, last in ((table.flush, 8), (table.written, 9)):
            for number in range(75):
                yield self.touch(store, (f"{number}",), behind=True)
            store.database.submit = slow
            send()
            for sent, left in ((3, 45), (6, 15), (last, 0)):
                while len(ends) < sent:
                    yield deferLater(reactor, 0.01)
                for _ in range(3):
                    yield deferLater(reactor, writebehind._PAUSE)
                self.assertEqual((sent, left), (len(ends), len(table._dirty)))
                for end in ends:
                    if not end.called:
                        end.callback(None)
            store.database.submit = submit
            while table._behind._flushing:
                yield deferLater(reactor, 0.01)
            ends.clear()
        self.assertEqual({2}, {row[4] for row in self.rows()})

    @inlineCallbacks
    def test_turnsWithoutRows(self):
        """
        Rows are late until those of before are written; also when the last turns find none to write.
        """
        self.patch(state, "FLUSH", 1000)
        self.patch(writebehind, "_TURN", 10)
        table = self.store().table("sums", COLUMNS, "value")
        for number in range(15):
            yield self.bridge.run(table.change, (str(number), ""), Add(1), None, True)
        table.flush()
        table._behind._nextTurn.reset(0.2)
        yield self.bridge.run(table.remove, {})
        table.flush()
        yield deferLater(reactor, 0.4)
        table.flush()
        yield self.bridge.run(table.change, ("k", ""), Add(1), None, True)
        self.assertEqual(1, len(table._dirty))

    @inlineCallbacks
    def test_noTurnsWhileAway(self):
        """
        While the database is known to be away there are no turns, and no rows are late: none could be written.
        """
        self.patch(state, "FLUSH", 1000)
        self.patch(writebehind, "_TURN", 10)
        table = self.store().table("sums", COLUMNS, "value")
        for number in range(15):
            yield self.bridge.run(table.change, (str(number), ""), Add(1), None, True)
        self.patch(SQLite, "isAway", True)
        for _ in range(2):
            table.flush()
        self.assertFalse(table._behind.isLate)
        self.assertEqual(15, len(table._dirty))

    @inlineCallbacks
    def test_change(self):
        """
        A list is written as a text, before the answer or after it, and goes on from there.
        """
        self.patch(state, "SIZE", 5)
        self.patch(localtable, "EVICTED", 0)
        store = self.store()
        for count in range(1, 5):
            for number in range(10):
                behind = bool(number % 2)
                table = store.table("sums", COLUMNS, "value")
                sums = yield self.bridge.run(table.change, (str(number), ""), Add(number), None, behind)
                self.assertEqual(count * number, sums[0])
                found = yield self.bridge.run(table.get, (str(number), ""))
                self.assertEqual(f"[{sums[0]}]" if number else None, found and found["value"])
            if count == 2:
                yield self.close(store)
                store = self.store()
        yield self.close(store)
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        found = dict(connection.execute("SELECT sender, value FROM sums"))
        self.assertEqual({str(number): f"[{4 * number}]" for number in range(1, 10)}, found)

    @inlineCallbacks
    def test_noJSON(self):
        """
        A list that cannot be written keeps no other one from it, now or later.
        """
        store = self.store()
        table = store.table("sums", COLUMNS, "value")
        for number in range(3):
            for what in (1, object(), 2):
                step = Keep([what])
                yield self.bridge.run(table.change, (f"{number}", f"{what!r}"), step, ("", f"{number}"), True)
            yield deferLater(reactor, 0.5)
            self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))
        yield self.close(store)
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        found = sorted(connection.execute("SELECT recipient, value FROM sums"))
        self.assertEqual([(f"{number}", f"[{what}]") for number in range(3) for what in (1, 2)], found)

    @inlineCallbacks
    def test_hostileTexts(self):
        """
        Whatever a client sends is stored as a text, and harms nothing.
        """
        store = self.store()
        texts = ["\udcff\udc80", "nul\0l", "'; DROP TABLE seen; --", "é\u2028", "x" * 5000, "%s {0} ?"]
        for text in texts:
            yield self.touch(store, (text,), (text, text))
            again = yield self.touch(store, (text,), (text, text))
            self.assertEqual(2, again[3])
        self.assertEqual(len(texts), len(self.rows()))
        self.assertIn("\\xff\\x80", [row[0] for row in self.rows()])

    @inlineCallbacks
    def test_purge(self):
        """
        Expired rows disappear from the file and from memory, in portions.
        """
        store = self.store()
        for number in range(AT_ONCE + 20):
            yield self.touch(store, (str(number),))
        self.now = 1010.0
        yield self.touch(store, ("young",))
        store.table("seen", COLUMNS).purge()
        yield deferLater(reactor, 0.5)
        self.assertEqual(1, len(self.rows()))
        self.assertEqual(1, len(store.table("seen", COLUMNS)))

    @inlineCallbacks
    def test_readOnly(self):
        """
        Opened for reading, what is there is seen and nothing changes; where nothing is, nothing is created.
        """
        nothing = self.store(readOnly=True)
        result = yield self.touch(nothing, ("k",))
        self.assertEqual(1, result[3])
        yield self.close(nothing)
        self.assertFalse(self.path.exists())
        store = self.store()
        yield self.touch(store, ("k",))
        yield self.close(store)
        reader = self.store(readOnly=True)
        first = yield self.touch(reader, ("k",))
        second = yield self.touch(reader, ("k",))
        self.assertEqual((2, 3), (first[3], second[3]))
        yield self.close(reader)
        self.assertEqual(1, self.rows()[0][4])

    @inlineCallbacks
    def test_locked(self):
        """
        While another process holds the file, touch() fails in time; afterwards all works again by itself.
        """
        store = self.store()
        yield self.touch(store, ("k",))
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        yield self.assertFailure(self.touch(store, ("l",)), BackendError)
        self.assertIn("locked", store.database.problem)
        yield self.touch(store, ("m",), behind=True)
        other.execute("COMMIT")
        other.close()
        yield deferLater(reactor, 0.6)
        yield self.touch(store, ("n",))
        yield deferLater(reactor, 0.8)
        self.assertIsNone(store.database.problem)
        self.assertEqual(4, len(self.rows()))  # l too: it stays in memory and is written with the next flush

    @inlineCallbacks
    def lockedAtStop(self):
        """
        A store that stops with a row to be written, while another process holds the file.

        @return: (that process's connection, the Deferred of the stop), once it was tried to write the row.
        """
        store = self.store()
        yield self.touch(store, ("k",))
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        yield self.touch(store, ("l",), behind=True)
        stopped = self.close(store)
        while store.database.problem is None:
            yield deferLater(reactor, 0.01)
        return other, stopped

    @inlineCallbacks
    def test_lockedAtStop(self):
        """
        While another process holds the file, a stop waits for it, and then writes what is not yet written.
        """
        self.patch(state, "_LAST", 60)
        other, stopped = yield self.lockedAtStop()
        other.execute("COMMIT")
        yield stopped
        self.assertEqual(2, len(self.rows()))

    @inlineCallbacks
    def test_lockedForGood(self):
        """
        A stop does not wait for ever; what is lost with it is told in the log.
        """
        self.patch(state, "_LAST", 0)
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        _, stopped = yield self.lockedAtStop()
        yield stopped
        self.assertEqual(1, len(self.rows()))
        told = [formatEvent(event) for event in events if event["log_namespace"] == "ppolicy.state.StateStore"]
        self.assertEqual(["1 rows of table seen are lost: database is locked"], told)

    @inlineCallbacks
    def test_longLog(self):
        """
        To begin a long log anew the writer does not wait for somebody who reads for long.
        """
        self.patch(sqlite, "_BUSY", 60)
        store = self.store()
        yield self.touch(store, ("k",))
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM seen").fetchall()
        store.database._isLong = True
        yield self.touch(store, ("l",))
        waits = "PRAGMA busy_timeout"
        ((patience,),) = yield store.database.submit(lambda connection: connection.execute(waits).fetchall())
        self.assertEqual(60_000, patience)

    @inlineCallbacks
    def test_givenUp(self):
        """
        What waits for the database until it is given up is not done any more, nor taken for waiting for ever.
        """
        store = self.store()
        yield self.touch(store, ("k",))
        database, goOn, done = store.database, Event(), []
        slow = database.submit(lambda connection: done.append("slow") or goOn.wait(60))
        while not done:
            yield deferLater(reactor, 0.01)
        lost = database.submit(lambda connection: done.append("lost"))
        kept = database.submit(lambda connection: done.append("kept"))
        lost.addErrback(lambda _: None).cancel()
        goOn.set()
        yield gatherResults([slow, kept])
        self.assertEqual(["slow", "kept"], done)
        self.assertEqual(0, database.waiting)

    @inlineCallbacks
    def test_damaged(self):
        """
        A file that is no database is no reason to stop: rows are unknown, and the problem is told.
        """
        self.path.write_bytes(b"this is no database, " * 100)
        store = self.store()
        yield self.assertFailure(self.touch(store, ("k",)), BackendError)
        self.assertIn("not a database", store.database.problem)

    @inlineCallbacks
    def test_awayForLong(self):
        """
        While the database is away, memory goes on and stays small; rows that leave it do not have all others made
        ready for the database each time.
        """
        self.patch(state, "SIZE", 50)
        self.patch(localtable, "EVICTED", 20)
        store = self.store()
        yield self.touch(store, ("first",))
        yield deferLater(reactor, 0.3)  # the filter is there
        table = store.table("seen", COLUMNS)
        tries = []
        refusal = BackendError("away", later=True)
        self.patch(store.database, "submit", lambda *_, **__: tries.append(1) or fail(refusal))
        for isKnown in (True, False):
            self.patch(SQLite, "isAway", isKnown)
            for number in range(500):
                yield self.touch(store, (f"{number}", f"{isKnown}"), behind=True)
            self.assertLess(len(tries), 1 if isKnown else 50)
            self.assertLessEqual(len(table), 70)
            self.assertIn(f"{len(table)} to be written", table.described())

    @inlineCallbacks
    def test_lostWhileAway(self):
        """
        When the database works again the log tells how many rows there was no room for meanwhile.
        """
        self.patch(state, "SIZE", 50)
        self.patch(localtable, "EVICTED", 20)
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        store = self.store()
        yield self.touch(store, ("first",))
        table = store.table("seen", COLUMNS)
        while not table._load.isDone:
            yield deferLater(reactor, 0.01)
        away = self.patch(SQLite, "isAway", True)
        for number in range(500):
            yield self.touch(store, (f"{number}",), behind=True)
        away.restore()
        told = []
        while not told or table.unwritten():
            yield deferLater(reactor, 0.01)
            own = [event for event in events if event["log_namespace"] == "ppolicy.writebehind.WriteBehind"]
            told = [event["count"] for event in own]
        self.assertEqual(501, sum(told) + len(self.rows()))

    @inlineCallbacks
    def test_tableDropped(self):
        """
        A table that somebody dropped is created again, at once.
        """
        store = self.store()
        yield self.touch(store, ("k",))
        other = sqlite3.connect(self.path)
        other.execute("DROP TABLE seen")
        other.commit()
        other.close()
        yield self.touch(store, ("l",))
        self.assertEqual(1, len(self.rows()))

    def test_fileMode(self):
        """
        The file holds mail addresses, so it is not for everybody.
        """
        store = self.store()
        return self.touch(store, ("k",)).addCallback(
            lambda _: self.assertEqual(0o640, self.path.stat().st_mode & 0o777)
        )
