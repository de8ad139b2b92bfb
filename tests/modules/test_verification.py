"""
Tests for the Verification check module: a resolver and mail hosts that say what the test wants.
"""

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from ppolicy.errors import BackendError, ConfigError, DNSTimeout
from ppolicy.smtp import Prober
from ppolicy.smtpsession import Heard
from ppolicy.testing import FakeResolver, make, memoryState

ONE, TWO, THREE = "9.9.9.1", "9.9.9.2", "9.9.9.3"
RECORDS = {
    "one.example": {"A": [ONE]},
    "two.example": {"MX": [(10, "a.example"), (20, "b.example")]},
    "a.example": {"A": [ONE]},
    "b.example": {"A": [TWO]},
    "null.example": {"MX": [(0, "")]},
    "trouble.example": DNSTimeout("no name server answers"),
    "private.example": {"A": ["10.0.0.1"]},
    "loopback.example": {"MX": [(0, "localhost.example")]},
    "localhost.example": {"A": ["127.0.0.1"]},
    "own.example": {"MX": [(0, "us.example")]},
    "us.example": {"A": [THREE]},
}
YES = Heard("RCPT", True, "RCPT: 250 ok", False)
ANY = YES._replace(acceptsAll=True)
UNSURE = YES._replace(acceptsAll=None)
NO = Heard("RCPT", False, "RCPT: 550 5.1.1 unknown")
LATER = Heard("RCPT", None, "RCPT: 450 4.2.0 greylisted")
GREETS = Heard("greeting", True, "greeting: 220 host")
REFUSED = Heard("connection", False, "refuses the connection")
LATE = Heard("connection", None, "no connection: timed out")
LIMIT = Heard("limit", None, "it was asked 30 times in a minute already")


class Hosts(Prober):
    """
    @ivar says: {address: what was L{Heard} there, or a list of it, one after the other}.
    @ivar calls: (address, call) of every question.
    """

    def __init__(self, bridge, says):
        super().__init__(bridge)
        self.says = says
        self.calls = []

    def ask(self, address, call, limits=None, name=""):
        self.calls.append((address, call))
        said = self.says[address]
        if isinstance(said, list):
            said = said.pop(0)
        return said if isinstance(said, Deferred) else succeed(said)


class Asking:
    """
    A check at work.
    """

    def __init__(self, says=None, records=None, state=None, **parameters):
        self.clock = state.bridge.reactor if state else Clock()
        self.state = state or memoryState(self.clock)
        self.bridge = self.state.bridge
        self.check = make(
            "Verification",
            self.state,
            FakeResolver(RECORDS | (records or {})),
            **{"param": "sender", "vtype": "user", "helo": "us.example", "cacheDB": False} | parameters,
        )
        self.hosts = self.check.smtp = Hosts(self.bridge, says or {})
        self.check.start()

    def begin(self, address, timeout=30.0):
        """
        @return: a list that will have the result.
        """
        results = []
        work = self.bridge.run(self.check.check, {"sender": address}, timeout=timeout)
        work.addBoth(lambda result: results.append(getattr(result, "value", result)))
        for _ in range(20):
            self.clock.advance(0)
        return results

    def ask(self, address="alice@one.example"):
        (result,) = self.begin(address)
        return result


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", 1),
        ("postmaster@one.example", 1),
        ("Postmaster@nowhere.example", 1),
        ("postmaster", 1),
        ("alice", -1),
        ("alice@", -1),
        ("a\r\nb@one.example", -1),
        ("a\udcff@one.example", -1),
    ],
)
@pytest.mark.parametrize("vtype", ["mx", "connection", "domain", "user"])
def test_rules(vtype, address, expected):
    """
    The null sender and postmaster are accepted by rule, what is no address is told; nobody is asked.
    """
    asking = Asking(vtype=vtype)
    assert asking.ask(address)[0] == expected
    assert asking.check.hashArg({"sender": address}) == 0
    assert asking.check.dns.asked == asking.hosts.calls == []


def test_noAttribute():
    """
    A request without the attribute is like one with the null sender.
    """
    assert Asking().check.check({}) == (1, "the null sender is accepted")


