"""
Mixed traffic for a long time: what the server holds does not grow, and nothing fails unseen.

`make soak` does it for half an hour, `make test` for some seconds, which shows that it runs but no slow leak.
"""

import json
import os
import random
import re
import socket
import statistics
import threading
import time
import urllib.request
from pathlib import Path

from tests.dnsserver import DNSServer

from .policyclient import ConnectionClosed, PolicyClient
from .ports import freePort

SECONDS = float(os.environ.get("PPOLICY_SOAK", "5"))
CLIENTS = 4
CLIENTS_MAILS = 20_000
# Before this part of the time is over, caches fill, and Python gets the memory it works with.
WARM_UP = 0.3
# What may come on top while caches are full: a fragment here and there.
GROWTH = 1.03

POLICY = """
from ppolicy.check import Check

class Blocks(Check):
    blocking = True

    def check(self, data):
        import time
        time.sleep(0.002)
        return 1, None

class Fails(Check):
    def check(self, data):
        raise ValueError('on purpose')

modules = {
    'greylist': ('Greylist', {'delay': 5, 'writeBehind': True}),
    'spf': ('SPF', {}),
    'resolve': ('Resolve', {'param': 'client_name', 'type': 'name->ip'}),
    'limit': ('DOS', {'params': 'sender', 'limits': [(50, 60), (5000, 3600)], 'memory': True}),
    'kept': ('DOS', {'params': 'client_address', 'limits': [(1000, 60)]}),
    'blocks': (Blocks, {}),
    'fails': (Fails, {}),
    'trap': ('Trap', {'traps': ['trap@example.org']}),
    'dummy': ('Dummy', {}),
}

def check(factory, data, port):
    factory.check('dummy', data)
    if data.get('serial') == 'fails':
        return 'WARN', str(factory.check('fails', data))
    if data.get('serial') == 'blocks':
        return 'WARN', str(factory.check('blocks', data))
    if data.get('serial') == 'raises':
        raise ValueError('on purpose')
    factory.check('trap', data)
    if data.get('serial') == 'dns':
        factory.checkAll(data, 'spf', 'resolve')
    for name in ('limit', 'kept'):
        code, info = factory.check(name, data)
        if code > 0:
            return '450', '4.7.1 too many'
    code, info = factory.check('greylist', data)
    return ('DEFER_IF_PERMIT', '4.7.1 later') if code == -1 else ('dunno', '')
"""

# How often a request is of each kind, of a thousand.
KINDS = {"": 930, "dns": 40, "blocks": 10, "fails": 1, "raises": 1, "trap": 18}


def records():
    """
    What the DNS has for the clients.
    """
    names = {f"mail{number}.test": {"A": [f"192.0.2.{number % 250}"]} for number in range(200)}
    domains = {f"d{number}.test": {"TXT": ['"v=spf1 ip4:192.0.2.0/25 -all"']} for number in range(200)}
    return names | domains | {".": {"NS": ["ns.test."]}}


def mail(generator):
    """
    The attributes of one of the mails: some are often seen, most seldom.
    """
    number = int(CLIENTS_MAILS * generator.random() ** 3)
    (kind,) = generator.choices(list(KINDS), list(KINDS.values()))
    return {
        "client_address": f"192.0.{2 + number // 250 % 50}.{number % 250}",
        "client_name": f"mail{number % 300}.test",
        "sender": f"user{number}@d{number % 300}.test",
        "recipient": "trap@example.org" if kind == "trap" else f"rcpt{number % 1000}@example.org",
        "serial": kind,
    }


def talk(address, stop, answered, errors, seed):
    """
    Ask as Postfix does: many requests over one connection, then a new one. Some hang up in a request.
    """
    generator = random.Random(seed)
    while not stop.is_set():
        try:
            with PolicyClient(address, 30) as client:
                for _ in range(generator.choice((1, 10, 500))):
                    if stop.is_set():
                        break
                    action = client.ask(mail(generator))
                    answered[action.split()[0]] = answered.get(action.split()[0], 0) + 1
                    time.sleep(0.001)
            if generator.random() < 0.2:
                with socket.create_connection(address) as connection:
                    connection.sendall(
                        b"request=smtpd_access_policy\nsender=half@" + b"x" * generator.randrange(9)
                    )
            if generator.random() < 0.05:
                with socket.create_connection(address) as connection:
                    connection.sendall(generator.randbytes(generator.randrange(1, 5000)))
        except (AssertionError, OSError, ConnectionClosed) as error:
            errors.append(repr(error))


def command(server, *words):
    """
    What a command for the running server prints.
    """
    done = server.ppolicy(*words)
    return done.returncode, done.stdout + done.stderr


def held(server):
    """
    (bytes of memory, open files) of the server.
    """
    fields = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii").split()
    files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    return int(fields[fields.index("VmRSS:") + 1]) * 1024, files


def test_soak(makeServer):
    """
    Memory is flat after the warm-up, open files are, no request is lost, nothing fails but what does on purpose.
    """
    metrics = freePort()
    with DNSServer(records()) as resolver:
        server = makeServer(
            POLICY,
            dnsServers=[f"127.0.0.1:{resolver.port}"],
            metrics=f"127.0.0.1:{metrics}",
            logTarget="requests.log",
            cacheSize=2000,
            dnsCacheSize=500,
            historySize=2000,
        )
        stop, answered, errors = threading.Event(), {}, []
        clients = [
            threading.Thread(target=talk, args=(server.address, stop, answered, errors, seed), daemon=True)
            for seed in range(CLIENTS)
        ]
        begun = time.monotonic()
        for client in clients:
            client.start()
        samples = []
        try:
            while (now := time.monotonic() - begun) < SECONDS:
                samples.append((now, *held(server)))
                with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as answer:
                    assert b"ppolicy_requests_total" in answer.read()
                if len(samples) % 10 == 3:
                    code, output = command(server, "reload")
                    assert code == 0, output
                    assert command(server, "why", "user1@", "--limit", "5")[0] in (0, 4)
                (server.folder / "requests.log").unlink(missing_ok=True)  # as a rotation
                time.sleep(1)
        finally:
            stop.set()
            for client in clients:
                client.join(30)
    code, output = command(server, "status", "--json")
    status = json.loads(output)
    assert server.terminate() < 6
    assert "Unhandled" not in server.log()
    print(json.dumps({"answered": answered, "samples": samples[:: max(1, len(samples) // 40)]}))

    assert errors == []
    assert sum(answered.values()) > SECONDS * 100
    tracebacks = re.findall(r"\n\t(\w[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*)", server.log())
    assert {line.strip() for line in tracebacks} <= {"ValueError: on purpose"}
    assert status["requests"]["waiting"] == 0
    assert status["threads"]["module"]["busy"] == 0
    warm = [sample for sample in samples if sample[0] > SECONDS * WARM_UP]
    third = len(warm) // 3 or 1
    early, late = (statistics.median(sample[1] for sample in part) for part in (warm[:third], warm[-third:]))
    assert max(sample[2] for sample in warm[-third:]) <= max(sample[2] for sample in warm[:third]) + 5
    if SECONDS >= 600:
        assert late <= early * GROWTH, f"{early:,} bytes after the warm-up, {late:,} in the end"
