"""
Waiting without blocking: straight-line code runs in pooled greenlets and parks while a Deferred is pending.

The only file that knows greenlets. Five rules make it sound; each is kept here and nowhere else:
a parked greenlet is resumed from the reactor's greenlet only; every wait has a deadline; each piece of work
gets a copy of the context; wait() where nothing may wait is an error; nobody switches while holding a lock.
A worker thread has no greenlet: there the same functions block (L{ppolicy.threadwait}).
"""

import functools
from collections import deque
from contextvars import copy_context

from greenlet import getcurrent, greenlet
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.errors import DeadlineExceeded, WaitError
from ppolicy.outcome import LATE, late, outcome, timeUp
from ppolicy.threadwait import callFromThread, threadLocal, waitInThread
from ppolicy.watchdog import Watchdog

_POOL = 1000
_DONE = object()
# Seconds between two looks at whose time is up.
_SWEEP = 0.05
# Seconds of a shorter wait, for which that would not do.
_EXACT = 1.0
# Seconds for which parked work goes on before the reactor looks at its sockets: many slow requests that go on at
# the same moment must not delay quick ones.
_SLICE = 0.0003
# Seconds after which new requests are looked for between two pieces of other work.
_BREATH = 0.0001


class _Worker(greenlet):
    """
    A pooled greenlet: does one piece of work, goes back to the reactor's greenlet, does the next one.

    @ivar deadline: seconds of the reactor's clock at which its present work must be done.
    @ivar request: what it works on.
    @ivar after: called in the reactor's greenlet when work that had to wait is done.
    """

    def __init__(self, bridge):
        super().__init__()
        self.bridge = bridge
        self.deadline = 0.0
        self.request = None
        self.after = None

    def run(self, function, argument):
        hub = self.parent
        while True:
            try:
                function(argument)
            except BaseException:  # noqa: BLE001 - the work has its own net; this keeps the greenlet alive
                Bridge.log.failure("work in a greenlet failed")
            function = argument = self.request = None
            function, argument = hub.switch(_DONE)


class _Pending:
    """
    One wait(): what a parked greenlet waits for.

    @ivar deadline: seconds of the reactor's clock; C{timeout} is that of the wait, None when it is the request's.
    """

    __slots__ = ("deadline", "left", "parked", "results", "timeout", "timer", "worker")

    def __init__(self, worker, count):
        self.worker = worker
        self.results = [None] * count
        self.left = count
        self.parked = False
        self.timeout = self.timer = None

    def fired(self, result, index):
        if self.worker is None:  # the wait is over; a late failure is nobody's any more
            return
        self.results[index] = result
        self.left -= 1
        if not self.left and self.parked:
            self.worker.bridge._resume(self, None)

    def expired(self, timeout):
        self.timer = None
        self.worker.bridge._resume(self, timeUp(timeout))


class Gate:
    """
    What several pieces of work wait for together, until it opens with a result: a Deferred each would cost more
    than the wait. Used in the reactor's thread only.
    """

    __slots__ = ("waiting",)

    def __init__(self):
        self.waiting = []

    def wait(self):
        """
        @return: the result that the gate opens with; a Failure is raised.
        @raises DeadlineExceeded: when the time for the request is up before.
        @raises WaitError: where nothing may wait.
        """
        worker = getcurrent()
        if type(worker) is not _Worker:
            raise WaitError("only a policy function or a module's check() may wait")
        pending = _Pending(worker, 1)
        self.waiting.append(pending)
        try:
            _park(worker, pending, None)
        finally:
            pending.worker = None
        return outcome(pending.results)

    def open(self, result, bridge):
        """
        Let all go on that wait: at once when called by the reactor, else in its next turn.
        """
        if self.waiting:
            bridge.resume(self.waiting, result)


