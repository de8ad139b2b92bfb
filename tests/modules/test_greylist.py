"""
Tests for the Greylist check module.
"""

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from ppolicy import senderpool
from ppolicy.errors import BackendError, ConfigError, DNSTimeout
from ppolicy.testing import FakeResolver, make, memoryState, waiting
from tests.listing import Listing
from tests.serving import POSTFIX, Serving, asked

MAIL = {"sender": "alice@example.net", "recipient": "bob@example.org", "client_address": "192.0.2.1"}


class GreylistTests(SynchronousTestCase):
    """
    One greylist with short times, on a clock.
    """

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1e9)
        self.greylist = make(
            "Greylist", memoryState(self.clock), delay=600, mustRetry=3600, expiration=86400, writeBehind=True
        )
        self.greylist.start()

    def check(self, **changes):
        return self.greylist.check({**MAIL, **changes})

    def test_firstContact(self):
        """
        The first mail of a triplet is deferred, with the seconds to wait.
        """
        self.assertEqual((-1, ("greylisting in progress: 600s", 600)), self.check())

    def test_tooEarly(self):
        """
        A retry before the delay is deferred for the rest of it, however often it comes.
        """
        self.check()
        self.clock.advance(100)
        self.assertEqual((-1, ("greylisting in progress: 500s", 500)), self.check())
        self.clock.advance(499)
        self.assertEqual((-1, ("greylisting in progress: 1s", 1)), self.check())

    def test_passes(self):
        """
        A retry after the delay passes, and the answer may be cached for a tenth of the time that the triplet is
        known: mail that is answered from the cache does not prolong that.
        """
        self.check()
        self.clock.advance(600)
        self.assertEqual((1, ("greylisting passed", 86400), 8640), self.check())

    def test_staysKnown(self):
        """
        A triplet that passed stays known from its last mail on, and starts again after expiration.
        """
        self.check()
        self.clock.advance(600)
        self.check()
        for _ in range(3):
            self.clock.advance(86399)
            self.assertEqual(1, self.check()[0])
        self.clock.advance(86400)
        self.assertEqual(-1, self.check()[0])

    def test_mustRetry(self):
        """
        A triplet that did not come back in time starts again, early retries notwithstanding.
        """
        self.check()
        self.clock.advance(500)
        self.check()
        self.clock.advance(3100)
        self.assertEqual((-1, ("greylisting in progress: 600s", 600)), self.check())

    def test_differentMail(self):
        """
        Each of sender, recipient and client makes another triplet.
        """
        self.check()
        self.clock.advance(600)
        for change in ({"sender": "x@y"}, {"recipient": "x@y"}, {"client_address": "192.0.3.1"}):
            self.assertEqual(-1, self.check(**change)[0], change)

    def test_case(self):
        """
        Upper and lower case are the same mail.
        """
        self.check()
        self.clock.advance(600)
        self.assertEqual(1, self.check(sender="ALICE@Example.NET", recipient="Bob@example.org")[0])

    def test_nullSender(self):
        """
        Bounces have an empty sender, and are greylisted as any mail.
        """
        self.assertEqual(-1, self.check(sender="")[0])
        self.clock.advance(600)
        self.assertEqual(1, self.check(sender="")[0])

    def test_postmaster(self):
        """
        Mail to postmaster always gets through.
        """
        for recipient in ("postmaster", "postmaster@example.org", "PostMaster@Example.org"):
            self.assertEqual((2, ("mail to postmaster is not greylisted", 0)), self.check(recipient=recipient))

    def test_malformedSender(self):
        """
        A sender without a domain is told apart.
        """
        self.assertEqual(-2, self.check(sender="alice")[0])

    def test_lastAtSign(self):
        """
        A quoted local part may hold another @.
        """
        self.assertEqual(-1, self.check(sender="a@b@example.net")[0])

    def test_databaseTrouble(self):
        """
        When the triplet cannot be read or written the answer is unknown.
        """

        class Broken:
            def touch(self, *args, **keywords):
                raise BackendError("database is locked")

        self.greylist._triplets = Broken()
        self.assertEqual((0, ("greylisting is not possible: database is locked", 0)), self.check())

    def test_deferralIsNotCached(self):
        """
        A triplet that waits must be looked up each time; one that passed need not.
        """
        self.assertEqual((0, 86400), (self.greylist.cacheNegative, self.greylist.cachePositive))

    def test_timesThatCannotWork(self):
        """
        A delay longer than mustRetry would never let anything through.
        """
        greylist = make("Greylist", delay=600, mustRetry=600)
        self.assertIn("mustRetry", str(self.assertRaises(ConfigError, greylist.start)))

    def test_tableName(self):
        """
        A table name that is no identifier refuses the start.
        """
        self.assertRaises(ConfigError, make("Greylist", table="a; DROP TABLE b").start)


