"""
Killed in the middle of greylisting: the database is whole, and knows what was acknowledged.
"""

import itertools
import os
import random
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stalls import took

from .mariadb import MariaDB
from .wire import Closed, Wire, request

KILLS = int(os.environ.get("PPOLICY_KILLS") or 6)
CONNECTIONS = 6
ENOUGH = 50
DELAY = 600

POLICY = f"""
modules = {{'greylist': ('Greylist', {{'delay': {DELAY}, 'writeBehind': %s}})}}

def check(factory, data, port):
    code, info = factory.check('greylist', data)
    return 'dunno', f'{{code}} {{info[1]}}'
"""

# No triplet is ever met twice but by intention.
_fresh = itertools.count(1)


def triplet(number):
    """
    The request of one sender, recipient and client; each number is another one.
    """
    client = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {"sender": f"s{number}@example.com", "recipient": f"r{number}@example.org", "client_address": client}


def addresses(number):
    """
    Sender and recipient of a triplet; how clients are stored is another matter.
    """
    return tuple(triplet(number).values())[:2]


def ask(wire, number):
    """
    Greylist a triplet; the code, and the seconds that it still has to wait.
    """
    said = wire.ask(request(instance=f"{number:x}.{time.monotonic_ns():x}", **triplet(number)))
    code, seconds = said.removeprefix("dunno ").split()
    return int(code), int(seconds)


def load(address, acknowledged, mayBeUnknown):
    """
    Greylist fresh triplets until the server is gone, noting when each was answered with a code that promises
    something.
    """
    try:
        with Wire(address) as wire:
            while True:
                number = next(_fresh)
                said = ask(wire, number)
                if mayBeUnknown and said[0] == 0:
                    continue
                assert said == (-1, DELAY)
                acknowledged[number] = time.monotonic()
    except (Closed, OSError):
        pass


def endUnderLoad(server, end, seconds, mayBeUnknown=False):
    """
    Kill or stop the server while some connections ask as fast as they can.

    @return: the numbers of the triplets that were answered, with the time of the answer, and the time of death; as
        much earlier as the machine stood still.
    """
    acknowledged = {}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        loads = [pool.submit(load, server.address, acknowledged, mayBeUnknown) for _ in range(CONNECTIONS)]
        begin = time.monotonic()
        while len(acknowledged) <= ENOUGH:
            assert time.monotonic() - begin < 20, "too little load"
            time.sleep(0.01)
        begin = time.monotonic()
        time.sleep(seconds)
        stood = time.monotonic() - begin - took(begin)
        died = time.monotonic()
        end()
        for one in loads:
            one.result()
    return acknowledged, died - stood


