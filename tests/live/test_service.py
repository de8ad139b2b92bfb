"""
The server as a service: sockets that are passed to it, what it tells systemd, restarts that nobody notices.
"""

import grp
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import statistics
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from .activation import Activated, Listener
from .policyclient import PolicyClient
from .ports import freePort

ROOT = Path(__file__).parent.parent.parent
UNITS = ROOT / "contrib" / "systemd"
TWISTD = ["-c", "from twisted.scripts.twistd import run; run()", "--pidfile="]
POLICY = """
modules = {'greylist': ('Greylist', {'delay': 60})}

def check(factory, data, port):
    factory.check('greylist', data)  # it has a database to leave in order
    return 'dunno'
"""

LONG = bool(os.environ.get("PPOLICY_LONG"))
RESTARTS = 20 if LONG else 3
PAUSE = 3 if LONG else 1  # seconds between two of them


@pytest.fixture
def makeActivated():
    """
    Builds servers that are given their sockets; they end with the test.
    """
    servers = []

    def make(policy=POLICY, *sockets, names=(), **options):
        server = Activated(*sockets, names=names)
        servers.append(server)
        server.configure(policy, **options)
        return server

    yield make
    for server in servers:
        server.close()


WHERE = """
import os

def check(factory, data, port):
    seen = [name for name in os.environ if name.startswith(('LISTEN_', 'NOTIFY_', 'WATCHDOG_'))]
    return 'WARN', f'{port.host}|{port.path}|{seen}|{os.get_inheritable(3)}'
"""


def ask(address):
    """The action for a request to this address."""
    with PolicyClient(address) as client:
        return client.ask({})


def listening(family, address, **options):
    """A listening socket, as systemd makes them."""
    one = socket.socket(family)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, options.get("onlyIPv6", 0))
    one.bind(address)
    one.listen(100)
    return one


def bothLoopbacks():
    """The sockets of a plain ppolicyPort, and its number."""
    port = freePort()
    return port, listening(socket.AF_INET, ("127.0.0.1", port)), listening(socket.AF_INET6, ("::1", port))


# Sockets


def test_adopted(makeActivated, tmp_path):
    """
    Passed sockets are matched by their address; they, and the file of a UNIX socket, are left as they were.
    """
    port, v4, v6 = bothLoopbacks()
    path = tmp_path / "sock"
    unix = listening(socket.AF_UNIX, str(path))
    path.chmod(0o604)
    server = makeActivated(WHERE, v4, v6, unix, ppolicyPort=[port, f"unix:{path}:mode=604"])
    server.address = ("127.0.0.1", port)
    for _ in range(2):
        server.start()
        assert ask(("127.0.0.1", port)) == "WARN 127.0.0.1||[]|False"
        assert ask(("::1", port)) == "WARN ::1||[]|False"
        assert ask(str(path)) == f"WARN |{path}|[]|False"
        server.terminate()
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    with PolicyClient(str(path)):  # it listens still, and nobody is refused
        pass
    assert "Traceback" not in server.log()


def test_adoptedEverywhere(makeActivated):
    """
    '*:port' is a passed socket for both families; one for IPv6 alone is refused, with what to do.
    """
    port = freePort()
    server = makeActivated(WHERE, listening(socket.AF_INET6, ("::", port)), ppolicyPort=f"*:{port}")
    server.address = ("127.0.0.1", port)
    server.start()
    assert ask(("127.0.0.2", port)).startswith("WARN 127.0.0.2|")
    server.terminate()

    port = freePort()
    other = makeActivated(WHERE, listening(socket.AF_INET6, ("::", port), onlyIPv6=1), ppolicyPort=f"*:{port}")
    assert "BindIPv6Only=both" in refused(other)


