"""
Tests for the ListBW check module.
"""

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from ppolicy import tables
from ppolicy.errors import BackendError, ConfigError
from ppolicy.testing import make
from tests.listing import Listing


class ListBWTests(Listing):
    """
    A white and a black table.
    """

    def bw(self, **parameters):
        given = {"param": "sender", "tableWhitelist": "white", "tableBlacklist": "black", **parameters}
        return self.start("ListBW", **given)

    def fill(self, **values):
        for table, senders in values.items():
            for sender in senders:
                self.sql(f"INSERT INTO {table} (sender) VALUES (?)", sender)

    @inlineCallbacks
    def test_codes(self):
        """
        White is 1, black -1, neither 0 with an empty row; white wins, with cacheAll and without.
        """
        for cacheAll in (False, True):
            check = yield self.bw(
                tableWhitelist=f"white{cacheAll:d}", tableBlacklist=f"black{cacheAll:d}", cacheAll=cacheAll
            )
            yield self.wait(check.add, [["w"], ["both"]], table=f"white{cacheAll:d}")
            yield self.wait(check.add, [["b"], ["both"]], table=f"black{cacheAll:d}")
            yield self.settled()
            for sender, wanted in (("W", (1, (1,))), ("B", (-1, (1,))), ("both", (1, (1,))), ("x", (0, ()))):
                self.assertEqual(wanted, (yield self.ask(check, {"sender": sender})), (sender, cacheAll))

    @inlineCallbacks
    def test_several(self):
        """
        Of several values the first that is in a list decides, the white one of equals.
        """
        for cacheAll in (False, True):
            check = yield self.bw(cacheAll=cacheAll)
            if not cacheAll:
                self.fill(white=["w", "both"], black=["b", "both"])
            for sender, code in (
                (["x", "b", "w"], -1),
                (["x", "w", "b"], 1),
                (["w", "b"], 1),
                (["b", "w"], -1),
                (["x", "both", "b"], 1),
                (["b", "both"], -1),
                (["x", "y"], 0),
                ([], 0),
            ):
                self.assertEqual(code, (yield self.ask(check, {"sender": sender}))[0], (sender, cacheAll))

    @inlineCallbacks
    def test_oneList(self):
        """
        One of the two may be left out.
        """
        white = yield self.bw(tableBlacklist=None)
        black = yield self.bw(tableWhitelist=None)
        self.fill(white=["w"], black=["b"])
        for check, sender, code in ((white, "w", 1), (white, "b", 0), (black, "w", 0), (black, "b", -1)):
            self.assertEqual(code, (yield self.ask(check, {"sender": sender}))[0], (check.tableWhitelist, sender))

    @inlineCallbacks
    def test_rows(self):
        """
        Each list has its own columns, types and returned row.
        """
        check = yield self.bw(
            mappingWhitelist={"sender": ("mail", "VARCHAR(50)")},
            mappingBlacklist={"sender": "address"},
            retcolsWhitelist=["note", "score"],
            retcolsBlacklist="*",
        )
        yield self.wait(check.add, [["w"]], table="white", columns={"note": "n", "score": "1"})
        yield self.wait(check.add, [["b"]], table="black")
        self.assertEqual((1, ("n", "1")), (yield self.ask(check, {"sender": "w"})))
        self.assertEqual((-1, ("b",)), (yield self.ask(check, {"sender": "b"})))
        types = self.sql("SELECT name, type FROM pragma_table_info('white') WHERE name = 'mail'")
        self.assertEqual([("mail", "VARCHAR(50)")], types)

    @inlineCallbacks
    def test_mappings(self):
        """
        A column may stand alone, in a tuple of one, or with its type; what is left out is named as the attribute.
        """
        for number, given in enumerate(
            ({}, {"sender": "sender"}, {"sender": ("sender",)}, {"sender": ["sender", "TEXT"]})
        ):
            check = yield self.bw(tableWhitelist=f"w{number}", mappingWhitelist=given)
            self.assertEqual((0, ()), (yield self.ask(check, {"sender": "x"})))
            self.assertEqual([("sender",)], self.sql(f"SELECT name FROM pragma_table_info('w{number}')"))

    @inlineCallbacks
    def test_severalAttributes(self):
        """
        Several attributes are compared together.
        """
        check = yield self.bw(param=["sender", "recipient"])
        yield self.wait(check.add, [["a", "b"]], table="black")
        self.assertEqual(-1, (yield self.ask(check, {"sender": "a", "recipient": "b"}))[0])
        self.assertEqual(0, (yield self.ask(check, {"sender": "b", "recipient": "a"}))[0])

    @inlineCallbacks
    def test_tooMany(self):
        """
        More than 1000 values are unknown, as a database that does not answer.
        """
        check = yield self.bw()
        found = yield self.ask(check, {"sender": [str(number) for number in range(1001)]})
        self.assertEqual((0, None), found)

    @inlineCallbacks
    def test_oneFails(self):
        """
        When one list cannot be read the answer is unknown, but who is white at once is white.
        """
        check = yield self.bw()
        self.fill(white=["w"])
        self.sql("DROP TABLE black")
        self.assertEqual((1, (1,)), (yield self.ask(check, {"sender": "w"})))
        self.assertEqual((0, None), (yield self.ask(check, {"sender": "x"})))

    @inlineCallbacks
    def test_commands(self):
        """
        With two tables a command has to say which.
        """
        check = yield self.bw()
        error = yield self.assertFailure(self.wait(check.add, [["a"]]), BackendError)
        self.assertEqual("listbw: which table? there is white, black", str(error))
        yield self.wait(check.add, [["a"]], table="black")
        self.assertEqual(-1, (yield self.ask(check, {"sender": "a"}))[0])
        found = yield self.wait(check.show, table="white")
        self.assertEqual([], found["rows"])

    @inlineCallbacks
    def test_refusedLeavesNothing(self):
        """
        A check whose start was refused leaves no table behind that is looked after.
        """
        yield self.assertFailure(self.bw(fileBlacklist="/etc/hostname"), ConfigError)
        yield self.settled()
        self.assertEqual([], self.tables.tables)

    @inlineCallbacks
    def test_hashArg(self):
        """
        A result is kept for the attribute in any case.
        """
        check = yield self.bw()
        self.assertEqual(check.hashArg({"sender": "A", "size": "1"}), check.hashArg({"sender": "a"}))
        self.assertNotEqual(check.hashArg({"sender": "a"}), check.hashArg({"sender": "b"}))


