"""
A file that is read as a whole, again when it changes.
"""

import stat
from pathlib import Path

from ppolicy.errors import ConfigError, Mistake


class WatchedFile:
    """
    What a file has, until it is another one; how it is kept is up to those who derive from this.

    @ivar path: where it is.
    @ivar problem: a sentence about why what it has now is not used, else None.
    @ivar seen: what the file looked like when it was last read.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.problem = None
        self.seen = ()  # never yet

    def changed(self):
        """
        Is the file another than the one last read, be it gone?
        """
        return self._look() != self.seen

    def _look(self):
        try:
            return _looks(self.path.stat())
        except OSError:
            return None

    def _octets(self, largest):
        """
        Read it.

        @param largest: octets that it may have.
        @raises ConfigError: when it cannot be read.
        """
        self.seen = None
        try:
            status = self.path.stat()
            self.seen = _looks(status)
            # Opening a named pipe would wait for somebody who writes to it.
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(Mistake("it is no file", self.path))
            if status.st_size > largest:
                raise ConfigError(Mistake(f"it is larger than {largest >> 20} MB", self.path))
            with self.path.open("rb") as stream:
                # What is written to it from now on is another change.
                return stream.read(status.st_size)
        except OSError as error:
            # A mode may be put right without the content being changed, and it costs little to try.
            if self.seen is not None:
                self.seen = ()
            raise ConfigError(Mistake(error.strerror or str(error), self.path)) from error


def _looks(status):
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