class Bridge:
    """
    @param reactor: gives the clock and callLater.
    @ivar watch: the L{Watchdog}.
    @ivar newcomers: starts the requests that have come meanwhile.
    @ivar working: how many pieces of work are under way, parked ones included.
    """

    log = Logger()

    def __init__(self, reactor, watch=None):
        self.reactor = reactor
        self.seconds = reactor.seconds
        self.watch = watch or Watchdog(reactor.seconds)
        self.working = 0
        self._hub = None
        self._pool = []
        self.newcomers = lambda: None
        self._inRound = False
        self._atEnd = []
        self._breath = self._patience = 0.0
        self._parked = set()
        self._sweeping = None
        self._ready = deque()
        self._isScheduled = False

    def start(self, function, argument, timeout, after=None):
        """
        Run C{function(argument)} in a greenlet, now. Called in the reactor's greenlet only.

        @param argument: what C{currentRequest()} gives while it runs.
        @param timeout: seconds; a wait beyond them raises L{DeadlineExceeded}.
        @param after: called without arguments when the work is done, if it was not done at once.
        @return: True when the work was done without waiting.
        """
        pool = self._pool
        worker = pool.pop() if pool else self._newWorker()
        watch = self.watch
        if not watch.ticking:
            watch.wake()
        watch.since = now = self.seconds()
        worker.deadline = now + timeout
        worker.gr_context = copy_context()
        worker.request = argument
        done = worker.switch(function, argument)
        watch.armed = False
        if watch.blocked is not None:
            watch.report()
        watch.since = None
        if done is _DONE:
            pool.append(worker)
            return True
        self.working += 1
        worker.after = after
        return False

    def _newWorker(self):
        self._hub = getcurrent()
        return _Worker(self)

    def _resume(self, pending, error):
        """
        Let a parked greenlet go on, from the reactor's greenlet: whoever fires a Deferred may be in another.
        """
        worker, pending.worker = pending.worker, None
        self._parked.discard(pending)
        if pending.timer is not None:
            pending.timer.cancel()
        self._goOn(functools.partial(self._enter, worker, error))

    def _goOn(self, step):
        """
        Have something done soon, by the reactor's greenlet.
        """
        self._ready.append(step)
        if not self._isScheduled:
            self._isScheduled = True
            self.reactor.callLater(0, self._drain)

    def resume(self, waiting, result):
        """
        Give one result to several L{_Pending} waits.
        """
        inHub = getcurrent() is self._hub and not self._isScheduled
        self._isScheduled = self._isScheduled or inHub
        for pending in waiting:
            pending.fired(result, 0)
        if inHub:
            self._drain()

    def _drain(self):
        ready, ends = self._ready, self.seconds() + _SLICE
        outer = self.begin()
        while ready:
            ready.popleft()()
            now = self.seconds()
            if now > ends:
                break
            if now > self._breath:
                self.newcomers()
                now = self.seconds()
            self._patience = now + _SLICE
        self._isScheduled = bool(ready)
        if ready:
            self.reactor.callLater(0, self._drain)
        self.end(outer)

    def begin(self):
        """
        Begin a round: several pieces of work are started, or go on, one after the other.

        @return: what L{end} wants to have.
        """
        outer, self._inRound = self._inRound, True
        self._patience = self.seconds() + _SLICE
        return outer

    def end(self, outer):
        """
        End a round.
        """
        self._inRound = outer
        functions, self._atEnd = self._atEnd, []
        for function in functions:
            try:
                function()
            except Exception:  # noqa: BLE001 - nobody above but the reactor
                self.log.failure("at the end of a round")

    def breathe(self):
        """
        Called between two pieces of work by who has many of them: requests that have come meanwhile begin. Those
        with an answer in the cache are answered, whatever else there is to do.
        """
        if self.seconds() > self._breath:
            self.newcomers()

    def giveWay(self):
        """
        Called where much work begins: when others have waited for a while already, those with little to do go
        first.
        """
        worker = getcurrent()
        if self._inRound and type(worker) is _Worker and self.seconds() > self._patience:
            self._goOn(functools.partial(self._enter, worker, None))
            self._hub.switch()

    def looked(self):
        """
        Told when newcomers were looked for.
        """
        self._breath = self.seconds() + _BREATH

    def atEnd(self, function):
        """
        Have a function called once at the end of this round, or soon where there is none.
        """
        if self._inRound:
            self._atEnd.append(function)
        else:
            self.reactor.callLater(0, function)

    def _enter(self, worker, error):
        watch = self.watch
        if not watch.ticking:
            watch.wake()
        watch.since = self.seconds()
        done = worker.switch() if error is None else worker.throw(error)
        watch.armed = False
        if watch.blocked is not None:
            watch.report()
        watch.since = None
        if done is _DONE:
            self.working -= 1
            if len(self._pool) < _POOL:
                self._pool.append(worker)
            after, worker.after = worker.after, None
            if after is not None:
                try:
                    after()
                except Exception:  # noqa: BLE001 - nobody above but the reactor
                    self.log.failure("after work in a greenlet")

    def run(self, function, *arguments, timeout=30.0, request=None):
        """
        Run a function that may wait() and get its result as a Deferred. Callable in the reactor's thread.

        @param request: what C{currentRequest()} gives while it runs.
        """
        result = Deferred()

        def work(_):
            try:
                value = function(*arguments)
            except BaseException:  # noqa: BLE001 - it is handed on
                result.errback(Failure())
            else:
                result.callback(value)

        if isinstance(getcurrent(), _Worker):  # only the reactor's greenlet may start work
            self._goOn(functools.partial(self.start, work, request, timeout))
        else:
            self.start(work, request, timeout)
        return result

    def sweep(self):
        """
        End the waits whose time is up, their own or that of their request; again and again while any waits.
        """
        now = self.seconds()
        for pending in [pending for pending in self._parked if pending.deadline <= now]:
            self._resume(pending, timeUp(pending.timeout))
        self._sweeping = self.reactor.callLater(_SWEEP, self.sweep) if self._parked else None

    def giveUp(self, reason):
        """
        End every wait now with L{DeadlineExceeded}, so that what still runs gets its last answer out.
        """
        for pending in list(self._parked):
            self._resume(pending, DeadlineExceeded(reason))

    def stop(self):
        """
        Keep no time any more.
        """
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def adoptThread(self, deadline, request=None):
        """
        Tell the calling worker thread which bridge its calls are for, and until when it may wait; with None it
        may not wait(), as in C{start()} wherever that runs.
        """
        threadLocal.bridge, threadLocal.request = self, request
        threadLocal.mayWait = deadline is not None
        threadLocal.deadline = self.reactor.seconds() + 3600 if deadline is None else deadline

    def deadline(self):
        """
        Seconds of the reactor's clock until which the running work may wait; None outside of any.
        """
        worker = getcurrent()
        return worker.deadline if isinstance(worker, _Worker) else None


