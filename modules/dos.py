"""
Does somebody send too much?
"""

from collections.abc import Callable
from math import isfinite
from typing import Any, Literal

from ppolicy.check import parameter
from ppolicy.counts import answered, chargeOf, subjectOf
from ppolicy.errors import BackendError, ParamError
from ppolicy.limitcheck import LENGTH, TROUBLE, LimitCheck
from ppolicy.limits import Bucket, Charge, Limits, Return, Window, parse

# Different limits that functions and policies may come with, until all are made again.
_KNOWN = 1000
_COUNTED = ("DATA", "END-OF-MESSAGE")


class LimitInfo(list):
    """
    [(key, sum), …] as ppolicy 2.7 had it, and more.

    @ivar limit, seconds: the limit that was passed: so much in so many seconds; None when none was.
    @ivar remaining: what is left of the tightest limit.
    @ivar retryAfter: seconds until the same would pass, if nothing else comes; infinity: never.
    @ivar soft: the count of the soft limit that was passed, else None.
    @ivar reason: why nothing could be counted, else None.
    """

    limit = seconds = remaining = soft = reason = None
    retryAfter = 0.0

    @staticmethod
    def failed(reason):
        """
        One that says why there is nothing.
        """
        info = _NothingCounted()
        info.reason = reason
        return info


class _NothingCounted(LimitInfo):
    def __repr__(self):
        return self.reason


