"""
Tests for the Trap check module.
"""

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ppolicy import tables
from ppolicy.errors import BackendError, ConfigError
from ppolicy.testing import make, memoryState
from tests.listing import Listing

TRAPS = ["one@example.com", "two@example.com", "three@example.com", "four@example.com"]
MAIL = {"sender": "alice@example.net", "recipient": "bob@example.com", "client_address": "192.0.2.1"}


class TrapTests(SynchronousTestCase):
    """
    Four traps, on a clock.
    """

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1e9)
        self.state = memoryState(self.clock)
        self.trap = self.started()

    def started(self, **parameters):
        check = make("Trap", self.state, **{"traps": TRAPS} | parameters)
        check.start()
        self.addCleanup(check.stop)
        return check

    def ask(self, recipient="bob@example.com", client="192.0.2.1", check=None, sender="alice@example.net", **more):
        data = {"sender": sender, "recipient": recipient, "client_address": client}
        return (check or self.trap).check(data, **more)[0]

    def rows(self):
        return [row for table in self.state.tables.values() for row in table.scan()]

    def test_codes(self):
        """
        Mail to a trap is -2; who has touched more than half of all traps is 1, whoever else is -1.
        """
        self.assertEqual(-1, self.ask())
        for trap, after in zip(TRAPS, (-1, -1, 1, 1), strict=True):
            self.assertEqual(-2, self.ask(trap))
            self.assertEqual(after, self.ask(), trap)
        self.assertEqual(-1, self.ask(client="192.0.2.2"))

    def test_treshold(self):
        """
        A client is trapped when it has touched more than treshold traps; a negative one is that fraction of all,
        at least 1, but never more than there are.
        """
        for number, treshold, needed in (
            (4, 0, 1),
            (4, 1, 2),
            (4, 3, 4),
            (4, 4, None),
            (1, -2, 1),
            (2, -2, 2),
            (3, -2, 2),
            (4, -2, 3),
            (4, -1, 4),
            (4, -4, 2),
            (4, -9, 2),
            (9, -3, 4),
        ):
            client = f"2001:db8:0:{number}{abs(treshold)}{int(treshold < 0)}::1"
            traps = [f"{one}@example.com" for one in range(number)]
            for name in ("treshold", "threshold"):
                check = self.started(traps=traps, stateTable=f"by_{name}", **{name: treshold})
                touched = 0
                while self.ask(client=client, check=check) == -1 and touched < number:
                    self.assertEqual(-2, self.ask(traps[touched], client, check))
                    touched += 1
                found = touched if self.ask(client=client, check=check) == 1 else None
                self.assertEqual(needed, found, (number, treshold))

    def test_sameTrap(self):
        """
        A trap counts once, however often it is touched, and in any case.
        """
        for _ in range(20):
            self.assertEqual(-2, self.ask("ONE@example.COM"))
        self.assertEqual(-1, self.ask())

    def test_nullSender(self):
        """
        Bounces and mail to postmaster are 0: they touch no trap, and pass from a client that is trapped.
        """
        check = self.started(traps=[*TRAPS, "postmaster@example.com"], treshold=0)
        for recipient, sender in (
            ("one@example.com", ""),
            ("postmaster@example.com", "alice@example.net"),
            ("Postmaster", "alice@example.net"),
        ):
            self.assertEqual(0, self.ask(recipient, check=check, sender=sender))
        self.assertEqual([], self.rows())
        self.ask("one@example.com", check=check)
        self.assertEqual(1, self.ask(check=check))
        self.assertEqual(0, self.ask(check=check, sender=""))
        self.assertEqual(0, self.ask("postmaster@example.com", check=check))
        self.assertEqual(1, self.ask("postmaster-general@example.com", check=check))

    def test_innocent(self):
        """
        Mail to others makes no row, and keeps no client trapped: 2.7 counted it as if it went to a trap.
        """
        for _ in range(20):
            self.assertEqual(-1, self.ask())
        self.assertEqual([], self.rows())
        for trap in TRAPS:
            self.ask(trap)
        before = self.rows()
        for _ in range(59):
            self.clock.advance(61)
            self.assertEqual(1, self.ask())
        self.assertEqual(before, self.rows())
        self.clock.advance(1)
        self.assertEqual(-1, self.ask())

    def test_expire(self):
        """
        Every touch counts for its own `expire` seconds, of any number of traps and clients: 2.7 lost `expire` at
        the second one.
        """
        check = self.started(expire=100, treshold=1)
        for client in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
            for trap in TRAPS[:2]:
                self.ask(trap, client, check)
                self.clock.advance(10)
        # touched at 0 and 10, 20 and 30, 40 and 50; now it is 60
        for seconds, codes in (
            (39, (1, 1, 1)),
            (1, (-1, 1, 1)),
            (19, (-1, 1, 1)),
            (1, (-1, -1, 1)),
            (20, (-1,) * 3),
        ):
            self.clock.advance(seconds)
            found = tuple(self.ask(client=f"192.0.2.{n}", check=check) for n in (1, 2, 3))
            self.assertEqual(codes, found, self.clock.seconds())

    def test_longTrapped(self):
        """
        Who goes on touching traps stays trapped as long as enough of them were touched within `expire` seconds.
        """
        check = self.started(expire=100, treshold=1)
        touched = {}
        steps = [(n * 37 % 61, TRAPS[n * 7 % 4 if n % 3 else 0]) for n in range(200)]
        for seconds, trap in steps:
            self.clock.advance(seconds)
            now = self.clock.seconds()
            expected = 1 if sum(now - at < 100 for at in touched.values()) > 1 else -1
            self.clock.advance(0)
            check._decided.clear()
            self.assertEqual(expected, self.ask(check=check), touched)
            self.ask(trap, check=check)
            touched[trap] = now

    def test_decided(self):
        """
        What was found out about a client that is trapped for long is remembered only as long as it is sure.
        """
        check = self.started(expire=100, treshold=1)
        self.ask(TRAPS[0], check=check)
        self.clock.advance(60)
        self.ask(TRAPS[0], check=check)
        self.ask(TRAPS[1], check=check)
        self.clock.advance(50)  # 110 after the first, 50 after the others
        for seconds, expected in ((0, 1), (49, 1), (1, -1)):
            self.clock.advance(seconds)
            self.assertEqual(expected, self.ask(check=check), seconds)
        self.ask(TRAPS[2], check=check)
        self.assertEqual(-1, self.ask(check=check))
        self.ask(TRAPS[3], check=check)
        self.assertEqual(1, self.ask(check=check))

    def test_patterns(self):
        """
        Traps may be whole domains, local parts and regular expressions; each is one trap.
        """
        traps = ["@old.example.com", ".gone.example", "webmaster1@", "/^[0-9]{9,}@/"]
        check = self.started(traps=traps, treshold=9)
        for recipient, expected in (
            ("any@old.example.com", -2),
            ("other@OLD.example.com", -2),
            ("any@sub.old.example.com", -1),
            ("x@old.example.com.net", -1),
            ("any@a.b.gone.example", -2),
            ("any@gone.example", -2),
            ("any@agone.example", -1),
            ("webmaster1@example.net", -2),
            ("webmaster@example.net", -1),
            ("1234567890@example.org", -2),
            ("12345@example.org", -1),
        ):
            self.assertEqual(expected, self.ask(recipient, check=check), recipient)
        fresh = self.started(traps=traps, treshold=1, stateTable="fresh")
        for number in range(20):
            self.ask(f"{number}@old.example.com", check=fresh)
        self.assertEqual(-1, self.ask(check=fresh))
        self.ask("webmaster1@example.net", check=fresh)
        self.assertEqual(1, self.ask(check=fresh))

    def test_text(self):
        """
        Traps may be given as a text with commas.
        """
        check = self.started(traps=" one@example.com,two@example.com ,, ")
        self.assertEqual([-2, -2, 1], [self.ask(one, check=check) for one in TRAPS[:3]])

    def test_argument(self):
        """
        The argument `traps` replaces the configured traps for one request.
        """
        for traps in ("other@example.com, more@example.com", ["other@example.com", "more@example.com"]):
            self.assertEqual(-2, self.ask("other@example.com", traps=traps))
            self.assertEqual(-1, self.ask("one@example.com", traps=traps))
        self.assertEqual(-2, self.ask("more@example.com", traps=traps))
        self.assertEqual(1, self.ask(traps=traps))  # both of two
        self.assertEqual(-1, self.ask())  # two of four
        self.assertEqual(-1, self.ask(traps=[]))
        self.assertEqual(-2, self.trap.check({**MAIL, "recipient": "x@y"}, "x@y")[0])

    def test_network(self):
        """
        Clients count by their network: each IPv4 address for itself and an IPv6 /64, unless it is changed.
        """
        for parameters, first, second, expected in (
            ({}, "192.0.2.1", "192.0.2.2", -1),
            ({}, "192.0.2.1", "::ffff:192.0.2.1", 1),
            ({}, "2001:db8::1", "2001:db8::ffff", 1),
            ({}, "2001:db8::1", "2001:db8:0:1::1", -1),
            ({"ipv4Prefix": 24}, "192.0.2.1", "192.0.2.2", 1),
            ({"ipv4Prefix": 24}, "192.0.2.1", "192.0.3.1", -1),
            ({"ipv6Prefix": 128}, "2001:db8::1", "2001:db8::2", -1),
            ({"ipv6Prefix": 128}, "2001:db8::1", "2001:DB8:0::1", 1),
        ):
            self.state.tables.clear()
            check = self.started(treshold=0, **parameters)
            self.ask(TRAPS[0], first, check)
            self.assertEqual(expected, self.ask(client=second, check=check), (parameters, first, second))

    def test_noClient(self):
        """
        Without the address of a client everything is unknown.
        """
        for client in ("", "unknown", "192.0.2", "192.0.2.0/24", "*"):
            self.assertEqual(0, self.ask(TRAPS[0], client))
        self.assertEqual([], self.rows())

    def test_noRecipient(self):
        """
        Where there is no recipient, as at DATA, the answer is about the client alone.
        """
        check = self.started(treshold=0)
        self.assertEqual(-1, self.ask("", check=check))
        self.ask(TRAPS[0], check=check)
        self.assertEqual(1, self.ask("", check=check))
        self.assertEqual(-1, check.check({"sender": "a@b", "client_address": "192.0.2.7"})[0])

    def test_noTraps(self):
        """
        Without any trap, nobody is trapped, not even by traps that were.
        """
        check = self.started(traps=[])
        for trap in TRAPS:
            self.ask(trap)
        self.assertEqual(-1, self.ask(check=check))

    def test_secret(self):
        """
        The information names no trap, as it may be told to the client.
        """
        for recipient in (*TRAPS, "bob@example.org"):
            info = self.trap.check({**MAIL, "recipient": recipient})[1]
            self.assertNotIn("@", info)

    def test_trouble(self):
        """
        When the database does not answer, who is trapped is unknown, and a trap still is one.
        """

        def fail(*_):
            raise BackendError("the database is gone")

        for name, recipient, expected in (
            ("get", "bob@example.com", (0, "traps cannot be asked: the database is gone")),
            ("touch", TRAPS[0], (-2, "the recipient is a trap, which cannot be noted: the database is gone")),
        ):
            for table in (self.trap._touches, self.trap._clients):
                self.patch(table, name, fail)
            self.assertEqual(expected, self.trap.check({**MAIL, "recipient": recipient}))

    def test_notCached(self):
        """
        No answer is kept in the cache, and a request that is sent again counts once.
        """
        self.assertEqual(0, self.trap.hashArg(MAIL))
        self.assertEqual(0, self.trap.hashArg(MAIL, traps="a@b"))
        self.assertTrue(self.trap.once)

    def test_mistakes(self):
        """
        What is no trap refuses the start, and so does a file that cannot be read.
        """
        for parameters, expected in (
            ({"traps": ["#one@example.com"]}, "traps: '#one@example.com'"),
            ({"traps": ["a@b\nc@d"]}, "traps: 'a@b"),
            ({"traps": "/(/"}, "traps: /(/"),
            ({"traps": "a@b, @"}, "traps: @"),
            ({"file": "/nowhere/traps"}, "/nowhere/traps"),
            ({"stateTable": "x; y"}, "x; y"),
            ({"ipv4Prefix": 33}, "ipv4Prefix"),
            ({"table": "trap"}, "table and stateTable"),
        ):
            self.assertIn(expected, str(self.assertRaises(ConfigError, self.started, **parameters)))

    def test_bounded(self):
        """
        However many clients are trapped, only so many decisions are remembered.
        """
        module = __import__(type(self.trap).__module__, fromlist=["_KNOWN"])
        self.patch(module, "_KNOWN", 5)
        check = self.started(treshold=0, expire=100)
        for number in range(20):
            self.ask(TRAPS[0], f"192.0.2.{number}", check)
        self.clock.advance(90)
        for number in range(20):
            self.ask(TRAPS[0], f"192.0.2.{number}", check)
        self.clock.advance(20)
        for number in range(20):
            self.assertEqual(1, self.ask(client=f"192.0.2.{number}", check=check))
        self.assertEqual(5, len(check._decided))

    # Commands

    def test_list(self):
        """
        Clients are listed with what they have touched, the last one first.
        """
        for trap in TRAPS[:3]:
            self.ask(trap)
            self.clock.advance(10)
        self.ask(TRAPS[0], "192.0.2.2")
        self.ask(TRAPS[0], "192.0.2.2")
        now = 1_000_000_000
        second = {
            "client": "192.0.2.2",
            "state": "watched",
            "touched": 1,
            "mails": 2,
            "first": now + 30,
            "last": now + 30,
            "expires": now + 3630,
            "traps": "one@example.com",
        }
        first = {
            "client": "192.0.2.1",
            "state": "trapped",
            "touched": 3,
            "mails": 3,
            "first": now,
            "last": now + 20,
            "expires": now + 3620,
            "traps": "three@example.com, two@example.com, one@example.com",
        }
        self.assertEqual({"clients": [second, first]}, self.trap.list())
        self.assertEqual({"clients": [second]}, self.trap.list(limit="1"))
        for client in ("192.0.2.1", "::ffff:192.0.2.1", "*.1"):
            self.assertEqual({"clients": [first]}, self.trap.list(client=client))
        self.assertEqual({"clients": []}, self.trap.list(client="192.0.2.9"))

    def test_remove(self):
        """
        A client that is removed is trapped no longer, and the others stay.
        """
        check = self.started(treshold=0, ipv4Prefix=24)
        for client in ("192.0.2.1", "198.51.100.1", "203.0.113.1"):
            self.ask(TRAPS[0], client, check)
        self.assertEqual({"removed": 1}, check.remove(client="192.0.2.77"))
        self.assertEqual(
            [-1, 1, 1],
            [self.ask(client=f"{net}.1", check=check) for net in ("192.0.2", "198.51.100", "203.0.113")],
        )
        self.assertRaises(BackendError, check.remove)
        self.assertEqual({"removed": 0}, check.remove(client="192.0.2.0/24"))
        self.assertEqual({"removed": 2}, check.remove(client="*"))
        self.assertEqual([], self.rows())


