"""
Tests for the SPF check module.
"""

import copy

from twisted.trial.unittest import SynchronousTestCase

from ppolicy import mailheader
from ppolicy.errors import ConfigError, DNSTimeout
from ppolicy.reply import ReplyEncoder
from ppolicy.testing import FakeResolver, make, waiting

PASS, FAIL, SOFTFAIL, NEUTRAL = "v=spf1 ip4:192.0.2.1 -all", "v=spf1 -all", "v=spf1 ~all", "v=spf1 ?all"
PERMERROR, TEMPERROR, NONE = "v=spf1 nonsense", DNSTimeout("10.9.8.7:53: no answer"), None
MAIL = {
    "instance": "1a2b.5.0",
    "protocol_state": "RCPT",
    "client_address": "192.0.2.1",
    "client_name": "client.example",
    "helo_name": "helo.example",
    "sender": "alice@x.org",
    "recipient": "bob@y.org",
}
RESULTS = {
    "pass": (PASS, 1),
    "fail": (FAIL, -2),
    "softfail": (SOFTFAIL, -1),
    "neutral": (NEUTRAL, 0),
    "none": (NONE, 0),
    "permerror": (PERMERROR, -2),
    "temperror": (TEMPERROR, 0),
}
FACTS = 'client-ip=192.0.2.1; helo=helo.example; envelope-from="alice@x.org"; receiver=y.org'


def record(text):
    """
    What the DNS says of a name with this SPF record.
    """
    return text if text is None or isinstance(text, Exception) else {"TXT": [(text.encode(),)]}


class SPFCase(SynchronousTestCase):
    """
    One check, with names of its own.
    """

    def setUp(self):
        mailheader._headed.clear()

    def start(self, mailFrom=NONE, helo=NONE, names=(), **parameters):
        self.resolver = FakeResolver({"x.org": record(mailFrom), "helo.example": record(helo), **dict(names)})
        self.check = make("SPF", dns=self.resolver, **parameters)
        self.check.start()
        return self

    def ask(self, **changes):
        """
        @return: (code, information), (code, information, seconds).
        """
        asked = waiting(self.check.state.bridge, self.check.check, {**MAIL, **changes})
        return self.successResultOf(asked)

    def answer(self, **changes):
        """
        @return: (action, text) of the answer.
        """
        return self.ask(**changes)[1].answer({**MAIL, **changes})


