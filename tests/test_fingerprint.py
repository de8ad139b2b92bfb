"""
Tests for the connection to p0f, over a transport that is none.
"""

import struct
from ipaddress import ip_address

import pytest
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from ppolicy import fingerprint
from ppolicy.bridge import Bridge
from ppolicy.errors import BackendError
from ppolicy.fingerprint import Fingerprint, Fingerprints, Refused

ONE, TWO = ip_address("192.0.2.1"), ip_address("2001:db8::2")


def answer(status=0x10, name=b"Linux", flavor=b"3.11 and newer", magic=0x50304602, uptime=7):
    """
    An answer as p0f sends it.
    """
    numbers = struct.pack("=7I", 1000, 2000, 3, uptime, 49, 0, 1500)
    texts = b"".join(text.ljust(32, b"\0") for text in (name, flavor, b"", b"", b"Ethernet or modem", b"Czech"))
    return struct.pack("=II", magic, status) + numbers + struct.pack("=hBB", 11, 0, 2) + texts


NOTHING = answer(status=0x20, name=b"", flavor=b"")


class Asking:
    """
    A L{Fingerprints} on a reactor without sockets.
    """

    def __init__(self, folder):
        self.reactor = MemoryReactorClock()
        path = folder / "socket"
        path.touch()
        self.p0f = Fingerprints(Bridge(self.reactor), path)

    def ask(self, address=ONE):
        """
        @return: (a list that will have the result, the Deferred)
        """
        results = []
        done = self.p0f.ask(address)
        return results, done.addBoth(lambda result: results.append(getattr(result, "value", result)))

    def connect(self):
        """
        Have the connection that was begun.
        """
        self.protocol = self.reactor.unixClients[-1][1].buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        return self

    def lose(self):
        """
        The other side closes the connection.
        """
        reason = Failure(ConnectionDone())
        self.protocol.connectionLost(reason)
        self.p0f.clientConnectionLost(None, reason)

    def sent(self):
        """
        The addresses that were asked for.
        """
        octets = self.transport.value()
        assert len(octets) % 21 == 0
        questions = [octets[at : at + 21] for at in range(0, len(octets), 21)]
        for magic, _, _ in map(struct.Struct("=IB16s").unpack, questions):
            assert magic == 0x50304601
        return [str(ip_address(one[5 : 9 if one[4] == 4 else 21])) for one in questions]


@pytest.fixture
def asking(tmp_path):
    """
    A connection is there.
    """
    asking = Asking(tmp_path)
    asking.ask()[1].cancel()
    return asking.connect()


def test_sizes():
    """
    Questions have 21 octets and answers 232, as p0f 3 has them.
    """
    assert len(fingerprint.question(ONE)) == len(fingerprint.question(TWO)) == 21
    assert len(answer()) == 232


def test_fingerprint():
    """
    An answer is a named tuple whose system, version, distance, link and uptime have p0f 2's places.
    """
    found = fingerprint.fingerprint(answer())
    assert found == Fingerprint(
        firstSeen=1000,
        lastSeen=2000,
        connections=3,
        name="Linux",
        flavor="3.11 and newer",
        distance=11,
        link="Ethernet or modem",
        program="",
        programFlavor="",
        language="Czech",
        quality=2,
        mismatch=0,
        lastNAT=0,
        uptime=7,
        uptimeModulo=49,
        lastChange=1500,
    )
    assert (found[3], found[4], found[5], found[6], found[13]) == (
        "Linux",
        "3.11 and newer",
        11,
        "Ethernet or modem",
        7,
    )


@pytest.mark.parametrize(
    ("name", "os", "isWindows"),
    [
        (b"Linux", "Linux", False),
        (b"Windows", "Windows", True),
        (b"Mac OS X", "Mac OS X", False),
        (b"", "unknown", False),
        (b"\x1b[31m\xff\nx\0hidden", "?[31m??x", False),
        (b"W" * 32, "W" * 32, False),
    ],
)
def test_os(name, os, isWindows):
    """
    The system has its name, or is unknown; nothing that cannot be printed is in it.
    """
    found = fingerprint.fingerprint(answer(name=name))
    assert (found.os, found.isWindows) == (os, isWindows)


def test_notSeen():
    """
    An address that p0f has not seen is nothing, a refused question and what is no answer are errors.
    """
    assert fingerprint.fingerprint(NOTHING) is None
    with pytest.raises(Refused):
        fingerprint.fingerprint(answer(status=0))
    with pytest.raises(BackendError):
        fingerprint.fingerprint(answer(status=0x30))
    with pytest.raises(BackendError):
        fingerprint.fingerprint(answer(magic=1))


def test_early(tmp_path):
    """
    Questions from before the connection is there are sent then, but for those that were given up.
    """
    asking = Asking(tmp_path)
    one, _ = asking.ask()
    _, givenUp = asking.ask(ip_address("192.0.2.9"))
    two, _ = asking.ask(TWO)
    givenUp.cancel()
    asking.connect()
    assert asking.sent() == ["192.0.2.1", "2001:db8::2"]
    asking.protocol.dataReceived(NOTHING + answer())
    assert one == [None]
    assert two[0].name == "Linux"
    assert len(asking.reactor.unixClients) == 1


@pytest.mark.parametrize("size", [1, 231, 232, 233, 700])
def test_pieces(asking, size):
    """
    Answers are told apart however they are cut.
    """
    results = [asking.ask()[0] for _ in range(3)]
    octets = answer(uptime=1) + NOTHING + answer(uptime=3)
    for at in range(0, len(octets), size):
        asking.protocol.dataReceived(octets[at : at + size])
    assert [one[0] and one[0].uptime for one in results] == [1, None, 3]


