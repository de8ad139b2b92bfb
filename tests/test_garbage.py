"""
Tests of the garbage collector's leash.
"""

import gc
import weakref
from itertools import count

import pytest

from ppolicy import garbage


@pytest.fixture(autouse=True)
def leash(monkeypatch):
    """The collector as the server has it, and afterwards as it was."""
    monkeypatch.setattr(garbage, "_replaced", count(1))
    before = gc.get_threshold()
    garbage.begin()
    yield
    garbage.end()
    assert gc.get_threshold() == before


class Thing:
    """What can be in a circle, and be looked at weakly."""


def circle():
    """Something that only the collector can remove: (the thing, a weak look at it)."""
    thing = Thing()
    thing.itself = thing
    return thing, weakref.ref(thing)


def test_survivorsRest():
    """What was looked at once is not looked at again, until everything is."""
    thing, look = circle()
    gc.collect(0)
    assert gc.get_freeze_count()
    assert not any(one is thing for one in gc.get_objects())
    del thing
    gc.collect(0)
    assert look() is not None
    gc.collect()
    assert look() is None


def test_youngGarbage():
    """What became garbage since is collected."""
    _, look = circle()
    del _
    gc.collect(0)
    assert look() is None


def test_bySelf():
    """Garbage that grows is collected without being asked for."""
    looks = [circle()[1]]
    most = 2 * garbage._THRESHOLDS[0]
    while looks[0]() is not None and len(looks) < most:
        looks.append(circle()[1])
    assert 1000 < len(looks) < most


def test_end():
    """At the end all is as Python has it."""
    garbage.end()
    assert gc.get_freeze_count() == 0
    assert garbage._collected not in gc.callbacks


def test_replaced():
    """After many reloads everything is looked at once."""
    thing, look = circle()
    gc.collect(0)
    del thing
    for _ in range(garbage._REPLACED - 1):
        garbage.replaced()
    assert look() is not None
    garbage.replaced()
    assert look() is None
