"""
Waiting in a worker thread, which blocks until the reactor's thread has what it waits for.
"""

import queue
import threading

from ppolicy.errors import DeadlineExceeded, WaitError
from ppolicy.outcome import LATE, late, outcome, timeUp

# Of a worker thread: the bridge its calls are for, until when (deadline) and whether (mayWait) it may wait, and
# the request it works on.
threadLocal = threading.local()


def waitInThread(deferreds, timeout, partial):
    """
    Block until all have fired.

    @param partial: shall those count that have, when C{timeout} seconds are over?
    @return: their results in the same order, L{Failure}s too.
    @raises TimeoutError: after C{timeout}; the Deferreds are cancelled.
    @raises DeadlineExceeded: when the time for the whole request is up.
    @raises WaitError: where nothing may wait.
    """
    bridge = getattr(threadLocal, "bridge", None)
    if bridge is None or not threadLocal.mayWait:
        raise WaitError(
            "wait() works only inside a policy function or a module's check(), "
            "not in start(), stop(), hashArg() or a callback"
        )
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def attach():
        for index, deferred in enumerate(deferreds):
            deferred.addBoth(lambda result, index=index: answers.put((index, result)))

    bridge.reactor.callFromThread(attach)
    ends = threadLocal.deadline
    if timeout is not None and bridge.reactor.seconds() + timeout < ends:
        ends = bridge.reactor.seconds() + timeout
    else:
        timeout = None
    results = [LATE] * len(deferreds)
    for _ in deferreds:
        try:
            index, result = answers.get(timeout=max(0.0, ends - bridge.reactor.seconds()))
        except queue.Empty:
            for deferred in deferreds:
                bridge.reactor.callFromThread(deferred.cancel)
            if timeout is None or not partial:
                raise timeUp(timeout) from None
            break
        results[index] = result
    return [late() if result is LATE else result for result in results]


def callFromThread(function):
    """
    Block until a function has run in the reactor's thread, in a greenlet, where it may wait.

    @return: its result; what it raises is raised here.
    @raises DeadlineExceeded: when the time for the whole request is up.
    """
    bridge, deadline, request = threadLocal.bridge, threadLocal.deadline, threadLocal.request
    answer: queue.SimpleQueue = queue.SimpleQueue()

    def begin():
        left = max(0.0, deadline - bridge.reactor.seconds())
        bridge.run(function, timeout=left, request=request).addBoth(answer.put)

    bridge.reactor.callFromThread(begin)
    try:
        results = [answer.get(timeout=max(0.0, deadline - bridge.reactor.seconds()) + 1)]
    except queue.Empty:
        raise DeadlineExceeded("the time for this request is up") from None
    return outcome(results)
