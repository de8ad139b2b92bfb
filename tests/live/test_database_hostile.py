"""
The worst that clients and configurations can send to a database.
"""

import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from .faults import add, control
from .mariadb import MariaDB
from .policyclient import ATTRIBUTES
from .wire import Wire, request

HOSTILE = (
    "'",
    '"',
    "`",
    "\\",
    "\\'",
    "''",
    '\\"',
    "'; DROP TABLE canary; --",
    '"; DROP TABLE canary; --',
    "`; DROP TABLE canary; --",
    "\\'; DROP TABLE canary; --",
    "') ; DELETE FROM canary; #",
    "' OR '1'='1",
    '" OR ""="',
    "1 OR 1=1",
    "x' UNION SELECT song FROM canary -- ",
    "/* comment",
    "*/ -- #",
    "-- ",
    "#",
    ";",
    "%s",
    "%(key)s",
    "%",
    "%%",
    "_",
    "?",
    ":name",
    "{}",
    "{0}",
    "{sender.__class__}",
    "${jndi:ldap://x}",
    "a\0b",
    "\0",
    "a\rb",
    "\t",
    "\x1a\x08\x7f",
    " blank",
    "blank ",
    "\N{PILE OF POO}",
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "ß",
    "İstanbul",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc",
    "\udcff\udc80",
    "a\udcc3",
    "\udcc0\udca7",
    "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"),
    "x" * 2000,
    "x" * 1999 + "y",
    "'" * 2000,
    "\\" * 1999,
    "\N{PILE OF POO}" * 500,
    "NULL",
    "0",
    "-1",
    "1e308",
    "true",
    "DEFAULT",
    "CURRENT_USER()",
    "sleep(5)",
    "benchmark(1e9,md5(1))",
    "../../etc/passwd",
    "|cat",
)
# Attributes that stay as they are: what is no policy request is not asked about.
_FIXED = ("request", "protocol_state", "instance")
_MORE = ("sasl_username", "sasl_method", "sasl_sender", "ccert_subject", "ccert_issuer", "encryption_cipher")

HOSTILE_POLICY = """
modules = {
    'greylist': ('Greylist', {'delay': 600, 'normalizeSender': False, 'writeBehind': %s}),
    'list': ('List', {'param': 'helo_name', 'table': 'listed', 'column': 'v', 'cacheCaseSensitive': True}),
    'both': ('List', {'param': ['sasl_username', 'helo_name'], 'table': 'pairs', 'column': ['a', 'b']}),
    'dyn': ('ListDyn', {'param': ['helo_name', 'ccert_subject'], 'table': 'dynamic', 'retcols': 'note',
                        'mapping': {'ccert_subject': ('subject', 'VARCHAR(255)')}, 'softExpire': 300,
                        'hardExpire': 600, 'cacheCaseSensitive': True}),
}

def check(factory, data, port):
    grey, info = factory.check('greylist', data)
    listed, _ = factory.check('list', data)
    pair, _ = factory.check('both', data)
    missing, _ = factory.check('dyn', data)
    note = data.get('ccert_issuer', '').encode(errors='replace').decode()
    added, _ = factory.check('dyn', data, 'add', {'note': note})
    found, rows = factory.check('dyn', data)
    kept = bool(rows) and rows[0][1] == note
    removed, text = factory.check('dyn', data, 'remove')
    gone, _ = factory.check('dyn', data)
    stored = f'{missing} {added} {found} {kept} {removed} {text[:1]} {gone}'
    return 'dunno', f'{grey} {info[1]} {listed} {pair} {stored}'
"""


def hostileRequest(value, number):
    """
    A request with the same hostile value in every attribute, and in a name.
    """
    names = [name for name in (*ATTRIBUTES, *_MORE) if name not in _FIXED]
    values = dict.fromkeys(names, value) | {"instance": f"h{number}.{time.monotonic_ns():x}"}
    values["sender"] = f"{value}@example.com"
    values["'; DROP TABLE canary; --"] = value
    return request(**values)


