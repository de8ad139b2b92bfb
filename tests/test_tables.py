"""
Tests for lists in the database, in a real SQLite file with the real reactor; tests/live has a server.
"""

import threading

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from ppolicy import listtable, memory
from ppolicy.errors import BackendError, ConfigError
from ppolicy.listquery import columnList
from ppolicy.listtable import COMBINATIONS, ListTable, combinations
from ppolicy.tables import TableService
from tests.listing import HOSTILE, Listing

# Texts that some database takes for the same, and we do not.
APART = [
    ("a@b", "a@b "),
    ("a@b", " a@b"),
    ("resume", "résumé"),
    ("e\u0301", "é"),
    ("straße", "strasse"),
    ("ä", "a"),
    ("a", "ａ"),
    ("a_b", "axb"),
    ("%", "a"),
    ("1", "1.0"),
    ("", " "),
    ("a\0b", "a"),
]
# Texts that differ in case only.
ALIKE = [
    ("alice@example.net", "ALICE@Example.NET"),
    ("ärger@example.net", "ÄRGER@example.net"),
    ("иван@пример.рф", "ИВАН@Пример.РФ"),
    ("öÄaB", "ÖäAb"),
]


class Tables(Listing):
    """
    One table after another.
    """

    @inlineCallbacks
    def table(self, keys=("sender",), retcols=None, name="friends", **keywords):
        table = self.tables.table(name, keys, retcols, forget=self.forget, **keywords)
        table.open()
        yield self.settled()
        return table

    def find(self, table, *combinations):
        """
        Look values up; a text is the only one of its combination.
        """
        given = [(one,) if isinstance(one, str) else one for one in combinations]
        return self.wait(table.find, given)

    def add(self, table, *values, **keywords):
        given = [(one,) if isinstance(one, str) else one for one in values]
        return self.wait(table.add, given, **keywords)

    def remove(self, table, *values):
        return self.wait(table.remove, [(one,) if isinstance(one, str) else one for one in values])


class FindTests(Tables):
    """
    Look up, add, remove, scan.
    """

    @inlineCallbacks
    def test_addFindRemove(self):
        """
        What was added is found until it is removed.
        """
        table = yield self.table()
        self.assertIsNone((yield self.find(table, "a@b")))
        yield self.add(table, "a@b")
        self.assertEqual((0, (1,)), (yield self.find(table, "a@b")))
        self.assertEqual(1, (yield self.remove(table, "a@b")))
        self.assertIsNone((yield self.find(table, "a@b")))
        self.assertEqual(0, (yield self.remove(table, "a@b")))

    @inlineCallbacks
    def test_addTwice(self):
        """
        What is added twice is there once.
        """
        table = yield self.table()
        yield self.add(table, "a@b", "A@b", "a@b")
        yield self.add(table, "a@B")
        self.assertEqual([("a@b",)], self.sql("SELECT * FROM friends"))

    @inlineCallbacks
    def test_changeBeside(self):
        """
        Adding again changes the columns that are given, and leaves the others.
        """
        table = yield self.table(retcols="reason,score")
        yield self.add(table, "a@b", others={"reason": "friend", "score": "5"})
        yield self.add(table, "A@B", others={"score": "6"})
        self.assertEqual((0, ("friend", "6")), (yield self.find(table, "a@b")))
        self.assertEqual(1, len(self.sql("SELECT * FROM friends")))

    @inlineCallbacks
    def test_together(self):
        """
        Many who add the same at once make one row, and none fails.
        """
        table = yield self.table()
        yield gatherResults([self.add(table, "a@b") for _ in range(50)])
        self.assertEqual([("a@b",)], self.sql("SELECT * FROM friends"))

    @inlineCallbacks
    def test_allOrNone(self):
        """
        Of rows one of which is refused none is added, and those that others add in the same moment all are.
        """
        table = yield self.table(retcols="reason")
        rows = [(("good",), {"reason": "friend"}, ()), (("bad",), {"reason": None}, ())]
        others = [self.add(table, f"before {number}") for number in range(3)]
        refused = self.wait(table.addRows, rows)
        others += [self.add(table, f"after {number}") for number in range(3)]
        yield self.assertFailure(refused, BackendError)
        yield gatherResults(others)
        found = {sender for (sender,) in self.sql("SELECT sender FROM friends")}
        self.assertEqual({f"{when} {number}" for when in ("before", "after") for number in range(3)}, found)

    @inlineCallbacks
    def test_first(self):
        """
        Of several combinations the first that is there is told, with its place.
        """
        table = yield self.table()
        yield self.add(table, "b", "c")
        self.assertEqual((1, (1,)), (yield self.find(table, "a", "b", "c")))
        self.assertIsNone((yield self.find(table)))

    @inlineCallbacks
    def test_severalKeys(self):
        """
        All values of a combination have to fit, each its own column.
        """
        table = yield self.table(("sender", "recipient"))
        yield self.add(table, ("a@b", "c@d"))
        self.assertEqual((0, (1,)), (yield self.find(table, ("A@b", "c@D"))))
        for values in (("c@d", "a@b"), ("a@b", "x"), ("x", "c@d"), ("a@b", ""), ("a@bc", "@d")):
            self.assertIsNone((yield self.find(table, values)), values)
        self.assertEqual(0, (yield self.remove(table, ("a@b", "x"))))
        self.assertEqual(1, (yield self.remove(table, ("a@b", "c@d"))))

    @inlineCallbacks
    def test_scan(self):
        """
        Scan gives whole rows in the order of the keys, those that look like a text, and so many of them.
        """
        table = yield self.table(retcols="reason")
        yield self.add(table, "c@x", "a@x", "b@y", others={"reason": "r"})
        found = yield self.wait(table.scan)
        self.assertEqual(
            [{"sender": one, "reason": "r"} for one in ("a@x", "b@y", "c@x")],
            found,
        )
        found = yield self.wait(table.scan, {"sender": "*@X"})
        self.assertEqual(["a@x", "c@x"], [row["sender"] for row in found])
        found = yield self.wait(table.scan, None, 1, 1)
        self.assertEqual(["b@y"], [row["sender"] for row in found])
        found = yield self.wait(table.scan, {"sender": "_@x"})
        self.assertEqual([], found)

    @inlineCallbacks
    def test_scanNoColumn(self):
        """
        Scanning for a column that is not there says which there are.
        """
        table = yield self.table()
        error = yield self.assertFailure(self.wait(table.scan, {"reason": "x"}), BackendError)
        self.assertEqual("list friends has no column reason; it has sender", str(error))


