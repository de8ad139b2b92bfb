"""
Tests for looking names up: the cache, equal questions, several servers, chains, trust.
"""

import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ppolicy import nameserver
from ppolicy.bridge import Bridge
from ppolicy.dns import SHORTEST
from ppolicy.dnsmessage import NXDOMAIN, TYPES, nameOf
from ppolicy.errors import DNSError, DNSTimeout
from ppolicy.nameserver import NameServer
from ppolicy.resolver import LONGEST, NOTHING, TROUBLE, Resolver
from ppolicy.testing import waiting
from tests.dnsserver import PERSONALITIES, DNSServer
from tests.stalls import took

NAME = "www.example.org"


class Said:
    """
    A reply, as a name server gives it.
    """

    def __init__(self, *records, code=0, negative=None, authentic=False, trouble=None):
        self.records = list(records)
        self.code, self.negative, self.authentic, self.trouble = code, negative, authentic, trouble


class Scripted:
    """
    In place of a name server: says what it is told, in turn; the last for ever.
    """

    def __init__(self, *replies, host="127.0.0.1"):
        self.replies = list(replies)
        self.host, self.isLocal, self.down = host, host.startswith("127."), False
        self.asked = []
        self.stopped = 0

    def __str__(self):
        return self.host

    def ask(self, wire, kind, done, seconds):
        self.asked.append((nameOf(wire), kind, seconds))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Deferred):
            reply.addCallback(self._named, wire).addCallbacks(done, lambda failure: done(failure.value))
        else:
            done(self._named(reply, wire))

    def _named(self, reply, wire):
        reply.name = nameOf(wire)
        return reply

    def stop(self):
        self.stopped += 1


def a(value="192.0.2.1", owner=NAME, ttl=300):
    return owner, "A", ttl, value


def cname(owner, target, ttl=300):
    return owner, "CNAME", ttl, target


class Asking(SynchronousTestCase):
    """
    A resolver without a network, and with a clock of its own.
    """

    def resolver(self, *servers, **options):
        self.clock = Clock()
        self.clock.advance(1000)
        self.dns = Resolver(Bridge(self.clock), list(servers), **options)
        return self.dns

    def ask(self, name=NAME, kind="A"):
        return self.successResultOf(self.dns.ask(name, kind))

    def failing(self, name=NAME, kind="A"):
        return self.failureResultOf(self.dns.ask(name, kind), DNSError).value

    def late(self, server):
        """
        What a server does that is asked, and does not answer in time.
        """

        def ask(wire, kind, done, seconds):
            server.asked.append(seconds)
            self.clock.advance(min(seconds, 1.5))
            done(DNSTimeout("late"))

        return ask


