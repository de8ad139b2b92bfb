"""
Faults of databases while a policy server is asked all the time: the load, what it measures, and how one fault is
gone through. Nothing here knows how the server does its work: answers, `ppolicy status` and rows decide.
"""

import contextlib
import itertools
import json
import random
import re
import socket
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pymysql

from .mariadb import MariaDB
from .policyserver import Server
from .wire import Wire, request

DELAY = 600
# Seconds that no answer may take, and in which everything must work again.
WORST = 10.0
RECOVERY = 10.0
# Bytes that the server may have grown by when all is over.
GROWTH = 40_000_000
FRIEND = "friend@example.com"

# A failure is kept in the cache for 30 s by default; here each request is to ask the database.
POLICY = """
modules = {
    'greylist': ('Greylist', {'delay': %d, 'writeBehind': %s, 'cacheUnknown': 0}),
    'friends': ('List', {'param': 'sender', 'table': 'friends',
                         'cachePositive': 0, 'cacheUnknown': 0, 'cacheNegative': 0}),
    'vips': ('List', {'param': 'sender', 'table': 'vips', 'cacheAll': True, 'cacheAllRefresh': 1,
                      'cachePositive': 0, 'cacheUnknown': 0, 'cacheNegative': 0}),
}

def check(factory, data, port):
    code, info = factory.check('greylist', data)
    friend, _ = factory.check('friends', data)
    vip, _ = factory.check('vips', data)
    return 'dunno', f'{code} {info[1]} {friend} {vip}'
"""


class Answer(NamedTuple):
    """
    One answer: when it was asked for and came (monotonic), and what was wrong with it, or `right` or `unknown`.
    """

    begun: float
    ended: float
    verdict: str


class Triplet:
    """
    A sender, recipient and client, and when they were met first: not before `begun`, and by `ended` for certain.
    """

    numbers = itertools.count(1)

    def __init__(self, padding):
        self.number = number = next(self.numbers)
        self.isFriend = number % 4 == 0
        self.sender = FRIEND if self.isFriend else f"s{number}@example.com"
        self.recipient = f"r{number}{'x' * padding}@example.org"
        self.client = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        self.begun = self.ended = None

    def octets(self):
        """
        The request, a mail of its own each time.
        """
        return request(
            sender=self.sender,
            recipient=self.recipient,
            client_address=self.client,
            instance=f"{self.number:x}.{time.monotonic_ns():x}",
        )

    def judge(self, said, begun, ended, forgets, losesLists=False):
        """
        What an answer of the policy is worth: `right`, `unknown`, or what is wrong with it.
        """
        if self.begun is None:
            self.begun = begun
        if not re.fullmatch(r"dunno -?\d+ \d+ -?[01] -?[01]", said):
            return f"WRONG: {said}"
        code, seconds, friend, vip = map(int, said.split()[1:])
        expected = (1,) if self.isFriend else (-1,)
        if forgets or losesLists:
            expected = (1, -1)
        if friend and friend not in expected or vip and vip not in expected:
            return f"WRONG list: {said} for {self.sender}"
        if code == 0:
            return "unknown"
        age = DELAY - seconds  # rounded down
        oldest = ended - self.begun + 0.05
        youngest = 0 if self.ended is None or forgets else begun - self.ended - 0.05
        if code != -1 or not youngest - 1 <= age <= oldest:
            return f"WRONG greylist: {said}, met {youngest:.2f} to {oldest:.2f} s ago"
        if self.ended is None:
            self.ended = ended
        return "unknown" if 0 in (friend, vip) else "right"


