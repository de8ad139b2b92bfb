"""
Tests for pages over HTTP: what programs are answered, and what a hostile one can take.
"""

import tempfile

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from ppolicy import webpages

PEER = IPv4Address("TCP", "127.0.0.1", 4711)


class Pages:
    """Pages without a socket; time is that of C{clock}."""

    def __init__(self):
        self.clock = Clock()
        self.made = 0
        self.factory = webpages.factory(self.clock, {"/number": self._number})
        self.factory.doStart()

    def _number(self):
        self.made += 1
        return 203, "text/plain; version=3", b"number %d\n" % self.made

    def connect(self):
        """A connection: (protocol, transport)."""
        protocol, transport = self.factory.buildProtocol(PEER), _Transport(self.clock)
        protocol.makeConnection(transport)
        transport.protocol = protocol
        return protocol, transport

    def ask(self, request):
        """What comes back for some octets, and whether the connection was closed then."""
        protocol, transport = self.connect()
        protocol.dataReceived(request)
        return transport.value(), transport.disconnecting or transport.aborted


class _Transport(StringTransport):
    """As the reactor has them: who is cut off is told so in the next turn."""

    def __init__(self, clock):
        super().__init__(peerAddress=PEER)
        self._clock = clock
        self.aborted = False

    def abortConnection(self):
        if not self.aborted:
            self.aborted = True
            self._clock.callLater(0, self.protocol.connectionLost, None)


def get(path="/number", method="GET", more="", version="1.1"):
    """A request on the wire."""
    return f"{method} {path} HTTP/{version}\r\nHost: a\r\n{more}\r\n".encode()


def parts(reply):
    """(status code, {header: value}, content) of a reply."""
    head, _, content = reply.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), content


def test_page():
    """A page comes with its code, its type and its length, and the connection is closed."""
    reply, isClosed = Pages().ask(get())
    code, headers, content = parts(reply)
    assert (code, content, isClosed) == (203, b"number 1\n", True)
    assert headers["Content-Type"] == "text/plain; version=3"
    assert headers["Content-Length"] == "9"
    assert headers["Connection"] == "close"


@pytest.mark.parametrize("path", ["/number?a=b&c", "/number"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_forms(path, version):
    """Older clients, and a query, which counts for nothing, are answered alike."""
    reply, isClosed = Pages().ask(get(path, version=version))
    assert (parts(reply)[::2], isClosed) == ((203, b"number 1\n"), True)


def test_head():
    """HEAD has the same headers and no content."""
    reply, isClosed = Pages().ask(get(method="HEAD"))
    code, headers, content = parts(reply)
    assert (code, headers["Content-Length"], content, isClosed) == (203, "9", b"", True)


@pytest.mark.parametrize("path", ["/", "/numbers", "/number/", "//number", "/../number", "/%6eumber"])
def test_unknown(path):
    """Whoever asks for something else is told what there is."""
    pages = Pages()
    reply, isClosed = pages.ask(get(path))
    code, _, content = parts(reply)
    assert (code, content, isClosed) == (404, b"Not here. There is /number.\n", True)
    assert pages.made == 0


@pytest.mark.parametrize(
    ("method", "code"), [("POST", 405), ("PUT", 405), ("OPTIONS", 405), ("get", 405), ("<b>", 400)]
)
def test_otherMethods(method, code):
    """Nothing can be changed."""
    pages = Pages()
    reply, isClosed = pages.ask(get(method=method, more="Content-Length: 2\r\n") + b"ab")
    assert (parts(reply)[0], isClosed) == (code, True)
    assert pages.made == 0
    assert b"<" not in parts(reply)[2]


@pytest.mark.parametrize(
    "request_", [get("/\xff"), b"rubbish\r\n\r\n", b"GET /number\r\n\r\n", b"\x00\xff\r\n\r\n", b"GET / X/1\r\n"]
)
def test_rubbish(request_):
    """What is no HTTP is no page, and costs the connection."""
    pages = Pages()
    reply, isClosed = pages.ask(request_)
    assert isClosed or not reply
    assert b"number" not in reply
    assert pages.made == 0


def test_oneRequest():
    """A second request on the same connection is not answered, whenever it comes."""
    pages = Pages()
    protocol, transport = pages.connect()
    protocol.dataReceived(get() + get())
    protocol.dataReceived(get())
    assert transport.value().count(b"HTTP/1.1") == pages.made == 1


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /" + b"a" * 9_000,
        b"GET /number HTTP/1.1\r\n" + b"".join(b"a%d: b\r\n" % number for number in range(900)),
        get(method="POST", more="Content-Length: 10000000000\r\n"),
        get(method="POST", more="Transfer-Encoding: chunked\r\n") + b"fffffff\r\n",
        get(more="Content-Length: 10000000000\r\n"),
        b"GET /number HTTP/1.1\r\na: b\r\n" + b" c\r\n" * 2000,
    ],
)
def test_huge(begin, monkeypatch):
    """A request of any size is cut off at some KB, without a file for it."""
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    pages = Pages()
    protocol, transport = pages.connect()
    protocol.dataReceived(begin)
    sent = len(begin)
    while not (transport.aborted or transport.disconnecting):
        protocol.dataReceived(b"x" * 1000)
        sent += 1000
        assert sent < 20_000
    assert pages.made == 0


def test_slow():
    """Who sends, or reads, an octet now and then is cut off in time all the same."""
    pages = Pages()
    protocol, transport = pages.connect()
    for octet in get()[:9]:
        protocol.dataReceived(bytes([octet]))
        pages.clock.advance(1)
    assert not transport.aborted
    pages.clock.advance(1)
    assert transport.aborted
    reader, transport = pages.connect()
    reader.dataReceived(get())
    assert transport.disconnecting
    pages.clock.advance(webpages.SECONDS)
    assert transport.aborted


def test_many():
    """Beyond some connections the oldest is closed: who keeps them open cannot keep others out."""
    pages = Pages()
    first, *others = [pages.connect()[1] for _ in range(webpages.CONNECTIONS)]
    assert not first.aborted
    for number in range(200):
        reply, isClosed = pages.ask(get())
        assert (parts(reply)[0], isClosed) == (203, True), number
    assert first.aborted
    assert all(one.aborted for one in others)
    assert len(pages.factory.protocols) == webpages.CONNECTIONS
    pages.clock.advance(webpages.SECONDS)
    pages.clock.advance(0)
    assert len(pages.factory.protocols) == 0
    assert not pages.clock.getDelayedCalls()


def test_idle():
    """Nothing is done while nobody asks."""
    assert not Pages().clock.getDelayedCalls()


def test_closed():
    """Who closes his connection is forgotten."""
    pages = Pages()
    protocol, _ = pages.connect()
    protocol.dataReceived(get())
    protocol.connectionLost(None)
    assert not pages.factory.protocols
    assert not pages.clock.getDelayedCalls()
