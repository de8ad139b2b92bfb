"""
One line for each request: who asked, what the checks said and how long each took, what was answered.
"""

import json
import re
from math import isfinite

_WORD = r"[!#-<>-\[\]-~]*"  # printable ASCII but for blank, quote, = and backslash
_TEXT = r'"[ !#-\[\]-~]*"'
_NAMES = ("instance", "queue_id", "client", "sender", "recipient", "checks")
_plain = re.compile(_WORD).fullmatch
_plainLine = re.compile(
    " ".join([*(f"{name}={_WORD}" for name in _NAMES), f"action=(?:{_WORD}|{_TEXT})", r"ms=[0-9.]+"])
).fullmatch


class KeyValueLog:
    """
    C{instance=… queue_id=… client=… sender=… recipient=… checks=spf:1:12,greylist:-1:0 action="…" ms=12.3}

    Each check is C{name:code:milliseconds}, with C{:cached} when the answer was in the cache. A value that is
    not a plain word stands in double quotes, with C{\\"}, C{\\\\} and C{\\xNN} or C{\\uNNNN} within.
    """

    def __init__(self, writer):
        self._write = writer.write

    def request(self, data, steps, reply, seconds):
        """
        @param steps: as in L{ppolicy.policy.Factory}.
        @param reply: the octets sent to Postfix.
        """
        get = data.get
        checks = ",".join(
            [
                f"{name}:{code}:0:cached" if cached else f"{name}:{code}:{int(took * 1000)}"
                for name, code, took, cached, _ in steps
            ]
        )
        fields = (
            *(get("instance", ""), get("queue_id", ""), get("client_address", "")),
            *(get("sender", ""), get("recipient", ""), checks),
        )
        action = reply[7:-2].decode()
        # Nearly every line is plain as it stands; one look at the whole is what makes it cheap.
        try:
            line = _line(*fields, f'"{action}"' if " " in action else action, seconds)
        except Exception:  # noqa: BLE001 - a policy may put anything into its request
            line = ""
        if not _plainLine(line):
            line = _line(*map(quoted, fields), quoted(action), seconds)
        self._write(line)


def _line(instance, queueId, client, sender, recipient, checks, action, seconds):
    return (
        f"instance={instance} queue_id={queueId} client={client} sender={sender} recipient={recipient} "
        f"checks={checks} action={action} ms={seconds * 1000:.1f}"
    )


class JsonLog:
    """
    The same as an object of JSON.
    """

    def __init__(self, writer):
        self._write = writer.write

    def request(self, data, steps, reply, seconds):
        """See L{KeyValueLog.request}."""
        get = data.get
        self._write(
            json.dumps(
                {
                    "instance": asText(get("instance", "")),
                    "queue_id": asText(get("queue_id", "")),
                    "client": asText(get("client_address", "")),
                    "sender": asText(get("sender", "")),
                    "recipient": asText(get("recipient", "")),
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
        )


FORMS = {"keyvalue": KeyValueLog, "json": JsonLog}


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


def asText(value):
    """
    What a policy has left in its request, as text, whatever it is.
    """
    try:
        return value if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001 - an object of the site's own
        return f"<{type(value).__name__}>"


def _escape(one):
    number = ord(one)
    if 0xDC80 <= number <= 0xDCFF:  # an octet that was no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
