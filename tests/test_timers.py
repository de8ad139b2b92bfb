"""
Tests for work that is done again and again.
"""

from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock

from ppolicy.timers import Timers


def test_every():
    """Each function is called in its own time, until all are stopped; stopping twice does no harm."""
    clock = Clock()
    timers = Timers(SimpleNamespace(reactor=clock))
    called = []
    timers.every(2, lambda: called.append("two"))
    timers.every(3, lambda: called.append("three"))
    clock.pump([1] * 6)
    assert sorted(called) == ["three"] * 2 + ["two"] * 3
    timers.stop()
    timers.stop()
    assert not clock.getDelayedCalls()


def test_raises():
    """What went wrong once is tried again."""
    clock = Clock()
    timers = Timers(SimpleNamespace(reactor=clock))
    tries = []

    def fails():
        tries.append(clock.seconds())
        raise ValueError

    timers.every(1, fails)
    for _ in range(3):
        with pytest.raises(ValueError):
            clock.advance(1)
    assert tries == [1, 2, 3]
    timers.stop()
    assert not clock.getDelayedCalls()
