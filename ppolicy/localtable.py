"""
A table of state in memory, before the embedded database.
"""

import math
from collections import OrderedDict
from functools import lru_cache

from sqlalchemy import bindparam, delete, literal_column, select
from sqlalchemy.dialects.sqlite import insert

from ppolicy.bridge import inReactor, wait
from ppolicy.errors import BackendError
from ppolicy.groupcommit import GroupCommit
from ppolicy.purge import AT_ONCE, Purge
from ppolicy.rows import (
    ALTERED,
    bucket,
    counted,
    decoded,
    digestOf,
    encoded,
    labelled,
    pattern,
    readable,
    scanning,
    slack,
    storable,
    taken,
)
from ppolicy.schema import SLOTS, STATE
from ppolicy.statement import Compiled, ManyRows
from ppolicy.tableload import TableLoad
from ppolicy.writebehind import WriteBehind

# So many rows come to the front before those that are too many leave it together.
EVICTED = 200
# So many leave it together, at most; there are more after a load, and when its bound is smaller since a reload.
_LEAVING = 2000
# Rows found in one go.
_PORTION = 2000
# Keys whose digest is remembered.
_HOT = 10_000


class LocalTable:
    """
    One table in memory, before the file. Its front is bounded; while it holds the whole table, or a filter tells
    that a key which is not there is not in the file either, that key is new and nothing is read. Rows go to the
    file in batches, either before the answer or, with write-behind, up to a second later.

    A row is a tuple of what its kind keeps (L{ppolicy.schema.STATE}), and when it expires; the value of one that
    is yet to be written may be a list. Times are seconds since 1970.

    @ivar _rows: {digest of the key: row}, the front; the row that was not touched for longest comes first.
    @ivar _behind: writes later; C{_dirty} are its rows.
    @ivar _deletions: digests of the rows that are being deleted.
    @ivar _load: what the front has of the file.
    """

    def __init__(self, store, schema, columns):
        self.store = store
        self.bridge = store.bridge
        self.schema = schema
        self.name = schema.name
        self.kind = schema.info["kind"]
        self.columns = columns
        self.fields = tuple(name for name, _ in STATE[self.kind])
        self.clock = store.clock
        self.database = store.database
        self._writes = self.database is not None and not self.database.readOnly
        self._rows = OrderedDict()
        self._digestOf = lru_cache(_HOT)(digestOf)  # for what counts the same keys again and again
        self._shown = {}  # the readable columns, where no database has them
        self._behind = WriteBehind(self, self._rows, self._writeMany)
        self._dirty = self._behind.rows
        self._load = TableLoad(self)
        self._purge = Purge(self.bridge.reactor, self._deleteExpired)
        self._deletions = []
        if self.database is not None:
            self._statements()

    def _statements(self):
        table, dialect = self.schema, self.database.dialect
        row = [*(table.c[name] for name in self.fields), table.c.expires]
        if self._writes:
            upsert = insert(table).values({column.name: bindparam(column.name) for column in table.columns})
            upsert = upsert.on_conflict_do_update(
                index_elements=[table.c.key],
                set_={column.name: upsert.excluded[column.name] for column in row},
            )
            self._upsert = ManyRows(Compiled(upsert, dialect))
            self._commits = GroupCommit(self.bridge, self.database, self._write, self._behind.again)
            assert self._upsert.row == tuple(column.name for column in table.columns)
            rowid = literal_column("rowid")
            expired = select(rowid).select_from(table).where(table.c.expires <= bindparam("now"))
            expired = rowid.in_(expired.limit(bindparam("most")))
            self._expired = Compiled(delete(table).where(expired).returning(table.c.key), dialect)
            self._delete = Compiled(delete(table).where(table.c.key == bindparam("digest")), dialect)
        self._select = Compiled(select(*row).where(table.c.key == bindparam("digest")), dialect)

    def __len__(self):
        return len(self._rows)

    def described(self):
        """
        What it holds, for the status.
        """
        more = "" if self._load.isComplete else ", more in the file"
        return f"{len(self._rows)} rows in memory{more}, {len(self._dirty)} to be written"

    def open(self):
        """
        Create the table and load its youngest rows, while requests are served already.
        """
        if self._writes:
            self.database.create(self.schema)
            self.database.whenReplaced.append(self._load.again)
            self.bridge.reactor.callFromThread(self._load.begin)

    def close(self):
        """
        Send what is not yet written to the database, for the last time; again while rows are L{unwritten}.
        """
        self._purge.stop()
        self._load.stop()
        self._behind.stop()

    def unwritten(self):
        """
        How many rows are not known to be on disk.
        """
        if not self._writes:
            return 0
        underWay = (row[0] for row in self._commits.rows())
        return len(self._behind.unwritten().union(underWay))

    # What loading needs

    def written(self):
        """
        @return: a Deferred that fires when all that was changed until now is on disk.
        """
        return self._behind.written()

    def adopt(self, rows):
        """
        Take rows of the file that the front does not have.

        @param rows: (digest, row) of each.
        """
        for digest, row in rows:
            self._rows.setdefault(digest, row)

    def bound(self):
        """
        Drop from the front what was not touched for longest, if there is too much.
        """
        rows, shown = self._rows, self._shown
        if len(rows) <= self._load.most():
            return
        self._load.evict()
        gone = [rows.popitem(last=False)[0] for _ in range(min(len(rows) - self.store.size, _LEAVING))]
        for digest in gone:
            self._load.left(digest)
            if shown:
                del shown[digest]
        self._behind.leave(gone)

    # Changing rows

    @inReactor
    def touch(self, key, ttl, firstTtl, columns=None, settle=0.0, behind=False):
        """
        Note that a key was met now. A row whose time is up counts as new, in the same step.

        @param key: a text or a tuple of texts.
        @param ttl: seconds the row lives on from now, once it is C{settle} seconds old.
        @param firstTtl: seconds a new row lives if it is not touched again after C{settle} seconds.
        @param columns: the texts for the readable columns, by default those of the key.
        @param behind: True to answer before the row is on disk.
        @return: (now, first, previous, count, expires): the present time by the store's clock, when the key
            was met first, when before this time, how often with this time, and until when the row lives. A
            count of 1 is a new row.
        @raises BackendError: when the row cannot be read, or not be written before the answer.
        """
        digest, columns = digestOf(key, columns)
        row = self._rows.get(digest)
        if row is None:
            row = self._miss(digest)
        now = self.clock()
        if row is None or row[4] <= now:
            first = previous = now
            count, expires = 1, now + firstTtl
        else:
            first, previous, _, count, expires = row
            count += 1
            if first > now:  # the clock was set back; nobody waits for it to catch up
                first = previous = now
            elif previous > now:
                previous = now
            if now - first >= settle:
                expires = now + ttl
        self._keep(digest, (first, now, previous, count, expires), columns, behind)
        return now, first, previous, count, expires

    @inReactor
    def take(self, key, rate, burst, n=1, columns=None, behind=False):
        """
        Take C{n} tokens out of a bucket that holds C{burst} and gets C{rate} new ones a second: the generic cell
        rate algorithm (ITU-T I.371), which needs one number, the time when the bucket is full again. What is
        refused takes nothing.

        @return: (allowed, remaining, retryAfter): are there enough, how many are left, and after how many
            seconds there would be enough; 0 when allowed, infinity when C{n} is more than a bucket holds.
        @raises BackendError: when the bucket cannot be read or written.
        """
        digest, columns = self._digestOf(key, columns)
        row = self._rows.get(digest)
        if row is None:
            row = self._miss(digest)
        now = self.clock()
        depth = burst / rate
        full = now if row is None else min(max(row[1], now), now + depth)
        allowed = full + n / rate <= now + depth + slack(burst)
        if allowed:
            full += n / rate
        self._keep(digest, (int(allowed), full), columns, behind)
        return bucket(allowed, full - now, rate, burst, n)

    @inReactor
    def add(self, key, n, window, columns=None, behind=False):
        """
        Add C{n} to a sum over the last C{window} seconds. The window moves in ten steps.

        @return: the sum, C{n} included.
        @raises BackendError: when the sum cannot be read or written.
        """
        digest, columns = self._digestOf(key, columns)
        row = self._rows.get(digest)
        if row is None:
            row = self._miss(digest)
        now = self.clock()
        width = window / SLOTS
        slot = int(now / width)
        sums = [0.0] * SLOTS
        if row is not None:  # where the clock was set back, what was counted counts on
            gone = min(max(slot - row[0], 0), SLOTS)
            sums[gone:] = row[1 : 1 + SLOTS - gone]
        sums[0] += n
        self._keep(digest, (slot, *sums, now + window + width), columns, behind)
        return math.fsum(sums)

    @inReactor
    def get(self, key):
        """
        @return: what is kept under a key, {field: value} with C{expires}; None when there is nothing, or its
            time is up.
        @raises BackendError: when the row cannot be read.
        """
        digest, _ = digestOf(key, ())
        row = self._rows.get(digest)
        if row is None:
            row = self._miss(digest)
        if row is None or row[-1] <= self.clock():
            return None
        if row[0].__class__ is list:
            row = encoded(row[0]), row[1]
        return dict(zip((*self.fields, "expires"), row, strict=True))

    @inReactor
    def put(self, key, values, ttl, columns=None, behind=False):
        """
        Keep values under a key for so many seconds, whatever was there before.

        @param values: {field: value} for every field of the table's kind.
        @raises BackendError: when the row cannot be written.
        """
        digest, columns = digestOf(key, columns)
        values = storable(values, ttl)
        row = (*(values[name] for name in self.fields), self.clock() + ttl)
        self._keep(digest, row, columns, behind)

    @inReactor
    def change(self, key, step, columns=None, behind=False):
        """
        Take a step on a list that JSON can hold, which stands under a key as a text. With write-behind it becomes
        one when it is written, not with each change.

        @param step: C{step(row, now)} gets the list (None: there is none) and the time in milliseconds, and
            returns (the list as it shall be, was it changed, an answer); from reading to writing nobody else
            changes it. C{step.lives} is for how many seconds it is of use.
        @return: the answer.
        @raises BackendError: when it cannot be read or written.
        """
        digest, columns = self._digestOf(key, columns)
        row = self._rows.get(digest)
        if row is None:
            row = self._miss(digest)
        now = self.clock()
        value = None if row is None or row[1] <= now else row[0]
        if value.__class__ is str:
            value = decoded(value)
        value, changed, answer = taken(step, value, int(now * 1000))
        if changed:
            if not behind or self._behind.isLate or not self._writes:
                value = encoded(value)
            self._keep(digest, (value, now + step.lives), columns, behind)
        return answer

    @inReactor
    def delete(self, key):
        """
        @return: was there anything under this key?
        @raises BackendError: when the row cannot be read or removed.
        """
        digest, _ = digestOf(key, ())
        there = self.get(key) is not None
        self._forget([digest])
        return there

    @inReactor
    def scan(self, like=None, limit=1000, only=None):
        """
        Rows for people: {column: value, field: value, 'expires': …}, the youngest first.

        @param like: {column: text}; C{*} in a text stands for anything, case does not count.
        @param limit: at most so many rows.
        @param only: {column: text} that they have exactly.
        @raises BackendError: when the table cannot be read.
        """
        return [row for _, row in self._scan(like, limit, only)]

    @inReactor
    def remove(self, like, only=None):
        """
        Delete all rows that L{scan} with the same C{like} and C{only} would give.

        @return: how many there were.
        """
        removed = 0
        while found := self._scan(like, _PORTION, only):
            self._forget([digest for digest, _ in found])
            removed += len(found)
        return removed

    @inReactor
    def alter(self, like, values, ttl):
        """
        Set fields of all rows that L{scan} with the same C{like} would give, and have them live so long.

        @param values: {field: value}
        @return: how many there were.
        """
        found = self._scan(like, ALTERED)
        expires = self.clock() + ttl
        for digest, row in found:
            changed = row | values | {"expires": expires}
            fields = tuple(changed[name] for name in (*self.fields, "expires"))
            self._keep(digest, fields, tuple(row.get(name, "") for name in self.columns), behind=True)
        if self._writes:
            wait(self.written())
        return len(found)

    @inReactor
    def statistics(self, where):
        """
        @param where: {name: function(columns of the schema, present time) -> condition}
        @return: {name: how many rows there are for which the condition holds}.
        """
        if self.database is None:
            raise BackendError("there is no database that could count")
        wait(self.written())
        return counted(self.database, self.schema, where, self.clock())

    def _scan(self, like, limit, only=None):
        if self.database is None:
            return self._scanMemory(like or {}, limit, only or {})
        query = scanning(self.schema, self.database.dialect, like or {}, self.clock(), limit, only)
        if self._writes:
            wait(self.written())
        rows = wait(self.database.load(lambda connection: connection.execute(*query).fetchall()))
        return labelled(self.schema, rows)

    def _scanMemory(self, like, limit, only):
        names = (*self.fields, "expires")
        unknown = [column for column in like if column not in (*self.columns, *names)]
        if unknown:
            raise BackendError(f"table {self.name} has no column {unknown[0]}")
        wanted = {column: pattern(text) for column, text in like.items()}
        own = {column: readable(text) for column, text in only.items()}.items()
        now = self.clock()
        found = []
        for digest, row in self._rows.items():
            shown = dict(zip(names, row, strict=True)) | dict(zip(self.columns, self._shown[digest], strict=False))
            isWanted = row[-1] > now and own <= shown.items()
            if isWanted and all(one.fullmatch(str(shown[column])) for column, one in wanted.items()):
                found.append((digest, shown))
        found.sort(key=lambda one: one[1]["expires"], reverse=True)
        return found[:limit]

    def _forget(self, digests):
        self._load.forget(digests)
        for digest in digests:
            self._rows.pop(digest, None)
            self._shown.pop(digest, None)
            self._dirty.pop(digest, None)
        if self._writes:
            self._deletions.append(digests)
            try:
                wait(
                    self.database.submit(
                        lambda connection: [self._delete(connection, digest=digest) for digest in digests] and None
                    )
                )
            except BaseException:
                self._load.isComplete = False  # the file still has them, or may have them
                raise
            finally:
                self._deletions.remove(digests)

    def _miss(self, digest):
        """
        The row of a key that is not in the front, if the database has it.
        """
        if self._load.lacks(digest):
            return None
        # What creates the table, and what is on its way to the file, is waited for behind it.
        isBehind = self._writes and (not self._load.isDone or self._isUnderWay(digest))
        lane = self.database.submit if isBehind else self.database.read
        try:
            found = wait(lane(lambda connection: self._select(connection, digest=digest).fetchone(), True))
        except BackendError as error:
            if self._writes or not error.nothingThere:
                raise
            found = None
        return self._rows.get(digest) or found  # another request may have been faster

    def _isUnderWay(self, digest):
        return (
            self._behind.isUnderWay(digest)
            or any(digest in digests for digests in self._deletions)
            or any(row[0] == digest for row in self._commits.rows())
        )

    def _keep(self, digest, row, columns, behind):
        """
        The row in the front, and on its way to the file.
        """
        rows = self._rows
        if digest in rows:
            rows[digest] = row
            rows.move_to_end(digest)
        else:
            rows[digest] = row
            if len(rows) > self.store.size + EVICTED:
                self.bound()
        if self._writes:
            if behind and not self._behind.isLate:
                self._dirty[digest] = (digest, *row, *columns)
            else:
                self._commit(digest, (digest, *row, *columns))
        elif self.database is None:
            self._shown[digest] = columns

    # Writing

    def _commit(self, digest, entry):
        """
        Wait until a row is on disk.
        """
        self._dirty.pop(digest, None)
        self._commits.add(entry)

    def _write(self, connection, entries):
        """
        In the thread.
        """
        self.database.usable(connection, self.schema)
        self._upsert(connection, entries)
        return [None] * len(entries)

    def _writeMany(self, connection, entries):
        """
        The same for rows of write-behind; what is wrong with one is no harm to the others.
        """
        return self._commits.write(connection, entries)

    def flush(self):
        """
        Send the rows that were touched with write-behind to the database.
        """
        self._behind.flush()

    def purge(self):
        """
        Delete expired rows, a portion at a time, while other work goes on between.
        """
        if self._writes:
            self._purge.run()
        elif self.database is None:
            now = self.clock()
            for digest in [digest for digest, row in self._rows.items() if row[-1] <= now]:
                del self._rows[digest]
                self._shown.pop(digest, None)

    def _deleteExpired(self):
        now = self.clock()
        done = self.database.submit(lambda connection: self._expired(connection, now=now, most=AT_ONCE).fetchall())
        return done.addCallback(self._deletedExpired)

    def _deletedExpired(self, keys):
        now = self.clock()
        for (digest,) in keys:
            row = self._rows.get(digest)
            if row is not None and row[-1] <= now and digest not in self._dirty:
                del self._rows[digest]
        return len(keys)
