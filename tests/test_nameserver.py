"""
Tests for one name server, over real sockets on loopback.
"""

import socket
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ppolicy import dnstransport, nameserver
from ppolicy.dnsmessage import NXDOMAIN, TYPES, onWire
from ppolicy.errors import DNSError, DNSTimeout
from ppolicy.nameserver import NameServer
from tests.dnsserver import DNSServer
from tests.stalls import took

NAME = "example.org"
RECORDS = {NAME: {"A": ["192.0.2.1"], "TXT": ['"v=spf1 -all"']}}
# The bounds are the product's; tests need not wait for so long.
QUICK = {"TRY": 0.3, "_SWEEP": 0.02, "_PROBE": 0.1}


def orRaise(result):
    if isinstance(result, DNSError):
        raise result
    return result


class Asking(TestCase):
    """
    A name server and the one who asks it.
    """

    host = "127.0.0.1"

    def setUp(self):
        for name, value in QUICK.items():
            self.patch(nameserver, name, value)
        self.answering = self.serve()
        self.server = self.client(self.answering.port)

    def serve(self, **options):
        server = DNSServer(RECORDS, self.host, **options)
        server.__enter__()
        self.addCleanup(server.__exit__)
        return server

    def client(self, port):
        server = NameServer(reactor, self.host, port)
        self.addCleanup(server.stop)
        return server

    def ask(self, name=NAME, kind="A", **keywords):
        answer = Deferred()
        self.server.ask(onWire(name), TYPES[kind], answer.callback, **keywords)
        return answer.addCallback(orRaise)

    @inlineCallbacks
    def assertFound(self, **keywords):
        reply = yield self.ask(**keywords)
        self.assertEqual([(NAME, "A", 300, "192.0.2.1")], reply.records)
        self.assertEqual(0, self.server.underWay)

    @inlineCallbacks
    def assertFails(self, reason, kind=DNSError, **keywords):
        error = yield self.assertFailure(self.ask(**keywords), kind)
        self.assertEqual(kind, type(error))
        self.assertIn(reason, str(error))
        self.assertEqual(0, self.server.underWay)

    @inlineCallbacks
    def until(self, condition, seconds=5):
        end = reactor.seconds() + seconds
        while not condition():
            self.assertLess(reactor.seconds(), end, "it takes too long")
            yield deferLater(reactor, 0.01)


