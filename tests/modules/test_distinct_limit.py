"""
Tests for the DistinctLimit check module.
"""

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.errors import BackendError, ConfigError
from ppolicy.rows import encoded
from ppolicy.testing import make, memoryState
from tests.listing import HOSTILE, Listing

USER = {"sasl_username": "alice", "client_address": "192.0.2.1"}


class DistinctLimitTests(SynchronousTestCase):
    """
    Different networks and countries, on a clock.
    """

    memory = False

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.state = memoryState(self.clock)

    def start(self, **parameters):
        given = {"params": "sasl_username", "limit": 2, "memory": self.memory}
        self.limit = make("DistinctLimit", self.state, **given | parameters)
        self.limit.start()

    def codes(self, *addresses, **changes):
        return [self.limit.check({**USER, "client_address": one, **changes})[0] for one in addresses]

    def test_networks(self):
        """
        So many networks are usual; with one more all mail of this user is over, and nobody else's.
        """
        self.start()
        self.assertEqual([-1, -1, -1], self.codes("192.0.2.1", "192.0.2.200", "198.51.100.1"))
        code, info = self.limit.check({**USER, "client_address": "2001:db8::1"})
        self.assertEqual((1, (3, ["2001:db8::/64", "198.51.100.0/24", "192.0.2.0/24"])), (code, info))
        self.assertTrue(info.isNew)
        self.assertEqual([1], self.codes("192.0.2.1"))
        self.assertEqual([-1], self.codes("203.0.113.1", sasl_username="bob"))

    def test_period(self):
        """
        A value counts for the period after it was met last.
        """
        self.start(period=1000)
        self.codes("192.0.2.1")
        self.clock.advance(500)
        self.codes("192.0.2.1", "198.51.100.1")
        self.clock.advance(600)
        self.assertEqual([1], self.codes("203.0.113.1"))
        self.clock.advance(400)
        self.assertEqual([-1], self.codes("203.0.113.1"))

    def test_staysKnown(self):
        """
        What is met all the time is never taken for new.
        """
        self.start(period=1000)
        for _ in range(400):
            self.clock.advance(5)
            self.codes("192.0.2.1")
        _, info = self.limit.check(USER)
        self.assertEqual(((1, ["192.0.2.0/24"]), False), (tuple(info), info.isNew))

    def test_clock(self):
        """
        A clock that is set back keeps no value longer than its period.
        """
        self.start(period=1000)
        self.codes("192.0.2.1", "198.51.100.1")
        self.clock.rightNow -= 86400
        self.assertEqual([1], self.codes("203.0.113.1"))
        self.clock.advance(1001)
        self.assertEqual([-1], self.codes("203.0.113.1"))

    def test_bound(self):
        """
        Only so many values are remembered, the last ones.
        """
        self.start(maxValues=5)
        self.codes(*(f"10.0.{number}.1" for number in range(100)))
        code, info = self.limit.check({**USER, "client_address": "10.0.99.2"})
        self.assertEqual((1, (5, [f"10.0.{number}.0/24" for number in (99, 98, 97, 96, 95)])), (code, info))

    def test_longValues(self):
        """
        A value takes only so much room, and long ones are still told apart.
        """
        self.start(value="helo_name")
        for user, letter, length in (("alice", "x", 80), ("bob", "\udcff", 50)):
            for end in "abc":
                code, info = self.limit.check({**USER, "sasl_username": user, "helo_name": letter * 5000 + end})
            self.assertEqual((1, 3, {length}), (code, info[0], set(map(len, info[1]))))

    def test_largestRow(self):
        """
        The largest row fits into a column of any database.
        """
        self.start(value="helo_name", limit=99, maxValues=100)
        for letter, length in (("\N{PILE OF POO}", 48), ("\N{PILE OF POO}", 78), ("x", 78)):
            for number in range(100):
                code, _ = self.limit.check({**USER, "helo_name": f"{number:02}{letter * length}"})
            self.assertEqual(1, code)
            ((_, row),) = self.limit._counts.scan("*", 1)
            self.assertLess(len(encoded(row)), 1 << 16)

    def test_values(self):
        """
        An attribute, a function, what the policy brings; without a value it is unknown.
        """
        table = [
            ("result_country_info", {"result_country_info": "CZ"}, None, (-1, (1, ["cz"]))),
            ("result_country_info", {"result_country_info": None}, None, (0, (0, []))),
            ("result_country_info", {}, None, (0, (0, []))),
            (lambda data: data["client_address"][:3], {}, None, (-1, (1, ["192"]))),
            ("network:client_address", {}, "DE", (-1, (1, ["de"]))),
            ("network:client_address", {"client_address": ""}, None, (0, (0, []))),
        ]
        for number, (value, changes, argument, expected) in enumerate(table):
            self.start(value=value)
            self.assertEqual(
                expected, self.limit.check({**USER, "sasl_username": str(number), **changes}, argument)
            )

    def test_concerns(self):
        """
        Trusted networks are not counted, nor mail without a login.
        """
        self.start(trusted=["198.51.100.0/24"], logins=True, limit=1)
        self.assertEqual([-1, -1, -1], self.codes("192.0.2.1", "198.51.100.1", "192.0.2.2"))
        self.assertEqual([-1, -1], self.codes("192.0.2.1", "10.0.0.1", sasl_username=""))
        self.assertEqual([1], self.codes("10.0.0.1"))

    def test_wrong(self):
        """
        What cannot work refuses the start.
        """
        for parameters in ({"limit": 50}, {"maxValues": 2}, {"value": "colour:x"}, {"params": []}):
            with self.assertRaises(ConfigError, msg=parameters):
                self.start(**parameters)

    def test_onError(self):
        """
        Without a database the code is the configured one, with a reason.
        """

        class Broken:
            def change(self, *args):
                raise BackendError("database is locked")

        for onError in (0, 1, -1):
            self.start(onError=onError)
            self.limit._counts = Broken()
            code, info = self.limit.check(USER)
            self.assertEqual((onError, (0, [])), (code, info))
            self.assertIn("locked", info.reason)


