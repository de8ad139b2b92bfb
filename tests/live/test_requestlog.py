"""
The log, whatever the world writes into it: one line for each request, and each value to be read back as it was.
"""

import contextlib
import itertools
import random
import re
import threading
import time
import unicodedata

import pytest

from .loglines import FIELDS, FORMS, HOSTILE, hostileRequests, isHarmless, remembered
from .wire import Closed, Wire, octets, request

POLICY = """
modules = {'first': ('Dummy', {}), 'second': ('Dummy', {'cachePositive': 100})}

def check(factory, data, port):
    factory.check('first', data)
    return 'dunno', data.get('say', 'nothing')
"""

FOLLOW = 20


def octetsOf(path):
    """
    What a file holds; one that was moved away is there again with the next line.
    """
    return path.read_bytes() if path.exists() else b""


def waitFor(path, count):
    """
    Wait until the log has so many lines; those who look will say what is missing.
    """
    deadline = time.monotonic() + FOLLOW
    while octetsOf(path).count(b"\n") < count and time.monotonic() < deadline:
        time.sleep(0.05)


def lines(path, count):
    """
    The lines of the log once there are so many; each is whole and has no character that a terminal would act on.
    """
    waitFor(path, count)
    found = octetsOf(path)
    if not found:
        return []
    assert found.endswith(b"\n")
    found = found[:-1].decode("utf-8").split("\n")
    assert all(map(isHarmless, found))
    return found


@pytest.fixture(params=FORMS)
def logged(request, makeServer):
    """
    A server that logs its requests to a file, the file, and the reader of its lines.
    """
    server = makeServer(POLICY, requestLog=request.param, logTarget="requests.log")
    path = server.folder / "requests.log"
    lines(path, 1)
    path.write_bytes(b"")  # what was asked to see whether it has started
    yield server, path, FORMS[request.param]
    assert "Traceback" not in server.log()


def test_injection(logged):
    """
    Whatever stands in the attributes, each request has one line, and its values are read back to the octet.
    """
    server, path, parse = logged
    asked = hostileRequests(random.Random(1), 3000)
    with Wire(server.address) as wire:
        actions = wire.talk([request(**one) for one in asked], len(asked))
    assert set(actions) == {"dunno nothing"}
    found = lines(path, len(asked))
    assert len(found) == len(asked)
    for one, line in zip(asked, found, strict=True):
        fields = parse(line)
        assert fields["action"] == b"dunno nothing"
        for name, attribute in FIELDS.items():
            if attribute in one:
                assert fields[name] in remembered(one[attribute]), (
                    f"{attribute} {one[attribute][:99]!r} reads {line!r}"
                )


def test_action(logged):
    """
    So is the action, in the form that was sent to Postfix.
    """
    server, path, parse = logged
    said = [value for value in HOSTILE if len(value) < 500]
    with Wire(server.address) as wire:
        actions = wire.talk([request(say=value) for value in said], len(said))
    for action, line in zip(actions, lines(path, len(said)), strict=True):
        assert parse(line)["action"] == action.encode("utf-8")


def test_checks(logged):
    """
    Each check that was asked is there, with code, milliseconds and whether the answer came from the cache.
    """
    server, path, parse = logged
    assert server.request(instance="a.1") == "dunno nothing"
    (line,) = lines(path, 1)
    checks = parse(line)["checks"]
    if isinstance(checks, bytes):
        assert re.fullmatch(rb"first:-?[0-9]+:[0-9]+(:cached)?", checks)
    else:
        ((check),) = checks
        assert check["name"] == "first"
        assert check.keys() == {"name", "code", "ms", "cached"}


CHANGES = """
import ipaddress
from ppolicy.check import Check

class Strange(Check):
    '''Gives a code that is a number, but none of JSON's.'''

    blocking = False

    def check(self, data):
        return float(data['code']), 'strange'

modules = {'strange': (Strange, {})}

class Evil:
    def __str__(self):
        raise RuntimeError('no text')

    __repr__ = __str__

VALUES = {
    'address': ipaddress.ip_address('192.0.2.1'),
    'number': 5,
    'none': None,
    'list': ['a', 'b'],
    'octets': b'a\\xffb',
    'surrogate': chr(0xd800),
    'object': Evil(),
}

def check(factory, data, port):
    if data.get('code'):
        factory.check('strange', data)
    if data.get('value'):
        data['client_address'] = data['sender'] = VALUES[data['value']]
    if data.get('clear'):
        data.clear()
    return 'dunno', 'changed'
"""


@pytest.mark.parametrize("form", FORMS)
def test_changedRequest(makeServer, form):
    """
    A policy that puts something else than texts into its request, or a check a strange code, still has its line.
    """
    server = makeServer(CHANGES, requestLog=form, logTarget="requests.log")
    path = server.folder / "requests.log"
    lines(path, 1)
    path.write_bytes(b"")
    asked = [{"value": name} for name in ("address", "number", "none", "list", "octets", "surrogate", "object")]
    asked += [{"code": code} for code in ("nan", "inf", "-inf", "1e300", "1.5")] + [{"clear": 1}]
    for number, one in enumerate(asked):
        assert server.request(instance=f"c.{number}", **one) == "dunno changed", one
    # The last one has no instance any more.
    wanted = [f"c.{number}".encode() for number in range(len(asked) - 1)] + [b""]
    found = [FORMS[form](line) for line in lines(path, len(asked))]
    lost = [one for number, one in enumerate(asked) if wanted[number] not in [line["instance"] for line in found]]
    assert not lost, "these have no line"
    assert [line["instance"] for line in found] == wanted
    assert "Traceback" not in server.log()


