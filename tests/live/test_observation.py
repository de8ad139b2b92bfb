"""
What an administrator sees of a running server: stats, why, trace, log and cache, and the socket behind them.
"""

import contextlib
import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from ppolicy import control, controlclient
from ppolicy.errors import NoServer, PPolicyError
from tests.stalls import took

from ..test_control import randomLine
from .faults import rss
from .loglines import HOSTILE, isHarmless
from .policyserver import Server
from .wire import Wire, octets, request

LONG = bool(os.environ.get("PPOLICY_LONG"))
ME = control.userNamed(os.geteuid())

SAYS = """
from ppolicy.check import Check, parameter

class Says(Check):
    blocking = False
    code: int = parameter(1, 'what it says')
    seconds: int = parameter(0, 'for how long that is cached')

    def hashArg(self, data):
        return data.get('sender') if self.seconds else 0

    def check(self, data):
        return self.code, (f"{data.get('sender')} says", self.code), self.seconds

"""


def socketOf(server):
    """Where the server listens for commands."""
    return server.stateDir / "control.sock"


def ask(server, verb, **arguments):
    """What the command would get from the server."""
    return controlclient.ask(socketOf(server), verb, **arguments)


def why(server, text, limit=1000):
    """The decisions about a mail."""
    return ask(server, "why", text=text, limit=limit)["decisions"]


def words(server, *given):
    """A command, as the shell has it."""
    return [sys.executable, "-m", "ppolicy", *given, "-c", str(server.configuration)]


