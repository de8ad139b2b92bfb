"""
What the check modules for lists have in common: parameters, sources of values, and the commands of C{ppolicy
list}.
"""

import math
import time
from pathlib import Path

from ppolicy.check import Check, command, parameter
from ppolicy.errors import BackendError, ParamError
from ppolicy.listfile import ListFile
from ppolicy.listtable import combinations

# What an administrator sees of a list at once, unless more is asked for.
_SHOWN = 100
_EXPORTED = 100_000

TROUBLE = (BackendError, TimeoutError)


class ListCheck(Check):
    """
    A check that looks values up in tables of the database or in files.
    """

    cacheCaseSensitive: bool = parameter(False, "tell upper and lower case apart")
    cacheAll: bool = parameter(False, "keep the whole table in memory")
    cacheAllRefresh: float = parameter(900, "seconds after which the whole table is loaded again", minimum=1)
    cacheAllExpire: float = parameter(
        3600,
        "seconds a loaded table is used when it cannot be loaded again, at least cacheAllRefresh",
        minimum=1,
    )

    family = "list"
    _sources = ()

    def tableSource(self, table, keys, retcols=None, types=None, soft=None, hard=None):
        """
        A table of the database as a source, to be given to C{opened()}.

        @see: L{ppolicy.listtable.ListTable}
        @raises ConfigError: when a name cannot be one.
        """
        return self.tables.table(
            table,
            keys,
            retcols,
            types=types,
            soft=soft,
            hard=hard,
            caseSensitive=self.cacheCaseSensitive,
            cacheAll=self.cacheAll,
            refresh=self.cacheAllRefresh,
            expire=max(self.cacheAllExpire, self.cacheAllRefresh),
            forget=self.forgetResults,
        )

    def fileSource(self, path):
        """
        A file as a source, to be given to C{opened()}.

        @raises ConfigError: when it cannot be read, or something in it is wrong.
        """
        return FileSource(path, self.cacheCaseSensitive, self.tables, self.forgetResults)

    def opened(self, *sources):
        """
        Start to use some sources, when nothing in the configuration can be wrong any more.

        @return: the first of them.
        """
        self._sources = sources
        for source in sources:
            source.open()
        return sources[0]

    def status(self):
        return {"lists": {source.name: source.status() for source in self._sources}}

    def stop(self):
        for source in self._sources:
            source.close()

    def _tablesOnly(self):
        return [source for source in self._sources if not isinstance(source, FileSource)]

    def values(self, data, params):
        """
        The combinations of values to look up.
        """
        return combinations(data, params)

    def folded(self, data, params):
        """
        What the answer depends on, for C{hashArg}.
        """
        values = tuple(tuple(value) if isinstance(value := data.get(name, ""), list) else value for name in params)
        return values if self.cacheCaseSensitive else repr(values).lower()

    # Commands

    def _table(self, table):
        """
        The table that a command is about.
        """
        tables = self._tablesOnly()
        named = [source for source in tables if source.name == table] if table else tables
        if len(named) == 1:
            return named[0]
        if not tables:
            raise BackendError(f"{self.name} has no table: edit its file, it is read again by itself")
        raise BackendError(f"{self.name}: which table? there is {', '.join(source.name for source in tables)}")

    @command
    def show(self, table=None, like=None, limit=_SHOWN):
        source = self._table(table)
        like = {source.keys[0]: like} if isinstance(like, str) else like
        return {"table": source.name, "rows": source.scan(like, int(limit))}

    @command(changes=True)
    def add(self, values, table=None, columns=None, live=0.0):
        """
        @param values: lists of texts, one for each key column.
        """
        source = self._table(table)
        live = float(live)
        if not math.isfinite(live):
            raise BackendError(f"list {source.name}: a row lives for a number of seconds; 0: for ever")
        if live and not source.times:
            raise BackendError(f"list {source.name}: its rows do not expire")
        source.add(self._rows(source, values), columns, [live] * len(source.times))
        return {"table": source.name, "added": len(values)}

    @command(changes=True)
    def remove(self, values, table=None):
        source = self._table(table)
        return {"table": source.name, "removed": source.remove(self._rows(source, values))}

    @command
    def export(self, table=None, limit=_EXPORTED, after=0):
        source = self._table(table)
        rows = source.scan(None, int(limit), int(after))
        total = {} if after else {"total": source.count()}
        return {"table": source.name, "columns": _columns(source), "rows": rows, **total}

    def oldTables(self):
        return [(source.name, (*source.keys, *source.others), source.times) for source in self._tablesOnly()]

    @command(changes=True)
    def importRows(self, rows, table=None):
        """
        Take rows: the compared columns; behind them, or not, those beside them and until when the row lives.
        """
        source = self._table(table)
        width, beside, now = len(source.keys), len(source.others), time.time()
        wanted = []
        for row in rows:
            if len(row) not in (width, width + beside, width + beside + len(source.times)):
                forms = dict.fromkeys(
                    (tuple(source.keys), (*source.keys, *source.others), tuple(_columns(source)))
                )
                raise BackendError(
                    f"list {source.name}: a row is {' or '.join(map(_shown, forms))}, not {row!r:.100}"
                )
            if None in row[:width]:
                continue  # NULL, as 2.7's tables could have it, was never equal to anything
            dates = [_date(source, one) for one in row[width + beside :]]
            lives = [date - now if date else 0 for date in dates] or [0] * len(source.times)
            if source.hard is None or not dates or not dates[-1] or lives[-1] > 0:
                others = zip(source.others, row[width : width + beside], strict=False)
                others = {column: value for column, value in others if value is not None}
                wanted.append((tuple(map(str, row[:width])), others, lives))
        source.addRows(wanted)
        return {"taken": len(wanted)}

    def _rows(self, source, values):
        if not isinstance(values, list) or not all(
            isinstance(row, list) and len(row) == len(source.keys) and all(isinstance(one, str) for one in row)
            for row in values
        ):
            raise BackendError(f"list {source.name}: a row is {_shown(source.keys)}")
        return [tuple(row) for row in values]


