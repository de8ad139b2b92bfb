"""
Can a list of the DNS be believed?

A list that nobody keeps any more may one day list everything; one that does not like who asks answers with error
codes; one whose name servers are gone costs every mail a time-out. Such a list is suspended, and tested again
after a while.
"""

import ipaddress

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ppolicy.dns import Answer

# Seconds of the first suspension, and of the longest: each that follows within _LASTING is twice as long. The same
# for not answering, which may be no fault of the list.
SUSPENDED = 60.0, 4 * 3600.0
SILENT = 30.0, 300.0
_LASTING = 3600.0
# How often in a row a list may not answer at all.
_TIMES = 5
# Seconds after which a list in use is tested again in any case.
_AGAIN = 1800.0

# RFC 5782, sections 5 and 2.4: of addresses 127.0.0.2 is listed and 127.0.0.1 is not, also as IPv6 writes them.
_LISTED = "2.0.0.127"
_NEVER = "1.0.0.127"
_LISTED6, _NEVER6 = (
    ipaddress.IPv6Address(text).reverse_pointer.removesuffix(".ip6.arpa")
    for text in ("::ffff:7f00:2", "::ffff:7f00:1")
)
_NEVER_DOMAIN = "invalid"
_EVERYTHING = "it lists"


class ListHealth:
    """
    Can a list be believed?

    @param forget: called when it is found to list everything.
    @ivar reason: why it is suspended; empty when it is not.
    @ivar trouble: why it could not be tested the last time.
    """

    log = Logger()

    def __init__(self, bridge, dns, one, forget):
        self._forget = forget
        self._bridge = bridge
        self._dns = dns
        self._list = one
        self.reason = self.trouble = ""
        self._proved = self._begun = self._ended = None
        self._until = self._backoff = 0.0
        self._longest = SUSPENDED[1]
        self._silent = 0
        self._waiting = None

    @property
    def busy(self):
        """
        Is it being tested?
        """
        return self._waiting is not None

    def isProved(self, since=None):
        """
        Was it seen not to list everything, at that time or later? A list without a test is taken as it is.
        """
        if self._list.selftest is None:
            return True
        return self._proved is not None and (since is None or self._proved >= since)

    def due(self):
        """
        Is it time for a test?
        """
        now = self._bridge.reactor.seconds()
        if self.busy:
            return False
        if self.reason:
            return now >= self._until
        return self._list.selftest is not None and (self._begun is None or now >= self._begun + _AGAIN)

    # What its answers show

    def answered(self):
        """
        It has answered a question.
        """
        self._silent = 0

    def silent(self):
        """
        It has answered none of the questions of a request.
        """
        self._silent += 1
        if self._silent >= _TIMES:
            self.suspend("it does not answer", SILENT)

    def suspend(self, reason, bounds=SUSPENDED):
        """
        Ask it no more for a while.
        """
        if self.reason:
            return
        now = self._bridge.reactor.seconds()
        again = self._ended is not None and now - self._ended < _LASTING
        first, self._longest = bounds
        self._backoff = min(self._backoff * 2, self._longest) if again else first
        self._until = now + self._backoff
        self.reason = self._list.hide(reason)
        self.log.warn(
            "the list {name} ({zone}) is suspended: {reason}; it is tested again after {seconds:g} s",
            name=self._list.name,
            zone=self._list.shownZone,
            reason=self.reason,
            seconds=self._backoff,
        )

    def _again(self, reason):
        """
        It is no better than it was.
        """
        self.reason = self._list.hide(reason)
        self._backoff = min(self._backoff * 2, self._longest)
        self._until = self._bridge.reactor.seconds() + self._backoff

    def _resume(self):
        self.reason = ""
        self._silent = 0
        self._ended = self._bridge.reactor.seconds()
        self.log.info("the list {name} ({zone}) is asked again", name=self._list.name, zone=self._list.shownZone)

    # Tests

    def test(self):
        """
        Ask for what must be listed and what must not.

        @return: a Deferred that fires with None when the list was tested, whatever has come out.
        """
        done = Deferred()
        if self._waiting is not None:
            self._waiting.append(done)
            return done
        self._waiting = [done]
        self._begun = self._bridge.reactor.seconds()
        never, listed = self._points()
        results = {}
        if not never:
            self._outcome(results, never, listed)
        for point in never + listed:
            self._dns.ask(self._list.question(point), "A").addBoth(self._tested, point, results, never, listed)
        return done

    def _points(self):
        """
        The points that must not be listed, and those that must.
        """
        one = self._list
        if one.selftest is None:
            return [], []
        if one.kind == "domain":
            return [_NEVER_DOMAIN], [one.test] if one.selftest == "strict" else []
        never = [point for point, known in ((_NEVER, one.ipv4), (_NEVER6, one.ipv6)) if known]
        return never, [_LISTED if one.ipv4 else _LISTED6] if one.selftest == "strict" else []

    def _tested(self, result, point, results, never, listed):
        results[point] = result if isinstance(result, Answer) else result.value
        if len(results) == len(never) + len(listed):
            self._outcome(results, never, listed)

    def _outcome(self, results, never, listed):
        wrong, self.trouble = self._verdict(results, never, listed)
        if wrong:
            if self._proved is not None and wrong.startswith(_EVERYTHING):
                self._forget()
            self._proved = None
        elif not self.trouble:
            self._proved = self._bridge.reactor.seconds()
        if self.reason and (wrong or self.trouble):
            self._again(wrong or self.reason)
        elif wrong:
            self.suspend(wrong)
        elif self.reason:
            self._resume()
        waiting, self._waiting = self._waiting, None
        for done in waiting:
            if not done.called:
                done.callback(None)

    def _verdict(self, results, never, listed):
        """
        @return: (what is wrong with the list, why that could not be found out); both empty when it is good.
        """
        for result in results.values():
            refusal = self._list.refusal(result.records) if isinstance(result, Answer) else ""
            if refusal:
                return refusal, ""
        for point in never:
            if isinstance(results[point], Answer) and results[point].records:
                return f"{_EVERYTHING} {point}, as if it listed everything", ""
        for point in never:
            if not isinstance(results[point], Answer):
                return "", self._list.hide(str(results[point])) or "no answer"
        for point in listed:
            if isinstance(results[point], Answer) and not results[point].records:
                return f"it does not list its test point {point}, as if it were empty", ""
        return "", ""