class CaseTests(Tables):
    """
    Which values are the same: asked in the database, and in memory.
    """

    @inlineCallbacks
    def test_apart(self):
        """
        Blanks, accents and letters that only look alike make another value, in the database and in memory.
        """
        for cacheAll in (False, True):
            for sensitive in (False, True):
                table = yield self.table(
                    name=f"t{cacheAll:d}{sensitive:d}", cacheAll=cacheAll, caseSensitive=sensitive
                )
                for one, other in APART:
                    yield self.add(table, one)
                    self.assertIsNotNone((yield self.find(table, one)), one)
                    self.assertIsNone((yield self.find(table, other)), (one, other))
                    yield self.add(table, other)
                    self.assertEqual(1, (yield self.remove(table, one)), (one, other))
                    self.assertIsNotNone((yield self.find(table, other)), other)
                    yield self.remove(table, other)
                table.close()

    @inlineCallbacks
    def test_alike(self):
        """
        Case makes no difference, of whatever letters, whether we added a value or somebody else did.
        """
        for cacheAll in (False, True):
            table = yield self.table(cacheAll=cacheAll)
            for one, other in ALIKE:
                for added, asked in ((one, other), (other, one)):
                    yield self.add(table, added)
                    self.assertIsNotNone((yield self.find(table, asked)), (added, asked))
                    self.assertEqual(1, (yield self.remove(table, asked)))
            table.close()

    @inlineCallbacks
    def test_alikeByHand(self):
        """
        What an administrator wrote with capitals is found in any case, and removed.
        """
        table = yield self.table()
        memory = yield self.table(cacheAll=True)
        for one, other in ALIKE[:2]:
            self.sql("INSERT INTO friends VALUES (?)", other)
            self.assertIsNotNone((yield self.find(table, one)), other)
            memory.refresh()
            yield self.settled()
            self.assertIsNotNone((yield self.find(memory, one)), other)
            self.assertEqual(1, (yield self.remove(table, one)), other)

    @inlineCallbacks
    def test_mixedCaseByHand(self):
        """
        A value with both small and capital letters beyond ASCII is found as it is written, and in memory in any
        case.
        """
        table = yield self.table()
        memory = yield self.table(cacheAll=True)
        for one, other in ALIKE[2:]:
            self.sql("INSERT INTO friends VALUES (?)", other)
            memory.refresh()
            yield self.settled()
            self.assertIsNotNone((yield self.find(table, other)), other)
            self.assertIsNotNone((yield self.find(memory, one)), other)

    @inlineCallbacks
    def test_caseSensitive(self):
        """
        With caseSensitive case makes another value, in the database and in memory.
        """
        for cacheAll in (False, True):
            table = yield self.table(name=f"t{cacheAll:d}", cacheAll=cacheAll, caseSensitive=True)
            for one, other in ALIKE:
                yield self.add(table, one)
                self.assertIsNone((yield self.find(table, other)))
                yield self.add(table, other)
                self.assertEqual(1, (yield self.remove(table, one)))
                self.assertIsNotNone((yield self.find(table, other)))

    @inlineCallbacks
    def test_hostile(self):
        """
        Whatever a value is, it is found as itself alone, listed, removed, and harms nothing.
        """
        self.sql("CREATE TABLE canary (song TEXT)")
        for cacheAll in (False, True):
            table = yield self.table(("sender", "recipient"), cacheAll=cacheAll)
            for text in HOSTILE:
                yield self.add(table, (text, text))
                self.assertEqual((1, (1,)), (yield self.find(table, ("x", "y"), (text, text))), repr(text))
                self.assertIsNone((yield self.find(table, (f"{text}'", text))), repr(text))
            found = yield self.wait(table.scan)
            self.assertEqual(len(HOSTILE), len(found))
            for text in HOSTILE:
                self.assertEqual(1, (yield self.remove(table, (text, text))), repr(text))
            table.close()
        self.assertEqual([], self.sql("SELECT * FROM canary"))

    @inlineCallbacks
    def test_scanHostile(self):
        """
        Whatever people search for is a text, in which only * means something.
        """
        table = yield self.table()
        yield self.add(table, "a%b_c!d")
        for text in HOSTILE:
            found = yield self.wait(table.scan, {"sender": text})
            self.assertEqual(1 if text == "*" else 0, len(found), repr(text))
        for text in ("A%b_c!d", "a%*", "*_*", "*!d", "**"):
            self.assertEqual(1, len((yield self.wait(table.scan, {"sender": text}))), text)


