"""
What types and bounds of the options do not say: whether a value makes sense on this host, and beside the others.
"""

import importlib.util
import ipaddress
import logging
import re
import stat

from ppolicy import logoption, ownlists
from ppolicy.listeners import checkSocket, describe, groupId, isSame, parseLoopback, parsePort, userId
from ppolicy.logtarget import File
from ppolicy.parameter import shown
from ppolicy.resolvconf import nameServer
from ppolicy.statefolder import refuse
from ppolicy.target import parse


def furtherChecks(options, folder):
    """
    What types and bounds of the options do not say: (option, function, value, further arguments); the function
    raises ValueError when the value, if there is one, is wrong.
    """
    ownSocket = options.controlSocket is None and options.stateDir is not None
    return [
        *[("ppolicyPort", parsePort, port, folder) for port in options.ppolicyPort],
        ("ppolicyPort", _distinct, options.ppolicyPort, folder),
        *[("modulePath", _checkFolder, one) for one in options.modulePath],
        *[("restrictionClasses", _checkRestrictionClass, name) for name in options.restrictionClasses],
        ("logTarget", _checkTarget, options.logTarget, folder, options.domain),
        ("logLevel", _checkLogLevel, options.logLevel),
        ("metrics", _checkMetrics, options.metrics, folder, options.ppolicyPort),
        ("stateDir", _checkFolder, options.stateDir, True),
        ("stateDir", refuse, options.stateDir),
        ("stateDir", checkSocket, options.stateDir / "control.sock" if ownSocket else None),
        ("controlSocket", checkSocket, options.controlSocket),
        ("user", userId, options.user),
        ("group", groupId, options.group),
        ("dnsLists", ownlists.parse, options.dnsLists, folder),
        *[("dnsTrusted", ipaddress.ip_address, one) for one in options.dnsTrusted],
        *[("dnsServers", nameServer, one) for one in options.dnsServers],
        ("database", _checkDatabase, options.database, folder, options.stateDir),
    ]


def _distinct(ports, folder):
    if not ports:
        raise ValueError("an empty list listens nowhere")
    known = set()
    for port in ports:
        try:
            wanted = {describe(one) for one in parsePort(port, folder)}
        except ValueError:
            continue  # that is said already
        if wanted & known:
            raise ValueError(f"{min(wanted & known)} is there twice")
        known |= wanted


def _checkFolder(path, mayBeMissing=False):
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if mayBeMissing:
            return
        raise ValueError(f"there is no folder {path}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise ValueError(f"{path} is no folder")


def _checkFile(path):
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        _checkFolder(path.parent)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    else:
        if stat.S_ISDIR(mode):
            raise ValueError(f"{path} is a folder, not a file")


def _checkTarget(text, folder, hostname):
    target = logoption.parse(text, folder, hostname)
    if isinstance(target, File):
        _checkFile(target.path)


def _checkMetrics(text, folder, ports):
    wanted = parseLoopback(text, folder)
    for port in ports:
        try:
            isTaken = any(isSame(wanted, one) for one in parsePort(port, folder))
        except ValueError:
            continue  # that is said already
        if isTaken:
            raise ValueError(f"{describe(wanted)} is in ppolicyPort already, where Postfix asks")
    if importlib.util.find_spec("prometheus_client") is None:
        raise ValueError("needs the Python package prometheus-client: pip install 'ppolicy[metrics]'")


def _checkLogLevel(level):
    if isinstance(level, str) and level.upper() not in logging.getLevelNamesMapping():
        raise ValueError(f"must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not {shown(level)}")


def _checkRestrictionClass(name):
    if not re.fullmatch(r"[^\s,:]+", name):
        raise ValueError(f"{shown(name)} is no name of a restriction class")


def _checkDatabase(database, folder, stateDir):
    target = parse(database, folder)
    if target.path is None:
        if importlib.util.find_spec("pymysql") is None:
            raise ValueError("MySQL and MariaDB need the Python package PyMySQL, which is not installed")
    elif target.path.parent != stateDir:  # that one will be made
        _checkFile(target.path)