class AnswerTests(Asking):
    """
    What an answer says.
    """

    def test_records(self):
        """
        The records of the name and type that were asked for, each once, and no others.
        """
        others = (NAME, "AAAA", 300, "2001:db8::1"), ("other.example.org", "A", 300, "192.0.2.9")
        self.resolver(Scripted(Said(a("192.0.2.2"), *others, a("192.0.2.1"), a("192.0.2.2"))))
        answer = self.ask("WWW.Example.org.")
        self.assertEqual(("192.0.2.2", "192.0.2.1"), answer.records)
        self.assertEqual((True, NAME, 300), (answer.exists, answer.name, answer.ttl))

    def test_mx(self):
        """
        Mail hosts come in the order of their preference.
        """
        values = [(20, "b"), (10, "z"), (10, "a")]
        self.resolver(Scripted(Said(*[(NAME, "MX", 300, value) for value in values])))
        self.assertEqual(((10, "a"), (10, "z"), (20, "b")), self.ask(kind="MX").records)

    def test_nothing(self):
        """
        No such name and no such record are answers, and differ.
        """
        for code, exists in ((NXDOMAIN, False), (0, True)):
            self.resolver(Scripted(Said(code=code, negative=60)))
            answer = self.ask()
            self.assertEqual(((), exists), (answer.records, answer.exists))

    def test_noName(self):
        """
        What is no domain name does not exist, and nobody is asked.
        """
        for name in ("", "a..b", "a" * 64, "a." * 200, "\udcff", "a\\b"):
            self.resolver(server := Scripted(Said(a())))
            self.assertFalse(self.ask(name).exists)
            self.assertEqual([], server.asked)

    def test_chain(self):
        """
        A chain of CNAMEs is followed in the reply; the shortest time to live counts.
        """
        self.resolver(Scripted(Said(a("192.0.2.1", "c", 40), cname("b", "c", 20), cname(NAME, "b", 30))))
        answer = self.ask()
        self.assertEqual((("192.0.2.1",), "c", 20), (answer.records, answer.name, answer.ttl))

    def test_chainEndsInNothing(self):
        """
        What the code and the SOA say is about the end of the chain.
        """
        for code, exists in ((NXDOMAIN, False), (0, True)):
            self.resolver(server := Scripted(Said(cname(NAME, "b"), code=code, negative=60)))
            answer = self.ask()
            self.assertEqual(((), exists, "b", 60), (answer.records, answer.exists, answer.name, answer.ttl))
            self.assertEqual(1, len(server.asked))

    def test_chainGoesOn(self):
        """
        Where a reply ends with a CNAME and says no more, its target is asked for.
        """
        self.resolver(server := Scripted(Said(cname(NAME, "b", 50)), Said(a(owner="b"))))
        answer = self.ask()
        self.assertEqual((("192.0.2.1",), "b", 50), (answer.records, answer.name, answer.ttl))
        self.assertEqual([NAME, "b"], [name for name, _, _ in server.asked])

    def test_chainWithoutEnd(self):
        """
        A chain without an end is trouble: within a reply, from reply to reply, and when it is only long.
        """
        for replies in (
            [Said(cname(NAME, NAME))],
            [Said(cname(NAME, "b"), cname("b", NAME))],
            [Said(*[cname(NAME if number == 0 else f"n{number}", f"n{number + 1}") for number in range(40)])],
            [Said(cname(NAME, "b")), Said(cname("b", "c")), Said(cname("c", "d")), Said(cname("d", "e")), Said()],
            [Said(cname(NAME, "a\\.b")), Said(a(owner="a\\.b"))],
        ):
            self.resolver(server := Scripted(*replies))
            self.assertRegex(str(self.failing()), "without an end|no name to ask for")
            self.assertLessEqual(len(server.asked), 4)

    def test_cname(self):
        """
        Who asks for a CNAME gets it, not what it leads to.
        """
        self.resolver(Scripted(Said(cname(NAME, "b"), cname("b", "c"))))
        self.assertEqual(("b",), self.ask(kind="CNAME").records)

    def test_contradiction(self):
        """
        Records of a name that does not exist are trouble, no listing.
        """
        self.resolver(Scripted(Said(a("127.0.0.2"), code=NXDOMAIN)))
        self.assertIn("does not exist", str(self.failing()))

    def test_bug(self):
        """
        Whatever goes wrong in it, the waiting get a DNSError, and it is logged.
        """
        self.resolver(Scripted(Said((NAME, "A", None, "192.0.2.1"))))
        self.assertIn("TypeError", str(self.failing()))
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))
        self.assertEqual({}, self.dns._underWay)


class TrustTests(Asking):
    """
    Is an answer validated?
    """

    def test_trust(self):
        """
        Only what a server on this host says of it, or one that is trusted.
        """
        for host, trusted, isAuthentic, expected in (
            ("127.0.0.1", (), True, True),
            ("127.0.0.53", (), True, True),
            ("127.0.0.1", (), False, False),
            ("192.0.2.53", (), True, False),
            ("192.0.2.53", ("192.0.2.53",), True, True),
            ("192.0.2.53", ("192.0.2.54",), True, False),
            ("192.0.2.53", ("192.0.2.53",), False, False),
        ):
            self.resolver(Scripted(Said(a(), authentic=isAuthentic), host=host), trusted=trusted)
            self.assertEqual(expected, self.ask().authentic, (host, trusted, isAuthentic))

    def test_chain(self):
        """
        Of a chain each part must be.
        """
        for first, second in ((True, True), (True, False), (False, True)):
            parts = Said(cname(NAME, "b"), authentic=first), Said(a(owner="b"), authentic=second)
            self.resolver(Scripted(*parts))
            self.assertEqual(first and second, self.ask().authentic)

    def test_otherServer(self):
        """
        An answer counts as whose it is, not as that of a server that could not say.
        """
        local = Scripted(Said(trouble="SERVFAIL"))
        self.resolver(local, Scripted(Said(a(), authentic=True), host="192.0.2.53"))
        self.assertFalse(self.ask().authentic)


