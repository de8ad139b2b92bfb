"""
Tables of the state store in a server that several hosts share: each operation is one statement there, by the
server's clock, and all operations of one turn of the reactor that are alike share a statement.
"""

import math
from contextlib import suppress
from functools import partial

from sqlalchemy import bindparam, case, delete, func, literal_column, select, text, update
from sqlalchemy.dialects.mysql import insert

from ppolicy.bridge import inReactor, wait
from ppolicy.groupcommit import GroupCommit
from ppolicy.purge import AT_ONCE, Purge
from ppolicy.rows import ALTERED, bucket, counted, digestOf, labelled, scanning, slack, storable
from ppolicy.schema import SLOTS, STATE
from ppolicy.statement import Compiled, ManyRows

_CHUNK = 500
# How many sets of parameters are remembered.
_GROUPS = 1000

# A row that is younger than this many seconds from now comes from before the clock was set back.
_STEP = "5"

# The server's clock in seconds since 1970, the same wherever it stands in a statement.
NOW = func.unix_timestamp(func.now(text("6")))


def _insert(table, columns, **row):
    given = {"key": bindparam("key"), **row, **{name: bindparam(name) for name in columns}}
    return insert(table).values({column.name: given[column.name] for column in table.columns})


def _touch(table, columns):
    """
    Assignments take effect from left to right: as long as C{expires} is the old one it tells whether the row is
    taken for a new one.
    """
    statement = _insert(
        table,
        columns,
        first=NOW,
        last=NOW,
        previous=NOW,
        count=literal_column("1"),
        expires=NOW + bindparam("firstTtl"),
    )
    c, given = table.c, statement.inserted
    isNew = c.expires <= NOW
    return statement.on_duplicate_key_update(
        [
            ("count", func.if_(isNew, literal_column("1"), c.count + literal_column("1"))),
            ("first", func.if_(isNew | (c.first > NOW + literal_column(_STEP)), given.first, c.first)),
            ("previous", func.if_(isNew, given.last, func.least(c.last, given.last))),
            ("last", given.last),
            (
                "expires",
                func.if_(
                    isNew,
                    given.expires,
                    func.if_(c.last - c.first >= bindparam("settle"), c.last + bindparam("ttl"), c.expires),
                ),
            ),
        ]
    )


def _take(table, columns):
    """
    C{expires} is the time when the bucket is full again.
    """
    statement = _insert(table, columns, allowed=literal_column("1"), expires=NOW + bindparam("cost"))
    c, given = table.c, statement.inserted
    full = func.least(func.greatest(c.expires, NOW), NOW + bindparam("depth"))
    cost = given.expires - NOW
    return statement.on_duplicate_key_update(
        [
            ("allowed", full + cost <= NOW + bindparam("depth") + bindparam("slack")),
            ("expires", full + func.if_(c.allowed, cost, literal_column("0"))),
        ]
    )


def _add(table, columns):
    """
    C{s0} is the slot of the present, C{s1} the one before. Those that a moved window pushes along are assigned
    before the ones they come from.
    """
    zeros = {f"s{number}": literal_column("0") for number in range(1, SLOTS)}
    slot = func.floor(NOW / bindparam("width"))
    statement = _insert(table, columns, slot=slot, s0=bindparam("n"), expires=NOW + bindparam("life"), **zeros)
    c, given = table.c, statement.inserted
    gone = func.greatest(given.slot - c.slot, literal_column("0"))
    moved = [
        (
            f"s{number}",
            case(
                *((gone == literal_column(str(by)), c[f"s{number - by}"]) for by in range(number + 1)),
                else_=literal_column("0"),
            ),
        )
        for number in reversed(range(1, SLOTS))
    ]
    present = func.if_(gone == literal_column("0"), c.s0, literal_column("0")) + given.s0
    return statement.on_duplicate_key_update(
        [*moved, ("s0", present), ("slot", given.slot), ("expires", given.expires)]
    )


def _put(table, columns):
    fields = {name: bindparam(name) for name, _ in STATE[table.info["kind"]]}
    statement = _insert(table, columns, **fields, expires=NOW + bindparam("ttl"))
    given = statement.inserted
    return statement.on_duplicate_key_update([(name, given[name]) for name in (*fields, "expires")])


_STATEMENTS = {"touch": _touch, "take": _take, "add": _add}


class _Statement:
    """
    An upsert for all rows that wait for it with the same parameters; it gives the rows back as they are then.
    """

    def __init__(self, table, columns, statement, dialect):
        row = [*(table.c[name] for name, _ in STATE[table.info["kind"]]), table.c.expires, NOW]
        returning = statement.returning(*row)
        self.upsert = ManyRows(Compiled(returning, dialect))
        self._plain = ManyRows(Compiled(statement, dialect))
        self._select = Compiled(select(*row).where(table.c.key == bindparam("key")), dialect)

    def __call__(self, connection, rows, common):
        """
        A key that is there twice is changed twice, in order.
        """
        if connection.isMariaDB:
            # All hosts lock rows in the same order, so that they do not wait for each other in a circle.
            order = sorted(range(len(rows)), key=lambda place: rows[place][0])
            answers = self.upsert(connection, [rows[place] for place in order], **common)
            found = [()] * len(rows)
            for place, answer in zip(order, answers, strict=True):
                found[place] = answer
            return found
        found = []  # MySQL cannot give rows back: the lock on the row holds until the transaction ends
        connection.raw.begin()
        for row in rows:
            self._plain(connection, [row], **common)
            found += self._select(connection, key=row[0]).fetchall()
        connection.raw.commit()
        return found


