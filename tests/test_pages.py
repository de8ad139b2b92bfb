"""
Tests for the documents that are made from the code: pages in Markdown, manual pages, and what they read of click.
"""

import re
import shutil
import subprocess

import click
import pytest

from ppolicy import manpages, pages
from ppolicy.__main__ import main
from ppolicy.commandtree import entries
from ppolicy.options import Options
from ppolicy.registry import Registry, bundledTypes


@click.group(epilog="The end.")
@click.option("--loud/--quiet", help="How\n loud.")
def tool(loud):
    """
    Does things.

    \b
    One:
      two 'three' .four \\five
    """


@tool.command()
@click.argument("values", nargs=-1, required=True)
@click.option("-n", "--number", default=3, show_default=True, help="How many.")
@click.option("--secret", hidden=True)
@click.option("--label", metavar="TEXT", multiple=True, help="A label.")
def put(values, number, secret, label):
    """
    Put *values* <there>.
    """


@tool.command(hidden=True)
def never():
    """
    Not for people.
    """


def test_entries():
    """Commands come with their words, arguments, options and paragraphs; what is hidden and --help do not."""
    whole, one = entries(tool, ("tool",))
    assert (whole.name, whole.usage, whole.isGroup) == ("tool", "[OPTIONS] COMMAND", True)
    assert whole.paragraphs == ["Does things.", "One:\n  two 'three' .four \\five"]
    assert (whole.options, whole.more) == ([("--loud, --quiet", "How loud.")], ["The end."])
    assert (one.path, one.usage, one.isGroup) == (("tool", "put"), "[OPTIONS] VALUES...", False)
    assert one.options == [("-n, --number INTEGER", "How many. [default: 3]"), ("--label TEXT", "A label.")]


def test_commandsPage():
    """A command is a section; what would be markup is not, and lines that belong together stay as they are."""
    page = pages.commands(tool)
    assert (
        "\n## ppolicy put\n\n```text\nppolicy put [OPTIONS] VALUES...\n```\n\nPut \\*values\\* \\<there>.\n"
        in page
    )
    assert "\n```text\nOne:\n  two 'three' .four \\five\n```\n" in page
    assert "\n`--label TEXT`\n: A label.\n" in page


def every(command, path):
    """(path, command) of all that people may use."""
    yield path, command
    for name, one in getattr(command, "commands", {}).items():
        if not one.hidden:
            yield from every(one, (*path, name))


@pytest.mark.parametrize("render", [pages.commands, manpages.command])
def test_complete(render):
    """Page and manual page have each command, and each of its options."""
    text = render(main).replace("\\", "")
    for path, command in every(main, ("ppolicy",)):
        assert re.search(rf"^(## |.SS \"){' '.join(path)}\b", text, re.M) or path == ("ppolicy",)
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[-1] in text


def test_options():
    """Page and manual page have each option of ppolicy.conf, with type, default and help."""
    page, manual = pages.options(), manpages.configuration()
    for name, one in Options.declared().items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"default `{one.default!r}`" in section
        assert " ".join(one.help.split())[:30].replace("*", "\\*") in " ".join(section.split())
        assert f"\n.B {name}\n" in manual


@pytest.mark.parametrize("kind", bundledTypes())
def test_module(kind):
    """The section of a module has its parameters, what it takes and returns, and its examples."""
    cls = Registry().find(kind)
    text = pages.modules([cls])
    for name in cls.declared():
        assert f"\n`{name}`: `" in text or name.startswith("saveResult"), name
    assert text.startswith(f"## {kind}\n\n")
    assert "\n```python\n" in text
    assert text.count("```") % 2 == 0
    for part in ("data ...", "information: ", "modules['"):
        assert part in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_manual():
    """groff has nothing to complain about, and shows each text as it was written."""
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tascii", "-P-cbou"],
        input=manpages.command(tool),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout
    for text in ("two 'three' .four \\five", "Put *values* <there>.", "-n, --number INTEGER", "--loud, --quiet"):
        assert text in shown, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a * b", "a \\* b"),
        ("`a * b` and <c>", "`a * b` and \\<c>"),
        ("a_b and [c]", "a_b and [c]"),
        ("two\n   lines", "two lines"),
    ],
)
def test_escaped(text, expected):
    """What Markdown would take for markup is escaped, but in backticks."""
    assert pages.escaped(text) == expected
