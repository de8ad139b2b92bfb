"""
What all databases have in common: threads with one connection each, queues before them, and many operations in
one transaction.

Callers submit operations and get Deferreds. A thread takes whatever has queued up, has it committed and answers
after the commit (group commit). An operation that fails alone fails alone. When the database itself fails, all
that waits fails with L{BackendError} at once, and so does what comes, until a probe finds it well again: nobody
waits for a database that is known to be away.
"""

import queue
import random
import signal
import threading
from collections import deque
from time import monotonic, sleep
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.errors import BackendError
from ppolicy.schema import prepare

# Seconds between two probes of a database that failed.
RETRY = 2.0
# Seconds that an operation may take, waiting included; and reading, or changing, a whole table.
_PATIENCE = 5.0
LONG = 600.0
_SWEEP = 0.5
# A connection that was idle for so many seconds is looked at before it is used.
_IDLE = 0.5
# How many operations may wait in a lane.
QUEUE = 20_000
_BATCH = 1000
# How often an operation that met a deadlock is tried.
_TRIES = 4
_JITTER = 0.01

# What an error means: the operation is to blame; another one was in the way, it may be tried again; a table is
# missing; the database is of no use at present.
ALONE, AGAIN, MISSING, LOST = "alone", "again", "missing", "lost"


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
        self._write = Lane(self, "write", _PATIENCE)
        self._read = Lane(self, "read", _PATIENCE)
        self._load = Lane(self, "load", LONG)
        self.lanes = (self._write, self._read, self._load)

    def start(self):
        """
        Open the database, in a thread; requests need not wait for it.
        """
        self._write.start()

    def stop(self):
        """
        Finish what is queued, then close. The Deferred fires when that is done.
        """
        return DeferredList([lane.stop() for lane in self.lanes]).addCallback(lambda _: None)

    @property
    def problem(self):
        """
        Why the database cannot be used at present, else None.
        """
        return next((lane.problem for lane in self.lanes if lane.problem is not None), None)

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


