"""
A list in the database: a table of values to look up, which administrators and policies fill. It can be kept in
memory as a whole, loaded in a thread.
"""

import itertools
import time

from sqlalchemy import insert, select, update
from sqlalchemy.dialects.mysql import insert as mysqlInsert

from ppolicy.bridge import inReactor, wait
from ppolicy.errors import BackendError
from ppolicy.listquery import ListQuery, aggregate, columnList, storedText
from ppolicy.memory import InMemory
from ppolicy.purge import Purge
from ppolicy.rows import likened
from ppolicy.schema import ROW_KEY, listTable
from ppolicy.statement import Compiled

# How many combinations of values one question may have.
COMBINATIONS = 1000
# How many rows of a table are kept in memory, some 200 octets each.
LARGEST = 5_000_000


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
        others = [one for one in items or () if one != "*" and one not in self.keys and not aggregate(one)]
        others += [
            found[2] for found in map(aggregate, items or ()) if found and found[2] not in ("*", *others, *keys)
        ]
        self.others = tuple(dict.fromkeys(others))
        self.schema = listTable(name, self.keys, self.others, soft, hard, types, caseSensitive)
        self.hard = hard
        self._service = service
        self._database = service.database
        self._forgetResults = forget
        self._isCreated = False
        self.memory = None
        if self._database is not None:
            reactor = self.bridge.reactor
            if cacheAll:
                self.memory = InMemory(reactor, name, self._readAll, self._database.load, refresh, expire)
            self._purge = Purge(reactor, self._deleteExpired)
            self._query = ListQuery(self._database, self.schema, self.keys, items, self.times, hard, caseSensitive)

    # Comparing

    def fold(self, value):
        """
        A value as it is compared, and stored.
        """
        return storedText(value) if self.caseSensitive else storedText(value).lower()

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
                row = self._query.find(connection, **self._query.bound(map(storedText, values))).fetchone()
                if row is None or (self._query.counts and not row[-1]):
                    continue
                return place, row[:-1] if self._query.counts else row
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
        ((number,),) = connection.execute(self._query.number.text).fetchall()
        if number > LARGEST:
            raise BackendError(
                f"{number} rows are too many for memory, where {LARGEST} may be; it is asked itself, as without"
                " cacheAll"
            )
        rows, width, times = {}, len(self.keys), len(self.times)
        now = self.bridge.reactor.seconds()
        for row in connection.stream(self._query.whole.text, self._query.whole.bound({"now": time.time()})):
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
            row[column] = storedText(value) if isinstance(value, str) else value
        return row

    def _put(self, connection, row, lives, hasKey):
        """
        One atomic statement where the table has a unique key, else several in a transaction.
        """
        dialect = self._database.dialect
        now = self._query.now() if self._database.shared else time.time()
        times = {column: now + life if life else 0 for column, life in zip(self.times, lives, strict=True)}
        changes = {column: value for column, value in (row | times).items() if column not in self.keys}
        if hasKey:
            statement = mysqlInsert(self.schema).values(row | times)
            given = statement.inserted
            again = {name: given[name] for name in changes} or {self.keys[0]: given[self.keys[0]]}
            Compiled(statement.on_duplicate_key_update(again), dialect)(connection)
            return
        bound = self._query.bound([row[key] for key in self.keys])
        ((there,),) = self._query.count(connection, **bound).fetchall()
        if not there:
            Compiled(insert(self.schema).values(row | times), dialect)(connection)
        elif changes:
            Compiled(update(self.schema).where(self._query.match).values(changes), dialect)(connection, **bound)

    @inReactor
    def remove(self, combinations):
        """
        Take combinations of values out of the list; it waits.

        @return: how many rows there were.
        @raises BackendError: when that cannot be done.
        """
        folded = [tuple(map(self.fold, values)) for values in combinations]

        def remove(connection):
            return sum(self._query.delete(connection, **self._query.bound(values)).rowcount for values in folded)

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
        ((number,),) = self._rows(self._query.number)
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
            lambda connection: self._query.expired(connection, now=time.time()).rowcount, single=True
        )


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
