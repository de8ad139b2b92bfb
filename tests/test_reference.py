"""
The documents tell the truth: generated ones are fresh, examples work, everything is documented.
"""

import ast
import inspect
import re
import shutil
import textwrap
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from ppolicy import config, offline, reference
from ppolicy.options import Options
from ppolicy.registry import Registry, bundledTypes
from ppolicy.testing import make
from tests.serving import POSTFIX, Serving, asked

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", reference.FILES)
def test_fresh(name):
    """A generated file is what the generator makes now."""
    assert (ROOT / name).read_text(encoding="utf-8") == reference.FILES[name](), "run: make reference"


def test_everyParameter():
    """MODULES has each parameter of each check, also those that all have; types are as a person writes them."""
    text = (ROOT / "MODULES").read_text(encoding="utf-8")
    introduction, *entries = re.split(r"^Module (?=\w+\n-)", text, flags=re.MULTILINE)
    entries = {one.partition("\n")[0]: one for one in entries}
    for kind in bundledTypes():
        for name in Registry().find(kind).declared():
            where = introduction if name.startswith("saveResult") else entries[kind]
            assert f"\n    {name}: " in where, (kind, name)
    assert not re.search(r"^    \w+: .*(Optional|Union|collections|PosixPath)", text, re.MULTILINE)


def examples():
    """(module type, example) for each assignment in the Examples of each module."""
    registry = Registry()
    for kind in bundledTypes():
        text = inspect.cleandoc(registry.find(kind).__doc__).partition("Examples:\n")[2]
        tree = ast.parse(inspect.cleandoc(text))
        assert tree.body, f"{kind} has no example"
        for statement in tree.body:
            yield pytest.param(kind, ast.unparse(statement), id=f"{kind}: {ast.unparse(statement)[:60]}")


@pytest.mark.parametrize(("kind", "example"), list(examples()))
def test_example(tmp_path, kind, example):
    """An example of MODULES configures a check of that type, which starts, answers a request and stops."""
    example = example.replace("/tmp/", f"{tmp_path}/").replace("'sleep': 5", "'sleep': 0")  # noqa: S108
    example = example.replace("/var/lib/GeoIP/", f"{tmp_path}/")
    for name, data in (("Country", "GeoIP2-Country"), ("City", "GeoIP2-City"), ("ASN", "GeoLite2-ASN")):
        shutil.copy(ROOT / "tests" / "data" / "geoip" / f"{data}-Test.mmdb", tmp_path / f"GeoLite2-{name}.mmdb")
    (tmp_path / "traps.txt").write_text("trap@example.com\n", encoding="utf-8")
    (tmp_path / "networks.txt").write_text("192.0.2.0/24 example\n", encoding="utf-8")
    name = re.match(r"modules\['(\w+)'\]", example)[1]
    serving = Serving(
        tmp_path,
        f"{example}\ndef check(factory, data, port):\n    code, info = factory.check('{name}', data)\n"
        "    return 'WARN', f'{code} {info}'\n",
    )
    assert serving.generation.slots[name].spec.cls.__name__ == kind
    protocol, transport = serving.connect()
    protocol.dataReceived(asked(**POSTFIX))
    serving.clock.advance(1)
    serving.clock.advance(0)
    reply = transport.value().decode()
    serving.generation.stop()
    assert re.fullmatch(r"action=WARN -?\d+ .*\n\n", reply)
    assert "exception" not in reply
    documented = re.findall(
        r"^    (-?\d+) \.+", inspect.cleandoc(type(serving.generation.slots[name].check).__doc__), re.M
    )
    assert reply.split()[1] in documented


@pytest.mark.parametrize("kind", bundledTypes())
def test_documented(kind):
    """Each module teaches its subject, and says what it takes and returns; each parameter has a help."""
    cls = Registry().find(kind)
    for part in ("Check arguments:\n", "Check returns:\n", "information: ", "Examples:\n"):
        assert part in cls.__doc__, part
    assert inspect.getmodule(cls).__doc__
    for name, one in cls.declared().items():
        assert one.help, name
    required = {name: one.type for name, one in cls.declared().items() if one.required}
    assert make(kind, **{name: _some(type_) for name, type_ in required.items()})


def _some(kind):
    """A value of a parameter's type."""
    return get_args(kind)[0] if get_origin(kind) is Literal else ["x"] if get_origin(kind) is list else "x"


def test_options():
    """Each option has a help, and README and UPGRADE name none that does not exist."""
    for name, one in Options.declared().items():
        assert one.help, name


def test_shippedPolicy(tmp_path):
    """The shipped policy defers a first contact at RCPT, and nothing else of what it is asked."""
    text = (ROOT / "ppolicy.conf").read_text()
    serving = Serving(tmp_path, text)

    def action(**changes):
        return serving.ask(asked(**{**POSTFIX, **changes})).split()[0]

    assert action() == "action=DEFER_IF_PERMIT"
    assert action(recipient="postmaster@example.org") == "action=dunno"
    assert action(recipient="Abuse@example.org") == "action=dunno"
    assert action(sasl_username="alice", sender="other@example.net") == "action=dunno"
    assert action(protocol_state="DATA", recipient="") == "action=dunno"
    assert action(protocol_state="END-OF-MESSAGE") == "action=dunno"


def test_readmePolicy(tmp_path):
    """The policy in README works as it stands, and has the ten lines it promises."""
    text = (ROOT / "README").read_text(encoding="utf-8")
    block = text.partition("function that decides.\n\n")[2].partition("\n\n\n")[0]
    policy = textwrap.dedent(block)
    assert len([line for line in policy.split("\n") if line]) == 10
    serving = Serving(tmp_path, policy)
    assert serving.ask(asked(**POSTFIX)).startswith("action=DEFER_IF_PERMIT 4.7.1 ")
    assert serving.ask(asked(**{**POSTFIX, "sasl_username": "alice"})) == "action=dunno\n\n"
    # and the lines for Postfix are those that `make run` prints
    lines = offline.postfixLines(config.load(ROOT / "ppolicy.conf")).split("\n", 2)[2]
    assert " ".join(lines.split()) in " ".join(text.split())