class NetworkTests(SynchronousTestCase):
    """
    Which addresses are one client.
    """

    def key(self, address, **parameters):
        greylist = make("Greylist", **parameters)
        greylist.start()
        return greylist.hashArg({**MAIL, "client_address": address}).split("\n")[2]

    def test_networks(self):
        """
        By default an IPv4 client is its /24, an IPv6 client its /64.
        """
        self.assertEqual("192.0.2.0/24", self.key("192.0.2.77"))
        self.assertEqual("2001:db8:1:2::/64", self.key("2001:DB8:1:2:3:4:5:6"))

    def test_mapped(self):
        """
        An IPv4 address within IPv6 is the IPv4 address.
        """
        self.assertEqual("192.0.2.0/24", self.key("::ffff:192.0.2.77"))
        self.assertEqual("192.0.2.77", self.key("::FFFF:192.0.2.77", ipv4Prefix=32, ipv6Prefix=128))

    def test_prefixes(self):
        """
        The parameters say how many bits count; all of them means the address itself.
        """
        self.assertEqual("192.0.0.0/16", self.key("192.0.2.77", ipv4Prefix=16))
        self.assertEqual("192.0.2.77", self.key("192.0.2.77", ipv4Prefix=32))
        self.assertEqual("2001:db8::/32", self.key("2001:db8:1::1", ipv6Prefix=32))
        self.assertEqual("2001:db8:1::1", self.key("2001:db8:1:0::1", ipv6Prefix=128))
        for wrong in ({"ipv4Prefix": 7}, {"ipv4Prefix": 33}, {"ipv6Prefix": 15}, {"ipv6Prefix": 129}):
            self.assertRaises(ConfigError, make, "Greylist", **wrong)

    def test_noAddress(self):
        """
        What is no address stands for itself, and is greylisted as any other.
        """
        for text in ("", "unknown", "192.0.2", "192.0.2.1/24", "1" * 1000, "::g", "\udcff", "fe80::1%eth0"):
            greylist = make("Greylist")
            greylist.start()
            self.assertEqual(-1, greylist.check({**MAIL, "client_address": text})[0], text)
        self.assertEqual("unknown", self.key("unknown"))
        self.assertNotEqual(self.key("192.0.2"), self.key("192.0.2.1"))

    def test_missing(self):
        """
        A request without these attributes is greylisted, too.
        """
        greylist = make("Greylist")
        greylist.start()
        self.assertEqual(-1, greylist.check({})[0])


