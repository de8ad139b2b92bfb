"""
The state store in a real MariaDB: what every store promises, and what several hosts, administrators and old
versions do to it.
"""

import itertools
import os
import random
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pymysql
import pytest
from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from ppolicy import mariadb as driver
from ppolicy.errors import BackendError
from ppolicy.mariadb import MariaDB
from ppolicy.schema import READABLE, ddl, prepare, stateTable
from ppolicy.target import parse
from tests.conformance import COLUMNS, HOSTILE, Conformance, Harness, OnDatabase

from .mariadb import MariaDB as Server

_numbers = itertools.count()

MODES = "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,SIMULTANEOUS_ASSIGNMENT,PAD_CHAR_TO_FULL_LENGTH"


@pytest.fixture(scope="module")
def serverWith(needsMariaDB):
    """
    Starts servers with options; they end with the module.
    """
    servers = {}

    def make(*options):
        if options not in servers:
            servers[options] = Server(*options)
            servers[options].start()
        return servers[options]

    yield make
    for server in servers.values():
        server.close()


@pytest.fixture(scope="module")
def authorities(needsMariaDB, tmp_path_factory):
    """
    (Options for mariadbd, its CA's file): for the right one, for another, and for another name.
    """
    names = {"right": "IP:127.0.0.1", "other": "IP:127.0.0.1", "name": "DNS:elsewhere.example"}
    return {name: Server.tls(tmp_path_factory.mktemp(name), given) for name, given in names.items()}


def refusals(store):
    """
    {table: why it cannot be used}.
    """
    tables = store.tables.values()
    return {table.name: why for table in tables if (why := store.database.refusal(table.schema)) is not None}


class Base(Harness):
    """
    With a server; its own clock rules.
    """

    exact = False
    tolerance = 2.0  # a machine may stand still for a moment
    examples = 10

    @pytest.fixture(autouse=True)
    def _useServer(self, mariadb):
        self.server = mariadb

    def database(self, url=None, **keywords):
        return MariaDB(reactor, parse(url or self.server.url, Path("/")), **keywords)

    def setUp(self):
        super().setUp()
        self.patch(driver, "LONG", 10)

    @inlineCallbacks
    def ready(self, store):
        """
        Wait until what was asked of the database is done.
        """
        yield store.database.submit(lambda connection: None)

    def rows(self, sql, *arguments):
        return self.server.execute(sql, *arguments)


class ConformanceTests(Base, OnDatabase, TestCase):
    """
    What every store promises, with a server as it is installed.
    """

    @inlineCallbacks
    def test_canary(self):
        """
        Whatever clients send, other tables stay as they are, and all rows have their texts.
        """
        self.rows("CREATE TABLE canary (id INT PRIMARY KEY, song VARCHAR(50))")
        self.rows("INSERT INTO canary VALUES (1, 'piep')")
        texts = [*HOSTILE, "'; DROP TABLE canary; -- ", "\\'; DELETE FROM canary; -- ", "/*", "\0'\"\\"]
        for text in texts:
            yield self.touch((text, text), columns=(text, text))
            yield self.run_(self.store.add, "added", text, 1, 100)
            yield self.run_(self.store.take, "taken", text, 1, 1)
            for like in (text, f"*{text}*"):
                for method, where in (("scan", {}), ("remove", {"recipient": "nobody"})):
                    try:
                        yield self.run_(getattr(self.touched(), method), {"sender": like, **where})
                    except BackendError as error:
                        self.assertIn("surrogates", str(error))  # no text that any row could have
        self.assertEqual(((1, "piep"),), self.rows("SELECT * FROM canary"))
        self.assertEqual(((len(set(texts)),),), self.rows("SELECT COUNT(*) FROM touched"))

    @inlineCallbacks
    def test_columnTypes(self):
        """
        Tables are what schema.py says, whatever the server's own character set is.
        """
        yield self.touch(columns=("\N{PILE OF POO}" * READABLE, "é"))
        ((_, sql),) = self.rows("SHOW CREATE TABLE touched")
        for text in ("`key` binary(16)", "`sender` varchar(512)", "utf8mb4_bin", "InnoDB", "(`expires`)"):
            self.assertIn(text, sql)
        self.assertEqual(
            ((READABLE, "touch", 2),),
            self.rows(
                "SELECT CHAR_LENGTH(sender), kind, version FROM touched, schema_version WHERE name = 'touched'"
            ),
        )

    @inlineCallbacks
    def test_purge(self):
        """
        Expired rows are deleted, and only those.
        """
        yield self.together([(self.touched().touch, (f"k{n}", "x"), 100, 0) for n in range(600)])
        yield self.touch("young")
        self.touched().purge()
        for _ in range(100):
            yield deferLater(reactor, 0.02)
            if self.rows("SELECT COUNT(*) FROM touched") == ((1,),):
                break
        self.assertEqual((("s",),), self.rows("SELECT sender FROM touched"))

    @inlineCallbacks
    def test_idle(self):
        """
        A connection that the server has closed because nothing happened costs no operation.
        """
        self.rows("SET GLOBAL wait_timeout = 1")
        try:
            store = self.makeStore()
            yield self.touch(store=store)
            yield self.run_(self.touched(store).get, "k")
            yield self.run_(self.touched(store).scan)
            yield deferLater(reactor, 1.5)
            yield self.run_(self.touched(store).get, "k")
            yield self.run_(self.touched(store).scan)
            self.assertEqual(2, (yield self.touch(store=store))[3])
        finally:
            self.rows("SET GLOBAL wait_timeout = 28800")


