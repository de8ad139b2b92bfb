"""
The embedded database: one SQLite file in WAL mode, written by one process.
"""

import os
import re
import sqlite3
from functools import lru_cache
from pathlib import Path

from sqlalchemy import func
from sqlalchemy.dialects.sqlite import dialect

from ppolicy.database import Database
from ppolicy.errors import BackendError
from ppolicy.lane import ALONE, LONG, LOST, MISSING, RETRY, Lane

# Seconds to wait for another process that writes; then for the next look whether it has done.
_BUSY = 1.0
_LOCKED = 0.25
# Seconds in which the writer waits for a moment without readers, to begin the log anew.
_RESTART = 0.02
# Seconds between two copies of the log into the file; pages of a log that is too long (16 MB).
_COPY = 1.0
_LONG_LOG = 4096


class _Connection(sqlite3.Connection):
    """
    With the methods that operations use on every database.

    @ivar reading: True when it only reads.
    @ivar file: device and inode of the file it opened.
    """

    reading = False
    file = None

    def stream(self, text, values=()):
        """
        The rows of a large result, one after the other.
        """
        return self.execute(text, values)


class SQLite(Database):
    """
    @param path: the database file.
    """

    grouped = True
    Error = sqlite3.Error
    dialect = dialect(paramstyle="qmark")

    def __init__(self, reactor, path, readOnly=False):
        super().__init__(reactor, readOnly)
        self.path = Path(path)
        self._copying = Lane(self, "copy", LONG)
        self.lanes = (*self.lanes, self._copying)
        self._nextCopy = None
        self._isLong = False

    def start(self):
        super().start()
        if not self.readOnly:
            self._copyLater()

    def stop(self):
        if self._nextCopy is not None:
            self._nextCopy.cancel()
            self._nextCopy = None
        return super().stop()

    # A commit goes to the log (-wal); that must be copied into the file now and then, and waits for the disk to
    # do so. A thread of its own does it, so that no commit has to wait.

    def _copyLater(self):
        self._nextCopy = self.reactor.callLater(_COPY, self._copy)

    def _copy(self):
        self._nextCopy = None
        self._copyLater()
        if not self._copying.waiting:
            self._copying.submit(self._copyLog, single=True).addErrback(lambda failure: failure.trap(BackendError))

    def _copyLog(self, connection):
        """
        In the thread. A log that has grown long, because there was no moment without a writer, begins anew when
        its rest is copied; that the writer has to do.
        """
        ((_, pages, _),) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._isLong = pages > _LONG_LOG

    def written(self, connection):
        if self._isLong:
            self._isLong = False
            # Where somebody reads for long, a whole table say, all that is to be written would wait.
            connection.execute(_patience(_RESTART))
            try:
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            finally:
                connection.execute(_patience(_BUSY))

    def __str__(self):
        return str(self.path)

    def connect(self, role, writing=None):
        if not self.readOnly:
            self._createFile()
        target = f"file:{_quoted(self.path)}?mode={'ro' if self.readOnly else 'rwc'}"
        connection = sqlite3.connect(
            target, uri=True, timeout=_BUSY, isolation_level=None, cached_statements=256, factory=_Connection
        )
        try:
            connection.create_function("lower", 1, _lower, deterministic=True)
            connection.create_function("like", 3, _like, deterministic=True)
            if not self.readOnly:
                connection.execute("PRAGMA journal_mode=WAL")
                # In WAL mode NORMAL survives the death of the process; a power cut may lose the last commits.
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("PRAGMA wal_autocheckpoint=0")
                connection.execute("PRAGMA cache_size=-32768")
            connection.reading = self.readOnly or role != "write" if writing is None else not writing
            if connection.reading and role != "copy":
                connection.execute("PRAGMA query_only=ON")
            connection.execute("SELECT count(*) FROM sqlite_master")
            if role == "write" and not self.readOnly:
                # It may be what a full disk needs.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.file = _identity(self.path)
        except (sqlite3.Error, OSError):
            connection.close()
            raise
        return connection

    def isStale(self, connection):
        try:
            return connection.file != _identity(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # what is open can be used

    def _createFile(self):
        """
        It holds mail addresses: not for everybody's eyes. SQLite gives its other files the same mode.

        A file that is there is not opened: closing it would end all locks of this process, those of other
        connections too (https://www.sqlite.org/howtocorrupt.html, 2.2).
        """
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
        except FileExistsError:
            pass
        except OSError as error:
            problem = sqlite3.OperationalError(f"cannot be opened: {error.strerror}")
            problem.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise problem from error

    def dbapi(self):
        if self.readOnly:
            return sqlite3.connect(f"file:{_quoted(self.path)}?mode=ro", uri=True, timeout=_BUSY)
        self._createFile()
        return sqlite3.connect(self.path, timeout=_BUSY)

    def begin(self, connection):
        connection.execute("BEGIN" if connection.reading else "BEGIN IMMEDIATE")

    def commit(self, connection):
        connection.execute("COMMIT")

    def rollback(self, connection):
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def beginPart(self, connection):
        connection.execute("SAVEPOINT part")

    def endPart(self, connection, isDone):
        if not isDone:
            connection.execute("ROLLBACK TO part")
        connection.execute("RELEASE part")

    def probe(self, connection):
        connection.execute("SELECT count(*) FROM sqlite_master")

    def meaning(self, error):
        if isinstance(error, sqlite3.OperationalError):
            if "no such table" in str(error):
                return MISSING
            # Without a code it is the driver that cannot take a value. Any other code says that the disk is full,
            # the file is damaged or locked: nothing in this transaction will do better.
            return ALONE if getattr(error, "sqlite_errorcode", 1) == sqlite3.SQLITE_ERROR else LOST
        return LOST if isinstance(error, OSError) or type(error) is sqlite3.DatabaseError else ALONE

    def explained(self, error):
        return str(error)

    def retryAfter(self, error):
        return _LOCKED if "locked" in str(error) else RETRY

    def isAbsent(self, error):
        """
        Is all that is wrong that there is no file? Only where we may not create it ourselves.
        """
        return self.readOnly and not self.path.exists()

    def epoch(self, column):
        return func.coalesce(func.unixepoch(column, "utc"), column)

    def isDate(self, connection, table, column):
        rows = connection.execute(
            "SELECT type FROM pragma_table_info(?) WHERE name = ?", (table, column)
        ).fetchall()
        return [kind.upper() for (kind,) in rows] == ["DATETIME"]

    def tables(self, connection):
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return [name for (name,) in rows if not name.startswith("sqlite_")]

    def columns(self, connection, table):
        rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
        return [name for (name,) in rows] or None


def _patience(seconds):
    return f"PRAGMA busy_timeout={round(1000 * seconds)}"


def _identity(path):
    status = path.stat()
    return status.st_dev, status.st_ino


def _lower(value):
    """
    SQLite's own knows ASCII only; this one is that of the other databases and of Python.
    """
    return value if value is None or isinstance(value, bytes) else str(value).lower()


def _like(wanted, value, escape):
    """
    SQLite's own ends at a NUL.
    """
    return value is not None and _pattern(wanted, escape).fullmatch(str(value)) is not None


@lru_cache(100)
def _pattern(wanted, escape):
    parts = []
    letters = iter(wanted)
    for letter in letters:
        if letter == escape:
            parts.append(re.escape(next(letters, "")))
        else:
            parts.append({"%": ".*", "_": "."}.get(letter, re.escape(letter)))
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)


def _quoted(path):
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
