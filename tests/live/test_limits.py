"""
The bounds that no client gets beyond: octets, seconds, connections, and what it may have the server remember.
"""

import resource
import selectors
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.stalls import took

from .policyserver import Server
from .wire import LARGEST, Closed, Wire, request

# Seconds in which a request has to be complete.
RECEIVE = 30

POLICY = """
ppolicyPort = [ppolicyPort, 'unix:socket:mode=666']

modules = {'sleep': ('Sleep', {'sleep': 1})}

def check(factory, data, port):
    for _ in range(int(data.get('wait', 0))):
        factory.check('sleep', data)
    return 'dunno', data.get('serial', '-')
"""


@pytest.fixture
def server(makeServer):
    """
    A server that waits as many seconds as a request says; whatever happens, no exception may get loose in it.
    """
    server = makeServer(POLICY, requestLog=None)
    yield server
    assert "Traceback" not in server.log()
    assert "Unhandled" not in server.log()


def address(server, kind):
    """
    One of the server's two addresses.
    """
    return server.address if kind == "tcp" else str(server.folder / "socket")


def ask(serial=0, **more):
    """
    The octets of a request with this serial number.
    """
    return request(serial=serial, **more)


def memory(server):
    """
    Bytes of memory that the server has in use.
    """
    fields = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii").split()
    return int(fields[fields.index("VmRSS:") + 1]) * 1024


def filled(length):
    """
    A request of just so many octets.
    """
    start = b"serial=7\nsender="
    return start + b"s" * (length - len(start) - 2) + b"\n\n"


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_largest(server, kind):
    """
    A request of 64 KB is answered; a longer one ends its connection, and no other one.
    """
    with Wire(address(server, kind)) as other:
        assert other.ask(ask(1)) == "dunno 1"
        with Wire(address(server, kind)) as wire:
            for _ in range(3):
                assert wire.ask(filled(LARGEST)) == "dunno 7"
        for length in (LARGEST + 3, LARGEST + 5000, 1_000_000):
            with Wire(address(server, kind)) as wire:
                assert wire.ask(ask(2)) == "dunno 2"
                with pytest.raises((Closed, OSError)):
                    wire.ask(filled(length))
            assert other.ask(ask(3)) == "dunno 3"


@pytest.mark.parametrize("kind", ("tcp", "unix"))
@pytest.mark.parametrize(
    "endless", (b"sender=" + b"s" * 100_000, b"a=1\n" * 30_000, b"\r" * 100_000, b"\0" * 100_000)
)
def test_endless(server, kind, endless):
    """
    Once more than 64 KB of a request came in, its end is not waited for; what was asked before is answered.
    """
    begin = time.monotonic()
    with Wire(address(server, kind)) as wire:
        try:
            wire.send(ask(4) + endless)
        except OSError:
            pass  # it did not wait for the last octets
        assert wire.socket.recv(1000) == b"action=dunno 4\n\n"
        wire.expectEnd()
    assert took(begin) < RECEIVE / 3
    with Wire(address(server, kind)) as wire:
        assert wire.ask(ask(5)) == "dunno 5"


def _dribble(wire, stream, pause=1.0, whole=b""):
    """
    Send piece by piece, then all of `whole`, until the server hangs up or sends something.

    @return: seconds since the first piece, and what came.
    """
    begin = time.monotonic()
    for number, piece in enumerate([*stream, whole], 1):
        try:
            if piece:
                wire.send(piece)
            # By the clock: where each piece is a little late, the last one is not later than that.
            wire.socket.settimeout(max(0.01, begin + number * pause - time.monotonic()))
            return time.monotonic() - begin, wire.socket.recv(1000)
        except TimeoutError:
            pass
        except OSError:
            return time.monotonic() - begin, b""
    wire.socket.settimeout(10)
    try:
        return time.monotonic() - begin, wire.socket.recv(1000)
    except OSError:
        return time.monotonic() - begin, b""


def _octets(stream, count=60):
    return [stream[number : number + 1] for number in range(count)]


# What is sent, one piece each second; each of these never ends in time.
SLOW = {
    "an octet each second": _octets(ask(1)),
    "half a request": [ask(1)[:-20], *[b""] * 60],
    "only the blank line is missing": [ask(1)[:-1], *[b""] * 60],
    "only an octet of CRLF is missing": [ask(1).replace(b"\n", b"\r\n")[:-1], *[b""] * 60],
    "one octet": [b"r", *[b""] * 60],
    "CR": [b"\r", *[b""] * 60],
    "an attribute that never ends": [b"sender=", *[b"s" * 1000] * 60],
    "attributes that never end": [b"a=1\nb=2\n"] * 60,
    "after a request": [ask(2)[:100], *[b""] * 60],
}


