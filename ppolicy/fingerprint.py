"""
Asking p0f what it has seen of an address: one connection to its UNIX socket, many questions on their way.

The protocol is that of p0f 3 (its README, section "Retrieving fingerprint data"): questions of 21 octets, answers
of 232 in the same order, in the byte order of this host.
"""

import struct
from collections import deque
from pathlib import Path
from typing import NamedTuple

from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import ClientFactory, Protocol

from ppolicy.bridge import inReactor
from ppolicy.errors import BackendError

# Magic, 4 or 6, the address from the left.
_QUESTION = struct.Struct("=IB16s")
_ASKS, _ANSWERS = 0x50304601, 0x50304602
# Magic, status; first and last seen, connections, uptime, its modulo, last NAT, last change; distance, mismatch,
# quality; OS, its version, program, its version, link, language.
_ANSWER = struct.Struct("=II7IhBB32s32s32s32s32s32s")
_MAGIC = struct.pack("=I", _ANSWERS)
_BAD, _FOUND, _NOT_FOUND = 0x00, 0x10, 0x20

# Questions without an answer, those included for whose answers nobody waits any more.
MOST = 100
# Seconds without an answer after which nothing more is asked until one comes, and after which the connection is
# given up.
BEHIND, HUNG = 1.0, 60.0
# Seconds until the next connection after one that failed, the first time and at most; and that it may take.
SHORTEST, LONGEST = 0.5, 5.0
CONNECT = 5.0
# What a path of a UNIX socket may have (unix(7)).
PATH = 107


class Refused(BackendError):
    """
    p0f says that the question is a bad one.
    """


class Fingerprint(NamedTuple):
    """
    What p0f has seen of an address; texts are printable, and empty where it does not know. The system, its
    version, distance, link and uptime have the places that they have in the answers of p0f 2.

    @ivar firstSeen, lastSeen: seconds since 1970; C{connections} between them.
    @ivar name: of the operating system, C{flavor} is its version.
    @ivar distance: hops, -1 when that is not known.
    @ivar link: how it is connected, such as 'Ethernet or modem', by its MTU.
    @ivar program: what speaks HTTP there, C{programFlavor} its version, C{language} what it prefers.
    @ivar quality: of the match: 0 good, 1 fuzzy (TTL or DF differ), 2 by a generic signature, 3 both.
    @ivar mismatch: 1 when the program claims another system, 2 when it is not what it claims.
    @ivar uptime: minutes since it was started, 0 when that is not known; it is counted modulo C{uptimeModulo}
        days.
    @ivar lastNAT: when it was last seen that several hosts share the address, C{lastChange} that the system was
        another one than before; 0: never.
    """

    firstSeen: int
    lastSeen: int
    connections: int
    name: str
    flavor: str
    distance: int
    link: str
    program: str
    programFlavor: str
    language: str
    quality: int
    mismatch: int
    lastNAT: int
    uptime: int
    uptimeModulo: int
    lastChange: int

    @property
    def os(self):
        """
        The operating system, 'Linux', 'Windows', 'FreeBSD', 'Mac OS X' …, or 'unknown'.
        """
        return self.name or "unknown"

    @property
    def isWindows(self):
        """
        Is it some Windows?
        """
        return self.name.startswith("Windows")


def question(address):
    """
    @param address: an C{ipaddress.IPv4Address} or C{IPv6Address}.
    @return: the octets that ask for it.
    """
    return _QUESTION.pack(_ASKS, address.version, address.packed)


def fingerprint(octets):
    """
    @param octets: an answer.
    @return: a L{Fingerprint}, None when p0f knows nothing.
    @raises Refused: when the question was bad.
    @raises BackendError: when it is no answer of p0f 3.
    """
    magic, status, *numbers, name, flavor, program, programFlavor, link, language = _ANSWER.unpack(octets)
    if magic != _ANSWERS or status not in (_BAD, _FOUND, _NOT_FOUND):
        raise BackendError("this is no answer of p0f 3")
    if status == _BAD:
        raise Refused("p0f refuses the question")
    if status == _NOT_FOUND:
        return None
    first, last, connections, uptime, modulo, lastNAT, lastChange, distance, mismatch, quality = numbers
    return Fingerprint(
        first,
        last,
        connections,
        _text(name),
        _text(flavor),
        distance,
        _text(link),
        _text(program),
        _text(programFlavor),
        _text(language),
        quality,
        mismatch,
        lastNAT,
        uptime,
        modulo,
        lastChange,
    )


def _text(octets):
    return "".join(chr(one) if 31 < one < 127 else "?" for one in octets.partition(b"\0")[0])


