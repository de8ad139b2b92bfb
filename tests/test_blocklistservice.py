"""
Tests for asking lists of the DNS: what they say, late or never, and which there are.
"""

from twisted.internet.defer import Deferred

from ppolicy.blocklists import DeadList
from ppolicy.blocklistservice import CLEAN, LISTED, UNKNOWN, Blocklists
from ppolicy.errors import ConfigError, DNSError, DNSTimeout
from ppolicy.testing import FakeResolver
from tests.blocklisting import ALWAYS, BAD, GOOD, LISTING, NEVER, ZONE, BlocklistCase


class SlowResolver(FakeResolver):
    """
    One that answers when C{release()} is called; names in C{silent} never.
    """

    def __init__(self, records):
        super().__init__(records)
        self.waiting = []
        self.silent = set()

    def ask(self, name, kind):
        answer = super().ask(name, kind)
        done = Deferred()
        if name not in self.silent:
            self.waiting.append((done, answer))
        return done

    def release(self):
        for done, answer in self.waiting:
            if not done.called:
                answer.chainDeferred(done)
            else:
                answer.addErrback(lambda _: None)
        self.waiting = []


class AskTests(BlocklistCase):
    """
    What lists say.
    """

    def test_states(self):
        """
        What is on a list is listed, with its code and the list's explanation; what is not is not.
        """
        listed, clean = self.ask(BAD, GOOD)
        self.assertEqual(
            (LISTED, ("127.0.0.2",), "see https://example.org"), (listed.state, listed.addresses, listed.text)
        )
        self.assertEqual(["listed"], [code.meaning for code in listed.codes])
        self.assertEqual((CLEAN, (), ""), (clean.state, clean.addresses, clean.text))
        self.assertEqual({"OURS": ""}, self.lists.status())

    def test_textsOfHitsOnly(self):
        """
        Only what is listed is asked to be explained, and only when that is wanted.
        """
        self.ask(BAD, GOOD)
        self.assertEqual([(f"{BAD}.{ZONE}", "TXT")], [one for one in self.dns.asked if one[1] == "TXT"])
        self.dns.asked.clear()
        (finding,) = self.ask(BAD, texts=False)
        self.assertEqual([(f"{BAD}.{ZONE}", "A")], self.dns.asked)
        self.assertEqual((LISTED, ""), (finding.state, finding.text))

    def test_noText(self):
        """
        A listing counts though its explanation is not to be had.
        """
        for trouble in (DNSTimeout("late"), ()):
            self.records[f"{BAD}.{ZONE}"] = {"A": ["127.0.0.2"], "TXT": trouble}
            self.assertEqual((LISTED, ""), self.state(BAD))

    def test_otherCodes(self):
        """
        An address that the list has not defined is no listing; several addresses count each for itself.
        """
        self.make(codes={"127.0.0.2": 1, "127.0.0.4": 2})
        for addresses, found in (
            (["127.0.0.3"], ()),
            (["127.0.0.1"], ()),
            (["127.0.0.4", "127.0.0.3", "127.0.0.2"], (2, 1)),
        ):
            self.records[f"{BAD}.{ZONE}"] = {"A": addresses}
            (finding,) = self.ask(BAD)
            self.assertEqual(found, tuple(code.score for code in finding.codes))
            self.assertEqual(LISTED if found else CLEAN, finding.state)
        self.assertEqual({"OURS": ""}, self.lists.status())

    def test_trouble(self):
        """
        Trouble with the DNS is unknown; the next question is asked all the same.
        """
        self.state(GOOD)
        self.records[f"{BAD}.{ZONE}"] = DNSError("the server fails")
        self.assertEqual((UNKNOWN, "the server fails"), self.state(BAD))
        self.assertEqual(CLEAN, self.state(GOOD)[0])

    def test_nothing(self):
        """
        Nothing is asked where there is nothing to ask.
        """
        self.assertEqual([], self.ask())
        self.assertEqual([], self.dns.asked)

    def test_noTestWithout(self):
        """
        A list without a test is taken as it is; its error codes are not.
        """
        self.make(selftest=None)
        del self.records[ALWAYS]
        self.records[NEVER] = LISTING
        self.assertEqual((LISTED, ""), self.state(BAD))
        self.assertNotIn((NEVER, "A"), self.dns.asked)
        self.records[f"{GOOD}.{ZONE}"] = {"A": ["127.255.255.254"]}
        self.assertEqual(UNKNOWN, self.state(GOOD)[0])
        self.assertEqual(UNKNOWN, self.state(BAD)[0])


