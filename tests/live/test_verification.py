"""
Verification against real mail servers on loopback: smtp-sink, Postfix, and one that does everything wrong.
"""

import os
import socket
import subprocess
import time

import pytest
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase

from ppolicy.bridge import Bridge
from ppolicy.smtp import Prober
from ppolicy.smtpsession import HAS_TLS
from ppolicy.state import StateStore
from ppolicy.testing import FakeResolver, make
from tests.dnsserver import DNSServer
from tests.stalls import took

from .ports import freePort

LOOPBACK = ["127.0.0.0/8", "::1/128"]
RECORDS = {
    "four.test": {"MX": [(10, "mx.four.test")]},
    "mx.four.test": {"A": ["127.0.0.1"]},
    "six.test": {"MX": [(10, "mx.six.test")]},
    "mx.six.test": {"AAAA": ["::1"]},
    "example.org": {"A": ["127.0.0.1"]},
    "example.net": {"A": ["127.0.0.1"]},
    # nobody listens on the first one
    "backup.test": {"MX": [(10, "mx.closed.test"), (20, "mx.four.test")]},
    "mx.closed.test": {"A": ["127.0.0.99"]},
    "closed.test": {"A": ["127.0.0.99"]},
}


class Asking(TestCase):
    """
    Checks on the real reactor, with names of our own.
    """

    timeout = 60

    def setUp(self):
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)
        self.smtp = Prober(self.bridge)
        self.addCleanup(self._settled)

    @inlineCallbacks
    def _settled(self):
        """
        No session is left, whatever has happened.
        """
        ends = reactor.seconds() + 10
        while self.smtp.underWay:
            self.assertLess(reactor.seconds(), ends, "a session is left")
            yield deferLater(reactor, 0.02)
        self.assertEqual(set(), self.smtp._attempts)

    def make(self, port, vtype="user", **parameters):
        parameters = {"timeout": 3, "hostTimeout": 3, "allowPrivate": LOOPBACK, "hostPerMinute": 1000} | parameters
        check = make(
            "Verification",
            StateStore(self.bridge),
            FakeResolver(RECORDS),
            **{"param": "sender", "vtype": vtype, "port": port, "helo": "us.test", **parameters},
        )
        check.smtp = self.smtp
        check.start()
        return check

    def ask(self, check, address="alice@four.test"):
        return self.bridge.run(check.check, {"sender": address})

    @inlineCallbacks
    def codes(self, port, **parameters):
        """
        What each level says, of IPv4 and IPv6, which must be the same.
        """
        found = []
        for vtype in ("connection", "domain", "user"):
            check = self.make(port, vtype, **parameters)
            four = yield self.ask(check)
            six = yield self.ask(check, "alice@six.test")
            self.assertEqual(four[0], six[0], (four, six))
            self.assertIn("::1", six[1])
            found.append(four[0])
        return found


