"""
Everything that is logged beside the request lines, on stdout: one event after the other, none of which can break
or forge another.
"""

import atexit
import json
import os
import sys
from datetime import UTC, datetime

from twisted.logger import ILogObserver, LogLevel, eventAsText, formatEvent
from zope.interface import implementer

from ppolicy.logs import escaped
from ppolicy.logtarget import Stdout
from ppolicy.writer import LineWriter

# What sd-daemon(3) has before a line for the journal.
_PRIORITIES = {
    LogLevel.debug: "<7>",
    LogLevel.info: "<6>",
    LogLevel.warn: "<4>",
    LogLevel.error: "<3>",
    LogLevel.critical: "<2>",
}


@implementer(ILogObserver)
class EventLog:
    """
    Writes events from a thread: who logs never waits for who reads stdout.

    @param form: C{'text'} or C{'json'}.
    """

    def __init__(self, form):
        self._form = {"text": asText, "json": asJson}[form]
        self._isJournal = isJournal()
        self._writer = LineWriter(Stdout(), flush=0)
        self._isStarted = False

    def __call__(self, event):
        text = self._form(event)
        if not text:
            return
        if not self._isStarted:  # not before: a daemon leaves its threads behind when it goes into the background
            self._isStarted = True
            self._writer.start()
        if self._isJournal:
            priority = _PRIORITIES.get(event.get("log_level"), "<6>")
            text = "\n".join(priority + line for line in text.split("\n"))
        self._writer.write(text)

    def stop(self):
        """
        Write what is left.
        """
        if self._isStarted:
            self._writer.stop()


def text():
    """
    For C{twistd --logger=ppolicy.eventlog.text}.
    """
    return _untilTheEnd(EventLog("text"))


def jsonLines():
    """
    For C{twistd --logger=ppolicy.eventlog.jsonLines}.
    """
    return _untilTheEnd(EventLog("json"))


def _untilTheEnd(log):
    atexit.register(log.stop)
    return log


def isJournal():
    """
    Is stdout connected to the journal (systemd.exec(5), JOURNAL_STREAM)?
    """
    try:
        here = os.fstat(sys.__stdout__.fileno())  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{here.st_dev}:{here.st_ino}"


def asText(event):
    """
    An event as Twisted has it, with control characters as C{\\xNN} and further lines indented.
    """
    first, *rest = eventAsText(event).rstrip("\n").split("\n")
    return "\n".join([escaped(first), *(f"\t{_indented(line)}" for line in rest)])


def asJson(event):
    """
    An event as an object of JSON on one line: time, level, system, text, with instance and traceback where there
    are any.
    """
    told = formatEvent(event | {"instance": "", "traceback": ""}).removesuffix("\n\t")
    found = {
        "time": datetime.fromtimestamp(event.get("log_time", 0), UTC).isoformat(timespec="microseconds"),
        "level": getattr(event.get("log_level"), "name", "info"),
        "system": str(event.get("log_system", event.get("log_namespace", "-"))),
        "text": told,
    }
    instance = event.get("instance")
    if isinstance(instance, str) and instance:
        found["instance"] = instance.removesuffix(": ")
    traceback = event.get("traceback")
    if "log_failure" in event:
        traceback = event["log_failure"].getTraceback()
    if isinstance(traceback, str) and traceback:
        found["traceback"] = traceback
    return json.dumps(found) if told or traceback else ""


def _indented(line):
    """
    Tabs at the begin of a line are what somebody indented it with.
    """
    bare = line.lstrip("\t")
    return "\t" * (len(line) - len(bare)) + escaped(bare)
