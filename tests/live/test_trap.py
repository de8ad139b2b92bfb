"""
Traps in running servers: kept over restarts, and shared by servers with one MariaDB.
"""

import json
import threading
import time

import pytest

from ppolicy import controlclient

POLICY = """
modules = {
    'trap': ('Trap', {'traps': [f'trap{n}@example.org' for n in range(10)], 'treshold': 4}),
    'file': ('Trap', {'file': %r, 'treshold': 0, 'expire': 3, 'stateTable': 'short'}),
}
def check(factory, data, port):
    name, _, traps = data.get('policy_context', '').partition(' ')
    if not name:
        return 'DUNNO'
    code, info = factory.check(name, data, traps) if traps else factory.check(name, data)
    return '450', f'{code} {info}'
"""


@pytest.fixture
def traps(tmp_path):
    """The file of traps."""
    path = tmp_path / "traps"
    path.write_text("bait@example.org\n")
    return path


def ask(server, recipient="bob@example.org", client="192.0.2.1", name="trap", **more):
    """The code for a request."""
    action = server.request(
        recipient=recipient, client_address=client, policy_context=name, sender="alice@example.net", **more
    )
    return int(action.removeprefix("450 ").split(" ")[0])


def command(server, name, check="trap", **arguments):
    """What a command of the administrator answers."""
    wanted = {"family": "trap", "check": check, "command": name, "arguments": arguments}
    return controlclient.ask(str(server.stateDir / "control.sock"), "command", **wanted)


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request):
    """The options for a database."""
    return {} if request.param == "sqlite" else {"database": request.getfixturevalue("mariadb").url}


def test_restart(makeServer, database, traps):
    """What was touched is known after a clean stop and after SIGKILL, in the same second."""
    server = makeServer(POLICY % str(traps), **database)
    for number in range(5):
        assert ask(server) == -1
        assert ask(server, f"trap{number}@example.org") == -2
        if number % 2:
            server.kill()
        else:
            server.terminate()
        server.start()
    assert ask(server) == 1
    assert ask(server, client="192.0.2.2") == -1
    assert ask(server, "postmaster@example.org") == 0


def test_expire(makeServer, database, traps):
    """With real time, a client is free again after `expire` seconds, however much mail it sends meanwhile."""
    server = makeServer(POLICY % str(traps), **database)
    begin = time.monotonic()
    assert ask(server, "bait@example.org", name="file") == -2
    while ask(server, name="file") == 1:
        assert time.monotonic() - begin < 10
        time.sleep(0.1)
    assert time.monotonic() - begin > 2.5
    assert ask(server, name="file") == -1


def test_reload(makeServer, traps):
    """A trap that is written into the file is one soon after."""
    server = makeServer(POLICY % str(traps))
    assert ask(server, "new@example.org", name="file") == -1
    traps.write_text("bait@example.org\nnew@example.org\n")
    deadline = time.monotonic() + 10
    while ask(server, "new@example.org", name="file") != -2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_commands(makeServer, database, traps):
    """The administrator sees who is trapped, and lets them go."""
    server = makeServer(POLICY % str(traps), **database)
    for number in range(5):
        ask(server, f"trap{number}@example.org")
    ask(server, "trap0@example.org", "192.0.2.2")
    shown = command(server, "list")["clients"]
    assert {(one["client"], one["state"], one["touched"]) for one in shown} == {
        ("192.0.2.1", "trapped", 5),
        ("192.0.2.2", "watched", 1),
    }
    done = server.ppolicy("trap", "remove", "--client", "192.0.2.1", "--check", "trap", "--json")
    assert (json.loads(done.stdout), done.stderr) == ({"removed": 1}, "")
    assert [one["client"] for one in command(server, "list")["clients"]] == ["192.0.2.2"]
    assert ask(server) == -1


def test_try(makeServer, traps):
    """`ppolicy try` says what would be, and leaves no trace."""
    server = makeServer(POLICY % str(traps))
    words = ["try", "trap", "sender=a@example.net", "client_address=192.0.2.1"]
    for _ in range(2):
        for recipient, code in (("trap0@example.org", -2), ("bob@example.org", -1)):
            done = server.ppolicy(*words, f"recipient={recipient}", "--json")
            assert f'"code": {code}' in json.dumps(json.loads(done.stdout)), done.stdout + done.stderr
    assert command(server, "list") == {"clients": []}


def test_shared(makeServer, mariadb, traps):
    """Two servers with one MariaDB count together: traps touched here and there trap a client on both."""
    servers = [makeServer(POLICY % str(traps), database=mariadb.url) for _ in range(2)]
    for number in range(5):
        assert [ask(server) for server in servers] == [-1, -1]
        assert ask(servers[number % 2], f"trap{number}@example.org") == -2
    assert [ask(server) for server in servers] == [1, 1]
    command(servers[1], "remove", client="*")
    assert [ask(server) for server in servers] == [-1, -1]


def test_sharedAtOnce(makeServer, mariadb, traps):
    """However many touch traps on both servers at the same time, each trap counts once for a client."""
    servers = [makeServer(POLICY % str(traps), database=mariadb.url) for _ in range(2)]
    clients = [f"192.0.2.{n}" for n in range(10)]
    wrong = []

    def touch(server, numbers):
        with server.connect() as connection:
            for client in clients:
                for number in numbers:
                    action = connection.ask(
                        recipient=f"trap{number}@example.org",
                        client_address=client,
                        sender="alice@example.net",
                        policy_context="trap",
                        instance=f"{id(numbers)}.{number}.{client}",
                    )
                    if not action.startswith("450 -2"):
                        wrong.append(action)

    # Four of the traps by each, in different order: none is trapped. One more there, and all of them are.
    threads = [
        threading.Thread(target=touch, args=(server, numbers))
        for server in servers
        for numbers in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert {ask(server, client=client) for server in servers for client in clients} == {-1}
    assert {ask(servers[0], "trap4@example.org", client) for client in clients} == {-2}
    assert {ask(server, client=client) for server in servers for client in clients} == {1}
    assert {(one["touched"], one["mails"]) for one in command(servers[0], "list")["clients"]} == {(5, 25)}
