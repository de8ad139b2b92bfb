"""
Tests for the List check module.
"""

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from ppolicy import tables
from ppolicy.errors import BackendError, ConfigError
from ppolicy.testing import make
from tests.listing import Listing


class ListTests(Listing):
    """
    Values in a table.
    """

    def list(self, **parameters):
        return self.start("List", **{"param": "sender", "table": "friends", **parameters})

    @inlineCallbacks
    def test_codes(self):
        """
        What is in the table gives 1 and how many rows there are, what is not gives -1 and nothing.
        """
        check = yield self.list()
        self.assertEqual((-1, None), (yield self.ask(check, self.data())))
        self.sql("INSERT INTO friends VALUES ('Alice@example.net')")
        self.assertEqual((1, (1,)), (yield self.ask(check, self.data())))
        self.assertEqual((-1, None), (yield self.ask(check, {})))

    @inlineCallbacks
    def test_retcols(self):
        """
        The information is the row: the columns that are asked for.
        """
        check = yield self.list(retcols="reason,score", column="mail")
        yield self.wait(check.add, [["alice@example.net"]], columns={"reason": "friend", "score": "5"})
        self.assertEqual((1, ("friend", "5")), (yield self.ask(check, self.data())))
        self.assertEqual(
            [("alice@example.net", "friend", "5")], self.sql("SELECT mail, reason, score FROM friends")
        )

    @inlineCallbacks
    def test_cacheAll(self):
        """
        The whole table in memory gives the same answers.
        """
        check = yield self.list(retcols="reason", cacheAll=True)
        self.assertEqual((-1, None), (yield self.ask(check, self.data())))
        yield self.wait(check.add, [["alice@example.net"]], columns={"reason": "friend"})
        self.assertEqual((1, ("friend",)), (yield self.ask(check, self.data(sender="ALICE@example.net"))))
        yield self.settled()
        self.assertEqual((1, ("friend",)), (yield self.ask(check, self.data(sender="ALICE@example.net"))))

    @inlineCallbacks
    def test_product(self):
        """
        Several attributes are compared with as many columns, and members of a list each for itself.
        """
        check = yield self.list(param=["sender", "recipient"], column=["mine", "theirs"])
        yield self.wait(check.add, [["alice@example.net", "two@example.org"]])
        self.assertEqual(-1, (yield self.ask(check, self.data()))[0])
        several = self.data(recipient=["one@example.org", "two@example.org"])
        self.assertEqual((1, (1,)), (yield self.ask(check, several)))
        self.assertEqual(-1, (yield self.ask(check, self.data(recipient=[])))[0])

    @inlineCallbacks
    def test_tooMany(self):
        """
        More than 1000 combinations are unknown.
        """
        check = yield self.list(param=["sender", "recipient"])
        values = [str(number) for number in range(40)]
        self.assertEqual((0, None), (yield self.ask(check, self.data(sender=values, recipient=values))))

    @inlineCallbacks
    def test_caseSensitive(self):
        """
        With cacheCaseSensitive only the same case is found, and is cached for itself.
        """
        check = yield self.list(cacheCaseSensitive=True)
        yield self.wait(check.add, [["Alice@example.net"]])
        self.assertEqual(-1, (yield self.ask(check, self.data()))[0])
        self.assertEqual(1, (yield self.ask(check, self.data(sender="Alice@example.net")))[0])
        self.assertNotEqual(check.hashArg({"sender": "A"}), check.hashArg({"sender": "a"}))

    @inlineCallbacks
    def test_hashArg(self):
        """
        A result is kept for the attributes that are looked up, in any case, and for nothing else.
        """
        check = yield self.list(param=["sender", "recipient"])
        same = check.hashArg({"sender": "A", "recipient": ["x", "Y"], "size": "1"})
        self.assertEqual(same, check.hashArg({"sender": "a", "recipient": ["X", "y"], "size": "2"}))
        for other in (
            {"sender": "a", "recipient": ["x"]},
            {"sender": "a", "recipient": "x"},
            {"sender": "a', ('x', 'y"},
            {},
        ):
            self.assertNotEqual(same, check.hashArg(other), other)
            hash(check.hashArg(other))

    @inlineCallbacks
    def test_noAttributes(self):
        """
        An empty list of attributes is refused; it would find whatever is in the table.
        """
        yield self.assertFailure(self.list(param=[]), ConfigError)

    @inlineCallbacks
    def test_tableOfMySQL(self):
        """
        The parameters of 2.7 are accepted.
        """
        check = yield self.list(memCacheExpire=60, memCacheSize=10, cacheAllRefresh=60, cacheAllExpire=600)
        self.assertEqual(-1, (yield self.ask(check, self.data()))[0])


