"""
Questions that are answered behind the requests: each once, so many at a time, so many in a minute.
"""

from collections import deque

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.bridge import inReactor
from ppolicy.cache import ResultCache
from ppolicy.errors import DeadlineExceeded

REMEMBERED = 10_000
_MINUTE = 60.0


class Enquiries:
    """
    @param work: a function that finds something out; it is called with a key and what was asked, and may wait().
    @param perMinute: how many questions are begun in any minute.
    @param seconds: that one may take.
    @param atOnce: how many are under way at a time.
    @param most: how many may wait to be begun.
    @ivar remembered: what C{work} likes to keep for a while, a L{ResultCache}.
    """

    log = Logger()

    def __init__(self, bridge, work, perMinute, seconds=60.0, atOnce=10, most=1000):
        self.bridge = bridge
        self._work = work
        self._perMinute, self._seconds, self._atOnce, self._most = perMinute, seconds, atOnce, most
        self.remembered = ResultCache(REMEMBERED)
        self._waiting = {}  # {key: Deferreds of those who wait for the answer}
        self._queue = deque()
        self._begun = deque()  # when, in the last minute
        self._active = 0
        self._timer = None
        self._isStopped = False

    def status(self):
        """
        What it is doing, as a dictionary.
        """
        return {"underWay": self._active, "waiting": len(self._queue)}

    @inReactor
    def ask(self, key, *asked):
        """
        See to it that an answer is found out.

        @param key: equal questions have equal ones.
        @return: False when too many wait already.
        """
        if key in self._waiting:
            return True
        if len(self._queue) >= self._most or self._isStopped:
            return False
        self._waiting[key] = []
        self._queue.append((key, asked))
        self._next()
        return True

    @inReactor
    def answer(self, key):
        """
        A Deferred of the answer to a question that was asked; None when there is none.
        """
        done = Deferred()
        if key in self._waiting:
            self._waiting[key].append(done)
        else:
            done.callback(None)
        return done

    def _next(self):
        """
        Begin what may begin now.
        """
        now, begun = self.bridge.seconds(), self._begun
        while begun and begun[0] <= now - _MINUTE:
            begun.popleft()
        while self._queue and self._active < self._atOnce and len(begun) < self._perMinute:
            begun.append(now)
            self._active += 1
            key, asked = self._queue.popleft()
            work = self.bridge.run(self._work, key, *asked, timeout=self._seconds)
            work.addBoth(self._answered, key)
        if self._queue and len(begun) >= self._perMinute and self._timer is None:
            self._timer = self.bridge.reactor.callLater(begun[0] + _MINUTE - now, self._again)

    def _again(self):
        self._timer = None
        self._next()

    def _answered(self, result, key):
        self._active -= 1
        if isinstance(result, Failure):
            if not result.check(DeadlineExceeded):
                self.log.failure("a question asked in the background failed", result)
            result = None
        self._tell(key, result)
        self._next()

    def _tell(self, key, result):
        for done in self._waiting.pop(key, ()):
            if not done.called:
                done.callback(result)

    def stop(self):
        """
        Begin nothing any more.
        """
        self._isStopped = True
        self._work = None  # it knows who asks
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            self._tell(self._queue.popleft()[0], None)
