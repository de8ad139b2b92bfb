"""
Results of checks until they expire.
"""

from collections import Counter, OrderedDict
from itertools import islice


class ResultCache:
    """
    A bounded map from (module, hashArg) to (code, information); the least recently used entry goes first.

    Times are seconds of any one monotonic clock, given by the caller, who has read it anyway.
    """

    def __init__(self, size):
        self.size = size
        self._entries = OrderedDict()

    def __len__(self):
        return len(self._entries)

    def get(self, key, now):
        """
        The (code, information) stored under the key, else None.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key, result, expires):
        """
        Keep a result until the clock says C{expires}.
        """
        entries = self._entries
        count = len(entries)
        entries[key] = (expires, result)
        if len(entries) == count:
            entries.move_to_end(key)
        elif count >= self.size:
            entries.popitem(last=False)

    def resize(self, size):
        """
        Hold at most so many results from now on.
        """
        self.size = size
        while len(self._entries) > size:
            self._entries.popitem(last=False)

    def flush(self, module=None):
        """
        Forget the results of one module, or all.

        @return: how many there were.
        """
        if module is None:
            count = len(self._entries)
            self._entries.clear()
            return count
        # A scan, but of an administrator's command, never of a request.
        gone = [key for key in self._entries if key[0] is module]
        for key in gone:
            del self._entries[key]
        return len(gone)

    def counts(self):
        """
        How many entries each module has: {module: number}.
        """
        return Counter([key[0] for key in self._entries])

    def newest(self, module, number):
        """
        The entries of a module that were used last, as (hashArg, (code, information), expires).
        """
        entries = reversed(self._entries.items())
        mine = ((key[1], result, expires) for key, (expires, result) in entries if key[0] is module)
        return list(islice(mine, number))
