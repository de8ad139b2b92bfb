"""
Write requests into a table.
"""

from typing import Literal

from ppolicy.check import Check, parameter
from ppolicy.dumptable import PERIODS, DumpTable
from ppolicy.errors import ParamError


class DumpDataDB(Check):
    """
    Writes every attribute of the request, results of checks among them, into a table of the database: one row
    (id, key, value) for each, and one with the key `date` (seconds since 1970). For statistics, or to find out
    what a policy sees. Mail never waits for it; while the database does not answer up to 10,000 records are kept,
    later ones are dropped and counted in the log.

    With `split` the table is put aside when it has `interval` records, or when a new day, week, month or year
    (that is `interval` then) has begun: it gets the time behind its name, and a new one begins. With `retention`
    older records and tables are removed.

    Check arguments:
        data ... the request

    Check returns:
        1 .... taken; information: the id of its rows
        0 .... dropped: too many wait for the database already
        information: the id, else a text

    Examples:
        # everything in one table, for a month
        modules['dump'] = ('DumpDataDB', {'retention': 86400 * 30})
        # a table for each month
        modules['dump_monthly'] = ('DumpDataDB', {'table': 'requests', 'split': 'date', 'interval': 'month'})
    """

    table: str = parameter("dump", "table of the requests")
    split: Literal["records", "date", None] = parameter(None, "when the table is put aside and a new one begun")
    interval: int | str | None = parameter(None, "records of a table, or 'day', 'week', 'month' or 'year'")
    retention: float = parameter(0, "seconds after which records are removed; 0: never", minimum=0)
    cachePositive: float = parameter(0, "not used: each request is written", minimum=0)
    cacheUnknown: float = parameter(0, "not used: each request is written", minimum=0)
    cacheNegative: float = parameter(0, "not used: each request is written", minimum=0)

    once = True

    def start(self):
        if self.split == "records" and not (isinstance(self.interval, int) and self.interval > 0):
            raise ParamError("interval must be how many records a table has")
        if self.split == "date" and self.interval not in PERIODS:
            raise ParamError(f"interval must be one of {', '.join(PERIODS)}")
        if self.split is None and self.interval:
            raise ParamError("interval has no effect without split")
        service = self.tables
        self._dump = DumpTable(
            service.bridge, service.database, self.table, self.split, self.interval, self.retention
        )
        self._dump.open()

    def status(self):
        return self._dump.status()

    def stop(self):
        self._dump.close()

    def check(self, data):
        if self.dryRun:
            return 1, 0
        number = self._dump.put(data)
        if number is None:
            return 0, f"dropped, as {self._dump.dropped} before"
        return 1, number
