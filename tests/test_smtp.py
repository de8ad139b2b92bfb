"""
Tests for asking mail hosts: dialogues over string transports, and what replies mean.
"""

import pytest
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, TimeoutError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from ppolicy.bridge import Bridge
from ppolicy.mailbox import Mailbox, mailbox, randomLocal
from ppolicy.smtp import FAREWELL, QUEUE, Limits, Prober
from ppolicy.smtpreply import harmless, taken
from ppolicy.smtpsession import LINE, REPLY, SESSION, Call

HOST = "192.0.2.1"
CALL = Call(("alice@example.net",), helo="mx.example.org", seconds=20)
BOTH = CALL._replace(recipients=("alice@example.net", "nobody@example.net"))
EHLO = b"250-host\r\n250-SIZE 1000\r\n250 SMTPUTF8\r\n"


class Transport(StringTransport):
    """
    One that can be aborted, and tells what was written since it was asked last.
    """

    aborted = False

    def abortConnection(self):
        self.aborted = True
        self.loseConnection()

    def take(self):
        written = self.value()
        self.clear()
        return written


class Asking:
    """
    One question to a host that is played by the test.
    """

    def __init__(self, call=CALL, prober=None, address=HOST, limits=Limits()):
        self.prober = prober or Prober(Bridge(MemoryReactorClock()))
        self.reactor = self.prober.reactor
        self.heard = None
        before = len(self.reactor.tcpClients)
        self.prober.ask(address, call, limits).addCallback(self._note)
        clients = self.reactor.tcpClients[before:]
        self.factory = clients[0][2] if clients else None

    def _note(self, heard):
        assert self.heard is None
        self.heard = heard

    def connect(self):
        self.protocol = self.factory.buildProtocol(None)
        self.transport = Transport()
        self.protocol.makeConnection(self.transport)
        return self

    def play(self, *steps):
        """
        What the host says, and what it has to be told then: octets, then text, in turns.
        """
        for said, expected in zip(steps[::2], steps[1::2], strict=True):
            self.protocol.dataReceived(said)
            assert self.transport.take().decode() == (f"{expected}\r\n" if expected else "")
        return self

    def greet(self):
        """
        All up to RCPT.
        """
        return self.play(
            b"220 host\r\n",
            "EHLO mx.example.org",
            EHLO,
            "MAIL FROM:<>",
            b"250 ok\r\n",
            "RCPT TO:<alice@example.net>",
        )

    def hangUp(self):
        reason = Failure(ConnectionDone())
        self.protocol.connectionLost(reason)
        self.factory.clientConnectionLost(None, reason)
        return self

    def fail(self, error):
        self.factory.clientConnectionFailed(None, Failure(error))
        return self


def test_dialogue():
    """
    A session says EHLO, MAIL FROM:<>, RCPT and QUIT; the answer is there before QUIT has a reply.
    """
    asking = Asking().connect().greet().play(b"250 2.1.5 ok\r\n", "QUIT")
    assert asking.heard == ("RCPT", True, "RCPT: 250 2.1.5 ok", None)
    asking.play(b"221 bye\r\n", "")
    assert asking.transport.disconnecting
    asking.hangUp()
    assert asking.prober.underWay == 0
    assert not asking.reactor.getDelayedCalls()


def test_noFarewell():
    """
    A host that does not answer to QUIT is left soon.
    """
    asking = Asking().connect().greet().play(b"250 ok\r\n", "QUIT")
    asking.reactor.advance(FAREWELL)
    assert asking.transport.aborted


def test_greetingOnly():
    """
    Without a recipient the greeting is all that is wanted.
    """
    asking = Asking(CALL._replace(recipients=())).connect().play(b"220-one\r\n220 host\r\n", "QUIT")
    assert asking.heard == ("greeting", True, "greeting: 220 one host", None)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (b"421 busy\r\n", None),
        (b"450 later\r\n", None),
        (b"554 no SMTP service here\r\n", None),
        (b"521 host takes no mail\r\n", False),
        (b"250 host\r\n", None),
        (b"999 host\r\n", None),
    ],
)
def test_greeting(said, verdict):
    """
    Only 521 is a no for all (RFC 7504); 554 may be meant for us.
    """
    asking = Asking().connect().play(said, "QUIT")
    assert asking.heard[:2] == ("greeting", verdict)