@pytest.mark.parametrize("vtype", ["mx", "connection", "domain", "user"])
@pytest.mark.parametrize(
    ("domain", "expected", "text"),
    [
        ("null.example", -2, "null.example takes no mail (null MX)"),
        ("nowhere.example", -2, "nowhere.example does not exist"),
        ("trouble.example", 0, "the mail hosts of trouble.example are not known: no name server answers"),
        ("private.example", 0, "its mail hosts have no public address"),
        ("loopback.example", 0, "its mail hosts have no public address"),
    ],
)
def test_noHosts(vtype, domain, expected, text):
    """
    A domain without mail hosts is -2 at any level; what nobody could say, or must not be asked, is unknown.
    """
    assert Asking(vtype=vtype).ask(f"alice@{domain}") == (expected, text)


def test_mx():
    """
    Mail hosts that exist are 2; nobody is connected to, so that our own are good too.
    """
    asking = Asking(vtype="mx")
    assert asking.ask("alice@two.example") == (2, "mail hosts of two.example: a.example, b.example")
    assert asking.ask("alice@own.example") == (2, "mail hosts of own.example: us.example")
    assert asking.hosts.calls == []


@pytest.mark.parametrize("vtype", ["connection", "domain", "user"])
def test_ourselves(vtype):
    """
    We never ask ourselves.
    """
    asking = Asking(vtype=vtype)
    assert asking.ask("alice@own.example") == (0, "this host itself takes its mail")
    assert asking.hosts.calls == []


@pytest.mark.parametrize(
    ("vtype", "heard", "expected"),
    [
        ("connection", GREETS, 3),
        ("connection", Heard("greeting", False, "greeting: 521 no mail"), -3),
        ("connection", Heard("greeting", None, "greeting: 554 no"), 0),
        ("connection", LATE, 0),
        ("domain", UNSURE, 4),
        ("domain", NO, -4),
        ("domain", LATER, 0),
        ("domain", LATE, 0),
        ("user", YES, 5),
        ("user", UNSURE, 5),
        ("user", ANY, 4),
        ("user", NO, -5),
        ("user", LATER, 0),
        ("user", LATE, 0),
        ("user", Heard("EHLO", None, "EHLO: 550 go away"), 0),
        ("user", Heard("MAIL", None, "MAIL: 550 5.1.1 no"), 0),
        ("user", Heard("RCPT", None, "RCPT: 550 5.7.1 relaying denied"), 0),
        ("user", LIMIT, 0),
    ],
)
def test_codes(vtype, heard, expected):
    """
    Each level has its code; what is temporary, late, or about us is unknown.
    """
    result = Asking({ONE: heard}, vtype=vtype).ask()
    assert result[0] == expected
    assert result[1].startswith(f"one.example [{ONE}] {heard.text}")


def test_calls():
    """
    What is asked for at each level.
    """
    asking = Asking({ONE: GREETS}, vtype="connection")
    asking.ask()
    assert asking.hosts.calls[0][1].recipients == ()
    asking = Asking({ONE: UNSURE}, vtype="domain", sender="Probe@us.example", port=2525, startTLS=False)
    asking.ask()
    _, call = asking.hosts.calls[0]
    assert call == (("postmaster@one.example",), "Probe@us.example", "us.example", 2525, False, 30)
    asking = Asking({ONE: YES})
    asking.ask("Alice B@ONE.example")
    first, second = asking.hosts.calls[0][1].recipients
    assert first == '"Alice B"@one.example'
    assert second.endswith("@one.example")
    asking = Asking({ONE: YES}, acceptAll=False)
    asking.ask()
    assert len(asking.hosts.calls[0][1].recipients) == 1


def test_twice():
    """
    A single host is tried twice, but not when it has spoken about the address.
    """
    asking = Asking({ONE: [LATE, YES]})
    assert asking.ask()[0] == 5
    assert len(asking.hosts.calls) == 2
    asking = Asking({ONE: LATE})
    assert asking.ask()[0] == 0
    assert len(asking.hosts.calls) == 2
    asking = Asking({ONE: LATER})
    asking.ask()
    assert len(asking.hosts.calls) == 1


