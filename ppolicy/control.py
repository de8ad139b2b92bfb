"""
The control socket: a fixed table of verbs, one JSON object a line, for the administrator's command.

Nothing that comes in is ever evaluated. Who may connect: root, the server's user, and members of the socket's
group; the kernel says who it is.
"""

import json
import os
import pwd
import socket
import struct
from functools import lru_cache
from pathlib import Path

from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory as ProtocolFactory
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin

from ppolicy.controlclient import LONGEST, NOT_ADMITTED, whoMay
from ppolicy.errors import PPolicyError

# Connections at once, and the seconds after which one is closed that asks nothing, or reads no answer. Who follows
# something may stop to read what is on the screen.
CONNECTIONS = 50
IDLE = 60
STALLED = 300

_SO_PEERGROUPS = 59


class ControlProtocol(LineReceiver, TimeoutMixin):
    """
    Requests are C{{"verb": …, …}}, answers C{{"ok": true, …}} or C{{"ok": false, "error": …}}. After the answer to
    a verb that follows something, a line comes for each event, until either side hangs up.

    @param verbs: {verb: function(arguments) -> dictionary, or a Deferred of one}. What the arguments have as
        C{by} is the name of who asks.
    @param streams: {verb: function(arguments, send) -> function that ends it}; send(dictionary) is False when the
        other side does not read fast enough, and the line is lost.
    """

    delimiter = b"\n"
    MAX_LENGTH = LONGEST
    log = Logger()

    def __init__(self, verbs, streams):
        self._verbs = verbs
        self._streams = streams
        self._busy = False
        self._full = False
        self._lost = False
        self._endStream = None

    def connectionMade(self):
        path = self.transport.getHost().name
        if len(self.factory.connections) >= CONNECTIONS:
            self._refuse(f"{CONNECTIONS} control connections are open, which is the most; try again later")
            self.transport.loseConnection()
            return
        if not admitted(self.transport.socket, path):
            self._refuse(f"{NOT_ADMITTED}: {whoMay(path)}")
            self.transport.loseConnection()
            return
        self.factory.connections.add(self)
        self._by = userAt(self.transport.socket)
        self.transport.registerProducer(self, True)
        self.setTimeout(IDLE)

    def connectionLost(self, reason):
        self._lost = True
        self.factory.connections.discard(self)
        self.setTimeout(None)
        if self._endStream is not None:
            self._endStream()

    def timeoutConnection(self):
        """
        Hang up; what was not read by now is lost.
        """
        self.transport.abortConnection()

    def lineReceived(self, line):
        if self.transport.disconnecting:
            return
        if self._busy:
            self._refuse("one request at a time")
            return
        try:
            request = json.loads(line)
            verb = request.pop("verb")
            function = self._streams.get(verb) or self._verbs[verb]
        except (ValueError, RecursionError):
            self._refuse("no line of JSON")
            return
        except (AttributeError, KeyError, TypeError):
            self._refuse(f"the verbs are {', '.join(sorted([*self._verbs, *self._streams]))}")
            return
        request["by"] = self._by
        self._busy = True
        self.setTimeout(None)
        if verb in self._streams:
            maybeDeferred(function, request, self._event).addCallbacks(self._streaming, self._refused)
        else:
            answered = maybeDeferred(function, request).addCallback(
                lambda result: _line({"ok": True, **(result or {})})
            )
            answered.addCallbacks(self._done, self._refused)

    def _done(self, line):
        self._next()
        self.sendLine(line)

    def _refused(self, failure):
        self._next()
        if not failure.check(PPolicyError):
            self.log.failure("a control request failed", failure)
        self._refuse(failure.getErrorMessage())

    def _next(self):
        self._busy = False
        if not self._lost:
            self.setTimeout(IDLE)

    def _streaming(self, end):
        self._endStream = end
        self._answer({"ok": True})

    def _event(self, event):
        if self._full:
            return False
        self._answer(event)
        return True

    def _refuse(self, sentence):
        self._answer({"ok": False, "error": sentence})

    def _answer(self, answer):
        self.sendLine(_line(answer))

    # The transport's buffer is full, or has room again.

    def pauseProducing(self):
        """
        Send no more events. Who sends requests and reads no answers is not read any more either, and not for ever.
        """
        self._full = True
        self.setTimeout(STALLED if self._endStream is not None else IDLE)
        super().pauseProducing()

    def resumeProducing(self):
        """
        Send events again.
        """
        self._full = False
        self.setTimeout(None if self._busy else IDLE)
        super().resumeProducing()

    def stopProducing(self):
        """
        The connection is gone; C{connectionLost} follows.
        """


class ControlListener(ProtocolFactory):
    """
    Makes a L{ControlProtocol} for each connection.

    @ivar connections: those that are open and admitted.
    """

    noisy = False

    def __init__(self, verbs, streams=None):
        self._verbs = verbs
        self._streams = streams or {}
        self.connections = set()

    def buildProtocol(self, address):
        protocol = ControlProtocol(self._verbs, self._streams)
        protocol.factory = self
        return protocol


def _line(answer):
    return json.dumps(answer, default=str).encode("ascii")


def admitted(peer, path):
    """
    Is the process at the other end of a UNIX socket root, our user, or in the group of the socket's file?
    """
    _, user, group = _credentials(peer)
    if user in (0, os.geteuid()):
        return True
    try:
        groups = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)  # the most Python takes: 256 groups
    except OSError:  # it is in more
        groups = b""
    try:
        owner = Path(os.fsdecode(path)).stat().st_gid
    except OSError:  # somebody has removed the socket
        return False
    return owner != 0 and owner in (group, *struct.unpack(f"{len(groups) // 4}I", groups))


def userAt(peer):
    """
    The name of the user at the other end of a UNIX socket, for the log.
    """
    _, user, _ = _credentials(peer)
    return userNamed(user)


@lru_cache(100)  # it may be looked up in a network
def userNamed(user):
    """
    The name of a user, given as a number.
    """
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _credentials(peer):
    """
    Process, user and group at the other end; see unix(7).
    """
    return struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
