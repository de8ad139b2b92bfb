"""
Tests for deleting in portions.
"""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ppolicy.errors import BackendError
from ppolicy.purge import AT_ONCE, Purge


class Table:
    """
    Rows to be deleted, when the test says so.
    """

    def __init__(self):
        self.clock = Clock()
        self.asked = []
        self.purge = Purge(self.clock, self.delete)

    def delete(self):
        self.asked.append(Deferred())
        return self.asked[-1]

    def deleted(self, count, seconds=0.0):
        self.clock.advance(seconds)
        self.asked[-1].callback(count)


def test_portions():
    """It goes on while portions are full."""
    table = Table()
    table.purge.run()
    table.deleted(AT_ONCE)
    assert len(table.asked) == 1
    table.clock.advance(0.01)
    assert len(table.asked) == 2
    table.deleted(AT_ONCE - 1)
    table.clock.advance(60)
    assert len(table.asked) == 2
    table.purge.run()
    assert len(table.asked) == 3


def test_oneAtATime():
    """A purge that is under way is not begun again, neither in a portion nor between two."""
    table = Table()
    table.purge.run()
    table.purge.run()
    assert len(table.asked) == 1
    table.deleted(AT_ONCE)
    table.purge.run()
    assert len(table.asked) == 1
    table.clock.advance(0.01)
    assert len(table.asked) == 2


def test_leavesTime():
    """Slow portions have long pauses between them."""
    table = Table()
    table.purge.run()
    table.deleted(AT_ONCE, 0.2)
    table.clock.advance(0.19)
    assert len(table.asked) == 1
    table.clock.advance(0.01)
    assert len(table.asked) == 2


def test_failure():
    """What cannot be deleted waits for the next time."""
    table = Table()
    table.purge.run()
    table.asked[-1].errback(BackendError("away"))
    table.clock.advance(60)
    assert len(table.asked) == 1
    table.purge.run()
    assert len(table.asked) == 2


def test_stopped():
    """After stop() nothing is deleted any more, and no timer is left."""
    for stopBefore in (True, False):
        table = Table()
        table.purge.run()
        if stopBefore:
            table.purge.stop()
        table.deleted(AT_ONCE)
        table.purge.stop()
        table.purge.run()
        assert not table.clock.getDelayedCalls()
        assert len(table.asked) == 1