class Fingerprints(ClientFactory):
    """
    A p0f, asked over one connection, which is opened by the first question and again after it was lost. Questions
    that nobody waits for any more keep their place, so that their answers are not taken for those of others.

    @param path: of its socket.
    @ivar problem: why p0f could not be reached the last time, None when it could.
    """

    noisy = False

    def __init__(self, bridge, path):
        self.bridge = bridge
        self.path = str(path)
        self._reactor = bridge.reactor
        self._connector = self._session = None
        self._early = deque()  # asked before there was a connection: (octets, Deferred)
        self._pause, self._notBefore = SHORTEST, None
        self._reason = ""
        self.problem = None

    def status(self):
        """
        How it is, as a dictionary. A connection that p0f has closed is no problem: the next question opens one.
        """
        session = self._session
        return {
            "problem": self.problem if session is None else session.trouble(),
            "socket": self.path,
            "connected": session is not None,
            "waiting": len(self._early) if session is None else session.waiting,
        }

    @inReactor
    def ask(self, address):
        """
        Ask for an address. Who waits for the answer says how long; cancelling gives the question up.

        @param address: an C{ipaddress.IPv4Address} or C{IPv6Address}.
        @return: a Deferred of a L{Fingerprint}, or None when p0f has not seen the address. It fails with
            L{Refused}, or L{BackendError} when p0f cannot be asked.
        """
        trouble = self._session.trouble() if self._session is not None else self._connect()
        if trouble is None and len(self._early) >= MOST:
            trouble = f"{MOST} questions to p0f wait already"
        if trouble is not None:
            return fail(BackendError(trouble))
        done = Deferred()
        if self._session is not None:
            self._session.ask(question(address), done)
        else:
            self._early.append((question(address), done))
        return done

    def _connect(self):
        """
        Begin to connect, unless that is under way.

        @return: why it cannot be, else None.
        """
        if self._connector is not None:
            return None
        now = self._reactor.seconds()
        if self._notBefore is not None and now < self._notBefore:
            return self._reason
        try:
            Path(self.path).stat()
        except OSError as error:
            return self._failed(error.strerror)
        self._connector = self._reactor.connectUNIX(self.path, self, timeout=CONNECT)
        return None

    def _failed(self, why):
        """
        Note that p0f cannot be reached.

        @return: that as a sentence.
        """
        self._connector = self._session = None
        self._reason = self.problem = f"p0f cannot be reached at {self.path}: {why}"
        self._notBefore = self._reactor.seconds() + self._pause
        self._pause = min(2 * self._pause, LONGEST)
        early, self._early = self._early, deque()
        for _, done in early:
            _giveUp(done, self._reason)
        return self._reason

    def stop(self):
        """
        Close the connection.
        """
        if self._session is not None:
            self._session.abort("the check was stopped")
        elif self._connector is not None:
            self._connector.stopConnecting()

    # What the connection reports

    def buildProtocol(self, address):
        return _Session(self, self._reactor)

    def connected(self, session):
        """
        The connection is there.
        """
        self._session, self.problem = session, None
        early, self._early = self._early, deque()
        for octets, done in early:
            if not done.called:
                session.ask(octets, done)

    def works(self):
        """
        An answer has come.
        """
        self._pause = SHORTEST

    def clientConnectionFailed(self, connector, reason):
        self._failed(_plain(reason))

    def clientConnectionLost(self, connector, reason):
        why = self._session.why
        self._failed(why or _plain(reason))
        if why is None:
            self.problem = None


class _Session(Protocol):
    """
    One connection.

    @ivar why: we ended it, None while we did not.
    """

    def __init__(self, owner, reactor):
        self._owner, self._reactor = owner, reactor
        self._asked = deque()  # (Deferred, when) of every question that has no answer yet, oldest first
        self._buffer = b""
        self.why = None

    def connectionMade(self):
        self._owner.connected(self)

    @property
    def waiting(self):
        """
        How many questions have no answer yet.
        """
        return len(self._asked)

    def trouble(self):
        """
        Why nothing can be asked now, else None.
        """
        if self.why is not None:
            return self.why
        if not self._asked:
            return None
        silent = self._reactor.seconds() - self._asked[0][1]
        if silent >= HUNG:
            self.abort(f"it has not answered for {silent:.0f} s")
        if silent >= BEHIND:
            return f"p0f has not answered for {silent:.0f} s"
        return f"{MOST} questions to p0f wait already" if len(self._asked) >= MOST else None

    def ask(self, octets, done):
        """
        Send a question.
        """
        self._asked.append((done, self._reactor.seconds()))
        self.transport.write(octets)

    def dataReceived(self, data):
        self._buffer += data
        while self._buffer and self.why is None:
            if not self._asked or not self._buffer.startswith(_MAGIC[: len(self._buffer)]):
                self.abort("what answers there is no p0f 3")
            elif len(self._buffer) < _ANSWER.size:
                break
            else:
                answer, self._buffer = self._buffer[: _ANSWER.size], self._buffer[_ANSWER.size :]
                self._answered(answer)

    def _answered(self, octets):
        done, _ = self._asked.popleft()
        try:
            found = fingerprint(octets)
        except BackendError as error:
            if not isinstance(error, Refused):
                self.abort("what answers there is no p0f 3")
            if not done.called:
                done.errback(error)
            return
        self._owner.works()
        if not done.called:
            done.callback(found)

    def abort(self, why):
        """
        End the connection now.
        """
        self.why = why
        self.transport.abortConnection()

    def connectionLost(self, reason):
        asked, self._asked = self._asked, deque()
        for done, _ in asked:
            _giveUp(done, f"p0f: {self.why or _plain(reason)}")


def _giveUp(done, reason):
    if not done.called:
        done.errback(BackendError(reason))


def _plain(reason):
    """
    A failure of a connection as a few words.
    """
    return " ".join(reason.getErrorMessage().split())[:100].rstrip(".")
