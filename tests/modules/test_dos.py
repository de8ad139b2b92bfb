"""
Tests for the DOS check module.
"""

import math
import re
from decimal import Decimal

import pytest
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock, deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ppolicy import counts
from ppolicy.errors import BackendError, ConfigError
from ppolicy.testing import make, memoryState
from tests.listing import HOSTILE, Listing
from tests.serving import POSTFIX, Serving, asked

MAIL = {"protocol_state": "RCPT", "sender": "alice@example.net", "recipient": "bob@example.org"}


class Broken:
    """
    A table whose database is away.
    """

    def change(self, *args):
        raise BackendError("database is locked")


class Base(SynchronousTestCase):
    """
    Checks on a clock.
    """

    memory = False

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.state = memoryState(self.clock)
        self.mails = 0

    def start(self, **parameters):
        dos = make("DOS", self.state, **{"params": "sender", "memory": self.memory, **parameters})
        dos.start()  # while the one before is there, as with a reload
        self.dos = dos
        return dos

    def check(self, *arguments, **changes):
        self.mails += 1
        return self.dos.check({"instance": f"i{self.mails}", **MAIL, **changes}, *arguments)

    def codes(self, count, **changes):
        return [self.check(**changes)[0] for _ in range(count)]


class WindowTests(Base):
    """
    Sliding windows.
    """

    def test_defaults(self):
        """
        As in 2.7: a thousand requests in an hour pass, the next one is over.
        """
        self.start()
        self.assertEqual({-1}, set(self.codes(1000)))
        self.assertEqual((1, [("alice@example.net", 1001)]), self.check())

    def test_limitCount(self):
        """
        limitCount requests in limitTime seconds pass; the information tells key and sum.
        """
        self.start(limitCount=2, limitTime=60)
        self.assertEqual((-1, [("alice@example.net", 1)]), self.check())
        self.assertEqual((-1, [("alice@example.net", 2)]), self.check())
        self.assertEqual((1, [("alice@example.net", 3)]), self.check())
        self.clock.advance(59.9)
        self.assertEqual([1], self.codes(1))
        self.clock.advance(0.1)
        self.assertEqual([-1, -1, 1], self.codes(3))

    def test_severalLimits(self):
        """
        What is over one limit is over, tells which, and counts in none.
        """
        self.start(limits=[(2, 60), (3, 3600)], limitGran=100)
        self.assertEqual([-1, -1, 1, 1], self.codes(4))
        self.clock.advance(60)
        self.assertEqual([-1, 1], self.codes(2))
        code, info = self.check()
        self.assertEqual((3, 3600, 0), (info.limit, info.seconds, info.remaining))
        self.assertEqual(3540, info.retryAfter)
        self.clock.advance(3540)
        self.assertEqual([-1, -1, 1], self.codes(3))

    def test_remaining(self):
        """
        What is left of the tightest limit, and when the same would pass again.
        """
        self.start(limits=[(5, 60), (4, 3600)])
        self.assertEqual(3, self.check()[1].remaining)
        self.clock.advance(360)
        self.assertEqual([-1] * 3, self.codes(3))
        self.assertEqual(3240, self.check()[1].retryAfter)

    def test_parts(self):
        """
        What happens within a part of the period leaves it together, when the last of it does.
        """
        self.start(limits=[(3, 100)], limitGran=10)
        for _ in range(3):
            self.check()
            self.clock.advance(4)
        self.clock.advance(91)
        self.assertEqual([1], self.codes(1))
        self.clock.advance(5)
        self.assertEqual([-1, -1], self.codes(2))

    def test_countOver(self):
        """
        Who is over is counted with countOver, and so never comes back while he goes on.
        """
        for countOver, expected in ((False, -1), (True, 1)):
            self.start(limits=[(1, 60)], countOver=countOver)
            for _ in range(5):
                self.check(sender=f"{countOver}@example.net")
                self.clock.advance(30)
            self.check(sender=f"{countOver}@example.net")
            self.clock.advance(30)
            self.assertEqual(expected, self.check(sender=f"{countOver}@example.net")[0], countOver)

    def test_nothing(self):
        """
        A limit of 0 lets nothing pass, and says that it never will.
        """
        self.start(limits=[(0, 60)])
        code, info = self.check()
        self.assertEqual((1, math.inf), (code, info.retryAfter))

    def test_clockSetBack(self):
        """
        What was counted before the clock was set back counts on, for one period and no longer.
        """
        self.start(limits=[(2, 60)])
        self.codes(2)
        self.clock.rightNow -= 86400
        self.assertEqual([1], self.codes(1))
        self.clock.advance(60)
        self.assertEqual([-1, -1, 1], self.codes(3))

    def test_clockSetForward(self):
        """
        After a step forward limits are as those of somebody new, and work.
        """
        self.start(limits=[(2, 60)])
        self.codes(2)
        self.clock.advance(86400 * 400)
        self.assertEqual([-1, -1, 1], self.codes(3))

    def test_soft(self):
        """
        A soft limit is reported and refuses nothing.
        """
        self.start(limits=[(3, 60)], softLimits=[(1, 60)])
        self.assertEqual([None, 1, 1, 1], [self.check()[1].soft for _ in range(4)])
        self.assertEqual([1], self.codes(1))

    def test_otherLimits(self):
        """
        After a reload with other limits what was counted in the same period counts on.
        """
        self.start(limits=[(2, 60), (9, 3600)])
        self.codes(2)
        self.start(limits=[(5, 3600), (3, 60)])
        self.assertEqual([-1, 1], self.codes(2))
        self.clock.advance(60)
        self.assertEqual([-1, -1, 1], self.codes(3))