def test_nextHost():
    """
    The next host is asked when the first one cannot be, and not when it only says: later.
    """
    asking = Asking({ONE: LATE, TWO: YES})
    assert asking.ask("alice@two.example") == (5, f"b.example [{TWO}] RCPT: 250 ok")
    asking = Asking({ONE: LATER, TWO: YES})
    assert asking.ask("alice@two.example")[0] == 0
    assert [address for address, _ in asking.hosts.calls] == [ONE]


def test_refused():
    """
    Refused connections count only when all hosts were asked, and others can be reached.
    """
    asking = Asking({ONE: REFUSED, TWO: REFUSED})
    assert asking.ask("alice@two.example")[0] == 0
    asking.hosts.greeted("1.1.1.1")
    assert asking.ask("alice@two.example")[:2] == (-3, f"b.example [{TWO}] refuses the connection")
    asking.clock.advance(601)
    assert asking.ask("bob@two.example")[0] == 0
    asking.hosts.greeted("10.0.0.1")
    assert asking.ask("bob@two.example")[0] == 0
    asking = Asking({ONE: REFUSED, TWO: LATE})
    asking.hosts.greeted("1.1.1.1")
    assert asking.ask("alice@two.example") == (0, f"b.example [{TWO}] {LATE.text}")
    asking = Asking({ONE: REFUSED}, {"b.example": DNSTimeout("late")})
    asking.hosts.greeted("1.1.1.1")
    assert asking.ask("alice@two.example")[0] == 0


def test_notAsked():
    """
    That we did not ask is soon forgotten.
    """
    assert Asking({ONE: LIMIT}).ask()[2] == 30


def test_acceptsAll():
    """
    A domain that takes any address is not asked again for others; one that does not, without the test.
    """
    asking = Asking({ONE: ANY})
    assert asking.ask()[0] == 4
    assert asking.ask("bob@one.example") == (4, "one.example takes mail for any address")
    assert len(asking.hosts.calls) == 1
    asking = Asking({ONE: YES})
    asking.ask()
    asking.ask("bob@one.example")
    assert [len(call.recipients) for _, call in asking.hosts.calls] == [2, 1]
    asking.clock.advance(86401)
    asking.ask("carol@one.example")
    assert len(asking.hosts.calls[-1][1].recipients) == 2


def test_acceptsAllIgnored():
    """
    With acceptAll=False what another check has found out about a domain is not asked for.
    """
    asking = Asking({ONE: UNSURE}, acceptAll=False)
    asking.hosts.remembered.put(("any", 25, "one.example"), True, 1000)
    assert asking.ask()[0] == 5


def test_late():
    """
    A request waits for `timeout` at most, and an answer that comes after that is there for the next one.
    """
    answer = Deferred()
    asking = Asking({ONE: answer}, timeout=5)
    results = asking.begin("alice@one.example")
    assert results == []
    asking.clock.advance(5)
    asking.clock.advance(0)
    assert results == [(0, "no answer yet", 0)]
    answer.callback(NO)
    for _ in range(5):
        asking.clock.advance(0)
    assert asking.ask()[0] == -5
    assert len(asking.hosts.calls) == 1
    asking.clock.advance(3601)
    asking.hosts.says[ONE] = YES
    assert asking.ask()[0] == 5


def test_deadline():
    """
    It gives up before the request's own time is up, so that the policy can go on.
    """
    asking = Asking({ONE: Deferred()}, timeout=20)
    results = asking.begin("alice@one.example", timeout=3.0)
    asking.clock.advance(2.5)
    asking.clock.advance(0)
    assert results == [(0, "no answer yet", 0)]
    results = asking.begin("alice@one.example", timeout=0.3)
    assert results == [(0, "no answer yet", 0)]


def test_once():
    """
    Equal questions under way are asked once.
    """
    answer = Deferred()
    asking = Asking({ONE: answer})
    first, second = asking.begin("alice@one.example"), asking.begin("alice@ONE.example")
    answer.callback(YES)
    for _ in range(5):
        asking.clock.advance(0)
    assert first == second == [(5, f"one.example [{ONE}] RCPT: 250 ok")]
    assert len(asking.hosts.calls) == 1


def test_never():
    """
    A host that never answers does not keep its place for ever.
    """
    asking = Asking({ONE: Deferred()}, timeout=2, hostTimeout=5)
    asking.begin("alice@one.example")
    for _ in range(400):
        asking.clock.advance(0.1)
    assert asking.check._underWay == {}