def loadUntil(ended, server, answered, serials):
    """
    Ask until told to end or the server hangs up, noting which instances were answered.
    """
    try:
        with Wire(server.address) as wire:
            while not ended.is_set():
                instances = [f"load.{next(serials)}.end" for _ in range(20)]
                wire.talk([b"".join(request(instance=instance) for instance in instances)], len(instances))
                answered += instances
    except (Closed, OSError):
        pass


@contextlib.contextmanager
def loaded(server, answered):
    """
    Four clients that ask all the time.
    """
    ended, serials = threading.Event(), itertools.count()
    threads = [threading.Thread(target=loadUntil, args=(ended, server, answered, serials)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def instances(paths, parse):
    """
    Those of all lines in some files, in no order.
    """
    return [parse(line)["instance"].decode() for path in paths for line in lines(path, 0)]


def test_rotation(logged):
    """
    A log file that is moved away or removed is opened anew; no line is lost by the first, or written twice.
    """
    server, path, parse = logged
    answered, rotated = [], []
    with loaded(server, answered):
        for number in range(5):
            waitFor(path, 200)
            rotated.append(path.rename(path.with_suffix(f".{number}")))
        waitFor(path, 200)
    # What was moved away is written to no more once there is a new file.
    waitFor(path, len(answered) - sum(octetsOf(one).count(b"\n") for one in rotated))
    found = instances([*rotated, path], parse)
    assert sorted(found) == sorted(answered)
    assert all(file.stat().st_size for file in (*rotated, path))
    # A file that is gone, and one that somebody emptied.
    path.unlink()
    assert server.request(instance="removed.end") == "dunno nothing"
    waitFor(path, 1)
    assert instances([path], parse) == ["removed.end"]
    path.write_bytes(b"")
    assert server.request(instance="emptied.end") == "dunno nothing"
    waitFor(path, 1)
    assert instances([path], parse) == ["emptied.end"]


def test_terminated(logged):
    """
    At SIGTERM each request that was answered is in the log.
    """
    server, path, parse = logged
    for _ in range(3):
        answered = []
        path.write_bytes(b"")
        with loaded(server, answered):
            waitFor(path, 200)
            server.terminate()
        found = instances([path], parse)
        assert not set(answered) - set(found), "answered but not logged"
        assert len(set(found)) == len(found), "logged twice"
        server.start()


FAILS = """
import logging
from ppolicy.check import Check

class Fails(Check):
    blocking = False

    def check(self, data):
        raise ValueError(data['sender'])

modules = {'fails': (Fails, {})}

def check(factory, data, port):
    how = data.get('how')
    if how == 'raise':
        raise ValueError(data['sender'])
    if how == 'check':
        factory.check('fails', data)
    if how == 'answer':
        return 'x' + data['sender'], ''
    if how == 'target':
        return 'REDIRECT', data['sender']
    if how == 'ask':
        factory.check(data['sender'], data)
    if how == 'log':
        logging.warning('a policy says %s', data['sender'])
    return 'dunno', 'fine'
"""


@pytest.mark.parametrize("encoding", ("utf-8", "ascii"))
def test_eventLog(makeServer, monkeypatch, encoding):
    """
    What goes wrong with hostile values is logged once each, and nothing in the log can act, break or forge a line.
    """
    monkeypatch.setenv("PYTHONIOENCODING", f"{encoding}:strict")
    server = makeServer(FAILS, requestLog=None)
    start = len(server.output)
    values = [
        "\r\x1b[2J\x07",
        "\0",
        "\u2028forged\u2029",
        "\u0085",
        "\u202eevil",
        b"\xff\x80",
        "{0} {} %s",
        "\u017e",
    ]
    values += ["\ufeff", "a\rb", "\U000e0041", "\x9b31m", "\\", b"\xed\xa0\x80"]
    asked = []
    with Wire(server.address) as wire:
        for how in ("raise", "check", "answer", "target", "ask", "log", "junk"):
            for value in values:
                mark = f"mark{len(asked):03}"
                asked.append(mark)
                instance = octets(value) + mark.encode()
                if how == "junk":
                    wire.ask(request(request=instance, instance=instance))
                else:
                    wire.ask(request(how=how, sender=value, instance=instance))
    server.waitForLog(asked[-1], start=start)
    text = "".join(server.output[start:])
    for mark in asked:
        assert mark in text, f"{mark} was not logged"
    for one in set(text) - set("\n\t"):
        assert unicodedata.category(one) not in ("Cc", "Cf", "Zl", "Zp"), f"{one!r} is there as it is"
    assert "Unable to format" not in text
    # Each line is the first of an event, or indented.
    for line in text.splitlines():
        assert re.match(r"(\t|[0-9-]+T[0-9:]+[+-][0-9]+ \[)", line) or not line, line
