"""
Lines sent to a syslog receiver as messages of RFC 5424, over UNIX sockets, UDP or TCP.
"""

import errno
import os
import re
import select
import socket
import time
from contextlib import suppress
from datetime import datetime

from ppolicy.logtarget import LONGEST, Target, shortened, whole

# Seconds to connect, and for the receiver to take something. The next attempt follows soon.
PATIENCE = 5
# Seconds without an acknowledgement, after which a connection is dead.
SILENCE = 30
# Seconds in which a host that has no syslog daemon refuses a datagram.
ROUND_TRIP = 0.2

# The longest message over UDP, in octets: what every receiver should take, RFC 5426 3.2; more than a packet of
# Ethernet, but no honest client has such values.
LONGEST_DATAGRAM = 2048

# RFC 5424 6.2.1: facility mail, severity informational.
_PRIORITY = 2 * 8 + 6


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
        return shortened(text.encode("utf-8", "backslashreplace"), self._longest)

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
        taken, self._begun = whole(frames, self._begun + sent)
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
