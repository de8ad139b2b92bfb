"""
Rows of a table of state that are answered for before they are on disk: written later, many at a time.
"""

from itertools import islice

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.rows import encoded
from ppolicy.statement import ManyRows

# Rows that are made ready to be written before the reactor looks at its sockets, some ms.
_TURN = 500
# How many of these portions may be on their way to the file: a transaction of all of them ends long before the
# database is taken for one that does not answer. Seconds until it is looked again whether one has arrived.
_AHEAD = 20
_PAUSE = 0.01


class WriteBehind:
    """
    @param table: the L{ppolicy.localtable.LocalTable}.
    @param front: {digest of the key: row}, what it has in memory.
    @param write: C{write(connection, rows)}, called in the thread; it returns a L{BackendError} for each row that
        the database does not take, and None for the others.
    @ivar rows: {digest: (digest, *row, *columns)} of those to be written with the next flush.
    @ivar isLate: are those of before not yet written? Then rows are to be written before the answer.
    @ivar _lost: how many rows have left the memory unwritten, which is told when the database works again.
    @ivar _flushes: {digest: …} of each portion that is being written; C{_flushing} is how many there are.
    """

    log = Logger()

    def __init__(self, table, front, write):
        self._table = table
        self._database = table.database
        self._reactor = table.bridge.reactor
        self._front = front
        self._write = write
        self.rows = {}
        self.isLate = False
        self._flushing, self._flushes = 0, []
        self._lost = 0
        self._nextTurn = None

    def flush(self):
        """
        Send the rows that were touched with write-behind to the database. When it is still busy with those of
        before, rows are written before the answer until it has caught up: else they would be late.
        """
        self.isLate = bool(self._flushing) or self._nextTurn is not None
        if not self.isLate:
            self._flushInTurns(len(self.rows))

    def _flushInTurns(self, count):
        """
        Send so many rows, a portion in each turn of the reactor; those that come meanwhile can wait.
        """
        self._nextTurn = None
        left = self._flushSome(count)
        if left > 0 and not self._database.isAway:
            self._nextTurn = self._reactor.callLater(self._pause(), self._flushInTurns, left)

    def _flushSome(self, count):
        """
        Send a portion, unless so many are under way that the last of them would be late.

        @return: how many of so many rows are left.
        """
        if self._flushing >= _AHEAD:
            return count
        self._flushPortion()
        return count - _TURN

    def _pause(self):
        return _PAUSE if self._flushing >= _AHEAD else 0

    @inlineCallbacks
    def written(self):
        """
        @return: a Deferred that fires when all that was changed until now is on disk.
        """
        left = self._flushSome(len(self.rows))
        while left > 0 and not self._database.isAway:
            yield deferLater(self._reactor, self._pause())
            left = self._flushSome(left)
        yield self._database.submit(lambda connection: None)

    def leave(self, digests):
        """
        Send those of these rows that are not yet written: they leave the memory.
        """
        leaving = [digest for digest in digests if digest in self.rows]
        if leaving:
            for start in range(0, len(leaving), _TURN):
                self._flushPortion(leaving[start : start + _TURN])
            self._flushSome(_TURN)  # others are likely to leave next
            for digest in leaving:  # what a database that is away does not take is lost
                self._lost += self.rows.pop(digest, None) is not None

    def unwritten(self):
        """
        @return: the set of the digests of rows that are not known to be on disk.
        """
        return set(self.rows).union(*self._flushes)

    def isUnderWay(self, digest):
        """
        Is a row on its way to the file?
        """
        return any(digest in portion for portion in self._flushes)

    def stop(self):
        """
        Send all of them now, and no more in turns.
        """
        if self._nextTurn is not None:
            self._nextTurn.cancel()
            self._nextTurn = None
        for _ in range(0, len(self.rows), _TURN):  # what cannot be sent comes back
            self._flushPortion()

    def _flushPortion(self, digests=None):
        """
        @param digests: of rows to be written, by default of those that are so for longest.
        """
        # While it is known to be away, all rows would only be made ready again and again.
        if not self.rows or self._database.isAway:
            return
        if digests is None:
            digests = list(islice(self.rows, _TURN))
        portion = {digest: self.rows.pop(digest) for digest in digests}
        self._flushes.append(portion)
        entries = list(portion.values())
        if self._table.kind == "value":
            entries = [entry for entry in map(self._asText, entries) if entry is not None]
        self._flushing += 1
        done = self._database.submit(
            lambda connection: self._write(connection, entries), single=len(entries) <= ManyRows.EXACT
        )
        done.addBoth(self._flushed, entries)

    def _asText(self, entry):
        """
        What is to be written, with a text for a list; in the front as well, where that takes less room.

        @return: None for a list that has something in it which JSON does not know; it is forgotten.
        """
        digest, value, expires, *columns = entry
        if value.__class__ is str:
            return entry
        try:
            value = encoded(value)
        except (TypeError, ValueError):  # it must keep no other row from being written
            self.log.failure("a row of table {table} is no JSON", table=self._table.name)
            self._front.pop(digest, None)
            return None
        if digest in self._front:
            self._front[digest] = value, expires
        return digest, value, expires, *columns

    def _flushed(self, result, portion):
        self._flushing -= 1
        if not self._flushing:
            self._flushes.clear()
            self.isLate = False
        if isinstance(result, Failure):
            self.again(result.value, portion)
            return
        refused = [one for one in result if one is not None]
        if refused:
            self._tellLost(len(refused), refused[0])
        if self._lost:
            self._tellLost(self._lost, "there was no room for more while the database was away")
            self._lost = 0

    def _tellLost(self, count, why):
        self.log.error(
            "{count} rows of table {table} are lost: {why}", count=count, table=self._table.name, why=str(why)
        )

    def again(self, error, entries):
        """
        Keep rows that could not be written for the next flush. What the front had to forget meanwhile is lost:
        a database that hangs must not fill the memory.
        """
        if not error.later:
            return
        now = self._table.clock()
        for entry in entries:
            digest = entry[0]
            row = self._front.get(digest)
            if row is not None:
                self.rows.setdefault(digest, (digest, *row, *entry[len(row) + 1 :]))
            elif entry[len(self._table.fields) + 1] > now:
                self._lost += 1
