"""
What systemd is told about the server (sd_notify(3)): ready, reloading, stopping, a line for its status, and that
it is alive (WatchdogSec=).
"""

import os
import socket
import time

# Seconds between two looks at whether the status has changed, without a watchdog.
_STATUS = 10.0


class Supervisor:
    """
    Tells it as datagrams to C{$NOTIFY_SOCKET}. Never blocks, never raises; without that variable it does nothing.

    @param environment: the variables are taken out of it, so that no child process speaks for this one.
    @ivar interval: seconds from one L{alive} to the next; None where nobody listens.
    """

    def __init__(self, environment=os.environ):
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        owner = environment.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watched = False
        self._status = None
        self._owed = None
        self.interval = None
        if not address.startswith(("/", "@")):
            return
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        self.interval = _STATUS
        if microseconds.isdecimal() and int(microseconds) and owner in ("", str(os.getpid())):
            self._watched = True
            self.interval = min(int(microseconds) / 2e6, _STATUS)

    def ready(self, status):
        """
        The server serves, for the first time or after a reload.
        """
        self._status = status
        self._tell("READY=1", f"STATUS={status}", state=True)

    def reloading(self):
        """
        A reload begins; L{ready} ends it.
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", state=True)

    def stopping(self, seconds):
        """
        The server ends, within so many seconds.
        """
        self._tell(
            "STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", "STATUS=answering what runs", state=True
        )

    def alive(self, status):
        """
        The reactor turns. Said every L{interval}, else systemd ends the server and starts it anew.
        """
        if self._owed is not None:
            self._tell(*self._owed, state=True)
        lines = ["WATCHDOG=1"] if self._watched else []
        if status != self._status:
            lines.append(f"STATUS={status}")
        if lines and self._tell(*lines):
            self._status = status

    def _tell(self, *lines, state=False):
        """
        @param state: what cannot be sent now, because too much waits there already, is said again later.
        @return: whether it was sent.
        """
        if self.interval is None:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError:
            if state:
                self._owed = lines
            return False
        if state:
            self._owed = None
        return True
