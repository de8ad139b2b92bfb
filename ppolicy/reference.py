"""
Renders what is generated from the code: MODULES, pages of docs/ and the tables in sql/.

    python -m ppolicy.reference         writes them into the present folder
"""

import contextlib
import inspect
import sys
from pathlib import Path

from twisted.internet.task import Clock

from ppolicy import manpages, pages
from ppolicy.__main__ import main as command
from ppolicy.blocklistservice import Blocklists
from ppolicy.bridge import Bridge
from ppolicy.check import Check
from ppolicy.errors import ConfigError
from ppolicy.mariadb import MariaDB
from ppolicy.parameter import typeName
from ppolicy.registry import Registry, bundledTypes
from ppolicy.schema import VERSION_TABLE, ddl
from ppolicy.sqlite import SQLite
from ppolicy.state import StateStore
from ppolicy.tables import TableService
from ppolicy.target import Target

_INTRODUCTION = """\
The check modules of ppolicy
============================

A check is configured in ppolicy.conf under a name of your choice,

    modules['name'] = ('Type', {'parameter': value, ...})

and asked in the policy function:

    code, info = factory.check('name', data)

The code is above 0 for yes, 0 for unknown, below 0 for no. What else a check
takes or tells is said below. Results are kept in the cache for as long as the
parameters cachePositive, cacheUnknown and cacheNegative say (0: not at all).

What was found is noted in the request too, for later checks and the dumps:
result_name_code, result_name_info, result_name_time (milliseconds) and
result_name_cache (was it in the cache?); for a second question to the same
check result_name#1_code and so on. Every check has two more parameters for it:

{common}

This page is made from the modules themselves: python -m ppolicy.reference
"""


def modules():
    """
    The text of MODULES.
    """
    registry = Registry()
    common = [entry(name, one) for name, one in Check.declared().items() if name.startswith("saveResult")]
    introduction = _INTRODUCTION.replace("{common}", "\n".join(common))
    return "\n\n".join([introduction, *(module(registry.find(name)) for name in bundledTypes())])


def module(cls):
    """
    The entry of one module.
    """
    title = f"Module {cls.__name__}"
    about, _, rest = inspect.cleandoc(cls.__doc__).partition("\n\nCheck arguments:")
    return (
        f"{title}\n{'-' * len(title)}\n\n{about}\n\nParameters:\n{parameters(cls, skip=Check)}\n\n"
        f"Check arguments:{rest}\n"
    )


def parameters(cls, skip=None):
    """
    The declared parameters, one below the other. Those that the class has as C{skip} has them are left out.
    """
    common = skip.declared() if skip else {}
    return "\n".join(
        entry(name, one)
        for name, one in sorted(cls.declared().items())
        if not (common.get(name) is one and name.startswith("saveResult"))
    )


def entry(name, one):
    """
    One declared parameter.
    """
    default = "required" if one.required else repr(one.default)
    return "\n".join([f"    {name}: {typeName(one.type)} ({default})", *wrapped(one.help)])


def wrapped(text, width=72, indent="        "):
    """
    A help text in lines.
    """
    import textwrap

    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


def commandsPage():
    """
    The text of docs/commands.md.
    """
    return pages.commands(command)


def commandManual():
    """
    The text of docs/man/ppolicy.1.
    """
    return manpages.command(command)


class _Nowhere(Clock):
    """
    A reactor in which nothing is done: it is only to be said what would be.
    """

    def callFromThread(self, function, *arguments):
        pass


def tables(kind, target):
    """
    The table definitions of bundled modules with their default table names.

    @param kind: of the database, a class.
    """
    reactor = _Nowhere()
    database = kind(reactor, target)
    dialect, bridge = database.dialect, Bridge(reactor)
    state, lists = StateStore(bridge, database), TableService(bridge, database)
    registry = Registry()
    for name in bundledTypes():
        cls, mistakes = registry.find(name), []
        accepted = cls.accept({}, Path(), mistakes)
        if not mistakes:
            check = cls(name)
            check.assume(accepted)
            check.state, check.tables, check.dns, check.forgetResults = state, lists, None, None
            check.blocklists, check.smtp = Blocklists(bridge, None), None
            if not any(one.required for one in cls.declared().values()):
                _start(check)
    wanted = sorted(database.wanted(), key=lambda table: table.name)
    statements = [
        f"{statement.strip()};" for table in (*wanted, VERSION_TABLE) for statement in ddl(table, dialect)
    ]
    return (
        "-- The tables of modules that need no parameter, with their default names; for those of a configuration\n"
        "-- ask `ppolicy db create --sql`. Made by python -m ppolicy.reference\n\n"
        + "\n\n".join(statements)
        + "\n"
    )


def _start(check):
    """
    Start a check; one that does not find its files here wants no tables either.
    """
    with contextlib.suppress(ConfigError):
        check.start()


def sqliteTables():
    """
    The text of sql/sqlite.sql.
    """
    return tables(SQLite, Path("ppolicy.sqlite"))


def mariadbTables():
    """
    The text of sql/mariadb.sql.
    """
    return tables(MariaDB, Target(name="ppolicy"))


FILES = {
    "MODULES": modules,
    "docs/commands.md": commandsPage,
    "docs/man/ppolicy.1": commandManual,
    "docs/man/ppolicy.conf.5": manpages.configuration,
    "docs/options.md": pages.options,
    "sql/mariadb.sql": mariadbTables,
    "sql/sqlite.sql": sqliteTables,
}


def main():
    """
    Write all of them.
    """
    for name, render in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
