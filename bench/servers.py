"""
The servers that are measured, as processes on free loopback ports.
"""

import grp
import json
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pymysql

from bench.load import BUILD, BenchError

ROOT = Path(__file__).parent.parent
POSTGREY = Path("/usr/sbin/postgrey")
RATE_LIMIT = Path("/usr/bin/policyd-rate-limit")
MARIADB = Path("/usr/sbin/mariadbd")

REQUEST = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=192.0.2.1\n"
    b"client_name=mail.example.net\nhelo_name=mail.example.net\nsender=one@example.net\n"
    b"recipient=two@example.org\nqueue_id=\ninstance=0.0.0.0\nsize=0\n\n"
)

_STARTS = 20.0
_STOPS = 15.0
_SETTLES = 15.0
_LOADS = 300.0
_TICK = os.sysconf("SC_CLK_TCK")


def freePort():
    """
    A port that nothing uses, below the range that client ports come from.
    """
    while True:
        port = random.randint(15000, 32000)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def ask(connection, sender="one@example.net"):
    """
    One more request.

    @return: the answer, without C{action=}.
    """
    connection.sendall(REQUEST.replace(b"one@example.net", sender.encode()))
    answer = connection.recv(4096)
    if not answer.endswith(b"\n\n"):
        raise OSError("no answer")
    return answer.decode().strip().removeprefix("action=")


def account():
    """
    The names of our user and group: whom servers shall run as.
    """
    return pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