class UDPTests(Asking):
    """
    Questions over UDP.
    """

    @inlineCallbacks
    def test_answer(self):
        """
        A question is answered.
        """
        yield self.assertFound()
        self.assertEqual([(NAME, "A")], self.answering.asked)

    @inlineCallbacks
    def test_breathes(self):
        """
        Between replies others get their turn, who may ask at once.
        """
        more = []

        def breathe():
            if len(more) < 3:
                more.append(self.ask())

        self.server.breathe = breathe
        yield gatherResults([self.ask() for _ in range(5)])
        yield gatherResults(more)
        self.assertEqual(3, len(more))
        self.assertEqual(0, self.server.underWay)

    @inlineCallbacks
    def test_codes(self):
        """
        That there is nothing is a reply, trouble of the server is one too.
        """
        for personality, code, trouble in (
            ("NXDOMAIN", NXDOMAIN, None),
            ("NODATA", 0, None),
            ("SERVFAIL", 2, "SERVFAIL"),
            ("REFUSED", 5, "REFUSED"),
            ("FORMERR", 1, "FORMERR"),
        ):
            self.answering.personality = personality
            reply = yield self.ask()
            self.assertEqual((code, trouble, []), (reply.code, reply.trouble, reply.records))

    @inlineCallbacks
    def test_authentic(self):
        """
        What the server says of validation arrives.
        """
        for flag in (True, False):
            self.answering.authentic = flag
            reply = yield self.ask()
            self.assertEqual(flag, reply.authentic)

    @inlineCallbacks
    def test_random(self):
        """
        Questions come with numbers and ports that do not repeat, and the numbers are of all 16 bits.
        """
        self.patch(nameserver, "QUESTIONS", 10)
        for _ in range(8):  # the system keeps some 250 packets for who has not read them yet
            yield DeferredList([self.ask() for _ in range(50)])
        numbers, ports = zip(*self.answering.ids, strict=True)
        self.assertGreater(len(set(numbers)), 390)  # 1.2 pairs of 65536 are expected
        self.assertGreaterEqual(len(set(ports)), 35)  # of 40: a port may be given out again
        self.assertGreater(max(numbers), 60000)
        self.assertLess(min(numbers), 5000)

    @inlineCallbacks
    def test_sockets(self):
        """
        At most four sockets are in use, each for a bounded number of questions.
        """
        self.patch(nameserver, "QUESTIONS", 5)
        for number in range(100):
            yield self.ask()
            self.assertLessEqual(len(self.server.sockets), nameserver.SOCKETS, number)
        ports = [port for _, port in self.answering.ids]
        self.assertGreaterEqual(len(set(ports)), 15)
        self.assertEqual({0}, {ports.count(port) % 5 for port in set(ports)})  # a port may be given out again

    @inlineCallbacks
    def test_retiredSocketAnswers(self):
        """
        A socket that is replaced stays open until its last question is answered, and no longer.
        """
        self.patch(nameserver, "QUESTIONS", 1)
        self.answering.delay = 0.1
        results = yield DeferredList([self.ask() for _ in range(50)])
        self.assertEqual([True] * 50, [isFine for isFine, _ in results])
        self.assertLessEqual(len(self.server.sockets), nameserver.SOCKETS)

    @inlineCallbacks
    def test_forged(self):
        """
        Wrong replies before the right one do not end the question: number, name, kind, rubbish (CVE-2023-29483).
        """
        for personality in ("forged", "other port first", "twice"):
            self.answering.personality = personality
            for _ in range(5):
                yield self.assertFound()

    @inlineCallbacks
    def test_onlyWrong(self):
        """
        Nothing but wrong replies is no answer in time.
        """
        self.patch(nameserver, "TRY", 0.1)
        for personality in ("wrong id", "wrong question", "no reply", "rubbish", "short", "other port"):
            self.server._unanswered = 0
            self.answering.personality = personality
            yield self.assertFails("no answer in time", DNSTimeout)

    @inlineCallbacks
    def test_timeout(self):
        """
        A try ends after its time; one that may take less ends earlier.
        """
        self.answering.personality = "silence"
        for most, seconds in ((0.3, 3600), (3600, 0.3)):
            self.patch(nameserver, "TRY", most)
            begin = reactor.seconds()
            results = []
            self.ask(seconds=seconds).addBoth(results.append)
            yield self.until(lambda results=results: results, 30)
            self.assertEqual(DNSTimeout, results[0].type)
            self.assertLessEqual(0.3, reactor.seconds() - begin)

    @inlineCallbacks
    def test_late(self):
        """
        An answer that comes too late is nobody's.
        """
        self.answering.personalities[NAME] = "slow", 0.4
        yield self.assertFails("no answer in time", DNSTimeout)
        reply = yield self.ask("nobody.org")
        self.assertEqual(NXDOMAIN, reply.code)
        yield deferLater(reactor, 0.3)
        self.assertEqual(0, self.server.underWay)

    @inlineCallbacks
    def test_refused(self):
        """
        Where nothing listens, a question fails at once.
        """
        self.answering.__exit__()
        begin = time.monotonic()
        yield self.assertFails("connection refused")
        self.assertLess(took(begin), 0.25)

    @inlineCallbacks
    def test_most(self):
        """
        More questions than may be under way fail at once.
        """
        self.patch(nameserver, "MOST", 3)
        self.answering.delay = 0.1
        answers = [self.ask() for _ in range(3)]
        error = yield self.assertFailure(self.ask(), DNSError)
        self.assertIn("3 questions are under way", str(error))
        self.assertTrue(error.later)
        yield DeferredList(answers)
        self.answering.delay = 0
        yield self.assertFound()

    @inlineCallbacks
    def test_stop(self):
        """
        What is under way when it stops fails, and nothing is asked any more.
        """
        self.answering.personality = "silence"
        answer = self.ask()
        self.server.stop()
        error = yield self.assertFailure(answer, DNSError)
        self.assertIn("not asked any more", str(error))
        yield self.assertFails("not asked any more")
        self.assertEqual((set(), False), (self.server.sockets, self.server.down))

    @inlineCallbacks
    def test_cancel(self):
        """
        Who does not wait any more does no harm.
        """
        self.answering.delay = 0.05
        answer = self.ask()
        answer.addErrback(lambda _: None)
        answer.cancel()
        yield self.until(lambda: not self.server.underWay)
        yield self.assertFound()

    @inlineCallbacks
    def test_noFiles(self):
        """
        Where no socket can be opened the question fails.
        """

        def refuse(*_, **__):
            raise OSError(24, "Too many open files")

        self.patch(dnstransport, "socket", refuse)
        yield self.assertFails("Too many open files")

    @inlineCallbacks
    def test_noWay(self):
        """
        Where no way leads, the question fails and leaves no socket behind.
        """
        self.server = NameServer(reactor, "255.255.255.255", 53)
        self.addCleanup(self.server.stop)
        yield self.assertFails("Permission denied")
        self.assertEqual(set(), self.server.sockets)

    @inlineCallbacks
    def test_noInterface(self):
        """
        Where the interface of a link-local address is not there, only the question fails.
        """
        self.server = NameServer(reactor, "fe80::1%nowhere", 53)
        self.addCleanup(self.server.stop)
        yield self.assertFails("there is no such interface")

    @inlineCallbacks
    def test_burst(self):
        """
        Of many questions at once some are sent at once, the others soon after; each socket has a bounded number.
        """
        for option, value in {"TRY": 60, "FEW": 8, "BURST": 25, "_PACE": 0.1, "PENDING": 5}.items():
            self.patch(nameserver, option, value)
        self.answering.delay = 2
        answers = [self.ask(seconds=60) for _ in range(100)]
        self.assertLessEqual(sum(len(socket.pending) for socket in self.server.sockets), 50)
        yield self.until(lambda: len(self.answering.asked) == 100)
        self.assertEqual([5] * 20, [len(socket.pending) for socket in self.server.sockets])
        results = yield DeferredList(answers)
        self.assertEqual([True] * 100, [isFine for isFine, _ in results])
        self.assertEqual(0, self.server.underWay)

    @inlineCallbacks
    def test_extraSocketsGo(self):
        """
        Sockets that a burst needed are not replaced when they are used up.
        """
        self.patch(nameserver, "PENDING", 5)
        self.patch(nameserver, "QUESTIONS", 10)
        self.answering.delay = 0.05
        yield DeferredList([self.ask() for _ in range(100)])
        self.assertGreater(len(self.server.sockets), nameserver.SOCKETS)
        self.answering.delay = 0
        for _ in range(150):
            yield self.ask()
        self.assertLessEqual(len(self.server.sockets), nameserver.SOCKETS)

    @inlineCallbacks
    def test_queued(self):
        """
        What waits to be sent fails when its time is up, and when the server is not asked any more.
        """
        self.patch(nameserver, "FEW", 0)
        self.patch(nameserver, "BURST", 1)
        self.patch(nameserver, "_PACE", 60)
        answers = [self.ask() for _ in range(3)]
        results = yield DeferredList(answers, consumeErrors=True)
        self.assertEqual([True, False, False], [isFine for isFine, _ in results])
        self.assertEqual([DNSTimeout] * 2, [failure.type for _, failure in results[1:]])
        answer = self.ask()
        self.server.stop()
        error = yield self.assertFailure(answer, DNSError)
        self.assertIn("not asked any more", str(error))