def test_helo():
    """
    Where EHLO is refused, HELO is said.
    """
    asking = Asking().connect()
    asking.play(b"220 host\r\n", "EHLO mx.example.org", b"502 what?\r\n", "HELO mx.example.org")
    asking.play(b"250 host\r\n", "MAIL FROM:<>")
    asking = Asking().connect()
    asking.play(
        b"220 host\r\n", "EHLO mx.example.org", b"550 no\r\n", "HELO mx.example.org", b"550 no\r\n", "QUIT"
    )
    assert asking.heard == ("EHLO", None, "EHLO: 550 no", None)


def test_literal():
    """
    Without a name of our own we say our address (RFC 5321, 4.1.3).
    """
    Asking(CALL._replace(helo="")).connect().play(b"220 host\r\n", "EHLO [10.0.0.1]")


@pytest.mark.parametrize("said", [b"550 5.1.1 no null sender\r\n", b"450 no\r\n", b"550 no\r\n", b"354 go\r\n"])
def test_senderRefused(said):
    """
    What is said to MAIL FROM is about us.
    """
    asking = Asking().connect()
    asking.play(b"220 host\r\n", "EHLO mx.example.org", EHLO, "MAIL FROM:<>", said, "QUIT")
    assert asking.heard[:2] == ("MAIL", None)


def test_utf8():
    """
    An address beyond ASCII is asked for where SMTPUTF8 is offered (RFC 6531, 3.4), else it stays unknown.
    """
    call = CALL._replace(recipients=("jürgen@example.net",))
    asking = Asking(call).connect()
    asking.play(b"220 host\r\n", "EHLO mx.example.org", EHLO, "MAIL FROM:<> SMTPUTF8")
    asking.play(b"250 ok\r\n", "RCPT TO:<jürgen@example.net>")
    asking = Asking(call).connect()
    asking.play(b"220 host\r\n", "EHLO mx.example.org", b"250 host\r\n", "QUIT")
    assert asking.heard[:2] == ("EHLO", None)


@pytest.mark.parametrize(
    ("said", "acceptsAll"),
    [
        (b"250 ok\r\n", True),
        (b"550 5.1.1 unknown\r\n", False),
        (b"450 later\r\n", None),
        (b"550 5.7.1 no\r\n", None),
    ],
)
def test_acceptsAll(said, acceptsAll):
    """
    When the first recipient is taken, the second one is asked for.
    """
    asking = Asking(BOTH).connect().greet().play(b"250 ok\r\n", "RCPT TO:<nobody@example.net>")
    assert asking.heard is None
    asking.play(said, "QUIT")
    assert asking.heard == ("RCPT", True, "RCPT: 250 ok", acceptsAll)


def test_firstRefused():
    """
    When the first one is refused, the second one is not asked for.
    """
    asking = Asking(BOTH).connect().greet().play(b"550 5.1.1 unknown\r\n", "QUIT")
    assert asking.heard == ("RCPT", False, "RCPT: 550 5.1.1 unknown", None)


def test_lostAfterYes():
    """
    What is known already is told when the host hangs up.
    """
    asking = Asking(BOTH).connect().greet().play(b"250 ok\r\n", "RCPT TO:<nobody@example.net>").hangUp()
    assert asking.heard == ("RCPT", True, "RCPT: 250 ok", None)


def test_hangsUp():
    """
    A host that hangs up, at whatever stage, leaves it unknown.
    """
    said = [b"220 host\r\n", EHLO, b"250 ok\r\n"]
    for stages, stage in enumerate(["greeting", "EHLO", "MAIL", "RCPT"]):
        asking = Asking().connect()
        for one in said[:stages]:
            asking.protocol.dataReceived(one)
        asking.hangUp()
        assert asking.heard == ("connection", None, f"{stage}: hung up", None)
        assert asking.prober.underWay == 0
        assert not asking.reactor.getDelayedCalls()


def test_hangs():
    """
    A host that does not answer is left when the time is up.
    """
    asking = Asking().connect().greet()
    asking.reactor.advance(19)
    assert asking.heard is None
    asking.reactor.advance(1)
    assert asking.heard == ("connection", None, "RCPT: no answer within 20 s", None)
    assert asking.transport.aborted


def test_drips():
    """
    Lines that come all the time do not make the time longer.
    """
    asking = Asking().connect()
    for _ in range(20):
        asking.protocol.dataReceived(b"220-wait\r\n")
        asking.reactor.advance(1)
    assert asking.heard == ("connection", None, "greeting: no answer within 20 s", None)


