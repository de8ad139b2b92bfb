"""
Tests for the places that lines are written to; those with sockets are in tests/live.
"""

import errno
import os
import re
import socket
import sys
from datetime import datetime
from pathlib import Path

import pytest
from twisted.logger import Logger

from ppolicy import logtarget
from ppolicy.logoption import parse
from ppolicy.logtarget import File, LocalSyslog, Stdout
from ppolicy.syslogreceiver import TcpReceiver, UdpReceiver, UnixReceiver

HOST = "mx.example.org"

# RFC 5424 6, as far as the message of a line goes.
MESSAGE = re.compile(
    rb"<(?P<pri>0|[1-9][0-9]{0,2})>1 "
    rb"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}(?:Z|[+-]\d\d:\d\d)) "
    rb"(?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<proc>[!-~]{1,128}) (?P<msgid>[!-~]{1,32}) "
    rb"- (?P<msg>.*)",
    re.DOTALL,
)


class TestParse:
    @pytest.mark.parametrize(
        ("text", "kind", "shown"),
        [
            ("stdout", Stdout, "stdout"),
            ("syslog", LocalSyslog, "syslog"),
            ("requests.log", File, "/etc/ppolicy/requests.log"),
            ("/var/log/ppolicy.log", File, "/var/log/ppolicy.log"),
            ("./stderr", File, "/etc/ppolicy/stderr"),
            ("/dev/null", File, "/dev/null"),
            ("syslog:unix:/run/logs", UnixReceiver, "syslog:unix:/run/logs"),
            ("syslog:unix:logs", UnixReceiver, "syslog:unix:/etc/ppolicy/logs"),
            ("syslog:unix:/run/a:b", UnixReceiver, "syslog:unix:/run/a:b"),
            ("syslog:udp:192.0.2.1:514", UdpReceiver, "syslog:udp:192.0.2.1:514"),
            ("syslog:udp:[2001:db8::1]:514", UdpReceiver, "syslog:udp:[2001:db8::1]:514"),
            ("syslog:udp:[fe80::1%eth0]:514", UdpReceiver, "syslog:udp:[fe80::1%eth0]:514"),
            ("syslog:tcp:logs.example.org:6514", TcpReceiver, "syslog:tcp:logs.example.org:6514"),
            ("syslog:tcp:log_1:1", TcpReceiver, "syslog:tcp:log_1:1"),
            ("syslog:tcp:localhost.:65535", TcpReceiver, "syslog:tcp:localhost.:65535"),
        ],
    )
    def test_forms(self, text, kind, shown):
        """Each form names its target, which shows itself in the same form."""
        target = parse(text, Path("/etc/ppolicy"), HOST)
        assert (type(target), str(target)) == (kind, shown)

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "syslog:",
                "syslog:udp",
                "syslog:udp:",
                "syslog:udp:192.0.2.1",
                "syslog:udp::514",
                "syslog:tcp:host:",
            ),
            *("syslog:tcp:host:port", "syslog:tcp:host:123456", "syslog:tcp:2001:db8::1:514", "syslog:local:x:1"),
            *(
                "syslog:tcp:[2001:db8::1]514",
                "syslog:tcp:a b:514:",
                "syslog:tcp:[::1]]:5",
                "syslog:unix",
                "syslog:unix:",
            ),
            "syslog:udp:192.0.2.1:514:more",
        ],
    )
    def test_noForm(self, text):
        """What has none of the forms is a mistake that shows them."""
        with pytest.raises(ValueError, match=r"is none of 'syslog:unix:/dev/log', 'syslog:udp:192\.0\.2\.1:514'"):
            parse(text, Path("/"), HOST)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("syslog:tcp:host:0", "0 is no port number"),
            ("syslog:udp:host:65536", "65536 is no port number"),
            ("syslog:udp:192.0.2.256:514", "192.0.2.256 is no IP address"),
            ("syslog:udp:[2001:db8::1::]:514", "2001:db8::1:: is no IP address"),
            ("syslog:tcp:under score:514", "'under score' is no name of a host"),
            ("syslog:tcp:-x:514", "'-x' is no name of a host"),
            (f"syslog:tcp:{'x' * 64}:514", "is no name of a host"),
            ("syslog:tcp:ho\u017et:514", "is no name of a host"),
            ("syslog:tcp:host\n:514", "is no name of a host"),
            ("syslog:tls:host:6514", "over TLS is not there"),
            (f"syslog:unix:/{'x' * 107}", "longer than a UNIX socket's name"),
            ("syslog:unix:/etc", "exists and is no socket"),
            ("syslog:unix:/a\0b", "names no path"),
            ("sylog", "'sylog' is none of 'stdout' and 'syslog', and a file is './sylog'"),
            ("journal", "'journal' is none of"),
            ("sylog:udp:192.0.2.1:514", "'sylog:udp:192.0.2.1:514' is none of"),
            ("stderr", "'stderr' is none of 'stdout' and 'syslog', and a file is './stderr'"),
            ("Stdout", "'Stdout' is none of"),
            ("-", "'-' is none of"),
            ("a\0b", "can be no file"),
        ],
    )
    def test_wrong(self, text, why):
        """Other mistakes say what is wrong."""
        with pytest.raises(ValueError, match=re.escape(why)):
            parse(text, Path("/"), HOST)

    def test_noFile(self, tmp_path):
        """What is there and no file is not taken for one."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.bind(str(tmp_path / "log"))
            with pytest.raises(ValueError, match=f"log is a socket: .* 'syslog:unix:{tmp_path}/log'"):
                parse("log", tmp_path, HOST)
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="pipe is no file"):
            parse("pipe", tmp_path, HOST)


class TestMessage:
    def parts(self, line, target=None, when=1795300572.123456):
        target = target or UdpReceiver(HOST, "192.0.2.1", 514)
        match = MESSAGE.fullmatch(target.message(when, line))
        assert match
        return match

    def test_header(self):
        """Facility mail and severity info, the time with microseconds and offset, host, program, process, kind."""
        found = self.parts("instance=a.1 ms=1.0")
        assert int(found["pri"]) == 2 * 8 + 6
        assert datetime.fromisoformat(found["time"].decode()).timestamp() == pytest.approx(
            1795300572.123456, abs=1e-6
        )
        assert len(re.search(rb"\.(\d+)", found["time"])[1]) == 6
        assert (found["host"], found["app"], found["msgid"]) == (b"mx.example.org", b"ppolicy", b"decision")
        assert int(found["proc"]) == os.getpid()
        assert found["msg"] == b"instance=a.1 ms=1.0"

    def test_wholeSecond(self):
        """A time without a fraction has six digits all the same."""
        assert b":12.000000" in self.parts("x", when=1795300572.0)["time"]

    @pytest.mark.parametrize(
        ("name", "shown"),
        [("", b"-"), ("a b", b"a?b"), ("po\u0161ta", b"po?ta"), ("a\n<22>1", b"a?<22>1"), ("x" * 300, b"x" * 255)],
    )
    def test_hostname(self, name, shown):
        """Whatever the option domain has, HOSTNAME is one word of ASCII."""
        assert self.parts("x", UdpReceiver(name, "192.0.2.1", 514))["host"] == shown

    def test_mark(self):
        """A text with other letters than those of ASCII begins with the mark of UTF-8, and only such a one."""
        assert self.parts("sender=a@\u017elu\u0165")["msg"] == b"\xef\xbb\xbf" + "sender=a@\u017elu\u0165".encode()
        assert self.parts("sender=a")["msg"] == b"sender=a"
        assert self.parts("")["msg"] == b""

    @pytest.mark.parametrize("letter", ["x", "\u017e", "\u20ac", "\U0001f600"])
    @pytest.mark.parametrize(
        ("target", "longest"),
        [(UdpReceiver(HOST, "h", 1), 2048), (TcpReceiver(HOST, "h", 1), 8000), (UnixReceiver(HOST, "/l"), 8000)],
    )
    def test_long(self, target, longest, letter):
        """A line that is too long is cut between two characters, as late as possible."""
        for before in range(4):
            line = "x" * before + letter * 9000
            octets = target.message(1.0, line)
            assert longest - 3 <= len(octets) <= longest
            cut = MESSAGE.fullmatch(octets)["msg"].decode().removeprefix("\ufeff")
            assert line.startswith(cut)
        fitting = "x" * (longest - len(target.message(1.0, "")))
        assert MESSAGE.fullmatch(target.message(1.0, fitting))["msg"].decode() == fitting

    def test_framing(self):
        """Over TCP the count of octets stands before each message, in a UNIX stream a line end after it."""
        message = "\u017e".encode()
        assert TcpReceiver(HOST, "h", 1)._frame(message) == b"2 " + message
        assert UnixReceiver(HOST, "/l")._frame(message) == message + b"\n"


class TestFile:
    @pytest.fixture
    def file(self, tmp_path):
        made = File(tmp_path / "log")
        made.open()
        yield made
        made.close()

    def put(self, file, *lines):
        assert file.put([(0.0, line) for line in lines]) == len(lines)
        return file.path.read_text()

    def test_lines(self, file):
        """Lines are appended, in UTF-8; half a character is escaped."""
        self.put(file, "a", "\u017e")
        assert self.put(file, "\udcff") == "a\n\u017e\n\\udcff\n"

    def test_mode(self, file, monkeypatch):
        """A new file may be read by its group, and by nobody else; that of one that was there stays."""
        assert file.path.stat().st_mode & 0o777 == 0o640 & ~umask()
        file.path.chmod(0o600)
        file.reopen()
        self.put(file, "a")
        assert file.path.stat().st_mode & 0o777 == 0o600

    def test_moved(self, file):
        """After the file was moved away or removed, lines go to a new one."""
        self.put(file, "a")
        old = file.path.rename(file.path.with_suffix(".1"))
        assert self.put(file, "b") == "b\n"
        assert old.read_text() == "a\n"
        file.path.unlink()
        assert self.put(file, "c") == "c\n"

    def test_replaced(self, file):
        """So they do when somebody has put another one there, as logrotate's create does."""
        file.path.rename(file.path.with_suffix(".1"))
        file.path.write_text("")
        assert self.put(file, "b") == "b\n"

    def test_truncated(self, file):
        """After the file was emptied (copytruncate), lines go on at its begin."""
        self.put(file, "a")
        file.path.write_text("")
        assert self.put(file, "b") == "b\n"

    def test_reopen(self, file, monkeypatch):
        """reopen() opens the file anew with the next lines, and not before."""
        opened = []
        monkeypatch.setattr(file, "open", lambda: opened.append(1) or File.open(file))
        self.put(file, "a")
        file.reopen()
        assert opened == []
        assert self.put(file, "b") == "a\nb\n"
        self.put(file, "c")
        assert opened == [1]

    def test_torn(self, tmp_path):
        """A line that was left without its end, by a full disk say, does not run into the next one."""
        (tmp_path / "log").write_text("whole\ntor")
        file = File(tmp_path / "log")
        file.open()
        assert self.put(file, "next") == "whole\ntor\nnext\n"
        file.close()

    def test_partly(self, file, monkeypatch):
        """What the system takes only in part is continued where it stopped, and in an emptied file begun again."""
        real = os.write
        monkeypatch.setattr(logtarget.os, "write", lambda fd, octets: real(fd, octets[:4]))
        lines = [(0.0, "one"), (0.0, "two"), (0.0, "three")]
        assert file.put(lines) == 1
        assert file.put(lines[1:]) == 1
        assert file.put(lines[2:]) == 0
        assert file.path.read_text() == "one\ntwo\nthre"
        assert file.put(lines[2:]) == 1
        assert file.path.read_text() == "one\ntwo\nthree\n"
        assert file.put(lines[2:]) == 0
        file.path.write_text("")
        assert file.put(lines[2:]) == 0
        assert file.put(lines[2:]) == 1
        assert file.path.read_text() == "three\n"

    def test_missingFolder(self, tmp_path):
        """Without its folder it cannot be opened, and once that is there it can."""
        file = File(tmp_path / "gone" / "log")
        with pytest.raises(FileNotFoundError):
            file.open()
        with pytest.raises(FileNotFoundError):
            file.put([(0.0, "a")])
        (tmp_path / "gone").mkdir()
        assert self.put(file, "a") == "a\n"
        file.close()

    def test_full(self):
        """A full device is an error, not a loss."""
        file = File(Path("/dev/full"))
        file.open()
        with pytest.raises(OSError, match="No space left") as caught:
            file.put([(0.0, "a")])
        assert caught.value.errno == errno.ENOSPC
        file.close()


