"""
Tests for what limits remember: windows, buckets, and where rows are kept.
"""

import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from ppolicy import limitcheck
from ppolicy.limitcheck import Notices, bounded
from ppolicy.limits import Bucket, Charge, Limits, Return, Window, parse
from ppolicy.localtable import EVICTED
from ppolicy.testing import make, memoryState

STEPS = st.lists(st.tuples(st.integers(0, 15_000), st.sampled_from([1, 1, 1, 2, 5])), max_size=150)
NOW = 1_700_000_000_000


def passed(limits, steps):
    """
    [(time, n)] of the steps that pass; each begins so many milliseconds after the one before.
    """
    row, now, found = None, NOW, []
    for pause, n in steps:
        now += pause
        row, _, (told, _, _) = Charge(limits, n, False, False)(row, now)
        if told[0] is None:
            found.append((now, n))
    return row, found


@given(STEPS, st.integers(1, 20), st.integers(1, 12))
def test_neverMore(steps, count, slots):
    """
    In no period whatever more than the limit passes.
    """
    row, found = passed(Limits([Window(count, 60, slots), Window(2 * count, 300, slots)]), steps)
    for seconds, most in ((60, count), (300, 2 * count)):
        for begin, _ in found:
            assert sum(n for time, n in found if begin <= time < begin + seconds * 1000) <= most
    if row is not None:
        assert all(len(state) <= 2 * (slots + 2) for state in row[2:])


@given(STEPS, st.integers(1, 20))
def test_quick(steps, count):
    """
    Limits that are a step themselves charge what a charge of 1 does, or leave it to that one.
    """
    limits = Limits([Window(count, 60, 10), Window(2 * count, 300, 7)])
    quick = usual = None
    now = NOW
    for pause, n in steps:
        now += pause
        if n > 1:  # what is given back
            quick, usual = (Return(limits, n, now - pause)(row, now)[0] for row in (quick, usual))
            continue
        quick, changed, answer = limits(quick, now)
        usual, _, (told, when, _) = Charge(limits, 1, False, False)(usual, now)
        assert changed == (answer is not None)
        if answer is None:
            quick, _, (again, _, _) = Charge(limits, 1, False, False)(quick, now)
            assert again[:4] == told[:4]
        else:
            assert (None, None, answer[0], answer[1], answer[2]) == (told[0], told[1], told[2], told[3], when)
        assert quick == usual


@given(STEPS, st.integers(1, 20))
def test_neverLess(steps, count):
    """
    What would fit if each period were a tenth longer passes.
    """
    limits = Limits([Window(count, 60, 10)])
    row, now, found = None, NOW, []
    for pause, n in steps:
        now += pause
        row, _, (told, _, _) = Charge(limits, n, False, False)(row, now)
        recent = sum(counted for time, counted in found if time > now - 66_000)
        assert told[0] is None or recent + n > count
        if told[0] is None:
            found.append((now, n))


@given(STEPS, st.integers(1, 20))
def test_retryAfter(steps, count):
    """
    After the time that is told the same passes, and shortly before it does not.
    """
    for limits in (Limits([Window(count, 60, 10), Window(count, 300, 7)]), Limits([Bucket(count, 60, count)])):
        row, now = None, NOW
        for pause, n in steps:
            now += pause
            row, _, (told, _, _) = Charge(limits, n, False, False)(row, now)
            after = told[4]
            if told[0] is not None and n <= count:
                assert after > 0
                for wait, isOver in ((int(after * 1000) - 1, True), (int(after * 1000) + 1, False)):
                    copy = [row[0], row[1], *(list(state) for state in row[2:])]
                    answer = Charge(limits, n, False, False)(copy, now + max(0, wait))[2][0]
                    assert (answer[0] is not None) == isOver or wait < 0


@given(STEPS, st.integers(1, 20), st.integers(0, 150))
def test_giveBack(steps, count, place):
    """
    What is given back at once leaves the row as if it had never been, for all that comes.
    """
    limits = Limits([Window(count, 60, 10)])
    row, now = None, NOW
    for number, (pause, n) in enumerate(steps):
        now += pause
        before = None if row is None else limits.shown([row[0], row[1], *map(list, row[2:])], now)[0][0]
        row, _, (told, when, _) = Charge(limits, n, False, False)(row, now)
        if number == place and told[0] is None:
            row, changed, _ = Return(limits, n, when)(row, now + 10)
            assert changed
            assert limits.shown(row, now)[0][0] == (before or 0)