@pytest.fixture(scope="module", autouse=True)
def slowly():
    """
    Slow clients at work on a server of their own while the other tests run: {(kind, name): Future of their fate}.
    """
    server = Server()
    server.configure(POLICY, requestLog=None)
    server.start()

    def send(kind, name):
        with Wire(address(server, kind)) as wire:
            if name == "after a request":
                assert wire.ask(ask(1)) == "dunno 1"
            return _dribble(wire, SLOW[name])

    def sendInTime(kind):
        with Wire(address(server, kind)) as wire:
            result = _dribble(wire, _octets(ask(9), RECEIVE - 4), whole=ask(9)[RECEIVE - 4 :])
            wire.socket.settimeout(10)
            # Its time is its own: the next request has 30 s as well.
            for _ in range(3):
                wire.send(ask(8)[:50])
                time.sleep(1)
                assert wire.ask(ask(8)[50:]) == "dunno 8"
            return result

    def idle(kind):
        with Wire(address(server, kind)) as fresh, Wire(address(server, kind)) as used:
            assert used.ask(ask(3)) == "dunno 3"
            time.sleep(RECEIVE + 2)
            for wire in (fresh, used):
                wire.expectNothing()
                assert wire.ask(ask(4)) == "dunno 4"

    with ThreadPoolExecutor(2 * (len(SLOW) + 2)) as pool:
        futures = {}
        for kind in ("tcp", "unix"):
            futures |= {(kind, name): pool.submit(send, kind, name) for name in SLOW}
            futures[kind, "in time"] = pool.submit(sendInTime, kind)
            futures[kind, "idle"] = pool.submit(idle, kind)
        yield futures
    assert "Traceback" not in server.log()
    server.close()


LIMITED = """
def check(factory, data, port):
    return 'dunno', data.get('serial', '-')
"""