class ResultTests(SPFCase):
    """
    What the check returns.
    """

    def test_codes(self):
        """
        Each result has the code of 2.7, apart from temperror, which is unknown.
        """
        for result, (text, code) in RESULTS.items():
            found = self.start(text).ask()
            self.assertEqual((code, result), (found[0], found[1][0]), result)

    def test_information(self):
        """
        The information is the tuple of 2.7, and has more to tell.
        """
        information = self.start(FAIL).ask()[1]
        self.assertEqual(("fail", 550, "SPF fail - not authorized"), information)
        self.assertEqual("('fail', 550, 'SPF fail - not authorized')", str(information))
        self.assertEqual(("mailfrom", "x.org", "-all", ""), information.mailFrom[3:7])
        self.assertEqual(
            ("mailfrom", "x.org", "-all"), (information.identity, information.domain, information.mechanism)
        )
        self.assertIsNone(information.helo)

    def test_cacheable(self):
        """
        The information is plain values: a copy, as a cache elsewhere would keep it, can tell all of it.
        """
        information = self.start(FAIL).ask()[1]
        kept = copy.deepcopy(information)
        self.assertEqual(information, kept)
        self.assertEqual(information.answer(MAIL), kept.answer(MAIL))

    def test_sender(self):
        """
        Only the sender is looked at, and HELO where there is none.
        """
        self.start(PASS, FAIL)
        self.assertEqual(1, self.ask()[0])
        self.assertEqual([("x.org", "TXT")], self.resolver.asked)
        self.assertEqual((-2, "helo"), (self.ask(sender="")[0], self.ask(sender="")[1].identity))

    def test_clientName(self):
        """
        Where the client has not said HELO its name counts, as in 2.7.
        """
        self.start(names={"client.example": record(FAIL)})
        self.assertEqual(-2, self.ask(sender="", helo_name="")[0])

    def test_hashArg(self):
        """
        A result is kept for the client, its HELO and the sender, and for nothing else.
        """
        self.start()
        same = self.check.hashArg(MAIL)
        self.assertEqual(
            same, self.check.hashArg({**MAIL, "recipient": "x", "sender": "Alice@X.org", "client_name": "y"})
        )
        for name in ("client_address", "helo_name", "sender"):
            self.assertNotEqual(same, self.check.hashArg({**MAIL, name: "other"}), name)
        self.assertNotEqual(self.check.hashArg({"client_name": "a"}), self.check.hashArg({"client_name": "b"}))

    def test_kept(self):
        """
        Trouble is kept for seconds, a refusal not longer than the DNS says, a pass as long as in 2.7.
        """
        self.assertEqual(30, self.start(TEMPERROR).ask()[2])
        self.assertEqual(300, self.start(FAIL).ask()[2])
        self.assertEqual(2, len(self.start(PASS).ask()))
        self.assertEqual(
            (86400, 21600, 86400),
            (self.check.cachePositive, self.check.cacheUnknown, self.check.cacheNegative),
        )

    def test_keptInDoubt(self):
        """
        Trouble with HELO is kept for seconds, too, whatever the sender is: HELO may be refused when it is known.
        """
        for mailFrom in (PASS, FAIL, NONE):
            self.assertEqual(30, self.start(mailFrom, TEMPERROR, checkHelo=True).ask()[-1], mailFrom)

    def test_rubbish(self):
        """
        A request without attributes, or with rubbish in them, has no result.
        """
        self.start(FAIL)
        for data in (
            {},
            {"client_address": "\udcff", "sender": "\udcff@\udcff", "helo_name": "\udcff", "recipient": "\n"},
        ):
            asked = self.successResultOf(waiting(self.check.state.bridge, self.check.check, data))
            self.assertEqual(0, asked[0])
            ReplyEncoder().encode(asked[1].answer(data), data)

    def test_parallel(self):
        """
        HELO and the sender are asked for at once.
        """
        self.start(PASS, PASS, checkHelo=True).ask()
        self.assertEqual({("x.org", "TXT"), ("helo.example", "TXT")}, set(self.resolver.asked[:2]))


