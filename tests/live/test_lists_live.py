"""
Lists and greylists of a running server, and the commands that change them, with SQLite and a real MariaDB.
"""

import json
import subprocess
import sys
import time

import pytest

from .policyserver import Server

POLICY = """
modules = {
    'friends': ('List', {'param': 'sender', 'table': 'friends', 'retcols': 'reason'}),
    'pairs': ('List', {'param': ['sender', 'recipient'], 'table': 'pairs',
                       'cacheNegative': 1, 'cachePositive': 1}),
    'memory': ('List', {'param': 'sender', 'table': 'memory', 'cacheAll': True}),
    'file': ('List', {'param': 'client_address', 'file': 'networks'}),
    'people': ('LookupDB', {'param': 'sender', 'table': 'people', 'retcols': '*',
                            'mapping': {'sender': ('mail', 'VARCHAR(50)')}}),
    'bw': ('ListBW', {'param': 'sender', 'tableWhitelist': 'white', 'tableBlacklist': 'black'}),
    'domains': ('ListMailDomain', {'param': 'sender', 'tableWhitelist': 'wdomains', 'tableBlacklist': 'bdomains'}),
    'dyn': ('ListDyn', {'param': 'sender', 'table': 'dyn', 'retcols': 'score', 'hardExpire': 3600,
                        'mapping': {'score': ('score', 'INT')}}),
    'known': ('ListDyn', {'param': 'sender', 'table': 'known', 'hardExpire': 3600}),
    'grey': ('Greylist', {'delay': 300, 'whitelistAfter': 2}),
}
def check(factory, data, port):
    name, _, operation = data.get('policy_context', '').partition(' ')
    if not name:
        return 'DUNNO'
    more = [operation, {'score': 5} if name == 'dyn' else None] if operation else []
    found = factory.check(name, data, *more)
    return '%s', f'{found[0]} {found[1]!r}' if found[1] is not None else str(found[0])
""".replace("'%s'", "'450'")


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request):
    """The options for a database."""
    if request.param == "sqlite":
        return {}
    return {"database": request.getfixturevalue("mariadb").url}


@pytest.fixture
def server(makeServer, database):
    """A running server with every kind of list."""
    return configured(makeServer, database)


def configured(makeServer, database, policy=POLICY):
    return makeServer(policy.replace("'networks'", "'/etc/hostname'"), **database)


def command(server, *words, stdin=""):
    """Run the command on the server's configuration: (exit code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "ppolicy", words[0], *_options(server, words)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def waitForMemory(server, state):
    """Wait until the list in memory is in this state."""
    deadline = time.monotonic() + 10
    while asked(server, "status")["backends"]["database"]["tables"]["memory"]["holds"] != state:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _options(server, words):
    """The rest of a command line with the configuration in it; behind -- there are no options."""
    place = words.index("--") if "--" in words else len(words)
    return [*words[1:place], "-c", str(server.configuration), *words[place:]]


def asked(server, *words, stdin=""):
    """What a command prints with --json."""
    code, out, error = command(server, *words, "--json", stdin=stdin)
    assert code == 0, error
    return json.loads(out)


def answer(server, name, sender="alice@example.net", **more):
    """Code and information of a check, as the policy tells them."""
    action = server.request(policy_context=name, sender=sender, **more)
    assert action.startswith("450 "), action
    return action.removeprefix("450 ")


def code(server, name, sender="alice@example.net", **more):
    return int(answer(server, name, sender, **more).split(" ")[0])


def test_firstRequests(makeServer, database):
    """What is asked right after the first start of all waits for the tables instead of being unknown."""
    for _ in range(5):
        server = makeServer(POLICY.replace("'networks'", "'/etc/hostname'"), **database)
        codes = {name: code(server, name) for name in ("friends", "pairs", "memory", "people", "grey")}
        assert set(codes.values()) == {-1}, codes
        server.terminate()
        if "database" in database:
            break


def test_add(server):
    """A negative answer in the cache turns positive right after add, and negative after remove."""
    for name in ("friends", "memory", "pairs"):
        values = ["alice@example.net", "bob@example.org"] if name == "pairs" else ["alice@example.net"]
        more = {"recipient": "bob@example.org"}
        for _ in range(2):
            assert code(server, name, **more) == -1
        assert asked(server, "list", name, "add", *values) == {"table": name, "added": 1}
        assert code(server, name, **more) == 1
        assert code(server, name, sender="ALICE@example.net", **more) == 1
        assert asked(server, "list", name, "remove", *map(str.upper, values)) == {"table": name, "removed": 1}
        assert code(server, name, **more) == -1


def test_addPlain(server):
    """Without --json there are lines for people."""
    assert command(server, "list", "friends", "add", "a@b", "--with", "reason=a friend") == (
        0,
        "table: friends\nadded: 1\n",
        "",
    )
    assert command(server, "list", "friends", "show") == (0, "sender  reason\na@b     a friend\n", "")
    assert command(server, "list", "friends", "remove", "a@b") == (0, "table: friends\nremoved: 1\n", "")
    assert command(server, "list", "friends", "show") == (0, "", "nothing found\n")


def test_show(server):
    """Rows are shown in order, those that look like a text, and so many of them."""
    for one in ("c@x", "a@x", "b@y"):
        asked(server, "list", "friends", "add", one, "--with", f"reason=of {one}")
    shown = asked(server, "list", "friends", "show")
    assert shown["rows"] == [{"sender": one, "reason": f"of {one}"} for one in ("a@x", "b@y", "c@x")]
    assert [row["sender"] for row in asked(server, "list", "friends", "show", "*@X")["rows"]] == ["a@x", "c@x"]
    assert [row["sender"] for row in asked(server, "list", "friends", "show", "--limit", "1")["rows"]] == ["a@x"]


def test_rows(server):
    """A check's information is the row, the same on each database."""
    asked(server, "list", "friends", "add", "a@b", "--with", "reason=r")
    assert answer(server, "friends", "A@b") == "1 ('r',)"
    asked(server, "list", "people", "add", "a@b")
    assert answer(server, "people", "A@b") == "1 ('a@b',)"


