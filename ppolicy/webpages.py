"""
A few pages over HTTP, for programs of this host. Whoever can connect may be hostile: a connection is for one
request, of a bounded size and in bounded time, and only so many are open at once.
"""

from io import BytesIO

from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

# What a connection may take: seconds, the reading of the page included, and octets of the request.
SECONDS = 10.0
OCTETS = 16_384
# How many are open at once; beyond them the oldest is closed, which has had the most time.
CONNECTIONS = 20
TEXT = "text/plain; charset=utf-8"


def factory(reactor, pages):
    """
    @param pages: {path: function that gives (code, content type, octets)}.
    @return: a protocol factory, for L{ppolicy.listeners.listen}.
    """
    return _Bounded(reactor, _Site(_Pages(pages), requestFactory=_Request, timeout=None, reactor=reactor))


class _Pages(Resource):
    isLeaf = True

    def __init__(self, pages):
        super().__init__()
        self._pages = pages

    def render(self, request):
        isKnown = request.method in (b"GET", b"HEAD")
        make = self._pages.get(request.path.decode("latin-1"), self._nothing) if isKnown else _unchangeable
        code, kind, content = make()
        request.setResponseCode(code)
        request.setHeader("Content-Type", kind)
        request.setHeader("Content-Length", str(len(content)))
        return b"" if request.method == b"HEAD" else content

    def _nothing(self):
        return 404, TEXT, f"Not here. There is {', '.join(self._pages)}.\n".encode()


def _unchangeable():
    return 405, TEXT, b"There is only GET and HEAD.\n"


class _Request(Request):
    """
    The only one of its connection.
    """

    def gotLength(self, length):
        self.content = BytesIO()  # Twisted would have a file for a long one

    def requestReceived(self, command, path, version):
        self.channel.persistent = False
        self.setHeader("Connection", "close")
        super().requestReceived(command, path, version)


class _Site(Site):
    """
    Without a log, and without the clock for it.
    """

    noisy = False

    def startFactory(self):
        pass

    def stopFactory(self):
        pass

    def log(self, request):
        pass


class _Connection(ProtocolWrapper):
    """
    A connection within its bounds.
    """

    _timer = None
    _octets = 0

    def makeConnection(self, transport):
        self._timer = self.factory.reactor.callLater(SECONDS, transport.abortConnection)
        super().makeConnection(transport)

    def dataReceived(self, data):
        self._octets += len(data)
        if self._octets > OCTETS:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)

    def connectionLost(self, reason):
        if self._timer.active():
            self._timer.cancel()
        super().connectionLost(reason)


class _Bounded(WrappingFactory):
    noisy = False
    protocol = _Connection

    def __init__(self, reactor, wrapped):
        super().__init__(wrapped)
        self.reactor = reactor

    def logPrefix(self):
        return "pages over HTTP"

    def registerProtocol(self, p):
        super().registerProtocol(p)
        while len(self.protocols) > CONNECTIONS:
            oldest = next(iter(self.protocols))
            del self.protocols[oldest]
            oldest.transport.abortConnection()

    def unregisterProtocol(self, p):
        self.protocols.pop(p, None)
