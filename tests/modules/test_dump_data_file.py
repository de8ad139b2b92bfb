"""
Tests for the DumpDataFile check module.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from ppolicy.attributes import ATTRIBUTES
from ppolicy.errors import ConfigError
from ppolicy.offline import requests
from ppolicy.testing import make

HOSTILE = {
    "sender": "a\\n@b",
    "helo_name": "nul\0 esc\x1b cr\r del\x7f",
    "recipient": "\udcff\udce9@x",
    "policy_context": "line\u2028 nbsp\xa0 é 😀",
    "empty": "",
}


# Seconds that a busy machine may take to write.
PATIENCE = 20


class DumpDataFileTests(SynchronousTestCase):
    """
    A real file, written by the real thread.
    """

    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "dump.dat"

    def make(self, **parameters):
        check = make("DumpDataFile", fileName=str(self.path), **parameters)
        check.start()
        return check

    def wait(self, text):
        """
        Wait until the text is in the file.
        """
        deadline = time.monotonic() + PATIENCE
        while text not in self.path.read_text():
            self.assertTrue(time.monotonic() < deadline, f"{text!r} was never written")
            time.sleep(0.01)

    def test_entry(self):
        """
        An entry is the date, each attribute, and a blank line.
        """
        check = self.make()
        self.assertEqual((1, None), check.check({"sender": "a@b", "result_spf_info": ("pass", 1)}))
        check.stop()
        date, *rest = self.path.read_text().split("\n")
        self.assertTrue(date.startswith(("date=1", "date=2")))
        self.assertEqual(["sender=a@b", "result_spf_info=('pass', 1)", "", ""], rest)

    def test_soon(self):
        """
        The entry is in the file soon, without another one that pushes it there.
        """
        check = self.make()
        self.addCleanup(check.stop)
        check.check({"sender": "a@b"})
        self.wait("sender=a@b\n")

    def test_replay(self):
        """
        Whatever the values, ppolicy explain reads them back as they were, without date and results; what was not
        there is empty.
        """
        check = self.make()
        check.check({**HOSTILE, "result_x_code": 1})
        check.check({"sender": "second"})
        check.stop()
        octets = self.path.read_bytes()
        self.assertEqual([ATTRIBUTES | HOSTILE, ATTRIBUTES | {"sender": "second"}], requests(octets))
        self.assertTrue(all(octet == 10 or octet >= 32 for octet in octets))

    def test_rotation(self):
        """
        After the file was moved away a new one is begun.
        """
        check = self.make()
        check.check({"sender": "one"})
        self.wait("sender=one")
        self.path.rename(self.path.with_suffix(".1"))
        check.check({"sender": "two"})
        check.stop()
        self.assertIn("sender=one", self.path.with_suffix(".1").read_text())
        self.assertIn("sender=two", self.path.read_text())
        self.assertNotIn("sender=one", self.path.read_text())

    def test_cannotBeWritten(self):
        """
        A file that cannot be written refuses the start.
        """
        check = make("DumpDataFile", fileName="/nowhere/dump.dat")
        self.assertIn("/nowhere/dump.dat", str(self.assertRaises(ConfigError, check.start)))

    def test_dryRunOfNoFile(self):
        """
        A dry run, which makes no file, finds that there can be none.
        """
        for path, why in (("/nowhere/dump.dat", "No such file or directory"), ("/etc", "Is a directory")):
            check = make("DumpDataFile", fileName=path)
            check.dryRun = True
            self.assertEqual(f"fileName: {path}: {why}", str(self.assertRaises(ConfigError, check.start)))

    def test_dryRun(self):
        """
        A dry run writes nothing.
        """
        check = make("DumpDataFile", fileName=str(self.path))
        check.dryRun = True
        check.start()
        self.assertEqual((1, None), check.check({"sender": "a@b"}))
        check.stop()
        self.assertFalse(self.path.exists())

    def test_full(self):
        """
        When the file does not keep up, entries are refused and told so.
        """
        check = self.make()
        self.addCleanup(check.stop)
        check._writer.write = lambda line: False
        self.assertEqual((-1, None), check.check({"sender": "a@b"}))
