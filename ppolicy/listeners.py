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

from twisted.internet import error
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger
from twisted.plugin import IPlugin  # noqa: F401 - endpoint strings are plugins

from ppolicy.errors import ConfigError
from ppolicy.parameter import shown, toPath

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


def listen(reactor, wanted, factory):
    """
    Bind one parsed port.

    @return: Twisted's listening port, a Deferred of it for endpoints that need time, or None for an optional
        one that this host cannot have.
    @raises ConfigError: when it cannot be bound.
    """
    if isinstance(wanted, Endpoint):
        return _listenEndpoint(reactor, wanted, factory)
    if isinstance(wanted, Unix):
        return _listenUnix(reactor, wanted, factory)
    try:
        return reactor.listenTCP(wanted.port, factory, BACKLOG, wanted.host)
    except error.CannotListenError as problem:
        number = getattr(problem.socketError, "errno", None)
        if wanted.host == "::" and number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return listen(reactor, Tcp("0.0.0.0", wanted.port, False), factory)  # noqa: S104 - asked for by '*'
        if wanted.optional and number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            log.info("no IPv6 here, [{host}]:{port} is left out", host=wanted.host, port=wanted.port)
            return None
        reason = os.strerror(number) if number else str(problem)
        raise ConfigError(f"ppolicyPort: cannot listen on {describe(wanted)}: {reason}") from None


def _listenEndpoint(reactor, wanted, factory):
    try:
        return serverFromString(reactor, wanted.description).listen(factory)
    except Exception as problem:  # noqa: BLE001 - an endpoint of anybody
        reason = "systemd has passed no such socket" if isinstance(problem, LookupError) else problem
        raise ConfigError(f"ppolicyPort: cannot listen on {wanted.description}: {reason}") from None


def _listenUnix(reactor, wanted, factory):
    removeStale(wanted.path)
    try:
        port = reactor.listenUNIX(str(wanted.path), factory, BACKLOG, mode=wanted.mode)
    except error.CannotListenError as problem:
        raise ConfigError(f"ppolicyPort: cannot listen on {wanted.path}: {problem.socketError}") from None
    if wanted.user != -1 or wanted.group != -1:
        try:
            os.chown(wanted.path, wanted.user, wanted.group)
        except OSError as problem:
            port.stopListening()
            raise ConfigError(f"ppolicyPort: {wanted.path}: {problem.strerror}") from None
    return port


def removeStale(path):
    """
    Remove the socket of a server that died; never that of one that lives, nor anything else.
    """
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise ConfigError(f"ppolicyPort: {path} exists and is no socket")
    except FileNotFoundError:
        return
    except OSError as problem:
        raise ConfigError(f"ppolicyPort: {path}: {problem.strerror}") from None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
        except OSError as problem:
            raise ConfigError(f"ppolicyPort: {path} is in use: {problem.strerror}") from None
        else:
            raise ConfigError(f"ppolicyPort: {path} is in use by a running server")


def describe(wanted):
    """
    A parsed port as a person writes it.
    """
    if isinstance(wanted, Tcp):
        return f"[{wanted.host}]:{wanted.port}" if ":" in wanted.host else f"{wanted.host}:{wanted.port}"
    return f"unix:{wanted.path}" if isinstance(wanted, Unix) else wanted.description
