"""
Tests for asking lists, and for suspending those that cannot be believed.
"""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.blocklists import DeadList
from ppolicy.bridge import Bridge
from ppolicy.errors import ConfigError, DNSError, DNSTimeout
from ppolicy.listhealth import CLEAN, LISTED, UNKNOWN, Blocklists
from ppolicy.testing import FakeResolver, waiting

ZONE = "bl.example.org"
BAD = "4.3.2.1"
GOOD = "5.3.2.1"
NEVER, ALWAYS = f"1.0.0.127.{ZONE}", f"2.0.0.127.{ZONE}"
LISTING = {"A": ["127.0.0.2"], "TXT": [(b"see https://example.org",)]}
NEVER6 = "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"
ALWAYS6 = f"2{NEVER6[1:]}"


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


class HealthCase(SynchronousTestCase):
    """
    @ivar records: what the resolver knows: a good list, with BAD on it.
    """

    resolver = FakeResolver

    def setUp(self):
        self.clock = Clock()
        self.bridge = Bridge(self.clock)
        self.records = {ALWAYS: LISTING, f"{BAD}.{ZONE}": LISTING}
        self.dns = self.resolver(self.records)
        self.lists = self.make()

    def make(self, **more):
        lists = Blocklists(self.bridge, self.dns, {"OURS": {"zone": ZONE, **more}})
        self.list = lists.find("OURS")
        lists.use(self, [self.list])
        self.lists = lists
        return lists

    def begin(self, *subjects, texts=True, timeout=30.0):
        questions = [(self.list, subject) for subject in subjects]
        return waiting(self.bridge, self.lists.ask, questions, texts, timeout=timeout)

    def ask(self, *subjects, texts=True):
        """
        The findings, at once.
        """
        return self.successResultOf(self.begin(*subjects, texts=texts))

    def state(self, subject):
        """
        (state, reason) of one subject.
        """
        (finding,) = self.ask(subject)
        return finding.state, finding.reason

    def later(self, seconds):
        self.clock.advance(seconds)

    def logged(self):
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events


class AskTests(HealthCase):
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