class SenderTests(SynchronousTestCase):
    """
    Which senders are one.
    """

    def keys(self, *senders, **parameters):
        greylist = make("Greylist", **parameters)
        greylist.start()
        return {greylist.hashArg({**MAIL, "sender": sender}).split("\n")[0] for sender in senders}

    def test_verp(self):
        """
        Bounce addresses with a number or hash of the mail are one sender.
        """
        for senders in (
            ("bounce-4711-alice=example.org@lists.example.com", "bounce-4712-alice=example.org@lists.example.com"),
            ("news-return-123-bob=example.org@example.com", "news-return-99-bob=example.org@example.com"),
            ("b.0a1b2c3d4e.x@example.com", "b.99ff88ee77aa.x@example.com"),
            (
                "msprvs1=17456abcdefgh_12345=bounces-1-2@example.com",
                "msprvs1=17456abcdefgh_99999=bounces-1-2@example.com",
            ),
            ("BOUNCE-1-X@Example.com", "bounce-2-x@example.com"),
        ):
            self.assertEqual(1, len(self.keys(*senders)), senders)

    def test_batv(self):
        """
        A signed address is the address that was signed.
        """
        self.assertEqual(
            {"alice@example.net"},
            self.keys(
                "prvs=0123456789=alice@example.net",
                "prvs=9876543210=Alice@example.net",
                "btv1==012abcdef==alice@example.net",
                "alice@example.net",
            ),
        )

    def test_srs0(self):
        """
        A forwarded sender is the same on another day, and not that of another domain or user.
        """
        same = self.keys(
            "SRS0=HHHH=TT=example.net=alice@forwarder.org",
            "SRS0=xY9+=UV=example.net=alice@forwarder.org",
            "srs0+abcd=2a=example.net=alice@forwarder.org",
            "SRS0-abcd=2b=example.net=alice@forwarder.org",
        )
        self.assertEqual(1, len(same), same)
        for other in (
            "SRS0=HHHH=TT=example.net=bob@forwarder.org",
            "SRS0=HHHH=TT=example.com=alice@forwarder.org",
            "SRS0=HHHH=TT=example.net=alice@other.org",
            "alice@example.net",
        ):
            self.assertFalse(self.keys(other) & same, other)

    def test_srs1(self):
        """
        So is one that was forwarded twice.
        """
        same = self.keys(
            "SRS1=AAAA=first.org==HHHH=TT=example.net=alice@second.org",
            "SRS1=BBBB=first.org==JJJJ=UV=example.net=alice@second.org",
        )
        self.assertEqual(1, len(same), same)
        for other in (
            "SRS1=AAAA=first.org==HHHH=TT=example.net=bob@second.org",
            "SRS1=AAAA=first.org==HHHH=TT=example.com=alice@second.org",
        ):
            self.assertFalse(self.keys(other) & same, other)

    def test_extension(self):
        """
        An extension is none of the sender; one without anything before it is.
        """
        self.assertEqual(
            {"user@example.net"}, self.keys("user+a@example.net", "User+b+c@example.net", "user@example.net")
        )
        self.assertEqual(2, len(self.keys("+a@example.net", "+b@example.net")))

    def test_unrelated(self):
        """
        Senders that have nothing to do with each other never fall together.
        """
        senders = [
            "12345@example.com",
            "12346@example.com",
            "0123456789@example.com",
            "a1@example.com",
            "a2@example.com",
            "4711abcdef@example.com",
            "4712abcdef@example.com",
            "deadbeef1@example.com",
            "deadbeef2@example.com",
            "alice@example.com",
            "alice@example.net",
            "alice@sub.example.com",
            "alice.smith@example.com",
            "alice.jones@example.com",
            "max_mueller@example.com",
            "max_meier@example.com",
            "x-facade@example.com",
            "x-decade@example.com",
            "prvs@example.com",
            "srs0@example.com",
            "srs1@example.com",
            "prvs=alice@example.com",
            "",
            "@example.com",
            "#@example.com",
        ]
        for sender in senders:
            for other in senders:
                if sender != other:
                    self.assertEqual(2, len(self.keys(sender, other)), (sender, other))

    def test_byDesign(self):
        """
        Numbers behind a separator count as those of a mail, in whoever's address.
        """
        self.assertEqual(1, len(self.keys("bob-2@example.com", "bob-3@example.com")))

    def test_nothingLeft(self):
        """
        A signature around nothing is not the sender of every mail of a domain.
        """
        self.assertEqual(2, len(self.keys("prvs=0123456789=@example.com", "@example.com")))

    def test_hostile(self):
        """
        Whatever stands in a sender has a key.
        """
        for sender in (
            "=" * 1000 + "@x",
            "srs0=" * 300 + "@x",
            "-1" * 1000 + "@x",
            "\udcff-1@\udcff",
            "\0@\0",
            "@",
            "a@@b",
        ):
            (key,) = self.keys(sender)
            self.assertIsInstance(key, str)

    def test_off(self):
        """
        Without normalizeSender each sender is one, but for case.
        """
        senders = ("a+b@x", "a+c@x", "prvs=0123456789=a@x", "b-1@x", "B-2@x")
        self.assertEqual({one.lower() for one in senders}, self.keys(*senders, normalizeSender=False))


