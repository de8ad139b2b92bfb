"""
Tests for the LookupDB check module.
"""

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.errors import ConfigError
from ppolicy.testing import make
from tests.listing import Listing


class LookupDBTests(Listing):
    """
    Rows of a table.
    """

    def lookup(self, **parameters):
        return self.start("LookupDB", **{"param": "sender", "table": "people", **parameters})

    @inlineCallbacks
    def test_codes(self):
        """
        A row that is there gives 1 and how many there are, else -1 and nothing, in any case of letters.
        """
        self.sql("CREATE TABLE people (sender TEXT)")
        self.sql("INSERT INTO people VALUES ('Alice@example.net'), ('alice@example.net')")
        for cacheAll in (False, True):
            check = yield self.lookup(cacheAll=cacheAll)
            self.assertEqual((1, (2,)), (yield self.ask(check, self.data())))
            self.assertEqual((-1, None), (yield self.ask(check, {"sender": "x"})))

    @inlineCallbacks
    def test_mapping(self):
        """
        The table is created with the columns and types of the mapping; what is not mapped is VARCHAR(255).
        """
        check = yield self.lookup(
            param=["sender", "recipient"], mapping={"sender": ("mail", "VARCHAR(50)")}, retcols="*"
        )
        self.sql("INSERT INTO people VALUES ('alice@example.net', 'bob@example.org')")
        self.assertEqual((1, ("alice@example.net", "bob@example.org")), (yield self.ask(check, self.data())))
        self.assertEqual(-1, (yield self.ask(check, self.data(recipient="x")))[0])
        self.assertEqual(
            [("mail", "VARCHAR(50)"), ("recipient", "VARCHAR(255)")],
            self.sql("SELECT name, type FROM pragma_table_info('people')"),
        )

    @inlineCallbacks
    def test_foreignTable(self):
        """
        A table that somebody else has made is asked as it is.
        """
        self.sql("CREATE TABLE people (id INTEGER PRIMARY KEY, mail TEXT, paid REAL, since TEXT)")
        self.sql("INSERT INTO people VALUES (7, 'Alice@Example.net', 1.5, NULL)")
        for retcols, row in (
            ("paid", (1.5,)),
            ("since, id", (None, 7)),
            ("*", (7, "Alice@Example.net", 1.5, None)),
            ("MAX(paid)", (1.5,)),
        ):
            for cacheAll in (False, True):
                check = yield self.lookup(mapping={"sender": "mail"}, retcols=retcols, cacheAll=cacheAll)
                self.assertEqual((1, row), (yield self.ask(check, self.data())), (retcols, cacheAll))

    @inlineCallbacks
    def test_numbers(self):
        """
        An attribute that is a number is compared with a column of numbers.
        """
        check = yield self.lookup(param="size", mapping={"size": ("octets", "INT")})
        self.sql("INSERT INTO people VALUES (4711)")
        self.assertEqual(1, (yield self.ask(check, {"size": "4711"}))[0])
        self.assertEqual(-1, (yield self.ask(check, {"size": "4712"}))[0])
        self.assertEqual(-1, (yield self.ask(check, {"size": "no number"}))[0])

    @inlineCallbacks
    def test_nothingToAggregate(self):
        """
        An aggregate over no row is not found.
        """
        check = yield self.lookup(retcols="MAX(score)")
        self.assertEqual((-1, None), (yield self.ask(check, self.data())))

    @inlineCallbacks
    def test_commands(self):
        """
        The commands of lists work as for List.
        """
        check = yield self.lookup(retcols="name")
        yield self.wait(check.add, [["alice@example.net"]], columns={"name": "Alice"})
        self.assertEqual((1, ("Alice",)), (yield self.ask(check, self.data())))
        self.assertEqual(1, self.forgotten)
        yield self.wait(check.remove, [["alice@example.net"]])
        self.assertEqual(-1, (yield self.ask(check, self.data()))[0])

    @inlineCallbacks
    def test_hashArg(self):
        """
        A result is kept for the attributes that are looked up, in any case unless it counts.
        """
        check = yield self.lookup()
        self.assertEqual(check.hashArg({"sender": "A"}), check.hashArg({"sender": "a", "size": "1"}))
        exact = yield self.lookup(cacheCaseSensitive=True, table="others")
        self.assertNotEqual(exact.hashArg({"sender": "A"}), exact.hashArg({"sender": "a"}))


class DamagedTests(Listing):
    """
    A database that does not answer.
    """

    damaged = True

    @inlineCallbacks
    def test_unknown(self):
        """
        The answer is unknown, with and without cacheAll.
        """
        for cacheAll in (False, True):
            check = yield self.start("LookupDB", param="sender", table="people", cacheAll=cacheAll)
            self.assertEqual((0, None), (yield self.ask(check, self.data())))


class ParameterTests(SynchronousTestCase):
    """
    Parameters that cannot be.
    """

    def test_refused(self):
        """
        Table and param must be given, and names and types must be some.
        """
        for wrong in (
            {"param": "a"},
            {"table": "t"},
            {"param": "a", "table": "t t"},
            {"param": "a", "table": "t", "mapping": {"a": "b c"}},
            {"param": "a", "table": "t", "mapping": {"a": ("b", "BLOB")}},
            {"param": "a", "table": "t", "mapping": {"a": ("b", "INT", "c")}},
            {"param": "a", "table": "t", "retcols": "b;c"},
            {"param": "a", "table": "t", "retcols": "EVIL(b)"},
        ):
            self.assertRaises(ConfigError, lambda wrong=wrong: make("LookupDB", **wrong).start())