class CacheTests(Asking):
    """
    What is kept, and for how long.
    """

    def test_times(self):
        """
        Answers are kept for their time to live, between bounds; that there is nothing, as long as the SOA says.
        """
        for reply, seconds in (
            (Said(a(ttl=300)), 300),
            (Said(a(ttl=0)), SHORTEST),
            (Said(a(ttl=604800)), LONGEST),
            (Said(a(ttl=300), a("192.0.2.2", ttl=100)), 100),
            (Said(code=NXDOMAIN, negative=60), 60),
            (Said(code=NXDOMAIN, negative=0), SHORTEST),
            (Said(code=NXDOMAIN, negative=86400), NOTHING),
            (Said(negative=60), 60),
            (Said(cname(NAME, "b", 10), negative=60), 10),
            (Said(), SHORTEST),
            (Said(code=NXDOMAIN), SHORTEST),
        ):
            self.resolver(server := Scripted(reply))
            self.ask()
            self.clock.advance(seconds - 0.01)
            self.ask()
            self.assertEqual(1, len(server.asked), seconds)
            self.clock.advance(0.02)
            self.ask()
            self.assertEqual(2, len(server.asked), seconds)

    def test_trouble(self):
        """
        Trouble of the servers is kept for a short time only, and who asks meanwhile gets an error of his own.
        """
        for trouble in (Said(trouble="SERVFAIL"), DNSTimeout("no answer in time"), DNSError("hung up")):
            self.resolver(server := Scripted(trouble), timeout=0.1)
            if isinstance(trouble, DNSTimeout):
                server.ask = self.late(server)
            first, second = self.failing(), self.failing()
            self.assertEqual(1, len(server.asked))
            self.assertIsNot(first, second)
            self.assertEqual((type(first), str(first)), (type(second), str(second)))
            self.clock.advance(TROUBLE + 0.01)
            self.failing()
            self.assertEqual(2, len(server.asked))

    def test_ownTrouble(self):
        """
        What is no fault of a server's answer is not kept: no server that answers, too many questions.
        """
        self.resolver(server := Scripted(DNSError("too many", later=True), Said(a())))
        self.failing()
        self.assertEqual(1, len(self.ask().records))
        server.down = True
        self.assertIn("no name server answers", str(self.failing("b")))
        server.down = False
        server.replies = [Said(a(owner="b"))]
        self.assertEqual(1, len(self.ask("b").records))

    def test_capitals(self):
        """
        Names that differ in capitals are one; types are apart.
        """
        self.resolver(server := Scripted(Said(a())))
        for name in (NAME, NAME.upper(), NAME + "."):
            self.ask(name)
        self.assertEqual((1, 2), (len(server.asked), self.dns.fromCache))
        self.ask(kind="AAAA")
        self.assertEqual(2, len(server.asked))

    def test_size(self):
        """
        What was not used for longest goes first when there is too much.
        """
        self.resolver(server := Scripted(Said()), size=3)
        for name in ("a", "b", "c", "a", "d"):
            self.ask(name)
        self.assertEqual((3, 4), (len(self.dns.cache), len(server.asked)))
        self.ask("a")
        self.assertEqual(4, len(server.asked))
        self.ask("b")
        self.assertEqual(5, len(server.asked))

    def test_none(self):
        """
        A cache for nothing keeps nothing.
        """
        self.resolver(server := Scripted(Said(a())), size=0)
        self.ask()
        self.ask()
        self.assertEqual((2, 0, 0), (len(server.asked), len(self.dns.cache), self.dns.cache.octets))