def test_listBW(server):
    """Both tables of ListBW are edited by their name; white wins."""
    assert answer(server, "bw") == "0 ()"
    asked(server, "list", "bw", "add", "alice@example.net", "--table", "black")
    assert code(server, "bw") == -1
    asked(server, "list", "bw", "add", "alice@example.net", "--table", "white")
    assert code(server, "bw") == 1
    done = command(server, "list", "bw", "add", "x")
    assert done == (1, "", "bw: which table? there is white, black\n")


def test_listMailDomain(server):
    """ListMailDomain's tables are in memory, and still an addition counts at once."""
    assert code(server, "domains") == 0
    asked(server, "list", "domains", "add", "@.net", "--table", "bdomains")
    assert code(server, "domains") == -1
    asked(server, "list", "domains", "add", "@example.net", "--table", "wdomains")
    assert code(server, "domains") == 1


def test_listDyn(server):
    """What the policy adds the command shows, with its times; what the command adds the policy finds."""
    assert code(server, "dyn") == -1
    assert code(server, "dyn add") == 1, answer(server, "dyn add")
    assert answer(server, "dyn") == "1 [[1, 5]]"
    (row,) = asked(server, "list", "dyn", "show")["rows"]
    assert (row["sender"], row["score"]) == ("alice@example.net", 5)
    assert 3500 < row["hard_expire"] - time.time() < 3700
    asked(server, "list", "dyn", "add", "bob@example.org", "--with", "score=7", "--live", "5")
    assert answer(server, "dyn", "bob@example.org") == "1 [[1, 7]]"
    time.sleep(5.2)
    assert code(server, "dyn", "bob@example.org") == -1


def test_listDynWithoutValue(server):
    """A column of numbers without a value is no obstacle."""
    asked(server, "list", "dyn", "add", "bob@example.org")
    assert code(server, "dyn", "bob@example.org") == 1


def test_file(server):
    """A list in a file cannot be edited by the command."""
    done = command(server, "list", "file", "add", "192.0.2.1")
    assert done == (1, "", "file has no table: edit its file, it is read again by itself\n")


def test_importExport(server):
    """What export prints import reads: several columns, quotes, letters of all kinds, more than a portion."""
    rows = [["a,b@x", 'q"q'], ["é@x", "ж"], *([f"user{number}@example.org", "r@x"] for number in range(1200))]
    text = "".join('"{}","{}"\n'.format(*(one.replace('"', '""') for one in row)) for row in rows)
    done = command(server, "list", "pairs", "import", stdin=f"# a comment\n\n{text}")
    assert (done[0], done[1]) == (0, "added: 1202\n"), done
    assert code(server, "pairs", "USER1199@example.org", recipient="r@x") == 1
    exported = command(server, "list", "pairs", "export")
    assert exported[0] == 0
    assert len(exported[1].splitlines()) == 1202
    assert len(asked(server, "list", "pairs", "export")["rows"]) == 1202
    for row in rows:
        assert row[0] in exported[1]
    for one in ("a,b@x", "é@x"):
        command(server, "list", "pairs", "remove", one, {"a,b@x": 'q"q', "é@x": "ж"}[one])
    assert command(server, "list", "pairs", "import", stdin=exported[1])[1] == "added: 1202\n"
    assert command(server, "list", "pairs", "export") == exported


