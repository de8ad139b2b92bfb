"""
Tests for how many requests were answered how, and how fast.
"""

import pytest

from ppolicy.statistics import _ACTIONS, _ANSWERS, EDGES, OTHER, Counts, Statistics, verb


def decision(reply=b"action=dunno\n\n", steps=(), seconds=0.001):
    """A decision as far as it is counted."""
    return (0.0, ("",) * 9, list(steps), reply, seconds)


def step(name="spf", code=1, cached=False):
    """A check that was asked."""
    return (name, code, 0.001, cached, None)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"action=dunno\n\n", "DUNNO"),
        (b"action=450 4.7.1 later\n\n", "450"),
        (b"action=Defer_If_Permit 4.7.1 x\n\n", "DEFER_IF_PERMIT"),
        (b"action=reject_unauth_destination, permit\n\n", "REJECT_UNAUTH_DESTINATION"),
        (b"action=\n\n", ""),
    ],
)
def test_verb(reply, said):
    """An action is counted by its first word, however the policy has spelt it."""
    assert verb(reply) == said


def test_counted():
    """Requests are counted by action, by check, code and cache, and by the time they took."""
    counts = Counts()
    counts.count(
        [
            decision(b"action=dunno\n\n", [step(), step("greylist", -1)], 0.001),
            decision(b"action=DUNNO\n\n", [step(cached=True)], 0.003),
            decision(b"action=450 later\n\n", [step(), step()], 0.002),
        ]
    )
    told = counts.described(10)
    assert told["requests"] == 3
    assert told["perSecond"] == 0.3
    assert told["actions"] == {"DUNNO": 2, "450": 1}
    assert told["checks"] == {
        "greylist": {"asked": 1, "fromCache": 0, "codes": {"-1": 1}},
        "spf": {"asked": 4, "fromCache": 1, "codes": {"1": 4}},
    }
    assert told["milliseconds"]["slowest"] == 3.0
    assert counts.seconds == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("code", "counted"),
    [
        (True, 1),
        (1.0, 1),
        (-10, -10),
        (1001, ">0"),
        (0.5, ">0"),
        (-2.5, "<0"),
        (-(10**30), "<0"),
        (float("inf"), ">0"),
        (float("-inf"), "<0"),
        (float("nan"), 0),
    ],
)
def test_oddCodes(code, counted):
    """A code that is no small whole number is counted by its sign: there are not endlessly many."""
    counts = Counts()
    counts.count([decision(steps=[step(code=code)])])
    ((_, found, _),) = counts.checks
    assert found == counted
    assert not isinstance(found, bool | float)


def test_bounded():
    """Beyond some, further actions and answers are counted together, and none is lost."""
    counts = Counts()
    for number in range(300):
        counts.count(
            [decision(b"action=class%d\n\n" % number, [step(f"check{number}", code) for code in range(50)])]
        )
    total = Counts()
    total.merge(counts)
    for one in (counts, total):
        assert len(one.actions) == _ACTIONS + 1 < 300
        assert len(one.checks) == _ANSWERS + 1 < 15000
        assert one.actions[OTHER] == 300 - _ACTIONS
        assert sum(one.actions.values()) == 300
        assert sum(one.checks.values()) == 15000


def test_percentiles():
    """A percentile is as exact as the classes are, 26 %, and never more than the slowest."""
    counts = Counts()
    counts.count([decision(seconds=number / 1000) for number in range(1, 1001)])
    for percent in (50, 90, 99, 99.9):
        assert percent / 100 <= counts.percentile(percent) <= min(1.0, 1.26 * percent / 100 + 0.001)
    assert Counts().percentile(99) == 0
    slow = Counts()
    slow.count([decision(seconds=500.0)])
    assert slow.percentile(50) == 500.0
    assert slow.latency[-1] == 1


@pytest.mark.parametrize("number", (0, 17, len(EDGES) - 1))
def test_edges(number):
    """A request that took as long as the bound of a class is in that class: Prometheus has them so."""
    counts = Counts()
    counts.count([decision(seconds=EDGES[number])])
    assert counts.latency.index(1) == number


def test_minute():
    """What is older than a minute counts since the start only."""
    statistics = Statistics(1000.0)
    for second in range(300):
        statistics.count([decision(), decision()], 1000.0 + second)
    told = statistics.described(1300.0)
    assert told["start"]["requests"] == 600
    assert told["start"]["seconds"] == 300
    assert 55 <= told["minute"]["seconds"] <= 60
    assert told["minute"]["requests"] == 2 * told["minute"]["seconds"]
    assert statistics.total().requests == 600
    told = statistics.described(1400.0)
    assert told["minute"]["requests"] == 0
    assert told["start"]["requests"] == 600


def test_quiet():
    """After a quiet time the last minute is a minute, not the time since the next request."""
    statistics = Statistics(1003.0)
    statistics.count([decision()], 1003.5)
    assert statistics.described(1004.0)["minute"]["seconds"] == 1
    statistics.count([decision()] * 6, 9000.0)
    minute = statistics.described(9001.0)["minute"]
    assert (minute["requests"], minute["perSecond"]) == (6, 0.1)


def test_neverTold():
    """A server that has answered nothing has statistics, too."""
    told = Statistics(5.0).described(5.0)
    assert told["minute"] == told["start"]
    assert told["start"]["requests"] == 0
    assert told["start"]["perSecond"] == 0
    assert set(told["start"]["milliseconds"].values()) == {0.0}