def test_bucketNeverMore():
    """
    A bucket lets through its burst and then its rate, over a long time.
    """
    limits = Limits([Bucket(6, 60, 3)])
    row, found = passed(limits, [(700, 1)] * 10_000)
    assert abs(len(found) - (3 + 10_000 * 700 // 10_000)) <= 1
    assert len(row) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10/60s 150/1d", [(10, 60), (150, 86400)]),
        ("10/60,5/1h;1/2min", [(10, 60), (5, 3600), (1, 120)]),
        ("1.5/0.5s", [(1.5, 0.5)]),
        ("", []),
        (" Unlimited ", []),
        ("ten", None),
        ("10/60w", None),
        ("10/-60", None),
        ("10", None),
        ("1e5/2", None),
    ],
)
def test_parse(text, expected):
    """
    Limits as a text.
    """
    if expected is None:
        with pytest.raises(ValueError, match="no limit"):
            parse(text)
    else:
        assert parse(text) == expected


def test_bounded():
    """
    Long texts are cut, and stay different.
    """
    texts = ["x" * 320, "x" * 321, "x" * 322, "é\udcff" * 1000]
    assert bounded(texts[0]) == texts[0]
    assert [len(bounded(text)) for text in texts] == [320] * 4
    assert len({bounded(text) for text in texts}) == 4


class Calls:
    """
    A thread pool that runs when it is told.
    """

    def __init__(self):
        self.waiting = []
        self.isStopped = False

    def run(self, function, *arguments):
        from twisted.internet.defer import Deferred

        done = Deferred()
        self.waiting.append((done, function, arguments))
        return done

    def finish(self):
        done, function, arguments = self.waiting.pop(0)
        try:
            result = function(*arguments)
        except RuntimeError:
            result = Failure()
        done.callback(result)

    def stop(self):
        self.isStopped = True


def test_noticesAtStop():
    """
    What waits when the configuration is replaced is told all the same; then the threads end.
    """
    state, told = memoryState(Clock()), []
    notices = Notices(state.bridge, told.append, "dos")
    notices._pool = pool = Calls()
    for number in range(5):
        notices.add(number)
    notices.stop()
    state.bridge.reactor.advance(0)
    for _ in range(5):
        assert not pool.isStopped
        pool.finish()
    assert told == list(range(5))
    assert pool.isStopped
    notices = Notices(state.bridge, told.append, "dos")
    notices._pool = pool = Calls()
    notices.stop()
    assert pool.isStopped


def test_notices():
    """
    So many run at once and so many wait; the rest is dropped, and one that hangs is given up after a minute.
    """
    state, told = memoryState(Clock()), []
    notices = Notices(state.bridge, told.append, "dos")
    notices._pool = pool = Calls()
    for number in range(200):
        notices.add(number)
    clock = state.bridge.reactor
    clock.advance(0)
    assert len(pool.waiting) == 2
    for _ in range(50):
        pool.finish()
    assert told == list(range(50))
    pool.waiting.clear()  # these two hang
    clock.advance(limitcheck._PATIENCE)
    assert len(pool.waiting) == 2
    while pool.waiting:
        pool.finish()
    assert told == [*range(50), *range(52, 100)]


@pytest.mark.parametrize("memory", [False, True])
def test_bound(monkeypatch, memory):
    """
    However many keys there are, only so many rows are in memory.
    """
    state = memoryState()
    state.size = 1000
    dos = make("DOS", state, params="sender", memory=memory)
    dos.start()
    for number in range(5000):
        dos.check({"sender": f"{number}@example.net", "instance": str(number)})
    kept = dos._counts if memory else state.tables["limits"]
    assert len(kept) <= 1000 + EVICTED
    assert dos.check({"sender": "4999@example.net"}) == (-1, [("4999@example.net", 2)])
    state.size = 100  # by a reload
    for number in range(5000, 6000):
        dos.check({"sender": f"{number}@example.net"})
    assert len(kept) <= 100 + EVICTED


@pytest.mark.skipif("PPOLICY_LONG" not in os.environ, reason="make faults: ten million keys take minutes")
@pytest.mark.parametrize("memory", [False, True])
def test_tenMillionKeys(memory):
    """
    Ten million keys take no more memory than the first half million.
    """
    dos = make("DOS", memoryState(), params="sender", limits=[(10, 60), (150, 86400)], memory=memory)
    dos.start()
    most = 0
    for number in range(10_000_000):
        dos.check({"sender": f"user{number}@example{number % 4999}.net", "instance": str(number)})
        if number == 500_000:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < most * 1.1 + 10_000
