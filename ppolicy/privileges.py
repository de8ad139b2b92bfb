"""
From root to the user that the server runs as, for good.
"""

import grp
import os
import pwd

from ppolicy.errors import ConfigError


def account(options):
    """
    User and group number of the options C{user} and C{group}, and the name of the user.

    @return: None when C{user} is not set.
    @raises ConfigError: when there is no such user or group.
    """
    if options.user is None:
        return None
    try:
        user = pwd.getpwnam(options.user)
    except KeyError:
        raise ConfigError(f"user: there is no user {options.user}") from None
    try:
        group = grp.getgrnam(options.group).gr_gid if options.group else user.pw_gid
    except KeyError:
        raise ConfigError(f"group: there is no group {options.group}") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise ConfigError(f"user: only root can become {options.user}")
    return user.pw_uid, group, user.pw_name


def become(user, group, name):
    """
    Give up root: this user, this group, and the groups that the user is a member of; there is no way back.
    Does nothing for who is not root.

    @raises ConfigError: when that is forbidden even to root, as in some containers.
    """
    if os.geteuid() != 0:
        return
    try:
        os.setgroups(os.getgrouplist(name, group))
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except OSError as error:
        raise ConfigError(f"user: cannot become {name}: {error.strerror}") from None


def becomeOwner(folder):
    """
    As root, become the owner of a folder, so that what is made there is the server's.
    """
    status = folder.stat()
    if os.geteuid() == 0 and status.st_uid != 0:
        become(status.st_uid, status.st_gid, userName(status.st_uid))


def userName(number):
    """
    The name of a user, else the number as a text.
    """
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
