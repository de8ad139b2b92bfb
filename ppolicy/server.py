"""
What the generations of one running server share. A command that works without a server makes one of its own.
"""

from pathlib import Path

from ppolicy import garbage, listeners
from ppolicy.bridge import Bridge
from ppolicy.cache import ResultCache
from ppolicy.decisions import Decisions
from ppolicy.epoll import Epoll
from ppolicy.protocol import Outbox
from ppolicy.threads import ThreadPool
from ppolicy.watchdog import Watchdog

# Answers of checks that count, kept for requests that Postfix sends again.
REPEATS = 50_000
_OURS = str(Path(__file__).parent)


class Server:
    """
    What the generations of one running server share.

    @ivar generation: the one that serves.
    @ivar connections: the open L{PolicyProtocol}s.
    @ivar decisions: what was decided about each request, for those who want to know.
    @ivar requests: how many came in, C{overLimit} of them beyond connLimit; C{failures} got returnOnFatalError.
    @ivar repeats: answers of checks that count, for requests that Postfix sends again.
    """

    def __init__(self, reactor, options, dryRun=False):
        watch = Watchdog(reactor.seconds, isOurs=lambda name: name.startswith((_OURS, "<frozen")))
        self.bridge = Bridge(reactor, watch)
        self.cache = ResultCache(options.cacheSize)
        self.repeats = ResultCache(REPEATS)
        self.modulePool = ThreadPool(self.bridge, "module", options.workerThreads)
        self.policyPool = ThreadPool(self.bridge, "policy", options.workerThreads)
        self.services = None
        self.dryRun = dryRun
        self.generation = None
        self.connections = set()
        self.decisions = Decisions(reactor, options.historySize)
        self.epoll = Epoll(self.bridge)
        self.outbox = Outbox(self.bridge, self.decisions.settleMany)
        self.requests = self.overLimit = self.failures = 0

    def portOf(self, address):
        """
        What a policy function gets as C{port} for a connection that came in at this address.
        """
        host = getattr(address, "host", "").removeprefix("::ffff:")
        name = getattr(address, "name", None) or ""
        path = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        return listeners.Port(getattr(address, "type", "UNIX"), host, getattr(address, "port", ""), path)

    def retire(self, generation):
        """
        Stop a generation that was replaced, once its last request is answered.
        """
        if generation is not self.generation and not generation.active and not generation.stopped:
            generation.stopped = True
            generation.stop()
            # A check knows its generation. What it has remembered is freed now, and not some day by the garbage
            # collector.
            generation.slots.clear()
            garbage.replaced()
