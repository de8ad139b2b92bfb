"""
What was decided about each request, for all who want to know: statistics, the log, the history, followers.

A request adds its decision to a list and is done. The list is settled in portions, after the replies are sent: in
a loop, and with much of it in C, that takes a fraction of what it would take between one request and the next.

A decision is (when, fields, steps, reply, seconds): the time of day it was made, the values of the attributes
L{NAMES}, the checks as in L{ppolicy.policy.Factory}, the octets sent to Postfix, and the seconds it took.
"""

import time
from itertools import islice
from math import isfinite
from operator import itemgetter

from twisted.logger import Logger

from ppolicy.history import LONGEST, History, packedBriefly
from ppolicy.logs import asText, logFailure
from ppolicy.statistics import Statistics

log = Logger()

# The attributes of a request that are remembered.
NAMES = (
    *("instance", "queue_id", "client_address", "sender", "recipient"),
    *("protocol_state", "client_name", "helo_name", "sasl_username"),
)
# Others by which somebody could be known: with privacy they are looked for in texts.
FURTHER = (
    *("reverse_client_name", "etrn_domain", "sasl_sender"),
    *("ccert_subject", "ccert_issuer", "ccert_fingerprint", "ccert_pubkey_fingerprint"),
)
# What of long ones is kept: checks of a decision; elements of an information, and how deep they are nested.
_STEPS = 100
_ELEMENTS = 100
_DEPTH = 3
_LARGEST = 2**64
_NUMBERS = frozenset((type(None), bool, int, float))
_SIMPLE = _NUMBERS | {str, tuple, list, dict}
# Decisions that are settled together, and the seconds after which fewer are.
PORTION = 32
AFTER = 0.1


class Decisions:
    """
    @ivar statistics: a L{Statistics}.
    @ivar history: a L{History}.
    @ivar log: a L{ppolicy.requestlog.RequestLog}, or None.
    @ivar followers: others with a method C{follow}, which gets a list of decisions, and another of what may be
        shown of them.
    @ivar privacy: None, or a L{ppolicy.privacy.Privacy} that decides what may be shown.
    """

    def __init__(self, reactor, historySize=0):
        self._reactor = reactor
        self._pending = []
        self._due = False
        self._offset = 0.0
        self._names = NAMES
        self._fields = itemgetter(*NAMES)
        self.statistics = Statistics(reactor.seconds())
        self.history = History(historySize)
        self.log = None
        self.followers = []
        self.privacy = None

    def add(self, data, steps, reply, ended, seconds):
        """
        Note one decision.

        @param ended: when, by the reactor's clock.
        """
        if not self._due:
            self._due = True
            self._reactor.callLater(AFTER, self._late)
            # Read again and again, as the clock may be set.
            self._offset = time.time() - self._reactor.seconds()
        # The request itself is not kept: a new one then finds its memory still in the processor's cache.
        try:
            fields = self._fields(data)
        except KeyError:
            fields = tuple([data.get(name, "") for name in self._names])
        self._pending.append((ended + self._offset, fields, steps, reply, seconds))

    def conceal(self, privacy):
        """
        Show from now on what a L{ppolicy.privacy.Privacy} leaves, or with None everything. The history forgets
        what it was told without privacy.
        """
        self.settle()
        if privacy is not None and self.privacy is None and len(self.history):
            self.history.clear()
            log.info("privacy begins: `ppolicy why` looks no further back than this")
        self.privacy = privacy
        self._names = NAMES if privacy is None else (*NAMES, *FURTHER)
        self._fields = itemgetter(*self._names)

    def _late(self):
        self._due = False
        self.settle()

    def settleMany(self):
        """
        Settle them if there are many.
        """
        if len(self._pending) >= PORTION:
            self.settle()

    def settle(self):
        """
        Hand on what was decided so far.
        """
        decisions, self._pending = self._pending, []
        if not decisions:
            return
        try:
            self._handOn(decisions)
        except Exception:  # noqa: BLE001 - what cannot be told must keep no request from its answer
            logFailure(log, "decisions could not be told")

    def _handOn(self, decisions):
        shown = decisions if self.privacy is None else list(map(self.privacy.conceal, decisions))
        for _, _, steps, _, _ in shown:
            for place, step in enumerate(steps):
                if type(step[4]) not in _SIMPLE:  # a class of its check's own, mostly
                    steps[place] = *step[:4], _told(step[4])
        packed = packedBriefly(shown)
        if packed is None:
            shown = list(map(_bounded, shown))
        self.statistics.count(shown, self._reactor.seconds())
        self.history.add(shown, packed)
        if self.log is not None:
            self.log.follow(shown)
        for follower in list(self.followers):
            follower.follow(decisions, shown)


def described(decision):
    """
    A decision as a dictionary, of what JSON has only.
    """
    when, fields, steps, reply, seconds = decision
    return {
        "time": when,
        **dict(zip(NAMES, map(asText, fields), strict=True)),
        "steps": describedSteps(steps),
        "action": reply[len(b"action=") : -2].decode("utf-8", "replace"),
        "ms": round(seconds * 1000, 1),
    }


def describedSteps(steps):
    """
    The checks that were asked, as dictionaries.
    """
    return [
        {"name": name, "code": plain(code), "info": plain(info), "ms": round(took * 1000, 1), "cached": cached}
        for name, code, took, cached, info in steps
    ]


def plain(value, depth=_DEPTH):
    """
    What a check has given, whatever it is, as JSON can say it; bounded, but for long texts.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if (kind is int and -_LARGEST < value < _LARGEST) or (kind is float and isfinite(value)):
        return value
    if kind in (list, tuple) and depth:
        return kind([plain(one, depth - 1) for one in value[:_ELEMENTS]])
    if isinstance(value, tuple) and hasattr(kind, "_fields") and depth:  # a named tuple
        return [plain(one, depth - 1) for one in tuple(value)[:_ELEMENTS]]
    if kind is dict and depth:
        return {asText(name): plain(one, depth - 1) for name, one in islice(value.items(), _ELEMENTS)}
    return shortened(value)


def _told(info):
    """
    A simple value, often a text, for an information that is none.
    """
    kind = type(info)
    for plainKind in (tuple, list):
        if issubclass(kind, plainKind) and kind.__repr__ is plainKind.__repr__:
            return plainKind.__getitem__(info, slice(None))  # a plain one, whatever its class makes of it
    return shortened(info)


def _bounded(decision):
    """
    The same with no long value, and of Python's own classes only.
    """
    when, fields, steps, reply, seconds = decision
    return (
        when,
        tuple(map(shortened, fields)),
        [
            (shortened(name), _number(code), took, cached, _information(info))
            for name, code, took, cached, info in steps[:_STEPS]
        ],
        reply,
        seconds,
    )


def _number(code):
    try:
        return int.__int__(code) if isinstance(code, int) else float.__float__(code)
    except TypeError:  # it only pretends to be one
        return 0


def _information(info):
    return info if type(info) in _NUMBERS else shortened(info)


def shortened(value):
    """
    Any value as a text of at most L{LONGEST} characters.
    """
    text = asText(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
