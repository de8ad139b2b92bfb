"""
Tests for lists in text files: what a change is, and that one that cannot be used leaves the entries as they were.
"""

import os
from pathlib import Path

import pytest

from ppolicy import listfile
from ppolicy.errors import ConfigError
from ppolicy.listfile import ListFile


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "list"
    put(path, "one\n")
    return path


def put(path, text, clock=iter(range(1, 1000))):
    """
    Write a file in place, with a time of its own, since that of two quick writes may be the same.
    """
    path.write_text(text)
    seconds = 1_700_000_000 + next(clock)
    os.utime(path, (seconds, seconds))


def loaded(path):
    listed = ListFile(path)
    listed.load()
    return listed


class TestListFile:
    def test_load(self, path):
        """A file that was read finds its entries, and has not changed."""
        listed = ListFile(str(path))
        assert listed.find("one") is None
        assert listed.changed()
        listed.load()
        assert listed.find("ONE") == ("one", "", 1)
        assert len(listed) == 1
        assert not listed.changed()
        assert not listed.refresh()
        assert (listed.problem, listed.warnings) == (None, [])

    def test_caseSensitive(self, path):
        """Cases are told apart if that is wanted."""
        listed = ListFile(path, caseSensitive=True)
        listed.load()
        assert listed.find("one")
        assert listed.find("ONE") is None

    def test_mistakes(self, path):
        """All mistakes of a file are raised together, each with file and line; warnings are none."""
        put(path, "/(/\none\n192.0.2.1/24\n192.0.2.0/33\n")
        with pytest.raises(ConfigError) as raised:
            ListFile(path).load()
        assert str(raised.value).splitlines() == [
            f"{path}:1: /(/ is no regular expression: missing ), unterminated subpattern at position 0",
            f"{path}:4: 192.0.2.0/33 is no network: after the / stands a number from 0 to 32",
        ]
        # Who names the line of ppolicy.conf instead takes the sentences alone.
        assert [one.sentence for one in raised.value.mistakes] == str(raised.value).splitlines()

    def test_warnings(self, path):
        """What may be meant otherwise is used, and said."""
        put(path, "one\n192.0.2.1/24\n")
        listed = loaded(path)
        assert listed.find("192.0.2.9")
        assert listed.problem is None
        assert list(map(str, listed.warnings)) == [
            f"{path}:2: 192.0.2.1/24 is an address within 192.0.2.0/24, which is used"
        ]

    def test_cannotBeRead(self, path, tmp_path):
        """At the start, a file that is not there, is none, or is too large, is refused."""
        os.mkfifo(tmp_path / "pipe")
        with (tmp_path / "large").open("wb") as file:
            file.truncate(512 * 2**20 + 1)
        for name, sentence in {
            "missing": "No such file or directory",
            "list/below": "Not a directory",
            ".": "it is no file",
            "pipe": "it is no file",
            "large": "it is larger than 512 MB",
        }.items():
            with pytest.raises(ConfigError) as raised:
                ListFile(tmp_path / name).load()
            assert str(raised.value) == f"{tmp_path / name}: {sentence}"

    def test_refresh(self, path):
        """A file that has changed is read again, once."""
        listed = loaded(path)
        put(path, "two\n")
        assert listed.changed()
        assert listed.find("one")
        assert listed.refresh()
        assert listed.find("one") is None
        assert listed.find("two")
        assert not listed.changed()
        assert not listed.refresh()

    def test_whatAChangeIs(self, path):
        """Another size, another time and another file of the same size and time are changes."""
        listed = loaded(path)
        status = path.stat()
        path.write_text("three\n")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert listed.refresh()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert listed.refresh()
        status = path.stat()
        other = path.with_name("other")
        other.write_text("seven\n")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.rename(path)
        assert listed.refresh()
        assert listed.find("seven")

    def test_keepsWhatItHas(self, path, monkeypatch):
        """New content with mistakes is not used, said once, and not tried again until it changes."""
        listed = loaded(path)
        put(path, "two\n/(/\n.\n@\n")
        assert not listed.refresh()
        assert listed.problem == (
            f"{path}:2: /(/ is no regular expression: missing ), unterminated subpattern at position 0"
            " (and 2 more); the entries read before are used"
        )
        assert listed.find("one")
        assert listed.find("two") is None
        with monkeypatch.context() as patched:
            patched.setattr(listed, "_octets", None)
            assert not listed.changed()
            assert not listed.refresh()
        assert listed.problem
        put(path, "two\n")
        assert listed.refresh()
        assert listed.problem is None
        assert listed.find("two")

    def test_vanished(self, path):
        """A file that vanishes leaves its entries, and is read when it is back."""
        listed = loaded(path)
        content = path.rename(path.with_name("away"))
        assert listed.changed()
        assert not listed.refresh()
        assert listed.problem == f"{path}: No such file or directory; the entries read before are used"
        assert listed.find("one")
        assert not listed.changed()
        content.rename(path)
        assert listed.changed()
        assert listed.refresh()
        assert listed.problem is None

    def test_notAllowed(self, path, monkeypatch):
        """A file that may not be read is tried again, because its mode is not its content."""
        listed = loaded(path)
        put(path, "two\n")

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", refuse)
            assert not listed.refresh()
        assert listed.problem == f"{path}: Permission denied; the entries read before are used"
        assert listed.refresh()
        assert listed.find("two")

    @pytest.mark.parametrize("half, rest", [("two\n192.0.2.0/2", "4\n"), ("two\n/192.0.2.[0-9]", "/\n")])
    def test_beingWritten(self, path, monkeypatch, half, rest):
        """A file that is written to while it is read is not used half, and is read again."""
        listed = loaded(path)
        real = listfile.Entries

        def slow(octets, caseSensitive):
            with path.open("a") as file:
                file.write(rest)
            return real(octets, caseSensitive)

        put(path, half)
        with monkeypatch.context() as patched:
            patched.setattr(listfile, "Entries", slow)
            assert not listed.refresh()
        assert listed.problem == f"{path}: it is being written; the entries read before are used"
        assert listed.find("one")
        assert listed.find("192.9.9.9") is None
        assert listed.changed()
        assert listed.refresh()
        assert listed.problem is None
        assert listed.find("two")
        assert listed.find("192.0.2.9")

    def test_beingWrittenAtTheStart(self, path, monkeypatch):
        """At the start the half is better than nothing, and the rest is another change."""
        listed = ListFile(path)
        real = listfile.Entries

        def slow(octets, caseSensitive):
            path.write_text("one\ntwo\n")
            return real(octets, caseSensitive)

        with monkeypatch.context() as patched:
            patched.setattr(listfile, "Entries", slow)
            listed.load()
        assert listed.find("one")
        assert listed.find("two") is None
        assert listed.changed()
        assert listed.refresh()
        assert listed.find("two")

    def test_foundMeanwhile(self, path, monkeypatch):
        """While a file is read again, the entries of before are all there."""
        listed = loaded(path)
        real = listfile.Entries
        found = []

        def looking(octets, caseSensitive):
            entries = real(octets, caseSensitive)
            found.append((listed.find("one"), listed.find("two")))
            return entries

        put(path, "two\n")
        monkeypatch.setattr(listfile, "Entries", looking)
        assert listed.refresh()
        assert found == [(("one", "", 1), None)]

    def test_askingReadsNothing(self, path, monkeypatch):
        """Asking whether a file has changed does not open it."""
        listed = loaded(path)
        monkeypatch.setattr(Path, "open", None)
        assert not listed.changed()
        os.utime(path, (1, 1))
        assert listed.changed()