class MemoryTests(WindowTests):
    """
    The same in memory alone.
    """

    memory = True

    def test_bound(self):
        """
        There are never more keys than the bound; those used last stay.
        """
        self.start(limits=[(1, 60)])
        self.state.size = 100
        self.check(sender="busy@example.net")
        for number in range(1000):
            self.check(sender=f"{number}@example.net")
        self.assertEqual(100, len(self.dos._counts))
        self.assertEqual([1], self.codes(1, sender="999@example.net"))
        self.assertEqual([-1], self.codes(1, sender="busy@example.net"))

    def test_repeated(self):
        """
        The same request again gets the same answer and is not counted.
        """
        self.start(limits=[(1, 60)])
        answers = [self.dos.check({**MAIL, "instance": "one"}) for _ in range(3)]
        self.assertEqual([-1] * 3, [code for code, _ in answers])
        self.assertEqual([1], self.codes(1))

    def test_manyMails(self):
        """
        Mails are forgotten, the older ones first, so that they take no more room.
        """
        self.patch(counts, "MAILS", 10)
        self.start()
        self.codes(100)
        mails = self.dos._counts.mails
        self.assertEqual(["i100", "i91"], [one for one in ("i100", "i91", "i80") if mails.get(one)])


class BucketTests(Base):
    """
    Token buckets.
    """

    def test_burst(self):
        """
        So many at once, then evenly; the information tells when.
        """
        self.start(limits=[(60, 60)], algorithm="bucket", burst=3)
        self.assertEqual([-1, -1, -1, 1], self.codes(4))
        self.assertEqual(1, round(self.check()[1].retryAfter, 3))
        self.clock.advance(1)
        self.assertEqual([-1, 1], self.codes(2))
        self.clock.advance(100)
        self.assertEqual([-1, -1, -1, 1], self.codes(4))

    def test_defaultBurst(self):
        """
        A bucket holds as many as its limit has; several of them are charged together.
        """
        self.start(limits=[(5, 10), (6, 3600)], algorithm="bucket")
        self.assertEqual([-1] * 5 + [1], self.codes(6))
        self.clock.advance(10)
        self.assertEqual([-1, 1], self.codes(2))

    def test_clock(self):
        """
        A clock that is set back makes nobody wait longer than an empty bucket does.
        """
        self.start(limits=[(1, 10)], algorithm="bucket")
        self.codes(1)
        self.clock.rightNow -= 86400
        self.assertEqual([1], self.codes(1))
        self.clock.advance(10)
        self.assertEqual([-1], self.codes(1))

    def test_giveBack(self):
        """
        What is given back can be taken again.
        """
        self.start(limits=[(2, 60)], algorithm="bucket")
        mail = {**MAIL, "instance": "x"}
        self.assertEqual(-1, self.dos.check(mail)[0])
        self.assertEqual(1, self.dos.check(mail, "giveBack")[0])
        self.assertEqual([-1, -1, 1], self.codes(3))


