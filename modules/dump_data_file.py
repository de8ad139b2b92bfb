"""
Keep requests in a file: to look at them later, or to try a new policy on them.
"""

import errno
import os
import re
from contextlib import suppress
from pathlib import Path
from time import time

from ppolicy.check import Check, parameter
from ppolicy.errors import ParamError
from ppolicy.logtarget import File
from ppolicy.writer import LineWriter

_SPECIAL = re.compile(r"[\\\x00-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff]")


class DumpDataFile(Check):
    """
    Append every attribute of the request to a file, with the results of the checks asked before.

    An entry is `date=` with the seconds since 1970, a line `name=value` for each attribute, and a blank line.
    Within values a newline is `\\n`, a backslash `\\\\`, any other control character or octet that is no UTF-8
    `\\xNN`. `ppolicy explain < file` replays such a file.

    Entries are in the file within half a second. It is opened anew when it was moved away (logrotate).

    Check arguments:
        data ... the request

    Check returns:
        1 .... the entry will be written
        -1 ... it will not: the file cannot be written, and too many entries wait
        information: None

    Examples:
        # collect all requests that reach this point of the policy
        modules['dumpfile'] = ('DumpDataFile', {'fileName': '/tmp/dump.dat'})
    """

    fileName: Path = parameter(help="file to append to; it is created when missing")
    cachePositive: float = parameter(0, "not used: every request is written", minimum=0)
    cacheUnknown: float = parameter(0, "not used", minimum=0)
    cacheNegative: float = parameter(0, "not used", minimum=0)

    def start(self):
        self._writer = LineWriter(File(self.fileName))
        try:
            if self.dryRun:
                self._look()
            else:
                self._writer.start()
        except OSError as error:
            raise ParamError(f"fileName: {self.fileName}: {error.strerror}") from error

    def _look(self):
        """
        What would keep the file from being opened, as far as it is seen without making one; the server may be a
        user who sees more.
        """
        with suppress(PermissionError):
            self.fileName.parent.stat()
            if self.fileName.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))

    def status(self):
        return self._writer.status()

    def stop(self):
        if not self.dryRun:
            self._writer.stop()

    def check(self, data):
        lines = [f"date={int(time())}"]
        lines += [f"{escaped(name)}={escaped(value)}" for name, value in data.items()]
        lines.append("")
        if self.dryRun:
            return 1, None
        return (1, None) if self._writer.write("\n".join(lines)) else (-1, None)


def escaped(value):
    """
    A value on one line, so that it can be read back.
    """
    return _SPECIAL.sub(_escape, str(value))


def _escape(match):
    one = match[0]
    if one == "\n":
        return "\\n"
    if one == "\\":
        return "\\\\"
    number = ord(one)
    if 0xDC80 <= number <= 0xDCFF:  # an octet that was no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return "".join(f"\\x{octet:02x}" for octet in one.encode("utf-8", "surrogatepass"))
