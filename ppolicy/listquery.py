"""
What a list in the database is asked, as statements: which rows are equal to some values, and what is told of them.

Values compare alike on every database: without regard to case unless it is wanted, and nothing else is the same:
no blank at the end, no accent is overlooked.
"""

import re
import time

from sqlalchemy import (
    LargeBinary,
    String,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    text,
)

from ppolicy.errors import ConfigError
from ppolicy.purge import AT_ONCE
from ppolicy.schema import identifier
from ppolicy.shared import NOW
from ppolicy.statement import Compiled

_AGGREGATE = r"(COUNT|SUM|AVG|MIN|MAX)\(\s*(\*|\w+)\s*\)"


class ListQuery:
    """
    The statements for one table, compiled once.

    @param items: what a look-up gives, as L{columnList} has it.
    @param hard: the column that says when a row is gone, or None.
    @ivar match: the condition that a row has the values that are L{bound}.
    @ivar counts: are rows counted, or counted together? Then there is one even when none fits, and its last item
        is their number.
    @ivar find: what is asked for of the rows that match; C{whole} of all, with the keys at the end.
    @ivar delete, count: the rows that match; C{number}: how many rows there are.
    @ivar expired: deletes some of those whose hard time is up; where there is none it is None.
    """

    def __init__(self, database, schema, keys, items, times, hard, caseSensitive):
        self._dialect = database.dialect
        self._isShared = database.shared
        self._schema = schema
        self._items = items
        self._times = times
        self._caseSensitive = caseSensitive
        self.counts = any(map(aggregate, items)) if items else not times
        table, dialect = schema, self._dialect
        self.match = and_(*(self._equal(table.c[key], f"v{number}") for number, key in enumerate(keys)))
        chosen = self._chosen()
        selected = select(*chosen, *self._timeLeft()).select_from(table).where(self.match)
        selected = selected.add_columns(func.count()) if self.counts else selected.limit(1)
        self.find = Compiled(selected, dialect)
        self.delete = Compiled(delete(table).where(self.match), dialect)
        self.count = Compiled(select(func.count()).select_from(table).where(self.match), dialect)
        compared = [table.c[key] for key in keys]
        whole = select(*chosen, *self._timeLeft(), *compared).select_from(table)
        if self.counts and items is None:
            whole = select(*compared).select_from(table)
        elif self.counts:
            groups = list(map(self._folded, compared))
            whole = select(*chosen, *groups).select_from(table).group_by(*groups)
        self.whole = Compiled(whole, dialect)
        self.number = Compiled(select(func.count()).select_from(table), dialect)
        self.expired = None
        if hard is not None:
            self.expired = Compiled(self._portion(delete(table), table.c[hard]), dialect)

    def _portion(self, statement, hard):
        gone = and_(hard > 0, hard <= self.now())
        if self._dialect.name == "mysql":
            return statement.where(gone).with_dialect_options(mysql_limit=AT_ONCE)
        rowid = literal_column("rowid")
        return statement.where(rowid.in_(select(rowid).select_from(self._schema).where(gone).limit(AT_ONCE)))

    def _chosen(self):
        table = self._schema
        if self._items is None:
            return [func.count() if self.counts else literal(1)]
        chosen = []
        for item in self._items:
            found = aggregate(item)
            if item == "*":
                chosen.append(text("*"))
            elif found:
                argument = text("*") if found[2] == "*" else table.c[found[2]]
                chosen.append(getattr(func, found[1].lower())(argument))
            else:
                chosen.append(table.c[item])
        return chosen

    def _timeLeft(self):
        """
        Seconds until each of the times, nothing where it is 0.
        """
        times = [self._schema.c[column] for column in self._times]
        return [case((one > 0, one - self.now()), else_=null()) for one in times]

    def now(self):
        """
        The present time in a statement.
        """
        return NOW if self._isShared else bindparam("now")

    # Comparing

    def _equal(self, column, name):
        """
        An index finds the rows that may be equal, by whatever collation the column has; then octets decide.
        """
        given, lower, upper = bindparam(name), bindparam(f"{name}lower"), bindparam(f"{name}upper")
        if not isinstance(column.type, String):  # 4711x is no number, whatever MariaDB makes of it
            return and_(column == given, cast(column, String) == given)
        if self._dialect.name == "sqlite":
            if self._caseSensitive:
                return column.collate("BINARY") == given
            return and_(column.collate("NOCASE").in_([given, lower, upper]), func.lower(column) == lower)
        if self._caseSensitive:
            return and_(column == given, _octets(column) == cast(given, LargeBinary))
        return and_(
            or_(column == given, column == lower, column == upper),
            self._folded(column) == cast(lower, LargeBinary),
        )

    def _folded(self, column):
        folded = column if self._caseSensitive else func.lower(column)
        return folded if self._dialect.name == "sqlite" else _octets(folded)

    def bound(self, values):
        """
        The parameters of all of them for some values.
        """
        bound = {"now": time.time()}
        for number, value in enumerate(values):
            bound |= {f"v{number}": value, f"v{number}lower": value.lower(), f"v{number}upper": value.upper()}
        return bound


def _octets(expression):
    """
    What MariaDB has of a text, whatever its character set, as octets of UTF-8: no collation makes more alike.
    """
    return cast(func.convert(expression.op("USING")(literal_column("utf8mb4"))), LargeBinary)


def storedText(value):
    """
    Octets that are no text become some that look like them: no database takes them.
    """
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def columnList(retcols):
    """
    What 2.7's parameter C{retcols} asks for, as a list of columns and aggregates; None for nothing.

    @raises ConfigError: when something in it is no name.
    """
    if retcols is None or retcols == [] or retcols == "":
        return None
    items = [one.strip() for one in retcols.split(",")] if isinstance(retcols, str) else list(retcols)
    if items == ["*"]:
        return items
    for item in items:
        found = aggregate(item)
        if not found:
            identifier(item)
        elif found[2] != "*":
            identifier(found[2])
        elif found[1].upper() != "COUNT":
            raise ConfigError(f"retcols: {item} is possible for COUNT only")
    return items


def aggregate(item):
    """
    @return: a match with the function and the column of an aggregate such as C{MAX(score)}; None for what is none.
    """
    return re.fullmatch(_AGGREGATE, item, re.IGNORECASE) if isinstance(item, str) else None