class ColumnTests(Tables):
    """
    What a look-up gives.
    """

    @inlineCallbacks
    def test_forms(self):
        """
        Nothing, a column, several in a text or a list, everything, and aggregates; in memory the same.
        """
        first = yield self.table(retcols="reason,score", types={"score": "INT"})
        yield self.add(first, "a@b", others={"reason": "friend", "score": 5})
        forms = [
            (None, (1,)),
            ("", (1,)),
            ([], (1,)),
            ("reason", ("friend",)),
            ("reason, score", ("friend", 5)),
            (["score", "reason"], (5, "friend")),
            ("sender", ("a@b",)),
            ("*", ("a@b", "friend", 5)),
            ("COUNT(*)", (1,)),
            ("max(score)", (5,)),
            ("MIN(score), COUNT( reason )", (5, 1)),
        ]
        for retcols, wanted in forms:
            for cacheAll in (False, True):
                table = yield self.table(retcols=retcols, types={"score": "INT"}, cacheAll=cacheAll)
                self.assertEqual((0, wanted), (yield self.find(table, "A@b")), (retcols, cacheAll))
                table.close()

    @inlineCallbacks
    def test_aggregateOfSeveral(self):
        """
        An aggregate is over all rows that fit, in the database and in memory.
        """
        self.sql("CREATE TABLE friends (sender TEXT, score INT)")
        for sender, score in (("a@b", 1), ("A@B", 7), ("c@d", 9)):
            self.sql("INSERT INTO friends VALUES (?, ?)", sender, score)
        for cacheAll in (False, True):
            table = yield self.table(retcols="MAX(score),COUNT(*)", cacheAll=cacheAll)
            self.assertEqual((0, (7, 2)), (yield self.find(table, "a@b")), cacheAll)

    @inlineCallbacks
    def test_aggregateOfNothing(self):
        """
        Where no row fits, an aggregate finds nothing, in the database as in memory.
        """
        for cacheAll in (True, False):
            for retcols in ("COUNT(*)", "MAX(score)"):
                table = yield self.table(retcols=retcols, cacheAll=cacheAll)
                self.assertIsNone((yield self.find(table, "a@b")), (retcols, cacheAll))
                table.close()

    @inlineCallbacks
    def test_types(self):
        """
        A table that is created has the types that are given, and VARCHAR(255).
        """
        yield self.table(
            retcols="score,text", types={"sender": "varchar(50) not null", "score": "INT", "text": "TEXT"}
        )
        found = self.sql("SELECT name, type FROM pragma_table_info('friends')")
        self.assertEqual(
            [("sender", "VARCHAR(50)"), ("score", "INTEGER"), ("text", "TEXT")],
            found,
        )

    @inlineCallbacks
    def test_numbersAsKeys(self):
        """
        A column of numbers is compared with what a request has, a text.
        """
        table = yield self.table(("client_port",), types={"client_port": "INT"})
        self.sql("INSERT INTO friends VALUES (4711)")
        self.assertIsNotNone((yield self.find(table, "4711")))
        self.assertIsNone((yield self.find(table, "471")))

    @inlineCallbacks
    def test_namesInCapitals(self):
        """
        Columns whose names differ in case only are one column for a database.
        """
        try:
            table = yield self.table(retcols="Sender")
        except ConfigError:
            return  # it may be refused as well
        yield self.add(table, "a@b")
        self.assertEqual((0, ("a@b",)), (yield self.find(table, "a@b")))

    @inlineCallbacks
    def test_mistakeStaysAlone(self):
        """
        A table that the database does not want keeps no other table from being used.
        """
        good = yield self.table(name="good")
        try:
            yield self.table(retcols="Sender", name="bad")
        except ConfigError:
            pass  # it may be refused at once
        for _ in range(3):
            yield self.add(good, "a@b")
            yield deferLater(reactor, 0.2)
        self.assertIsNone(self.database.problem)

    @inlineCallbacks
    def test_strangeNames(self):
        """
        Columns may be named as anything, key words and our own parameters too.
        """
        names = ("now", "v0", "v0lower", "select", "order", "group", "count")
        for number, name in enumerate(names):
            table = (
                yield self.table((name,), "v1,now,key,value", name=f"t{number}")
                if name != "now"
                else (yield self.table((name,), "v1", name=f"t{number}"))
            )
            yield self.add(table, "a", others={"v1": "b"})
            yield self.add(table, "a", others={"v1": "c"})
            found = yield self.find(table, "a")
            self.assertEqual("c", found[1][0], name)

    @inlineCallbacks
    def test_badText(self):
        """
        A row that somebody wrote with octets that are no text harms nobody but itself.
        """
        table = yield self.table(retcols="reason")
        self.sql("INSERT INTO friends VALUES ('bad', CAST(x'ff41' AS TEXT)), ('good', 'fine')")
        try:
            yield self.find(table, "bad")
        except BackendError:
            pass  # how it is shown is not the matter
        self.assertEqual((0, ("fine",)), (yield self.find(table, "good")))


