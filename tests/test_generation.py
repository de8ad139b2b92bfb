"""
What a reload leaves behind: nothing, and nothing that is true no longer.
"""

import gc
import weakref

import pytest

from ppolicy import config
from ppolicy.dryrun import explain
from ppolicy.generation import Generation
from ppolicy.services import Services
from tests.serving import POSTFIX, Serving

# Checks of these need no server of their own to start.
CHECKS = {
    "Greylist": {},
    "DOS": {"params": ["sender", "network:client_address"], "limits": [(10, 60)], "memory": True},
    "DistinctLimit": {"params": "sender", "limit": 5},
    "Trap": {"traps": ["trap@example.org"]},
    "SPF": {},
    "Dnsbl": {"dnsbl": "ZEN"},
    "DnsblScore": {},
    "DnsblDynamic": {},
    "Resolve": {"param": "client_name", "type": "name->ip"},
    "List": {"param": "sender", "table": "listed"},
    "ListBW": {"param": "sender", "tableWhitelist": "white"},
    "ListMailDomain": {"param": "sender", "tableWhitelist": "domains"},
    "Whois": {},
    "Sleep": {"sleep": 0},
    "Dummy": {},
}


@pytest.mark.parametrize("kind", CHECKS)
def test_freed(tmp_path, kind):
    """
    A generation that was replaced is freed with its checks at once. The garbage collector would find it, but
    looks at what is old only seldom: with a reload each few minutes that would be a leak.
    """
    serving = Serving(
        tmp_path,
        f"modules = {{'it': ({kind!r}, {CHECKS[kind]!r})}}\n"
        "def check(factory, data, port):\n"
        "    return 'WARN', str(factory.check('it', data)[0])\n",
    )
    server = serving.server
    protocol, transport = serving.connect()
    protocol.dataReceived("".join(f"{name}={value}\n" for name, value in POSTFIX.items()).encode() + b"\n")
    for _ in range(5):
        serving.clock.advance(1)
    assert transport.value().startswith(b"action=WARN ")
    gc.collect()
    gc.disable()
    try:
        old = serving.generation
        remains = [weakref.ref(old), weakref.ref(old.slots["it"].check)]
        server.generation = serving.generation = Generation(2, config.load(serving.path), server)
        server.generation.start(old)
        server.generation.countOn(old)
        server.retire(old)
        del old
        serving.clock.advance(1)
        assert [one() for one in remains] == [None, None]
    finally:
        gc.enable()


def test_tokenKept(tmp_path):
    """
    Over a reload, a check keeps its cached answers when type and parameters are the same.
    """
    serving = Serving(
        tmp_path,
        "modules = {'d': ('Dummy', {}), 'e': ('Dummy', {'test2': 'x'})}\n"
        "def check(factory, data, port):\n"
        "    pass\n",
    )
    serving.path.write_text(serving.path.read_text().replace("'test2': 'x'", "'test2': 'y'"))
    after = Generation(2, config.load(serving.path), serving.server)
    after.start(serving.generation)
    after.countOn(serving.generation)
    same = {name: slot.token is serving.generation.slots[name].token for name, slot in after.slots.items()}
    assert same == {"d": True, "e": False}


@pytest.mark.parametrize("isNew", [True, False])
def test_listChangedBeforeReload(tmp_path, isNew):
    """
    A list that was changed just before a reload is read by the next generation only: what is cached of it is
    forgotten, and else kept.
    """
    path = tmp_path / "friends"
    path.write_text("alice@example.net\n")
    serving = Serving(
        tmp_path,
        f"modules = {{'friends': ('List', {{'param': 'sender', 'file': {str(path)!r}}})}}\n"
        "def check(factory, data, port):\n"
        "    return 'WARN', str(factory.check('friends', data)[0])\n",
    )
    assert serving.ask(sender="bob@example.net") == "action=WARN -1\n\n"
    if isNew:
        path.write_text("alice@example.net\nbob@example.net\n")
    server = serving.server
    old, server.generation = server.generation, Generation(2, config.load(serving.path), server)
    server.generation.start(old)
    server.generation.countOn(old)
    server.retire(old)
    assert serving.ask(sender="bob@example.net") == f"action=WARN {1 if isNew else -1}\n\n"
    assert server.generation.slots["friends"].hits == (0 if isNew else 1)


def test_explainedOverReload(tmp_path):
    """
    A generation that was replaced goes on until what an administrator has asked of it is answered.
    """
    serving = Serving(
        tmp_path,
        "from ppolicy.check import Check, wait\n"
        "from twisted.internet.defer import Deferred\n"
        "waiting, stopped = [], []\n"
        "class Slow(Check):\n"
        "    blocking = False\n"
        "    def stop(self):\n        stopped.append(self)\n"
        "    def check(self, data):\n"
        "        waiting.append(Deferred())\n"
        "        return wait(waiting[-1]), None\n"
        "modules = {'slow': (Slow, {})}\n"
        "def check(factory, data, port):\n"
        "    factory.check('slow', data)\n"
        "    return 'WARN', str(factory.check('slow', data)[0])\n",
    )
    server, old = serving.server, serving.generation
    names = old.configuration.policy.__globals__
    answers = []
    explain(server, old, {}).addBoth(answers.append)
    server.generation = Generation(2, config.load(serving.path), server)
    server.generation.start(old)
    server.generation.countOn(old)
    server.retire(old)
    for number in range(2):
        assert names["stopped"] == []
        names["waiting"][number].callback(1)
        serving.clock.advance(0)
    assert (answers[0]["action"], answers[0]["error"]) == ("WARN 1", None)
    assert len(names["stopped"]) == 1


def test_stateSize(tmp_path):
    """
    How many rows are in memory is changed by a reload.
    """
    text = "stateSize = {}\ndef check(factory, data, port):\n    return 'dunno'\n"
    serving = Serving(tmp_path, text.format(2000))
    services = Services(serving.server.bridge, serving.generation.configuration)
    assert services.state.size == 2000
    serving.path.write_text(text.format(3000), encoding="utf-8")
    services.follow(config.load(serving.path).options)
    assert services.state.size == 3000


@pytest.mark.parametrize("memory", [True, False])
def test_renamed(tmp_path, memory):
    """
    What a limit remembers in memory is kept over a reload, unless the check is gone.
    """
    text = (
        f"modules = {{NAME: ('DOS', {{'params': 'sender', 'memory': {memory}}})}}\n"
        "def check(factory, data, port):\n    return 'dunno'\n"
    )
    serving = Serving(tmp_path, text.replace("NAME", "'dos'"))
    server = serving.server
    kept = server.services.state.kept
    (first,) = kept.keys()
    for name in ("dos", "limit"):
        serving.path.write_text(text.replace("NAME", repr(name)), encoding="utf-8")
        old, server.generation = server.generation, Generation(2, config.load(serving.path), server)
        server.generation.start(old)
        server.generation.countOn(old)
        server.retire(old)
        del old, serving.generation
        serving.generation = server.generation
        serving.clock.advance(1)
        assert [key == first for key in kept] == [name == "dos"]
