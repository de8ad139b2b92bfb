"""
Tests for what systemd is told.
"""

import os
import socket

import pytest

from ppolicy.notify import Supervisor


@pytest.fixture
def manager(tmp_path):
    """
    The socket that systemd would listen on.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.bind(str(tmp_path / "notify"))
        yield one


def test_nobodyListens():
    """
    Without NOTIFY_SOCKET nothing is said, and no time is kept.
    """
    one = Supervisor({"WATCHDOG_USEC": "1000000"})
    one.ready("here")
    one.alive("here")
    one.stopping(5)
    assert one.interval is None


def test_messages(manager):
    """
    Each state is one message; the status is only said again when it has changed.
    """
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "PATH": "/bin"}
    one = Supervisor(environment)
    assert environment == {"PATH": "/bin"}
    one.ready("one connection")
    one.alive("one connection")
    one.alive("two connections")
    one.stopping(2.5)
    said = [manager.recv(4096).decode() for _ in range(3)]
    assert said == [
        "READY=1\nSTATUS=one connection",
        "STATUS=two connections",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000\nSTATUS=answering what runs",
    ]


@pytest.mark.parametrize(
    ("owner", "microseconds", "interval", "watched"),
    [
        ("us", "2000000", 1.0, True),
        ("", "2000000", 1.0, True),
        ("us", "60000000", 10.0, True),
        ("1", "2000000", 10.0, False),
        ("", "0", 10.0, False),
        ("", "soon", 10.0, False),
    ],
)
def test_watchdog(manager, owner, microseconds, interval, watched):
    """
    The watchdog hears in half its time, when it watches this process.
    """
    address = manager.getsockname()
    pid = owner.replace("us", str(os.getpid()))
    one = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid})
    assert one.interval == interval
    one.ready("here")
    one.alive("here")
    one.alive("there")
    manager.recv(4096)
    assert manager.recv(4096) == (b"WATCHDOG=1" if watched else b"STATUS=there")


def test_saidLater(manager, tmp_path):
    """
    A state that could not be said, because systemd did not listen, is said with the next occasion.
    """
    one = Supervisor({"NOTIFY_SOCKET": manager.getsockname()})
    (tmp_path / "notify").rename(tmp_path / "away")
    one.ready("here")
    one.alive("here")
    (tmp_path / "away").rename(tmp_path / "notify")
    one.alive("here")
    assert manager.recv(4096) == b"READY=1\nSTATUS=here"


def test_neverBlocks(manager):
    """
    A systemd that does not read holds nobody up.
    """
    one = Supervisor({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"})
    for number in range(5000):
        one.alive(f"status {number}")
    assert manager.recv(4096) == b"WATCHDOG=1\nSTATUS=status 0"