class NameTests(SynchronousTestCase):
    """
    Names and forms that cannot be.
    """

    def test_retcols(self):
        """
        What is no list of columns is a ConfigError that names it.
        """
        for wrong in (
            "a b",
            "a,,b",
            ",",
            "a;drop",
            "*,a",
            "SUM(*)",
            "MAX(a b)",
            "MAX()",
            "LENGTH(a)",
            "1a",
            "a.b",
        ):
            error = self.assertRaises(ConfigError, columnList, wrong)
            self.assertIn("'" if "(*)" not in wrong else "SUM(*)", str(error), wrong)
        for wrong in (["*", "a"], ["a", 1], [None], ["a,b"], [["a"]]):
            self.assertRaises(ConfigError, columnList, wrong)

    def test_identifiers(self):
        """
        Names of tables, keys, columns and times that are no identifiers refuse the table.
        """
        service = TableService(None)
        for name in (
            "a b",
            "a;DROP TABLE x",
            "",
            "1a",
            'a"',
            "a`",
            "sqlite_x",
            "x" * 64,
            "é",
            "schema_version",
            None,
            1,
        ):
            self.assertRaises(ConfigError, ListTable, service, name, ["a"])
            if name not in ("sqlite_x", "schema_version"):
                self.assertRaises(ConfigError, ListTable, service, "t", [name])
                if name and name is not None:
                    self.assertRaises(ConfigError, ListTable, service, "t", ["a"], hard=name)
                    self.assertRaises(ConfigError, ListTable, service, "t", ["a"], [name])

    def test_typesThatAreNone(self):
        """
        A type that no column of a list can have is refused.
        """
        for wrong in ("BLOB", "VARCHAR(5", "INT; DROP TABLE x", "", "VARCHAR(50) DEFAULT 'x'", 5, None):
            error = self.assertRaises(ConfigError, ListTable, TableService(None), "t", ["a"], types={"a": wrong})
            self.assertIn("is no type for a column", str(error))

    def test_sameColumnTwice(self):
        """
        Two attributes compared with one column are refused in a sentence.
        """
        self.assertRaises(ConfigError, ListTable, TableService(None), "t", ["mail", "mail"])

    def test_combinations(self):
        """
        Lists of values are multiplied; an attribute that is missing is empty.
        """
        data = {"a": ["1", 2], "b": "x", "c": ("y", "z")}
        self.assertEqual(
            [("1", "x", "y", ""), ("1", "x", "z", ""), ("2", "x", "y", ""), ("2", "x", "z", "")],
            combinations(data, ["a", "b", "c", "d"]),
        )
        self.assertEqual([], combinations({"a": []}, ["a"]))

    def test_tooManyCombinations(self):
        """
        Up to 1000 combinations are looked up, more are refused before they are made.
        """
        self.assertEqual(COMBINATIONS, len(combinations({"a": ["x"] * 100, "b": ["y"] * 10}, ["a", "b"])))
        error = self.assertRaises(BackendError, combinations, {"a": ["x"] * 1001}, ["a"])
        self.assertEqual("a: 1001 combinations of values are too many to look up", str(error))
        many = {str(n): ["x"] * 1000 for n in range(20)}
        self.assertRaises(BackendError, combinations, many, list(many))

    def test_noDatabase(self):
        """
        Without a database a table can be made, and every use of it fails with a sentence.
        """
        table = ListTable(TableService(None), "friends", ["sender"])
        table.bridge = _Bridge()
        for method, *arguments in (
            (table.find, [("a",)]),
            (table.add, [("a",)]),
            (table.remove, [("a",)]),
            (table.scan,),
        ):
            error = self.assertRaises(BackendError, method, *arguments)
            self.assertEqual("list friends: there is no database", str(error))