@pytest.mark.parametrize(
    "octets",
    [
        b"2" * (LINE + 10),
        b"220-" + b"x" * LINE + b"\r\n",
        b"220-" + b"x" * 65536 + b"\r\n220 host\r\n",
        b"220-x\r\n" * (REPLY // 6 + 1),
        b"000 x\r\n" * (SESSION // 6),
    ],
)
def test_tooMuch(octets):
    """
    Lines, replies and sessions without an end are ended.
    """
    asking = Asking().connect()
    asking.protocol.dataReceived(octets)
    assert asking.heard == ("connection", None, "greeting: says more than anybody needs", None)
    assert asking.transport.aborted
    asking.hangUp()
    assert asking.prober.underWay == 0


@pytest.mark.parametrize("octets", [b"\r\n", b"hello\r\n", b"\xff\xff\xff\r\n", b"SSH-2.0-x\r\n"])
def test_noSMTP(octets):
    """
    Who does not speak SMTP is left.
    """
    asking = Asking().connect()
    asking.protocol.dataReceived(octets)
    assert asking.heard == ("connection", None, "greeting: does not speak SMTP", None)
    assert asking.transport.aborted


def test_oddReplies():
    """
    Octets in any chunks, replies ahead of the question, and codes of no kind do no harm.
    """
    asking = Asking().connect()
    octets = b"220 host\r\n" + EHLO + b"250 ok\r\n550 5.1.1 \xff\x00\x1b[2J\r\n"
    for place in range(len(octets)):
        asking.protocol.dataReceived(octets[place : place + 1])
    assert asking.heard == ("RCPT", False, "RCPT: 550 5.1.1 ??? [2J", None)
    for code in (b"2_5", b" 25", b"-25", b"+25", b"25x"):
        asking = Asking().connect().greet()
        asking.protocol.dataReceived(code + b" x\r\n")
        assert asking.heard.verdict is None, code


@pytest.mark.parametrize(
    ("before", "early", "stage"),
    [
        (b"", b"220 host\r\n220 host\r\n", "EHLO"),
        (b"", b"220 host\r\n421 busy\r\n", "EHLO"),
        (b"", b"220 host\r\n250-ho", "EHLO"),
        (b"220 host\r\n", EHLO + b"250 ok\r\n", "MAIL"),
        (b"220 host\r\n", b"250 host\r\n250 SIZE 1000\r\n", "MAIL"),
    ],
)
def test_outOfTurn(before, early, stage):
    """
    Who replies to what was not said yet is left: each later reply would be taken for that to another command.
    """
    asking = Asking().connect()
    asking.protocol.dataReceived(before)
    asking.transport.take()
    asking.protocol.dataReceived(early)
    assert asking.heard == ("connection", None, f"{stage}: talks out of turn", None)
    assert asking.transport.take() == b""
    assert asking.transport.aborted
    asking.hangUp()
    assert asking.prober.underWay == 0
    assert not asking.reactor.getDelayedCalls()


def test_outOfTurnAfterYes():
    """
    What a host has said before it talks out of turn is told; a farewell of its own after the last reply is none.
    """
    asking = Asking(BOTH).connect().greet()
    asking.protocol.dataReceived(b"250 ok\r\n421 bye\r\n")
    assert asking.heard == ("RCPT", True, "RCPT: 250 ok", None)
    asking = Asking().connect().greet()
    asking.protocol.dataReceived(b"550 5.1.1 unknown\r\n421 bye\r\n")
    assert asking.heard == ("RCPT", False, "RCPT: 550 5.1.1 unknown", None)


def test_noConnection():
    """
    A refused connection is told apart from one that does not come about.
    """
    asking = Asking().fail(ConnectionRefusedError())
    assert asking.heard == ("connection", False, "refuses the connection", None)
    asking = Asking().fail(TimeoutError())
    assert asking.heard[:2] == ("connection", None)
    assert asking.prober.underWay == 0
    assert not asking.reactor.getDelayedCalls()


def test_lineBreak():
    """
    A line break never gets into a command.
    """
    call = CALL._replace(recipients=("alice@example.net>\r\nRCPT TO:<bob@example.net",))
    asking = Asking(call).connect()
    asking.play(b"220 host\r\n", "EHLO mx.example.org", EHLO, "MAIL FROM:<>")
    with pytest.raises(ValueError, match="no line of SMTP"):
        asking.protocol.dataReceived(b"250 ok\r\n")
    assert asking.transport.take() == b""


def test_connections():
    """
    A host is asked by so many sessions at a time; who waits is next, or is told when it takes too long.
    """
    first = Asking(limits=Limits(1))
    second, third = (Asking(prober=first.prober, limits=Limits(1)) for _ in range(2))
    other = Asking(prober=first.prober, limits=Limits(1), address="192.0.2.2")
    assert other.factory is not None
    assert second.factory is third.factory is None
    first.fail(TimeoutError())
    assert len(first.reactor.tcpClients) == 3
    first.reactor.advance(20)
    assert third.heard == ("limit", None, "it is asked by others all the time", None)
    assert second.heard.stage == "connection"


def test_queue():
    """
    No more than some wait.
    """
    first = Asking(limits=Limits(1, 1000))
    for _ in range(QUEUE):
        assert Asking(prober=first.prober, limits=Limits(1, 1000)).heard is None
    assert Asking(prober=first.prober, limits=Limits(1, 1000)).heard.stage == "limit"
    first.prober.stop()
    assert first.prober.status()["waiting"] == 0


def test_perMinute():
    """
    A host is asked so often in a minute, whatever comes of it.
    """
    first = Asking(limits=Limits(2, 2)).fail(TimeoutError())
    Asking(prober=first.prober, limits=Limits(2, 2)).fail(TimeoutError())
    assert Asking(prober=first.prober, limits=Limits(2, 2)).heard.stage == "limit"
    assert Asking(prober=first.prober, limits=Limits(2, 3)).heard is None
    first.reactor.advance(60)
    assert Asking(prober=first.prober, limits=Limits(2, 2)).heard is None


def test_stop():
    """
    Sessions, and what waits for one, end when the server stops; nobody is asked after that.
    """
    prober = Prober(Bridge(MemoryReactorClock()))
    asking = [Asking(prober=prober, limits=Limits(1)) for _ in range(2)]
    asking[0].connect().greet()
    prober.stop()
    asking[0].hangUp()
    asking.append(Asking(prober=prober, address="192.0.2.2"))
    assert [one.heard.text for one in asking] == ["RCPT: the server stops", *["the server stops"] * 2]
    assert len(prober.reactor.tcpClients) == 1
    assert prober.underWay == 0
    assert not prober.reactor.getDelayedCalls()


def test_reached():
    """
    It is known whether lately another host of the same kind, public or private, has greeted us.
    """
    asking = Asking()
    assert not asking.prober.reached("9.9.9.9", 600)
    asking.connect().play(b"220 host\r\n", "EHLO mx.example.org")
    assert asking.prober.reached(HOST, 600)
    assert not asking.prober.reached("9.9.9.9", 600)
    asking.reactor.advance(601)
    assert not asking.prober.reached(HOST, 600)


def test_noneReached():
    """
    That no host can be reached any more, and not one host only, is a problem, until one greets us; a refused
    connection means nothing then.
    """
    prober = Asking().connect().greet().prober
    for _ in range(20):
        Asking(prober=prober).fail(TimeoutError())
    assert prober.status()["problem"] is None
    for number in range(1, 10):
        assert prober.reached(HOST, 600)
        Asking(prober=prober, address=f"198.51.100.{number}").fail(TimeoutError())
    assert "port 25" in prober.status()["problem"]
    assert not prober.reached(HOST, 600)
    Asking(prober=prober, address="192.0.2.99").connect().play(b"220 host\r\n", "EHLO mx.example.org")
    assert prober.status()["problem"] is None


@pytest.mark.parametrize(
    ("code", "text", "verdict"),
    [
        (250, "2.1.5 ok", True),
        (251, "user not local; will forward", True),
        (450, "4.2.0 greylisted", None),
        (421, "5.1.1 no such user", None),
        (
            550,
            "5.1.1 <alice@example.net>: Recipient address rejected: User unknown in local recipient table",
            False,
        ),
        (
            550,
            "5.1.1 <alice@example.net>: Recipient address rejected: User unknown in relay recipient table",
            False,
        ),
        (550, "5.1.1 The email account that you tried to reach does not exist. Please try double-checking", False),
        (550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", False),
        (550, "sorry, no mailbox here by that name. (#5.1.1)", False),
        (550, "No such user here", False),
        (550, "Unrouteable address", False),
        (551, "User not local; please try <bob@example.org>", False),
        (553, "no such mailbox", False),
        (556, "5.1.10 domain takes no mail", False),
        (554, "5.1.1 unknown", False),
        (501, "5.1.3 bad address syntax", False),
        (550, "5.1.7 bad address", None),
        (550, "5.1.8 domain not found", None),
        (550, "5.2.1 mailbox disabled", None),
        (552, "5.2.2 mailbox is over", None),
        (550, "5.4.1 Recipient address rejected: Access denied", None),
        (550, "5.7.1 relaying denied", None),
        (550, "5.7.606 Access denied, banned sending IP [192.0.2.9]", None),
        (550, "5.1.1 5.7.1 both", None),
        (550, "relay not permitted", None),
        (550, "blocked", None),
        (550, "Your IP is listed at zen.example", None),
        (550, "Sender verify failed", None),
        (550, "bounces are not accepted here", None),
        (550, "policy", None),
        (550, "HELO name is no good", None),
        (550, "192.5.1.1 knows no such user", False),
        (550, "Requested action not taken: mailbox unavailable", False),
        (551, "Unknown recipient", False),
        (553, "mailbox name is no good", False),
        (550, "sorry, no account by that name here", False),
        (550, "", None),
        (550, "Rejected", None),
        (550, "Service unavailable", None),
        (550, "Database error", None),
        (550, "We do not take mail for this domain", None),
        (550, "Mail from your host is not accepted here", None),
        (550, "Dynamic addresses may not send mail", None),
        (550, "mail from this IP address refused", None),
        (550, "Your address is not welcome", None),
        (550, "User lookup failed", None),
        (550, "mailbox disabled", None),
        (550, "Unknown host", None),
        (553, "sorry, your envelope is in my badmailfrom list", None),
        (554, "Transaction failed", None),
        (550, "5.0.0 no", None),
        (500, "what?", None),
        (503, "bad sequence", None),
        (521, "no", None),
        (535, "5.1.1 authentication", None),
        (354, "go", None),
        (0, "", None),
        (-1, "", None),
        (600, "5.1.1", None),
    ],
)
def test_taken(code, text, verdict):
    """
    Only what is said about the recipient is a no.
    """
    assert taken(code, text, "alice@example.net") is verdict


def test_takenRepeated():
    """
    Words in the address itself tell nothing when the host repeats it.
    """
    assert taken(550, "5.1.1 <Spam@Blocked.example>: unknown", "spam@blocked.example") is False
    assert taken(550, "spam", "spam@blocked.example") is None


def test_harmless():
    """
    What hosts say is printable ASCII, and short.
    """
    assert harmless(b"a\r\nb\t \x00c\x7f\xff%s") == "a b c??%s"
    assert len(harmless(b"x" * 1000)) == 160


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Alice@Example.NET", ("Alice", "example.net")),
        ("alice@example.net.", ("alice", "example.net")),
        ("a+b=c/d@e", ("a+b=c/d", "e")),
        ("foo bar@e", ('"foo bar"', "e")),
        ("a..b@e", ('"a..b"', "e")),
        (".a@e", ('".a"', "e")),
        ('a"b\\c@e', ('"a\\"b\\\\c"', "e")),
        ('"a b"@e', ('"a b"', "e")),
        ("a@b@e", ('"a@b"', "e")),
        ("a<b>@e", ('"a<b>"', "e")),
        ("jürgen@bücher.example", ("jürgen", "xn--bcher-kva.example")),
        ("a@Faß.example.", ("a", "xn--fa-hia.example")),
        ("a@[192.0.2.1]", ("a", "[192.0.2.1]")),
        ("a@[IPv6:2001:db8::1]", ("a", "[ipv6:2001:db8::1]")),
        ("a@_dmarc.example.net", ("a", "_dmarc.example.net")),
        (f"{'x' * 70}@e", ("x" * 70, "e")),
    ],
)
def test_mailbox(text, expected):
    """
    An address is put into the form that SMTP commands have.
    """
    assert mailbox(text) == Mailbox(*expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "@",
        "@example.net",
        "alice@",
        "alice@.",
        "alice@exa mple",
        "alice@a..b",
        "alice@-a",
        "alice@a>b",
        "alice@[x]",
        "alice@[192.0.2.1",
        "a\r\nb@e",
        "a\0b@e",
        "a@b\n",
        "a\udcff@e",
        "a@\udcff",
        f"a@{'x' * 64}",
        f"a@{'ü' * 64}",
        f"{'x' * 250}@e.example",
        f"a@{'x.' * 130}example",
    ],
)
def test_noMailbox(text):
    """
    What is no address, or would break out of a command, is told.
    """
    assert mailbox(text) is None


def test_randomLocal():
    """
    A local part that nobody has is another one each time.
    """
    assert randomLocal() != randomLocal()
    assert mailbox(f"{randomLocal()}@example.net").local.isalnum()
