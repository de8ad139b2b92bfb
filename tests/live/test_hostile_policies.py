"""
Policies and modules that raise, return rubbish, wait, loop or recurse without end: each costs one answer, no more.

What they do is in hostile_policy.py, the configuration of all these tests.
"""

import contextlib
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.stalls import took

from . import hostile_policy
from .policyserver import Server
from .wire import Wire, request

CONFIGURATION = Path(hostile_policy.__file__)
# Seconds: the request's deadline, when what holds the reactor is interrupted, and what either may take longer.
TIMEOUT, INTERRUPT, GRACE = 3, 2, 1.0
# Seconds after which the server is taken for dead.
HUNG = 12
FATAL = "450 4.3.0 Fatal for a test"

_serials = itertools.count()


class Evils:
    """
    A server with hostile_policy.py, an observer on a connection of its own, and what the tests ask of them.
    """

    def __init__(self, **options):
        self.server = Server()
        self._options = {
            "requestTimeout": TIMEOUT,
            "returnOnFatalError": ("450", "4.3.0 Fatal for a test"),
            "requestLog": None,
        } | options
        self._status = []
        self._ended = threading.Event()
        self.start()
        self._thread = threading.Thread(target=self._watchStatus)
        self._thread.start()

    def start(self):
        self.server.configure(CONFIGURATION.read_text(encoding="utf-8"), **self._options)
        before = len(self.server.output)
        self.server.start()
        # It answers before it says so; the tests count lines.
        self.server.waitForLog(" serves ", start=before)
        self.cached = self.ask(where="cached")

    def revive(self):
        """
        Start anew when an earlier test left the server in a state that answers nobody.
        """
        try:
            with Wire(self.server.address, 5) as wire:
                assert wire.ask(request()) == "dunno good"
        except (AssertionError, OSError):
            self.server.kill()
            self.start()

    def close(self):
        self._ended.set()
        self._thread.join()
        self.server.close()

    def _watchStatus(self):
        while not self._ended.wait(2):
            self._status.append(self._askStatus())

    def _askStatus(self):
        done = self.server.ppolicy("status", "--json")
        return done.returncode, done.stdout, done.stderr

    def status(self):
        """
        What `ppolicy status --json` tells.
        """
        code, told, problem = self._askStatus()
        assert code == 0, problem
        return json.loads(told)

    def statusWorked(self):
        """
        Has the command worked each time it was tried since the last call?
        """
        tried, self._status = self._status, []
        return all(code == 0 and json.loads(told)["pid"] for code, told, _ in tried)

    def ask(self, **attributes):
        with Wire(self.server.address) as wire:
            return wire.ask(request(**attributes))

    @contextlib.contextmanager
    def observed(self, longest):
        """
        While the block runs, another connection asks all the time, and waits no longer than so many seconds.
        """
        begun, ended, waited = threading.Event(), threading.Event(), []

        def observe():
            with Wire(self.server.address, HUNG) as wire:
                while not ended.is_set():
                    begin = time.monotonic()
                    assert wire.ask(request()) == "dunno good"
                    waited.append(took(begin))
                    begun.set()
                    time.sleep(0.01)

        with ThreadPoolExecutor(1) as pool:
            observing = pool.submit(observe)
            assert begun.wait(HUNG)
            try:
                yield
            finally:
                ended.set()
            observing.result()
        assert max(waited) < longest, f"another connection waited for {max(waited):.2f} s"

    def suffer(self, evil, where, most, longest, least=0.0, events=1):
        """
        Ask for something evil: it is answered in time, logged once, and does no harm to anything else.

        @param most: seconds until the answer, at least C{least}: as long it holds the reactor.
        @param longest: seconds that another connection may have to wait.
        @param events: how often it is logged after all, not counting the watchdog's bark.
        @return: the action, and what was logged about it.
        """
        instance = f"evil.{next(_serials)}.{time.monotonic_ns():x}"
        start = len(self.server.output)
        with Wire(self.server.address, HUNG) as wire:
            with self.observed(longest):
                begin = time.monotonic()
                action = wire.ask(request(evil=evil, where=where, instance=instance))
                seconds, worked = time.monotonic() - begin, took(begin)
            # The same connection, and the cache, are as good as before.
            assert wire.ask(request()) == "dunno good"
            assert wire.ask(request(where="cached")) == self.cached
            assert wire.ask(request(where="collect")) == "dunno collected"
        assert least <= seconds and worked < most, f"answered after {seconds:.2f} s"
        self.server.waitForLog(instance, start=start, count=events)
        if least:
            self.server.waitForLog("held the reactor", start=start)
        time.sleep(0.05)  # whatever else there might be
        lines = self.server.output[start:]
        log = "".join(lines)
        assert "Unhandled" not in log, log
        assert "work in a greenlet failed" not in log, log
        # The first line of an event has the instance, the others are indented.
        found = [line for line in lines if not line.startswith("\t") and "held the reactor" not in line]
        assert len(found) == log.count(instance) == events, log
        assert all(instance in line for line in found), log
        return action, log


