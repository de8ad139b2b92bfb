"""
Tests for secrets that systemd keeps.
"""

from pathlib import Path

import pytest

from ppolicy import credentials, ownlists, target
from ppolicy.errors import ConfigError
from ppolicy.parameter import Parameters, parameter


class Options(Parameters):
    """
    Two parameters that take a file.
    """

    file: Path | None = parameter(None, "a file")
    files: list[Path] | Path = parameter([], "several")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """
    What systemd makes for a unit with LoadCredential=database:…
    """
    (tmp_path / "database").write_text("hush-hush\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path


def accepted(**values):
    mistakes = []
    return Options.accept(values, Path("/etc/ppolicy"), mistakes), [sentence for _, sentence in mistakes]


def test_everyPath(folder):
    """
    A parameter that takes a path takes a credential.
    """
    values, mistakes = accepted(file="credential:database", files=["credential:database", "other"])
    assert mistakes == []
    assert values == {"file": folder / "database", "files": [folder / "database", Path("/etc/ppolicy/other")]}


@pytest.mark.parametrize("name", ["", ".", "..", "../database", "a/b", "a\0b"])
def test_noName(folder, name):
    """
    A credential's name leads nowhere else.
    """
    with pytest.raises(ConfigError, match="has the name of a file"):
        credentials.locate(f"credential:{name}")


def test_unknown(folder):
    """
    One that the unit does not load is a mistake that says what to do.
    """
    _, mistakes = accepted(file="credential:other")
    assert mistakes == [
        f"file: credential:other: there is no other in {folder}: "
        "add LoadCredential=other:/path/of/the/file to the unit"
    ]


def test_none(monkeypatch):
    """
    So is one where systemd has passed none at all.
    """
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    _, mistakes = accepted(file="credential:database")
    assert len(mistakes) == 1
    assert mistakes[0].startswith(
        "file: credential:database: systemd has passed no credentials: add LoadCredential="
    )


def test_database(folder):
    """
    The password of `database` may be a credential, in both forms of the option.
    """
    for option in (
        "mysql://u@h/x?password_file=credential:database",
        {"db": "x", "user": "u", "password_file": "credential:database"},
    ):
        assert target.parse(option, Path("/etc/ppolicy")).password == "hush-hush"
    with pytest.raises(ValueError, match="^password_file: credential:nope: there is no nope"):
        target.parse("mysql://u@h/x?password_file=credential:nope", Path("/"))


def test_lists(folder):
    """
    The key of a subscribed DNS list may be a credential.
    """
    lists = ownlists.parse({"ZEN": {"keyFile": "credential:database"}}, Path("/"))
    assert lists["ZEN"].key == "hush-hush"
    with pytest.raises(ConfigError, match="dnsLists: ZEN: keyFile credential:nope: there is no nope"):
        ownlists.parse({"ZEN": {"keyFile": "credential:nope"}}, Path("/"))
