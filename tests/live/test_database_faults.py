"""
What happens to the database while the policy is asked all the time: it costs answers, never a mail, and when it is
over everything is as before, without a restart.
"""

import functools
import itertools
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pymysql
import pytest

from . import mariadb
from .faults import HEADER, Case
from .proxy import Proxy
from .smalldisk import SmallDisk

LONG = bool(os.environ.get("PPOLICY_LONG"))
# Faults gone through at once: most of the time each of them waits.
_AT_ONCE = 1 if LONG else 4

FAULTS = {}


def fault(**keywords):
    """
    Make a generator a fault; `variants` are the keywords of L{Case} in which each one differs.
    """
    variants = keywords.pop("variants", [{}])

    def register(function):
        for variant in variants:
            given = {**keywords, **variant}
            name = function.__name__ + ("-writeBehind" if given.get("writeBehind") else "")
            FAULTS[name] = functools.partial(Case, function, **given)
        return function

    return register


BOTH = [{"writeBehind": False}, {"writeBehind": True}]
# Where it does not matter, write-behind comes in the long form only.
SECOND = BOTH if LONG else BOTH[:1]


def lasts(seconds, longer):
    """
    Seconds that a fault lasts, and in the long form.
    """
    return longer if LONG else seconds


# MariaDB


@fault(problem="(?i)can't connect|refused", fromStart=True)
def absentAtStart(case):
    """
    The server starts without its database, which comes later.
    """
    server = case.makeMariaDB()
    server.stop()
    yield server.url
    yield lasts(4, 20)
    server.start()


@fault(problem="(?i)can't connect|refused|lost connection", variants=SECOND)
def stopped(case):
    """
    The database is stopped as an administrator does it.
    """
    server = case.makeMariaDB()
    yield server.url
    server.stop()
    yield lasts(3, 20)
    server.start()


@fault(problem="(?i)can't connect|refused|lost connection", variants=BOTH)
def killed(case):
    """
    The database dies by SIGKILL.
    """
    server = case.makeMariaDB()
    yield server.url
    server.kill()
    yield lasts(3, 20)
    server.start()


@fault()
def killedAgainAndAgain(case):
    """
    The database dies by SIGKILL several times and is back at once.
    """
    server = case.makeMariaDB()
    yield server.url
    for _ in range(lasts(3, 12)):
        server.kill()
        server.start()
        time.sleep(1.5)
    yield 0


@fault(problem="(?i)timed out|no answer|lost connection", variants=SECOND)
def frozen(case):
    """
    The database hangs for 8 s: connections stay open, and nothing is answered.
    """
    server = case.makeMariaDB()
    yield server.url
    server.freeze()
    yield lasts(8, 25)
    server.thaw()


def throughProxy(case):
    """
    A MariaDB behind a network of the test: (Proxy, URL).
    """
    server = case.makeMariaDB()
    proxy = Proxy(server.port)
    case.closing.append(proxy.close)
    return proxy, server.url.replace(f":{server.port}/", f":{proxy.port}/")


@fault(problem="(?i)timed out|no answer|lost connection", fromStart=True)
def hangsAtStart(case):
    """
    The server starts while the network swallows everything.
    """
    proxy, url = throughProxy(case)
    proxy.hang(True)
    yield url
    yield lasts(7, 40)
    proxy.hang(False)


@fault(neverUnknown=True, variants=SECOND)
def slow(case):
    """
    Each answer of the database takes 200 ms longer.
    """
    proxy, url = throughProxy(case)
    yield url
    proxy.delay = 0.2
    yield lasts(4, 30)
    proxy.delay = 0


@fault(problem="(?i)lost connection|refused|can't connect")
def networkCut(case):
    """
    All connections are closed, and no new ones get through.
    """
    proxy, url = throughProxy(case)
    yield url
    proxy.refuse(True)
    proxy.cut()
    yield lasts(3, 20)
    proxy.refuse(False)


@fault()
def networkCutOnce(case):
    """
    All connections are closed, as by a firewall that restarts; new ones get through.
    """
    proxy, url = throughProxy(case)
    yield url
    proxy.cut()
    yield 2


