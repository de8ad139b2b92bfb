"""
Tests for what is told of each request: when, what, and whatever objects policies and checks have left.
"""

import enum
import json
import math
import random
import time

import pytest
from twisted.internet.task import Clock

from ppolicy.decisions import AFTER, NAMES, PORTION, Decisions, described, plain
from ppolicy.history import LONGEST
from ppolicy.requestlog import FORMS, RequestLog
from ppolicy.spfanswer import Verdict
from ppolicy.trace import Follower

from .serving import POSTFIX, Serving, asked


class Told(list):
    """A follower that keeps what it is told."""

    def follow(self, decisions, shown):
        self.extend(shown)


class Lines(list):
    """A writer that keeps lines."""

    def write(self, text, count=1):
        self.extend(text.split("\n") if count > 1 else [text])


@pytest.fixture
def told():
    """Decisions that somebody follows, with a log and a history: (decisions, what the follower got, lines)."""
    decisions = Decisions(Clock(), 1000)
    decisions.followers.append(Told())
    decisions.log = RequestLog(Lines(), FORMS["json"])
    return decisions, decisions.followers[0], decisions.log._write.__self__


def add(decisions, data=POSTFIX, steps=(), reply=b"action=dunno\n\n"):
    """A decision, as the server adds it."""
    decisions.add(data, list(steps), reply, decisions._reactor.seconds(), 0.001)


def everywhere(told, steps, data=POSTFIX):
    """Have all see one decision that is odd, and one that is not: the first as `ppolicy why --json` has it."""
    decisions, follower, lines = told
    add(decisions, data, steps)
    add(decisions)
    decisions.settle()
    assert len(follower) == len(lines) == 2
    assert decisions.statistics.total().requests == 2
    for line in lines:
        json.loads(line, parse_constant=refuse)
    for one in follower:
        FORMS["keyvalue"](*one)
    *_, kept = decisions.history.find([""], 10)
    assert len(kept) == 2
    return json.loads(json.dumps(described(kept[0])), parse_constant=refuse)


def refuse(name):
    """JSON knows no such number."""
    raise AssertionError(name)


class Evil:
    """An object that can nothing."""

    def __str__(self):
        raise SystemExit("no text")

    __repr__ = __hash__ = __eq__ = __iter__ = __len__ = __bool__ = __str__


class EvilText(str):
    """A text that can nothing."""

    __slots__ = ()

    def __len__(self):
        raise RuntimeError("no length")

    __iter__ = __getitem__ = __str__ = __hash__ = __eq__ = __len__


class EvilNumber(int):
    """A number that can nothing."""

    def __eq__(self, other):
        raise RuntimeError("no number")

    __hash__ = __gt__ = __lt__ = __floordiv__ = __format__ = __str__ = __index__ = __int__ = __eq__


class Level(enum.IntEnum):
    """A number with a name."""

    HIGH = 3


class EvilTuple(tuple):
    """A tuple that cannot be walked through."""

    def __iter__(self):
        raise SystemExit

    __len__ = __getitem__ = __iter__


class Liar:
    """An object that says it is a number."""

    @property
    def __class__(self):
        return int


def made(value):
    """What pytest could not print."""
    return value() if callable(value) else value


