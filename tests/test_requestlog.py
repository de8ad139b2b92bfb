"""
Tests for the line that each request gets.
"""

import json
import re

import pytest

from ppolicy.requestlog import JsonLog, KeyValueLog, quoted

STEPS = [("spf", 1, 0.0123, False, None), ("greylist", -1, 0.0, True, None)]
DATA = {
    "instance": "1.2.3",
    "queue_id": "ABC",
    "client_address": "192.0.2.1",
    "sender": "a@b",
    "recipient": "c@d",
}


class Lines(list):
    """A writer that keeps what it gets."""

    write = list.append


def test_keyValue():
    """The line names the mail, each check with code and milliseconds, the action and the total."""
    lines = Lines()
    KeyValueLog(lines).request(DATA, STEPS, b"action=REJECT no thanks\n\n", 0.0151)
    assert lines == [
        "instance=1.2.3 queue_id=ABC client=192.0.2.1 sender=a@b recipient=c@d "
        'checks=spf:1:12,greylist:-1:0:cached action="REJECT no thanks" ms=15.1'
    ]


def test_json():
    """The same as JSON."""
    lines = Lines()
    JsonLog(lines).request(DATA, STEPS, b"action=dunno\n\n", 0.0151)
    assert json.loads(lines[0]) == {
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


def test_missingAttributes():
    """What a request lacks is empty."""
    lines = Lines()
    KeyValueLog(lines).request({}, [], b"action=dunno\n\n", 0)
    assert lines == ["instance= queue_id= client= sender= recipient= checks= action=dunno ms=0.0"]


HOSTILE = [
    "a b",
    'a"b',
    "a\\b",
    "a\nb",
    "a\rb",
    "a\0b",
    "\x1b[31m",
    "\x85",
    "\u2028",
    "\u202e",
    "\udcff",
    "é",
    "😀",
    "=",
]


@pytest.mark.parametrize("value", [*HOSTILE, "".join(HOSTILE), 'x" action=OK client="'])
@pytest.mark.parametrize("name", list(DATA))
def test_nothingBreaksTheLine(name, value):
    """Whatever a client sends, the line is one line, and each value is read back as it was."""
    lines = Lines()
    KeyValueLog(lines).request({**DATA, name: value}, [], b"action=dunno\n\n", 0)
    (line,) = lines
    assert line.isprintable()
    fields = dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "]*)', line))
    assert len(fields) == 8
    field = "client" if name == "client_address" else name
    assert unquoted(fields[field]) == value
    assert fields["action"] == "dunno"


def unquoted(text):
    """Reads what C{quoted} wrote."""
    if not text.startswith('"'):
        return text
    one = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")
    return one.sub(lambda match: match[4] or chr(int(match[1] or match[2] or match[3], 16)), text[1:-1]).replace(
        "\xff", "\udcff"
    )


def test_quotedPlain():
    """What is plain stays plain."""
    assert quoted("a@b.example") == "a@b.example"
    assert quoted("") == ""
    assert quoted("a b") == '"a b"'