class SQLiteStore:
    """
    The embedded database from outside, while no server uses it.
    """

    def __init__(self, folder):
        self.path = folder / "hostile.sqlite"
        self.url = f"sqlite:///{self.path}"

    def execute(self, sql):
        """
        The rows of a statement.
        """
        with closing(sqlite3.connect(self.path)) as database:
            rows = tuple(database.execute(sql).fetchall())
            database.commit()
            return rows

    def tables(self):
        """
        The names of all tables.
        """
        return {name for (name,) in self.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


class MariaDBStore(MariaDB):
    """
    A MariaDB with options of its own.
    """

    def tables(self):
        """
        The names of all tables.
        """
        return {name for (name,) in self.execute("SHOW TABLES")}


@pytest.fixture
def store(request, tmp_path):
    """
    A database from outside: its parameter says which.
    """
    if request.param == "SQLite":
        yield SQLiteStore(tmp_path)
        return
    request.getfixturevalue("needsMariaDB")
    modes = ("--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES",) if "modes" in request.param else ()
    server = MariaDBStore(*modes)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("store", "writeBehind"),
    [("SQLite", False), ("SQLite", True), ("MariaDB", True), ("MariaDB, other modes", True)],
    indirect=["store"],
)
def test_hostileValues(makeServer, store, writeBehind):
    """
    Whatever stands in the attributes: the answers are right, the canary lives, and rows hold what was sent.
    """
    store.execute("CREATE TABLE canary (id INTEGER PRIMARY KEY, song VARCHAR(50))")
    store.execute("INSERT INTO canary VALUES (1, 'piep')")
    server = makeServer(HOSTILE_POLICY % writeBehind, requestLog=None, database=store.url)
    fits = [len(value) <= 255 or isinstance(store, SQLiteStore) for value in HOSTILE]
    listed = HOSTILE[::2]
    for value, isListed, fit in zip(HOSTILE, [True, False] * len(HOSTILE), fits, strict=False):
        if isListed:
            assert add(server, "list", value)["ok"] is fit, value
            answer = _addPair(server, value)
            assert answer["ok"] is fit, (value, answer)
    said = _askHostile(server)
    wrong = []
    for value, fit, one in zip(HOSTILE, fits, said, strict=True):
        isListed = 1 if value in listed and fit else -1
        # What does not fit into its column is refused, which is code 0.
        dyn = "-1 1 1 True 1 1 -1" if fit else "-1 0 -1 False 1 0 -1"
        expected = f"dunno -1 600 {isListed} {isListed} {dyn}"
        if one != expected:
            wrong.append((value[:40], one, expected))
    assert not wrong
    time.sleep(1.2)
    again = _askHostile(server)
    assert [one.split()[:2] for one in again] == [["dunno", "-1"]] * len(HOSTILE)
    assert all(int(one.split()[2]) < 600 for one in again), again
    server.terminate()
    assert store.execute("SELECT * FROM canary") == ((1, "piep"),)
    assert store.tables() == {"canary", "greylist", "listed", "pairs", "dynamic", "schema_version"}
    recipients = [recipient for (recipient,) in store.execute("SELECT recipient FROM greylist")]
    assert len(recipients) == len(HOSTILE) + 1  # and that of the server's start
    assert {value.lower() for value in HOSTILE if value.isascii() and len(value) <= 512} <= set(recipients)
    assert "Traceback" not in server.log()


def _askHostile(server):
    with Wire(server.address) as wire:
        return [wire.ask(hostileRequest(value, number)) for number, value in enumerate(HOSTILE)]


def _addPair(server, value):
    return control(
        server, "command", family="list", check="both", command="add", arguments={"values": [[value, value]]}
    )


# Identifiers

IDENTIFIERS = (
    "a b",
    "a;b",
    "a'b",
    'a"b',
    "a`b",
    "a--",
    "a/*b*/",
    "canary; DROP TABLE canary",
    "greylist` (x INT); DROP TABLE canary; -- ",
    'greylist" (x INT); DROP TABLE canary; -- ',
    "a.b",
    "1a",
    "a%s",
    "a{}",
    "a\0b",
    "a\nb",
    "ab\n",
    "é",
    "ａ",
    "a" * 64,
    "a" * 2000,
    "a\\",
    "a)",
    "sqlite_master",
    "SQLite_x",
    "schema_version",
    "\udcff",
)
TYPES = (
    "INT); DROP TABLE canary; --",
    "VARCHAR(255) DEFAULT (SELECT 1)",
    "VARCHAR(255), x INT",
    "VARCHAR(99999999999999999999999999) x",
    "INT -- ",
    "INT/**/",
    "ENUM('a')",
    "INT;",
    "JSON",
    "VARCHAR(-1)",
    "%s",
    "INT\0",
    "x" * 2000,
)
AGGREGATES = (
    "MAX(a b)",
    "MAX(a);",
    "MAX(a) FROM canary",
    "SLEEP(5)",
    "MAX(MAX(a))",
    "COUNT(a,b)",
    "MAX(*)",
    "a, b;c",
)

