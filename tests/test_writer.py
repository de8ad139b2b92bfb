"""
Tests for the thread that writes lines, with targets that do what they are told.
"""

import errno
import threading
import time

import pytest
from twisted.logger import globalLogPublisher

from ppolicy import writer
from ppolicy.logtarget import Target
from ppolicy.writer import LineWriter

PATIENCE = 5


class Told(Target):
    """
    @ivar got: the lines it has taken.
    @ivar error: what it raises instead.
    @ivar most: how many lines it takes at once.
    @ivar goesOn: an event; while it is not set, nothing is taken.
    """

    def __init__(self):
        self.got, self.error, self.most, self.isClosed, self.attempts = [], None, 1000, False, 0
        self.goesOn = threading.Event()
        self.goesOn.set()

    def __str__(self):
        return "told"

    def put(self, lines):
        self.attempts += 1
        self.goesOn.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        self.got += [line for _, line in lines[: self.most]]
        return len(lines[: self.most])

    def close(self):
        self.isClosed = True


@pytest.fixture
def events():
    """What is logged, as (level, text)."""
    found = []

    def observe(event):
        if event.get("log_namespace") == "ppolicy.writer.LineWriter":
            found.append((event["log_level"].name, event["log_format"].format(**event)))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def target():
    return Told()


@pytest.fixture(params=[0.01])
def lines(request, target, monkeypatch):
    """A writer to the target, that tries again soon, or after so many seconds."""
    monkeypatch.setattr(writer, "SOON", request.param)
    monkeypatch.setattr(writer, "LATE", 5 * request.param)
    made = LineWriter(target, flush=0.01)
    made.start()
    yield made
    target.goesOn.set()
    target.error = None
    made.stop()
    made._thread.join(PATIENCE)
    assert not made._thread.is_alive()


late = pytest.mark.parametrize("lines", [100], indirect=True)