class CommandTests(Listing):
    """
    What `ppolicy list` has done.
    """

    @inlineCallbacks
    def setUp(self):
        yield super().setUp()
        self.check = yield self.start("List", param=["sender", "recipient"], table="friends", retcols="reason")

    @inlineCallbacks
    def test_addShowRemove(self):
        """
        Rows are added, shown and removed, and cached results forgotten.
        """
        answer = yield self.wait(self.check.add, [["a", "b"], ["c", "d"]], columns={"reason": "r"})
        self.assertEqual({"table": "friends", "added": 2}, answer)
        self.assertEqual(1, self.forgotten)
        shown = yield self.wait(self.check.show)
        rows = [
            {"sender": "a", "recipient": "b", "reason": "r"},
            {"sender": "c", "recipient": "d", "reason": "r"},
        ]
        self.assertEqual({"table": "friends", "rows": rows}, shown)
        shown = yield self.wait(self.check.show, like="C*")
        self.assertEqual(rows[1:], shown["rows"])
        shown = yield self.wait(self.check.show, like={"recipient": "b"}, limit="5")
        self.assertEqual(rows[:1], shown["rows"])
        answer = yield self.wait(self.check.remove, [["A", "B"], ["x", "y"]])
        self.assertEqual({"table": "friends", "removed": 1}, answer)
        self.assertEqual(2, self.forgotten)

    @inlineCallbacks
    def test_export(self):
        """
        Export gives all rows in portions, with the names of the columns that import needs first.
        """
        yield self.wait(self.check.add, [[f"{number:03}", "x"] for number in range(5)])
        answer = yield self.wait(self.check.export, limit=2, after=2)
        self.assertEqual(["sender", "recipient", "reason"], answer["columns"])
        self.assertEqual(["002", "003"], [row["sender"] for row in answer["rows"]])

    @inlineCallbacks
    def test_importNull(self):
        """
        Tables of 2.7 may have NULL in them: beside a value it is nothing, as a value it was never found.
        """
        check = yield self.start("List", param="sender", table="known", retcols="reason,score")
        rows = [["a", "old", "5"], ["b", None, None], [None, "old", "5"]]
        self.assertEqual({"taken": 2}, (yield self.wait(check.importRows, rows)))
        self.assertEqual([("a", "old", "5"), ("b", "", "")], self.sql("SELECT sender, reason, score FROM known"))

    @inlineCallbacks
    def test_importWrongRow(self):
        """
        A row that has too many values, or too few, is shown, with what a row is.
        """
        for retcols, row, form in (
            (None, ["", "x"], "1 value (sender)"),
            ("reason,score", ["a", "x"], "1 value (sender) or 3 values (sender, reason, score)"),
        ):
            check = yield self.start("List", param="sender", table=f"known_{len(form)}", retcols=retcols)
            error = yield self.assertFailure(self.wait(check.importRows, [row]), BackendError)
            self.assertEqual(f"list known_{len(form)}: a row is {form}, not {row!r}", str(error))

    @inlineCallbacks
    def test_wrongRows(self):
        """
        A row with another number of values, or with something that is no text, is refused in a sentence.
        """
        sentence = "list friends: a row is 2 values (sender, recipient)"
        for wrong in ([["a"]], [["a", "b", "c"]], ["a"], "a", [["a", 5]], None, [[]], {"a": "b"}, [None]):
            for method in (self.check.add, self.check.remove):
                error = yield self.assertFailure(self.wait(method, wrong), BackendError)
                self.assertEqual(sentence, str(error), wrong)
        self.assertEqual([], self.sql("SELECT * FROM friends"))

    @inlineCallbacks
    def test_noSuchColumn(self):
        """
        A column beside the values that is not there is refused, not overlooked.
        """
        error = yield self.assertFailure(
            self.wait(self.check.add, [["a", "b"]], columns={"reson": "r"}), BackendError
        )
        self.assertIn("reson", str(error))
        self.assertEqual([], self.sql("SELECT * FROM friends"))

    @inlineCallbacks
    def test_noTimes(self):
        """
        A time to live is refused where rows do not expire.
        """
        yield self.assertFailure(self.wait(self.check.add, [["a", "b"]], live=60.0), BackendError)

    @inlineCallbacks
    def test_noSuchTable(self):
        """
        Another table than the check's is refused with what there is.
        """
        error = yield self.assertFailure(self.wait(self.check.show, table="x"), BackendError)
        self.assertEqual("list: which table? there is friends", str(error))


