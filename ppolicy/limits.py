"""
Limits: how much of something may happen in a period, and what has to be remembered to tell.

What is remembered of a key is a row, a list that JSON can hold: C{[forms, noticed, state, …]}, with one state for
each limit and its form beside it. Times are milliseconds since 1970. A row is changed as a whole, so that several
limits are charged together or not at all.
"""

import math
import re

# What sums of fractions may be off.
_SLACK = 1e-6
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Window:
    """
    So much in each period, wherever that begins. What happens within a fraction of the period is one entry, which
    counts until its last event is a period old: a sum is never too small, and of a few events it is exact.

    Its state is C{[sum, begin of the youngest entry, last, amount, last, amount, …]}, the youngest entry first.

    @param slots: into how many parts the period is divided.
    """

    def __init__(self, count, seconds, slots):
        self.count = count
        self.seconds = seconds
        self._most = count + _SLACK
        self._period = max(1, int(seconds * 1000))
        self._width = self._period / slots
        self.form = self._period
        self.lives = seconds
        self.numbers = self._period, self._width, self._most, count

    def begin(self):
        """
        The state of a key that nothing is known of.
        """
        return [0, 0, 0, 0]

    def fits(self, state, n, now):
        """
        May C{n} more happen?
        """
        if state[-2] <= now - self._period or state[2] > now:
            self._forget(state, now)
        return state[0] + n <= self._most

    def _forget(self, state, now):
        """
        Drop what is a period old. Where the clock was set back, what was counted counts on.
        """
        step = state[2] - now
        if step > 0:
            state[1] -= step
            for place in range(2, len(state), 2):
                state[place] -= step
        oldest = now - self._period
        while len(state) > 4 and state[-2] <= oldest:
            state[0] -= state[-1]
            del state[-2:]
        if state[-2] <= oldest:
            state[:] = 0, 0, 0, 0

    def charge(self, state, n, now):
        """
        Count C{n}, after C{fits}.
        """
        state[0] += n
        if now - state[1] < self._width:
            state[2] = now
            state[3] += n
        else:
            state[1] = now
            if len(state) == 4 and not state[3]:
                state[2:] = now, n
            else:
                state[2:2] = now, n

    def giveBack(self, state, n, when, now):
        """
        Take back C{n} that was counted at that time; what has expired meanwhile is gone already.
        """
        if not now - self._period < when <= now:
            return
        for place in range(len(state) - 2, 0, -2):
            if state[place] >= when:
                returned = min(n, state[place + 1])
                state[place + 1] -= returned
                state[0] -= returned
                return

    def used(self, state, now):
        """
        What counts at present, after C{fits}.
        """
        return state[0]

    def after(self, state, n, now):
        """
        Seconds until C{n} more would fit, if nothing else happens; infinity when it is more than the limit.
        """
        needed = state[0] + n - self._most
        if n > self._most:
            return math.inf
        for place in range(len(state) - 2, 0, -2):
            if needed <= 0:
                break
            needed -= state[place + 1]
            if needed <= 0:
                return (state[place] + self._period - now) / 1000
        return 0.0


class Bucket:
    """
    A token bucket: it holds C{burst} and gets C{count} new ones in each period, evenly. By the generic cell rate
    algorithm (ITU-T I.371) its state is one number, the time when it is full again.
    """

    def __init__(self, count, seconds, burst):
        self.count = burst
        self.seconds = seconds
        self._cost = seconds * 1000 / count
        self._depth = burst * self._cost
        self._most = self._depth + max(1e-2, self._depth * 1e-9)
        self.form = -max(1, int(seconds * 1000))
        self.lives = self._depth / 1000

    def begin(self):
        return [0]

    def fits(self, state, n, now):
        state[0] = min(max(state[0], now), now + self._depth)
        return state[0] - now + n * self._cost <= self._most

    def charge(self, state, n, now):
        state[0] += n * self._cost

    def giveBack(self, state, n, when, now):
        state[0] -= n * self._cost

    def used(self, state, now):
        return round(max(0.0, state[0] - now) / self._cost, 3)

    def after(self, state, n, now):
        if n * self._cost > self._most:
            return math.inf
        return max(0.0, state[0] - now + n * self._cost - self._depth) / 1000


