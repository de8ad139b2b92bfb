"""
Listening sockets that were passed to this process when it began, as systemd does for a socket unit
(sd_listen_fds(3)). Whoever passed them goes on holding them: while the server is started again nobody is refused.
"""

import ipaddress
import os
import re
import socket
from pathlib import Path

from twisted.internet import tcp, unix
from twisted.logger import Logger

from ppolicy.errors import ConfigError

log = Logger()

_FIRST = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class Passed:
    """
    One passed socket; its descriptor stays open as long as the process, so that a reload may take it again.

    @ivar number: the descriptor.
    @ivar name: C{FileDescriptorName=} of the socket unit.
    @ivar address: (host, port), or the path of a UNIX socket, which begins with NUL for an abstract one.
    @raises ConfigError: when it is no socket that listens.
    """

    def __init__(self, number, name):
        self.number = number
        self.name = name
        try:
            with socket.socket(fileno=os.dup(number)) as one:
                self.family = one.family
                listens = one.type == socket.SOCK_STREAM and one.getsockopt(
                    socket.SOL_SOCKET, socket.SO_ACCEPTCONN
                )
                self.address = one.getsockname()
                self.onlyIPv6 = self.family == socket.AF_INET6 and bool(
                    one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                )
        except OSError as error:
            raise ConfigError(f"LISTEN_FDS: descriptor {number} is no socket: {error.strerror}") from None
        if self.family == socket.AF_UNIX:
            self.address = os.fsdecode(self.address)
        elif self.family in (socket.AF_INET, socket.AF_INET6):
            self.address = self.address[:2]
        else:
            listens = False
        if not listens:
            raise ConfigError(
                f"LISTEN_FDS: the passed socket {name or number} does not listen: the socket unit needs "
                "ListenStream= and Accept=no"
            )
        os.set_inheritable(number, False)
        os.set_blocking(number, False)

    def __str__(self):
        if self.family == socket.AF_UNIX:
            return f"unix:{self.address.replace(chr(0), '@')}"
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def listen(self, reactor, factory):
        """
        Accept connections from it; that may be stopped, and begun again, as often as one likes.
        """
        if self.family != socket.AF_UNIX:
            return reactor.adoptStreamPort(self.number, self.family, factory)
        port = _UnixPort(self.number, self.address, factory, reactor)
        port.startListening()
        return port


class _UnixPort(unix.Port):
    """
    A UNIX socket that somebody else has made: its file, with mode and owner, is left as it is. Twisted's own way
    of adopting one would change the mode, and remove the file in the end.
    """

    _shouldShutdown = False  # it goes on to listen for those who hold it

    def __init__(self, number, path, factory, reactor):
        super().__init__(path, factory, reactor=reactor)
        self._number = number

    def startListening(self):
        self.socket = socket.fromfd(self._number, socket.AF_UNIX, socket.SOCK_STREAM)
        self.fileno = self.socket.fileno
        self.factory.doStart()
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason):
        tcp.Port.connectionLost(self, reason)


class Inherited:
    """
    The passed sockets of a process.

    @param sockets: a list of L{Passed}.
    """

    def __init__(self, sockets=()):
        self.sockets = list(sockets)

    def at(self, host, port):
        """
        The L{Passed} socket at this address, else None. C{::} is both families, as the server binds it.
        """
        for one in self.sockets:
            if one.family != socket.AF_UNIX and one.address[1] == port and _same(one.address[0], host):
                return None if host == "::" and one.onlyIPv6 else one
        return None

    def file(self, path):
        """
        The L{Passed} socket with this file, else None.
        """
        for one in self.sockets:
            hasFile = one.family == socket.AF_UNIX and one.address[:1] not in ("", "\0")
            if hasFile and os.path.realpath(one.address) == os.path.realpath(path):
                return one
        return None

    def named(self, description):
        """
        The L{Passed} socket that a Twisted endpoint string speaks of, C{systemd:domain=INET:name=policy} or
        C{systemd:domain=UNIX:index=0}, else None.

        @raises ConfigError: when it is of another domain than is said.
        """
        match = re.search(r"(?:^|:)systemd:(.*)", description)
        if match is None:
            return None
        words = [word.replace("\\", "") for word in re.split(r"(?<!\\):", match[1])]
        given = dict(zip(("domain", "index", "name"), [word for word in words if "=" not in word], strict=False))
        given |= dict(word.split("=", 1) for word in words if "=" in word)
        for index, one in enumerate(self.sockets):
            if given.get("name") == one.name or given.get("index") == str(index):
                domain = one.family.name.removeprefix("AF_")
                if given.get("domain") != domain:
                    raise ConfigError(f"ppolicyPort: {description}: this socket is of domain={domain}")
                return one
        return None

    def unclaimed(self, claimed):
        """
        A sentence for each socket that is none of those claimed.
        """
        return [
            f"systemd has passed a socket {one} that ppolicyPort does not name: "
            + (
                "it is for IPv6 only, so the socket unit needs BindIPv6Only=both"
                if one.onlyIPv6 and one.address[0] == "::"
                else "add it there, or take it out of the socket unit"
            )
            for one in self.sockets
            if one not in claimed
        ]


def _same(host, other):
    """
    Are these the same address, however it is written?
    """
    return ipaddress.ip_address(host) == ipaddress.ip_address(other)


def take():
    """
    The sockets that were passed to this very process; child processes will not see them.

    @raises ConfigError: when one is of no use.
    """
    begun = _begunWith()
    for name in _VARIABLES:
        os.environ.pop(name, None)
    if "LISTEN_FDS" not in begun or "LISTEN_PID" not in begun:
        return Inherited()
    if begun["LISTEN_PID"] != str(os.getpid()):
        log.warn(
            "sockets were passed to process {pid}, which is not this one, so they are not used: start without a"
            " process between, twistd with -n",
            pid=begun["LISTEN_PID"],
        )
        return Inherited()
    try:
        count = int(begun["LISTEN_FDS"])
    except ValueError:
        raise ConfigError("LISTEN_FDS is no number") from None
    names = begun.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    return Inherited([Passed(_FIRST + index, names[index]) for index in range(count)])


def _begunWith():
    """
    The environment that the process began with. Twisted takes LISTEN_PID and LISTEN_FDS out of the present one
    as soon as its endpoints are imported, in a parent that forks too.
    """
    try:
        octets = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environ)
    return dict(os.fsdecode(line).split("=", 1) for line in octets.split(b"\0") if b"=" in line)
