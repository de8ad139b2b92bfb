"""
One name server: how many questions it is asked at a time, over UDP, or TCP where a reply does not fit; and whether
it is there at all.
"""

import ipaddress
import os
from array import array
from collections import deque

from twisted.logger import Logger

from ppolicy.dnsmessage import TYPES, Reply, onWire
from ppolicy.dnstransport import TCPQuestion, UDPSocket
from ppolicy.errors import DNSError, DNSTimeout

# Seconds that one try may take; how often is looked whose time is up, which costs less than a timer each.
TRY = 1.5
_SWEEP = 0.1
# Sockets in use at a time, and how many questions each is used for: its port is one more thing to guess. There are
# more while more questions are under way than there is room for replies in a socket: what has none is lost.
SOCKETS = 4
QUESTIONS = 500
PENDING = 128
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
        self._overTCP = set()
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
            L{TRY}, over UDP and TCP together. It must not raise anything. A Deferred would take half as long as
            the rest of a question.
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
            self._askOverTCP(question)
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
        for one in [*self.sockets, *self._overTCP]:
            one.stop(error)
        self._inUse.clear()

    def _socket(self):
        """
        @return: a L{UDPSocket} that may be used for one more question.
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
        new = UDPSocket(self, QUESTIONS)
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

    def _askOverTCP(self, question):
        wire, kind, done, deadline = question
        if len(self._overTCP) >= CONNECTIONS:
            self.underWay -= 1
            done(DNSError(f"{self}: {CONNECTIONS} questions over TCP are under way already", later=True))
            return

        def over(result):
            self._overTCP.discard(asked)
            self.underWay -= 1
            done(result)

        asked = TCPQuestion(self, wire, kind, over)
        self._overTCP.add(asked)
        asked.begin(max(0.0, deadline - self.reactor.seconds()))

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
