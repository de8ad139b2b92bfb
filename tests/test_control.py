"""
Tests for the control socket: a fixed table of verbs, nothing evaluated.
"""

import contextlib
import json
import os
import random
import socket
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ppolicy import control, controlclient
from ppolicy.errors import NoServer, PPolicyError


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
            "large": lambda request: {"text": "x" * 1_000_000},
            "strange": lambda request: {("no", "name"): 1},
        }
        self.followers = []
        streams = {"follow": self._follow, "refuseToTell": self._refuse}
        self.listener = control.ControlListener(verbs, streams)
        port = reactor.listenUNIX(self.path, self.listener, mode=0o660)
        self.addCleanup(port.stopListening)

    def _refuse(self, request, send=None):
        raise PPolicyError("not today")

    def _follow(self, request, send):
        self.followers.append(send)
        return lambda: self.followers.remove(send)

    def connect(self):
        """
        A connection that says nothing yet; nothing here waits for it.
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        self.addCleanup(connection.close)
        connection.connect(self.path)
        return connection

    def read(self, connection, count=-1):
        """
        So many octets of what the server says, or all until it hangs up.
        """

        def talk():
            connection.settimeout(5)
            got = b""
            while len(got) != count:
                try:
                    more = connection.recv(65536 if count < 0 else count - len(got))
                except ConnectionResetError:
                    more = b""
                if not more:
                    return got
                got += more
            return got

        return deferToThread(talk)

    @inlineCallbacks
    def fill(self, send):
        """
        Send events of 1 KB until there is no room any more, not even in the kernel.

        @return: how many there was room for.
        """
        taken = turns = 0
        while turns < 5:
            turns = 0 if send({"text": "x" * 1000}) else turns + 1
            taken += not turns
            yield deferLater(reactor, 0 if not turns else 0.01)
        return taken

    @inlineCallbacks
    def until(self, condition):
        """
        Wait for something, but not for ever.
        """
        for _ in range(500):
            if condition():
                return
            yield deferLater(reactor, 0.01)
        self.fail("it never came")

    def ask(self, verb, **arguments):
        return deferToThread(controlclient.ask, self.path, verb, **arguments)

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
        self.assertEqual({"one": 1, "text": "é\n", "by": control.userNamed(os.geteuid())}, answer)

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

    @inlineCallbacks
    def test_whoAsks(self):
        """
        Nobody can claim to be somebody else.
        """
        answer = yield self.ask("echo", by="the chief")
        self.assertEqual(control.userNamed(os.geteuid()), answer["by"])

    @inlineCallbacks
    def test_silent(self):
        """
        Who says nothing is hung up on after a while; so is who says half a line, octet by octet.
        """
        self.patch(control, "IDLE", 0.3)
        silent, slow = self.connect(), self.connect()
        for _ in range(10):
            slow.send(b"x")
            yield deferLater(reactor, 0.02)
        self.assertEqual(2, len(self.listener.connections))
        self.assertEqual(b"", (yield self.read(silent)))
        self.assertEqual(b"", (yield self.read(slow)))
        yield self.until(lambda: not self.listener.connections)

    @inlineCallbacks
    def test_takesItsTime(self):
        """
        Nobody is hung up on while an answer is worked on, or before the next question.
        """
        self.patch(control, "IDLE", 0.2)
        connection = self.connect()
        connection.send(b'{"verb": "later"}\n')
        yield deferLater(reactor, 0.5)
        self.later.callback({"late": True})
        self.assertEqual(b'{"ok": true, "late": true}\n', (yield self.read(connection, 27)))
        connection.send(b'{"verb": "echo", "by": 0}\n')
        self.assertTrue((yield self.read(connection)).startswith(b'{"ok": true'))

    @inlineCallbacks
    def test_leftMeanwhile(self):
        """
        Who asks and leaves costs nothing later on: no timer, no connection.
        """
        connection = self.connect()
        connection.send(b'{"verb": "later"}\n')
        yield self.until(lambda: [one for one in self.listener.connections if one._busy])
        connection.close()
        yield self.until(lambda: not self.listener.connections)
        self.later.callback({})
        yield self.ask("echo")

    @inlineCallbacks
    def test_tooMany(self):
        """
        More than so many connections are refused with a sentence, and there is room again when one ends.
        """
        self.patch(control, "CONNECTIONS", 3)
        open_ = [self.connect() for _ in range(3)]
        yield self.until(lambda: len(self.listener.connections) == 3)
        for _ in range(10):
            error = yield self.assertFailure(self.ask("echo"), PPolicyError)
            self.assertEqual("3 control connections are open, which is the most; try again later", str(error))
        open_[0].close()
        yield self.until(lambda: len(self.listener.connections) == 2)
        yield self.ask("echo")

    @inlineCallbacks
    def test_oneAtATime(self):
        """
        A second request before the answer to the first is refused; the first is answered.
        """
        connection = self.connect()
        connection.send(b'{"verb": "later"}\n{"verb": "echo"}\n')
        refused = b'{"ok": false, "error": "one request at a time"}\n'
        self.assertEqual(refused, (yield self.read(connection, len(refused))))
        self.later.callback({})
        self.assertEqual(b'{"ok": true}\n', (yield self.read(connection, 13)))

    @inlineCallbacks
    def test_neverReads(self):
        """
        Who sends and sends, and reads no answers, is not read after a while, and hung up on in time.
        """
        self.patch(control, "IDLE", 0.5)
        connection = self.connect()
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                with contextlib.suppress(BlockingIOError):
                    sent += connection.send(b"\n" * 4096)
                yield deferLater(reactor, 0.001)
        self.assertLess(sent, 1_000_000)
        yield self.until(lambda: not self.listener.connections)
        yield self.ask("echo")

    @inlineCallbacks
    def test_manyAtOnce(self):
        """
        Who sends many requests at once, and reads later, gets an answer to each in its order.
        """
        connection = self.connect()
        lines = b"".join(
            b'{"verb": "echo", "n": %d, "x": "%s"}\n' % (number, b"x" * 1000) for number in range(500)
        )
        sending = deferToThread(lambda: (connection.setblocking(True), connection.sendall(lines)))
        yield deferLater(reactor, 0.1)
        got = b""
        while got.count(b"\n") < 500:
            got += yield deferToThread(connection.recv, 65536)
        yield sending
        self.assertEqual(list(range(500)), [json.loads(line)["n"] for line in got.splitlines()])

    @inlineCallbacks
    def test_readsNothing(self):
        """
        Who asks for more than fits, and does not read it, is hung up on in time.
        """
        self.patch(control, "IDLE", 0.3)
        connection = self.connect()
        connection.send(b'{"verb": "large"}\n')
        yield self.until(lambda: len(self.listener.connections) == 1)
        yield self.until(lambda: not self.listener.connections)

    @inlineCallbacks
    def test_large(self):
        """
        A large answer comes whole.
        """
        answer = yield self.ask("large")
        self.assertEqual(1_000_000, len(answer["text"]))

    @inlineCallbacks
    def test_unspeakable(self):
        """
        An answer that is nothing for JSON is a failure, told and logged, and not the end of the connection.
        """
        yield self.assertFailure(self.ask("strange"), PPolicyError)
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))
        yield self.ask("echo")

    @inlineCallbacks
    def test_follow(self):
        """
        Each event is a line, until the follower hangs up; two follow side by side.
        """
        follows = []
        for _ in range(2):
            follows.append((yield deferToThread(controlclient.follow, self.path, "follow")))
        self.assertEqual(2, len(self.followers))
        for send in self.followers:
            self.assertTrue(send({"number": 1}))
            self.assertTrue(send({"number": 2}))
        for one in follows:
            for number in (1, 2):
                self.assertEqual({"number": number}, (yield deferToThread(next, one)))
        yield deferToThread(follows[0].close)
        yield self.until(lambda: len(self.followers) == 1)
        self.followers[0]({"number": 3})
        self.assertEqual({"number": 3}, (yield deferToThread(next, follows[1])))
        yield deferToThread(follows[1].close)
        yield self.until(lambda: not self.followers)

    @inlineCallbacks
    def test_followRefused(self):
        """
        What cannot be followed is refused in its own words.
        """
        error = yield self.assertFailure(
            deferToThread(controlclient.follow, self.path, "refuseToTell"), PPolicyError
        )
        self.assertEqual("not today", str(error))

    @inlineCallbacks
    def test_followerHangs(self):
        """
        A follower that does not read is sent no more, is waited for a while, and costs a bounded memory.
        """
        self.patch(control, "STALLED", 1)
        connection = self.connect()
        connection.send(b'{"verb": "follow"}\n')
        yield self.until(lambda: self.followers)
        (send,) = self.followers
        taken = [send({"text": "x" * 1000}) for _ in range(2000)]
        self.assertLess(sum(taken), 100)
        filled = yield self.fill(send)
        self.assertLess(filled, 1000)
        yield self.read(connection, 1000 * filled)
        yield self.until(lambda: send({}))
        self.assertTrue(self.followers)
        yield self.fill(send)
        yield self.until(lambda: not self.followers)
        yield self.ask("echo")

    @inlineCallbacks
    def test_serverEnds(self):
        """
        A follower whose server ends is told so, also when that was in the middle of a line.
        """
        for last in (b"", b'{"half'):
            following = yield deferToThread(controlclient.follow, self.path, "follow")
            (protocol,) = self.listener.connections
            protocol.transport.write(last)
            protocol.transport.loseConnection()
            error = yield self.assertFailure(deferToThread(next, following), NoServer)
            self.assertIn("the server has ended", str(error))
            yield self.until(lambda: not self.listener.connections)

    @inlineCallbacks
    def test_random(self):
        """
        No random line, whole or not, does anything but be refused, nor does it disturb the next connection.
        """
        chance = random.Random(1)
        for _ in range(20):
            connection = self.connect()
            for _ in range(50):
                with contextlib.suppress(OSError):
                    connection.send(randomLine(chance, ["echo", "refuse"]))
                if not chance.randrange(10):
                    yield deferLater(reactor, 0)
            connection.close()
        yield self.ask("echo")

    def test_nobodyThere(self):
        """
        Without a server the command says so in a sentence.
        """
        error = self.assertRaises(PPolicyError, controlclient.ask, self.path + ".none", "status")
        self.assertIn("no server is running", str(error))


def randomLine(chance, verbs):
    """
    Something that is hardly a request.
    """
    kind = chance.randrange(5)
    if kind == 0:
        return chance.randbytes(chance.randint(0, 100)) + b"\n"
    if kind == 1:
        return json.dumps(randomValue(chance)).encode() + b"\n"
    if kind == 2:
        return json.dumps(randomValue(chance)).encode()[: chance.randint(0, 100)] + b"\n"
    names = ("text", "limit", "module", "level", "client", "sender", "request", "by", "verb", "x")
    request = {name: randomValue(chance) for name in chance.sample(names, chance.randint(0, 5))}
    if kind == 3:
        request["verb"] = chance.choice(verbs)
    return json.dumps(request).encode() + b"\n"


def randomValue(chance, depth=3):
    """
    Anything that JSON can say.
    """
    if depth and chance.random() < 0.3:
        inner = [randomValue(chance, depth - 1) for _ in range(chance.randint(0, 4))]
        return chance.choice([inner, {str(one)[:9]: one for one in inner}])
    texts = ("", "spf", "\ud800", "\0\x1b[2J\n", "192.0.2.0/24", "a/b", "é", "{0} %s", "x" * 1000, "DEBUG")
    return chance.choice([*texts, None, True, 0, -1, 10**40, 1.5, float("inf"), float("nan"), 5])


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


def test_removedSocket():
    """Where somebody has removed the socket, its group is not known, and only root and our user are admitted."""
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        assert control.admitted(here, "/nowhere/sock")


def test_userNamed():
    """A user without a name is told by the number."""
    assert control.userNamed(0) == "root"
    assert control.userNamed(2**31 - 5) == f"user {2**31 - 5}"


@pytest.mark.parametrize("said", (b'{"ok": fal', b"", b'{"ok": true}'))
def test_hungUp(tmp_path, said):
    """A server that hangs up before its answer is whole is said to have done so."""
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.sendall(said)
                connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NoServer, match="hung up without an answer"):
            controlclient.ask(path, "status")
        thread.join()


def test_refusedUnheard(tmp_path):
    """Who is refused before the question is sent still hears why."""
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve():
            for _ in range(20):
                connection, _ = listening.accept()
                connection.sendall(b'{"ok": false, "error": "not admitted: go away"}\n')
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(20):
            with pytest.raises(NoServer, match="go away"):
                controlclient.ask(path, "status")
        thread.join()
