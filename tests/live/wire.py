"""
The policy protocol as Postfix's documents describe it, for tests that send what Postfix never would: octets on a
socket, the replies they have to get, and a strict reader of what comes back. Nothing here is the server's code.
"""

import select
import socket
import time
import unicodedata

from .policyclient import ATTRIBUTES

# More octets in one request than this, without the blank line, and the server hangs up.
LARGEST = 65536


class NotAReply(AssertionError):
    """
    The server sent something that is no reply.
    """


class Closed(AssertionError):
    """
    The server hung up where a reply was due.
    """


def request(*removed, **more):
    """
    The octets of one request: what Postfix sends, without some attributes, and with others set, as text or octets.
    """
    attributes = {name: value for name, value in (ATTRIBUTES | more).items() if name not in removed}
    return b"".join(octets(name) + b"=" + octets(value) + b"\n" for name, value in attributes.items()) + b"\n"


def octets(value):
    """
    A value as it goes over the wire.
    """
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def blocks(stream):
    """
    The requests in a stream of octets: runs of lines that are not empty, each ended by an empty one.
    """
    found, block = [], []
    *lines, _ = stream.replace(b"\r\n", b"\n").split(b"\n")
    for line in lines:
        if line:
            block.append(line)
        elif block:
            found.append(block)
            block = []
    return found


def longest(stream):
    """
    Octets of the longest request in a stream: beyond L{LARGEST} it is not answered.
    """
    return max((len(b"\n".join(block)) for block in blocks(stream)), default=0)


def attributes(block):
    """
    What a request says: the last of repeated attributes counts, lines without an equals sign do not.
    """
    said = {}
    for line in block:
        name, equals, value = line.partition(b"=")
        if equals:
            said[name] = value
    return said


def isPolicyRequest(said):
    """
    Does it say anything, and either that it is a policy request or nothing of its kind?
    """
    return bool(said) and said.get(b"request", b"smtpd_access_policy") == b"smtpd_access_policy"


def action(reply):
    """
    What one reply, without its blank line, tells Postfix.

    @raises NotAReply: when it is not exactly one well-formed line C{action=...} of UTF-8.
    """
    try:
        text = reply.decode("utf-8")
    except UnicodeDecodeError:
        raise NotAReply(f"no UTF-8: {reply!r}") from None
    name, equals, said = text.partition("=")
    if name != "action" or not equals or not said.strip():
        raise NotAReply(f"no action: {reply!r}")
    if any(unicodedata.category(one) in ("Cc", "Zl", "Zp") for one in said):
        raise NotAReply(f"a control character: {reply!r}")
    if len(reply) > 1000:
        raise NotAReply(f"{len(reply)} octets: {reply[:80]!r}...")
    return said


class Wire:
    """
    One connection to the policy server, for octets of any kind.
    """

    def __init__(self, address, timeout=20):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(timeout)
        self._timeout = timeout
        self._received = b""
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """
        Hang up.
        """
        self.socket.close()

    def reset(self):
        """
        Hang up in a way that the other side sees as an error.
        """
        if self.socket.family == socket.AF_INET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, stream):
        """
        Send octets as they are.
        """
        self.socket.sendall(stream)

    def replies(self, count):
        """
        Read so many actions, and not one octet more.
        """
        return self.talk([], count)

    def ask(self, stream):
        """
        Send one request and return its action.
        """
        (said,) = self.talk([stream], 1)
        return said

    def talk(self, writes, count):
        """
        Send each of some pieces in a write of its own, reading all the while, and return the actions that come:
        so many, and not one octet more.
        """
        writes, found = iter(writes), []
        piece = next(writes, None)
        deadline = time.monotonic() + self._timeout
        while piece is not None or len(found) < count:
            left = max(0, deadline - time.monotonic())
            ready = self._ready(select.POLLIN if piece is None else select.POLLIN | select.POLLOUT, left)
            if not ready:
                raise AssertionError(f"only {len(found)} of {count} replies in {self._timeout} s")
            if ready & ~select.POLLOUT:
                found += self._read()
            if ready & select.POLLOUT:
                piece = piece[self.socket.send(piece, socket.MSG_DONTWAIT) :] or next(writes, None)
        if self._received or self._ready(select.POLLIN, 0):
            more = self._received or self.socket.recv(65536, socket.MSG_PEEK)
            if more:  # else it is the end, after all the replies
                raise NotAReply(f"more than the replies: {more!r}")
        if len(found) != count:
            raise NotAReply(f"{len(found)} replies for {count} requests, the last are {found[count - 3 :]}")
        return found

    def _ready(self, events, seconds):
        # Not select(): it knows no descriptor beyond 1,023.
        poll = select.poll()
        poll.register(self.socket, events)
        return next((found for _, found in poll.poll(seconds * 1000)), 0)

    def _read(self):
        try:
            chunk = self.socket.recv(65536)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise Closed(f"hung up after {self._received!r}")
        *whole, self._received = (self._received + chunk).split(b"\n\n")
        return [action(reply) for reply in whole]

    def expectNothing(self, seconds=0.0):
        """
        Fail when there is more to read, even if it is the end.
        """
        if self._received or self._ready(select.POLLIN, seconds):
            more = self._received or self.socket.recv(65536)
            raise NotAReply(f"more than the replies: {more!r}") if more else Closed("the server hung up")

    def expectEnd(self):
        """
        Fail when anything but the end is to be read.
        """
        try:
            rest = self._received + self.socket.recv(65536)
        except ConnectionResetError:
            rest = self._received
        assert rest == b"", f"the end was due, not {rest!r}"
