"""
Who holds the reactor? A periodic signal finds policy and module code that computes or sleeps too long.

The signal handler runs in the main thread between two byte codes, so it can look at the code that is running,
and raise in it. It raises only while `armed`: that is set around calls of policy and module code and nowhere
else, because an exception between two byte codes of our own would leave half-made changes behind.
"""

import signal
import sys
import threading

from twisted.logger import Logger

from ppolicy.errors import DeadlineExceeded

TICK = 0.05
REPORT = 0.2
INTERRUPT = 2.0
_IDLE_TICKS = 20


class Watchdog:
    """
    @ivar armed: True while policy or module code runs, and an interrupt may be raised in it.
    @ivar since: time of C{clock} when the running code got the reactor; None while none runs.
    @ivar blocked: where code was seen that holds the reactor longer than L{REPORT}, else None.
    @ivar reports: how often that happened.
    """

    log = Logger()

    def __init__(self, clock, isOurs=lambda filename: False):
        self.armed = False
        self.since = None
        self._clock = clock
        self.blocked = None
        self.reports = 0
        self.ticking = False
        self._idle = 0
        self._isOurs = isOurs
        self._started = False
        self._interrupted = False

    def start(self):
        """
        Take SIGALRM. Only the main thread may; elsewhere (a test, an embedding) nothing is watched.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, self._tick)
            self._started = True
        else:
            self.ticking = True

    def stop(self):
        if self._started:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            self._started = False
        self.ticking = False

    def wake(self):
        """
        Start ticking; it stops by itself when no code runs any more, so that an idle server sleeps.
        """
        self.ticking = True
        self._idle = 0
        if self._started:
            signal.setitimer(signal.ITIMER_REAL, TICK, TICK)

    def _tick(self, signum, frame):
        since = self.since
        if since is None:
            self._idle += 1
            if self._idle > _IDLE_TICKS:
                signal.setitimer(signal.ITIMER_REAL, 0)
                self.ticking = False
            return
        self._idle = 0
        held = self._clock() - since
        if held > REPORT and self.blocked is None:
            self.blocked = self._place(frame)
        if held > INTERRUPT and self.armed:
            if self._interrupted:
                self._insist(frame)
            self._interrupted = True
            raise DeadlineExceeded(f"interrupted after holding the reactor for {held * 1000:.0f} ms")

    def _insist(self, frame):
        """
        The code has caught an interrupt and goes on: have the next one raised again at the very line where it is
        caught, which is outside of what that C{try} protects.
        """
        caught = set()

        def trace(frame, event, argument):
            if event == "exception":
                caught.add(frame)
            elif event == "line" and frame in caught:
                raise DeadlineExceeded("interrupted, and again where it was caught")
            return trace

        sys.settrace(lambda frame, event, argument: None)  # no frame but those that run now
        while frame is not None:
            if not self._isOurs(frame.f_code.co_filename):
                frame.f_trace = trace
            frame = frame.f_back

    def _place(self, frame):
        """
        Function, file and line of the innermost code that is the site's own; else of the innermost at all.
        """
        inner = frame
        while frame is not None and self._isOurs(frame.f_code.co_filename):
            frame = frame.f_back
        frame = frame if frame is not None else inner
        return frame.f_code.co_qualname, frame.f_code.co_filename, frame.f_lineno

    def report(self):
        """
        Say in the log who held the reactor; called by the bridge when it has the reactor back.
        """
        sys.settrace(None)
        function, filename, line = self.blocked
        self.blocked = None
        self.reports += 1
        self.log.warn(
            "{function} held the reactor for {milliseconds} ms ({filename}:{line}){end}",
            function=function,
            milliseconds=round((self._clock() - self.since) * 1000),
            filename=filename,
            line=line,
            end=" and was interrupted" if self._interrupted else "",
        )
        self._interrupted = False
