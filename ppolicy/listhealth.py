"""
Asking the lists of the DNS, and watching whether they can be believed.

A list that nobody keeps any more may one day list everything; one that does not like who asks answers with error
codes; one whose name servers are gone costs every mail a time-out. Such a list is suspended, and tested again
after a while. Nothing that goes wrong is ever a listing: what is not known is said to be unknown.
"""

import functools
import ipaddress

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ppolicy import blocklists, ownlists
from ppolicy.bridge import inReactor, timeLeft, waitAll
from ppolicy.dns import Answer
from ppolicy.timers import Timers

LISTED, CLEAN, UNKNOWN = "listed", "not listed", "unknown"

# Seconds of the first suspension, and of the longest: each that follows within _LASTING is twice as long. The same
# for not answering, which may be no fault of the list.
SUSPENDED = 60.0, 4 * 3600.0
SILENT = 30.0, 300.0
_LASTING = 3600.0
# How often in a row a list may not answer at all.
_TIMES = 5
# A listing counts when the list was seen not to list everything within so many seconds.
FRESH = 60.0
# Seconds after which a list in use is tested again in any case.
_AGAIN = 1800.0
# How often it is looked which lists are to be tested, and how many of them at once.
TICK = 5.0
_AT_ONCE = 2
# Seconds that answers and explanations may take, and what is left of the request's time after them.
_ANSWERS, _TEXTS, _RESERVE = 8.0, 2.0, 0.5

# RFC 5782, sections 5 and 2.4: of addresses 127.0.0.2 is listed and 127.0.0.1 is not, also as IPv6 writes them.
_LISTED = "2.0.0.127"
_NEVER = "1.0.0.127"
_LISTED6, _NEVER6 = (
    ipaddress.IPv6Address(text).reverse_pointer.removesuffix(".ip6.arpa")
    for text in ("::ffff:7f00:2", "::ffff:7f00:1")
)
_NEVER_DOMAIN = "invalid"
_EVERYTHING = "it lists"


class Finding:
    """
    What a list says about one address or name.

    @ivar list: the L{ppolicy.blocklists.BlockList}.
    @ivar subject: the reversed address, or the name.
    @ivar state: LISTED, CLEAN or UNKNOWN.
    @ivar addresses: those of the answer that count, as texts.
    @ivar codes: what they mean, L{ppolicy.blocklists.Code}s.
    @ivar text: the explanation that the list gives, one line.
    @ivar reason: why it is unknown.
    """

    __slots__ = ("addresses", "codes", "list", "reason", "state", "subject", "text")

    def __init__(self, list, subject):
        self.list = list
        self.subject = subject
        self.state = UNKNOWN
        self.addresses, self.codes = (), ()
        self.text = self.reason = ""

    def unknown(self, reason):
        self.state, self.reason = UNKNOWN, reason
        self.addresses, self.codes = (), ()


