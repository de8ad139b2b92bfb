"""
The ppolicy.conf of test_hostile_policies: a request's attribute `evil` names what goes wrong, `where` the place.
"""

import asyncio
import gc
import itertools
import os
import re
import threading
import time

from greenlet import GreenletExit
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from ppolicy.check import Check, wait


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Unusual(str):
    def __eq__(self, other):
        raise RuntimeError("compared")

    def __hash__(self):
        raise RuntimeError("hashed")


def raises(error):
    def evil(*_):
        raise error

    return evil


def recurse(*arguments):
    return recurse(*arguments) + 1


def recurseInChecks(factory, data):
    factory.check("cached", data)
    return recurseInChecks(factory, data) + 1


def exhaust(*_):
    return [0] * 10**15


def unknownCheck(factory, data):
    return factory.check("nosuch" + "check", data)


RAISES = {
    "Exception": raises(Exception("evil text")),
    "no text": raises(Unprintable()),
    "hostile text": raises(ValueError("\x1b[2J\r\n\u2028\udcff {0} %s")),
    "SystemExit": raises(SystemExit(3)),
    "exit": lambda *_: exit(0),
    "KeyboardInterrupt": raises(KeyboardInterrupt()),
    "GeneratorExit": raises(GeneratorExit()),
    "StopIteration": raises(StopIteration(1)),
    "MemoryError": raises(MemoryError()),
    "out of memory": exhaust,
    "RecursionError": recurse,
    "GreenletExit": raises(GreenletExit()),
    "CancelledError": raises(asyncio.CancelledError()),
    "TimeoutError": raises(TimeoutError("of its own")),
    "ExceptionGroup": raises(BaseExceptionGroup("many", [ValueError(), KeyboardInterrupt()])),
}


def loop(*_):
    while True:
        pass


def loopInLibrary(*_):
    re.match("(a+)+$", "a" * 27 + "b")
    while True:
        re.sub("a", "b", "a" * 1000)


def loopAndCatchErrors(*_):
    while True:
        try:
            while True:
                pass
        except Exception:  # noqa: BLE001
            pass


def loopAndCatchAll(*_):
    while True:
        try:
            while True:
                pass
        except:  # noqa: E722
            pass


def sleepInReactor(*_):
    time.sleep(10)


def sleepAndCatchAll(*_):
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            time.sleep(10)
        except:  # noqa: E722
            continue


def loopAfterUnknownCheck(factory, data):
    try:
        unknownCheck(factory, data)
    except Exception:  # noqa: BLE001
        loop()


def loopAfterCheck(factory, data):
    factory.check("raising", data)
    loop()


def checkForEver(factory, data):
    while True:
        factory.check("cached", data)


def waitNothingForEver(*_):
    while True:
        wait(succeed(None))


def loopInGenerator(*_):
    return max(number for number in itertools.count() if number < 0)


HOLDS = {
    "loop": loop,
    "loop in a library": loopInLibrary,
    "loop that catches errors": loopAndCatchErrors,
    "loop that catches all": loopAndCatchAll,
    "sleep": sleepInReactor,
    "sleep that catches all": sleepAndCatchAll,
    "loop in a generator": loopInGenerator,
}
# These need the factory.
HOLDS_ASKING = {
    "loop after an unknown check": loopAfterUnknownCheck,
    "loop after a check that raised": loopAfterCheck,
    "check for ever": checkForEver,
    "wait for nothing for ever": waitNothingForEver,
}


def waitForEver(*_):
    wait(Deferred())


def waitInParts(*_):
    while True:
        try:
            wait(Deferred(), 0.05)
        except TimeoutError:
            pass


def waitAndCatchAll(*_):
    try:
        wait(Deferred())
    except:  # noqa: E722
        wait(Deferred())


WAITS = {
    "wait": waitForEver,
    "wait in parts": waitInParts,
    "wait and catch all": waitAndCatchAll,
}


def generator():
    yield "dunno"


async def coroutine():
    return "dunno"


cyclic = []
cyclic.append(cyclic)

