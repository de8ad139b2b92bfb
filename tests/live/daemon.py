"""
A real server as a child process, for one test module.
"""

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path


class Daemon:
    """
    A program in the foreground with a folder of its own; what it prints over all starts goes to a file there.

    A subclass says in C{command()} what is started, and in C{isReady()} whether it answers.

    @ivar folder: its folder, gone after C{close()}.
    """

    def __init__(self, name):
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"ppolicy-{name}-"))
        self._log = self.folder / "log"
        self._process = None

    def start(self):
        """
        Start, and wait until it answers.
        """
        assert self._process is None or self._process.poll() is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 30
        while not self.isReady():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self.name} does not answer:\n{self.log()}")
            time.sleep(0.02)
        return self

    def stop(self):
        """
        Stop as an administrator does, and by force if that takes too long.
        """
        if self._process is None:
            return
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self):
        """
        Stop without any warning.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self):
        """
        Let it hang: the system takes what is sent to it, but nothing is answered.
        """
        self._process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while any(state != "T" for state in self._states()):
            assert time.monotonic() < deadline, f"{self.name} does not stop"
            time.sleep(0.005)

    def _states(self):
        for one in Path(f"/proc/{self._process.pid}/task").glob("*/stat"):
            yield one.read_text().rpartition(") ")[2][0]

    def thaw(self):
        """
        Let it go on after `freeze()`.
        """
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        """
        Leave nothing behind: no process, no files.
        """
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self):
        """
        What it has printed, over all starts.
        """
        return self._log.read_text(encoding="utf-8", errors="backslashreplace")


def run(*command, folder=None):
    """
    Run a program to its end.

    @return: what it has printed.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"
    return done.stdout