class SinkTests(Asking):
    """
    Postfix's test server, told to refuse.
    """

    def sink(self, *options):
        """
        One that listens on all addresses of loopback.

        @return: its port.
        """
        program = "/usr/sbin/smtp-sink"
        if not os.access(program, os.X_OK):
            pytest.skip("LIVE TEST SKIPPED: smtp-sink is missing (Debian package postfix)")
        port = freePort()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        for host in ("127.0.0.1", "[::1]"):
            process = subprocess.Popen([program, *user, *options, f"inet:{host}:{port}", "50"])
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            deadline = time.monotonic() + 10
            while True:
                with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
                    if trial.connect_ex((host.strip("[]"), port)) == 0:
                        break
                assert process.poll() is None, "smtp-sink did not start"
                assert time.monotonic() < deadline
                time.sleep(0.02)
        return port

    @inlineCallbacks
    def check(self, options, expected, **parameters):
        self.assertEqual(expected, (yield self.codes(self.sink(*options), **parameters)), options)

    def test_accepts(self):
        """
        A host that takes every mail gives 3 and 4, and no more than 4 for a user; 5 when that is not tried.
        """
        return self.check([], [3, 4, 4])

    def test_acceptsUntried(self):
        """
        Without the test for any address the user is taken.
        """
        return self.check([], [3, 4, 5], acceptAll=False)

    def test_plainSMTP(self):
        """
        A host without EHLO is spoken to with HELO.
        """
        return self.check(["-f", "EHLO"], [3, 4, 4])

    def test_refusesUser(self):
        """
        A 550 5.1.1 to RCPT is a no.
        """
        return self.check(["-f", "RCPT", "-B", "550 5.1.1 no such user"], [3, -4, -5])

    def test_refusesPolicy(self):
        """
        A 5xx that is about us is no no.
        """
        return self.check(["-f", "RCPT", "-B", "550 5.7.1 your address is blocked"], [3, 0, 0])

    def test_refusesVaguely(self):
        """
        So is one that says nothing in particular.
        """
        return self.check(["-f", "RCPT"], [3, 0, 0])

    @inlineCallbacks
    def test_refusesEarlier(self):
        """
        What is refused before RCPT tells nothing about the user, whatever the code says.
        """
        for commands in ("MAIL", "EHLO HELO"):
            yield self.check(["-f", commands, "-B", "550 5.1.1 no such user"], [3, 0, 0])
        yield self.check(["-f", "CONNECT", "-B", "554 5.7.1 go away"], [0, 0, 0])

    @inlineCallbacks
    def test_defers(self):
        """
        A 4xx is unknown, wherever it comes: greylisting is one.
        """
        for commands in ("RCPT", "MAIL", "EHLO HELO"):
            yield self.check(["-r", commands, "-b", "450 4.2.0 greylisted"], [3, 0, 0])
        yield self.check(["-r", "CONNECT"], [0, 0, 0])

    @inlineCallbacks
    def test_drops(self):
        """
        A host that hangs up is unknown, with 421 or without.
        """
        for option in ("-q", "-Q"):
            for commands in ("RCPT", "MAIL", "EHLO"):
                yield self.check([option, commands], [3, 0, 0])
            yield self.check([option, "CONNECT"], [0, 0, 0])

    @inlineCallbacks
    def test_hangs(self):
        """
        A host that does not answer costs the request its time-out, not more.
        """
        port = self.sink("-W", "RCPT:30")
        check = self.make(port, timeout=0.5, hostTimeout=1)
        begun = time.monotonic()
        self.assertEqual((0, "no answer yet", 0), (yield self.ask(check)))
        self.assertLess(took(begun), 1.5)

    @inlineCallbacks
    def test_late(self):
        """
        An answer that comes after the request's time-out is there for the next one.
        """
        port = self.sink("-W", "EHLO:1", "-f", "RCPT", "-B", "550 5.1.1 no such user")
        check = self.make(port, timeout=0.3)
        self.assertEqual((0, "no answer yet", 0), (yield self.ask(check)))
        yield deferLater(reactor, 1.5)
        self.assertEqual(-5, (yield self.ask(check))[0])

    @inlineCallbacks
    def test_backup(self):
        """
        Where nobody listens the next host is asked; where there is no next one it is -3, as others can be reached.
        """
        port = self.sink()
        check = self.make(port)
        self.assertEqual(0, (yield self.ask(check, "alice@closed.test"))[0])
        code, text = yield self.ask(check, "alice@backup.test")
        self.assertEqual(4, code)
        self.assertIn("mx.four.test [127.0.0.1] RCPT: 250", text)
        self.assertEqual(-3, (yield self.ask(check, "alice@closed.test"))[0])

    @inlineCallbacks
    def test_manyAtOnce(self):
        """
        Many questions at once are asked by two sessions at a time, and all are answered.
        """
        port = self.sink()
        check = self.make(port, acceptAll=False)
        work = [self.ask(check, f"user{number}@four.test") for number in range(22)]
        seen = set()
        while not all(one.called for one in work):
            seen.add(self.smtp.underWay)
            yield deferLater(reactor, 0)
        self.assertEqual(2, max(seen))
        codes = []
        for one in work:
            codes.append((yield one)[0])
        self.assertEqual([5] * 22, codes)


class Script(LineReceiver):
    """
    A mail host as the factory's C{replies} have it: {verb: octets or a function of the protocol}.
    """

    def connectionMade(self):
        self.factory.open.add(self)
        self.say("CONNECT")

    def connectionLost(self, reason):
        self.factory.open.discard(self)

    def lineReceived(self, line):
        self.factory.heard.append(line.decode("latin-1"))
        self.say(line[:4].decode("latin-1").upper().strip())

    def say(self, verb):
        reply = self.factory.replies.get(verb, b"250 ok\r\n")
        if callable(reply):
            reply(self)
        else:
            self.transport.write(reply)