def refused(server):
    """What a server says that does not start."""
    done = subprocess.run(
        server.command(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
        **server.surroundings(),
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def test_notNamed(makeActivated):
    """
    A passed socket that ppolicyPort does not name refuses the start, with its address.
    """
    port, v4, v6 = bothLoopbacks()
    server = makeActivated(WHERE, v4, v6, ppolicyPort=f"127.0.0.1:{port}")
    assert f"a socket [::1]:{port} that ppolicyPort does not name: add it there" in refused(server)


def test_byName(makeActivated, tmp_path):
    """
    An endpoint string of systemd: names a socket, TCP or UNIX, whatever its address; another domain is refused.
    """
    inet, unix = (
        listening(socket.AF_INET, ("127.0.0.1", freePort())),
        listening(socket.AF_UNIX, f"{tmp_path}/sock"),
    )
    names = ("policy", "chroot")
    ports = ["systemd:domain=INET:name=policy", "systemd:domain=UNIX:index=1"]
    server = makeActivated(WHERE, inet, unix, names=names, ppolicyPort=ports)
    server.address = inet.getsockname()
    server.start()
    assert ask(f"{tmp_path}/sock").startswith("WARN |")
    server.terminate()
    assert (tmp_path / "sock").exists()
    server.configure(WHERE, ppolicyPort=["systemd:domain=INET6:name=policy", ports[1]])
    assert "domain=INET" in refused(server)


def test_reloadDropsSocket(makeActivated):
    """
    A passed socket that a reload takes out of ppolicyPort is read no more, which is said; another puts it back.
    """
    port, v4, v6 = bothLoopbacks()
    server = makeActivated(WHERE, v4, v6, ppolicyPort=port)
    server.address = ("127.0.0.1", port)
    server.start()
    server.configure(WHERE, ppolicyPort=f"127.0.0.1:{port}")
    done = server.reload()
    assert done.returncode == 0
    assert f"[::1]:{port} that ppolicyPort does not name" in done.stdout
    with PolicyClient(("::1", port), timeout=0.5) as waiting:
        with pytest.raises(TimeoutError):
            waiting.ask({})
        server.configure(WHERE, ppolicyPort=port)
        assert server.reload().returncode == 0
        assert ask(("::1", port)).startswith("WARN ::1|")
    assert ask(("127.0.0.1", port)).startswith("WARN 127.0.0.1|")


def test_twistd(makeActivated):
    """
    `twistd -noy ppolicy.tac` takes the sockets over, and tells systemd, as the command does.
    """
    server = makeActivated(WHERE)
    listener = Listener(server.folder)
    server.program = [*TWISTD, "-noy", str(ROOT / "ppolicy.tac")]
    server.environment = {"PPOLICY_CONF": str(server.configuration), "NOTIFY_SOCKET": listener.address}
    server.start()
    assert ask(server.address) == "WARN 127.0.0.1||[]|False"
    listener.wait("READY=1")
    server.terminate()
    listener.wait("STOPPING=1")
    listener.close()


def test_forkingTwistd(makeActivated):
    """
    A twistd that forks is not the process that the sockets were passed to: it says so.
    """
    server = makeActivated(WHERE)
    server.program = [*TWISTD, f"--logfile={server.folder}/log", "-y", str(ROOT / "ppolicy.tac")]
    server.environment = {"PPOLICY_CONF": str(server.configuration)}
    done = subprocess.run(server.command(), capture_output=True, timeout=30, check=False, **server.surroundings())
    assert done.returncode == 1  # the port is bound already
    assert "which is not this one, so they are not used" in (server.folder / "log").read_text()


def test_realActivation(makeServer):
    """
    systemd's own tool for it starts the server with the first connection.
    """
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("LIVE TEST SKIPPED: systemd-socket-activate is missing (Debian package systemd)")
    server = Activated(socket.socket())
    try:
        server.configure(WHERE)
        host, port = server.address
        program = [sys.executable, *server.program]
        process = subprocess.Popen(["systemd-socket-activate", "-l", f"{host}:{port}", *program])
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    assert ask(server.address) == "WARN 127.0.0.1||[]|False"
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        finally:
            process.terminate()
            assert process.wait(10) == 0
    finally:
        server.close()


# What systemd is told


@pytest.mark.parametrize("abstract", (False, True))
def test_transcript(makeActivated, abstract):
    """
    systemd hears of the start, of each reload with its end, good or refused, and of the stop.
    """
    server = makeActivated()
    listener = Listener(server.folder, abstract)
    server.environment = {"NOTIFY_SOCKET": listener.address}
    server.start()
    assert listener.wait("READY=1")[1].startswith("STATUS=generation 1 serves 127.0.0.1:")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert server.reload().returncode == 0
    name, at = listener.wait("RELOADING=1")[1].split("=")
    assert name == "MONOTONIC_USEC"
    assert before < int(at) < time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert listener.wait("READY=1", 2)[1].startswith("STATUS=generation 2 ")
    server.configure("nonsense")
    assert server.reload().returncode != 0
    assert listener.wait("READY=1", 3)[1].endswith("the last reload was refused")
    server.terminate()
    assert listener.wait("STOPPING=1")[1].startswith("EXTEND_TIMEOUT_USEC=")
    reload = ["RELOADING=1", "READY=1"]
    assert listener.states() == ["READY=1", *reload, *reload, "STOPPING=1"]
    listener.close()


BLOCKS = """
import time
from ppolicy.check import Check

class Blocks(Check):
    'Claims that it never blocks.'

    blocking = False

    def hashArg(self, data):
        return 0

    def check(self, data):
        if data['sender'] == 'block@example.com':
            time.sleep(3)
        return 1, None

modules = {'blocks': (Blocks, {})}

def check(factory, data, port):
    factory.check('blocks', data)
    return 'dunno'
"""


def beats(listener):
    """When the watchdog has heard something."""
    return [at for at, lines in listener.messages if lines[0] == "WATCHDOG=1"]


def test_watchdog(makeActivated):
    """
    The watchdog hears from a reactor that turns, in half its time, and nothing while a check blocks it.
    """
    server = makeActivated(BLOCKS, requestTimeout=60)
    listener = Listener(server.folder)
    server.environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "2000000"}
    server.start()
    listener.wait("WATCHDOG=1", 4)
    turning = beats(listener)
    begin = time.monotonic()
    server.request(sender="block@example.com")
    end = time.monotonic()
    listener.wait("WATCHDOG=1", len(beats(listener)) + 1)
    # One that is due may go out before the request is read.
    assert not [at for at in beats(listener) if begin + 1 < at < end - 0.1]
    assert turning[3] - turning[0] > 2
    assert all(after - before < 2 for before, after in pairwise(turning))
    listener.close()


def test_othersWatchdog(makeActivated):
    """
    A watchdog that watches another process hears nothing of this one.
    """
    server = makeActivated()
    listener = Listener(server.folder)
    server.environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "200000"}
    server.watchdogPid = 1
    server.start()
    listener.wait("READY=1")
    time.sleep(0.5)
    assert not beats(listener)
    listener.close()


