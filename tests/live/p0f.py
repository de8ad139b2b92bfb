"""
A real p0f for the tests, which watches loopback, and TCP connections for it to see.
"""

import os
import socket
from pathlib import Path

from .daemon import Daemon

PROGRAM = "/usr/sbin/p0f"


class P0f(Daemon):
    """
    A p0f that sees the connections made with C{connect()}; its socket has the same path over restarts.
    """

    def __init__(self):
        super().__init__("p0f")
        self.socket = self.folder / "socket"
        self._listeners = {
            4: socket.create_server(("127.0.0.1", 0)),
            6: socket.create_server(("::1", 0), family=socket.AF_INET6),
        }

    def command(self):
        ports = " or ".join(f"tcp port {one.getsockname()[1]}" for one in self._listeners.values())
        return [PROGRAM, "-i", "lo", "-s", str(self.socket), ports]

    def isReady(self):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
            return True

    def connect(self, address):
        """
        Connect from an address of loopback to an open port, so that p0f sees it.
        """
        version = 6 if ":" in address else 4
        listener = self._listeners[version]
        target = listener.getsockname()[:2]
        client = socket.create_connection(target, timeout=5, source_address=(address, 0))
        accepted, _ = listener.accept()
        accepted.close()
        client.close()

    def close(self):
        for one in self._listeners.values():
            one.close()
        super().close()


def missing():
    """
    What is not there that this needs, None when all is.
    """
    if os.geteuid() != 0:
        return "p0f needs root to watch the network"
    return None if Path(PROGRAM).exists() else f"{PROGRAM} is missing (Debian package p0f)"
