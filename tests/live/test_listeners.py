"""
Every form of ppolicyPort, on a running server.
"""

import grp
import os
import socket
import stat
import subprocess
import sys

import pytest

from .policyclient import PolicyClient
from .ports import freePort

POLICY = """
def check(factory, data, port):
    return 'WARN', f'{port.host}|{port.port}|{port.path}'
"""


# The socket is descriptor 3, and LISTEN_PID the process that is started: sd_listen_fds(3).
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="policy")
os.execv(sys.executable, [sys.executable, "-m", "ppolicy", "run", "-c", sys.argv[2]])
"""


def ask(address):
    """The action for a request to this address."""
    with PolicyClient(address) as client:
        return client.ask({})


@pytest.fixture
def listening(makeServer):
    """A server that listens where the test says; it has another port for its start."""

    def listening(*ports):
        server = makeServer(POLICY)
        text = server.configuration.read_text()
        server.configuration.write_text(
            text.replace(f"ppolicyPort = {server.port}", f"ppolicyPort = {[*ports]!r}")
        )
        done = server.reload()
        assert done.returncode == 0, done.stdout
        return server

    return listening


def test_number(listening):
    """A bare number listens on both loopback addresses, and nowhere else."""
    port = freePort()
    listening(port)
    assert ask(("127.0.0.1", port)) == f"WARN 127.0.0.1|{port}|"
    assert ask(("::1", port)) == f"WARN ::1|{port}|"
    with pytest.raises(ConnectionRefusedError):
        ask(("127.0.0.2", port))


def test_everywhere(listening):
    """'*:port' listens on every address of both families; the policy sees plain addresses."""
    port = freePort()
    listening(f"*:{port}")
    assert ask(("127.0.0.2", port)) == f"WARN 127.0.0.2|{port}|"
    assert ask(("::1", port)) == f"WARN ::1|{port}|"


def test_oneAddress(listening):
    """An address listens there alone."""
    port, other = freePort(), freePort()
    listening(f"127.0.0.3:{port}", f"[::1]:{other}")
    assert ask(("127.0.0.3", port)) == f"WARN 127.0.0.3|{port}|"
    assert ask(("::1", other)) == f"WARN ::1|{other}|"
    with pytest.raises(ConnectionRefusedError):
        ask(("127.0.0.1", port))


def test_unix(listening):
    """A UNIX socket has the mode and group that were asked for, and the policy knows its path."""
    group = grp.getgrgid(os.getegid()).gr_name
    server = listening("unix:here.sock:mode=640", f"unix:there.sock:mode=606:group={group}")
    for name, mode in (("here.sock", 0o640), ("there.sock", 0o606)):
        path = server.folder / name
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert ask(str(path)) == f"WARN ||{path}"
    assert (server.folder / "there.sock").stat().st_gid == os.getegid()


def test_staleSocket(listening):
    """The socket of a server that was killed is no obstacle for the next start."""
    server = listening("unix:here.sock")
    server.address = str(server.folder / "here.sock")
    server.kill()
    assert (server.folder / "here.sock").exists()
    server.start()
    server.terminate()
    assert not (server.folder / "here.sock").exists()


def test_socketInUse(listening):
    """The socket of a running server, or a file, is never taken away."""
    server = listening("unix:here.sock")
    (server.folder / "file").write_text("precious")
    text = server.configuration.read_text()
    for name, reason in (("here.sock", "in use by a running server"), ("file", "is no socket")):
        other = server.folder / "other.conf"
        other.write_text(
            text.replace(str(server.stateDir), str(server.folder / "state2")).replace("here.sock", name)
        )
        done = subprocess.run(
            [sys.executable, "-m", "ppolicy", "run", "-c", str(other)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        assert reason in done.stderr
    assert (server.folder / "file").read_text() == "precious"
    assert ask(str(server.folder / "here.sock")).startswith("WARN ")


def test_controlSocketNowhere(listening):
    """Where the control socket cannot be made, the start is refused with a sentence."""
    server = listening(freePort())
    server.terminate()
    path = server.folder / "nowhere" / "control.sock"
    with server.configuration.open("a") as file:
        file.write(f"controlSocket = {str(path)!r}\n")
    done = server.ppolicy("run")
    assert done.returncode == 1
    assert f"controlSocket: cannot listen on {path}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_endpoint(listening):
    """A Twisted endpoint string is taken as it is."""
    port = freePort()
    listening(f"tcp:{port}:interface=127.0.0.1")
    assert ask(("127.0.0.1", port)) == f"WARN 127.0.0.1|{port}|"


def test_systemd(makeServer, tmp_path):
    """A socket that systemd holds is taken over, and outlives the server: nobody is refused meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        conf = tmp_path / "ppolicy.conf"
        conf.write_text(f"ppolicyPort = 'systemd:domain=INET:name=policy'\nstateDir = 'state'\n{POLICY}")
        for _ in range(2):
            server = subprocess.Popen(
                [sys.executable, "-c", AS_SYSTEMD, str(held.fileno()), str(conf)],
                pass_fds=[held.fileno()],
                stdout=subprocess.DEVNULL,
            )
            try:
                assert ask(("127.0.0.1", port)) == f"WARN 127.0.0.1|{port}|"  # it waits in the backlog until then
            finally:
                server.terminate()
                assert server.wait(10) == 0