class Blocklists:
    """
    The lists that checks ask.

    @ivar own: {name: L{ppolicy.blocklists.BlockList}} of the option dnsLists.
    @param own: that option; C{folder} is where relative paths in it begin.
    @raises ConfigError: when something in it is wrong.
    """

    log = Logger()

    def __init__(self, bridge, dns, own=None, folder=None):
        self.bridge = bridge
        self.dns = dns
        self.own = ownlists.parse(own or {}, folder)
        self._users = {}
        self._health = {}
        self._warned = set()
        self._timers = Timers(bridge)

    def start(self):
        self._timers.every(TICK, self._testSome)

    def stop(self):
        self._timers.stop()

    def configure(self, own, folder=None):
        """
        Go on with another value of the option: what L{find} gives from now on. Checks that have found their lists
        keep them.

        @raises ConfigError: when something in it is wrong; then nothing has changed.
        """
        self.own = ownlists.parse(own, folder)

    def status(self):
        """
        {name: why it is suspended, or ''} of all lists in use.
        """
        return {one.name: self._healthOf(one).reason for one in self._inUse()}

    def find(self, name):
        """
        @see: L{ppolicy.blocklists.find}. A dead list is warned about in the log, once.
        """
        found = blocklists.find(name, self.own)
        if isinstance(found, blocklists.DeadList) and name not in self._warned:
            self._warned.add(name)
            self.log.warn("{reason}; the answer is always 0", reason=found.reason)
        return found

    def use(self, user, lists, forget=lambda: None):
        """
        These lists are in use by somebody, until C{release(user)}: they are tested from time to time.

        @param forget: called when one of them is found to list everything: what it said lately may be wrong.
        """
        self._users[user] = tuple(lists), forget

    def release(self, user):
        self._users.pop(user, None)

    def _inUse(self):
        return {one: None for lists, _ in list(self._users.values()) for one in lists}

    def _forget(self, key):
        for lists, forget in list(self._users.values()):
            if any(_tested(one) == key for one in lists):
                forget()

    def _healthOf(self, one):
        key = _tested(one)
        health = self._health.get(key)
        if health is None:
            forget = functools.partial(self._forget, key)
            health = self._health[key] = ListHealth(self.bridge, self.dns, one, forget)
        return health

    def _testSome(self):
        used = {_tested(one): self._healthOf(one) for one in self._inUse()}
        self._health = {key: health for key, health in self._health.items() if key in used or health.busy}
        due = [health for health in used.values() if health.due()]
        for health in due[:_AT_ONCE]:
            health.test()

    @inReactor
    def ask(self, questions, texts=True):
        """
        Ask lists, all at once, and wait for all.

        @param questions: (list, subject): the address reversed as L{ppolicy.dns.reverseName} does it, or a name.
        @param texts: shall the lists explain what is listed?
        @return: a L{Finding} for each question.
        """
        findings = [Finding(*question) for question in questions]
        asked = []
        for finding in findings:
            health = self._healthOf(finding.list)
            if health.reason:
                finding.unknown(f"suspended: {health.reason}")
            else:
                asked.append((finding, health))
        if not asked:
            return findings
        waits = [self.dns.ask(finding.list.question(finding.subject), "A") for finding, _ in asked]
        answers = waitAll([*waits, *_tests(asked)], _within(_ANSWERS))
        _count(asked, answers)
        for (finding, health), answer in zip(asked, answers, strict=False):
            _judge(finding, health, answer)
        self._explain([one for one in asked if one[0].state == LISTED], texts)
        return findings

    def _explain(self, listed, texts):
        """
        Let the lists explain what they list; and see once more that they do not list everything.
        """
        tests = _tests(listed, self.bridge.reactor.seconds() - FRESH)
        waits = [
            self.dns.ask(finding.list.question(finding.subject), "TXT") for finding, _ in (listed if texts else ())
        ]
        if not waits and not tests:
            return
        answers = waitAll([*waits, *tests], _within(_TEXTS))
        for index, (finding, health) in enumerate(listed):
            if health.reason:
                finding.unknown(f"suspended: {health.reason}")
            elif texts and isinstance(answers[index], Answer):
                finding.text = finding.list.hide(blocklists.readable(answers[index].records))


def _tests(asked, since=None):
    """
    Test the lists that were not at that time or later.

    @return: a Deferred for each.
    """
    return [health.test() for health in dict.fromkeys(health for _, health in asked) if not health.isProved(since)]


def _within(seconds):
    left = timeLeft()
    return seconds if left is None else max(0.05, min(seconds, left - _RESERVE))


def _count(asked, answers):
    """
    Note which lists have answered at all. One that did not answer all questions of a request counts as one time;
    that no name server of ours can be asked is no fault of the list.
    """
    answered = {}
    for (_, health), answer in zip(asked, answers, strict=False):
        if not getattr(answer, "later", False):
            answered[health] = answered.get(health, False) or isinstance(answer, Answer)
    for health, hasAnswered in answered.items():
        if hasAnswered:
            health.answered()
        else:
            health.silent()


def _judge(finding, health, answer):
    """
    Fill in what an answer means.
    """
    one = finding.list
    if not isinstance(answer, Answer):
        finding.unknown(one.hide(str(answer)) or "no answer")
        return
    refusal = one.refusal(answer.records)
    if refusal:
        health.suspend(refusal)
    if health.reason:
        finding.unknown(f"suspended: {health.reason}")
        return
    codes = {}
    for address in answer.records:
        for code in one.meant(address):
            codes.setdefault(code, address)
    if not codes:
        finding.state = CLEAN
    elif not health.isProved():
        finding.unknown(f"it lists this, but could not be tested: {health.trouble or 'no answer in time'}")
    else:
        finding.state = LISTED
        finding.codes = tuple(codes)
        finding.addresses = tuple(dict.fromkeys(codes.values()))


def _tested(one):
    """
    What its health depends on; lists with the same zone share it.
    """
    return one.question(""), one.kind == "domain", one.selftest, one.test, one.ipv4, one.ipv6, one.errors


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