# Signals at any time


SLOW_START = """
import pathlib, time
pathlib.Path(__file__).with_name('begun').touch()
time.sleep(1)

def check(factory, data, port):
    if data['sender'] == 'slow@example.com':
        import threading
        from twisted.internet.threads import deferToThread
        from ppolicy.check import wait
        pathlib.Path(__file__).with_name('asked').touch()
        wait(deferToThread(time.sleep, 1.5))
    return 'dunno'
"""


def made(server, name):
    """Wait for a file that the policy makes."""
    deadline = time.monotonic() + 20
    while not (server.folder / name).exists():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.01)


def begun(server):
    """A server that has just begun to start; it reads its configuration."""
    (server.folder / "begun").unlink(missing_ok=True)
    server.process = subprocess.Popen(
        server.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **server.surroundings()
    )
    server._reader = threading.Thread(target=server._collect, args=(server.process.stdout,), daemon=True)
    server._reader.start()
    made(server, "begun")
    return server


def test_hangUpDuringStart(makeActivated):
    """
    A SIGHUP while the server starts does not end it: it reloads once it serves.
    """
    server = begun(makeActivated(SLOW_START))
    server.hangUp()
    assert server.request() == "dunno"
    server.waitForLog("generation 2 serves")
    server.terminate()
    assert "Traceback" not in server.log()


