"""
Rows of the state store, wherever they are kept: keys, buckets, lists, and how people search and see them.
"""

import json
import math
import re
from hashlib import blake2b

from sqlalchemy import case, func, select

from ppolicy.bridge import wait
from ppolicy.errors import BackendError
from ppolicy.schema import READABLE
from ppolicy.statement import Compiled

# Times are numbers of seconds with about seven digits after the point.
EPSILON = 1e-6
# The most rows that one command changes.
ALTERED = 100_000

encoded = json.JSONEncoder(separators=(",", ":")).encode


def digestOf(key, columns):
    """
    The hash of a key, and the readable columns as every database takes them.

    @param key: a text or a tuple of texts.
    @param columns: a tuple of texts, or None for the key itself.
    """
    if key.__class__ is str:
        key = (key,)
    joined = "\n".join(key)
    if columns is None and len(joined) <= READABLE and joined.isascii():
        return blake2b(joined.encode("ascii"), digest_size=16).digest(), key
    octets = joined.encode("utf-8", "surrogateescape")
    return blake2b(octets, digest_size=16).digest(), tuple(map(readable, key if columns is None else columns))


def readable(text):
    """
    A text that every database takes: what was no UTF-8 shows as backslash escapes, what is too long is cut.
    """
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if len(text) <= READABLE else f"{text[: READABLE - 3]}..."


def decoded(text):
    """
    A list that was stored as a text; None for what is none, which somebody has edited, and for None.
    """
    try:
        row = json.loads(text or "")
    except ValueError:
        return None
    return row if isinstance(row, list) and row else None


def taken(step, row, now):
    """
    Take a step on a list; one that somebody has made unusable is none.
    """
    try:
        return step(row, now)
    except (TypeError, ValueError, LookupError, AttributeError):
        if row is None:
            raise
        return step(None, now)


def bucket(allowed, used, rate, burst, n):
    """
    The answer of C{take}.

    @param used: seconds until the bucket is full again.
    """
    remaining = max(0, math.floor(burst - used * rate + EPSILON * rate + 1e-9))
    if allowed:
        return True, remaining, 0.0
    return False, remaining, (used + n / rate - burst / rate if n <= burst else math.inf)


def pattern(text):
    """
    A text in which C{*} stands for anything, as a regular expression.
    """
    parts = text.split("*") if "*" in text else [readable(text)]
    return re.compile(".*".join(map(re.escape, parts)), re.IGNORECASE | re.DOTALL)


def scanning(schema, dialect, like, now, limit, only=None):
    """
    The statement that finds living rows for people, the youngest first.

    @param like: {column: text}; C{*} in a text stands for anything.
    @param now: the present time, a number or an expression of the database.
    @param only: {column: text} that they have exactly.
    @return: (text, values).
    @raises BackendError: when there is no such column.
    """
    table = schema
    query = select(*table.columns).where(table.c.expires > now).order_by(table.c.expires.desc()).limit(limit)
    for column, text in like.items():
        if column not in table.c or column == "key":
            raise BackendError(f"table {table.name} has no column {column}")
        query = query.where(likened(table.c[column], text))
    for column, text in (only or {}).items():
        # For MariaDB two texts are equal when one has more blanks at its end, but not alike.
        query = query.where(table.c[column] == readable(text), likened(table.c[column], text))
    compiled = Compiled(query, dialect)
    return compiled.text, compiled.bound({})


def likened(column, text):
    """
    The condition that a column is like a text, in which C{*} stands for anything; case does not count.
    """
    if "*" not in text:
        text = readable(text)
    escaped = re.sub("([!%_])", r"!\1", text).replace("*", "%")
    return func.lower(column).like(func.lower(escaped), escape="!")


def slack(burst):
    """
    Seconds by which sums of as many times may be off: a time of today has steps of 2**-22 seconds.
    """
    return EPSILON + burst * 2**-22


def storable(values, ttl):
    """
    Values as every database takes them.

    @raises BackendError: when a time is none.
    """
    if not math.isfinite(ttl):
        raise BackendError(f"{ttl} is no number of seconds")
    return {
        name: value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(value, str) and not value.isascii()
        else value
        for name, value in values.items()
    }


def labelled(schema, rows):
    """
    Rows of a table as (digest, {column: value}).
    """
    names = [column.name for column in schema.columns]
    return [(bytes(row[0]), dict(zip(names[1:], row[1:], strict=True))) for row in rows]


def counted(database, schema, where, now):
    """
    Waits for {name: how many rows there are for which a condition holds}.

    @param where: {name: function(columns of the schema, present time) -> condition}
    """
    sums = [
        func.coalesce(func.sum(case((condition(schema.c, now), 1), else_=0)), 0) for condition in where.values()
    ]
    query = Compiled(select(*sums), database.dialect)
    try:
        row = wait(database.load(lambda connection: query(connection).fetchone()))
    except BackendError as error:
        if not error.nothingThere:
            raise
        return dict.fromkeys(where, 0)  # it is about to be made
    return dict(zip(where, map(int, row), strict=True))