class KeyTests(Base):
    """
    Who is counted together.
    """

    def test_keys(self):
        """
        Attributes, domains, networks and functions.
        """
        table = [
            ("sender", {"sender": "A@b.c"}, ["a@b.c"]),
            (["sender", "recipient"], {}, [("alice@example.net", "bob@example.org")]),
            ("domain:sender", {"sender": "x@Mail.Example.co.uk"}, ["mail.example.co.uk"]),
            ("registered_domain:sender", {"sender": "x@Mail.Example.co.uk"}, ["example.co.uk"]),
            ("registered_domain:sender", {"sender": "x@localhost"}, ["localhost"]),
            ("network:client_address", {"client_address": "192.0.2.77"}, ["192.0.2.0/24"]),
            ("network:client_address", {"client_address": "2001:db8::1"}, ["2001:db8::/64"]),
            ("network:client_address", {"client_address": "nonsense"}, ["nonsense"]),
            (lambda data: data["sender"][0], {}, ["a"]),
            (lambda data: ["x", "y", "x"], {}, ["x", "y"]),
            (lambda data: None, {}, []),
            ("missing", {}, [""]),
            ("sender", {"sender": "\udcff"}, ["\udcff"]),
        ]
        for params, changes, expected in table:
            self.start(params=params)
            code, info = self.check(**changes)
            self.assertEqual((-1, expected), (code, [key for key, _ in info]), (params, changes))

    def test_product(self):
        """
        Of lists each combination of values is a key; one that is over is enough, and the others are not charged.
        """
        self.start(params=["sender", "recipient"], limits=[(2, 60)])
        self.codes(2, recipient="b@x")
        code, info = self.check(sender=["alice@example.net", "carol@x"], recipient=["a@x", "b@x"])
        self.assertEqual(1, code)
        self.assertEqual([1, 3, 1, 1], [total for _, total in info])
        self.assertEqual([-1, -1, 1], self.codes(3, recipient="a@x"))

    def test_tooMany(self):
        """
        More than a thousand combinations are not counted.
        """
        self.start(params=["sender", "recipient"])
        values = [str(number) for number in range(40)]
        code, info = self.check(sender=values, recipient=values)
        self.assertEqual((0, []), (code, info))
        self.assertIn("1000", info.reason)

    def test_case(self):
        """
        Case tells keys apart only when it shall.
        """
        for caseSensitive, expected in ((False, 1), (True, -1)):
            self.start(limits=[(1, 60)], caseSensitive=caseSensitive)
            self.check(sender=f"{caseSensitive}@x")
            self.assertEqual([expected], self.codes(1, sender=f"{caseSensitive}@X"))

    def test_longKeys(self):
        """
        A key takes only so much room, and long ones are still told apart.
        """
        self.start(limits=[(1, 60)])
        for end in "ab":
            code, [(key, _)] = self.check(sender="x" * 5000 + end)
            self.assertEqual((-1, 320), (code, len(key)))
        self.assertEqual([1], self.codes(1, sender="x" * 5000 + "a"))

    def test_concerns(self):
        """
        Only some networks and logins are counted.
        """
        table = [
            ({"networks": ["192.0.2.0/24"]}, {"client_address": "192.0.2.1"}, True),
            ({"networks": ["192.0.2.0/24"]}, {"client_address": "::ffff:192.0.2.1"}, True),
            ({"networks": ["192.0.2.0/24"]}, {"client_address": "192.0.3.1"}, False),
            ({"networks": ["192.0.2.0/24"]}, {"client_address": ""}, False),
            ({"trusted": ["2001:db8::/32"]}, {"client_address": "2001:db8::1"}, False),
            ({"trusted": ["2001:db8::/32"]}, {"client_address": "192.0.2.1"}, True),
            ({"trusted": ["2001:db8::/32"]}, {}, True),
            ({"logins": True}, {"sasl_username": "bob"}, True),
            ({"logins": True}, {}, False),
            ({"logins": ["Bob"]}, {"sasl_username": "bOB"}, True),
            ({"logins": ["bob"]}, {"sasl_username": "eve"}, False),
        ]
        for parameters, changes, expected in table:
            self.start(limits=[(0, 60)], **parameters)
            code, info = self.check(**changes)
            self.assertEqual((1, 1) if expected else (-1, 0), (code, len(info)), (parameters, changes))


