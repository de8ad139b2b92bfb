"""
One line for each request: who asked, what the checks said and how long each took, what was answered.
"""

import json
import re
from datetime import datetime
from functools import lru_cache
from itertools import starmap
from math import isfinite

from ppolicy.logs import asText

_plain = re.compile(r"[!#-<>-\[\]-~]*").fullmatch  # printable ASCII but for blank, quote, = and backslash


class RequestLog:
    """
    Writes the lines of decisions.

    @param form: makes a line of a decision; one of L{FORMS}.
    """

    def __init__(self, writer, form):
        self._write = writer.write
        self._form = form

    def follow(self, decisions):
        """
        Write a line for each.
        """
        self._write("\n".join(starmap(self._form, decisions)), len(decisions))


def keyValue(when, fields, steps, reply, seconds):
    """
    C{time=… instance=… queue_id=… client=… sender=… recipient=… checks=spf:1:12,greylist:-1:0 action="…" ms=12.3}

    Each check is C{name:code:milliseconds}, with C{:cached} when the answer was in the cache. A value that is
    not a plain word stands in double quotes, with C{\\"}, C{\\\\} and C{\\xNN} or C{\\uNNNN} within.
    """
    instance, queueId, client, sender, recipient = fields[:5]
    checks = ",".join(
        [
            f"{name}:{code}:0:cached" if cached else f"{name}:{code}:{int(took * 1000)}"
            for name, code, took, cached, _ in steps
        ]
    )
    # Nearly every value is plain as it stands; one look at all of them is what makes it cheap.
    values = f"{instance} {queueId} {client} {sender} {recipient} {checks}"
    if not (
        values.isascii()
        and values.isprintable()
        and values.count(" ") == 5
        and "=" not in values
        and '"' not in values
        and "\\" not in values
    ):
        instance, queueId, client, sender, recipient = map(quoted, fields[:5])
        checks = quoted(checks)
    return (
        f"time={_clock(int(when * 1000))} instance={instance} queue_id={queueId} client={client} sender={sender} "
        f"recipient={recipient} checks={checks} action={_action(reply)} ms={seconds * 1000:.1f}"
    )


def asJson(when, fields, steps, reply, seconds):
    """
    The same as an object of JSON.
    """
    instance, queueId, client, sender, recipient = map(asText, fields[:5])
    return json.dumps(
        {
            "time": _clock(int(when * 1000)),
            "instance": instance,
            "queue_id": queueId,
            "client": client,
            "sender": sender,
            "recipient": recipient,
            "checks": [
                {
                    "name": name,
                    "code": code if isfinite(code) else str(code),
                    "ms": round(took * 1000, 1),
                    "cached": cached,
                }
                for name, code, took, cached, _ in steps
            ],
            "action": reply[7:-2].decode(),
            "ms": round(seconds * 1000, 1),
        },
        separators=(",", ":"),
    )


FORMS = {"keyvalue": keyValue, "json": asJson}


@lru_cache(16)
def _clock(milliseconds):
    """
    A time of the day and its zone as RFC 3339 has them; many requests have the same.
    """
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(timespec="milliseconds")


@lru_cache(1024)
def _action(reply):
    return quoted(reply[7:-2].decode())


def quoted(value):
    """
    A value as it stands in a C{key=value} line.
    """
    value = asText(value)
    if _plain(value):
        return value
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _escape(one) for one in text)
    return f'"{text}"'


def _escape(one):
    number = ord(one)
    if 0xDC80 <= number <= 0xDCFF:  # an octet that was no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