class _Bridge:
    """
    No more than a call outside of any work needs.
    """

    class watch:
        armed = False


class TimeTests(Tables):
    """
    Times of expiry.
    """

    times = {"soft": "soft_expire", "hard": "hard_expire"}  # noqa: RUF012 - never changed

    @inlineCallbacks
    def test_left(self):
        """
        A row tells the seconds left until each of its times, None for never.
        """
        table = yield self.table(retcols="reason", **self.times)
        yield self.add(table, "a", others={"reason": "r"}, lives=(100, 200))
        yield self.add(table, "b", lives=(0, 50))
        _, (reason, soft, hard) = yield self.find(table, "a")
        self.assertEqual("r", reason)
        self.assertTrue(95 < soft <= 100 and 195 < hard <= 200, (soft, hard))
        _, (_, soft, hard) = yield self.find(table, "b")
        self.assertIsNone(soft)
        self.assertTrue(45 < hard <= 50, hard)

    @inlineCallbacks
    def test_over(self):
        """
        A row whose time is up says so until it is purged.
        """
        table = yield self.table(hard="hard_expire")
        yield self.add(table, "a", lives=(0.01,))
        yield deferLater(reactor, 0.05)
        _, (count, left) = yield self.find(table, "a")
        self.assertEqual(1, count)
        self.assertLess(left, 0)

    @inlineCallbacks
    def test_renewed(self):
        """
        Adding again sets the times anew, also to never.
        """
        table = yield self.table(**self.times)
        yield self.add(table, "a", lives=(10, 20))
        yield self.add(table, "a", lives=(1000, 0))
        _, (_, soft, hard) = yield self.find(table, "a")
        self.assertGreater(soft, 900)
        self.assertIsNone(hard)

    @inlineCallbacks
    def test_purge(self):
        """
        Rows whose hard time is up are deleted, those whose soft time is up or that live for ever are not.
        """
        table = yield self.table(**self.times)
        yield self.add(table, "gone", lives=(0.01, 0.01))
        yield self.add(table, "soft", lives=(0.01, 100))
        yield self.add(table, "ever", lives=(0, 0))
        yield deferLater(reactor, 0.05)
        table.purge()
        yield self.settled()
        self.assertEqual([("ever",), ("soft",)], self.sql("SELECT sender FROM friends ORDER BY sender"))

    @inlineCallbacks
    def test_inMemory(self):
        """
        A table in memory tells the seconds left as well.
        """
        table = yield self.table(retcols="reason", hard="hard_expire", cacheAll=True)
        yield self.add(table, "a", others={"reason": "r"}, lives=(100,))
        yield self.settled()
        found = yield self.find(table, "a")
        self.assertEqual(2, len(found[1]), found)
        self.assertTrue(95 < found[1][1] <= 100, found)


