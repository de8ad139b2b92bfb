"""
Tests for suspending lists of the DNS that cannot be believed.
"""

from ppolicy.blocklistservice import CLEAN, LISTED, UNKNOWN, Blocklists
from ppolicy.errors import DNSError, DNSTimeout
from ppolicy.testing import waiting
from tests.blocklisting import ALWAYS, ALWAYS6, BAD, GOOD, LISTING, NEVER, NEVER6, ZONE, BlocklistCase


class TestPointTests(BlocklistCase):
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


class SuspensionTests(BlocklistCase):
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
