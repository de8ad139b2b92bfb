"""
The configuration is replaced again and again under load: no connection is lost, and each answer is from one
generation.
"""

import os
import re
import threading

from .policyclient import PolicyClient

RELOADS = int(os.environ.get("PPOLICY_RELOADS", "10"))
CLIENTS = 4

# What one generation says at the begin and at the end of its answer, and in a check between them that waits.
POLICY = """
from ppolicy.check import Check

class Says(Check):
    said = {number}

    def check(self, data):
        import time
        time.sleep(0.001)
        return 1, self.said

modules = {{'says': (Says, {{}}), 'cached': ('Dummy', {{}})}}
begin = {number}

def check(factory, data, port):
    first = begin
    code, said = factory.check('says', data)
    factory.check('cached', data)
    return 'WARN', f'{{first}} {{said}} {{begin}} {number}'
"""

BROKEN = (
    "def check(factory, data, port:\n",
    "modules = {'a': ('NoSuchModule', {})}\ndef check(factory, data, port): return 'dunno'\n",
    "ppolicyPort = 'nonsense'\n",
    "raise RuntimeError('on purpose')\n",
    "ppolicyPort = 10031\nconnLimit = 'many'\n",
)


def talk(address, stop, seen, errors):
    """
    Ask over one connection until the end; note which generation answered, in this order.
    """
    try:
        with PolicyClient(address, 30) as client:
            while not stop.is_set():
                action = client.ask()
                match = re.fullmatch(r"WARN (\d+) (\d+) (\d+) (\d+)", action)
                assert match, action
                (generation,) = set(match.groups())
                if not seen or seen[-1] != int(generation):
                    seen.append(int(generation))
    except Exception as error:  # noqa: BLE001 - told by the test's thread
        errors.append(repr(error))


def test_reloads(makeServer):
    """
    Good and broken configurations in turn: who is connected stays so, no answer mixes two generations, nobody is
    sent back to an older one, and a broken one changes nothing.
    """
    server = makeServer(POLICY.format(number=0), requestLog=None)
    stop, errors = threading.Event(), []
    seen = [[] for _ in range(CLIENTS)]
    clients = [threading.Thread(target=talk, args=(server.address, stop, mine, errors)) for mine in seen]
    for client in clients:
        client.start()
    try:
        for number in range(1, RELOADS + 1):
            if number % 2:
                server.configure(POLICY.format(number=number))
                assert server.reload().returncode == 0
            else:
                server.configuration.write_text(BROKEN[number // 2 % len(BROKEN)], encoding="utf-8")
                done = server.reload()
                assert done.returncode == 1, done.stdout
                assert str(server.configuration) in done.stdout
    finally:
        stop.set()
        for client in clients:
            client.join(30)
    assert errors == []
    for mine in seen:
        assert mine == sorted(mine)
    good = {0, *range(1, RELOADS + 1, 2)}
    assert set().union(*seen) == good
    assert "Unhandled" not in server.log()