class MemoryTests(Tables):
    """
    Whole tables in memory.
    """

    def lose(self):
        self.sql("ALTER TABLE friends RENAME COLUMN sender TO lost")

    @inlineCallbacks
    def test_loads(self):
        """
        The table is loaded at the start, and then nothing is asked.
        """
        self.sql("CREATE TABLE friends (sender TEXT, reason TEXT)")
        self.sql("INSERT INTO friends VALUES ('A@b', 'friend'), ('c@d', NULL)")
        table = yield self.table(retcols="reason", cacheAll=True)
        self.lose()
        self.assertEqual((0, ("friend",)), (yield self.find(table, "a@B")))
        self.assertEqual((1, (None,)), (yield self.find(table, "x", "c@d")))
        self.assertIsNone((yield self.find(table, "x")))

    @inlineCallbacks
    def test_severalKeys(self):
        """
        With several keys too.
        """
        table = yield self.table(("sender", "recipient"), "reason", cacheAll=True)
        yield self.add(table, ("a", "b"), others={"reason": "r"})
        yield self.settled()
        self.lose()
        self.assertEqual((0, ("r",)), (yield self.find(table, ("A", "B"))))
        self.assertIsNone((yield self.find(table, ("b", "a"))))

    @inlineCallbacks
    def test_refreshedAfterChanges(self):
        """
        What was added or removed counts at once, by whichever check it was, and results in caches are forgotten.
        """
        memory = yield self.table(cacheAll=True)
        other = yield self.table()
        self.assertIsNone((yield self.find(memory, "a")))
        before = self.forgotten
        yield self.add(other, "a")
        self.assertEqual(before + 2, self.forgotten)
        self.assertIsNotNone((yield self.find(memory, "a")))
        yield self.settled()
        self.assertIsNotNone((yield self.find(memory, "a")))
        yield self.remove(other, "a")
        self.assertIsNone((yield self.find(memory, "a")))
        yield self.settled()
        self.assertIsNone((yield self.find(memory, "a")))

    @inlineCallbacks
    def test_tooLarge(self):
        """
        A table that is too large for memory is asked itself, and the log says why.
        """
        self.patch(listtable, "LARGEST", 2)
        self.sql("CREATE TABLE friends (sender TEXT)")
        self.sql("INSERT INTO friends VALUES ('a'), ('b'), ('c')")
        events = self.logged()
        table = yield self.table(cacheAll=True)
        self.assertIsNotNone((yield self.find(table, "a")))
        self.assertIsNone((yield self.find(table, "d")))
        self.assertIn("3 rows are too many for memory", str([event.get("error") for event in events]))

    @inlineCallbacks
    def test_changeWhileLoading(self):
        """
        A change that comes while a large table is being loaded is not missed.
        """
        self.patch(memory, "_EASE", 0.1)
        table = yield self.table(cacheAll=True)
        self.sql(
            "INSERT INTO friends WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
            " SELECT 'user' || i || '@example.org' FROM n"
        )
        table.refresh()
        yield deferLater(reactor, 0.1)
        self.assertTrue(table.memory.busy)
        yield self.add(table, "late@example.org")
        yield self.settled()
        self.assertIsNotNone((yield self.find(table, "late@example.org")))

    @inlineCallbacks
    def test_loadedAgain(self):
        """
        What others changed in the database is seen after the time for it.
        """
        table = yield self.table(cacheAll=True, refresh=0.2)
        self.sql("INSERT INTO friends VALUES ('a')")
        self.assertIsNone((yield self.find(table, "a")))
        yield deferLater(reactor, 0.3)
        yield self.find(table, "a")  # what was loaded before is used until the new one is there
        yield self.settled()
        self.assertIsNotNone((yield self.find(table, "a")))

    @inlineCallbacks
    def test_stale(self):
        """
        When it cannot be loaded again the old content serves until it expires; then the database is asked.
        """
        table = yield self.table(cacheAll=True, refresh=0.2, expire=1.0)
        yield self.add(table, "a")
        yield self.settled()
        self.lose()
        events = self.logged()
        yield deferLater(reactor, 0.4)
        self.assertIsNotNone((yield self.find(table, "a")))
        yield self.settled()
        self.assertIsNotNone((yield self.find(table, "a")))
        self.assertTrue([one for one in events if "cannot be loaded" in one.get("log_format", "")])
        yield deferLater(reactor, 0.8)
        yield self.assertFailure(self.find(table, "a"), BackendError)
        self.sql("ALTER TABLE friends RENAME COLUMN lost TO sender")
        self.assertIsNotNone((yield self.find(table, "a")))
        yield self.settled()
        self.assertIsNotNone((yield self.find(table, "a")))

    @inlineCallbacks
    def test_askedWhileLoading(self):
        """
        Until the table is loaded the database is asked.
        """
        self.sql("CREATE TABLE friends (sender TEXT)")
        self.sql("INSERT INTO friends VALUES ('a')")
        table = self.tables.table("friends", ["sender"], cacheAll=True)
        table.open()
        self.assertIsNotNone((yield self.find(table, "a")))
        yield self.settled()
        self.assertEqual("1 values in memory", table.described())

    @inlineCallbacks
    def test_lookedAtBeforeThere(self):
        """
        A table is not loaded before it is created, though a request or the status look at it.
        """
        events, mayGoOn = self.logged(), threading.Event()
        held = self.database.submit(lambda connection: mayGoOn.wait(60) and None)
        table = self.tables.table("friends", ["sender"], cacheAll=True)
        table.open()
        self.assertEqual("asked itself until it is loaded", table.described())
        yield self.database.load(lambda _: None).addErrback(lambda _: None)  # behind what would have been loaded
        mayGoOn.set()
        yield held
        yield self.settled()
        self.assertEqual([], [one for one in events if "cannot be loaded" in one.get("log_format", "")])
        self.assertEqual("0 values in memory", table.described())

    @inlineCallbacks
    def test_close(self):
        """
        A table that was closed is not looked after any more.
        """
        table = yield self.table(cacheAll=True)
        table.close()
        yield self.settled()
        self.assertEqual([], self.tables.tables)
        other = yield self.table()
        before = self.forgotten
        yield self.add(other, "a")
        self.assertEqual(before + 1, self.forgotten)