class _Own:
    """
    A server with options of its own for all tests of a class.
    """

    options = ()

    @pytest.fixture(autouse=True)
    def _useServer(self, serverWith):
        self.server = serverWith(*self.options)
        self.server.empty()


class StrangeModeTests(_Own, Base, Conformance, TestCase):
    """
    The same on a server whose modes change what quotes, backslashes and assignments mean.
    """

    options = (f"--sql-mode={MODES}",)
    examples = 4

    def test_modes(self):
        """
        The server does have these modes.
        """
        ((modes,),) = self.rows("SELECT @@global.sql_mode")
        self.assertLessEqual(set(MODES.split(",")), set(modes.split(",")))


class TimeZoneTests(_Own, Base, TestCase):
    """
    Times on a server that lives elsewhere.
    """

    options = ("--default-time-zone=+05:00",)
    # Of the suite what is about times.
    test_touchNew = Conformance.test_touchNew
    test_touchExpired = Conformance.test_touchExpired
    test_valueExpires = Conformance.test_valueExpires
    test_scanLiving = Conformance.test_scanLiving

    @inlineCallbacks
    def test_times(self):
        """
        Rows hold seconds since 1970, and every lane has the same clock.
        """
        self.assertEqual((("+05:00",),), self.rows("SELECT @@global.time_zone"))
        now = (yield self.touch(firstTtl=100))[0]
        self.assertLess(abs(now - time.time()), 1)
        row = yield self.run_(self.touched().get, "k")
        self.assertEqual((now, now), (row["first"], row["last"]))
        self.assertEqual(1, len((yield self.run_(self.touched().scan))))
        living = {"living": lambda columns, moment: columns.expires > moment}
        self.assertEqual({"living": 1}, (yield self.run_(self.touched().statistics, living)))


