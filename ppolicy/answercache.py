"""
What the DNS has answered, until its time is up.
"""

from collections import OrderedDict

from ppolicy.dns import Answer

# Octets that the cache may have.
OCTETS = 32 << 20
_AROUND = 400


class AnswerCache:
    """
    Answers, and troubles, until their time is up; bounded in number and octets, what was not used for longest goes
    first.
    """

    def __init__(self, size):
        self.size = size
        self.octets = 0
        self._entries = OrderedDict()

    def __len__(self):
        return len(self._entries)

    def get(self, key, now):
        """
        What is kept under a key, else None.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key, value, expires):
        """
        Keep it until then.
        """
        if not self.size:
            return
        if key in self._entries:
            self._remove(key)
        octets = len(key[0]) + _AROUND + (sum(map(_octets, value.records)) if isinstance(value, Answer) else 0)
        self._entries[key] = expires, value, octets
        self.octets += octets
        self._shrink()

    def resize(self, size):
        """
        Keep so many from now on.
        """
        self.size = size
        self._shrink()

    def _shrink(self):
        while self._entries and (len(self._entries) > self.size or self.octets > OCTETS):
            self._remove(next(iter(self._entries)))

    def flush(self):
        """
        Forget everything.

        @return: how much there was.
        """
        count = len(self._entries)
        self._entries.clear()
        self.octets = 0
        return count

    def _remove(self, key):
        self.octets -= self._entries.pop(key)[2]


def _octets(value):
    return 80 + (sum(map(len, value)) if isinstance(value, tuple) and isinstance(value[0], bytes) else 60)
