"""
How long something took while the machine worked: where a host has its processors shared, they stand still for a
second now and then, which says nothing about a server that must answer in one.
"""

import functools
import os
import threading
import time

_PAUSE = 0.02
_LATE = 0.05  # a thread that wakes up later than this had to wait for its processor


def took(begin):
    """
    Seconds since C{begin} (of C{time.monotonic()}), without those in which a processor stood still.
    """
    end = time.monotonic()
    watched = _watched()
    if end - begin > _PAUSE + _LATE:
        time.sleep(2 * _PAUSE)  # who watches may have slept longer than we
    return end - begin - max(sum(_shared(one, begin, end) for one in list(gaps)) for gaps in watched)


def _shared(gap, begin, end):
    return max(0.0, min(gap[1], end) - max(gap[0], begin))


@functools.cache
def _watched():
    """
    For each processor, when it stood still; watched from now on.
    """
    watched = []
    for processor in os.sched_getaffinity(0):
        watched.append([])
        threading.Thread(target=_watch, args=(processor, watched[-1]), daemon=True).start()
    return watched


def _watch(processor, gaps):
    os.sched_setaffinity(0, {processor})  # of this thread
    last = time.monotonic()
    while True:
        time.sleep(_PAUSE)
        now = time.monotonic()
        if now - last > _PAUSE + _LATE:
            gaps.append((last + _PAUSE, now))
        last = now


_watched()
