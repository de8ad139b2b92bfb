"""
Looking names up with a real resolver: over IPv4 and IPv6, while it is stopped and started, hangs, and validates.
"""

import time

import pytest
from twisted.internet import reactor
from twisted.internet.defer import DeferredList, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ppolicy import nameserver
from ppolicy.bridge import Bridge
from ppolicy.errors import DNSError
from ppolicy.nameserver import PENDING, NameServer
from ppolicy.resolver import Resolver
from tests.stalls import took

from . import unbound

RECORDS = [
    "example.org. 300 IN A 192.0.2.1",
    "example.org. 300 IN A 192.0.2.2",
    "example.org. 300 IN AAAA 2001:db8::1",
    "example.org. 300 IN MX 20 b.example.org.",
    "example.org. 300 IN MX 10 a.example.org.",
    'example.org. 300 IN TXT "v=spf1 -all" "more"',
    "example.org. 300 IN NS ns.example.org.",
    "nullmx.example.org. 300 IN MX 0 .",
    "1.2.0.192.in-addr.arpa. 300 IN PTR mail.example.org.",
    *[f'many.example.org. 300 IN TXT "{number:03} {"x" * 200}"' for number in range(40)],
    *[f"host{number}.example.org. 300 IN A 192.0.2.{number % 256}" for number in range(2000)],
]


@pytest.fixture(scope="module", autouse=True)
def needsUnbound():
    if (problem := unbound.missing()) is not None:
        pytest.skip(f"LIVE TEST SKIPPED: {problem}")


@pytest.fixture(scope="class")
def answering(request, needsUnbound):
    """
    The running unbound, as C{answering} of the test class.
    """
    server = unbound.Unbound(RECORDS)
    request.cls.answering = server
    try:
        yield server.start()
    finally:
        server.close()


class Asking(TestCase):
    """
    A resolver that asks unbound.
    """

    timeout = 60

    def resolver(self, *hosts, answering=None, **options):
        port = (answering or self.answering).port
        resolver = Resolver(Bridge(reactor), [NameServer(reactor, host, port) for host in hosts], **options)
        self.addCleanup(resolver.stop)
        return resolver

    @inlineCallbacks
    def until(self, condition, seconds):
        end = reactor.seconds() + seconds
        while not condition():
            self.assertLess(reactor.seconds(), end, "it takes too long")
            yield deferLater(reactor, 0.02)


@pytest.mark.usefixtures("answering")
class AnswerTests(Asking):
    """
    What it answers.
    """

    @inlineCallbacks
    def test_kinds(self):
        """
        All types, no such record, no such name, and an answer that needs TCP; over IPv4 and IPv6.
        """
        for host in unbound.HOSTS:
            resolver = self.resolver(host)
            for name, kind, expected in (
                ("Example.ORG", "A", {"192.0.2.1", "192.0.2.2"}),
                ("example.org", "AAAA", {"2001:db8::1"}),
                ("example.org", "MX", {(10, "a.example.org"), (20, "b.example.org")}),
                ("nullmx.example.org", "MX", {(0, "")}),
                ("example.org", "TXT", {(b"v=spf1 -all", b"more")}),
                ("example.org", "NS", {"ns.example.org"}),
                ("1.2.0.192.in-addr.arpa", "PTR", {"mail.example.org"}),
                ("many.example.org", "TXT", {(b"%03d " % number + b"x" * 200,) for number in range(40)}),
                ("example.org", "CNAME", set()),
            ):
                answer = yield resolver.ask(name, kind)
                self.assertEqual((expected, True), (set(answer.records), answer.exists), (host, name, kind))
                self.assertEqual(300 if expected else 30, answer.ttl)
            for name in ("nobody.example.org", "a b.example.org", "_x.example.org"):
                answer = yield resolver.ask(name, "A")
                self.assertEqual(((), False, 30), (answer.records, answer.exists, answer.ttl))

    @inlineCallbacks
    def test_many(self):
        """
        Two thousand questions at once have two thousand answers, each its own, and none is asked twice.
        """
        self.patch(nameserver, "TRY", 60)
        for host in unbound.HOSTS:
            for _ in range(5):
                begin = time.monotonic()
                resolver = self.resolver(host)
                answers = yield DeferredList(
                    [resolver.ask(f"host{number}.example.org", "A") for number in range(2000)], consumeErrors=True
                )
                if took(begin) > time.monotonic() - begin - 0.2:
                    break  # else the socket of a server that stood still may have been full
            wrong = [
                number
                for number, (isFine, answer) in enumerate(answers)
                if not isFine or answer.records != (f"192.0.2.{number % 256}",)
            ]
            self.assertEqual([], wrong)
            self.assertLessEqual(len(resolver.servers[0].sockets), 2000 / PENDING + 4)
            status = resolver.status()
            self.assertEqual((2000, 0, 0), (status["asked"], status["failed"], status["underWay"]))

    @inlineCallbacks
    def test_notValidated(self):
        """
        What it knows by itself is not validated.
        """
        answer = yield self.resolver("127.0.0.1").ask("example.org", "A")
        self.assertFalse(answer.authentic)


