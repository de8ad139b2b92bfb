"""
Tests for the folder of everything that is kept.
"""

import os

import pytest

from ppolicy import statefolder
from ppolicy.errors import ConfigError

US = os.geteuid()


@pytest.fixture
def folder(tmp_path):
    """
    A folder in a folder, both of them ours alone.
    """
    path = tmp_path / "parent" / "state"
    path.mkdir(parents=True)
    for one in (path, path.parent):
        one.chmod(0o750)
    return path


def test_fine(folder):
    """
    A folder of ours, and one that is not there yet, is taken.
    """
    statefolder.refuse(folder, {0, US})
    statefolder.refuse(folder / "more" / "state", {0, US})
    statefolder.make(folder / "new")
    assert (folder / "new").stat().st_mode & 0o777 == 0o750
    statefolder.make(folder / "new")


@pytest.mark.parametrize(
    ("mode", "parentMode", "sentence"),
    [
        (0o777, 0o755, r"/state, which everybody can write to: chmod o-w \S+/state,"),
        (0o1777, 0o755, "/state, which everybody can write to"),
        (0o750, 0o777, r"/state lies in \S+/parent, which everybody can write to: chmod o-w \S+/parent,"),
        (0o750, 0o1777, None),
        (0o700, 0o700, None),
    ],
)
def test_writable(folder, mode, parentMode, sentence):
    """
    Others must not write to it, nor to a folder above, where a sticky one does no harm.
    """
    folder.chmod(mode)
    folder.parent.chmod(parentMode)
    for function in (statefolder.refuse, statefolder.make):
        if sentence is None:
            function(folder)
        else:
            with pytest.raises(ConfigError, match=sentence):
                function(folder)


def test_group(folder, monkeypatch):
    """
    A group may write when it has no other members.
    """
    folder.chmod(0o770)
    monkeypatch.setattr(statefolder, "_isOwnGroup", lambda group, trusted: False)
    with pytest.raises(ConfigError, match="its group can write to: chmod g-w"):
        statefolder.refuse(folder)
    monkeypatch.setattr(statefolder, "_isOwnGroup", lambda group, trusted: True)
    statefolder.refuse(folder)


def test_ownGroup():
    """
    A group that others are members of is nobody's own; nor is one that has no name.
    """
    assert not statefolder._isOwnGroup(os.getegid(), {987654})
    assert not statefolder._isOwnGroup(987654, {0})


def test_link(folder):
    """
    A symbolic link is refused as the folder, and followed on the way to it.
    """
    link = folder.parent / "link"
    link.symlink_to(folder)
    with pytest.raises(ConfigError, match=rf"link is a symbolic link: name the folder itself, {folder}$"):
        statefolder.refuse(link)
    (folder / "deep").mkdir(mode=0o750)
    statefolder.refuse(link / "deep")
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match=f"lies in {folder}, which everybody can write to"):
        statefolder.refuse(link / "deep")


def test_endlessLink(tmp_path):
    """
    Links that lead nowhere come to an end.
    """
    (tmp_path / "loop").symlink_to("loop/loop")
    statefolder.refuse(tmp_path / "loop" / "state")


def test_foreign(folder):
    """
    What belongs to somebody else is refused, with whom.
    """
    with pytest.raises(ConfigError, match="belongs to .*: start the server as"):
        statefolder.refuse(folder, {987654})


def test_noFolder(folder):
    """
    A file is no folder.
    """
    (folder / "file").touch()
    with pytest.raises(ConfigError, match="file: Not a directory"):
        statefolder.make(folder / "file")


def test_lock(folder):
    """
    Two servers cannot have the same folder.
    """
    lock = statefolder.lockFolder(folder)
    with pytest.raises(ConfigError, match=rf"is in use by another server \(pid {os.getpid()}\)"):
        statefolder.lockFolder(folder)
    os.close(lock)
    os.close(statefolder.lockFolder(folder))


class Configured:
    """
    As much of a configuration as is asked for.
    """

    def __init__(self, folder, stateDir=None, controlSocket=None):
        self.folder = folder
        self.options = self
        self.stateDir = stateDir
        self.controlSocket = controlSocket


def test_where(folder, monkeypatch):
    """
    stateDir goes before systemd's folders, of which the first counts, resolved because DynamicUser= makes links.
    """
    monkeypatch.setenv("STATE_DIRECTORY", f"{folder.parent}/link:/nowhere")
    (folder.parent / "link").symlink_to("state")
    assert statefolder.stateFolder(Configured(folder)) == folder
    assert statefolder.controlPath(Configured(folder)) == folder / "control.sock"
    assert statefolder.stateFolder(Configured(folder, stateDir=folder / "own")) == folder / "own"
    assert statefolder.controlPath(Configured(folder, controlSocket=folder / "c")) == folder / "c"
