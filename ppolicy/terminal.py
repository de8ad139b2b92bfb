"""
What all commands have in common: where the configuration is, JSON, colours, tables, bars, and how they fail.

What was asked for goes to stdout; errors, warnings and bars go to stderr. Colours and bars are for people: they
are left out where a stream is no terminal.
"""

import errno
import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from ppolicy import completion, exitcodes
from ppolicy.errors import ConfigError, Mistake, PPolicyError

_TIMES = ("first", "last", "expires", "soft_expire", "hard_expire")
# A disk on which there is no room for what is printed.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Commands(click.Group):
    """
    The outermost group: errors raised on purpose are shown as a sentence, and every end has its exit code.
    """

    def invoke(self, context):
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # whoever started the command has closed it
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # no answer is lost for the want of a letter
                stream.reconfigure(errors="backslashreplace")
        try:
            result = super().invoke(context)
            sys.stdout.flush()
        except PPolicyError as error:
            complain(str(error))
            code = exitcodes.of(error)
        except BrokenPipeError:
            _printNoMore()
            code = exitcodes.HUNG_UP
        except KeyboardInterrupt:
            click.echo(err=True)
            code = exitcodes.INTERRUPTED
        except OSError as error:
            where = error.filename
            if where is None:
                if error.errno not in _FULL:
                    raise
                _printNoMore()
                where = "standard output"
            hint = "; run this as root or as the server's user" if isinstance(error, PermissionError) else ""
            complain(f"{where}: {error.strerror}{hint}")
            code = exitcodes.REFUSED
        else:
            return result
        sys.exit(code)


def _printNoMore():
    """
    What is left in the buffer must not be complained about when the process ends.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def configured(function):
    """
    The option -c, which may stand behind any word of a command.
    """

    def given(context, parameter, value):
        if value is not None:
            context.meta[completion.CONFIGURATION] = value
        return context.meta.get(completion.CONFIGURATION)

    return click.option(
        "-c",
        "--config",
        "path",
        metavar="FILE",
        type=click.Path(),
        callback=given,
        help="The configuration; by default $PPOLICY_CONF, ./ppolicy.conf, /etc/ppolicy/ppolicy.conf, "
        "/etc/postfix/ppolicy.conf.",
    )(function)


def controlSocket(path):
    """
    Where the server of a configuration listens for commands; one with mistakes says that, too.
    """
    from ppolicy import reading, statefolder

    path = reading.find(path)
    if not path.exists():
        raise ConfigError(Mistake("cannot be read: No such file or directory", path))
    return statefolder.controlPath(reading.glance(path))


def ask(path, verb, **arguments):
    """
    Have the running server do something, and give its answer.

    @raises PPolicyError: with what it says, or why it cannot be reached.
    """
    from ppolicy import controlclient

    return controlclient.ask(controlSocket(path), verb, **arguments)


def printsJSON(function):
    """
    The option --json.
    """
    return click.option("--json", "asJson", is_flag=True, help="Print JSON.")(function)


def options(function):
    """
    The options of a command about what checks keep: -c and --json.
    """
    return printsJSON(configured(function))


def coloured(context, parameter, value):
    """
    Settle for a command and all below it whether there are colours (https://no-color.org/).
    """
    if value == "auto":
        context.color = False if os.environ.get("NO_COLOR") else None
    else:
        context.color = value == "always"


# What people see


def complain(text):
    """
    Print an error.
    """
    click.secho(text, fg="red", err=True)


def warn(text):
    """
    Print a warning.
    """
    click.secho(f"warning: {text}", fg="yellow", err=True)


def headed(text):
    """
    A heading.
    """
    return click.style(text, bold=True)


def judged(code, text):
    """
    A text in the colour of a check's code, which may be C{'nan'}.
    """
    code = float(code)
    return text if code == 0 else click.style(text, fg="green" if code > 0 else "red")


def echoJSON(value, indent=None):
    """
    Print a document.
    """
    click.echo(json.dumps(value, default=str, indent=indent))


def show(answer, asJson, rows=None):
    """
    Print an answer: JSON, or its rows as a table.
    """
    if asJson:
        echoJSON(answer)
    elif rows is None:
        for name, value in answer.items():
            click.echo(f"{name}: {value}")
    else:
        table(answer[rows])


def table(rows):
    """
    Print dictionaries as lines with columns.
    """
    if not rows:
        click.echo("nothing found", err=True)
        return
    names = list(rows[0])
    lines = [names, *([_cell(name, row[name]) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(text if number else headed(text))


def _cell(name, value):
    if name in _TIMES and value:
        # In a list of the site's own a column of this name may hold anything.
        with suppress(ValueError, OverflowError, OSError):
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(value)))
    return printable(value)


def printable(value):
    """
    A text that cannot do anything to a terminal.
    """
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape", "surrogatepass").decode("ascii")


def counted(number, thing):
    """
    How many things there are, in words.
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def found(something):
    """
    Something was named: end with an exit code of its own when it is not there.
    """
    if not something:
        sys.exit(exitcodes.NOT_FOUND)


# Long work


@contextmanager
def progress(label, length, asJson=False):
    """
    A bar on stderr, with C{update(steps)}; nothing unless that is a terminal.
    """
    if asJson or not sys.stderr.isatty():
        yield _NoBar()
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar


class _NoBar:
    def update(self, steps):
        pass