def wait(deferred, timeout=None):
    """
    Wait for a Deferred and return its result, or raise its exception. Nothing else stops meanwhile.

    @param timeout: seconds; the request's own deadline bounds it in any case.
    @raises TimeoutError: after C{timeout}; the Deferred is cancelled.
    @raises DeadlineExceeded: when the time for the whole request is up.
    @raises WaitError: where nothing may wait, such as in C{start()} and in callbacks.
    """
    return outcome(_wait([deferred], timeout))


def currentRequest():
    """
    The request that the running code works on, else None.
    """
    worker = getcurrent()
    return worker.request if type(worker) is _Worker else getattr(threadLocal, "request", None)


def awaitHere(coroutine):
    """
    Run a coroutine to its end in the calling greenlet, which waits for each Deferred that it awaits.

    @return: what the coroutine returns.
    """
    error = None
    while True:
        try:
            awaited = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        error = None
        try:
            wait(_fired(awaited))
        except BaseException as problem:  # noqa: BLE001 - it is thrown into the coroutine
            error = problem


def _fired(awaited):
    """
    A Deferred that fires with None when the awaited one has its result, which stays there for who awaits it.
    """
    if not isinstance(awaited, Deferred):
        raise TypeError(f"check() can await Deferreds only, not {type(awaited).__name__}")
    fired = Deferred(lambda _: awaited.addErrback(lambda _: None).cancel())

    def tell(result):
        if not fired.called:
            fired.callback(None)
        return result

    awaited.addBoth(tell)
    return fired


