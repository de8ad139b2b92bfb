"""
Tests for factory.check: cache, saved results, single flight, what is counted once, and what a check does wrong.
"""

import pytest
from twisted.internet.defer import Deferred

from ppolicy.cache import ResultCache
from ppolicy.verbs import Verbs
from tests.serving import Serving, asked

HEAD = """
from ppolicy.check import Check, parameter, wait
from twisted.internet.defer import Deferred
calls, waiting, seen = [], [], []

class Probe(Check):
    blocking = False
    code: int = parameter(1, "what to answer")
    def hashArg(self, data, *args, **keywords):
        return data['sender'], args, tuple(keywords.items())
    def check(self, data, *args, **keywords):
        calls.append((self.name, data['sender'], args, keywords))
        return self.code, f'call {len(calls)}'

class Waiting(Probe):
    def check(self, data):
        calls.append(data['sender'])
        waiting.append(Deferred())
        return 1, wait(waiting[-1])

"""
TAIL = """
def check(factory, data, port):
    seen.append(data)
    if data.get('recipient') == 'all':
        names = [tuple(one.split(':')) if ':' in one else one for one in data['ask'].split()]
        found = factory.checkAll(data, *names)
        return 'WARN', ' '.join(f'{code} {info}' for code, info in found)
    for name in data['ask'].split():
        code, info = factory.check(name, data)
    return 'WARN', f'{code} {info}'
"""


@pytest.fixture
def serve(tmp_path):
    """Serve with these modules, more classes and options."""

    def serve(modules, more=""):
        serving = Serving(tmp_path, HEAD + more + f"\nmodules = {modules}\n" + TAIL)
        names = serving.generation.configuration.policy.__globals__
        serving.calls, serving.waiting, serving.seen = names["calls"], names["waiting"], names["seen"]
        return serving

    return serve


def test_cached(serve):
    """An answer is kept for the seconds of its sign, and counted as a hit."""
    serving = serve("{'p': (Probe, {'cachePositive': 10})}")
    assert serving.ask(sender="a", ask="p") == serving.ask(sender="a", ask="p") == "action=WARN 1 call 1\n\n"
    assert serving.ask(sender="b", ask="p") == "action=WARN 1 call 2\n\n"
    serving.clock.advance(10)
    assert serving.ask(sender="a", ask="p") == "action=WARN 1 call 3\n\n"
    assert serving.generation.slots["p"].hits == 1


@pytest.mark.parametrize(("code", "which"), [(1, "cachePositive"), (0, "cacheUnknown"), (-1, "cacheNegative")])
def test_cachedBySign(serve, code, which):
    """Each sign has its own time, and 0 seconds keep nothing."""
    serving = serve(f"{{'p': (Probe, {{'code': {code}, '{which}': 0}})}}")
    serving.ask(sender="a", ask="p")
    serving.ask(sender="a", ask="p")
    assert len(serving.calls) == 2
    assert len(serving.server.cache) == 0


def test_arguments(serve):
    """Further arguments reach check() and hashArg()."""
    serving = serve("{'p': (Probe, {})}")
    serving.generation.answer = lambda factory, data, port: factory.check("p", data, 1, two=2) and None
    serving.ask(sender="a")
    assert serving.calls == [("p", "a", (1,), {"two": 2})]


@pytest.mark.parametrize(
    ("hashed", "times"), [("0", 2), ("''", 1), ("()", 1), ("None", 1), ("False", 1), ("'0'", 1), ("0.5", 1)]
)
def test_onlyZeroIsNotCached(serve, hashed, times):
    """hashArg 0 means never; an empty value is a value."""
    serving = serve(
        "{'p': (Hash, {})}", f"class Hash(Probe):\n    def hashArg(self, data):\n        return {hashed}\n"
    )
    serving.ask(sender="a", ask="p")
    serving.ask(sender="a", ask="p")
    assert len(serving.calls) == times


def test_modulesDoNotShare(serve):
    """Two checks with equal hashes have their own answers."""
    serving = serve("{'p': (Probe, {}), 'q': (Probe, {})}")
    serving.ask(sender="a", ask="p q")
    assert [call[0] for call in serving.calls] == ["p", "q"]


def test_thirdItemShortens(serve):
    """A third item shortens the life of this one result, and never prolongs it."""
    serving = serve(
        "{'p': (Short, {'cachePositive': 10})}",
        "class Short(Probe):\n    def check(self, data):\n        calls.append(1)\n"
        "        return 1, 'x', {'s': 3, 'l': 99}[data['sender']]\n",
    )
    for sender, life in (("s", 3), ("l", 10)):
        serving.calls.clear()
        serving.ask(sender=sender, ask="p")
        serving.clock.advance(life - 0.5)
        serving.ask(sender=sender, ask="p")
        assert len(serving.calls) == 1
        serving.clock.advance(0.5)
        serving.ask(sender=sender, ask="p")
        assert len(serving.calls) == 2