class AnswerTests(SPFCase):
    """
    What policyd-spf would answer.
    """

    def test_repliesSeen(self):
        """
        The replies are those of policyd-spf 3.1.0, but for quotes (RFC 7208, 9.1) and a blank at the end.
        """
        url = {"reasonUrl": "https://why.example/?s={0};id={1};ip={2};r={3}"}
        see = "Please see https://why.example/?s=mfrom;id=alice@x.org;ip=192.0.2.1;r=bob@y.org"
        kept = (
            "identity=mailfrom; client-ip=192.0.2.1; helo=helo.example; envelope-from=alice@x.org; receiver=y.org"
        )
        helo = "identity=helo; client-ip=192.0.2.1; helo=helo.example; envelope-from=<>; receiver=y.org"
        more = "client-ip=192.0.2.1; helo=helo.example; envelope-from=alice@x.org; receiver=y.org"
        results = "prepend Authentication-Results: mx.y.org"
        detail = "SPF Permanent Error: Unknown mechanism found: nonsense"
        for parameters, sender, expected in (
            ({"mailFrom": PASS}, "alice@x.org", f"prepend Received-SPF: Pass (mailfrom) {kept}"),
            ({"helo": PASS}, "", f"prepend Received-SPF: Pass (sender SPF authorized) {helo}"),
            (
                {"helo": PASS, "checkHelo": True},
                "alice@x.org",
                "prepend Received-SPF: Pass (sender SPF authorized) " + helo.replace("<>", "alice@x.org"),
            ),
            (
                {"mailFrom": FAIL, **url},
                "alice@x.org",
                f"550 5.7.23 Message rejected due to: SPF fail - not authorized. {see}",
            ),
            (
                {"mailFrom": SOFTFAIL, "refuseMailFrom": "Softfail", **url},
                "alice@x.org",
                f"550 5.7.23 Message rejected due to: domain owner discourages use of this host. {see}",
            ),
            (
                {"mailFrom": NEUTRAL, "refuseMailFrom": "SPF_Not_Pass", **url},
                "alice@x.org",
                f"550 5.7.23 Message rejected due to: access neither permitted nor denied. {see}",
            ),
            (
                {"mailFrom": SOFTFAIL, "rejectNotPassDomains": ["org"], **url},
                "alice@x.org",
                f"550 5.7.23 Message rejected due to: Receiver policy for SPF Softfail. {see}",
            ),
            ({"mailFrom": SOFTFAIL}, "alice@x.org", f"prepend Received-SPF: Softfail (mailfrom) {kept}"),
            ({"mailFrom": NEUTRAL}, "alice@x.org", f"prepend Received-SPF: Neutral (mailfrom) {kept}"),
            ({"mailFrom": NONE}, "alice@x.org", f"prepend Received-SPF: None (mailfrom) {kept}"),
            ({"mailFrom": PERMERROR}, "alice@x.org", f"prepend Received-SPF: Permerror (mailfrom) {kept}"),
            ({"mailFrom": TEMPERROR}, "alice@x.org", f"prepend Received-SPF: Temperror (mailfrom) {kept}"),
            (
                {"mailFrom": PERMERROR, "permErrorReject": True, **url},
                "alice@x.org",
                f"550 5.7.24 Message rejected due to: {detail}. {see}",
            ),
            (
                {"mailFrom": TEMPERROR, "tempErrorDefer": True, **url},
                "alice@x.org",
                "defer_if_permit 4.7.24 Message deferred due to: SPF Temporary Error: DNS: x.org TXT is not known "
                f"now. {see}",
            ),
            (
                {"mailFrom": FAIL, "statusCodes": False, **url},
                "alice@x.org",
                f"550 Message rejected due to: SPF fail - not authorized. {see}",
            ),
            (
                {"mailFrom": TEMPERROR, "tempErrorDefer": True, "statusCodes": False},
                "alice@x.org",
                "defer_if_permit Message deferred due to: SPF Temporary Error: DNS: x.org TXT is not known now",
            ),
            (
                {"mailFrom": FAIL, "skipAddresses": ["192.0.2.0/24"]},
                "alice@x.org",
                f"prepend X-Comment: SPF check N/A for local connections - {more}",
            ),
            (
                {"mailFrom": FAIL, "whitelist": ["192.0.2.1"]},
                "alice@x.org",
                f"prepend X-Comment: SPF skipped for whitelisted relay - {more}",
            ),
            (
                {
                    "mailFrom": FAIL,
                    "whitelistDomains": ["friend.example"],
                    "names": {"friend.example": record(PASS)},
                },
                "alice@x.org",
                f"prepend X-Comment: SPF skipped for whitelisted relay domain - {more}",
            ),
            (
                {"mailFrom": PASS, "headerType": "AR", "authservId": "mx.y.org"},
                "alice@x.org",
                f"{results}; spf=pass (sender SPF authorized) smtp.mailfrom=x.org ({more})",
            ),
            (
                {"helo": PASS, "headerType": "AR", "authservId": "mx.y.org"},
                "",
                f"{results}; spf=pass (sender SPF authorized) smtp.helo=helo.example "
                f"({more.replace('alice@x.org', '<>')})",
            ),
            (
                {"skipAddresses": ["192.0.2.1"], "headerType": "AR", "authservId": "mx.y.org"},
                "alice@x.org",
                f"{results}; none (SPF check N/A for local connections - {more})",
            ),
            ({"mailFrom": PASS, "headerType": None}, "alice@x.org", "dunno "),
        ):
            mailheader._headed.clear()
            with self.subTest(**parameters):
                verb, text = self.start(**parameters).answer(sender=sender)
                self.assertEqual(expected, f"{verb} {text}".replace('"', ""))
                data = {**MAIL, "sender": sender}
                self.assertNotIn(b"451", ReplyEncoder().encode((verb, text), data))

    def test_rules(self):
        """
        Each rule refuses what it names, by HELO and by the sender, and no rule refuses for trouble of the DNS.
        """
        refused = {
            "SPF_Not_Pass": {"fail", "softfail", "neutral"},
            "Softfail": {"fail", "softfail"},
            "Fail": {"fail"},
            "False": set(),
            "No_Check": set(),
        }
        for rule, results in refused.items():
            for result, (text, _) in RESULTS.items():
                with self.subTest(rule=rule, result=result):
                    verb = self.start(text, refuseMailFrom=rule).answer()[0]
                    self.assertEqual(result in results, verb == "550")
                    verb = self.start(PASS, text, checkHelo=True, refuseHelo=rule).answer()[0]
                    self.assertEqual(result in results, verb == "550")

    def test_null(self):
        """
        The rule Null refuses by HELO only where there is no sender.
        """
        self.start(PASS, FAIL, checkHelo=True, refuseHelo="Null")
        self.assertEqual("prepend", self.answer()[0])
        self.assertEqual("550", self.answer(sender="")[0])

    def test_heloWins(self):
        """
        What is refused by HELO is refused, though the sender would pass; the code tells.
        """
        code, information, *_ = self.start(PASS, FAIL, checkHelo=True).ask()
        self.assertEqual((-2, "helo", "rejected"), (code, information.identity, information.refusal))
        self.assertIn(
            "s=helo;id=helo.example;",
            self.start(PASS, FAIL, checkHelo=True, reasonUrl="s={0};id={1};").answer()[1],
        )

    def test_mailFromOverrides(self):
        """
        The header is about the sender, and about HELO only where the sender's domain says nothing.
        """
        for mailFrom, identity, code in (
            (SOFTFAIL, "mailfrom", -1),
            (NONE, "helo", 0),
            (TEMPERROR, "mailfrom", 0),
        ):
            information = self.start(mailFrom, PASS, checkHelo=True).ask()[1]
            self.assertIn(f"identity={identity};", information.header(MAIL))
            self.assertEqual(code, self.ask()[0])

    def test_notChecked(self):
        """
        With No_Check nothing is asked and nothing said.
        """
        self.start(FAIL, FAIL, refuseHelo="No_Check", refuseMailFrom="No_Check", checkHelo=True)
        for sender in ("alice@x.org", ""):
            self.assertEqual(0, self.ask(sender=sender)[0])
            self.assertEqual(("dunno", ""), self.answer(sender=sender))
        self.assertEqual([], self.resolver.asked)

    def test_errors(self):
        """
        A permerror is refused and a temperror deferred only when asked for, and only where a rule may refuse.
        """
        for text, parameter, verb in (
            (PERMERROR, "permErrorReject", "550"),
            (TEMPERROR, "tempErrorDefer", "defer_if_permit"),
        ):
            self.assertEqual("prepend", self.start(text).answer()[0])
            self.assertEqual(verb, self.start(text, **{parameter: True}).answer()[0])
            self.assertEqual(verb, self.start(PASS, text, checkHelo=True, **{parameter: True}).answer()[0])
            self.assertEqual(
                "prepend", self.start(text, refuseMailFrom="False", **{parameter: True}).answer(instance="")[0]
            )
            self.assertEqual(
                "prepend", self.start(text, enforce=False, **{parameter: True}).answer(instance="")[0]
            )

    def test_noMail(self):
        """
        With noMail only domains are refused that say they send no mail at all.
        """
        for text, verb in (("v=spf1 -all", "550"), ("V=SPF1  -ALL", "550"), ("v=spf1 a -all", "prepend")):
            self.assertEqual(verb, self.start(text, noMail=True).answer(instance="")[0], text)

    def test_rejectNotPass(self):
        """
        For these domains and all below them all but pass and none is refused, trouble of the DNS excepted.
        """
        for domains, verb in ((["x.org"], "550"), ([".ORG"], "550"), (["ex.org", "rg"], "prepend")):
            self.assertEqual(
                verb, self.start(NEUTRAL, rejectNotPassDomains=domains).answer(instance="")[0], domains
            )
        for text in (PASS, NONE, TEMPERROR):
            self.assertEqual("prepend", self.start(text, rejectNotPassDomains=["x.org"]).answer(instance="")[0])
        self.assertEqual(
            "550", self.start(SOFTFAIL, rejectNotPassDomains=["x.org"], refuseMailFrom="False").answer()[0]
        )

    def test_enforce(self):
        """
        With enforce=False nothing is refused, and the header says what was found.
        """
        verb, text = self.start(FAIL, enforce=False).answer()
        self.assertEqual("prepend", verb)
        self.assertTrue(text.startswith("Received-SPF: Fail (mailfrom)"))

    def test_restriction(self):
        """
        For a pass Postfix goes on with the restriction class that is named.
        """
        classes = {"heloPassRestriction": "helo_ok", "mailFromPassRestriction": "sender_ok"}
        self.assertEqual(("sender_ok", ""), self.start(PASS, PASS, checkHelo=True, **classes).answer())
        self.assertEqual(("helo_ok", ""), self.start(NEUTRAL, PASS, checkHelo=True, **classes).answer())
        self.assertEqual("prepend", self.start(NEUTRAL, NEUTRAL, checkHelo=True, **classes).answer()[0])
        self.assertEqual("550", self.start(FAIL, PASS, checkHelo=True, **classes).answer()[0])

    def test_prospective(self):
        """
        With a prospective address this is looked at; there is a refusal or nothing, and no header.
        """
        self.assertEqual(
            ("dunno", ""), self.start(PASS, prospective="192.0.2.1").answer(client_address="10.0.0.1")
        )
        self.assertEqual("550", self.start(PASS, prospective="192.0.2.2").answer()[0])
        self.assertEqual(("dunno", ""), self.start(FAIL, prospective="127.0.0.1").answer())

    def test_hideReceiver(self):
        """
        With hideReceiver no header has the recipient's domain, and neither where there is no recipient.
        """
        self.assertTrue(self.start(PASS, hideReceiver=True).answer()[1].endswith('receiver="<UNKNOWN>"'))
        self.assertTrue(self.start(PASS).answer(recipient="", instance="")[1].endswith('receiver="<UNKNOWN>"'))

    def test_reason(self):
        """
        The text of a refusal is the site's, what strangers have sent is no format, and is quoted in a URL.
        """
        self.start(
            FAIL,
            reasonText="{rejectdefer}: {spf}, see {url}",
            reasonUrl="u?{1}",
            names={"ex{0}.org": record(FAIL)},
        )
        self.assertEqual(
            ("550", "5.7.23 rejected: SPF fail - not authorized, see u?a%7B9%7D%20b@x.org"),
            self.answer(sender="a{9} b@x.org"),
        )

    def test_explanation(self):
        """
        What a domain's owner says about a fail goes to the client.
        """
        self.start("v=spf1 -all exp=why.x.org", names={"why.x.org": {"TXT": [(b"{0} no %{i}",)]}})
        self.assertEqual("5.7.23 Message rejected due to: {0} no 192.0.2.1", self.answer()[1])

    def test_hostileHeader(self):
        """
        Whatever a stranger calls himself, a header stays one header, its values quoted and its comments closed.
        """
        changes = {"helo_name": 'a") evil; x="\\', "sender": 'q"; x=y\r\nX: y@x.org', "instance": ""}
        for kind in ("SPF", "AR"):
            verb, text = self.start(PASS, headerType=kind, authservId="mx").answer(**changes)
            reply = ReplyEncoder().encode((verb, text), {**MAIL, **changes}).decode()
            self.assertEqual(2, reply.count("\n"))
            outside = ""
            depth, quoted, escaped = 0, False, False
            for one in text:
                if escaped:
                    escaped = False
                elif one == "\\":
                    escaped = True
                elif one == '"' and not depth:
                    quoted = not quoted
                elif one in "()" and not quoted:
                    depth += 1 if one == "(" else -1
                elif not quoted and not depth:
                    outside += one
            self.assertEqual((0, False, False), (depth, quoted, escaped))
            self.assertNotIn("evil", outside)


