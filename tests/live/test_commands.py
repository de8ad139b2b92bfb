"""
The ppolicy command against a running server.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .ports import freePort

POLICY = """
modules = {'greylist': ('Greylist', {'delay': 300}), 'dummy': ('Dummy', {})}
def check(factory, data, port):
    factory.check('dummy', data)
    code, info = factory.check('greylist', data)
    return ('DEFER_IF_PERMIT', info[0]) if code < 0 else None
"""
MAIL = {"sender": "a@example.net", "recipient": "b@example.org", "client_address": "192.0.2.1"}


def command(server, *words, stdin=""):
    """Run the command on the server's configuration: (exit code, what it printed)."""
    done = server.ppolicy(*words, stdin=stdin, together=True)
    return done.returncode, done.stdout


def status(server):
    """What `ppolicy status --json` says."""
    code, out = command(server, "status", "--json")
    assert code == 0, out
    return json.loads(out)


def test_status(makeServer):
    """Status shows version, uptime, generation, listeners, connections, requests, modules and backends."""
    server = makeServer(POLICY)
    with server.connect() as client:
        for _ in range(3):
            client.ask(MAIL)
        shown = status(server)
    assert shown["generation"] == 1
    assert shown["uptime"] < 60
    assert f"127.0.0.1:{server.port}" in shown["listeners"]
    assert shown["connections"] == {"open": 1, "limit": 1000}
    assert shown["requests"]["answered"] == 4  # one when the server started
    assert (shown["modules"]["dummy"]["asked"], shown["modules"]["dummy"]["fromCache"]) == (4, 3)
    assert shown["modules"]["greylist"]["type"] == "Greylist"
    assert shown["backends"]["database"]["problem"] is None
    assert shown["pid"] == server.process.pid
    code, text = command(server, "status")
    assert code == 0
    for line in ("generation: 1", "listeners: ", "    type: Greylist"):
        assert line in text


def test_cacheFlush(makeServer):
    """One check's cached results are forgotten, or all; an unknown name is refused."""
    server = makeServer(POLICY)
    assert command(server, "cache", "flush", "dummy") == (0, "1 result forgotten\n")
    server.request(MAIL)
    assert command(server, "cache", "flush") == (0, "1 result, 0 answers of the DNS forgotten\n")
    code, out = command(server, "cache", "flush", "none")
    assert (code, out) == (1, "there is no check 'none'; modules has greylist, dummy\n")
    server.request(MAIL)
    dummy = status(server)["modules"]["dummy"]
    assert (dummy["asked"], dummy["fromCache"]) == (3, 0)


def test_reloadRefused(makeServer):
    """A configuration with mistakes is refused with all of them; the old generation serves on."""
    server = makeServer(POLICY)
    good = server.configuration.read_text()
    server.configuration.write_text("conLimit = 3\n" + good.replace("'delay'", "'dely'"))
    code, out = command(server, "reload")
    assert code == 1
    assert "ppolicy.conf:1: conLimit is no option, did you mean connLimit?" in out
    assert "dely: no such parameter, did you mean delay?" in out
    assert server.request(MAIL).startswith("DEFER_IF_PERMIT ")
    assert status(server)["generation"] == 1
    server.configuration.write_text(good)
    assert command(server, "reload") == (0, "generation 2 is at work\n")


def test_reloadKeepsTheCache(makeServer):
    """A reload keeps the cached results of checks that did not change."""
    server = makeServer(POLICY)
    command(server, "reload")
    server.request(MAIL)
    assert status(server)["modules"]["dummy"]["fromCache"] == 1
    server.configuration.write_text(
        server.configuration.read_text().replace("'Dummy', {}", "'Dummy', {'test1': 'x'}")
    )
    command(server, "reload")
    server.request(MAIL)
    dummy = status(server)["modules"]["dummy"]
    assert (dummy["asked"], dummy["fromCache"]) == (3, 1)


def test_reloadDelaysNoAnswer(makeServer):
    """While a module of the next generation starts and loads for seconds, requests are answered as ever."""
    server = makeServer(POLICY)
    slow = (
        "from ppolicy.check import Check\n"
        "class Slow(Check):\n    blocking = False\n"
        "    def start(self):\n        self.rows = {str(n): (n, str(n)) for n in range(3_000_000)}\n"
        "    def check(self, data):\n        return 1, len(self.rows)\n"
        "modules['slow'] = (Slow, {})\n"
    )
    server.configuration.write_text(server.configuration.read_text() + slow)
    asked = []
    with server.connect() as client:
        client.ask(MAIL)
        server.hangUp()
        while not any("generation 2 serves" in line for line in server.output):
            begin = time.monotonic()
            client.ask(MAIL)
            asked.append(time.monotonic() - begin)
            assert len(asked) < 200_000
    assert len(asked) > 100
    # The load is one wait if it holds the reactor; a machine that is slow is so for both sides.
    assert max(asked) < sum(asked) / 2