def command(server, *given, **options):
    """Run a command: (exit code, what it printed)."""
    done = subprocess.run(
        words(server, *given),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    return done.returncode, done.stdout


class Running:
    """
    A command that runs until it is told to end, and the lines that it has printed so far.
    """

    def __init__(self, server, *given):
        self.lines = []
        self.process = subprocess.Popen(
            words(server, *given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
        )
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self._reader.start()

    def until(self, condition, meanwhile=lambda: None, timeout=30):
        """Wait for the lines to be as they should, and do something meanwhile."""
        deadline = time.monotonic() + timeout
        while not condition(self.lines):
            assert time.monotonic() < deadline, self.lines
            assert self.process.poll() is None, self.lines
            meanwhile()
            time.sleep(0.05)

    def interrupt(self):
        """Press Ctrl-C: the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(10)
        self._reader.join(5)
        return code

    def close(self):
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        self.process.stdout.close()


@pytest.fixture
def run():
    """
    Starts commands; they end with the test.
    """
    running = []

    def start(server, *given):
        running.append(Running(server, *given))
        return running[-1]

    yield start
    for one in running:
        one.close()


# Why


REFUSES = (
    SAYS
    + """
modules = {'reputation': (Says, {'code': 2}), 'size': (Says, {'code': -3}), 'known': (Says, {'seconds': 60})}

def check(factory, data, port):
    factory.check('known', data)
    if data['protocol_state'] == 'RCPT':
        factory.check('reputation', data)
        return ('REJECT', '5.7.1 not you') if data['sender'].startswith('mallory') else 'dunno'
    if data['protocol_state'] == 'END-OF-MESSAGE' and factory.check('size', data)[0] < 0:
        return 'REJECT', '5.3.4 too much of it'
    return 'dunno'
"""
)


def test_why(postfix, makeServer):
    """
    A mail that Postfix has refused is explained: every check with name, code, information and time, and the
    action; by its queue id, all that was decided about it, also before it had one.
    """
    server = makeServer(REFUSES)
    postfix.usePolicy(server.target, ("recipient", "data", "end_of_data"))
    start = len(postfix.log())
    with postfix.connect() as client:
        client.pose("192.0.2.77", "mx77.example.net")
        refused = client.attempt("bob@example.org", sender="mallory@example.net")
        assert (refused.first.code, "not you" in refused.first.text) == (554, True)
        late = client.attempt("bob@example.org", "carol@example.org", sender="alice@example.net")
        assert (late.data.code, "too much of it" in late.data.text) == (554, True)
    (decision,) = why(server, "mallory@example.net")
    assert decision["action"] == "REJECT 5.7.1 not you"
    assert abs(decision["time"] - time.time()) < 60
    assert (decision["client_address"], decision["client_name"]) == ("192.0.2.77", "mx77.example.net")
    assert (decision["helo_name"], decision["protocol_state"]) == ("client.example.com", "RCPT")
    assert 0 < decision["ms"] < 5000
    for step in decision["steps"]:
        assert 0 <= step.pop("ms") < 5000
    assert decision["steps"] == [
        {"name": "known", "code": 1, "info": ["mallory@example.net says", 1], "cached": False},
        {"name": "reputation", "code": 2, "info": ["mallory@example.net says", 2], "cached": False},
    ]
    assert decision["instance"]
    assert decision in [one | {"steps": decision["steps"]} for one in why(server, decision["instance"])]
    deadline = time.monotonic() + 5
    while not (found := re.search(r"smtpd\[\d+\]: (\w+): reject: END-OF-MESSAGE", postfix.log()[start:])):
        assert time.monotonic() < deadline, postfix.log()[start:]
        time.sleep(0.05)
    mail = why(server, found[1])
    assert [(one["protocol_state"], one["recipient"]) for one in mail] == [
        ("RCPT", "bob@example.org"),
        ("RCPT", "carol@example.org"),
        ("DATA", ""),
        ("END-OF-MESSAGE", ""),
    ]
    assert mail[0]["queue_id"] == "" != mail[-1]["queue_id"]
    assert mail[-1]["action"] == "REJECT 5.3.4 too much of it"
    assert [(one["name"], one["code"], one["cached"]) for one in mail[-1]["steps"]] == [
        ("known", 1, True),
        ("size", -3, False),
    ]
    for text in ("ALICE@", "carol@example.org", "192.0.2.77", "mx77", found[1][1:]):
        assert mail[-1] in why(server, text), text
    code, out = command(server, "why", found[1])
    assert code == 0
    blocks = out.rstrip("\n").split("\n\n")
    assert len(blocks) == 4
    for line in (
        rf"[0-9-]+ [0-9:.]+  END-OF-MESSAGE  instance \S+  queue id {found[1]}",
        r"  client 192\.0\.2\.77 mx77\.example\.net, HELO client\.example\.com",
        r"  <alice@example\.net> to <>",
        r"  known +1 +cached  \['alice@example\.net says', 1\]",
        r"  size +-3 +[0-9.]+ ms  \['alice@example\.net says', -3\]",
        r"  action=REJECT 5\.3\.4 too much of it  \([0-9.]+ ms\)",
    ):
        assert re.search(f"^{line}$", blocks[3], re.M), (line, blocks[3])
    code, out = command(server, "why", "nobody@example.com")
    assert (code, out) == (4, "nothing about 'nobody@example.com' in the last 6 decisions\n")


def test_whyRemembers(makeServer):
    """
    About historySize decisions are remembered, the newest, and a reload changes how many.
    """
    server = makeServer("def check(factory, data, port): return 'dunno'", historySize=200, requestLog=None)
    numbers = range(500)
    with Wire(server.address) as wire:
        wire.talk([b"".join(request(instance=f"m.{number}.end") for number in numbers)], len(numbers))
    kept = [one["instance"] for one in why(server, "m.")]
    assert kept[-200:] == [f"m.{number}.end" for number in numbers[-200:]]
    assert len(kept) < 500
    assert len(why(server, "m.", 5)) == 5
    server.configure("def check(factory, data, port): return 'dunno'", historySize=0, requestLog=None)
    assert server.reload().returncode == 0
    assert why(server, "m.") == []


# Stats


COUNTED = (
    SAYS
    + """
modules = {'plain': (Says, {'code': -1}), 'cached': (Says, {'seconds': 60, 'code': 5})}

def check(factory, data, port):
    if data['sender'] == 'raise':
        raise ValueError('as asked')
    factory.check('cached', data)
    if data['protocol_state'] == 'DATA':
        factory.check('plain', data)
    return data.get('say')
"""
)


def test_stats(makeServer, run):
    """
    The numbers are those of what was sent: by action, check, code and cache, also of a policy in worker threads;
    --watch shows them again and again.
    """
    server = makeServer(COUNTED, requestLog=None, policyThreads=True)
    watching = run(server, "stats", "--watch", "0.5")
    sent = Counter(
        {("dunno", "RCPT"): 40, ("REJECT no", "DATA"): 30, ("450 4.7.1 x", "RCPT"): 20, ("OK", "DATA"): 10}
    )
    with Wire(server.address) as wire:
        for (say, state), number in sent.items():
            one = request(say=say, protocol_state=state, sender=f"{say}@example.net")
            wire.talk([one * number], number)
        wire.talk([request(sender="raise")] * 7, 7)
    told = ask(server, "stats")
    for part in (told["minute"], told["start"]):
        assert part["requests"] == 108  # one when the server was started
        assert part["actions"] == {"DUNNO": 41, "REJECT": 30, "450": 27, "OK": 10}
        assert part["checks"]["plain"] == {"asked": 40, "fromCache": 0, "codes": {"-1": 40}} | {
            name: value for name, value in part["checks"]["plain"].items() if name == "meanMilliseconds"
        }
        cached = part["checks"]["cached"]
        assert (cached["asked"], cached["fromCache"], cached["codes"]) == (101, 96, {"5": 101})
        times = list(part["milliseconds"].values())
        assert times == sorted(times)
        assert 0 < times[0] < 1000
    code, out = command(server, "stats")
    assert code == 0
    for line in (r"requests +108 +108", r"REJECT +30 +30", r"cached +101 +101 +95% +[0-9.]+ +5:101"):
        assert re.search(f"^{line}$", out, re.M), out
    code, out = command(server, "stats", "--json")
    assert (code, json.loads(out)["start"]["actions"]) == (0, told["start"]["actions"])
    watching.until(lambda lines: sum("since the start" in line for line in lines) >= 2 * 3)
    assert watching.interrupt() == 130
    assert "Traceback" not in "".join(watching.lines)


# Trace


def test_traceFilters(makeServer):
    """
    Who follows sees what fits all filters, in its order, and what was decided from then on only.
    """
    server = makeServer("def check(factory, data, port): return data.get('say')", requestLog=None)
    filters = {
        "all": {},
        "network": {"client": "198.51.100.0/24"},
        "name": {"client": "EXAMPLE.net"},
        "sender": {"sender": "alice@"},
        "recipient": {"recipient": "@example.org", "action": "reject"},
        "action": {"action": "450"},
    }
    server.request(sender="before@example.net")
    follows = {name: controlclient.follow(socketOf(server), "trace", **wanted) for name, wanted in filters.items()}
    asked = [
        {"client_address": "198.51.100.7", "client_name": "mx.example.com"},
        {"client_name": "mx.example.net", "say": "450 4.7.1 later"},
        {"sender": "Alice@example.com", "say": "REJECT no"},
        {"recipient": "x@example.com", "say": "REJECT no"},
        {"recipient": "last@example.org", "sender": "alice@last", "client_name": "last.example.net"},
    ]
    for number, one in enumerate(asked):
        server.request({"instance": str(number)} | one)
    fits = {"all": "01234", "network": "0", "name": "14", "sender": "24", "recipient": "2", "action": "1"}
    for name, following in follows.items():
        seen = [next(following)["instance"] for _ in fits[name]]
        assert seen == list(fits[name]), name
        following.close()
    code, out = command(server, "trace", "--client", "192.0.2.0/77")
    assert (code, out) == (1, "'192.0.2.0/77' is no network such as 192.0.2.0/24\n")


def test_traceMany(makeServer):
    """
    Ten may follow at once; the eleventh is told so, and may when one of them has left.
    """
    server = makeServer("def check(factory, data, port): return 'dunno'")
    follows = [controlclient.follow(socketOf(server), "trace") for _ in range(10)]
    with pytest.raises(PPolicyError, match="10 others follow already, which is the most at once"):
        controlclient.follow(socketOf(server), "trace")
    follows.pop().close()
    deadline = time.monotonic() + 5
    while len(follows) < 10:
        with contextlib.suppress(PPolicyError):
            follows.append(controlclient.follow(socketOf(server), "trace"))
        assert time.monotonic() < deadline
    server.request(instance="seen")
    assert {next(one)["instance"] for one in follows} == {"seen"}
    server.terminate()
    for one in follows:
        with pytest.raises(NoServer, match="the server has ended"):
            next(one)


def load(server, count, waited):
    """
    A client that asks as fast as it is answered; the seconds that each answer took.
    """
    with Wire(server.address) as wire:
        for number in range(count):
            begun = time.monotonic()
            wire.ask(request(instance=f"load.{number}", sender="x" * 200))
            waited.append(took(begun))


def test_traceStops(makeServer, run):
    """
    A reader that stops reading delays no answer and takes no memory; when it goes on it hears what it has missed.
    """
    server = makeServer("def check(factory, data, port): return 'dunno'", requestLog=None)
    reader = run(server, "trace", "--json")
    reader.until(lambda lines: lines, server.request)
    other = controlclient.follow(socketOf(server), "trace", sender="other@")
    load(server, 2000, [])
    memory = rss(server)
    reader.process.send_signal(signal.SIGSTOP)
    waited = [[] for _ in range(4)]
    threads = [threading.Thread(target=load, args=(server, 20000 if LONG else 2000, one)) for one in waited]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waited = [seconds for one in waited for seconds in one]
    assert len(waited) == 4 * (20000 if LONG else 2000)
    assert max(waited) < 5  # it never goes on reading
    assert rss(server) - memory < 20e6
    server.request(sender="other@example.net")
    assert next(other)["sender"] == "other@example.net"
    other.close()
    reader.process.send_signal(signal.SIGCONT)
    reader.until(lambda lines: sum(json.loads(line).get("leftOut", 0) for line in lines) > 1000, server.request)
    assert len(reader.lines) < len(waited)
    assert reader.interrupt() == 130
    assert "Traceback" not in server.log()


# What is changed


CHANGED = (
    SAYS
    + """
import logging

modules = {'cached': (Says, {'seconds': 60}), 'greylist': ('Greylist', {'delay': 60})}

def check(factory, data, port):
    logging.debug('debug of %s', data['sender'])
    factory.check('cached', data)
    factory.check('greylist', data)
    return 'dunno'
"""
)


def test_changes(makeServer):
    """
    Each change through the socket is in the log with who did it; what only looks is not.
    """
    server = makeServer(CHANGED)
    server.request(sender="quiet@example.net")
    assert "debug of" not in server.log()
    assert ask(server, "log.level") == {"level": "INFO", "configured": "INFO"}
    code, out = command(server, "log", "level", "debug")
    assert (code, out) == (0, "DEBUG (logLevel is INFO)\n")
    server.waitForLog(f"{ME}: log level is DEBUG until the next reload")
    server.request(sender="loud@example.net")
    server.waitForLog("debug of loud@example.net")
    shown = ask(server, "cache.show")
    assert [(one["check"], one["entries"]) for one in shown["checks"]] == [("cached", 3), ("greylist", 0)]
    entries = ask(server, "cache.show", module="cached")["entries"]
    assert entries[0]["arguments"] == "loud@example.net"
    assert (entries[0]["code"], entries[0]["info"]) == (1, ["loud@example.net says", 1])
    assert 50 < entries[0]["seconds"] <= 60
    code, out = command(server, "cache", "show")
    assert re.search(r"^cached +3 +3 +0 +0%$", out, re.M), out
    code, out = command(server, "cache", "show", "cached")
    assert "loud@example.net" in out
    assert command(server, "cache", "show", "cache") == (
        1,
        "there is no check 'cache'; modules has cached, greylist, did you mean cached?\n",
    )
    assert ask(server, "cache.flush", module="cached") == {"flushed": 3}
    server.waitForLog(f"{ME}: the cached results of cached are forgotten")
    assert ask(server, "cache.flush")["flushed"] == 0
    server.waitForLog(f"{ME}: all cached results are forgotten")
    ask(server, "explain", request={"sender": "explained@example.net\x1b[2J", "recipient": "b@example.org"})
    server.waitForLog(f"{ME}: explain --write sender=explained@example.net\\x1b[2J recipient=b@example.org")
    ask(
        server,
        "command",
        family="greylist",
        check=None,
        command="remove",
        arguments={"sender": "loud@example.net"},
    )
    server.waitForLog(f'{ME}: greylist greylist remove {{"sender": "loud@example.net"}}')
    before = len(server.output)
    for verb in ("status", "stats", "cache.show"):
        ask(server, verb)
    ask(server, "command", family="greylist", check=None, command="list", arguments={})
    why(server, "loud")
    controlclient.follow(socketOf(server), "trace").close()
    time.sleep(0.3)
    assert [line for line in server.output[before:] if f"{ME}:" in line] == []
    assert server.reload().returncode == 0
    server.waitForLog(f"{ME}: reload")
    assert ask(server, "log.level")["level"] == "INFO"


# Privacy


TELLS = (
    SAYS
    + """
class Known(Says):
    def hashArg(self, data):
        return '\\n'.join(data[name] for name in ('sender', 'recipient', 'client_address', 'helo_name'))

modules = {'says': (Says, {}), 'known': (Known, {'seconds': 60})}

def check(factory, data, port):
    factory.check('says', data)
    factory.check('known', data)
    who = f"{data['sender']} to {data['recipient']} from {data['client_address']} as {data['helo_name']}"
    return 'REJECT', f'5.7.1 {who}'
"""
)

# Each has the word secret in it, in some letters.
ODD = [
    "secret@example.net",
    "SeCrEt@example.net",
    "a@secret.example",
    "secret",
    "'secret'@example.net",
    '"secret secret"@example.net',
    "back\\secret@example.net",
    "tab\tsecret@example.net",
    "\x1b[31msecret@example.net",
    "\u017elu\u0165secret@example.net",
    b"\xe9secret@example.net",
    "secret+secret*(?P<x>[a-z]@example.net",
    "secret" * 100 + "@example.net",
    "x@secret@secret",
    "=secret=",
    "\\secret\\g<0>",
    "~secret",
]


def test_privacy(makeServer):
    """
    With privacy, no address, name or login stands in the request log, in why or in trace, and who is asked for is
    still found; what the history knew before that is forgotten.
    """
    server = makeServer(TELLS, logTarget="requests.log")
    server.request(sender="secret@example.net")
    assert why(server, "secret@example.net")
    path = server.folder / "requests.log"
    server.configure(TELLS, logTarget="requests.log", privacy="hash")
    assert server.reload().returncode == 0
    server.waitForLog("privacy begins")
    assert why(server, "secret@example.net") == []
    path.write_bytes(b"")
    following = controlclient.follow(socketOf(server), "trace")
    asked = [
        {name: value}
        for value in ODD
        for name in ("sender", "recipient", "helo_name", "client_name", "sasl_username")
    ]
    asked += [{"client_address": address} for address in ("203.0.113.99", "2001:db8:99::99")]
    with Wire(server.address) as wire:
        for number, one in enumerate(asked):
            wire.ask(request(**one, instance=f"p.{number}.end"))
    seen = [next(following) for _ in asked]
    following.close()
    assert [one["instance"] for one in seen] == [f"p.{number}.end" for number in range(len(asked))]
    deadline = time.monotonic() + 5
    while len(logged := path.read_text("utf-8").splitlines()) < len(asked):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = why(server, "p.")
    code, shown = command(server, "why", "--limit", "1000", "p.")
    assert code == 0
    assert len(kept) == len(asked) == len(logged)
    hidden = re.compile(r"secret|113\.99|99::99|sender@example|recipient@example|mail\.example", re.I)
    for one in (*map(str, seen), *map(str, kept), *logged, *shown.splitlines()):
        assert not hidden.search(one), one
    for text in (
        "secret@example.net",
        "SECRET@example.net ",
        "203.0.113.99",
        "2001:db8:99::99",
        ODD[5],
        ODD[9],
        ODD[12],
    ):
        found = why(server, text)
        assert found, text
        assert not hidden.search(str(found))
    assert why(server, "nobody@example.net") == []
    cached = ask(server, "cache.show", module="known")["entries"]
    assert len({entry["arguments"] for entry in cached}) > len(ODD)
    assert not hidden.search(str(cached))
    # Filters know whom they are asked for.
    following = controlclient.follow(socketOf(server), "trace", client="203.0.113.0/24", sender="secret@")
    server.request(client_address="203.0.113.99", sender="secret@example.net", instance="filtered")
    one = next(following)
    assert (one["instance"], one["sender"]) == ("filtered", why(server, "secret@example.net")[-1]["sender"])
    following.close()


# The socket


def asNobody(path, *groups):
    """
    What a user hears who is in these groups and is otherwise nobody.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups(groups)
            os.setresgid(54321, 54321, 54321)
            os.setresuid(54321, 54321, 54321)
            try:
                controlclient.ask(path, "cache.flush")
                said = "admitted"
            except NoServer as error:
                said = str(error)
            os.write(writes, said.encode())
        finally:
            os._exit(0)
    os.close(writes)
    os.waitpid(child, 0)
    with os.fdopen(reads) as said:
        return said.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_wrongUser(makeServer):
    """
    The socket is for root, the server's user and its group; others are refused, also when they can connect.
    """
    server = makeServer("def check(factory, data, port): return 'dunno'")
    path = socketOf(server)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    server.stateDir.chmod(0o755)
    assert asNobody(path).startswith(f"{path}: Permission denied: only root may use {path}; use sudo")
    path.chmod(0o666)
    assert asNobody(path).startswith(f"not admitted: only root may use {path}; use sudo")
    assert asNobody(path, 0).startswith("not admitted")  # root's group is nobody's
    os.chown(path, -1, 12345)
    assert asNobody(path).startswith("not admitted")
    assert asNobody(path, 12345) == "admitted"
    server.waitForLog("user 54321: all cached results are forgotten")
    assert "Traceback" not in server.log()


class Impatient(Server):
    """
    A server that waits for seconds where others wait for minutes.
    """

    def command(self):
        program = (
            "from ppolicy import control; control.IDLE = control.STALLED = 3\n"
            "from ppolicy.__main__ import main; main(prog_name='ppolicy')"
        )
        return [sys.executable, "-c", program, "run", "-c", str(self.configuration)]


@pytest.fixture
def impatient():
    """
    Such a server.
    """
    server = Impatient()
    try:
        server.configure("def check(factory, data, port): return 'dunno'", requestLog=None)
        yield server.start()
    finally:
        server.close()


def hangsUp(connection, timeout=10):
    """Read until the server hangs up."""
    connection.settimeout(timeout)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass


def test_halfOpen(impatient):
    """
    Clients that connect and say nothing, half a request, or read no answer keep others out for a while only, and
    take no memory; all the time, mail is decided about.
    """
    path = str(socketOf(impatient))
    memory = rss(impatient)
    said = (b"", b'{"verb": "sta', b'{"verb": "trace"}\n', b'{"verb": "stats"}\n' * 1000, b"\n" * 20000)
    with contextlib.ExitStack() as stack:
        open_ = []
        for number in range(control.CONNECTIONS):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(path)
            open_.append(connection)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(500 if number % 5 >= 3 else 1):
                    connection.send(said[number % 5])
        with pytest.raises(PPolicyError, match="^50 control connections are open, which is the most; try"):
            ask(impatient, "status")
        with Wire(impatient.address) as wire:
            for _ in range(1000):
                wire.ask(request(sender="x" * 500))
        assert rss(impatient) - memory < 60e6
        for number, connection in enumerate(open_):
            if number % 5 != 2:
                hangsUp(connection)
        code, out = command(impatient, "status")
        assert code == 0, out
    assert "Traceback" not in impatient.log()


FUZZED = (
    SAYS
    + """
modules = {'spf': (Says, {'seconds': 60}), 'greylist': ('Greylist', {'delay': 60})}

def check(factory, data, port):
    factory.check('spf', data)
    factory.check('greylist', data)
    return 'dunno'
"""
)
VERBS = [
    "status",
    "stats",
    "why",
    "trace",
    "log.level",
    "cache.show",
    "cache.flush",
    "explain",
    "command",
    "reloa",
]
COMMANDS = ["list", "show", "remove", "allow", "stats", "check", "stop", "__init__", None, 5]


def fuzzLine(chance):
    """
    A line for the control socket: any, or a request with anything in it.
    """
    if chance.random() < 0.8:
        return randomLine(chance, VERBS)
    names = ("text", "limit", "sender", "recipient", "client", "self", "data")
    values = ("a", "", None, 0, 10**30, [1], {"a": 1}, "%", "\\", "\0", "192.0.2.1")
    arguments = {name: chance.choice(values) for name in chance.sample(names, chance.randint(0, 3))}
    one = {"verb": "command", "family": "greylist", "command": chance.choice(COMMANDS), "arguments": arguments}
    return json.dumps(one).encode() + b"\n"


def talkNonsense(path, lines):
    """
    Send lines, and read an answer to each of them: whether it was a refusal.
    """
    stream = b"".join(lines)
    answers = []
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as found:
        connection.connect(path)
        connection.settimeout(10)
        sender = threading.Thread(target=connection.sendall, args=(stream,))
        sender.start()
        while len(answers) < stream.count(b"\n"):
            answer = json.loads(found.readline())
            if "ok" in answer:  # else it is a decision that is followed
                answers.append(answer["ok"])
        sender.join()
    return answers


def test_fuzz(makeServer):
    """
    A hundred thousand lines of any kind are each refused or answered; none fails, and mail is decided about
    meanwhile.
    """
    server = makeServer(FUZZED, requestLog=None)
    chance = random.Random(os.environ.get("PPOLICY_SEED", "1"))
    path = str(socketOf(server))
    waited, ended = [], threading.Event()

    def mail():
        with Wire(server.address) as wire:
            while not ended.is_set():
                begun = time.monotonic()
                assert wire.ask(request(instance=f"f.{len(waited)}")) == "dunno"
                waited.append(took(begun))
                time.sleep(0.005)

    thread = threading.Thread(target=mail)
    thread.start()
    memory, seen = None, Counter()
    try:
        for number in range(1000 if LONG else 500):
            lines = [fuzzLine(chance) for _ in range(200)]
            if number % 10 == 9:
                lines.append(fuzzLine(chance)[:20].rstrip(b"\n"))
            seen.update(talkNonsense(path, lines))
            if number == 50:
                memory = rss(server)
    finally:
        ended.set()
        thread.join()
    assert sum(seen.values()) >= 100_000
    assert seen[True] > 1000
    assert max(waited) < 2
    assert rss(server) - memory < 40e6
    assert ask(server, "status")["requests"]["failed"] == 0
    for one in [controlclient.follow(path, "trace") for _ in range(10)]:  # nobody has remained
        one.close()
    log = server.log()
    assert "Traceback" not in log
    assert "a control request failed" not in log
    assert "Unhandled" not in log


# The terminal


def test_terminal(makeServer, run):
    """
    Hostile values are shown without a character that a terminal would act on.
    """
    server = makeServer(
        SAYS + "modules = {'says': (Says, {})}\n"
        "def check(factory, data, port):\n    factory.check('says', data)\n    return 'REJECT', data['sender']\n",
        requestLog=None,
    )
    following = run(server, "--color", "always", "trace")
    following.until(lambda lines: lines, server.request)
    values = [value for value in HOSTILE if len(octets(value)) < 3000]
    names = ("sender", "recipient", "helo_name", "client_name", "client_address", "queue_id", "sasl_username")
    with Wire(server.address) as wire:
        for number, value in enumerate(values):
            wire.ask(request(**dict.fromkeys(names, value), instance=f"t.{number}.end", protocol_state=value))
            time.sleep(0.002)
    following.until(lambda lines: any(f"t.{len(values) - 1}.end" in line for line in lines))
    assert following.interrupt() == 130
    texts = ["".join(following.lines)]
    for given in (
        ("why", "t.", "--limit", "1000"),
        ("stats",),
        ("cache", "show", "says"),
        ("why", "\x1b[2J\u202e"),
    ):
        texts.append(command(server, "--color", "always", *given)[1])
    for text in texts:
        for line in re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n"):
            assert isHarmless(line)
    assert texts[1].count("action=REJECT") == len(values)