class SourceTests(Listing):
    """
    Traps in files and in tables of a real database.
    """

    @inlineCallbacks
    def trapped(self, check, recipient="bob@example.org"):
        code, _ = yield self.ask(check, self.data(recipient=recipient))
        return code

    @inlineCallbacks
    def test_file(self):
        """
        Traps come from a file, which is read again when it changes.
        """
        self.patch(tables, "WATCH", 0.05)
        self.tables.start()
        path = self.folder / "traps"
        path.write_text("# bait\none@example.com\n.gone.example  since 2019\n")
        check = yield self.start("Trap", file=str(path))
        self.assertEqual(-2, (yield self.trapped(check, "One@example.com")))
        self.assertEqual(-1, (yield self.trapped(check, "two@example.com")))
        new = self.folder / "new"
        new.write_text("two@example.com\n")
        new.replace(path)
        yield self.until(lambda: check._file.find("two@example.com"))
        self.assertEqual(-2, (yield self.trapped(check, "two@example.com")))
        self.assertEqual(1, (yield self.trapped(check, "one@example.com")))
        path.write_text("@\n")
        yield self.until(lambda: check._file.problem)
        self.assertEqual(-2, (yield self.trapped(check, "two@example.com")))

    @inlineCallbacks
    def test_table(self):
        """
        Traps come from a table: addresses, local parts and domains; its length counts for the treshold.
        """
        check = yield self.start("Trap", table="traps", cacheAllRefresh=1)
        self.assertEqual(-1, (yield self.trapped(check, "one@example.com")))
        for trap in ("One@example.com", "two@", "@three.example", ".four.example"):
            self.sql("INSERT INTO traps (trap) VALUES (?)", trap)
        self.tables.changed("traps")
        yield self.settled()
        for recipient, expected in (
            ("one@EXAMPLE.com", -2),
            ("one@example.org", -1),
            ("two@example.org", -2),
            ("bob@example.org", -1),
            ("x@sub.three.example", -1),
            ("x@three.example", -2),
            ("bob@example.org", 1),
            ("x@a.b.four.example", -2),
        ):
            self.assertEqual(expected, (yield self.trapped(check, recipient)), recipient)

    @inlineCallbacks
    def test_together(self):
        """
        A list, a file and a table may be used together; all of their entries count.
        """
        path = self.folder / "traps"
        path.write_text("file@example.com\n")
        check = yield self.start("Trap", table="traps", file=str(path), traps="list@example.com")
        self.sql("INSERT INTO traps (trap) VALUES ('table@example.com')")
        self.tables.changed("traps")
        yield self.settled()
        for place, expected in (("list", -1), ("file", 1), ("table", 1)):  # of three, more than one
            self.assertEqual(-2, (yield self.trapped(check, f"{place}@example.com")))
            self.assertEqual(expected, (yield self.trapped(check)))

    @inlineCallbacks
    def test_commands(self):
        """
        The commands work with a database as they do in memory.
        """
        check = yield self.start("Trap", traps=TRAPS, treshold=1)
        for trap in TRAPS[:2]:
            yield self.trapped(check, trap)
        answer = yield self.wait(check.list)
        (client,) = answer["clients"]
        self.assertEqual(
            ("192.0.2.1", "trapped", 2), tuple(client[name] for name in ("client", "state", "touched"))
        )
        self.assertEqual({"removed": 1}, (yield self.wait(check.remove, client="192.0.2.1")))
        self.assertEqual({"clients": []}, (yield self.wait(check.list)))
        self.assertEqual(-1, (yield self.trapped(check)))


class DamagedTests(Listing):
    """
    A database that is broken.
    """

    damaged = True

    @inlineCallbacks
    def test_unknown(self):
        """
        Traps in a table that cannot be asked are unknown.
        """
        check = yield self.start("Trap", table="traps")
        code, info = yield self.ask(check, self.data())
        self.assertEqual(0, code)
        self.assertIn("traps cannot be asked", info)