class EqualTests(Asking):
    """
    Equal questions that come while one is under way.
    """

    def test_once(self):
        """
        They are asked once, and all get the answer.
        """
        self.resolver(server := Scripted(reply := Deferred()))
        waiting = [self.dns.ask(name, "A") for name in (NAME, NAME.upper(), NAME)]
        self.assertEqual(1, len(server.asked))
        self.assertEqual(1, self.dns.status()["underWay"])
        reply.callback(Said(a()))
        for one in waiting:
            self.assertEqual(("192.0.2.1",), self.successResultOf(one).records)
        self.assertEqual(0, self.dns.status()["underWay"])

    def test_error(self):
        """
        All get an error of their own.
        """
        self.resolver(Scripted(reply := Deferred()))
        waiting = [self.dns.ask(NAME, "A") for _ in range(3)]
        reply.errback(DNSError("hung up"))
        errors = [self.failureResultOf(one, DNSError).value for one in waiting]
        self.assertEqual(3, len({id(error) for error in errors}))

    def test_cancel(self):
        """
        Who gives up harms nobody, the first asker either; and when all do, the answer is kept nevertheless.
        """
        self.resolver(server := Scripted(reply := Deferred()))
        first, second, third = [self.dns.ask(NAME, "A") for _ in range(3)]
        first.cancel()
        third.cancel()
        self.failureResultOf(first, DNSTimeout)
        self.failureResultOf(third, DNSTimeout)
        self.assertNoResult(second)
        reply.callback(Said(a()))
        self.assertEqual(("192.0.2.1",), self.successResultOf(second).records)
        self.assertEqual(("192.0.2.1",), self.ask().records)
        self.assertEqual(1, len(server.asked))

    def test_waitTimesOut(self):
        """
        A greenlet that waits for less long than the other takes does not harm it.
        """
        self.resolver(server := Scripted(reply := Deferred()))
        bridge = self.dns.bridge
        short = waiting(bridge, self.dns.lookup, NAME, "A", timeout=1)
        long = waiting(bridge, self.dns.lookup, NAME, "A", timeout=20)
        self.clock.pump([0.1] * 20)
        self.failureResultOf(short)
        self.assertNoResult(long)
        reply.callback(Said(a()))
        self.clock.pump([0, 0])
        self.assertEqual(("192.0.2.1",), self.successResultOf(long).records)
        self.assertEqual(1, len(server.asked))
        bridge.stop()


class WaitingTests(Asking):
    """
    Many who wait for one answer.
    """

    def test_newcomers(self):
        """
        However many have waited for an answer, requests that come meanwhile begin.
        """
        said = Deferred()
        self.resolver(Scripted(said))
        waiting = [self.dns.ask(NAME, "A") for _ in range(500)]
        begun = []
        self.dns.bridge.newcomers = lambda: begun.append(sum(one.called for one in waiting))
        said.callback(Said(a()))
        self.assertEqual(list(range(1, 501)), begun)


class ServerTests(Asking):
    """
    Which server is asked.
    """

    def test_order(self):
        """
        The first is asked, the next only when the first cannot say; the answer of any is the answer.
        """
        good = Said(a())
        for trouble in (
            Said(trouble="SERVFAIL"),
            Said(trouble="REFUSED"),
            DNSTimeout("late"),
            DNSError("refused"),
        ):
            first, second = Scripted(trouble), Scripted(good, host="127.0.0.2")
            self.resolver(first, second)
            self.assertEqual(("192.0.2.1",), self.ask().records)
            self.assertEqual((1, 1), (len(first.asked), len(second.asked)))
        self.resolver(first := Scripted(good), second := Scripted(good))
        self.ask()
        self.assertEqual((1, 0), (len(first.asked), len(second.asked)))

    def test_nothingIsAnAnswer(self):
        """
        That there is no such name is not asked of the next.
        """
        self.resolver(Scripted(Said(code=NXDOMAIN)), second := Scripted(Said(a())))
        self.assertFalse(self.ask().exists)
        self.assertEqual([], second.asked)

    def test_down(self):
        """
        Who is down is not asked; when all are, that is said at once.
        """
        self.resolver(first := Scripted(Said(a())), second := Scripted(Said(a("192.0.2.2"))))
        first.down = True
        self.assertEqual(("192.0.2.2",), self.ask().records)
        self.assertEqual([], first.asked)
        second.down = True
        self.assertEqual("no name server answers", str(self.failing("b")))
        status = self.dns.status()
        self.assertEqual("no name server answers", status["problem"])
        self.assertEqual({"127.0.0.1": {"problem": "does not answer"}}, status["servers"])

    def test_noServers(self):
        """
        Without servers there is nobody to ask.
        """
        self.resolver()
        self.assertEqual("no name servers", str(self.failing()))

    def test_timeouts(self):
        """
        Servers that do not answer are asked in turn until the time is up, no try longer than what is left of it.
        """
        first, second = Scripted(None), Scripted(None)
        for server in (first, second):
            server.ask = self.late(server)
        self.resolver(first, second, timeout=4.0)
        begin = self.clock.seconds()
        answer = self.dns.ask(NAME, "A")
        self.assertEqual("late", str(self.failureResultOf(answer, DNSTimeout).value))
        self.assertEqual([4.0, 1.0], first.asked)
        self.assertEqual([2.5], second.asked)
        self.assertEqual(4.0, self.clock.seconds() - begin)

    def test_saidNo(self):
        """
        Who has said that he cannot is not asked again; the others are.
        """
        first, second = Scripted(Said(trouble="REFUSED")), Scripted(None)
        second.ask = self.late(second)
        self.resolver(first, second, timeout=4.0)
        self.failing()
        self.assertEqual((1, 3), (len(first.asked), len(second.asked)))

    def test_use(self):
        """
        Other servers take over; what is kept stays, and those that go on are not stopped.
        """
        first, second, third = (Scripted(Said(a())) for _ in range(3))
        self.resolver(first, second)
        self.ask()
        self.dns.use([second, third], 100, 3.0)
        self.assertEqual((1, 0, 0), (first.stopped, second.stopped, third.stopped))
        self.assertEqual((100, 3.0), (self.dns.cache.size, self.dns.timeout))
        self.ask()
        self.assertEqual([], second.asked)
        self.ask("b")
        self.assertEqual(1, len(second.asked))
        self.dns.stop()
        self.assertEqual((1, 1, 1), (first.stopped, second.stopped, third.stopped))

    def test_useSmaller(self):
        """
        A cache that is to be smaller is so at once; one for nothing is empty.
        """
        self.resolver(server := Scripted(Said(a())))
        for name in ("a", "b", "c"):
            self.ask(name)
        for size in (2, 0):
            self.dns.use([server], size, 3.0)
            self.assertEqual(size, len(self.dns.cache))
        self.assertEqual(0, self.dns.cache.octets)

    def test_useMeanwhile(self):
        """
        A question that is under way goes on with the new servers.
        """
        reply = Deferred()
        first, second = Scripted(reply), Scripted(Said(a()))
        first.stop = lambda: reply.errback(DNSError("is not asked any more"))
        self.resolver(first)
        answer = self.dns.ask(NAME, "A")
        self.dns.use([second], 100, 3.0)
        self.assertEqual(("192.0.2.1",), self.successResultOf(answer).records)


