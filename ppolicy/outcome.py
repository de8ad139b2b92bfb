"""
What a wait ends with: a result, what was raised, or that the time is up.
"""

from twisted.python.failure import Failure

from ppolicy.errors import DeadlineExceeded

# What stands for a result that did not come in time.
LATE = object()


def outcome(results):
    """
    Take the only result there is, or raise its exception. No frame may keep the Failure then: that has the
    exception, whose traceback has the frame, and only the garbage collector would free them.
    """
    result = results.pop()
    if not isinstance(result, Failure):
        return result
    try:
        raise result.value.with_traceback(result.getTracebackObject())
    finally:
        del result


def timeUp(timeout):
    """
    The error of a wait that took too long: for so many seconds, or, with None, for the request.
    """
    if timeout is None:
        return DeadlineExceeded("the time for this request is up")
    return TimeoutError(f"no answer within {timeout:g} s")


def late():
    """
    What one of several Deferreds gives that did not fire in time.
    """
    return Failure(TimeoutError("no answer in time"))