class FeatureTests(SynchronousTestCase):
    """
    Whitelists, windows, texts and headers, on a clock.
    """

    def make(self, **parameters):
        self.clock = Clock()
        self.clock.advance(1e9)
        given = {"delay": 600, "mustRetry": 3600, "expiration": 86400, **parameters}
        greylist = make("Greylist", memoryState(self.clock), **given)
        greylist.start()
        self.greylist = greylist
        return greylist

    def check(self, **changes):
        return self.greylist.check({**MAIL, **changes})

    def passing(self, **changes):
        """
        A triplet's first contact and its retry in time.
        """
        self.assertEqual(-1, self.check(**changes)[0])
        self.clock.advance(600)
        found = self.check(**changes)
        self.assertEqual(1, found[0])
        return found

    def test_retryWindow(self):
        """
        retryWindow is mustRetry by another name.
        """
        self.make(retryWindow=1000)
        self.check()
        self.clock.advance(1000)
        self.assertEqual(600, self.check()[1][1])
        self.clock.advance(999)
        self.assertEqual(1, self.check()[0])
        greylist = make("Greylist", delay=600, retryWindow=600)
        self.assertIn("mustRetry", str(self.assertRaises(ConfigError, greylist.start)))

    def test_clientTrusted(self):
        """
        After so many triplets that passed a client's network is greylisted no more, for one minute in the cache.
        """
        self.make(whitelistAfter=3)
        for number in range(3):
            self.passing(sender=f"user{number}@domain{number}.example")
            self.clock.advance(3000)
        text = "greylisting is not needed, 192.0.2.0/24 has passed often enough"
        found = self.check(sender="new@new.example", client_address="192.0.2.99")
        self.assertEqual((1, (text, 86400), 60), found)
        self.assertEqual(-1, self.check(sender="new@new.example", client_address="198.51.100.1")[0])

    def test_onlyFirstPasses(self):
        """
        Further mail of a triplet that has passed does not count, nor do retries that come too early.
        """
        self.make(whitelistAfter=2)
        self.passing()
        for _ in range(10):
            self.check()
        self.check(sender="x@y.example")
        for _ in range(5):
            self.check(sender="x@y.example")
        self.assertEqual(-1, self.check(sender="new@new.example")[0])

    def test_passesTogether(self):
        """
        Passes within an hour, such as those of one mail to many recipients, count as one.
        """
        self.make(whitelistAfter=2)
        recipients = [f"user{number}@example.org" for number in range(9)]
        for recipient in recipients:
            self.check(recipient=recipient)
        self.clock.advance(600)
        for recipient in recipients:
            self.assertEqual(1, self.check(recipient=recipient)[0])
        self.clock.advance(600)
        self.assertEqual(-1, self.check(sender="new@new.example")[0])
        self.clock.advance(3000)
        self.assertEqual(1, self.check(sender="new@new.example")[0])
        self.assertIn("passed often enough", self.check(sender="another@new.example")[1][0])

    def test_trustEnds(self):
        """
        Trust ends when nothing came from there for the time of expiration, and lasts as long as something does.
        """
        self.make(whitelistAfter=1)
        self.passing()
        for number in range(4):
            self.clock.advance(86000)
            self.assertEqual(1, self.check(sender=f"u{number}@y.example")[0])
        self.clock.advance(86400)
        self.assertEqual(-1, self.check(sender="late@y.example")[0])

    def test_domainTrusted(self):
        """
        A sender's domain is trusted together with the network only.
        """
        self.make(whitelistAfter=1)
        self.passing()
        self.greylist._clients.delete(("192.0.2.0/24",))
        text = "greylisting is not needed, example.net has passed often enough"
        self.assertEqual(text, self.check(sender="other@example.net")[1][0])
        self.greylist._clients.delete(("192.0.2.0/24",))
        self.assertEqual(-1, self.check(sender="other@example.org")[0])
        self.assertEqual(-1, self.check(sender="other@example.net", client_address="198.51.100.1")[0])

    def test_neverTrusted(self):
        """
        Without whitelistAfter nobody is trusted, however often he passes.
        """
        self.make()
        for number in range(20):
            self.passing(sender=f"user{number}@example.net")
        self.assertEqual(-1, self.check(sender="new@example.net")[0])

    def test_text(self):
        """
        The text may have seconds, minutes and the recipient's domain in it; minutes are rounded up.
        """
        self.make(text="{domain}: {minutes} min, {seconds} s, {{braces}}")
        self.assertEqual((-1, ("example.org: 10 min, 600 s, {braces}", 600)), self.check())
        self.clock.advance(541)
        self.assertEqual((-1, ("example.org: 1 min, 59 s, {braces}", 59)), self.check())

    def test_hostileRecipient(self):
        """
        Braces and percent signs in a recipient are text.
        """
        self.make(text="greylisted for {domain}")
        for domain in ("{seconds}", "{0.__class__}", "%s", "{", "}}", "{domain}"):
            found = self.check(recipient=f"bob@{domain}")
            self.assertEqual(f"greylisted for {domain}", found[1][0])

    def test_badTexts(self):
        """
        A text that cannot be filled in is refused at the start, with a sentence.
        """
        for text in (
            "{",
            "}",
            "{}",
            "{0}",
            "{hours}",
            "{seconds",
            "{seconds:x!}",
            "{domain.x}",
            "{seconds[0]}",
            "{domain[0]}",
            "{minutes!x}",
        ):
            greylist = make("Greylist", text=text)
            self.assertIn("text may have", str(self.assertRaises(ConfigError, greylist.start)), text)

    def test_header(self):
        """
        With header the first pass gives a header and is not cached; later ones do not.
        """
        self.make(header=True)
        code, (text, seconds), cached = self.passing()
        self.assertEqual((1, 86400, 0), (code, seconds, cached))
        self.assertRegex(
            text,
            r"\AX-Greylist: delayed 600 seconds by ppolicy; "
            r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} 2001 \d\d:\d\d:\d\d \+0000\Z",
        )
        self.assertEqual((1, ("greylisting passed", 86400), 8640), self.check())

    def test_oneHeader(self):
        """
        A mail to several recipients gets one header.
        """
        self.make(header=True)
        recipients = [f"user{number}@example.org" for number in range(3)]
        for recipient in recipients:
            self.check(recipient=recipient, instance="1.1")
        self.clock.advance(600)
        texts = [self.check(recipient=one, instance="1.2")[1][0] for one in recipients]
        self.assertEqual([True, False, False], [text.startswith("X-Greylist: ") for text in texts])
        self.assertEqual("greylisting passed", texts[1])

    def test_noHeader(self):
        """
        Without header the first pass is as any other.
        """
        self.make()
        self.assertEqual("greylisting passed", self.passing()[1][0])