class FileTests(Listing):
    """
    Values in a file.
    """

    @inlineCallbacks
    def setUp(self):
        yield super().setUp()
        self.patch(tables, "WATCH", 0.1)
        self.tables.start()
        self.file = self.folder / "list.txt"
        self.file.write_text("alice@example.net  a friend\n.example.com\n192.0.2.0/24 ours\n192.0.2.8/29\n")

    def list(self, param="sender", **parameters):
        return self.start("List", param=param, file=str(self.file), **parameters)

    @inlineCallbacks
    def test_entries(self):
        """
        An entry that fits gives 1 with the entry and its text, the longest network before others.
        """
        check = yield self.list()
        self.assertEqual((1, ("alice@example.net", "a friend")), (yield self.ask(check, self.data())))
        self.assertEqual((1, (".example.com", "")), (yield self.ask(check, {"sender": "x@a.Example.com"})))
        self.assertEqual((-1, None), (yield self.ask(check, {"sender": "x@example.net"})))
        check = yield self.list("client_address")
        self.assertEqual((1, ("192.0.2.0/24", "ours")), (yield self.ask(check, self.data())))
        self.assertEqual((1, ("192.0.2.8/29", "")), (yield self.ask(check, {"client_address": "192.0.2.9"})))
        self.assertEqual(-1, (yield self.ask(check, {"client_address": "2001:db8::1"}))[0])

    @inlineCallbacks
    def test_severalValues(self):
        """
        Of a list the first member that fits counts.
        """
        check = yield self.list()
        found = yield self.ask(check, {"sender": ["x@y", "x@example.com", "alice@example.net"]})
        self.assertEqual((1, (".example.com", "")), found)

    @inlineCallbacks
    def test_reload(self):
        """
        The file is read again when it changes, and what was answered before is forgotten.
        """
        check = yield self.list()
        self.file.write_text("bob@example.net\n")
        yield self.until(lambda: self.forgotten)
        self.assertEqual(-1, (yield self.ask(check, self.data()))[0])
        self.assertEqual(1, (yield self.ask(check, {"sender": "bob@example.net"}))[0])

    @inlineCallbacks
    def test_replaced(self):
        """
        So it is when another file takes its place, or it comes back.
        """
        check = yield self.list()
        other = self.folder / "other"
        other.write_text("bob@example.net\n")
        other.rename(self.file)
        yield self.until(lambda: self.forgotten == 1)
        self.file.unlink()
        yield self.until(lambda: check._source.file.problem)
        self.assertEqual(1, (yield self.ask(check, {"sender": "bob@example.net"}))[0])
        self.file.write_text("carol@example.net\n")
        yield self.until(lambda: self.forgotten == 2)
        self.assertEqual(1, (yield self.ask(check, {"sender": "carol@example.net"}))[0])

    @inlineCallbacks
    def test_mistakeLater(self):
        """
        A file that has a mistake later is not used: the entries of before stay, and the log says why.
        """
        check = yield self.list()
        events = self.logged()
        self.file.write_text("bob@example.net\n192.0.2.0/99\n")
        yield self.until(lambda: check._source.file.problem)
        self.assertEqual(1, (yield self.ask(check, self.data()))[0])
        yield self.until(lambda: events, 2)
        self.assertIn("192.0.2.0/99", str(events))

    @inlineCallbacks
    def test_warnings(self):
        """
        What a file may have meant otherwise is logged, when it is read first and when it changes.
        """
        events = self.logged()
        self.file.write_text("*.example.net\n")
        yield self.list()
        self.assertIn("list.txt:1: *.example.net: a * stands for itself", str(events))
        self.file.write_text("x\n*.example.com\n")
        yield self.until(lambda: self.forgotten)
        self.assertIn("list.txt:2: *.example.com: a * stands for itself", str(events))

    @inlineCallbacks
    def test_warningsOnce(self):
        """
        They are logged once, however many checks use the file.
        """
        events = self.logged()
        self.file.write_text("*.example.net\n")
        yield self.list()
        yield self.list("recipient")
        self.assertEqual(1, str(events).count("list.txt:1"))

    @inlineCallbacks
    def test_manyFiles(self):
        """
        However many files are in use, each is read again.
        """
        paths = [self.folder / f"list{number}" for number in range(6)]
        for path in paths:
            path.write_text("x\n")
        checks = []
        for path in paths:
            checks.append((yield self.start("List", param="sender", file=str(path))))
        for path in paths:
            path.write_text("y\n")
        yield self.until(lambda: self.forgotten == len(paths), 5)
        for check in checks:
            self.assertEqual(1, (yield self.ask(check, {"sender": "y"}))[0])

    @inlineCallbacks
    def test_stopped(self):
        """
        A check that has stopped is not told of changes any more.
        """
        check = yield self.list()
        check.stop()
        self.file.write_text("bob@example.net\n")
        yield self.until(lambda: not self.tables._files)
        self.assertEqual(0, self.forgotten)

    @inlineCallbacks
    def test_commands(self):
        """
        Commands are refused: people edit the file.
        """
        check = yield self.list()
        for method, *arguments in ((check.show,), (check.add, [["a"]]), (check.remove, [["a"]]), (check.export,)):
            error = yield self.assertFailure(self.wait(method, *arguments), BackendError)
            self.assertEqual("list has no table: edit its file, it is read again by itself", str(error))

    @inlineCallbacks
    def test_octets(self):
        """
        What is no UTF-8 is found as well.
        """
        self.file.write_bytes(b"\xff\xfe@example.net\n")
        check = yield self.list()
        self.assertEqual(1, (yield self.ask(check, {"sender": "\udcff\udcfe@example.net"}))[0])


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
            check = yield self.start("List", param="sender", table="friends", cacheAll=cacheAll)
            self.assertEqual((0, None), (yield self.ask(check, self.data())))