class TestPointTests(HealthCase):
    """
    The first answer of a list counts once it is tested.
    """

    def refused(self, reason):
        self.assertEqual((UNKNOWN, f"suspended: {reason}"), self.state(BAD))
        self.assertEqual({"OURS": reason}, self.lists.status())

    def test_points(self):
        """
        A list is tested before its first answer counts, beside it, and not again for each answer.
        """
        self.ask(BAD)
        self.assertEqual({NEVER, ALWAYS, f"{BAD}.{ZONE}"}, {name for name, kind in self.dns.asked if kind == "A"})
        self.dns.asked.clear()
        self.ask(BAD, GOOD)
        self.assertEqual({f"{BAD}.{ZONE}", f"{GOOD}.{ZONE}"}, {name for name, _ in self.dns.asked})

    def test_listsEverything(self):
        """
        A list that lists what nobody may list does not count, from the first question on.
        """
        self.records[NEVER] = LISTING
        self.refused("it lists 1.0.0.127, as if it listed everything")

    def test_listsNothing(self):
        """
        A list that does not list its test point is suspended; not when it has none.
        """
        del self.records[ALWAYS]
        self.refused("it does not list its test point 2.0.0.127, as if it were empty")
        self.make(selftest="negative-only")
        self.assertEqual((LISTED, ""), self.state(BAD))
        self.assertEqual({"OURS": ""}, self.lists.status())

    def test_refuses(self):
        """
        One that answers its test with an error code, or with an address of somebody else, is suspended.
        """
        for point in (NEVER, ALWAYS):
            for address, reason in (
                ("127.255.255.254", "it answers with the error code 127.255.255.254"),
                ("192.0.2.1", "it answers 192.0.2.1, which is outside of 127.0.0.0/8"),
            ):
                self.make()
                self.records[point] = {"A": [address]}
                self.refused(reason)
            self.records[NEVER] = {}
            self.records[ALWAYS] = LISTING

    def test_noTest(self):
        """
        As long as a list could not be tested, what it lists is unknown; what it does not list is not listed.
        """
        self.records[NEVER] = DNSTimeout("late")
        listed, clean = self.ask(BAD, GOOD)
        self.assertEqual((UNKNOWN, "it lists this, but could not be tested: late"), (listed.state, listed.reason))
        self.assertEqual(CLEAN, clean.state)
        del self.records[NEVER]
        self.assertEqual((LISTED, ""), self.state(BAD))

    def test_positivePointLate(self):
        """
        That the test point is not to be had is no harm.
        """
        self.records[ALWAYS] = DNSTimeout("late")
        self.assertEqual((LISTED, ""), self.state(BAD))

    def test_ipv6(self):
        """
        A list that knows IPv6 is tested with that too.
        """
        self.records[f"{NEVER6}.{ZONE}"] = LISTING
        self.assertEqual(LISTED, self.state(BAD)[0])
        self.make(ipv6=True)
        self.refused(f"it lists {NEVER6}, as if it listed everything")
        self.make(ipv6=True, ipv4=False)
        del self.records[f"{NEVER6}.{ZONE}"]
        self.refused(f"it does not list its test point {ALWAYS6}, as if it were empty")
        self.make(ipv6=True, ipv4=False)
        self.records[f"{ALWAYS6}.{ZONE}"] = LISTING
        self.assertEqual(LISTED, self.state(BAD)[0])

    def test_domains(self):
        """
        A list of domains is tested with the names TEST and INVALID.
        """
        self.records[f"bad.example.{ZONE}"] = LISTING
        self.make(kind="domain")
        self.assertEqual(UNKNOWN, self.state("bad.example")[0])
        self.records[f"test.{ZONE}"] = LISTING
        self.make(kind="domain")
        self.assertEqual(LISTED, self.state("bad.example")[0])
        self.records[f"invalid.{ZONE}"] = LISTING
        self.make(kind="domain")
        self.assertEqual(UNKNOWN, self.state("bad.example")[0])

    def test_begunToListEverything(self):
        """
        A listing counts only when the list was tested in the last minute: one that lists everything since
        yesterday is found out by its first listing.
        """
        self.assertEqual(LISTED, self.state(BAD)[0])
        self.records[NEVER] = self.records[f"{GOOD}.{ZONE}"] = LISTING
        self.later(61)
        self.assertEqual(UNKNOWN, self.state(GOOD)[0])
        self.assertEqual({"OURS": "it lists 1.0.0.127, as if it listed everything"}, self.lists.status())


