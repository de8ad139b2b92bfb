"""
P0f against a real p0f that has seen real connections, and against what may be wrong with it.

Linux' own loopback connections are fingerprinted like any other, from each address of 127.0.0.0/8.
"""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from tempfile import TemporaryDirectory

import pytest
from twisted.internet import reactor
from twisted.internet.defer import DeferredList, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from ppolicy.bridge import Bridge
from ppolicy.errors import BackendError
from ppolicy.fingerprint import Fingerprints
from tests.stalls import took

from .p0f import P0f, missing

# The cache is off, so that each request asks p0f.
POLICY = """
    modules = {{
        'p0f': ('P0f', {{'socket': {socket!r}, 'cachePositive': 0, 'cacheUnknown': 0}}),
        'patient': ('P0f', {{'socket': {socket!r}, 'timeout': 0.8, 'cacheUnknown': 0}}),
        'dummy': ('Dummy', {{'cacheUnknown': 0}}),
    }}

    def check(factory, data, port):
        name = data['helo_name']
        code, info = factory.check(name if name in modules else 'dummy', data)
        return '450', f'{{code}} {{info.os}} {{info[4]}}' if code == 1 else f'{{code}} {{info}}'
"""


@pytest.fixture
def p0f():
    """
    A p0f that watches loopback.
    """
    why = missing()
    if why:
        pytest.skip(f"LIVE TEST SKIPPED: {why}")
    p0f = P0f()
    try:
        yield p0f.start()
    finally:
        p0f.close()


@pytest.fixture
def server(makeServer, p0f):
    """
    A policy server that asks it.
    """
    return makeServer(POLICY.format(socket=str(p0f.socket)))


def ask(server, address, check="p0f"):
    """
    What a check says about a client.
    """
    attributes = {"request": "smtpd_access_policy", "client_address": address, "helo_name": check}
    return server.request(attributes).partition(" ")[2]


def askUntil(server, address, beginning, timeout=10):
    """
    Ask until the answer begins like this; what was captured reaches p0f a moment later.
    """
    deadline = time.monotonic() + timeout
    while not (said := ask(server, address)).startswith(beginning):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    return said


def test_seen(server, p0f):
    """
    A client that has connected is known, by IPv4 and IPv6; one that has not is unknown.
    """
    p0f.connect("127.9.1.1")
    p0f.connect("::1")
    assert askUntil(server, "127.9.1.1", "1 ").startswith("1 Linux ")
    assert askUntil(server, "::1", "1 ")
    assert ask(server, "127.9.1.2") == "0 p0f has not seen the client"
    assert ask(server, "192.0.2.1") == "0 p0f has not seen the client"


def test_try(server, p0f):
    """
    ppolicy try shows what p0f has seen.
    """
    p0f.connect("127.9.2.1")
    askUntil(server, "127.9.2.1", "1 ")
    done = server.ppolicy("try", "p0f", "client_address=127.9.2.1", "--json")
    (step,) = json.loads(done.stdout)["steps"]
    assert step["code"] == 1, done
    assert "Linux" in str(step["info"])


def test_frozen(server, p0f):
    """
    A p0f that hangs costs 200 ms at first and then nothing; other requests it never delays. When it goes on, each
    client gets its own answer.
    """
    p0f.connect("127.9.3.1")
    askUntil(server, "127.9.3.1", "1 ")
    p0f.freeze()
    begun = time.monotonic()
    assert ask(server, "127.9.3.1") == "0 p0f has not answered within 0.2 s"
    assert took(begun) < 1
    with ThreadPoolExecutor(20) as pool:
        slow = [pool.submit(ask, server, f"127.9.3.{number}", "patient") for number in range(1, 21)]
        time.sleep(0.05)
        assert ask(server, "127.9.3.1", "dummy") == "0 dummy"
        assert not any(one.done() for one in slow)
        assert all(one.result() == "0 p0f has not answered within 0.8 s" for one in slow)
    time.sleep(0.2)
    # Not "within 0.2 s": it is not asked.
    assert ask(server, "127.9.3.2").startswith("0 p0f has not answered for ")
    p0f.thaw()
    askUntil(server, "127.9.3.1", "1 Linux")
    assert ask(server, "127.9.3.2") == "0 p0f has not seen the client"


def test_restarted(server, p0f):
    """
    A p0f that is killed is unknown for its clients; when it is back it is asked again by itself.
    """
    p0f.connect("127.9.4.1")
    askUntil(server, "127.9.4.1", "1 ")
    p0f.kill()
    assert ask(server, "127.9.4.1").startswith("0 p0f cannot be reached at ")
    time.sleep(1)
    assert ask(server, "127.9.4.1").startswith("0 ")
    p0f.start()
    p0f.connect("127.9.4.1")
    askUntil(server, "127.9.4.1", "1 Linux")


class Wire(TestCase):
    """
    The connection itself.
    """

    timeout = 60

    def asking(self, path):
        bridge = Bridge(reactor)
        self.addCleanup(bridge.stop)
        asking = Fingerprints(bridge, path)
        self.addCleanup(deferLater, reactor, 0.05)
        self.addCleanup(asking.stop)
        return asking

    @inlineCallbacks
    def test_pipelined(self):
        """
        Of a hundred questions at a time each gets its own answer.
        """
        if missing():
            raise SkipTest(f"LIVE TEST SKIPPED: {missing()}")
        p0f = P0f()
        self.addCleanup(p0f.close)
        p0f.start()
        asking = self.asking(p0f.socket)
        known = [f"127.9.5.{number}" for number in range(1, 101, 3)]
        for address in known:
            for _ in range(1 + int(address.rpartition(".")[2]) % 4):
                p0f.connect(address)
        ends = reactor.seconds() + 10
        while (yield asking.ask(ip_address(known[-1]))) is None and reactor.seconds() < ends:
            yield deferLater(reactor, 0.05)
        addresses = [f"127.9.5.{number}" for number in range(1, 101)]
        for _ in range(20):
            answers = yield DeferredList([asking.ask(ip_address(one)) for one in addresses], consumeErrors=True)
            for address, (isAnswer, found) in zip(addresses, answers, strict=True):
                self.assertTrue(isAnswer, found)
                if address in known:
                    self.assertEqual(1 + int(address.rpartition(".")[2]) % 4, found.connections, address)
                else:
                    self.assertIsNone(found, address)

    @inlineCallbacks
    def test_fullBacklog(self):
        """
        A socket that takes no more connections is trouble like any other, and the reactor does not spin.
        """
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = f"{folder.name}/socket"
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
            listener.bind(path)
            listener.listen(0)
            first.connect(path)
            asking = self.asking(path)
            begun, cpu = time.monotonic(), time.process_time()
            failed = None
            try:
                yield asking.ask(ip_address("192.0.2.1")).addTimeout(2, reactor)
            except BackendError as error:
                failed = error
            yield deferLater(reactor, 0.5)
            self.assertIsInstance(failed, BackendError)
            self.assertLess(took(begun), 2)
            self.assertLess(time.process_time() - cpu, 0.3)
