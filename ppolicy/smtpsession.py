"""
One session with a mail host: as far as RCPT, then QUIT. No mail is sent.
"""

from typing import NamedTuple

from twisted.mail.smtp import SMTPClient

from ppolicy.smtpreply import harmless, taken

try:
    from OpenSSL.SSL import Connection
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
    from twisted.internet.ssl import CertificateOptions
    from zope.interface import implementer
except ImportError:  # Twisted[tls] is an extra
    HAS_TLS = False
else:
    HAS_TLS = True

# Octets of a line (RFC 5321, 4.5.3.1.5 has 512), of a reply, and of all that a host says.
LINE, REPLY, SESSION = 4096, 16_384, 65_536


class Call(NamedTuple):
    """
    What a host is to be asked.

    @ivar recipients: addresses as L{Mailbox.path} has them, none for the greeting only. The second one is asked
        for when the first one is taken: it is there to be refused.
    @ivar sender: the address for MAIL FROM, '' for none.
    @ivar helo: our name; '' for our address (RFC 5321, 4.1.4).
    @ivar startTLS: use it where it is offered, L{HAS_TLS} given.
    @ivar seconds: for all of it.
    """

    recipients: tuple = ()
    sender: str = ""
    helo: str = ""
    port: int = 25
    startTLS: bool = True
    seconds: float = 20.0


class Heard(NamedTuple):
    """
    What became of it.

    @ivar stage: what the last reply was to: 'greeting', 'EHLO', 'MAIL' or 'RCPT'; 'connection' when there was no
        reply; 'limit' when we did not ask.
    @ivar verdict: True for yes, False for no, None when it is not known.
    @ivar text: what happened, harmless to show.
    @ivar acceptsAll: is the second recipient taken too? None when that is not known.
    """

    stage: str
    verdict: bool | None
    text: str
    acceptsAll: bool | None = None


class Session(SMTPClient):
    """
    Twisted's SMTP client reads the replies; what is said is up to L{_dialogue}.

    @ivar isSecuring: True from STARTTLS to the first reply under TLS.
    """

    debug = False
    MAX_LENGTH = LINE

    def __init__(self, attempt):
        super().__init__(b"")
        self._attempt = attempt
        self._call = attempt.call
        self.isSecuring = False
        self._stage = "greeting"
        self._best = None
        self._reply = self._said = 0
        self._ended = False

    def connectionMade(self):
        self._talk = self._dialogue()
        self._expected = range(-999, 1000)
        self._okresponse = self._replied
        next(self._talk)

    # What we say

    def _dialogue(self):
        """
        Yields commands, gets (code, text) for each.

        @return: what was L{Heard}.
        """
        call = self._call
        code, text = yield None
        if code != 220:
            # 521 is for a host that takes no mail at all (RFC 7504); 554 may be meant for us only.
            return self._heard(False if code == 521 else None, code, text)
        self._attempt.prober.greeted(self._attempt.address)
        if not call.recipients:
            return self._heard(True, code, text)
        self._stage = "EHLO"
        code, text, offers = yield from self._hello()
        if self._attempt.useTLS and "STARTTLS" in offers:
            code, text = yield "STARTTLS"
            if code == 220:
                self._secure()
                code, text, offers = yield from self._hello()
            else:
                code = 250  # then without (RFC 3207, 4.1)
        if not 200 <= code <= 299:
            return self._heard(None, code, text)
        isPlain = all(one.isascii() for one in (call.sender, *call.recipients))
        if not isPlain and "SMTPUTF8" not in offers:
            return Heard("EHLO", None, "it knows no addresses beyond ASCII")
        self._stage = "MAIL"
        code, text = yield f"MAIL FROM:<{call.sender}>{'' if isPlain else ' SMTPUTF8'}"
        if not 200 <= code <= 299:
            return self._heard(None, code, text)
        self._stage = "RCPT"
        first, *others = call.recipients
        code, text = yield f"RCPT TO:<{first}>"
        heard = self._heard(taken(code, text, first), code, text)
        if heard.verdict and others:
            self._best = heard
            code, text = yield f"RCPT TO:<{others[0]}>"
            heard = heard._replace(acceptsAll=taken(code, text, others[0]))
        return heard

    def _hello(self):
        """
        EHLO, else HELO (RFC 5321, 3.2).

        @return: (code, text, the extensions that are offered).
        """
        name = self._call.helo or self._literal()
        code, text = yield f"EHLO {name}"
        if 500 <= code <= 599:
            code, text = yield f"HELO {name}"
            return code, text, ()
        return code, text, [line.split(" ")[0].upper() for line in text.split("\n")[1:]]

    def _literal(self):
        host = self.transport.getHost().host
        return f"[IPv6:{host}]" if ":" in host else f"[{host}]"

    def _heard(self, verdict, code, text):
        return Heard(self._stage, verdict, f"{self._stage}: {code} {harmless(text.encode())}".rstrip())

    def _secure(self):
        self.isSecuring = True
        self.clearLineBuffer()  # what came before TLS counts no more (RFC 3207, 4.2)
        self._attempt.securing()
        self.transport.startTLS(Unverified(self._attempt.name))

    # What we hear

    def _replied(self, code, text):
        if self._ended:
            self.transport.loseConnection()
            return
        self._reply = 0
        try:
            command = self._talk.send((code, text.decode("utf-8", "replace")))
        except StopIteration as end:
            self._end(end.value)
        else:
            self._command(command)

    def _command(self, text):
        line = text.encode("utf-8")
        if b"\r" in line or b"\n" in line:
            raise ValueError(f"no line of SMTP: {text!r}")
        if self.clearLineBuffer():  # it would be taken for the reply to this, and each later one for the next
            self._broken("talks out of turn")
            return
        self.sendLine(line)

    def lineReceived(self, line):
        if self.isSecuring:
            self.isSecuring = False
            self._attempt.secured()
        self._reply += len(line) + 1
        self._said += len(line) + 1
        if self._reply > REPLY or self._said > SESSION:
            self.lineLengthExceeded(line)
            return
        super().lineReceived(line)

    def lineLengthExceeded(self, line):
        self._broken("says more than anybody needs")

    def sendError(self, error):
        """
        Called by Twisted's client for what is no reply.
        """
        self._broken("does not speak SMTP")

    def _broken(self, text):
        self.isSecuring = False
        self._attempt.tell(self.lost(text))
        self.clearLineBuffer()
        self._ended = True
        self.transport.abortConnection()

    def lost(self, why):
        """
        What is known when nothing more can be heard.
        """
        return self._best or Heard("connection", None, f"{self._stage}: {why}")

    def _end(self, heard):
        self._ended = True
        self._attempt.tell(heard)
        self.sendLine(b"QUIT")
        self._attempt.farewell()


if HAS_TLS:

    @implementer(IOpenSSLClientConnectionCreator)
    class Unverified:
        """
        TLS with whoever it is: encryption where nobody promises more (RFC 7435).
        """

        _options = CertificateOptions()

        def __init__(self, name):
            self._name = name

        def clientConnectionForTLS(self, protocol):
            connection = Connection(self._options.getContext(), None)
            if self._name and self._name.isascii():
                connection.set_tlsext_host_name(self._name.encode("ascii"))
            return connection
