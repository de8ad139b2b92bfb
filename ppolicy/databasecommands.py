"""
The commands C{ppolicy db}: create, upgrade and inspect the tables of a configuration, and bring in those of 2.7.
"""

import re
import sys

import click

from ppolicy import exitcodes
from ppolicy.errors import BackendError
from ppolicy.terminal import complain, echoJSON, headed, judged, options, progress, show


def _target(function):
    return click.option(
        "--database",
        "url",
        metavar="URL",
        help="Connect with this instead of the option database: as a user who may create tables, say.",
    )(options(function))


def _opened(path, url):
    from ppolicy.opened import Opened

    return Opened(path, url)


@click.group()
def db():
    """
    The tables of the database that the configuration names.
    """


@db.command()
@_target
@click.option("--sql", is_flag=True, help="Print the statements instead.")
def create(path, asJson, url, sql):
    """
    Create the tables that are missing.

    The server does so by itself where it may.

    \b
    Example, for a user who may not create tables:
      ppolicy db create --sql | mariadb -u root ppolicy
    """
    opened = _opened(path, url)
    if sql:
        statements = opened.statements()
        if asJson:
            echoJSON({"statements": statements})
        else:
            click.echo("".join(f"{statement};\n\n" for statement in statements), nl=False)
        return
    _prepareAll(opened, asJson, upgrade=False)


@db.command()
@_target
def upgrade(path, asJson, url):
    """
    Bring older tables up to date.

    Tables that are missing are created. There is no way back: have a backup.
    """
    _prepareAll(_opened(path, url), asJson, upgrade=True)


def _prepareAll(opened, asJson, upgrade):
    refused = {}
    with opened, progress("tables", len(opened.tables), asJson) as bar:
        for table in opened.tables:
            try:
                opened.prepare(table, upgrade)
            except BackendError as error:
                refused[table.name] = str(error)
            bar.update(1)
    _status(opened, asJson)
    for sentence in refused.values():
        complain(sentence)
    sys.exit(exitcodes.REFUSED if refused else exitcodes.FINE)


@db.command()
@_target
def status(path, asJson, url):
    """
    Show the wanted tables and their state.

    The exit code is 1 when one cannot be used.
    """
    states = _status(_opened(path, url), asJson)
    sys.exit(exitcodes.FINE if all(map(_isUsable, states.values())) else exitcodes.REFUSED)


def _isUsable(state):
    return re.fullmatch(r"version \d+|made by .*", state) is not None


def _status(opened, asJson):
    with opened:
        states = opened.states()
    if asJson:
        echoJSON({"database": str(opened.database), "tables": states})
    else:
        click.echo(f"{headed('database')}: {opened.database}")
        for name, state in states.items():
            click.echo(f"{name}: {state if _isUsable(state) else judged(-1, state)}")
    return states


@db.command("import")
@_target
@click.option("--from", "source", metavar="URL", help="The database of ppolicy 2.7, if it is another one.")
@click.argument("tables", nargs=-1)
def importTables(path, asJson, url, source, tables):
    """
    Bring in tables of ppolicy 2.7.

    These are greylists, and lists as they are. Without TABLES all that the configuration names. In the same
    database a table that has another form today is put aside first, with _27 behind its name; lists that can be
    used as they are stay as they are.
    """
    from ppolicy import oldtables

    show(oldtables.bringIn(path, url, source, tables, asJson), asJson)
