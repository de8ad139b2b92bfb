"""
A list of values in a text file, read again when that changes.

Reading is for a worker thread, C{find()} for the reactor's: only there a regular expression that runs away is
interrupted.
"""

from ppolicy.errors import ConfigError, Mistake
from ppolicy.listentries import Entries
from ppolicy.watchedfile import WatchedFile

LARGEST = 512 * 2**20  # octets of a file


class ListFile(WatchedFile):
    """
    A list in a file, read again when that changes.

    C{load()}, C{changed()} and C{refresh()} use the disk, and are called by one thread at a time; C{find()} is
    safe meanwhile.

    @ivar warnings: L{Mistake}s that do not keep the file from being used.
    """

    def __init__(self, path, caseSensitive=False):
        super().__init__(path)
        self.warnings = []
        self._caseSensitive = caseSensitive
        self._entries = Entries()

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
            self._take(Entries(self._octets(LARGEST), self._caseSensitive))
        except ConfigError as error:
            # Those who pass them on tell the line of ppolicy.conf instead of the file's.
            raise ConfigError(*map(str, error.mistakes)) from error

    def refresh(self):
        """
        Read the file if it has changed. When it cannot be used, C{problem} says so, the entries stay as they were,
        and nothing is tried until it changes again.

        @return: True when there are new entries.
        """
        if not self.changed():
            return False
        try:
            entries = Entries(self._octets(LARGEST), self._caseSensitive)
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