def test_failure():
    """
    An exception in the work leaves it unknown.
    """
    asking = Asking({})  # no such host: a KeyError
    assert asking.ask()[:2] == (0, "it could not be verified")


def test_database():
    """
    With cacheDB what is known is kept, ten more or less, each sign for its time; unknown is not.
    """
    asking = Asking({ONE: YES, TWO: LATER}, cacheDB=True, dbExpirePositive=1000, dbExpireNegative=100)
    text = f"one.example [{ONE}] RCPT: 250 ok"
    assert asking.ask() == (5, text)
    assert asking.ask() == (15, text)
    again = Asking({ONE: NO}, state=asking.state, cacheDB=True, dbExpirePositive=1000, dbExpireNegative=100)
    assert again.ask() == (15, text)
    asking.clock.advance(1001)
    assert again.ask()[0] == -5
    assert again.ask()[0] == -15
    asking.clock.advance(101)
    again.hosts.says[ONE] = LATER
    assert again.ask()[0] == 0
    assert again.ask()[0] == 0
    assert again.ask("bob@nowhere.example")[0] == -2
    assert again.ask("bob@nowhere.example")[0] == -12
    again.check.vtype = "mx"
    assert again.ask()[0] == 2


def test_databaseAcceptsAll():
    """
    That a domain takes any address is kept there too.
    """
    asking = Asking({ONE: ANY}, cacheDB=True)
    assert asking.ask()[0] == 4
    again = Asking({}, state=asking.state, cacheDB=True)
    assert again.ask("bob@one.example")[0] == 4
    assert again.ask()[0] == 14


@pytest.mark.parametrize("operation", ["get", "put"])
def test_databaseFails(operation):
    """
    Without the database it goes on without it.
    """
    asking = Asking({ONE: YES}, cacheDB=True)

    def fails(*arguments):
        raise BackendError("gone")

    setattr(asking.check._stored, operation, fails)
    assert asking.ask()[0] == 5
    assert len(asking.hosts.calls) == 1
    assert asking.ask()[0] == 5
    assert len(asking.hosts.calls) == 2


def test_databaseEdited():
    """
    A row that is no result is passed over.
    """
    asking = Asking({ONE: YES}, cacheDB=True)
    asking.check._stored.put(("alice@one.example", "user"), {"value": "x y"}, 100)
    assert asking.ask()[0] == 5


def test_hashArg():
    """
    A result is kept for the address at level user, for the domain at others, in any case of the domain.
    """
    user, domain = make("Verification", param="sender", vtype="user"), make("Verification", param="sender")
    assert user.hashArg({"sender": "a@B", "size": "1"}) == user.hashArg({"sender": "a@b", "size": "2"}) == "a@b"
    assert user.hashArg({"sender": "A@b"}) == "A@b"
    assert domain.hashArg({"sender": "a@B"}) == domain.hashArg({"sender": "c@b"}) == "b"


@pytest.mark.parametrize(
    "parameters",
    [
        {"sender": "nobody"},
        {"helo": "a b"},
        {"helo": "a\r\nRSET"},
        {"helo": "ü.example"},
        {"allowPrivate": ["home"]},
        {"vtype": "all"},
        {"port": 0},
        {"timeout": 0},
    ],
)
def test_parameters(parameters):
    """
    Parameters that cannot be refuse the start.
    """
    with pytest.raises(ConfigError):
        make("Verification", param="sender", **parameters).start()


def test_needsTLS(monkeypatch):
    """
    startTLS=True without the library refuses the start and names it; without it the check starts.
    """
    import ppolicy.modules.verification as module

    monkeypatch.setattr(module, "HAS_TLS", False)
    with pytest.raises(ConfigError, match="pyOpenSSL"):
        make("Verification", param="sender", startTLS=True).start()
    make("Verification", param="sender").start()
    monkeypatch.setattr(module, "HAS_TLS", True)
    make("Verification", param="sender", startTLS=True).start()


def test_optionDomain():
    """
    Without helo it says what the option domain has, if that is a full name.
    """

    class Options:
        def getConfig(self, name):
            return {"domain": "mail.example.org"}[name]

    check = make("Verification", param="sender")
    check.factory = Options()
    check.start()
    assert check._helo == "mail.example.org"