class WeightTests(Base):
    """
    What is counted.
    """

    def test_weights(self):
        """
        Requests, recipients where they are known, bytes, a function; perRecipient divides.
        """
        data = {"protocol_state": "DATA", "recipient_count": "4", "size": "1000"}
        end = {**data, "protocol_state": "END-OF-MESSAGE"}
        table = [
            ({}, data, 1),
            ({"weight": "recipients"}, data, 4),
            ({"weight": "recipients"}, end, 4),
            ({"weight": "recipients"}, {"recipient_count": "4"}, 1),
            ({"weight": "recipients"}, {**data, "recipient_count": "nonsense"}, 1),
            ({"weight": "bytes"}, end, 1000),
            ({"weight": "bytes"}, {"size": "-5"}, 0),
            ({"weight": "bytes"}, {}, 0),
            ({"weight": lambda data: 2.5}, data, 2.5),
            ({"perRecipient": False}, data, 0.25),
            ({"perRecipient": False}, end, 0.25),
            ({"perRecipient": False}, {"recipient_count": "4"}, 1),
            ({"perRecipient": False, "weight": "bytes"}, end, 250),
        ]
        for number, (parameters, changes, expected) in enumerate(table):
            self.start(**parameters)
            self.assertEqual([(str(number), expected)], self.check(sender=str(number), **changes)[1])

    def test_noWeight(self):
        """
        A function that returns no number to count with is at fault, and what was counted before stays.
        """
        weights = [1, Decimal(1), math.nan, math.inf, "1", None, 1]
        self.start(weight=lambda data: weights.pop(0), limits=[(1, 60)])
        self.assertEqual(-1, self.check()[0])
        while len(weights) > 1:
            self.assertIn("weight", str(self.assertRaises(ValueError, self.check)))
        self.assertEqual(1, self.check()[0])

    def test_fractions(self):
        """
        Thirds of one add up to it.
        """
        self.start(perRecipient=False, limits=[(1, 60)])
        changes = {"protocol_state": "DATA", "recipient_count": "3"}
        self.assertEqual([-1, -1, -1, 1], self.codes(4, **changes))

    def test_tooHeavy(self):
        """
        What is more than a limit never passes; what still fits does.
        """
        self.start(weight="bytes", limits=[(1000, 60)])
        self.assertEqual(
            (1, math.inf), (lambda answer: (answer[0], answer[1].retryAfter))(self.check(size="1001"))
        )
        self.assertEqual(-1, self.check(size="900")[0])
        self.assertEqual(1, self.check(size="101")[0])
        self.assertEqual(-1, self.check(size="100")[0])


class LimitsForTests(Base):
    """
    Limits for single keys.
    """

    def test_mapping(self):
        """
        A key in limitsFor has its own limits, or none.
        """
        self.start(limits=[(1, 60)], limitsFor={"Big@x": [(3, 60)], "free@x": [], "": [], "text@x": "2/1min 5/1d"})
        for sender, passing in (("big@x", 3), ("text@x", 2), ("other@x", 1)):
            self.assertEqual([-1] * passing + [1], self.codes(passing + 1, sender=sender), sender)
        self.assertEqual((-1, []), self.check(sender="free@x"))
        self.assertEqual((-1, []), self.check(sender=""))

    def test_function(self):
        """
        A function decides for each request anew; None means the general limit.
        """
        wanted = {"alice@example.net": None}
        self.start(limitCount=1, limits=lambda data: wanted[data["sender"]])
        self.assertEqual([-1, 1], self.codes(2))
        wanted["alice@example.net"] = [(3, 3600)]
        self.assertEqual([-1, -1, 1], self.codes(3))
        wanted["alice@example.net"] = []
        self.assertEqual([-1] * 5, self.codes(5))

    def test_argument(self):
        """
        The policy may bring the limits, as a text out of a list.
        """
        self.start(limits=[(1, 60)], limitsFor={"alice@example.net": []})
        for text, codes in (("2/60s, 3/1h", [-1, -1, 1]), ("unlimited", [-1]), ("", [-1]), ("nonsense", [0])):
            self.assertEqual(codes, [self.check(None, text)[0] for _ in codes], text)
        self.assertIn("no limit", self.check(None, "1/2x")[1].reason)

    def test_wrong(self):
        """
        Limits that can be none refuse the start.
        """
        for parameters in (
            {"limits": [(1, 0)]},
            {"limits": [(-1, 5)]},
            {"limits": "ten"},
            {"limitsFor": {"a": "ten"}},
            {"limitsFor": {"a": [3]}},
            {"limits": [(0, 5)], "algorithm": "bucket"},
            {"softLimits": [(1, 0)]},
            {"params": "colour:sender"},
            {"params": []},
            {"params": [5]},
            {"trusted": ["here"]},
        ):
            with self.assertRaises(ConfigError, msg=parameters):
                self.start(**parameters)

    def test_mistakenLimits(self):
        """
        What are no limits is told with what they look like.
        """
        for given, sentence in (
            ("10/1m", "'10/1m' are no limits: '10/1m' is no limit, such as 10/60s; units are s, min, h and d"),
            (100, "100 are no limits, such as [(10, 60)] or '10/60s 150/1d'"),
        ):
            error = self.assertRaises(ConfigError, self.start, limitsFor={"a": given})
            self.assertEqual(f"limitsFor: {sentence}", str(error))

    def test_mistakenLimitsOfPolicy(self):
        """
        Those that the policy gives are told once, and limit nobody.
        """
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.start()
        for _ in range(3):
            code, info = self.dos.check(MAIL, limits="5/1m")
            self.assertEqual(0, code)
            self.assertIn("units are", info.reason)
        (told,) = [formatEvent(event) for event in events if event["log_namespace"] == "ppolicy.limitcheck"]
        self.assertIn("'5/1m' are no limits", told)


