"""
Who listens on a port of this host: what Linux tells in /proc.
"""

import os
from pathlib import Path
from time import monotonic

# Seconds to look for the process: the sentence without it is of use, too.
_SECONDS = 0.2
_LISTENS = "0A"  # TCP_LISTEN in include/net/tcp_states.h


def holder(port):
    """
    @return: the process that listens on a TCP port, as a few words; None when it cannot be told, as only root can
        of others' processes.
    """
    wanted = {f"socket:[{one}]" for one in _sockets(port)}
    if not wanted:
        return None
    ends = monotonic() + _SECONDS
    for folder in Path("/proc").iterdir():
        if monotonic() > ends:
            return None
        if folder.name.isdecimal() and _holds(folder, wanted):
            return f"{_name(folder)}, pid {folder.name}"
    return None


def _sockets(port):
    """
    The numbers (inodes) of the sockets that listen there; see proc_net_tcp of the kernel's documentation.
    """
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, *rest = line.split()
            if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
                yield rest[5]


def _holds(folder, wanted):
    try:
        return any(os.readlink(one) in wanted for one in (folder / "fd").iterdir())  # noqa: PTH115 - it is no path
    except OSError:  # not for us to see, or it has ended
        return False


def _name(folder):
    try:
        return ascii((folder / "comm").read_text(encoding="utf-8", errors="replace").strip())[1:-1]
    except OSError:
        return "a process"
