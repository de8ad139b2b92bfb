"""
Servers that know the same and are asked by a library that blocks: threads, kept sessions, retries, and a breaker.

A question goes to a free session, else to a new one with the first server that can be reached; a server that
fails goes to the end of the order. A session that turns out to be closed is replaced, once. When no server is of
use, all that waits fails with L{BackendError} at once, and so does what comes, until a probe finds one well again.
"""

from collections import deque
from time import monotonic

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.errors import BackendError, Overload
from ppolicy.threads import ThreadPool

# Seconds between two probes of servers that failed.
RETRY = 2.0
# A session that was idle for so many seconds is not trusted: firewalls forget connections without a word.
IDLE = 60.0
# How many questions may wait.
QUEUE = 500
# Seconds beyond its time after which a thread is given up.
_GRACE = 1.0


class Lost(BackendError):
    """
    A server, or the session with it, is of no use at present.

    @ivar retryAfter: seconds to leave it alone.
    """

    def __init__(self, sentence, retryAfter=RETRY):
        super().__init__(sentence, later=True)
        self.retryAfter = retryAfter


class _Visit:
    """
    What one thread does: a question, or with C{ask} None a probe.

    @ivar session: the one to use, then the one to keep.
    @ivar server: where it is.
    """

    __slots__ = ("abandoned", "ask", "done", "server", "session")

    def __init__(self, ask, done, session):
        self.ask = ask
        self.done = done
        self.session = session
        self.server = None
        self.abandoned = False


