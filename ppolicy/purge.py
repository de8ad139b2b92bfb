"""
Deleting what has expired, in portions.
"""

from ppolicy.errors import BackendError

# Rows that are deleted at once.
AT_ONCE = 1000
# Seconds between two portions; and how many times as long as a portion takes, so that others have their time.
_PAUSE = 0.01
_SHARE = 1


class Purge:
    """
    One purge of a table at a time, while other work goes on between its portions.

    @param delete: deletes at most C{AT_ONCE} rows, and returns a Deferred of how many there were.
    """

    def __init__(self, reactor, delete):
        self._reactor = reactor
        self._delete = delete
        self._isRunning = self._isStopped = False
        self._next = None

    def run(self):
        """
        Delete all that has expired, unless that is being done.
        """
        if not self._isRunning and not self._isStopped:
            self._isRunning = True
            self._portion()

    def stop(self):
        """
        Delete no more.
        """
        self._isStopped = True
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _portion(self):
        self._next = None
        begun = self._reactor.seconds()
        self._delete().addCallbacks(self._deleted, self._failed, callbackArgs=(begun,))

    def _deleted(self, count, begun):
        self._isRunning = count == AT_ONCE and not self._isStopped
        if self._isRunning:
            took = self._reactor.seconds() - begun
            self._next = self._reactor.callLater(max(_PAUSE, _SHARE * took), self._portion)

    def _failed(self, failure):
        failure.trap(BackendError)
        self._isRunning = False  # until the next time
