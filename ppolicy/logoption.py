"""
The forms of the option `logTarget`.
"""

import os
import re
import socket
import stat

from ppolicy.listeners import checkSocket
from ppolicy.logtarget import File, LocalSyslog, Stdout
from ppolicy.parameter import shown, toPath
from ppolicy.syslogreceiver import TcpReceiver, UdpReceiver, UnixReceiver

_FORMS = (
    "'syslog:unix:/dev/log', 'syslog:udp:192.0.2.1:514', 'syslog:udp:[2001:db8::1]:514', 'syslog:tcp:host:514'"
)


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
    if "\0" in text:
        raise ValueError(f"{shown(text)} can be no file")
    # A word alone is a slip, such as 'sylog' or 'journal', far oftener than a file.
    if re.fullmatch(r"[^/.]{1,40}|[^/]*:[^/]*", text) and not os.path.lexists(folder / text):
        raise ValueError(f"{shown(text)} is none of 'stdout' and 'syslog', and a file is {shown('./' + text)}")
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