POOL = {"TXT": [(b"v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all",)]}
HOSTS = {
    "example.net": {"MX": [(10, "mx.example.net")], "A": ["203.0.113.9"]},
    "mx.example.net": {"A": ["192.0.2.1"]},
}


class PoolTests(SynchronousTestCase):
    """
    Hosts of one site.
    """

    def make(self, records, **parameters):
        self.clock = Clock()
        self.clock.advance(1e9)
        self.resolver = FakeResolver(records)
        self.greylist = make(
            "Greylist", memoryState(self.clock), self.resolver, delay=600, **{"senderPool": True, **parameters}
        )
        self.greylist.start()

    def check(self, **changes):
        data = {"helo_name": "mx.example.net", **MAIL, **changes}
        self.greylist.hashArg(data)
        return self.successResultOf(waiting(self.greylist.state.bridge, self.greylist.check, data))[0]

    def test_pool(self):
        """
        A retry passes from whatever network SPF passes for, and from no other one.
        """
        self.make({"example.net": POOL})
        self.assertEqual(-1, self.check())
        self.clock.advance(600)
        self.assertEqual(-1, self.check(client_address="203.0.113.1"))
        self.assertEqual(1, self.check(client_address="198.51.100.7"))

    def test_mailHosts(self):
        """
        The mail hosts of the domain, and the host that has its name, are one client as well.
        """
        self.make(HOSTS)
        self.assertEqual(-1, self.check())
        self.clock.advance(600)
        self.assertEqual(-1, self.check(client_address="203.0.114.1"))
        self.assertEqual(1, self.check(client_address="203.0.113.9"))

    def test_ipv6(self):
        """
        The same holds over IPv6, however the address is written.
        """
        self.make({"example.net": {"AAAA": ["2001:db8::1", "2001:db8:1::1"]}})
        self.assertEqual(-1, self.check(client_address="2001:db8::1"))
        self.clock.advance(600)
        self.assertEqual(1, self.check(client_address="2001:DB8:1:0::1"))

    def test_trouble(self):
        """
        With trouble in the DNS the client counts by its network, and the DNS is asked again soon.
        """
        trouble = DNSTimeout("no answer")
        for records in ({"example.net": trouble}, {"example.net": {"TXT": trouble, "MX": trouble, "A": trouble}}):
            self.make(records)
            self.assertEqual(-1, self.check())
            self.clock.advance(600)
            self.assertEqual(1, self.check())
            self.assertEqual(-1, self.check(client_address="198.51.100.7"))
            self.resolver.records = {"example.net": POOL}
            self.clock.advance(30)
            self.assertEqual(-1, self.check(recipient="carol@example.org"))
            self.clock.advance(600)
            self.assertEqual(1, self.check(client_address="198.51.100.7", recipient="carol@example.org"))

    def test_mailHostsInTrouble(self):
        """
        What is known decides, though SPF or another mail host is in trouble.
        """
        trouble = DNSTimeout("no answer")
        mx = {"MX": [(1, "mx1.example.net"), (2, "mx.example.net")]}
        self.make(
            {**HOSTS, "example.net": {"TXT": trouble, **mx, "A": ["203.0.113.9"]}, "mx1.example.net": trouble}
        )
        self.assertEqual(-1, self.check())
        self.clock.advance(600)
        self.assertEqual(1, self.check(client_address="203.0.113.9"))

    def test_remembered(self):
        """
        A domain and a network are asked about once in ten minutes.
        """
        self.make({"example.net": POOL})
        self.check()
        asked = len(self.resolver.asked)
        self.check(recipient="carol@example.org", client_address="192.0.2.77")
        self.assertEqual(asked, len(self.resolver.asked))
        self.check(client_address="198.51.100.7")
        self.assertGreater(len(self.resolver.asked), asked)
        asked = len(self.resolver.asked)
        self.clock.advance(600)
        self.check()
        self.assertGreater(len(self.resolver.asked), asked)

    def test_bounded(self):
        """
        So many decisions are remembered, the oldest is forgotten first.
        """
        self.patch(senderpool, "_DECISIONS", 2)
        self.make({})
        for number in range(4):
            self.check(sender=f"alice@{number}.example.net")
        self.assertEqual(["2.example.net", "3.example.net"], [key[0] for key in self.greylist._pools._decided])

    def test_nothingAsked(self):
        """
        Nothing is asked without senderPool, for the empty sender, and for what is no domain or no address.
        """
        self.make({}, senderPool=False)
        self.check()
        self.assertEqual([], self.resolver.asked)
        self.make({})
        for changes in (
            {"sender": ""},
            {"sender": "a@localhost"},
            {"client_address": "unknown"},
            {"sender": "a@\udcff"},
        ):
            self.assertEqual(-1, self.check(**changes))
        self.assertEqual([], self.resolver.asked)


