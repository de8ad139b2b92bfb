"""
Lines to a target, written by a thread: nobody who writes ever waits for a disk, a pipe or a network.
"""

import queue
import threading
import time
from collections import deque
from itertools import islice, repeat

from twisted.logger import Logger

FLUSH = 0.2
# What may wait: lines, and characters of them.
BOUND = 50_000
CHARACTERS = 16_000_000
# Lines that a target is offered at once.
PORTION = 200
# Seconds until the next attempt after the first failure, and after the last of many.
SOON, LATE = 0.25, 3
# Seconds that stop() waits.
STOP = 2


class LineWriter:
    """
    What a target cannot take at once waits, up to a bound, until it can. Trouble is logged once when it begins
    and once when it is over.

    @param target: a L{ppolicy.logtarget.Target}.
    @param flush: seconds in which lines gather before they are written together.
    @ivar problem: why lines cannot be written at present, else None.
    """

    log = Logger()

    def __init__(self, target, flush=FLUSH):
        self.target = target
        self.problem: str | None = None
        self._flush = flush
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        # An object that is thrown away may say something in the log, in the middle of write().
        self._lock = threading.RLock()
        self._waiting = self._characters = self._lost = 0
        self._lostBefore = 0
        self._since: float | None = None
        self._stopping = False
        self._wake = threading.Event()
        self._pending: deque = deque()
        self._thread = threading.Thread(target=self._work, name="ppolicy writer", daemon=True)

    def start(self):
        """
        @raises OSError: when the target cannot be written to, and that is known at once.
        """
        self.target.open()
        self._thread.start()

    @property
    def dropped(self):
        """
        Lines that were lost, because the target did not keep up or lost them itself.
        """
        return self._lost + self.target.lost

    def status(self):
        """
        How it is, as a dictionary.
        """
        return {
            "target": str(self.target),
            "problem": self.problem,
            "waiting": self._waiting,
            "dropped": self.dropped,
        }

    def goesNowhere(self):
        """
        Is the target stdout, and that /dev/null, as for a daemon?
        """
        return self.target.goesNowhere()

    def write(self, text, count=1):
        """
        Write a line, or several as one text, without the last line end: soon, or as soon as the target can.

        @param count: as how many lines it counts. Where it is above 1, each line of the text is one of them.
        @return: False when so much waits already that this is dropped.
        """
        with self._lock:
            if self._waiting + count <= BOUND and self._characters + len(text) <= CHARACTERS:
                self._waiting += count
                self._characters += len(text) + 1
                self._queue.put((time.time(), text, count))
                return True
            isFirst = self._fails("does not keep up")
            self._lost += count
        if isFirst:
            self.log.error("{problem}, lines are lost", problem=self.problem)
        return False

    def reopen(self):
        """
        Have the next line go to the target as it is then: open the file, look up the host, connect, without delay.
        """
        self.target.reopen()
        self._wake.set()

    def stop(self):
        """
        Write what is left; waits for it, but not for ever.
        """
        self._stopping = True
        self._queue.put(None)
        self._wake.set()
        self._thread.join(STOP)
        with self._lock:
            left, self._waiting = self._waiting, 0
            self._lost += left
        if left:
            self.log.error("{target}: the last {left} lines are lost", target=str(self.target), left=left)

    # All below runs in the thread, but for _fails.

    def _work(self):
        delay, isLast = SOON, False
        while not isLast:
            isLast = self._gather()
            if self._put():
                delay = SOON
            elif not isLast:
                self._pause(delay)
                delay = min(2 * delay, LATE)
        self.target.close()

    def _gather(self):
        """
        Wait for lines, unless some are left, and take all that there are.

        @return: True when no more will come.
        """
        if not self._pending:
            if self._take(self._queue.get()):
                return True
            self._pause(self._flush)  # more lines gather meanwhile, and go out in one write
        while not self._queue.empty():
            if self._take(self._queue.get()):
                return True
        return False

    def _take(self, entry):
        if entry is None:
            return True
        when, text, count = entry
        if count == 1:
            self._pending.append((when, text))
        else:
            self._pending.extend(zip(repeat(when), text.split("\n")))
        return False

    def _pause(self, seconds):
        if seconds and not self._stopping:
            self._wake.wait(seconds)
            self._wake.clear()

    def _put(self):
        """
        @return: False when not all could be written.
        """
        while self._pending:
            try:
                self._written(self.target.put(list(islice(self._pending, PORTION))))
            except OSError as error:
                if self._fails(error.strerror or str(error)):
                    self.log.error(
                        "{problem}; lines wait, those beyond {bound:,} are lost", problem=self.problem, bound=BOUND
                    )
                return False
            except Exception:  # noqa: BLE001 - one line must not keep all others from being written
                with self._lock:
                    self._lost += 1
                self._written(1)
                self.log.failure("{target}: a line is lost", target=str(self.target))
        self._works()
        return True

    def _written(self, count):
        lines = [self._pending.popleft()[1] for _ in range(count)]
        with self._lock:
            self._waiting -= count
            self._characters -= sum(map(len, lines)) + count

    def _fails(self, reason):
        """
        @return: True when that is new.
        """
        with self._lock:
            self.problem = f"{self.target}: {reason}"
            isFirst = self._since is None
            if isFirst:
                self._lostBefore, self._since = self.dropped, time.monotonic()
            return isFirst

    def _works(self):
        with self._lock:
            since, self._since = self._since, None
            self.problem = None
            lost = self.dropped - self._lostBefore
        if since is not None:
            self.log.warn(
                "{target}: works again after {seconds} s, {lost} lines were lost",
                target=str(self.target),
                seconds=round(time.monotonic() - since),
                lost=lost or "no",
            )
