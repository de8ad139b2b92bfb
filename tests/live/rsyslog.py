"""
A real rsyslog for the tests: on loopback and on sockets of its own, it writes what it understood as JSON.
"""

import json
import socket
import time
from pathlib import Path

from .daemon import Daemon
from .ports import freePort

PROGRAM = "/usr/sbin/rsyslogd"

_PROPERTIES = {
    "pri": "pri",
    "version": "protocol-version",
    "hostname": "hostname",
    "app": "app-name",
    "procid": "procid",
    "msgid": "msgid",
    "data": "structured-data",
    "input": "inputname",
    "msg": "msg",
}

_CONFIGURATION = """\
global(workDirectory="{folder}" net.enableDNS="off")
module(load="imudp")
module(load="imtcp")
module(load="imptcp")
module(load="imuxsock" SysSock.Use="off")
input(type="imudp" address="127.0.0.1" port="{port}")
input(type="imtcp" address="127.0.0.1" port="{port}")
input(type="imptcp" path="{folder}/stream" unlink="on")
input(type="imuxsock" Socket="{folder}/datagrams" UseSpecialParser="off" ParseHostname="on"
      RateLimit.Interval="0")
template(name="parsed" type="list") {{
    constant(value="{{")
    property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
{properties}
    constant(value="}}\\n")
}}
action(type="omfile" file="{folder}/out" template="parsed")
"""


class Rsyslog(Daemon):
    """
    @ivar targets: for the option logTarget, by the name of the module that takes it.
    """

    def __init__(self):
        super().__init__("rsyslog")
        self.port = freePort()
        self.targets = {
            "imudp": f"syslog:udp:127.0.0.1:{self.port}",
            "imtcp": f"syslog:tcp:127.0.0.1:{self.port}",
            "imptcp": f"syslog:unix:{self.folder}/stream",
            "imuxsock": f"syslog:unix:{self.folder}/datagrams",
        }
        self._out = self.folder / "out"
        properties = "\n".join(
            f'    constant(value=",") property(outname="{shown}" name="{name}" format="jsonf")'
            for shown, name in _PROPERTIES.items()
        )
        (self.folder / "conf").write_text(
            _CONFIGURATION.format(folder=self.folder, port=self.port, properties=properties)
        )

    def command(self):
        return [PROGRAM, "-n", "-f", str(self.folder / "conf"), "-i", str(self.folder / "pid")]

    def isReady(self):
        if not all((self.folder / name).is_socket() for name in ("stream", "datagrams")):
            return False
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0

    def messages(self):
        """
        What it has understood so far.
        """
        if not self._out.exists():
            return []
        text = self._out.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n")[:-1]]

    def wait(self, isThere, seconds=20):
        """
        The messages once a function of them is true, or else as they are then.
        """
        deadline = time.monotonic() + seconds
        while not isThere(self.messages()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.messages()


def missing():
    """
    What is not installed that this needs, None when all is.
    """
    return None if Path(PROGRAM).exists() else f"{PROGRAM} is missing (Debian package rsyslog)"
