"""
The commands C{ppolicy db}: create, upgrade and inspect the tables of a configuration, and bring in those of 2.7.
"""

import sys

import click
from sqlalchemy import column, func, select
from sqlalchemy import table as named

from ppolicy import exitcodes
from ppolicy.administration import converse, options, portions, request
from ppolicy.errors import BackendError, ConfigError, PPolicyError
from ppolicy.schema import ddl, described, noted, prepare
from ppolicy.statement import Compiled
from ppolicy.terminal import complain, echoJSON, headed, judged, progress, show

# Where the connections of these commands wait: changing a large table takes its time.
_PATIENT = "load"


def _target(function):
    return click.option(
        "--database",
        "url",
        metavar="URL",
        help="Connect with this instead of the option database: as a user who may create tables, say.",
    )(options(function))


class Opened:
    """
    The database of a configuration, and the checks that want something of it, without a reactor.
    """

    def __init__(self, path, url=None):
        from twisted.internet import reactor

        from ppolicy import offline, service

        self.configuration = offline.load(path)
        if url is not None:
            self.configuration.options.database = url
        self.database = service.openDatabase(reactor, self.configuration)
        try:
            self.generation = offline.prepared(self.configuration, self.database)
        except ValueError as error:
            raise ConfigError(f"database: {error}") from None
        self.tables = sorted(self.database.wanted(), key=lambda table: table.name)

    def __enter__(self):
        from ppolicy import privileges, service

        file = service.databaseTarget(self.configuration).path
        if file is not None and file.parent.is_dir():
            privileges.becomeOwner(file.parent)  # what root made, the server could not change
        try:
            self.connection = self.database.connect(_PATIENT, writing=True)
        except (self.database.Error, OSError) as error:
            raise BackendError(f"{self.database}: {self.database.explained(error)}") from None
        return self

    def __exit__(self, kind, error, trace):
        self.connection.close()
        if isinstance(error, self.database.Error):
            raise BackendError(f"{self.database}: {self.database.explained(error)}") from None


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
    opened = Opened(path, url)
    if sql:
        statements = [one for table in opened.tables for one in ddl(table, opened.database.dialect)]
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
    _prepareAll(Opened(path, url), asJson, upgrade=True)


def _prepareAll(opened, asJson, upgrade):
    refused = {}
    with opened, progress("tables", len(opened.tables), asJson) as bar:
        for table in opened.tables:
            try:
                prepare(opened.database, opened.connection, table, upgrade)
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
    states = _status(Opened(path, url), asJson)
    sys.exit(exitcodes.FINE if all(map(_isUsable, states.values())) else exitcodes.REFUSED)


def _isUsable(state):
    return state.startswith(("version ", "made by"))


def _status(opened, asJson):
    with opened:
        states = {table.name: described(opened.database, opened.connection, table) for table in opened.tables}
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
    from ppolicy import service

    opened = Opened(path, url)
    origin = opened
    if source is not None:
        origin = Opened(path, source)
        if service.databaseTarget(origin.configuration) == service.databaseTarget(opened.configuration):
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
    show(done, asJson)


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
