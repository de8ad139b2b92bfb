"""
Policy servers whose listening sockets somebody else holds, as systemd does for a socket unit, and who are watched.
"""

import os
import socket
import sys
import threading
import time

from .policyserver import Server

# The sockets are descriptors 3 and up, and LISTEN_PID is the process that is started: sd_listen_fds(3).
AS_SYSTEMD = """
import os, sys
numbers, names, watched, *command = sys.argv[1:]
kept = [os.dup2(int(number), 100 + index) for index, number in enumerate(numbers.split(","))]
for index, number in enumerate(kept):
    os.dup2(number, 3 + index)
    os.close(number)
pid = str(os.getpid())
os.environ.update(LISTEN_PID=pid, LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES=names)
os.environ["WATCHDOG_PID"] = watched or pid
if not names:
    del os.environ["LISTEN_FDNAMES"]
os.execv(command[0], command)
"""


class Activated(Server):
    """
    A server that is given its sockets; they stay open over its restarts, until `close()`.

    @param sockets: listening ones; by default one on the address that `self.address` names.
    """

    def __init__(self, *sockets, names=()):
        super().__init__()
        self.sockets = sockets or (socket.create_server(self.address, backlog=1024),)
        self.names = names
        self.environment = {}
        self.checkout = None
        self.watchdogPid = ""
        self.under = []  # a program that runs the server
        self.program = ["-m", "ppolicy", "run", "-c", str(self.configuration)]

    def command(self):
        numbers = ",".join(str(one.fileno()) for one in self.sockets)
        shim = [sys.executable, "-I", "-S", "-c", AS_SYSTEMD, numbers, ":".join(self.names), str(self.watchdogPid)]
        return [*shim, *self.under, sys.executable, *self.program]

    def surroundings(self):
        return {
            "pass_fds": [one.fileno() for one in self.sockets],
            "env": os.environ | self.environment,
            "cwd": self.checkout,
        }

    def restart(self):
        """
        As `systemctl restart`. Returns the seconds from SIGTERM to the answer to a request that was sent then.
        """
        begin = time.monotonic()
        answered = []

        def ask():
            answered.append((self.request(), time.monotonic() - begin))

        self.terminate()
        asking = threading.Thread(target=ask)
        asking.start()
        self.start()
        asking.join()
        return answered[0][1]

    def close(self):
        super().close()
        for one in self.sockets:
            one.close()


class Listener:
    """
    The other end of sd_notify(3): what a server says, each message with its time.
    """

    def __init__(self, folder, abstract=False):
        name = f"{folder}/notify"
        self.address = f"@{name}" if abstract else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name if abstract else name)
        self.messages = []
        self._changed = threading.Condition()
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        while True:
            try:
                text = self._socket.recv(4096).decode()
            except OSError:
                return
            if not text:
                return
            with self._changed:
                self.messages.append((time.monotonic(), text.split("\n")))
                self._changed.notify_all()

    def states(self):
        """
        All that was said but WATCHDOG= and lone STATUS=, the first line of each message.
        """
        return [lines[0] for _, lines in self.messages if not lines[0].startswith(("WATCHDOG", "STATUS"))]

    def wait(self, state, count=1, timeout=15):
        """
        Wait until a state was told so many times; the message.
        """

        def found():
            told = [lines for _, lines in self.messages if lines[0] == state]
            return told[count - 1] if len(told) >= count else None

        with self._changed:
            lines = self._changed.wait_for(found, timeout)
        assert lines, f"{state} was not told {count} times: {self.messages}"
        return lines

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
