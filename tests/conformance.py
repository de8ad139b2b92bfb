"""
What a state store promises, wherever it keeps its rows: one suite that every backend runs.
"""

import math
from collections import Counter
from functools import partial
from itertools import count
from time import monotonic, time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread

from ppolicy.bridge import Bridge
from ppolicy.errors import BackendError, ConfigError
from ppolicy.state import StateStore

COLUMNS = ("sender", "recipient")

# Whatever a client may send, and whatever harms a database.
HOSTILE = (
    "",
    " ",
    "nul\0l",
    "nul\0x",
    "\0",
    "it's",
    'a"b',
    "`",
    "\\",
    "\\'",
    "'; DROP TABLE touched; -- ",
    '"; DROP TABLE `canary`; -- ',
    "100%",
    "%s",
    "%(key)s",
    "%%",
    "_",
    "!",
    "!%",
    "{0} ? :name",
    "\udcff",
    "\udc80\udcfe",
    "a\udcffb",
    "\N{PILE OF POO}\N{FAMILY}\u200d",
    "\u2028\u0085\ufeff",
    "\x1a\r\t\x7f",
    "x" * 512,
    "x" * 513,
    "x" * 5000,
    "\N{PILE OF POO}" * 5000,
    "é" * 513,
)

# Texts that some collation takes for the same.
ALIKE = (
    "straße",
    "strasse",
    "STRASSE",
    "Strasse",
    "strasse ",
    " strasse",
    "strasse\0",
    "strässe",
    "stra\u0308sse",
    "str\uff41sse",
    "strasſe",
    "strasse\u200b",
)


def shown(text):
    """
    How people see a text, as rows.readable() promises.
    """
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if len(text) <= 512 else text[:509] + "..."


class Harness:
    """
    A mixin of C{twisted.trial.unittest.TestCase}: a store and its operations. Subclasses say what is behind it.

    @cvar exact: is the clock one that only C{advance} moves?
    @cvar counts: is there a database, which can count?
    @cvar tolerance: seconds that times may differ, where the clock goes by itself.
    """

    exact = True
    counts = True
    tolerance = 1e-5
    examples = 40
    timeout = 20

    def setUp(self):
        self.moment = 1_700_000_000.123456
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)
        self.stores = []
        # What is cleaned up was made later than what it needs; tearDown() would come after all of that.
        self.addCleanup(self._stopAll)
        self.store = self.makeStore()

    @inlineCallbacks
    def _stopAll(self):
        for store in self.stores:
            yield store.stop()

    def database(self):
        """
        What a new store has behind it.
        """
        raise NotImplementedError

    def makeStore(self, database=None):
        """
        A store that is stopped after the test.
        """
        store = StateStore(self.bridge, database or self.database(), clock=lambda: self.moment)
        store.start()
        self.stores.append(store)
        return store

    def advance(self, seconds):
        """
        Let time pass.
        """
        if self.exact:
            self.moment += seconds
            return None
        return deferLater(reactor, seconds)

    def now(self):
        return self.moment if self.exact else time()

    @inlineCallbacks
    def quickly(self, seconds, scenario):
        """
        What a scenario gives that must not take longer; where the clock goes by itself it is tried again, with
        another key, as a machine that stands still says nothing.
        """
        for attempt in count():
            begin = monotonic()
            result = yield scenario(f"k{attempt}")
            if self.exact or monotonic() - begin < seconds:
                return result

    def run_(self, function, *arguments, **keywords):
        """
        Call what may wait.
        """
        return self.bridge.run(partial(function, *arguments, **keywords))

    def together(self, calls):
        """
        Call many in one turn of the reactor.
        """
        return gatherResults([self.run_(*call) for call in calls], consumeErrors=True)

    def touched(self, store=None):
        return (store or self.store).table("touched", COLUMNS)

    def touch(self, key="k", store=None, ttl=100, firstTtl=10, columns=("s", "r"), **keywords):
        return self.run_(self.touched(store).touch, key, ttl, firstTtl, columns, **keywords)

    def take(self, rate, burst, n=1, key="k"):
        return self.run_(self.store.take, "taken", key, rate, burst, n)

    def takes(self, times, rate, burst, n=1, key="k"):
        return self.together([(self.store.take, "taken", key, rate, burst, n)] * times)

    def add(self, n, window, key="k"):
        return self.run_(self.store.add, "added", key, n, window)

    def values(self):
        return self.store.table("kept", COLUMNS, "value")

    def put(self, key, sender, recipient="r", ttl=100, value="v"):
        return self.run_(self.values().put, key, {"value": value}, ttl, (sender, recipient))

    @inlineCallbacks
    def senders(self, like=None, limit=1000):
        rows = yield self.run_(self.values().scan, like, limit)
        return [row["sender"] for row in rows]

    def assertClose(self, expected, actual):
        self.assertLessEqual(abs(expected - actual), self.tolerance, f"{expected} is not {actual}")


