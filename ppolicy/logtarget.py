"""
Where lines go: the forms of the option `logTarget`. All of a target but open() and reopen() runs in the thread of
a writer, which may wait.
"""

import errno
import os
import re
import select
import socket
import stat
import sys
import syslog
import threading
import time
from contextlib import suppress
from datetime import datetime
from operator import itemgetter
from pathlib import Path

from twisted.logger import Logger

from ppolicy.listeners import checkSocket
from ppolicy.parameter import shown, toPath

# Seconds to connect, and for the receiver to take something. The next attempt follows soon.
PATIENCE = 5
# Seconds without an acknowledgement, after which a connection is dead.
SILENCE = 30
# Seconds in which a host that has no syslog daemon refuses a datagram.
ROUND_TRIP = 0.2

# The longest message, in octets. Over UDP: what every receiver should take, RFC 5426 3.2; more than a packet of
# Ethernet, but no honest client has such values. Elsewhere: what an rsyslog takes if it is not told otherwise. A
# receiver that divided a longer one would take what a client has put into the middle of it for a new message.
LONGEST_DATAGRAM = 2048
LONGEST = 8000

# RFC 5424 6.2.1: facility mail, severity informational.
_PRIORITY = 2 * 8 + 6

_FORMS = (
    "'syslog:unix:/dev/log', 'syslog:udp:192.0.2.1:514', 'syslog:udp:[2001:db8::1]:514', 'syslog:tcp:host:514'"
)


class Target:
    """
    What all targets have in common.

    @ivar lost: lines that it had taken, and of which it knows that they did not arrive.
    """

    lost = 0
    _again = False

    def open(self):
        """
        @raises OSError: when lines cannot be written, and that is known without waiting.
        """

    def reopen(self):
        """
        Begin anew with the next lines.
        """
        self._again = True

    def put(self, lines):
        """
        Write as many as can be written at once.

        @param lines: (time, line) of each.
        @return: how many of them are written, from the first on; 0 when only a part of the first is.
        @raises OSError: when nothing could be written.
        """
        raise NotImplementedError

    def close(self):
        """
        Give back what it has open.
        """

    def goesNowhere(self):
        """
        Is everything thrown away?
        """
        return False


class Stdout(Target):
    """
    Standard output. What is written together is not mixed with what other writers of it write.
    """

    _lock = threading.Lock()
    _begun = 0

    def __str__(self):
        return "stdout"

    def put(self, lines):
        """See L{Target.put}."""
        if sys.__stdout__ is None:  # it was closed when the server started
            return len(lines)
        octets = _octets(lines)
        with self._lock:
            sent = os.write(sys.__stdout__.fileno(), octets[self._begun :])
        taken, self._begun = _written(lines, octets, self._begun + sent)
        return taken

    def goesNowhere(self):
        """See L{Target.goesNowhere}."""
        if sys.__stdout__ is None:
            return True
        try:
            return os.path.samestat(os.fstat(sys.__stdout__.fileno()), Path(os.devnull).stat())
        except (OSError, ValueError):
            return True


class File(Target):
    """
    A file, which is created, appended to, and opened anew when it was moved away or removed (rotation).
    """

    def __init__(self, path, mode=0o640):
        self.path = path
        self._mode = mode
        self._file = None
        self._begun = 0

    def __str__(self):
        return str(self.path)

    def open(self):
        """See L{Target.open}."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        self._file = os.open(self.path, flags, self._mode)
        self._begun = 0
        if self._isTorn():
            os.write(self._file, b"\n")

    def put(self, lines):
        """See L{Target.put}."""
        self._reopenWhenMoved()
        octets = _octets(lines)
        sent = os.write(self._file, octets[self._begun :])
        taken, self._begun = _written(lines, octets, self._begun + sent)
        return taken

    def close(self):
        """See L{Target.close}."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _reopenWhenMoved(self):
        if self._file is not None and not self._again:
            with suppress(FileNotFoundError):
                here, there = os.fstat(self._file), self.path.stat()
                if os.path.samestat(here, there):
                    if here.st_size == 0:  # emptied, with the begin of a line in it
                        self._begun = 0
                    return
        self._again = False
        self.close()
        self.open()

    def _isTorn(self):
        """
        Does its last line lack the end, because the disk was full, say, when somebody died?
        """
        with suppress(OSError):
            if stat.S_ISREG(os.fstat(self._file).st_mode):
                with self.path.open("rb") as file:
                    file.seek(-1, os.SEEK_END)  # an OSError when it is empty
                    return file.read() != b"\n"
        return False