class SharedTests(Base, TestCase):
    """
    Several hosts with one database.
    """

    def setUp(self):
        super().setUp()
        self.other = self.makeStore()
        return gatherResults([self.ready(self.store), self.ready(self.other)])

    @inlineCallbacks
    def test_startTogether(self):
        """
        Hosts that start in one moment create the tables once, and none is refused.
        """
        for _ in range(5):
            self.server.empty()
            stores = [self.makeStore() for _ in range(6)]
            yield gatherResults([self.touch(store=store) for store in stores])
            for store in stores:
                self.assertEqual({}, refusals(store))
            noted = self.rows("SELECT name, kind, version FROM schema_version")
            self.assertEqual((("touched", "touch", 2),), noted)

    @inlineCallbacks
    def test_tooLongAlone(self):
        """
        A value that does not fit fails alone, whether the server can give rows back or not.
        """
        for isMariaDB in (True, False):
            yield self.store.database.submit(
                lambda connection, is_=isMariaDB: setattr(connection, "isMariaDB", is_)
            )
            values = ["v", "x" * 70_000, "w"]
            puts = [self.run_(self.store.put, "texts", f"k{isMariaDB}", value, 100) for value in values]
            yield puts[0]
            yield self.assertFailure(puts[1], BackendError)
            yield puts[2]
            self.assertEqual("w", (yield self.run_(self.store.get, "texts", f"k{isMariaDB}")))
            counted = [self.run_(self.store.add, "sums", "k", 1, 100) for _ in range(3)]
            self.assertEqual(3.0 if isMariaDB else 6.0, max((yield gatherResults(counted))))

    @inlineCallbacks
    def test_firstContacts(self):
        """
        First contacts of the same keys at two hosts in one moment have one first-seen.
        """
        keys = [f"k{number}" for number in range(200)]
        one = self.together([(self.touched().touch, (key, "x"), 100, 100) for key in keys])
        two = self.together([(self.touched(self.other).touch, (key, "x"), 100, 100) for key in keys])
        for here, there in zip((yield one), (yield two), strict=True):
            self.assertEqual({1, 2}, {here[3], there[3]})
            self.assertEqual(here[1], there[1])

    @inlineCallbacks
    def test_seenElsewhere(self):
        """
        What one host does the other one sees at once, with write-behind too.
        """
        first = (yield self.touch(behind=True))[1]
        self.assertEqual((first, first, 2), (yield self.touch(store=self.other))[1:4])
        yield self.run_(self.store.put, "texts", "k", "v", 100)
        self.assertEqual("v", (yield self.run_(self.other.get, "texts", "k")))
        self.assertTrue((yield self.run_(self.other.delete, "texts", "k")))
        self.assertIsNone((yield self.run_(self.store.get, "texts", "k")))

    @inlineCallbacks
    def test_opposite(self):
        """
        Hosts whose rows come in opposite order get in each other's way, and yet no operation fails.
        """
        keys = [f"k{number}" for number in range(150)]
        for turn in range(12):
            order = list(keys)
            random.Random(turn).shuffle(order)
            one = self.together([(self.touched().touch, (key, "x"), 100, 100) for key in order])
            two = self.together([(self.touched(self.other).touch, (key, "x"), 100, 100) for key in order[::-1]])
            yield gatherResults([one, two], consumeErrors=True)
        self.assertEqual(((24, 24, 150),), self.rows("SELECT MIN(count), MAX(count), COUNT(*) FROM touched"))

    @inlineCallbacks
    def test_manyHosts(self):
        """
        Six busy hosts with the same keys in any order lose no operation.
        """
        stores = [self.store, self.other, *(self.makeStore() for _ in range(4))]
        keys = [f"k{number}" for number in range(250)]
        choice, failed, turns = random.Random(1), [], 4
        for _ in range(turns):
            calls = []
            for store in stores:
                choice.shuffle(keys)
                calls += [self.touch((key, "x"), store).addErrback(failed.append) for key in keys]
            yield gatherResults(calls)
        self.assertEqual([], [str(failure.value) for failure in failed[:1]], f"{len(failed)} operations failed")
        everything = turns * len(stores)
        self.assertEqual(((everything, everything),), self.rows("SELECT MIN(count), MAX(count) FROM touched"))

    @inlineCallbacks
    def test_takeTogether(self):
        """
        Two hosts together never allow more than the burst and what time brings, and not less.
        """
        rate, burst = 20, 10
        start = time.monotonic()
        allowed, filled = 0, None
        while time.monotonic() < start + 0.7:
            last = time.monotonic()
            calls = [
                self.run_(store.take, "taken", "k", rate, burst)
                for store in (self.store, self.other)
                for _ in range(15)
            ]
            allowed += sum(one for one, _, _ in (yield gatherResults(calls)))
            filled = filled or time.monotonic()
        self.assertLessEqual(allowed, burst + rate * (time.monotonic() - start) + 0.01)
        self.assertGreaterEqual(allowed, burst + rate * (last - filled) - 1)

    @inlineCallbacks
    def test_addTogether(self):
        """
        Sums of two hosts agree: each addition counts once.
        """
        calls = [
            self.run_(store.add, "added", "k", 1, 1000) for _ in range(200) for store in (self.store, self.other)
        ]
        results = yield gatherResults(calls)
        self.assertEqual(list(range(1, 401)), sorted(map(int, results)))
        self.assertEqual(400, (yield self.run_(self.other.add, "added", "k", 0, 1000)))

    @inlineCallbacks
    def test_deadlock(self):
        """
        A deadlock with another program is tried again; no operation fails.
        """
        table, keys = self.touched(), ["a", "b"]
        yield self.together([(table.touch, key, 100, 100, ("s", key)) for key in keys])
        digests = dict(self.rows("SELECT recipient, `key` FROM touched"))
        before = self.deadlocks()
        for turn in range(3):
            first, second = keys if turn % 2 else keys[::-1]
            locked, end = threading.Event(), threading.Event()
            with self.server.root() as connection, connection.cursor() as cursor:
                connection.select_db(self.server.database)
                # Much was changed, so that the server gives up the other side.
                cursor.execute("CREATE TABLE IF NOT EXISTS ballast (n INT PRIMARY KEY)")
                connection.begin()
                start = turn * 500
                cursor.execute(f"INSERT INTO ballast SELECT seq FROM seq_{start + 1}_to_{start + 500}")

                def meet(cursor=cursor, connection=connection, first=first, second=second, locked=locked, end=end):
                    for key in (second, first):
                        cursor.execute("SELECT * FROM touched WHERE `key` = %s FOR UPDATE", (digests[key],))
                        locked.set()
                        end.wait(5)
                    connection.commit()

                other = deferToThread(meet)
                yield deferToThread(locked.wait, 5)
                ours = self.together([(table.touch, key, 100, 100, ("s", key)) for key in (first, second)])
                yield deferLater(reactor, 0.15)
                end.set()
                yield other
                results = yield ours
            self.assertEqual([turn + 2] * 2, [result[3] for result in results])
        self.assertGreater(self.deadlocks(), before)

    def deadlocks(self):
        ((_, number),) = self.rows("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        return int(number)

    @inlineCallbacks
    def test_triedAgainOnce(self):
        """
        What is tried again, because one row of many was locked, counts once for every row.
        """
        keys = [f"k{number}" for number in range(150)]
        yield self.together([(self.touched().touch, key, 100, 100, (key, "")) for key in keys])
        ((last, digest),) = self.rows("SELECT sender, `key` FROM touched ORDER BY `key` DESC LIMIT 1")
        keys.remove(last)
        with self.server.root() as connection, connection.cursor() as cursor:
            connection.select_db(self.server.database)
            connection.begin()
            cursor.execute("SELECT * FROM touched WHERE `key` = %s FOR UPDATE", (digest,))
            waiting = self.together([(self.touched().touch, key, 100, 100, (key, "")) for key in [*keys, last]])
            yield deferLater(reactor, 1.3)  # longer than one lock wait time-out
            connection.rollback()
        self.assertEqual({2}, {result[3] for result in (yield waiting)})
        self.assertEqual(((2, 2),), self.rows("SELECT MIN(count), MAX(count) FROM touched"))

    @inlineCallbacks
    def test_locked(self):
        """
        A row that another program holds for a while is waited for.
        """
        yield self.touch()
        with self.server.root() as connection, connection.cursor() as cursor:
            connection.select_db(self.server.database)
            connection.begin()
            cursor.execute("SELECT * FROM touched FOR UPDATE")
            waiting = self.touch()
            yield deferLater(reactor, 1.3)  # longer than one lock wait time-out
            connection.rollback()
        self.assertEqual(2, (yield waiting)[3])


class SchemaTests(Base, TestCase):
    """
    Tables that were there before, made by whomever.
    """

    @inlineCallbacks
    def prepared(self, database, table):
        """
        What schema.py says to a table.
        """
        yield database.submit(lambda connection: prepare(database, connection, table))

    @inlineCallbacks
    def sentence(self, table="touched", kind="touch", database=None):
        error = yield self.assertFailure(
            self.prepared(database or self.store.database, stateTable(table, kind, COLUMNS)), BackendError
        )
        return str(error)

    def makeOld(self):
        self.rows(
            "CREATE TABLE touched (`key` BINARY(16) NOT NULL PRIMARY KEY, first DOUBLE NOT NULL,"
            " last DOUBLE NOT NULL, count INTEGER NOT NULL, expires DOUBLE NOT NULL, sender VARCHAR(512) NOT NULL,"
            " recipient VARCHAR(512) NOT NULL, KEY touched_expires (expires)) ENGINE=InnoDB"
        )

    @inlineCallbacks
    def test_migrated(self):
        """
        A table of version 1 becomes one of the present version and keeps its rows.
        """
        yield self.touch(columns=("s", "r"))
        yield self.touch("other", columns=("t", "u"), firstTtl=1000)
        self.rows("ALTER TABLE touched DROP COLUMN previous")
        self.rows("DROP TABLE schema_version")
        before = self.rows("SELECT `key`, first, last, count, expires, sender, recipient FROM touched")
        store = self.makeStore()
        now, first, previous, times, _ = yield self.touch(store=store)
        self.assertEqual({}, refusals(store))
        ((_, oldFirst, oldLast, *_),) = [row for row in before if row[5] == "s"]
        self.assertEqual((oldFirst, oldLast, 2), (first, previous, times))
        after = self.rows(
            "SELECT `key`, first, last, count, expires, sender, recipient, previous FROM touched"
            " WHERE sender = 't'"
        )
        self.assertEqual([row + (row[2],) for row in before if row[5] == "t"], list(after))
        self.assertEqual((("touched", "touch", 2),), self.rows("SELECT * FROM schema_version"))

    @inlineCallbacks
    def test_migratedTogether(self):
        """
        Hosts that migrate one table in the same moment do it once, and none is refused.
        """
        for _ in range(3):
            self.server.empty()
            self.makeOld()
            stores = [self.makeStore() for _ in range(5)]
            results = yield gatherResults([self.touch(store=store) for store in stores])
            self.assertEqual([1, 2, 3, 4, 5], sorted(result[3] for result in results))
            self.assertEqual([{}] * 5, [refusals(store) for store in stores])
            self.assertEqual((("touched", "touch", 2),), self.rows("SELECT * FROM schema_version"))

    @inlineCallbacks
    def test_columnComesLate(self):
        """
        A column that is missing while the server runs is told of, and used as soon as it is there.
        """
        yield self.touch()
        self.rows("ALTER TABLE touched DROP COLUMN previous")
        error = yield self.assertFailure(self.touch(), BackendError)
        self.assertIn("table touched has no column previous", str(error))
        self.assertEqual({"touched"}, set(refusals(self.store)))
        self.rows("ALTER TABLE touched ADD COLUMN previous DOUBLE NOT NULL DEFAULT 0")
        yield self.touch()
        self.assertEqual({}, refusals(self.store))

    @inlineCallbacks
    def test_mayNotMigrate(self):
        """
        Where we may not alter an old table, the sentence says so, and other tables work, after a new start too.
        """
        self.makeOld()
        url = self.restricted("SELECT, INSERT, UPDATE, DELETE, CREATE")
        for _ in range(2):
            store = self.makeStore(self.database(url))
            yield self.assertFailure(self.touch(store=store), BackendError)
            yield self.run_(store.add, "added", "k", 1, 100)
            self.assertIn("touched", refusals(store))
            # The tables are known now; whenever the database is opened anew they are looked at.
            probe = store.database.connect("read")
            try:
                store.database.prepare(probe)
            finally:
                probe.close()
        self.assertIn("ALTER", refusals(store)["touched"])

    @inlineCallbacks
    def test_wrongColumns(self):
        """
        A table that is another one's gives a sentence that names its columns; nothing is changed.
        """
        self.rows("CREATE TABLE touched (`key` BINARY(16) PRIMARY KEY, previous INT, colour TEXT)")
        yield self.assertFailure(self.touch(), BackendError)
        expected = (
            f"{self.store.database}: table touched has no column first, last, count, expires, sender, recipient;"
            " it has key, previous, colour"
        )
        self.assertEqual({"touched": expected}, refusals(self.store))
        self.assertEqual(expected, (yield self.sentence()))
        self.assertNotIn(self.server.password, expected)
        self.assertEqual([expected], [entry["error"] for entry in self.entries])

    def setUp(self):
        self.entries = []

        def note(event):
            if event["log_level"].name == "error" and "error" in event:
                self.entries.append(event)

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        super().setUp()

    @inlineCallbacks
    def test_otherKind(self):
        """
        A table of another kind is refused.
        """
        yield self.run_(self.store.add, "thing", "k", 1, 100)
        yield self.assertFailure(self.run_(self.makeStore().take, "thing", "k", 1, 1), BackendError)
        self.assertIn("has no column allowed", (yield self.sentence("thing", "take")))

    @inlineCallbacks
    def test_greylistOf27(self):
        """
        A greylist of ppolicy 2.7 is recognized: the sentence says how to bring it in.
        """
        self.rows(
            "CREATE TABLE greylist (sender VARCHAR(255), recipient VARCHAR(255), client_address VARCHAR(255),"
            " date DATETIME, state TINYINT)"
        )
        self.rows("INSERT INTO greylist VALUES ('a@b', 'c@d', '192.0.2.1', NOW(), 1)")
        table = self.store.table("greylist", ("sender", "recipient", "client_address"))
        yield self.assertFailure(self.run_(table.touch, ("a@b", "c@d", "192.0.2.1"), 100, 100), BackendError)
        self.assertTrue(
            refusals(self.store)["greylist"].endswith(
                "; it is one of ppolicy 2.7, `ppolicy db import greylist` brings it in"
            ),
            refusals(self.store)["greylist"],
        )
        self.assertEqual((("a@b", 1),), self.rows("SELECT sender, state FROM greylist"))
        columns = {
            column
            for (column,) in self.rows(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
                " AND table_name = 'greylist'"
            )
        }
        self.assertEqual({"sender", "recipient", "client_address", "date", "state"}, columns)

    def restricted(self, rights):
        """
        The URL of a user with these rights only.
        """
        name = f"user{next(_numbers)}"
        self.rows(f"CREATE USER {name} IDENTIFIED BY 'only'")
        self.rows(f"GRANT {rights} ON {self.server.database}.* TO {name}")
        self.addCleanup(self.server.execute, f"DROP USER {name}")
        return f"mysql+pymysql://{name}:only@127.0.0.1:{self.server.port}/{self.server.database}"

    def makeByRoot(self):
        for statement in ddl(stateTable("touched", "touch", COLUMNS), MariaDB.dialect):
            self.rows(statement)

    @inlineCallbacks
    def test_mayNotCreate(self):
        """
        A user who may not create tables is told of sql/; with tables that root made all works.
        """
        url = self.restricted("SELECT, INSERT, UPDATE, DELETE")
        store = self.makeStore(self.database(url))
        yield self.assertFailure(self.touch(store=store), BackendError)
        sentence = refusals(store)["touched"]
        self.assertIn("table touched is missing, and we may not create it: use the statements in sql/", sentence)
        self.assertIn("CREATE command denied", sentence)
        self.assertNotIn("only@", sentence)
        self.makeByRoot()
        self.assertEqual(1, (yield self.touch(store=store))[3])
        self.assertEqual(2, (yield self.touch(store=store))[3])
        fresh = self.makeStore(self.database(url))
        self.assertEqual(3, (yield self.touch(store=fresh))[3])
        self.assertEqual({}, refusals(fresh))
        self.assertEqual(1, len((yield self.run_(self.touched(fresh).scan))))

    @inlineCallbacks
    def test_noLongerRefused(self):
        """
        What was refused is not refused any more when it works.
        """
        store = self.makeStore(self.database(self.restricted("SELECT, INSERT, UPDATE, DELETE")))
        yield self.assertFailure(self.touch(store=store), BackendError)
        self.makeByRoot()
        yield self.touch(store=store)
        self.assertEqual({}, refusals(store))

    @inlineCallbacks
    def test_newer(self):
        """
        A table that a newer ppolicy made is refused, with a sentence.
        """
        yield self.touch()
        self.rows("UPDATE schema_version SET version = 99")
        sentence = yield self.sentence()
        self.assertTrue(
            sentence.endswith("table touched is of version 99, made by a newer ppolicy; this one knows 2"),
            sentence,
        )
        store = self.makeStore()
        store.table("touched", COLUMNS)
        yield self.ready(store)
        self.assertEqual({"touched": sentence}, refusals(store))

    @inlineCallbacks
    def test_newerUntouched(self):
        """
        Nothing is written into a table that a newer ppolicy made: nobody knows what its rows mean.
        """
        yield self.touch()
        self.rows("UPDATE schema_version SET version = 99")
        before = self.rows("SELECT * FROM touched")
        store = self.makeStore()
        yield self.assertFailure(self.touch(store=store), BackendError)
        self.assertEqual(before, self.rows("SELECT * FROM touched"))

    @inlineCallbacks
    def test_dropped(self):
        """
        A table that somebody dropped is created again at once; nobody notices.
        """
        yield self.touch()
        self.rows("DROP TABLE touched")
        self.assertEqual(1, (yield self.touch())[3])
        self.assertEqual([], [row for row in (yield self.run_(self.touched().scan)) if row["count"] != 1])
        self.rows("DROP TABLE touched")
        self.assertEqual([], (yield self.run_(self.touched().scan)))

    @inlineCallbacks
    def test_readOnly(self):
        """
        For a dry run, what is there is seen, and nothing is created or changed.
        """
        yield self.touch()
        reader = self.makeStore(self.database(readOnly=True))
        self.assertEqual(2, (yield self.touch(store=reader))[3])
        self.assertEqual((True, 0, 0.0), (yield self.run_(reader.take, "nowhere", "k", 1, 1)))
        self.assertEqual(((1,),), self.rows("SELECT count FROM touched"))
        self.assertEqual((), self.rows("SHOW TABLES LIKE 'nowhere'"))
        connection = reader.database.dbapi()  # that of modules for 2.7
        self.addCleanup(connection.close)
        with self.assertRaisesRegex(pymysql.Error, "READ ONLY"):
            connection.cursor().execute("INSERT INTO touched SELECT * FROM touched")


class PasswordTests(Base, TestCase):
    """
    Where the password comes from.
    """

    timeout = 10

    def url(self, **settings):
        query = "&".join(f"{name}={value}" for name, value in settings.items())
        return f"mysql://{self.server.user}@127.0.0.1:{self.server.port}/{self.server.database}?{query}"

    @inlineCallbacks
    def works(self, url):
        store = self.makeStore(self.database(url))
        self.assertEqual(1, (yield self.touch(f"k{next(_numbers)}", store=store))[3])

    @inlineCallbacks
    def test_file(self):
        """
        The first line of a file is the password.
        """
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "password"
        for text in ("{}", "{}\n", "{}\r\n", "{}\n# a comment\n"):
            path.write_text(text.format(self.server.password))
            yield self.works(self.url(password_file=path))

    @inlineCallbacks
    def test_environment(self):
        """
        A variable of the environment is the password.
        """
        self.patch(os, "environ", {**os.environ, "PPOLICY_TEST_PASSWORD": self.server.password})
        yield self.works(self.url(password_env="PPOLICY_TEST_PASSWORD"))

    @inlineCallbacks
    def test_letters(self):
        """
        A password may have every letter, escaped in the URL or as it is in the dictionary.
        """
        password = "p@ss:w/o?r#d %41 'é\\\N{PILE OF POO}"
        before = self.server.password
        self.server.setPassword(password)
        self.addCleanup(self.server.setPassword, before)
        yield self.works(self.server.url)
        target = {"host": "127.0.0.1", "port": self.server.port, "db": self.server.database}
        yield self.works({**target, "user": self.server.user, "passwd": password})

    @inlineCallbacks
    def test_wrong(self):
        """
        With a wrong password the sentence is the server's, and shows none.
        """
        self.flushLoggedErrors()
        url = self.server.url.replace(self.server.password, "sesame")
        store = self.makeStore(self.database(url))
        error = yield self.assertFailure(self.touch(store=store), BackendError)
        self.assertIn("Access denied", str(error))
        self.assertIn("Access denied", store.database.problem)
        for text in (str(error), store.database.problem, str(store.database), repr(store.database.target)):
            self.assertNotIn("sesame", text)

    @inlineCallbacks
    def test_noLetters(self):
        """
        A password that is no text is a problem that is told, not a database that never answers.
        """
        self.patch(os, "environ", {**os.environ, "PPOLICY_TEST_PASSWORD": "a\udcff"})
        try:
            store = self.makeStore(self.database(self.url(password_env="PPOLICY_TEST_PASSWORD")))
        except ValueError:
            return  # told at once
        error = yield self.assertFailure(self.touch(store=store), BackendError)
        self.assertNotIn("no answer within", str(error))


class TLSTests(Base, TestCase):
    """
    A server with TLS.
    """

    @pytest.fixture(autouse=True)
    def _useServer(self, serverWith, authorities):
        options, self.authority = authorities["right"]
        self.authorities = authorities
        self.serverWith = serverWith
        self.server = serverWith(*options)
        self.server.empty()

    @inlineCallbacks
    def refused(self, url):
        store = self.makeStore(self.database(url))
        error = yield self.assertFailure(self.touch(store=store), BackendError)
        self.assertNotIn(self.server.password, str(error))
        return str(error)

    @inlineCallbacks
    def test_verified(self):
        """
        With its CA the server is trusted, and every lane is encrypted.
        """
        store = self.makeStore(self.database(f"{self.server.url}?ssl_ca={self.authority}"))
        self.assertEqual(1, (yield self.touch(store=store))[3])
        for lane in (store.database.submit, store.database.read, store.database.load):
            row = yield lane(
                lambda connection: connection.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'").fetchone()
            )
            self.assertTrue(row[1])

    @inlineCallbacks
    def test_wrongAuthority(self):
        """
        A server whose certificate another CA made is refused.
        """
        sentence = yield self.refused(f"{self.server.url}?ssl_ca={self.authorities['other'][1]}")
        self.assertIn("certificate verify failed", sentence)

    @inlineCallbacks
    def test_systemAuthorities(self):
        """
        Without a CA of its own, that of the test is not among the system's.
        """
        self.assertIn("certificate verify failed", (yield self.refused(f"{self.server.url}?ssl=true")))

    @inlineCallbacks
    def test_wrongName(self):
        """
        A server whose certificate is for another name is refused.
        """
        options, authority = self.authorities["name"]
        sentence = yield self.refused(f"{self.serverWith(*options).url}?ssl_ca={authority}")
        self.assertIn("certificate is not valid for", sentence.replace("doesn't match", "is not valid for"))

    @inlineCallbacks
    def test_noAuthority(self):
        """
        A CA file without a certificate is a sentence, not a silence.
        """
        path = self.authority.parent / "empty.pem"
        path.write_text("nothing\n")
        sentence = yield self.refused(f"{self.server.url}?ssl_ca={path}")
        self.assertNotIn("no answer within", sentence)


class NoTLSTests(_Own, Base, TestCase):
    """
    A server without TLS.
    """

    options = ("--skip-ssl",)

    @inlineCallbacks
    def test_refused(self):
        """
        A server that does not encrypt is refused where encryption is wanted, and else is not.
        """
        store = self.makeStore(self.database(f"{self.server.url}?ssl=true"))
        error = yield self.assertFailure(self.touch(store=store), BackendError)
        self.assertRegex(str(error), "(?i)tls|ssl")
        self.assertEqual(1, (yield self.touch())[3])
