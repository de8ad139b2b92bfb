"""
The folder of everything that is kept: where it is, whose it is, and that nobody else can change what is in it.
"""

import fcntl
import grp
import os
import pwd
import stat
from pathlib import Path

from ppolicy.errors import ConfigError
from ppolicy.privileges import userName

_MODE = 0o750
_LINKS = 40


def stateFolder(configuration):
    """
    The folder of everything that is kept: C{stateDir}, else what systemd gives, else the system's, else beside
    ppolicy.conf.
    """
    if configuration.options.stateDir is not None:
        return configuration.options.stateDir
    given = os.environ.get("STATE_DIRECTORY")  # systemd: a list with colons, and links with DynamicUser=
    if given:
        return Path(os.path.realpath(given.split(":")[0]))
    system = Path("/var/lib/ppolicy")
    if system.is_dir() and os.access(system, os.W_OK):
        return system
    return configuration.folder / "state"


def controlPath(configuration):
    """
    The control socket.
    """
    return configuration.options.controlSocket or stateFolder(configuration) / "control.sock"


def make(folder, user=None, group=-1):
    """
    See that the folder is there, belongs to the server's user, and that nobody else can write to it.

    @param user: number of the user that the server will be; by default who it is.
    @raises ConfigError: when it is not so and cannot be made so.
    """
    owner = os.geteuid() if user is None else user
    trusted = {0, owner}
    refuse(folder, trusted)
    try:
        if not folder.exists():
            folder.mkdir(mode=_MODE, parents=True)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"stateDir: {folder}: {error.strerror}") from None
    try:
        if os.geteuid() == 0 and owner != 0:
            _give(folder, opened, owner, group)
    finally:
        os.close(opened)


def _give(folder, opened, owner, group):
    """
    Give root's folder to the server's user; its files are not given away, they might be anybody's.
    """
    files = {path.name: path.lstat() for path in folder.iterdir()}
    if os.fstat(opened).st_uid != owner and files and not {"lock", "ppolicy.sqlite"} & files.keys():
        raise ConfigError(
            f"stateDir: {folder} belongs to root and has other files in it: name a folder of its own, or chown it"
            f" to {userName(owner)} if it is that"
        )
    for name, status in files.items():
        if (name == "lock" or name.startswith("ppolicy.sqlite")) and status.st_uid != owner:
            raise ConfigError(
                f"stateDir: {folder / name} belongs to {userName(status.st_uid)}, and the server runs as "
                f"{userName(owner)}: chown -R {userName(owner)} {folder}"
            )
    os.fchown(opened, owner, group)


def refuse(folder, trusted=None):
    """
    Refuse a folder in which others could put files of theirs in the place of ours: one that is a symbolic link,
    is somebody else's, may be written by others, or lies in a folder of that kind (where a sticky one, as /tmp
    is, does no harm).

    @param trusted: numbers of the users that may; by default root and the owner of the folder.
    @raises ConfigError: with what to do about it.
    """
    try:
        status = folder.lstat()
    except FileNotFoundError:
        status = None  # it will be made
    except OSError:
        return  # who may not look cannot start the server either
    if status is not None and stat.S_ISLNK(status.st_mode):
        real = os.path.realpath(folder)
        raise ConfigError(f"stateDir: {folder} is a symbolic link: name the folder itself, {real}")
    if trusted is None:
        trusted = {0, os.geteuid() if status is None else status.st_uid}
    for place in _leadingTo(folder):
        problem = _problem(place, place == folder, trusted)
        if problem:
            where = "" if place == folder else f"{folder} lies in "
            raise ConfigError(f"stateDir: {where}{place}, which {problem}")


def _problem(place, isLast, trusted):
    """
    What others can do there, and what to do about that; None when nothing.
    """
    try:
        status = place.lstat()
    except OSError:
        return None
    if status.st_uid not in trusted:
        who = userName(status.st_uid)
        return f"belongs to {who}: start the server as {who}, chown it, or name another folder"
    if stat.S_ISLNK(status.st_mode) or (status.st_mode & stat.S_ISVTX and not isLast):
        return None
    if status.st_mode & stat.S_IWOTH:
        return f"everybody can write to: chmod o-w {place}, or name another folder"
    if status.st_mode & stat.S_IWGRP and not _isOwnGroup(status.st_gid, trusted):
        return f"its group can write to: chmod g-w {place}, or name another folder"
    return None


def _isOwnGroup(group, trusted):
    """
    Has this group no members beside the users that are trusted?
    """
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(group).gr_mem}
    except KeyError:
        return False
    return members | {one.pw_uid for one in pwd.getpwall() if one.pw_gid == group} <= trusted


def _leadingTo(path, links=_LINKS):
    """
    Each folder and symbolic link on the way to a path, with those that the links lead to. Who finds a link that
    somebody else has made goes no further.
    """
    for place in (*reversed(path.parents), path):
        yield place
        if links and place != path and place.is_symlink():
            yield from _leadingTo(place.parent / place.readlink(), links - 1)


def lockFolder(folder):
    """
    Take a state folder for this process: two servers on one would not see each other's changes.

    @return: the lock's file descriptor; closing it, or the end of the process, gives the folder back.
    @raises ConfigError: when another process has it.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.read(lock, 20).decode("ascii", "replace").strip()
        os.close(lock)
        raise ConfigError(f"stateDir: {folder} is in use by another server (pid {pid})") from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode("ascii"))
    return lock
