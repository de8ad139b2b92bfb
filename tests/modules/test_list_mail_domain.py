"""
Tests for the ListMailDomain check module.
"""

import importlib

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from ppolicy import tables
from ppolicy.errors import ConfigError
from ppolicy.registry import Registry
from ppolicy.testing import make
from tests.listing import Listing

ORDER = [
    "user@mail.example.com",
    "user@",
    "user",
    "@mail.example.com",
    "@.mail.example.com",
    "@.example.com",
    "@.com",
    "@.",
]


class OrderTests(SynchronousTestCase):
    """
    What stands for a value.
    """

    def order(self, value):
        cls = Registry().find("ListMailDomain")
        return importlib.import_module(cls.__module__).searchOrder(value)

    def test_address(self):
        """
        An address is looked up from itself to everything, as amavis does.
        """
        self.assertEqual(ORDER, self.order("user@mail.example.com"))

    def test_hostName(self):
        """
        A host name is looked up as it is, then as the domain of an address.
        """
        self.assertEqual(["a.b", "@a.b", "@.a.b", "@.b", "@."], self.order("a.b"))

    def test_strange(self):
        """
        The empty sender is in everything only; a quoted local part may hold another @.
        """
        self.assertEqual(["", "@."], self.order(""))
        self.assertEqual(['"a@b"@c', '"a@b"@', '"a@b"', "@c", "@.c", "@."], self.order('"a@b"@c'))
        self.assertEqual(["a@", "a@", "a", "@."], self.order("a@"))


class ListMailDomainTests(Listing):
    """
    White and black tables.
    """

    def lists(self, **parameters):
        given = {"param": "sender", "tableWhitelist": "white", "tableBlacklist": "black", **parameters}
        return self.start("ListMailDomain", **given)

    @inlineCallbacks
    def test_eachStep(self):
        """
        Each entry of the order is found, and an earlier one before all later ones, in memory and in the database.
        """
        for cacheAll in (True, False):
            check = yield self.lists(cacheAll=cacheAll)
            for entry in reversed(ORDER):
                colour = "black" if ORDER.index(entry) % 2 else "white"
                yield self.wait(check.add, [[entry]], table=colour)
                yield self.settled()
                found = yield self.ask(check, {"sender": "User@Mail.Example.COM"})
                self.assertEqual((-1 if colour == "black" else 1, (1,)), found, (entry, cacheAll))
            for entry in ORDER:
                for table in ("white", "black"):
                    yield self.wait(check.remove, [[entry]], table=table)
            yield self.settled()
            self.assertEqual((0, ()), (yield self.ask(check, {"sender": "user@mail.example.com"})))

    @inlineCallbacks
    def test_whiteWins(self):
        """
        The same entry in both lists is white.
        """
        for cacheAll in (True, False):
            check = yield self.lists(cacheAll=cacheAll)
            for table in ("white", "black"):
                yield self.wait(check.add, [["@.example.com"]], table=table)
            yield self.settled()
            self.assertEqual(1, (yield self.ask(check, {"sender": "u@a.example.com"}))[0])

    @inlineCallbacks
    def test_notFound(self):
        """
        What only looks like a part of the address is none.
        """
        check = yield self.lists()
        wrong = [
            "@example.com",
            "example.com",
            "@.xample.com",
            "@.mail",
            "mail.example.com",
            ".com",
            "use",
            "ser@",
        ]
        yield self.wait(check.add, [[one] for one in wrong], table="black")
        yield self.settled()
        self.assertEqual((0, ()), (yield self.ask(check, {"sender": "user@mail.example.com"})))

    @inlineCallbacks
    def test_hostName(self):
        """
        A host name is found by itself and by domains.
        """
        check = yield self.lists(param="client_name")
        yield self.wait(check.add, [["mail.example.com"], ["@.example.org"]], table="black")
        yield self.settled()
        for name, code in (
            ("Mail.example.com", -1),
            ("a.example.org", -1),
            ("example.org", -1),
            ("a.example.com", 0),
            ("", 0),
        ):
            self.assertEqual(code, (yield self.ask(check, {"client_name": name}))[0], name)

    @inlineCallbacks
    def test_nullSender(self):
        """
        The empty sender is in no list but that of everything.
        """
        check = yield self.lists()
        yield self.wait(check.add, [["@.com"], ["user"]], table="black")
        self.assertEqual((0, ()), (yield self.ask(check, {"sender": ""})))
        yield self.wait(check.add, [["@."]], table="black")
        self.assertEqual(-1, (yield self.ask(check, {"sender": ""}))[0])

    @inlineCallbacks
    def test_several(self):
        """
        Of a list of values the first that is in a list decides.
        """
        check = yield self.lists()
        yield self.wait(check.add, [["@.org"]], table="white")
        yield self.wait(check.add, [["a@x.com"]], table="black")
        yield self.settled()
        for senders, code in (
            (["b@b", "u@x.org", "a@x.com"], 1),
            (["b@b", "a@x.com", "u@x.org"], -1),
            (["b@b"], 0),
            ([], 0),
        ):
            self.assertEqual(code, (yield self.ask(check, {"sender": senders}))[0], senders)

    @inlineCallbacks
    def test_tooMany(self):
        """
        More than 1000 values are unknown.
        """
        check = yield self.lists()
        self.assertEqual((0, None), (yield self.ask(check, {"sender": ["x"] * 1001})))

    @inlineCallbacks
    def test_rows(self):
        """
        The information is the row of the list that decides.
        """
        check = yield self.lists(
            mappingWhitelist={"sender": ("entry", "VARCHAR(100)")},
            retcolsWhitelist="entry,note",
            retcolsBlacklist="note",
        )
        yield self.wait(check.add, [["@.org"]], table="white", columns={"note": "w"})
        yield self.wait(check.add, [["@.com"]], table="black", columns={"note": "b"})
        yield self.settled()
        self.assertEqual((1, ("@.org", "w")), (yield self.ask(check, {"sender": "a@b.org"})))
        self.assertEqual((-1, ("b",)), (yield self.ask(check, {"sender": "a@b.com"})))


