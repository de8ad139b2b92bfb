"""
Lines of the request log for tests: hostile values, and strict readers of both forms. Nothing here is the server's
code.
"""

import json
import re
import unicodedata

from .wire import octets

# Names in the line, and the attributes that they show.
FIELDS = {
    "instance": "instance",
    "queue_id": "queue_id",
    "client": "client_address",
    "sender": "sender",
    "recipient": "recipient",
}

HOSTILE = [
    "",
    " ",
    "  two  ",
    "a b",
    "=",
    "a=b",
    "x sender=forged",
    '" action="reject" ms=0',
    '"',
    '""',
    "'",
    "\\",
    "\\\\",
    '\\"',
    "\\x41",
    "\\n",
    "\\u0041",
    "a\\",
    "\ta\t",
    "\ra\r",
    "\r",
    "a\rinstance=forged",
    "\0",
    "a\0b",
    "\x1b[2J\x1b]0;title\x07",
    "\x7f\x08\x0b\x0c\x1c\x1d\x1e\x1f",
    "\u0085",
    "\u0080\u009f\u009b31m",
    "\u00a0",
    "\u00ad",
    "\u2028instance=forged\u2029",
    "\u202eevil\u202c\u2066\u2069\u200e\u200f\u061c",
    "\u200b\ufeff\u2060",
    "\U000e0041\U000e007f",
    "\ue000\U0010ffff\ufffe",
    "\u017elu\u0165ou\u010dk\u00fd@k\u016f\u0148",
    "\U0001f600",
    "e\u0301\u0300",
    "%s%n%d {0} {begin!r} $(id) `id`",
    "#{}[],:",
    '{"a":1}',
    "null",
    "x" * 8192,
    "\x01" * 2000,
    b"\x80",
    b"\xff\xfe",
    b"\xc3",
    b"\xc3(",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x80",
    b"a\x85b",
    b"\xc2\x85\x85",
    b"\\x85\x85\xc2\x85",
    *(bytes([octet]) for octet in range(256) if octet not in b"\n<>"),
    *(chr(number) for number in range(0x80, 0x100)),
]


def randomValue(chance):
    """
    A text or octets of any kind, without LF, and without what ppolicy takes off an address.
    """
    length = chance.randint(0, 12)
    if chance.random() < 0.4:
        return bytes(chance.choice([octet for octet in range(256) if octet not in b"\n<>"]) for _ in range(length))
    pool = (range(0x20), range(0x20, 0x7F), range(0x7F, 0x250), range(0x2000, 0x2070), range(0xD000, 0x110000))
    text = "".join(chr(chance.choice(chance.choice(pool))) for _ in range(length))
    return re.sub("[\n<>\ud800-\udfff]", "", text)


def unescaped(text):
    """
    The octets of a value that stood between double quotes.
    """
    found = b""
    for part in re.finditer(r'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(["\\]))|([^"\\]+)', text):
        octet, short, long, literal, plain = part.groups()
        if octet:
            found += bytes([int(octet, 16)])
        elif short or long:
            found += chr(int(short or long, 16)).encode("utf-8", "surrogatepass")
        else:
            found += (literal or plain).encode("utf-8")
    return found


def keyvalue(line):
    """
    The fields of a line C{name=value …} as octets. What is not exactly of this form fails.
    """
    fields, at = {}, 0
    pattern = re.compile(
        r'([a-z_]+)=(?:"((?:[^"\\]|\\(?:["\\]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}))*)"|([^ "\\=]*))'
    )
    while at < len(line):
        match = pattern.match(line, at)
        assert match, f"not a field: {line[at:]!r}"
        name, inQuotes, plain = match.groups()
        assert name not in fields, f"twice: {line!r}"
        fields[name] = plain.encode("utf-8") if inQuotes is None else unescaped(inQuotes)
        at = match.end()
        assert at == len(line) or line[at] == " ", f"no blank: {line[at:]!r}"
        at += 1
    return fields


def asJson(line):
    """
    The same of a line of JSON; numbers that JSON does not know fail.
    """

    def refuse(name):
        raise AssertionError(f"no JSON: {name}")

    found = json.loads(line, parse_constant=refuse)
    return {name: _unpaired(value) if isinstance(value, str) else value for name, value in found.items()}


def _unpaired(text):
    try:
        return octets(text)  # what was no UTF-8 stands as lone surrogates
    except UnicodeEncodeError:  # such as only a policy can make
        return text.encode("utf-8", "surrogatepass")


FORMS = {"keyvalue": keyvalue, "json": asJson}

# The longest value in a line of which it is certain that it is whole, in characters.
LONGEST = 512


def hostileRequests(chance, more):
    """
    Attributes of requests: each hostile value in each attribute that is logged, and in all of them; such as hardly
    fit into a request; random ones.
    """
    asked = [{attribute: value} for value in HOSTILE for attribute in FIELDS.values()]
    asked += [dict.fromkeys(FIELDS.values(), value) for value in HOSTILE]
    asked += [{attribute: one * 64000} for attribute in FIELDS.values() for one in ("x", '"', "\x1b", b"\xff")]
    return asked + [{attribute: randomValue(chance) for attribute in FIELDS.values()} for _ in range(more)]


def remembered(value):
    """
    What a line may tell of a value that was sent, in octets: the value; of a long one perhaps only the begin.
    """
    # A CR at its end became part of the line's end.
    text = octets(value).removesuffix(b"\r").decode("utf-8", "surrogateescape")
    return {octets(text), octets(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")}


def isHarmless(text):
    """
    There is no character in it that a terminal would act on, or that ends a line anywhere.
    """
    for one in set(text):
        assert unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), f"{one!r} is there as it is"
    return True
