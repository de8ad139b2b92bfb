"""
Tests for who listens on a port.
"""

import os
import socket

import pytest
from twisted.internet import reactor
from twisted.internet.protocol import Factory

from ppolicy import portholder
from ppolicy.errors import ConfigError
from ppolicy.listeners import Tcp, listen


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_holder(family, host):
    """The process that listens is found, for IPv4 and IPv6; one that is only connected is not meant."""
    with socket.create_server((host, 0), family=family) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection((host, port)) as client:
            assert portholder.holder(port).endswith(f", pid {os.getpid()}")
            assert portholder.holder(client.getsockname()[1]) is None
    assert portholder.holder(port) is None


def test_noTime(monkeypatch):
    """Looking for it does not hold anything up."""
    monkeypatch.setattr(portholder, "_SECONDS", -1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert portholder.holder(listening.getsockname()[1]) is None


def test_inUse():
    """A port that is taken is refused with who has it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"127.0.0.1:{port}: Address already in use, by .*, pid {os.getpid()}$"
        ):
            listen(reactor, Tcp("127.0.0.1", port, False), Factory())
