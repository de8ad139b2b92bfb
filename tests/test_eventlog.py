"""
Tests for the log of everything beside the requests, in its two forms.
"""

import json
import os
import re
import sys
import unicodedata

import pytest
from twisted.logger import Logger, LogLevel

from ppolicy import eventlog
from ppolicy.eventlog import EventLog, asJson, asText

HOSTILE = [
    "\x1b[2J\x1b]0;title\x07",
    "\r\n2026-01-01T00:00:00+0000 [forged#info] forged",
    "\n\n\n",
    "\0\x7f\x08\x0b\x0c\x1c",
    "\x80\x85\x9b31m\x9f",
    "\u2028\u2029\u202e\u2066\ufeff\U000e0041",
    "\udcff\ud800",
    "\" ' \\ \\x41 %s {0} {begin!r}",
    "\ta\tb",
    "x" * 65536,
    "\u017e \U0001f600",
]


class Evil:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def logged(log):
    """The event that a function logs with a L{Logger}."""
    events = []
    log(Logger("site.check", observer=events.append))
    (event,) = events
    return event


def failed(log, text):
    """Logs an exception with this text."""
    try:
        raise ValueError(text)
    except ValueError:
        log.failure("it broke")


def isOneEvent(text):
    """Nothing in it acts on a terminal, and each line but the first is indented."""
    first, *rest = text.split("\n")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[site\.check#[a-z]+\] ", first), first
    for line in rest:
        assert line.startswith("\t"), line
    for one in set(text) - {"\n", "\t"}:
        assert unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), f"{one!r} is there as it is"
    return True


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize(
    "log",
    [
        lambda log, value: log.error("{value} failed", value=value),
        lambda log, value: log.error(value.replace("{", "{{").replace("}", "}}")),
        lambda log, value: log.warn("{value!r}", value=value),
        failed,
    ],
    ids=["field", "format", "repr", "failure"],
)
def test_hostile(log, value):
    """Whatever is logged, the text is one event, and the JSON is one line of ASCII that is read back as it was."""
    event = logged(lambda logger: log(logger, value))
    assert isOneEvent(asText(event))
    line = asJson(event)
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    if log is failed:
        assert value.split("\n")[0] in found["traceback"]
        assert found["text"] == "it broke"
    elif "{value} failed" in event["log_format"]:
        assert found["text"] == f"{value} failed"


def test_json():
    """The JSON has time, level, system and text."""
    event = logged(lambda log: log.info("{count} connections", count=5)) | {"log_time": 1795300572.25}
    assert json.loads(asJson(event)) == {
        "time": "2026-11-21T22:36:12.250000+00:00",
        "level": "info",
        "system": "site.check",
        "text": "5 connections",
    }


def test_instance():
    """What is about a request has its instance, and a traceback is apart from the text."""
    event = logged(
        lambda log: log.error(
            "{instance}{what}\n\t{traceback}", instance="a.1: ", what="spf failed", traceback="Traceback\n\tx"
        )
    )
    found = json.loads(asJson(event))
    assert (found["instance"], found["text"], found["traceback"]) == ("a.1", "spf failed", "Traceback\n\tx")
    assert "a.1: spf failed\n\t\tTraceback\n\t\tx" in asText(event)


@pytest.mark.parametrize("form", [asText, asJson])
def test_cannotBeFormatted(form):
    """An event that cannot be formatted is told of all the same."""
    assert "Unable to format event" in form(logged(lambda log: log.info("{it}", it=Evil())))
    assert "Unable to format event" in form(logged(lambda log: log.info("{it.nothing}")))


@pytest.mark.parametrize("form", [asText, asJson])
def test_nothingSaid(form):
    """Events without any text are not printed, as Twisted has some."""
    assert form({"log_format": "", "log_level": LogLevel.info, "log_time": 1.0}) == ""


class TestOutput:
    """What stands on stdout, which is a pipe here."""

    @pytest.fixture
    def stdout(self, monkeypatch):
        reading, writing = os.pipe()
        stream = os.fdopen(writing, "w")
        monkeypatch.setattr(sys, "__stdout__", stream)
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        yield reading, stream
        stream.close()
        os.close(reading)

    def printed(self, stdout, form="text"):
        log = EventLog(form)
        logger = Logger("site.check", observer=log)
        logger.info("one")
        logger.error("two\nlines")
        log.stop()
        return os.read(stdout[0], 65536).decode().splitlines()

    def test_plain(self, stdout):
        """Events are there before stop() is over."""
        one, two, lines = self.printed(stdout)
        assert one.endswith(" [site.check#info] one")
        assert (two.split(" ", 1)[1], lines) == ("[site.check#error] two", "\tlines")

    def test_json(self, stdout):
        """In JSON each is one line."""
        assert [json.loads(line)["text"] for line in self.printed(stdout, "json")] == ["one", "two\nlines"]

    def test_journal(self, stdout, monkeypatch):
        """In the journal each line has the priority before it that sd-daemon(3) tells of."""
        here = os.fstat(stdout[1].fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{here.st_dev}:{here.st_ino}")
        one, two, lines = self.printed(stdout)
        assert (one[:5], two[:5], lines) == ("<6>20", "<3>20", "<3>\tlines")

    def test_notTheJournal(self, stdout, monkeypatch):
        """A program whose stdout was sent elsewhere still has JOURNAL_STREAM, which says where it is not."""
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
        assert self.printed(stdout)[0].startswith("20")

    def test_closed(self, monkeypatch):
        """Without stdout nothing is printed, and nobody minds."""
        monkeypatch.setattr(sys, "__stdout__", None)
        log = EventLog("text")
        Logger("site.check", observer=log).info("one")
        log.stop()
        assert not eventlog.isJournal()

    def test_notStarted(self):
        """One that had nothing to say has nothing to stop."""
        EventLog("text").stop()

    @pytest.mark.parametrize("factory", [eventlog.text, eventlog.jsonLines])
    def test_factories(self, stdout, factory):
        """twistd can make one by its name."""
        log = factory()
        Logger("site.check", observer=log).info("one")
        log.stop()
        assert b"one" in os.read(stdout[0], 65536)
