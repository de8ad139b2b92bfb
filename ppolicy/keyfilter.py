"""
Which keys a large table may have: a Bloom filter, two octets for each key (B. Bloom, Communications of the ACM
13(7), 1970).
"""

# Bits for each key, and how many of them one key sets: one absent key in 400 seems to be there.
_BITS = 16
_LEAST = 1 << 20


class KeyFilter:
    """
    @param keys: how many there are to be; a filter that holds more is wrong more often.
    @ivar room: how many keys may still be added.
    """

    def __init__(self, keys):
        size = _LEAST
        while size < keys * _BITS:
            size *= 2
        self.room = size // _BITS
        self._mask = size - 1
        self._bits = bytearray(size // 8)

    def add(self, digest):
        """
        @param digest: 16 octets, evenly distributed.
        """
        self.room -= 1
        bits, mask = self._bits, self._mask
        number = int.from_bytes(digest, "little")
        for shift in (0, 32, 64, 96):
            place = number >> shift & mask
            bits[place >> 3] |= 1 << (place & 7)

    def mayHave(self, digest):
        """
        False: it was never added.
        """
        bits, mask = self._bits, self._mask
        number = int.from_bytes(digest, "little")
        place = number & mask
        if not bits[place >> 3] & 1 << (place & 7):
            return False
        for shift in (32, 64, 96):
            place = number >> shift & mask
            if not bits[place >> 3] & 1 << (place & 7):
                return False
        return True