def timeLeft():
    """
    Seconds until the time for the running request is up; None where no request runs.
    """
    worker = getcurrent()
    if type(worker) is _Worker:
        return worker.deadline - worker.bridge.reactor.seconds()
    bridge = getattr(threadLocal, "bridge", None)
    return None if bridge is None else threadLocal.deadline - bridge.reactor.seconds()


def waitAll(deferreds, timeout=None):
    """
    Wait for many Deferreds at once; the time is that of the slowest.

    @return: a list of their results in the same order. One that failed gives its exception, one that was not
        done after C{timeout} seconds gives a TimeoutError: the others are still of use.
    @raises DeadlineExceeded: when the time for the whole request is up.
    @raises WaitError: where nothing may wait.
    """
    deferreds = list(deferreds)
    results = _wait(deferreds, timeout, partial=True) if deferreds else []
    return [result.value if isinstance(result, Failure) else result for result in results]


def _wait(deferreds, timeout, partial=False):
    worker = getcurrent()
    if type(worker) is not _Worker:
        return waitInThread(deferreds, timeout, partial)
    watch = worker.bridge.watch
    armed, watch.armed = watch.armed, False
    try:
        pending = _Pending(worker, len(deferreds))
        if partial:
            pending.results = [LATE] * len(deferreds)
        for index, deferred in enumerate(deferreds):
            deferred.addBoth(pending.fired, index)
        if pending.left:
            try:
                _park(worker, pending, timeout)
            except BaseException as error:
                pending.worker = None
                for deferred in deferreds:
                    deferred.addErrback(lambda _: None)
                    deferred.cancel()
                if not (partial and type(error) is TimeoutError):
                    raise
        pending.worker = None
        return [late() if result is LATE else result for result in pending.results]
    finally:
        watch.armed = armed


def _park(worker, pending, timeout):
    bridge = worker.bridge
    reactor = bridge.reactor
    left = worker.deadline - bridge.seconds()
    if left <= 0:
        raise timeUp(None)
    if timeout is not None and timeout < left:
        if timeout <= 0:
            raise timeUp(timeout)
        if timeout < _EXACT:
            pending.timer = reactor.callLater(timeout, pending.expired, timeout)
        else:
            pending.timeout = timeout
    # A timer of its own would cost more than many waits last.
    if bridge._sweeping is None:
        bridge._sweeping = reactor.callLater(_SWEEP, bridge.sweep)
    pending.deadline = worker.deadline if pending.timeout is None else worker.deadline - left + timeout
    pending.parked = True
    bridge._parked.add(pending)
    watch = bridge.watch
    armed, watch.armed = watch.armed, False
    try:
        bridge._hub.switch()
    finally:
        watch.armed = armed


def inReactor(method):
    """
    For methods that policy and module code calls: run in the reactor's thread, never interrupted half-way.

    In a greenlet the method runs at once, with the watchdog held back. In a worker thread it runs in a
    greenlet of its own, for which the thread waits. The object has the bridge as C{self.bridge}.
    """

    @functools.wraps(method)
    def call(self, *arguments, **keywords):
        if type(getcurrent()) is not _Worker and getattr(threadLocal, "bridge", None) is not None:
            return callFromThread(functools.partial(method, self, *arguments, **keywords))
        watch = self.bridge.watch
        armed, watch.armed = watch.armed, False
        try:
            return method(self, *arguments, **keywords)
        finally:
            watch.armed = armed

    return call