def test_exportOfOtherColumns(server):
    """What stands beside the values is exported and imported, too."""
    asked(server, "list", "friends", "add", "a@b", "--with", "reason=r")
    code_, exported, _ = command(server, "list", "friends", "export")
    assert code_ == 0
    asked(server, "list", "friends", "remove", "a@b")
    done = command(server, "list", "friends", "import", stdin=exported)
    assert done[0] == 0, done
    assert answer(server, "friends", "a@b") == "1 ('r',)"


def test_importOfLongValues(server):
    """Rows of a length that columns take are imported, however many there are."""
    text = "".join(f"{'é' * 200}{number},{'x' * 200}\n" for number in range(600))
    done = command(server, "list", "pairs", "import", stdin=text)
    assert (done[0], done[1]) == (0, "added: 600\n"), done


def test_mistakes(server):
    """Each mistake is a sentence on stderr with exit code 1."""
    names = "friends, pairs, memory, file, people, bw, domains, dyn, known"
    for words, sentence in (
        (("list", "enemies", "show"), f"no list check 'enemies' in modules; there is {names}"),
        (("list", "grey", "show"), f"no list check 'grey' in modules; there is {names}"),
        (("list", "friends", "add", "a", "b"), "list friends: a row is 1 value (sender)"),
        (("list", "pairs", "add", "a"), "list pairs: a row is 2 values (sender, recipient)"),
        (("list", "pairs", "remove", "a"), "list pairs: a row is 2 values (sender, recipient)"),
        (("list", "friends", "show", "--table", "x"), "friends: which table? there is friends"),
        (("greylist", "list", "--check", "x"), "no greylist check 'x' in modules; there is grey"),
        (("greylist", "allow"), "say which: --sender, --recipient or --client"),
        (("greylist", "remove"), "say which: --sender, --recipient or --client; '*' is all"),
    ):
        assert command(server, *words) == (1, "", f"{sentence}\n"), words
    for words in (
        ("list", "friends", "add"),
        ("list", "friends"),
        ("list", "friends", "frobnicate"),
        ("list", "friends", "add", "a", "--with", "reason"),
        ("greylist", "show", "a"),
    ):
        assert command(server, *words)[0] == 2, words


def test_noSuchColumn(server):
    """A column that is not there is refused, and nothing is added."""
    done = command(server, "list", "friends", "add", "a@b", "--with", "reson=x")
    assert done[0] == 1, done
    assert "reson" in done[2]
    assert asked(server, "list", "friends", "show")["rows"] == []


def test_noTimeToLive(server):
    """A time to live for a list without times is refused."""
    done = command(server, "list", "friends", "add", "a@b", "--live", "60")
    assert done[0] == 1, done


def test_hostileValues(server):
    """Whatever is on the command line is a value, and printed so that it does no harm to the terminal."""
    hostile = ["'; drop table friends; --", "%", "a_b", "{0}", "\x1b[31m", "é", "--", " x "]
    for one in hostile:
        done = command(server, "list", "friends", "add", "--with", f"reason={one}", "--", one)
        assert done[0] == 0, done
    shown = asked(server, "list", "friends", "show")["rows"]
    assert sorted(row["sender"] for row in shown) == sorted(hostile)
    assert "\x1b" not in command(server, "list", "friends", "show")[1]
    assert asked(server, "list", "friends", "show", "%")["rows"] == [{"sender": "%", "reason": "%"}]


def test_reloadKeepsLists(server):
    """After a reload the new generation's lists are the ones that commands change."""
    assert code(server, "friends") == -1
    assert server.reload().returncode == 0
    assert code(server, "friends") == -1
    asked(server, "list", "friends", "add", "alice@example.net")
    assert code(server, "friends") == 1
    text = server.configuration.read_text()
    server.configuration.write_text(text.replace("'table': 'friends'", "'table': 'other'"))
    assert server.reload().returncode == 0
    assert code(server, "friends") == -1
    asked(server, "list", "friends", "add", "alice@example.net")
    assert code(server, "friends") == 1


def test_restart(server):
    """Lists survive a restart."""
    asked(server, "list", "memory", "add", "alice@example.net")
    assert code(server, "known add") == 1
    server.terminate()
    server.start()
    assert code(server, "memory") == 1
    assert code(server, "known") == 1