class Limits:
    """
    Several limits of one key.

    @param hard, soft: L{Window}s and L{Bucket}s; those of C{soft} are only reported.
    @ivar forms: of all of them, as they stand in a row.
    @ivar isUsual: may L{room} be asked, and these limits be called?
    """

    def __init__(self, hard, soft=()):
        self.hard = tuple(hard)
        self.soft = tuple(soft)
        self._all = (*self.hard, *self.soft)
        self.forms = [limit.form for limit in self._all]
        # What the usual case needs of each, looked up once.
        self.isUsual = bool(hard) and not soft and all(isinstance(limit, Window) for limit in self.hard)
        self._usual = tuple(limit.numbers for limit in self.hard) if self.isUsual else ()
        self.lives = max((max(limit.lives, limit.seconds) for limit in self._all), default=0)

    def row(self, row):
        """
        A row as these limits need it; what others have counted in the same way is kept.
        """
        if row is not None and row[0] == self.forms:
            return row
        known = {} if row is None else dict(zip(row[0], row[2:], strict=True))
        return [
            self.forms,
            0 if row is None else row[1],
            *(known.pop(limit.form, None) or limit.begin() for limit in self._all),
        ]

    def charge(self, row, n, countsOver, now):
        """
        Count C{n} in a row, unless that is over a limit.

        @param countsOver: count it in any case.
        @return: (the first limit that is over or None, the first soft one or None, sum, remaining, seconds until
            it would fit, has the row changed): the sum is that of the limit which is over, else of the first;
            with C{n} in it.
        """
        if self.isUsual and (left := self.room(row, n, now)) is not None:
            return None, None, row[2][0], left, 0.0, True
        states = row[2:]
        before = [state.copy() for state in states]
        over = soft = None
        for place, limit in enumerate(self.hard):
            if not limit.fits(states[place], n, now) and over is None:
                over, which = limit, place
        for place, limit in enumerate(self.soft, len(self.hard)):
            if not limit.fits(states[place], n, now) and soft is None:
                soft = limit
        after = 0.0
        if over is not None:
            total = over.used(states[which], now) + n
            after = max(limit.after(state, n, now) for limit, state in zip(self.hard, states, strict=False))
        if over is None or countsOver:
            for limit, state in zip(self._all, states, strict=True):
                limit.charge(state, n, now)
        if over is not None:
            # Also what has expired, and above all that a clock was set back, is a change.
            return over, soft, total, 0, after, states != before
        left = math.inf
        for limit, state in zip(self.hard, states, strict=False):
            left = min(left, limit.count - limit.used(state, now))
        return None, soft, self._all[0].used(states[0], now), max(0, left), after, True

    def __call__(self, row, now):
        """
        One step on a row: count 1, as nearly every request does.

        @return: (the row, was it changed, (sum, remaining, now) or None: it takes a L{Charge}).
        """
        if row is None or row[0] is not self.forms:
            row = self.row(row)
        left = self.room(row, 1, now)
        return (row, False, None) if left is None else (row, True, (row[2][0], left, now))

    def room(self, row, n, now):
        """
        Charge windows all of which have room, and of which nothing expires: what nearly every request finds.

        @return: what is left of the tightest; None when it is not so, and nothing was charged.
        """
        place = 1
        left = math.inf
        for period, _, most, count in self._usual:
            place += 1
            state = row[place]
            total = state[0] + n
            if total > most or state[2] > now or (state[-2] <= now - period and state[0]):
                return None
            if count - total < left:
                left = count - total
        place = 1
        for _, width, _, _ in self._usual:
            place += 1
            state = row[place]
            state[0] += n
            if now - state[1] < width:
                state[2] = now
                state[3] += n
            elif state[0] == n:
                state[1:] = now, now, n
            else:
                state[1] = now
                state[2:2] = now, n
        return left if left > 0 else 0

    def giveBack(self, row, n, when, now):
        """
        Take back what was charged at that time. The row may have become one of other limits since: what they have
        counted stays.
        """
        limits = {limit.form: limit for limit in self._all}
        for form, state in zip(row[0], row[2:], strict=True):
            if form in limits:
                limits[form].giveBack(state, n, when, now)

    def shown(self, row, now):
        """
        [(sum, count, seconds)] for people.
        """
        row = self.row(row)
        told = []
        for limit, state in zip(self._all, map(list, row[2:]), strict=True):  # nobody asks for a change
            limit.fits(state, 0, now)
            told.append((limit.used(state, now), limit.count, limit.seconds))
        return told