class MessageTests(SPFCase):
    """
    What is remembered of a message.
    """

    def test_oneHeader(self):
        """
        The first recipient of a message gets the header, others none; the first one again gets it again.
        """
        self.start(PASS)
        self.assertEqual("prepend", self.answer()[0])
        self.assertEqual(("dunno", ""), self.answer(recipient="carol@y.org"))
        self.assertEqual("prepend", self.answer()[0])
        self.assertEqual("prepend", self.answer(instance="other", recipient="carol@y.org")[0])

    def test_noInstance(self):
        """
        Without an instance each request is a message.
        """
        self.start(PASS)
        for recipient in ("bob@y.org", "carol@y.org"):
            self.assertEqual("prepend", self.answer(instance="", recipient=recipient)[0])

    def test_refusals(self):
        """
        A refusal is repeated for each recipient, also after a header that another check has given.
        """
        self.start(PASS).answer()
        self.start(FAIL)
        for recipient in ("bob@y.org", "carol@y.org"):
            self.assertEqual("550", self.answer(recipient=recipient)[0])

    def test_twoChecks(self):
        """
        Two checks for different recipients give one header; a header of another type is another one.
        """
        self.start(PASS).answer()
        self.assertEqual("dunno", self.start(PASS).answer(recipient="carol@y.org")[0])
        self.assertEqual("prepend", self.start(PASS, headerType="AR").answer(recipient="carol@y.org")[0])

    def test_bounded(self):
        """
        Of messages so many are remembered, the oldest is forgotten first.
        """
        self.patch(mailheader, "_MAILS", 3)
        self.start(PASS)
        for number in range(5):
            self.answer(instance=str(number))
        self.assertEqual([("2", "SPF"), ("3", "SPF"), ("4", "SPF")], list(mailheader._headed))


