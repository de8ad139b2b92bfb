"""
What tests of lists need: a real SQLite file with the real reactor, and checks that are started on it.
"""

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from ppolicy.bridge import Bridge
from ppolicy.sqlite import SQLite
from ppolicy.state import StateStore
from ppolicy.tables import TableService
from ppolicy.testing import make

# Values that clients and administrators may come up with; the last ones are no UTF-8, as requests have them.
HOSTILE = [
    "",
    " ",
    "'; DROP TABLE friends; --",
    "\"`\\'",
    "%",
    "_",
    "*",
    "!%",
    "%s {0} ? :v0 %(v0)s",
    "nul\0l",
    "line\nbreak",
    "\u2028",
    "\N{PILE OF POO}",
    "x" * 255,
    "é\udcff\udc80",
    "\udcff",
]


class Listing(TestCase):
    """
    @ivar path: of the database file; C{damaged} has it broken from the start, without it nothing is.
    @ivar tables: the L{TableService} on it.
    """

    damaged = False

    @inlineCallbacks
    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "lists.sqlite"
        if self.damaged:
            self.path.write_bytes(b"this is no database, " * 100)
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)
        self.store = StateStore(self.bridge, SQLite(reactor, self.path))
        self.store.start()
        self.database = self.store.database
        self.tables = TableService(self.bridge, self.database)
        self.addCleanup(self._stopAll)  # before the folder goes; tearDown() would come after that
        self.forgotten = 0
        yield self.database.submit(lambda connection: None).addErrback(lambda _: None)

    @inlineCallbacks
    def _stopAll(self):
        yield self.settled()
        self.tables.stop()
        yield self.store.stop()

    def forget(self):
        self.forgotten += 1

    @inlineCallbacks
    def start(self, kind, **parameters):
        """
        A check of this type at work, its tables created and, with cacheAll, loaded.
        """
        check = make(kind, self.store, **parameters)
        check.tables = self.tables
        check.forgetResults = self.forget
        check.start()
        self.addCleanup(check.stop)
        yield self.settled()
        return check

    @inlineCallbacks
    def settled(self):
        """
        Wait until what was asked of the database is done.
        """
        begun = Deferred()
        reactor.callFromThread(begun.callback, None)  # behind the tables, which open in this way
        yield begun
        for lane in self.database.lanes:
            yield lane.submit(lambda connection: None).addErrback(lambda _: None)
        for table in self.tables.tables:
            yield self.until(lambda memory=table.memory: memory is None or not memory.busy)

    @inlineCallbacks
    def until(self, condition, seconds=10.0):
        """
        Wait until a condition holds.
        """
        ends = reactor.seconds() + seconds
        while not condition():
            self.assertLess(reactor.seconds(), ends, "it never came true")
            yield deferLater(reactor, 0.01)

    def ask(self, check, data, *arguments, **keywords):
        """
        What a check says about a request.
        """
        return self.bridge.run(lambda: check.check(data, *arguments, **keywords))

    def wait(self, method, *arguments, **keywords):
        """
        Call a method that may wait.
        """
        return self.bridge.run(lambda: method(*arguments, **keywords))

    def sql(self, text, *values):
        """
        Execute a statement as an administrator does, beside the server.
        """
        connection = sqlite3.connect(self.path)
        try:
            rows = connection.execute(text, values).fetchall()
            connection.commit()
        finally:
            connection.close()
        return rows

    def logged(self):
        """
        The log events from now on.
        """
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events

    def data(self, **attributes):
        return {
            "sender": "alice@example.net",
            "recipient": "bob@example.org",
            "client_address": "192.0.2.1",
            **attributes,
        }