class CommandTests(Listing):
    """
    The commands, on a real SQLite file.
    """

    def greylist(self, **parameters):
        return self.start("Greylist", **{"delay": 300, **parameters})

    @inlineCallbacks
    def test_listAndShow(self):
        """
        Triplets are listed by what they look like, and shown as the check counts them.
        """
        check = yield self.greylist()
        yield self.ask(check, self.data(sender="Alice+x@example.net"))
        yield self.ask(check, self.data(sender=""))
        for keywords, number in (
            ({}, 2),
            ({"sender": ""}, 1),
            ({"sender": "alice+y@EXAMPLE.net"}, 1),
            ({"sender": "*"}, 2),
            ({"sender": "ali_e@example.net"}, 0),
            ({"client": "192.0.2.200"}, 2),
            ({"client": "192.0.2.0/24"}, 2),
            ({"client": "198.51.100.1"}, 0),
            ({"recipient": "BOB@*"}, 2),
            ({"limit": 1}, 1),
            ({"limit": "1"}, 1),
        ):
            found = yield self.wait(check.list, **keywords)
            self.assertEqual(number, len(found["triplets"]), keywords)
        found = yield self.wait(check.show, "alice@example.net", "bob@example.org", "192.0.2.9")
        (row,) = found["triplets"]
        self.assertEqual("waits 300 s", row.pop("state"))
        self.assertEqual(row["first"], row["last"])
        self.assertTrue(43190 < row["expires"] - row["first"] < 43210)
        for name in ("first", "last", "expires"):
            row.pop(name)
        self.assertEqual(
            {"sender": "alice@example.net", "recipient": "bob@example.org", "client": "192.0.2.0/24", "mails": 1},
            row,
        )

    @inlineCallbacks
    def test_states(self):
        """
        A triplet waits, may pass, has passed.
        """
        check = yield self.greylist(delay=1)
        yield self.ask(check, self.data())
        states = []
        for _ in range(3):
            found = yield self.wait(check.list)
            states.append(found["triplets"][0]["state"])
            if len(states) == 1:
                yield deferLater(reactor, 1.1)
            else:
                yield self.ask(check, self.data())
        self.assertEqual(["waits 1 s", "may pass", "passed"], states)

    @inlineCallbacks
    def test_allow(self):
        """
        Allowed triplets pass at once and live as long as if they had passed; an empty command is refused.
        """
        check = yield self.greylist(header=True)
        for sender in ("a@x", "b@x", "c@y"):
            yield self.ask(check, self.data(sender=sender))
        self.assertEqual({"allowed": 2}, (yield self.wait(check.allow, sender="*@x")))
        for sender, code in (("a@x", 1), ("b@x", 1), ("c@y", -1)):
            found = yield self.ask(check, self.data(sender=sender))
            self.assertEqual(code, found[0])
            self.assertNotIn("X-Greylist", found[1][0])  # there was no delay
        found = yield self.wait(check.list, sender="a@x")
        self.assertTrue(2678000 < found["triplets"][0]["expires"] - found["triplets"][0]["last"] < 2679000)
        error = yield self.assertFailure(self.wait(check.allow), BackendError)
        self.assertEqual("say which: --sender, --recipient or --client", str(error))

    @inlineCallbacks
    def test_allowUnknown(self):
        """
        One that is named in full need not be there; one that is not is counted as none.
        """
        check = yield self.greylist(header=True)
        named = {"sender": "New+x@example.net", "recipient": "bob@example.org", "client": "192.0.2.5"}
        self.assertEqual({"allowed": 1}, (yield self.wait(check.allow, **named)))
        found = yield self.ask(check, self.data(sender="new@example.net"))
        self.assertEqual((1, "greylisting passed"), (found[0], found[1][0]))
        self.assertEqual(
            {"allowed": 0}, (yield self.wait(check.allow, sender="x@*", recipient="b@c", client="192.0.2.5"))
        )
        self.assertEqual({"allowed": 0}, (yield self.wait(check.allow, sender="x@y")))

    @inlineCallbacks
    def test_remove(self):
        """
        Removed triplets have to wait again; only * removes all.
        """
        check = yield self.greylist()
        for sender in ("a@x", "b@x", "c@y"):
            yield self.ask(check, self.data(sender=sender))
        yield self.wait(check.allow, sender="*")
        self.assertEqual({"removed": 2}, (yield self.wait(check.remove, sender="*@x")))
        self.assertEqual(-1, (yield self.ask(check, self.data(sender="a@x")))[0])
        self.assertEqual(1, (yield self.ask(check, self.data(sender="c@y")))[0])
        yield self.assertFailure(self.wait(check.remove), BackendError)
        self.assertEqual({"removed": 2}, (yield self.wait(check.remove, sender="*")))
        self.assertEqual([], self.sql("SELECT * FROM greylist"))

    @inlineCallbacks
    def test_stats(self):
        """
        Triplets are counted by what has become of them, clients and domains too where they are trusted.
        """
        check = yield self.greylist(delay=0.5, whitelistAfter=1)
        yield self.ask(check, self.data())
        yield self.ask(check, self.data(sender="never@example.net"))
        yield deferLater(reactor, 0.6)
        yield self.ask(check, self.data())
        yield self.ask(check, self.data(sender="x@y", client_address="198.51.100.1"))
        found = yield self.wait(check.stats)
        wanted = {
            "triplets": 3,
            "waiting": 1,
            "passed": 1,
            "neverRetried": 1,
            "expired": 0,
            "clientsKnown": 1,
            "clientsTrusted": 1,
            "domainsKnown": 1,
            "domainsTrusted": 1,
        }
        self.assertEqual(wanted, found)

    @inlineCallbacks
    def test_privacy(self):
        """
        With privacyKey nothing of addresses is in the file, and the commands find what is asked for all the same.
        """
        check = yield self.greylist(privacyKey="a secret", whitelistAfter=1, delay=0.2)
        yield self.ask(check, self.data())
        yield deferLater(reactor, 0.3)
        self.assertEqual(1, (yield self.ask(check, self.data()))[0])
        named = {"sender": "Alice@example.net", "recipient": "bob@example.org", "client": "192.0.2.9"}
        for keywords in ({"sender": "Alice+z@example.net"}, {"client": "192.0.2.200"}, named):
            found = yield self.wait(check.list, **keywords)
            self.assertEqual(1, len(found["triplets"]), keywords)
        self.assertEqual([], (yield self.wait(check.list, sender="x@y"))["triplets"])
        self.assertEqual({"allowed": 1}, (yield self.wait(check.allow, **named)))
        octets = b"".join(path.read_bytes() for path in self.folder.iterdir())
        self.assertIn(b"greylist_domains", octets)
        for text in (b"alice", b"example", b"bob", b"192.0.2"):
            self.assertNotIn(text, octets)
        self.assertEqual({"removed": 1}, (yield self.wait(check.remove, sender="alice@example.net")))

    @inlineCallbacks
    def test_privacyOfKeys(self):
        """
        Without the key a guess at a triplet cannot be confirmed: its row has another key under another privacyKey.
        """
        keys = set()
        for number, secret in enumerate(("one", "two")):
            check = yield self.greylist(privacyKey=secret, table=f"grey{number}")
            yield self.ask(check, self.data())
            yield self.wait(check.list)
            ((key,),) = self.sql(f"SELECT key FROM grey{number}")
            keys.add(key)
        self.assertEqual(2, len(keys))

    @inlineCallbacks
    def test_longSenders(self):
        """
        A triplet whose sender is longer than the column is found by it as well.
        """
        check = yield self.greylist()
        sender = f"{'x' * 600}@example.net"
        yield self.ask(check, self.data(sender=sender))
        found = yield self.wait(check.show, sender, "bob@example.org", "192.0.2.1")
        self.assertEqual(1, len(found["triplets"]))