class Lane:
    """
    A thread with its connection, its queue and its breaker.

    @ivar problem: why the last transaction failed, until one succeeds.
    @ivar broken: True while the breaker is open: operations fail at once.
    """

    log = Logger()

    def __init__(self, database, role, patience):
        self.role = role
        self._patience = patience
        self.problem = None
        self.broken = False
        self.waiting = 0
        self._database = database
        self._reactor = database.reactor
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = None
        self._connection = None
        self._nextProbe = 0.0
        self._absent = self._stopped = self._wasHungUp = False
        self._used = 0.0
        self._pending = deque()
        self._sweeping = None

    def start(self):
        self._thread = threading.Thread(target=self._work, name=f"ppolicy database {self.role}", daemon=True)
        self._thread.start()

    def stop(self):
        """
        Finish what is queued. The Deferred fires when the connection is closed.
        """
        self._stopped = True
        done = Deferred()
        if self._thread is None:
            done.callback(None)
        else:
            self._queue.put((None, done, False))
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        return done

    def submit(self, operation, single=False):
        if self._stopped:
            return fail(BackendError(f"{self._database}: is closed", later=True))
        if self.broken:
            return fail(self._away())
        if self.waiting >= QUEUE:
            return fail(BackendError(f"{self._database}: {QUEUE} operations are waiting already", later=True))
        if self._thread is None:
            self.start()
        self.waiting += 1
        done = Deferred(lambda _: None)
        self._pending.append((self._reactor.seconds() + self._patience, done))
        if self._sweeping is None:
            self._sweeping = self._reactor.callLater(_SWEEP, self._sweep)
        self._queue.put((operation, done, single))
        return done

    def _sweep(self):
        """
        Nobody waits for ever, whatever the thread hangs in; one look now and then costs less than a timer each.
        """
        self._sweeping = None
        pending, now = self._pending, self._reactor.seconds()
        while pending and (pending[0][1].called or pending[0][0] <= now):
            _, done = pending.popleft()
            if not done.called:
                error = BackendError(f"{self._database}: no answer within {self._patience:g} s", later=True)
                done.errback(Failure(error))
        if pending and self._sweeping is None:
            self._sweeping = self._reactor.callLater(_SWEEP, self._sweep)

    def _away(self):
        return BackendError(f"{self._database}: {self.problem}", self._absent, later=True)

    # All below runs in the thread.

    def _work(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        self._probe()
        while True:
            try:
                batch = [self._queue.get(timeout=max(0.0, self._nextProbe - monotonic()) if self.broken else None)]
            except queue.Empty:
                self._probe()
                continue
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            last = next((done for operation, done, _ in batch if operation is None), None)
            results = self._run([one for one in batch if one[0] is not None])
            if results:
                self._reactor.callFromThread(self._deliver, results)
            if last is not None:
                self._close()
                self._reactor.callFromThread(last.callback, None)
                return

    def _run(self, batch):
        """
        @return: (Deferred, result) of each operation of a batch.
        """
        results = []
        for part in [batch] if self._database.grouped and batch else [[one] for one in batch]:
            if self.broken:  # they came before it broke, or the part before has found that out
                failure = Failure(self._away())
                results += [(done, failure) for _, done, _ in part]
            else:
                results += self._transaction(part)
        return results

    def _transaction(self, part):
        database = self._database
        alone = len(part) == 1 and part[0][2]
        for tries in range(1, _TRIES + 1):
            try:
                connection = self._present()
                if not alone:
                    database.begin(connection)
                results = [(done, self._attempt(connection, operation)) for operation, done, _ in part]
                if not alone:
                    if len(part) == 1 and isinstance(results[0][1], Failure):
                        database.rollback(connection)
                    else:
                        database.commit(connection)
                if self.role == "write":
                    database.written(connection)
            except Exception as problem:  # noqa: BLE001 - the thread must go on, whatever a driver says
                error = problem
                if not isinstance(problem, database.Error | OSError):
                    self._reactor.callFromThread(self.log.failure, "a transaction failed", Failure())
                    error = database.Error(f"{type(problem).__name__}: {problem}")
                meaning = database.meaning(error)
                if meaning == LOST or tries == _TRIES or not self._mend(meaning):
                    self._failed(error, meaning)
                    absent = self._absent or meaning == MISSING
                    failure = Failure(BackendError(f"{database}: {database.explained(error)}", absent, True))
                    return [(done, failure) for _, done, _ in part]
            else:
                break
        if self.problem is not None:
            self.problem = None
            self._reactor.callFromThread(self.log.info, "{database}: works again", database=str(database))
        return results

    def _present(self):
        """
        The connection; one that was idle may have been closed by the server.
        """
        now, database = monotonic(), self._database
        if self._connection is not None:
            if database.isStale(self._connection):
                self._close()
                if self.role == "write":
                    self._reactor.callFromThread(self._replaced)
            elif now - self._used > _IDLE:
                try:
                    database.probe(self._connection)
                except (database.Error, OSError):
                    self._close()
        if self._connection is None:
            self._open()
        self._used = now
        return self._connection

    def _attempt(self, connection, operation):
        database = self._database
        try:
            return operation(connection)
        except database.Error as error:
            if database.meaning(error) != ALONE:
                raise
            return Failure(BackendError(f"{database}: {database.explained(error)}"))
        except BackendError:
            return Failure()
        except (ValueError, OverflowError) as error:
            return Failure(BackendError(f"{database}: {error}"))
        except Exception as error:  # noqa: BLE001 - the thread must go on, whatever is wrong with one operation
            failure = Failure()
            self._reactor.callFromThread(self.log.failure, "an operation of the database failed", failure)
            return Failure(BackendError(f"{database}: failed with {type(error).__name__}"))

    def _mend(self, meaning):
        """
        Can the transaction be tried again? A deadlock's other side needs a moment to finish.
        """
        if self._connection is None:
            return meaning == AGAIN
        database = self._database
        try:
            database.rollback(self._connection)
            if meaning == MISSING:
                if database.readOnly:
                    return False
                if self.role != "write" and not database.shared:  # an embedded one has a single writer
                    self._reactor.callFromThread(database.prepareSoon)
                    return False
                database.prepare(self._connection)
        except (database.Error, OSError):
            return False
        if meaning == AGAIN:
            sleep(random.uniform(0.2, 1) * _JITTER)  # noqa: S311 - nobody gains by guessing it
        return True

    def _open(self):
        connection = self._database.connect(self.role)
        try:
            if self.role == "write" and not self._database.readOnly:
                self._database.prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _probe(self):
        try:
            if self._connection is None:
                self._open()
            self._database.probe(self._connection)
        except (self._database.Error, OSError) as error:
            self._failed(error, LOST)
        except Exception as error:  # noqa: BLE001 - the thread must go on, whatever a driver says
            self._reactor.callFromThread(self.log.failure, "opening a database failed", Failure())
            self._failed(self._database.Error(f"{type(error).__name__}: {error}"), LOST)
        else:
            # What failed may have been writing, which only the next transaction can tell.
            self.broken = False

    def _failed(self, error, meaning):
        database = self._database
        if meaning != LOST:
            self._rollBack()
            return
        self._close()
        if database.hangs(error) and not self._wasHungUp:
            for lane in database.lanes:
                lane.hangUp()
        self._wasHungUp = False
        problem = database.explained(error)
        self._nextProbe = monotonic() + database.retryAfter(error)
        self._absent = database.isAbsent(error)
        if self.problem != problem and not self._absent:
            self._reactor.callFromThread(
                self.log.error, "{database}: {problem}", database=str(database), problem=problem
            )
        self.problem = problem
        self.broken = True

    def hangUp(self):
        """
        Another lane has found out that the database hangs. In any thread.
        """
        connection = self._connection
        if connection is not None:
            self._wasHungUp = True
            connection.hangUp()

    def _rollBack(self):
        if self._connection is None:
            return
        try:
            self._database.rollback(self._connection)
        except (self._database.Error, OSError):
            self._close()

    def _close(self):
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except (self._database.Error, OSError):
                pass  # it is given up in any case

    # In the reactor's thread again.

    def _replaced(self):
        database = self._database
        self.log.error(
            "{database}: was removed or replaced while it was in use; what is there now is used, what was there is"
            " known from memory only",
            database=str(database),
        )
        for function in database.whenReplaced:
            function()

    def _deliver(self, results):
        self.waiting -= len(results)
        for done, result in results:
            if not done.called:
                done.callback(result)
