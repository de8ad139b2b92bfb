"""
The administrator's way to a database: the bootstrap, ppolicy db, the import from 2.7; against a real MariaDB.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SQL = Path(__file__).parent.parent.parent / "sql"

POLICY = """
modules = {
    'grey': ('Greylist', {'delay': 60}),
    'known': ('ListDyn', {'param': ['sender', 'recipient'], 'table': 'known', 'retcols': 'note',
                          'hardExpire': 600}),
    'friends': ('List', {'param': 'sender', 'table': 'friends'}),
    'dump': ('DumpDataDB', {}),
}

def check(factory, data, port):
    code, info = factory.check('grey', data)
    return 'dunno', f'{code} {info[0]}'
"""

OLD = (
    "CREATE TABLE greylist (sender VARCHAR(255), recipient VARCHAR(255), client_address VARCHAR(255),"
    " date DATETIME, state TINYINT)",
    "INSERT INTO greylist VALUES ('passed@example.net', 'bob@example.org', '192.0.2.1', NOW(), 1),"
    " ('waits@example.net', 'bob@example.org', '192.0.2.1', NOW(), -1),"
    " ('old@example.net', 'bob@example.org', '192.0.2.1', '2005-01-01', 1)",
    "CREATE TABLE known (sender VARCHAR(255), recipient VARCHAR(255), hard_expire DATETIME NOT NULL,"
    " note VARCHAR(255), INDEX autoindex_key (sender, recipient))",
    "INSERT INTO known VALUES ('a@example.net', 'b@example.org', NOW() + INTERVAL 300 SECOND, 'one'),"
    " ('gone@example.net', 'b@example.org', '2005-01-01', 'two')",
    "CREATE TABLE friends (sender VARCHAR(255))",
    "INSERT INTO friends VALUES ('Friend@Example.net')",
)


class Site:
    """
    A folder with a configuration, and the command.
    """

    def __init__(self, folder, database):
        self.folder = folder
        self.configuration = folder / "ppolicy.conf"
        (folder / "state").mkdir()
        self.configuration.write_text(f"stateDir = 'state'\ndatabase = {database!r}\n{POLICY}", encoding="utf-8")

    def run(self, *words, code=0):
        """
        What `ppolicy` prints; it must end with this code.
        """
        done = subprocess.run(
            [sys.executable, "-m", "ppolicy", *words, "-c", str(self.configuration)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture
def site(mariadb, tmp_path):
    """
    A configuration for the MariaDB.
    """
    return Site(tmp_path, mariadb.url)


def test_createAndStatus(site, mariadb):
    """
    Tables are missing, then created, then there; a second time changes nothing.
    """
    assert "greylist: missing" in site.run("db", "status", code=1)
    assert "greylist: version 2" in site.run("db", "create")
    answer = json.loads(site.run("db", "status", "--json"))
    assert answer["tables"] == {
        "dump": "version 1",
        "friends": "version 1",
        "greylist": "version 2",
        "known": "version 1",
    }
    site.run("db", "create")
    assert mariadb.execute("SELECT count(*) FROM schema_version") == ((4,),)


def test_upgrade(site, mariadb):
    """
    A greylist of the first version keeps its rows and gets the new column.
    """
    mariadb.execute(
        "CREATE TABLE greylist (`key` BINARY(16) PRIMARY KEY, first DOUBLE NOT NULL, last DOUBLE NOT NULL,"
        " count INT NOT NULL, expires DOUBLE NOT NULL, sender VARCHAR(255) NOT NULL,"
        " recipient VARCHAR(255) NOT NULL, client_address VARCHAR(255) NOT NULL)"
    )
    mariadb.execute("INSERT INTO greylist VALUES (REPEAT('k', 16), 1, 2, 3, 4e9, 's', 'r', 'c')")
    assert "greylist: version 1, to be upgraded to 2" in site.run("db", "status", code=1)
    site.run("db", "create", code=1)
    assert "greylist: version 1, to be upgraded to 2" in site.run("db", "status", code=1)
    assert "greylist: version 2" in site.run("db", "upgrade")
    assert mariadb.execute("SELECT previous, last, count FROM greylist") == ((2.0, 2.0, 3),)


def test_newerSchema(site, mariadb):
    """
    A table of a newer ppolicy is left alone; that it cannot be used is seen before the server is started.
    """
    site.run("db", "create")
    mariadb.execute("UPDATE schema_version SET version = 99 WHERE name = 'greylist'")
    assert "greylist: version 99, made by a newer ppolicy" in site.run("db", "status", code=1)
    assert "made by a newer ppolicy" in site.run("db", "upgrade", code=1)


def test_bootstrap(mariadb, tmp_path, makeServer):
    """
    sql/ppolicy.sql makes the database and an account that is enough for the server; without the right to create
    tables the statements of `ppolicy db create --sql` are enough.
    """
    text = (SQL / "ppolicy.sql").read_text(encoding="utf-8").replace("CHANGE-THIS-PASSWORD", "s3cret word")
    text = text.replace("ppolicy.*", "bootstrap.*").replace("EXISTS ppolicy CHAR", "EXISTS bootstrap CHAR")
    text = text.replace("'ppolicy'@'localhost'", "'bootstrap'@'%'").replace("GRANT CREATE,", "-- GRANT CREATE,")
    mariadb.execute("DROP DATABASE IF EXISTS bootstrap")
    root = mariadb.root()
    try:
        with root.cursor() as cursor:
            for statement in re.sub(r"--.*", "", text).split(";"):
                if statement.strip():
                    cursor.execute(statement)
            password = tmp_path / "password"
            password.write_text("s3cret word\n", encoding="utf-8")
            url = f"mysql+pymysql://bootstrap@127.0.0.1:{mariadb.port}/bootstrap?password_file={password}"
            site = Site(tmp_path, url)
            said = site.run("db", "create", code=1)
            assert "we may not create it" in said and "s3cret" not in said
            cursor.execute("USE bootstrap")
            for statement in site.run("db", "create", "--sql").split(";\n"):
                if statement.strip():
                    cursor.execute(statement)
        assert "made by somebody else, fits" in site.run("db", "status")
        server = makeServer(POLICY, database=url)
        assert server.request(sender="x@example.net").startswith("dunno -1")
    finally:
        root.close()
        mariadb.execute("DROP DATABASE bootstrap")
        mariadb.execute("DROP USER 'bootstrap'@'%'")


@pytest.mark.parametrize("running", (False, True))
def test_import(site, mariadb, makeServer, running):
    """
    Tables of 2.7 in the same database are brought in, with and without a running server: who passed passes,
    who waits goes on waiting, what is too old is left out, lists are used as they are.
    """
    for statement in OLD:
        mariadb.execute(statement)
    assert "ppolicy db import" in site.run("db", "status", code=1)
    server = makeServer(POLICY, database=mariadb.url) if running else None
    if server is not None:
        site.configuration = server.configuration
        assert server.request(sender="passed@example.net").startswith("dunno 0")
    said = site.run("db", "import", "greylist", "known", "friends")
    assert "greylist: 2 of 3 rows taken" in said
    assert "known: 1 of 2 rows taken" in said
    assert "friends: is used as it is" in said
    server = server or makeServer(POLICY, database=mariadb.url)
    mail = {"recipient": "bob@example.org", "client_address": "192.0.2.1"}
    assert server.request(sender="passed@example.net", **mail).startswith("dunno 1")
    assert server.request(sender="waits@example.net", **mail).startswith("dunno -1")
    assert server.request(sender="old@example.net", **mail) == "dunno -1 greylisting in progress: 60s"
    known = json.loads(site.run("list", "known", "show", "--json"))["rows"]
    assert [(row["sender"], row["note"]) for row in known] == [("a@example.net", "one")]
    assert len(mariadb.execute("SELECT * FROM greylist_27")) == 3


def test_importFromElsewhere(mariadb, tmp_path):
    """
    A site that stays with SQLite takes its tables out of the MySQL of 2.7, which is left as it is.
    """
    for statement in OLD:
        mariadb.execute(statement)
    site = Site(tmp_path, f"sqlite:///{tmp_path}/state/ppolicy.sqlite")
    said = site.run("db", "import", "--from", mariadb.url, "greylist", "friends")
    assert "greylist: 2 of 3 rows taken" in said and "friends: 1 of 1 rows taken" in said
    triplets = json.loads(site.run("greylist", "list", "--json"))["triplets"]
    assert {one["sender"]: one["state"].split()[0] for one in triplets} == {
        "passed@example.net": "passed",
        "waits@example.net": "waits",
    }
    assert len(mariadb.execute("SHOW TABLES")) == 3


def test_importOfNothing(site):
    """
    A table that no check has is a mistake; one that is not there is told.
    """
    assert "no greylist and no list has the table nope" in site.run("db", "import", "nope", code=1)
    assert "greylist: there is no such table" in site.run("db", "import", "greylist")


def test_noDatabase(tmp_path):
    """
    A server that is not there is told in a sentence, without the password.
    """
    site = Site(tmp_path, "mysql+pymysql://me:hunter2@127.0.0.1:1/mail")
    said = site.run("db", "status", code=1)
    assert "refused" in said and "Traceback" not in said and "hunter2" not in said