class MessageTests(Base):
    """
    Mails with several recipients, and charges that are given back.
    """

    def ask(self, operation=None, instance="m", **changes):
        return self.dos.check({**MAIL, "instance": instance, **changes}, operation)

    def test_giveBack(self):
        """
        A recipient that is refused later does not count; the others do.
        """
        self.start(limits=[(2, 60)])
        self.ask(recipient="a@x")
        self.ask(recipient="b@x")
        self.assertEqual((1, [("alice@example.net", 1)]), self.ask("giveBack", recipient="a@x"))
        self.assertEqual(-1, self.ask("giveBack", recipient="a@x")[0])
        self.assertEqual(-1, self.ask("giveBack", recipient="c@x")[0])
        self.assertEqual([-1, 1], self.codes(2))

    def test_giveBackAfterReload(self):
        """
        What was charged before the configuration was read anew can be given back after it.
        """
        old = self.start(limits=[(1, 60)])
        self.ask(recipient="a@x")
        self.assertIsNot(old, self.start(limits=[(2, 60)]))
        self.assertEqual((1, [("alice@example.net", 1)]), self.ask("giveBack", recipient="a@x"))
        self.assertEqual([-1, -1, 1], self.codes(3))

    def test_giveBackOfOtherLimits(self):
        """
        When limits came with the reload, what they have counted meanwhile stays.
        """
        self.start(limits=[(9, 60)], softLimits=[(8, 60)])  # its limits are noted with each charge
        self.ask(recipient="a@x")
        self.start(limits=[(9, 60), (3, 3600)])
        self.assertEqual([-1, -1, -1], self.codes(3))
        self.assertEqual(1, self.ask("giveBack", recipient="a@x")[0])
        self.assertEqual(3600, self.check()[1].seconds)
        self.clock.advance(60)
        self.assertEqual([1], self.codes(1))

    def test_giveAllBack(self):
        """
        A mail that is refused at its end gives everything back, however many steps ago it was charged.
        """
        for state in ("DATA", "END-OF-MESSAGE"):
            self.start(limits=[(3, 60), (3, 600)])
            for recipient in "abc":
                self.clock.advance(7)
                self.assertEqual(-1, self.ask(instance=state, recipient=recipient)[0])
            self.assertEqual(3, len(self.ask("giveBack", instance=state, protocol_state=state, recipient="")[1]))
            self.assertEqual([-1, -1, -1, 1], self.codes(4))
            self.clock.advance(600)

    def test_giveBackLate(self):
        """
        What has expired is gone already, and nobody gets more than the limit.
        """
        self.start(limits=[(2, 60)])
        self.ask()
        self.clock.advance(60)
        self.codes(2)
        self.ask("giveBack")
        self.assertEqual([1], self.codes(1))

    def test_noInstance(self):
        """
        Without an instance nothing can be given back.
        """
        self.start()
        self.check(instance="")
        code, info = self.check("giveBack", instance="")
        self.assertEqual(-1, code)
        self.assertIn("instance", info.reason)

    def test_oncePerMessage(self):
        """
        Only the first recipient of a mail counts; the charge stays until no recipient is left.
        """
        self.start(limits=[(2, 60)], oncePerMessage=True)
        answers = [self.ask(recipient=recipient) for recipient in "abcd"]
        self.assertEqual([(-1, [("alice@example.net", 1)])] * 4, answers)
        for recipient in "abc":
            self.assertEqual(-1, self.ask("giveBack", recipient=recipient)[0])
        self.assertEqual([-1, 1], self.codes(2))
        self.assertEqual(1, self.ask("giveBack", recipient="d")[0])
        self.assertEqual([-1, 1], self.codes(2))

    def test_oncePerMessageOver(self):
        """
        Who is over at the first recipient is over at all of them.
        """
        self.start(limits=[(1, 60)], oncePerMessage=True)
        self.codes(1)
        self.assertEqual([1, 1], [self.ask(recipient=recipient)[0] for recipient in "ab"])

    def test_operation(self):
        """
        A misspelt operation is an error.
        """
        self.start()
        with self.assertRaisesRegex(ValueError, "giveback"):
            self.check("giveback")