class LocalSyslog(Target):
    """
    The syslog daemon of this host, by the C library, in the form that all of them understand. Nobody is told when
    there is none.
    """

    log = Logger()

    def __str__(self):
        return "syslog"

    def open(self):
        """See L{Target.open}."""
        syslog.openlog("ppolicy", syslog.LOG_PID, syslog.LOG_MAIL)
        if not Path("/dev/log").exists():
            self.log.warn("logTarget: there is no /dev/log, so no syslog daemon runs, and lines are lost")

    def put(self, lines):
        """See L{Target.put}."""
        for _, line in lines:
            syslog.syslog(syslog.LOG_INFO, _shortened(line.encode("utf-8", "backslashreplace"), LONGEST).decode())
        return len(lines)


class _Receiver(Target):
    """
    Whoever takes messages as RFC 5424 has them.

    @param hostname: what they have as HOSTNAME.
    """

    _longest = LONGEST
    # Seconds after which it is known that a datagram was refused.
    _roundTrip = 0.0

    def __init__(self, hostname):
        self._hostname = re.sub("[^!-~]", "?", hostname)[:255] or "-"
        self._when, self._header = None, ""
        self._socket = None
        self._isStream = False
        self._isTrial = True
        self._begun = 0

    def _connect(self):
        """
        @return: a socket, connected.
        """
        raise NotImplementedError

    def _frame(self, message):
        """
        A message as it stands in a stream.
        """
        raise NotImplementedError

    def message(self, when, line):
        """
        A line as a message, RFC 5424 6. What has to be cut is cut at the end, between two characters.
        """
        if when != self._when:  # lines come in batches
            stamp = datetime.fromtimestamp(when).astimezone().isoformat(timespec="microseconds")
            self._when = when
            self._header = f"<{_PRIORITY}>1 {stamp} {self._hostname} ppolicy {os.getpid()} decision - "
        # 6.4: a text in UTF-8 begins with the mark of it; ASCII may do without.
        mark = "" if line.isascii() else "\ufeff"
        text = f"{self._header}{mark}{line}"
        return _shortened(text.encode("utf-8", "backslashreplace"), self._longest)

    def put(self, lines):
        """See L{Target.put}."""
        # What has begun to go out is finished first: else the receiver would have half a message.
        isAnew = self._again and not self._begun
        if isAnew or (self._isStream and self._socket is not None and self._isOver()):
            self._again = False
            self.close()
        if self._socket is None:
            self._socket = self._connect()
            self._isStream = self._socket.type == socket.SOCK_STREAM
            self._isTrial = True
        return self._putStream(lines) if self._isStream else self._putDatagrams(lines)

    def close(self):
        """See L{Target.close}."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._begun = 0

    def _putStream(self, lines):
        frames = [self._frame(self.message(when, line)) for when, line in lines]
        try:
            sent = self._socket.send(b"".join(frames)[self._begun :])
        except OSError as error:
            if error.errno is not None:  # else it only takes long: what has begun goes on later
                self.close()
            raise
        taken, self._begun = _whole(frames, self._begun + sent)
        return taken

    def _isOver(self):
        """
        Has the receiver closed the connection? What it says, if anything, is of no interest.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        try:
            return bool(poll.poll(0)) and not self._socket.recv(4096)
        except OSError:
            return True

    def _putDatagrams(self, lines):
        sent = 0
        try:
            for when, line in lines[:1] if self._isTrial else lines:
                self._socket.send(self.message(when, line))
                sent += 1
            self._findRefusal()
            self._isTrial = False
        except OSError as error:
            self.close()
            if error.errno == errno.ECONNREFUSED and self._roundTrip:
                # That is about a datagram that was sent before.
                if sent:
                    sent -= 1
                else:
                    self.lost += 1
            if not sent:
                raise
        return sent

    def _findRefusal(self):
        if self._isTrial:
            time.sleep(self._roundTrip)
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))


class UnixReceiver(_Receiver):
    """
    A UNIX socket, for datagrams or streams. In a stream each message is a line, RFC 6587 3.4.2: there are no line
    ends within.
    """

    def __init__(self, hostname, path):
        super().__init__(hostname)
        self.path = path

    def __str__(self):
        return f"syslog:unix:{self.path}"

    def _connect(self):
        try:
            return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), str(self.path))
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
            return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), str(self.path))

    def _frame(self, message):
        return message + b"\n"


