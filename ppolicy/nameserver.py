"""
One name server: questions over UDP, over TCP where a reply does not fit, and whether it is there at all.
"""

import ipaddress
import os
from array import array
from collections import deque
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
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from zope.interface import implementer

from ppolicy.dnsmessage import TYPES, Reply, onWire, question
from ppolicy.errors import DNSError, DNSTimeout

# Seconds that one try may take; how often is looked whose time is up, which costs less than a timer each.
TRY = 1.5
_SWEEP = 0.1
# Sockets in use at a time, and how many questions each is used for: its port is one more thing to guess. There are
# more while more questions are under way than there is room for replies in a socket: what has none is lost.
SOCKETS = 4
QUESTIONS = 500
PENDING = 128
_ROOM = 1 << 18
# Replies that are read from one socket before others have their turn.
_AT_ONCE = 20
# Nor has the server room for any number of questions (a socket of Linux has it for 277): while more than FEW are
# under way, BURST are sent in so many seconds, the others wait.
FEW, BURST = 100, 50
_PACE = 0.001
# How many questions may be under way, and how many of them over TCP.
MOST = 5000
CONNECTIONS = 100
# After so many questions in a row without an answer the server is asked something that each of them knows.
_SUSPECT = 3
_PROBE = 1.0
# Octets of a reply over UDP and over TCP.
_DATAGRAM = 4096
_LONGEST = 16384
# Random numbers are fetched so many at a time.
_NUMBERS = 256


