"""
The same server, however it was installed and however it is started.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .policyclient import ConnectionClosed, PolicyClient
from .ports import freePort

ROOT = Path(__file__).parent.parent.parent

FORMS = ("checkout inside", "checkout outside", "editable", "wheel", "sdist")
WAYS = ("twistd -y", "twistd -noy", "ppolicy run")

# Its answer tells which files the running server consists of, and that a bundled check and a site's own work.
POLICY = """\
import sys

import ppolicy

ppolicyPort = {port}
stateDir = {folder!r} + '/state'
modulePath = ['site']
modules = {{'ours': ('Ours', {{}}), 'bundled': ('Dummy', {{}})}}


def check(factory, data, port):
    _, ours = factory.check('ours', data)
    _, bundled = factory.check('bundled', data)
    file = sys.modules['ppolicy.modules.dummy'].__file__
    return 'PREPEND', f'X-Test: {{ppolicy.__file__}} {{file}} {{ours}} {{bundled}}'
"""

SITE_MODULE = """\
from ppolicy.check import Check


class Ours(Check):
    '''
    Knows one answer.
    '''

    def check(self, data):
        return 1, 'ours'
"""

MISTAKES = """\
connLimit = 'many'
modules = {'one': ('Nope', {})}


def check(factory, data, port):
    return 'dunno', ''