class UdpReceiver(_Receiver):
    """
    A host, over UDP: a message a datagram, RFC 5426. What the network loses is lost.
    """

    _longest = LONGEST_DATAGRAM
    _roundTrip = ROUND_TRIP

    def __init__(self, hostname, host, port):
        super().__init__(hostname)
        self._host, self._port = host, port

    def __str__(self):
        return f"syslog:udp:{_hostAndPort(self._host, self._port)}"

    def _connect(self):
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        for family, kind, _, _, address in found[:-1]:
            with suppress(OSError):  # no way to an address of IPv6, say
                return _connected(socket.socket(family, kind), address)
        family, kind, _, _, address = found[-1]
        return _connected(socket.socket(family, kind), address)


class TcpReceiver(_Receiver):
    """
    A host, over TCP: each message after the count of its octets, RFC 6587 3.4.1.
    """

    def __init__(self, hostname, host, port):
        super().__init__(hostname)
        self._host, self._port = host, port

    def __str__(self):
        return f"syslog:tcp:{_hostAndPort(self._host, self._port)}"

    def _connect(self):
        made = socket.create_connection((self._host, self._port), PATIENCE)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE * 1000)
        return made

    def _frame(self, message):
        return b"%d %s" % (len(message), message)


def parse(text, folder, hostname):
    """
    The L{Target} that a value of C{logTarget} means.

    @param hostname: for messages of syslog.
    @raises ValueError: with what is wrong.
    """
    if text == "stdout":
        return Stdout()
    if text == "syslog":
        return LocalSyslog()
    if text.startswith("syslog:"):
        return _parseReceiver(text, folder, hostname)
    if text.lower() in ("stdout", "syslog", "stderr", "-"):
        raise ValueError(f"{shown(text)} is none of 'stdout' and 'syslog', and a file is {shown('./' + text)}")
    if "\0" in text:
        raise ValueError(f"{shown(text)} can be no file")
    return File(_file(folder / text))


def _parseReceiver(text, folder, hostname):
    _, kind, where = f"{text}:".split(":", 2)
    where = where.removesuffix(":")
    if kind == "unix" and where:
        try:
            path = toPath(where, folder)
        except ValueError:
            raise ValueError(f"{shown(text)} names no path") from None
        checkSocket(path)
        return UnixReceiver(hostname, path)
    if kind == "tls":
        raise ValueError("syslog over TLS is not there: have a syslog daemon on this host forward what it gets")
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^:\[\]]+)):([0-9]{1,5})", where)
    if kind not in ("udp", "tcp") or not match:
        raise ValueError(f"{shown(text)} is none of {_FORMS}")
    v6, name, port = match.groups()
    if not 0 < int(port) < 65536:
        raise ValueError(f"{port} is no port number, these are 1 to 65535")
    _checkHost(v6, name)
    return (UdpReceiver if kind == "udp" else TcpReceiver)(hostname, v6 or name, int(port))


def _checkHost(v6, name):
    """
    Names are looked up when they are needed; those that nobody can have are a mistake.
    """
    if v6:
        try:
            socket.inet_pton(socket.AF_INET6, v6.partition("%")[0])
        except OSError:
            raise ValueError(f"{v6} is no IP address") from None
    elif re.fullmatch("[0-9.]+", name):
        try:
            socket.inet_pton(socket.AF_INET, name)
        except OSError:
            raise ValueError(f"{name} is no IP address") from None
    elif len(name) > 253 or not re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", name):
        raise ValueError(f"{shown(name)} is no name of a host")


def _file(path):
    """
    @raises ValueError: when opening the path would not open a file.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return path  # what is wrong with it, if anything, is found by who opens it
    if stat.S_ISSOCK(mode):
        raise ValueError(f"{path} is a socket: of a syslog daemon it is 'syslog:unix:{path}'")
    if stat.S_ISFIFO(mode) or stat.S_ISBLK(mode):
        raise ValueError(f"{path} is no file")
    return path


def _connected(made, address):
    made.settimeout(PATIENCE)
    try:
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


def _hostAndPort(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _octets(lines):
    """
    Lines as they stand in a file.
    """
    return ("\n".join(map(itemgetter(1), lines)) + "\n").encode("utf-8", "backslashreplace")


def _written(lines, octets, sent):
    """
    L{_whole} of such lines.
    """
    return (len(lines), 0) if sent == len(octets) else _whole([_octets([one]) for one in lines], sent)


def _shortened(octets, longest):
    """
    Some UTF-8, cut between two characters when it is too long.
    """
    return octets if len(octets) <= longest else octets[:longest].decode("utf-8", "ignore").encode("utf-8")


def _whole(frames, sent):
    """
    How many of the frames are whole in so many octets, and how many octets there are of the next one.
    """
    for number, frame in enumerate(frames):
        if sent < len(frame):
            return number, sent
        sent -= len(frame)
    return len(frames), 0
