"""
Which keys a large table may have: a blocked Bloom filter, two octets for each key. All bits of a key are in one
word, so that it is one look (F. Putze, P. Sanders, J. Singler: Cache-, Hash- and Space-Efficient Bloom Filters,
Journal of Experimental Algorithmics 14, 2009).
"""

from array import array
from itertools import combinations, islice

# Keys for each word of 64 bits: one absent key in 150 seems to be there; with half as many keys, one in 800.
_KEYS = 4
_LEAST = 1 << 14
# The four bits that a key sets, one of many choices; and where in the hash the choice is.
_CHOICES = 4096
_SHIFT = 64 - 12
_PATTERNS = [sum(1 << bit for bit in bits) for bits in islice(combinations(range(64), 4), 0, 155 * _CHOICES, 155)]


class KeyFilter:
    """
    @param keys: how many there are to be; a filter that holds more is wrong more often.
    @ivar room: how many keys may still be added.
    """

    def __init__(self, keys):
        size = _LEAST
        while size * _KEYS < keys:
            size *= 2
        self.room = size * _KEYS
        self._mask = size - 1
        self._words = array("Q", bytes(8 * size))

    def add(self, key):
        """
        @param key: octets. Their hash is this process's own: nobody can choose keys that look alike.
        """
        self.room -= 1
        number = hash(key)
        self._words[number & self._mask] |= _PATTERNS[number >> _SHIFT & 4095]

    def mayHave(self, key):
        """
        False: it was never added.
        """
        number = hash(key)
        pattern = _PATTERNS[number >> _SHIFT & 4095]
        return self._words[number & self._mask] & pattern == pattern