def eventually(function, seconds=5):
    """
    Call until it returns something true.
    """
    deadline = time.monotonic() + seconds
    while not (result := function()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
    return result


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_connLimit(makeServer, kind):
    """
    A connection beyond connLimit gets returnOnConnLimit for its first request and is closed; slots are released.
    """
    server = makeServer(
        LIMITED, kind, requestLog=None, connLimit=5, returnOnConnLimit=("450", "4.3.2 Too many for a test")
    )
    wires = []

    def served():
        wire = Wire(server.address)
        if wire.ask(ask(6)) == "dunno 6":
            wires.append(wire)
            return True
        wire.close()
        return False

    for _ in range(5):
        eventually(served)
    for stream in (ask(1), ask(1) + ask(2), ask(1) + ask(2)[:50], b"junk\n\n"):
        with Wire(server.address) as wire:
            wire.send(stream)
            assert wire.socket.recv(1000) == b"action=450 4.3.2 Too many for a test\n\n"
            wire.expectEnd()
    for number, wire in enumerate(wires):
        assert wire.ask(ask(number)) == f"dunno {number}"
    assert server.status()["requests"]["beyondConnLimit"] >= 4
    # Each way of leaving gives the slot to the next one.
    for leave in (Wire.close, Wire.reset, lambda wire: (wire.send(ask()[:50]), wire.reset()), Wire.close):
        assert not served()
        leave(wires.pop(0))
        eventually(served)
    assert not served()
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_pipelineWhileWaiting(server, kind):
    """
    Whatever is pipelined behind a request that waits is answered after it, in order, and delays nobody else.
    """
    count = 2000
    stream = ask("first", wait=2) + b"".join(ask(number) for number in range(count))
    stream += ask("last", wait=2) + ask("end")
    assert len(stream) > 10 * LARGEST
    wanted = ["dunno first", *(f"dunno {number}" for number in range(count)), "dunno last", "dunno end"]
    found = []
    with Wire(address(server, kind)) as wire, Wire(address(server, kind)) as other:
        thread = threading.Thread(target=lambda: found.append(wire.talk([stream], len(wanted))))
        begin = time.monotonic()
        thread.start()
        while thread.is_alive():
            asked = time.monotonic()
            assert other.ask(ask(1)) == "dunno 1"
            assert took(asked) < 1.5
            time.sleep(0.02)
        thread.join()
    assert found == [wanted]
    assert 4 <= time.monotonic() - begin < 15


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_floodWhileWaiting(server, kind):
    """
    While a request waits, the server takes no more than 64 KB of what follows: the rest stays with the client.
    """
    with Wire(address(server, kind)) as wire:
        assert wire.ask(ask(1)) == "dunno 1"
        before = memory(server)
        block = b"".join(ask(number) for number in range(100))
        wire.send(ask(2, wait=1))
        sent = flood(wire, block, 0.8)
        assert memory(server) - before < 3_000_000
        # Complete what is there by half.
        rest = block[sent % len(block) :] if sent % len(block) else b""
        count = (sent + len(rest)) // len(block) * 100
        assert wire.talk([rest] if rest else [], 1 + count)[0] == "dunno 2"


def flood(wire, block, seconds):
    """
    Send a block over and over without reading anything, for so long. Returns how many octets were taken.
    """
    ends, sent = time.monotonic() + seconds, 0
    with selectors.DefaultSelector() as selector:
        selector.register(wire.socket, selectors.EVENT_WRITE)
        while (left := ends - time.monotonic()) > 0:
            if selector.select(left):
                wire.socket.setblocking(False)
                sent += wire.socket.send(block[sent % len(block) :])
                wire.socket.setblocking(True)
    wire.socket.settimeout(20)
    return sent


# Replies as long as these soon fill all buffers, and as many different ones cannot be kept as one.
SERIALS = 20_000
DISTINCT = b"".join(f"serial={number:0400}\n\n".encode() for number in range(SERIALS))


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_neverReads(server, kind):
    """
    A client that asks and asks but reads no reply does not fill the server's memory, and delays nobody.
    """
    with Wire(address(server, kind)) as wire, Wire(address(server, kind)) as other:
        assert wire.ask(ask(1)) == "dunno 1"
        before = memory(server)
        thread = threading.Thread(target=flood, args=(wire, DISTINCT, 3))
        thread.start()
        while thread.is_alive():
            asked = time.monotonic()
            assert other.ask(ask(2)) == "dunno 2"
            assert took(asked) < 3
            time.sleep(0.05)
        grown = memory(server) - before
    assert grown < 20_000_000, f"{grown / 1e6:.0f} MB more after 3 s"


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_readsLate(server, kind):
    """
    A client that reads its replies late, when no more of them fit anywhere, gets them all.
    """
    with Wire(address(server, kind)) as wire:
        sent = flood(wire, DISTINCT, 2)
        rest = DISTINCT[sent % len(DISTINCT) :] if sent % len(DISTINCT) else b""
        count = (sent + len(rest)) // len(DISTINCT) * SERIALS
        found = wire.talk([rest] if rest else [], count)
        assert found == [f"dunno {number % SERIALS:0400}" for number in range(count)]
        assert wire.ask(ask(7)) == "dunno 7"


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_hangUp(server, kind):
    """
    Clients that hang up in the middle of a request, while it waits or before they read leave nothing behind.
    """
    sent = (
        b"",
        b"r",
        ask(1)[:100],
        ask(1),
        ask(1, wait=1),
        ask(1, wait=1) + ask(2) * 200,
        ask(1, wait=1) * 2 + b"a",
    )
    for _ in range(20):
        for stream in sent:
            for leave in (Wire.close, Wire.reset):
                wire = Wire(address(server, kind))
                wire.send(stream)
                leave(wire)
    with Wire(address(server, kind)) as wire:
        assert wire.ask(ask(3)) == "dunno 3"

        def left():
            now = server.status()
            return now["connections"]["open"] == 1 and now["requests"]["waiting"] == 0

        eventually(left)
        assert wire.ask(ask(4)) == "dunno 4"


def test_crowdOfStalled(makeServer):
    """
    Five thousand connections that stall in the middle of a request keep no good one from being answered.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 5000 if hard == resource.RLIM_INFINITY else min(5000, hard - 500)
    assert count >= 500, "too few files may be open here for this test"
    server = makeServer(LIMITED, requestLog=None, connLimit=count + 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stalled = []
    try:
        good = [Wire(server.address) for _ in range(20)]
        stalled = [Wire(server.address) for _ in range(count)]
        for number, wire in enumerate(stalled):
            wire.send(ask(1)[: 1 + number % 300])
        for turn in range(50):
            for number, wire in enumerate(good):
                begin = time.monotonic()
                assert wire.ask(ask(number + turn)) == f"dunno {number + turn}"
                assert took(begin) < 5
        with Wire(server.address) as late:
            assert late.ask(ask(5)) == "dunno 5"
        assert server.status()["connections"]["open"] == count + 20
        for wire in stalled[::100]:
            wire.expectNothing()
        # Those who go on in time are served after all.
        for number, wire in enumerate(stalled[:1000]):
            assert wire.ask(ask(1)[1 + number % 300 :]) == "dunno 1"
    finally:
        for wire in [*stalled, *good]:
            wire.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    eventually(lambda: server.status()["connections"]["open"] == 0, 10)
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("kind", ("tcp", "unix"))
@pytest.mark.parametrize("name", SLOW)
def test_slow(slowly, kind, name):
    """
    A request must be complete 30 s after its first octet, else its connection ends.
    """
    seconds, received = slowly[kind, name].result()
    assert received == b""
    assert RECEIVE - 1 < seconds < RECEIVE + 2, f"cut after {seconds:.1f} s"


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_slowInTime(slowly, kind):
    """
    A request that takes nearly that long is answered, and the next one has its own 30 s.
    """
    seconds, received = slowly[kind, "in time"].result()
    assert received == b"action=dunno 9\n\n"
    assert seconds > RECEIVE - 5


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_idle(slowly, kind):
    """
    A connection on which nothing is asked stays open, and what is asked later is answered.
    """
    slowly[kind, "idle"].result()