def test_savedResults(serve):
    """Results are saved in the request, numbered from the second call on."""
    serving = serve(
        "{'p': (Probe, {}), 'q': (Probe, {'saveResult': False}), 'r': (Probe, {'saveResultPrefix': 'x_'})}"
    )
    serving.ask(sender="a", ask="p p p q r")
    data = serving.seen[0]
    saved = {name: value for name, value in data.items() if name.startswith(("result_", "x_"))}
    assert saved == {
        "result_p_code": 1,
        "result_p_info": "call 1",
        "result_p_time": 0,
        "result_p_cache": False,
        "result_p#1_code": 1,
        "result_p#1_info": "call 1",
        "result_p#1_time": 0,
        "result_p#1_cache": True,
        "result_p#2_code": 1,
        "result_p#2_info": "call 1",
        "result_p#2_time": 0,
        "result_p#2_cache": True,
        "x_r_code": 1,
        "x_r_info": "call 3",
        "x_r_time": 0,
        "x_r_cache": False,
    }


def test_time(serve):
    """The time of a check is saved in whole milliseconds."""
    serving = serve("{'w': (Waiting, {})}")
    protocol, _ = serving.connect()
    protocol.dataReceived(b"sender=a\nask=w\n\n")
    serving.clock.advance(1.5)
    serving.waiting[0].callback("done")
    serving.clock.advance(0)
    assert serving.seen[0]["result_w_time"] == 1500


def test_singleFlight(serve):
    """Equal questions under way are asked once; all get the answer."""
    serving = serve("{'w': (Waiting, {})}")
    connections = [serving.connect() for _ in range(5)]
    for protocol, _ in connections:
        protocol.dataReceived(b"sender=a\nask=w\n\n")
    other, _ = serving.connect()
    other.dataReceived(b"sender=b\nask=w\n\n")
    assert serving.calls == ["a", "b"]
    serving.waiting[0].callback("done")
    serving.clock.pump([0, 0])
    assert [transport.value() for _, transport in connections] == [b"action=WARN 1 done\n\n"] * 5
    assert len(serving.generation.inFlight) == 1  # that of sender b


def test_singleFlightOutlivesTheFirst(serve):
    """When the first asker's time is up, one of those who wait asks again, and the others get its answer."""
    serving = serve("{'w': (Waiting, {})}")
    first, firstTransport = serving.connect()
    first.dataReceived(b"sender=a\nask=w\n\n")
    serving.clock.advance(20)
    others = [serving.connect() for _ in range(3)]
    for protocol, _ in others:
        protocol.dataReceived(b"sender=a\nask=w\n\n")
    serving.clock.advance(10)
    serving.clock.pump([0, 0, 0])
    assert firstTransport.value().startswith(b"action=450 ")
    assert serving.calls == ["a", "a"]
    serving.waiting[1].callback("second try")
    serving.clock.pump([0, 0])
    assert [transport.value() for _, transport in others] == [b"action=WARN 1 second try\n\n"] * 3
    assert not serving.generation.inFlight


def test_singleFlightFailure(serve):
    """When the one who asks fails, those who wait get 0 as well, and the next one asks anew."""
    serving = serve("{'w': (Waiting, {})}")
    connections = [serving.connect() for _ in range(2)]
    for protocol, _ in connections:
        protocol.dataReceived(b"sender=a\nask=w\n\n")
    serving.waiting[0].errback(ValueError("no"))
    serving.clock.pump([0, 0])
    replies = [transport.value() for _, transport in connections]
    assert replies == [b"action=WARN 0 w failed with exception\n\n"] * 2
    assert not serving.generation.inFlight
    assert not len(serving.server.cache)
    serving.connect()[0].dataReceived(b"sender=a\nask=w\n\n")
    assert serving.calls == ["a", "a"]


@pytest.mark.parametrize("how", ["by the check", "by a command", "with all others"])
def test_forgottenMeanwhile(serve, how):
    """An answer that is under way when what was answered so far is forgotten is not kept."""
    serving = serve("{'w': (Waiting, {})}")
    serving.server.services.dns.cache = ResultCache(10)
    flush = Verbs(serving).table()["cache.flush"]
    connections = [serving.connect() for _ in range(2)]
    connections[0][0].dataReceived(b"sender=a\nask=w\n\n")
    if how == "by the check":
        serving.generation.slots["w"].check.forgetResults()
    else:
        assert flush({"module": "w"} if how == "by a command" else {})["flushed"] == 0
    connections[1][0].dataReceived(b"sender=a\nask=w\n\n")
    assert serving.calls == ["a", "a"]
    serving.waiting[1].callback("new")
    serving.waiting[0].callback("old")
    serving.clock.pump([0, 0])
    replies = [transport.value() for _, transport in connections]
    assert replies == [b"action=WARN 1 old\n\n", b"action=WARN 1 new\n\n"]
    assert serving.ask(sender="a", ask="w") == "action=WARN 1 new\n\n"