class Directory:
    """
    All its state belongs to the reactor's thread but for the order of the servers, which is replaced as a whole.

    @param servers: texts, the preferred one first.
    @param connect: C{connect(server, seconds)} gives a session, in a thread. It has C{isUsable()}, C{close()} and
        an attribute C{server}.
    @param size: how many sessions and threads there may be.
    @param seconds: that a question may take.
    @param serverSeconds: that a server may take to be connected, and to answer.
    @ivar broken: True while the breaker is open: questions fail at once.
    @ivar problem: why, else None.
    """

    log = Logger()

    def __init__(self, bridge, name, servers, connect, size, seconds, serverSeconds):
        self.name = name
        self.servers = tuple(servers)
        self._connect = connect
        self._size = size
        self._seconds = seconds
        self._serverSeconds = serverSeconds
        self._reactor = bridge.reactor
        # When all that are at work hang at one server, probes can still find another.
        self._pool = ThreadPool(bridge, name, 2 * size)
        self._idle = []
        self._waiting = deque()
        self._working = 0
        self.broken = self._stopped = False
        self.problem = None
        self._probing = None
        self._troubles = {}  # {server: why it was of no use the last time}

    def status(self):
        """
        How it is, as a dictionary.
        """
        troubles = dict(self._troubles)
        return {
            "problem": self.problem,
            "servers": {one: {"lastTrouble": troubles.get(one)} for one in self.servers},
            "sessions": self._working + len(self._idle),
            "working": self._working,
            "waiting": len(self._waiting),
        }

    def ask(self, function):
        """
        Have C{function(session, seconds)} called in a thread. It raises L{Lost} when the session is of no use, any
        other L{BackendError} when it is the question that cannot be answered.

        @return: a Deferred of its result; it fails with L{BackendError}.
        """
        if self._stopped:
            return fail(BackendError(f"{self.name}: is closed", later=True))
        if self.broken:
            return fail(BackendError(self.problem, later=True))
        if len(self._waiting) >= QUEUE:
            return fail(BackendError(f"{self.name}: {QUEUE} questions are waiting already", later=True))
        done = Deferred(lambda _: None)  # who gives up leaves it to be skipped
        self._waiting.append((function, done))
        self._goOn()
        return done

    def stop(self):
        """
        Close what is open and idle. What is under way ends by itself.
        """
        self._stopped = True
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
        self._failAll(BackendError(f"{self.name}: is closed", later=True))
        while self._idle:
            self._idle.pop().close()
        if not self._working:
            self._pool.stop()

    def _goOn(self):
        while self._waiting and self._working < self._size:
            function, done = self._waiting.popleft()
            if not done.called:
                self._begin(_Visit(function, done, self._idle.pop() if self._idle else None))

    def _begin(self, visit):
        self._working += 1
        try:
            running = self._pool.run(self._visit, visit)
        except Overload as error:
            self._ended(Failure(Lost(f"{self.name}: {error}")), visit)
            return
        limit = self._reactor.callLater(self._seconds + _GRACE, running.cancel)
        running.addBoth(self._ended, visit, limit)

    def _ended(self, result, visit, limit=None):
        self._working -= 1
        if limit is not None and limit.active():
            limit.cancel()
        error = result.value if isinstance(result, Failure) else None
        if isinstance(error, CancelledError):  # the thread hangs in the library
            visit.abandoned = True
            error = Lost(f"{self.name}: no answer within {self._seconds:g} s")
            self._putLast(visit.server, error)
            result = Failure(error)
        elif visit.session is not None:
            self._keep(visit.session)
        elif error is not None and visit.ask is None and not isinstance(error, BackendError):
            self.log.failure("{name}: a probe failed", result, name=self.name)
            error = Lost(f"{self.name}: failed with {type(error).__name__}")
        if isinstance(error, Lost):
            self._broke(error)
        elif error is None or isinstance(error, BackendError):
            self._works()
        if visit.done is not None and not visit.done.called:
            visit.done.callback(result)
        if self._stopped and not self._working:
            self._pool.stop()
        self._goOn()

    def _keep(self, session):
        if self._stopped:
            session.close()
        else:
            self._idle.append(session)

    def _broke(self, error):
        problem = str(error)
        if self._stopped:
            return
        if problem != self.problem:
            self.log.error("{problem}", problem=problem)
        self.problem, self.broken = problem, True
        self._failAll(BackendError(problem, later=True))
        if self._probing is None:
            self._probing = self._reactor.callLater(error.retryAfter, self._probe)

    def _works(self):
        if not self.broken:
            return
        self.problem, self.broken = None, False
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
        self.log.info("{name}: works again", name=self.name)

    def _failAll(self, error):
        while self._waiting:
            _, done = self._waiting.popleft()
            if not done.called:
                done.errback(error)

    def _probe(self):
        self._probing = None
        self._begin(_Visit(None, None, None))

    # All below runs in a thread.

    def _visit(self, visit):
        ends = monotonic() + self._seconds
        session, visit.session = visit.session, None
        if session is not None:
            visit.server = session.server
            if session.isUsable() and monotonic() - session.used <= IDLE:
                try:
                    return self._answer(visit, session, ends)
                except Lost as error:
                    self._putLast(session.server, error)
            else:
                session.close()
        problem = Lost(f"{self.name}: no answer within {self._seconds:g} s")
        for server in self.servers:
            left = min(self._serverSeconds, ends - monotonic())
            if left <= 0 or visit.abandoned:
                break
            visit.server = server
            try:
                return self._answer(visit, self._connect(server, left), ends)
            except Lost as error:
                problem = error
                self._putLast(server, error)
        raise problem

    def _answer(self, visit, session, ends):
        if visit.ask is None:
            result = None
        else:
            left = min(self._serverSeconds, ends - monotonic())
            try:
                result = visit.ask(session, left)
            except Lost:
                session.close()
                raise
            except BackendError:
                self._give(visit, session)
                raise
        self._give(visit, session)
        return result

    def _give(self, visit, session):
        session.used = monotonic()
        self._troubles.pop(session.server, None)
        if visit.abandoned:
            session.close()
        else:
            visit.session = session

    def _putLast(self, server, error):
        if server in self.servers:
            self._troubles[server] = str(error)
            self.servers = (*(one for one in self.servers if one != server), server)