class Load:
    """
    Some connections that ask for new and known triplets, one after the other with a short pause.

    @ivar answers: L{Answer}s of all connections.
    @ivar known: the triplets that were greylisted, so that the server has promised to know them.
    @ivar asked: how many requests were sent.
    """

    def __init__(self, address, connections=4, pause=0.025, padding=0):
        self.answers, self.known, self.unsure, self.broken = [], [], [], []
        self.asked = 0
        self.forgets = self.losesLists = False
        self.padding = padding
        self.pause = pause
        self._address = address
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def _ask(self):
        chance = random.Random()
        try:
            with Wire(self._address, timeout=40) as wire:
                while not self._end.wait(self.pause):
                    self._one(wire, chance)
        except (AssertionError, OSError) as error:
            self.broken.append(f"{type(error).__name__}: {error}")

    def _one(self, wire, chance):
        point = chance.random()
        triplet, known = None, self.known
        if point < 0.1:
            with contextlib.suppress(IndexError):  # there is none
                triplet = self.unsure.pop(0)
        elif point < 0.5 and known:
            triplet = chance.choice(known)
        triplet = triplet or Triplet(self.padding)
        self.ask(wire, triplet)

    def ask(self, wire, triplet):
        """
        Ask for a triplet, and note what came.
        """
        isKnown = triplet.ended is not None
        self.asked += 1
        begun = time.monotonic()
        said = wire.ask(triplet.octets())
        ended = time.monotonic()
        verdict = triplet.judge(said, begun, ended, self.forgets, self.losesLists)
        self.answers.append(Answer(begun, ended, verdict))
        if not isKnown:
            (self.known if triplet.ended is not None else self.unsure).append(triplet)
        return verdict

    def stop(self):
        """
        Ask no more; every request must have got its answer.
        """
        self._end.set()
        for thread in self._threads:
            thread.join(50)
        if self.asked != len(self.answers):
            self.broken.append(f"{self.asked} requests, {len(self.answers)} answers")


