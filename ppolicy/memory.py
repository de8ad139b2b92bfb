"""
A list that is in memory as a whole.
"""

import math
from time import monotonic

from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.errors import BackendError

# Seconds until a load that failed is tried again.
_AGAIN = 60.0
# A table that changes often is asked itself for this many times as long as loading it takes.
_EASE = 10


class InMemory:
    """
    The rows of a table, loaded again when they have changed, and now and then for what others change.

    @param read: C{read()}, called in a thread, gives the rows; C{load(read)} has that done: a Deferred.
    @param refresh: seconds after which they are loaded again.
    @param expire: seconds after which they are used no longer, whatever goes wrong with loading.
    @ivar busy: is it being loaded, or about to be?
    @ivar problem: why it could not be loaded the last time, else None.
    """

    log = Logger()

    def __init__(self, reactor, name, read, load, refresh, expire):
        self._reactor = reactor
        self._name = name
        self._read, self._loader = read, load
        self._refresh, self._expire = refresh, expire
        self._rows = None
        self._earliest = self._loaded = 0.0
        self._nextLoad = math.inf  # load() is called once there is a table
        self._isLoading = self._hasChanged = self._closed = False
        self._later = None
        self.problem = None

    @property
    def busy(self):
        return self._isLoading or self._later is not None

    def described(self):
        """
        What it holds, for the status.
        """
        rows = self.rows()
        return "asked itself until it is loaded" if rows is None else f"{len(rows)} values in memory"

    def rows(self):
        """
        What was loaded, None while nothing can be said without the database.
        """
        now = self._reactor.seconds()
        if now >= self._nextLoad:
            self.load()
        if self._rows is None or now - self._loaded > self._expire:
            return None
        return self._rows

    def changed(self):
        """
        What was loaded is true no longer.
        """
        self._rows = None
        self._hasChanged = self._isLoading  # what is being read may have been before the change
        self.load()

    def close(self):
        self._closed = True
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def load(self):
        """
        Load it, soon.
        """
        if self.busy or self._closed:
            return
        left = self._earliest - self._reactor.seconds()
        if left > 0:
            self._later = self._reactor.callLater(left, self._load)
        else:
            self._load()

    def _load(self):
        self._later = None
        self._isLoading = True
        self._nextLoad = self._reactor.seconds() + self._refresh
        self._loader(self._timed).addBoth(self._done)

    def _timed(self, connection):
        """
        In a thread: the rows, and how long reading them took.
        """
        begun = monotonic()
        return self._read(connection), monotonic() - begun

    def _done(self, result):
        self._isLoading = False
        now = self._reactor.seconds()
        if isinstance(result, Failure):
            result.trap(BackendError)
            self._hasChanged = False
            self._nextLoad = now + min(_AGAIN, self._refresh)
            error = result.getErrorMessage()
            self.problem = f"list {self._name} cannot be loaded: {error}"
            self.log.warn("list {name} cannot be loaded: {error}", name=self._name, error=error)
            return
        self.problem = None
        rows, seconds = result
        self._earliest = now + _EASE * seconds
        if self._hasChanged:
            self._hasChanged = False
            self.load()
        else:
            self._rows, self._loaded = rows, now