def test_forgettingTakesNoTime(serve):
    """What is forgotten is not looked for among all that is cached: a list may change with each request."""
    serving = serve("{'p': (Probe, {}), 'q': (Probe, {})}")
    assert serving.ask(sender="a", ask="q p") == "action=WARN 1 call 2\n\n"
    serving.server.cache.flush = None
    serving.generation.slots["p"].check.forgetResults()
    assert serving.ask(sender="a", ask="q p") == "action=WARN 1 call 3\n\n"
    assert [slot.hits for slot in serving.generation.slots.values()] == [0, 1]


ONCE = "class Once(Probe):\n    once = True\n    def hashArg(self, data):\n        return 0\n"


def test_once(serve):
    """A request that Postfix sends again counts once, for five minutes."""
    serving = serve("{'o': (Once, {})}", ONCE)
    same = {"sender": "a", "ask": "o", "instance": "1.2.3", "recipient": "r", "protocol_state": "RCPT"}
    first = serving.ask(**same)
    serving.clock.advance(299)
    serving.generation.slots["o"].check.forgetResults()
    assert serving.ask(**same) == first
    serving.clock.advance(2)
    assert serving.ask(**same) != first


@pytest.mark.parametrize(
    "other", [{"instance": "9"}, {"recipient": "s"}, {"protocol_state": "DATA"}, {"policy_context": "c"}]
)
def test_notTheSameRequest(serve, other):
    """Another instance, recipient, state or context is another request."""
    serving = serve("{'o': (Once, {})}", ONCE)
    same = {"sender": "a", "ask": "o", "instance": "1.2.3", "recipient": "r", "protocol_state": "RCPT"}
    serving.ask(**same)
    serving.ask(**{**same, **other})
    assert len(serving.calls) == 2


def test_noInstance(serve):
    """Without an instance nobody can tell, so every request counts."""
    serving = serve("{'o': (Once, {})}", ONCE)
    serving.ask(sender="a", ask="o", instance="")
    serving.ask(sender="a", ask="o", instance="")
    assert len(serving.calls) == 2


def test_onceWhileUnderWay(serve):
    """A request that comes again while the first is under way joins it."""
    serving = serve(
        "{'w': (OnceWaiting, {})}", "class OnceWaiting(Waiting):\n    once = True\n    hashArg = Check.hashArg\n"
    )
    connections = [serving.connect() for _ in range(2)]
    for protocol, _ in connections:
        protocol.dataReceived(b"sender=a\nask=w\ninstance=1.2\n\n")
    assert serving.calls == ["a"]
    serving.waiting[0].callback("x")
    serving.clock.pump([0, 0])
    assert [transport.value() for _, transport in connections] == [b"action=WARN 1 x\n\n"] * 2