class InMemoryMessageTests(MessageTests):
    """
    The same in memory alone.
    """

    memory = True

    def test_repeatedAfterGiveBack(self):
        """
        A recipient that was refused and is tried again in the same mail is answered as before.
        """
        self.start(limits=[(2, 60)])
        first = self.ask()
        self.ask("giveBack")
        self.assertEqual((-1, [("alice@example.net", 1)]), first)
        again = self.ask()
        self.assertEqual(first, again)
        self.assertEqual(first[1].remaining, again[1].remaining)
        self.assertEqual(-1, self.ask("giveBack")[0])
        self.assertEqual([-1, -1, 1], self.codes(3))


class TroubleTests(Base):
    """
    A database that is away.
    """

    def test_onError(self):
        """
        The code is the configured one, with a reason; when it works again so does the limit.
        """
        for onError in (0, 1, -1):
            self.start(onError=onError, limits=[(1, 60)])
            table, self.dos._counts._table = self.dos._counts._table, Broken()
            code, info = self.check(sender=str(onError))
            self.assertEqual((onError, []), (code, info))
            self.assertIn("database is locked", info.reason)
            self.dos._counts._table = table
            self.assertEqual([-1, 1], self.codes(2, sender=str(onError)))

    def test_giveBack(self):
        """
        Giving back is unknown then.
        """
        self.start()
        mail = {**MAIL, "instance": "x"}
        self.dos.check(mail)
        self.dos._counts._table = Broken()
        self.assertEqual(0, self.dos.check(mail, "giveBack")[0])

    def test_edited(self):
        """
        A row that somebody has made unreadable counts as none.
        """
        self.start(limits=[(1, 60)])
        for value in ("", "nonsense", "5", "[]", '{"a": 1}', "[1, 2]", "[[60000], 0]", '[["x"], 0, []]'):
            key = ("dos", "alice@example.net")
            self.dos._counts._table.put(key, {"value": value}, 60, key)
            self.assertEqual([-1, 1], self.codes(2), value)


