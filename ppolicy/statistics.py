"""
How many requests were answered how, what checks said, and how long it took: in the last minute, since the start.
"""

from bisect import bisect_left
from collections import Counter, deque
from functools import partial
from itertools import chain
from operator import itemgetter

# Upper bounds of the classes of latency, in seconds, 10 us to 100 s: ISO 3 has these ten for each power of ten.
_SERIES = ("1", "1.25", "1.6", "2", "2.5", "3.15", "4", "5", "6.3", "8")
EDGES = (*(float(f"{number}e{power}") for power in range(-5, 2) for number in _SERIES), 100.0)
PERCENTILES = (50, 90, 99, 99.9)
# The last minute, as slices of so many seconds, the last one under way.
SLICE = 5.0
SLICES = 12
# How many different actions, and answers of checks, are told apart.
_ACTIONS = 100
_ANSWERS = 1000
_CODES = 20
OTHER = "other"

_answer = itemgetter(0, 1, 3)
_class = partial(bisect_left, EDGES)


class Counts:
    """
    What happened in some time.

    @ivar actions: {verb in capitals: requests}.
    @ivar checks: {(check name, code, cached): times}; a code is an int, or '>0' or '<0' where it is no small one.
    @ivar latency: how many requests took no longer than each of L{EDGES}, and longer than the one before it;
        the last number is that of the ones that took longer than all.
    @ivar seconds: the time they took together.
    """

    def __init__(self):
        self.requests = 0
        self.actions = {}
        self.checks = {}
        self.latency = [0] * (len(EDGES) + 1)
        self.seconds = self.slowest = 0.0

    def count(self, batch):
        """
        Count requests, given as L{ppolicy.decisions.Decisions} has them. What a loop of Python would do for
        each is done for all by functions in C.
        """
        _, _, steps, replies, seconds = zip(*batch, strict=True)
        self.requests += len(batch)
        for reply, times in Counter(replies).items():
            _add(self.actions, verb(reply), times, _ACTIONS)
        for (name, code, cached), times in Counter(map(_answer, chain.from_iterable(steps))).items():
            _add(self.checks, (name, _code(code), cached), times, _ANSWERS)
        for number, times in Counter(map(_class, seconds)).items():
            self.latency[number] += times
        self.seconds += sum(seconds)
        self.slowest = max(self.slowest, *seconds)

    def merge(self, other):
        """
        Add what another one has counted.
        """
        self.requests += other.requests
        for action, times in other.actions.items():
            _add(self.actions, action, times, _ACTIONS)
        for answer, times in other.checks.items():
            _add(self.checks, answer, times, _ANSWERS)
        self.latency = [one + more for one, more in zip(self.latency, other.latency, strict=True)]
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)

    def percentile(self, percent):
        """
        Seconds within which so many percent of the requests were answered, as exact as L{EDGES} are.
        """
        wanted = self.requests * percent / 100
        seen = 0
        for number, edge in zip(self.latency, EDGES, strict=False):
            seen += number
            if seen >= wanted:
                return min(edge, self.slowest)
        return self.slowest

    def described(self, seconds):
        """
        As a dictionary for people, of so many seconds.
        """
        checks = {}
        for (name, code, cached), times in sorted(self.checks.items(), key=str):
            one = checks.setdefault(name, {"asked": 0, "fromCache": 0, "codes": {}})
            one["asked"] += times
            one["fromCache"] += times * cached
            one["codes"][str(code)] = one["codes"].get(str(code), 0) + times
        return {
            "seconds": round(seconds),
            "requests": self.requests,
            "perSecond": round(self.requests / seconds, 1) if seconds >= 1 else self.requests,
            "actions": dict(sorted(self.actions.items(), key=lambda item: -item[1])),
            "milliseconds": {
                **{f"p{percent}": round(self.percentile(percent) * 1000, 3) for percent in PERCENTILES},
                "slowest": round(self.slowest * 1000, 3),
            },
            "checks": checks,
        }


class Statistics:
    """
    @param now: the present time of the clock whose times L{count} gets.
    """

    def __init__(self, now):
        self._begun = now
        self._past = Counts()
        self._slices = deque([(now // SLICE, Counts())])

    def count(self, batch, now):
        """
        Count requests that were answered just now.
        """
        self._turn(now)
        self._slices[-1][1].count(batch)

    def _turn(self, now):
        slices, number = self._slices, now // SLICE
        if number > slices[-1][0]:
            slices.append((number, Counts()))
        while slices[0][0] <= number - SLICES:
            self._past.merge(slices.popleft()[1])

    def total(self):
        """
        The L{Counts} since the start.
        """
        return _together([self._past, *(counts for _, counts in self._slices)])

    def described(self, now):
        """
        {"minute": …, "start": …}.
        """
        self._turn(now)
        minute = _together(counts for _, counts in self._slices)
        since = max(self._begun, (now // SLICE - SLICES + 1) * SLICE)
        return {
            "minute": minute.described(now - since),
            "start": self.total().described(now - self._begun),
        }


def verb(reply):
    """
    The action of a reply without its text, in capitals.
    """
    words = reply[len(b"action=") :].split(None, 1)
    return words[0].decode("utf-8", "replace").partition(",")[0].upper() if words else ""


def _code(code):
    if code.__class__ is int and -_CODES <= code <= _CODES:
        return code
    if -_CODES <= code <= _CODES and code == int(code):  # True, 1.0
        return int(code)
    return ">0" if code > 0 else "<0" if code < 0 else 0


def _add(counts, key, times, bound):
    if key not in counts and len(counts) >= bound:
        key = (OTHER, OTHER, False) if isinstance(key, tuple) else OTHER
    counts[key] = counts.get(key, 0) + times


def _together(parts):
    total = Counts()
    for part in parts:
        total.merge(part)
    return total
