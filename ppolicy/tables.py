"""
Lists in the database: tables of values to look up, which administrators and policies fill.

Values compare alike on every database: without regard to case unless it is wanted, and nothing else is the same:
no blank at the end, no accent is overlooked. A whole table can be kept in memory, loaded in a thread.
"""

import itertools
import re
import time

from sqlalchemy import (
    LargeBinary,
    String,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.mysql import insert as mysqlInsert
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.bridge import inReactor, wait
from ppolicy.errors import BackendError, ConfigError
from ppolicy.memory import InMemory
from ppolicy.purge import AT_ONCE, Purge
from ppolicy.rows import likened
from ppolicy.schema import ROW_KEY, identifier, listTable
from ppolicy.shared import NOW
from ppolicy.statement import Compiled
from ppolicy.threads import ThreadPool
from ppolicy.timers import Timers

# Seconds between two looks at files, and between two purges.
WATCH = 2.0
PURGE = 3600.0
# How many warnings about one file are logged.
WARNINGS = 20
# How many combinations of values one question may have.
COMBINATIONS = 1000
# How many rows of a table are kept in memory, some 200 octets each.
LARGEST = 5_000_000
_AGGREGATE = r"(COUNT|SUM|AVG|MIN|MAX)\(\s*(\*|\w+)\s*\)"


class TableService:
    """
    The lists that checks use, and what keeps them fresh.

    @param database: a L{ppolicy.database.Database}, or None where there is none.
    """

    log = Logger()

    def __init__(self, bridge, database=None):
        self.bridge = bridge
        self.database = database
        self.tables = []
        self._files = {}
        self._pool = ThreadPool(bridge, "list", 1)
        self._timers = Timers(bridge)
        self._looking = False

    def start(self):
        self._timers.every(WATCH, self._lookAtFiles)
        self._timers.every(PURGE, self._purge)

    def stop(self):
        self._timers.stop()
        self._pool.stop()

    def table(self, *args, **keywords):
        """
        A new L{ListTable} for one check, which closes it when it stops.
        """
        return ListTable(self, *args, **keywords)

    def watch(self, file, changed):
        """
        Have a L{ppolicy.listfile.ListFile} read again when it changes, and C{changed()} called then.
        """
        self._files[file] = changed
        self._warn(file)

    def unwatch(self, file):
        """
        The opposite of L{watch}.
        """
        changed = self._files.pop(file, None)
        # Who watches it after a reload may have read more than this one: for him nothing changes any more.
        if changed is not None and any(
            one.path == file.path and one.seen != file.seen for one in list(self._files)
        ):
            changed()

    @property
    def warnings(self):
        """
        What the files that are watched may have meant otherwise.
        """
        return [one for file in self._files for one in _warnings(file)]

    def _warn(self, file):
        for warning in _warnings(file)[:WARNINGS]:
            self.log.warn("{warning}", warning=str(warning))

    def changed(self, name):
        """
        The content of a table has changed: nobody may go on with what is remembered of it.
        """
        for table in self.tables:
            if table.name == name:
                table.refresh()

    def _lookAtFiles(self):
        if self._looking or not self._files:
            return
        self._looking = True
        files = dict(self._files)

        def looked(new):
            self._looking = False
            if isinstance(new, Failure):
                self.log.failure("list files cannot be read", new)
                return
            for file, problem in new:
                if problem is not None:
                    self.log.error("{problem}", problem=problem)
                else:
                    files[file]()
                    self._warn(file)

        self._pool.run(_refreshed, files).addBoth(looked)

    def _purge(self):
        for table in self.tables:
            table.purge()


def _warnings(file):
    return getattr(file, "warnings", ())  # a file of another kind has none


def _refreshed(files):
    """
    Look at some files. In a thread.

    @return: (file, None) of those that have new entries, (file, sentence) of those with a new problem.
    """
    found = []
    for file in files:
        before = file.problem
        if file.refresh():
            found.append((file, None))
        elif file.problem not in (None, before):
            found.append((file, file.problem))
    return found


class ListTable:
    """
    One table, as one check looks things up in it. What waits may be called by policies and checks only.

    @param keys: names of the columns that are compared.
    @param retcols: what a look-up gives: None (how many rows there are), '*', a column or aggregate such as
        C{MAX(score)}, several of them with commas, or a list of columns.
    @param soft, hard: names of the columns that say when a row should be renewed, and when it is gone; None for
        never. They go with plain columns only, not with aggregates.
    @param cacheAll: keep the whole table in memory.
    @param refresh: load it again after so many seconds.
    @param expire: do not use what is older than that.
    @param forget: called when the content has changed.
    """

    def __init__(
        self,
        service,
        name,
        keys,
        retcols=None,
        *,
        types=None,
        soft=None,
        hard=None,
        caseSensitive=False,
        cacheAll=False,
        refresh=900.0,
        expire=3600.0,
        forget=lambda: None,
    ):
        self.bridge = service.bridge
        self.name = name
        self.keys = tuple(keys)
        self.caseSensitive = caseSensitive
        self.times = tuple(one for one in (soft, hard) if one is not None)
        items = columnList(retcols)
        others = [one for one in items or () if one != "*" and one not in self.keys and not _isAggregate(one)]
        others += [
            found[2] for found in map(_isAggregate, items or ()) if found and found[2] not in ("*", *others, *keys)
        ]
        self.others = tuple(dict.fromkeys(others))
        self.schema = listTable(name, self.keys, self.others, soft, hard, types, caseSensitive)
        self.hard = hard
        self._service = service
        self._database = service.database
        self._items = items
        # Rows are counted, or counted together; there is one even when none fits.
        self._counts = any(map(_isAggregate, items)) if items else not self.times
        self._forgetResults = forget
        self._isCreated = False
        self.memory = None
        if self._database is not None:
            reactor = self.bridge.reactor
            if cacheAll:
                self.memory = InMemory(reactor, name, self._readAll, self._database.load, refresh, expire)
            self._purge = Purge(reactor, self._deleteExpired)
            self._compile()

    def _compile(self):
        table, dialect = self.schema, self._database.dialect
        self._match = and_(*(self._equal(table.c[key], f"v{number}") for number, key in enumerate(self.keys)))
        chosen = self._chosen()
        selected = select(*chosen, *self._timeLeft()).select_from(table).where(self._match)
        selected = selected.add_columns(func.count()) if self._counts else selected.limit(1)
        self._find = Compiled(selected, dialect)
        self._delete = Compiled(delete(table).where(self._match), dialect)
        self._count = Compiled(select(func.count()).select_from(table).where(self._match), dialect)
        keys = [table.c[key] for key in self.keys]
        whole = select(*chosen, *self._timeLeft(), *keys).select_from(table)
        if self._counts and self._items is None:
            whole = select(*keys).select_from(table)
        elif self._counts:
            groups = list(map(self._folded, keys))
            whole = select(*chosen, *groups).select_from(table).group_by(*groups)
        self._whole = Compiled(whole, dialect)
        self._number = Compiled(select(func.count()).select_from(table), dialect)
        if self.hard is not None:
            self._expired = Compiled(self._portion(delete(table), table.c[self.hard]), dialect)

    def _portion(self, statement, hard):
        gone = and_(hard > 0, hard <= self._now())
        if self._database.dialect.name == "mysql":
            return statement.where(gone).with_dialect_options(mysql_limit=AT_ONCE)
        rowid = literal_column("rowid")
        return statement.where(rowid.in_(select(rowid).select_from(self.schema).where(gone).limit(AT_ONCE)))

    def _chosen(self):
        table = self.schema
        if self._items is None:
            return [func.count() if self._counts else literal(1)]
        chosen = []
        for item in self._items:
            found = _isAggregate(item)
            if item == "*":
                chosen.append(text("*"))
            elif found:
                argument = text("*") if found[2] == "*" else table.c[found[2]]
                chosen.append(getattr(func, found[1].lower())(argument))
            else:
                chosen.append(table.c[item])
        return chosen

    def _timeLeft(self):
        """
        Seconds until each of the times, nothing where it is 0.
        """
        times = [self.schema.c[column] for column in self.times]
        return [case((one > 0, one - self._now()), else_=null()) for one in times]

    def _now(self):
        return NOW if self._database.shared else bindparam("now")

    # Comparing

    def _equal(self, column, name):
        """
        An index finds the rows that may be equal, by whatever collation the column has; then octets decide.
        """
        given, lower, upper = bindparam(name), bindparam(f"{name}lower"), bindparam(f"{name}upper")
        if not isinstance(column.type, String):  # 4711x is no number, whatever MariaDB makes of it
            return and_(column == given, cast(column, String) == given)
        if self._database.dialect.name == "sqlite":
            if self.caseSensitive:
                return column.collate("BINARY") == given
            return and_(column.collate("NOCASE").in_([given, lower, upper]), func.lower(column) == lower)
        if self.caseSensitive:
            return and_(column == given, _octets(column) == cast(given, LargeBinary))
        return and_(
            or_(column == given, column == lower, column == upper),
            self._folded(column) == cast(lower, LargeBinary),
        )

    def _folded(self, column):
        folded = column if self.caseSensitive else func.lower(column)
        return folded if self._database.dialect.name == "sqlite" else _octets(folded)

    def fold(self, value):
        """
        A value as it is compared, and stored.
        """
        return _storable(value) if self.caseSensitive else _storable(value).lower()

    def _bound(self, values):
        bound = {"now": time.time()}
        for number, value in enumerate(values):
            bound |= {f"v{number}": value, f"v{number}lower": value.lower(), f"v{number}upper": value.upper()}
        return bound

    # Looking up

    def open(self):
        """
        Have the table created, and loaded where that is wanted. Callable in any thread.
        """
        if self._database is not None:
            self._database.create(self.schema)
            self.bridge.reactor.callFromThread(self._open)

    def _open(self):
        self._service.tables.append(self)
        self._database.submit(lambda connection: None).addBoth(self._created)

    def _created(self, _):
        self._isCreated = True
        if self.memory is not None:
            self.memory.load()

    def close(self):
        """
        Needed no longer. Callable in any thread.
        """
        if self._database is not None:
            self.bridge.reactor.callFromThread(self._close)

    def _close(self):
        self._service.tables.remove(self)
        self._purge.stop()
        if self.memory is not None:
            self.memory.close()

    @inReactor
    def find(self, combinations):
        """
        The first of several combinations of values that is in the list; it waits.

        @param combinations: tuples of texts, one text for each key column.
        @return: (place, row), the place among the combinations; None when none is there. Behind the columns
            that were asked for the row has the seconds left until each of C{times}, None for never.
        @raises BackendError: when the table cannot be read.
        """
        rows = None if self.memory is None else self.memory.rows()
        if rows is not None:
            for place, values in enumerate(combinations):
                row = rows.get(self.fold(values[0]) if len(values) == 1 else tuple(map(self.fold, values)))
                if row is not None:
                    return place, self._remembered(row)
            return None

        def ask(connection):
            for place, values in enumerate(combinations):
                row = self._find(connection, **self._bound(map(_storable, values))).fetchone()
                if row is None or (self._counts and not row[-1]):
                    continue
                return place, row[:-1] if self._counts else row
            return None

        database = self._present()
        # Before the table is there the question waits behind what creates it.
        return wait(database.read(ask) if self._isCreated else database.submit(ask))

    def _present(self):
        if self._database is None:
            raise BackendError(f"list {self.name}: there is no database")
        refusal = self._database.refusal(self.schema)
        if refusal is not None:
            raise BackendError(refusal)
        return self._database

    def _remembered(self, row):
        """
        A row in memory as one of the database: the seconds left instead of the dates.
        """
        if row.__class__ is int:
            return (row,)
        if not self.times:
            return row
        now = self.bridge.reactor.seconds()
        first = len(row) - len(self.times)
        return *row[:first], *(None if date is None else date - now for date in row[first:])

    def refresh(self):
        """
        The content has changed.
        """
        self._forgetResults()
        if self.memory is not None:
            self.memory.changed()

    def described(self):
        """
        Where it is asked, for the status.
        """
        return "asked itself" if self.memory is None else self.memory.described()

    def status(self):
        """
        How it is, as a dictionary.
        """
        problem = None if self.memory is None else self.memory.problem
        return {"problem": problem, "holds": self.described()}

    def _readAll(self, connection):
        """
        In a thread.
        """
        ((number,),) = connection.execute(self._number.text).fetchall()
        if number > LARGEST:
            raise BackendError(
                f"{number} rows are too many for memory, where {LARGEST} may be; it is asked itself, as without"
                " cacheAll"
            )
        rows, width, times = {}, len(self.keys), len(self.times)
        now = self.bridge.reactor.seconds()
        for row in connection.stream(self._whole.text, self._whole.bound({"now": time.time()})):
            given = [
                one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in row[-width:]
            ]
            key = self.fold(given[0]) if width == 1 else tuple(map(self.fold, given))
            if len(row) == width:
                rows[key] = rows.get(key, 0) + 1
                continue
            found = tuple(row[:-width])
            if times:
                found = *found[:-times], *(None if left is None else now + left for left in found[-times:])
            rows.setdefault(key, found)
        return rows

    # Changing

    @inReactor
    def add(self, combinations, others=None, lives=()):
        """
        Put combinations of values into the list, or change what stands beside them; it waits.

        @param others: {column: value} beside the keys.
        @param lives: seconds until the row expires, for each of the time columns; 0 for never.
        @raises BackendError: when that cannot be done.
        """
        self.addRows([(values, others or {}, lives) for values in combinations])

    @inReactor
    def addRows(self, rows):
        """
        The same for rows that differ, all of them or none.

        @param rows: (values, others, lives) of each.
        @raises BackendError: when that cannot be done.
        """
        rows = [(self._row(values, others), lives) for values, others, lives in rows]
        database = self._present()

        def put(connection):
            hasKey = database.shared and ROW_KEY in (database.columns(connection, self.name) or ())
            for row, lives in rows:
                self._put(connection, row, lives, hasKey)

        wait(database.submit(put))
        self._service.changed(self.name)

    def _row(self, values, others):
        row = dict(zip(self.keys, map(self.fold, values), strict=True))
        for column, value in others.items():
            if column not in self.others:
                raise BackendError(
                    f"list {self.name} has no column {column} beside its values; it has"
                    f" {', '.join(self.others) or 'none'}"
                )
            row[column] = _storable(value) if isinstance(value, str) else value
        return row

    def _put(self, connection, row, lives, hasKey):
        """
        One atomic statement where the table has a unique key, else several in a transaction.
        """
        dialect = self._database.dialect
        now = self._now() if self._database.shared else time.time()
        times = {column: now + life if life else 0 for column, life in zip(self.times, lives, strict=True)}
        changes = {column: value for column, value in (row | times).items() if column not in self.keys}
        if hasKey:
            statement = mysqlInsert(self.schema).values(row | times)
            given = statement.inserted
            again = {name: given[name] for name in changes} or {self.keys[0]: given[self.keys[0]]}
            Compiled(statement.on_duplicate_key_update(again), dialect)(connection)
            return
        bound = self._bound([row[key] for key in self.keys])
        ((there,),) = self._count(connection, **bound).fetchall()
        if not there:
            Compiled(insert(self.schema).values(row | times), dialect)(connection)
        elif changes:
            Compiled(update(self.schema).where(self._match).values(changes), dialect)(connection, **bound)

    @inReactor
    def remove(self, combinations):
        """
        Take combinations of values out of the list; it waits.

        @return: how many rows there were.
        @raises BackendError: when that cannot be done.
        """
        folded = [tuple(map(self.fold, values)) for values in combinations]

        def remove(connection):
            return sum(self._delete(connection, **self._bound(values)).rowcount for values in folded)

        removed = wait(self._present().submit(remove))
        self._service.changed(self.name)
        return removed

    @inReactor
    def scan(self, like=None, limit=1000, after=0):
        """
        Rows for people, as dictionaries; it waits.

        @param like: {column: text}; C{*} in a text stands for anything.
        @param after: leave out so many.
        """
        table = self.schema
        query = select(*table.columns).order_by(*(table.c[key] for key in self.keys)).limit(limit).offset(after)
        for column, pattern in (like or {}).items():
            if column not in table.c:
                raise BackendError(f"list {self.name} has no column {column}; it has {', '.join(table.c.keys())}")
            query = query.where(likened(table.c[column], pattern))
        compiled = Compiled(query, self._present().dialect)
        rows = self._rows(compiled)
        return [dict(zip(table.c.keys(), row, strict=True)) for row in rows]

    @inReactor
    def count(self):
        """
        How many rows there are; it waits.
        """
        self._present()
        ((number,),) = self._rows(self._number)
        return number

    def _rows(self, query):
        if not self._isCreated:
            wait(self._database.submit(lambda connection: None))  # it waits behind what creates the table
        return wait(self._database.load(lambda connection: query(connection).fetchall()))

    def purge(self):
        """
        Delete rows whose hard time is up, in portions.
        """
        if self.hard is not None and self._database is not None and not self._database.readOnly:
            self._purge.run()

    def _deleteExpired(self):
        return self._database.submit(
            lambda connection: self._expired(connection, now=time.time()).rowcount, single=True
        )


def _octets(expression):
    """
    What MariaDB has of a text, whatever its character set, as octets of UTF-8: no collation makes more alike.
    """
    return cast(func.convert(expression.op("USING")(literal_column("utf8mb4"))), LargeBinary)


def _storable(value):
    """
    Octets that are no text become some that look like them: no database takes them.
    """
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def columnList(retcols):
    """
    What 2.7's parameter C{retcols} asks for, as a list of columns and aggregates; None for nothing.

    @raises ConfigError: when something in it is no name.
    """
    if retcols is None or retcols == [] or retcols == "":
        return None
    items = [one.strip() for one in retcols.split(",")] if isinstance(retcols, str) else list(retcols)
    if items == ["*"]:
        return items
    for item in items:
        found = _isAggregate(item)
        if not found:
            identifier(item)
        elif found[2] != "*":
            identifier(found[2])
        elif found[1].upper() != "COUNT":
            raise ConfigError(f"retcols: {item} is possible for COUNT only")
    return items


def _isAggregate(item):
    return re.fullmatch(_AGGREGATE, item, re.IGNORECASE) if isinstance(item, str) else None


def combinations(data, params):
    """
    The values of some attributes as tuples; where a value is a list, one tuple for each of its members (the
    cartesian product).

    @raises BackendError: when there are more than 1000.
    """
    choices = []
    for name in params:
        value = data.get(name, "")
        choices.append(list(map(str, value)) if isinstance(value, list | tuple) else [str(value)])
    number = 1
    for one in choices:
        number *= len(one)
    if number > COMBINATIONS:
        raise BackendError(f"{', '.join(params)}: {number} combinations of values are too many to look up")
    return list(itertools.product(*choices))