class NotifyTests(SynchronousTestCase):
    """
    What the administrator is told.
    """

    @pytest.fixture(autouse=True)
    def _useFolder(self, tmp_path):
        self.folder = tmp_path

    POLICY = """
calls = []
def tell(name, key, info, data):
    calls.append((name, key, info.limit, data['sender']))
    if key == 'broken@x':
        raise RuntimeError('no webhook')
modules = {'limit': ('DOS', {'params': 'sender', 'limits': [(1, 60)], 'softLimits': [], 'notify': tell})}
def check(factory, data, port):
    return 'warn', f"{factory.check('limit', data)[0]} {calls}"
"""

    def test_once(self):
        """
        The function is called once for each key and period, off the way of the mail.
        """
        serving = Serving(self.folder, self.POLICY)
        serving.clock.advance(1e9)
        pool = serving.generation.slots["limit"].check._notices._pool
        self.patch(pool, "run", lambda function, *arguments: function(*arguments))
        numbers = iter(range(100))

        def ask(sender):
            return serving.ask(asked(**{**POSTFIX, "sender": sender, "instance": str(next(numbers))}))

        for _ in range(4):
            self.assertNotIn("alice", ask("alice@x"))
        serving.clock.advance(0)
        self.assertEqual(1, ask("bob@x").count("'alice@x', 1.0, 'alice@x'"))
        serving.clock.advance(61)
        for _ in range(3):
            ask("alice@x")
        serving.clock.advance(0)
        self.assertEqual(2, ask("carol@x").count("'alice@x', 1.0"))
        for _ in range(3):
            ask("broken@x")
        serving.clock.advance(0)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        for _ in range(3):
            ask("dave@x")
        serving.clock.advance(0)
        self.assertIn("'dave@x', 1.0", ask("carol@x"))

    def test_softThenHard(self):
        """
        Who has passed a soft limit is told, and told again when a hard one is passed, each once in its period.
        """
        policy = self.POLICY.replace("info.limit", "info.limit or info.soft")
        serving = Serving(self.folder, policy.replace("(1, 60)", "(3, 60)").replace("[],", "[(1, 600)],"))
        serving.clock.advance(1e9)
        pool = serving.generation.slots["limit"].check._notices._pool
        self.patch(pool, "run", lambda function, *arguments: function(*arguments))
        for number in range(12):
            serving.ask(asked(**{**POSTFIX, "sender": "alice@x", "instance": str(number)}))
            serving.clock.advance(1 if number < 6 else 60)
        reply = serving.ask(asked(**{**POSTFIX, "sender": "bob@x", "instance": "last"}))
        self.assertEqual(["1.0", "3.0"], re.findall(r"'alice@x', ([0-9.]+)", reply))


class PolicyTests(SynchronousTestCase):
    """
    Asked by a policy.
    """

    @pytest.fixture(autouse=True)
    def _useFolder(self, tmp_path):
        self.folder = tmp_path

    def test_repeated(self):
        """
        A request that Postfix sends again is answered as before and not counted; a refusal gives back.
        """
        for memory in (False, True):
            serving = Serving(
                self.folder,
                f"modules = {{'dos': ('DOS', {{'params': 'sender', 'limits': [(2, 60)], 'memory': {memory}}})}}\n"
                "def check(factory, data, port):\n"
                "    code, info = factory.check('dos', data)\n"
                "    if data['recipient'] == 'nobody@x':\n"
                "        factory.check('dos', data, 'giveBack')\n"
                "    return 'warn', f'{code} {info}'\n",
            )
            serving.clock.advance(1e9)

            def ask(instance, recipient="bob@x", serving=serving):
                request = asked(**{**POSTFIX, "instance": instance, "recipient": recipient})
                return serving.ask(request).split()[1]

            self.assertEqual(["-1"] * 3, [ask("one") for _ in range(3)])
            self.assertEqual(["-1"] * 5, [ask(str(number), "nobody@x") for number in range(5)])
            self.assertEqual(["-1", "1"], [ask("two"), ask("three")])


