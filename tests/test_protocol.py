"""
Tests for the policy delegation protocol: dialogues without sockets.
"""

import sys

import pytest

from ppolicy.attributes import ATTRIBUTES
from ppolicy.protocol import MAX_REQUEST, RECEIVE, parseRequest, parseWhole
from tests.serving import POSTFIX, Serving, asked

ECHO = """
import json
def check(factory, data, port):
    return 'WARN', data.get('sender', '-')
"""


@pytest.fixture
def echo(tmp_path):
    """A server whose answers name the sender."""
    return Serving(tmp_path, ECHO)


def warned(*senders):
    """The replies of the echo policy."""
    return "".join(f"action=WARN {sender}\n\n" for sender in senders).replace("WARN \n", "WARN\n")


DIALOGUES = {
    "one request": ([b"request=smtpd_access_policy\nsender=a@b\n\n"], warned("a@b")),
    "without request=": ([b"sender=a@b\n\n"], warned("a@b")),
    "another request=": ([b"request=other\nsender=a@b\n\n"], "action=dunno\n\n"),
    "no attribute at all": ([b"hello\n\n"], "action=dunno\n\n"),
    "line without =": ([b"garbage\nsender=a@b\nmore\n\n"], warned("a@b")),
    "repeated attribute": ([b"sender=x@y\nsender=a@b\n\n"], warned("a@b")),
    "= in the value": ([b"sender=a=b@c=d\n\n"], warned("a=b@c=d")),
    "empty value": ([b"sender=\n\n"], warned("")),
    "empty name": ([b"=x\nsender=a@b\n\n"], warned("a@b")),
    "unknown attribute": ([b"new_in_4=x\nsender=a@b\n\n"], warned("a@b")),
    "in pieces": ([b"sen", b"der=a", b"@b\n", b"\n"], warned("a@b")),
    "octet by octet": ([bytes([one]) for one in b"sender=a@b\n\nsender=c@d\n\n"], warned("a@b", "c@d")),
    "pipelined": ([b"sender=a@b\n\nsender=c@d\n\nsender=e@f\n\n"], warned("a@b", "c@d", "e@f")),
    "one and a half": ([b"sender=a@b\n\nsender=c", b"@d\n\n"], warned("a@b", "c@d")),
    "CRLF": ([b"sender=a@b\r\n\r\n"], warned("a@b")),
    "CRLF in pieces": ([b"sender=a@b\r", b"\n\r", b"\nsender=c@d\r\n", b"\r", b"\n"], warned("a@b", "c@d")),
    "CR alone": ([b"sender=a\rb@c\n\n"], warned("a b@c")),
    "blank lines between": ([b"\n\nsender=a@b\n\n\n\n\n", b"\n", b"sender=c@d\n\n\n"], warned("a@b", "c@d")),
    "blank lines only": ([b"\n\n\n", b"\n\n"], ""),
    "brackets": ([b"sender=<a@b>\n\n"], warned("a@b")),
    "NUL": ([b"sender=a\0b@c\n\n"], warned("a b@c")),
}


@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogue(echo, name):
    """What Postfix sends, in these chunks, is answered so."""
    chunks, expected = DIALOGUES[name]
    protocol, transport = echo.connect()
    for chunk in chunks:
        protocol.dataReceived(chunk)
    assert transport.value().decode() == expected


def test_asPostfixSendsIt(echo):
    """The fast way through the parser reads the same as the slow one."""
    wire = asked(**POSTFIX)
    assert parseWhole(wire) == ATTRIBUTES | POSTFIX == parseRequest(wire[:-2])
    assert [name for name in parseWhole(wire) if name in POSTFIX] == list(POSTFIX)
    assert all(sys.intern(name) is name for name in parseWhole(wire))
    assert echo.ask(wire) == warned("alice@example.net")