class FileTests(Listing):
    """
    Files instead of tables.
    """

    @inlineCallbacks
    def setUp(self):
        yield super().setUp()
        self.patch(tables, "WATCH", 0.1)
        self.tables.start()
        self.white, self.black = self.folder / "white", self.folder / "black"
        self.white.write_text("192.0.2.1 a friend\n")
        self.black.write_text("192.0.2.0/24 spam\n")

    def bw(self, **parameters):
        return self.start("ListBW", **{"param": "client_address", **parameters})

    @inlineCallbacks
    def test_files(self):
        """
        Files are asked for networks, and read again when they change.
        """
        check = yield self.bw(fileWhitelist=str(self.white), fileBlacklist=str(self.black))
        self.assertEqual((1, ("192.0.2.1", "a friend")), (yield self.ask(check, self.data())))
        other = {"client_address": "192.0.2.2"}
        self.assertEqual((-1, ("192.0.2.0/24", "spam")), (yield self.ask(check, other)))
        self.assertEqual((0, ()), (yield self.ask(check, {"client_address": "198.51.100.1"})))
        self.white.write_text("192.0.2.0/28\n")
        yield self.until(lambda: self.forgotten)
        self.assertEqual((1, ("192.0.2.0/28", "")), (yield self.ask(check, other)))

    @inlineCallbacks
    def test_fileAndTable(self):
        """
        One may be a file and the other a table, which the commands are about.
        """
        check = yield self.bw(fileWhitelist=str(self.white), tableBlacklist="black")
        yield self.wait(check.add, [["192.0.2.2"], ["192.0.2.1"]])
        self.assertEqual(1, (yield self.ask(check, self.data()))[0])
        self.assertEqual((-1, (1,)), (yield self.ask(check, {"client_address": "192.0.2.2"})))


class DamagedTests(Listing):
    """
    A database that does not answer.
    """

    damaged = True

    @inlineCallbacks
    def test_unknown(self):
        """
        The answer is unknown, with None to tell it from neither.
        """
        for cacheAll in (False, True):
            check = yield self.start(
                "ListBW", param="sender", tableWhitelist="w", tableBlacklist="b", cacheAll=cacheAll
            )
            self.assertEqual((0, None), (yield self.ask(check, self.data())))


class ParameterTests(SynchronousTestCase):
    """
    Parameters that cannot be.
    """

    def refused(self, **parameters):
        return str(self.assertRaises(ConfigError, lambda: make("ListBW", **parameters).start()))

    def test_sources(self):
        """
        There must be a list, each a table or a file.
        """
        self.assertIn("must be given", self.refused(param="a"))
        for which in ("Whitelist", "Blacklist"):
            found = self.refused(**{"param": "a", f"table{which}": "t", f"file{which}": "/dev/null"})
            self.assertEqual(f"table{which} and file{which} exclude each other", found)
            found = self.refused(**{"param": ["a", "b"], f"file{which}": "/etc/hostname"})
            self.assertIn("param must be a single attribute", found)

    def test_mapping(self):
        """
        A mapping that is none is refused with the attribute.
        """
        for wrong in ((), ("a", "INT", "x"), 5, ("a", 5), {"a": 1}, True):
            if wrong == ():
                continue  # the same as no mapping
            found = self.refused(param="a", tableWhitelist="w", mappingWhitelist={"a": wrong})
            self.assertIn("'a'", found, wrong)
        self.assertIn(
            "is no type", self.refused(param="a", tableWhitelist="w", mappingWhitelist={"a": ("a", "BLOB")})
        )
