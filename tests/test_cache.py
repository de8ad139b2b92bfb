"""
Tests for the cache of results.
"""

from ppolicy.cache import ResultCache


def test_untilItExpires():
    """An entry is found until its time is up, and not at that time."""
    cache = ResultCache(10)
    cache.put("key", (1, "info"), 100)
    assert cache.get("key", 99.9) == (1, "info")
    assert cache.get("key", 100) is None
    assert len(cache) == 0


def test_leastRecentlyUsedGoes():
    """When it is full, the entry that was not used for longest makes room."""
    cache = ResultCache(3)
    for name in "abc":
        cache.put(name, name, 100)
    cache.get("a", 0)
    cache.put("d", "d", 100)
    assert [cache.get(name, 0) for name in "abcd"] == ["a", None, "c", "d"]


def test_bound():
    """It never holds more than its size, and a size of 0 holds nothing."""
    cache = ResultCache(100)
    for number in range(1000):
        cache.put(number, number, 100)
    assert len(cache) == 100
    nothing = ResultCache(0)
    nothing.put("key", "value", 100)
    assert nothing.get("key", 0) is None


def test_putAgain():
    """A new value for a key replaces the old one and counts as used."""
    cache = ResultCache(2)
    cache.put("a", 1, 100)
    cache.put("b", 1, 100)
    cache.put("a", 2, 100)
    cache.put("c", 1, 100)
    assert (cache.get("a", 0), cache.get("b", 0)) == (2, None)


def test_flush():
    """One module's results are forgotten, or all."""
    cache, one, other = ResultCache(10), object(), object()
    for token in (one, other):
        for number in range(3):
            cache.put((token, number), number, 100)
    assert cache.flush(one) == 3
    assert cache.get((one, 0), 0) is None
    assert cache.get((other, 0), 0) == 0
    assert cache.flush() == 3
    assert len(cache) == 0


def test_resize():
    """Made smaller, it drops what does not fit any more."""
    cache = ResultCache(10)
    for number in range(10):
        cache.put(number, number, 100)
    cache.resize(2)
    assert [number for number in range(10) if cache.get(number, 0) is not None] == [8, 9]
