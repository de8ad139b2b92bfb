"""
Limits of running servers: shared by two of them, killed, without their database, and looked at by command.
"""

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from .mariadb import MariaDB

POLICY = """
modules = {
    'dos': ('DOS', {'params': 'sender', 'limits': [(200, 3600), (500, 86400)], 'weight': WEIGHT}),
    'onError1': ('DOS', {'params': 'sender', 'limits': [(5, 3600)], 'onError': 1}),
    'onError-1': ('DOS', {'params': 'sender', 'limits': [(5, 3600)], 'onError': -1}),
    'places': ('DistinctLimit', {'params': 'sender', 'limit': 3}),
}
def check(factory, data, port):
    name = data.get('policy_context') or 'dos'
    code, info = factory.check(name, data)
    if data['recipient'] == 'nobody@example.org':
        factory.check(name, data, 'giveBack')
    return '450', f'{code} {info}'
""".replace("WEIGHT", "lambda data: int(data['size']) or 1")

THREADS = 8


def code(server, name="dos", **attributes):
    # Another sender than that of the first request, by which the server is known to have started.
    return int(server.request(policy_context=name, **{"sender": "eve@example.net"} | attributes).split(" ")[1])


def flood(servers, count, **attributes):
    """
    Send so many requests to each server, over several connections at the same time: how often each code came.
    """

    def one(server):
        codes = Counter()
        with server.connect() as client:
            for _ in range(count // THREADS):
                codes[int(client.ask(policy_context="dos", **attributes).split(" ")[1])] += 1
        return codes

    with ThreadPoolExecutor(THREADS * len(servers)) as pool:
        return sum(pool.map(one, [server for server in servers for _ in range(THREADS)]), Counter())


def asked(server, *words):
    """
    What a command prints with --json.
    """
    done = server.ppolicy(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request):
    """
    The options for a database.
    """
    return {} if request.param == "sqlite" else {"database": request.getfixturevalue("mariadb").url}


def test_shared(makeServer, mariadb):
    """
    Through two servers at the same time exactly as many mails pass as the limit says, and each counts once.
    """
    servers = [makeServer(POLICY, database=mariadb.url) for _ in range(2)]
    assert flood(servers, 240, sender="alice@example.net") == {-1: 200, 1: 280}
    (row,) = asked(servers[0], "limit", "show", "dos", "alice@example.net")["limits"]
    assert row["sum"] == "200, 200"
    # Those that weigh more fill up what is left, and no more.
    codes = flood(servers, 80, sender="bob@example.net", size="3")
    assert codes[-1] == 66
    assert flood(servers, 8, sender="bob@example.net")[-1] == 2
    # Fewer than the limit are all counted.
    assert flood(servers, 56, sender="carol@example.net") == {-1: 112}
    found = {row["key"]: row["sum"] for row in asked(servers[1], "limit", "list", "dos")["limits"]}
    assert found["carol@example.net"] == "112, 112"
    assert found["bob@example.net"] == "200, 200"


def test_sharedPlaces(makeServer, mariadb):
    """
    Places that a user comes from are counted together, wherever each was met.
    """
    servers = [makeServer(POLICY, database=mariadb.url) for _ in range(2)]
    codes = [
        code(servers[number % 2], "places", client_address=f"10.0.{number}.1", instance=f"p{number}")
        for number in range(6)
    ]
    assert codes == [-1, -1, -1, 1, 1, 1]


def test_repeated(makeServer, database):
    """
    A request that is sent again is not counted again, and mail that is refused later is not counted at all.
    """
    server = makeServer(POLICY, **database)
    with ThreadPoolExecutor(THREADS) as pool:
        same = pool.map(lambda _: code(server, instance="same", size="150"), range(40))
        assert set(same) == {-1}
    assert {code(server, size="150", recipient="nobody@example.org") for _ in range(3)} == {1}
    assert {code(server, size="50", recipient="nobody@example.org") for _ in range(3)} == {-1}
    assert [code(server, size="50"), code(server)] == [-1, 1]


@pytest.mark.parametrize("writeBehind", [False, True])
def test_killed(makeServer, database, writeBehind):
    """
    What passed before a SIGKILL is counted after it; with write-behind, all but the last second.
    """
    server = makeServer(POLICY.replace("'weight'", f"'writeBehind': {writeBehind}, 'weight'"), **database)
    assert flood([server], 120, sender="alice@example.net") == {-1: 120}
    if writeBehind:
        time.sleep(2)
    server.kill()
    server.start()
    assert flood([server], 120, sender="alice@example.net") == {-1: 80, 1: 40}


@pytest.mark.parametrize("hangs", [False, True])
def test_databaseFails(makeServer, needsMariaDB, hangs):
    """
    While the database is away, or hangs, the code is the configured one; afterwards all is counted as before.
    """
    mariadb = MariaDB()
    try:
        mariadb.start()
        server = makeServer(POLICY, database=mariadb.url)
        names = {"dos": 0, "onError1": 1, "onError-1": -1}
        for name in names:
            assert code(server, name) == -1
        (mariadb.freeze if hangs else mariadb.kill)()
        for _ in range(3):
            begun = time.monotonic()
            assert {name: code(server, name) for name in names} == names
            assert time.monotonic() < begun + 10
        assert "nothing can be counted" in server.request(policy_context="dos")
        (mariadb.thaw if hangs else mariadb.start)()
        deadline = time.monotonic() + 20
        while code(server, sender="other@example.net") != -1:
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.2)
        # One was charged before, and perhaps the question that the database had heard when it began to hang.
        passed = [code(server, "onError1") for _ in range(5)].count(-1)
        assert passed == 4 or (hangs and passed == 3)
    finally:
        mariadb.close()


def test_commands(makeServer, database):
    """
    Limits are listed, shown and reset in the running server, which starts counting anew at once.
    """
    server = makeServer(POLICY, **database)
    for _ in range(5):
        assert code(server, "onError1", sender="alice@example.net") == -1
    assert code(server, "onError1", sender="alice@example.net") == 1
    code(server, "dos", sender="bob@example.net", size="7")
    rows = asked(server, "limit", "list")["limits"]
    assert {(row["check"], row["key"], row["sum"]) for row in rows} >= {
        ("onError1", "alice@example.net", "5"),
        ("dos", "bob@example.net", "7, 7"),
    }
    assert [row["key"] for row in asked(server, "limit", "list", "--key", "bob*")["limits"]] == ["bob@example.net"]
    assert asked(server, "limit", "reset", "onError1", "alice@example.net") == {"reset": 1}
    assert code(server, "onError1", sender="alice@example.net") == -1