@pytest.fixture(scope="module")
def _evils():
    evils = Evils()
    yield evils
    evils.close()


@pytest.fixture
def evils(_evils):
    """
    A server that has survived all tests before; its status can be asked at any time.
    """
    _evils.revive()
    yield _evils
    assert _evils.statusWorked()


@pytest.mark.parametrize("evil", hostile_policy.RAISES)
def test_policyRaises(evils, evil):
    """
    A policy function that raises costs one traceback, and the request gets returnOnFatalError.
    """
    action, log = evils.suffer(evil, "policy", 1.5, 1.5)
    assert action == FATAL
    assert "Traceback" in log


@pytest.mark.parametrize("where", ("check", "hashArg", "thread", "coroutine", "coroutine that waited"))
@pytest.mark.parametrize("evil", hostile_policy.RAISES)
def test_moduleRaises(evils, evil, where):
    """
    A check module that raises, wherever, counts as unknown, and the policy decides.
    """
    action, log = evils.suffer(evil, where, 1.5, 1.5)
    assert action == f"dunno {where} said 0"
    assert "Traceback" in log


@pytest.mark.parametrize("evil", hostile_policy.RUBBISH)
def test_policyReturnsRubbish(evils, evil):
    """
    An answer that Postfix would not understand is not sent: the request gets returnOnFatalError.
    """
    action, _ = evils.suffer(evil, "policy", 1.5, 1.5)
    assert action == FATAL


@pytest.mark.parametrize("where", ("check", "thread", "coroutine", "coroutine that waited"))
@pytest.mark.parametrize(
    "evil", ("a number", "octets", "an object", "one item", "itself", "a generator", "two replies")
)
def test_moduleReturnsRubbish(evils, evil, where):
    """
    What is no result of a check counts as unknown.
    """
    action, _ = evils.suffer(evil, where, 1.5, 1.5)
    assert action == f"dunno {where} said 0"


@pytest.mark.parametrize("evil", ("a dictionary", "a set", "itself", "compared"))
def test_hashArgReturnsRubbish(evils, evil):
    """
    What cannot be the key of anything counts as unknown as well.
    """
    action, _ = evils.suffer(evil, "hashArg", 1.5, 1.5)
    assert action == "dunno hashArg said 0"


def _isEnd(action):
    return action == FATAL or action.startswith("dunno ")


@pytest.mark.parametrize("evil", (*hostile_policy.HOLDS, *hostile_policy.HOLDS_ASKING))
def test_policyHolds(evils, evil):
    """
    A policy function that holds the reactor is interrupted after 2 s; the log says who it was.
    """
    # Who catches the interrupt gets another one.
    most = INTERRUPT + GRACE * (2 if "catches all" in evil else 1)
    # A check that raised has its own line.
    events = 2 if evil == "loop after a check that raised" else 1
    action, log = evils.suffer(evil, "policy", most, most, least=INTERRUPT - 0.2, events=events)
    assert action == FATAL
    assert "held the reactor for" in log
    assert "interrupted" in log


@pytest.mark.parametrize(
    ("evil", "where"),
    [
        *[("loop", where) for where in ("check", "hashArg", "coroutine", "coroutine that waited")],
        *[("loop that catches all", where) for where in ("check", "coroutine that waited")],
        *[("sleep", where) for where in ("hashArg", "coroutine that waited")],
    ],
)
def test_moduleHolds(evils, evil, where):
    """
    So is a check module, wherever it does that.
    """
    most = INTERRUPT + GRACE * (2 if "catches all" in evil else 1)
    action, log = evils.suffer(evil, where, most, most, least=INTERRUPT - 0.2)
    assert _isEnd(action)
    assert "held the reactor for" in log
    assert "interrupted" in log


