"""
What checks remember: tables of short rows, touched by key, in memory in front of the embedded database.

Each table has a bounded front in memory. While the front is known to hold the whole table, a key that is not
in it is new, and nothing is read. One process owns the database file, so the front is the truth, and the file
is what survives: rows go there in batches, either before the answer goes out or, with write-behind, up to a
second later.
"""

import re
from collections import OrderedDict
from hashlib import blake2b
from time import time

from sqlalchemy import (
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from twisted.internet.defer import succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.bridge import Gate, inReactor, wait
from ppolicy.database import RETRY, Compiled, ManyRows
from ppolicy.errors import BackendError, ConfigError

FRONT = 100_000
FLUSH = 0.25
PURGE = 60.0
_CHUNK = 500
# Rows loaded, or written, in one go.
_PORTION = 2000
# Write-behind: with so many portions under way the next flush waits, with so many rows are forgotten.
_FLUSHING = 4
_PILE = 100

_EXPIRES = 3


class StateStore:
    """
    The tables, and the database behind them.

    @param database: a L{SQLite}, or None to remember in memory only.
    """

    log = Logger()

    def __init__(self, bridge, database=None, clock=time):
        self.bridge = bridge
        self.database = database
        self.clock = clock
        self.tables = {}
        self._flushing = None
        self._purging = None

    def start(self):
        if self.database is not None:
            self.database.start()
        self._flushLater()
        self._purgeLater()

    def stop(self):
        """
        Write what is not yet written and close. The Deferred fires when all is on disk.
        """
        for call in (self._flushing, self._purging, *(table._loading for table in self.tables.values())):
            if call is not None and call.active():
                call.cancel()
        for table in self.tables.values():
            table.flush(last=True)
        return self.database.stop() if self.database is not None else succeed(None)

    def table(self, name, columns):
        """
        The table of this name, created when it is missing.

        @param columns: names of the readable columns beside the key.
        @raises ConfigError: when a name is no identifier, or the table is in use with other columns.
        """
        for one in (name, *columns):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", one):
                raise ConfigError(f"{one!r} is no name for a table or column (letters, digits and _, at most 63)")
        if name.lower().startswith("sqlite_"):
            raise ConfigError(f"{name!r}: names that begin with sqlite_ belong to the database")
        found = self.tables.get(name)
        if found is None:
            found = self.tables[name] = StateTable(self, name, columns)
            found.open()
        elif found.columns != tuple(columns):
            raise ConfigError(f"table {name} is in use already, with other columns: {', '.join(found.columns)}")
        return found

    def _flushLater(self):
        self._flushing = self.bridge.reactor.callLater(FLUSH, self._flush)

    def _flush(self):
        for table in self.tables.values():
            table.flush()
        self._flushLater()

    def _purgeLater(self):
        self._purging = self.bridge.reactor.callLater(PURGE, self._purge)

    def _purge(self):
        for table in self.tables.values():
            table.purge()
        self._purgeLater()


class StateTable:
    """
    One table. A row is (first, last, count, expires) with times in seconds since 1970, and readable columns.

    @ivar _rows: {digest of the key: row}, the front; the row that was not touched for longest comes first.
    @ivar _dirty: {digest: (row, columns)} of rows to be written with the next flush.
    @ivar _complete: is everything that the database has in the front as well?
    """

    def __init__(self, store, name, columns):
        self.bridge = store.bridge
        self.name = name
        self.columns = tuple(columns)
        self._store = store
        self._database = store.database
        self._rows = OrderedDict()
        self._dirty = {}
        self._complete = self._database is None
        self._loading = None
        self._flushing = 0
        self._batch, self._gate = [], Gate()
        self._committing = False
        self.schema = schema(name, columns)
        if self._database is not None:
            self._statements()

    def _statements(self):
        table = self.schema
        upsert = insert(table).values({column.name: bindparam(column.name) for column in table.columns})
        upsert = upsert.on_conflict_do_update(
            index_elements=[table.c.key],
            set_={name: upsert.excluded[name] for name in ("first", "last", "count", "expires")},
        )
        self._upsert = ManyRows(Compiled(upsert), [column.name for column in table.columns])
        row = (table.c.first, table.c.last, table.c.count, table.c.expires)
        self._select = Compiled(select(*row).where(table.c.key == bindparam("digest")))
        living = select(table.c.key, *row).where(table.c.expires > bindparam("now"))
        self._youngest = Compiled(living.order_by(table.c.last.desc()).limit(bindparam("most")))
        expired = select(table.c.key).where(table.c.expires <= bindparam("now")).limit(bindparam("most"))
        self._delete = Compiled(delete(table).where(table.c.key.in_(expired)).returning(table.c.key))

    def __len__(self):
        return len(self._rows)

    # Loading

    def open(self):
        """
        Create the table and load its youngest rows, while requests are served already.
        """
        if self._database is not None:
            self._database.create(self.schema)
            self._load()

    def _load(self):
        now = self._store.clock()

        def load(connection):
            return self._youngest(connection, now=now, most=FRONT + 1).fetchall()

        self._database.submit(load).addCallbacks(self._loaded, self._notLoaded)

    def _loaded(self, rows):
        """
        Take the rows in portions, oldest first, so that no request waits for the whole table.
        """
        complete = len(rows) <= FRONT
        del rows[FRONT:]

        def portion():
            for digest, *row in rows[-_PORTION:]:
                self._rows.setdefault(digest, tuple(row))
            del rows[-_PORTION:]
            if rows:
                self._loading = self.bridge.reactor.callLater(0, portion)
            else:
                self._complete = complete
                self._bound()

        portion()

    def _notLoaded(self, failure):
        failure.trap(BackendError)
        if self._isMissing(failure.value):
            self._complete = True
        else:  # until it works again, each miss asks the database itself
            self._loading = self.bridge.reactor.callLater(RETRY, self._load)

    def _isMissing(self, error):
        """
        Is all that is wrong that nothing was created yet? Only where we may not create it ourselves.
        """
        database = self._database
        return database.readOnly and (not database.path.exists() or "no such table" in str(error))

    # Touching

    @inReactor
    def touch(self, key, ttl, firstTtl, columns, settle=0.0, behind=False):
        """
        Note that a key was met now. A row whose time is up counts as new, in the same step.

        @param key: a tuple of texts.
        @param ttl: seconds the row lives on from now, once it is C{settle} seconds old.
        @param firstTtl: seconds a new row lives if it is not touched again after C{settle} seconds.
        @param columns: the texts for the readable columns.
        @param behind: True to answer before the row is on disk.
        @return: (now, first, previous, count, expires): the present time by the store's clock, when the key
            was met first, when before this time, how often with this time, and until when the row lives. A
            count of 1 is a new row.
        @raises BackendError: when the row cannot be read, or not be written before the answer.
        """
        digest = blake2b("\n".join(key).encode("utf-8", "surrogateescape"), digest_size=16).digest()
        rows = self._rows
        row = rows.get(digest)
        if row is None and not self._complete:
            row = self._read(digest)
        now = self._store.clock()
        if row is None or row[_EXPIRES] <= now:
            first = previous = now
            count, expires = 1, now + firstTtl
        else:
            first, previous, count, expires = row
            count += 1
            if first > now:  # the clock was set back; nobody waits for it to catch up
                first = previous = now
            if now - first >= settle:
                expires = now + ttl
        rows[digest] = row = (first, now, count, expires)
        rows.move_to_end(digest)
        if len(rows) > FRONT:
            self._bound()
        if self._database is not None and not self._database.readOnly:
            if behind:
                self._dirty[digest] = row, columns
            else:
                self._commit(digest, row, columns)
        return now, first, previous, count, expires

    def _read(self, digest):
        try:
            found = wait(
                self._database.submit(lambda connection: self._select(connection, digest=digest).fetchone())
            )
        except BackendError as error:
            if not self._isMissing(error):
                raise
            found = None
        return self._rows.get(digest) or found  # another request may have been faster

    def _bound(self):
        rows = self._rows
        while len(rows) > FRONT:
            if next(iter(rows)) in self._dirty:
                self._flushAll()
            rows.popitem(last=False)
            if self._database is not None:
                self._complete = False

    # Writing

    def _commit(self, digest, row, columns):
        """
        Wait until a row is on disk. All rows that come while a transaction is under way share the next one.
        """
        self._batch.append((digest, (row, columns)))
        gate = self._gate
        if not self._committing:  # at the end of this turn of the reactor, with all that it brings
            self._committing = True
            self.bridge.reactor.callLater(0, self._commitBatch)
        gate.wait()

    def _commitBatch(self):
        batch, gate = self._batch, self._gate
        self._batch, self._gate = [], Gate()
        self._write(batch).addBoth(self._committed, batch, gate)

    def _committed(self, result, batch, gate):
        if self._batch:
            self._commitBatch()
        else:
            self._committing = False
        if isinstance(result, Failure):  # they are written when the database works again
            for digest, entry in batch:
                self._dirty.setdefault(digest, entry)
        gate.open(result, self.bridge)

    def _write(self, entries):
        def write(connection):
            self._upsert(
                connection, [(digest, *row, *map(_readable, columns)) for digest, (row, columns) in entries]
            )

        return self._database.submit(write, single=len(entries) <= ManyRows.EXACT)

    def flush(self, last=False):
        """
        Send the rows that were touched with write-behind to the database, unless it is still busy with others.
        """
        if last or self._flushing < _FLUSHING:
            self._flushAll()

    def _flushAll(self):
        """
        While the database hangs, rows pile up in memory up to a bound; beyond it they are forgotten.
        """
        if not self._dirty or self._database is None or self._database.readOnly:
            return
        dirty, self._dirty = list(self._dirty.items()), {}
        for start in range(0, len(dirty), _PORTION):
            portion = dirty[start : start + _PORTION]
            if self._flushing < _PILE:
                self._flushing += 1
                self._write(portion).addBoth(self._flushed, portion)

    def _flushed(self, result, portion):
        self._flushing -= 1
        if isinstance(result, Failure):
            for digest, entry in portion:  # tried again with the next flush
                if digest in self._rows:
                    self._dirty.setdefault(digest, entry)

    def purge(self):
        """
        Delete expired rows, a portion at a time, while other work goes on between.
        """
        now = self._store.clock()
        if self._database is None:
            for digest in [digest for digest, row in self._rows.items() if row[_EXPIRES] <= now]:
                del self._rows[digest]
        elif not self._database.readOnly:
            done = self._database.submit(
                lambda connection: self._delete(connection, now=now, most=_CHUNK).fetchall()
            )
            done.addCallbacks(self._purged, lambda failure: failure.trap(BackendError))

    def _purged(self, keys):
        now = self._store.clock()
        for (digest,) in keys:
            row = self._rows.get(digest)
            if row is not None and row[_EXPIRES] <= now and digest not in self._dirty:
                del self._rows[digest]
        if len(keys) == _CHUNK:
            self._loading = self.bridge.reactor.callLater(0.01, self.purge)


def schema(name, columns):
    """
    The SQLAlchemy table of a state table: a hash of the key, times, a count, and columns for people to read.
    """
    table = Table(
        name,
        MetaData(),
        Column("key", LargeBinary(16), primary_key=True),
        Column("first", Float, nullable=False),
        Column("last", Float, nullable=False),
        Column("count", Integer, nullable=False),
        Column("expires", Float, nullable=False),
        *(Column(column, String(255), nullable=False) for column in columns),
    )
    Index(f"{name}_expires", table.c.expires)
    return table


def _readable(text):
    """
    A text that every database takes: what was no UTF-8 shows as backslash escapes.
    """
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