def test_terminateDuringStart(makeActivated):
    """
    A SIGTERM while the server starts ends it, and the next start finds everything in order.
    """
    server = begun(makeActivated(SLOW_START))
    server.process.terminate()
    assert server.process.wait(10) in (0, -signal.SIGTERM)
    server.start()
    server.terminate()
    assert "Traceback" not in server.log()


def test_signalsDuringStop(makeActivated):
    """
    SIGHUP and further SIGTERM while the server stops change nothing: what runs is answered, the exit code is 0.
    """
    server = makeActivated(SLOW_START).start()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.request(sender="slow@example.com")))
    asking.start()
    made(server, "asked")
    for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        server.process.send_signal(one)
        time.sleep(0.1)
    assert server.process.wait(10) == 0
    asking.join()
    assert answers == ["dunno"]
    assert "Traceback" not in server.log()
    assert "generation 2" not in server.log()


def test_newConnectionIsAnswered(makeActivated):
    """
    A connection that was accepted and has not asked yet when SIGTERM comes is answered first.
    """
    server = makeActivated().start()
    with server.connect() as client:
        time.sleep(0.2)  # it is accepted
        server.process.terminate()
        time.sleep(0.3)
        assert client.ask({}) == "dunno"
    assert server.process.wait(10) == 0


def test_slowRequestIsForTheNext(makeActivated):
    """
    A request that takes longer than a stop may is not answered with a failure: the next server is to be asked.
    """
    policy = SLOW_START.replace("1.5", "8").replace("time.sleep(1)\n", "")
    server = makeActivated(policy).start()
    with server.connect() as client:
        threading.Thread(target=lambda: (made(server, "asked"), server.process.terminate())).start()
        with pytest.raises(ConnectionError):
            client.ask(sender="slow@example.com")
    server.process.wait(30)


# Privileges


WHO = """
import os, pathlib
from ppolicy.check import Check

modules = {'greylist': ('Greylist', {'delay': 60})}

def check(factory, data, port):
    factory.check('greylist', data)
    status = dict(line.split(':\\t', 1) for line in pathlib.Path('/proc/self/status').read_text().splitlines())
    try:
        os.setresuid(0, 0, 0)
        regained = True
    except PermissionError:
        regained = False
    groups = sorted(map(int, status['Groups'].split()))
    return 'WARN', f"{status['Uid'].split()} {status['Gid'].split()} {groups} {status['CapEff']} {regained}"
"""


