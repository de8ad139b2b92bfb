"""
Tests for connections that are read together, on real sockets and the real reactor.
"""

import socket

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ppolicy.bridge import Bridge
from ppolicy.epoll import Epoll


class Recorder(Protocol):
    """
    Notes what its connection brings, and does then what the test says.
    """

    def __init__(self, case):
        self.case = case
        self.received = b""
        self.reason = None
        self.lost = Deferred()

    def connectionMade(self):
        self.case.accepted.append(self)
        self.case.epoll.adopt(self.transport)

    def dataReceived(self, data):
        self.received += data
        self.case.order.append(self)
        self.case.bridge.atEnd(lambda: self.case.order.append("end"))
        self.case.react(self)

    def connectionLost(self, reason):
        self.reason = reason
        self.lost.callback(None)
        self.case.leave(self)


class EpollTests(TestCase):
    """
    Some clients of a server whose connections an L{Epoll} reads.
    """

    timeout = 20

    def setUp(self):
        self.bridge = Bridge(reactor)
        self.epoll = Epoll(self.bridge)
        self.accepted, self.order = [], []
        self.react = self.leave = lambda protocol: None
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: Recorder(self)
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.clients = []

    @inlineCallbacks
    def tearDown(self):
        for client in self.clients:
            client.close()
        for protocol in self.accepted:
            if protocol.reason is None:
                protocol.transport.abortConnection()
                yield protocol.lost
        yield self.port.stopListening()
        self.assertNotIn(self.epoll, reactor.getReaders())

    @inlineCallbacks
    def connect(self, number):
        """
        So many clients, in the order in which they were accepted.
        """
        for _ in range(number):
            self.clients.append(socket.create_connection(("127.0.0.1", self.port.getHost().port)))
        yield self.until(lambda: len(self.accepted) == number)
        return self.clients

    @inlineCallbacks
    def until(self, condition):
        while not condition():
            yield deferLater(reactor, 0.001)

    @inlineCallbacks
    def test_together(self):
        """
        Those that have something to say are read in one round, at whose end is done what was left for it.
        """
        clients = yield self.connect(3)
        for client in clients:
            client.sendall(b"hello")
        self.epoll.doRead()
        self.assertEqual([b"hello"] * 3, [one.received for one in self.accepted])
        self.assertEqual({*self.accepted}, {*self.order[:3]})
        self.assertEqual(["end"] * 3, self.order[3:])

    @inlineCallbacks
    def test_byReactor(self):
        """
        The reactor reads them without being told.
        """
        (client,) = yield self.connect(1)
        client.sendall(b"hello")
        yield self.until(lambda: len(self.order) == 2)
        self.assertEqual(b"hello", self.accepted[0].received)
        self.assertEqual([self.accepted[0], "end"], self.order)

    @inlineCallbacks
    def test_written(self):
        """
        What does not fit into the socket is written when there is room.
        """
        (client,) = yield self.connect(1)
        much = bytes(5_000_000)
        self.accepted[0].transport.write(much)
        client.setblocking(False)
        got = 0
        while got < len(much):
            try:
                got += len(client.recv(1_000_000))
            except BlockingIOError:
                yield deferLater(reactor, 0)
        self.assertIsNone(self.accepted[0].reason)

    @inlineCallbacks
    def test_closed(self):
        """
        A client that has gone is told of, and read no more.
        """
        first, second = yield self.connect(2)
        first.close()
        yield self.accepted[0].lost
        self.accepted[0].reason.trap(ConnectionDone)
        second.sendall(b"still here")
        yield self.until(lambda: self.accepted[1].received == b"still here")

    @inlineCallbacks
    def test_reset(self):
        """
        So is one that breaks its connection off.
        """
        (client,) = yield self.connect(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        yield self.accepted[0].lost
        self.accepted[0].reason.trap(ConnectionLost)

    @inlineCallbacks
    def test_failing(self):
        """
        A protocol that raises something loses its own connection only.
        """

        def react(protocol):
            if protocol is self.accepted[0]:
                raise SystemExit("not to be obeyed")

        self.react = react
        clients = yield self.connect(2)
        for client in clients:
            client.sendall(b"hello")
        self.epoll.doRead()
        self.accepted[0].reason.trap(SystemExit)
        self.assertEqual(1, len(self.flushLoggedErrors(SystemExit)))
        self.assertIsNone(self.accepted[1].reason)
        self.assertEqual(b"hello", self.accepted[1].received)

    @inlineCallbacks
    def test_failingAtTheEnd(self):
        """
        Nor does one that raises something when it is told of its end keep others from being read, then or later.
        """

        def leave(protocol):
            raise SystemExit("not to be obeyed")

        first, second = yield self.connect(2)
        self.leave = leave
        first.close()
        yield self.until(lambda: self.accepted[0].reason)
        self.leave = lambda protocol: None
        self.assertEqual(1, len(self.flushLoggedErrors(SystemExit)))
        second.sendall(b"still here")
        yield self.until(lambda: self.accepted[1].received)
        self.assertEqual(b"still here", self.accepted[1].received)

    @inlineCallbacks
    def test_closedByAnother(self):
        """
        A connection that is closed in the round in which it was to be read is left alone.
        """

        def react(protocol):
            for other in self.accepted:
                if other is not protocol:
                    other.transport.connectionLost(Failure(ConnectionDone()))

        self.react = react
        clients = yield self.connect(2)
        for client in clients:
            client.sendall(b"hello")
        self.epoll.doRead()
        self.assertEqual([b"", b"hello"], sorted(one.received for one in self.accepted))

    @inlineCallbacks
    def test_newcomers(self):
        """
        Who works on other things may have connections read between; while they are read, that changes nothing.
        """
        first, second = yield self.connect(2)
        self.react = lambda protocol: self.bridge.newcomers()
        for client in (first, second):
            client.sendall(b"hello")
        self.bridge.newcomers()
        self.assertEqual([b"hello"] * 2, [one.received for one in self.accepted])
        self.assertEqual({*self.accepted}, {*self.order[:2]})
        self.bridge.newcomers()
        self.assertEqual(4, len(self.order))

    @inlineCallbacks
    def test_paused(self):
        """
        A connection that is paused is not read until it goes on.
        """
        first, second = yield self.connect(2)
        self.accepted[0].transport.pauseProducing()
        first.sendall(b"one")
        second.sendall(b"two")
        yield self.until(lambda: self.accepted[1].received)
        self.assertEqual(b"", self.accepted[0].received)
        self.accepted[0].transport.resumeProducing()
        yield self.until(lambda: self.accepted[0].received == b"one")

    @inlineCallbacks
    def test_hungUp(self):
        """
        A transport that loses its connection first writes what it has.
        """
        (client,) = yield self.connect(1)
        self.accepted[0].transport.write(b"last words")
        self.accepted[0].transport.loseConnection()
        yield self.accepted[0].lost
        self.assertEqual(b"last words", client.recv(100))
        self.assertEqual(b"", client.recv(100))

    @inlineCallbacks
    def test_reactorEnds(self):
        """
        When the reactor loses its readers all connections are told.
        """
        yield self.connect(2)
        self.epoll.connectionLost(Failure(ConnectionLost()))
        for protocol in self.accepted:
            protocol.reason.trap(ConnectionLost)
