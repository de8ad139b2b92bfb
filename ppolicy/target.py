"""
Where the state is kept: the option C{database}, a URL or the dictionary of 2.7, made into one description.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ppolicy.errors import ConfigError
from ppolicy.parameter import toPath
from ppolicy.statefolder import stateFolder

# Keys of 2.7's dictionary that the connections of today do not need.
UNUSED = ("cp_min", "cp_max", "cp_noisy", "cp_reconnect", "charset", "use_unicode")

_NETWORK = ("mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql")
_SETTINGS = ("password_file", "password_env", "unix_socket", "ssl", "ssl_ca", "ssl_cert", "ssl_key", "timeout")
_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
_KEYS = {"host", "port", "db", "database", "user", "passwd", "password", *_SETTINGS, *UNUSED}
_SECONDS = 3.0


@dataclass
class Target:
    """
    @ivar path: the file of an embedded SQLite; None for a server.
    @ivar timeout: seconds that connecting, and each answer of the server, may take.
    @ivar tls: True to refuse a server without TLS, or with a certificate that is not valid for its name.
    @ivar authority: file of the certificates that are trusted; None for those of the system.
    """

    path: Path | None = None
    host: str = "localhost"
    port: int = 3306
    socket: str | None = None
    name: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = _SECONDS
    tls: bool = False
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = field(default=None, repr=False)

    def __str__(self):
        if self.path is not None:
            return str(self.path)
        where = self.socket or (f"[{self.host}]" if ":" in self.host else self.host) + f":{self.port}"
        return f"{self.user}@{where}/{self.name}"


def parse(database, folder):
    """
    The L{Target} that the option means; relative paths begin in C{folder}.

    @raises ValueError: with a sentence that shows no password.
    """
    return _fromDictionary(database, folder) if isinstance(database, dict) else _fromURL(database, folder)


def databaseTarget(configuration):
    """
    The L{Target} of a configuration.
    """
    if configuration.options.database is None:
        return Target(path=stateFolder(configuration) / "ppolicy.sqlite")
    return parse(configuration.options.database, configuration.folder)


def unused(database):
    """
    The keys of the option that have no effect.
    """
    return [name for name in UNUSED if name in database] if isinstance(database, dict) else []


def _fromURL(text, folder):
    if text.startswith("sqlite:"):
        path = text.removeprefix("sqlite:///")
        if path == text or path in ("", ":memory:") or "?" in path:
            raise ValueError("must be sqlite:////path/to/file, the path of a file")
        if "\0" in unquote(path):
            raise ValueError("no file can have this name")
        return Target(path=folder / unquote(path))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(_FORMS) from None
    if url.drivername not in _NETWORK:
        raise ValueError(_FORMS)
    settings = dict(url.query)
    twice = [name for name, value in settings.items() if not isinstance(value, str)]
    if twice:
        raise ValueError(f"{twice[0]} is given twice")
    unknown = [name for name in settings if name not in _SETTINGS]
    if unknown:
        raise ValueError(f"there is no setting {unknown[0]!r}; there are {', '.join(_SETTINGS)}")
    return _server(url.host, url.port, url.database, url.username, url.password, settings, folder)


def _fromDictionary(given, folder):
    unknown = [name for name in given if name not in _KEYS]
    if unknown:
        raise ValueError(f"there is no key {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
    for name, value in given.items():
        if name not in UNUSED and value is not None and not isinstance(value, str | int | float | bool | Path):
            raise ValueError(f"{name!r} must be a text or a number")
    settings = {name: given[name] for name in _SETTINGS if given.get(name) is not None}
    if given.get("db") and given.get("database"):
        raise ValueError("the name of the database is given twice")
    if given.get("passwd") and given.get("password"):
        raise ValueError("the password is given twice")
    name = given.get("db") or given.get("database")
    password = given.get("passwd") or given.get("password")
    return _server(given.get("host"), given.get("port"), name, given.get("user"), password, settings, folder)


def _server(host, port, name, user, password, settings, folder):
    if not name:
        raise ValueError("names no database")
    if not re.fullmatch(r"[^\0/\\.]{1,64}", str(name)):
        raise ValueError("the name of the database must be one to 64 characters, without . / and \\")
    if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,255}", str(host or "localhost")):
        raise ValueError(
            "host must be a name or address (a password with @, : or / in it is written as %40 and so on)"
        )
    target = Target(name=str(name), user=str(user or ""), host=str(host or "localhost"))
    target.port = _number("port", port or 3306, 1, 65535, int)
    for one in ("unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "password_file", "password_env"):
        if one in settings and (not isinstance(settings[one], str | Path) or "\0" in str(settings[one])):
            raise ValueError(f"{one} must be a text")
    target.socket = settings.get("unix_socket")
    target.timeout = _number("timeout", settings.get("timeout", _SECONDS), 0.1, 60, float)
    target.password = _password(password, settings, folder)
    paths = {name: _path(name, settings[name], folder) for name in _FILES if name in settings}
    for name, path in paths.items():
        _readable(name, path)
    target.authority, target.certificate = paths.get("ssl_ca"), paths.get("ssl_cert")
    target.key = paths.get("ssl_key")
    wanted = str(settings.get("ssl", bool(paths))).lower()
    if wanted not in ("true", "1", "false", "0"):
        raise ValueError("ssl must be true or false")
    target.tls = wanted in ("true", "1")
    if paths and not target.tls:
        raise ValueError(f"{min(paths)} has no effect with ssl=false")
    if target.key is not None and target.certificate is None:
        raise ValueError("ssl_key has no effect without ssl_cert")
    return target


def _password(given, settings, folder):
    sources = [name for name in ("password_file", "password_env") if name in settings]
    if len(sources) + bool(given) > 1:
        raise ValueError("the password is given twice")
    if not sources:
        return str(given or "")
    if sources == ["password_env"]:
        name = str(settings["password_env"])
        if name not in os.environ:
            raise ValueError(f"password_env: there is no {name} in the environment")
        if not os.environ[name].isprintable() or "\udc80" <= max(os.environ[name], default="") <= "\udcff":
            raise ValueError(f"password_env: {name} in the environment is no text")
        return os.environ[name]
    path = _path("password_file", settings["password_file"], folder)
    return _readable("password_file", path).partition("\n")[0].rstrip("\r")


def _path(name, given, folder):
    try:
        return toPath(given, folder)
    except ConfigError as error:
        raise ValueError(f"{name}: {error}") from None
    except ValueError:
        raise ValueError(f"{name} must be a path") from None


def _readable(name, path):
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: {path}: {getattr(error, 'strerror', None) or 'is no text'}") from None


def _number(name, value, least, most, kind):
    try:
        number = kind(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{name} must be a number") from None
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}")
    return number


_FORMS = "must be sqlite:////path/to/file or mysql+pymysql://user@host:port/name"