GOOD = {
    "CONNECT": b"220 mx.test ESMTP\r\n",
    "EHLO": b"250-mx.test\r\n250 8BITMIME\r\n",
    "QUIT": b"221 bye\r\n",
}
SECURE = {"EHLO": b"250-mx.test\r\n250 STARTTLS\r\n", "STAR": b"220 go ahead\r\n"}


def hangs(protocol):
    """
    Says nothing.
    """


def drops(protocol):
    """
    Resets the connection.
    """
    protocol.transport.abortConnection()


def endless(protocol):
    """
    Says lines without an end.
    """
    if protocol in protocol.factory.open:
        protocol.transport.write(b"250-more\r\n" * 500)
        reactor.callLater(0.01, endless, protocol)


def drips(protocol):
    """
    Says a line now and then.
    """
    if protocol in protocol.factory.open:
        protocol.transport.write(b"250-more\r\n")
        reactor.callLater(0.1, drips, protocol)


def startsTLS(options):
    def secure(protocol):
        protocol.transport.write(b"220 go ahead\r\n")
        protocol.transport.startTLS(options)
        protocol.factory.secured += 1
        protocol.factory.replies = protocol.factory.replies | {"EHLO": GOOD["EHLO"]}

    return secure


class ScriptTests(Asking):
    """
    A host that does everything wrong.
    """

    def setUp(self):
        super().setUp()
        self.factories = []
        self.addCleanup(self._closed)

    def host(self, **replies):
        factory = ServerFactory.forProtocol(Script)
        factory.replies = GOOD | replies
        factory.noisy = False
        factory.heard, factory.open, factory.secured = [], set(), 0
        port = freePort()
        for host in ("127.0.0.1", "::1"):
            self.addCleanup(reactor.listenTCP(port, factory, interface=host).stopListening)
        self.factories.append(factory)
        self.factory = factory
        return port

    @inlineCallbacks
    def _closed(self):
        for factory in self.factories:
            for one in list(factory.open):
                one.transport.abortConnection()
        yield deferLater(reactor, 0.15)  # endless() and drips() notice

    @inlineCallbacks
    def test_dialogue(self):
        """
        A host hears four commands and QUIT, and nothing else.
        """
        port = self.host(RCPT=b"550 5.1.1 unknown\r\n")
        self.assertEqual(-5, (yield self.ask(self.make(port)))[0])
        yield self._settled()
        expected = ["EHLO us.test", "MAIL FROM:<>", "RCPT TO:<alice@four.test>", "QUIT"]
        self.assertEqual(expected, self.factory.heard)

    @inlineCallbacks
    def test_faults(self):
        """
        No fault at any stage is ever a yes or a no.
        """
        begun = time.monotonic()
        faults = {
            "hangs": hangs,
            "drops": drops,
            "endless": endless,
            "drips": drips,
            "long line": b"250-" + b"x" * 65536 + b"\r\n",
            "long without end": b"2" * 65536,
            "no SMTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "zeros": b"\0" * 1000 + b"\r\n",
            "odd code": b"999 what\r\n",
            "temporary": b"451 4.3.0 later\r\n",
            "421": b"421 4.3.2 shutting down\r\n",
            "554": b"554 5.7.1 no\r\n",
        }
        for verb in ("CONNECT", "EHLO", "MAIL", "RCPT"):
            for name, fault in faults.items():
                port = self.host(**{verb: fault}, **({"HELO": fault} if verb == "EHLO" else {}))
                for address in ("alice@four.test", "alice@six.test"):
                    result = yield self.ask(self.make(port, hostTimeout=0.2), address)
                    self.assertEqual(0, result[0], (verb, name, result))
        self.assertLess(took(begun), 55)

    @inlineCallbacks
    def test_quitHangs(self):
        """
        The answer does not wait for QUIT, and a host that does not answer to it is left.
        """
        port = self.host(QUIT=hangs, RCPT=b"550 5.1.1 unknown\r\n")
        begun = time.monotonic()
        self.assertEqual(-5, (yield self.ask(self.make(port)))[0])
        self.assertLess(took(begun), 1)
        yield self._settled()
        self.assertLess(took(begun), 4)

    @inlineCallbacks
    def test_ourselves(self):
        """
        Our own addresses are not connected to, unless the administrator names them.
        """
        port = self.host()
        for allowed in (False, True, ["10.0.0.0/8"]):
            result = yield self.ask(self.make(port, allowPrivate=allowed))
            self.assertEqual((0, "its mail hosts have no public address"), result)
        self.assertEqual([], self.factory.heard)

    @inlineCallbacks
    def test_brokenTLS(self):
        """
        Where TLS fails it goes on without, in a new connection.
        """
        if not HAS_TLS:
            pytest.skip("LIVE TEST SKIPPED: pyOpenSSL is missing")
        for fault in (b"220 go\r\nrubbish, no handshake\r\n" * 20, lambda one: _after(one, drops), hangsTLS):
            port = self.host(**SECURE | {"STAR": fault}, RCPT=b"550 5.1.1 unknown\r\n")
            result = yield self.ask(self.make(port, timeout=3))
            self.assertEqual(-5, result[0], result)
            self.assertEqual(2, sum(line.startswith("EHLO") for line in self.factory.heard))
            self.assertEqual(1, self.factory.heard.count("STARTTLS"))

    @inlineCallbacks
    def test_refusesTLS(self):
        """
        Where STARTTLS is refused it goes on in the same connection.
        """
        if not HAS_TLS:
            pytest.skip("LIVE TEST SKIPPED: pyOpenSSL is missing")
        port = self.host(**SECURE | {"STAR": b"454 4.7.0 not now\r\n"}, RCPT=b"550 5.1.1 unknown\r\n")
        self.assertEqual(-5, (yield self.ask(self.make(port)))[0])
        self.assertEqual(1, sum(line.startswith("EHLO") for line in self.factory.heard))

    @inlineCallbacks
    def test_noTLS(self):
        """
        With startTLS=False it is not asked for.
        """
        port = self.host(**SECURE, RCPT=b"550 5.1.1 unknown\r\n")
        self.assertEqual(-5, (yield self.ask(self.make(port, startTLS=False)))[0])
        self.assertNotIn("STARTTLS", self.factory.heard)

    @inlineCallbacks
    def test_TLS(self):
        """
        A certificate that nobody has signed is good enough.
        """
        if not HAS_TLS:
            pytest.skip("LIVE TEST SKIPPED: pyOpenSSL is missing")
        port = self.host(**SECURE | {"STAR": startsTLS(certificate())}, RCPT=b"550 5.1.1 unknown\r\n")
        self.assertEqual(-5, (yield self.ask(self.make(port)))[0])
        self.assertEqual(1, self.factory.secured)
        yield self._settled()
        dialogue = [
            "EHLO us.test",
            "STARTTLS",
            "EHLO us.test",
            "MAIL FROM:<>",
            "RCPT TO:<alice@four.test>",
            "QUIT",
        ]
        self.assertEqual(dialogue, self.factory.heard)

    @inlineCallbacks
    def test_injected(self):
        """
        What comes before TLS begins, behind the reply to STARTTLS, is no reply.
        """
        if not HAS_TLS:
            pytest.skip("LIVE TEST SKIPPED: pyOpenSSL is missing")
        secure = startsTLS(certificate())

        def injects(protocol):
            protocol.transport.write(b"220 go\r\n250 x\r\n250 ok\r\n250 ok\r\n250 ok\r\n")
            reactor.callLater(0.2, secure, protocol)

        port = self.host(**SECURE | {"STAR": injects}, RCPT=b"550 5.1.1 unknown\r\n")
        result = yield self.ask(self.make(port))
        self.assertIn(result[0], (0, -5), result)


