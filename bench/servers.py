"""
The servers that are measured, as processes on free loopback ports.
"""

import grp
import json
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from bench.load import BUILD, BenchError

ROOT = Path(__file__).parent.parent
POSTGREY = Path("/usr/sbin/postgrey")

REQUEST = (
    b"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=192.0.2.1\n"
    b"client_name=mail.example.net\nhelo_name=mail.example.net\nsender=one@example.net\n"
    b"recipient=two@example.org\nqueue_id=\ninstance=0.0.0.0\nsize=0\n\n"
)

_STARTS = 20.0
_STOPS = 15.0
_SETTLES = 15.0
_TICK = os.sysconf("SC_CLK_TCK")


def freePort():
    """
    A port that nothing uses, below the range that client ports come from.
    """
    while True:
        port = random.randint(15000, 32000)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Server:
    """
    One process.

    @ivar folder: its own; what it prints goes to C{output} there.
    @ivar kept: where it keeps what it must remember.
    """

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder / name.replace(" ", "-").replace(",", "")
        self.kept = self.folder / "kept"
        self.kept.mkdir(parents=True)
        self.port = freePort()
        self.process = None

    def command(self):
        raise NotImplementedError

    def start(self):
        """
        Start, and wait until a request is answered.
        """
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                list(map(str, self.command())),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the bench, which then stops its servers
            )
        deadline = time.monotonic() + _STARTS
        while True:
            try:
                self.connect().close()
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"{self.name} does not answer: {error}\n{self.said()}") from error
                time.sleep(0.05)

    def connect(self):
        """
        A connection on which one request was answered, as Postfix keeps it.
        """
        connection = socket.create_connection(("127.0.0.1", self.port), 30)
        connection.sendall(REQUEST)
        if not connection.recv(4096).endswith(b"\n\n"):
            raise OSError("no answer")
        return connection

    def stop(self):
        """
        Stop, kindly if possible.
        """
        if self.process is None:
            return
        try:
            self.process.terminate()
            self.process.wait(_STOPS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def renew(self):
        """
        Start again, with nothing remembered.
        """
        self.stop()
        shutil.rmtree(self.kept)
        self.kept.mkdir()
        self.start()

    def said(self):
        """
        The end of what it printed.
        """
        text = (self.folder / "output").read_text(encoding="utf-8", errors="replace")
        return text[-2000:]

    def cpu(self):
        """
        The seconds of CPU it has used.
        """
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self):
        """
        Its resident memory in KB.
        """
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise BenchError(f"{self.name} has ended:\n{self.said()}")

    def settle(self):
        """
        Wait until it has nothing left to do, such as writing behind: that must not slow down the next one.
        """
        deadline = time.monotonic() + _SETTLES
        before = -1.0
        while before + 0.02 < (before := self.cpu()) and time.monotonic() < deadline:
            time.sleep(0.3)

    def remarks(self):
        """
        What went wrong, as sentences; asked before the end.
        """
        return []


class Floor(Server):
    """
    The smallest server there can be.
    """

    def __init__(self, folder):
        super().__init__("floor", folder)

    def command(self):
        return [BUILD / "floor", self.port]


class Postgrey(Server):
    """
    Debian's postgrey, in the foreground: quiet and without whitelists, which is its fastest and does our work.
    """

    def __init__(self, folder):
        super().__init__("postgrey", folder)

    def command(self):
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        return [
            *(POSTGREY, "--quiet", f"--inet=127.0.0.1:{self.port}", f"--dbdir={self.kept}"),
            *(f"--user={user}", f"--group={group}", "--auto-whitelist-clients=0"),
            *("--whitelist-clients=/dev/null", "--whitelist-recipients=/dev/null"),
        ]


class PPolicy(Server):
    """
    Ours, with a policy and options.
    """

    def __init__(self, name, folder, policy, **options):
        super().__init__(name, folder)
        self.log = self.folder / "requests.log"
        self.configuration = self.folder / "ppolicy.conf"
        fixed = {
            "ppolicyPort": f"127.0.0.1:{self.port}",
            "stateDir": str(self.kept),
            "requestLog": None,
            "logTarget": str(self.log),
            "connLimit": 6000,
        }
        lines = [f"{option} = {value!r}\n" for option, value in (fixed | options).items()]
        self.configuration.write_text("".join(lines) + textwrap.dedent(policy))

    def command(self):
        return [sys.executable, "-m", "ppolicy", "run", "-c", self.configuration]

    def settle(self):
        super().settle()
        os.truncate(self.log, 0)  # a few million lines are of no use to anybody

    def stop(self):
        super().stop()
        if self.process is not None and self.process.returncode != 0:
            print(f"{self.name} ended with {self.process.returncode}:\n{self.said()}", file=sys.stderr)

    def status(self):
        """
        What `ppolicy status --json` says.
        """
        command = [sys.executable, "-m", "ppolicy", "status", "--json", "-c", str(self.configuration)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BenchError(f"{self.name} tells no status: {result.stderr}\n{self.said()}")
        return json.loads(result.stdout)

    def remarks(self):
        status = self.status()
        requests = status["requests"]
        counts = {
            "requests failed": requests["failed"],
            "times the reactor was blocked": requests["blockedReactor"],
            "connections beyond connLimit": requests["beyondConnLimit"],
            f"of {requests['answered']:,} request lines dropped": status["requestLogDropped"],
        }
        counts |= {f"failures of {name}": module["failed"] for name, module in status["modules"].items()}
        return [f"{self.name}: {count:,} {what}" for what, count in counts.items() if count]