class Charge:
    """
    One step on a row: count something.

    @ivar isNoticed: note, once in a period, that a hard limit was passed, and likewise a soft one.
    """

    __slots__ = ("countsOver", "isNoticed", "limits", "n")

    def __init__(self, limits, n, countsOver, isNoticed):
        self.limits = limits
        self.n = n
        self.countsOver = countsOver
        self.isNoticed = isNoticed

    def __call__(self, row, now):
        """
        @return: (the row, was it changed, what L{Limits.charge} says, (now, is it to be notified)).
        """
        limits = self.limits
        row = limits.row(row)
        told = limits.charge(row, self.n, self.countsOver, now)
        passed = told[0] or told[1]
        changed, notifies = told[5], False
        if self.isNoticed and passed is not None:
            # Until when one of the hard limits, and a soft one, is known to be passed: who has been warned is told
            # all the same what is refused.
            until = [*row[1]] if row[1].__class__ is list else [row[1], row[1]]
            place = 0 if told[0] is not None else 1
            if not now < until[place] <= now + limits.lives * 1000:
                until[place] = now + int(passed.seconds * 1000)
                row[1] = until
                changed = notifies = True
        return row, changed, (told, now, notifies)

    @property
    def lives(self):
        return self.limits.lives


class Return:
    """
    One step on a row: take back what was charged at that time.

    @ivar lives: as long as what is in the row counts, whatever limits have counted it.
    """

    __slots__ = ("limits", "lives", "n", "when")

    def __init__(self, limits, n, when):
        self.limits = limits
        self.n = n
        self.when = when
        self.lives = limits.lives

    def __call__(self, row, now):
        if row is None:
            return row, False, False
        self.limits.giveBack(row, self.n, self.when, now)
        for form, state in zip(row[0], row[2:], strict=True):
            # A bucket also counts until it is full.
            self.lives = max(self.lives, abs(form) / 1000, (state[0] - now) / 1000 if form < 0 else 0.0)
        return row, True, True


class Meet:
    """
    One step on a row of another kind, C{[value, last, value, last, …]}: note that a value was met, and tell how
    many different ones there were in a period.

    @param most: so many values are remembered; the one that was not met for longest goes first.
    """

    __slots__ = ("lives", "most", "value")

    def __init__(self, value, seconds, most):
        self.value = value
        self.lives = seconds
        self.most = most

    def __call__(self, row, now):
        """
        @return: (the row, was it changed, (values, was it met first)).
        """
        period = int(self.lives * 1000)
        oldest = now - period
        met = [pair for pair in zip(*[iter(row or ())] * 2, strict=True) if pair[1] > oldest]
        others = [(value, min(last, now)) for value, last in met if value != self.value]
        isNew = len(others) == len(met)
        if row and row[0] == self.value and now - period // 100 <= row[1] <= now:  # not for each mail
            return row, False, ([value for value, _ in met], False)
        kept = [(self.value, now), *others][: self.most]
        return [one for pair in kept for one in pair], True, ([value for value, _ in kept], isNew)


def parse(text):
    """
    Limits as a text: C{10/60s 150/1d}, or with commas; the units are s, min, h and d.

    @return: [(count, seconds)]; none for an empty text and for C{unlimited}.
    @raises ValueError: when it is none.
    """
    if text.strip().lower() == "unlimited":
        return []
    limits = []
    for part in re.split(r"[\s,;]+", text.strip()) if text.strip() else ():
        found = re.fullmatch(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)(s|min|h|d)?", part)
        if found is None:
            raise ValueError(f"{part!r} is no limit, such as 10/60s")
        limits.append((float(found[1]), float(found[2]) * _UNITS[found[3] or "s"]))
    return limits