def control(server, verb, timeout=20, **arguments):
    """
    Ask the running server through its control socket, as the ppolicy command does.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(server.stateDir / "control.sock"))
        connection.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            return json.loads(lines.readline())


def add(server, name, *values):
    """
    Put values into a list, as `ppolicy list NAME add` does.
    """
    return control(
        server,
        "command",
        family="list",
        check=name,
        command="add",
        arguments={"values": [[value] for value in values]},
    )


class Status:
    """
    Looks at the status all the time; and once during the fault by the command, and once for the greylist's rows.

    @ivar seen: (time, problem) of each look.
    @ivar worst: seconds that the slowest one took.
    """

    def __init__(self, server):
        self.server = server
        self.seen, self.broken = [], []
        self.worst = 0.0
        self.printed = self.admin = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self._others = []

    def _look(self):
        while not self._end.wait(0.2):
            begun = time.monotonic()
            try:
                self.seen.append((begun, control(self.server, "status")["backends"]["database"]["problem"]))
            except (OSError, ValueError, KeyError) as error:
                self.broken.append(f"status: {type(error).__name__}: {error}")
            self.worst = max(self.worst, time.monotonic() - begun)

    def ask(self):
        """
        What an administrator does who sees that something is wrong.
        """
        for work in (self._command, self._rows):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._others.append(thread)

    def _command(self):
        for _ in range(12):  # a look may be too soon, or on a busy machine too late
            self._printStatus()
            if self._end.wait(0.3):
                return

    def _printStatus(self):
        done = self.server.ppolicy("status")
        self.printed += done.stdout + done.stderr
        if done.returncode != 0:
            self.broken.append(f"ppolicy status: {done.returncode}: {done.stdout}{done.stderr}")

    def _rows(self):
        begun = time.monotonic()
        try:
            answer = control(self.server, "command", family="greylist", command="stats", timeout=70)
            self.admin = f"{time.monotonic() - begun:.1f} s: {str(answer)[:200]}"
        except (OSError, ValueError) as error:
            self.admin = f"{time.monotonic() - begun:.1f} s: {type(error).__name__}: {error}"

    def stop(self):
        """
        Look no more.
        """
        self._end.set()
        for thread in (self._thread, *self._others):
            thread.join(25)


class Outcome:
    """
    What a fault did.

    @ivar wrong: sentences, none when all was well.
    """

    def __init__(self, name):
        self.name = name
        self.wrong = []
        self.worst = self.recovery = 0.0
        self.before = self.during = self.after = ""
        self.log = self.problem = self.admin = ""

    def row(self):
        """
        The line of the table.
        """
        return (
            f"{self.name:<36} {self.worst:7.2f} s  {self.recovery:6.2f} s  {self.during:<46} {self.problem[:60]}"
            + (f"\n{'':<10}FAILED: {'; '.join(self.wrong)[:400]}" if self.wrong else "")
        )


HEADER = f"{'fault':<36} {'worst':>7}    {'back':>6}    {'answers during the fault':<46} problem in the status"


class Case:
    """
    One way through one fault, as a generator of it leads: what comes before its first `yield` is prepared before
    the server starts, and the `yield` gives the option C{database}, or nothing for the file in the state folder;
    then the fault begins, the second `yield` says for how many seconds; then it ends.

    @param problem: pattern of what the status has to say during the fault; None when there is nothing to say.
    @param neverUnknown: True when no answer may be 0.
    @param forgets: True when what was known is gone for good.
    @param losesLists: True when only the lists are.
    """

    def __init__(
        self,
        function,
        *,
        writeBehind=False,
        problem=None,
        neverUnknown=False,
        forgets=False,
        losesLists=False,
        fromStart=False,
        padding=0,
        pause=0.025,
        options=None,
    ):
        self.function = function
        self.name = function.__name__ + (" (write-behind)" if writeBehind else "")
        self.writeBehind = writeBehind
        self.problem, self.neverUnknown = problem, neverUnknown
        self.forgets, self.losesLists, self.fromStart = forgets, losesLists, fromStart
        self.padding, self.pause = padding, pause
        self.options = options or {}
        self.closing = []
        self.mariadb = self.server = self.load = None

    def makeMariaDB(self, *options, **keywords):
        """
        A MariaDB of its own, started.
        """
        self.mariadb = MariaDB(*options, **keywords)
        self.closing.append(self.mariadb.close)
        return self.mariadb.start()

    @property
    def path(self):
        """
        The file of the embedded database.
        """
        database = self.options.get("database")
        return Path(database.removeprefix("sqlite:///")) if database else self.server.stateDir / "ppolicy.sqlite"

    def rows(self):
        """
        The recipients in the database.
        """
        if self.mariadb is not None:
            return {recipient for (recipient,) in self.mariadb.execute("SELECT recipient FROM greylist")}
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=5)) as database:
            return {recipient for (recipient,) in database.execute("SELECT recipient FROM greylist")}

    def run(self):
        """
        Go through it.

        @return: the L{Outcome}.
        """
        outcome = Outcome(self.name)
        try:
            self._run(outcome)
        except (AssertionError, OSError, LookupError, sqlite3.Error, pymysql.Error) as error:
            outcome.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            if self.load is not None:
                self.load.stop()
            if self.server is not None:
                outcome.log = self.server.log()
                self.server.close()
            for close in reversed(self.closing):
                close()
        return outcome

    def _run(self, outcome):
        self.server = server = Server()
        steps = self.function(self)
        database = next(steps)
        if database:
            self.options["database"] = database
        options = {"requestLog": None, **self.options}
        server.configure(POLICY % (DELAY, self.writeBehind), **options)
        server.stateDir = Path(options.get("stateDir", server.stateDir))
        server.start()
        memory = rss(server)
        if not self.fromStart:
            self._fillLists(outcome)
        self.load = load = Load(server.address, pause=self.pause, padding=self.padding)
        load.forgets, load.losesLists = self.fromStart, self.losesLists
        status = Status(server)
        begun = time.monotonic()
        if not self.fromStart:
            time.sleep(1.5)
            memory = rss(server)
            begun = time.monotonic()
            load.forgets = self.forgets
        seconds = next(steps)
        # What the first failure was is told until the next attempt says more.
        time.sleep(max(0, seconds - 1.3))
        status.ask()
        time.sleep(min(seconds, 1.3))
        next(steps, None)
        restored = time.monotonic()
        if self.fromStart:
            self._fillLists(outcome)
        while time.monotonic() < restored + RECOVERY + 2:
            time.sleep(0.1)
            last = max((one.ended for one in list(load.answers) if one.verdict != "right"), default=0)
            if time.monotonic() > max(last, restored) + 1.2 and time.monotonic() > restored + 2:
                break
        load.forgets = self.forgets or self.fromStart
        self._askAdmin(outcome, restored)
        problem = self._settled(outcome, restored)
        load.stop()
        status.stop()
        if self.writeBehind:
            time.sleep(1)
        self._judge(outcome, load, status, begun, restored)
        outcome.wrong += problem
        self._compare(outcome, load)
        grown = rss(server) - memory
        if grown > GROWTH:
            outcome.wrong.append(f"the server has grown by {grown / 1e6:.0f} MB")
        for word in ("Traceback", "Unhandled"):
            if word in server.log():
                outcome.wrong.append(f"{word} in the log")

    def _fillLists(self, outcome):
        deadline = time.monotonic() + RECOVERY
        for name in ("friends", "vips"):
            while not (answer := add(self.server, name, FRIEND))["ok"]:
                if time.monotonic() > deadline:
                    outcome.wrong.append(f"list {name} cannot be filled: {answer}")
                    return
                time.sleep(0.2)
        time.sleep(0.3)

    def _askAdmin(self, outcome, restored):
        """
        Commands have to work again too.
        """
        answer = None
        while answer is None or not answer["ok"]:
            if time.monotonic() > restored + RECOVERY + 2:
                outcome.wrong.append(f"`ppolicy greylist stats` fails afterwards: {answer}")
                return
            try:
                answer = control(self.server, "command", WORST, family="greylist", command="stats")
            except TimeoutError:
                outcome.wrong.append(f"`ppolicy greylist stats` has no answer after {WORST} s afterwards")
                return
            time.sleep(0.2)

    def _settled(self, outcome, restored):
        """
        Wait until nothing waits any more and no problem is told.

        @return: what is wrong then.
        """
        while True:
            shown = control(self.server, "status")
            backend = shown["backends"]["database"]
            left = backend["tables"]["greylist"]["holds"].rpartition(", ")[2]
            isWell = (
                backend["problem"] is None
                and backend["waiting"] <= 6
                and shown["requests"]["waiting"] <= 6
                and (left == "shared" or int(left.split()[0]) < 100)
            )
            if isWell:
                return []
            if time.monotonic() > restored + RECOVERY + 2:
                return [f"the status still tells of {backend} and {shown['requests']['waiting']} requests"]
            time.sleep(0.2)

    def _judge(self, outcome, load, status, begun, restored):
        wrong = outcome.wrong
        answers = sorted(load.answers)
        before = [one for one in answers if one.ended <= begun]
        during = [one for one in answers if one.ended > begun and one.begun < restored]
        outcome.before, outcome.during, outcome.after = (
            _counted(part) for part in (before, during, [one for one in answers if one.begun >= restored])
        )
        outcome.worst = max((one.ended - one.begun for one in answers), default=0)
        bad = [one for one in answers if one.verdict != "right"]
        outcome.recovery = max(0.0, max((one.ended for one in bad), default=0) - restored)
        outcome.admin = status.admin
        wrong += load.broken + status.broken[:3]
        wrong += [f"{count} × {verdict}" for verdict, count in _wrong(answers)]
        if not self.fromStart and any(one.verdict != "right" for one in before):
            wrong.append(f"before the fault: {outcome.before}")
        if len(during) < 4:
            wrong.append(f"only {len(during)} answers during the fault")
        if outcome.worst > WORST:
            wrong.append(f"an answer took {outcome.worst:.1f} s")
        if outcome.recovery > RECOVERY:
            wrong.append(f"back only after {outcome.recovery:.1f} s")
        if self.neverUnknown and (unknown := sum(one.verdict == "unknown" for one in during)):
            wrong.append(f"{unknown} of {len(during)} answers were unknown")
        if status.worst > 2:
            wrong.append(f"the status took {status.worst:.1f} s")
        told = Counter(problem for when, problem in status.seen if begun <= when <= restored and problem)
        outcome.problem = told.most_common(1)[0][0] if told else "-"
        if self.problem is not None:
            if not any(re.search(self.problem, problem) for problem in told):
                wrong.append(f"the status did not name the problem, but {dict(told)}")
            if not re.search(self.problem, status.printed):
                wrong.append(f"`ppolicy status` did not name the problem: {_database(status.printed)}")

    def _compare(self, outcome, load):
        """
        What was acknowledged is in the database, and the server knows it.
        """
        if self.forgets:
            return
        try:
            there = self.rows()
        except (sqlite3.Error, OSError) as error:
            outcome.wrong.append(f"the database cannot be read afterwards: {error}")
            return
        lost = [one for one in load.known if one.recipient not in there]
        if lost:
            outcome.wrong.append(f"{len(lost)} of {len(load.known)} acknowledged triplets are not in the database")
        verdicts = Counter()
        with Wire(self.server.address) as wire:
            for one in random.sample(load.known, min(40, len(load.known))):
                verdicts[load.ask(wire, one)] += 1
        if set(verdicts) != {"right"}:
            outcome.wrong.append(f"acknowledged triplets, asked for again: {dict(verdicts)}")


def rss(server):
    """
    Bytes of memory that the server has in use.
    """
    fields = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii").split()
    return int(fields[fields.index("VmRSS:") + 1]) * 1024


def _counted(answers):
    counts = Counter(one.verdict.partition(":")[0] for one in answers)
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "none"


def _wrong(answers):
    return Counter(one.verdict for one in answers if one.verdict not in ("right", "unknown")).most_common(3)


def _database(printed):
    return " ".join(printed.partition("database:")[2].split())[:200]