class DamagedTests(Listing):
    """
    A database that does not answer.
    """

    damaged = True

    @inlineCallbacks
    def test_unknown(self):
        """
        The answer is unknown and says why, whatever is asked first.
        """
        for after in (0, 3):
            check = yield self.start("Greylist", whitelistAfter=after, table=f"g{after}")
            code, (text, seconds) = yield self.ask(check, self.data())
            self.assertEqual((0, 0), (code, seconds))
            self.assertIn("greylisting is not possible: ", text)


def test_livesOnBehindTheCache(tmp_path):
    """
    Who writes more often than `expiration` is never greylisted again, though most answers come from the cache.
    """
    serving = Serving(
        tmp_path,
        "modules = {'g': ('Greylist', {'delay': 60, 'mustRetry': 600, 'expiration': 7200})}\n"
        "def check(factory, data, port):\n    return 'WARN', factory.check('g', data)[0]\n",
    )
    codes = []
    for seconds in (0, 60, *[1200] * 12):
        serving.clock.advance(seconds)
        codes.append(serving.ask(**MAIL))
    assert codes == ["action=WARN -1\n\n"] + ["action=WARN 1\n\n"] * 13
    serving.generation.stop()


def test_deferralIsNeverCached(tmp_path):
    """
    Whatever cacheNegative says, as configurations of 2.7 may, a retry is not answered with what was said before.
    """
    serving = Serving(
        tmp_path,
        "modules = {'grey': ('Greylist', {'delay': 30, 'cacheNegative': 60})}\n"
        "def check(factory, data, port):\n    return 'WARN', str(factory.check('grey', data)[0])\n",
    )
    assert serving.ask(asked(**POSTFIX)) == "action=WARN -1\n\n"
    serving.clock.advance(31)
    assert serving.ask(asked(**POSTFIX)) == "action=WARN 1\n\n"