class FaultTests(Asking):
    """
    What happens to it.
    """

    @pytest.fixture(autouse=True)
    def _fresh(self, needsUnbound):
        self.answering = unbound.Unbound(RECORDS).start()
        yield
        self.answering.close()

    @inlineCallbacks
    def asking(self, resolver, number, counts):
        """
        Ask again and again until C{counts["end"]}; count answers and errors, and note how long the longest took.
        """
        while not counts.get("end"):
            number += 8
            begin = reactor.seconds()
            try:
                answer = yield resolver.ask(f"host{number % 2000}.example.org", "A")
            except DNSError:
                counts["errors"] = counts.get("errors", 0) + 1
            else:
                self.assertEqual((f"192.0.2.{number % 2000 % 256}",), answer.records)
                counts["answers"] = counts.get("answers", 0) + 1
                counts["last"] = reactor.seconds()
            counts["longest"] = max(counts.get("longest", 0), reactor.seconds() - begin)
            yield deferLater(reactor, 0.002)

    @inlineCallbacks
    def fault(self, hurt, heal, most):
        """
        Ask on, hurt it, wait until that is known, heal it.

        @param most: seconds until questions are answered again.
        @return: counts.
        """
        resolver = self.resolver(*unbound.HOSTS, size=0)
        counts = {}
        askers = DeferredList(
            [self.asking(resolver, number, counts) for number in range(8)], fireOnOneErrback=True
        )
        yield deferLater(reactor, 0.3)
        self.assertGreater(counts.get("answers", 0), 100)
        self.assertEqual(0, counts.get("errors", 0))
        hurt()
        yield self.until(lambda: all(server.down for server in resolver.servers), 15)
        yield self.until(lambda: counts.get("errors"), 7)
        begin = time.monotonic()
        with self.assertRaises(DNSError):
            yield resolver.ask("example.org", "A")
        self.assertLess(took(begin), 0.1)
        heal()
        begin = reactor.seconds()
        yield self.until(lambda: counts["last"] > begin, most)
        yield self.until(lambda: not any(server.down for server in resolver.servers), most)
        before = counts["answers"], counts["errors"]
        yield deferLater(reactor, 0.3)
        self.assertGreater(counts["answers"], before[0] + 100)
        self.assertEqual(counts["errors"], before[1])
        counts["end"] = True
        yield askers
        self.assertLess(counts["longest"], 6.5)

    def test_stoppedAndStarted(self):
        """
        While it is stopped questions fail at once; soon after its start they are answered again.
        """
        return self.fault(self.answering.stop, self.answering.start, 3)

    def test_killed(self):
        """
        The same when it was killed.
        """
        return self.fault(self.answering.kill, self.answering.start, 3)

    def test_hanging(self):
        """
        The same when it hangs and goes on.
        """
        return self.fault(self.answering.freeze, self.answering.thaw, 4)

    @inlineCallbacks
    def test_shortHang(self):
        """
        A question that is under way while it hangs for a moment is answered.
        """
        resolver = self.resolver("127.0.0.1")
        self.answering.freeze()
        answer = resolver.ask("example.org", "A")
        yield deferLater(reactor, 2)
        self.answering.thaw()
        found = yield answer
        self.assertEqual(2, len(found.records))


class ValidationTests(Asking):
    """
    A zone with DNSSEC, which unbound validates.
    """

    @pytest.fixture(autouse=True)
    def _zone(self, needsUnbound, tmp_path):
        signed = unbound.SignedZone(
            tmp_path,
            "signed.test",
            [
                "signed.test. 300 IN SOA ns.signed.test. root.signed.test. 1 3600 600 86400 60",
                "signed.test. 300 IN NS ns.signed.test.",
                "ns.signed.test. 300 IN A 127.0.0.1",
                "good.signed.test. 300 IN A 192.0.2.1",
                "bad.signed.test. 300 IN A 192.0.2.2",
            ],
        )
        signed.spoil("192.0.2.2", "192.0.2.3")
        self.answering = unbound.Unbound(RECORDS, signed)
        self.answering.start()
        yield
        self.answering.close()

    @inlineCallbacks
    def test_validated(self):
        """
        What is validated counts as that; what is not what was signed is no answer at all.
        """
        for host in unbound.HOSTS:
            resolver = self.resolver(host)
            for name, expected in (("good", ("192.0.2.1",)), ("nobody", ())):
                answer = yield resolver.ask(f"{name}.signed.test", "A")
                self.assertEqual((expected, True), (answer.records, answer.authentic), name)
            error = yield self.assertFailure(resolver.ask("bad.signed.test", "A"), DNSError)
            self.assertIn("SERVFAIL", str(error))
            answer = yield resolver.ask("example.org", "A")
            self.assertFalse(answer.authentic)

    @inlineCallbacks
    def test_notTrusted(self):
        """
        The same from a server that is not trusted does not count as validated.
        """
        resolver = self.resolver("127.0.0.1", trusted=())
        resolver.servers[0].isLocal = False
        answer = yield resolver.ask("good.signed.test", "A")
        self.assertEqual((("192.0.2.1",), False), (answer.records, answer.authentic))
