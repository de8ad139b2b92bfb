"""
Tests for the P0f check module: a p0f that says what the test wants.
"""

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from ppolicy.errors import BackendError, ConfigError
from ppolicy.fingerprint import Fingerprint, Fingerprints, Refused
from ppolicy.testing import make, memoryState, waiting

LINUX = Fingerprint(1, 2, 3, "Linux", "3.x", 5, "DSL", "", "", "", 0, 0, 0, 60, 49, 0)


class Fake(Fingerprints):
    """
    @ivar says: a result, an exception, or a Deferred.
    @ivar asked: addresses.
    """

    def __init__(self, says):
        self.says, self.asked = says, []

    def ask(self, address):
        self.asked.append(str(address))
        if isinstance(self.says, Deferred):
            return self.says
        return fail(self.says) if isinstance(self.says, Exception) else succeed(self.says)


def begin(says, client="192.0.2.1", **parameters):
    """
    @return: (a list that will have the result, the clock, the fake)
    """
    state = memoryState()
    check = make("P0f", state, **parameters)
    check.start()
    check._p0f = fake = Fake(says)
    results = []
    work = waiting(state.bridge, check.check, {"client_address": client})
    work.addBoth(lambda result: results.append(getattr(result, "value", result)))
    return results, state.bridge.reactor, fake


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (LINUX, (1, LINUX)),
        (None, (0, "p0f has not seen the client")),
        (BackendError("p0f cannot be reached"), (0, "p0f cannot be reached", 5)),
        (Refused("p0f refuses the question"), (-1, "p0f refuses the question")),
    ],
)
def test_codes(says, expected):
    """
    1 with what p0f has seen, 0 when it has not or cannot be asked, -1 only when it refuses the question.
    """
    assert begin(says)[0] == [expected]


def test_timeout():
    """
    After 200 ms nobody waits any more, and the question is given up.
    """
    givenUp = []
    results, clock, _ = begin(Deferred(givenUp.append))
    clock.advance(0.19)
    assert results == givenUp == []
    clock.advance(0.02)
    clock.advance(0)
    assert results == [(0, "p0f has not answered within 0.2 s", 5)]
    assert len(givenUp) == 1


@pytest.mark.parametrize(
    ("client", "asked"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", None),
        ("unknown", None),
        ("192.0.2.1\0", None),
        ("\udcff", None),
    ],
)
def test_address(client, asked):
    """
    p0f is asked for addresses only, an IPv4 one that is mapped into IPv6 as what it is; all else is unknown.
    """
    results, _, fake = begin(LINUX, client)
    assert fake.asked == ([asked] if asked else [])
    assert results[0][0] == (1 if asked else 0)
    assert make("P0f").hashArg({"client_address": client}) == (asked or 0)


def test_noP0f(tmp_path):
    """
    Without p0f the check starts, answers 0, and stops.
    """
    state = memoryState()
    check = make("P0f", state, socket=str(tmp_path / "p0f.socket"))
    check.start()
    results = []
    waiting(state.bridge, check.check, {"client_address": "192.0.2.1"}).addBoth(results.append)
    check.stop()
    assert results[0][0] == 0
    assert "No such file or directory" in results[0][1]


def test_parameters(tmp_path):
    """
    The parameters of ppolicy 2.7 are taken, a path that no socket can have is not.
    """
    old = {"socket": "/tmp/p0f.socket", "version": "2.0.4", "ip": "192.168.0.1", "port": 1234}
    make("P0f", **old).start()
    with pytest.raises(ConfigError, match="at most 107 octets"):
        make("P0f", socket=f"/{'x' * 107}").start()