def rows(server):
    """
    Sender and recipient of each row in the database that a killed server left, read from a copy: the server is to
    repair it by itself.
    """
    copy = server.folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in server.stateDir.glob("ppolicy.sqlite*"):
        shutil.copy(file, copy)
    with sqlite3.connect(copy / "ppolicy.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = database.execute("SELECT sender, recipient FROM greylist").fetchall()
    database.close()
    assert len(set(found)) == len(found)
    return set(found)


def missing(server, acknowledged):
    """
    Those of the triplets that are not in the database.
    """
    present = rows(server)
    return [number for number in acknowledged if addresses(number) not in present]


def expectKnown(server, acknowledged):
    """
    The server must know triplets from before: they need not wait as long as a new one.
    """
    numbers = random.Random(1).sample(sorted(acknowledged), min(20, len(acknowledged)))
    youngest = max(acknowledged[number] for number in numbers)
    time.sleep(max(0, youngest + 1.1 - time.monotonic()))
    with Wire(server.address) as wire:
        for number in numbers:
            code, seconds = ask(wire, number)
            age = time.monotonic() - acknowledged[number]
            assert code == -1
            assert DELAY - age - 1 < seconds < DELAY, f"{number} was met {age:.1f} s ago"
        assert ask(wire, next(_fresh)) == (-1, DELAY)


def test_killed(makeServer):
    """
    Without writeBehind, what was answered before SIGKILL is in the database, and the restarted server knows it.
    """
    server = makeServer(POLICY % False, requestLog=None)
    for kill in range(KILLS):
        acknowledged, _ = endUnderLoad(server, server.kill, 0.2 + kill % 10 * 0.05)
        lost = missing(server, acknowledged)
        assert not lost, f"{len(lost)} of {len(acknowledged)} are lost"
        server.start()
        expectKnown(server, acknowledged)
    assert "Traceback" not in server.log()


def test_killedWriteBehind(makeServer):
    """
    With writeBehind nothing older than the last second is lost; two where the load and other tests have the
    processors as well.
    """
    server = makeServer(POLICY % True, requestLog=None)
    everything = {}
    for kill in range(KILLS):
        acknowledged, died = endUnderLoad(server, server.kill, 2.2 + kill % 10 * 0.03)
        old = {number: when for number, when in acknowledged.items() if when < died - 2}
        assert len(old) > ENOUGH
        lost = missing(server, old | everything)
        assert not lost, (
            f"{len(lost)} of {len(old)} are lost, the youngest {died - max(old[one] for one in lost):.2f} s old"
        )
        everything |= old
        server.start()
        expectKnown(server, old)
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("writeBehind", (False, True))
def test_terminated(makeServer, writeBehind):
    """
    SIGTERM under load loses nothing, not of the last second either.
    """
    server = makeServer(POLICY % writeBehind, requestLog=None)
    for _ in range(3):
        acknowledged, _ = endUnderLoad(server, server.terminate, 0.5)
        lost = missing(server, acknowledged)
        assert not lost, f"{len(lost)} of {len(acknowledged)} are lost"
        server.start()
        expectKnown(server, acknowledged)


def test_killedAtStart(makeServer):
    """
    A server killed while it starts leaves a database that the next one can use.
    """
    server = makeServer(POLICY % False, requestLog=None)
    with Wire(server.address) as wire:
        known = {number: time.monotonic() for number in itertools.islice(_fresh, 200) if ask(wire, number)}
    server.kill()
    for pause in range(8):
        starting = threading.Thread(target=_tryStart, args=(server,))
        starting.start()
        time.sleep(0.1 + pause * 0.05)
        server.process.kill()
        starting.join()
        assert not missing(server, known)
    server.start()
    expectKnown(server, known)


def _tryStart(server):
    try:
        server.start()
    except (AssertionError, Closed, OSError):
        pass  # killed meanwhile


def test_killedWithMariaDB(makeServer, needsMariaDB):
    """
    SIGKILL of the server, of the database, and of both: MariaDB has what was acknowledged.
    """
    own = MariaDB()
    try:
        own.start()
        server = makeServer(POLICY % True, requestLog=None, database=own.url)
        everything = {}
        for kill in range(max(3, KILLS // 5)):

            def die(kill=kill):
                if kill % 3:
                    own.kill()
                server.kill()

            acknowledged, _ = endUnderLoad(server, die, 0.7, mayBeUnknown=True)
            everything |= acknowledged
            if kill % 3:
                own.start()
            present = set(own.execute("SELECT sender, recipient FROM greylist"))
            lost = [number for number in everything if addresses(number) not in present]
            assert not lost, f"kill {kill}: {len(lost)} of {len(everything)} are lost"
            server.start()
            if kill % 3 == 0:
                expectKnown(server, acknowledged)
            else:
                _expectKnownSoon(server, acknowledged)
        assert "Traceback" not in server.log()
    finally:
        own.close()


def _expectKnownSoon(server, acknowledged):
    number = max(acknowledged)
    deadline = time.monotonic() + 10
    with Wire(server.address) as wire:
        while (said := ask(wire, number))[0] != -1:
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
    expectKnown(server, acknowledged)
