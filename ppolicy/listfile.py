"""
A list of values in a text file, read again when that changes.

Reading is for a worker thread, C{find()} for the reactor's: only there a regular expression that runs away is
interrupted.
"""

import stat
from pathlib import Path

from ppolicy.errors import ConfigError, Mistake
from ppolicy.listentries import Entries

LARGEST = 512 * 2**20  # octets of a file


class ListFile:
    """
    A list in a file, read again when that changes.

    C{load()}, C{changed()} and C{refresh()} use the disk, and are called by one thread at a time; C{find()} is
    safe meanwhile.

    @ivar problem: a sentence about why the file is not what C{find()} looks in, else None.
    @ivar warnings: L{Mistake}s that do not keep the file from being used.
    @ivar seen: what the file looked like when it was last read.
    """

    def __init__(self, path, caseSensitive=False):
        self.path = Path(path)
        self.problem = None
        self.warnings = []
        self._caseSensitive = caseSensitive
        self._entries = Entries()
        self.seen = ()  # never yet

    def __len__(self):
        return len(self._entries)

    def status(self):
        """
        How it is, as a dictionary.
        """
        return {"problem": self.problem, "entries": len(self), "warnings": len(self.warnings)}

    def find(self, value):
        """
        @see: L{Entries.find}
        """
        return self._entries.find(value)

    def load(self):
        """
        Read the file. If it is written to meanwhile, it is used, but C{changed()} still.

        @raises ConfigError: with all mistakes, each of which names the file; the entries stay as they were.
        """
        try:
            self._take(Entries(self._octets(), self._caseSensitive))
        except ConfigError as error:
            # Those who pass them on tell the line of ppolicy.conf instead of the file's.
            raise ConfigError(*map(str, error.mistakes)) from error

    def changed(self):
        """
        Is the file another than the one last read, be it gone?
        """
        return self._look() != self.seen

    def refresh(self):
        """
        Read the file if it has changed. When it cannot be used, C{problem} says so, the entries stay as they were,
        and nothing is tried until it changes again.

        @return: True when there are new entries.
        """
        if not self.changed():
            return False
        try:
            entries = Entries(self._octets(), self._caseSensitive)
            # Half an entry may be a valid one: 192.0.2.0/2
            if self.changed():
                raise ConfigError(Mistake("it is being written", self.path))
            self._take(entries)
        except ConfigError as error:
            more = len(error.mistakes) - 1
            self.problem = (
                f"{error.mistakes[0]}{f' (and {more} more)' if more else ''}; the entries read before are used"
            )
            return False
        return True

    def _take(self, entries):
        if entries.mistakes:
            raise ConfigError(*[Mistake(sentence, self.path, line) for line, sentence in entries.mistakes])
        self.problem = None
        self.warnings = [Mistake(sentence, self.path, line) for line, sentence in entries.warnings]
        self._entries = entries

    def _octets(self):
        self.seen = None
        try:
            status = self.path.stat()
            self.seen = _looks(status)
            # Opening a named pipe would wait for somebody who writes to it.
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(Mistake("it is no file", self.path))
            if status.st_size > LARGEST:
                raise ConfigError(Mistake(f"it is larger than {LARGEST >> 20} MB", self.path))
            with self.path.open("rb") as stream:
                # What is written to it from now on is another change.
                return stream.read(status.st_size)
        except OSError as error:
            # A mode may be put right without the content being changed, and it costs little to try.
            if self.seen is not None:
                self.seen = ()
            raise ConfigError(Mistake(error.strerror or str(error), self.path)) from error

    def _look(self):
        try:
            return _looks(self.path.stat())
        except OSError:
            return None


def _looks(status):
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