class TestStdout:
    def test_goesNowhere(self, monkeypatch):
        """/dev/null, and a stdout that was closed, are nowhere; anything else is somewhere."""
        with Path(os.devnull).open("w") as null, Path("/dev/full").open("w") as full:
            monkeypatch.setattr(sys, "__stdout__", null)
            assert Stdout().goesNowhere()
            monkeypatch.setattr(sys, "__stdout__", full)
            assert not Stdout().goesNowhere()
        monkeypatch.setattr(sys, "__stdout__", None)
        assert Stdout().goesNowhere()
        assert Stdout().put([(0.0, "a")]) == 1

    def test_other(self):
        """No other target goes nowhere."""
        assert not File(Path("/dev/null")).goesNowhere()


def umask():
    """The present one."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_localSyslog(monkeypatch):
    """The C library gets each line, cut where a syslog daemon would cut it, and never as a format."""
    given = []
    monkeypatch.setattr(logtarget.syslog, "syslog", lambda priority, text: given.append(text))
    target = LocalSyslog()
    assert target.put([(0.0, "a %s\u017e"), (0.0, "\u20ac" * 5000), (0.0, "\udcff")]) == 3
    assert given == ["a %s\u017e", "\u20ac" * 2666, "\\udcff"]


def test_noSyslogDaemon(monkeypatch):
    """Where no syslog daemon can be seen, that is said."""
    said = []
    monkeypatch.setattr(LocalSyslog, "log", Logger(observer=lambda event: said.append(event["log_format"])))
    monkeypatch.setattr(logtarget.Path, "exists", lambda path: False)
    LocalSyslog().open()
    assert len(said) == 1
    assert "there is no /dev/log" in said[0]