"""


def run(*command, timeout=120, **keywords):
    """
    Run a command that must succeed; returns what it printed.
    """
    finished = finish(*command, timeout=timeout, **keywords)
    assert finished.returncode == 0, f"{command} ended with {finished.returncode}:\n{finished.stdout}"
    return finished.stdout


def finish(*command, timeout=30, **keywords):
    """
    Run a command to its end.
    """
    keywords.setdefault("env", environment())
    return subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=timeout,
        check=False,
        **keywords,
    )


def environment(**more):
    """
    The environment of a command: ours, without what would lead it to another ppolicy or configuration.
    """
    ours = ("PYTHONPATH", "PPOLICY_CONF", "STATE_DIRECTORY", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    return {name: value for name, value in os.environ.items() if name not in ours} | more


def tracked():
    """
    The names of the files that git knows, and that are still there.
    """
    # As root, git refuses a checkout that belongs to somebody else.
    names = run("git", "-c", "safe.directory=*", "ls-files", "-z", cwd=ROOT).split("\0")
    return {name for name in names if (ROOT / name).is_file()}


def copyTracked(folder):
    """
    A bare checkout, its files as they stand now.
    """
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def makeVenv(folder, *packages):
    """
    A new environment with these packages and what they need. Returns its folder.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    run(sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet", *packages)
    return folder


@dataclass
class Form:
    """
    One form of installation.

    @ivar venv: the Python environment.
    @ivar tac: the ppolicy.tac to give to twistd.
    @ivar cwd: where the commands are run.
    @ivar server: the folder that ppolicy/ must have been loaded from.
    @ivar modules: the same for the bundled modules.
    @ivar command: `ppolicy`.
    """

    venv: Path
    tac: Path
    cwd: Path
    server: Path
    modules: Path
    command: list
    environment: dict = field(default_factory=environment)

    def start(self, way, configuration):
        """
        The command that starts a server in one of the three ways, and its environment.
        """
        twistd = [self.venv / "bin/twistd", *way.split()[1:], self.tac]
        chosen = {
            "twistd -y": twistd,
            "twistd -noy": twistd,
            "ppolicy run": [*self.command, "run", "-c", configuration],
        }
        return [str(word) for word in chosen[way]], self.environment | {"PPOLICY_CONF": str(configuration)}


class Forms:
    """
    Makes each form when it is first asked for.
    """

    def __init__(self, folder):
        self._folder = folder
        self._made = {}

    def get(self, name):
        if name not in self._made:
            self._made[name] = getattr(self, "_" + name.replace(" ", "_"))()
        return self._made[name]

    def _checkout(self):
        return copyTracked(self._folder / "checkout")

    def _dependencies(self):
        # Nothing that has to be compiled: a machine of an administrator has no compiler. pyspf is plain Python,
        # but comes without a wheel.
        only = ("--only-binary", ":all:", "--no-binary", "pyspf")
        return makeVenv(self._folder / "dependencies", *only, *requirements())

    def _archives(self):
        source = copyTracked(self._folder / "source")
        run(sys.executable, "-m", "build", cwd=source)
        (wheel,) = (source / "dist").glob("*.whl")
        (sdist,) = (source / "dist").glob("*.tar.gz")
        return wheel, sdist

    def _checkout_inside(self):
        checkout = self.get("checkout")
        venv = self.get("dependencies")
        command = [venv / "bin/python", "-m", "ppolicy"]
        return Form(venv, Path("ppolicy.tac"), checkout, checkout / "ppolicy", checkout / "modules", command)

    def _checkout_outside(self):
        form = self.get("checkout inside")
        outside = self._folder / "outside"
        outside.mkdir()
        path = environment(PYTHONPATH=str(form.cwd))
        return Form(form.venv, form.cwd / form.tac, outside, form.server, form.modules, form.command, path)

    def _editable(self):
        source = copyTracked(self._folder / "editable")
        venv = makeVenv(self._folder / "editable-venv", "--editable", source)
        # Not the .tac in the checkout: that one would find ppolicy without an installation.
        tac = shutil.copy(source / "ppolicy.tac", venv)
        return self._installed(venv, Path(tac), source / "ppolicy", source / "modules")

    def _wheel(self):
        return self._fromArchive("wheel", self.get("archives")[0])

    def _sdist(self):
        return self._fromArchive("sdist", self.get("archives")[1])

    def _fromArchive(self, name, archive):
        venv = makeVenv(self._folder / f"{name}-venv", archive)
        (packages,) = venv.glob("lib/python*/site-packages")
        return self._installed(
            venv, venv / "share/ppolicy/ppolicy.tac", packages / "ppolicy", packages / "ppolicy/modules"
        )

    def _installed(self, venv, tac, server, modules):
        (venv / "cwd").mkdir()
        return Form(venv, tac, venv / "cwd", server, modules, [venv / "bin/ppolicy"])


def requirements():
    """
    What setup.cfg says ppolicy needs.
    """
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return setup["options"]["install_requires"].split()


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    if shutil.which("git") is None:
        pytest.skip("LIVE TEST SKIPPED: git is missing (Debian package git)")
    return Forms(tmp_path_factory.mktemp("forms"))


@pytest.fixture(scope="module", params=FORMS)
def form(request, forms):
    return forms.get(request.param)


@pytest.fixture
def site(tmp_path):
    """
    A folder with a configuration and a module of the site; returns the configuration and its port.
    """
    port = freePort()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/ours.py").write_text(SITE_MODULE, encoding="utf-8")
    configuration = tmp_path / "ppolicy.conf"
    configuration.write_text(POLICY.format(port=port, folder=str(tmp_path)), encoding="utf-8")
    return configuration, port


@contextlib.contextmanager
def serving(command, port, timeout=20, **keywords):
    """
    A server in the foreground that answers in time; it is killed when the block has not ended it.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
        **keywords,
    )
    try:
        awaitAnswer(port, lambda: process.poll() is None or pytest.fail(process.stdout.read()), timeout)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@contextlib.contextmanager
def adoption():
    """
    Meanwhile, a daemon that is started below us becomes our child: its exit code can be had.
    """
    setChildSubreaper = 36
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(setChildSubreaper, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(setChildSubreaper, 0, 0, 0, 0)


@contextlib.contextmanager
def daemon(command, **keywords):
    """
    A server started by `twistd -y`. Yields its process id, read from the pidfile.
    """
    pidfile = keywords["cwd"] / "twistd.pid"
    with adoption():
        run(*command, **keywords)
        pid = int(pidfile.read_text())
        try:
            yield pid
        finally:
            with contextlib.suppress(ChildProcessError):  # it has ended, and was waited for
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def awaitAnswer(port, alive=lambda: True, timeout=20):
    """
    Wait until the port is answered at.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            with PolicyClient(("127.0.0.1", port)) as client:
                return client.ask(protocol_state="CONNECT")
        except ConnectionClosed:
            raise
        except OSError:
            assert alive()
            assert time.monotonic() < deadline, "no answer"
            time.sleep(0.05)


def exitCode(pid, timeout=10):
    """
    Wait for the end of a child, a daemon that was adopted.
    """
    deadline = time.monotonic() + timeout
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        assert time.monotonic() < deadline, "still running"
        time.sleep(0.02)


def observe(form, configuration, port):
    """
    What a running server answers, and what it says it listens to.
    """
    with PolicyClient(("127.0.0.1", port)) as client:
        answer = client.ask()
    status = run(*form.command, "status", "--json", "-c", configuration, cwd=form.cwd, env=form.environment)
    return answer, json.loads(status)["listeners"]


def leftovers(form):
    """
    What twistd may leave behind where it was started.
    """
    return sorted(path.name for pattern in ("*.pid", "*.tap") for path in form.cwd.glob(pattern))


def test_sameService(form, site):
    """
    Each of the three ways starts the service of this very form, and SIGTERM ends it cleanly.
    """
    configuration, port = site
    expected = f"PREPEND X-Test: {form.server}/__init__.py {form.modules}/dummy.py ours dummy"
    seen = {}
    for way in WAYS[1:]:
        command, environment = form.start(way, configuration)
        with serving(command, port, cwd=form.cwd, env=environment) as process:
            seen[way] = observe(form, configuration, port)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=10)
        assert process.returncode == 0, output
        assert "Traceback" not in output
        assert leftovers(form) == []

    command, environment = form.start("twistd -y", configuration)
    with daemon(command, cwd=form.cwd, env=environment) as pid:
        seen["twistd -y"] = observe(form, configuration, port)
        os.kill(pid, signal.SIGTERM)
        code = exitCode(pid)
    log = form.cwd / "twistd.log"
    written = log.read_text(encoding="utf-8")
    log.unlink()
    assert code == 0, written
    assert "Traceback" not in written
    assert written.endswith("Server Shut Down.\n")
    assert leftovers(form) == []

    assert {answer for answer, _ in seen.values()} == {expected}
    listeners = [listeners for _, listeners in seen.values()]
    assert f"127.0.0.1:{port}" in listeners[0]
    assert listeners == [listeners[0]] * len(WAYS)


