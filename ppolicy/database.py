"""
The embedded database: one SQLite file, one thread that writes it, many operations in one transaction.

Callers submit operations and get Deferreds; the thread takes whatever has queued up, runs it in one transaction
and answers after the commit (group commit). An operation that fails alone fails alone. When the file cannot be
opened or written, operations fail with L{BackendError} and the next attempt is made after L{RETRY} seconds.
"""

import os
import queue
import signal
import sqlite3
import threading
from pathlib import Path
from time import monotonic

from sqlalchemy.dialects.sqlite import dialect as sqliteDialect
from sqlalchemy.schema import CreateIndex, CreateTable
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.errors import BackendError

RETRY = 2.0
QUEUE = 20_000
_BATCH = 1000
_BUSY = 1.0

DIALECT = sqliteDialect(paramstyle="qmark")


class Compiled:
    """
    A SQLAlchemy statement made text once, with C{?} marks, for all its executions.

    @ivar names: of its parameters, in the order of the marks.
    """

    def __init__(self, statement):
        result = statement.compile(dialect=DIALECT)
        self.text = str(result)
        self.names = tuple(result.positiontup)
        self._constants = result.params

    def __call__(self, connection, **values):
        """
        Execute it; returns the cursor.
        """
        return connection.execute(self.text, [values.get(name, self._constants[name]) for name in self.names])


class ManyRows:
    """
    An insert statement made for many rows at once. One step of SQLite takes them all without the interpreter;
    row by row the writing thread and the reactor would take it from each other each time.

    @param columns: the names of the columns, in the order of a row.
    """

    EXACT = 64
    LARGEST = 512

    def __init__(self, single, columns):
        assert single.names == tuple(columns), single.names
        self._marks = f"({', '.join('?' * len(columns))})"
        self._before, _, self._after = single.text.partition(f"VALUES {self._marks}")
        self._texts = {}

    def __call__(self, connection, rows):
        """
        Insert rows, tuples of their values: up to 64 in one statement, more in few.
        """
        start = 0
        while start < len(rows):
            size = len(rows) - start
            if size > self.EXACT:  # few different statements, so that SQLite keeps them prepared
                size = min(self.LARGEST, 1 << (size.bit_length() - 1))
            values = [value for row in rows[start : start + size] for value in row]
            connection.execute(self._text(size), values)
            start += size

    def _text(self, size):
        text = self._texts.get(size)
        if text is None:
            text = f"{self._before}VALUES {', '.join([self._marks] * size)}{self._after}"
            self._texts[size] = text
        return text


def ddl(table):
    """
    The statements that create a table and its indexes where they are missing.
    """
    return [
        str(CreateTable(table, if_not_exists=True).compile(dialect=DIALECT)).strip(),
        *(str(CreateIndex(index, if_not_exists=True).compile(dialect=DIALECT)) for index in table.indexes),
    ]


class SQLite:
    """
    @param path: the database file.
    @param readOnly: open what is there for reading, and create or write nothing.
    @ivar problem: why the database cannot be used at present, else None.
    """

    log = Logger()

    def __init__(self, reactor, path, readOnly=False):
        self.path = Path(path)
        self.readOnly = readOnly
        self.problem = None
        self.waiting = 0
        self._reactor = reactor
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = None
        self._connection = None
        self._nextTry = 0.0
        self._tables = []

    def start(self):
        self._thread = threading.Thread(target=self._work, name="ppolicy database", daemon=True)
        self._thread.start()

    def stop(self):
        """
        Finish what is queued, then close. The Deferred fires when the file is closed.
        """
        done = Deferred()
        self._queue.put((None, done, False))
        return done

    def create(self, table):
        """
        Have a SQLAlchemy table created now, and whenever the database is opened anew.
        """
        self._tables.append(table)
        if not self.readOnly:
            self.submit(lambda connection: _create(connection, table)).addErrback(lambda _: None)

    def submit(self, operation, single=False):
        """
        Call C{operation(connection)} in the database's thread, in a transaction with others.

        @param single: True when it is a single statement, which needs no transaction around it when alone.
        @return: a Deferred of what it returns, after the commit; it fails with L{BackendError}.
        """
        if self.waiting >= QUEUE:
            return fail(BackendError(f"{self.path}: {QUEUE} operations are waiting already"))
        self.waiting += 1
        done = Deferred(lambda _: None)
        self._queue.put((operation, done, single))
        return done

    # All below runs in the database's thread.

    def _work(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        while True:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            last = next((done for operation, done, _ in batch if operation is None), None)
            results = self._transaction([one for one in batch if one[0] is not None])
            if results:
                self._reactor.callFromThread(self._deliver, results)
            if last is not None:
                if self._connection is not None:
                    self._connection.close()
                self._reactor.callFromThread(last.callback, None)
                return

    def _transaction(self, batch):
        if not batch:
            return []
        try:
            connection = self._open()
            alone = len(batch) == 1 and batch[0][2]
            if not alone:
                connection.execute("BEGIN" if self.readOnly else "BEGIN IMMEDIATE")
            results = [(done, self._attempt(connection, operation)) for operation, done, _ in batch]
            if not alone:
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed(error)
            failure = Failure(BackendError(f"{self.path}: {error}"))
            return [(done, failure) for _, done, _ in batch]
        if self.problem is not None:
            self.problem = None
            self._reactor.callFromThread(self.log.info, "{path}: works again", path=self.path)
        return results

    def _attempt(self, connection, operation):
        try:
            return operation(connection)
        except sqlite3.OperationalError:
            raise  # the disk is full, the file is damaged or locked: nothing in this batch will do better
        except (sqlite3.Error, ValueError, OverflowError) as error:
            return Failure(BackendError(f"{self.path}: {error}"))

    def _open(self):
        if self._connection is not None:
            return self._connection
        if monotonic() < self._nextTry:
            raise sqlite3.OperationalError(self.problem or "not open")
        if not self.readOnly:
            self._createFile()
        target = f"file:{_quoted(self.path)}?mode={'ro' if self.readOnly else 'rwc'}"
        connection = sqlite3.connect(target, uri=True, timeout=_BUSY, isolation_level=None, cached_statements=256)
        try:
            if not self.readOnly:
                connection.execute("PRAGMA journal_mode=WAL")
                # In WAL mode NORMAL survives the death of the process; a power cut may lose the last commits.
                connection.execute("PRAGMA synchronous=NORMAL")
                for table in self._tables:
                    _create(connection, table)
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _createFile(self):
        """
        It holds mail addresses: not for everybody's eyes. SQLite gives its other files the same mode.
        """
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
        except OSError as error:
            raise sqlite3.OperationalError(f"cannot be opened: {error.strerror}") from error

    def _failed(self, error):
        if self._connection is not None:
            try:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                pass  # the connection is given up in any case
            self._connection.close()
            self._connection = None
            self._nextTry = 0.0 if "locked" in str(error) else monotonic() + RETRY
        elif monotonic() >= self._nextTry:
            self._nextTry = monotonic() + RETRY
        if self.problem is None:
            self._reactor.callFromThread(self.log.error, "{path}: {error}", path=self.path, error=str(error))
        self.problem = str(error)

    # In the reactor's thread again.

    def _deliver(self, results):
        self.waiting -= len(results)
        for done, result in results:
            if not done.called:
                done.callback(result)


def _create(connection, table):
    for statement in ddl(table):
        connection.execute(statement)


def _quoted(path):
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