class TCPTests(Asking):
    """
    Questions over TCP, when a reply does not fit.
    """

    @inlineCallbacks
    def test_truncated(self):
        """
        A truncated reply is asked for again over TCP, wherever it was cut.
        """
        for personality in ("truncated", "truncated, counted"):
            self.answering.personality = personality
            yield self.assertFound()
            self.assertEqual([(NAME, "A")], self.answering.overTCP)
            self.answering.overTCP.clear()

    @inlineCallbacks
    def test_large(self):
        """
        A reply that does not fit arrives whole.
        """
        self.answering.records = {NAME: {"TXT": [f'"{number}" "{"x" * 250}"' for number in range(50)]}}
        reply = yield self.ask(kind="TXT")
        self.assertEqual({str(number).encode() for number in range(50)}, {value[0] for *_, value in reply.records})
        self.assertEqual(1, len(self.answering.overTCP))

    @inlineCallbacks
    def test_trouble(self):
        """
        Over TCP, too, whatever goes wrong ends the question, and leaves nothing behind.
        """
        for personality, kind, reason in (
            ("truncated always", DNSError, "truncated"),
            ("truncated, TCP drops", DNSError, "hung up"),
            ("truncated, TCP wrong id", DNSError, "another question"),
            ("truncated, TCP hangs", DNSTimeout, "no answer over TCP"),
            ("long", DNSError, "more than 16384"),
        ):
            self.answering.personality = personality
            yield self.assertFails(reason, kind)
            self.assertEqual(set(), self.server._overTCP)

    @inlineCallbacks
    def test_time(self):
        """
        A question that goes on over TCP has no more time than it was given.
        """
        self.patch(nameserver, "TRY", 3600)
        self.answering.personality = "truncated, TCP hangs"
        results = []
        self.ask(seconds=0.3).addBoth(results.append)
        yield self.until(lambda: results, 30)
        self.assertEqual(DNSTimeout, results[0].type)
        self.assertEqual(1, len(self.answering.overTCP))

    @inlineCallbacks
    def test_refused(self):
        """
        Where nobody listens for TCP a truncated reply is trouble.
        """
        answering = self.serve(personality="truncated", tcp=False)
        self.server = self.client(answering.port)
        yield self.assertFails("over TCP")

    @inlineCallbacks
    def test_connections(self):
        """
        The number of connections has a bound.
        """
        self.patch(nameserver, "CONNECTIONS", 2)
        self.answering.personality = "truncated, TCP hangs"
        results = yield DeferredList([self.ask() for _ in range(5)], consumeErrors=True)
        texts = [str(failure.value) for _, failure in results]
        self.assertEqual(3, sum("2 questions over TCP" in text for text in texts), texts)
        self.assertEqual(2, sum("no answer over TCP" in text for text in texts), texts)

    @inlineCallbacks
    def test_stop(self):
        """
        A connection is closed when the server is not asked any more.
        """
        self.answering.personality = "truncated, TCP hangs"
        answer = self.ask()
        yield self.until(lambda: self.answering.overTCP)
        self.server.stop()
        yield self.assertFailure(answer, DNSError)
        yield self.until(lambda: not self.server._overTCP)
        self.assertEqual(0, self.server.underWay)


