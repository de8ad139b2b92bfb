"""
A thread that works for a database: its connection, the queue before it, and its breaker.

Callers submit operations and get Deferreds. The thread takes whatever has queued up, has it committed and answers
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

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.errors import BackendError

# Seconds between two probes of a database that failed.
RETRY = 2.0
# Seconds that an operation may take, waiting included; and reading, or changing, a whole table.
PATIENCE = 5.0
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
            batch = [one for one in batch if one[0] is not None]
            results = self._run([batch] if self._database.grouped and batch else [[one] for one in batch])
            if results:
                self._reactor.callFromThread(self._deliver, results)
            if last is not None:
                self._close()
                self._reactor.callFromThread(last.callback, None)
                return

    def _run(self, parts):
        """
        @return: (Deferred, result) of each operation; each part is a transaction. What was given up meanwhile is
            not done any more: it was told that it failed, and others would come too late as well.
        """
        results = []
        for part in parts:
            wanted = []
            for one in part:
                if one[1].called:
                    results.append((one[1], None))
                else:
                    wanted.append(one)
            if self.broken:  # they came before it broke, or the part before has found that out
                failure = Failure(self._away())
                results += [(done, failure) for _, done, _ in wanted]
            elif wanted:
                results += self._transaction(wanted)
        return results

    def _transaction(self, part):
        database = self._database
        alone = len(part) == 1 and part[0][2]
        for tries in range(1, _TRIES + 1):
            try:
                connection = self._present()
                if not alone:
                    database.begin(connection)
                shares = len(part) > 1
                results = [
                    (done, self._attempt(connection, operation, shares and not single))
                    for operation, done, single in part
                ]
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
                    if meaning == MISSING and len(part) > 1:  # the others may need no such table
                        return self._run([one] for one in part)
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

    def _attempt(self, connection, operation, isPart):
        """
        @param isPart: is it several statements in a transaction with others, that is to say must what it has done
            be undone when it fails?
        """
        if not isPart:
            return self._tried(connection, operation)
        self._database.beginPart(connection)
        result = self._tried(connection, operation)
        self._database.endPart(connection, not isinstance(result, Failure))
        return result

    def _tried(self, connection, operation):
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
