"""
Health in `ppolicy status`: a server whose every backend is broken or gone, and one that is well.
"""

import itertools
import json
import shutil
import time
from pathlib import Path

import pytest

from .ports import freePort

GEOIP = Path(__file__).parent.parent / "data" / "geoip"

POLICY = """
from ppolicy.check import Check

class Odd(Check):
    blocking = False

    def status(self):
        raise ValueError('as asked')

    def check(self, data):
        return 1, None

modules = {{
    'country': ('Country', {{'dataPath': '{folder}/country.mmdb'}}),
    'networks': ('List', {{'param': 'client_address', 'file': '{folder}/networks.txt'}}),
    'vips': ('List', {{'param': 'recipient', 'table': 'vips', 'cacheAll': True}}),
    'trap': ('Trap', {{'file': '{folder}/traps.txt'}}),
    'p0f': ('P0f', {{'socket': '{folder}/p0f.socket'}}),
    'whois': ('Whois', {{}}),
    'helo': ('Resolve', {{'param': 'helo_name', 'type': 'name->ip'}}),
    'dump': ('DumpDataDB', {{}}),
    'dumpfile': ('DumpDataFile', {{'fileName': '/dev/full'}}),
    'odd': (Odd, {{}}),
}}
{more}

def check(factory, data, port):
    for name in modules:
        factory.check(name, data)
"""
LDAP = """
modules['ldap'] = ('LookupLDAP', {{'param': 'recipient', 'uri': 'ldap://127.0.0.1:{port}', 'timeout': 1,
                                  'base': 'dc=example,dc=org', 'bind_dn': 'cn=reader', 'bind_pass': 'geheim1'}})
"""
MAIL = {"sender": "a@example.net", "recipient": "b@example.org", "client_address": "9.2.3.4"}


def command(server, *words):
    """`ppolicy` on the server's configuration, finished."""
    return server.ppolicy(*words)


def shownProblems(server):
    """{where: problem} of `ppolicy status --json`."""
    done = command(server, "status", "--json")
    assert done.returncode == 0, done.stderr
    return {one["where"]: one["problem"] for one in json.loads(done.stdout)["health"]}


@pytest.fixture
def hasLDAP():
    """Is python-ldap here? Without it that check is left out."""
    try:
        import ldap  # noqa: F401, PLC0415 - only whether it is there
    except ImportError:
        return False
    return True


def makeBroken(makeServer, folder, hasLDAP):
    """A server all of whose backends are away, and whose files were spoilt after the start."""
    shutil.copy(GEOIP / "GeoIP2-Country-Test.mmdb", folder / "country.mmdb")
    (folder / "networks.txt").write_text("192.0.2.0/24\n")
    (folder / "traps.txt").write_text("trap@example.org\n")
    more = LDAP.format(port=freePort()) if hasLDAP else ""
    server = makeServer(
        POLICY.format(folder=folder, more=more),
        database=f"mysql+pymysql://ppolicy:geheim2@127.0.0.1:{freePort()}/ppolicy",
        dnsServers=[f"127.0.0.1:{freePort()}"],
    )
    (folder / "country.mmdb").write_text("no database")
    (folder / "networks.txt").write_text("192.0.2.0/99\n")
    (folder / "traps.txt").unlink()
    return server


def test_everyBackend(makeServer, tmp_path, hasLDAP):
    """Each backend that is away and each file that was spoilt is told, no secret is; --check has its code."""
    server = makeBroken(makeServer, tmp_path, hasLDAP)
    wanted = {
        "country": "country.mmdb: it cannot be used: it is no MaxMind DB; what was read before is used",
        "networks": "networks.txt:1: 192.0.2.0/99 is no network",
        "vips": "list vips cannot be loaded: ",
        "trap": "traps.txt: No such file or directory; the entries read before are used",
        "p0f": "p0f cannot be reached at ",
        "whois": "",
        "dump": "Connection refused",
        "dumpfile": "/dev/full: No space left on device",
        "odd": "its status() failed with ValueError: as asked",
        "database": "Connection refused",
        "dns": "no name server answers",
    } | ({"ldap": "Can't contact LDAP server"} if hasLDAP else {})
    numbers = itertools.count()
    deadline = time.monotonic() + 30
    while True:
        for _ in range(5):
            server.request(MAIL, helo_name=f"h{next(numbers)}.example.net")
        shown = shownProblems(server)
        missing = {where: text for where, text in wanted.items() if text not in shown.get(where, "nothing")}
        if not missing:
            break
        assert time.monotonic() < deadline, (missing, shown)
        time.sleep(0.5)
    done = command(server, "status")
    assert done.returncode == 0
    first, *lines = done.stdout.splitlines()
    assert first == f"health: {len(shown)} problems"
    assert {line.partition(": ")[0].strip() for line in lines[: len(shown)]} == set(shown)
    assert "geheim" not in done.stdout
    assert "geheim" not in command(server, "status", "--json").stdout
    checked = command(server, "status", "--check")
    assert (checked.returncode, checked.stderr) == (5, "")
    assert checked.stdout.splitlines()[0] == first
    assert len(checked.stdout.splitlines()) == len(shown) + 1
    assert command(server, "status", "--check", "--json").returncode == 5


def test_well(makeServer):
    """Where nothing is wrong the first line says so; a refused reload is told until one works."""
    server = makeServer("modules = {'greylist': ('Greylist', {})}\ndef check(factory, data, port): pass\n")
    done = command(server, "status", "--check")
    assert (done.returncode, done.stdout) == (0, "health: ok\n")
    assert command(server, "status").stdout.startswith("health: ok\nversion: ")
    good = server.configuration.read_text()
    server.configuration.write_text(good + "conLimit = 3\n")
    assert server.reload().returncode == 1
    done = command(server, "status", "--check")
    assert done.returncode == 5
    assert "reload: the last one was refused: " in done.stdout
    assert "conLimit is no option, did you mean connLimit?" in done.stdout
    server.configuration.write_text(good)
    assert server.reload().returncode == 0
    assert command(server, "status", "--check").returncode == 0
    server.terminate()
    assert command(server, "status", "--check").returncode == 3


def test_worksAgain(makeServer, tmp_path):
    """What was wrong with a file is told no more once the file is right again."""
    (tmp_path / "networks.txt").write_text("192.0.2.0/24\n")
    server = makeServer(
        f"modules = {{'networks': ('List', {{'param': 'client_address', 'file': '{tmp_path}/networks.txt'}})}}\n"
        "def check(factory, data, port): pass\n"
    )
    for text, problems in (("192.0.2.0/99\n", {"networks"}), ("192.0.2.0/25\n", set())):
        (tmp_path / "networks.txt").write_text(text)
        deadline = time.monotonic() + 10
        while set(shownProblems(server)) != problems:
            assert time.monotonic() < deadline
            time.sleep(0.2)
