"""
From how many places is somebody coming?
"""

from collections.abc import Callable

from ppolicy.check import parameter
from ppolicy.errors import ParamError
from ppolicy.limitcheck import TROUBLE, LimitCheck, bounded
from ppolicy.limits import Meet

# The longest value. A hundred of them fit into a column of the database, which takes 65,535 octets: as JSON a
# character that is not ASCII has up to twelve.
_ASCII, _OTHER = 80, 50


class DistinctInfo(tuple):
    """
    (number, values): how many different values were met, and which, the last one first.

    @ivar isNew: was the present one met for the first time in the period?
    @ivar reason: why nothing is known, else None.
    """

    isNew = False
    reason = None

    @classmethod
    def made(cls, values=(), isNew=False, reason=None):
        """
        One with these values.
        """
        info = cls((len(values), list(values)))
        info.isNew, info.reason = isNew, reason
        return info

    def __repr__(self):
        return self.reason or super().__repr__()


class DistinctLimit(LimitCheck):
    """
    Counts from how many different networks, or countries, a user has written in a period. A password that was
    stolen is soon used from all over the world, long before so many mails have gone out that another limit is
    passed.

    `value` is what is counted: an attribute, 'network:client_address' (the default), 'registered_domain:...', or a
    function (data) -> text, or the policy gives it: factory.check('countries', data, country). With more than
    `limit` different ones within `period` seconds the answer is 1, for all mail of this user, until enough of them
    are so old. Clients in `trusted` networks are not counted.

    Only `maxValues` values are remembered of each user; there are more of them where the number is that. When a
    value was met last is known to a hundredth of the period.

    Check arguments:
        data ... the request
        value ... what is counted, instead of the parameter

    Check returns:
        1 .... more different values than the limit
        0 .... unknown: the database does not answer (see `onError`), or there is no value
        -1 ... no more than the limit, or not limited at all
        information: (number, [value, ...]) with the attribute isNew: is the present value a new one?

    Examples:
        # users who come from more than five networks in a day
        modules['places'] = ('DistinctLimit', {'params': 'sasl_username', 'logins': True, 'limit': 5,
                                               'trusted': ['192.0.2.0/24', '2001:db8::/32']})
        # more than two countries in an hour; the policy tells which one it is
        modules['countries'] = ('DistinctLimit', {'params': 'sasl_username', 'logins': True, 'limit': 2,
                                                  'period': 3600, 'value': 'result_country_info'})
    """

    value: str | Callable = parameter(
        "network:client_address", "what is counted, an attribute or a function (data)"
    )
    limit: int = parameter(5, "so many different values are no more than usual", minimum=1)
    period: float = parameter(86400, "seconds that a value counts after it was met last", minimum=1, maximum=1e9)
    maxValues: int = parameter(
        50, "values that are remembered of each key; more than limit", minimum=2, maximum=100
    )
    table: str = parameter("distinct_limits", "table of the values")
    notify: Callable | None = parameter(
        None, "a function (name, key, info, data), called in a thread for each new value beyond the limit"
    )

    def start(self):
        if self.maxValues <= self.limit:
            raise ParamError(f"maxValues ({self.maxValues}) must be more than limit ({self.limit})")
        self._value = self.reader(self.value, "value")
        self.open(self.table)

    def stop(self):
        self._value = None  # it knows the check
        super().stop()

    def check(self, data, value=None):
        if self._isPartial and not self.concerns(data):
            return -1, DistinctInfo.made()
        found = self._value(data) if value is None else value
        if not isinstance(found, str) or not found:
            return 0, DistinctInfo.made(reason="there is no value to count")
        found = found if self.caseSensitive else found.lower()
        found = bounded(found, _ASCII if found.isascii() else _OTHER)
        worst = None
        try:
            for key in self.keys(data):
                values, isNew = self._counts.change(key, Meet(found, self.period, self.maxValues))
                info = DistinctInfo.made(values, isNew)
                # Once for each place that is one too many, and no more while it stays known.
                if isNew and len(values) > self.limit:
                    self.tell(key, info, data)
                if worst is None or info[0] > worst[0]:
                    worst = info
        except TROUBLE as error:
            return self.onError, DistinctInfo.made(reason=f"nothing can be counted: {error}")
        if worst is None:
            return -1, DistinctInfo.made()
        return (1 if worst[0] > self.limit else -1), worst

    def described(self, subject, row, now):
        oldest = now - self.period * 1000
        values = [value for value, last in zip(*[iter(row)] * 2, strict=True) if last > oldest]
        return {
            "key": subject,
            "number": len(values),
            "limit": f"{self.limit} in {self.period:g} s",
            "state": "over" if len(values) > self.limit else "below",
            "values": ", ".join(values),
        }