class MemoryTests(DistinctLimitTests):
    """
    The same in memory alone.
    """

    memory = True

    def test_otherType(self):
        """
        What a check of another type has counted under this name, before a reload, is no obstacle.
        """
        dos = make("DOS", self.state, params="sasl_username", memory=True)
        dos.name = "distinctlimit"
        dos.start()
        dos.check(USER)
        self.start()
        self.assertEqual([-1], self.codes("192.0.2.1"))


class FileTests(Listing):
    """
    On a real SQLite.
    """

    @inlineCallbacks
    def test_commands(self):
        """
        The commands list the values, and reset them.
        """
        limit = yield self.start("DistinctLimit", params="sender", limit=1)
        for address in ("192.0.2.1", "198.51.100.1"):
            yield self.ask(limit, self.data(client_address=address))
        found = yield self.wait(limit.list, "alice*")
        self.assertEqual(
            [
                {
                    "key": "alice@example.net",
                    "number": 2,
                    "limit": "1 in 86400 s",
                    "state": "over",
                    "values": "198.51.100.0/24, 192.0.2.0/24",
                }
            ],
            found["limits"],
        )
        self.assertEqual({"reset": 1}, (yield self.wait(limit.reset, "alice@example.net")))
        self.assertEqual(-1, (yield self.ask(limit, self.data()))[0])

    @inlineCallbacks
    def test_together(self):
        """
        Values that come together are all counted, each once.
        """
        limit = yield self.start("DistinctLimit", params="sender", limit=1)
        addresses = [f"10.0.{number % 20}.1" for number in range(100)]
        yield gatherResults([self.ask(limit, self.data(client_address=address)) for address in addresses])
        code, (number, _) = yield self.ask(limit, self.data(client_address="10.0.0.1"))
        self.assertEqual((1, 20), (code, number))

    @inlineCallbacks
    def test_hostile(self):
        """
        Whatever clients send is kept and told apart.
        """
        limit = yield self.start("DistinctLimit", params="sender", value="helo_name", caseSensitive=True)
        texts = [text for text in HOSTILE if text]
        for text in texts:
            yield self.ask(limit, self.data(sender="x", helo_name=text))
        _, (number, _) = yield self.ask(limit, self.data(sender="x", helo_name=texts[0]))
        self.assertEqual(len(texts), number)
