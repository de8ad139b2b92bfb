"""
Tests for asking whois servers, on a reactor without sockets.
"""

from ipaddress import ip_address

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from ppolicy.bridge import Bridge
from ppolicy.errors import BackendError, DNSTimeout
from ppolicy.mailhosts import Guard
from ppolicy.origin import Origin
from ppolicy.testing import FakeResolver
from ppolicy.whoisclient import OCTETS, SECONDS, WhoisClient

IANA, RIPE, ARIN, THIRD, FOURTH = "9.9.9.1", "9.9.9.2", "9.9.9.3", "9.9.9.4", "9.9.9.5"
RECORDS = {
    "whois.iana.org": {"A": [IANA]},
    "whois.ripe.net": {"A": [RIPE]},
    "whois.arin.net": {"A": [ARIN]},
    "whois.three.example": {"A": [THIRD]},
    "whois.four.example": {"A": [FOURTH]},
    "two.example": {"A": [RIPE, ARIN, THIRD], "AAAA": ["2620:fe::9"]},
    "private.example": {"A": ["10.0.0.1"]},
    "own.example": {"A": ["127.0.0.1"], "AAAA": ["::1"]},
    "mixed.example": {"A": ["192.168.0.1", THIRD]},
    "trouble.example": DNSTimeout("no name server answers"),
}
ANSWER = b"inetnum: 9.2.3.0 - 9.2.3.255\ncountry: CZ\nnetname: EXAMPLE\n"
FOUND = Origin("9.2.3.0/24", "CZ", 0, "EXAMPLE", "ripencc", "")


class Asking:
    """
    A question under way.

    @ivar results: will have the result, or the exception.
    """

    def __init__(self, server="whois.iana.org", allowPrivate=False, address="9.2.3.4"):
        self.reactor = MemoryReactorClock()
        self.bridge = Bridge(self.reactor)
        client = WhoisClient(self.reactor, FakeResolver(RECORDS), Guard([], allowPrivate), server, 43)
        self.results = []
        work = self.bridge.run(client.ask, ip_address(address), timeout=100)
        work.addBoth(lambda result: self.results.append(getattr(result, "value", result)))

    def connections(self):
        """
        (address, port) of all so far.
        """
        return [(one[0], one[1]) for one in self.reactor.tcpClients]

    def begin(self):
        """
        Have the last connection; what was asked.
        """
        self.factory = self.reactor.tcpClients[-1][2]
        self.reactor.connectors[-1].stopConnecting = lambda: None
        self.protocol = self.factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        return self.transport.value()

    def answer(self, octets, reason=None):
        """
        Answer, and close the connection.
        """
        self.begin()
        if octets:
            self.protocol.dataReceived(octets)
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))
        self.reactor.advance(0)
        return self

    def refuse(self):
        """
        The last connection fails.
        """
        self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.advance(0)


def test_referral():
    """
    The first server refers to the registry's, whose answer counts; each is asked in the way it likes.
    """
    asking = Asking()
    assert asking.begin() == b"9.2.3.4\r\n"
    asking.protocol.dataReceived(b"refer: whois.ri")
    asking.protocol.dataReceived(b"pe.net\n\n" + ANSWER.replace(b"CZ", b"US"))
    asking.protocol.connectionLost(Failure(ConnectionDone()))
    asking.reactor.advance(0)
    assert asking.begin() == b"-r 9.2.3.4\r\n"
    asking.answer(ANSWER)
    assert asking.results == [FOUND]
    assert asking.connections() == [(IANA, 43), (RIPE, 43)]
    assert not [call for call in asking.reactor.getDelayedCalls() if call.getTime() > 1]


def test_toItself():
    """
    A server that refers to itself, or back, has the last word.
    """
    asking = Asking().answer(b"refer: whois.ripe.net\n").answer(b"refer: whois.iana.org\n\n" + ANSWER)
    assert asking.results == [FOUND]
    asking = Asking().answer(b"refer: whois.iana.org\n\n" + ANSWER)
    assert asking.results == [FOUND._replace(registry="whois.iana.org")]


