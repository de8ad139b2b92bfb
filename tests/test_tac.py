"""
Tests for ppolicy.tac: it assembles the application, and does nothing else.
"""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
from twisted.application.service import IService

from ppolicy.service import PPolicyService

TAC = Path(__file__).parent.parent / "ppolicy.tac"
POLICY = "def check(factory, data, port):\n    return 'dunno', ''\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """
    Load the .tac with a configuration, in a folder of its own.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def load(text, tac=TAC):
        (tmp_path / "ppolicy.conf").write_text(text, encoding="utf-8")
        (tmp_path / "ppolicy.conf").chmod(0o644)  # whatever the umask
        monkeypatch.setenv("PPOLICY_CONF", str(tmp_path / "ppolicy.conf"))
        return runpy.run_path(str(tac))["application"]

    return load


def test_application(load):
    """
    The application holds the one service, for the configuration that PPOLICY_CONF names.
    """
    (service,) = IService(load(POLICY))
    assert isinstance(service, PPolicyService)
    assert service.listeners() == []


def test_opensNothing(load, tmp_path):
    """
    twistd forks after it has loaded the .tac: until then nothing is opened, nothing written.
    """
    load(f"ppolicyPort = 'unix:{tmp_path}/socket'\nstateDir = '{tmp_path}/state'\n" + POLICY)
    assert [path.name for path in tmp_path.iterdir()] == ["ppolicy.conf"]


def test_mistakes(load, tmp_path):
    """
    A configuration with mistakes ends twistd with all of them, and with no traceback.
    """
    with pytest.raises(SystemExit) as caught:
        load("connLimit = 'many'\nmodules = {'one': ('Nope', {})}\n" + POLICY)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}/ppolicy.conf:1: connLimit: ")
    assert second.startswith(f"{tmp_path}/ppolicy.conf:2: one: no check module Nope")
    assert caught.value.__suppress_context__


def test_checkoutComesFirst(load):
    """
    In a checkout, the package beside the .tac is the one that is run.
    """
    load(POLICY)
    assert sys.path[0] == str(TAC.parent)


def test_installedStaysOffThePath(load, tmp_path):
    """
    An installed .tac, or a copy of it, puts no folder on the path: it may lie anywhere.
    """
    before = list(sys.path)
    load(POLICY, shutil.copy(TAC, tmp_path))
    assert sys.path == before


def test_besideTheTac(load, tmp_path, monkeypatch):
    """
    Without PPOLICY_CONF, the configuration beside the .tac is read, wherever twistd was started.
    """
    load(POLICY)
    monkeypatch.delenv("PPOLICY_CONF")
    copy = shutil.copy(TAC, tmp_path)
    monkeypatch.chdir("/")
    (tmp_path / "ppolicy.conf").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=f"{tmp_path}/ppolicy.conf:1: NameError"):
        runpy.run_path(copy)


def test_strangersConfiguration(load, tmp_path, monkeypatch):
    """
    A configuration that was found by chance, and that everybody may write, is not run.
    """
    load(POLICY)
    monkeypatch.delenv("PPOLICY_CONF")
    (tmp_path / "ppolicy.conf").chmod(0o666)
    with pytest.raises(SystemExit, match="may be written by everybody"):
        runpy.run_path(shutil.copy(TAC, tmp_path))
