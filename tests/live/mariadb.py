"""
A real MariaDB for the tests, and what can happen to it: a slow or broken network and a full disk.
"""

import atexit
import contextlib
import errno
import functools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import pymysql

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
    _run(
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


def _run(*command):
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}"


class MariaDB:
    """
    A MariaDB on a free port of loopback; port and data stay the same over restarts.

    Options are mariadbd's, such as "--sql-mode=ANSI_QUOTES". The user has all rights on its one database and
    none beyond. With `--no-defaults` the character set is MariaDB's own latin1, not Debian's utf8mb4.
    """

    def __init__(self, *options, dataFolder=None):
        self.host = HOST
        self.port = freePort()
        self.user = self.database = "ppolicy"
        self.password = secrets.token_hex(12)
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="ppolicy-mariadb-"))
        self._data = Path(dataFolder or self._folder / "data")
        self._log = self._folder / "error.log"
        self._log.touch()
        self._socket = str(self._folder / "socket")
        self._process = None

    @property
    def url(self):
        password = urllib.parse.quote(self.password, safe="")
        return f"mysql+pymysql://{self.user}:{password}@{self.host}:{self.port}/{self.database}"

    def start(self):
        """
        Start, and wait until a connection works.
        """
        assert not self._isRunning()
        isNew = not self._data.exists()
        if isNew:
            shutil.copytree(_installed(), self._data)
        command = [
            "/usr/sbin/mariadbd",
            "--no-defaults",
            f"--user={_account()}",
            f"--datadir={self._data}",
            f"--tmpdir={self._folder}",
            f"--socket={self._socket}",
            f"--pid-file={self._folder / 'pid'}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--skip-networking=OFF",
            "--skip-name-resolve",
            *SIZES,
            *self._options,
        ]
        start = len(self.log())
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                connection = self.root()
            except pymysql.err.OperationalError:
                if self._process.poll() is not None:
                    raise AssertionError(f"MariaDB did not start:\n{self.log()[start:]}") from None
                if time.monotonic() > deadline:
                    self.kill()
                    raise AssertionError(f"MariaDB does not answer:\n{self.log()[start:]}") from None
                time.sleep(0.02)
            else:
                break
        with connection, connection.cursor() as cursor:
            if isNew:
                cursor.execute(f"CREATE DATABASE {self.database}")
                cursor.execute(f"CREATE USER {self.user} IDENTIFIED BY %s", (self.password,))
                cursor.execute(f"GRANT ALL ON {self.database}.* TO {self.user}")
        return self

    def stop(self):
        """
        Stop as an administrator does, and by force if that takes too long.
        """
        if not self._isRunning():
            return
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        """
        Stop without any warning.
        """
        if self._isRunning():
            self._process.kill()
            self._process.wait()

    def freeze(self):
        """
        Let it hang: connections stay open, the system even accepts new ones, but nothing is answered.
        """
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """
        Let it go on after `freeze()`.
        """
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        """
        Leave nothing behind: no process, no files.
        """
        self.kill()
        shutil.rmtree(self._data, ignore_errors=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _isRunning(self):
        return self._process is not None and self._process.poll() is None

    def log(self):
        """
        The error log so far, over all starts.
        """
        return self._log.read_text(encoding="utf-8", errors="backslashreplace")

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
            connection.select_db(self.database)
            cursor.execute("SET SESSION foreign_key_checks = 0, lock_wait_timeout = 10")
            cursor.execute("SHOW FULL TABLES")
            for name, kind in cursor.fetchall():
                quoted = name.replace("`", "``")
                cursor.execute(f"DROP {'VIEW' if kind == 'VIEW' else 'TABLE'} `{quoted}`")

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
        _run(*request, "-extensions", "ca", "-subj", "/CN=Test CA", "-keyout", str(caKey), "-out", str(ca))
        signed = ("-CA", str(ca), "-CAkey", str(caKey), "-extensions", "server", "-subj", "/CN=mariadb.test")
        _run(*request, *signed, "-keyout", str(key), "-out", str(certificate))
        return (f"--ssl-ca={ca}", f"--ssl-cert={certificate}", f"--ssl-key={key}"), ca


class Proxy:
    """
    A network between a client and a port of loopback, as bad as a test needs it.

    `delay` is how many seconds each chunk on its way to the client is held up; it may be changed at any time.
    """

    def __init__(self, targetPort, delay=0.0):
        self.targetPort = targetPort
        self.delay = delay
        self.port = freePort()
        self._refuses = self._hangs = False
        self._connections = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse(self, flag):
        """
        Close new connections at once. (For the system to refuse them, nothing may listen: `close()`.)
        """
        self._refuses = flag

    def hang(self, flag):
        """
        Swallow everything silently, as a firewall does. A connection that lost something never recovers.
        """
        self._hangs = flag

    def cut(self):
        """
        Close all connections now.
        """
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _shutdown(connection.client, socket.SHUT_RDWR)
            if connection.server is not None:
                _shutdown(connection.server, socket.SHUT_RDWR)

    def close(self):
        """
        Close all connections, and take no more.
        """
        self._refuses = True
        _shutdown(self._listener, socket.SHUT_RDWR)  # ends accept(), which close() would not
        self._listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(client)
            with self._lock:
                if self._refuses:
                    connection.close()
                    continue
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            if self._hangs:
                connection.isLost = True
                connection.answered.set()
            else:
                connection.connect(self.targetPort)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
            self._pass(connection, connection.client, connection.server)
            connection.answered.wait()
        except OSError:
            pass  # the target refused: so the client is closed
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _answer(self, connection):
        try:
            self._pass(connection, connection.server, connection.client, isAnswer=True)
        finally:
            connection.answered.set()

    def _pass(self, connection, source, target, isAnswer=False):
        while chunk := _receive(source):
            if isAnswer:
                time.sleep(self.delay)
            if self._hangs:
                connection.isLost = True
            if connection.isLost:
                continue
            try:
                target.sendall(chunk)
            except OSError:
                return
        if not connection.isLost and not self._hangs:
            _shutdown(target, socket.SHUT_WR)


class _Connection:
    """
    A client's connection and the one to the server that belongs to it.
    """

    def __init__(self, client):
        self.client = client
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server = None
        self.isLost = False
        self.answered = threading.Event()

    def connect(self, port):
        self.server = socket.create_connection((HOST, port), timeout=10)
        self.server.settimeout(None)
        self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.client.close()
        if self.server is not None:
            self.server.close()


def _receive(source):
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _shutdown(connection, how):
    with contextlib.suppress(OSError):  # closed already
        connection.shutdown(how)


class SmallDisk:
    """
    A file system of some megabytes, which takes root to mount. A MariaDB needs about 45.
    """

    def __init__(self, megabytes):
        self.path = Path(tempfile.mkdtemp(prefix="ppolicy-disk-"))
        self._filler = self.path / "filler"
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(self.path))

    def fill(self):
        """
        Take all the room that is left.
        """
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(65536))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self):
        """
        Give back what `fill()` took.
        """
        self._filler.unlink(missing_ok=True)

    def close(self):
        # Lazily, in case a process that is about to end still has files open.
        _run("umount", "--lazy", str(self.path))
        self.path.rmdir()
