"""
One name server: questions over UDP, over TCP where a reply does not fit, and whether it is there at all.
"""

import os
from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ClientFactory, DatagramProtocol
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from ppolicy.dnsmessage import TYPES, Reply, onWire, question
from ppolicy.errors import DNSError, DNSTimeout

# Seconds that one try may take.
TRY = 1.5
# Sockets in use at a time, and how many questions each is used for: its port is one more thing to guess.
SOCKETS = 4
QUESTIONS = 500
# How many questions may be under way.
MOST = 5000
# After so many questions in a row without an answer the server is asked something that each of them knows.
_SUSPECT = 5
_PROBE = 1.0
# Octets of a reply over TCP.
_LONGEST = 16384


class NameServer:
    """
    @param host: its address, C{port} its port.
    @ivar down: True while it does not even answer a probe; it is not asked meanwhile.
    """

    log = Logger()

    def __init__(self, reactor, host, port=53):
        self.reactor = reactor
        self.host, self.port = host, port
        self.down = False
        self.underWay = 0
        self._sockets = deque()
        self._unanswered = 0
        self._probing = None
        self._stopped = False

    def __str__(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def ask(self, wire, kind):
        """
        Ask once.

        @param wire: a name, C{kind} a type, as in L{ppolicy.dnsmessage.question}.
        @return: a Deferred of the L{Reply}. It fails with L{DNSTimeout} after L{TRY} seconds, or L{DNSError}.
        """
        done = Deferred(lambda _: None)
        if self.underWay >= MOST:
            done.errback(DNSError(f"{self}: {MOST} questions are under way already"))
            return done
        try:
            socket = self._socket()
        except (CannotListenError, OSError) as error:
            done.errback(DNSError(f"{self}: no socket: {error}"))
            return done
        self.underWay += 1
        socket.ask(wire, kind, done)
        return done.addBoth(self._answered, wire, kind)

    def _answered(self, result, wire, kind):
        self.underWay -= 1
        if isinstance(result, Failure):
            if result.check(DNSTimeout):
                self._unanswered += 1
                if self._unanswered >= _SUSPECT and self._probing is None and not self._stopped:
                    self._probe()
            return result
        self._unanswered = 0
        if result.truncated:
            return self._askWhole(wire, kind)
        return result

    def stop(self):
        """
        Ask no more; what is under way fails.
        """
        self._stopped = True
        if self._probing is not None and self._probing.active():
            self._probing.cancel()
        for socket in list(self._sockets):
            socket.close(DNSError(f"{self}: is not asked any more"))
        self._sockets.clear()

    def _socket(self):
        sockets = self._sockets
        if len(sockets) >= SOCKETS:
            sockets.rotate()
            socket = sockets[0]
            if socket.left and not socket.closed:
                return socket
            sockets.popleft()
            socket.retire()
        socket = _Socket(self)
        sockets.appendleft(socket)
        return socket

    # Over TCP

    def _askWhole(self, wire, kind):
        done = Deferred(lambda _: None)
        factory = _WholeFactory(self, wire, kind, done)
        connector = self.reactor.connectTCP(self.host, self.port, factory, timeout=TRY)
        timer = self.reactor.callLater(TRY, factory.fail, DNSTimeout(f"{self}: no answer over TCP"))

        def over(result):
            if timer.active():
                timer.cancel()
            connector.disconnect()
            return result

        return done.addBoth(over)

    # Is it there?

    def _probe(self):
        """
        What the root's servers are, each resolver knows; an unknown name may take one longer than we wait.
        """
        self._probing = None
        if self._stopped:
            return
        done = Deferred(lambda _: None)
        try:
            self._socket().ask(onWire("."), TYPES["NS"], done)
        except (CannotListenError, OSError):
            self._probed(False)
            return
        self._probing = self.reactor.callLater(TRY + _PROBE, self._probe)
        done.addCallbacks(lambda _: self._probed(True), lambda _: self._probed(False))

    def _probed(self, isThere):
        if isThere:
            if self._probing is not None and self._probing.active():
                self._probing.cancel()
            self._probing = None
            self._unanswered = 0
        if self.down == isThere:
            self.down = not isThere
            if self.down:
                self.log.error("name server {server} does not answer", server=str(self))
            else:
                self.log.info("name server {server} answers again", server=str(self))
        if not isThere and self._probing is None and not self._stopped:
            self._probing = self.reactor.callLater(_PROBE, self._probe)


class _Socket(DatagramProtocol):
    """
    A connected UDP socket: what comes from elsewhere the kernel drops.

    @ivar left: how many questions it may still be used for.
    """

    noisy = False

    def __init__(self, server):
        self._server = server
        self._reactor = server.reactor
        self._pending = {}
        self.left = QUESTIONS
        self.closed = self._retired = False
        interface = "::" if ":" in server.host else "0.0.0.0"  # noqa: S104 - it is connected at once
        self._port = self._reactor.listenUDP(0, self, interface=interface, maxPacketSize=4096)
        self.transport.connect(server.host, server.port)

    def ask(self, wire, kind, done):
        self.left -= 1
        pending = self._pending
        number = int.from_bytes(os.urandom(2), "big")
        while number in pending:
            number = int.from_bytes(os.urandom(2), "big")
        timer = self._reactor.callLater(TRY, self._late, number)
        pending[number] = wire, kind, done, timer
        try:
            self.transport.write(question(number, wire, kind))
        except OSError as error:
            self._finish(number, Failure(DNSError(f"{self._server}: {error.strerror}")))

    def datagramReceived(self, octets, _):
        number = octets[0] << 8 | octets[1] if len(octets) > 1 else None
        found = self._pending.get(number)
        if found is None:
            return
        wire, kind, _, _ = found
        try:
            reply = Reply(octets, wire, kind)
        except ValueError:
            return  # the true answer may still come: who sends rubbish must not end the question (CVE-2023-29483)
        self._finish(number, reply)

    def connectionRefused(self):
        """
        Nothing listens there.
        """
        self._fail(DNSError(f"{self._server}: connection refused"))

    def _late(self, number):
        self._finish(number, Failure(DNSTimeout(f"{self._server}: no answer within {TRY:g} s")))

    def _finish(self, number, result):
        _, _, done, timer = self._pending.pop(number)
        if timer.active():
            timer.cancel()
        if self._retired and not self._pending:
            self._close()
        if not done.called:
            done.callback(result)

    def _fail(self, error):
        for number in list(self._pending):
            if number in self._pending:
                self._finish(number, Failure(error))

    def retire(self):
        """
        Close when the last question is answered.
        """
        self._retired = True
        if not self._pending:
            self._close()

    def close(self, error):
        """
        Close now.
        """
        self._retired = True
        self._fail(error)
        self._close()

    def _close(self):
        if not self.closed:
            self.closed = True
            self._port.stopListening()


class _Whole(Int16StringReceiver):
    """
    One question over TCP (RFC 7766).
    """

    MAX_LENGTH = _LONGEST

    def connectionMade(self):
        self._number = int.from_bytes(os.urandom(2), "big")
        self.sendString(question(self._number, self.factory.wire, self.factory.kind))

    def stringReceived(self, octets):
        try:
            if octets[:2] != self._number.to_bytes(2, "big"):
                raise ValueError("another question was asked")
            reply = Reply(octets, self.factory.wire, self.factory.kind)
            if reply.truncated:
                raise ValueError("truncated")
        except ValueError as error:
            self.factory.fail(DNSError(f"{self.factory.server}: over TCP: {error}"))
        else:
            self.factory.succeed(reply)

    def lengthLimitExceeded(self, length):
        self.factory.fail(DNSError(f"{self.factory.server}: an answer has {length} octets, more than {_LONGEST}"))

    def connectionLost(self, reason):
        self.factory.fail(DNSError(f"{self.factory.server}: hung up over TCP"))


class _WholeFactory(ClientFactory):
    noisy = False
    protocol = _Whole

    def __init__(self, server, wire, kind, done):
        self.server, self.wire, self.kind = server, wire, kind
        self._done = done

    def clientConnectionFailed(self, connector, reason):
        self.fail(DNSError(f"{self.server}: over TCP: {reason.getErrorMessage()}"))

    def succeed(self, reply):
        if not self._done.called:
            self._done.callback(reply)

    def fail(self, error):
        if not self._done.called:
            self._done.errback(error)