def test_privileges(makeServer, tmp_path):
    """
    As root, everything is bound first; then the server is the user for good, with the groups that are the user's,
    and what it makes can be used by it and by its group.
    """
    if os.geteuid() != 0:
        pytest.skip("LIVE TEST SKIPPED: becoming another user needs root")
    user, group = pwd.getpwnam("postfix"), grp.getgrnam("nogroup")
    folder = tmp_path / "roots"  # as /run is
    folder.mkdir(mode=0o755)
    server = makeServer(WHO, user="postfix", group="nogroup", logTarget="state/requests.log")
    text = server.configuration.read_text()
    server.terminate()
    for path in (server.folder, tmp_path, *tmp_path.parents[:-2]):
        path.chmod(0o755)
    ports = [server.port, f"unix:{folder}/sock:mode=666"]
    server.configuration.write_text(text.replace(f"ppolicyPort = {server.port}", f"ppolicyPort = {ports!r}"))
    server.start()
    uid, gid = str(user.pw_uid), str(group.gr_gid)
    groups = sorted(os.getgrouplist("postfix", group.gr_gid))
    expected = f"WARN {[uid] * 4} {[gid] * 4} {groups} 0000000000000000 False"
    assert server.request() == ask(f"{folder}/sock") == expected
    assert server.reload().returncode == 0
    assert server.request() == expected
    control = (server.stateDir / "control.sock").stat()
    assert (stat.S_IMODE(control.st_mode), control.st_uid, control.st_gid) == (0o660, user.pw_uid, group.gr_gid)
    for name in ("ppolicy.sqlite", "requests.log", "lock"):
        assert (server.stateDir / name).stat().st_uid == user.pw_uid
    both = server.configuration.read_text()
    server.configuration.write_text(both.replace(repr(ports[1]), ""))
    assert server.reload().returncode == 0
    server.configuration.write_text(both)
    done = server.reload()
    assert done.returncode == 1
    assert f"{folder}/sock was left by another server: Permission denied; remove it" in done.stdout
    assert server.request() == expected
    server.terminate()
    assert "Traceback" not in server.log()
    server.start().terminate()  # the socket that it could not remove is no obstacle


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda state: state.chmod(0o777), "everybody can write to"),
        (lambda state: state.parent.chmod(0o777), "lies in"),
        (lambda state: (state.rmdir(), state.symlink_to(state.parent)), "is a symbolic link"),
        (lambda state: os.chown(state, 65534, -1), "belongs to nobody"),
    ],
    ids=("writable", "parent", "link", "foreign"),
)
def test_unsafeFolder(makeServer, damage, sentence):
    """
    A state folder that others could write to refuses the start, and `ppolicy check` says so before.
    """
    if os.geteuid() != 0:
        pytest.skip("LIVE TEST SKIPPED: giving a folder away needs root")
    server = makeServer(WHERE)
    server.terminate()
    shutil.rmtree(server.stateDir)
    server.stateDir.mkdir(mode=0o750)
    damage(server.stateDir)
    for command in ("run", "check"):
        done = server.ppolicy(command)
        if command == "check" and sentence.startswith("belongs"):
            assert done.returncode == 0  # it may be the user that the server will be
        else:
            assert (done.returncode, sentence in done.stderr) == (1, True), done.stderr


def test_rootsFiles(makeServer):
    """
    Files that root has left in the state folder of another user are named, with the command that helps.
    """
    if os.geteuid() != 0:
        pytest.skip("LIVE TEST SKIPPED: becoming another user needs root")
    server = makeServer(POLICY)
    server.terminate()
    server.configure(POLICY, user="nobody")
    done = subprocess.run(
        [sys.executable, *server.command()[1:]], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert f"chown -R nobody {server.stateDir}" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [
            "try",
            "--write",
            "greylist",
            "sender=a@example.com",
            "recipient=b@example.org",
            "client_address=192.0.2.1",
        ],
        ["db", "create"],
    ],
    ids=["try", "db"],
)
def test_rootsCommands(makeServer, words):
    """
    What root does with the command, while no server runs, is done as the owner of the state folder.
    """
    if os.geteuid() != 0:
        pytest.skip("LIVE TEST SKIPPED: giving a folder away needs root")
    server = makeServer(POLICY)
    server.terminate()
    shutil.rmtree(server.stateDir)
    server.stateDir.mkdir(mode=0o750)
    owner = pwd.getpwnam("postfix")
    os.chown(server.stateDir, owner.pw_uid, owner.pw_gid)
    done = server.ppolicy(*words)
    assert done.returncode == 0, done.stderr
    files = list(server.stateDir.iterdir())
    assert "ppolicy.sqlite" in {path.name for path in files}
    assert {path.stat().st_uid for path in files} == {owner.pw_uid}


# The unit


