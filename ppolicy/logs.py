"""
What the server, policies and modules say, beside the request lines.
"""

import logging

from twisted.logger import Logger, LogLevel

from ppolicy.bridge import currentRequest

_LEVELS = (
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)


class ToTwisted(logging.Handler):
    """
    Hands what policies and modules log through C{logging} to Twisted's log, with the request's instance.
    """

    def __init__(self):
        super().__init__()
        self._log = Logger("ppolicy.policy")

    def emit(self, record):
        level = next((mapped for least, mapped in _LEVELS if record.levelno >= least), LogLevel.debug)
        request = currentRequest()
        text = self.format(record)
        # User data is a field, never the format.
        self._log.emit(
            level,
            "{instance}{text}",
            instance=f"{request.get('instance', '')}: " if request else "",
            text=escaped(text),
        )


def escaped(text):
    """
    A text in which nothing can break or forge a line: control characters as C{\\xNN}, tracebacks kept readable.
    """
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape", "surrogatepass").decode("ascii")
        for one in text
    ).replace("\n", "\n\t")