class LookupTests(Asking):
    """
    What checks call.
    """

    def run_(self, function, *arguments):
        bridge = self.dns.bridge
        result = waiting(bridge, function, *arguments)
        self.clock.pump([0, 0])
        bridge.stop()
        return result

    def test_lookupAll(self):
        """
        All are asked at once; each has its answer, or its error.
        """
        replies = [Deferred(), Deferred(), Deferred()]
        self.resolver(server := Scripted(*replies, None))
        result = self.run_(self.dns.lookupAll, [("a", "A"), ("b", "A"), ("c", "A")])
        self.assertEqual(3, len(server.asked))
        replies[2].callback(Said(a(owner="c")))
        replies[0].callback(Said(code=NXDOMAIN))
        replies[1].callback(Said(trouble="SERVFAIL"))
        server.replies = [Said(trouble="SERVFAIL")]
        self.clock.pump([0, 0])
        first, second, third = self.successResultOf(result)
        self.assertFalse(first.exists)
        self.assertIsInstance(second, DNSError)
        self.assertEqual(("192.0.2.1",), third.records)

    def test_timeLeft(self):
        """
        A look-up ends before the time for the request is up, so that the policy can go on; and earlier when less
        time is wanted.
        """
        question = NAME, "A"
        for function, arguments, seconds in (
            ("lookup", question, 4.6),
            ("lookupAll", [[question, question]], 4.6),
            ("lookup", (*question, 2), 2.1),
            ("lookup", (*question, 9), 4.6),
        ):
            self.resolver(Scripted(Deferred()))
            bridge = self.dns.bridge
            result = waiting(bridge, getattr(self.dns, function), *arguments, timeout=5)
            self.clock.pump([seconds - 0.2] + [0] * 3)
            self.assertNoResult(result)
            self.clock.pump([0.2] + [0] * 3)
            if function == "lookupAll":
                self.assertEqual([DNSTimeout] * 2, [type(one) for one in self.successResultOf(result)])
            else:
                self.failureResultOf(result, DNSTimeout)
            bridge.stop()

    def test_addresses(self):
        """
        The addresses of both kinds; one half may be unknown when there is something in the other.
        """
        four, six, none = Said(a()), Said((NAME, "AAAA", 300, "2001:db8::1")), Said()
        bad = Said(trouble="SERVFAIL")
        for replies, expected in (
            ((four, six), ["192.0.2.1", "2001:db8::1"]),
            ((none, six), ["2001:db8::1"]),
            ((bad, six), ["2001:db8::1"]),
            ((four, bad), ["192.0.2.1"]),
            ((none, none), []),
            ((bad, none), DNSError),
            ((none, bad), DNSError),
        ):
            self.resolver(Scripted(*replies))
            result = self.run_(self.dns.addresses, NAME)
            if expected is DNSError:
                self.failureResultOf(result, DNSError)
            else:
                self.assertEqual(expected, self.successResultOf(result))

    def test_names(self):
        """
        The names of an address.
        """
        pointer = "1.2.0.192.in-addr.arpa"
        self.resolver(server := Scripted(Said((pointer, "PTR", 300, NAME))))
        self.assertEqual((NAME,), self.successResultOf(self.run_(self.dns.names, "192.0.2.1")))
        self.assertEqual([(pointer, TYPES["PTR"])], [one[:2] for one in server.asked])