def test_withoutServer(server):
    """Without a running server the commands do the same themselves."""
    server.terminate()
    assert asked(server, "list", "friends", "add", "a@b", "--with", "reason=r") == {"table": "friends", "added": 1}
    assert asked(server, "list", "friends", "show")["rows"] == [{"sender": "a@b", "reason": "r"}]
    assert command(server, "list", "enemies", "show")[0] == 1
    assert asked(
        server, "greylist", "allow", "--sender", "a@b", "--recipient", "c@d", "--client", "192.0.2.1"
    ) == {"allowed": 1}
    assert len(asked(server, "greylist", "list")["triplets"]) == 1
    assert asked(server, "greylist", "stats")["triplets"] == 1
    server.start()
    assert answer(server, "friends", "a@b") == "1 ('r',)"
    assert code(server, "grey", "a@b", recipient="c@d") == 1


def test_withoutServerFirst(database):
    """The first command of all makes what it needs, before any server ever ran."""
    for _ in range(3):
        server = Server()
        try:
            server.configure(POLICY.replace("'networks'", "'/etc/hostname'"), **database)
            assert asked(server, "list", "friends", "add", "a@b")["added"] == 1
            assert len(asked(server, "list", "friends", "show")["rows"]) == 1
            assert asked(server, "list", "memory", "show")["rows"] == []
        finally:
            server.close()


def test_importWithoutServer(server):
    """More than one portion is imported and exported without a server, too."""
    server.terminate()
    text = "".join(f"user{number}@example.org,r@x\n" for number in range(1100))
    done = command(server, "list", "pairs", "import", stdin=text)
    assert (done[0], done[1]) == (0, "added: 1100\n"), done
    done = command(server, "list", "pairs", "export")
    assert (done[0], len(done[1].splitlines())) == (0, 1100), done[2]


def test_exportWithoutServer(server):
    """A table of more than one portion is exported without a server."""
    text = "".join(f"user{number}@example.org,r@x\n" for number in range(600))
    assert command(server, "list", "pairs", "import", stdin=text)[0] == 0
    server.terminate()
    done = command(server, "list", "pairs", "export")
    assert (done[0], len(done[1].splitlines())) == (0, 600), done[2]


def test_greylist(server):
    """List, show, allow, remove and count triplets while they are used."""
    triplet = {"sender": "alice@example.net", "recipient": "bob@example.org", "client_address": "192.0.2.77"}
    assert code(server, "grey", **triplet) == -1
    assert code(server, "grey", **{**triplet, "sender": ""}) == -1
    (one,) = asked(server, "greylist", "show", *triplet.values())["triplets"]
    assert (one["sender"], one["recipient"], one["client"]) == (
        "alice@example.net",
        "bob@example.org",
        "192.0.2.0/24",
    )
    assert one["state"].startswith("waits ")
    assert one["mails"] == 1
    assert len(asked(server, "greylist", "list")["triplets"]) == 2
    assert len(asked(server, "greylist", "list", "--client", "192.0.2.200")["triplets"]) == 2
    assert len(asked(server, "greylist", "list", "--sender", "")["triplets"]) == 1
    assert len(asked(server, "greylist", "list", "--sender", "*@EXAMPLE.net")["triplets"]) == 1
    assert len(asked(server, "greylist", "list", "--limit", "1")["triplets"]) == 1
    stats = asked(server, "greylist", "stats")
    assert (stats["triplets"], stats["waiting"], stats["passed"]) == (2, 2, 0)
    assert asked(server, "greylist", "allow", "--sender", "alice@*") == {"allowed": 1}
    assert code(server, "grey", **triplet) == 1
    assert asked(server, "greylist", "stats")["passed"] == 1
    assert asked(server, "greylist", "remove", "--sender", "alice@*") == {"removed": 1}
    assert code(server, "grey", **triplet) == -1
    text = command(server, "greylist", "list")[1]
    assert "alice@example.net" in text
    assert "waits" in text
    code_, text, _ = command(server, "greylist", "stats")
    assert (code_, "waiting: 2\n" in text) == (0, True)
    assert asked(server, "greylist", "remove", "--sender", "*") == {"removed": 2}
    assert command(server, "greylist", "list") == (0, "", "nothing found\n")


def test_greylistAllowUnknown(server):
    """A triplet that is named in full is allowed before its first mail."""
    words = ("--sender", "carol@example.net", "--recipient", "bob@example.org", "--client", "198.51.100.9")
    assert asked(server, "greylist", "allow", *words) == {"allowed": 1}
    assert (
        code(server, "grey", "carol@example.net", recipient="bob@example.org", client_address="198.51.100.1") == 1
    )