class SlowTests(BlocklistCase):
    """
    Answers that take their time.
    """

    resolver = SlowResolver

    def go(self, seconds=0):
        """
        Let what is under way be answered, and what waits for it go on.
        """
        self.dns.release()
        self.clock.advance(seconds)
        self.clock.advance(0)

    def test_parallel(self):
        """
        All questions, and the test, are under way at once; then the explanations are.
        """
        result = self.begin(BAD, GOOD, "6.3.2.1")
        self.assertEqual(5, len(self.dns.waiting))
        self.go()
        self.assertNoResult(result)
        self.assertEqual([(f"{BAD}.{ZONE}", "TXT")], self.dns.asked[5:])
        self.go()
        self.assertEqual([LISTED, CLEAN, CLEAN], [finding.state for finding in self.successResultOf(result)])

    def test_testedOnce(self):
        """
        Requests that come while a list is tested wait for the same test, and it counts for all.
        """
        results = [self.begin(BAD) for _ in range(3)]
        self.assertEqual(1, self.dns.asked.count((NEVER, "A")))
        self.go()
        self.go()
        for result in results:
            self.assertEqual(LISTED, self.successResultOf(result)[0].state)

    def test_testNeverAnswered(self):
        """
        A listing whose test gets no answer is unknown after a bounded time; what is not listed is not.
        """
        self.dns.silent.add(NEVER)
        result = self.begin(BAD, GOOD)
        self.go()
        self.assertNoResult(result)
        self.go(8.0)
        listed, clean = self.successResultOf(result)
        self.assertEqual(
            (UNKNOWN, "it lists this, but could not be tested: no answer in time"), (listed.state, listed.reason)
        )
        self.assertEqual(CLEAN, clean.state)

    def test_deadline(self):
        """
        Whatever does not come, the findings are there before the request's time is up.
        """
        self.dns.silent |= {f"{BAD}.{ZONE}", NEVER, ALWAYS}
        result = self.begin(BAD, GOOD, timeout=3)
        self.go(2.4)
        self.assertNoResult(result)
        self.go(0.2)
        bad, good = self.successResultOf(result)
        self.assertEqual([UNKNOWN, CLEAN], [bad.state, good.state])

    def test_explanationNeverAnswered(self):
        """
        A listing whose explanation does not come counts without it.
        """
        result = self.begin(BAD)
        self.go()
        self.dns.waiting.clear()
        self.clock.advance(2.0)
        self.clock.advance(0)
        (finding,) = self.successResultOf(result)
        self.assertEqual((LISTED, ""), (finding.state, finding.text))

    def test_lateTestCounts(self):
        """
        A test that nobody waits for any more still counts for the next request.
        """
        result = self.begin(BAD, timeout=1)
        questions, self.dns.waiting = self.dns.waiting[:1], self.dns.waiting[1:]
        tests, self.dns.waiting = self.dns.waiting, questions
        self.go(0.6)
        self.assertEqual(UNKNOWN, self.successResultOf(result)[0].state)
        self.dns.waiting = tests
        self.go()
        self.dns.asked.clear()
        result = self.begin(BAD)
        self.go()
        self.go()
        self.assertEqual(LISTED, self.successResultOf(result)[0].state)
        self.assertNotIn((NEVER, "A"), self.dns.asked)


class ServiceTests(BlocklistCase):
    """
    Names, and the option dnsLists.
    """

    def test_configure(self):
        """
        Another option gives other lists; a wrong one changes nothing, and checks keep what they have found.
        """
        old = self.list
        self.lists.configure({"THEIRS": {"zone": "x.example.org"}})
        self.assertEqual("x.example.org", self.lists.find("THEIRS").zone)
        self.assertRaises(ConfigError, self.lists.find, "OURS")
        self.assertRaises(ConfigError, self.lists.configure, {"THEIRS": {"zone": 5}})
        self.assertEqual("x.example.org", self.lists.find("THEIRS").zone)
        self.assertEqual({"OURS": ""}, self.lists.status())
        self.assertEqual(LISTED, self.ask(BAD)[0].state)
        self.lists.configure({"OURS": {"zone": ZONE}})
        self.assertEqual(old, self.lists.find("OURS"))

    def test_wrongOption(self):
        """
        A wrong option is refused at once.
        """
        self.assertRaises(ConfigError, Blocklists, self.bridge, self.dns, {"A": {}})

    def test_deadOnce(self):
        """
        A dead list is warned about once, whoever names it.
        """
        events = self.logged()
        for _ in range(3):
            self.assertIsInstance(self.lists.find("SORBSDUL"), DeadList)
        warned = [event for event in events if "the answer is always 0" in event.get("log_format", "")]
        self.assertEqual(1, len(warned))
        self.assertIn("SORBSDUL (sorbs.net) is dead since June 2024", warned[0]["reason"])
