"""
Receivers of syslog messages for tests, after the RFCs and not after the server's code: they take exactly what a
message and its transport have to look like.
"""

import contextlib
import re
import socket
import threading
import time
from collections import namedtuple
from pathlib import Path

# RFC 5424 6
_MESSAGE = re.compile(
    rb"<(0|[1-9][0-9]{0,2})>([1-9][0-9]{0,2}) "
    rb"(-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)) "
    rb"([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) (-)(?: (.*))?",
    re.DOTALL,
)
_MARK = b"\xef\xbb\xbf"
# <asm-generic/socket.h>; Python has no name for it.
_RCVBUFFORCE = 33

Message = namedtuple("Message", "pri version time hostname app procid msgid data msg")


def parsed(octets):
    """
    A message; its C{msg} as text, without the mark that a text in UTF-8 begins with.
    """
    match = _MESSAGE.fullmatch(octets)
    assert match, f"no message: {octets[:200]!r}"
    *header, msg = match.groups()
    if msg.startswith(_MARK):
        msg = msg.removeprefix(_MARK)
        assert not msg.isascii()
    else:
        assert msg.isascii(), f"no mark: {msg[:200]!r}"
    return Message(*(one.decode() for one in header), msg.decode("utf-8"))


class Receiver:
    """
    Listens in a thread; what comes is in C{octets}, one message each, in its order.

    @ivar target: for the option logTarget.
    @ivar wrong: what was no frame.
    """

    def __init__(self, kind, folder):
        self.kind = kind
        self.octets, self.wrong = [], []
        self._path = str(folder / f"{kind}.sock")
        self._port = None
        self._sockets, self._threads = [], []
        self._ended = False
        self.start()
        where = self._path if kind in ("unix", "stream") else f"127.0.0.1:{self._port}"
        self.target = f"syslog:{'unix' if kind in ('unix', 'stream') else kind}:{where}"

    def start(self):
        """
        Listen, on the same address as before.
        """
        self._ended = False
        made = socket.socket(
            socket.AF_UNIX if self.kind in ("unix", "stream") else socket.AF_INET,
            socket.SOCK_STREAM if self.kind in ("tcp", "stream") else socket.SOCK_DGRAM,
        )
        if made.family == socket.AF_INET:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("127.0.0.1", self._port or 0))
            self._port = made.getsockname()[1]
        else:
            made.bind(self._path)
        if made.type == socket.SOCK_STREAM:
            made.listen()
            self._run(self._accept, made)
        else:
            with contextlib.suppress(PermissionError):
                made.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 1 << 26)  # as root
            self._run(self._receive, made)

    def messages(self):
        """
        What has come, parsed.
        """
        assert not self.wrong, self.wrong
        return [parsed(one) for one in self.octets]

    def wait(self, count, seconds=20):
        """
        The messages once there are so many.
        """
        deadline = time.monotonic() + seconds
        while len(self.octets) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.messages()

    def stop(self):
        """
        Listen no more, and end the connections.
        """
        self._ended = True
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for one in self._threads:
            one.join(5)
        for one in self._sockets:
            one.close()
        self._sockets.clear()
        self._threads.clear()
        if self.kind in ("unix", "stream"):
            with contextlib.suppress(FileNotFoundError):
                Path(self._path).unlink()

    def _run(self, function, made):
        made.settimeout(0.2)
        self._sockets.append(made)
        thread = threading.Thread(target=function, args=(made,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _receive(self, made):
        while not self._ended:
            with contextlib.suppress(TimeoutError):
                try:
                    octets = made.recv(65536)
                except OSError as error:
                    if isinstance(error, TimeoutError):
                        raise
                    return
                if octets:
                    self.octets.append(octets)

    def _accept(self, made):
        while not self._ended:
            with contextlib.suppress(TimeoutError):
                try:
                    connection = made.accept()[0]
                except OSError as error:
                    if isinstance(error, TimeoutError):
                        raise
                    return
                self._run(self._read, connection)

    def _read(self, made):
        frames = self._counted if self.kind == "tcp" else self._lines
        rest = b""
        while not self._ended:
            try:
                octets = made.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return
            if not octets:
                break
            rest = frames(rest + octets)
        if rest:
            self.wrong.append(f"the end within a frame: {rest[:100]!r}")

    def _counted(self, octets):
        """
        RFC 6587 3.4.1
        """
        while match := re.match(rb"([1-9][0-9]{0,6}) ", octets):
            begin, length = match.end(), int(match[1])
            if len(octets) < begin + length:
                return octets
            self.octets.append(octets[begin : begin + length])
            octets = octets[begin + length :]
        if octets and not re.fullmatch(rb"[1-9][0-9]{0,6}", octets):
            self.wrong.append(f"no frame: {octets[:100]!r}")
        return octets

    def _lines(self, octets):
        """
        RFC 6587 3.4.2
        """
        *whole, rest = octets.split(b"\n")
        self.octets += whole
        return rest
