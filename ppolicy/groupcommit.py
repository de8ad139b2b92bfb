"""
Rows of many requests, written together.
"""

from collections import deque
from itertools import chain

from twisted.python.failure import Failure

from ppolicy.bridge import Gate
from ppolicy.errors import BackendError
from ppolicy.lane import ALONE, LOST
from ppolicy.statement import ManyRows

# Rows of one transaction, which is a single statement.
_MOST = ManyRows.EXACT


class GroupCommit:
    """
    Rows that come in one round of requests are a group. Groups that queue up while a transaction is under way
    share the next one, which the thread that writes begins at once, without asking the reactor.

    @param write: C{write(connection, rows)}, called in the thread; it returns an answer for each row, and leaves
        nothing behind when it fails.
    @param failed: called with a L{BackendError} and the rows that could not be written.
    """

    def __init__(self, bridge, database, write, failed=lambda error, rows: None):
        self._bridge = bridge
        self._database = database
        self._write = write
        self._failed = failed
        self._group = None  # (rows, gate) of this round
        self._queue = deque()
        self._isQueued = False  # does a transaction wait to begin?
        self._underWay = {}

    def add(self, row):
        """
        Wait until a row is written.

        @return: the answer for it.
        @raises BackendError: when it could not be written.
        """
        if self._group is None:
            self._group = [], Gate()
            self._bridge.atEnd(self._close)
        rows, gate = self._group
        rows.append(row)
        place = len(rows) - 1
        if len(rows) == _MOST:  # at the end of the round it is written as any other
            self._queue.append(self._group)
            self._group = None
        answer = gate.wait()[place]
        if answer.__class__ is BackendError:
            raise answer
        return answer

    def rows(self):
        """
        All rows that are not known to be written yet.
        """
        # The thread moves groups from the queue to those under way, so that is looked at first.
        groups = chain(
            list(self._queue), *self._underWay.values(), [self._group] if self._group is not None else ()
        )
        return chain.from_iterable(rows for rows, _ in groups)

    def _close(self):
        if self._group is not None:
            self._queue.append(self._group)
            self._group = None
        if self._queue and not self._isQueued:
            self._isQueued = True
            taken = []
            self._underWay[id(taken)] = taken
            done = self._database.submit(lambda connection: self._commit(connection, taken), single=True)
            done.addBoth(self._committed, taken)

    def _commit(self, connection, taken):
        """
        In the thread: write what has queued up.

        @param taken: gets the groups; it has them already when the transaction is tried again.
        """
        if not taken:
            for isQueued in (True, False):  # what comes between the last look and now needs another transaction
                self._isQueued = isQueued
                self._take(taken)
        rows = [row for rows, _ in taken for row in rows]
        return self.write(connection, rows) if rows else []

    def write(self, connection, rows):
        """
        In the thread: write rows. What is wrong with one is no harm to the others.

        @return: the answer for each, which may be a L{BackendError}: why the database does not take it.
        """
        try:
            return self._write(connection, rows)
        except self._database.Error as error:
            if self._database.meaning(error) != ALONE:
                raise
        # Also of a single row: a failure of all is one of those that queue as well.
        return [self._writeAlone(connection, row) for row in rows]

    def _writeAlone(self, connection, row):
        database = self._database
        try:
            return self._write(connection, [row])[0]
        except database.Error as error:
            if database.meaning(error) == LOST:
                raise
            return BackendError(f"{database}: {database.explained(error)}")

    def _take(self, taken):
        queue = self._queue
        room = _MOST - sum(len(rows) for rows, _ in taken)
        while queue and len(queue[0][0]) <= room:
            group = queue.popleft()
            taken.append(group)
            room -= len(group[0])

    def _committed(self, answers, taken):
        del self._underWay[id(taken)]
        if isinstance(answers, Failure):
            # It may not have begun: those that queue would fail as well.
            self._isQueued = False
            taken += self._queue
            self._queue.clear()
            self._failed(answers.value, [row for rows, _ in taken for row in rows])
        else:
            self._close()  # what there was no room for
        start = 0
        for rows, gate in taken:
            end = start + len(rows)
            gate.open(answers if isinstance(answers, Failure) else answers[start:end], self._bridge)
            start = end
