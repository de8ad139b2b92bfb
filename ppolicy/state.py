"""
What checks remember: tables of short rows, each changed by one atomic operation on its key.

Four operations, each one step: C{touch} (when was this key met), C{take} (a token bucket), C{add} (a sum over a
sliding window), and C{get}, C{put}, C{delete}, C{scan} for values. A L{LocalTable} is in memory, in front of the
embedded database, which this process alone writes; a L{SharedTable} is in a server that several hosts share.
"""

from time import time
from weakref import WeakValueDictionary

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ppolicy.errors import ConfigError
from ppolicy.localtable import LocalTable
from ppolicy.schema import stateTable
from ppolicy.shared import SharedTable

# Rows of a table in memory, some 450 octets each.
SIZE = 250_000
FLUSH = 0.25
PURGE = 60.0
# Seconds for which a store that is stopped tries to write its rows; with the time that a last try takes and the
# closing they are less than a stopping server gives its services. Seconds between two looks.
_LAST = 3.0
_LOOK = 0.05


class StateStore:
    """
    The tables, and the database behind them.

    @param database: a L{ppolicy.database.Database}, or None to remember in memory only.
    @param size: so many rows of each table are in memory, and so many keys of each check that counts in memory
        alone; it may be changed at any time.
    @ivar kept: what limits keep in memory over a reload, as long as one of the checks is there that they are of.
    """

    log = Logger()

    def __init__(self, bridge, database=None, clock=time, size=None):
        self.bridge = bridge
        self.size = size or SIZE
        self.database = database
        self.clock = clock
        self.tables = {}
        self.kept = WeakValueDictionary()
        self._flushing = None
        self._purging = None

    def start(self):
        if self.database is not None:
            self.database.start()
        self._flushLater()
        self._purgeLater()

    @inlineCallbacks
    def stop(self):
        """
        Write what is not yet written and close. The Deferred fires when all is on disk, or lost: a database that
        is locked, say, gets some seconds.
        """
        for call in (self._flushing, self._purging):
            if call is not None and call.active():
                call.cancel()
        tables = list(self.tables.values())
        for table in tables:
            table.close()
        if self.database is None:
            return
        reactor = self.bridge.reactor
        ends = reactor.seconds() + _LAST
        try:
            while any(table.unwritten() for table in tables) and reactor.seconds() < ends:
                yield deferLater(reactor, _LOOK)
                for table in tables:
                    table.close()
            yield self.database.stop()
        finally:  # also when whoever waits for the Deferred gives up
            for table in tables:
                self._tellLost(table)

    def _tellLost(self, table):
        count = table.unwritten()
        if count:
            database = self.database
            problem = database.refusal(table.schema) or database.problem or "not written in time"
            self.log.error(
                "{count} rows of table {table} are lost: {problem}", count=count, table=table.name, problem=problem
            )

    def table(self, name, columns=("name",), kind="touch"):
        """
        The table of this name, created when it is missing.

        @param columns: names of the readable columns beside the key.
        @param kind: 'touch', 'take', 'add' or 'value': which of the operations it is for.
        @raises ConfigError: when a name is no identifier, or the table is in use with other columns.
        """
        found = self.tables.get(name)
        if found is None:
            schema = stateTable(name, kind, tuple(columns))
            shared = self.database is not None and self.database.shared and not self.database.readOnly
            found = self.tables[name] = (SharedTable if shared else LocalTable)(self, schema, tuple(columns))
            found.open()
        elif (found.columns, found.kind) != (tuple(columns), kind):
            raise ConfigError(
                f"table {name} is in use already, for {found.kind}, with the columns {', '.join(found.columns)}"
            )
        return found

    # The operations by the name of a table, for checks that need nothing more.

    def touch(self, table, key, ttl, firstTtl, columns=None, settle=0.0, behind=False):
        """
        L{ppolicy.localtable.LocalTable.touch} in a table of this name.
        """
        return self._named(table, "touch").touch(key, ttl, firstTtl, columns or _name(key), settle, behind)

    def take(self, table, key, rate, burst, n=1):
        """
        L{ppolicy.localtable.LocalTable.take} in a table of this name.
        """
        return self._named(table, "take").take(key, rate, burst, n, _name(key))

    def add(self, table, key, n, window):
        """
        L{ppolicy.localtable.LocalTable.add} in a table of this name.
        """
        return self._named(table, "add").add(key, n, window, _name(key))

    def get(self, table, key):
        """
        The text that was put under a key, None when there is none or its time is up.
        """
        row = self._named(table, "value").get(key)
        return None if row is None else row["value"]

    def put(self, table, key, value, ttl):
        """
        Keep a text for so many seconds.
        """
        self._named(table, "value").put(key, {"value": value}, ttl, _name(key))

    def delete(self, table, key):
        """
        Forget what was put under a key.

        @return: was there anything?
        """
        return self._named(table, "value").delete(key)

    def scan(self, table, like=None, limit=1000):
        """
        L{ppolicy.localtable.LocalTable.scan} in a table of this name, which must be in use.
        """
        found = self.tables.get(table)
        return [] if found is None else found.scan(like, limit)

    def _named(self, name, kind):
        found = self.tables.get(name)
        if found is None:
            return self.table(name, kind=kind)
        if found.kind != kind:
            raise ConfigError(f"table {name} is for {found.kind}, not for {kind}")
        return found

    def _flushLater(self):
        self._flushing = self.bridge.reactor.callLater(FLUSH, self._flush)

    def _flush(self):
        self._flushLater()  # first, as what goes wrong with one table must not end it
        for table in list(self.tables.values()):  # a reload may add some, in its thread
            table.flush()

    def _purgeLater(self):
        self._purging = self.bridge.reactor.callLater(PURGE, self._purge)

    def _purge(self):
        self._purgeLater()
        for table in list(self.tables.values()):
            table.purge()


def _name(key):
    """
    The one readable column of a table that nobody has declared.
    """
    return None if key.__class__ is str else (" ".join(key),)
