"""
A list of the DNS for tests, and who asks it.
"""

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ppolicy.blocklistservice import Blocklists
from ppolicy.bridge import Bridge
from ppolicy.testing import FakeResolver, waiting

ZONE = "bl.example.org"
BAD = "4.3.2.1"
GOOD = "5.3.2.1"
NEVER, ALWAYS = f"1.0.0.127.{ZONE}", f"2.0.0.127.{ZONE}"
LISTING = {"A": ["127.0.0.2"], "TXT": [(b"see https://example.org",)]}
NEVER6 = "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"
ALWAYS6 = f"2{NEVER6[1:]}"


class BlocklistCase(SynchronousTestCase):
    """
    @ivar records: what the resolver knows: a good list, with BAD on it.
    """

    resolver = FakeResolver

    def setUp(self):
        self.clock = Clock()
        self.bridge = Bridge(self.clock)
        self.records = {ALWAYS: LISTING, f"{BAD}.{ZONE}": LISTING}
        self.dns = self.resolver(self.records)
        self.lists = self.make()

    def make(self, **more):
        lists = Blocklists(self.bridge, self.dns, {"OURS": {"zone": ZONE, **more}})
        self.list = lists.find("OURS")
        lists.use(self, [self.list])
        self.lists = lists
        return lists

    def begin(self, *subjects, texts=True, timeout=30.0):
        questions = [(self.list, subject) for subject in subjects]
        return waiting(self.bridge, self.lists.ask, questions, texts, timeout=timeout)

    def ask(self, *subjects, texts=True):
        """
        The findings, at once.
        """
        return self.successResultOf(self.begin(*subjects, texts=texts))

    def state(self, subject):
        """
        (state, reason) of one subject.
        """
        (finding,) = self.ask(subject)
        return finding.state, finding.reason

    def later(self, seconds):
        self.clock.advance(seconds)

    def logged(self):
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events