def test_tooFar():
    """
    After three referrals it is enough.
    """
    asking = Asking()
    for host in (b"whois.ripe.net", b"whois.arin.net", b"whois.three.example", b"whois.four.example"):
        asking.answer(b"refer: " + host + b"\n\n" + ANSWER)
    assert str(asking.results[0]) == "more than 3 whois servers refer to another one"
    assert len(asking.connections()) == 4


@pytest.mark.parametrize("host", ["private.example", "own.example"])
def test_private(host):
    """
    No server makes us connect to our own network, or ourselves.
    """
    asking = Asking().answer(f"refer: {host}\n".encode())
    assert str(asking.results[0]) == f"{host} has no address that may be asked"
    assert asking.connections() == [(IANA, 43)]


@pytest.mark.parametrize(
    ("server", "allowPrivate", "expected"),
    [
        ("10.0.0.1", False, ["10.0.0.1"]),
        ("127.0.0.1", False, ["127.0.0.1"]),
        ("private.example", False, []),
        ("private.example", True, ["10.0.0.1"]),
        ("own.example", True, []),
        ("own.example", ["127.0.0.0/8"], ["127.0.0.1"]),
        ("mixed.example", False, [THIRD]),
    ],
)
def test_allowed(server, allowPrivate, expected):
    """
    A server given by its address may be anywhere, one given by name only where that is allowed.
    """
    asking = Asking(server, allowPrivate)
    assert [host for host, _ in asking.connections()] == expected
    assert bool(asking.results) != bool(expected)


def test_nextAddress():
    """
    Two addresses of a server are tried, each for half the time.
    """
    asking = Asking("two.example")
    asking.refuse()
    asking.begin()
    asking.reactor.advance(SECONDS / 2)
    asking.reactor.advance(0)
    assert [host for host, _ in asking.connections()] == [RIPE, ARIN]
    # the connection is closed by its connector, which is none here
    assert str(asking.results[0]) == "two.example: no whole answer within 5 s"


def test_refused():
    """
    Where no connection can be made that is said.
    """
    asking = Asking()
    asking.refuse()
    assert str(asking.results[0]).startswith("whois.iana.org: no connection: ")


@pytest.mark.parametrize(
    ("octets", "reason", "text"),
    [
        (b"", None, "whois.iana.org: no answer"),
        (ANSWER, ConnectionLost(), "whois.iana.org: Connection to the other side was lost"),
        (b"\xff\x00rubbish\n" * 1000, None, "the answer of whois.iana.org is not understood"),
        (b"%ERROR:201: access denied for 192.0.2.1\n", None, "the answer of whois.iana.org is not understood"),
    ],
)
def test_trouble(octets, reason, text):
    """
    An answer that is missing, broken off, rubbish or a refusal is trouble.
    """
    (error,) = Asking().answer(octets, reason).results
    assert isinstance(error, BackendError)
    assert str(error).startswith(text)


def test_silence():
    """
    A server that says nothing, or never ends, is given up after ten seconds.
    """
    asking = Asking()
    asking.begin()
    for _ in range(int(SECONDS) - 1):
        asking.reactor.advance(1)
        asking.protocol.dataReceived(ANSWER)
    assert asking.results == []
    asking.reactor.advance(1)
    asking.reactor.advance(0)
    assert str(asking.results[0]) == "whois.iana.org: no whole answer within 10 s"


def test_long():
    """
    No more than 64 KB are read; what is in them counts.
    """
    asking = Asking("9.9.9.9")
    asking.begin()
    asking.protocol.dataReceived(ANSWER + b"\n")
    for _ in range(OCTETS // 1000 + 1):
        asking.protocol.dataReceived(b"x" * 999 + b"\n")
    asking.reactor.advance(0)
    assert asking.results == [FOUND._replace(registry="9.9.9.9")]
    assert asking.transport.disconnecting


def test_nothing():
    """
    That there is nothing is said by the server itself.
    """
    assert Asking().answer(b"%ERROR:101: no entries found\n").results == [None]


def test_dnsTrouble():
    """
    When a server's addresses are not known that is trouble, too.
    """
    assert isinstance(Asking("trouble.example").results[0], DNSTimeout)
