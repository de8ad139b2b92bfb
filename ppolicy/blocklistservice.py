"""
Asking the lists of the DNS: all that a check wants at once, but none that cannot be believed.

Nothing that goes wrong is ever a listing: what is not known is said to be unknown.
"""

import functools

from twisted.logger import Logger

from ppolicy import blocklists, ownlists
from ppolicy.bridge import inReactor, timeLeft, waitAll
from ppolicy.dns import Answer
from ppolicy.errors import Mistake
from ppolicy.listhealth import ListHealth
from ppolicy.timers import Timers

LISTED, CLEAN, UNKNOWN = "listed", "not listed", "unknown"
# A listing counts when the list was seen not to list everything within so many seconds.
FRESH = 60.0
# How often it is looked which lists are to be tested, and how many of them at once.
TICK = 5.0
_AT_ONCE = 2
# Seconds that answers and explanations may take, and what is left of the request's time after them.
_ANSWERS, _TEXTS, _RESERVE = 8.0, 2.0, 0.5


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
        self._dead = {}  # those that were named, and are told in the log
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
        if isinstance(found, blocklists.DeadList) and name not in self._dead:
            self._dead[name] = found
            self.log.warn("{reason}; the answer is always 0", reason=found.reason)
        return found

    @property
    def warnings(self):
        """
        A L{Mistake} for each dead list that was named.
        """
        return [Mistake(f"{one.reason}; the answer is always 0") for one in self._dead.values()]

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
