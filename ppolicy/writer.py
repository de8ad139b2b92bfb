"""
Lines to a file, stdout or syslog, written by a thread: nobody who writes ever waits for a disk or a pipe.
"""

import os
import queue
import sys
import syslog
import threading
from pathlib import Path

from twisted.logger import Logger

FLUSH = 0.2
BOUND = 50_000


class LineWriter:
    """
    @param target: 'stdout', 'syslog' or the path of a file, which is created, appended to, and opened anew
        when it was moved away or removed (rotation).
    @ivar dropped: lines lost because the target did not keep up.
    """

    log = Logger()

    def __init__(self, target, mode=0o640):
        self.target = target
        self.dropped = 0
        self._mode = mode
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._file = None
        self._failing = False
        self._thread = threading.Thread(target=self._work, name="ppolicy writer", daemon=True)

    def start(self):
        """
        @raises OSError: when the file cannot be written.
        """
        if isinstance(self.target, Path):
            self._open()
        elif self.target == "syslog":
            syslog.openlog("ppolicy", syslog.LOG_PID, syslog.LOG_MAIL)
        self._thread.start()

    def goesNowhere(self):
        """
        Is the target stdout, and that /dev/null, as for a daemon?
        """
        if self.target != "stdout":
            return False
        try:
            return os.path.samestat(os.fstat(sys.__stdout__.fileno()), Path(os.devnull).stat())
        except (OSError, ValueError):
            return True

    def write(self, line):
        """
        Write a line (or several, as one text), without its line end, within 0.2 s or as soon as the target can.

        @return: False when so much waits already that this one is dropped.
        """
        if self._queue.qsize() >= BOUND:
            self.dropped += 1
            return False
        self._queue.put(line)
        return True

    def stop(self):
        """
        Write what is left; waits for it, but not for ever.
        """
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(2)

    # All below runs in the thread.

    def _work(self):
        running = True
        while running:
            lines = [self._queue.get()]
            self._stopping.wait(FLUSH)  # more lines gather meanwhile, and go out in one write
            while not self._queue.empty():
                lines.append(self._queue.get())
            if None in lines:
                running = False
                lines = [line for line in lines if line is not None]
            try:
                self._put(lines)
                self._failing = False
            except OSError as error:
                self.dropped += len(lines)
                if not self._failing:
                    self._failing = True
                    self.log.error("{target}: {error}", target=str(self.target), error=str(error))
        if self._file is not None:
            os.close(self._file)

    def _put(self, lines):
        if self.target == "syslog":
            for line in lines:
                syslog.syslog(syslog.LOG_INFO, line)
            return
        data = memoryview("".join([f"{line}\n" for line in lines]).encode("utf-8", "backslashreplace"))
        if self.target == "stdout":
            file = sys.__stdout__.fileno()
        else:
            self._reopenWhenMoved()
            file = self._file
        while data:
            data = data[os.write(file, data) :]

    def _open(self):
        self._file = os.open(self.target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, self._mode)

    def _reopenWhenMoved(self):
        if self._file is not None:
            try:
                here, there = os.fstat(self._file), self.target.stat()
                if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                    return
            except FileNotFoundError:
                pass
            os.close(self._file)
            self._file = None
        self._open()