@fault(problem="(?i)timed out|no answer|lost connection")
def networkHangs(case):
    """
    The network swallows everything silently.
    """
    proxy, url = throughProxy(case)
    yield url
    proxy.hang(True)
    yield lasts(7, 40)
    proxy.hang(False)


@fault(problem=".")
def otherService(case):
    """
    Something else listens in the place of the database for a while, and says what it likes.
    """
    server = case.makeMariaDB()
    yield server.url
    server.stop()
    with closing(socket.create_server((server.host, server.port))) as listener:
        listener.settimeout(0.2)
        sayings = itertools.cycle((b"SSH-2.0-OpenSSH_9.2\r\n", b"", *GARBAGE))
        ends = time.monotonic() + lasts(6, 40)
        threading.Thread(target=talk, args=(listener, sayings, ends), daemon=True).start()
        yield lasts(6, 40)
        time.sleep(0.5)
    server.start()


# Packets of MariaDB's protocol: too short a greeting, a length that is a lie, an error, no version, random octets.
GARBAGE = (
    b"\1\0\0\0\n",
    b"\xff\xff\xff\0" + b"\0" * 100,
    b"\3\0\0\0\xff\x10\4",
    b"\x50\0\0\0\n5.5\xff\xfe\0" + b"\xff" * 80,
    b"HTTP/1.0 503 Service Unavailable\r\n\r\n" * 50,
    b"\x05\0\0\0\n10.1",
    random.Random(2).randbytes(5000),
)


def talk(listener, sayings, ends):
    """
    Say one of several things to whoever connects.
    """
    while time.monotonic() < ends:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(next(sayings))
                time.sleep(0.05)
        except OSError:
            pass  # nobody came, or did not listen to the end


@fault(problem="(?i)read.only", variants=SECOND)
def readOnly(case):
    """
    The database becomes a replica that refuses to write.
    """
    server = case.makeMariaDB()
    yield server.url
    server.readOnly(True)
    yield lasts(4, 20)
    server.readOnly(False)


@fault(problem="(?i)full|no space|errno|disk", padding=400, pause=0.001)
def diskFull(case):
    """
    The disk of the database is full, and has room again.
    """
    disk = SmallDisk(80)
    case.closing.append(disk.close)
    server = case.makeMariaDB(dataFolder=disk.path / "data")
    yield server.url
    disk.fill()
    yield lasts(6, 30)
    disk.free()


@fault(problem="(?i)access denied")
def wrongPassword(case):
    """
    Somebody changes the password: new connections fail, until it is put right.
    """
    server = case.makeMariaDB()
    yield server.url
    right = server.password
    server.setPassword("sesame")
    cutConnections(server)
    yield lasts(4, 20)
    server.setPassword(right)


def cutConnections(server):
    """
    Have the server close the connections of its user.
    """
    for number, user in server.execute("SELECT id, user FROM information_schema.processlist"):
        if user == server.user:
            try:
                server.execute(f"KILL {number}")
            except pymysql.Error:
                pass  # it has gone by itself


@fault(forgets=True)
def tablesDropped(case):
    """
    Somebody drops the tables; they are made again.
    """
    server = case.makeMariaDB()
    yield server.url
    for _ in range(3):
        server.execute("DROP TABLE greylist")
        time.sleep(0.3)
    server.execute("DROP TABLE friends, vips, schema_version")
    yield 1