def test_watchdogNamesPlace(evils):
    """
    The watchdog's line names function, file and line of the policy, and how long it took.
    """
    _, log = evils.suffer("loop", "policy", INTERRUPT + GRACE, INTERRUPT + GRACE, least=INTERRUPT - 0.2)
    lines = evils.server.configuration.read_text(encoding="utf-8").splitlines()
    begin = lines.index("def loop(*_):") + 1
    found = re.search(r"loop held the reactor for ([0-9]+) ms \((\S+):([0-9]+)\) and was interrupted", log)
    assert found, log
    assert 2000 <= int(found[1]) < 1000 * (INTERRUPT + GRACE)
    assert found[2] == str(evils.server.configuration)
    assert begin < int(found[3]) <= begin + 2


# Asked for together, because each takes as long as a request may.
WAITS = [
    *[
        (evil, where)
        for evil in hostile_policy.WAITS
        for where in ("policy", "check", "hashArg", "thread", "coroutine")
    ],
    ("wait", "coroutine that waited"),
    ("stuck", "thread"),
    ("", "sleep"),
]


def test_waits(evils):
    """
    Whoever waits for what never comes is told so at the request's deadline; the others notice nothing.
    """
    start = len(evils.server.output)

    def ask(case):
        evil, where = WAITS[case]
        with Wire(evils.server.address) as wire:
            begin = time.monotonic()
            action = wire.ask(request(evil=evil, where=where, instance=f"waits.{case}.end"))
            seconds, worked = time.monotonic() - begin, took(begin)
            assert wire.ask(request()) == "dunno good"
        return action, seconds, worked

    with evils.observed(1), ThreadPoolExecutor(len(WAITS)) as pool:
        results = list(pool.map(ask, range(len(WAITS))))
    assert evils.ask(where="collect") == "dunno collected"
    for case, (_, where) in enumerate(WAITS):
        if where != "sleep":
            evils.server.waitForLog(f"waits.{case}.end", start=start)
    time.sleep(0.1)  # whatever else there might be
    log = "".join(evils.server.output[start:])
    for case, (action, seconds, worked) in enumerate(results):
        evil, where = WAITS[case]
        assert seconds > TIMEOUT - 0.2, f"{evil} in {where}: {seconds:.2f} s"
        assert worked < TIMEOUT + GRACE, f"{evil} in {where}: {seconds:.2f} s"
        if where == "sleep" and worked == seconds:  # a machine that stands still may take its last moment from it
            assert action == "dunno sleep said 1"
        elif where != "sleep":
            assert _isEnd(action)
            assert log.count(f"waits.{case}.end") == 1, f"{evil} in {where}: {log}"
    assert "Unhandled" not in log, log
    assert evils.ask(where="cached") == evils.cached
    assert evils.status()["requests"]["waiting"] == 0


def test_stuckThreads():
    """
    Worker threads that never come back are written off; beyond the bound a blocking module gives 0 at once.
    """
    evils = Evils(workerThreads=3)
    try:

        def ask(number):
            begin = time.monotonic()
            action = evils.ask(evil="stuck", where="thread", instance=f"stuck.{number}.end")
            return action, time.monotonic() - begin, took(begin)

        with evils.observed(0.5), ThreadPoolExecutor(10) as pool:
            # Three are at work, three wait for a thread, the others are too many.
            results = sorted(pool.map(ask, range(10)), key=lambda result: result[1])
        for action, _, worked in results[:4]:
            assert (action, worked < GRACE) == ("dunno thread said 0", True)
        for action, seconds, worked in results[4:]:
            assert (action, seconds > TIMEOUT - 0.2, worked < TIMEOUT + GRACE) == (FATAL, True, True)
        threads = evils.status()["threads"]["module"]
        assert threads["size"] == 3
        assert 3 <= threads["writtenOff"] <= 6
        # Who comes now need not wait for the deadline.
        action, _, worked = ask(10)
        assert (action, worked < GRACE) == ("dunno thread said 0", True)
        assert evils.ask(where="cached") == evils.cached
        for number in range(11):
            evils.server.waitForLog(f"stuck.{number}.end")
            assert evils.server.log().count(f"stuck.{number}.end") == 1
        assert evils.statusWorked()
        begin = time.monotonic()
        evils.server.terminate()
        assert took(begin) < 3
    finally:
        evils.close()


