"""
The control socket: a fixed table of verbs, one JSON object a line, for the administrator's command.

Nothing that comes in is ever evaluated. Who may connect: root, the server's user, and members of the socket's
group; the kernel says who it is.
"""

import json
import os
import socket
import struct
from pathlib import Path

from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory as ProtocolFactory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver

from ppolicy.errors import PPolicyError

_SO_PEERGROUPS = 59
_TIMEOUT = 120


class ControlProtocol(LineOnlyReceiver):
    """
    Requests are C{{"verb": …, …}}, answers C{{"ok": true, …}} or C{{"ok": false, "error": …}}.

    @param verbs: {verb: function(arguments dictionary) -> dictionary, or a Deferred of one}
    """

    delimiter = b"\n"
    MAX_LENGTH = 131072
    log = Logger()

    def __init__(self, verbs):
        self._verbs = verbs
        self._busy = False

    def connectionMade(self):
        if not admitted(self.transport.socket, self.transport.getHost().name):
            self._answer(
                {"ok": False, "error": "not admitted: only root, the server's user and the socket's group"}
            )
            self.transport.loseConnection()

    def lineReceived(self, line):
        if self.transport.disconnecting:
            return
        if self._busy:
            self._answer({"ok": False, "error": "one request at a time"})
            return
        try:
            request = json.loads(line)
            verb = request.pop("verb")
            function = self._verbs[verb]
        except (ValueError, RecursionError):
            self._answer({"ok": False, "error": "no line of JSON"})
            return
        except (AttributeError, KeyError, TypeError):
            self._answer({"ok": False, "error": f"the verbs are {', '.join(sorted(self._verbs))}"})
            return
        self._busy = True
        maybeDeferred(function, request).addCallbacks(self._done, self._refused)

    def _done(self, result):
        self._busy = False
        self._answer({"ok": True, **(result or {})})

    def _refused(self, failure):
        self._busy = False
        if not failure.check(PPolicyError):
            self.log.failure("a control request failed", failure)
        self._answer({"ok": False, "error": failure.getErrorMessage()})

    def _answer(self, answer):
        self.sendLine(json.dumps(answer, default=str).encode("ascii"))


class ControlListener(ProtocolFactory):
    """
    Makes a L{ControlProtocol} for each connection.
    """

    noisy = False

    def __init__(self, verbs):
        self._verbs = verbs

    def buildProtocol(self, address):
        return ControlProtocol(self._verbs)


def isServed(path):
    """
    Does a server listen on this control socket?
    """
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def admitted(peer, path):
    """
    Is the process at the other end of a UNIX socket root, our user, or in the group of the socket's file?
    """
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, group = struct.unpack("3i", credentials)
    if user in (0, os.geteuid()):
        return True
    groups = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)  # the most Python takes: 256 groups
    owner = Path(os.fsdecode(path)).stat().st_gid
    return owner != 0 and owner in (group, *struct.unpack(f"{len(groups) // 4}I", groups))


def ask(path, verb, **arguments):
    """
    Ask a running server and wait for its answer; for commands, not for the server itself.

    @raises PPolicyError: with what the server says, or why it cannot be reached.
    """
    request = json.dumps({"verb": verb, **arguments}).encode()
    if len(request) > ControlProtocol.MAX_LENGTH:
        raise PPolicyError(f"{verb}: {len(request)} octets are too many for one request")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(str(path))
            connection.sendall(request + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        except FileNotFoundError:
            raise PPolicyError(f"no server is running: there is no socket {path}") from None
        except ConnectionRefusedError:
            raise PPolicyError(f"no server is running: nobody listens on {path}") from None
        except OSError as error:
            raise PPolicyError(f"{path}: {error.strerror or error}") from None
    if not line:
        raise PPolicyError(f"{path}: the server hung up without an answer")
    answer = json.loads(line)
    if not answer.pop("ok"):
        raise PPolicyError(answer["error"])
    return answer