class FileTests(Listing):
    """
    On a real SQLite.
    """

    @inlineCallbacks
    def codes(self, dos, count, **changes):
        codes = []
        for _ in range(count):
            code, _ = yield self.ask(dos, self.data(**changes))
            codes.append(code)
        return codes

    @inlineCallbacks
    def test_hostileKeys(self):
        """
        Whatever a key is, the command shows it as a text, and finds it by that.
        """
        for memory in (False, True):
            dos = yield self.start("DOS", params=["sender", "recipient"], memory=memory)
            for sender in ("\udcff@x", "é" * 400, "x" * 300):
                yield self.ask(dos, self.data(sender=sender, recipient="y" * 300))
                (found,) = (yield self.wait(dos.list))["limits"]
                found["key"].encode()
                self.assertEqual([found], (yield self.wait(dos.show, found["key"]))["limits"])
                self.assertEqual({"reset": 1}, (yield self.wait(dos.reset, found["key"])))

    @inlineCallbacks
    def test_commandsOfOwnLimits(self):
        """
        A key of several values is shown with its own limits too.
        """
        dos = yield self.start(
            "DOS", params=["sender", "recipient"], limitsFor={("Alice@example.net", "bob@example.org"): [(1, 60)]}
        )
        self.assertEqual([-1, 1], (yield self.codes(dos, 2)))
        (found,) = (yield self.wait(dos.list))["limits"]
        self.assertEqual(("1 in 60 s", "full"), (found["limit"], found["state"]))

    @inlineCallbacks
    def test_commandsChangeNothing(self):
        """
        To look at what was counted by limits of the policy's changes nothing.
        """
        for memory in (False, True):
            dos = yield self.start("DOS", params="sender", algorithm="bucket", burst=5, memory=memory)
            codes = []
            for _ in range(7):
                code, _ = yield self.ask(dos, self.data(), None, [(1, 3600)])
                codes.append(code)
                yield self.wait(dos.list)
            self.assertEqual([-1] * 5 + [1] * 2, codes)

    @inlineCallbacks
    def test_commands(self):
        """
        The commands list what was counted, and reset it; other checks in the same table are left alone.
        """
        dos = yield self.start("DOS", params="sender", limits=[(2, 60), (9, 3600)])
        other = yield self.start("DOS", params="sender", limits=[(2, 60)])
        other.name = other._counts._name = "DOS"  # case makes another name
        yield self.codes(dos, 3)
        yield self.codes(other, 1)
        yield self.codes(dos, 1, sender="carol@x")
        self.assertEqual(2, len((yield self.wait(dos.list))["limits"]))
        found = yield self.wait(dos.show, "alice@example.net")
        self.assertEqual(
            {
                "key": "alice@example.net",
                "sum": "2, 2",
                "limit": "2 in 60 s, 9 in 3600 s",
                "state": "full",
            },
            found["limits"][0],
        )
        self.assertEqual({"reset": 1}, (yield self.wait(dos.reset, "alice@*")))
        self.assertEqual([-1, -1, 1], (yield self.codes(dos, 3)))
        self.assertEqual(1, len((yield self.wait(other.list))["limits"]))

    @inlineCallbacks
    def test_together(self):
        """
        Requests that come together pass as often as the limit says, and no more.
        """
        dos = yield self.start("DOS", params="sender", limits=[(10, 60), (50, 3600)])
        asked = [self.ask(dos, self.data(instance=str(number))) for number in range(100)]
        codes = []
        for one in asked:
            codes.append((yield one)[0])
        self.assertEqual((10, 90), (codes.count(-1), codes.count(1)))

    @inlineCallbacks
    def test_hostile(self):
        """
        Whatever clients send is a key of its own.
        """
        dos = yield self.start("DOS", params=["sender", "recipient"], limits=[(1, 60)], caseSensitive=True)
        for text in HOSTILE:
            self.assertEqual([-1, 1], (yield self.codes(dos, 2, sender=text, recipient=text)), text)
        yield self.wait(dos.list)

    @inlineCallbacks
    def test_memoryCommands(self):
        """
        Counts in memory are listed and reset alike, and survive a reload.
        """
        dos = yield self.start("DOS", params="sender", limits=[(1, 60)], memory=True)
        yield self.codes(dos, 2)
        again = yield self.start("DOS", params="sender", limits=[(1, 60)], memory=True)
        self.assertEqual([1], (yield self.codes(again, 1)))
        self.assertEqual("1", (yield self.wait(again.show, "ALICE@*"))["limits"][0]["sum"])
        self.assertEqual({"reset": 1}, (yield self.wait(again.reset, "alice@example.net")))
        self.assertEqual([-1], (yield self.codes(again, 1)))

    @inlineCallbacks
    def test_manyInMemory(self):
        """
        While many counts in memory are searched, or forgotten, requests go on.
        """
        self.patch(counts, "_PORTION", 10)
        dos = yield self.start("DOS", params="sender", limits=[(1, 60)], memory=True)
        for number in range(100):
            yield self.codes(dos, 1, sender=f"{number}@x")
        for command, sender in ((dos.show, "carol@x"), (dos.reset, "dave@x")):
            yield deferLater(reactor, 0)  # none of their greenlets is to be the one that goes on
            answer = self.wait(command, "*5@x")
            self.assertFalse(answer.called)
            self.assertEqual([-1, 1], (yield self.codes(dos, 2, sender=sender)))
            found = yield answer
            self.assertEqual(10, found["reset"] if command == dos.reset else len(found["limits"]))
        self.assertEqual(92, len((yield self.wait(dos.list, None, 1000))["limits"]))