class WhitelistTests(SPFCase):
    """
    Who is not looked at.
    """

    def test_loopback(self):
        """
        Loopback addresses are not looked at, unless skipAddresses says otherwise.
        """
        for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
            code, information = self.start(FAIL).ask(client_address=address)
            self.assertEqual((0, "SPF check N/A for local connections"), (code, information.skipped))
        self.assertEqual(-2, self.start(FAIL, skipAddresses=[]).ask(client_address="127.0.0.1")[0])

    def test_networks(self):
        """
        Networks of IPv4 and IPv6 are let through, and nobody beside them.
        """
        networks = ["192.0.2.0/28", "2001:db8::/32", "::ffff:203.0.113.0/120"]
        for address, code in (
            ("192.0.2.15", 0),
            ("192.0.2.16", -2),
            ("2001:db8::1", 0),
            ("2001:db9::1", -2),
            ("203.0.113.7", 0),
            ("::ffff:192.0.2.15", 0),
        ):
            self.assertEqual(code, self.start(FAIL, whitelist=networks).ask(client_address=address)[0], address)

    def test_helo(self):
        """
        A HELO name of the list is let through when it has the client's address.
        """
        names = {"helo.example": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}}
        for address, listed, code in (
            ("192.0.2.1", "HELO.example", 0),
            ("2001:db8::1", "helo.example", 0),
            ("192.0.2.2", "helo.example", -2),
            ("192.0.2.1", "example", -2),
        ):
            self.start(FAIL, names=names, whitelistHelo=[listed])
            self.assertEqual(code, self.ask(client_address=address)[0], (address, listed))
        self.start(FAIL, names=names, whitelistHelo=["helo.example"])
        self.assertEqual(0, self.ask(helo_name="helo.example.")[0])

    def test_domains(self):
        """
        A client that passes SPF of a domain in the list is let through.
        """
        names = {"a.example": record(FAIL), "b.example": record(PASS)}
        for domains, code in ((["a.example"], -2), (["a.example", "b.example"], 0), (["c.example"], -2)):
            self.assertEqual(code, self.start(FAIL, names=names, whitelistDomains=domains).ask()[0], domains)

    def test_reverseName(self):
        """
        A host is let through by its reverse name only when the name leads back to its address.
        """
        reverse = {"1.2.0.192.in-addr.arpa": {"PTR": ["mx.friend.example"]}}
        for names, domain, code in (
            ({"mx.friend.example": {"A": ["192.0.2.1"]}}, "friend.example", 0),
            ({"mx.friend.example": {"A": ["192.0.2.1"]}}, "mx.friend.example", 0),
            ({"mx.friend.example": {"A": ["192.0.2.1"]}}, "end.example", -2),
            ({"mx.friend.example": {"A": ["198.51.100.1"]}}, "friend.example", -2),
            ({}, "friend.example", -2),
        ):
            self.start(FAIL, names={**reverse, **names}, whitelistPTR=[domain])
            self.assertEqual(code, self.ask()[0], (names, domain))

    def test_trouble(self):
        """
        When a white list could not be asked, nobody is let through by it and nobody refused.
        """
        trouble = DNSTimeout("no answer")
        reverse = {"1.2.0.192.in-addr.arpa": {"PTR": ["mx.friend.example"]}}
        for parameters, names in (
            ({"whitelistDomains": ["friend.example"]}, {"friend.example": trouble}),
            ({"whitelistHelo": ["helo.example"]}, {"helo.example": {"A": trouble}}),
            ({"whitelistPTR": ["friend.example"]}, {"1.2.0.192.in-addr.arpa": trouble}),
            ({"whitelistPTR": ["friend.example"]}, {**reverse, "mx.friend.example": trouble}),
        ):
            with self.subTest(**parameters):
                code, information, seconds = self.start(FAIL, names=names, **parameters).ask()
                self.assertEqual((0, "temperror", 30), (code, information[0], seconds))
                self.assertEqual("prepend", information.answer(MAIL)[0])
                self.assertIn("no answer", information.problem)
                deferring = self.start(FAIL, names=names, tempErrorDefer=True, **parameters)
                self.assertEqual("defer_if_permit", deferring.answer()[0])
                self.assertEqual(1, self.start(PASS, names=names, **parameters).ask()[0])

    def test_neutralInDoubt(self):
        """
        With a white list unknown nobody is refused for a neutral result either.
        """
        names = {"friend.example": DNSTimeout("no answer")}
        for domains, verb in ((["friend.example"], "prepend"), ([], "550")):
            self.start(NEUTRAL, names=names, whitelistDomains=domains, refuseMailFrom="SPF_Not_Pass")
            self.assertEqual(verb, self.answer()[0])

    def test_notRefused(self):
        """
        With a white list unknown even a fail that is not enforced is no bad result.
        """
        names = {"friend.example": DNSTimeout("no answer")}
        self.start(FAIL, names=names, whitelistDomains=["friend.example"], enforce=False, tempErrorDefer=True)
        self.assertEqual(0, self.ask()[0])
        self.assertEqual("prepend", self.answer()[0])


class ParameterTests(SPFCase):
    """
    Parameters that cannot be meant.
    """

    def test_refused(self):
        """
        A wrong network, address, rule or text refuses the start.
        """
        for parameters in (
            {"whitelist": ["192.0.2.300"]},
            {"skipAddresses": ["localhost"]},
            {"prospective": "mx.example"},
            {"refuseMailFrom": "Null"},
            {"refuseHelo": "fail"},
            {"reasonText": "{reason}"},
            {"reasonText": "{"},
            {"reasonUrl": "{4}"},
            {"reasonUrl": "{0.x}"},
            {"headerType": "DKIM"},
        ):
            with self.subTest(**parameters):
                self.assertRaises(ConfigError, self.start, **parameters)
