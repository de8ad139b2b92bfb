"""
A table that requests are dumped into: written in batches behind the mail's back, split and cleared by age.
"""

import re
import time
from collections import deque
from random import SystemRandom

from sqlalchemy import (
    BigInteger,
    Column,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    delete,
    distinct,
    func,
    insert,
    literal,
    select,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.bridge import inReactor
from ppolicy.errors import BackendError
from ppolicy.purge import AT_ONCE, Purge
from ppolicy.schema import MYSQL, ddl, identifier
from ppolicy.statement import Compiled, ManyRows
from ppolicy.timers import Timers

# Seconds between two writes, and between two looks at the size and age of the table.
FLUSH = 0.5
LOOK = 10.0
# Records that wait for a database that does not answer; what comes then is dropped.
BOUND = 10_000
_PORTION = 200
_LONGEST = 4000
# A record's number is the microsecond it was made in, and behind it ten bits of the process that made it.
_NODES = 1 << 10

PERIODS = {"day": "%Y%m%d", "week": "%GW%V", "month": "%Y%m", "year": "%Y"}


class DumpTable:
    """
    @param split: None, 'records' or 'date'.
    @param interval: how many records a table has, or one of C{PERIODS}.
    @param retention: seconds after which records, and tables that were split off, are removed; 0: never.
    @ivar problem: why nothing can be written at present, else None.
    @ivar dropped: records that were lost because the database did not answer for too long.
    """

    log = Logger()

    def __init__(self, bridge, database, name, split=None, interval=None, retention=0.0):
        self.bridge = bridge
        self.name = name
        self.dropped = 0
        self._database = database
        self._split, self._interval, self._retention = split, interval, retention
        self._waiting = deque()
        self._writing = self._isClosed = False
        self.problem = None
        self._untidy = {}
        self._last = 0
        self._node = SystemRandom().randrange(_NODES)
        self._timers = Timers(self.bridge)
        self._purge = Purge(self.bridge.reactor, self._deleteOld)
        self.schema = dumpSchema(name)
        if database is not None:
            dialect = database.dialect
            c = self.schema.c
            row = insert(self.schema).values(id=bindparam("id"), key=bindparam("k"), value=bindparam("v"))
            # What was written although its answer did not come, or came too late, is there already.
            row = row.prefix_with("IGNORE", dialect="mysql").prefix_with("OR IGNORE", dialect="sqlite")
            self._insert = ManyRows(Compiled(row, dialect))
            # Counting reads the whole table, and with it all others would wait; its first record is found at once.
            records = func.count(distinct(c.id)) if split == "records" else literal(1)
            self._records = Compiled(select(records, func.min(c.id)), dialect)
            self._old = Compiled(
                select(c.id).where(c.id < bindparam("before")).order_by(c.id).limit(AT_ONCE), dialect
            )
            self._forget = Compiled(delete(self.schema).where(c.id <= bindparam("last")), dialect)

    def open(self):
        """
        Have the table created, and begin to write. Callable in any thread.
        """
        if self._database is not None and not self._database.readOnly:
            self._database.create(self.schema)
            self.bridge.reactor.callFromThread(self._open)

    def status(self):
        """
        How it is, as a dictionary.
        """
        untidy = next(filter(None, self._untidy.values()), None)
        return {"problem": self.problem or untidy, "waiting": len(self._waiting), "dropped": self.dropped}

    def _open(self):
        self._timers.every(FLUSH, self._flush)
        if self._split is not None or self._retention:
            self._timers.every(LOOK, self._look)
            self._look()

    def close(self):
        """
        Write what waits, and no more. Callable in any thread.
        """

        def close():
            self._isClosed = True
            self._timers.stop()
            self._purge.stop()
            for _ in range(0, len(self._waiting), _PORTION):
                self._writing = False  # one after the other, as the database may be stopped next
                self._flush()

        self.bridge.reactor.callFromThread(close)

    @inReactor
    def put(self, data):
        """
        Have a request written within half a second.

        @return: the number of the record, None when it is dropped.
        """
        if len(self._waiting) >= BOUND or self._database is None:
            self.dropped += 1
            return None
        now = time.time()
        self._last = number = max(self._last + _NODES, int(now * 1e6) * _NODES + self._node)
        # No key twice, and none that a database refuses: it would keep all that comes later from being written.
        record = {_text(key)[:255]: _text(value) for key, value in data.items()} | {"date": f"{now:.0f}"}
        self._waiting.append([(number, key, value) for key, value in record.items()])
        return number

    def _flush(self):
        if self._writing or not self._waiting or self._database is None:
            return
        records = [self._waiting.popleft() for _ in range(min(len(self._waiting), _PORTION))]
        rows = [row for record in records for row in record]
        self._writing = True
        done = self._database.submit(lambda connection: self._insert(connection, rows) and None)
        done.addBoth(self._flushed, records)

    def _flushed(self, result, records):
        self._writing = False
        if isinstance(result, Failure):
            if self._isClosed:
                self.log.error(
                    "{name}: {count} records are lost: {error}",
                    name=self.name,
                    count=len(records),
                    error=result.getErrorMessage(),
                )
                return
            self._waiting.extendleft(reversed(records))
            if self.problem is None:
                self.log.warn("{name}: {error}", name=self.name, error=result.getErrorMessage())
            self.problem = result.getErrorMessage()
            return
        if self.problem is not None:
            self.problem = None
            self.log.info("{name}: works again, {dropped} were dropped", name=self.name, dropped=self.dropped)
        self._flush()

    # Splitting and forgetting

    def _look(self):
        done = self._database.submit(self._tidy).addBoth(self._tidied, "put aside")
        done.addErrback(lambda failure: failure.trap(BackendError) and None)
        if self._retention:
            self._purge.run()

    def _tidied(self, result, what):
        """
        A table that cannot be kept small, for the want of a right, say, must not grow without a word.
        """
        trouble = result.getErrorMessage() if isinstance(result, Failure) else None
        if trouble and not self._untidy.get(what):
            self.log.warn(
                "{name}: old records cannot be {what}: {error}", name=self.name, what=what, error=trouble
            )
        self._untidy[what] = trouble
        return result

    def _tidy(self, connection):
        """
        In the database's thread.
        """
        now = time.time()
        if self._split is not None:
            ((records, first),) = self._records(connection).fetchall()
            suffix = first is not None and self._suffix(records, first / _NODES / 1e6, now)
            if suffix:
                self._rename(connection, f"{self.name}_{suffix}")
        if self._retention:
            self._drop(connection, now - self._retention)

    def _suffix(self, records, begun, now):
        """
        What the table is to be called by when it is to be split off now, else None.
        """
        if self._split == "records":
            return time.strftime("%Y%m%dT%H%M%S", time.localtime(now)) if records >= self._interval else None
        form = PERIODS[self._interval]
        period = time.strftime(form, time.localtime(begun))
        return period if period != time.strftime(form, time.localtime(now)) else None

    def _rename(self, connection, name):
        dialect = self._database.dialect
        quote = dialect.identifier_preparer.quote
        if self._database.columns(connection, name) is not None:
            name += time.strftime("T%H%M%S")
        connection.execute(f"ALTER TABLE {quote(self.name)} RENAME TO {quote(name)}")
        for statement in ddl(self.schema, dialect):
            connection.execute(statement)

    def _deleteOld(self):
        before = int((time.time() - self._retention) * 1e6) * _NODES

        def portion(connection):
            rows = self._old(connection, before=before).fetchall()
            if rows:
                self._forget(connection, last=rows[-1][0])
            return len(rows)

        return self._database.submit(portion).addBoth(self._tidied, "removed")

    def _drop(self, connection, before):
        """
        Remove the tables that were put aside and have nothing younger.
        """
        quote = self._database.dialect.identifier_preparer.quote
        for name in self._database.tables(connection):
            if re.fullmatch(rf"{re.escape(self.name)}_\d{{4}}[\dTW]*", name):
                youngest = select(func.max(dumpSchema(name).c.id))
                ((last,),) = Compiled(youngest, self._database.dialect)(connection).fetchall()
                if last is None or last / _NODES / 1e6 < before:
                    connection.execute(f"DROP TABLE {quote(name)}")


def dumpSchema(name):
    """
    The table: one row for each attribute of a record.
    """
    table = Table(
        identifier(name),
        MetaData(),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("key", String(255), primary_key=True),
        Column("value", Text, nullable=False),
        **MYSQL,
    )
    table.info["kind"] = "dump"
    return table


def _text(value):
    text = str(value)[:_LONGEST]
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
