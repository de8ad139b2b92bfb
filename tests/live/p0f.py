"""
A real p0f for the tests, which watches loopback, and TCP connections for it to see.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = "/usr/sbin/p0f"


class P0f:
    """
    A p0f that sees the connections made with C{connect()}; its socket has the same path over restarts.
    """

    def __init__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="ppolicy-p0f-"))
        self.socket = self._folder / "socket"
        self._log = self._folder / "log"
        self._process = None
        self._listeners = {
            4: socket.create_server(("127.0.0.1", 0)),
            6: socket.create_server(("::1", 0), family=socket.AF_INET6),
        }

    def start(self):
        """
        Start, and wait until it watches.
        """
        assert self._process is None
        ports = " or ".join(f"tcp port {one.getsockname()[1]}" for one in self._listeners.values())
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-i", "lo", "-s", str(self.socket), ports],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"p0f does not run:\n{self.log()}")
            time.sleep(0.02)
        return self

    def _answers(self):
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

    def freeze(self):
        """
        Let it hang: questions are taken by the system, but not answered.
        """
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """
        Let it go on after `freeze()`.
        """
        self._process.send_signal(signal.SIGCONT)

    def kill(self):
        """
        Stop without any warning.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self):
        """
        Leave nothing behind: no process, no files.
        """
        self.kill()
        for one in self._listeners.values():
            one.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self):
        """
        What it has printed, over all starts.
        """
        return self._log.read_text(encoding="utf-8", errors="backslashreplace")


def missing():
    """
    What is not there that this needs, None when all is.
    """
    if os.geteuid() != 0:
        return "p0f needs root to watch the network"
    return None if Path(PROGRAM).exists() else f"{PROGRAM} is missing (Debian package p0f)"
