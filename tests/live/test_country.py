"""
The file of countries of a running server: replaced, broken, truncated, while requests go on.
"""

import shutil
import threading
import time

import pytest

from tests.stalls import took
from tests.test_geoip import BROKEN, CITIES, COUNTRIES, NETWORKS

POLICY = """
modules = {
    'country': ('Country', {'dataPath': %r, 'asnPath': %r}),
    'home': ('Country', {'dataPath': %r, 'country': ['GB', 'CZ']}),
}
def check(factory, data, port):
    name = data.get('policy_context')
    if not name:
        return 'DUNNO'
    code, info = factory.check(name, data)
    return '450', f'{code} {info} {info and info.city}'
"""
_MARKER = b"\xab\xcd\xefMaxMind.com"


@pytest.fixture
def path(tmp_path):
    """The file."""
    path = tmp_path / "data.mmdb"
    shutil.copy(COUNTRIES, path)
    return path


@pytest.fixture
def server(makeServer, path):
    """A running server."""
    return makeServer(POLICY % (str(path), str(NETWORKS), str(path)))


def replace(path, octets):
    new = path.with_suffix(".new")
    new.write_bytes(octets)
    new.replace(path)


def ask(server, address="81.2.69.160", name="country", **more):
    """Code, country and city."""
    return server.request(client_address=address, policy_context=name, **more).removeprefix("450 ")


def waitFor(server, expected):
    deadline = time.monotonic() + 10
    while ask(server) != expected:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)


def test_codes(server):
    """A country, another one, none, for both families."""
    assert ask(server) == "1 GB None"
    assert ask(server, name="home") == "1 GB None"
    assert ask(server, "2001:218::1", "home") == "-1 JP None"
    assert ask(server, "192.0.2.1", "home") == "0 None None"
    assert ask(server, "unknown", "home") == "0 None None"


def test_reload(server, path):
    """Results that are cached are forgotten when the file is replaced."""
    assert ask(server) == "1 GB None"
    replace(path, CITIES.read_bytes())
    waitFor(server, "1 GB London")


def test_broken(server, path):
    """
    Files that are broken, truncated in place, written slowly or gone: the old data stay in use, one line in the
    log of each check says why, and requests go on meanwhile.
    """
    for number, octets in enumerate((BROKEN[0].read_bytes(), b"", NETWORKS.read_bytes())):
        before = len(server.output)
        replace(path, octets)
        server.waitForLog("what was read before is used", start=before)
        assert ask(server, f"81.2.69.{160 + number}") == "1 GB None"
    before = len(server.output)
    with path.open("wb") as stream:  # in place, as cp does it
        octets = CITIES.read_bytes()
        half = len(octets) // 2
        stream.write(octets[:half])
        stream.flush()
        time.sleep(5)
        assert ask(server, "2001:218::1") == "1 JP None"
        problems = [line for line in server.output[before:] if "what was read before" in line]
        assert len(problems) <= 2, problems  # for each of the two checks
        stream.write(octets[half:])
    waitFor(server, "1 GB London")
    path.unlink()
    server.waitForLog("No such file", start=before)
    assert ask(server, "81.2.69.170").startswith("1 GB")


def test_large(server, path):
    """Nobody waits while a large file is read."""
    octets = CITIES.read_bytes()
    end = octets.rfind(_MARKER)
    slowest, done = [0.0], threading.Event()

    def askOn():
        with server.connect() as connection:
            number = 0
            while not done.is_set():
                number += 1
                begin = time.monotonic()
                connection.ask(client_address=f"10.0.{number >> 8 & 255}.{number & 255}", policy_context="country")
                slowest[0] = max(slowest[0], took(begin))
                time.sleep(0.005)

    thread = threading.Thread(target=askOn)
    thread.start()
    try:
        replace(path, octets[:end] + bytes(150_000_000) + octets[end:])
        waitFor(server, "1 GB London")
    finally:
        done.set()
        thread.join(10)
    assert slowest[0] < 1


def test_missing(server, path):
    """Without its file a configuration is refused, and the parameter named; the running server stays."""
    path.rename(path.with_suffix(".old"))
    done = server.reload()
    assert done.returncode != 0
    assert f"country (Country): dataPath: {path}: No such file" in done.stdout
    assert ask(server) == "1 GB None"


def test_try(server):
    """`ppolicy try` answers."""
    done = server.ppolicy("try", "home", "client_address=2001:218::1")
    assert "-1" in done.stdout and "JP" in done.stdout, done.stdout + done.stderr
