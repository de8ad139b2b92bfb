"""
Tests for the health of backends and checks.
"""

import json
import time
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ppolicy import watchdog
from ppolicy.bridge import Bridge
from ppolicy.check import Check, wait
from ppolicy.health import LONGEST, ofCheck, problems
from ppolicy.testing import make


def said(status):
    """What is shown of a check whose status() is this function."""
    kind = type("Own", (Check,), {"status": status})
    return ofCheck(SimpleNamespace(check=make(kind)), Bridge(Clock()))


def test_nothing():
    """A check says nothing of itself unless it wants to."""
    assert ofCheck(SimpleNamespace(check=make("Dummy")), Bridge(Clock())) == {}


def test_plain():
    """What it says is shown; what JSON does not know becomes a text."""
    assert said(lambda self: {"problem": None, "rows": 3, "of": {1}}) == {"problem": None, "rows": 3, "of": "{1}"}


def test_noMethod():
    """A parameter of a site's check may be called status."""
    assert said("text") == {}


def _loop():
    endless = {}
    endless["again"] = endless
    return endless


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (lambda self: 1 / 0, "its status() failed with ZeroDivisionError: division by zero"),
        (lambda self: (_ for _ in ()).throw(SystemExit(3)), "its status() failed with SystemExit: 3"),
        (lambda self, more: {}, "its status() failed with TypeError"),
        (lambda self: None, "its status() must return a dictionary, not NoneType"),
        (lambda self: {(1, 2): 3}, "its status() returned what is no JSON"),
        (lambda self: _loop(), "its status() returned what is no JSON"),
        (lambda self: {"mean": float("nan")}, "its status() returned what is no JSON"),
        (lambda self: {"a": "x" * LONGEST}, f"its status() returned more than {LONGEST} characters"),
        (lambda self: wait(Deferred()), "its status() must not wait"),
        (lambda self: {"a": "\udc80" * 2}, None),
    ],
)
def test_wrong(status, problem):
    """Whatever a site's status() does wrong is that check's problem, and can be sent as JSON."""
    shown = said(status)
    json.dumps(shown).encode("ascii")
    assert (shown.get("problem") or "").startswith(problem or "")
    assert bool(shown.get("problem")) == bool(problem)


def test_endless(monkeypatch):
    """A status() that never returns is interrupted, and is that check's problem."""
    monkeypatch.setattr(watchdog, "INTERRUPT", 0.2)
    reactor = SimpleNamespace(seconds=time.monotonic, callLater=Clock().callLater)
    bridge = Bridge(reactor)
    bridge.watch.start()
    try:
        shown = ofCheck(SimpleNamespace(check=make(type("Own", (Check,), {"status": _spin}))), bridge)
    finally:
        bridge.watch.stop()
    assert shown["problem"].startswith("its status() failed with DeadlineExceeded: interrupted after holding")
    assert not bridge.watch.armed


def _spin(check):
    while True:
        pass


def test_problems():
    """Problems are found wherever they are, named by backend and part, or by the check; each once."""
    status = {
        "version": "3",
        "reload": {"problem": "refused:\n  line 3"},
        "threads": {"module": {"problem": None}},
        "modules": {
            "good": {"asked": 3},
            "ldap": {"status": {"problem": "away", "servers": {"ldap://a": {"lastTrouble": "b"}}}},
            "lists": {"status": {"lists": {"one": {"problem": "gone"}, "two": {"problem": "gone"}}}},
        },
        "backends": {
            "database": {"problem": None, "tables": {"greylist": {"problem": "no right"}}},
            "dns": {"problem": None, "servers": {"192.0.2.1:53": {"problem": "does not answer"}}},
        },
    }
    assert problems(status) == [
        {"where": "reload", "problem": "refused: line 3"},
        {"where": "ldap", "problem": "away"},
        {"where": "lists", "problem": "gone"},
        {"where": "database tables greylist", "problem": "no right"},
        {"where": "dns servers 192.0.2.1:53", "problem": "does not answer"},
    ]


def test_none():
    """Where nothing is wrong there is no problem."""
    assert problems({"modules": {"a": {"status": {"problem": None}}}, "backends": {"smtp": {"asked": 1}}}) == []
