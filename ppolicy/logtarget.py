"""
Where lines go on this host: standard output, a file, the syslog daemon. All of a target but open() and reopen()
runs in the thread of a writer, which may wait.
"""

import os
import stat
import sys
import syslog
import threading
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

from twisted.logger import Logger

# The longest message for a syslog daemon, in octets: what an rsyslog takes if it is not told otherwise. A receiver
# that divided a longer one would take what a client has put into the middle of it for a new message.
LONGEST = 8000


class Target:
    """
    What all targets have in common.

    @ivar lost: lines that it had taken, and of which it knows that they did not arrive.
    """

    lost = 0
    _again = False

    def open(self):
        """
        @raises OSError: when lines cannot be written, and that is known without waiting.
        """

    def reopen(self):
        """
        Begin anew with the next lines.
        """
        self._again = True

    def put(self, lines):
        """
        Write as many as can be written at once.

        @param lines: (time, line) of each.
        @return: how many of them are written, from the first on; 0 when only a part of the first is.
        @raises OSError: when nothing could be written.
        """
        raise NotImplementedError

    def close(self):
        """
        Give back what it has open.
        """

    def goesNowhere(self):
        """
        Is everything thrown away?
        """
        return False


class Stdout(Target):
    """
    Standard output. What is written together is not mixed with what other writers of it write.
    """

    _lock = threading.Lock()
    _begun = 0

    def __str__(self):
        return "stdout"

    def put(self, lines):
        """See L{Target.put}."""
        if sys.__stdout__ is None:  # it was closed when the server started
            return len(lines)
        octets = _octets(lines)
        with self._lock:
            sent = os.write(sys.__stdout__.fileno(), octets[self._begun :])
        taken, self._begun = _written(lines, octets, self._begun + sent)
        return taken

    def goesNowhere(self):
        """See L{Target.goesNowhere}."""
        if sys.__stdout__ is None:
            return True
        try:
            return os.path.samestat(os.fstat(sys.__stdout__.fileno()), Path(os.devnull).stat())
        except (OSError, ValueError):
            return True


class File(Target):
    """
    A file, which is created, appended to, and opened anew when it was moved away or removed (rotation).
    """

    def __init__(self, path, mode=0o640):
        self.path = path
        self._mode = mode
        self._file = None
        self._begun = 0

    def __str__(self):
        return str(self.path)

    def open(self):
        """See L{Target.open}."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        self._file = os.open(self.path, flags, self._mode)
        self._begun = 0
        if self._isTorn():
            os.write(self._file, b"\n")

    def put(self, lines):
        """See L{Target.put}."""
        self._reopenWhenMoved()
        octets = _octets(lines)
        sent = os.write(self._file, octets[self._begun :])
        taken, self._begun = _written(lines, octets, self._begun + sent)
        return taken

    def close(self):
        """See L{Target.close}."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _reopenWhenMoved(self):
        if self._file is not None and not self._again:
            with suppress(FileNotFoundError):
                here, there = os.fstat(self._file), self.path.stat()
                if os.path.samestat(here, there):
                    if here.st_size == 0:  # emptied, with the begin of a line in it
                        self._begun = 0
                    return
        self._again = False
        self.close()
        self.open()

    def _isTorn(self):
        """
        Does its last line lack the end, because the disk was full, say, when somebody died?
        """
        with suppress(OSError):
            if stat.S_ISREG(os.fstat(self._file).st_mode):
                with self.path.open("rb") as file:
                    file.seek(-1, os.SEEK_END)  # an OSError when it is empty
                    return file.read() != b"\n"
        return False


class LocalSyslog(Target):
    """
    The syslog daemon of this host, by the C library, in the form that all of them understand. Nobody is told when
    there is none.
    """

    log = Logger()

    def __str__(self):
        return "syslog"

    def open(self):
        """See L{Target.open}."""
        syslog.openlog("ppolicy", syslog.LOG_PID, syslog.LOG_MAIL)
        if not Path("/dev/log").exists():
            self.log.warn("logTarget: there is no /dev/log, so no syslog daemon runs, and lines are lost")

    def put(self, lines):
        """See L{Target.put}."""
        for _, line in lines:
            syslog.syslog(syslog.LOG_INFO, shortened(line.encode("utf-8", "backslashreplace"), LONGEST).decode())
        return len(lines)


def _octets(lines):
    """
    Lines as they stand in a file.
    """
    return ("\n".join(map(itemgetter(1), lines)) + "\n").encode("utf-8", "backslashreplace")


def _written(lines, octets, sent):
    """
    L{whole} of such lines.
    """
    return (len(lines), 0) if sent == len(octets) else whole([_octets([one]) for one in lines], sent)


def shortened(octets, longest):
    """
    Some UTF-8, cut between two characters when it is too long.
    """
    return octets if len(octets) <= longest else octets[:longest].decode("utf-8", "ignore").encode("utf-8")


def whole(frames, sent):
    """
    How many of the frames are whole in so many octets, and how many octets there are of the next one.
    """
    for number, frame in enumerate(frames):
        if sent < len(frame):
            return number, sent
        sent -= len(frame)
    return len(frames), 0