class NameServer:
    """
    @param host: its address, C{port} its port.
    @param breathe: called between two replies.
    @ivar down: True while it does not even answer a probe; it is not asked meanwhile.
    @ivar isLocal: is it on this host?
    @ivar underWay: how many questions have no answer yet.
    """

    log = Logger()

    def __init__(self, reactor, host, port=53, breathe=lambda: None):
        self.reactor = reactor
        self.breathe = breathe
        self.host, self.port = str(ipaddress.ip_address(host)), port
        self.isLocal = ipaddress.ip_address(host).is_loopback
        self.down = False
        self.underWay = 0
        self.sockets = set()
        self._inUse = deque()
        self._queue = deque()
        self._since, self._burst = 0.0, 0
        self._whole = set()
        self._numbers = array("H")
        self._unanswered = 0
        self._probing = self._sweeping = self._pumping = None
        self._isProbing = self._stopped = False

    def __str__(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def ask(self, wire, kind, done, seconds=TRY):
        """
        Ask once.

        @param wire: a name, C{kind} a type, as in L{ppolicy.dnsmessage.question}.
        @param done: called with the L{Reply}, or with a L{DNSError}: L{DNSTimeout} after so many seconds, at most
            L{TRY}. It must not raise anything. A Deferred would take half as long as the rest of a question.
        """
        if self._stopped or self.underWay >= MOST:
            reason = "is not asked any more" if self._stopped else f"{MOST} questions are under way already"
            done(DNSError(f"{self}: {reason}", later=True))
        else:
            self._begin(wire, kind, done, min(seconds, TRY))

    def _begin(self, wire, kind, done, seconds):
        self.underWay += 1
        if self._sweeping is None:
            self._sweeping = self.reactor.callLater(_SWEEP, self._sweep)
        now = self.reactor.seconds()
        question = wire, kind, done, now + seconds
        if now - self._since >= _PACE:
            self._since, self._burst = now, 0
        if not self._queue and (self._burst < BURST or self.underWay <= FEW):
            self._burst += 1
            self._send(question)
        else:
            self._queue.append(question)
            if self._pumping is None:
                self._pumping = self.reactor.callLater(_PACE, self._pump)

    def _pump(self):
        """
        Send what had to wait.
        """
        self._pumping = None
        self._since, self._burst = self.reactor.seconds(), BURST
        for _ in range(min(BURST, len(self._queue))):
            self._send(self._queue.popleft())
            self.breathe()
        if self._queue and self._pumping is None:
            self._pumping = self.reactor.callLater(_PACE, self._pump)

    def _send(self, question):
        try:
            chosen = self._socket()
        except OSError as error:
            self.underWay -= 1
            question[2](DNSError(f"{self}: no socket: {error}", later=True))
        else:
            chosen.ask(question)

    def answered(self, question, reply):
        """
        What a socket calls with a reply.
        """
        self._unanswered = 0
        if reply.truncated:
            self._askWhole(question)
        else:
            self.underWay -= 1
            question[2](reply)

    def failed(self, question, error):
        """
        What a socket calls with a L{DNSError}.
        """
        self.underWay -= 1
        self._unanswered += 1
        if self._unanswered >= _SUSPECT and not (self._isProbing or self._probing or self._stopped):
            self._probe()
        question[2](error)

    def number(self):
        """
        A random number of 16 bits.
        """
        if not self._numbers:
            self._numbers.frombytes(os.urandom(2 * _NUMBERS))
        return self._numbers.pop()

    def stop(self):
        """
        Ask no more; what is under way fails.
        """
        self._stopped = True
        for timer in (self._probing, self._sweeping, self._pumping):
            if timer is not None:
                timer.cancel()
        self._probing = self._sweeping = self._pumping = None
        error = DNSError(f"{self}: is not asked any more", later=True)
        self._failQueued(float("inf"), error)
        for one in [*self.sockets, *self._whole]:
            one.stop(error)
        self._inUse.clear()

    def _socket(self):
        """
        @return: a L{_Socket} that may be used for one more question.
        """
        inUse = self._inUse
        if len(inUse) >= SOCKETS:
            for _ in range(len(inUse)):
                inUse.rotate()
                one = inUse[0]
                if not one.left:
                    one.retire()
                    inUse.popleft()
                    if len(inUse) < SOCKETS:
                        break
                elif len(one.pending) < PENDING:
                    return one
        new = _Socket(self)
        self.sockets.add(new)
        inUse.appendleft(new)
        return new

    def _sweep(self):
        """
        End the questions whose time is up.
        """
        self._sweeping = None
        now = self.reactor.seconds()
        for one in list(self.sockets):
            one.sweep(now)
        self._failQueued(now, DNSTimeout(f"{self}: no answer in time"))
        if self.underWay and self._sweeping is None and not self._stopped:
            self._sweeping = self.reactor.callLater(_SWEEP, self._sweep)

    def _failQueued(self, now, error):
        """
        Fail what has waited for too long to be sent.
        """
        late = [question for question in self._queue if question[3] <= now]
        if late:
            self._queue = deque(question for question in self._queue if question[3] > now)
            for question in late:
                self.failed(question, error)

    def _askWhole(self, question):
        wire, kind, done, _ = question
        if len(self._whole) >= CONNECTIONS:
            self.underWay -= 1
            done(DNSError(f"{self}: {CONNECTIONS} questions over TCP are under way already", later=True))
            return

        def over(result):
            self._whole.discard(whole)
            self.underWay -= 1
            done(result)

        whole = _Whole(self, wire, kind, over)
        self._whole.add(whole)
        whole.begin()

    # Is it there?

    def _probe(self):
        """
        What the root's servers are, each resolver knows; an unknown name may take one longer than we wait.
        """
        self._probing = None
        self._isProbing = True
        self._begin(onWire("."), TYPES["NS"], self._probed, TRY)

    def _probed(self, result):
        self._isProbing = False
        if self._stopped:
            return
        isThere = isinstance(result, Reply)
        if not isThere:
            self._probing = self.reactor.callLater(_PROBE, self._probe)
        if self.down == isThere:
            self.down = not isThere
            if self.down:
                self.log.error("name server {server} does not answer", server=str(self))
            else:
                self.log.info("name server {server} answers again", server=str(self))


@implementer(IReadDescriptor)
class _Socket:
    """
    A connected UDP socket: what comes from elsewhere the kernel drops. Twisted's own ports log a line each time
    that one is opened or closed, and close themselves where nothing listens at the other end.

    @ivar left: how many questions it may still be used for.
    @ivar pending: {number: question} of those without an answer.
    @raises OSError: when there is no way to the server.
    """

    def __init__(self, server):
        self._server = server
        self.pending = {}
        self.left = QUESTIONS
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


class _Whole(Int16StringReceiver):
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

    def begin(self):
        """
        Connect, and ask.
        """
        server = self._server
        self._timer = server.reactor.callLater(TRY, self._finish, DNSTimeout(f"{server}: no answer over TCP"))
        self._connector = server.reactor.connectTCP(server.host, server.port, _WholeFactory(self), timeout=2 * TRY)

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


class _WholeFactory(ClientFactory):
    noisy = False

    def __init__(self, whole):
        self._whole = whole

    def buildProtocol(self, _):
        return self._whole

    def clientConnectionFailed(self, connector, reason):
        self._whole.notConnected(reason)