def test_databaseAway(makeServer, mariadb):
    """While the database is away lists are unknown and commands say why; afterwards all works by itself."""
    server = configured(makeServer, {"database": mariadb.url})
    asked(server, "list", "friends", "add", "alice@example.net")
    asked(server, "list", "memory", "add", "alice@example.net")
    waitForMemory(server, "1 values in memory")
    mariadb.stop()
    try:
        assert code(server, "friends", "x@y") == 0
        assert code(server, "memory") == 1
        done = command(server, "list", "friends", "add", "x@y")
        assert done[0] == 1
        assert mariadb.password not in done[2]
        assert done[2].startswith("ppolicy@")
    finally:
        mariadb.start()
    deadline = time.monotonic() + 15
    while command(server, "list", "friends", "add", "x@y")[0] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert code(server, "friends", "x@y") == 1


def test_twoServers(makeServer, mariadb):
    """What is added by one server is found by another on the same database when its cache has expired."""
    one, other = (configured(makeServer, {"database": mariadb.url}) for _ in range(2))
    recipient = {"recipient": "bob@example.org"}
    assert code(one, "pairs", **recipient) == code(other, "pairs", **recipient) == -1
    asked(one, "list", "pairs", "add", "alice@example.net", "bob@example.org")
    assert code(one, "pairs", **recipient) == 1
    time.sleep(1.1)
    assert code(other, "pairs", **recipient) == 1
    asked(other, "list", "pairs", "remove", "alice@example.net", "bob@example.org")
    assert code(other, "pairs", **recipient) == -1
    time.sleep(1.1)
    assert code(one, "pairs", **recipient) == -1
    assert code(one, "known add") == 1
    assert code(other, "known") == 1
    assert code(one, "grey", recipient="c@d") == -1
    assert asked(other, "greylist", "allow", "--sender", "alice*") == {"allowed": 1}
    assert code(one, "grey", recipient="c@d") == 1


def test_byHandInMariaDB(makeServer, mariadb):
    """Rows that an administrator wrote with capitals are found, whatever the collation and type of the column."""
    server = configured(makeServer, {"database": mariadb.url})
    code(server, "people")
    mariadb.execute("INSERT INTO people (mail) VALUES ('Alice@Example.NET')")
    mariadb.execute("INSERT INTO friends (sender) VALUES ('Bob@Example.ORG')")
    command(server, "list", "people", "remove", "nothing")  # so that nothing is remembered
    assert code(server, "friends", "bob@example.org") == 1
    assert code(server, "people", "alice@example.net") == 1


def test_foreignTablesInMariaDB(makeServer, mariadb):
    """Tables that 2.7 or somebody else has made, in their own character set, are asked and changed."""
    mariadb.execute("CREATE TABLE friends (sender VARCHAR(100), reason VARCHAR(50)) CHARACTER SET latin1")
    mariadb.execute("INSERT INTO friends VALUES ('Ärger@example.net', 'ü'), ('bob@example.org', NULL)")
    mariadb.execute("CREATE TABLE memory (sender VARCHAR(100)) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    mariadb.execute("INSERT INTO memory VALUES ('Bob@Example.org')")
    server = configured(makeServer, {"database": mariadb.url})
    assert answer(server, "friends", "bob@example.org") == "1 (None,)"
    asked(server, "list", "friends", "add", "BOB@example.org", "--with", "reason=x")
    assert mariadb.execute("SELECT COUNT(*), MAX(reason) FROM friends WHERE sender LIKE 'bob%'") == ((1, "x"),)
    asked(server, "list", "friends", "add", "new@example.org")
    assert code(server, "friends", "new@example.org") == 1
    assert asked(server, "list", "friends", "remove", "new@example.org")["removed"] == 1
    assert code(server, "memory", "bob@example.org") == 1
    assert code(server, "friends", "ärger@example.net") == 1


def test_apartInMariaDB(makeServer, mariadb):
    """Blanks, accents and newlines make another value, as in SQLite."""
    server = configured(makeServer, {"database": mariadb.url})
    values = ["resume@x", "résumé@x", "strasse@x", "straße@x", "a", "ä"]
    for one in values:
        asked(server, "list", "friends", "add", one, "--with", f"reason={one}")
    assert len(asked(server, "list", "friends", "show")["rows"]) == len(values)
    asked(server, "list", "friends", "remove", "resume@x")
    assert code(server, "friends", "resume@x") == -1
    assert code(server, "friends", "résumé@x") == 1
    for sender, recipient in (("a\nb", "c"), ("a", "b\nc")):
        asked(server, "list", "pairs", "add", sender, recipient)
    assert len(asked(server, "list", "pairs", "show")["rows"]) == 2
