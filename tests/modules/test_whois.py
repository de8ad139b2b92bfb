"""
Tests for the Whois check module: a DNS, a whois client and a clock that do what the test wants.
"""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ppolicy.bridge import wait
from ppolicy.errors import BackendError, ConfigError, DNSTimeout
from ppolicy.origin import Origin
from ppolicy.testing import FakeResolver, make, memoryState

NAME, OTHER = "4.3.2.9.origin.asn.cymru.com", "5.3.2.9.origin.asn.cymru.com"
RECORDS = {
    NAME: {"TXT": [(b"64496 | 9.2.0.0/16 | CZ | ripencc | 2003-02-01",)]},
    "as64496.asn.cymru.com": {"TXT": [(b"64496 | CZ | ripencc | 2004-01-15 | EXAMPLE-AS, CZ",)]},
}
NONE = {"8.8.8.8.origin.asn.cymru.com": {"TXT": [(b"15169 | 8.8.8.0/24 | US | arin |",)]}}
DNS = Origin("9.2.0.0/16", "CZ", 64496, "EXAMPLE-AS", "ripencc", "2003-02-01")
WHOIS = Origin("9.2.3.0/24", "SK", 0, "Example s.r.o.", "ripencc", "")
NOT_YET = (0, "not known yet", 0)
PRIVATE = (-1, "it is a private or reserved address")
NOTHING = (-1, "nobody knows this address")


class Client:
    """
    A whois client.

    @ivar says: an L{Origin}, None, an exception, or a Deferred of it.
    """

    def __init__(self, says):
        self.says, self.asked = says, []

    def ask(self, address):
        self.asked.append(str(address))
        said = wait(self.says) if isinstance(self.says, Deferred) else self.says
        if isinstance(said, Exception):
            raise said
        return said


class Asking:
    """
    A check at work.
    """

    def __init__(self, records=RECORDS, whois=WHOIS, state=None, **parameters):
        self.state = state or memoryState(Clock())
        self.clock = self.state.bridge.reactor
        self.dns = FakeResolver(records)
        self.check = make("Whois", self.state, self.dns, **parameters)
        self.check.start()
        self.check._client = self.client = Client(whois)

    def begin(self, client="9.2.3.4", timeout=30.0, **attributes):
        """
        @return: a list that will have the result.
        """
        results = []
        data = {"client_address": client, **attributes}
        work = self.state.bridge.run(self.check.check, data, timeout=timeout)
        work.addBoth(lambda result: results.append(getattr(result, "value", result)))
        for _ in range(5):
            self.clock.advance(0)
        return results

    def ask(self, *arguments, **keywords):
        (result,) = self.begin(*arguments, **keywords)
        return result


def test_background():
    """
    The first request from a network gets 0, the question is asked in the background, later ones get the answer.
    """
    asking = Asking()
    assert asking.ask() == NOT_YET
    assert asking.ask() == (1, DNS)
    assert asking.ask("9.2.3.99") == (1, DNS)
    assert asking.dns.asked == [(NAME, "TXT"), ("as64496.asn.cymru.com", "TXT")]
    assert asking.client.asked == []


def test_wait():
    """
    A request that may wait gets the answer itself.
    """
    assert Asking(wait=5).ask() == (1, DNS)


def test_waitNotForever():
    """
    It waits as long as it may, and the answer is there for the next one.
    """
    says = Deferred()
    asking = Asking(source="whois", whois=says, wait=5)
    results = asking.begin()
    asking.clock.advance(4.9)
    assert results == []
    asking.clock.advance(0.2)
    asking.clock.advance(0)
    assert results == [NOT_YET]
    says.callback(WHOIS)
    asking.clock.advance(0)
    assert asking.ask() == (1, WHOIS)
    assert asking.client.asked == ["9.2.3.4"]


def test_deadline():
    """
    It never waits until the request's own deadline.
    """
    asking = Asking(source="whois", whois=Deferred(), wait=60)
    results = asking.begin(timeout=2)
    asking.clock.advance(1.6)
    asking.clock.advance(0)
    assert results == [NOT_YET]


def test_try():
    """
    A request that is only tried waits: nobody's mail is kept waiting.
    """
    asking = Asking()
    asking.check.dryRun = True
    assert asking.ask() == (1, DNS)


@pytest.mark.parametrize(
    ("client", "expected", "key"),
    [
        ("10.1.2.3", PRIVATE, "private"),
        ("127.0.0.1", PRIVATE, "private"),
        ("192.0.2.1", PRIVATE, "private"),
        ("224.0.0.1", PRIVATE, "private"),
        ("::1", PRIVATE, "private"),
        ("fe80::1", PRIVATE, "private"),
        ("2001:db8::1", PRIVATE, "private"),
        ("::ffff:10.1.2.3", PRIVATE, "private"),
        ("", (0, "it is no IP address", 0), 0),
        ("unknown", (0, "it is no IP address", 0), 0),
        ("9.2.3.4\n", (0, "it is no IP address", 0), 0),
        ("\udcff", (0, "it is no IP address", 0), 0),
    ],
)
def test_unasked(client, expected, key):
    """
    Nobody is asked for private addresses, which are -1, and for what is no address, which is unknown.
    """
    asking = Asking(wait=5, source="both")
    assert asking.ask(client) == expected
    assert asking.check.hashArg({"client_address": client}) == key
    assert asking.dns.asked == asking.client.asked == []