def test_reloadPorts(makeServer):
    """A reload binds new ports and leaves old ones; connections on them stay."""
    server = makeServer(POLICY)
    text = server.configuration.read_text()
    path = server.folder / "other"
    server.configuration.write_text(
        text.replace(f"ppolicyPort = {server.port}", f"ppolicyPort = 'unix:{path}:mode=600'")
    )
    old = server.connect()
    old.ask(MAIL)
    assert command(server, "reload")[0] == 0
    assert path.stat().st_mode & 0o777 == 0o600
    old.ask(MAIL)
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    server.address = str(path)
    server.request(MAIL)
    server.configuration.write_text(text.replace(str(server.port), "'unix:/nowhere/at/all'", 1))
    code, out = command(server, "reload")
    assert code == 1
    assert "/nowhere/at/all" in out
    server.request(MAIL)


def test_reloadSamePorts(makeServer):
    """Ports that are open already may be written in another way; what only a new start can change is told."""
    server = makeServer(POLICY)
    text, port, path = server.configuration.read_text(), freePort(), f"unix:{server.folder}/policy.sock"

    def reload(value):
        server.configuration.write_text(text.replace(f"ppolicyPort = {server.port}", f"ppolicyPort = {value!r}"))
        return command(server, "reload")

    for value in (port, [f"127.0.0.1:{port}", f"[::1]:{port}"], f"127.0.0.1:{port}", port, path):
        assert reload(value)[0] == 0, value
    server.address = f"{server.folder}/policy.sock"
    server.request(MAIL)
    code, out = reload(f"{path}:mode=666")
    assert code == 1
    assert f"this server has {path} open: start it again to change that" in out
    assert reload(port)[0] == 0
    code, out = reload(f"*:{port}")
    assert code == 1
    assert f"this server has 127.0.0.1:{port} open: start it again to change that" in out
    assert not Path(server.address).exists()


def test_changesForTheNextStart(makeServer):
    """What a running server cannot change is told, not ignored."""
    server = makeServer(POLICY)
    server.configuration.write_text(server.configuration.read_text() + "workerThreads = 7\n")
    code, out = command(server, "reload")
    assert code == 0
    assert "workerThreads has changed: this takes effect when the server is started again" in out


@pytest.mark.parametrize("isThere", [False, True])
def test_privacyOverReload(makeServer, isThere):
    """Pseudonyms stay the same when a reload finds another folder for the next start."""
    server = makeServer(POLICY, privacy="hash")
    server.request(MAIL)
    other = server.folder / "other"
    if isThere:
        other.mkdir()
    text = server.configuration.read_text()
    server.configuration.write_text(
        text.replace(f"stateDir = {str(server.stateDir)!r}", f"stateDir = {str(other)!r}")
        + f"controlSocket = {str(server.stateDir / 'control.sock')!r}\n"
    )
    code, out = command(server, "reload")
    assert code == 0, out
    assert "stateDir has changed: this takes effect when the server is started again" in out
    assert not (other / "privacy.key").exists()
    server.request(MAIL)
    assert len(json.loads(command(server, "why", "--json", MAIL["sender"])[1])["decisions"]) == 2


def test_explain(makeServer):
    """A dry run beside the running server changes nothing; with --write the server itself is asked."""
    server = makeServer(POLICY)
    request = "".join(f"{name}={value}\n" for name, value in MAIL.items()) + "\n"
    for _ in range(2):
        code, out = command(server, "explain", stdin=request)
        assert code == 0
        assert "300s" in out
    asked = status(server)["modules"]["greylist"]["asked"]
    time.sleep(1.1)
    code, out = command(server, "explain", "--write", stdin=request)
    assert (code, "300s" in out) == (0, True)
    assert status(server)["modules"]["greylist"]["asked"] == asked + 1
    time.sleep(1.1)
    assert int(server.request(MAIL).rpartition(" ")[2].rstrip("s")) < 300
    code, out = command(server, "explain", stdin=request)
    assert "300s" not in out  # and the dry run reads what the server has written


def test_explainPort(makeServer):
    """The server, too, is told at which of its ports the request came in."""
    server = makeServer("def check(factory, data, port):\n    return 'WARN', port.host\n")
    for host in ("127.0.0.1", "::1"):
        port = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
        code, out = command(server, "explain", "--write", "--port", port, stdin="sender=\n")
        assert (code, out) == (0, f"action=WARN {host}\n")
    assert command(server, "explain", "--write", "--port", "1", stdin="sender=\n")[0] == 1


def test_secondServer(makeServer):
    """A second server on the same state is refused in a sentence."""
    server = makeServer(POLICY)
    second = server.folder / "second.conf"
    second.write_text(server.configuration.read_text().replace(str(server.port), f"'unix:{server.folder}/s2'", 1))
    done = subprocess.run(
        [sys.executable, "-m", "ppolicy", "run", "-c", str(second)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert f"is in use by another server (pid {server.process.pid})" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="LIVE TEST SKIPPED: becoming another user needs root")
def test_user(makeServer):
    """With the option user the server gives up root's privileges, and still serves and remembers."""
    server = makeServer(POLICY, user="nobody")
    shown = Path(f"/proc/{server.process.pid}/status").read_text()
    uids = next(line.split()[1:] for line in shown.splitlines() if line.startswith("Uid:"))
    assert "0" not in uids
    server.request(MAIL)
    time.sleep(1)
    owner = (server.stateDir / "ppolicy.sqlite").stat().st_uid
    assert str(owner) == uids[0]
    assert status(server)["backends"]["database"]["problem"] is None
    server.terminate()