class DOS(LimitCheck):
    """
    Counts the requests that have some attributes in common, and tells when there are too many in a period: a user
    whose password was stolen, a client that floods us, a program in a loop. It counts and never refuses: that is
    for the policy.

    `limits` has one or several periods: with [(10, 60), (150, 86400)] ten requests in a minute pass, and 150 in a
    day; the next one is over. A request that is over one limit counts in none (unless `countOver`), so who goes on
    trying is heard again as soon as there is room. Without `limits` there is one of `limitCount` in `limitTime`
    seconds. A period may begin at any moment. Requests within a part of it, one of `limitGran`, leave it together,
    when the last of them does, so never more than the limit pass in any period. With `algorithm` 'bucket' each
    limit is a token bucket instead: `burst` at once (by default as many as the limit has), then evenly.

    `limits` may be a function of yours: (data) -> limits, [] for no limit, None for `limitCount`. `limitsFor` has
    limits for single keys. Or the policy gives them, from a list for instance, as a text such as
    '10/60s 150/1d' (units are s, min, h and d) or 'unlimited': factory.check('dos', data, limits=row[0]).

    What is empty counts together as well: with `params` 'sasl_username' all mail without a login, unless `logins`
    leaves it out; with 'sender' all bounces, unless `limitsFor` gives '' no limit.

    What is counted is `weight`: requests, recipients (at DATA or END-OF-MESSAGE, where Postfix tells how many
    there are; before that each request is one), bytes (at END-OF-MESSAGE, before that what the client says), or
    a function (data) -> number. With `oncePerMessage` only the first recipient of a mail counts.

    Mail that is refused afterwards need not count: factory.check('dos', data, 'giveBack') takes back what this
    recipient was charged; at DATA and END-OF-MESSAGE what the whole mail was charged.

    All counts are in the database, survive restarts and are shared by the hosts that share it. In an embedded
    database a crash may forget the last second of them, unless `writeBehind` is False.

    Check arguments:
        data ... the request
        operation ... 'giveBack': take back what was charged for it
        limits ... instead of the parameters: [(count, seconds), ...], a text, or None

    Check returns:
        1 .... over a limit; giveBack: something was given back
        0 .... unknown: the database does not answer; see `onError`
        -1 ... below all limits, or not limited at all
        information: a list [(key, sum), ...] with the attributes limit, seconds, remaining, retryAfter, soft and
            reason; retryAfter is the number of seconds until the same would pass

    Examples:
        # 1000 requests in an hour from one sender; bounces without a limit
        modules['dos1'] = ('DOS', {'params': 'sender', 'limitsFor': {'': []}})
        # users who have logged in: ten mails a minute and 150 a day, a report from 100 a day on
        modules['dos2'] = ('DOS', {'params': 'sasl_username', 'logins': True, 'softLimits': [(100, 86400)],
                                   'limits': [(10, 60), (150, 86400)], 'oncePerMessage': True})
        # recipients by the registered domain of the sender, asked at DATA; one domain may do more
        modules['dos3'] = ('DOS', {'params': 'registered_domain:sender', 'weight': 'recipients',
                                   'limits': [(500, 3600)],
                                   'limitsFor': {'': [], 'example.com': [(5000, 3600)]}})
        # one request a second from a network, 60 at once, counted in memory
        modules['dos4'] = ('DOS', {'params': 'network:client_address', 'limits': [(60, 60)],
                                   'algorithm': 'bucket', 'memory': True, 'trusted': ['192.0.2.0/24']})
    """

    limitCount: float = parameter(1000, "so many requests in limitTime seconds pass", minimum=0)
    limitTime: float = parameter(3600, "seconds of the period", minimum=0.001)
    limitGran: int = parameter(
        10, "parts of a period; more are more exact and take more room", minimum=1, maximum=100
    )
    limits: list[tuple[float, float]] | str | Callable | None = parameter(
        None, "[(count, seconds), ...] or a text, or a function (data); instead of limitCount and limitTime"
    )
    limitsFor: dict[Any, Any] = parameter({}, "{key: limits} for single keys; [] is no limit")
    softLimits: list[tuple[float, float]] = parameter([], "limits that are only reported, in info.soft")
    algorithm: Literal["window", "bucket"] = parameter("window", "a sliding window, or a token bucket")
    burst: float | None = parameter(None, "what a bucket holds, by default the count of its limit", minimum=0)
    weight: Literal["requests", "recipients", "bytes"] | Callable = parameter("requests", "what is counted")
    perRecipient: bool = parameter(True, "False: at DATA and END-OF-MESSAGE count 1/recipient_count")
    oncePerMessage: bool = parameter(False, "count each mail once, by its instance")
    countOver: bool = parameter(False, "also count what is over the limit")
    table: str = parameter("limits", "table of the counts")

    once = True

    def start(self):
        self.open(self.table)
        self._known = {}
        if self.algorithm == "bucket" and self.burst == 0:
            raise ParamError("burst must be more than 0")
        soft = [(float(count), float(seconds)) for count, seconds in self.softLimits]
        self._soft = self._made("softLimits", lambda: [Window(*one, self.limitGran) for one in positive(soft)])
        self._byDefault = self._made("limitCount", lambda: self._limits([(self.limitCount, self.limitTime)]))
        if self.limits is not None and not callable(self.limits):
            self._byDefault = self._made("limits", lambda: self._limits(self.limits))
        self._byKey = {
            key if self.caseSensitive else _lower(key): self._made("limitsFor", lambda one=one: self._limits(one))
            for key, one in self.limitsFor.items()
        }
        self._bySubject = {subjectOf(key): one for key, one in self._byKey.items()}
        # In memory nothing waits, and what was answered is known here already.
        self.once = not self.memory
        self._isSimple = self.weight == "requests" and self.perRecipient
        isGeneral = self._byDefault.isUsual and not self._byKey and not callable(self.limits)
        self._isQuick = self._counts.isOwn and self._isSimple and isGeneral and self._only is not None

    def _made(self, name, make):
        try:
            return make()
        except (BackendError, ValueError) as error:
            raise ParamError(f"{name}: {error}") from None

    def _limits(self, given):
        """
        The L{Limits} that are meant; those given often are made once.

        @raises BackendError: when it is none.
        """
        try:
            entries = parse(given) if isinstance(given, str) else given or ()
            entries = tuple((float(count), float(seconds)) for count, seconds in entries)
            return self._known.get(entries) or self._new(entries)
        except TypeError:
            raise BackendError(f"{given!r:.100} are no limits, such as [(10, 60)] or '10/60s 150/1d'") from None
        except ValueError as error:
            units = "; units are s, min, h and d" if isinstance(given, str) else ""
            raise BackendError(f"{given!r:.100} are no limits: {error}{units}") from None

    def _given(self, limits):
        """
        The limits that a function or the policy came with, from a list perhaps. Wrong ones are none, so they are
        told.
        """
        try:
            return self._limits(limits)
        except BackendError as error:
            self.complain(str(error))
            raise

    def _new(self, entries):
        if self.algorithm == "bucket":
            made = [Bucket(*one, self.burst or one[0]) for one in positive(entries, 1e-9)]
        else:
            made = [Window(*one, self.limitGran) for one in positive(entries)]
        if len(self._known) >= _KNOWN:
            self._known.clear()
        found = self._known[entries] = Limits(made, self._soft if made else ())
        return found

    def check(self, data, operation=None, limits=None):
        if operation == "giveBack":
            return self._giveBack(data)
        if operation is not None:
            raise ValueError(f"there is no operation {operation!r}, only 'giveBack'")
        if self._isPartial and not self.concerns(data):
            return -1, LimitInfo()
        if limits is None and callable(self.limits):
            limits = self.limits(data)
        mails, instance = self._counts.mails, data.get("instance")
        mail = mails.get(instance) if instance else None
        if mail is not None and not self.once and (answer := answered(mail, data)) is not None:
            return answer if answer.__class__ is tuple else (-1, _room(*answer))
        try:
            if mail is None and self._isQuick and limits is None:
                answer = self._quickly(data, instance)
                if answer is not None:
                    return answer
            default = self._byDefault if limits is None else self._given(limits)
            answer, charges = self._charge(data, mail, default, self._byKey if limits is None else {})
        except TROUBLE as error:
            return self.onError, LimitInfo.failed(f"nothing can be counted: {error}")
        if instance:
            mails.note(instance, data, answer, charges)
        return answer

    def _quickly(self, data, instance):
        """
        What nearly every request gets where no other host counts, without all that might be.

        @return: the answer, or None where it takes more; then nothing was counted.
        """
        key = data.get(self._only)
        if key.__class__ is not str or len(key) > LENGTH:
            return None
        if not self.caseSensitive:
            key = key.lower()
        found = self._counts.change(key, self._byDefault)
        if found is None:
            return None
        total, left, now = found
        if instance:
            self._counts.mails.noteOne(instance, data, left, (key, None, 1, now, total))
        return -1, _room(key, total, left)

    def _charge(self, data, mail, default, byKey):
        """
        @param mail: what was noted of this mail before.
        @param default: the limits of keys that have none of their own in C{byKey}.
        @return: (the answer, what was charged, (key, limits, n, when, sum) of each key).
        """
        n = 1 if self._isSimple else self._weight(data)
        countsOver, isNoticed = self.countOver, self._notices is not None
        charges, sums, worst = [], [], None
        for key in self.keys(data):
            limits = byKey.get(key, default) if byKey else default
            if not limits.lives:
                continue
            if self.oncePerMessage and mail is not None and (known := chargeOf(mail, key)) is not None:
                charges.append(known)
                sums.append((key, known[4]))
                continue
            told, when, notifies = self._counts.change(key, Charge(limits, n, countsOver, isNoticed))
            over, total = told[0], told[2]
            if over is None or countsOver:
                charges.append((key, limits, n, when, total))
            sums.append((key, total))
            if worst is None or _isWorse(told, worst):
                worst = told
            if notifies:
                self.tell(key, _info([(key, total)], told), data)
        if worst is None:
            return (-1, LimitInfo(sums)), charges
        info = _info(sums, worst)
        if worst[0] is None:
            return (-1, info), charges
        if charges and not countsOver:  # what one key was charged before another one was over
            self._return([one for one in charges if mail is None or chargeOf(mail, one[0]) != one])
            charges = []
        return (1, info), charges

    def _return(self, charges):
        for key, limits, n, when, _ in charges:
            self._counts.change(key, Return(limits or self._byDefault, n, when))

    def _weight(self, data):
        recipients = 0
        if data.get("protocol_state") in _COUNTED:
            recipients = _number(data.get("recipient_count"))
        if self.weight == "requests":
            n = 1
        elif self.weight == "recipients":
            n = recipients or 1
        elif self.weight == "bytes":
            n = _number(data.get("size"))
        else:
            n = self.weight(data)
            if not isinstance(n, int | float) or not isfinite(n):  # no sum could be made of it, or none ever again
                raise ValueError(f"weight must return a number, not {n!r:.100}")
        return n if self.perRecipient or not recipients else n / recipients

    def _giveBack(self, data):
        instance = data.get("instance")
        if not instance:
            return -1, LimitInfo.failed("there is no instance to tell mails apart")
        isWhole = data.get("protocol_state") in _COUNTED
        charges = self._counts.mails.take(instance, None if isWhole else data.get("recipient", ""))
        try:
            self._return(charges)
        except TROUBLE as error:
            return 0, LimitInfo.failed(f"nothing can be given back: {error}")
        return (1 if charges else -1), LimitInfo([(key, n) for key, _, n, _, _ in charges])

    # Commands

    def described(self, subject, row, now):
        limits = self._bySubject.get(subject, self._byDefault)
        told = limits.shown(row, now)
        return {
            "key": subject,
            "sum": ", ".join(f"{used:g}" for used, _, _ in told),
            "limit": ", ".join(f"{count:g} in {seconds:g} s" for _, count, seconds in told),
            "state": "full" if any(used >= count for used, count, _ in told[: len(limits.hard)]) else "below",
        }


def _room(key, total, left):
    info = LimitInfo(((key, total),))
    info.remaining = left
    return info


def _info(sums, told):
    over, soft, _, remaining, after, _ = told
    info = LimitInfo(sums)
    info.remaining = remaining
    if over is not None:
        info.limit, info.seconds, info.retryAfter = over.count, over.seconds, after
    if soft is not None:
        info.soft = soft.count
    return info


def _isWorse(one, other):
    return (one[0] is not None, one[4], -one[3]) > (other[0] is not None, other[4], -other[3])


def _lower(key):
    return tuple(map(str.lower, key)) if isinstance(key, tuple) else str(key).lower()


def _number(text):
    try:
        return max(0, int(text))
    except (TypeError, ValueError):
        return 0


def positive(entries, least=0.0):
    """
    Limits as they may be: a count of at least C{least}, and some time.

    @raises ValueError: when one is not so.
    """
    for count, seconds in entries:
        if not (least <= count < 1e15 and 0 < seconds < 1e10):
            raise ValueError(f"({count:g}, {seconds:g}) is no limit")
    return entries
