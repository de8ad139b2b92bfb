"""
What all databases have in common: their lanes, and the tables that are to be there.
"""

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ppolicy.errors import BackendError
from ppolicy.lane import ALONE, LONG, PATIENCE, RETRY, Lane
from ppolicy.schema import prepare


class Database:
    """
    A database as checks and the state store see it. Subclasses know one kind of server each.

    @ivar readOnly: nothing is created or written, for dry runs.
    @ivar whenReplaced: functions to call when another database has taken the place of this one.
    @cvar shared: may other hosts write to it as well?
    @cvar grouped: may operations of several callers share a transaction?
    @cvar Error: the root of the driver's errors.
    @cvar dialect: of SQLAlchemy.
    """

    shared = False
    grouped = True
    Error: type[Exception]
    dialect: Any = None
    log = Logger()

    def __init__(self, reactor, readOnly=False):
        self.reactor = reactor
        self.readOnly = readOnly
        self.whenReplaced = []
        self._tables = {}
        self._refused = {}
        self._preparing = False
        self._write = Lane(self, "write", PATIENCE)
        self._read = Lane(self, "read", PATIENCE)
        self._load = Lane(self, "load", LONG)
        self.lanes = (self._write, self._read, self._load)

    def start(self):
        """
        Open the database, in a thread; requests need not wait for it.
        """
        self._write.start()

    @inlineCallbacks
    def stop(self):
        """
        Finish what is queued, the writes first, then close. The Deferred fires when that is done.
        """
        # What checks had to leave for the reactor's thread when they were stopped comes first.
        yield deferLater(self.reactor, 0)
        for lane in self.lanes:  # in turn: of two that close at once, SQLite would find neither to be the last
            yield lane.stop()

    @property
    def problem(self):
        """
        Why the database cannot be used at present, else None.
        """
        return next((lane.problem for lane in self.lanes if lane.problem is not None), None)

    @property
    def isAway(self):
        """
        Is it known that nothing can be written at present?
        """
        return self._write.broken

    @property
    def waiting(self):
        """
        How many operations have no answer yet.
        """
        return sum(lane.waiting for lane in self.lanes)

    def create(self, table):
        """
        Have a SQLAlchemy table created or upgraded now, and looked after whenever the database is opened anew.
        Callable in any thread.
        """
        self._tables[_shape(table)] = table
        self.reactor.callFromThread(self._create, table)

    def _create(self, table):
        self._write.submit(lambda connection: self._prepareOne(connection, table)).addErrback(lambda _: None)

    def wanted(self):
        """
        The tables that are to be there.
        """
        return list(self._tables.values())

    def submit(self, operation, single=False):
        """
        Call C{operation(connection)} in a thread, in a transaction that may hold others.

        @param operation: it uses C{connection.execute(text, values)}, which gives a cursor.
        @param single: True when it is a single statement, which needs no transaction around it when alone.
        @return: a Deferred of what it returns, after the commit; it fails with L{BackendError}.
        """
        return self._write.submit(operation, single)

    def read(self, operation, single=True):
        """
        The same for a single short look-up, which need not queue behind what is written.
        """
        return self._read.submit(operation, single)

    def load(self, operation):
        """
        The same for reading a whole table, C{connection.stream(text, values)}, which may take its time.
        """
        return self._load.submit(operation, True)

    def prepare(self, connection):
        """
        Create or upgrade all tables, in a thread.
        """
        for table in list(self._tables.values()):
            self._prepareOne(connection, table)

    def _prepareOne(self, connection, table):
        try:
            prepare(self, connection, table)
        except (BackendError, self.Error) as problem:
            error = problem
            if isinstance(problem, self.Error):
                if self.meaning(problem) != ALONE:
                    raise
                error = BackendError(f"{self}: table {table.name}: {self.explained(problem)}")
            if self.refusal(table) != str(error):
                self.reactor.callFromThread(self.log.error, "{error}", error=str(error))
            self._refused[_shape(table)] = str(error)
        else:
            self._refused.pop(_shape(table), None)

    def refusal(self, table):
        """
        Why a table cannot be used, else None.
        """
        return self._refused.get(_shape(table)) if self._refused else None

    def usable(self, connection, table):
        """
        In the thread of the lane 'write', before a table is used: one that could not be used is looked at again.

        @raises BackendError: when it still cannot be used; the sentence says what to do.
        """
        if self.refusal(table) is None:
            return
        self._prepareOne(connection, table)
        if (refusal := self.refusal(table)) is not None:
            raise BackendError(refusal, later=True)

    def prepareSoon(self):
        """
        A table is missing: have all of them looked at by the lane that can create them.
        """
        if not self._preparing:
            self._preparing = True
            self._write.submit(self.prepare).addBoth(self._prepared)

    def _prepared(self, _):
        self._preparing = False

    # What a kind of database implements; called in a lane's thread.

    def connect(self, role, writing=None):
        """
        A new connection for the lane 'write', 'read' or 'load'.

        @param writing: is it to write? By default that of the lane 'write' is, unless nothing may be written.
        """
        raise NotImplementedError

    def dbapi(self):
        """
        A new connection as the driver makes it, for modules written for 2.7.
        """
        raise NotImplementedError

    def begin(self, connection):
        raise NotImplementedError

    def commit(self, connection):
        raise NotImplementedError

    def rollback(self, connection):
        raise NotImplementedError

    def beginPart(self, connection):
        """
        Begin an operation that shares the transaction; only where they are C{grouped}.
        """
        raise NotImplementedError

    def endPart(self, connection, isDone):
        """
        End it, or undo it.
        """
        raise NotImplementedError

    def written(self, connection):
        """
        Called after each transaction of the lane 'write'.
        """

    def isStale(self, connection):
        """
        Is it another database that stands in this place now? Asked before each transaction.
        """
        return False

    def probe(self, connection):
        """
        Raise an error when the database is not well.
        """
        raise NotImplementedError

    def meaning(self, error):
        """
        What an error means: ALONE, AGAIN, MISSING or LOST.
        """
        raise NotImplementedError

    def hangs(self, error):
        """
        Has the database not answered in time? Then other lanes need not wait as long as they may.
        """
        return False

    def explained(self, error):
        """
        An error as a sentence, without anything secret.
        """
        raise NotImplementedError

    def retryAfter(self, error):
        """
        Seconds until the next probe.
        """
        return RETRY

    def isAbsent(self, error):
        """
        Is nothing wrong but that nothing was created yet, where we may not do that ourselves?
        """
        return False

    def forbidden(self, error):
        """
        Is the user not allowed to create or change a table?
        """
        return False

    def epoch(self, column):
        """
        An expression for the seconds since 1970 of a column of type DATETIME.
        """
        raise NotImplementedError

    def isDate(self, connection, table, column):
        """
        Is a column of type DATETIME?
        """
        raise NotImplementedError

    def useServersTime(self, connection):
        """
        Take dates as the server's own clocks show them.
        """

    def tables(self, connection):
        """
        The names of all tables.
        """
        raise NotImplementedError

    def columns(self, connection, table):
        """
        The names of a table's columns, None when there is no such table.
        """
        raise NotImplementedError


def _shape(table):
    """
    What is the same for two checks that use a table in the same way.
    """
    return table.name, *table.columns.keys()