def _shown(columns):
    number = len(columns)
    return f"{number} value{'' if number == 1 else 's'} ({', '.join(columns)})"


def _columns(source):
    """
    The columns of a row that is exported: without its times one that is imported again would live for ever.
    """
    return [*source.keys, *source.others, *source.times]


def _date(source, given):
    """
    Until when a row lives, in seconds since 1970; 0 for ever. In a CSV file it is a text.
    """
    try:
        date = float(given or 0)
    except ValueError:
        date = math.nan
    if not math.isfinite(date):
        raise BackendError(f"list {source.name}: {given!r:.100} is no time, which is seconds since 1970")
    return date


class LookupCheck(ListCheck):
    """
    Looks the attributes C{self._params} up in C{self._source}, one table or file.
    """

    def hashArg(self, data):
        return self.folded(data, self._params)

    def check(self, data):
        try:
            found = self._source.find(self.values(data, self._params))
        except TROUBLE:
            return 0, None
        return (-1, None) if found is None else (1, found[1])


class BlackWhiteCheck(ListCheck):
    """
    Two lists; white wins.
    """

    tableWhitelist: str | None = parameter(None, "table of what is white")
    tableBlacklist: str | None = parameter(None, "table of what is black")
    fileWhitelist: Path | None = parameter(None, "file of what is white, instead of a table")
    fileBlacklist: Path | None = parameter(None, "file of what is black, instead of a table")
    mappingWhitelist: dict = parameter({}, "{attribute: (column, SQL type)} of the white table")
    mappingBlacklist: dict = parameter({}, "{attribute: (column, SQL type)} of the black table")
    retcolsWhitelist: str | list[str] | None = parameter(None, "columns of the white table that are returned")
    retcolsBlacklist: str | list[str] | None = parameter(None, "columns of the black table that are returned")

    def openLists(self, params):
        """
        Both sources, C{self.white} and C{self.black}, None where there is none.
        """
        self.white = self._source("Whitelist", params)
        self.black = self._source("Blacklist", params)
        if self.white is None and self.black is None:
            raise ParamError("tableWhitelist, tableBlacklist, fileWhitelist or fileBlacklist must be given")
        self.opened(*(one for one in (self.white, self.black) if one is not None))

    def _source(self, which, params):
        table, file = getattr(self, f"table{which}"), getattr(self, f"file{which}")
        if table is not None and file is not None:
            raise ParamError(f"table{which} and file{which} exclude each other")
        if file is not None:
            if len(params) != 1:
                raise ParamError(f"file{which} holds single values, so param must be a single attribute")
            return self.fileSource(file)
        if table is None:
            return None
        columns, types = mapped(params, getattr(self, f"mapping{which}"))
        return self.tableSource(table, columns, getattr(self, f"retcols{which}"), types)

    def decide(self, combinations):
        """
        @return: the check's answer: the list that has the earlier combination decides, the white one of equals.
        @raises BackendError: when a list cannot be asked.
        """
        white = self.white.find(combinations) if self.white else None
        if white is not None and white[0] == 0:
            return 1, white[1]
        black = self.black.find(combinations) if self.black else None
        if white is not None and (black is None or white[0] <= black[0]):
            return 1, white[1]
        return (0, ()) if black is None else (-1, black[1])


class FileSource:
    """
    A L{ListFile} that is asked as a L{ppolicy.listtable.ListTable} is.
    """

    def __init__(self, path, caseSensitive, service, forget):
        self.file = ListFile(path, caseSensitive)
        self.file.load()
        self.name = str(path)
        self._service, self._forget = service, forget

    def open(self):
        """
        Read it again whenever it changes.
        """
        self._service.watch(self.file, self._forget)

    def close(self):
        """
        Needed no longer.
        """
        self._service.unwatch(self.file)

    def status(self):
        """
        How it is, as a dictionary.
        """
        return self.file.status()

    def find(self, combinations):
        """
        @return: (place, (entry, text beside it)) of the first value that an entry matches, else None.
        """
        for place, (value,) in enumerate(combinations):
            found = self.file.find(value)
            if found is not None:
                return place, found[:2]
        return None


def mapped(params, mapping):
    """
    The columns for some attributes.

    @param mapping: {attribute: column, or (column,), or (column, SQL type)}
    @return: (columns in the order of the attributes, {column: SQL type})
    @raises ParamError: when the mapping is none.
    """
    columns, types = [], {}
    for name in params:
        given = mapping.get(name) or name
        pair = given if isinstance(given, tuple | list) else (given,)
        if not 1 <= len(pair) <= 2 or not all(isinstance(one, str) for one in pair):
            raise ParamError(f"mapping: {name!r} must be mapped to a column or (column, SQL type)")
        columns.append(pair[0])
        if len(pair) == 2:
            types[pair[0]] = pair[1]
    return columns, types


def asList(given):
    """
    A parameter that is one name or a list of names, as a list.

    @raises ParamError: when it is an empty one.
    """
    if not given:
        raise ParamError("param must name an attribute")
    return [given] if isinstance(given, str) else list(given)