@pytest.fixture
def unitFolder(tmp_path):
    """
    The units among Debian's own, with a command that exists.
    """
    if shutil.which("systemd-analyze") is None:
        pytest.skip("LIVE TEST SKIPPED: systemd-analyze is missing (Debian package systemd)")
    folder = tmp_path / "lib/systemd/system"
    shutil.copytree("/lib/systemd/system", folder, symlinks=True, ignore_dangling_symlinks=True)
    shutil.copy(UNITS / "ppolicy.service", folder)
    shutil.copy(UNITS / "ppolicy.socket", folder)
    command = tmp_path / "usr/bin/ppolicy"
    command.parent.mkdir(parents=True)
    shutil.copy("/bin/true", command)
    return tmp_path


def analyze(*arguments):
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_unitsAreRight(unitFolder):
    """
    systemd finds nothing wrong with the units.
    """
    options = ("--man=no", "--generators=no", "--recursive-errors=no", f"--root={unitFolder}")
    assert analyze("verify", *options, "ppolicy.service", "ppolicy.socket") == (0, "")


def test_unitIsHardened(unitFolder):
    """
    What `systemd-analyze security` finds exposed is at most 2.0 of 10.
    """
    code, text = analyze(
        "security", "--offline=true", "--threshold=20", "--no-pager", str(UNITS / "ppolicy.service")
    )
    assert code == 0, text
    assert float(re.search(r"Overall exposure level for ppolicy.service: ([0-9.]+)", text)[1]) <= 2.0