class DownTests(Asking):
    """
    Is it there?
    """

    @inlineCallbacks
    def test_downAndUp(self):
        """
        Who leaves questions, and then a probe, unanswered is down until it answers a probe; both are logged.
        """
        self.answering.personality = "silence"
        yield DeferredList([self.ask() for _ in range(3)], consumeErrors=True)
        self.assertFalse(self.server.down)
        yield self.until(lambda: self.server.down)
        self.assertIn((".", "NS"), self.answering.asked)
        self.answering.personality = None
        yield self.until(lambda: not self.server.down)
        yield self.assertFound()
        count = len(self.answering.asked)
        yield deferLater(reactor, 0.5)
        self.assertEqual(count, len(self.answering.asked), "it goes on probing")

    @inlineCallbacks
    def test_onlyNames(self):
        """
        Who answers the probe is not down, however many other questions are without an answer.
        """
        self.answering.personalities = {NAME: "silence"}
        for _ in range(3):
            yield DeferredList([self.ask() for _ in range(6)], consumeErrors=True)
            yield deferLater(reactor, 0.1)
            self.assertFalse(self.server.down)
        self.assertIn((".", "NS"), self.answering.asked)

    @inlineCallbacks
    def test_few(self):
        """
        Few questions without an answer, or many with answers between them, are no reason to probe.
        """
        for _ in range(3):
            self.answering.personality = "silence"
            yield DeferredList([self.ask() for _ in range(2)], consumeErrors=True)
            self.answering.personality = None
            yield self.assertFound()
        self.assertNotIn((".", "NS"), self.answering.asked)

    @inlineCallbacks
    def test_gone(self):
        """
        A server that has ended is down, too, and up again soon after it was started.
        """
        port = self.answering.port
        self.answering.__exit__()
        for _ in range(2):
            yield self.assertFails("connection refused")
        yield self.assertFailure(self.ask(), DNSError)
        yield self.until(lambda: self.server.down)
        self.answering = self.serve(port=port)
        yield self.until(lambda: not self.server.down)
        yield self.assertFound()

    @inlineCallbacks
    def test_stopWhileProbing(self):
        """
        Stopping ends the probes.
        """
        self.answering.personality = "silence"
        yield DeferredList([self.ask() for _ in range(5)], consumeErrors=True)
        self.server.stop()
        self.assertFalse(self.server.down)

    @inlineCallbacks
    def test_stopWhenDown(self):
        """
        The same when it is known to be down.
        """
        self.answering.personality = "silence"
        yield DeferredList([self.ask() for _ in range(5)], consumeErrors=True)
        yield self.until(lambda: self.server.down)
        self.server.stop()
        self.assertEqual(0, self.server.underWay)


class AddressTests(TestCase):
    """
    The server's address.
    """

    def test_names(self):
        """
        It is shown as the option takes it, and what is on this host is known.
        """
        for host, name, isLocal in (
            ("127.0.0.1", "127.0.0.1:53", True),
            ("127.0.0.53", "127.0.0.53:53", True),
            ("::1", "[::1]:53", True),
            ("0:0:0:0:0:0:0:1", "[::1]:53", True),
            ("192.0.2.1", "192.0.2.1:53", False),
            ("2001:DB8::1", "[2001:db8::1]:53", False),
        ):
            server = NameServer(reactor, host)
            self.assertEqual((name, isLocal), (str(server), server.isLocal))


class OverIPv6(UDPTests):
    """
    The same over IPv6.
    """

    host = "::1"

    def setUp(self):
        if not socket.has_ipv6:
            self.skipTest("no IPv6")
        super().setUp()


class TCPOverIPv6(TCPTests):
    """
    The same over IPv6.
    """

    host = "::1"
