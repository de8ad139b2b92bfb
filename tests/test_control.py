"""
Tests for the control socket: a fixed table of verbs, nothing evaluated.
"""

import json
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ppolicy import control
from ppolicy.errors import PPolicyError


class ControlTests(TestCase):
    """
    A real socket; the command's side blocks, so it is asked from a thread.
    """

    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name) / "control.sock")
        self.later = Deferred()
        verbs = {
            "echo": lambda request: request,
            "later": lambda request: self.later,
            "refuse": self._refuse,
            "fail": lambda request: 1 / 0,
        }
        port = reactor.listenUNIX(self.path, control.ControlListener(verbs), mode=0o660)
        self.addCleanup(port.stopListening)

    def _refuse(self, request):
        raise PPolicyError("not today")

    def ask(self, verb, **arguments):
        return deferToThread(control.ask, self.path, verb, **arguments)

    def send(self, octets):
        """
        Send octets as they are, and get the answer's line.
        """

        def talk():
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(self.path)
                connection.sendall(octets)
                try:
                    with connection.makefile() as lines:
                        return lines.readline()
                except ConnectionResetError:
                    return ""

        return deferToThread(talk)

    @inlineCallbacks
    def test_answer(self):
        """
        A verb gets its arguments, and its dictionary comes back.
        """
        answer = yield self.ask("echo", one=1, text="é\n")
        self.assertEqual({"one": 1, "text": "é\n"}, answer)

    @inlineCallbacks
    def test_refused(self):
        """
        What a verb refuses is told in its own words.
        """
        error = yield self.assertFailure(self.ask("refuse"), PPolicyError)
        self.assertEqual("not today", str(error))

    @inlineCallbacks
    def test_failed(self):
        """
        A verb that fails is logged, and the socket serves on.
        """
        yield self.assertFailure(self.ask("fail"), PPolicyError)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        yield self.ask("echo")

    @inlineCallbacks
    def test_later(self):
        """
        An answer may take its time.
        """
        asked = self.ask("later")
        reactor.callLater(0.1, self.later.callback, {"late": True})
        self.assertEqual({"late": True}, (yield asked))

    @inlineCallbacks
    def test_hostileLines(self):
        """
        Whatever is no known verb is refused, and nothing of it is evaluated.
        """
        lines = [
            b"\n",
            b"__import__('os')\n",
            b"[]\n",
            b'"echo"\n',
            b"{}\n",
            b'{"verb": "eval"}\n',
            b'{"verb": ["echo"]}\n',
            b'{"verb": {"a": 1}}\n',
            b"\xff\xfe\n",
            b"null\n",
            b"[" * 50000 + b"\n",
        ]
        for line in lines:
            answer = json.loads((yield self.send(line)))
            self.assertFalse(answer["ok"], line)
        yield self.ask("echo")

    @inlineCallbacks
    def test_tooLong(self):
        """
        An endless line is cut off.
        """
        answer = yield self.send(b"x" * 200_000)
        self.assertEqual("", answer)

    def test_nobodyThere(self):
        """
        Without a server the command says so in a sentence.
        """
        error = self.assertRaises(PPolicyError, control.ask, self.path + ".none", "status")
        self.assertIn("no server is running", str(error))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    ("user", "groups", "owner", "admitted"),
    [(0, [], 0, True), (12345, [], 0, False), (12345, [54321], 54321, True), (12345, [54321], 0, False)],
)
def test_admitted(user, groups, owner, admitted):
    """Root and members of the socket's group are admitted, others are not, root's group included."""
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        path = Path(folder) / "sock"
        Path(folder).chmod(0o755)
        listening.bind(str(path))
        os.chown(path, -1, owner)
        path.chmod(0o666)
        listening.listen()
        child = os.fork()
        if not child:
            try:
                os.setgroups(groups)
                os.setgid(user)
                os.setuid(user)
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(str(path))
                connection.recv(1)
            finally:
                os._exit(0)
        peer, _ = listening.accept()
        try:
            assert control.admitted(peer, str(path)) == admitted
        finally:
            peer.close()
            os.waitpid(child, 0)