def test_late(asking):
    """
    The answer to a question that was given up is not taken for that to the next one.
    """
    _, givenUp = asking.ask()
    givenUp.cancel()
    following, _ = asking.ask(TWO)
    asking.protocol.dataReceived(answer(name=b"Windows"))
    assert following == []
    asking.protocol.dataReceived(answer(name=b"Linux"))
    assert following[0].name == "Linux"


def test_behind(asking):
    """
    While p0f is silent nothing more is asked, and it is an error at once; when it goes on, all is well.
    """
    first, _ = asking.ask()
    asking.reactor.advance(fingerprint.BEHIND)
    later, _ = asking.ask()
    assert str(later[0]) == "p0f has not answered for 1 s"
    assert len(asking.sent()) == 1
    asking.protocol.dataReceived(answer())
    assert first[0].name == "Linux"
    asking.ask()
    assert len(asking.sent()) == 2


def test_hung(asking):
    """
    A p0f that stays silent loses its connection.
    """
    first, _ = asking.ask()
    asking.reactor.advance(fingerprint.HUNG)
    asking.ask()
    assert asking.transport.disconnecting
    asking.lose()
    assert str(first[0]) == "p0f: it has not answered for 60 s"


def test_bound(asking):
    """
    Only so many questions are on their way, those that were given up included.
    """
    for _ in range(fingerprint.MOST):
        asking.ask()[1].cancel()
    refused, _ = asking.ask()
    assert str(refused[0]) == "100 questions to p0f wait already"
    assert len(asking.sent()) == fingerprint.MOST


def test_boundEarly(tmp_path):
    """
    Only so many questions wait for the connection.
    """
    asking = Asking(tmp_path)
    for _ in range(fingerprint.MOST):
        asking.ask()
    assert isinstance(asking.ask()[0][0], BackendError)


@pytest.mark.parametrize("octets", [b"HTTP", b"x" * 1000, answer(status=7), answer(magic=5), b"\x02F0Q"])
def test_noP0f(asking, octets):
    """
    What does not speak p0f 3 loses the connection, and all questions fail.
    """
    one, _ = asking.ask()
    two, _ = asking.ask()
    asking.protocol.dataReceived(octets)
    assert asking.transport.disconnecting
    asking.lose()
    assert all(isinstance(result[0], BackendError) for result in (one, two))
    assert isinstance(asking.ask()[0][0], BackendError)


def test_unasked(asking):
    """
    An answer without a question ends the connection: which one the next would be for cannot be known.
    """
    asking.protocol.dataReceived(answer())
    assert asking.transport.disconnecting


def test_again(asking):
    """
    After a lost connection questions fail at once for a while, then there is a new connection.
    """
    waiting, _ = asking.ask()
    asking.lose()
    assert isinstance(waiting[0], BackendError)
    failed, _ = asking.ask()
    assert str(failed[0]).startswith("p0f cannot be reached at ")
    assert len(asking.reactor.unixClients) == 1
    asking.reactor.advance(fingerprint.SHORTEST)
    later, _ = asking.ask()
    asking.connect()
    asking.protocol.dataReceived(answer())
    assert later[0].name == "Linux"


def test_backoff(asking):
    """
    While connections fail, the pauses grow, but not beyond five seconds; an answer makes them short again.
    """
    asking.lose()
    pauses = []
    for _ in range(7):
        begun, count = asking.reactor.seconds(), len(asking.reactor.unixClients)
        while len(asking.reactor.unixClients) == count:
            asking.reactor.advance(0.25)
            results, _ = asking.ask()
        pauses.append(asking.reactor.seconds() - begun)
        asking.p0f.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        assert isinstance(results[0], BackendError)
    assert pauses == [0.5, 1, 2, 4, 5, 5, 5]
    asking.reactor.advance(5)
    asking.ask()
    asking.connect()
    asking.protocol.dataReceived(answer())
    asking.lose()
    asking.reactor.advance(fingerprint.SHORTEST)
    assert asking.ask()[0] == []


def test_noSocket(tmp_path):
    """
    Where there is no socket nothing is connected.
    """
    reactor = MemoryReactorClock()
    results = []
    done = Fingerprints(Bridge(reactor), tmp_path / "none").ask(ONE)
    done.addErrback(lambda failure: results.append(str(failure.value)))
    assert results == [f"p0f cannot be reached at {tmp_path / 'none'}: No such file or directory"]
    assert reactor.unixClients == []


def test_stop(asking):
    """
    The connection ends with the check, and who waits is told.
    """
    results, _ = asking.ask()
    asking.p0f.stop()
    assert asking.transport.disconnecting
    asking.lose()
    assert str(results[0]) == "p0f: the check was stopped"


def test_status(tmp_path):
    """A p0f that cannot be reached is a problem; one that has closed the connection is none yet."""
    asking = Asking(tmp_path)
    assert asking.p0f.status() == {
        "problem": None,
        "socket": str(tmp_path / "socket"),
        "connected": False,
        "waiting": 0,
    }
    asking.ask()
    assert asking.p0f.status()["waiting"] == 1
    asking.connect()
    assert asking.p0f.status()["connected"]
    asking.reactor.advance(2)
    assert asking.p0f.status()["problem"] == "p0f has not answered for 2 s"
    asking.protocol.dataReceived(NOTHING)
    assert asking.p0f.status()["problem"] is None
    asking.lose()
    assert asking.p0f.status()["problem"] is None
    (tmp_path / "socket").unlink()
    asking.reactor.advance(10)
    asking.ask()
    assert asking.p0f.status()["problem"].endswith("No such file or directory")
