"""
Tests for the line that each request gets.
"""

import json
import re
import time
import unicodedata
from datetime import datetime

import pytest

from ppolicy.requestlog import FORMS, RequestLog, asJson, keyValue, quoted

NAMES = ("instance", "queue_id", "client", "sender", "recipient")
FIELDS = ("1.2.3", "ABC", "192.0.2.1", "a@b", "c@d", "RCPT", "mail.example.org", "mail", "")
STEPS = (("spf", 1, 0.0123, False, None), ("greylist", -1, 0.0, True, None))
WHEN = 1795300572.25
CLOCK = datetime.fromtimestamp(WHEN).astimezone().isoformat(timespec="milliseconds")


class Lines(list):
    """A writer that keeps what it gets."""

    def write(self, text, count=1):
        self.append((text, count))


def test_keyValue():
    """The line names time and mail, each check with code and milliseconds, the action and the total."""
    assert keyValue(WHEN, FIELDS, STEPS, b"action=REJECT no thanks\n\n", 0.0151) == (
        f"time={CLOCK} instance=1.2.3 queue_id=ABC client=192.0.2.1 sender=a@b recipient=c@d "
        'checks=spf:1:12,greylist:-1:0:cached action="REJECT no thanks" ms=15.1'
    )


def test_json():
    """The same as JSON."""
    assert json.loads(asJson(WHEN, FIELDS, STEPS, b"action=dunno\n\n", 0.0151)) == {
        "time": CLOCK,
        "instance": "1.2.3",
        "queue_id": "ABC",
        "client": "192.0.2.1",
        "sender": "a@b",
        "recipient": "c@d",
        "checks": [
            {"name": "spf", "code": 1, "ms": 12.3, "cached": False},
            {"name": "greylist", "code": -1, "ms": 0.0, "cached": True},
        ],
        "action": "dunno",
        "ms": 15.1,
    }


def test_time():
    """The time has milliseconds and offset, and is the one that was given."""
    told = keyValue(WHEN, FIELDS, (), b"action=dunno\n\n", 0).split()[0].removeprefix("time=")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.250[+-]\d\d:\d\d", told)
    assert datetime.fromisoformat(told).timestamp() == WHEN


def test_missingAttributes():
    """What a request lacks is empty."""
    line = keyValue(WHEN, ("",) * 9, (), b"action=dunno\n\n", 0)
    assert line == f"time={CLOCK} instance= queue_id= client= sender= recipient= checks= action=dunno ms=0.0"


def test_batch():
    """Decisions are handed to the writer together, a line each, with their number."""
    lines = Lines()
    decision = (time.time(), FIELDS, STEPS, b"action=dunno\n\n", 0.001)
    RequestLog(lines, keyValue).follow([decision] * 3)
    ((text, count),) = lines
    assert (count, len(text.split("\n"))) == (3, 3)


HOSTILE = [
    "a b",
    'a"b',
    "a\\b",
    "a\nb",
    "a\rb",
    "a\r\nb",
    "a\0b",
    "\x1b[31m",
    "\x7f",
    "\x80\x85\x9b\x9f",
    "\u2028",
    "\u202e\u2066",
    "\udcff",
    "\ud800",
    " \udc00",
    "\u00e9",
    "\U0001f600",
    "=",
    "%s %n {0} {a!r}",
    "\\x41\\u0041",
    "x" * 65536,
    '"\\' * 32768,
    "\x01" * 65536,
]


def read(form, line):
    """The fields of a line."""
    if form == "json":
        return json.loads(line)
    fields = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "]*)(?: |$)', line)
    assert " ".join(f"{name}={value}" for name, value in fields) == line
    assert len(fields) == 9
    return {name: unquoted(value) for name, value in fields}


def unquoted(text):
    """Reads what C{quoted} wrote; octets that were no UTF-8 as lone surrogates."""
    if not text.startswith('"'):
        return text
    one = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")

    def character(match):
        octet, short, long, literal = match.groups()
        if octet:
            return chr(int(octet, 16) + (0xDC00 if int(octet, 16) >= 0x80 else 0))
        return literal or chr(int(short or long, 16))

    return one.sub(character, text[1:-1])


@pytest.mark.parametrize(
    "value", [*HOSTILE, "".join(HOSTILE[:-3]), 'x" action=OK client="'], ids=lambda one: one[:9]
)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_nothingBreaksTheLine(form, name, value):
    """Whatever a client sends, the line is one line, and each value is read back as it was."""
    fields = list(FIELDS)
    fields[NAMES.index(name)] = value
    line = FORMS[form](WHEN, fields, STEPS, b"action=dunno\n\n", 0)
    assert line.isprintable()
    assert all(unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in set(line))
    found = read(form, line)
    assert found[name] == value
    assert found["action"] == "dunno"
    others = dict(zip(NAMES, FIELDS, strict=False))
    others.pop(name)
    assert {one: found[one] for one in others} == others


def test_quotedPlain():
    """What is plain stays plain."""
    assert quoted("a@b.example") == "a@b.example"
    assert quoted("") == ""
    assert quoted("a b") == '"a b"'
