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
    monkeypatch.setattr(garbage, "_full", count(1))
    monkeypatch.setattr(garbage, "_replaced", count(1))
    garbage.begin()
    yield
    garbage.end()


class Thing:
    """What can be in a circle, and be looked at weakly."""


def circle():
    """Something that only the collector can remove: (the thing, a weak look at it)."""
    thing = Thing()
    thing.itself = thing
    return thing, weakref.ref(thing)


def test_survivorsRest():
    """What has survived a full collection is not looked at by the next one."""
    thing, look = circle()
    gc.collect()
    before = gc.get_freeze_count()
    assert before
    assert not any(one is thing for one in gc.get_objects())
    del thing
    gc.collect()
    assert look() is not None


def test_youngGarbage():
    """What became garbage since is collected."""
    _, look = circle()
    del _
    gc.collect()
    assert look() is None


def test_everyThousandth(monkeypatch):
    """Now and then everything is looked at."""
    monkeypatch.setattr(garbage, "_AGAIN", 3)
    thing, look = circle()
    gc.collect()
    del thing
    gc.collect()
    assert look() is not None
    gc.collect()
    assert look() is None


def test_end():
    """At the end all is as Python has it."""
    garbage.end()
    assert gc.get_freeze_count() == 0
    assert garbage._collected not in gc.callbacks


def test_replaced():
    """After many reloads everything is looked at once."""
    thing, look = circle()
    gc.collect()
    del thing
    for _ in range(garbage._REPLACED - 1):
        garbage.replaced()
    gc.collect()
    assert look() is not None
    garbage.replaced()
    gc.collect()
    assert look() is None