@fault()
def deadlocks(case):
    """
    Another client locks the same rows in another order all the time.
    """
    server = case.makeMariaDB()
    yield server.url
    end = threading.Event()

    def quarrel():
        with server.root() as connection, connection.cursor() as cursor:
            connection.select_db(server.database)
            while not end.is_set():
                known = random.sample(case.load.known, 8)
                try:
                    connection.begin()
                    for one in known:
                        cursor.execute(
                            "UPDATE greylist SET expires = expires + 1 WHERE `key` ="
                            " (SELECT `key` FROM (SELECT * FROM greylist) t WHERE recipient = %s)",
                            (one.recipient,),
                        )
                        time.sleep(0.003)
                    connection.commit()
                except pymysql.err.OperationalError:
                    connection.rollback()  # a deadlock, as it is meant

    threads = [threading.Thread(target=quarrel, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield lasts(5, 30)
    end.set()
    for thread in threads:
        thread.join(10)
    ((_, number),) = server.execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
    assert int(number) > 5, "too few deadlocks"


@fault(problem="(?i)too many connections")
def tooManyConnections(case):
    """
    Other clients take all the connections that the database allows.
    """
    server = case.makeMariaDB("--max-connections=10")
    yield server.url
    others = []

    def take():
        others.append(
            pymysql.connect(
                host=server.host,
                port=server.port,
                user=server.user,
                password=server.password,
                ssl_disabled=True,
                connect_timeout=5,
            )
        )

    cutConnections(server)
    deadline = time.monotonic() + 4
    while len(others) < 10 and time.monotonic() < deadline:
        try:
            take()
        except pymysql.Error:
            cutConnectionsOf(server, {one.thread_id() for one in others})
    yield lasts(4, 20)
    for one in others:
        one.close()


def cutConnectionsOf(server, but):
    """
    Have the server close the connections of its user but some.
    """
    for number, user in server.execute("SELECT id, user FROM information_schema.processlist"):
        if user == server.user and number not in but:
            try:
                server.execute(f"KILL {number}")
            except pymysql.Error:
                pass  # it has gone by itself


@fault()
def rowsLocked(case):
    """
    Another transaction holds all rows for 3 s.
    """
    server = case.makeMariaDB()
    yield server.url
    with server.root() as connection, connection.cursor() as cursor:
        connection.select_db(server.database)
        connection.begin()
        cursor.execute("SELECT * FROM greylist FOR UPDATE")
        yield lasts(3, 20)
        connection.rollback()


@fault()
def tablesLocked(case):
    """
    An ALTER TABLE, or a backup, locks the tables for a while.
    """
    server = case.makeMariaDB()
    yield server.url
    with server.root() as connection, connection.cursor() as cursor:
        connection.select_db(server.database)
        cursor.execute("LOCK TABLES greylist WRITE, friends WRITE, vips WRITE")
        yield lasts(6, 30)
        cursor.execute("UNLOCK TABLES")


# SQLite


@fault(problem="(?i)locked|busy", variants=BOTH)
def fileLocked(case):
    """
    Another process holds the file's lock for 5 s.
    """
    yield None
    other = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(case.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"locked\n"
    yield lasts(5, 30)
    other.communicate()


LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
database.execute('BEGIN EXCLUSIVE')
print('locked', flush=True)
sys.stdin.read()
"""


@fault(problem="(?i)full", padding=400, pause=0.002, variants=BOTH)
def folderFull(case):
    """
    The state folder is full, and has room again.
    """
    disk = SmallDisk(48)
    case.closing.append(disk.close)
    case.options["stateDir"] = str(disk.path / "state")
    yield None
    disk.fill()
    yield lasts(5, 30)
    disk.free()


@fault(variants=BOTH)
def fileReadByOthers(case):
    """
    Other processes open the file, read and close it, as administrators and backups do.
    """
    yield None
    for _ in range(3):
        subprocess.run([sys.executable, "-c", READ, str(case.path)], check=True)
        time.sleep(0.5)
    yield 1


READ = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=10)
print(database.execute('SELECT count(*) FROM greylist').fetchall())
database.close()
"""


@fault(variants=BOTH)
def fileLockedBriefly(case):
    """
    Another process locks the file again and again for 1.5 s.
    """
    yield None
    for _ in range(lasts(2, 10)):
        other = subprocess.Popen(
            [sys.executable, "-c", LOCK, str(case.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert other.stdout.readline() == b"locked\n"
        time.sleep(1.5)
        other.communicate()
        time.sleep(0.5)
    yield 0


@fault(variants=SECOND)
def fileReadOnly(case):
    """
    The file and its folder may not be written any more by a server that is not root; what is open stays open.
    """
    case.options["user"] = "nobody"
    yield None
    paths = [case.path.parent, *case.path.parent.glob("ppolicy.sqlite*")]
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield lasts(3, 20)
    for path, mode in zip(paths, modes, strict=True):
        path.chmod(mode)


@fault(losesLists=True, variants=SECOND)
def fileRemoved(case):
    """
    Somebody removes the database file of a running server: what is acknowledged afterwards has to be on disk.
    """
    yield None
    for path in case.path.parent.glob("ppolicy.sqlite*"):
        path.unlink()
    case.load.known = []
    yield lasts(3, 20)


@fault(variants=SECOND)
def fileReplaced(case):
    """
    Somebody puts a copy of yesterday in the place of the file.
    """
    yield None
    copy = case.server.folder / "copy"
    with closing(sqlite3.connect(case.path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    time.sleep(0.5)
    for path in case.path.parent.glob("ppolicy.sqlite-*"):
        path.unlink()
    copy.replace(case.path)
    case.load.known = []
    yield lasts(3, 20)


@fault(problem="cannot be opened: Permission denied", fromStart=True)
def folderForbidden(case):
    """
    The server may not write in the folder of the file when it starts.
    """
    folder = case.server.folder / "forbidden"
    folder.mkdir(mode=0o700)
    case.options["user"] = "nobody"
    yield f"sqlite:///{folder / 'ppolicy.sqlite'}"
    yield lasts(3, 20)
    shutil.chown(folder, "nobody")


@fault(problem="(?i)not a database|malformed", fromStart=True)
def fileDamaged(case):
    """
    The file is no database when the server starts; somebody puts it away.
    """
    path = case.server.stateDir / "ppolicy.sqlite"
    path.write_bytes(random.Random(1).randbytes(100_000))
    yield None
    yield lasts(3, 20)
    path.replace(case.server.folder / "damaged")


@fault(problem="(?i)malformed|not a database", fromStart=True)
def pagesDamaged(case):
    """
    The file begins well, but its pages are damaged when the server starts; somebody puts it away.
    """
    path = case.server.stateDir / "ppolicy.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE greylist (a TEXT)")
        database.execute("CREATE TABLE friends (sender TEXT)")
        database.executemany("INSERT INTO friends VALUES (?)", [("x" * 500,)] * 1000)
        database.commit()
    octets = bytearray(path.read_bytes())
    octets[100:] = random.Random(1).randbytes(len(octets) - 100)
    path.write_bytes(octets)
    yield None
    yield lasts(3, 20)
    for one in path.parent.glob("ppolicy.sqlite*"):
        one.rename(case.server.folder / one.name)


@fault(forgets=True, variants=BOTH)
def sqliteTablesDropped(case):
    """
    Somebody drops the tables in the file; they are made again.
    """
    yield None
    for tables in (("greylist",), ("greylist", "friends", "vips", "schema_version")):
        with closing(sqlite3.connect(case.path, timeout=10, isolation_level=None)) as database:
            for table in tables:
                database.execute(f"DROP TABLE {table}")
        time.sleep(0.5)
    yield 1


@pytest.fixture(scope="module")
def outcomes(request, needsMariaDB):
    """
    The chosen faults are gone through, some at once: {name: Future of its Outcome}. At the end there is a table.
    """
    chosen = [
        item.callspec.params["name"]
        for item in request.session.items
        if item.module is request.module and "name" in getattr(item, "callspec", _Plain).params
    ]
    mariadb._installed()  # once, before several ask for it at the same time
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = {name: pool.submit(FAULTS[name]().run) for name in chosen}
        yield futures
        pool.shutdown(cancel_futures=True)
    done = [future.result() for future in futures.values() if not future.cancelled() and not future.exception()]
    table = "\n".join([HEADER, *(outcome.row() for outcome in done)])
    if path := os.environ.get("PPOLICY_FAULT_TABLE"):
        Path(path).write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}")


class _Plain:
    params = ()


@pytest.mark.parametrize("name", list(FAULTS))
def test_fault(outcomes, name):
    """
    Every request has one answer in time, right or unknown; the status tells why; all comes back by itself.
    """
    outcome = outcomes[name].result()
    print(outcome.log)
    print(HEADER)
    print(outcome.row())
    print(f"before: {outcome.before}; after: {outcome.after}; `ppolicy greylist stats` meanwhile: {outcome.admin}")
    assert not outcome.wrong


def test_folderMissing(makeServer):
    """
    Where the folder of the file is missing the server does not start, and says which.
    """
    with pytest.raises(AssertionError, match="there is no folder .*/missing"):
        makeServer("def check(factory, data, port): return 'dunno'", database="sqlite:////nowhere/missing/file")