def _after(protocol, then):
    protocol.transport.write(b"220 go ahead\r\n")
    reactor.callLater(0.05, then, protocol)


def hangsTLS(protocol):
    """
    Agrees to TLS and then says nothing.
    """
    protocol.transport.write(b"220 go ahead\r\n")
    protocol.setRawMode()
    protocol.rawDataReceived = lambda octets: None


def certificate():
    """
    TLS with a certificate that we have signed ourselves.
    """
    from twisted.internet.ssl import KeyPair

    return KeyPair.generate(size=2048).selfSignedCert(1, CN="mx.test").options()


class PostfixTests(Asking):
    """
    A real Postfix that relays for example.org.
    """

    @pytest.fixture(autouse=True)
    def _take(self, postfix):
        self.postfix = postfix

    def configure(self, **settings):
        before = {"relay_recipient_maps": "", "smtpd_recipient_restrictions": ""}
        self.addCleanup(lambda: self.postfix.configure(**before))
        restrictions = {"smtpd_relay_restrictions": "reject_unauth_destination"}
        self.postfix.configure(**before | restrictions | settings)
        self.postfix.connect().close()

    @inlineCallbacks
    def test_relay(self):
        """
        A relay that takes any address is found out, and one that does not relay says nothing about the address.
        """
        self.configure()
        self.assertEqual(4, (yield self.ask(self.make(self.postfix.port), "alice@example.org"))[0])
        self.assertEqual(4, (yield self.ask(self.make(self.postfix.port, "domain"), "alice@example.org"))[0])
        self.assertEqual(3, (yield self.ask(self.make(self.postfix.port, "connection"), "alice@example.org"))[0])
        code, text = yield self.ask(self.make(self.postfix.port), "alice@example.net")
        self.assertEqual(0, code)
        self.assertIn("Relay access denied", text)

    @inlineCallbacks
    def test_recipients(self):
        """
        With a table of recipients, those in it exist, and others do not.
        """
        self.configure(relay_recipient_maps="inline:{{alice@example.org=x},{grey@example.org=x}}")
        check = self.make(self.postfix.port)
        self.assertEqual(5, (yield self.ask(check, "alice@example.org"))[0])
        code, text = yield self.ask(check, "bob@example.org")
        self.assertEqual(-5, code)
        self.assertIn("550 5.1.1", text)
        self.assertIn("User unknown in relay recipient table", text)
        self.assertEqual(-4, (yield self.ask(self.make(self.postfix.port, "domain"), "bob@example.org"))[0])

    @inlineCallbacks
    def test_greylisted(self):
        """
        A recipient that is deferred is unknown, and so is one that a policy refuses.
        """
        access = "{grey@example.org = DEFER},{blocked@example.org = REJECT spam}"
        self.configure(smtpd_recipient_restrictions=f"check_recipient_access inline:{{{access}}}")
        check = self.make(self.postfix.port)
        for name in ("grey", "blocked"):
            result = yield self.ask(check, f"{name}@example.org")
            self.assertEqual(0, result[0], result)


