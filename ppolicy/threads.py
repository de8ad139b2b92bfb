"""
A bounded pool of worker threads for code that really blocks.

Threads are daemons and nobody joins them: one that hangs in a C library must not keep the server from ending.
"""

import queue
import signal
import threading
from collections import deque

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ppolicy.bridge import currentRequest
from ppolicy.errors import Overload


class _Job:
    """
    One call, and the Deferred of its result; C{thread} is who runs it.
    """

    __slots__ = ("arguments", "deadline", "deferred", "function", "request", "thread")

    def __init__(self, function, arguments, deadline):
        self.function = function
        self.arguments = arguments
        self.deadline = deadline
        self.request = currentRequest()
        self.thread = None


class ThreadPool:
    """
    All its state belongs to the reactor's thread; the worker threads see one job each.

    @param size: how many threads may be at work, how many calls may queue for them, and how many threads may
        be written off, before L{run} refuses.
    @ivar busy: threads at work.
    @ivar writtenOff: threads still at work for somebody who has given up.
    """

    def __init__(self, bridge, name, size):
        self._bridge = bridge
        self._name = name
        self.size = size
        self.busy = 0
        self.writtenOff = 0
        self._idle = []
        self._backlog = deque()

    def status(self):
        """
        How it is, as a dictionary.
        """
        stuck = f"{self.writtenOff} of {self.size} threads are stuck in code that does not end"
        return {
            "problem": stuck if self.writtenOff else None,
            "busy": self.busy,
            "writtenOff": self.writtenOff,
            "size": self.size,
        }

    def run(self, function, *arguments):
        """
        Run C{function(*arguments)} in a thread. Cancelling the Deferred writes the call off.

        @raises Overload: when a bound is reached.
        """
        if self.writtenOff >= self.size or len(self._backlog) >= self.size:
            raise Overload(
                f"no free {self._name} thread: {self.busy} are busy, {self.writtenOff} stuck beyond their time"
            )
        job = _Job(function, arguments, self._bridge.deadline())
        job.deferred = Deferred(lambda _: self._writeOff(job))
        if self._idle or self.busy < self.size:
            self._give(job)
        else:
            self._backlog.append(job)
        return job.deferred

    def _give(self, job):
        self.busy += 1
        if self._idle:
            job.thread = self._idle.pop()
        else:
            job.thread = queue.SimpleQueue()
            threading.Thread(
                target=self._work, args=(job.thread,), name=f"ppolicy {self._name}", daemon=True
            ).start()
        job.thread.put(job)

    def _writeOff(self, job):
        job.deferred = None
        if job.thread is None:
            self._backlog.remove(job)
            return
        self.busy -= 1
        self.writtenOff += 1
        if self._backlog:
            self._give(self._backlog.popleft())

    def _work(self, inbox):
        # Signals are for the main thread; SIGALRM here would only break this thread's system calls.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        while (job := inbox.get()) is not None:
            self._bridge.adoptThread(job.deadline, job.request)
            try:
                result = job.function(*job.arguments)
            except BaseException:  # noqa: BLE001 - it is handed on
                result = Failure()
            self._bridge.reactor.callFromThread(self._done, job, result)
            del job, result

    def _done(self, job, result):
        if job.deferred is None:
            self.writtenOff -= 1
        else:
            self.busy -= 1
        if self._backlog:
            self.busy += 1
            following = self._backlog.popleft()
            following.thread = job.thread
            job.thread.put(following)
        else:
            self._idle.append(job.thread)
        if job.deferred is not None:
            job.deferred.callback(result)

    def stop(self):
        """
        Let idle threads end; busy ones end with the process.
        """
        for inbox in self._idle:
            inbox.put(None)
        self._idle.clear()