@pytest.mark.parametrize("way", WAYS)
def test_mistakes(form, way, tmp_path):
    """
    A configuration with mistakes: exit code 1 and every sentence, and no more than these.
    """
    configuration = tmp_path / "ppolicy.conf"
    configuration.write_text(MISTAKES, encoding="utf-8")
    command, environment = form.start(way, configuration)
    finished = finish(*command, cwd=form.cwd, env=environment)
    assert finished.returncode == 1, finished.stdout
    first, second = finished.stdout.splitlines()[-2:]
    assert first.startswith(f"{configuration}:1: connLimit: ")
    assert second.startswith(f"{configuration}:2: one: no check module Nope")
    assert "Traceback" not in finished.stdout
    assert leftovers(form) == []


@pytest.mark.parametrize("way", WAYS)
def test_portInUse(form, way, site):
    """
    A port that somebody else has: exit code 1 and the sentence, also from the daemon's parent.
    """
    configuration, port = site
    command, environment = form.start(way, configuration)
    with socket.create_server(("127.0.0.1", port)):
        finished = finish(*command, cwd=form.cwd, env=environment)
    assert finished.returncode == 1, finished.stdout
    assert f"ppolicyPort: cannot listen on 127.0.0.1:{port}: Address already in use" in finished.stdout
    deadline = time.monotonic() + 10  # the parent has ended, the daemon may still be about to
    while leftovers(form):
        assert time.monotonic() < deadline, leftovers(form)
        time.sleep(0.05)


def test_shares(forms):
    """
    The wheel has the configuration, the .tac, MODULES and the tables to install beside the package, and nothing
    else but the package.
    """
    wheel, _ = forms.get("archives")
    with zipfile.ZipFile(wheel) as archive:
        shared = {
            name.partition(".data/data/")[2]: archive.read(name) for name in archive.namelist() if ".data/" in name
        }
        folders = {name.split("/")[0] for name in archive.namelist()}
    files = [
        "ppolicy.conf",
        "ppolicy.tac",
        "MODULES",
        *(name for name in tracked() if name.startswith("sql/") or re.fullmatch(r"docs/[^/]+\.md", name)),
    ]
    manuals = {f"share/man/man{name[-1]}/{name}": f"docs/man/{name}" for name in ("ppolicy.1", "ppolicy.conf.5")}
    shares = {f"share/ppolicy/{name}": name for name in files} | manuals
    assert shared == {place: (ROOT / name).read_bytes() for place, name in shares.items()}
    assert "share/ppolicy/docs/cookbook.md" in shared
    assert "share/ppolicy/sql/sqlite.sql" in shared
    assert {name for name in folders if not name.startswith("ppolicy-")} == {"ppolicy"}


def test_sdistIsComplete(forms):
    """
    The sdist has everything that git knows.
    """
    _, sdist = forms.get("archives")
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive.getmembers()}
    assert tracked() - packed <= {".gitignore"}


def shippedCheckout(folder):
    """
    A checkout whose shipped configuration has a port of its own. Returns the port.
    """
    port = freePort()
    configuration = copyTracked(folder) / "ppolicy.conf"
    shipped = configuration.read_text(encoding="utf-8")
    ours = f"ppolicyPort = {port}\nstateDir = 'state'\n"
    assert "ppolicyPort = 10031\n" in shipped
    configuration.write_text(shipped.replace("ppolicyPort = 10031\n", ours), encoding="utf-8")
    return port


def test_makeRun(tmp_path):
    """
    In a fresh checkout, `make run` is all it takes: it installs, says what Postfix needs and serves the shipped
    configuration until SIGTERM or Ctrl-C. The second time it installs nothing.
    """
    port = shippedCheckout(tmp_path)
    installed = tmp_path / ".venv/installed"
    # A half-made environment, as without Debian's python3-venv, is no obstacle.
    (tmp_path / ".venv/bin").mkdir(parents=True)

    stamps = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving(["make", "run"], port, 180, cwd=tmp_path, env=environment()) as process:
            stamps.append(installed.stat().st_mtime_ns)
            with PolicyClient(("127.0.0.1", port)) as client:
                assert client.ask(sender=f"{number}@example.com").startswith("DEFER_IF_PERMIT 4.7.1 Greylisted")
            # A terminal's Ctrl-C reaches all of its processes; a supervisor's SIGTERM only make.
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            output, _ = process.communicate(timeout=10)
        assert f"check_policy_service {{ inet:127.0.0.1:{port}," in output
        assert output.index("check_policy_service") < output.index("ppolicy.tac")
        assert "Server Shut Down." in output
        assert "Traceback" not in output
        assert not list(tmp_path.glob("twistd*"))
    assert stamps[0] == stamps[1]
    assert (tmp_path / "state/ppolicy.sqlite").is_file()
