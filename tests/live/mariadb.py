"""
A real MariaDB for the tests.
"""

import atexit
import contextlib
import functools
import os
import pwd
import secrets
import shutil
import tempfile
import time
import urllib.parse
from pathlib import Path

import pymysql

from .daemon import Daemon, run
from .ports import freePort

HOST = "127.0.0.1"

# Small and quick, but as durable as ever: innodb_flush_log_at_trx_commit stays 1.
SIZES = ("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--key-buffer-size=1M")

OPENSSL = """\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


def _account():
    return pwd.getpwuid(os.geteuid()).pw_name


@functools.cache
def _installed():
    """
    A freshly installed data folder, made once and copied for each MariaDB.
    """
    folder = Path(tempfile.mkdtemp(prefix="ppolicy-mariadb-installed-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run(
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={folder}",
        f"--user={_account()}",
        "--auth-root-authentication-method=socket",
        f"--auth-root-socket-user={_account()}",
        "--skip-test-db",
        "--skip-name-resolve",
        *SIZES,
    )
    return folder


class MariaDB(Daemon):
    """
    A MariaDB on a free port of loopback; port and data stay the same over restarts.

    Options are mariadbd's, such as "--sql-mode=ANSI_QUOTES". The user has all rights on its one database and
    none beyond. With `--no-defaults` the character set is MariaDB's own latin1, not Debian's utf8mb4.
    """

    def __init__(self, *options, dataFolder=None):
        super().__init__("mariadb")
        self.host = HOST
        self.port = freePort()
        self.user = self.database = "ppolicy"
        self.password = secrets.token_hex(12)
        self._options = options
        self._data = Path(dataFolder or self.folder / "data")
        self._socket = str(self.folder / "socket")

    @property
    def url(self):
        password = urllib.parse.quote(self.password, safe="")
        return f"mysql+pymysql://{self.user}:{password}@{self.host}:{self.port}/{self.database}"

    def start(self):
        isNew = not self._data.exists()
        if isNew:
            shutil.copytree(_installed(), self._data)
        super().start()
        if isNew:
            with self.root() as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {self.database}")
                cursor.execute(f"CREATE USER {self.user} IDENTIFIED BY %s", (self.password,))
                cursor.execute(f"GRANT ALL ON {self.database}.* TO {self.user}")
        return self

    def command(self):
        return [
            "/usr/sbin/mariadbd",
            "--no-defaults",
            f"--user={_account()}",
            f"--datadir={self._data}",
            f"--tmpdir={self.folder}",
            f"--socket={self._socket}",
            f"--pid-file={self.folder / 'pid'}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--skip-networking=OFF",
            "--skip-name-resolve",
            *SIZES,
            *self._options,
        ]

    def isReady(self):
        try:
            self.root().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def close(self):
        super().close()
        shutil.rmtree(self._data, ignore_errors=True)  # it may be elsewhere

    def root(self):
        """
        A connection as the administrator, through MariaDB's socket; no database is selected.
        """
        return pymysql.connect(
            unix_socket=self._socket, user=_account(), ssl_disabled=True, autocommit=True, connect_timeout=10
        )

    def execute(self, sql, *args):
        """
        The rows of a statement that the administrator executes in the database.
        """
        with self.root() as connection, connection.cursor() as cursor:
            connection.select_db(self.database)
            cursor.execute(sql, args or None)
            return cursor.fetchall()

    def empty(self):
        """
        Drop every table. An open transaction that still uses one makes this fail, not wait forever.
        """
        with self.root() as connection, connection.cursor() as cursor:
            self._leaveAlone(cursor)
            connection.select_db(self.database)
            cursor.execute("SET SESSION foreign_key_checks = 0, lock_wait_timeout = 10")
            cursor.execute("SHOW FULL TABLES")
            for name, kind in cursor.fetchall():
                quoted = name.replace("`", "``")
                cursor.execute(f"DROP {'VIEW' if kind == 'VIEW' else 'TABLE'} `{quoted}`")

    def _leaveAlone(self, cursor):
        """
        End other connections: what a server that is gone has asked last may still be done.
        """
        deadline = time.monotonic() + 10
        others = "SELECT id FROM information_schema.processlist WHERE user = %s"
        while cursor.execute(others, (self.user,)):
            assert time.monotonic() < deadline, "a connection does not end"
            for (number,) in cursor.fetchall():
                with contextlib.suppress(pymysql.Error):  # it has ended by itself
                    cursor.execute("KILL %s", (number,))
            time.sleep(0.01)

    def readOnly(self, flag):
        """
        Refuse what the user wants to write, as a replica does; a restart ends it.
        """
        self.execute("SET GLOBAL read_only = %s", int(flag))

    def setPassword(self, text):
        """
        Change the user's password: `password` and `url` follow, what was configured with the old one does not.
        """
        self.execute(f"ALTER USER {self.user} IDENTIFIED BY %s", text)
        self.password = text

    @staticmethod
    def tls(folder, names="IP:127.0.0.1, DNS:localhost"):
        """
        Make a CA, and by it a certificate for these names; returns options for mariadbd and the CA's file.
        """
        folder = Path(folder)
        configuration = folder / "openssl.cnf"
        configuration.write_text(OPENSSL.format(names=names))
        ca, caKey, certificate, key = (folder / f"{name}.pem" for name in ("ca", "ca-key", "server", "server-key"))
        request = ("openssl", "req", "-x509", "-config", str(configuration), "-days", "2", "-nodes")
        request += ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        run(*request, "-extensions", "ca", "-subj", "/CN=Test CA", "-keyout", str(caKey), "-out", str(ca))
        signed = ("-CA", str(ca), "-CAkey", str(caKey), "-extensions", "server", "-subj", "/CN=mariadb.test")
        run(*request, *signed, "-keyout", str(key), "-out", str(certificate))
        return (f"--ssl-ca={ca}", f"--ssl-cert={certificate}", f"--ssl-key={key}"), ca
