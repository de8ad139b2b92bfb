"""
Where Postfix reaches us: the forms of `ppolicyPort`, and binding them.
"""

import errno
import grp
import os
import pwd
import re
import socket
import stat
from collections import namedtuple
from pathlib import Path

from twisted.internet import error, tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger
from twisted.plugin import IPlugin  # noqa: F401 - endpoint strings are plugins

from ppolicy.errors import ConfigError
from ppolicy.parameter import shown, toPath
from ppolicy.portholder import holder

log = Logger()

# Postfix connects from each smtpd at once when it starts.
BACKLOG = 1024

# The third argument of a policy function: where a request came in. C{host} and C{port} of a TCP listener
# (with 2.7's C{type}), C{path} of a UNIX socket; what does not apply is ''.
Port = namedtuple("Port", "type host port path")

Tcp = namedtuple("Tcp", "host port optional")
Unix = namedtuple("Unix", "path mode user group")
Endpoint = namedtuple("Endpoint", "description")

_FORMS = "10031, '*:10031', '192.0.2.1:10031', '[::1]:10031', 'unix:/path:mode=660', 'systemd:…'"


def parsePort(port, folder):
    """
    A list of L{Tcp}, L{Unix} and L{Endpoint} for one value of C{ppolicyPort}.

    @raises ValueError: with what is wrong.
    """
    if isinstance(port, int):
        _number(port)
        # Loopback only; a host without IPv6 still gets the other one.
        return [Tcp("127.0.0.1", port, False), Tcp("::1", port, True)]
    if port.startswith("unix:"):
        return [_parseUnix(port, folder)]
    if re.fullmatch(r"[0-9]{1,9}", port):
        return parsePort(int(port), folder)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|(\*)|([0-9.]+)|(localhost)):([0-9]{1,9})", port)
    if not match:
        return [_parseEndpoint(port)]
    v6, star, v4, localhost, number = match.groups()
    _number(int(number))
    if star:
        return [Tcp("::", int(number), False)]
    if localhost:
        return parsePort(int(number), folder)
    family = socket.AF_INET6 if v6 else socket.AF_INET
    try:
        socket.inet_pton(family, (v6 or v4).split("%")[0])
    except OSError:
        raise ValueError(f"{v6 or v4} is no IP address") from None
    return [Tcp(v6 or v4, int(number), False)]


def parseLoopback(text, folder):
    """
    One L{Tcp} of this host or L{Unix}, for what only this host may read: 'unix:/path:mode=660', '127.0.0.1:9154'.

    @raises ValueError: with what is wrong.
    """
    if not text.startswith("unix:") and not re.fullmatch(r"(127\.[0-9.]+|\[::1\]):[0-9]{1,9}", text):
        raise ValueError(
            f"{shown(text)} is none of '127.0.0.1:9154', '[::1]:9154', 'unix:/path:mode=660'; to be read from "
            "another host, it needs a proxy on this one that says who may"
        )
    (wanted,) = parsePort(text, folder)
    if isinstance(wanted, Tcp) and wanted.port == 0:
        raise ValueError(f"{shown(text)}: nobody could tell which port that will be")
    return wanted


def isSame(wanted, other):
    """
    Can only one of two parsed ports be bound?
    """
    if isinstance(wanted, Unix) or isinstance(other, Unix):
        return wanted[0] == other[0]
    return (
        isinstance(other, Tcp) and wanted.port == other.port and other.host in (wanted.host, "::", "0.0.0.0")  # noqa: S104
    )


def isInTheWay(wanted, other):
    """
    May it be the other parsed port that keeps this one from being bound?
    """
    isEndpoint = isinstance(wanted, Endpoint) or isinstance(other, Endpoint)
    return not isEndpoint and (isSame(wanted, other) or isSame(other, wanted))


def _number(port):
    if not 0 <= port <= 65535:
        raise ValueError(f"{shown(port)} is no port number, these are 1 to 65535")


def _parseEndpoint(port):
    number = re.match(r"(?:haproxy:)?(?:tcp6?|ssl):(?:port=)?(-?[0-9]{1,99})(?::|$)", port)
    if number:
        _number(int(number[1]))
    try:
        serverFromString(None, port)
    except Exception as problem:  # noqa: BLE001 - what Twisted and its plugins raise differs
        if isinstance(problem, LookupError) and "systemd:" in port:
            return Endpoint(port)  # systemd hands sockets to the server, not to who checks its configuration
        if ":" not in port or str(problem).startswith("Unknown endpoint type"):
            raise ValueError(f"{shown(port)} is none of {_FORMS}") from None
        raise ValueError(f"{shown(port)} is no Twisted endpoint: {problem}") from None
    return Endpoint(port)


def _parseUnix(port, folder):
    path, *settings = port[len("unix:") :].split(":")
    values = {"mode": "660", "user": None, "group": None}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if name not in values or not equals or not value:
            raise ValueError(f"{setting!r} in {port!r} is none of mode=, user=, group=")
        values[name] = value
    try:
        path = toPath(path, folder)
    except ValueError:
        raise ValueError(f"{shown(port)} names no path") from None
    checkSocket(path)
    if not re.fullmatch(r"0?[0-7]{3}", values["mode"]):
        raise ValueError(f"mode={values['mode']} is no mode such as 660")
    user = userId(values["user"]) if values["user"] else -1
    group = groupId(values["group"]) if values["group"] else -1
    return Unix(path, int(values["mode"], 8), user, group)


def checkSocket(path):
    """
    @raises ValueError: when no UNIX socket can be made there.
    """
    if len(os.fsencode(path)) > 107:
        raise ValueError(f"{path} is longer than a UNIX socket's name may be (107 octets)")
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing there, or nothing that we may see
    if not stat.S_ISSOCK(mode):
        raise ValueError(f"{path} exists and is no socket")


