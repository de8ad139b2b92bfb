"""
The command's side of the control socket. Nothing here needs Twisted, which takes longer to load than most answers
take.
"""

import grp
import json
import os
import pwd
import socket
from contextlib import closing, suppress
from pathlib import Path

from ppolicy.errors import NoServer, PPolicyError

# Octets of a request.
LONGEST = 131072
# How the refusal of somebody begins who may not use the socket.
NOT_ADMITTED = "not admitted"

# Seconds for an answer.
_TIMEOUT = 120


def isServed(path):
    """
    Does a server listen on this control socket?

    @raises NoServer: when that cannot be said.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise _unreachable(path, error) from None
        return True


def ask(path, verb, **arguments):
    """
    Ask a running server and wait for its answer; for commands, not for the server itself.

    @raises PPolicyError: with what the server says, or why it cannot be reached.
    """
    with closing(_converse(path, verb, arguments)) as answers:
        return next(answers)


def follow(path, verb, **arguments):
    """
    Have a running server tell what happens, from now on: an iterator of dictionaries.

    @raises PPolicyError: as L{ask} does; also when the server ends.
    """
    answers = _converse(path, verb, arguments)
    next(answers)
    return answers


def _converse(path, verb, arguments):
    request = json.dumps({"verb": verb, **arguments}).encode()
    if len(request) > LONGEST:
        raise PPolicyError(f"{verb}: {len(request)} octets are too many for one request")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(str(path))
            with suppress(BrokenPipeError):  # who is refused unheard finds out why
                connection.sendall(request + b"\n")
            with connection.makefile("rb") as lines:
                yield _good(lines.readline(), path)
                connection.settimeout(None)
                for line in lines:
                    if line.endswith(b"\n"):  # the server was not killed in the middle of it
                        yield json.loads(line)
        except OSError as error:
            raise _unreachable(path, error) from None
    raise NoServer(f"{path}: the server has ended, or has hung up because too little was read")


def _good(line, path):
    if not line.endswith(b"\n"):
        raise NoServer(f"{path}: the server hung up without an answer; its log may say why")
    try:
        answer = json.loads(line)
        error = None if answer.pop("ok") else str(answer["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoServer(f"{path}: what listens there is no ppolicy; is controlSocket right?") from None
    if error is not None:
        raise (NoServer if error.startswith(NOT_ADMITTED) else PPolicyError)(error)
    return answer


def whoMay(path):
    """
    Who is admitted at a control socket, and what others can do, as a sentence.
    """
    users = {"root": None}
    group = None
    try:
        status = Path(os.fsdecode(path)).stat()
        users[pwd.getpwuid(status.st_uid).pw_name] = None
        group = grp.getgrgid(status.st_gid).gr_name if status.st_gid else None
    except (OSError, KeyError):  # who may not look, or a user without a name
        users["the server's user"] = None
    who, name = " and ".join(users), os.fsdecode(path)
    if group is None:
        return f"only {who} may use {name}; use sudo, or let a group in with the options user and group"
    return f"only {who} and the group {group} may use {name}; use sudo, or join: usermod -aG {group} NAME"


def _unreachable(path, error):
    """
    Why a server does not answer on its control socket, and what to do, as a L{NoServer}.
    """
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        why = "there is no socket" if isinstance(error, FileNotFoundError) else "nobody listens on"
        return NoServer(
            f"no server is running: {why} {path}\n"
            "start it with `ppolicy run` or `systemctl start ppolicy`; name another server's configuration with -c"
        )
    if isinstance(error, PermissionError):
        return NoServer(f"{path}: {error.strerror}: {whoMay(path)}")
    if isinstance(error, TimeoutError):
        return NoServer(f"{path}: the server has not answered within {_TIMEOUT} s; its log may say why")
    return NoServer(f"{path}: {error.strerror or error}")