class RealTests(TestCase):
    """
    The same with real name servers over real sockets: no misbehaviour of theirs becomes an answer.
    """

    # What is said although the server misbehaves: this address; nothing; or trouble.
    ANSWERS = {
        **dict.fromkeys(
            ("forged", "other port first", "twice", "truncated", "truncated, counted"), ("192.0.2.1",)
        ),
        **dict.fromkeys(("NXDOMAIN", "bare NXDOMAIN", "NODATA", "bare NODATA"), ()),
        "listed": ("127.0.0.2",),
    }

    def setUp(self):
        for name, value in {"TRY": 0.2, "_SWEEP": 0.02, "_PROBE": 0.1}.items():
            self.patch(nameserver, name, value)
        self.answering = self.serve()

    def serve(self):
        server = DNSServer({NAME: {"A": ["192.0.2.1"]}})
        server.__enter__()
        self.addCleanup(server.__exit__)
        return server

    def resolver(self, *answering, **options):
        servers = [NameServer(reactor, one.host, one.port) for one in answering]
        resolver = Resolver(Bridge(reactor), servers, **{"timeout": 0.5, **options})
        self.addCleanup(resolver.stop)
        return resolver

    @inlineCallbacks
    def test_personalities(self):
        """
        Each misbehaviour gives the true answer, or what the server does say, or DNSError: never another answer.
        """
        for personality in PERSONALITIES:
            self.answering.personality = personality
            resolver = self.resolver(self.answering, timeout=2.0 if personality in self.ANSWERS else 0.2)
            if personality in self.ANSWERS:
                answer = yield resolver.ask(NAME, "A")
                self.assertEqual(self.ANSWERS[personality], answer.records, personality)
                self.assertEqual("NXDOMAIN" not in personality, answer.exists, personality)
            else:
                yield self.assertFailure(resolver.ask(NAME, "A"), DNSError)
            resolver.stop()

    @inlineCallbacks
    def test_secondServer(self):
        """
        With a good server beside it each misbehaving one is made up for, unless it leads elsewhere step by step.
        """
        good = self.serve()
        for personality in set(PERSONALITIES) - {*self.ANSWERS, "endless"}:
            self.answering.personality = personality
            resolver = self.resolver(self.answering, good, timeout=2.0)
            answer = yield resolver.ask(NAME, "A")
            self.assertEqual(("192.0.2.1",), answer.records, personality)
            resolver.stop()

    @inlineCallbacks
    def test_down(self):
        """
        When no server answers, questions soon fail at once; and when one does again, they are answered again.
        """
        resolver = self.resolver(self.answering)
        self.answering.personality = "silence"
        yield DeferredList([resolver.ask(f"n{number}", "A") for number in range(10)], consumeErrors=True)
        while not resolver.servers[0].down:
            yield self.assertFailure(resolver.ask("other", "A"), DNSError)
            resolver.cache.flush()
        begin = time.monotonic()
        error = yield self.assertFailure(resolver.ask(NAME, "A"), DNSError)
        self.assertEqual("no name server answers", str(error))
        self.assertLess(took(begin), 0.1)
        self.answering.personality = None
        end = reactor.seconds() + 3
        while True:
            try:
                answer = yield resolver.ask(NAME, "A")
                break
            except DNSError:
                self.assertLess(reactor.seconds(), end)
                done = Deferred()
                reactor.callLater(0.02, done.callback, None)
                yield done
        self.assertEqual(("192.0.2.1",), answer.records)
