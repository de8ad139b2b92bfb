"""
Runs a command under the system call filter of a unit, as systemd would set it up, without systemd:

    /usr/bin/python3 sandbox.py UNIT COMMAND...

For Debian's own Python, which has libseccomp. What is set up: SystemCallFilter=, SystemCallErrorNumber=,
MemoryDenyWriteExecute=, RestrictAddressFamilies=, LockPersonality=, RestrictRealtime=, NoNewPrivileges=.
"""

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from seccomp import ALLOW, ERRNO, MASKED_EQ, Arg, SyscallFilter

PROT_WRITE, PROT_EXEC = 2, 4
SHM_EXEC = 0o100000


def settings(path):
    """
    {name: [value, ...]} of a unit.
    """
    found = {}
    with Path(path).open() as unit:
        for line in unit:
            name, equals, value = line.strip().partition("=")
            if equals and re.fullmatch("[A-Za-z]+", name):
                found.setdefault(name, []).append(value)
    return found


def members(name):
    """
    The system calls of one of systemd's groups, those of groups in it included.
    """
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    words = [line.strip() for line in listed.stdout.splitlines()[1:]]
    return set().union(*(members(word) for word in words if word and not word.startswith("#")))


def allowed(values):
    """
    What SystemCallFilter= leaves: the first line lists what may be called, C{~} takes away.
    """
    calls = members("@default")
    for value in values:
        named = set().union(*map(members, value.removeprefix("~").split()))
        calls = calls - named if value.startswith("~") else calls | named
    return calls


def install(unit):
    """
    One filter after the other; each may forbid what the others allow.
    """
    denied = ERRNO(errno.EPERM)
    assert unit["SystemCallErrorNumber"] == ["EPERM"]
    for setting in ("MemoryDenyWriteExecute", "LockPersonality", "RestrictRealtime", "NoNewPrivileges"):
        assert unit[setting] == ["yes"]
    families = {getattr(socket, name) for name in unit["RestrictAddressFamilies"][0].split()}

    more = SyscallFilter(ALLOW)
    more.add_rule(denied, "mmap", Arg(2, MASKED_EQ, PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC))
    for name in ("mprotect", "pkey_mprotect"):
        more.add_rule(denied, name, Arg(2, MASKED_EQ, PROT_EXEC, PROT_EXEC))
    more.add_rule(denied, "shmat", Arg(2, MASKED_EQ, SHM_EXEC, SHM_EXEC))
    more.add_rule(denied, "personality")
    more.add_rule(denied, "sched_setscheduler")
    for family in set(range(1, 46)) - families:
        more.add_rule(ERRNO(errno.EAFNOSUPPORT), "socket", Arg(0, MASKED_EQ, 0xFFFFFFFF, family))

    calls = SyscallFilter(denied)
    for name in allowed(unit["SystemCallFilter"]):
        try:
            calls.add_rule(ALLOW, name)
        except (RuntimeError, ValueError, OSError):
            pass  # a call of another architecture
    more.load()  # which sets NoNewPrivileges, too
    calls.load()


install(settings(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
