"""
The connections of Postfix, read together.

For each socket that has something to say, Twisted's reactor makes a context for its log and looks at the
socket's state before it reads; that is a tenth of what a request costs. Here an epoll of their own has all these
sockets and is itself one reader of the reactor (epoll(7): an epoll is readable when one of its files is).
"""

import select

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
class Epoll:
    """
    The reader of many transports; they know it as their reactor.

    @param bridge: what requests run in. What they leave for the end is done after each round.
    """

    log = Logger()

    def __init__(self, bridge):
        self._bridge = bridge
        self._reactor = bridge.reactor
        self._epoll = None
        self._transports = {}
        self._isReading = False
        bridge.newcomers = self.doRead

    def adopt(self, transport):
        """
        Read one of Twisted's transports from now on.
        """
        transport.stopReading()
        transport.reactor = self
        transport.startReading()

    # What a transport asks of its reactor.

    def addReader(self, transport):
        number = transport.fileno()
        if number in self._transports:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
        self._epoll.register(number, select.EPOLLIN)
        if not self._transports:
            self._reactor.addReader(self)
        self._transports[number] = transport

    def removeReader(self, transport):
        number = transport.fileno()
        if self._transports.pop(number, None) is not None:
            self._epoll.unregister(number)
            if not self._transports:
                self._reactor.removeReader(self)

    # Writing is seldom waited for: that stays with the reactor, as does the rest.

    def addWriter(self, transport):
        self._reactor.addWriter(transport)

    def removeWriter(self, transport):
        self._reactor.removeWriter(transport)

    def callLater(self, delay, function, *arguments, **keywords):
        return self._reactor.callLater(delay, function, *arguments, **keywords)

    # What the reactor asks of a reader.

    def fileno(self):
        return self._epoll.fileno()

    def logPrefix(self):
        return "Postfix"

    def doRead(self):
        """
        Read each of those that have something to say.
        """
        transports = self._transports
        if self._isReading or not transports:
            return
        self._isReading = True
        outer = self._bridge.begin()
        for number, _ in self._epoll.poll(0, len(transports)):
            transport = transports.get(number)
            if transport is None:  # another one's request has had it closed
                continue
            try:
                ended = transport.doRead()
            except BaseException as error:  # noqa: BLE001 - as the reactor does: it costs this connection, no other
                self.log.failure("reading a connection failed")
                ended = error
            if ended is not None:
                self._lose(transport, ended)
        self._isReading = False
        self._bridge.end(outer)
        self._bridge.looked()

    def _lose(self, transport, reason):
        try:
            self.removeReader(transport)
            self.removeWriter(transport)
            transport.connectionLost(Failure(reason))
        except BaseException:  # noqa: BLE001 - the others are still to be read
            self.log.failure("closing a connection failed")

    def connectionLost(self, reason):
        """
        The reactor ends.
        """
        for transport in list(self._transports.values()):
            transport.connectionLost(reason)
