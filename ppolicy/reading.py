"""
Finding ppolicy.conf, and running it.
"""

import ast
import importlib.util
import linecache
import os
import re
import stat
import sys
import traceback
import types
from pathlib import Path

from ppolicy.errors import ConfigError, Mistake
from ppolicy.options import Options

MODULE_NAME = "ppolicy_conf"

_PLACES = ("/etc/ppolicy/ppolicy.conf", "/etc/postfix/ppolicy.conf")


def find(given=None, beside=None):
    """
    The configuration file to use: the given one, else C{$PPOLICY_CONF}, else ppolicy.conf in the present
    folder (or C{beside} the .tac), else the system's.

    @raises ConfigError: when there is none, or when one that was only found by chance is not safe to run.
    """
    if given or os.environ.get("PPOLICY_CONF"):
        return Path(given or os.environ["PPOLICY_CONF"]).absolute()
    local = Path(beside or "") / "ppolicy.conf"
    try:
        local = local.absolute()
        if local.is_file():
            status = local.stat()
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigError(
                    f"{local} belongs to somebody else, or may be written by everybody or its group; "
                    "name it with -c or $PPOLICY_CONF if you trust it"
                )
            return local
        for place in _PLACES:
            if Path(place).is_file():
                return Path(place)
    except OSError as error:
        raise ConfigError(f"cannot look for {error.filename or local}: {error.strerror}") from error
    raise ConfigError(
        f"no configuration: there is no {local}, no {' and no '.join(_PLACES)}; name one with -c or $PPOLICY_CONF"
    )


def glance(path):
    """
    What a file says about where its server keeps things, however wrong the rest of it may be.

    @return: a L{Reading} with C{options}, of which C{stateDir} and C{controlSocket} are set.
    """
    reading = Reading(Path(path).absolute())
    reading.execute()
    names = ("stateDir", "controlSocket")
    values = {name: reading.names[name] for name in names if name in reading.names}
    accepted = Options.accept(values, reading.folder, [])
    reading.options = Options()
    reading.options.assume({name: one.default for name, one in Options.declared().items()} | accepted)
    return reading


class Reading:
    """
    One reading of a file: what it set.

    @ivar path, folder: the file, and where it lies.
    @ivar names: what the file has defined, {name: value}.
    @ivar tree: its syntax tree.
    """

    def __init__(self, path):
        self.path = path
        self.folder = path.parent
        self.tree = ast.Module([], [])
        self.module = types.ModuleType(MODULE_NAME)
        self.module.__file__ = str(path)
        self.names = self.module.__dict__
        self.names["modules"] = {}

    def execute(self):
        """
        Run the file.

        @return: the mistake that ended it, a syntax error or an exception, or None.
        """
        file = str(self.path)
        try:
            source = self._source()
            linecache.checkcache(file)
            tree = ast.parse(source, file)
            code = compile(tree, file, "exec", dont_inherit=True)
            self.tree = tree
            sys.modules[MODULE_NAME] = self.module
            # The file is the administrator's own program: running it is what ppolicy is for.
            exec(code, self.names)  # noqa: S102
        except Mistake as mistake:
            return mistake
        except BaseException as error:  # noqa: BLE001 - any exception, SystemExit too, is a mistake
            line, sentence = explained(error, self.path)
            return Mistake(sentence, self.path, line)
        return None

    def _source(self):
        try:
            octets = self.path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: no file can have such a name
            raise Mistake(f"cannot be read: {getattr(error, 'strerror', error)}", self.path) from error
        try:
            source = importlib.util.decode_source(octets)
            if "\0" in source:
                raise ValueError("there is a NUL character in it")
        except (SyntaxError, ValueError, LookupError) as error:
            readable = octets.decode(errors="replace")
            bad = re.search("[\0\ufffd]", readable)
            line = readable.count("\n", 0, bad.start()) + 1 if bad else None
            raise Mistake(f"cannot be read as text, save it in UTF-8: {error}", self.path, line) from error
        return source


def explained(error, file):
    """
    What an exception says to the author of a file.

    @return: (the line of the file where it comes from, or None; a sentence)
    """
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno, f"{type(error).__name__}: {error.msg}"
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == str(file)]
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - an exception of the site's own
        text = ""
    return lines[-1] if lines else None, f"{type(error).__name__}: {text}" if text else type(error).__name__