def until(true):
    """Wait until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_order(lines, target):
    """Lines are written in their order, however they were handed over, and all of them before stop() is over."""
    for number in range(0, 3000, 3):
        assert lines.write(str(number))
        assert lines.write(f"{number + 1}\n{number + 2}", 2)
    lines.stop()
    assert target.got == [str(number) for number in range(3000)]
    assert target.isClosed
    assert lines.status() == {"target": "told", "problem": None, "waiting": 0, "dropped": 0}


def test_oneOfManyLines(lines, target):
    """A text that counts as one is handed over as one, whatever is in it."""
    lines.write("a\nb\n")
    lines.stop()
    assert target.got == ["a\nb\n"]


def test_byAndBy(lines, target):
    """A target that takes only some lines at once gets the others next, and none twice."""
    target.most = 7
    lines.write("\n".join(map(str, range(100))), 100)
    until(lambda: len(target.got) == 100)
    assert target.got == list(map(str, range(100)))


def test_outage(lines, target, events):
    """During trouble lines wait; it is said once when it begins and once when it is over, and nothing is lost."""
    target.error = OSError(errno.ENOSPC, "No space left on device")
    for number in range(20):
        lines.write(str(number))
        time.sleep(0.005)
    until(lambda: target.attempts > 3)
    assert lines.status() == {
        "target": "told",
        "problem": "told: No space left on device",
        "waiting": 20,
        "dropped": 0,
    }
    target.error = None
    until(lambda: len(target.got) == 20 and lines.problem is None)
    assert target.got == list(map(str, range(20)))
    assert events == [
        ("error", "told: No space left on device; lines wait, those beyond 50,000 are lost"),
        ("warn", "told: works again after 0 s, no lines were lost"),
    ]


def test_bound(lines, target, events, monkeypatch):
    """What waits is bounded in lines; those beyond are refused, counted, and their number is said at the end."""
    monkeypatch.setattr(writer, "BOUND", 10)
    target.error = OSError(errno.ECONNREFUSED, "Connection refused")
    taken = [lines.write("x\ny\nz", 3) for _ in range(5)]
    assert taken == [True, True, True, False, False]
    until(lambda: target.attempts)
    target.error = None
    until(lambda: len(target.got) == 9 and lines.problem is None)
    assert lines.dropped == 6
    # Which of the two is noticed first is chance.
    assert [level for level, _ in events] == ["error", "warn"]
    assert events[1] == ("warn", "told: works again after 0 s, 6 lines were lost")
    assert lines.write("again")
    until(lambda: target.got[-1] == "again")


def test_boundOfCharacters(lines, target, monkeypatch):
    """What waits is bounded in characters, too, and what was written does not count any more."""
    monkeypatch.setattr(writer, "CHARACTERS", 1000)
    target.goesOn.clear()
    assert lines.write("x" * 900)
    assert not lines.write("x" * 200)
    target.goesOn.set()
    for _ in range(5):
        until(lambda: lines.status()["waiting"] == 0)
        assert lines.write("x" * 400 + "\n" + "y" * 400, 2)


def test_hang(lines, target, events):
    """Who writes never waits for a target that hangs, nor does stop() for more than two seconds."""
    target.goesOn.clear()
    begin = time.monotonic()
    for number in range(1000):
        lines.write(str(number))
    lines.stop()
    assert time.monotonic() - begin < PATIENCE
    assert events == [("error", "told: the last 1000 lines are lost")]
    assert lines.dropped == 1000


def test_hangFull(lines, target, events, monkeypatch):
    """Of a target that hangs until no more can wait, it is said at once that lines are lost."""
    monkeypatch.setattr(writer, "BOUND", 3)
    target.goesOn.clear()
    assert [lines.write("x") for _ in range(6)] == [True, True, True, False, False, False]
    assert events == [("error", "told: does not keep up, lines are lost")]
    assert lines.problem == "told: does not keep up"
    target.goesOn.set()
    until(lambda: len(events) == 2)
    assert events[1] == ("warn", "told: works again after 0 s, 3 lines were lost")


@late
def test_stopDuringOutage(lines, target, events):
    """At the end there is one more attempt, and no waiting for another."""
    target.error = OSError(errno.EPIPE, "Broken pipe")
    lines.write("x")
    until(lambda: target.attempts == 1)
    begin = time.monotonic()
    lines.write("y")
    lines.stop()
    assert time.monotonic() - begin < PATIENCE
    assert target.attempts == 2
    assert events[-1] == ("error", "told: the last 2 lines are lost")
    assert lines.dropped == 2


def test_badLine(lines, target, events):
    """A line that a target cannot take at all is lost, and those after it are written."""

    def put(those):
        if those[0][1] == "bad":
            raise UnicodeError("what is that?")
        return Told.put(target, those)

    target.put, target.most = put, 1
    lines.write("good\nbad\ngood", 3)
    until(lambda: len(target.got) == 2)
    assert lines.dropped == 1
    assert events == [("critical", "told: a line is lost")]


@late
def test_reopen(lines, target):
    """reopen() makes the next attempt come now."""
    target.error = OSError(errno.ECONNREFUSED, "Connection refused")
    lines.write("x")
    until(lambda: target.attempts == 1)
    time.sleep(0.05)
    target.error = None
    lines.reopen()
    until(lambda: target.got == ["x"])
    assert target._again


def test_times(lines, target):
    """Each line has the time at which it was handed over, not that at which it was written."""
    seen = []
    monkey = Told.put

    def put(those):
        seen.extend(those)
        return monkey(target, those)

    target.put = put
    target.goesOn.clear()
    before = time.time()
    lines.write("a")
    after = time.time()
    time.sleep(0.1)
    target.goesOn.set()
    until(lambda: seen)
    assert before <= seen[0][0] <= after


def test_cannotOpen(target):
    """A target that cannot be opened refuses the start."""

    def fail():
        raise PermissionError(errno.EACCES, "Permission denied")

    target.open = fail
    with pytest.raises(PermissionError):
        LineWriter(target).start()


def test_reentrant(lines, target):
    """An object that says something in the log when it is thrown away, in the middle of write(), stops nothing."""

    class Heavy(str):
        def __len__(self):
            lines.write("inner")
            return super().__len__()

    lines.write(Heavy("outer"))
    until(lambda: len(target.got) >= 2)
    assert sorted(set(target.got)) == ["inner", "outer"]