POLICY = """
modules = {
    name: ('Verification', {'param': 'sender', 'vtype': name, 'cacheDB': True, 'port': PORT, 'timeout': 3,
                            'allowPrivate': ['127.0.0.0/8', '::1/128'], 'helo': 'us.test',
                            'cachePositive': 0, 'cacheNegative': 0})
    for name in ('mx', 'connection', 'domain', 'user')
}
def check(factory, data, port):
    return '450', ' '.join(str(factory.check(name, data)[0]) for name in modules)
"""


def test_server(makeServer, postfix):
    """
    A running server with a real DNS socket asks a real Postfix; the second answers come from its database.
    """
    settings = {
        "smtpd_relay_restrictions": "reject_unauth_destination",
        "smtpd_recipient_restrictions": "",
        "relay_recipient_maps": "inline:{{alice@example.org=x},{postmaster@example.org=x}}",
    }
    postfix.configure(**settings)
    postfix.connect().close()
    records = {"example.org": {"MX": ["10 mx.example.org."]}, "mx.example.org": {"A": ["127.0.0.1"]}}
    records["null.test"] = {"MX": ["0 ."]}
    try:
        with DNSServer(records) as dns:
            policy = POLICY.replace("PORT", str(postfix.port))
            server = makeServer(policy, dnsServers=[dns.address])
            for sender, *answers in (
                ("alice@example.org", "2 3 4 5", "12 13 14 15"),
                ("bob@example.org", "12 13 14 -5", "12 13 14 -15"),
                ("bob@null.test", "-2 -2 -2 -2", "-12 -12 -12 -12"),
                ("bob@nowhere.test", "-2 -2 -2 -2", "-12 -12 -12 -12"),
                ("", "1 1 1 1"),
                ("postmaster@nowhere.test", "1 1 1 1"),
                ("nobody", "-1 -1 -1 -1"),
            ):
                for answer in answers:
                    said = server.request(sender=sender, recipient="x@example.com", client_address="192.0.2.1")
                    assert said.split(" ", 1)[1].endswith(answer), (sender, answer, said)
            dns.personality = "SERVFAIL"
            said = server.request(sender="a@other.test", recipient="x@example.com", client_address="192.0.2.1")
            assert said.endswith("0 0 0 0"), said
    finally:
        postfix.configure(relay_recipient_maps="")