RUBBISH = {
    "a number": 42,
    "a code for success": 250,
    "a fraction": 4.5,
    "not a number": float("nan"),
    "True": True,
    "octets": b"dunno",
    "an object": object(),
    "a class": dict,
    "a function": loop,
    "a module": time,
    "an exception": ValueError("dunno"),
    "a dictionary": {"action": "dunno"},
    "a set": {"dunno", "text"},
    "a generator": generator(),
    "an iterator": iter(("dunno", "")),
    "a Deferred": succeed(("dunno", "")),
    "an empty tuple": (),
    "one item": ("dunno",),
    "three items": ("dunno", "", ""),
    "itself": cyclic,
    "text octets": ("reject", b"text"),
    "text list": ("450", ["a", "b"]),
    "text object": ("450", object()),
    "no word of Postfix": ("nonsense", ""),
    "two replies": "nonsense\n\naction=dunno",
    "a huge number": 10**5000,
    "a huge word": "x" * 1_000_000,
    "a header without name": ("PREPEND", "no header"),
    "a target that is none": ("REDIRECT", "nobody"),
    "a filter that is none": ("FILTER", "nothing"),
    "a table": "check_recipient_access hash:/etc/passwd",
    "compared": Unusual("dunno"),
}


# What a policy may have made of its request before it fails.
SPOILS = {
    "None": lambda data: data.update(instance=None, sender=None, recipient=None),
    "a number": lambda data: data.update(instance=5, sender=5, recipient=5),
    "octets": lambda data: data.update(instance=b"5", client_name=b"x", helo_name=b"x"),
    "a list": lambda data: data.update(instance=["5"], recipient=[]),
    "no text": lambda data: data.update(instance=Unprintable(), sender=Unprintable()),
    "half a character": lambda data: data.update(instance="\ud800", recipient="\ud800"),
    "other keys": lambda data: data.update({None: 1, 5: 2, ("a",): 3}),
    "nothing": lambda data: data.clear(),
}


def does(name, factory, data):
    """
    What a request asks for.
    """
    for table in (RAISES, HOLDS, HOLDS_ASKING, WAITS):
        if name in table:
            return table[name](factory, data)
    if name == "recurse in checks":
        return recurseInChecks(factory, data)
    return RUBBISH[name]


class Raising(Check):
    blocking = False

    def check(self, data):
        raise ValueError("as always")


class Cached(Check):
    """
    Asked once, it says the same for ever.
    """

    blocking = False

    def hashArg(self, data):
        return "all alike"

    def check(self, data):
        return 1, os.urandom(4).hex()


class Evil(Check):
    """
    Does in check() what a request asks for.
    """

    blocking = False

    def check(self, data):
        return does(data["evil"], self.factory, data)


class EvilHash(Check):
    """
    Does it in hashArg().
    """

    blocking = False

    def hashArg(self, data):
        return does(data["evil"], self.factory, data)

    def check(self, data):
        return 5, "hashArg() gave a key"


class EvilThread(Check):
    """
    Does it in a worker thread.
    """

    blocking = True

    def check(self, data):
        if data["evil"] == "stuck":
            threading.Event().wait()
        return does(data["evil"], self.factory, data)


class EvilCoroutine(Check):
    """
    Does it in a coroutine, at once.
    """

    async def check(self, data):
        return does(data["evil"], self.factory, data)


class EvilLater(Check):
    """
    Does it in a coroutine that had to wait.
    """

    async def check(self, data):
        await deferLater(reactor, 0.01)
        if data["evil"] == "wait":
            await Deferred()
        return does(data["evil"], self.factory, data)


modules = {
    "sleep": ("Sleep", {"sleep": 100}),
    "raising": (Raising, {}),
    "cached": (Cached, {}),
    "check": (Evil, {}),
    "hashArg": (EvilHash, {}),
    "thread": (EvilThread, {}),
    "coroutine": (EvilCoroutine, {}),
    "coroutine that waited": (EvilLater, {}),
}


def check(factory, data, port):
    where = data.get("where")
    if where is None:
        return "dunno", "good"
    if where == "collect":
        gc.collect()  # so that what was lost is complained of now
        return "dunno", "collected"
    if where == "cached":
        return "dunno", factory.check("cached", data)[1]
    if where in ("spoil", "spoil check"):
        SPOILS[data["evil"]](data)
        if where == "spoil":
            raise ValueError("spoilt")
        return "450", f"4.3.0 The check said {factory.check('raising', data)[0]}"
    if where == "policy":
        return does(data["evil"], factory, data)
    code, info = factory.check(where, data)
    return "dunno", f"{where} said {code}"