@pytest.mark.parametrize("isWhole", [True, False])
def test_lackingAttributes(tmp_path, isWhole):
    """What a Postfix without SASL and TLS, or an older one, does not send is empty, however it is read."""
    serving = Serving(
        tmp_path,
        "def check(factory, data, port):\n"
        "    return 'WARN', repr([data['sasl_username'], data['ccert_subject'], data['policy_context']])\n",
    )
    lacking = ("sasl_", "ccert_", "encryption_", "policy_context", "compatibility_level", "mail_version")
    wire = asked(**{name: value for name, value in POSTFIX.items() if not name.startswith(lacking)})
    chunks = [wire] if isWhole else [wire[:50], wire[50:]]
    protocol, transport = serving.connect()
    for chunk in chunks:
        protocol.dataReceived(chunk)
    assert transport.value() == b"action=WARN ['', '', '']\n\n"


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"client_name": "unknown"}, {"client_name": ""}),
        ({"sender": "<a@b>", "recipient": "<>"}, {"sender": "a@b", "recipient": ""}),
        ({"sender": "a=b=c@d"}, {}),
        ({"sender": "\udcff\udc80@x"}, {}),
        ({"policy_context": "a=b"}, {}),
        ({"helo_name": "é\u2028"}, {}),
    ],
)
def test_bothParsersAgree(changes, read):
    """Whatever the values are, the fast way is no other way."""
    wire = asked(**{**POSTFIX, **changes})
    assert parseWhole(wire) == parseRequest(wire[:-2]) == {**ATTRIBUTES, **POSTFIX, **changes, **read}


def test_notWhole():
    """The fast way leaves alone whatever is not exactly one request in Postfix's order."""
    wire = asked(**POSTFIX)
    for other in (
        wire + wire,
        wire[:-1],
        wire + b"\n",
        b"\n" + wire,
        b"sender=a\n\n",
        wire[:-2] + b"\nsender=x\n\n",
    ):
        assert parseWhole(other) is None


def test_nonUtf8IsKept():
    """Octets that are no UTF-8 come back as they were."""
    value = parseRequest(b"sender=\xff\xfe\xe9@x")["sender"]
    assert value.encode("utf-8", "surrogateescape") == b"\xff\xfe\xe9@x"


def test_tooLarge(echo):
    """A request of 64 KB is answered, a larger one closes the connection."""
    fill = MAX_REQUEST - len(b"sender=a@b\nx=")
    assert echo.ask(b"sender=a@b\nx=" + b"y" * fill + b"\n\n") == warned("a@b")
    for chunks in ([b"x=" + b"y" * MAX_REQUEST + b"\n\n"], [b"x=" + b"y" * 40000, b"y" * 40000]):
        protocol, transport = echo.connect()
        for chunk in chunks:
            protocol.dataReceived(chunk)
        assert transport.disconnecting
        assert transport.value() == b""


def test_slowSender(echo):
    """A request that is not complete 30 s after it began closes the connection, however it dribbles."""
    protocol, transport = echo.connect()
    for _ in range(RECEIVE - 1):
        protocol.dataReceived(b"x")
        echo.clock.advance(1)
    assert not transport.disconnecting
    echo.clock.advance(1)
    assert transport.disconnecting or transport.aborting


def test_idleConnection(echo):
    """An idle connection is never closed by us, and what counts against a request ends with it."""
    protocol, transport = echo.connect()
    for chunk in (b"sender=", b"a@b\n\n", b"\n"):
        protocol.dataReceived(chunk)
    echo.clock.pump([10] * 100)
    protocol.dataReceived(b"sender=c@d\n\n")
    assert transport.value().decode() == warned("a@b", "c@d")
    assert not transport.disconnecting


SLOW = """
from ppolicy.check import Check, wait
from twisted.internet.defer import Deferred
waiting = []
class Wait(Check):
    blocking = False
    def check(self, data):
        waiting.append(Deferred())
        return 1, wait(waiting[-1])
modules = {'wait': (Wait, {})}
def check(factory, data, port):
    if data['sender'] == 'now@x':
        return 'WARN', 'now'
    return 'WARN', factory.check('wait', data)[1]
"""


@pytest.fixture
def slow(tmp_path):
    """A server whose answers wait for the test."""
    serving = Serving(tmp_path, SLOW)
    serving.waiting = serving.generation.configuration.policy.__globals__["waiting"]
    return serving


def test_inOrder(slow):
    """Requests pipelined on one connection are answered one after the other, in their order."""
    protocol, transport = slow.connect()
    protocol.dataReceived(b"sender=wait@x\n\nsender=now@x\n\nsender=wait@x\n\n")
    assert transport.value() == b""
    slow.waiting[0].callback("first")
    slow.clock.advance(0)
    assert transport.value() == b"action=WARN first\n\naction=WARN now\n\n"
    slow.waiting[1].callback("third")
    slow.clock.advance(0)
    assert transport.value().endswith(b"action=WARN third\n\n")