@pytest.fixture(scope="module")
def _threadEvils():
    evils = Evils(policyThreads=True, workerThreads=30)
    yield evils
    evils.close()


@pytest.fixture
def threadEvils(_threadEvils):
    """
    A server that runs its policy function in threads.
    """
    _threadEvils.revive()
    yield _threadEvils
    assert _threadEvils.statusWorked()


@pytest.mark.parametrize("where", ("policy", "check", "hashArg", "thread", "coroutine"))
@pytest.mark.parametrize(
    "evil",
    ("Exception", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "MemoryError", "RecursionError", "no text"),
)
def test_threadRaises(threadEvils, evil, where):
    """
    With policyThreads, too, what raises costs one traceback and one answer.
    """
    action, log = threadEvils.suffer(evil, where, 1.5, 1.5)
    assert action == (FATAL if where == "policy" else f"dunno {where} said 0")
    assert "Traceback" in log


@pytest.mark.parametrize(
    "evil", ("a number", "an object", "a generator", "a Deferred", "itself", "compared", "octets")
)
def test_threadReturnsRubbish(threadEvils, evil):
    """
    Rubbish from a thread is not sent either.
    """
    action, _ = threadEvils.suffer(evil, "policy", 1.5, 1.5)
    assert action == FATAL


@pytest.mark.parametrize(("evil", "where"), (("loop", "check"), ("sleep", "hashArg")))
def test_threadHolds(threadEvils, evil, where):
    """
    A module that holds the reactor is interrupted, whether a greenlet or a thread has asked it.
    """
    action, log = threadEvils.suffer(evil, where, INTERRUPT + GRACE, INTERRUPT + GRACE, least=INTERRUPT - 0.2)
    assert _isEnd(action)
    assert "held the reactor for" in log


def test_threadWaits(threadEvils):
    """
    A policy in a thread that waits, sleeps or is stuck is written off at the deadline and blocks nobody.
    """
    cases = [(evil, where) for evil in hostile_policy.WAITS for where in ("policy", "check", "hashArg", "thread")]
    cases += [("sleep", "policy"), ("stuck", "thread"), ("", "sleep"), ("check for ever", "policy")]
    start = len(threadEvils.server.output)

    def ask(case):
        begin = time.monotonic()
        evil, where = cases[case]
        action = threadEvils.ask(evil=evil, where=where, instance=f"threads.{case}.end")
        return action, time.monotonic() - begin, took(begin)

    with threadEvils.observed(1), ThreadPoolExecutor(len(cases)) as pool:
        results = list(pool.map(ask, range(len(cases))))
    assert threadEvils.ask(where="collect") == "dunno collected"
    for case, (_, where) in enumerate(cases):
        if where != "sleep":
            threadEvils.server.waitForLog(f"threads.{case}.end", start=start)
    time.sleep(0.1)  # whatever else there might be
    log = "".join(threadEvils.server.output[start:])
    for case, (action, seconds, worked) in enumerate(results):
        evil, where = cases[case]
        assert seconds > TIMEOUT - 0.2, f"{evil} in {where}: {seconds:.2f} s"
        assert worked < TIMEOUT + GRACE, f"{evil} in {where}: {seconds:.2f} s"
        if where == "sleep" and worked == seconds:  # a machine that stands still may take its last moment from it
            assert action == "dunno sleep said 1"
        elif where != "sleep":
            assert _isEnd(action)
            assert log.count(f"threads.{case}.end") == 1, f"{evil} in {where}: {log}"
    assert "Unhandled" not in log, log
    assert threadEvils.ask(where="cached") == threadEvils.cached