class Conformance(Harness):
    """
    What every store promises.
    """

    # touch

    @inlineCallbacks
    def test_touchNew(self):
        """
        The first touch is new: first, previous and present time are one, and the life is firstTtl.
        """
        (now, first, previous, times, expires), present = yield self.quickly(
            self.tolerance, lambda key: self.touch(key).addCallback(lambda result: (result, self.now()))
        )
        self.assertEqual((now, now, 1), (first, previous, times))
        self.assertClose(present, now)
        self.assertAlmostEqual(now + 10, expires, places=5)

    @inlineCallbacks
    def test_touchAgain(self):
        """
        Each touch tells the first one and the one before it, counts, and prolongs the life to ttl.
        """

        @inlineCallbacks
        def scenario(key):
            results = [(yield self.touch(key))]
            for pause in (0.2, 0.1):
                yield self.advance(pause)
                results.append((yield self.touch(key)))
            return results

        (one, *_), second, third = yield self.quickly(0.6, scenario)
        two, first, previous, times, expires = second
        self.assertEqual((one, one, 2), (first, previous, times))
        self.assertClose(one + 0.2, two)
        self.assertAlmostEqual(two + 100, expires, places=5)
        three, first, previous, times, expires = third
        self.assertEqual((one, two, 3), (first, previous, times))
        self.assertAlmostEqual(three + 100, expires, places=5)

    @inlineCallbacks
    def test_touchSettles(self):
        """
        A touch before the row has settled counts, but does not prolong its life.
        """

        @inlineCallbacks
        def twice(key):
            return key, (yield self.touch(key, settle=0.5)), (yield self.touch(key, settle=0.5))

        key, (one, *_), (_, first, previous, times, expires) = yield self.quickly(0.5, twice)
        self.assertEqual((one, one, 2), (first, previous, times))
        self.assertAlmostEqual(one + 10, expires, places=5)
        yield self.advance(0.55)
        now, first, _, times, expires = yield self.touch(key, settle=0.5)
        self.assertEqual((one, 3), (first, times))
        self.assertAlmostEqual(now + 100, expires, places=5)

    @inlineCallbacks
    def test_touchShortens(self):
        """
        A ttl that is shorter than what was left of the life shortens it.
        """
        yield self.touch(firstTtl=1000)
        now, _, _, _, expires = yield self.touch(ttl=5)
        self.assertAlmostEqual(now + 5, expires, places=5)

    @inlineCallbacks
    def test_touchExpired(self):
        """
        A row whose time is up counts as new, be it after firstTtl or after ttl.
        """
        yield self.touch("f", firstTtl=0.3)
        yield self.touch("t")
        yield self.touch("t", ttl=0.3)
        yield self.advance(0.35)
        for key in ("f", "t"):
            now, first, previous, times, expires = yield self.touch(key)
            self.assertEqual((now, now, 1), (first, previous, times))
            self.assertAlmostEqual(now + 10, expires, places=5)

    @inlineCallbacks
    def test_touchUntilExpiry(self):
        """
        A life that was prolonged outlasts firstTtl, and one that did not settle ends with it.
        """

        @inlineCallbacks
        def twice(key):
            for name, settle in ((f"{key} prolonged", 0), (f"{key} early", 50)):
                yield self.touch(name, firstTtl=0.4, settle=settle)
                yield self.touch(name, firstTtl=0.4, settle=settle)
            return key

        key = yield self.quickly(0.4, twice)
        yield self.advance(0.45)
        self.assertEqual(3, (yield self.touch(f"{key} prolonged"))[3])
        self.assertEqual(1, (yield self.touch(f"{key} early", settle=50))[3])

    @inlineCallbacks
    def test_hostileTexts(self):
        """
        Whatever a client sends is a key of its own and a readable text, and harms nothing.
        """
        table = self.touched()
        for times in (1, 2):
            calls = [(table.touch, (text, "x"), 100, 100, (text, text[::-1])) for text in HOSTILE]
            results = yield self.together(calls)
            self.assertEqual([times] * len(HOSTILE), [result[3] for result in results])
        for text in HOSTILE:
            result = yield self.touch((text, "x"), columns=(text, text[::-1]))
            self.assertEqual(3, result[3], repr(text[:20]))
        rows = yield self.run_(table.scan)
        seen = Counter((row["sender"], row["recipient"]) for row in rows)
        self.assertEqual(Counter((shown(text), shown(text[::-1])) for text in HOSTILE), seen)

    @inlineCallbacks
    def test_alike(self):
        """
        Texts that differ only by case, accents, blanks or form are different keys.
        """
        for one in ALIKE:
            self.assertEqual(1, (yield self.touch(one))[3], ascii(one))
            self.assertEqual(1, (yield self.touch((one, "x")))[3], ascii(one))
            self.assertEqual(1, (yield self.add(1, 100, one)), ascii(one))
            self.assertEqual((True, 0, 0.0), (yield self.take(0.01, 1, key=one)), ascii(one))

    @inlineCallbacks
    def test_tuples(self):
        """
        Keys whose texts join alike are different, and a text is the tuple of it.
        """
        yield self.touch(("ab", "c"))
        self.assertEqual(1, (yield self.touch(("a", "bc")))[3])
        self.assertEqual(1, (yield self.touch("abc"))[3])
        self.assertEqual(2, (yield self.touch(("abc",)))[3])
        self.assertEqual(1, (yield self.touch(("ab", "c", "")))[3])

    @inlineCallbacks
    def test_columnsFromKey(self):
        """
        Without columns the texts of the key are those that people read.
        """
        yield self.run_(self.touched().touch, ("from", "tö"), 100, 100)
        (row,) = yield self.run_(self.touched().scan)
        self.assertEqual(("from", "tö", 1), (row["sender"], row["recipient"], row["count"]))

    # take

    @inlineCallbacks
    def test_takeBurst(self):
        """
        A burst passes; what comes then is refused, and told how long it would have to wait.
        """
        results = yield self.takes(4, 0.5, 3)
        self.assertEqual([(True, 2, 0.0), (True, 1, 0.0), (True, 0, 0.0)], results[:3])
        allowed, remaining, retryAfter = results[3]
        self.assertEqual((False, 0), (allowed, remaining))
        self.assertAlmostEqual(2, retryAfter, places=4)

    @inlineCallbacks
    def test_takeRefused(self):
        """
        What is refused takes nothing: after the time that was told there is enough.
        """

        @inlineCallbacks
        def scenario(key):
            yield self.takes(2, 2, 2, key=key)
            return key, (yield self.takes(50, 2, 2, key=key))

        key, refused = yield self.quickly(0.5, scenario)
        self.assertEqual({False}, {allowed for allowed, _, _ in refused})
        self.assertLessEqual(refused[-1][2], 0.5001)
        yield self.advance(refused[-1][2] + 0.01)
        self.assertTrue((yield self.take(2, 2, key=key))[0])

    @inlineCallbacks
    def test_takeRefill(self):
        """
        Tokens come back over time, as many as time has passed.
        """

        @inlineCallbacks
        def scenario(key):
            emptied = yield self.take(2, 4, 4, key)
            yield self.advance(1.1)
            return [emptied, *(yield self.takes(3, 2, 4, key=key))]

        emptied, one, two, three = yield self.quickly(1.3, scenario)
        self.assertEqual((True, 0, 0.0), emptied)
        self.assertEqual((True, 1, 0.0), one)
        self.assertEqual((True, 0, 0.0), two)
        self.assertEqual((False, 0), three[:2])
        self.assertClose(0.4, three[2])

    @inlineCallbacks
    def test_takeFull(self):
        """
        A bucket never holds more than burst.
        """

        @inlineCallbacks
        def scenario(key):
            yield self.take(2, 2, 2, key)
            yield self.advance(1.3)
            return (yield self.takes(3, 2, 2, key=key))

        results = yield self.quickly(1.7, scenario)
        self.assertEqual([True, True, False], [allowed for allowed, _, _ in results])

    @inlineCallbacks
    def test_takeTooMany(self):
        """
        More than a bucket holds is never allowed, takes nothing, and is told what there is.
        """
        self.assertEqual((False, 3, math.inf), (yield self.take(0.01, 3, 4)))
        self.assertEqual((True, 1, 0.0), (yield self.take(0.01, 3, 2)))
        self.assertEqual((False, 1, math.inf), (yield self.take(0.01, 3, 100)))
        self.assertEqual((True, 0, 0.0), (yield self.take(0.01, 3)))

    @inlineCallbacks
    def test_takeSeveral(self):
        """
        Several tokens at once are all there or none is taken.
        """
        self.assertEqual((True, 2, 0.0), (yield self.take(0.01, 5, 3)))
        allowed, remaining, retryAfter = yield self.take(0.01, 5, 3)
        self.assertEqual((False, 2), (allowed, remaining))
        self.assertClose(100, retryAfter)
        self.assertEqual((True, 0, 0.0), (yield self.take(0.01, 5, 2)))

    @inlineCallbacks
    def test_takeFractions(self):
        """
        Rates and numbers may be fractions.
        """
        rate = 1 / 3600
        self.assertEqual((True, 0, 0.0), (yield self.take(rate, 1)))
        allowed, remaining, retryAfter = yield self.take(rate, 1)
        self.assertEqual((False, 0), (allowed, remaining))
        self.assertClose(3600, retryAfter)
        self.assertEqual((True, 1, 0.0), (yield self.take(rate, 1.5, 0.5, "half")))
        self.assertEqual((True, 0, 0.0), (yield self.take(rate, 1.5, 0.5, "half")))
        self.assertEqual((True, 0, 0.0), (yield self.take(rate, 1.5, 0.5, "half")))
        self.assertFalse((yield self.take(rate, 1.5, 0.5, "half"))[0])

    @inlineCallbacks
    def test_takeSmallerBurst(self):
        """
        A burst that is smaller than before is full of what was taken, not of more than it can hold.
        """
        yield self.take(0.1, 10, 10)
        allowed, remaining, retryAfter = yield self.take(0.1, 2)
        self.assertEqual((False, 0), (allowed, remaining))
        self.assertClose(10, retryAfter)

    @inlineCallbacks
    def test_takeNothing(self):
        """
        To take nothing is allowed, and tells how many there are.
        """
        self.assertEqual((True, 3, 0.0), (yield self.take(0.01, 3, 0)))
        yield self.take(0.01, 3, 3)
        self.assertEqual((True, 0, 0.0), (yield self.take(0.01, 3, 0)))

    @inlineCallbacks
    def test_takeExactly(self):
        """
        The sum of many takes in one moment is exactly the burst, also when the cost of one is no round number.
        """
        for number, (rate, burst) in enumerate([(0.001, 100), (6, 100), (1 / 7, 250)]):
            calls = [(self.store.take, "taken", f"k{number}", rate, burst)] * (burst + 40)
            results = yield self.together(calls)
            allowed = sum(allowed for allowed, _, _ in results)
            # On a server's clock many statements are some moments.
            most = burst if self.exact else burst + math.ceil(rate * self.tolerance)
            self.assertTrue(burst <= allowed <= most, f"rate {rate}, burst {burst}: {allowed} were allowed")

    # add

    @inlineCallbacks
    def test_addSum(self):
        """
        The sum is that of all that was added, fractions too, and each key has its own.
        """
        self.assertEqual(1, (yield self.add(1, 1000)))
        self.assertEqual(41, (yield self.add(40, 1000)))
        self.assertAlmostEqual(41.1, (yield self.add(0.1, 1000)))
        self.assertAlmostEqual(41.3, (yield self.add(0.2, 1000)))
        self.assertEqual(7, (yield self.add(7, 1000, "other")))
        self.assertAlmostEqual(41.3, (yield self.add(0, 1000)))

    @inlineCallbacks
    def test_addSlides(self):
        """
        What is older than the window does not count any more, what is younger does.
        """

        @inlineCallbacks
        def scenario(key):
            sums = [(yield self.add(1, 1.0, key))]
            yield self.advance(0.5)
            sums.append((yield self.add(2, 1.0, key)))
            yield self.advance(0.65)
            return [*sums, (yield self.add(4, 1.0, key))]

        self.assertEqual([1, 3, 6], (yield self.quickly(1.4, scenario)))

    @inlineCallbacks
    def test_addAfterLong(self):
        """
        After a time without anything the sum begins anew.
        """
        yield self.add(5, 0.3)
        yield self.advance(0.4)
        self.assertEqual(1, (yield self.add(1, 0.3)))

    # get, put, delete, scan, remove, statistics

    @inlineCallbacks
    def test_values(self):
        """
        What was put is there until it is overwritten or deleted.
        """
        get, put, delete = (
            partial(self.run_, method, "texts") for method in (self.store.get, self.store.put, self.store.delete)
        )
        self.assertIsNone((yield get("k")))
        yield put("k", "one", 100)
        self.assertEqual("one", (yield get("k")))
        self.assertIsNone((yield get("K")))
        yield put("k", "two", 100)
        self.assertEqual("two", (yield get("k")))
        self.assertTrue((yield delete("k")))
        self.assertIsNone((yield get("k")))
        self.assertFalse((yield delete("k")))

    @inlineCallbacks
    def test_valueExpires(self):
        """
        A value is there as long as it was put for; the last put rules.
        """
        for key, first, second in (("short", 100, 0.3), ("long", 0.3, 100)):
            yield self.run_(self.store.put, "texts", key, "old", first)
            yield self.run_(self.store.put, "texts", key, key, second)
        yield self.advance(0.35)
        self.assertIsNone((yield self.run_(self.store.get, "texts", "short")))
        self.assertEqual("long", (yield self.run_(self.store.get, "texts", "long")))

    @inlineCallbacks
    def test_deleteExpired(self):
        """
        There is nothing to delete any more when its time is up.
        """
        yield self.run_(self.store.put, "texts", "k", "v", 0.05)
        yield self.advance(0.1)
        self.assertFalse((yield self.run_(self.store.delete, "texts", "k")))

    @inlineCallbacks
    def test_hostileValues(self):
        """
        Whatever text is put under whatever key is what get() gives.
        """
        texts = [text for text in HOSTILE if "\udc80" not in text and "\udcff" not in text]
        yield self.together([(self.store.put, "texts", (text,), text, 100) for text in texts])
        got = yield self.together([(self.store.get, "texts", (text,)) for text in texts])
        self.assertEqual(texts, got)

    @inlineCallbacks
    def test_octetsInValues(self):
        """
        A value that is no UTF-8 comes back with escapes, the same on every database.
        """
        yield self.run_(self.store.put, "texts", "k", "a\udcffb", 100)
        self.assertEqual("a\\xffb", (yield self.run_(self.store.get, "texts", "k")))

    @inlineCallbacks
    def test_badValueAlone(self):
        """
        A value that no database takes fails alone: what comes with it, and after it, is stored.
        """
        bad = self.run_(self.store.put, "texts", "bad", "a\udcffb", 100).addErrback(lambda f: f.trap(BackendError))
        yield self.run_(self.store.put, "texts", "good", "v", 100)
        yield bad
        yield deferLater(reactor, 0.3)
        yield self.run_(self.store.put, "texts", "after", "v", 100)
        rows = yield self.run_(self.store.scan, "texts")
        self.assertLessEqual({"good", "after"}, {row["name"] for row in rows})

    @inlineCallbacks
    def test_forEver(self):
        """
        A life without an end is kept, or refused for itself; other operations go on in any case.
        """
        try:
            yield self.run_(self.store.put, "texts", "k", "v", math.inf)
        except BackendError:
            pass  # that a database has no infinity is said
        else:
            self.assertEqual("v", (yield self.run_(self.store.get, "texts", "k")))
        yield self.run_(self.store.put, "texts", "l", "w", 100)
        self.assertEqual("w", (yield self.run_(self.store.get, "texts", "l")))

    @inlineCallbacks
    def test_getRow(self):
        """
        A table's get() gives the fields of its kind and when the row expires.
        """
        now, first, previous, times, expires = yield self.touch()
        row = yield self.run_(self.touched().get, "k")
        self.assertEqual(
            {"first": first, "last": now, "previous": previous, "count": times, "expires": expires}, row
        )
        self.assertIsNone((yield self.run_(self.touched().get, "K")))

    @inlineCallbacks
    def test_putRow(self):
        """
        Rows can be put into tables that are touched, as an import does, and touched from there on.
        """
        now = self.now()
        row = {"first": now - 50.5, "last": now - 20.25, "previous": now - 30.0, "count": 7}
        yield self.run_(self.touched().put, "k", row, 100, ("s", "r"))
        _, first, previous, times, _ = yield self.touch()
        self.assertAlmostEqual(now - 50.5, first, places=5)
        self.assertAlmostEqual(now - 20.25, previous, places=5)
        self.assertEqual(8, times)

    @inlineCallbacks
    def test_scan(self):
        """
        A scan finds texts with * for anything; case does not count, % and _ are letters like others.
        """
        for sender in ("Ann@x.org", "bob@x.org", "a%b", "a_b", "axb", "a!b", "a.b", "a\\b", "ÉTÉ", ""):
            yield self.put(sender, sender)
        for text, found in [
            ("*", {"Ann@x.org", "bob@x.org", "a%b", "a_b", "axb", "a!b", "a.b", "a\\b", "ÉTÉ", ""}),
            ("*@X.ORG", {"Ann@x.org", "bob@x.org"}),
            ("ann@x.org", {"Ann@x.org"}),
            ("ann*", {"Ann@x.org"}),
            ("*NN*o*", {"Ann@x.org"}),
            ("nn@x.org", set()),
            ("ann@x.org ", set()),
            ("a%b", {"a%b"}),
            ("a_b", {"a_b"}),
            ("A!B", {"a!b"}),
            ("a.b", {"a.b"}),
            ("a\\b", {"a\\b"}),
            ("a*b", {"a%b", "a_b", "axb", "a!b", "a.b", "a\\b"}),
            ("%", set()),
            ("_xb", set()),
            ("été", {"ÉTÉ"}),
            ("ete", set()),
            ("", {""}),
        ]:
            self.assertEqual(found, set((yield self.senders({"sender": text}))), text)

    @inlineCallbacks
    def test_scanHostile(self):
        """
        Each text finds itself, as it is shown, and no other one.
        """
        texts = {shown(text) for text in HOSTILE}
        for text in texts:
            yield self.put((text,), text)
        wrong = {}
        for text in texts - {shown("x" * 5000), shown("x" * 513)}:
            found = yield self.senders({"sender": text})
            if found != [text]:
                wrong[text] = found
        self.assertEqual({}, wrong)

    @inlineCallbacks
    def test_scanLetters(self):
        """
        Letters whose small form depends on who is asked find at least themselves.
        """
        texts = ["İ", "ẞ", "Ω", "Σ", "ǅ", "Ꭰ", "𐐀"]  # noqa: RUF001
        for text in texts:
            yield self.put(text, text)
        found = []
        for text in texts:
            found += [one for one in (yield self.senders({"sender": text})) if one == text]
        self.assertEqual(texts, found)

    @inlineCallbacks
    def test_only(self):
        """
        What a column has exactly is the same text to the letter, where others are looked for alike.
        """
        texts = ("out", "Out", "out ", "öut", "oüt", "o*t", "o_t", "\udcffut")
        for text in texts:
            yield self.put((text,), text, "R")
        table = self.values()
        for text in texts:
            rows = yield self.run_(table.scan, {"recipient": "r"}, 10, {"sender": text})
            self.assertEqual([shown(text)], [row["sender"] for row in rows], text)
        for number, text in enumerate(texts, 1):
            self.assertEqual(0, (yield self.run_(table.remove, {"recipient": "q*"}, {"sender": text})))
            self.assertEqual(1, (yield self.run_(table.remove, {}, {"sender": text})), text)
            self.assertEqual(len(texts) - number, len((yield self.senders())))

    @inlineCallbacks
    def test_scanColumns(self):
        """
        A scan with several columns finds what fits all of them.
        """
        for sender, recipient in (("a", "x"), ("a", "y"), ("b", "x")):
            yield self.put((sender, recipient), sender, recipient)
        rows = yield self.run_(self.values().scan, {"sender": "a", "recipient": "*y*"})
        self.assertEqual([("a", "y", "v")], [(row["sender"], row["recipient"], row["value"]) for row in rows])
        self.assertEqual({"sender", "recipient", "value", "expires"}, set(rows[0]))

    @inlineCallbacks
    def test_scanYoungest(self):
        """
        The youngest come first, and of more than the limit the youngest.
        """
        for sender in ("one", "two", "three"):
            yield self.put(sender, sender)
            yield self.advance(0.01)
        self.assertEqual(["three", "two", "one"], (yield self.senders()))
        self.assertEqual(["three", "two"], (yield self.senders(limit=2)))
        yield self.put("one", "one")
        self.assertEqual(["one", "three", "two"], (yield self.senders()))

    @inlineCallbacks
    def test_scanOrder(self):
        """
        Every backend has one order: what lives for longest comes first.
        """
        for sender, ttl in (("long", 1000), ("short", 10), ("middle", 100)):
            yield self.put(sender, sender, ttl=ttl)
        self.assertEqual(["long", "middle", "short"], (yield self.senders()))
        self.assertEqual(["long"], (yield self.senders(limit=1)))

    @inlineCallbacks
    def test_scanLiving(self):
        """
        What is expired is not found.
        """
        yield self.put("old", "old", ttl=0.05)
        yield self.put("young", "young")
        yield self.advance(0.1)
        self.assertEqual(["young"], (yield self.senders()))
        self.assertEqual([], (yield self.senders({"sender": "o*"})))

    @inlineCallbacks
    def test_scanUnknownColumn(self):
        """
        A column that is not there is an error, the key's hash too.
        """
        yield self.put("k", "s")
        for column in ("nothing", "key", "sender--", ""):
            for text in ("*", "x"):
                yield self.assertFailure(self.run_(self.values().scan, {column: text}), BackendError)
                yield self.assertFailure(self.run_(self.values().remove, {column: text}), BackendError)
        self.assertEqual(["s"], (yield self.senders()))

    @inlineCallbacks
    def test_scanFields(self):
        """
        What a kind keeps can be searched like the readable columns.
        """
        yield self.touch("one", columns=("one", ""))
        yield self.touch("two", columns=("two", ""))
        yield self.touch("two", columns=("two", ""))
        rows = yield self.run_(self.touched().scan, {"count": "2"})
        self.assertEqual(["two"], [row["sender"] for row in rows])

    @inlineCallbacks
    def test_scanNowhere(self):
        """
        A table that nobody uses has no rows.
        """
        self.assertEqual([], (yield self.run_(self.store.scan, "unheard")))

    @inlineCallbacks
    def test_remove(self):
        """
        remove() deletes what a scan with the same texts would find, and tells how many.
        """
        for sender in ("a1", "A2", "b1", "a%"):
            yield self.put(sender, sender)
        self.assertEqual(0, (yield self.run_(self.values().remove, {"sender": "%"})))
        self.assertEqual(1, (yield self.run_(self.values().remove, {"sender": "a%"})))
        self.assertEqual(2, (yield self.run_(self.values().remove, {"sender": "a*"})))
        self.assertEqual(["b1"], (yield self.senders()))
        self.assertIsNone((yield self.run_(self.values().get, "a1")))
        self.assertEqual(1, (yield self.run_(self.values().remove, {})))
        self.assertEqual([], (yield self.senders()))

    @inlineCallbacks
    def test_removeTouched(self):
        """
        A key that was removed is new again.
        """
        yield self.touch(columns=("s", "r"))
        yield self.run_(self.touched().remove, {"sender": "s"})
        self.assertEqual(1, (yield self.touch())[3])

    @inlineCallbacks
    def test_statistics(self):
        """
        Conditions are counted in one go, zeros too; in memory nothing can count.
        """
        where = {
            "living": lambda columns, now: columns.expires > now,
            "often": lambda columns, now: columns.count > 1,
            "old": lambda columns, now: columns.first < now - 1000,
        }
        statistics = partial(self.run_, self.touched().statistics, where)
        if not self.counts:
            yield self.assertFailure(statistics(), BackendError)
            return
        self.assertEqual({"living": 0, "often": 0, "old": 0}, (yield statistics()))
        yield self.touch("a", firstTtl=0)
        yield self.touch("b", behind=True)
        yield self.touch("b", behind=True)
        self.assertEqual({"living": 1, "often": 1, "old": 0}, (yield statistics()))

    # Tables

    @inlineCallbacks
    def test_byName(self):
        """
        Every operation works by the name of a table.
        """
        one = yield self.run_(self.store.touch, "n_touch", "k", 100, 10)
        two = yield self.run_(self.store.touch, "n_touch", "k", 100, 10)
        self.assertEqual((1, 2), (one[3], two[3]))
        self.assertEqual((True, 0, 0.0), (yield self.run_(self.store.take, "n_take", "k", 0.01, 1)))
        self.assertFalse((yield self.run_(self.store.take, "n_take", "k", 0.01, 1))[0])
        self.assertEqual(2, (yield self.run_(self.store.add, "n_add", "k", 2, 100)))
        yield self.run_(self.store.put, "n_value", "k", "text", 100)
        self.assertEqual("text", (yield self.run_(self.store.get, "n_value", "k")))
        for name in ("n_touch", "n_take", "n_add", "n_value"):
            rows = yield self.run_(self.store.scan, name, {"name": "K"})
            self.assertEqual(["k"], [row["name"] for row in rows], name)
        self.assertTrue((yield self.run_(self.store.delete, "n_value", "k")))

    @inlineCallbacks
    def test_byNameTuples(self):
        """
        By the name of a table keys may be tuples of texts too; other operations of that moment do not suffer.
        """
        other = self.run_(self.store.touch, "n_touch", "k", 100, 10)
        self.assertEqual(1, (yield self.run_(self.store.touch, "n_touch", ("a", "b"), 100, 10))[3])
        self.assertEqual(1, (yield other)[3])
        self.assertEqual(2, (yield self.run_(self.store.touch, "n_touch", ("a", "b"), 100, 10))[3])

    @inlineCallbacks
    def test_wrongColumns(self):
        """
        Who gives too few readable texts harms nobody else: what comes after works.
        """
        try:
            yield self.run_(self.touched().touch, "k", 100, 10, ("only one",))
        except Exception as error:  # noqa: BLE001 - a mistake of the caller: any error will do
            self.assertNotIn("no answer within", str(error))
        yield deferLater(reactor, 0.3)
        self.assertEqual(1, (yield self.touch("l"))[3])
        self.assertEqual(2, (yield self.touch("l"))[3])

    @inlineCallbacks
    def test_wrongKind(self):
        """
        A table is for one kind of operation; whoever takes it for another one is told.
        """
        methods = {
            "touch": (self.store.touch, "n_touch", "k", 1, 1),
            "take": (self.store.take, "n_take", "k", 1, 1),
            "add": (self.store.add, "n_add", "k", 1, 1),
            "put": (self.store.put, "n_value", "k", "v", 1),
            "get": (self.store.get, "n_value", "k"),
            "delete": (self.store.delete, "n_value", "k"),
        }
        yield self.together(methods.values())
        for method, own, *arguments in methods.values():
            for name in {"n_touch", "n_take", "n_add", "n_value"} - {own}:
                yield self.assertFailure(self.run_(method, name, *arguments), ConfigError)
        for kind in ("take", "add", "value"):
            self.assertRaises(ConfigError, self.store.table, "n_touch", ("name",), kind)
        self.assertRaises(ConfigError, self.store.table, "n_touch", ("other",), "touch")

    # Together

    @inlineCallbacks
    def test_concurrentTouches(self):
        """
        Of many touches in one turn each counts once, exactly one is the first, and all agree on when that was.
        """
        keys = ["k", "l", "m"]
        for times in (100, 256, 300):
            calls = [(self.touched().touch, (f"{key}{times}", "x"), 100, 100) for key in keys] * times
            results = yield self.together(calls)
            for index in range(len(keys)):
                own = results[index :: len(keys)]
                self.assertEqual(list(range(1, times + 1)), sorted(result[3] for result in own))
                self.assertEqual(1, len({result[1] for result in own}))

    @inlineCallbacks
    def test_concurrentAdds(self):
        """
        Of many sums in one turn none is lost and none counts twice.
        """
        results = yield self.together([(self.store.add, "added", "k", 1, 1000)] * 300)
        self.assertEqual(list(range(1, 301)), sorted(map(round, results)))
        self.assertEqual(300, (yield self.add(0, 1000)))

    @inlineCallbacks
    def test_concurrentKinds(self):
        """
        All kinds of operations in one turn, with different parameters, do not disturb each other.
        """
        table = self.touched()
        calls = []
        for number in range(40):
            calls.append((table.touch, ("t", "x"), 100 + number, 100, None, float(number % 3)))
            calls.append((self.store.take, "taken", f"k{number % 2}", 0.001, 15 + number % 2))
            calls.append((self.store.add, "added", "k", 1, 1000))
            calls.append((self.store.put, "texts", f"k{number}", str(number), 100 + number))
        results = yield self.together(calls)
        self.assertEqual(list(range(1, 41)), sorted(result[3] for result in results[::4]))
        self.assertEqual(15 + 16, sum(allowed for allowed, _, _ in results[1::4]))
        self.assertEqual(40, max(results[2::4]))
        got = yield self.together([(self.store.get, "texts", f"k{number}") for number in range(40)])
        self.assertEqual(list(map(str, range(40))), got)

    def test_random(self):
        """
        Whatever is done in whatever order, the store and a naive model agree.
        """
        numbers = count()
        names = st.sampled_from(["a", "A", "a ", "é", "%", "\udcff", "'", "\0"])
        ttls = st.sampled_from([0, 50, 1000])
        steps = [
            st.tuples(st.just("touch"), names, ttls, ttls, st.sampled_from([0.0, 500.0])),
            st.tuples(st.just("take"), names, st.sampled_from([1, 3, 4]), st.sampled_from([0, 1, 2, 5])),
            st.tuples(st.just("add"), names, st.sampled_from([0, 1, 2.5])),
            st.tuples(st.just("put"), names, st.text(max_size=8), ttls),
            st.tuples(st.sampled_from(["get", "delete", "scan", "remove"]), names),
        ]
        if self.exact:
            steps.append(st.tuples(st.just("advance"), st.sampled_from([1, 7, 50, 333, 1500])))

        @settings(
            max_examples=self.examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(st.lists(st.one_of(steps), max_size=25))
        def agrees(plan):
            blockingCallFromThread(reactor, self.follow, plan, str(next(numbers)))

        return deferToThread(agrees)

    @inlineCallbacks
    def follow(self, plan, prefix):
        """
        Do all steps of a plan in the store and in a L{Model}, with keys of their own.
        """
        model = Model()
        store, touched, kept = self.store, self.touched(), self.values()
        for name, *arguments in plan:
            now = model.now = self.now()
            expected = getattr(model, name)(*arguments)
            if name == "advance":
                self.moment = model.now
                continue
            key = (prefix, arguments.pop(0))
            text = shown(key[1])
            if name == "touch":
                ttl, firstTtl, settle = arguments
                at, first, previous, times, expires = yield self.run_(
                    touched.touch, key, ttl, firstTtl, None, settle
                )
                self.assertClose(now, at)
                result = times, first, previous, expires
            elif name == "take":
                burst, n = arguments
                result = yield self.run_(store.take, "taken", f"{prefix} {key[1]}", 1e-4, burst, n)
            elif name == "add":
                result = ((yield self.run_(store.add, "added", f"{prefix} {key[1]}", *arguments, 1000)),)
            elif name == "put":
                yield self.run_(kept.put, key, {"value": arguments[0]}, arguments[1])
                result = ()
            elif name == "get":
                row = yield self.run_(kept.get, key)
                result = (row and row["value"],)
            elif name == "delete":
                result = ((yield self.run_(kept.delete, key)),)
            elif name == "scan":
                rows = yield self.run_(kept.scan, {"sender": prefix})
                result = (sorted((row["recipient"], row["value"]) for row in rows),)
            else:
                result = ((yield self.run_(kept.remove, {"sender": prefix, "recipient": text})),)
            self.assertEqual(len(expected), len(result))
            for one, other in zip(expected, result, strict=True):
                if isinstance(one, float) and math.isfinite(one):
                    self.assertClose(one, other)
                else:
                    self.assertEqual(one, other, (name, key))


class Model:
    """
    What a store does, as plainly as it can be said.
    """

    rate = 1e-4

    def __init__(self):
        self.now = 0.0
        self.touches = {}
        self.buckets = {}
        self.added = {}
        self.kept = {}

    def advance(self, seconds):
        self.now += seconds

    def touch(self, key, ttl, firstTtl, settle):
        first, last, times, expires = self.touches.get(key, (0.0, 0.0, 0, -math.inf))
        if expires <= self.now:
            first, last, times, expires = self.now, self.now, 0, self.now + firstTtl
        elif self.now - first >= settle:
            expires = self.now + ttl
        self.touches[key] = first, self.now, times + 1, expires
        return times + 1, first, last, expires

    def take(self, key, burst, n):
        taken, since = self.buckets.get(key, (0.0, self.now))
        taken = min(max(taken - (self.now - since) * self.rate, 0.0), burst)
        allowed = taken + n <= burst + 1e-9
        if allowed:
            taken += n
        self.buckets[key] = taken, self.now
        remaining = math.floor(burst - taken + 1e-9)
        return allowed, remaining, 0.0 if allowed else math.inf if n > burst else (taken + n - burst) / self.rate

    def add(self, key, n):
        slot = int(self.now / 100)
        own = self.added.setdefault(key, [])
        own.append((slot, n))
        return (float(sum(n for other, n in own if other > slot - 10)),)

    def put(self, key, value, ttl):
        self.kept[key] = value, self.now + ttl
        return ()

    def living(self):
        return {key: value for key, (value, expires) in self.kept.items() if expires > self.now}

    def get(self, key):
        return (self.living().get(key),)

    def delete(self, key):
        there = key in self.living()
        self.kept.pop(key, None)
        return (there,)

    def scan(self, key):
        return (sorted((shown(key), value) for key, value in self.living().items()),)

    def remove(self, key):
        found = [one for one in self.living() if shown(one).lower() == shown(key).lower()]
        for one in found:
            del self.kept[one]
        return (len(found),)


class OnDatabase(Conformance):
    """
    What every store on a database promises.
    """

    @inlineCallbacks
    def test_operationRaises(self):
        """
        An operation with a mistake of whatever kind fails alone; those after it are done.
        """
        database = self.store.database
        yield self.touch()
        bad = database.submit(lambda connection: 1 / 0)
        good = database.submit(lambda connection: connection.execute("SELECT 5").fetchone())
        yield self.assertFailure(bad, Exception)
        self.assertEqual((5,), (yield good))
        self.assertEqual(2, (yield self.touch())[3])
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
