"""
Tests for the ListDyn check module.
"""

import math

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.errors import BackendError, ConfigError
from ppolicy.testing import make
from tests.listing import HOSTILE, Listing


class ListDynTests(Listing):
    """
    A list that the policy keeps.
    """

    def dyn(self, **parameters):
        return self.start("ListDyn", **{"param": "sender", **parameters})

    @inlineCallbacks
    def test_operations(self):
        """
        Add, check and remove, as the policy says; the table is named list.
        """
        check = yield self.dyn()
        data = self.data()
        self.assertEqual((-1, "not found in list"), (yield self.ask(check, data)))
        self.assertEqual((1, "added to list"), (yield self.ask(check, data, "add")))
        self.assertEqual((1, "found in list"), (yield self.ask(check, data, operation="check")))
        self.assertEqual((1, "found in list"), (yield self.ask(check, {"sender": "ALICE@example.net"})))
        self.assertEqual([("alice@example.net",)], self.sql("SELECT * FROM list"))
        self.assertEqual((1, "1 removed from list"), (yield self.ask(check, data, "remove")))
        self.assertEqual((1, "0 removed from list"), (yield self.ask(check, data, "remove")))
        self.assertEqual(-1, (yield self.ask(check, data))[0])

    @inlineCallbacks
    def test_parameter(self):
        """
        The parameter operation says what to do unless the policy does.
        """
        adding = yield self.dyn(operation="add", table="known")
        removing = yield self.dyn(operation="remove", table="known")
        yield self.ask(adding, self.data())
        self.assertEqual((1, "found in known"), (yield self.ask(adding, self.data(), "check")))
        yield self.ask(removing, self.data())
        self.assertEqual(-1, (yield self.ask(adding, self.data(), "check"))[0])

    @inlineCallbacks
    def test_unknownOperation(self):
        """
        Another operation is an error, which names it.
        """
        check = yield self.dyn()
        error = yield self.assertFailure(self.ask(check, self.data(), "ad"), ValueError)
        self.assertIn("'ad'", str(error))

    @inlineCallbacks
    def test_neverCached(self):
        """
        The list is asked each time.
        """
        check = yield self.dyn()
        self.assertEqual(0, check.hashArg(self.data()))
        self.assertEqual((0, 0, 0), (check.cachePositive, check.cacheUnknown, check.cacheNegative))

    @inlineCallbacks
    def test_product(self):
        """
        With several attributes and lists all combinations are added, checked and removed.
        """
        check = yield self.dyn(param=["sender", "recipient"])
        several = {"sender": ["a", "b"], "recipient": ["c", "d"]}
        yield self.ask(check, several, "add")
        self.assertEqual(4, len(self.sql("SELECT * FROM list")))
        self.assertEqual(1, (yield self.ask(check, {"sender": ["x", "b"], "recipient": "d"}))[0])
        self.assertEqual(-1, (yield self.ask(check, {"sender": "c", "recipient": "a"}))[0])
        self.assertEqual((1, "4 removed from list"), (yield self.ask(check, several, "remove")))

    @inlineCallbacks
    def test_tooMany(self):
        """
        More than 1000 combinations are unknown.
        """
        check = yield self.dyn()
        for operation in ("check", "add", "remove"):
            found = yield self.ask(check, {"sender": ["x"] * 1001}, operation)
            self.assertEqual(0, found[0], operation)

    @inlineCallbacks
    def test_retcols(self):
        """
        With retcols the information is a list of rows, each with its code.
        """
        check = yield self.dyn(retcols="score, note", mapping={"score": ("points", "INT")})
        self.assertEqual((-1, []), (yield self.ask(check, self.data())))
        yield self.ask(check, {"sender": "a"}, "add", {"score": 5, "note": "n"})
        yield self.ask(check, {"sender": "b"}, "add", value={"score": 7})
        self.assertEqual((1, [[1, 5, "n"]]), (yield self.ask(check, {"sender": "a"})))
        found = yield self.ask(check, {"sender": ["x", "a", "b"]})
        self.assertEqual((1, [[1, 5, "n"], [1, 7, ""]]), found)
        yield self.ask(check, {"sender": "a"}, "add", {"note": "m"})
        self.assertEqual((1, [[1, 5, "m"]]), (yield self.ask(check, {"sender": "a"})))
        self.assertEqual(
            [("points",)], self.sql("SELECT name FROM pragma_table_info('list') WHERE type = 'INTEGER'")
        )

    @inlineCallbacks
    def test_noValue(self):
        """
        A column without a value is empty, whatever its type.
        """
        check = yield self.dyn(retcols="score", mapping={"score": ("score", "INT")})
        self.assertEqual(1, (yield self.ask(check, self.data(), "add"))[0])
        code, ((_, score),) = yield self.ask(check, self.data())
        self.assertEqual(1, code)
        self.assertIn(score, (0, None))

    @inlineCallbacks
    def test_unknownValue(self):
        """
        A value for a column that is none of retcols is an error, which names it.
        """
        check = yield self.dyn(retcols="score")
        error = yield self.assertFailure(self.ask(check, self.data(), "add", {"scor": 1}), ValueError)
        self.assertIn("'scor' is not one of the retcols: score", str(error))
        self.assertEqual([], self.sql("SELECT * FROM list"))

    @inlineCallbacks
    def test_retcolsThatCannotBe(self):
        """
        Everything, or an aggregate, cannot stand beside a value, so they are refused.
        """
        for wrong in ("*", "COUNT(*)", "MAX(score)", "a b"):
            yield self.assertFailure(self.dyn(retcols=wrong), ConfigError)

    @inlineCallbacks
    def test_softExpire(self):
        """
        After softExpire the code is 2 until the row is added again.
        """
        check = yield self.dyn(softExpire=0.3, retcols="score")
        yield self.ask(check, self.data(), "add", {"score": "5"})
        self.assertEqual((1, [[1, "5"]]), (yield self.ask(check, self.data())))
        yield deferLater(reactor, 0.4)
        self.assertEqual((2, [[2, "5"]]), (yield self.ask(check, self.data())))
        yield self.ask(check, self.data(), "add")
        self.assertEqual((1, [[1, "5"]]), (yield self.ask(check, self.data())))

    @inlineCallbacks
    def test_softExpireIsKept(self):
        """
        What is expired softly only is there for ever.
        """
        check = yield self.dyn(softExpire=0.1)
        yield self.ask(check, self.data(), "add")
        yield deferLater(reactor, 0.2)
        for table in self.tables.tables:
            table.purge()
        yield self.settled()
        self.assertEqual((2, "found in list"), (yield self.ask(check, self.data())))

    @inlineCallbacks
    def test_hardExpire(self):
        """
        After hardExpire a row is gone, and later deleted.
        """
        check = yield self.dyn(hardExpire=0.3)
        yield self.ask(check, self.data(), "add")
        self.assertEqual(1, (yield self.ask(check, self.data()))[0])
        yield deferLater(reactor, 0.4)
        self.assertEqual((-1, "not found in list"), (yield self.ask(check, self.data())))
        self.assertEqual(1, len(self.sql("SELECT * FROM list")))
        for table in self.tables.tables:
            table.purge()
        yield self.settled()
        self.assertEqual([], self.sql("SELECT * FROM list"))
        yield self.ask(check, self.data(), "add")
        self.assertEqual(1, (yield self.ask(check, self.data()))[0])

    @inlineCallbacks
    def test_both(self):
        """
        With both times a row is first 1, then 2, then gone; of several rows the highest code is told.
        """
        check = yield self.dyn(softExpire=100, hardExpire=200)
        for sender, *times in (("a",), ("b", 1e-3, 200), ("c", 1e-4, 1e-3)):
            yield self.ask(check, {"sender": sender}, "add", None, *times)
        for senders, code in (("a", 1), ("b", 2), ("c", -1), ("cb", 2), ("cba", 2)):
            while (yield self.ask(check, {"sender": list(senders)}))[0] != code:
                yield deferLater(reactor, 0.01)

    @inlineCallbacks
    def test_arguments(self):
        """
        The policy may say other times, never too; a time that has no column is an error.
        """
        check = yield self.dyn(softExpire=100, hardExpire=200)
        for sender, soft, hard in (("a", 0.05, None), ("b", None, 0.05), ("c", 0, 0)):
            yield self.ask(check, {"sender": sender}, "add", softExpire=soft, hardExpire=hard)
        yield deferLater(reactor, 0.15)
        for sender, code in (("a", 2), ("b", -1), ("c", 1)):
            self.assertEqual(code, (yield self.ask(check, {"sender": sender}))[0], sender)
        self.assertEqual([(0, 0)], self.sql("SELECT soft_expire, hard_expire FROM list WHERE sender = 'c'"))
        plain = yield self.dyn(table="plain")
        yield self.assertFailure(self.ask(plain, self.data(), "add", hardExpire=5), ValueError)

    @inlineCallbacks
    def test_neverUnlessSaid(self):
        """
        With times of 0, as 2.7 had to be given them, a row lives for ever unless the policy says more.
        """
        both = yield self.dyn(softExpire=0, hardExpire=0, retcols="score")
        alone = yield self.dyn(table="soft", softExpire=0)
        for check, times in (
            (both, (1e-3, 1000)),
            (both, (1000, 1e-3)),
            (both, ()),
            (alone, (1e-3,)),
            (alone, ()),
        ):
            yield self.ask(check, {"sender": f"for {times}"}, "add", None, *times)
        for check, times, code in ((both, (1e-3, 1000), 2), (both, (1000, 1e-3), -1), (alone, (1e-3,), 2)):
            while (yield self.ask(check, {"sender": f"for {times}"}))[0] != code:
                yield deferLater(reactor, 0.01)
        self.assertEqual(1, (yield self.ask(alone, {"sender": "for ()"}))[0])
        self.assertEqual((1, [[1, ""]]), (yield self.ask(both, {"sender": "for ()"})))

    @inlineCallbacks
    def test_namesOfTimes(self):
        """
        The columns of the times may be named by the mapping.
        """
        check = yield self.dyn(hardExpire=100, mapping={"hard_expire": "until", "sender": "who"})
        yield self.ask(check, self.data(), "add")
        self.assertEqual(
            ["who", "until"], [name for (name,) in self.sql("SELECT name FROM pragma_table_info('list')")]
        )
        self.assertEqual(1, (yield self.ask(check, self.data()))[0])

    @inlineCallbacks
    def test_inMemory(self):
        """
        With cacheAll the answers are the same: what was added counts at once, and times are kept.
        """
        check = yield self.dyn(cacheAll=True, softExpire=100, hardExpire=200, retcols="score")
        for sender, *times in (("a",), ("b", 1e-3, 200), ("c", 1e-4, 1e-3)):
            yield self.ask(check, {"sender": sender}, "add", {"score": "5"}, *times)
        yield self.settled()
        for sender, answer in (("a", (1, [[1, "5"]])), ("b", (2, [[2, "5"]])), ("c", (-1, []))):
            while (yield self.ask(check, {"sender": sender})) != answer:
                yield deferLater(reactor, 0.01)

    @inlineCallbacks
    def test_together(self):
        """
        Many that add the same at once make one row.
        """
        check = yield self.dyn(hardExpire=100, retcols="score")
        found = yield gatherResults([self.ask(check, self.data(), "add", {"score": "1"}) for _ in range(50)])
        self.assertEqual([(1, "added to list")] * 50, found)
        self.assertEqual(1, len(self.sql("SELECT * FROM list")))

    @inlineCallbacks
    def test_hostile(self):
        """
        Whatever clients send is kept, found as itself, and harms nothing.
        """
        check = yield self.dyn(retcols="note")
        for text in HOSTILE:
            found = yield self.ask(check, {"sender": text}, "add", {"note": text})
            self.assertEqual((1, "added to list"), found)
        for text in HOSTILE:
            self.assertEqual(1, (yield self.ask(check, {"sender": text}))[0], repr(text))
        self.assertEqual(len(HOSTILE), len(self.sql("SELECT * FROM list")))

    @inlineCallbacks
    def test_commands(self):
        """
        An administrator adds rows that live for ever, or for so many seconds.
        """
        check = yield self.dyn(hardExpire=100, retcols="score")
        yield self.wait(check.add, [["a"]], columns={"score": "1"})
        yield self.wait(check.add, [["b"]], live=50.0)
        (never,), (some,) = self.sql("SELECT hard_expire FROM list ORDER BY sender")
        self.assertEqual(0, never)
        self.assertGreater(some, 1e9)
        shown = yield self.wait(check.show)
        self.assertEqual({"sender": "a", "score": "1", "hard_expire": 0}, shown["rows"][0])

    @inlineCallbacks
    def test_addForNoNumber(self):
        """
        A time to live that is no number is refused: neither a clock nor JSON knows one.
        """
        check = yield self.dyn(hardExpire=100)
        for live in (math.inf, -math.inf, math.nan):
            yield self.assertFailure(self.wait(check.add, [["a"]], live=live), BackendError)
        self.assertEqual([], (yield self.wait(check.show))["rows"])

    @inlineCallbacks
    def test_exportAndImport(self):
        """
        A row that was exported lives as long when it is imported again, and what has expired meanwhile not at all.
        """
        check = yield self.dyn(softExpire=50, hardExpire=100, retcols="score")
        yield self.wait(check.add, [["a"]], columns={"score": "1"})
        yield self.wait(check.add, [["b"]], columns={"score": "2"}, live=5000.0)
        exported = yield self.wait(check.export)
        self.assertEqual(["sender", "score", "soft_expire", "hard_expire"], exported["columns"])
        rows = [[str(row[column]) for column in exported["columns"]] for row in exported["rows"]]
        before = self.sql("SELECT sender, score, round(soft_expire), round(hard_expire) FROM list ORDER BY sender")
        yield self.wait(check.remove, [["a"], ["b"]])
        yield self.wait(check.importRows, [*rows, ["gone", "3", "1000", "1000"]])
        after = self.sql("SELECT sender, score, round(soft_expire), round(hard_expire) FROM list ORDER BY sender")
        self.assertEqual(before, after)

    @inlineCallbacks
    def test_importOfNoTime(self):
        """
        A column too many in a file is a mistake that is told in a sentence.
        """
        check = yield self.dyn(hardExpire=100)
        for text in ("note", "nan", "inf"):
            error = yield self.assertFailure(self.wait(check.importRows, [["a", text]]), BackendError)
            self.assertEqual(f"list list: {text!r} is no time, which is seconds since 1970", str(error))
        self.assertEqual([], self.sql("SELECT * FROM list"))


class DamagedTests(Listing):
    """
    A database that does not answer.
    """

    damaged = True

    @inlineCallbacks
    def test_unknown(self):
        """
        Each operation gives 0, and says why.
        """
        for cacheAll in (False, True):
            check = yield self.start("ListDyn", param="sender", cacheAll=cacheAll)
            for operation in ("check", "add", "remove"):
                code, info = yield self.ask(check, self.data(), operation)
                self.assertEqual(0, code)
                self.assertIn("not a database", info)


class ParameterTests(SynchronousTestCase):
    """
    Parameters that cannot be.
    """

    def test_refused(self):
        """
        There must be an attribute; times are not negative, operations are known, names can be names.
        """
        for wrong in (
            {},
            {"param": "a", "softExpire": -1},
            {"param": "a", "hardExpire": "1"},
            {"param": "a", "operation": "ad"},
            {"param": "a", "table": "t t"},
            {"param": "a", "mapping": {"a": ("b", "BLOB")}},
            {"param": "a", "retcols": "b c"},
        ):
            self.assertRaises(ConfigError, lambda wrong=wrong: make("ListDyn", **wrong).start())
