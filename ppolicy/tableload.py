"""
Loading a table of state from its file, while requests are served: what memory has of it, and what it lacks.
"""

from sqlalchemy import bindparam, func, select

from ppolicy.errors import BackendError
from ppolicy.keyfilter import KeyFilter
from ppolicy.lane import RETRY
from ppolicy.statement import Compiled

# Rows that are taken over in one go.
_PORTION = 2000


class TableLoad:
    """
    What the front of a L{ppolicy.localtable.LocalTable} has of its file: all of it, or the youngest rows and a
    filter with the keys of the others.

    @ivar isComplete: is everything that the file has in the front as well?
    @ivar _filter: a L{KeyFilter} with all keys of the file that are not in the front, and others, once it is
        filled; C{_since} are the keys that have left the front since its filling began.
    """

    def __init__(self, table):
        self._table = table
        self._store = table.store
        self._database = table.database
        self._reactor = table.bridge.reactor
        self.isComplete = self._database is None
        self._filter = self._since = None
        self._stopped = False
        self._next = None
        self._number = 0  # of the load that counts: another file may come before one has ended
        if self._database is not None:
            schema, dialect = table.schema, self._database.dialect
            row = [schema.c[name] for name in ("key", *table.fields, "expires")]
            living = select(*row).where(schema.c.expires > bindparam("now"))
            self._youngest = Compiled(living.order_by(schema.c.expires.desc()).limit(bindparam("most")), dialect)
            self._keys = Compiled(select(schema.c.key), dialect)
            self._count = Compiled(select(func.count()).select_from(schema), dialect)

    @property
    def isDone(self):
        """
        Was the file read once?
        """
        return self._filter is not None

    def begin(self):
        """
        Read the youngest rows, and all keys for the filter.
        """
        if self._stopped:
            return
        now = self._table.clock()
        self._since = set()
        self._number = number = self._number + 1

        def load(connection):
            query = self._youngest.bound({"now": now, "most": self._store.size + 1})
            return list(connection.stream(self._youngest.text, query)), self._filled(connection)

        # What was written before is on disk when the lane that writes has come to this.
        written = self._table.written()
        loaded = written.addCallback(lambda _: self._database.load(load))
        loaded.addCallbacks(self._loaded, self._notLoaded, (number,), errbackArgs=(number,))

    def again(self):
        """
        The front is no copy of the file any more.
        """
        self._cancel()
        self.isComplete, self._filter = False, None
        self.begin()

    def stop(self):
        """
        Load no more.
        """
        self._stopped = True
        self._cancel()

    def _cancel(self):
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _filled(self, connection):
        """
        In a thread: a filter with the keys of the file.
        """
        ((count,),) = connection.execute(self._count.text).fetchall()
        filled = KeyFilter(max(2 * count, 4 * self._store.size))
        for (digest,) in connection.stream(self._keys.text):
            filled.add(digest)
        return filled

    def _loaded(self, result, number):
        """
        Take the rows in portions, oldest first, so that no request waits for the whole table.
        """
        if self._stopped or number != self._number:
            return
        rows, filled = result
        size = self._store.size
        complete = len(rows) <= size
        del rows[size:]

        def portion():
            # What has left the front meanwhile was changed, or deleted, after it was read here.
            taken = [(digest, tuple(row)) for digest, *row in rows[-_PORTION:] if digest not in self._since]
            self._table.adopt(taken)
            del rows[-_PORTION:]
            if rows:
                self._next = self._reactor.callLater(0, portion)
                return
            self._next = None
            self.isComplete = complete and not self._since
            for digest in self._since:
                filled.add(digest)
            self._filter, self._since = filled, None
            self._table.bound()

        portion()

    def _notLoaded(self, failure, number):
        failure.trap(BackendError)
        if not self._stopped and number == self._number:
            # Until it works again, each miss asks the database itself.
            self._next = self._reactor.callLater(RETRY, self.begin)

    # What the table tells, and asks

    def lacks(self, digest):
        """
        Is a key that is not in the front surely not in the file either?
        """
        return self.isComplete or (self._filter is not None and not self._filter.mayHave(digest))

    def most(self):
        """
        How many rows the front may have; while the file is read, twice as many.
        """
        size = self._store.size
        return size if self._since is None else 2 * size

    def evict(self):
        """
        The front is about to drop rows. A filter that has too many keys by now is made anew.
        """
        self.isComplete = self._database is None
        if self._filter is not None and self._filter.room < 0 and self._since is None:
            self._filter.room = self._store.size
            self.begin()

    def left(self, digest):
        """
        A key is no longer in the front.
        """
        if self._filter is not None and not self._filter.mayHave(digest):  # it has room for so many different ones
            self._filter.add(digest)
        if self._since is not None:
            self._since.add(digest)

    def forget(self, digests):
        """
        Keys are about to be deleted, which the file may refuse.
        """
        for digest in digests:
            self.left(digest)