class SharedTable:
    """
    The methods are those of L{ppolicy.localtable.LocalTable}. C{behind} has no effect: other hosts must see a row.

    @ivar _commits: {(name of a statement, its parameters): what writes the rows that have these}.
    """

    def __init__(self, store, schema, columns):
        self.bridge = store.bridge
        self.schema = schema
        self.name = schema.name
        self.kind = schema.info["kind"]
        self.columns = columns
        self.fields = tuple(name for name, _ in STATE[self.kind])
        self._database = store.database
        self._commits = {}
        self._purge = Purge(self.bridge.reactor, self._deleteExpired)
        dialect = self._database.dialect
        row = [*(schema.c[name] for name in self.fields), schema.c.expires]
        digest = schema.c.key == bindparam("digest")
        self._select = Compiled(select(*row).where(digest, schema.c.expires > NOW), dialect)
        self._delete = Compiled(delete(schema).where(digest), dialect)
        expired = delete(schema).where(schema.c.expires <= NOW)
        self._expired = Compiled(expired.with_dialect_options(mysql_limit=AT_ONCE), dialect)
        self._statements = {
            name: _Statement(schema, columns, build(schema, columns), dialect)
            for name, build in {**_STATEMENTS, "put": _put}.items()
            if name in (self.kind, "put")
        }

    def described(self):
        """
        What it holds, for the status.
        """
        return "shared"

    def open(self):
        """
        Create the table.
        """
        self._database.create(self.schema)

    def close(self):
        """
        Nothing waits here to be written.
        """
        self._purge.stop()

    def unwritten(self):
        """
        Nothing waits here to be written.
        """
        return 0

    def flush(self):
        """
        Nothing waits here to be written.
        """

    @inReactor
    def touch(self, key, ttl, firstTtl, columns=None, settle=0.0, behind=False):
        digest, columns = digestOf(key, columns)
        first, _, previous, count, expires, now = self._change(
            "touch", (digest, firstTtl, *columns), (("settle", settle), ("ttl", ttl))
        )
        # A host that came later may have begun earlier, and then waited for the row.
        return max(float(now), first), first, previous, count, expires

    @inReactor
    def take(self, key, rate, burst, n=1, columns=None, behind=False):
        digest, columns = digestOf(key, columns)
        fits = n <= burst  # what is more than a bucket holds takes nothing, but is told what there is
        allowed, full, now = self._change(
            "take",
            (digest, n / rate if fits else 0.0, *columns),
            (("depth", burst / rate), ("slack", slack(burst))),
        )
        return bucket(bool(allowed) and fits, full - float(now), rate, burst, n)

    @inReactor
    def add(self, key, n, window, columns=None, behind=False):
        digest, columns = digestOf(key, columns)
        width = window / SLOTS
        _, *sums, _, _ = self._change("add", (digest, width, n, window + width, *columns), ())
        return math.fsum(sums)

    @inReactor
    def get(self, key):
        digest, _ = digestOf(key, ())
        row = wait(self._database.read(lambda connection: self._select(connection, digest=digest).fetchone()))
        return None if row is None else dict(zip((*self.fields, "expires"), row, strict=True))

    @inReactor
    def put(self, key, values, ttl, columns=None, behind=False):
        digest, columns = digestOf(key, columns)
        values = storable(values, ttl)
        self._change("put", (digest, *(values[name] for name in self.fields), ttl, *columns), ())

    @inReactor
    def delete(self, key):
        digest, _ = digestOf(key, ())
        there = self.get(key) is not None
        self._forget([digest])
        return there

    @inReactor
    def scan(self, like=None, limit=1000, only=None):
        return [row for _, row in self._scan(like, limit, only)]

    @inReactor
    def remove(self, like, only=None):
        removed = 0
        while found := self._scan(like, _CHUNK, only):
            removed += self._forget([digest for digest, _ in found])
        return removed

    @inReactor
    def alter(self, like, values, ttl):
        table = self.schema
        change = update(table).where(table.c.key == bindparam("digest"))
        statement = Compiled(change.values(**values, expires=NOW + bindparam("ttl")), self._database.dialect)
        found = self._scan(like, ALTERED)

        def alter(connection):
            for digest, _ in found:
                statement(connection, digest=digest, ttl=ttl)

        wait(self._database.submit(alter))
        return len(found)

    @inReactor
    def statistics(self, where):
        return counted(self._database, self.schema, where, NOW)

    def _scan(self, like, limit, only=None):
        query = scanning(self.schema, self._database.dialect, like or {}, NOW, limit, only)
        rows = wait(self._database.load(lambda connection: connection.execute(*query).fetchall()))
        return labelled(self.schema, rows)

    def _forget(self, digests):
        def remove(connection):
            return sum(self._delete(connection, digest=digest).rowcount for digest in digests)

        return wait(self._database.submit(remove, single=len(digests) == 1))

    def _change(self, name, row, common):
        """
        @return: the row as the statement left it.
        """
        statement = self._statements[name]
        if len(row) != len(statement.upsert.row):
            raise ValueError(f"table {self.name} has the columns {', '.join(self.columns)}")
        commits = self._commits.get((name, common))
        if commits is None:
            if len(self._commits) >= _GROUPS:
                self._commits.clear()
            write = partial(self._write, statement, dict(common))
            commits = self._commits[name, common] = GroupCommit(self.bridge, self._database, write)
        return commits.add(row)

    def _write(self, statement, common, connection, rows):
        database = self._database
        database.usable(connection, self.schema)
        try:
            return statement(connection, rows, common)
        except database.Error:
            with suppress(database.Error, OSError):
                database.rollback(connection)  # what was begun for MySQL
            raise

    def purge(self):
        """
        Delete expired rows, a portion at a time, while other work goes on between.
        """
        self._purge.run()

    def _deleteExpired(self):
        return self._database.submit(lambda connection: self._expired(connection).rowcount, single=True)