class ParameterTests(SynchronousTestCase):
    """
    Parameters that cannot be.
    """

    def refused(self, **parameters):
        return str(self.assertRaises(ConfigError, lambda: make("List", **parameters).start()))

    def test_source(self):
        """
        Either a table or a file must be given.
        """
        self.assertEqual("either table or file must be given", self.refused(param="sender"))
        both = self.refused(param="sender", table="t", file="/dev/null")
        self.assertEqual("either table or file must be given", both)

    def test_file(self):
        """
        A file goes with a single attribute, and without columns; it must be there and without a mistake.
        """
        sentence = "with a file, param is one attribute, and there is no column and no retcols"
        self.assertEqual(sentence, self.refused(param=["a", "b"], file="/etc/hostname"))
        self.assertEqual(sentence, self.refused(param="a", file="/etc/hostname", column="x"))
        self.assertEqual(sentence, self.refused(param="a", file="/etc/hostname", retcols="x"))
        self.assertIn("/nowhere/list", self.refused(param="a", file="/nowhere/list"))

    def test_columns(self):
        """
        There must be as many columns as attributes, with names that can be.
        """
        self.assertIn("as many columns", self.refused(param=["a", "b"], table="t", column="x"))
        self.assertIn("as many columns", self.refused(param="a", table="t", column=["x", "y"]))
        self.assertIn("no name for a table", self.refused(param="a", table="t; DROP TABLE x"))
        self.assertIn("no name for a table", self.refused(param="a", table="t", column="x y"))
        self.assertIn("no name for a table", self.refused(param="a", table="t", retcols="x y"))

    def test_noAttribute(self):
        """
        There must be an attribute to look up.
        """
        self.assertIn("param", self.refused(table="t"))

    def test_makeAlone(self):
        """
        ppolicy.testing makes one that starts without a database, and is unknown.
        """
        check = make("List", param="sender", table="t")
        check.start()
        self.assertEqual((0, None), check.check({"sender": "a"}))

    def test_cacheTimes(self):
        """
        What is loaded is used until it is loaded again at least: who says when need not say more.
        """
        expires = []
        for times in ({"cacheAllRefresh": 7200}, {"cacheAllRefresh": 60}, {"cacheAllExpire": 100}):
            check = make("List", param="sender", table="t", cacheAll=True, **times)
            self.patch(check.tables, "table", lambda *_, expire, **__: expires.append(expire))
            self.patch(check, "opened", lambda source: None)
            check.start()
        self.assertEqual([7200, 3600, 900], expires)
