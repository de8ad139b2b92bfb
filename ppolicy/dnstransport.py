"""
How questions reach a name server: many over a UDP socket, one over a TCP connection.

Both belong to a L{ppolicy.nameserver.NameServer}, which hears what has come of a question.
"""

import os
from socket import (
    AI_NUMERICHOST,
    SO_ERROR,
    SO_RCVBUF,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOL_SOCKET,
    gaierror,
    getaddrinfo,
    socket,
)

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ClientFactory
from twisted.protocols.basic import Int16StringReceiver
from zope.interface import implementer

from ppolicy.dnsmessage import Reply, question
from ppolicy.errors import DNSError, DNSTimeout

# Octets of replies for which a socket has room.
_ROOM = 1 << 18
# Replies that are read from one socket before others have their turn.
_AT_ONCE = 20
# Octets of a reply over UDP and over TCP.
_DATAGRAM = 4096
_LONGEST = 16384


@implementer(IReadDescriptor)
class UDPSocket:
    """
    A connected UDP socket: what comes from elsewhere the kernel drops. Twisted's own ports log a line each time
    that one is opened or closed, and close themselves where nothing listens at the other end.

    @ivar left: how many questions it may still be used for.
    @ivar pending: {number: question} of those without an answer.
    @raises OSError: when there is no way to the server.
    """

    def __init__(self, server, left):
        self._server = server
        self.pending = {}
        self.left = left
        self._retired = False
        try:
            family, _, _, _, peer = getaddrinfo(server.host, server.port, type=SOCK_DGRAM, flags=AI_NUMERICHOST)[0]
        except gaierror:  # of a link-local address; there may be one later
            raise OSError("there is no such interface") from None
        self._socket = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
        try:
            self._socket.setsockopt(SOL_SOCKET, SO_RCVBUF, _ROOM)
            self._socket.connect(peer)  # from a random port, which the kernel chooses
        except OSError:
            self._socket.close()
            raise
        self.fileno = self._socket.fileno
        server.reactor.addReader(self)

    def ask(self, asked):
        """
        @param asked: (name, type, what is called with the answer, when its time is up).
        """
        self.left -= 1
        pending = self.pending
        number = self._server.number()
        while number in pending:
            number = self._server.number()
        pending[number] = asked
        try:
            self._socket.send(question(number, asked[0], asked[1]))
        except BlockingIOError:
            pass  # the way is full: as if it had been lost there
        except OSError as error:
            self._fail([number], DNSError(f"{self._server}: {error.strerror.lower()}"))

    def doRead(self):
        """
        Some of what has come; the rest waits until others have had their turn.
        """
        for _ in range(_AT_ONCE):
            try:
                octets = self._socket.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(list(self.pending), DNSError(f"{self._server}: {error.strerror.lower()}"))
                return
            self._received(octets)
            self._server.breathe()
            if not self.pending:  # nothing more is to come, and another look costs as much as a reply
                return

    def logPrefix(self):
        return "dns"

    def connectionLost(self, _):
        """
        The reactor has no use for it: it has seen an error, as where nothing listens, or it stops.
        """
        number = self._socket.getsockopt(SOL_SOCKET, SO_ERROR)
        reason = os.strerror(number).lower() if number else "is not asked any more"
        self.stop(DNSError(f"{self._server}: {reason}", later=not number))

    def _received(self, octets):
        """
        Whatever is wrong with it, the true answer may still come: who sends rubbish must not end the question
        (CVE-2023-29483).
        """
        number = int.from_bytes(octets[:2], "big")
        found = self.pending.get(number)
        if found is None:
            return
        try:
            reply = Reply(octets, found[0], found[1])
        except ValueError:
            return
        del self.pending[number]
        if self._retired and not self.pending:
            self._close()
        self._server.answered(found, reply)

    def sweep(self, now):
        """
        Fail what should have been answered by now.
        """
        late = [number for number, (_, _, _, deadline) in self.pending.items() if deadline <= now]
        if late:
            self._fail(late, DNSTimeout(f"{self._server}: no answer in time"))

    def _fail(self, numbers, error):
        questions = [self.pending.pop(number) for number in numbers]
        if self._retired and not self.pending:
            self._close()
        for one in questions:
            self._server.failed(one, error)

    def retire(self):
        """
        Close when the last question is answered.
        """
        self._retired = True
        if not self.pending:
            self._close()

    def stop(self, error):
        """
        Close now.
        """
        self._retired = True
        self.left = 0
        self._close()
        self._fail(list(self.pending), error)

    def _close(self):
        if self in self._server.sockets:
            self._server.sockets.discard(self)
            self._server.reactor.removeReader(self)
            self._socket.close()


class TCPQuestion(Int16StringReceiver):
    """
    One question over TCP (RFC 7766).

    @param done: called with the L{Reply}, or a L{DNSError}.
    """

    MAX_LENGTH = _LONGEST

    def __init__(self, server, wire, kind, done):
        self._server = server
        self._wire, self._kind = wire, kind
        self._number = server.number()
        self._done = done
        self._isOver = False

    def begin(self, seconds):
        """
        Connect, and ask.

        @param seconds: how long the answer may take.
        """
        server = self._server
        self._timer = server.reactor.callLater(seconds, self._finish, DNSTimeout(f"{server}: no answer over TCP"))
        self._connector = server.reactor.connectTCP(
            server.host, server.port, _TCPFactory(self), timeout=2 * seconds
        )

    def stop(self, error):
        """
        Give up.
        """
        self._finish(error)

    def connectionMade(self):
        self.sendString(question(self._number, self._wire, self._kind))

    def stringReceived(self, octets):
        try:
            if octets[:2] != self._number.to_bytes(2, "big"):
                raise ValueError("another question was asked")
            reply = Reply(octets, self._wire, self._kind)
            if reply.truncated:
                raise ValueError("truncated")
        except ValueError as error:
            self._finish(DNSError(f"{self._server}: over TCP: {error}"))
        else:
            self._finish(reply)

    def lengthLimitExceeded(self, length):
        self._finish(DNSError(f"{self._server}: an answer has {length} octets, more than {_LONGEST}"))

    def connectionLost(self, reason):
        self._finish(DNSError(f"{self._server}: hung up over TCP"))

    def notConnected(self, reason):
        """
        What the factory calls.
        """
        self._finish(DNSError(f"{self._server}: over TCP: {reason.getErrorMessage()}"))

    def _finish(self, result):
        if self._isOver:
            return
        self._isOver = True
        if self._timer.active():
            self._timer.cancel()
        if self.transport is not None:
            self.transport.abortConnection()
        elif self._connector.state == "connecting":
            self._connector.stopConnecting()
        self._done(result)


class _TCPFactory(ClientFactory):
    noisy = False

    def __init__(self, protocol):
        self._protocol = protocol

    def buildProtocol(self, _):
        return self._protocol

    def clientConnectionFailed(self, connector, reason):
        self._protocol.notConnected(reason)