class SuspensionTests(HealthCase):
    """
    How a list is suspended, and comes back.
    """

    def setUp(self):
        super().setUp()
        self.lists.start()
        self.addCleanup(lambda: self.lists.stop())
        self.events = self.logged()

    def texts(self):
        return [
            event["log_format"].format(**event) for event in self.events if "list" in event.get("log_format", "")
        ]

    def listed(self, address):
        self.records[f"{BAD}.{ZONE}"] = {"A": [address]}

    def test_errorCode(self):
        """
        An error code suspends the list: it is not asked, the log says so once, and it is tested after a minute.
        """
        self.state(GOOD)
        self.listed("127.255.255.254")
        reason = "it answers with the error code 127.255.255.254"
        self.assertEqual((UNKNOWN, f"suspended: {reason}"), self.state(BAD))
        self.dns.asked.clear()
        for _ in range(5):
            self.assertEqual((UNKNOWN, f"suspended: {reason}"), self.state(GOOD))
        self.later(55)
        self.assertEqual([], self.dns.asked)
        self.assertEqual({"OURS": reason}, self.lists.status())
        self.later(10)
        self.assertEqual({(NEVER, "A"), (ALWAYS, "A")}, set(self.dns.asked))
        self.assertEqual({"OURS": ""}, self.lists.status())
        self.assertEqual(CLEAN, self.state(GOOD)[0])
        self.assertEqual(
            [
                f"the list OURS ({ZONE}) is suspended: {reason}; it is tested again after 60 s",
                f"the list OURS ({ZONE}) is asked again",
            ],
            self.texts(),
        )

    def test_longerAndLonger(self):
        """
        As long as it is no better, the tests come at longer and longer intervals, up to four hours.
        """
        self.records[NEVER] = LISTING
        self.state(GOOD)
        times = []
        begun = self.clock.seconds()
        self.dns.asked.clear()
        while self.clock.seconds() < begun + 24 * 3600:
            self.later(5)
            if self.dns.asked:
                times.append(self.clock.seconds())
                self.dns.asked.clear()
        gaps = [round((b - a) / 60) for a, b in zip([begun, *times], times, strict=False)]
        self.assertEqual([1, 2, 4, 8, 16, 32, 64, 128, 240, 240, 240, 240], gaps)
        self.assertEqual(1, len(self.texts()))

    def test_suspendedAgain(self):
        """
        One that passes the test but goes on with error codes is suspended for twice as long each time.
        """
        self.listed("127.255.255.254")
        seconds = []
        for _ in range(4):
            self.state(BAD)
            begun = self.clock.seconds()
            while self.lists.status()["OURS"]:
                self.later(5)
            seconds.append(self.clock.seconds() - begun)
        self.assertEqual([60, 120, 240, 480], seconds)
        self.later(3700)
        self.state(BAD)
        self.assertIn("after 60 s", self.texts()[-1])

    def test_silence(self):
        """
        One that does not answer several times is suspended for half a minute, and not when it answers in between.
        """
        self.state(GOOD)
        for answers in (4, 4):
            self.records[f"{BAD}.{ZONE}"] = DNSTimeout("late")
            for _ in range(answers):
                self.assertEqual((UNKNOWN, "late"), self.state(BAD))
            self.assertEqual(CLEAN, self.state(GOOD)[0])
        for _ in range(5):
            self.state(BAD)
        self.assertEqual({"OURS": "it does not answer"}, self.lists.status())
        self.later(35)
        self.assertEqual({"OURS": ""}, self.lists.status())

    def test_forget(self):
        """
        Who uses a list that has begun to list everything has to forget what it said; not for anything else.
        """
        forgotten = []
        self.lists.use("check", [self.list], lambda: forgotten.append("check"))
        self.lists.use("other", [self.lists.find("ZEN")], lambda: forgotten.append("other"))
        self.state(BAD)
        self.later(61)
        self.records[f"{BAD}.{ZONE}"] = {"A": ["127.255.255.254"]}
        self.state(BAD)
        for _ in range(3):
            self.later(61)
        self.records[f"{BAD}.{ZONE}"] = self.records[NEVER] = LISTING
        self.assertEqual([], forgotten)
        self.state(BAD)
        self.assertEqual(["check"], forgotten)
        self.later(300)
        self.assertEqual(["check"], forgotten)

    def test_noNameServer(self):
        """
        That there is no name server to ask is no fault of the list.
        """
        self.state(GOOD)
        self.records[f"{BAD}.{ZONE}"] = DNSError("no name server answers", later=True)
        for _ in range(20):
            self.assertEqual(UNKNOWN, self.state(BAD)[0])
        self.assertEqual({"OURS": ""}, self.lists.status())

    def test_oneRequestCountsOnce(self):
        """
        Many questions of one request that are not answered count as one.
        """
        self.state(GOOD)
        names = [f"{number}.3.2.1" for number in range(20)]
        self.records |= {f"{name}.{ZONE}": DNSTimeout("late") for name in names}
        self.ask(*names)
        self.assertEqual({"OURS": ""}, self.lists.status())

    def test_silentWithoutTest(self):
        """
        One without a test is asked again when its time has come.
        """
        self.make(selftest=None)
        self.lists.start()
        self.records[f"{BAD}.{ZONE}"] = DNSTimeout("late")
        for _ in range(5):
            self.state(BAD)
        self.assertEqual({"OURS": "it does not answer"}, self.lists.status())
        self.later(35)
        self.assertEqual({"OURS": ""}, self.lists.status())

    def test_silentTest(self):
        """
        As long as the test is not answered either, it stays suspended, at most for five minutes at a time.
        """
        self.state(GOOD)
        self.records |= {name: DNSTimeout("late") for name in (f"{BAD}.{ZONE}", NEVER, ALWAYS)}
        for _ in range(5):
            self.state(BAD)
        for _ in range(720):
            self.later(5)
        self.assertEqual({"OURS": "it does not answer"}, self.lists.status())
        del self.records[NEVER]
        for _ in range(61):
            self.later(5)
        self.assertEqual({"OURS": ""}, self.lists.status())

    def test_inUseOnly(self):
        """
        Only lists in use are tested, a few at a time.
        """
        own = {f"L{number}": {"zone": f"l{number}.example.org"} for number in range(5)}
        self.lists.stop()
        self.lists = Blocklists(self.bridge, self.dns, own)
        self.lists.start()
        self.later(60)
        self.assertEqual([], self.dns.asked)
        self.lists.use("check", [self.lists.find(f"L{number}") for number in range(4)])
        self.later(5)
        self.assertEqual(4, len(self.dns.asked))
        self.later(5)
        self.assertEqual(8, len(self.dns.asked))
        for _ in range(8):
            self.later(5)
        self.assertEqual(8, len(self.dns.asked))
        self.assertEqual([f"L{number}" for number in range(4)], list(self.lists.status()))
        self.assertTrue(all(self.lists.status().values()))  # none of them exists
        self.lists.release("check")
        self.assertEqual({}, self.lists.status())
        self.dns.asked.clear()
        self.later(5000)
        self.assertEqual([], self.dns.asked)

    def test_secondTestLater(self):
        """
        A good list is tested again after half an hour, without being asked for anything.
        """
        self.state(GOOD)
        del self.records[ALWAYS]
        self.later(1795)
        self.assertEqual({"OURS": ""}, self.lists.status())
        self.later(10)
        self.assertNotEqual({"OURS": ""}, self.lists.status())

    def test_sameZone(self):
        """
        Lists in the same zone are tested together.
        """
        self.lists.stop()
        self.lists = Blocklists(self.bridge, self.dns)
        found = [self.lists.find(name) for name in ("ZEN", "PBL", "SBL")]
        self.lists.use("check", found)
        self.successResultOf(waiting(self.bridge, self.lists.ask, [(one, BAD) for one in found]))
        self.assertEqual(1, self.dns.asked.count(("1.0.0.127.zen.spamhaus.org", "A")))
        self.assertEqual({"ZEN", "PBL", "SBL"}, {name for name, reason in self.lists.status().items() if reason})

    def test_keyIsSecret(self):
        """
        The key of a subscription is in no log line, no status and no reason.
        """
        self.lists.stop()
        key = "s3cretKey0123456789"
        own = {"OURS": {"zone": "{key}.bl.example.org", "key": key}}
        self.records |= {
            f"{BAD}.{key}.{ZONE}".lower(): DNSError(f"{BAD}.{key.lower()}.{ZONE}: the server fails"),
            f"{GOOD}.{key}.{ZONE}".lower(): {"A": ["127.0.0.2"], "TXT": [(f"{GOOD}.{key}.{ZONE}".encode(),)]},
            f"2.0.0.127.{key}.{ZONE}".lower(): LISTING,
        }
        self.lists = Blocklists(self.bridge, self.dns, own)
        self.list = self.lists.find("OURS")
        bad, good = self.ask(BAD, GOOD)
        self.assertEqual(f"{BAD}.***.{ZONE}: the server fails", bad.reason)
        self.assertEqual((LISTED, f"{GOOD}.***.{ZONE}"), (good.state, good.text))
        self.records[f"{GOOD}.{key}.{ZONE}".lower()] = {"A": ["8.8.8.8"]}
        self.ask(GOOD)
        shown = f"{self.events} {self.lists.status()} {good.list!r}".lower()
        self.assertNotIn(key.lower(), shown)
        self.assertIn(f"the list OURS (***.{ZONE}) is suspended", "".join(self.texts()))


class SlowTests(HealthCase):
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


class ServiceTests(HealthCase):
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