CIRCLE: list = [1]
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("info", "shown"),
    [
        (None, None),
        ("text", "text"),
        (("a", 1, 2.5, None, True), ["a", 1, 2.5, None, True]),
        ({"a": {("b", 1): b"c"}}, {"a": {"('b', 1)": "b'c'"}}),
        ({1, 2}, "{1, 2}"),
        (math.nan, "nan"),
        ([math.inf], ["inf"]),
        (10**5000, "<int>"),
        ([[[[["deep"]]]]], [[["[['deep']]"]]]),
        (list(range(110)), list(range(100))),
        ("x" * 100_000, "x" * (LONGEST - 3) + "..."),
        (lambda: Evil(), "<Evil>"),
        (Level.HIGH, "3"),
        (lambda: EvilText("strange"), "strange"),
        (bytearray(b"abc"), "bytearray(b'abc')"),
        (Verdict("pass", 250, "good", helo=None), ["pass", 250, "good"]),
        (lambda: EvilTuple(("a", 1)), ["a", 1]),
        ("\udcff\0", "\udcff\0"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_information(told, info, shown):
    """Whatever a check gives as information, the decision is told, and shown as JSON can say it."""
    step = everywhere(told, [("odd", 1, 0.001, False, made(info))])["steps"][0]
    assert step == {"name": "odd", "code": 1, "ms": 1.0, "cached": False, "info": shown}


def test_circle(told):
    """Nor does one that has itself in it do any harm."""
    assert len(json.dumps(everywhere(told, [("odd", 1, 0.001, False, CIRCLE)])["steps"])) < 1000


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (True, True),
        (1.5, 1.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (1e300, 1e300),
        (Level.HIGH, 3),
        (lambda: EvilNumber(-7), -7),
        (lambda: Liar(), 0),
    ],
    ids=lambda one: type(one).__name__,
)
def test_code(told, code, shown):
    """Nor does any code that a check may give."""
    assert everywhere(told, [("odd", made(code), 0.001, False, None)])["steps"][0]["code"] == shown


@pytest.mark.parametrize(
    "value", (None, 5, ["a", "b"], {"a": 1}, b"\xff", lambda: Evil(), lambda: EvilText("x"), "y" * 60_000)
)
def test_changedRequest(told, value):
    """A policy may put anything into its request, or take it away."""
    shown = everywhere(told, [], dict.fromkeys(POSTFIX, made(value)))
    assert all(isinstance(shown[name], str) and len(shown[name]) <= LONGEST for name in NAMES)


def test_emptied(told):
    """Of a request that the policy has emptied, nothing is told but the answer."""
    shown = everywhere(told, [], {})
    assert [shown[name] for name in NAMES] == [""] * len(NAMES)
    assert shown["action"] == "dunno"


def test_manySteps(told):
    """A policy that asks a thousand times is told in short."""
    shown = everywhere(told, [(f"check{number}", 1, 0.001, False, "x" * 400) for number in range(1000)])
    assert [step["name"] for step in shown["steps"]] == [f"check{number}" for number in range(100)]


def test_random(told):
    """No random object that a check could make is lost."""
    chance = random.Random(1)

    def make(depth=4):
        kinds = [None, True, -1, 10**30, math.nan, "a\n\x1b", "\ud800", b"\xff", Evil(), Level.HIGH, EvilText("b")]
        if depth and chance.random() < 0.6:
            inner = [make(depth - 1) for _ in range(chance.randint(0, 4))]
            return chance.choice([inner, tuple(inner), dict(enumerate(inner))])
        return chance.choice(kinds)

    decisions, follower, lines = told
    for _ in range(500):
        add(decisions, steps=[("odd", chance.choice([1, math.nan, Level.HIGH]), 0.001, False, make())])
        decisions.settleMany()
    decisions.settle()
    assert len(follower) == len(lines) == 500
    *_, kept = decisions.history.find([""], 1000)
    for one in kept:
        json.dumps(described(one), allow_nan=False)


def test_plain():
    """What is shown of an object is small, but for long texts."""
    wide = {number: {inner: dict.fromkeys(range(200), "x") for inner in range(200)} for number in range(2)}
    assert len(json.dumps(plain(wide))) < 500_000


def test_portions():
    """Decisions are told when there are many, or after a moment, and each once and in their order."""
    decisions = Decisions(Clock(), 10)
    told = Told()
    decisions.followers.append(told)
    for number in range(PORTION):
        decisions.settleMany()
        assert not told
        add(decisions, POSTFIX | {"instance": str(number)})
    decisions.settleMany()
    assert [one[1][0] for one in told] == [str(number) for number in range(PORTION)]
    add(decisions)
    decisions._reactor.advance(AFTER)
    assert len(told) == PORTION + 1
    decisions._reactor.advance(10)
    assert not decisions._reactor.getDelayedCalls()
    add(decisions)
    decisions._reactor.advance(AFTER)
    assert len(told) == PORTION + 2


def test_clockSet(monkeypatch):
    """A decision has the time of day at which it was made, also when the clock is set meanwhile."""
    decisions = Decisions(Clock(), 10)
    told = Told()
    decisions.followers.append(told)
    for now in (1e9, 2e9, 1.5e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        add(decisions)
        decisions._reactor.advance(3600)
    assert [one[0] for one in told] == [1e9, 2e9, 1.5e9]


def test_failing(told, caplog):
    """A follower that fails is logged, and costs no other its decisions later on, nor the log or the history."""
    decisions, follower, lines = told

    class Fails:
        def follow(self, decisions, shown):
            raise RuntimeError("as asked")

    decisions.followers.insert(0, Fails())
    add(decisions)
    decisions.settle()
    assert (len(lines), len(decisions.history)) == (1, 1)
    decisions.followers.pop(0)
    add(decisions)
    decisions.settle()
    assert len(follower) == 1
    assert len(lines) == 2


def test_leaves(told):
    """A follower may leave while it is told, and another come."""
    decisions, follower, _ = told

    class Leaves(Told):
        def follow(self, decisions_, shown):
            super().follow(decisions_, shown)
            decisions.followers.remove(self)
            decisions.followers.append(Told())

    leaving = Leaves()
    decisions.followers.insert(0, leaving)
    for _ in range(2):
        add(decisions)
        decisions.settle()
    assert (len(leaving), len(follower), len(decisions.followers[1])) == (1, 2, 1)


POLICY = """
from ppolicy.check import Check

class Says(Check):
    blocking = False

    def check(self, data):
        return 2, 'because'

class Huge(Check):
    blocking = False

    def check(self, data):
        return 10 ** 5000, None

modules = {'says': (Says, {}), 'cached': ('Dummy', {'cacheUnknown': 100}), 'huge': (Huge, {})}

def check(factory, data, port):
    factory.check('says', data)
    factory.check('cached', data)
    if data['sender'] == 'huge':
        factory.check('huge', data)
    data['sender'] = 'the policy was here'
    return '450', '4.7.1 Later'
"""


def test_served(tmp_path):
    """A request that is answered is decided: its checks by their names, what came from the cache, the action."""
    serving = Serving(tmp_path, POLICY)
    decisions = serving.server.decisions
    decisions.history.resize(10)
    for _ in range(2):
        assert serving.ask(asked(**POSTFIX)) == "action=450 4.7.1 Later\n\n"
    decisions.settle()
    *_, kept = decisions.history.find(["1a2.65f"], 10)
    steps = [[(step["name"], step["code"], step["cached"]) for step in described(one)["steps"]] for one in kept]
    assert steps == [[("says", 2, False), ("cached", 0, cached)] for cached in (False, True)]
    assert described(kept[0])["action"] == "450 4.7.1 Later"
    total = decisions.statistics.total()
    assert total.actions == {"450": 2}
    assert total.checks == {("says", 2, False): 2, ("cached", 0, False): 1, ("cached", 0, True): 1}


def test_endlessCode(tmp_path):
    """A code that no log could print is no code: the check counts as unknown."""
    serving = Serving(tmp_path, POLICY)
    assert serving.ask(asked(**POSTFIX | {"sender": "huge"})) == "action=450 4.7.1 Later\n\n"
    serving.server.decisions.settle()
    assert serving.server.decisions.statistics.total().checks[("huge", 0, False)] == 1


def test_others(told):
    """The real followers take what odd policies leave, too."""
    decisions, _, _ = told
    events = []
    decisions.followers.append(Follower(lambda event: not events.append(json.dumps(event)), {"sender": "x"}))
    add(decisions, POSTFIX | {"sender": EvilText("x"), "client_address": Evil()})
    add(decisions, POSTFIX | {"sender": None, "client_name": 5})
    decisions.settle()
    assert len(events) == 1