def userId(name):
    """
    @raises ValueError: when this host has no such user.
    """
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):  # ValueError: nobody can have this name
        raise ValueError(f"there is no user {shown(name)}") from None


def groupId(name):
    """
    @raises ValueError: when this host has no such group.
    """
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise ValueError(f"there is no group {shown(name)}") from None


def passed(wanted, inherited):
    """
    The socket that was passed to the process for this parsed port, else None.

    @param inherited: L{Inherited} sockets.
    @raises ConfigError: when it is named, and not fit for that.
    """
    if isinstance(wanted, Tcp):
        return inherited.at(wanted.host, wanted.port)
    if isinstance(wanted, Endpoint):
        return inherited.named(wanted.description)
    found = inherited.file(wanted.path)
    if found is not None:
        _compare(wanted)
    return found


def isWrapped(wanted):
    """
    Is there more to this port than a socket, as in C{haproxy:systemd:…}? Then Twisted listens.
    """
    return isinstance(wanted, Endpoint) and not wanted.description.startswith("systemd:")


def _compare(wanted):
    """
    Whose socket it is decides about its mode and owner.
    """
    try:
        status = wanted.path.stat()
    except OSError:
        return  # not for us to see
    mode = stat.S_IMODE(status.st_mode)
    if mode != wanted.mode or wanted.user not in (-1, status.st_uid) or wanted.group not in (-1, status.st_gid):
        log.warn(
            "{path} has mode {mode:o}, owner {user} and group {group}: the socket unit decides about that (see"
            " SocketMode=), not ppolicyPort",
            path=str(wanted.path),
            mode=mode,
            user=status.st_uid,
            group=status.st_gid,
        )


def listen(reactor, wanted, factory, option="ppolicyPort"):
    """
    Bind one parsed port.

    @param option: whose value it is.

    @return: Twisted's listening port, a Deferred of it for endpoints that need time, or None for an optional
        one that this host cannot have.
    @raises ConfigError: when it cannot be bound.
    """
    if isinstance(wanted, Endpoint):
        return _listenEndpoint(reactor, wanted, factory, option)
    if isinstance(wanted, Unix):
        return _listenUnix(reactor, wanted, factory, option)
    try:
        return reactor.listenTCP(wanted.port, factory, BACKLOG, wanted.host)
    except error.CannotListenError as problem:
        number = getattr(problem.socketError, "errno", None)
        if wanted.host == "::" and number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return listen(reactor, Tcp("0.0.0.0", wanted.port, False), factory, option)  # noqa: S104 - asked for by '*'
        if wanted.optional and number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            log.info("no IPv6 here, [{host}]:{port} is left out", host=wanted.host, port=wanted.port)
            return None
        reason = os.strerror(number) if number else str(problem)
        if number == errno.EADDRINUSE:
            by = holder(wanted.port)
            reason += f", by {by}" if by else "; `ss -ltnp` shows by whom"
        elif number == errno.EACCES:
            others = "name its user with the option user, or " if option == "ppolicyPort" else ""
            reason += f"; ports below 1024 are for root: {others}take another port"
        raise ConfigError(f"{option}: cannot listen on {describe(wanted)}: {reason}") from None


def _listenEndpoint(reactor, wanted, factory, option):
    try:
        return serverFromString(reactor, wanted.description).listen(factory)
    except Exception as problem:  # noqa: BLE001 - an endpoint of anybody
        reason = "systemd has passed no such socket" if isinstance(problem, LookupError) else problem
        raise ConfigError(f"{option}: cannot listen on {wanted.description}: {reason}") from None


def _listenUnix(reactor, wanted, factory, option):
    removeStale(wanted.path, option)
    port = _UnixPort(str(wanted.path), factory, BACKLOG, wanted.mode, reactor)
    try:
        port.startListening()
    except error.CannotListenError as problem:
        folder = wanted.path.parent
        reason = problem.socketError if folder.is_dir() else f"there is no folder {folder}, make it first"
        raise ConfigError(f"{option}: cannot listen on {wanted.path}: {reason}") from None
    if wanted.user != -1 or wanted.group != -1:
        try:
            os.chown(wanted.path, wanted.user, wanted.group)
        except OSError as problem:
            port.stopListening()
            reason = f"{problem.strerror}; who is not root can give it to his own groups only"
            raise ConfigError(f"{option}: {wanted.path}: {reason}") from None
    return port


class _UnixPort(unix.Port):
    """
    A UNIX socket that is closed also where its file cannot be removed: root made it, and the server is not root
    any more. The next start removes it.
    """

    def connectionLost(self, reason):
        try:
            super().connectionLost(reason)
        except OSError:
            tcp.Port.connectionLost(self, reason)


def removeStale(path, option):
    """
    Remove the socket of a server that died; never that of one that lives, nor anything else.
    """
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise ConfigError(f"{option}: {path} exists and is no socket")
    except FileNotFoundError:
        return
    except OSError as problem:
        raise ConfigError(f"{option}: {path}: {problem.strerror}") from None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            pass
        except OSError as problem:
            raise ConfigError(f"{option}: {path} is in use: {problem.strerror}") from None
        else:
            raise ConfigError(f"{option}: {path} is in use by a running server")
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as problem:
        raise ConfigError(f"{option}: {path} was left by another server: {problem.strerror}; remove it") from None


def describe(wanted):
    """
    A parsed port as a person writes it.
    """
    if isinstance(wanted, Tcp):
        return f"[{wanted.host}]:{wanted.port}" if ":" in wanted.host else f"{wanted.host}:{wanted.port}"
    return f"unix:{wanted.path}" if isinstance(wanted, Unix) else wanted.description