def test_connectionsDoNotWaitForEachOther(slow):
    """A request that waits holds up no other connection."""
    protocol, _ = slow.connect()
    protocol.dataReceived(b"sender=wait@x\n\n")
    assert slow.ask(sender="now@x") == "action=WARN now\n\n"


def test_tooMuchWhileWaiting(slow):
    """While a request waits, more than 64 KB behind it pause the transport; all of it is answered later."""
    protocol, transport = slow.connect()
    protocol.dataReceived(b"sender=wait@x\n\n")
    one = b"sender=now@x\nfill=" + b"x" * 1000 + b"\n\n"
    for _ in range(80):
        protocol.dataReceived(one)
    assert transport.producerState == "paused"
    slow.waiting[0].callback("first")
    slow.clock.advance(0)
    assert transport.producerState == "producing"
    assert transport.value().count(b"action=WARN now\n\n") == 80


def test_hangsUpWhileWaiting(slow):
    """A client that hangs up while its request waits harms nobody, and gets nothing."""
    protocol, transport = slow.connect()
    protocol.dataReceived(b"sender=wait@x\n\nsender=now@x\n\n")
    protocol.connectionLost(None)
    slow.waiting[0].callback("late")
    slow.clock.advance(0)
    assert transport.value() == b""
    assert slow.server.bridge.working == 0
    assert not slow.server.connections


def test_deadline(slow):
    """A request that waits for ever is answered with returnOnFatalError when its time is up."""
    protocol, transport = slow.connect()
    protocol.dataReceived(b"sender=wait@x\n\nsender=now@x\n\n")
    slow.clock.advance(30)
    slow.clock.advance(0)
    first, second, _ = transport.value().decode().split("\n\n")
    assert first.startswith("action=450 ")
    assert second == "action=WARN now"


def test_connLimit(tmp_path):
    """On a connection beyond connLimit the first request is answered so, then it is closed; a place gets free."""
    serving = Serving(tmp_path, ECHO + "connLimit = 2\nreturnOnConnLimit = ('450', 'too many')\n")
    first, _ = serving.connect()
    serving.connect()
    protocol, transport = serving.connect()
    protocol.dataReceived(b"sender=a@b\n\nsender=a@b\n\n")
    assert transport.value() == b"action=450 too many\n\n"
    assert transport.disconnecting
    protocol.connectionLost(None)
    first.connectionLost(None)
    assert serving.ask(sender="a@b") == warned("a@b")


def test_connLimitSilent(tmp_path):
    """A connection beyond connLimit that asks nothing is closed after 30 s."""
    serving = Serving(tmp_path, ECHO + "connLimit = 1\n")
    serving.connect()
    _, transport = serving.connect()
    serving.clock.advance(RECEIVE)
    assert transport.disconnecting or transport.aborting


BROKEN = {
    "raises": "raise ValueError('x')",
    "unknown action": "return 'FOOBAR'",
    "bytes": "return b'dunno'",
    "three items": "return 'dunno', '', ''",
    "an object": "return object()",
    "SystemExit": "raise SystemExit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "recursion": "return check(factory, data, port)",
    "unknown check": "return factory.check('no' + 'ne', data)",
}


@pytest.mark.parametrize("name", BROKEN)
def test_brokenPolicy(tmp_path, name):
    """What a policy does wrong costs that one request returnOnFatalError."""
    serving = Serving(
        tmp_path,
        f"returnOnFatalError = ('451', 'oops')\ndef check(factory, data, port):\n"
        f"    if data['sender'] == 'good@x':\n        return\n    {BROKEN[name]}\n",
    )
    assert serving.ask(sender="bad@x") == "action=451 oops\n\n"
    assert serving.ask(sender="good@x") == "action=dunno\n\n"
    assert serving.server.failures == 1


def test_port(tmp_path):
    """The policy knows where a request came in."""
    serving = Serving(
        tmp_path, "def check(f, data, port):\n    return 'WARN', f'{port.host} {port.port} {port.path}.'\n"
    )
    assert serving.ask(sender="a@b").startswith("action=WARN 10.0.0.1 ")