class FileTests(Listing):
    """
    Files, whose entries have their own form.
    """

    def lists(self, **parameters):
        self.white, self.black = self.folder / "white", self.folder / "black"
        self.white.write_text("user@example.com  friend\n@example.org\n")
        self.black.write_text(".com  all of it\n.org\n192.0.2.0/24\n/^spam[0-9]+$/\n")
        return self.start(
            "ListMailDomain",
            param="sender",
            fileWhitelist=str(self.white),
            fileBlacklist=str(self.black),
            **parameters,
        )

    @inlineCallbacks
    def test_entries(self):
        """
        The most exact entry of each file counts, and white wins.
        """
        check = yield self.lists()
        for sender, wanted in (
            ("user@example.com", (1, ("user@example.com", "friend"))),
            ("other@example.com", (-1, (".com", "all of it"))),
            ("u@example.org", (1, ("@example.org", ""))),
            ("u@a.example.org", (-1, (".org", ""))),
            ("u@example.net", (0, ())),
            ("", (0, ())),
        ):
            self.assertEqual(wanted, (yield self.ask(check, {"sender": sender})), sender)

    @inlineCallbacks
    def test_localParts(self):
        """
        A local part is no domain, no address, and not what a regular expression is searched in.
        """
        check = yield self.lists()
        for sender in ("com@example.net", "a.com@example.net", "192.0.2.1@example.net", "spam1@example.net"):
            self.assertEqual((0, ()), (yield self.ask(check, {"sender": sender})), sender)

    @inlineCallbacks
    def test_reload(self):
        """
        A file is read again when it changes.
        """
        self.patch(tables, "WATCH", 0.1)
        self.tables.start()
        check = yield self.lists()
        self.black.write_text("example.net\n.net\n")
        yield self.until(lambda: self.forgotten)
        self.assertEqual(-1, (yield self.ask(check, {"sender": "u@a.net"}))[0])


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
            check = yield self.start("ListMailDomain", param="sender", tableBlacklist="b", cacheAll=cacheAll)
            self.assertEqual((0, None), (yield self.ask(check, self.data())))


class ParameterTests(SynchronousTestCase):
    """
    Parameters.
    """

    def test_defaults(self):
        """
        Whole tables are kept in memory by default.
        """
        self.assertTrue(make("ListMailDomain", param="sender", tableBlacklist="b").cacheAll)

    def test_refused(self):
        """
        There must be a list, each a table or a file, and one attribute.
        """
        for wrong in (
            {"param": "a"},
            {"param": "a", "tableWhitelist": "t", "fileWhitelist": "/etc/hostname"},
            {"param": ["a", "b"], "tableWhitelist": "t"},
            {"tableWhitelist": "t"},
        ):
            self.assertRaises(ConfigError, lambda wrong=wrong: make("ListMailDomain", **wrong).start())
