"""
A MariaDB or MySQL server, which several hosts may share.
"""

import socket
import ssl

import pymysql
from pymysql.cursors import SSCursor
from sqlalchemy import func
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

from ppolicy.database import Database
from ppolicy.lane import AGAIN, ALONE, LONG, LOST, MISSING

_MODE = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"

# Lock wait time-out, deadlock, record changed since last read: the server says to try again.
_AGAIN = (1205, 1213, 1020)
# No such table; no such column, as it is for a moment after another host has added it.
_MISSING = (1146, 1054)
# The user may not do this: with a database, a command, with a table.
_FORBIDDEN = (1044, 1142, 1227)
# Errors that are about the connection, the account, the disk or the server as a whole, beside those of the client
# (2000 and above); all others are about one statement.
_LOST = frozenset(
    (
        *(3, 20, 28, 1021, 1026, 1030, 1114, 1135, 1180),  # files, the disk, memory
        *(1040, 1041, 1042, 1043, 1044, 1045, 1049, 1129, 1130, 1203, 1226, 4151),  # no entry
        *(1053, 1077, 1078, 1079, 1152, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 1969),  # hung up
        *(1290, 1792, 1836),  # read-only
    )
)


class _Connection:
    """
    With the methods that operations use on every database.
    """

    def __init__(self, raw):
        self.raw = raw
        self.isMariaDB = "mariadb" in raw.get_server_info().lower()

    def execute(self, text, values=()):
        """
        Execute a statement; returns the cursor.
        """
        cursor = self.raw.cursor()
        cursor.execute(text, values)
        return cursor

    def stream(self, text, values=()):
        """
        The rows of a large result, one after the other.
        """
        with self.raw.cursor(SSCursor) as cursor:
            cursor.execute(text, values)
            yield from cursor

    def close(self):
        self.raw.close()

    def hangUp(self):
        """
        Have whoever waits for the server, in another thread, wait no longer.
        """
        try:
            self.raw._sock.shutdown(socket.SHUT_RDWR)  # pymysql's close() would talk to the server
        except (AttributeError, OSError):
            pass  # it is closed


class MariaDB(Database):
    """
    @param target: the L{Target}.
    """

    shared = True
    grouped = False
    Error = pymysql.Error
    dialect = MySQLDialect_pymysql()

    def __init__(self, reactor, target, readOnly=False):
        super().__init__(reactor, readOnly)
        self.target = target

    def __str__(self):
        return str(self.target)

    def connect(self, role, writing=None):
        raw = self.dbapi()
        if role == "load":  # logging in may not take so long
            raw._read_timeout = LONG
        return _Connection(raw)

    def dbapi(self):
        raw = connection(self.target)
        try:
            if self.readOnly:
                raw.query("SET SESSION TRANSACTION READ ONLY")
        except pymysql.Error:
            raw.close()
            raise
        return raw

    def begin(self, connection):
        connection.raw.begin()

    def commit(self, connection):
        connection.raw.commit()

    def rollback(self, connection):
        connection.raw.rollback()

    def probe(self, connection):
        connection.execute("SELECT 1").fetchall()

    def meaning(self, error):
        number = error.args[0] if error.args else None
        if number in _AGAIN:
            return AGAIN
        if number in _MISSING:
            return MISSING
        if isinstance(error, pymysql.ProgrammingError) and not isinstance(number, int):
            return ALONE  # raised by pymysql itself: a value that it cannot send
        if not isinstance(number, int) or number == 0 or 2000 <= number < 3000 or number in _LOST:
            return LOST
        return LOST if isinstance(error, OSError | pymysql.InterfaceError) else ALONE

    def hangs(self, error):
        return isinstance(error.__context__, TimeoutError)

    def explained(self, error):
        number, text = error.args[:2] if len(error.args) > 1 else (None, str(error))
        text = " ".join(str(text).split())
        return f"{text} ({number})" if number else text or type(error).__name__

    def forbidden(self, error):
        return bool(error.args) and error.args[0] in _FORBIDDEN

    def epoch(self, column):
        return func.unix_timestamp(column)

    def isDate(self, connection, table, column):
        rows = connection.execute(
            "SELECT data_type FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name = %s AND column_name = %s",
            (table, column),
        ).fetchall()
        return [kind.lower() for (kind,) in rows] in (["datetime"], ["timestamp"])

    def useServersTime(self, connection):
        connection.execute("SET SESSION time_zone = @@global.time_zone")

    def tables(self, connection):
        return [name for (name,) in connection.execute("SHOW TABLES").fetchall()]

    def columns(self, connection, table):
        rows = connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name = %s ORDER BY ordinal_position",
            (table,),
        ).fetchall()
        return [name for (name,) in rows] or None


def connection(target):
    """
    A new connection by pymysql that commits each statement.

    @raises pymysql.Error: when there is none; the sentence shows no password.
    """
    try:
        raw = _opened(target)
    except (pymysql.Error, OSError):
        raise
    except Exception as error:  # pymysql trusts that it talks to a database
        raise pymysql.OperationalError(
            2027, f"what listens there does not answer as a database does ({type(error).__name__})"
        ) from error
    try:
        with raw.cursor() as cursor:
            if target.tls:
                cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
                if not cursor.fetchall()[0][1]:
                    raise pymysql.OperationalError(2026, "the server does not use TLS")
            # Below our own time-out, so that it is known which of the two ended a statement.
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
            # Where clocks are put back an hour, UNIX_TIMESTAMP(NOW()) is ambiguous in local time.
            cursor.execute("SET SESSION time_zone = '+00:00'")
    except BaseException:
        raw.close()
        raise
    return raw


def _opened(target):
    return pymysql.connect(
        host=target.host,
        port=target.port,
        unix_socket=target.socket,
        user=target.user,
        password=target.password.encode("utf-8"),
        database=target.name,
        charset="utf8mb4",
        sql_mode=_MODE,  # whatever the server's own is: quotes and backslashes mean what we think
        autocommit=True,
        connect_timeout=target.timeout,
        read_timeout=target.timeout,
        write_timeout=target.timeout,
        ssl=_context(target) if target.tls else None,
        program_name="ppolicy",
    )


def _context(target):
    context = ssl.create_default_context(cafile=target.authority)
    if target.certificate is not None:
        context.load_cert_chain(target.certificate, target.key)
    return context
