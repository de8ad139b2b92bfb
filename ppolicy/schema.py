"""
Tables: what they look like, how they come into being, and how an older one becomes a present one.

A table of ours has a version, kept in C{schema_version}. Migrations only go forward, one number at a time.
"""

import re
from typing import Any

from sqlalchemy import (
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from ppolicy.errors import BackendError, ConfigError
from ppolicy.statement import Compiled

# The longest text of a readable column; Postfix takes addresses of any length, real ones end at 320.
READABLE = 512
# The longest text of a column of a list.
LISTED = 255
# The slots that the window of an `add` is divided into.
SLOTS = 10
# So many characters of a text are in an index.
_PREFIX = 100
# The generated column of lists on MariaDB.
ROW_KEY = "row_key"

MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    # Bytes decide: letters that look alike are different, as in SQLite.
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",
}

# The columns of each kind of state table, beside `key`, `expires` and the readable ones.
STATE: dict[str, tuple] = {
    "touch": (("first", Double), ("last", Double), ("previous", Double), ("count", Integer)),
    "take": (("allowed", Integer),),
    "add": (("slot", Integer().with_variant(mysql.BIGINT(), "mysql")), *((f"s{n}", Double) for n in range(SLOTS))),
    "value": (("value", Text),),
}

VERSION_TABLE = Table(
    "schema_version",
    MetaData(),
    Column("name", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    **MYSQL,
)


def identifier(name):
    """
    A name that may stand for a table or column.

    @raises ConfigError: when it is none.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise ConfigError(f"{name!r} is no name for a table or column (letters, digits and _, at most 63)")
    if name.lower().startswith("sqlite_") or name.lower() == VERSION_TABLE.name:
        raise ConfigError(f"{name!r}: this name belongs to the database")
    return name


def stateTable(name, kind, columns):
    """
    A table of the state store: a hash of the key, what this kind keeps, when it expires, and columns for people
    to read.

    @param kind: one of C{STATE}.
    """
    own = STATE[kind]
    for one in (name, *columns):
        identifier(one)
    taken = {"key", "expires", *(column for column, _ in own)}
    twice = [one for one in columns if one.lower() in taken or columns.count(one) > 1]
    if twice:
        raise ConfigError(f"table {name}: the column {twice[0]!r} is there already")
    table = Table(
        name,
        MetaData(),
        Column("key", LargeBinary(16).with_variant(mysql.BINARY(16), "mysql"), primary_key=True),
        *(Column(column, kind, nullable=False) for column, kind in own),
        Column("expires", Double, nullable=False),
        *(Column(column, String(READABLE), nullable=False) for column in columns),
        **MYSQL,
    )
    Index(f"{name}_expires", table.c.expires)
    table.info["kind"] = kind
    return table


def listTable(name, keys, others=(), soft=None, hard=None, types=None, caseSensitive=False):
    """
    A table of a list: columns that are compared, columns that are returned, and times of expiry.

    @param soft: column of the time when a row should be renewed, or None.
    @param hard: column of the time when a row is gone, or None.
    @param types: {column: SQL type such as 'VARCHAR(50)'}.
    @raises ConfigError: when a name cannot be one, or stands for two columns.
    """
    times = [one for one in (soft, hard) if one is not None]
    identifier(name)
    seen = set()
    for one in (*keys, *others, *times):
        if identifier(one).lower() in seen:  # no database tells them apart by case
            raise ConfigError(f"table {name}: {one!r} stands for two columns")
        seen.add(one.lower())
    types = {column: sqlType(kind) for column, kind in (types or {}).items()}
    # The collations find what may be equal by an index; lookups then compare for themselves.
    lite, maria = ("BINARY", "utf8mb4_bin") if caseSensitive else ("NOCASE", "utf8mb4_general_ci")

    def compared(kind):
        if not isinstance(kind, String) or isinstance(kind, Text):
            return kind
        given = String(kind.length, collation=lite)
        return given.with_variant(mysql.VARCHAR(kind.length, collation=maria), "mysql")

    table = Table(
        name,
        MetaData(),
        *(Column(one, compared(types.get(one, String(LISTED))), nullable=False) for one in keys),
        *(_besideKeys(one, types.get(one, String(LISTED))) for one in others),
        *(Column(one, Double, nullable=False, server_default="0") for one in times),
        **MYSQL,
    )
    Index(f"{name}_keys", *(table.c[one] for one in keys), unique=True)
    if hard is not None:
        Index(f"{name}_expires", table.c[hard])
    table.info.update(kind="list", keys=tuple(keys), caseSensitive=caseSensitive)
    return table


def _besideKeys(name, kind):
    # The brackets are for TEXT on MySQL, which wants an expression.
    return Column(name, kind, nullable=False, server_default=text("('')" if isinstance(kind, String) else "0"))


def sqlType(written):
    """
    A SQL type as 2.7's configurations write it, made one of SQLAlchemy's.

    @raises ConfigError: when it is none that a list can hold.
    """
    found = re.fullmatch(
        r"\s*([A-Za-z]+)\s*(?:\(\s*(\d+)\s*\))?(?:\s+NOT\s+NULL)?\s*", str(written), re.IGNORECASE
    )
    kind = found[1].upper() if found else ""
    if kind in ("VARCHAR", "CHAR"):
        return String(min(int(found[2] or LISTED), 4096))
    if kind in ("INT", "INTEGER", "TINYINT", "SMALLINT", "BIGINT"):
        return mysql.BIGINT().with_variant(Integer(), "sqlite")
    if kind in ("FLOAT", "DOUBLE", "REAL"):
        return Double()
    if kind == "TEXT":
        return Text()
    raise ConfigError(f"{written!r} is no type for a column of a list, take VARCHAR(255), INT, DOUBLE or TEXT")


def ddl(table, dialect):
    """
    The statements that create a table and its indexes where they are missing.
    """
    if dialect.name == "mysql":
        # No index is created only where it is missing there, so they come with the table.
        lines = [_mysqlIndex(table, index, dialect) for index in table.indexes]
        body, _, end = (
            str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)).strip().rpartition("\n)")
        )
        return [f"{body}{''.join(f', {chr(10)}{chr(9)}{line}' for line in lines)}\n){end}"]
    return [
        str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)).strip(),
        *(str(CreateIndex(index, if_not_exists=True).compile(dialect=dialect)) for index in table.indexes),
    ]


def _mysqlIndex(table, index, dialect):
    """
    An index as part of CREATE TABLE. A unique one is over a hash in a generated column: addresses of any length
    do not fit into an index (at most 3072 octets, each letter counts as four).
    """
    quote = dialect.identifier_preparer.quote
    columns = [quote(column.name) for column in index.columns]
    if not index.unique:
        return f"KEY {quote(index.name)} ({', '.join(columns)})"
    folded = columns if table.info["caseSensitive"] else [f"LOWER({column})" for column in columns]
    # With their lengths before them no two rows are the same text.
    told = ", ".join(f"OCTET_LENGTH({one}), ':', {one}" for one in folded)
    first = table.columns[index.columns[0].name]
    isLong = isinstance(first.type, String) and (first.type.length or _PREFIX + 1) > _PREFIX
    prefix = f"({_PREFIX})" if isLong else ""
    hashed = f"UNHEX(SHA2(CONCAT({told}), 256))"
    return ", \n\t".join(
        (
            f"{quote(ROW_KEY)} BINARY(32) GENERATED ALWAYS AS ({hashed}) STORED INVISIBLE",
            f"UNIQUE KEY {quote(index.name)} ({quote(ROW_KEY)})",
            f"KEY {quote(index.name + '_first')} ({columns[0]}{prefix})",
        )
    )


def prepare(database, connection, table, upgrade=True):
    """
    Create a table where it is missing, bring an older one up to date, and see whether its columns are there.

    @param connection: as operations of the database get it.
    @param upgrade: False to leave an older one as it is.
    @raises BackendError: when the table cannot be used; the sentence says what to do.
    """
    present = database.columns(connection, table.name)
    if present is None:
        if database.readOnly:
            return
        try:
            _execute(connection, ddl(table, database.dialect))
            _note(database, connection, table)
        except database.Error as error:
            if database.columns(connection, table.name) is None:
                if not database.forbidden(error):
                    raise
                raise BackendError(
                    f"{database}: table {table.name} is missing, and we may not create it: use the statements"
                    " in sql/, or `ppolicy db create --database URL` with a user who may"
                    f" ({database.explained(error)})"
                ) from error
        present = database.columns(connection, table.name) or []
    if not database.readOnly and upgrade:
        _upgrade(database, connection, table, present)
        _widen(database, connection, table, present)
        present = database.columns(connection, table.name)
    missing = _missing(table, present)
    if missing:
        raise BackendError(
            f"{database}: table {table.name} has no column {', '.join(missing)}{_hint(table, present)}"
        )


def _missing(table, present):
    """
    The columns of a table that are not among those present. Case makes no other column.
    """
    names = {name.lower() for name in present}
    return [column.name for column in table.columns if column.name.lower() not in names]


def _widen(database, connection, table, present):
    """
    A list of ours gets the columns that another check wants to see in it.
    """
    if table.info["kind"] != "list" or noted(database, connection, table.name) is None:
        return
    preparer = database.dialect.identifier_preparer
    for name in _missing(table, present):
        if name not in table.info["keys"]:
            specification = CreateColumn(table.c[name]).compile(dialect=database.dialect)
            connection.execute(f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {specification}")


def described(database, connection, table):
    """
    A sentence about a table as it is.
    """
    present = database.columns(connection, table.name)
    if present is None:
        return "missing"
    latest = len(MIGRATIONS.get(table.info["kind"], ())) + 1
    isOurs = noted(database, connection, table.name) is not None
    version = _version(database, connection, table, present)
    if version < latest:
        return f"version {version}, to be upgraded to {latest}"
    if version > latest:
        return f"version {version}, made by a newer ppolicy; this one knows {latest}"
    missing = _missing(table, present)
    if missing:
        return f"has no column {', '.join(missing)}{_hint(table, present)}"
    return f"version {version}" if isOurs else "made by somebody else, fits"


def _hint(table, present):
    if table.info["kind"] == "touch" and {"date", "state"} <= set(present):
        return f"; it is one of ppolicy 2.7, `ppolicy db import {table.name}` brings it in"
    return f"; it has {', '.join(present)}"


def _upgrade(database, connection, table, present):
    kind = table.info["kind"]
    latest = len(MIGRATIONS.get(kind, ())) + 1
    version = _version(database, connection, table, present)
    if version > latest:
        raise BackendError(
            f"{database}: table {table.name} is of version {version}, made by a newer ppolicy; this one"
            f" knows {latest}"
        )
    if version < latest:
        for migrate in MIGRATIONS[kind][version - 1 :]:
            _execute(connection, migrate(table, database.dialect))
        _note(database, connection, table)


def noted(database, connection, name):
    """
    The version of a table as it was noted, else None.
    """
    if database.columns(connection, VERSION_TABLE.name) is None:
        return None
    query = select(VERSION_TABLE.c.version).where(VERSION_TABLE.c.name == name)
    rows = Compiled(query, database.dialect)(connection).fetchall()
    return rows[0][0] if rows else None


def _version(database, connection, table, present):
    version = noted(database, connection, table.name)
    if version is not None:
        return version
    # Nothing is noted where somebody else created the tables, and for those older than the notes.
    if table.info["kind"] == "touch" and "key" in present and "previous" not in present:
        return 1
    return len(MIGRATIONS.get(table.info["kind"], ())) + 1


def _note(database, connection, table):
    """
    Note the version of a table.
    """
    version = len(MIGRATIONS.get(table.info["kind"], ())) + 1
    _execute(connection, ddl(VERSION_TABLE, database.dialect))
    c = VERSION_TABLE.c
    Compiled(delete(VERSION_TABLE).where(c.name == table.name), database.dialect)(connection)
    row = insert(VERSION_TABLE).values(name=table.name, kind=table.info["kind"], version=version)
    Compiled(row, database.dialect)(connection)


def _execute(connection, statements):
    for statement in statements:
        connection.execute(statement)


def _addPrevious(table, dialect):
    """
    Version 2 of the tables that are touched: they know when a key was met the time before the last.
    """
    preparer = dialect.identifier_preparer
    kind = dialect.type_compiler_instance.process(table.c.previous.type)
    return [
        f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN previous {kind} NOT NULL DEFAULT 0",
        str(update(table).values(previous=table.c.last).compile(dialect=dialect)),
    ]


# {kind: functions (table, dialect) -> statements}; the first makes version 2 out of version 1.
MIGRATIONS = {"touch": (_addPrevious,)}
