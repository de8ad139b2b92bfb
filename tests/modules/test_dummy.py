"""
Tests for the Dummy check module.
"""

from twisted.trial.unittest import SynchronousTestCase

from ppolicy.errors import ConfigError
from ppolicy.testing import make


class DummyTests(SynchronousTestCase):
    """
    The test to copy, as Dummy is the module to copy.
    """

    def test_alwaysUnknown(self):
        """
        Whatever the request, the answer is unknown.
        """
        self.assertEqual((0, "dummy"), make("Dummy").check({}))

    def test_hashArg(self):
        """
        All requests share one cached result.
        """
        check = make("Dummy")
        self.assertEqual(check.hashArg({"sender": "a@b"}), check.hashArg({"sender": "c@d"}))
        self.assertNotEqual(0, check.hashArg({}))

    def test_parameters(self):
        """
        Parameters have their defaults, and a wrong one is refused by name.
        """
        check = make("Dummy", test1="one")
        self.assertEqual(("one", "abc"), (check.test1, check.test2))
        self.assertEqual(1, make("Dummy", test1=1).test1)  # as the manual of 2.7 shows it
        error = self.assertRaises(ConfigError, make, "Dummy", test2=3)
        self.assertIn("test2", str(error))