@pytest.mark.parametrize(
    ("source", "client", "expected"),
    [
        ("dns", "9.2.3.4", "9.2.3.0/24"),
        ("dns", "::ffff:9.2.3.4", "9.2.3.0/24"),
        ("dns", "2620:fe::fe", "2620:fe::/48"),
        ("whois", "9.2.3.4", "9.2.3.4/32"),
        ("both", "9.2.3.4", "9.2.3.4/32"),
        ("whois", "2620:fe::fe", "2620:fe::/64"),
    ],
)
def test_hashArg(source, client, expected):
    """
    By the DNS an answer holds for the smallest network that is announced, by whois for the address.
    """
    assert make("Whois", source=source).hashArg({"client_address": client}) == expected


TROUBLE, LATE = BackendError("no connection"), {NAME: DNSTimeout("late")}


@pytest.mark.parametrize(
    ("source", "records", "whois", "expected"),
    [
        ("dns", RECORDS, WHOIS, (1, DNS)),
        ("dns", NONE, WHOIS, NOTHING),
        ("dns", {}, WHOIS, (0, "origin.asn.cymru.com has nothing for any address", 0)),
        ("dns", LATE, WHOIS, (0, "late", 0)),
        ("dns", {NAME: {"TXT": [(b"x",)]}}, WHOIS, (0, "Team Cymru's answer is not understood", 0)),
        ("whois", RECORDS, WHOIS, (1, WHOIS)),
        ("whois", RECORDS, None, NOTHING),
        ("whois", RECORDS, TROUBLE, (0, "no connection", 0)),
        ("both", RECORDS, WHOIS, (1, DNS)),
        ("both", NONE, WHOIS, (1, WHOIS)),
        ("both", LATE, WHOIS, (1, WHOIS)),
        ("both", NONE, None, NOTHING),
        ("both", LATE, None, (0, "late", 0)),
        ("both", NONE, TROUBLE, (0, "no connection", 0)),
        ("both", LATE, TROUBLE, (0, "late; no connection", 0)),
    ],
)
def test_sources(source, records, whois, expected):
    """
    Trouble is unknown; only where all who are asked say that there is nothing, there is nothing.
    """
    assert Asking(records, whois, source=source, wait=5).ask() == expected


@pytest.mark.parametrize(("records", "expected"), [(RECORDS, (1, DNS)), (NONE, NOTHING)])
def test_kept(records, expected):
    """
    What is known is in the database: a server that starts again knows it, until its time is up.
    """
    state = memoryState()
    assert Asking(records, state=state, wait=5).ask() == expected
    later = Asking({}, state=state)
    assert later.ask() == expected
    assert later.dns.asked == []
    state.bridge.reactor.advance(604801)
    assert later.ask() == NOT_YET


def test_keptBySource():
    """
    What the DNS says is not taken for what whois says.
    """
    state = memoryState()
    Asking(state=state, wait=5).ask()
    assert Asking(state=state, source="whois", wait=5).ask() == (1, WHOIS)


def test_edited():
    """
    What somebody else has written into the table is asked for anew.
    """
    state = memoryState()
    asking = Asking(state=state, wait=5)
    state.bridge.run(asking.check._stored.put, ("9.2.3.0/24", "dns"), {"value": "[1]"}, 600)
    assert asking.ask() == (1, DNS)


class Down:
    """
    A table whose database does not answer.
    """

    def get(self, *_):
        raise BackendError("the database does not answer")

    put = get


def test_databaseDown():
    """
    Without the database it is asked all the same, and remembered.
    """
    asking = Asking(wait=5)
    asking.check._stored = Down()
    assert asking.ask() == (1, DNS)
    assert asking.ask("9.2.3.5") == (1, DNS)
    assert len(asking.dns.asked) == 2


def test_trouble():
    """
    After trouble nobody is asked for a minute.
    """
    asking = Asking(LATE, wait=5)
    for _ in range(3):
        assert asking.ask() == (0, "late", 0)
    assert len(asking.dns.asked) == 1
    asking.clock.advance(61)
    asking.ask()
    assert len(asking.dns.asked) == 2


def test_perMinute():
    """
    Only so many questions are asked in a minute, the others wait, and too many are not taken.
    """
    asking = Asking(NONE, perMinute=2, queue=3)
    codes = [asking.ask(f"9.2.{number}.1") for number in range(6)]
    assert codes == [NOT_YET] * 5 + [(0, "3 addresses wait to be asked for already", 0)]
    assert asked(asking) == 2
    asking.clock.advance(60)
    asking.clock.advance(0)
    assert asked(asking) == 4
    asking.check.stop()
    asking.clock.advance(120)
    assert asked(asking) == 4


def asked(asking):
    """
    How many addresses were asked for so far.
    """
    return len([name for name, _ in asking.dns.asked if name not in NONE])


def test_param():
    """
    Any attribute may hold the address.
    """
    asking = Asking(param="server_address", wait=5)
    assert asking.ask("10.0.0.1", server_address="9.2.3.4") == (1, DNS)
    assert make("Whois", param="server_address").hashArg({"client_address": "9.2.3.4"}) == 0


@pytest.mark.parametrize(
    ("parameters", "mistake"),
    [
        ({"server": "two words"}, "server must be"),
        ({"server": ""}, "server must be"),
        ({"allowPrivate": ["x"]}, "allowPrivate: "),
        ({"source": "guess"}, "source"),
        ({"perMinute": 0}, "perMinute"),
    ],
)
def test_mistakes(parameters, mistake):
    """
    Parameters that cannot be worked with refuse the start.
    """
    with pytest.raises(ConfigError, match=mistake):
        make("Whois", **parameters).start()


def test_status():
    """
    That the last question had no answer is a problem; an answer ends it.
    """
    asking = Asking(LATE, wait=5)
    asking.ask()
    assert asking.check.status() == {"problem": "late", "source": "dns", "underWay": 0, "waiting": 0}
    asking.dns.records = RECORDS
    asking.clock.advance(61)
    asking.ask()
    assert asking.check.status()["problem"] is None
