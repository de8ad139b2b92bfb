"""
Tests for what is kept of the DNS.
"""

from twisted.trial.unittest import SynchronousTestCase

from ppolicy import answercache
from ppolicy.answercache import AnswerCache
from ppolicy.dns import Answer


class AnswerCacheTests(SynchronousTestCase):
    """
    The octets have a bound, beside the number of answers.
    """

    def test_octets(self):
        """
        The octets have a bound, too.
        """
        self.patch(answercache, "OCTETS", 100_000)
        cache = AnswerCache(1_000_000)
        for number in range(1000):
            cache.put((b"%d" % number, "TXT"), Answer(((b"x" * 255,) * 40,)), 1)
            self.assertLessEqual(cache.octets, 100_000)
        self.assertTrue(5 < len(cache) < 10, len(cache))
        cache.put((b"huge", "TXT"), Answer(((b"x" * 200_000,),)), 1)
        self.assertEqual((0, 0), (len(cache), cache.octets))

    def test_replaced(self):
        """
        The octets of what is replaced, run out or flushed do not count any more.
        """
        cache = AnswerCache(10)
        key = b"a", "A"
        cache.put(key, Answer(("192.0.2.1",) * 100), 1)
        cache.put(key, Answer(("192.0.2.1",)), 1)
        one = cache.octets
        cache.put((b"b", "A"), Answer(("192.0.2.1",)), 1)
        self.assertEqual(2 * one, cache.octets)
        self.assertIsNone(cache.get(key, 1))
        self.assertEqual(one, cache.octets)
        self.assertEqual(1, cache.flush())
        self.assertEqual((0, 0), (cache.octets, len(cache)))
