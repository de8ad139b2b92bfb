"""
The policy server as a process of its own, started, reloaded and stopped the way an administrator does it.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

from .policyclient import ConnectionClosed, PolicyClient
from .ports import freePort


class Server:
    """
    A policy server with its configuration and state in a temporary folder.

    It listens on a free TCP port or, with kind 'unix', on a socket. Its address stays the same over restarts;
    `target` is the address as Postfix's check_policy_service wants it.
    """

    def __init__(self, kind="tcp"):
        self.folder = Path(tempfile.mkdtemp(prefix="ppolicy-live-"))
        self.folder.chmod(0o755)  # the socket must be within reach of Postfix's user
        self.configuration = self.folder / "ppolicy.conf"
        self.stateDir = self.folder / "state"
        self.stateDir.mkdir()
        if kind == "unix":
            self.address = str(self.folder / "socket")
            self.port = f"unix:{self.address}:mode=666"
            self.target = f"unix:{self.address}"
        else:
            self.port = freePort()
            self.address = ("127.0.0.1", self.port)
            self.target = f"inet:127.0.0.1:{self.port}"
        self.output = []  # lines written to stdout and stderr, over all starts
        self.process = None

    def configure(self, policy, **options):
        """
        Write ppolicy.conf: the options, then the policy's text.
        """
        fixed = {"ppolicyPort": self.port, "stateDir": str(self.stateDir), "logTarget": "stdout"}
        lines = [f"{name} = {value!r}\n" for name, value in (fixed | options).items()]
        self.configuration.write_text("".join(lines) + "\n" + textwrap.dedent(policy), encoding="utf-8")

    def command(self):
        """
        What is started.
        """
        return [sys.executable, "-m", "ppolicy", "run", "-c", str(self.configuration)]

    def surroundings(self):
        """
        Further arguments for Popen.
        """
        return {}

    def start(self, timeout=20):
        """
        Start, and wait until a request is answered.
        """
        self.process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
            **self.surroundings(),
        )
        self._reader = threading.Thread(target=self._collect, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.request()
            except ConnectionClosed as error:  # it listens, so it should have answered
                raise AssertionError(f"the server does not answer:\n{self.log()}") from error
            except OSError:
                assert self.process.poll() is None, f"the server did not start:\n{self.log()}"
                assert time.monotonic() < deadline, f"no answer in {timeout} s:\n{self.log()}"
                time.sleep(0.05)
            else:
                return self

    def _collect(self, stream):
        with stream:
            self.output.extend(stream)

    def log(self):
        """
        Everything the server has written so far.
        """
        return "".join(self.output)

    def waitForLog(self, text, timeout=10, start=0, count=1):
        """
        Wait until the server has written so many lines with the text, after the first `start` lines.
        """
        deadline = time.monotonic() + timeout
        while sum(text in line for line in self.output[start:]) < count:
            assert time.monotonic() < deadline, f"{text!r} was not logged {count} times:\n{self.log()}"
            time.sleep(0.02)

    def connect(self):
        """
        A new connection to the server.
        """
        return PolicyClient(self.address)

    def request(self, attributes=None, **more):
        """
        The action for one request on a connection of its own.
        """
        with self.connect() as client:
            return client.ask(attributes, **more)

    def ppolicy(self, *words, stdin="", together=False):
        """
        Run the command on this configuration; the finished process has `returncode`, and what it printed as
        `stdout` and `stderr`.

        @param together: True for both as `stdout`, in their order.
        """
        return subprocess.run(
            [sys.executable, "-m", "ppolicy", *words, "-c", str(self.configuration)],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if together else subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=60,
            check=False,
        )

    def status(self):
        """
        What `ppolicy status` tells.
        """
        done = self.ppolicy("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def reload(self):
        """
        Reload by the command; the finished process has `returncode` and what it printed as `stdout`.
        """
        return self.ppolicy("reload", together=True)

    def hangUp(self):
        """
        Ask for a reload by SIGHUP, which does not wait.
        """
        self.process.send_signal(signal.SIGHUP)

    def terminate(self, timeout=6):
        """
        Stop by SIGTERM: in time, and with exit code 0. Returns the seconds it took.
        """
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running {timeout} s after SIGTERM:\n{self.log()}") from None
        self._reader.join(5)
        assert code == 0, f"exit code {code} after SIGTERM:\n{self.log()}"
        return time.monotonic() - begin

    def kill(self):
        """
        Stop without any warning.
        """
        self.process.kill()
        self.process.wait()
        self._reader.join(5)

    def close(self):
        """
        Leave nothing behind: no process, no files.
        """
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.kill()
        print(self.log())  # pytest shows it with a failed test
        shutil.rmtree(self.folder, ignore_errors=True)