class Server:
    """
    One process.

    @ivar folder: its own; what it prints goes to C{output} there.
    @ivar kept: where it keeps what it must remember.
    @ivar helpers: servers that work for it alone: their CPU time counts as its own.
    """

    helpers = ()

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder / name.replace(" ", "-").replace(",", "")
        self.kept = self.folder / "kept"
        self.kept.mkdir(parents=True)
        self.port = freePort()
        self.process = None

    def command(self):
        raise NotImplementedError

    def start(self):
        """
        Start, and wait until a request is answered.
        """
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                list(map(str, self.command())),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the bench, which then stops its servers
            )
        deadline = time.monotonic() + _STARTS
        while True:
            try:
                self.connect().close()
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"{self.name} does not answer: {error}\n{self.said()}") from error
                time.sleep(0.05)

    def connect(self):
        """
        A connection on which one request was answered, as Postfix keeps it.
        """
        connection = socket.create_connection(("127.0.0.1", self.port), 30)
        ask(connection)
        return connection

    def stop(self):
        """
        Stop, kindly if possible.
        """
        if self.process is None:
            return
        try:
            self.process.terminate()
            self.process.wait(_STOPS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def renew(self):
        """
        Start again, with nothing remembered.
        """
        self.stop()
        self.forget()
        self.start()

    def forget(self):
        """
        Remove what it remembers; it does not run.
        """
        shutil.rmtree(self.kept)
        self.kept.mkdir()

    def said(self):
        """
        The end of what it printed.
        """
        text = (self.folder / "output").read_text(encoding="utf-8", errors="replace")
        return text[-2000:]

    def pids(self):
        """
        The processes whose CPU time counts.
        """
        return [server.process.pid for server in (self, *self.helpers)]

    def cpu(self):
        """
        The seconds of CPU it has used.
        """
        ticks = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICK

    def memory(self, name="VmRSS"):
        """
        Its resident memory in KB; C{VmHWM} is the most it ever was.
        """
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise BenchError(f"{self.name} has ended:\n{self.said()}")

    def settle(self):
        """
        Wait until it has nothing left to do, such as writing behind: that must not slow down the next one.
        """
        deadline = time.monotonic() + _SETTLES
        before = -1.0
        while before + 0.02 < (before := self.cpu()) and time.monotonic() < deadline:
            time.sleep(0.3)

    def remarks(self):
        """
        What went wrong, as sentences; asked before the end.
        """
        return []


class Floor(Server):
    """
    The smallest server there can be.
    """

    def __init__(self, folder):
        super().__init__("floor", folder)

    def command(self):
        return [BUILD / "floor", self.port]


class Postgrey(Server):
    """
    Debian's postgrey, in the foreground: quiet and without whitelists, which is its fastest and does our work.
    """

    def __init__(self, folder):
        super().__init__("postgrey", folder)

    def command(self):
        user, group = account()
        return [
            *(POSTGREY, "--quiet", f"--inet=127.0.0.1:{self.port}", f"--dbdir={self.kept}"),
            *(f"--user={user}", f"--group={group}", "--auto-whitelist-clients=0"),
            *("--whitelist-clients=/dev/null", "--whitelist-recipients=/dev/null"),
        ]


class RateLimit(Server):
    """
    Debian's policyd-rate-limit with SQLite, silent; it counts by the sender, with one limit that nobody reaches.
    """

    def __init__(self, folder):
        super().__init__("policyd-rate-limit", folder)
        user, group = account()
        settings = {
            "SOCKET": ["127.0.0.1", self.port],
            "debug": False,
            "user": user,
            "group": group,
            "pidfile": str(self.kept / "pid"),
            "backend": 0,
            "sqlite_config": {"database": str(self.kept / "db.sqlite3")},
            "limits": [[1_000_000_000, 60]],
            "limit_by_sasl": False,
            "limit_by_sender": True,
        }
        self.configuration = self.folder / "configuration.yaml"
        self.configuration.write_text(json.dumps(settings))  # JSON is YAML

    def command(self):
        return [RATE_LIMIT, "--file", self.configuration]


class MariaDB(Server):
    """
    A MariaDB with its own defaults: each transaction is on disk before it is answered.
    """

    def __init__(self, folder):
        super().__init__("mariadb", folder)
        self._socket = str(self.folder / "socket")
        self._password = secrets.token_hex(12)
        self.url = f"mysql+pymysql://ppolicy:{self._password}@127.0.0.1:{self.port}/ppolicy"

    def command(self):
        return [
            *(MARIADB, "--no-defaults", f"--user={account()[0]}", f"--datadir={self.kept}"),
            *(f"--socket={self._socket}", f"--pid-file={self.folder / 'pid'}", f"--tmpdir={self.folder}"),
            *("--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve"),
        ]

    def start(self):
        user = account()[0]
        install = [
            *("mariadb-install-db", "--no-defaults", f"--datadir={self.kept}", f"--user={user}"),
            *("--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}", "--skip-test-db"),
        ]
        result = subprocess.run(install, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BenchError(f"mariadb-install-db: {result.stdout}{result.stderr}")
        super().start()
        self.empty()

    def connect(self):
        try:
            return pymysql.connect(unix_socket=self._socket, user=account()[0])
        except pymysql.err.OperationalError as error:
            raise OSError(str(error)) from error

    def empty(self):
        """
        Forget every table.
        """
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS ppolicy")
            cursor.execute("CREATE DATABASE ppolicy")
            cursor.execute("GRANT ALL ON ppolicy.* TO ppolicy@127.0.0.1 IDENTIFIED BY %s", (self._password,))


class PPolicy(Server):
    """
    Ours, with a policy and options.

    @param original: a SQLite file that it begins with, instead of an empty one.
    @param mariadb: the L{MariaDB} that it uses alone.
    """

    def __init__(self, name, folder, policy, original=None, mariadb=None, **options):
        super().__init__(name, folder)
        self._original, self._mariadb = original, mariadb
        if mariadb:
            self.helpers = (mariadb,)
            options["database"] = mariadb.url
        if original:
            self.forget()
        self.log = self.folder / "requests.log"
        self.configuration = self.folder / "ppolicy.conf"
        fixed = {
            "ppolicyPort": f"127.0.0.1:{self.port}",
            "stateDir": str(self.kept),
            "requestLog": None,
            "logTarget": str(self.log),
            "connLimit": 6000,
        }
        lines = [f"{option} = {value!r}\n" for option, value in (fixed | options).items()]
        self.configuration.write_text("".join(lines) + textwrap.dedent(policy))

    def command(self):
        return [sys.executable, "-m", "ppolicy", "run", "-c", self.configuration]

    def settle(self):
        super().settle()
        os.truncate(self.log, 0)  # a few million lines are of no use to anybody

    def stop(self):
        super().stop()
        if self.process is not None and self.process.returncode != 0:
            print(f"{self.name} ended with {self.process.returncode}:\n{self.said()}", file=sys.stderr)

    def forget(self):
        super().forget()
        if self._original:
            shutil.copyfile(self._original, self.kept / "ppolicy.sqlite")
        if self._mariadb:
            self._mariadb.empty()

    def finishLoading(self):
        """
        Wait until it has read what it begins with.
        """
        deadline = time.monotonic() + _LOADS
        while self.status()["backends"]["database"]["waiting"]:
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} does not finish loading:\n{self.said()}")
            time.sleep(0.2)
        self.settle()

    def status(self):
        """
        What `ppolicy status --json` says.
        """
        command = [sys.executable, "-m", "ppolicy", "status", "--json", "-c", str(self.configuration)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BenchError(f"{self.name} tells no status: {result.stderr}\n{self.said()}")
        return json.loads(result.stdout)

    def remarks(self):
        status = self.status()
        requests = status["requests"]
        counts = {
            "requests failed": requests["failed"],
            "times the reactor was blocked": requests["blockedReactor"],
            "connections beyond connLimit": requests["beyondConnLimit"],
            f"of {requests['answered']:,} request lines dropped": status["backends"]["requestLog"]["dropped"],
        }
        counts |= {f"failures of {name}": module["failed"] for name, module in status["modules"].items()}
        return [f"{self.name}: {count:,} {what}" for what, count in counts.items() if count]