def test_accounts(tmp_path):
    """
    The user of the unit and the folders of its configuration are made by systemd's own tools.
    """
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("LIVE TEST SKIPPED: systemd-sysusers is missing (Debian package systemd)")
    (tmp_path / "etc").mkdir()
    for tool, file in (("sysusers", "ppolicy.sysusers"), ("tmpfiles", "ppolicy.tmpfiles")):
        create = ["--create"] if tool == "tmpfiles" else []
        command = [f"systemd-{tool}", *create, f"--root={tmp_path}", str(UNITS / file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "etc/passwd").read_text().startswith("ppolicy:x:")
    assert stat.S_IMODE((tmp_path / "etc/ppolicy/secrets").stat().st_mode) == 0o700


IN_SANDBOX = """
import hashlib, pathlib
from ppolicy.check import Check

class Blocking(Check):
    'Works in a thread.'

    def hashArg(self, data):
        return 0

    def check(self, data):
        return 1, hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()

dnsServers = ['127.0.0.1:9']  # nobody is there
modules = {'greylist': ('Greylist', {'delay': 60}), 'spf': ('SPF', {}), 'blocking': (Blocking, {})}

def check(factory, data, port):
    codes = [factory.check(name, data)[0] for name in modules]
    return 'WARN', str(codes)
"""


def test_sandbox(makeActivated):
    """
    Under the unit's filter of system calls, without memory that is written and executed, without any capability,
    the server serves, keeps its state, reloads and stops.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("LIVE TEST SKIPPED: setpriv needs root (Debian package util-linux)")
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import seccomp"], capture_output=True, check=False).returncode:
        pytest.skip("LIVE TEST SKIPPED: the module seccomp is missing (Debian package python3-seccomp)")
    server = makeActivated(IN_SANDBOX)
    bare = [
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]
    under = [*bare, python, str(Path(__file__).with_name("sandbox.py")), str(UNITS / "ppolicy.service")]
    server.under = [shutil.which(bare[0]), *under[1:]]
    server.start()
    assert server.request() == "WARN [-1, 0, 1]"
    assert server.reload().returncode == 0
    assert server.request(sender="other@example.com") == "WARN [-1, 0, 1]"
    server.terminate()
    assert "Traceback" not in server.log()
    assert "Permission" not in server.log()


# Restarts


class Load:
    """
    Mails by Postfix's smtp-source, which ends when one of them is not accepted.
    """

    def __init__(self, postfix, streams=2, sessions=10):
        self._postfix = postfix
        self._begin = len(postfix.log())
        self._streams = streams
        self._sessions = sessions
        self._ended = threading.Event()
        self.sent = 0
        self.failures = []

    def __enter__(self):
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._send) for _ in range(self._streams)]
        for thread in self._threads:
            thread.start()
        return self

    def _send(self):
        count = 300
        command = ["smtp-source", "-s", str(self._sessions), "-m", str(count), "-l", "200"]
        command += ["-f", "a@example.com", "-t", "b@example.org", f"127.0.0.1:{self._postfix.port}"]
        while not self._ended.is_set():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or done.stderr:
                self.failures.append(done.stderr)
            self.sent += count

    def __exit__(self, *exception):
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.seconds = time.monotonic() - self._began

    def log(self):
        return self._postfix.log()[self._begin :]

    def delays(self):
        """
        For each mail the seconds from its MAIL FROM until it was in the queue.
        """
        deadline = time.monotonic() + 30
        while True:
            found = re.findall(r"discard\[.*delays=([0-9.]+)/.*status=sent", self.log())
            if len(found) >= self.sent or time.monotonic() > deadline:
                return [float(seconds) for seconds in found]
            time.sleep(0.2)


@pytest.fixture
def discarding(postfix, sink):
    """
    A Postfix that throws mail away once it has it.
    """
    postfix.configure(relay_transport="discard:")
    yield postfix
    postfix.configure(relay_transport=f"smtp:[127.0.0.1]:{sink.port}")


def isUnharmed(load, postfix):
    """
    Every mail was accepted, and Postfix said 4xx or 5xx to none.
    """
    assert load.failures == []
    refusals = [line for line in load.log().splitlines() if "reject:" in line or re.search(r": [45]\d\d ", line)]
    assert refusals == []
    delays = load.delays()
    assert len(delays) == load.sent
    return delays


def tell(capsys, load, delays, took):
    """Print what was measured."""
    late = sum(delay > 0.9 for delay in delays)
    with capsys.disabled():
        print(
            f"\n{load.sent} mails in {load.seconds:.1f} s, {load.sent / load.seconds:.0f} a second; {len(took)}"
            f" restarts of {statistics.median(took):.2f} s (longest {max(took):.2f} s); longest delay of a mail"
            f" {max(delays):.2f} s, {late} of 0.9 s and more"
        )


def test_restartUnderLoad(discarding, makeActivated, capsys):
    """
    Restarts under load, with the sockets held by somebody else, cost no mail: all are accepted at the first try.
    """
    server = makeActivated(requestLog=None).start()
    discarding.usePolicy(server.target, timeout="100s")
    discarding.connect().close()
    took = []
    with Load(discarding) as load:
        time.sleep(1)
        for _ in range(RESTARTS):
            took.append(server.restart())
            time.sleep(PAUSE)
    delays = isUnharmed(load, discarding)
    assert "Traceback" not in server.log()
    tell(capsys, load, delays, took)


def test_upgradeUnderLoad(discarding, makeActivated, tmp_path, capsys):
    """
    Another version takes over under load, and the former one again, without cost to any mail.
    """
    for name in ("ppolicy", "modules"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    version = tmp_path / "ppolicy/__init__.py"
    version.write_text(re.sub('__version__ = "[^"]+"', '__version__ = "99.0"', version.read_text()))
    server = makeActivated(requestLog=None).start()
    discarding.usePolicy(server.target, timeout="100s")
    discarding.connect().close()
    took = []
    with Load(discarding) as load:
        time.sleep(1)
        for checkout in [tmp_path, None] * (RESTARTS // 2):
            server.checkout = checkout
            took.append(server.restart())
            time.sleep(PAUSE)
    delays = isUnharmed(load, discarding)
    assert len(re.findall(r"ppolicy 99\.0 serves", server.log())) == RESTARTS // 2
    assert len(re.findall(r"ppolicy (?!99)\S+ serves", server.log())) == RESTARTS // 2 + 1
    assert "Traceback" not in server.log()
    tell(capsys, load, delays, took)