# {what is hostile: (module type, function from the hostile text to its parameters, texts)}
PLACES = {
    "Greylist table": ("Greylist", lambda text: {"table": text}, IDENTIFIERS),
    "List table": ("List", lambda text: {"param": "sender", "table": text}, IDENTIFIERS),
    "List column": ("List", lambda text: {"param": "sender", "table": "t", "column": text}, IDENTIFIERS),
    "List param": ("List", lambda text: {"param": text, "table": "t"}, IDENTIFIERS),
    "List retcols": (
        "List",
        lambda text: {"param": "sender", "table": "t", "retcols": text},
        (*IDENTIFIERS, *AGGREGATES),
    ),
    "List retcols in a list": (
        "List",
        lambda text: {"param": "sender", "table": "t", "retcols": ["sender", text]},
        (*IDENTIFIERS, *AGGREGATES),
    ),
    "ListDyn table": ("ListDyn", lambda text: {"param": "sender", "table": text}, IDENTIFIERS),
    "ListDyn column": ("ListDyn", lambda text: {"param": "sender", "mapping": {"sender": text}}, IDENTIFIERS),
    "ListDyn retcols": ("ListDyn", lambda text: {"param": "sender", "retcols": text}, (*IDENTIFIERS, *AGGREGATES)),
    "ListDyn mapped retcols": (
        "ListDyn",
        lambda text: {"param": "sender", "retcols": "score", "mapping": {"score": (text, "INT")}},
        IDENTIFIERS,
    ),
    "ListDyn times": (
        "ListDyn",
        lambda text: {"param": "sender", "softExpire": 9, "mapping": {"soft_expire": text}},
        IDENTIFIERS,
    ),
    "ListDyn SQL type": (
        "ListDyn",
        lambda text: {"param": "sender", "mapping": {"sender": ("sender", text)}},
        TYPES,
    ),
    "ListBW white table": ("ListBW", lambda text: {"param": "sender", "tableWhitelist": text}, IDENTIFIERS),
    "ListBW black column": (
        "ListBW",
        lambda text: {"param": "sender", "tableBlacklist": "t", "mappingBlacklist": {"sender": text}},
        IDENTIFIERS,
    ),
    "ListBW SQL type": (
        "ListBW",
        lambda text: {"param": "sender", "tableBlacklist": "t", "mappingBlacklist": {"sender": ("s", text)}},
        TYPES,
    ),
    "ListBW retcols": (
        "ListBW",
        lambda text: {"param": "sender", "tableWhitelist": "t", "retcolsWhitelist": text},
        (*IDENTIFIERS, *AGGREGATES),
    ),
}


@pytest.mark.parametrize("place", list(PLACES))
def test_hostileIdentifiers(tmp_path, place):
    """
    A name or type that could be more than that is refused by `ppolicy check`, each of them, with a sentence.
    """
    kind, parameters, texts = PLACES[place]
    modules = {f"hostile{number:03}": (kind, parameters(text)) for number, text in enumerate(texts)}
    configuration = tmp_path / "ppolicy.conf"
    configuration.write_text(
        f"stateDir = {str(tmp_path / 'state')!r}\nmodules = {ascii(modules)}\n"
        "def check(factory, data, port):\n    return 'dunno'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "ppolicy", "check", "-c", str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=60,
        check=False,
    )
    accepted = [text for name, text in zip(modules, texts, strict=True) if name not in done.stdout]
    # Blanks around the names of a text with commas do not count.
    accepted = [text for text in accepted if "retcols" not in place or not text.strip().isidentifier()]
    assert not accepted, f"accepted: {accepted}\n{done.stdout}"
    assert done.returncode == 1
    assert "Traceback" not in done.stdout, done.stdout
