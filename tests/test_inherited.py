"""
Tests for sockets that were passed to the process.
"""

import os
import socket

import pytest

from ppolicy import inherited
from ppolicy.errors import ConfigError
from ppolicy.inherited import Inherited, Passed


@pytest.fixture
def passing():
    """
    Makes L{Passed} sockets; each is closed with the test.
    """
    sockets = []

    def passing(family, address, name="", listen=True):
        one = socket.socket(family)
        sockets.append(one)
        one.bind(address)
        if listen:
            one.listen()
        return Passed(one.fileno(), name)

    yield passing
    for one in sockets:
        one.close()


def test_address(passing):
    """
    A socket for TCP is found by host and port, and by nothing else.
    """
    one = passing(socket.AF_INET, ("127.0.0.1", 0))
    _, port = one.address
    both = Inherited([one])
    assert str(one) == f"127.0.0.1:{port}"
    assert both.at("127.0.0.1", port) is one
    assert both.at("127.0.0.2", port) is None
    assert both.at("::1", port) is None
    assert both.at("127.0.0.1", port + 1) is None
    assert both.file("/run/sock") is None


def test_spelling(passing):
    """
    An IPv6 address may be written in any way.
    """
    one = passing(socket.AF_INET6, ("::1", 0))
    assert Inherited([one]).at("0:0::1", one.address[1]) is one


def test_file(passing, tmp_path):
    """
    A UNIX socket is found by its file, through links too; an abstract one has none.
    """
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    one = passing(socket.AF_UNIX, str(tmp_path / "run/sock"))
    abstract = passing(socket.AF_UNIX, f"\0{tmp_path}/abstract")
    sockets = Inherited([abstract, one])
    assert sockets.file(tmp_path / "var/sock") is one
    assert sockets.file(tmp_path / "abstract") is None
    assert str(abstract) == f"unix:@{tmp_path}/abstract"


@pytest.mark.parametrize(
    "description",
    [
        "systemd:domain=INET:name=policy",
        "systemd:domain=INET:index=1",
        "systemd:INET:index=1",
        "systemd:INET:1",
        "haproxy:systemd:domain=INET:name=policy",
    ],
)
def test_named(passing, tmp_path, description):
    """
    Every way in which Twisted's endpoint strings name a socket of systemd.
    """
    other = passing(socket.AF_UNIX, str(tmp_path / "sock"), "chroot")
    one = passing(socket.AF_INET, ("127.0.0.1", 0), "policy")
    assert Inherited([other, one]).named(description) is one


def test_notNamed(passing):
    """
    Other endpoint strings name none, and one with another domain is a mistake.
    """
    one = Inherited([passing(socket.AF_INET, ("127.0.0.1", 0), "policy")])
    for description in ("tcp:10031", "systemd:domain=INET:name=other", "systemd:domain=INET:index=1"):
        assert one.named(description) is None
    with pytest.raises(ConfigError, match="is of domain=INET$"):
        one.named("systemd:domain=UNIX:name=policy")


def test_leftToChildren(passing):
    """
    No child process gets the socket, and it does not block.
    """
    number = passing(socket.AF_INET, ("127.0.0.1", 0)).number
    assert not os.get_inheritable(number)
    assert not os.get_blocking(number)


def test_useless(passing, tmp_path):
    """
    What does not listen, is no stream, or no socket at all, is refused.
    """
    with pytest.raises(ConfigError, match="does not listen: the socket unit needs"):
        passing(socket.AF_INET, ("127.0.0.1", 0), listen=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, pytest.raises(ConfigError, match="listen"):
        Passed(datagrams.fileno(), "")
    with (tmp_path / "file").open("w") as file, pytest.raises(ConfigError, match="is no socket"):
        Passed(file.fileno(), "")
    with pytest.raises(ConfigError, match="descriptor 987654 is no socket"):
        Passed(987654, "")


@pytest.fixture
def begun(monkeypatch):
    """
    Sets what the process began with.
    """

    def begun(**variables):
        monkeypatch.setattr(inherited, "_begunWith", lambda: variables)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return begun


@pytest.mark.parametrize("variables", [{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "policy"}])
def test_notForUs(begun, variables):
    """
    Without the variables, and with those of another process, there are no sockets; they are gone afterwards.
    """
    begun(**variables)
    assert inherited.take().sockets == []
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


def test_noNumber(begun):
    """
    Variables that make no sense are refused.
    """
    begun(LISTEN_FDS="many", LISTEN_PID=str(os.getpid()))
    with pytest.raises(ConfigError, match="LISTEN_FDS is no number"):
        inherited.take()
