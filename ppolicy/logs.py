"""
What the server, policies and modules say, beside the request lines.
"""

import logging
import traceback

from twisted.logger import Logger, LogLevel

from ppolicy.bridge import currentRequest

_LEVELS = (
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)
_LONGEST = 20_000


class ToTwisted(logging.Handler):
    """
    Hands what policies and modules log through C{logging} to Twisted's log, with the request's instance.
    """

    def __init__(self):
        super().__init__()
        self._log = Logger("ppolicy.policy")

    def emit(self, record):
        level = next((mapped for least, mapped in _LEVELS if record.levelno >= least), LogLevel.debug)
        # User data is a field, never the format.
        self._log.emit(level, "{instance}{text}", instance=prefix(), text=escaped(self.format(record)))


def prefix():
    """
    The instance of the request that the running code works on, for the begin of a line; '' outside of any.
    """
    request = currentRequest()
    if not request:
        return ""
    try:
        return f"{escaped(str(request.get('instance', '')))}: "
    except Exception:  # noqa: BLE001 - a policy may put anything into its request
        return "?: "


def logFailure(log, what):
    """
    Log the exception that is being handled: one event, with the request's instance and the traceback.
    """
    text = traceback.format_exc()
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}\n...\n{text[-_LONGEST // 2 :]}"
    log.error("{instance}{what}\n\t{traceback}", instance=prefix(), what=what, traceback=escaped(text))


def escaped(text):
    """
    A text in which nothing can break or forge a line: control characters as C{\\xNN}, further lines indented.
    """
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape", "surrogatepass").decode("ascii")
        for one in text
    ).replace("\n", "\n\t")


def asText(value):
    """
    What a policy or a check has left somewhere, as a text of Python's own class, whatever it is.
    """
    if type(value) is str:
        return value
    try:
        return str.__str__(value if isinstance(value, str) else str(value))
    except BaseException:  # noqa: BLE001 - an object of the site's own
        return f"<{type(value).__name__}>"
