"""
Renders what is generated from the code: MODULES, docs/options and sql/sqlite.sql.

    python -m ppolicy.reference         writes them into the present folder
"""

import inspect
import sys
import typing
from pathlib import Path

from ppolicy.check import Check
from ppolicy.options import Options
from ppolicy.registry import Registry, bundledTypes
from ppolicy.schema import ddl, stateTable
from ppolicy.sqlite import SQLite

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

This page is made from the modules themselves: python -m ppolicy.reference
"""


def modules():
    """
    The text of MODULES.
    """
    registry = Registry()
    return "\n\n".join([_INTRODUCTION, *(module(registry.find(name)) for name in bundledTypes())])


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
    lines = []
    for name, one in sorted(cls.declared().items()):
        if common.get(name) is one and name.startswith("saveResult"):
            continue
        default = "required" if one.required else repr(one.default)
        lines += [f"    {name}: {typeName(one.type)} ({default})", *wrapped(one.help)]
    return "\n".join(lines)


def typeName(kind):
    """
    A type as a person writes it.
    """
    if typing.get_origin(kind) or not isinstance(kind, type):
        return str(kind).replace("typing.", "").replace("pathlib.", "").replace("NoneType", "None")
    return kind.__name__


def wrapped(text, width=72, indent="        "):
    """
    A help text in lines.
    """
    import textwrap

    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


def options():
    """
    The text of docs/options.
    """
    return (
        "The options of ppolicy.conf\n===========================\n\n"
        "Name, type and default of each; made by python -m ppolicy.reference\n\n" + parameters(Options) + "\n"
    )


def sql():
    """
    The table definitions of bundled modules with their default table names, for the embedded database.
    """
    tables = [stateTable("greylist", "touch", ("sender", "recipient", "client_address"))]
    statements = [f"{statement.strip()};" for table in tables for statement in ddl(table, SQLite.dialect)]
    return (
        "-- Tables of the embedded database; made by python -m ppolicy.reference\n\n"
        + "\n\n".join(statements)
        + "\n"
    )


FILES = {"MODULES": modules, "docs/options": options, "sql/sqlite.sql": sql}


def main():
    """
    Write all of them.
    """
    for name, render in FILES.items():
        Path(name).write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