WRONG = {
    "raises": "raise ValueError('x')",
    "SystemExit": "raise SystemExit",
    "None": "return None",
    "one": "return 1",
    "list": "return [1, 'x']",
    "four": "return 1, 2, 3, 4",
    "text as code": "return '1', 'x'",
    "not implemented": "return Check.check(self, data)",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrongCheck(serve, name):
    """A check that raises or returns rubbish counts as unknown, and is not cached."""
    serving = serve(
        "{'w': (Wrong, {})}", f"class Wrong(Probe):\n    def check(self, data):\n        {WRONG[name]}\n"
    )
    for _ in range(2):
        assert serving.ask(sender="a", ask="w") == "action=WARN 0 w failed with exception\n\n"
    assert serving.generation.slots["w"].failures == 2
    assert len(serving.server.cache) == 0
    assert not serving.generation.inFlight


@pytest.mark.parametrize("body", ["raise ValueError('x')", "return ['unhashable']"])
def test_wrongHashArg(serve, body):
    """A hashArg() that raises, or returns what cannot be a key, counts as unknown too."""
    serving = serve("{'w': (Wrong, {})}", f"class Wrong(Probe):\n    def hashArg(self, data):\n        {body}\n")
    assert serving.ask(sender="a", ask="w") == "action=WARN 0 w failed with exception\n\n"


def test_coroutine(serve):
    """check() may be a coroutine function."""
    serving = serve(
        "{'c': (Coroutine, {})}",
        "class Coroutine(Probe):\n    async def check(self, data):\n        waiting.append(Deferred())\n"
        "        return 1, await waiting[-1]\n",
    )
    protocol, transport = serving.connect()
    protocol.dataReceived(b"sender=a\nask=c\n\n")
    serving.waiting[0].callback("awaited")
    serving.clock.advance(0)
    assert transport.value() == b"action=WARN 1 awaited\n\n"


def test_foreignIsBlocking(serve):
    """A module that does not say so is taken to block, unless it is bundled or a coroutine."""
    serving = serve(
        "{'f': (Foreign, {}), 'd': ('Dummy', {}), 'p': (Probe, {}), 'c': (Coroutine, {})}",
        "class Foreign(Probe):\n    blocking = None\n"
        "class Coroutine(Foreign):\n    async def check(self, data):\n        return 1, None\n",
    )
    blocking = {name: slot.blocking for name, slot in serving.generation.slots.items()}
    assert blocking == {"f": True, "d": False, "p": False, "c": False}


def test_waitNeverLeavesDeferredsUnhandled(serve):
    """A Deferred that fails after the request's time is up is nobody's error."""
    serving = serve("{'w': (Waiting, {})}")
    protocol, _ = serving.connect()
    protocol.dataReceived(b"sender=a\nask=w\n\n")
    serving.clock.advance(30)
    serving.clock.advance(0)
    assert isinstance(serving.waiting[0], Deferred)
    assert serving.waiting[0].called


def test_checkAll(serve):
    """Checks asked together wait together, and answer in the order in which they were asked."""
    serving = serve("{'w': (Waiting, {}), 'v': (Waiting, {}), 'p': (Probe, {})}")
    protocol, transport = serving.connect()
    protocol.dataReceived(asked(sender="a", ask="w v p", recipient="all"))
    serving.clock.advance(0)
    assert len(serving.waiting) == 2
    serving.waiting[1].callback("second")
    serving.clock.advance(0)
    assert transport.value() == b""
    serving.waiting[0].callback("first")
    serving.clock.advance(0)
    assert transport.value().decode() == "action=WARN 1 first 1 second 1 call 3\n\n"
    assert [key for key in serving.seen[0] if key.endswith("_code")] == [
        "result_p_code",
        "result_v_code",
        "result_w_code",
    ]


def test_checkAllCached(serve):
    """What is in the cache needs no greenlet of its own."""
    serving = serve("{'w': (Waiting, {}), 'p': (Probe, {})}")
    serving.ask(sender="a", ask="p")
    assert serving.ask(sender="a", ask="p p", recipient="all") == "action=WARN 1 call 1 1 call 1\n\n"


def test_checkAllArguments(serve):
    """Arguments go to check() and hashArg()."""
    serving = serve("{'p': (Probe, {})}")
    protocol, transport = serving.connect()
    protocol.dataReceived(asked(sender="a", ask="p:x p:y p:x", recipient="all"))
    serving.clock.advance(0)
    serving.clock.advance(0)
    assert sorted(arguments for _, _, arguments, _ in serving.calls) == [("x",), ("y",)]
    assert transport.value().decode() == "action=WARN 1 call 1 1 call 2 1 call 1\n\n"


def test_checkAllUnknown(serve):
    """A name that no check has is the policy's mistake."""
    serving = serve("{'p': (Probe, {})}")
    protocol, transport = serving.connect()
    protocol.dataReceived(asked(sender="a", ask="p nothing", recipient="all"))
    serving.clock.advance(0)
    serving.clock.advance(0)
    assert transport.value().startswith(b"action=450 ")


def test_checkAllFailure(serve):
    """A check that fails counts as unknown; the others answer."""
    more = """
class Broken(Probe):
    def check(self, data):
        raise OSError('broken')

class NoKey(Probe):
    def hashArg(self, data):
        return [1]
"""
    serving = serve("{'b': (Broken, {}), 'n': (NoKey, {}), 'p': (Probe, {})}", more)
    protocol, transport = serving.connect()
    protocol.dataReceived(asked(sender="a", ask="b n p", recipient="all"))
    serving.clock.advance(0)
    serving.clock.advance(0)
    assert transport.value().decode() == (
        "action=WARN 0 b failed with exception 0 n failed with exception 1 call 1\n\n"
    )


def test_checkAllDeadline(serve):
    """When the request's time is up, nobody waits any more."""
    serving = serve("{'w': (Waiting, {}), 'v': (Waiting, {})}")
    protocol, transport = serving.connect()
    protocol.dataReceived(asked(sender="a", ask="w v", recipient="all"))
    for _ in range(32 * 20):
        serving.clock.advance(0.05)
    assert transport.value().startswith(b"action=450 ")
    assert serving.server.bridge.working == 0
