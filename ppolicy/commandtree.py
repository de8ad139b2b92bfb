"""
What the ppolicy command consists of, as the documents need it: read from the definitions of click.
"""

import inspect
import re
from typing import NamedTuple

import click


class Entry(NamedTuple):
    """
    A command.

    @ivar path: its words, such as C{("ppolicy", "cache", "flush")}.
    @ivar usage: what stands behind them.
    @ivar paragraphs: of its help, each in one line; C{more}: those at the end of it.
    @ivar options: (how it is written, help) of each.
    @ivar isGroup: True when further words follow.
    """

    path: tuple
    usage: str
    paragraphs: list
    options: list
    more: list
    isGroup: bool

    @property
    def name(self):
        return " ".join(self.path)


def entries(command, path=("ppolicy",), above=None):
    """
    The L{Entry} of a command and of all below it, by name.
    """
    if command.hidden:
        return
    isGroup = isinstance(command, click.Group)
    context = click.Context(command, above, path[-1], **command.context_settings)
    given = [_argument(one, context) for one in command.params if isinstance(one, click.Argument)]
    options = [_option(one, context) for one in command.get_params(context) if isinstance(one, click.Option)]
    options = [one for one in options if one is not None]
    words = [*(["[OPTIONS]"] if options else []), *given, *(["COMMAND"] if isGroup else [])]
    yield Entry(
        path,
        " ".join(words),
        _paragraphs(command.help),
        options,
        _paragraphs(command.epilog),
        isGroup,
    )
    if isGroup:
        for name in sorted(command.commands):
            yield from entries(command.commands[name], (*path, name), context)


def _argument(one, context):
    return one.make_metavar(context)


def _option(one, context):
    """
    How an option is written, and its help; None for one that is hidden, and for --help, which all have.
    """
    if one.hidden or "--help" in one.opts:
        return None
    written = ", ".join([*one.opts, *one.secondary_opts])
    if not one.is_flag and not one.count:
        written += f" {one.make_metavar(context).removesuffix(' RANGE')}"
    text = " ".join((one.help or "").split())
    shown = getattr(one, "show_default", None) and one.default not in (None, "", ())
    return written, f"{text} [default: {one.default}]" if shown else text


def _paragraphs(text):
    """
    The paragraphs of a help text, each in one line; one marked with C{\\b}, as click has it, keeps its lines.
    """
    found = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text or "").partition("\f")[0]):
        if block.startswith("\b\n"):
            found.append(block.removeprefix("\b\n"))
        elif block.strip():
            found.append(" ".join(block.split()))
    return found
