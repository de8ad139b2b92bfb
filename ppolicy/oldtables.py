"""
Tables of ppolicy 2.7, brought into those of today.
"""

from sqlalchemy import column, func, select
from sqlalchemy import table as named

from ppolicy.conversation import converse, portions, request
from ppolicy.errors import PPolicyError
from ppolicy.opened import Opened
from ppolicy.schema import noted
from ppolicy.statement import Compiled
from ppolicy.target import databaseTarget
from ppolicy.terminal import progress


def bringIn(path, url, source, tables, asJson):
    """
    Have the checks of a configuration take the rows of their old tables.

    @param url: connect with this instead of the option C{database}.
    @param source: URL of the old database, if it is another one.
    @param tables: only these; without any, all.
    @return: {table: a sentence about what was done}.
    @raises PPolicyError: when no check has such a table.
    """
    opened = Opened(path, url)
    origin = opened
    if source is not None:
        origin = Opened(path, source)
        if databaseTarget(origin.configuration) == databaseTarget(opened.configuration):
            origin = opened
    imports = [one for one in _imports(opened.generation) if not tables or one.table in tables]
    unknown = set(tables) - {one.table for one in imports}
    if unknown:
        names = ", ".join(sorted(one.table for one in _imports(opened.generation))) or "none"
        raise PPolicyError(f"no greylist and no list has the table {min(unknown)}; there is {names}")
    same = origin is opened
    with origin:  # before the checks start, which make tables that are missing
        done = {one.table: _putAside(one, origin, same) for one in imports}

    def dialogue():
        with origin:
            for one in imports:
                if done[one.table] is None:
                    done[one.table] = yield from _importOne(one, origin, same, asJson)

    converse(path, dialogue())
    return done


class _Import:
    """
    A table of 2.7, and the check that takes its rows.

    @ivar times: the columns of type DATETIME.
    """

    def __init__(self, check, family, table, columns, times):
        self.check, self.family, self.table = check, family, table
        self.columns, self.times = columns, times


def _imports(generation):
    found = {}
    for slot in generation.slots.values():
        check = slot.check
        for table, columns, times in check.oldTables():
            found.setdefault(table, _Import(slot.name, check.family, table, columns, times))
    return [found[name] for name in sorted(found)]


def _aside(name):
    return f"{name}_27"


def _putAside(one, origin, same):
    """
    Make room for the table of today.

    @param same: is the table in the database in which that one will be?
    @return: a sentence when there is nothing to import, else None.
    """
    database, connection = origin.database, origin.connection
    present = database.columns(connection, one.table)
    if same and database.columns(connection, _aside(one.table)) is not None:
        return None  # an import that was not finished
    if present is None or (same and noted(database, connection, one.table) is not None):
        return "there is no such table of 2.7"
    if same:
        if (
            not one.times
            or not set(one.times) <= set(present)
            or not database.isDate(connection, one.table, one.times[0])
        ):
            return "is used as it is"
        quote = database.dialect.identifier_preparer.quote
        connection.execute(f"ALTER TABLE {quote(one.table)} RENAME TO {quote(_aside(one.table))}")
    return None


def _importOne(one, origin, same, asJson):
    """
    A dialogue with the check that takes the rows.

    @return: a sentence about what was done.
    """
    database, connection = origin.database, origin.connection
    name = _aside(one.table) if same else one.table
    present = database.columns(connection, name)
    missing = [wanted for wanted in (*one.columns, *one.times) if wanted not in present]
    if missing:
        return f"is no table of 2.7: it has no column {', '.join(missing)}"
    columns = [column(wanted) for wanted in one.columns]
    times = [database.epoch(column(wanted)) for wanted in one.times]
    query = Compiled(select(*columns, *times).select_from(named(name, *columns)), database.dialect)
    number = Compiled(select(func.count()).select_from(named(name)), database.dialect)
    ((count,),) = number(connection).fetchall()
    database.useServersTime(connection)
    taken = 0
    rows = connection.stream(query.text, query.bound({}))
    with progress(one.table, count, asJson) as bar:
        for portion in portions([_plain(value) for value in row] for row in rows):
            answer = yield request(one.family, one.check, "importRows", table=one.table, rows=portion)
            taken += answer["taken"]
            bar.update(len(portion))
    return f"{taken} of {count} rows taken" + (f"; the old table is {name} now" if same else "")


def _plain(value):
    """
    A value that JSON can carry.
    """
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return float(value) if hasattr(value, "as_integer_ratio") else str(value)