class SchemaTests(Tables):
    """
    Tables of ours and of others.
    """

    @inlineCallbacks
    def test_widened(self):
        """
        A second check that wants another column gets it, in a table of ours; what is there stays.
        """
        first = yield self.table(retcols="reason")
        yield self.add(first, "a", others={"reason": "r"})
        second = yield self.table(retcols="score", types={"score": "INT"})
        yield self.add(second, "a", others={"score": 3})
        self.assertEqual((0, ("r",)), (yield self.find(first, "a")))
        self.assertEqual((0, (3,)), (yield self.find(second, "a")))
        yield self.table(hard="hard_expire")
        names = [name for (name,) in self.sql("SELECT name FROM pragma_table_info('friends')")]
        self.assertEqual(["sender", "reason", "score", "hard_expire"], names)

    @inlineCallbacks
    def test_foreign(self):
        """
        A table of somebody else that lacks a column is left alone, and refused with the sentence.
        """
        self.sql("CREATE TABLE friends (mail TEXT)")
        events = self.logged()
        table = yield self.table(retcols="reason")
        for action in (
            self.find(table, "a"),
            self.add(table, "a"),
            self.remove(table, "a"),
            self.wait(table.scan),
        ):
            error = yield self.assertFailure(action, BackendError)
            self.assertEqual(f"{self.path}: table friends has no column sender, reason; it has mail", str(error))
        self.assertEqual([("mail",)], self.sql("SELECT name FROM pragma_table_info('friends')"))
        self.assertEqual(1, len([one for one in events if "has no column" in str(one.get("error"))]))

    @inlineCallbacks
    def test_refusedOnlyForOne(self):
        """
        Another check that can use the same table does.
        """
        self.sql("CREATE TABLE friends (sender TEXT)")
        self.sql("INSERT INTO friends VALUES ('a')")
        refused = yield self.table(retcols="reason")
        table = yield self.table()
        yield self.assertFailure(self.find(refused, "a"), BackendError)
        self.assertIsNotNone((yield self.find(table, "a")))
        late = yield self.table(retcols="score")
        yield self.assertFailure(self.find(late, "a"), BackendError)
        self.assertIsNotNone((yield self.find(table, "a")))

    @inlineCallbacks
    def test_byHand(self):
        """
        A table made by hand without a unique key takes what is added once, and gives up what is removed.
        """
        self.sql("CREATE TABLE friends (id INTEGER PRIMARY KEY, sender TEXT, reason TEXT)")
        self.sql("INSERT INTO friends (sender, reason) VALUES ('a', 'one'), ('A', 'two')")
        table = yield self.table(retcols="reason")
        yield self.add(table, "a", others={"reason": "three"})
        self.assertEqual([("three",), ("three",)], self.sql("SELECT reason FROM friends"))
        yield self.add(table, "b")
        self.assertEqual([("b", None)], self.sql("SELECT sender, reason FROM friends WHERE sender = 'b'"))
        self.assertEqual(2, (yield self.remove(table, "a")))
        self.assertEqual([("b",)], self.sql("SELECT sender FROM friends"))

    @inlineCallbacks
    def test_ownIndex(self):
        """
        Looking up uses the index of the keys.
        """
        table = yield self.table(("sender", "recipient"))
        query = table._query
        for number, statement in enumerate((query.find, query.delete)):
            bound = statement.bound(query.bound(["a", "b"]))
            plan = yield self.database.submit(
                lambda connection, statement=statement, bound=bound: connection.execute(
                    f"EXPLAIN QUERY PLAN {statement.text}", bound
                ).fetchall()
            )
            self.assertIn("friends_keys", str(plan), number)

    @inlineCallbacks
    def test_dropped(self):
        """
        A table that somebody dropped is there again for the next look-up or one soon after.
        """
        table = yield self.table()
        self.sql("DROP TABLE friends")
        for _ in range(50):
            try:
                found = yield self.find(table, "a")
            except BackendError:
                yield deferLater(reactor, 0.1)
            else:
                self.assertIsNone(found)
                return
        self.fail("the table was not made again")

    @inlineCallbacks
    def test_droppedBeforeAdd(self):
        """
        And it is there for what is added.
        """
        table = yield self.table()
        self.sql("DROP TABLE friends")
        yield self.add(table, "a")
        self.assertIsNotNone((yield self.find(table, "a")))

    @inlineCallbacks
    def test_readOnly(self):
        """
        Opened for reading nothing is created or changed, and what is there is found.
        """
        table = yield self.table()
        yield self.add(table, "a")
        self.database.readOnly = True
        reader = type(self.database)(reactor, self.path, readOnly=True)
        reader.start()
        service = TableService(self.bridge, reader)
        try:
            look = service.table("friends", ["sender"])
            other = service.table("others", ["sender"])
            look.open()
            other.open()
            yield self.settled()
            self.assertIsNotNone((yield self.find(look, "a")))
            yield self.assertFailure(self.add(look, "b"), BackendError)
            yield self.assertFailure(self.find(other, "a"), BackendError)
            look.purge()
        finally:
            yield reader.stop()
        self.assertEqual([("a",)], self.sql("SELECT * FROM friends"))
        self.assertEqual([], self.sql("SELECT 1 FROM sqlite_master WHERE name = 'others'"))


