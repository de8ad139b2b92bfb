"""
Tests for rows that are written together, on a real SQLite file and on a database that is away.
"""

import sqlite3
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet import reactor
from twisted.internet.defer import DeferredList, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ppolicy.bridge import Bridge
from ppolicy.errors import BackendError
from ppolicy.groupcommit import GroupCommit
from ppolicy.sqlite import SQLite


class GroupCommitTests(TestCase):
    """
    Many add rows at once.
    """

    @inlineCallbacks
    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)
        self.database = SQLite(reactor, Path(folder.name) / "rows.sqlite")
        self.database.start()
        self.isStopped = False
        self.addCleanup(self.stop)
        yield self.database.submit(lambda connection: connection.execute("CREATE TABLE t (n INTEGER)"))
        self.statements, self.notWritten = [], []
        self.commits = GroupCommit(self.bridge, self.database, self.write, self.failed)

    def stop(self):
        if not self.isStopped:
            self.isStopped = True
            return self.database.stop()
        return None

    def write(self, connection, rows):
        connection.executemany("INSERT INTO t VALUES (?)", [(row,) for row in rows])
        self.statements.append(len(rows))
        return [f"answer {row}" for row in rows]

    def failed(self, error, rows):
        self.notWritten += rows

    def together(self, rows):
        """
        @return: a Deferred of (success, answer) for each row.
        """
        return DeferredList([self.bridge.run(self.commits.add, row) for row in rows], consumeErrors=True)

    @inlineCallbacks
    def test_together(self):
        """
        Each gets the answer for its own row after the commit; rows of one moment share transactions.
        """
        results = yield self.together(range(500))
        self.assertEqual([(True, f"answer {row}") for row in range(500)], results)
        rows = yield self.database.read(lambda connection: connection.execute("SELECT n FROM t").fetchall())
        self.assertEqual(list(range(500)), sorted(row for (row,) in rows))
        self.assertLess(len(self.statements), 20)
        self.assertLessEqual(max(self.statements), 64)
        self.assertEqual([], list(self.commits.rows()))

    @inlineCallbacks
    def test_alone(self):
        """
        A row that the database does not take fails alone, and the one who brought it is told why.
        """

        def write(connection, rows):
            if 13 in rows:
                raise sqlite3.IntegrityError("13 brings bad luck")
            return self.write(connection, rows)

        self.commits = GroupCommit(self.bridge, self.database, write, self.failed)
        results = yield self.together(range(30))
        _, failure = results.pop(13)
        failure.trap(BackendError)
        self.assertIn("13 brings bad luck", failure.getErrorMessage())
        self.assertEqual([(True, f"answer {row}") for row in range(30) if row != 13], results)

    @inlineCallbacks
    def test_aloneBeforeOthers(self):
        """
        Those that queue behind a single row which the database does not take are written.
        """
        begun, go, further = threading.Event(), threading.Event(), threading.Event()

        def write(connection, rows):
            if rows == [13]:
                begun.set()
                go.wait(10)
                raise sqlite3.IntegrityError("13 brings bad luck")
            return self.write(connection, rows)

        self.commits = GroupCommit(self.bridge, self.database, write, self.failed)
        unlucky = self.together([13])
        yield deferToThread(begun.wait, 10)
        self.database.submit(lambda connection: further.wait(10) and None)
        others = self.together([14, 15])
        reactor.callLater(0.1, go.set)
        ((success, failure),) = yield unlucky
        further.set()
        self.assertFalse(success)
        failure.trap(BackendError)
        self.assertEqual([(True, "answer 14"), (True, "answer 15")], (yield others))

    @inlineCallbacks
    def test_oneAfterTheOther(self):
        """
        Rows that come while others are written follow at once.
        """

        def several(first):
            return [self.commits.add(first + number) for number in range(20)]

        results = yield DeferredList([self.bridge.run(several, 1000 * number) for number in range(10)])
        for number, (_, answers) in enumerate(results):
            self.assertEqual([f"answer {1000 * number + one}" for one in range(20)], answers)

    @inlineCallbacks
    def test_away(self):
        """
        With a database that is away all fail at once, however many there are, and are told.
        """
        yield self.stop()
        results = yield self.together(range(200))
        self.assertEqual({False}, {success for success, _ in results})
        self.assertEqual({BackendError}, {failure.type for _, failure in results})
        self.assertEqual(list(range(200)), sorted(self.notWritten))
        self.assertEqual([], list(self.commits.rows()))

    @inlineCallbacks
    def test_failureInTheMiddle(self):
        """
        What the database refuses fails for its group; what comes later is written.
        """
        yield self.database.submit(lambda connection: connection.execute("DROP TABLE t"))
        results = yield self.together(range(3))
        self.assertEqual({False}, {success for success, _ in results})
        yield self.database.submit(lambda connection: connection.execute("CREATE TABLE t (n INTEGER)"))
        self.assertEqual([(True, "answer 7")], (yield self.together([7])))
