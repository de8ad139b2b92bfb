"""
Have we met this sender, recipient and client before?
"""

from math import ceil

from ppolicy.check import Check, parameter
from ppolicy.errors import BackendError, ParamError


class Greylist(Check):
    """
    Greylisting defers the first mail of a sender, recipient and client that were not met together before (a
    triplet). A mail server tries again after a while, and then passes; much of what sends spam never does
    (RFC 6647). Mail is only delayed by this, never lost.

    A new triplet has to wait for `delay` seconds and is forgotten unless it comes back before `mustRetry`.
    Once passed it is known for `expiration` seconds after its last mail.

    Ask at RCPT, and not for mail of your own users. Mail to postmaster is never greylisted (RFC 5321, 4.5.1).

    Check arguments:
        data ... the request; sender, recipient and client_address are used

    Check returns:
        2 .... mail for postmaster, not greylisted
        1 .... the triplet has passed before, or passes now; information: (text, seconds it stays known)
        0 .... unknown: the database does not answer
        -1 ... greylisting in progress; information: ('greylisting in progress: 600s', 600)
        -2 ... the sender is no mail address
        information: always (text, seconds)

    Examples:
        # defer for ten minutes, remember for a month
        modules['greylist'] = ('Greylist', {})
        # a table of its own, a short delay, triplets known for a year
        modules['greylist_fast'] = ('Greylist', {'table': 'grey', 'delay': 60,
                                                 'expiration': 86400 * 365})
    """

    table: str = parameter("greylist", "table of the triplets")
    delay: float = parameter(600, "seconds a new triplet has to wait", minimum=0)
    mustRetry: float = parameter(43200, "seconds within which a new triplet has to come back", minimum=1)
    expiration: float = parameter(2678400, "seconds a triplet is known after its last mail", minimum=1)
    writeBehind: bool = parameter(
        True, "answer before the triplet is on disk: a crash may forget the last second, a clean stop nothing"
    )
    cachePositive: float = parameter(86400, "seconds a triplet that passed is kept in the cache", minimum=0)
    cacheUnknown: float = parameter(30, "seconds a database failure is kept in the cache", minimum=0)
    cacheNegative: float = parameter(0, "not used: a triplet that waits is looked up each time", minimum=0)

    once = True

    def start(self):
        if self.mustRetry <= self.delay:
            raise ParamError(f"mustRetry ({self.mustRetry:g}) must be longer than delay ({self.delay:g})")
        self._triplets = self.state.table(self.table, ("sender", "recipient", "client_address"))

    def hashArg(self, data):
        return (
            data.get("sender", "").lower(),
            data.get("recipient", "").lower(),
            data.get("client_address", "").lower(),
        )

    def check(self, data):
        triplet = sender, recipient, _ = self.hashArg(data)
        if recipient == "postmaster" or recipient.startswith("postmaster@"):
            return 2, ("mail to postmaster is not greylisted", 0)
        if sender and "@" not in sender:  # the empty sender is valid, it brings bounces
            return -2, ("the sender is no mail address", 0)
        try:
            now, first, _, _, expires = self._triplets.touch(
                triplet,
                ttl=self.expiration,
                firstTtl=self.mustRetry,
                columns=triplet,
                settle=self.delay,
                behind=self.writeBehind,
            )
        except (BackendError, TimeoutError) as error:
            return 0, (f"greylisting is not possible: {error}", 0)
        left = first + self.delay - now
        if left > 0:
            seconds = ceil(left)
            return -1, (f"greylisting in progress: {seconds}s", seconds)
        known = max(0, int(expires - now))
        return 1, ("greylisting passed", known), known