class DamagedTests(Tables):
    """
    A database that cannot be used.
    """

    damaged = True

    @inlineCallbacks
    def test_fails(self):
        """
        Everything fails with a BackendError that says why, with cacheAll as well.
        """
        for cacheAll in (False, True):
            table = yield self.table(cacheAll=cacheAll)
            for action in (
                self.find(table, "a"),
                self.add(table, "a"),
                self.remove(table, "a"),
                self.wait(table.scan),
            ):
                error = yield self.assertFailure(action, BackendError)
                self.assertIn("not a database", str(error))


class ServiceTests(Listing):
    """
    What keeps tables and files fresh.
    """

    @inlineCallbacks
    def test_operationWithMistake(self):
        """
        An operation with a mistake of whatever kind fails alone, and the lane goes on.
        """
        yield self.assertFailure(self.database.submit(lambda connection: {}["x"]), Exception)
        self.assertEqual(5, (yield self.database.submit(lambda connection: 5)))
        self.flushLoggedErrors(KeyError)

    @inlineCallbacks
    def test_stop(self):
        """
        After stop() nothing is scheduled.
        """
        service = TableService(self.bridge, self.database)
        service.start()
        yield deferLater(reactor, 0)
        service.stop()
        self.assertEqual([], [call for call in service._timers._calls.values() if call.active()])
