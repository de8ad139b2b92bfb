"""
The lists that checks look values up in: tables of the database, and files that are read again when they change.
"""

from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.listtable import ListTable
from ppolicy.threads import ThreadPool
from ppolicy.timers import Timers

# Seconds between two looks at files, and between two purges.
WATCH = 2.0
PURGE = 3600.0
# How many warnings about one file are logged.
WARNINGS = 20


class TableService:
    """
    The lists that checks use, and what keeps them fresh.

    @param database: a L{ppolicy.database.Database}, or None where there is none.
    """

    log = Logger()

    def __init__(self, bridge, database=None):
        self.bridge = bridge
        self.database = database
        self.tables = []
        self._files = {}
        self._warned = {}  # {path: what the file looked like} of those whose warnings are in the log
        self._pool = ThreadPool(bridge, "list", 1)
        self._timers = Timers(bridge)
        self._looking = False

    def start(self):
        self._timers.every(WATCH, self._lookAtFiles)
        self._timers.every(PURGE, self._purge)

    def stop(self):
        self._timers.stop()
        self._pool.stop()

    def table(self, *args, **keywords):
        """
        A new L{ListTable} for one check, which closes it when it stops.
        """
        return ListTable(self, *args, **keywords)

    def watch(self, file, changed):
        """
        Have a L{ppolicy.watchedfile.WatchedFile} read again when it changes, and C{changed()} called then.
        """
        self._files[file] = changed
        self._warn(file)

    def unwatch(self, file):
        """
        The opposite of L{watch}.
        """
        changed = self._files.pop(file, None)
        # Who watches it after a reload may have read more than this one: for him nothing changes any more.
        if changed is not None and any(
            one.path == file.path and one.seen != file.seen for one in list(self._files)
        ):
            changed()

    @property
    def warnings(self):
        """
        What the files that are watched may have meant otherwise, each of them once, however many checks use it.
        """
        files = {file.path: file for file in self._files}
        return [one for file in files.values() for one in _warnings(file)]

    def _warn(self, file):
        if self._warned.get(file.path) == file.seen:
            return
        self._warned[file.path] = file.seen
        for warning in _warnings(file)[:WARNINGS]:
            self.log.warn("{warning}", warning=str(warning))

    def changed(self, name):
        """
        The content of a table has changed: nobody may go on with what is remembered of it.
        """
        for table in self.tables:
            if table.name == name:
                table.refresh()

    def _lookAtFiles(self):
        if self._looking or not self._files:
            return
        self._looking = True
        files = dict(self._files)

        def looked(new):
            self._looking = False
            if isinstance(new, Failure):
                self.log.failure("list files cannot be read", new)
                return
            for file, problem in new:
                if problem is not None:
                    self.log.error("{problem}", problem=problem)
                else:
                    files[file]()
                    self._warn(file)

        self._pool.run(_refreshed, files).addBoth(looked)

    def _purge(self):
        for table in self.tables:
            table.purge()


def _warnings(file):
    return getattr(file, "warnings", ())  # a file of another kind has none


def _refreshed(files):
    """
    Look at some files. In a thread.

    @return: (file, None) of those that have new entries, (file, sentence) of those with a new problem.
    """
    found = []
    for file in files:
        before = file.problem
        if file.refresh():
            found.append((file, None))
        elif file.problem not in (None, before):
            found.append((file, file.problem))
    return found