def test_threadLoops():
    """
    A policy that computes without end in a thread cannot be stopped, but is answered, and all others go on.
    """
    evils, timeout = Evils(policyThreads=True, workerThreads=3, requestTimeout=1.5), 1.5
    try:

        def ask(number):
            begin = time.monotonic()
            action = evils.ask(evil="loop", where="policy", instance=f"loops.{number}.end")
            return action, time.monotonic() - begin, took(begin)

        with evils.observed(1), ThreadPoolExecutor(2) as pool:
            for action, seconds, worked in pool.map(ask, range(2)):
                assert action == FATAL
                assert timeout - 0.2 < seconds
                assert worked < timeout + GRACE
        assert evils.ask(where="cached") == evils.cached
        assert evils.status()["threads"]["policy"]["writtenOff"] == 2
        # With the third one none is left: then the answer comes at once.
        assert ask(2)[0] == FATAL
        begin = time.monotonic()
        assert evils.ask(instance="loops.late") == FATAL
        assert took(begin) < GRACE
        for number in range(3):
            evils.server.waitForLog(f"loops.{number}.end")
            assert evils.server.log().count(f"loops.{number}.end") == 1
        evils.server.terminate()
    finally:
        evils.close()


def test_cacheIsIntact(evils):
    """
    Whatever happened before and meanwhile, a cached check is asked once and served from the cache ever after.
    """
    before = evils.status()["modules"]["cached"]
    for evil, where in (("Exception", "check"), ("RecursionError", "policy"), ("SystemExit", "hashArg")):
        evils.suffer(evil, where, 1.5, 1.5)
    for _ in range(10):
        assert evils.ask(where="cached") == evils.cached
    after = evils.status()["modules"]["cached"]
    assert after["asked"] - before["asked"] == 13
    assert after["fromCache"] - before["fromCache"] == 13
    assert after["failed"] == before["failed"]


def test_recursionThroughChecks(evils):
    """
    Recursion that ends somewhere inside of the server's own code leaves nothing half-made behind.
    """
    start = len(evils.server.output)
    for _ in range(5):
        assert evils.ask(where="policy", evil="recurse in checks", instance="recursed.end") == FATAL
    assert evils.ask(where="cached") == evils.cached
    log = "".join(evils.server.output[start:])
    assert "Unhandled" not in log
    assert "work in a greenlet failed" not in log
    # The watchdog still watches.
    action, _ = evils.suffer("loop", "policy", INTERRUPT + GRACE, INTERRUPT + GRACE)
    assert action == FATAL


REFUSES = """
from twisted.internet.defer import Deferred
from ppolicy.check import Check, wait
from ppolicy.errors import ConfigError, ParamError

class Refuses(Check):
    '''Does not start.'''

    def start(self):
        %s

modules = {'bad': (Refuses, {})}

def check(factory, data, port):
    return 'dunno', 'the new one'
"""

GOOD = """
def check(factory, data, port):
    return 'dunno', 'the old one'
"""

REFUSALS = {
    "ConfigError": ("raise ConfigError('the moon is full')", "bad (Refuses): the moon is full"),
    "ParamError": ("raise ParamError('the moon is new')", "bad (Refuses): the moon is new"),
    "another": ("raise RuntimeError('no moon')", "bad (Refuses): start() failed with RuntimeError: no moon"),
    "SystemExit": ("raise SystemExit(0)", "bad (Refuses): start() failed with SystemExit"),
    "wait": ("wait(Deferred())", "wait() works only inside"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_startRefused(kind):
    """
    A module that refuses to start keeps the server from starting: exit code 1 and a sentence.
    """
    code, sentence = REFUSALS[kind]
    server = Server()
    try:
        server.configure(REFUSES % code)
        done = subprocess.run(
            [sys.executable, "-m", "ppolicy", "run", "-c", str(server.configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=20,
            check=False,
        )
        assert done.returncode == 1, done.stdout
        assert sentence in done.stdout
        assert f"{server.configuration}:" in done.stdout
    finally:
        server.close()


def test_reloadRefused(makeServer):
    """
    A reload that a module refuses prints the same sentence, and the old generation goes on.
    """
    server = makeServer(GOOD, requestLog=None)
    for code, sentence in REFUSALS.values():
        server.configure(REFUSES % code, requestLog=None)
        done = server.reload()
        assert done.returncode == 1, done.stdout
        assert sentence in done.stdout
        assert server.request() == "dunno the old one"
        start = len(server.output)
        server.hangUp()
        server.waitForLog("reload refused", 10, start)
        assert server.request() == "dunno the old one"
    server.configure(GOOD.replace("old", "good"), requestLog=None)
    assert server.reload().returncode == 0
    assert server.request() == "dunno the good one"
    assert "Unhandled" not in server.log()
