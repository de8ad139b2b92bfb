"""
The lock files have all that ppolicy needs, each file by its hash.
"""

import re
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-build.lock")
EXTRAS = ("ldap", "metrics", "tls")


def entries(name):
    """
    The requirements of a lock file, and the hashes of each.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]
    return [(Requirement(line.partition(" --hash=")[0]), re.findall(r" --hash=(\S+)", line)) for line in lines]


def versions(name):
    """
    The version of each locked package.
    """
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one, _ in entries(name)}


def needed():
    """
    What setup.cfg asks for, with the extras that the lock has.
    """
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    texts = [setup["options"]["install_requires"], *(extras[name] for name in EXTRAS)]
    return [Requirement(line) for text in texts for line in text.split("\n") if line]


@pytest.mark.parametrize("name", LOCKS)
def test_hashes(name):
    """
    Each line names one version and has at least one SHA-256; none names a place to get it from.
    """
    found = entries(name)
    assert len(found) > 3
    for requirement, hashes in found:
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert hashes, requirement
        assert [one for one in hashes if not re.fullmatch("sha256:[0-9a-f]{64}", one)] == [], requirement
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "//" not in text
    assert re.findall(r"^\s*-(?!-hash=|c )\S*", text, re.MULTILINE) == []


@pytest.mark.parametrize("requirement", needed(), ids=str)
def test_locked(requirement):
    """
    What ppolicy needs is in the lock, in a version that it may have.
    """
    locked = versions("requirements.lock")
    assert canonicalize_name(requirement.name) in locked, "run make lock"
    assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), "run make lock"


def test_sameVersions():
    """
    A package in both files has one version: they are installed into one environment.
    """
    run, build = (versions(name) for name in LOCKS)
    assert {"build", "setuptools"} <= set(build)
    assert {name: build[name] for name in run.keys() & build.keys()} == {
        name: run[name] for name in run.keys() & build.keys()
    }
