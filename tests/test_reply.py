# SPDX-License-Identifier: MIT
"""
Tests for the encoder of replies. What Postfix would make of a reply is read by a parser of our own, below.
"""

import random
import re
from collections import namedtuple
from enum import Enum
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppolicy.errors import BrokenAnswer
from ppolicy.reply import ReplyEncoder, isPermanent

REQUEST = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "client_address": "2001:db8::25",
    "client_name": "mail.example.com",
    "helo_name": "mail.example.com",
    "sender": "alice@example.com",
    "recipient": "bob@example.org",
    "etrn_domain": "",
}

REFUSALS = ("REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT", "450", "421", "550", "521")
REMARKS = ("DUNNO", "OK", "RELAY", "HOLD", "DISCARD", "WARN", "INFO")
TARGETS = ("FILTER", "REDIRECT", "BCC")

# Line breaks of any kind, what moves the cursor or turns the writing around, and half characters.
FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Octets of the longest text that fits REQUEST: 512 less a code, status, prefix and CRLF. The client is longest.
FITTING = 512 - len("554 5.777.777 <mail.example.com[2001:db8::25]>: Client host rejected: \r\n")


def said(reply):
    """
    The action that Postfix reads: the value of the first action= line, once all before the blank line is there.
    """
    lines = reply.decode("utf-8").split("\n")
    assert lines[1:] == ["", ""], "one line and a blank line, nothing after them"
    name, _, action = lines[0].partition("=")
    assert name == "action"
    assert not FORBIDDEN.search(action)
    assert action == action.strip(" ") != ""
    return action


def smtpLines(action, data):
    """
    The lines an SMTP client may get for a refusal, depending on the list that asks: without CRLF.
    """
    verb, _, text = action.partition(" ")
    assert text
    code = {"REJECT": "554"}.get(verb.upper(), "450") if verb.isalpha() or "_" in verb else verb
    status = f"{code[0]}.7.1"
    first, _, rest = text.partition(" ")
    if re.fullmatch(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", first):
        assert rest.strip(" "), "a status without a text is read beyond its end"
        assert first[0] == code[0]
        status, text = first, rest
    names = {
        "Recipient address": data.get("recipient", ""),
        "Sender address": data.get("sender", ""),
        "Helo command": data.get("helo_name", ""),
        "Client host": f"{data.get('client_name') or 'unknown'}[{data.get('client_address') or 'unknown'}]",
        "Etrn command": data.get("etrn_domain", ""),
        "Data command": "DATA",
        "End-of-data": "END-OF-MESSAGE",
    }
    return [f"{code} {status} <{name}>: {kind} rejected: {text}" for kind, name in names.items()]


def octets(line):
    return len(line.encode("utf-8", "surrogateescape"))


def encoded(answer, data=REQUEST, classes=(), utf8=False):
    return said(ReplyEncoder(classes, utf8).encode(answer, data))


class Word(str):
    """
    A string that is not exactly one.
    """

    def __str__(self):
        return "something else"


class Verdict(str, Enum):  # noqa: UP042 - str() of such a member is Verdict.NO
    NO = "REJECT"


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        (None, "dunno"),
        ("", "dunno"),
        ("  ", "dunno"),
        ("\r\n", "dunno"),
        (("", ""), "dunno"),
        (("", "a text"), "dunno"),
        ((None, "a text"), "dunno"),
        ((" \0", "REJECT"), "dunno"),
        ("dunno", "dunno"),
        (("dunno", ""), "dunno"),
        (("DUNNO", None), "DUNNO"),
        (["dunno", ""], "dunno"),
        ("DuNNo", "DuNNo"),
        (("dunno", "as it is"), "dunno as it is"),
        ("OK", "OK"),
        ("relay", "relay"),
        ("REJECT", "REJECT"),
        ("  REJECT  ", "REJECT"),
        ("Reject no thanks", "Reject no thanks"),
        (("REJECT", "no thanks"), "REJECT no thanks"),
        (("REJECT", "  no  thanks "), "REJECT no  thanks"),
        (("REJECT no", "thanks"), "REJECT no thanks"),
        (("REJECT 5.7.1 ", "thanks"), "REJECT 5.7.1 thanks"),
        ("REJECT\tno", "REJECT no"),
        (("DEFER", ""), "DEFER"),
        (("defer_if_permit", "Greylisted"), "defer_if_permit Greylisted"),
        (("DEFER_IF_PERMIT", ("Greylisted", 300)), "DEFER_IF_PERMIT Greylisted"),
        (("DEFER_IF_PERMIT", (None, 300)), "DEFER_IF_PERMIT"),
        (("REJECT", 5), "REJECT 5"),
        (("HOLD", 0), "HOLD 0"),
        (("HOLD", 1.5), "HOLD 1.5"),
        ("hold", "hold"),
        (("DISCARD", "gone"), "DISCARD gone"),
        ("WARN look at this", "WARN look at this"),
        (("INFO", "seen"), "INFO seen"),
        ("550 no", "550 no"),
        (("550", "no"), "550 no"),
        ((450, "later"), "450 later"),
        ("521 5.7.1 bye", "521 5.7.1 bye"),
        ("550 550 no", "550 550 no"),
        (Word("dunno"), "dunno"),
        ((Word("REJECT"), Word("no")), "REJECT no"),
        ((Verdict.NO, "no"), "REJECT no"),
        ((HTTPStatus.FORBIDDEN, "no"), "403 no"),
        (namedtuple("Answer", "action text")("REJECT", "no"), "REJECT no"),
    ],
)
def test_answers(answer, action):
    """
    Whatever form an answer has, its verb and text go out as they are.
    """
    assert encoded(answer) == action


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("450", "450 Please try again later"),
        (450, "450 Please try again later"),
        ((421, ""), "421 Please try again later"),
        ("550", "550 Access denied"),
        ("550 ", "550 Access denied"),
        (("550", "\n"), "550 Access denied"),
        (("599", None), "599 Access denied"),
        (("550", (None, 3)), "550 Access denied"),
    ],
)
def test_codeWithoutText(answer, action):
    """
    A bare code, which Postfix takes for OK, gets a text.
    """
    assert encoded(answer) == action


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        (("REJECT", "5.7.1 no"), "REJECT 5.7.1 no"),
        (("REJECT", "4.7.1 no"), "REJECT 5.7.1 no"),
        (("REJECT", "2.0.0 no"), "REJECT 5.0.0 no"),
        (("REJECT", "5.123.456   no"), "REJECT 5.123.456 no"),
        (("DEFER", "5.7.1 wait"), "DEFER 4.7.1 wait"),
        (("DEFER_IF_PERMIT", "5.2.0 wait"), "DEFER_IF_PERMIT 4.2.0 wait"),
        (("defer_if_reject", "2.2.0 wait"), "defer_if_reject 4.2.0 wait"),
        (("450", "5.2.0 wait"), "450 4.2.0 wait"),
        (("550", "4.2.0 no"), "550 5.2.0 no"),
        # A code with nothing after it (CVE-2026-43964).
        (("REJECT", "5.7.1"), "REJECT 5.7.1 Access denied"),
        ("REJECT 5.7.1 ", "REJECT 5.7.1 Access denied"),
        (("DEFER", "4.7.1"), "DEFER 4.7.1 Please try again later"),
        (("450", "4.7.1"), "450 4.7.1 Please try again later"),
        ((550, "5.7.1\r\n"), "550 5.7.1 Access denied"),
        # What only looks like one.
        (("REJECT", "5.7.1234 no"), "REJECT no"),
        (("REJECT", "5.7 no"), "REJECT no"),
        (("REJECT", "9.1.1 no"), "REJECT no"),
        (("REJECT", "5..1 no"), "REJECT no"),
        (("REJECT", "5.7.1. no"), "REJECT no"),
        (("REJECT", ".5.7.1 no"), "REJECT no"),
        (("REJECT", "5.7.1.2.3 no"), "REJECT no"),
        (("REJECT", "55.7.1 no"), "REJECT no"),
        (("REJECT", "5.7.1.999 no"), "REJECT no"),
        (("REJECT", "5.7.1234 5.7.1 no"), "REJECT 5.7.1 no"),
        (("REJECT", "5.7.1234 5.7 9.1.1"), "REJECT Access denied"),
        (("DEFER_IF_REJECT", "5.7"), "DEFER_IF_REJECT Please try again later"),
        (("450", "5.7"), "450 Please try again later"),
        (("REJECT", "5. " * 400 + "no"), "REJECT Access denied"),
        (("550", "5.7.1 5.7.1234 no"), "550 5.7.1 5.7.1234 no"),
        # What does not.
        (("REJECT", "192.0.2.1 is listed"), "REJECT 192.0.2.1 is listed"),
        (("REJECT", "5.188.10.20 is listed"), "REJECT 5.188.10.20 is listed"),
        (("REJECT", "5.7.1: no"), "REJECT 5.7.1: no"),
        (("REJECT", "5 no"), "REJECT 5 no"),
        (("REJECT", "no 5.7.1234"), "REJECT no 5.7.1234"),
        # Actions without a status.
        (("HOLD", "5.7.1234"), "HOLD 5.7.1234"),
        (("INFO", "5.7.1"), "INFO 5.7.1"),
    ],
)
def test_status(answer, action):
    """
    An enhanced status code is well-formed, of the right class and followed by a text, or is left out.
    """
    assert encoded(answer) == action


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        # Types.
        (True, "bool"),
        (False, "bool"),
        (450.0, "float"),
        (b"dunno", "bytes"),
        (bytearray(b"dunno"), "bytearray"),
        ({"action": "dunno"}, "dict"),
        ({"dunno"}, "set"),
        (object(), "object"),
        (len, "builtin"),
        ((), "0 items"),
        (("dunno",), "not 1 item"),
        (("dunno", "", ""), "3 items"),
        ([], "0 items"),
        ((True, "text"), "bool"),
        ((b"REJECT", "text"), "bytes"),
        ((("REJECT", "text"), ""), "tuple"),
        (("REJECT", True), "bool"),
        (("REJECT", b"text"), "bytes"),
        (("REJECT", ["text"]), "list"),
        (("REJECT", ()), "tuple"),
        (("REJECT", (("text", 3), 3)), "tuple"),
        (("REJECT", {}), "dict"),
        # Numbers.
        (200, "400 to 599"),
        (0, "400 to 599"),
        (-450, "400 to 599"),
        ("200", "200 is no code"),
        ("250 ok", "250 is no code"),
        ("354", "354 is no code"),
        ("42", "42 is no code"),
        ("600 x", "600 is no code"),
        ("5500 x", "5500 is no code"),
        (("055", "x"), "055 is no code"),
        ("550, x", "'550'"),
        ("550-x", "'550-x'"),
        ("5.7.1 no", "'5.7.1'"),
        ("\u0665\u0665\u0660 no", "'???'"),
        # Unknown words.
        ("FOOBAR", "'FOOBAR'"),
        ("rejct no thanks", "'rejct'"),
        ("HANGUP", "'HANGUP'"),
        ("permit foo", "'foo'"),
        (("permit", "a text"), "'a'"),
        ("REJECT, foo", "'foo'"),
        ("some_class", "'some_class'"),
        ("check_relay_domains", "'check_relay_domains'"),
        ("{ permit }", "'{'"),
        (",", "no list"),
        ("permit " * 200, "900"),
        # Maps and services.
        ("check_client_access hash:/etc/postfix/access", "restriction class"),
        ("check_policy_service inet:127.0.0.1:10031", "restriction class"),
        ("permit_mynetworks, check_sender_access pcre:/x", "restriction class"),
        ("a:b", "restriction class"),
        ("REJECT: no", "behind REJECT stands no colon, but its text: 'REJECT: no'"),
        (("550:", "no"), "behind 550 stands no colon"),
        ("check_policy_service", "'check_policy_service'"),
        # Arguments.
        ("reject_rbl_client", "domain"),
        ("reject_rbl_client zen.example.org=", "domain"),
        ("reject_rbl_client zen.example.org=127.0.0", "domain"),
        ("reject_rbl_client zen.example.org=127.0.0.256", "domain"),
        ("reject_rbl_client zen.example.org=127.0.0.[2", "domain"),
        ("reject_rbl_client zen.example.org=127.0.0.[]", "domain"),
        ("reject_rbl_client zen.example.org=127.0.0.[11..2]", "domain"),
        ("reject_rbl_client zen.example.org=127.0.0.[1..3..5]", "domain"),
        ("reject_rbl_client zen.example.org=127.0.0.1.1", "domain"),
        ("reject_rbl_client b\u00fccher.example", "domain"),
        ("sleep", "seconds"),
        ("sleep x", "seconds"),
        ("sleep 1.5", "seconds"),
        ("sleep 99999999999", "seconds"),
        # Headers.
        ("PREPEND", "header"),
        (("PREPEND", "no header"), "header"),
        (("PREPEND", ": value"), "header"),
        (("PREPEND", "X Y: value"), "header"),
        (("PREPEND", "X-Y : value"), "header"),
        (("PREPEND", "X-\u00e9 value"), "header"),
        (("PREPEND", "\nX"), "header"),
        (("PREPEND", "X" * 900 + ": value"), "header"),
        # Targets.
        ("FILTER", "transport:destination"),
        ("FILTER smtp", "transport:destination"),
        ("FILTER :host", "transport:destination"),
        ("FILTER smtp:a b", "transport:destination"),
        (("FILTER smtp:a", "b"), "transport:destination"),
        (("FILTER", "smtp:[192.0.2.1]\n"), "cannot be sent"),
        (("FILTER", "smtp:" + "x" * 900), "900"),
        ("REDIRECT", "user@domain"),
        ("REDIRECT boss", "user@domain"),
        ("REDIRECT @example.org", "user@domain"),
        ("REDIRECT boss@", "user@domain"),
        (("REDIRECT", "boss@example.org BCC"), "user@domain"),
        (("REDIRECT", "boss@example.org,other@example.org"), "user@domain"),
        (("REDIRECT", "<boss@example.org>"), "user@domain"),
        (("REDIRECT", "boss\n@example.org"), "cannot be sent"),
        (("REDIRECT", "boss@example.org\0"), "cannot be sent"),
        (("REDIRECT", "b\u00f6ss@example.org"), "cannot be sent"),
        (("REDIRECT", "boss@example.org" + "x" * 900), "900"),
        (("BCC", "boss@example.org\r\n"), "cannot be sent"),
        (("BCC", "b\udcf6ss@example.org"), "cannot be sent"),
        (("bcc", "boss"), "user@domain"),
    ],
)
def test_brokenAnswers(answer, why):
    """
    What Postfix would not understand is refused, again and again, and the reason names what is wrong.
    """
    encoder = ReplyEncoder()
    for _ in range(2):
        with pytest.raises(BrokenAnswer) as caught:
            encoder.encode(answer, REQUEST)
        assert why in str(caught.value)
        assert len(str(caught.value)) < 250
        assert "\n" not in str(caught.value)


def test_hugeNumbers():
    """
    A number that Python refuses to print is refused like any other.
    """
    for answer in (10**5000, (10**5000, "x"), ("REJECT", 10**5000)):
        with pytest.raises(BrokenAnswer):
            encoded(answer)
        assert isPermanent(answer) is False


@pytest.mark.parametrize(
    "answer",
    [
        "permit",
        "Reject_Unknown_Client_Hostname",
        "reject_unknown_client_hostname, permit",
        "permit_mynetworks permit_sasl_authenticated,reject_unauth_destination",
        "defer_if_permit, reject_unverified_sender",
        "warn_if_reject reject_invalid_helo_hostname",
        "sleep 1, reject",
        "reject_rbl_client zen.example.org",
        "reject_rbl_client zen.example.org=127.0.0.[2..11], permit",
        "reject_rbl_client zen.example.org=127.0.[0..1;7].[2;4..6;255]",
        "reject_rhsbl_helo a.example reject_rhsbl_sender b.example=127.0.1.2",
        "permit_dnswl_client list.example=127.0.[0..255].[1..3]",
        "myclass",
        "permit_mynetworks, myclass",
        "reject,",
    ],
)
def test_restrictions(answer):
    """
    Postfix's own restrictions, lists of them and the site's classes go out as they are.
    """
    assert encoded(answer, classes=["myclass"]) == answer


def test_restrictionWithTextAsArgument():
    """
    The second item of an answer may hold what follows a restriction.
    """
    assert encoded(("reject_rbl_client", "zen.example.org")) == "reject_rbl_client zen.example.org"


def test_caseOfClasses():
    """
    Postfix compares the names of restriction classes letter by letter.
    """
    with pytest.raises(BrokenAnswer):
        encoded("MyClass", classes=["myclass"])


@pytest.mark.parametrize(
    "answer",
    [
        "rej\u0117ct",
        "\ufb01lter smtp:x",
        "d\u0131scard",
        "reject_un\u212anown_client",
        "permit\u00a0reject",
        "\u0665\u0665\u0660 x",
    ],
)
def test_lettersLikeAscii(answer):
    """
    Letters that only Python takes for those of a verb, or for digits and blanks, do not make one.
    """
    with pytest.raises(BrokenAnswer):
        encoded(answer, utf8=True)


@pytest.mark.parametrize(
    "answer",
    [
        "PREPEND X-Policy: seen",
        "prepend X-Policy:",
        "PREPEND Received-SPF: pass (192.0.2.1)",
        "FILTER smtp:[192.0.2.1]:10025",
        "filter dummy:",
        "REDIRECT boss@example.org",
        'redirect "the@boss"@example.org',
        "BCC copy+policy@example.org",
        "BCC " + "x" * (900 - len("@example.org")) + "@example.org",
    ],
)
def test_headersAndTargets(answer):
    """
    Headers and targets go out as they are.
    """
    assert encoded(answer) == answer
    assert encoded(tuple(answer.split(" ", 1))) == answer


def test_tabBeforeTarget():
    """
    A tab ends a verb, and is no part of the target.
    """
    assert encoded("REDIRECT\tboss@example.org\t") == "REDIRECT boss@example.org"


def test_targetUtf8():
    """
    With utf8 a target may be other than ASCII.
    """
    assert encoded(("BCC", "b\u00f6ss@b\u00fccher.example"), utf8=True) == "BCC b\u00f6ss@b\u00fccher.example"


@pytest.mark.parametrize(
    ("text", "plain", "utf8"),
    [
        ("a\nb", "a b", "a b"),
        ("a\r\nb", "a  b", "a  b"),
        ("no\n\naction=OK", "no  action=OK", "no  action=OK"),
        ("a\0b\x1b[31mc\x7f", "a b [31mc", "a b [31mc"),
        ("a\x85b\x9bc", "a b c", "a b c"),
        ("a\u2028b\u2029c", "a b c", "a b c"),
        ("a\u202eb\u2067c", "a b c", "a b c"),
        ("a\udce9b\ud800c", "a b c", "a b c"),
        ("n\u011bco \U0001f600", "n?co ?", "n\u011bco \U0001f600"),
        ("\u7a7a\u3000\u767d", "???", "\u7a7a\u3000\u767d"),
        ("%n {0} $name \\n \\c", "%n {0} $name \\n \\c", "%n {0} $name \\n \\c"),
    ],
)
@pytest.mark.parametrize("verb", [*REFUSALS, *REMARKS])
def test_characters(verb, text, plain, utf8):
    """
    Control characters become blanks; other characters become ?, or stay with utf8; nothing is expanded.
    """
    assert encoded((verb, text)) == f"{verb} {plain}"
    assert encoded((verb, text), utf8=True) == f"{verb} {utf8}"


@pytest.mark.parametrize("verb", REFUSALS)
@pytest.mark.parametrize("status", ["", "0.777.777 "])
def test_longText(verb, status):
    """
    A text is cut where the reply to the SMTP client would exceed 512 octets, and not before.
    """
    if status:
        status = ("5" if verb[0] in "R5" else "4") + status[1:]
    whole = "x" * FITTING
    assert encoded((verb, status + whole)) == f"{verb} {status}{whole}"
    assert encoded((verb, status + whole + "x")) == f"{verb} {status}{whole}"
    lengths = [octets(line) + 2 for line in smtpLines(encoded((verb, status + "x" * 3000)), REQUEST)]
    assert max(lengths) == (512 if status else 512 - len("777777") + len("71"))


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ({"recipient": "r" * 100}, 512 - len("554 5.777.777 <>: Recipient address rejected: \r\n") - 100),
        ({"sender": "s" * 100}, 512 - len("554 5.777.777 <>: Sender address rejected: \r\n") - 100),
        ({"helo_name": "h" * 100}, 512 - len("554 5.777.777 <>: Helo command rejected: \r\n") - 100),
        ({"etrn_domain": "e" * 100}, 512 - len("554 5.777.777 <>: Etrn command rejected: \r\n") - 100),
        ({"client_name": "c" * 100}, 512 - len("554 5.777.777 <[unknown]>: Client host rejected: \r\n") - 100),
        ({"recipient": "\u00e9" * 50}, 512 - len("554 5.777.777 <>: Recipient address rejected: \r\n") - 100),
        ({"recipient": "\udce9" * 100}, 512 - len("554 5.777.777 <>: Recipient address rejected: \r\n") - 100),
        ({}, 512 - len("554 5.777.777 <unknown[unknown]>: Client host rejected: \r\n")),
        (
            {"client_name": "", "client_address": "192.0.2.1"},
            512 - len("554 5.777.777 <unknown[192.0.2.1]>: Client host rejected: \r\n"),
        ),
        (
            {"recipient": None, "sender": 5},
            512 - len("554 5.777.777 <unknown[unknown]>: Client host rejected: \r\n"),
        ),
        (
            {"client_name": "a", "client_address": "::1"},
            512 - len("554 5.777.777 <END-OF-MESSAGE>: End-of-data rejected: \r\n"),
        ),
        ({"recipient": "r" * 2000}, 64),
        ({"sender": "s" * 2000}, 64),
    ],
)
def test_longNames(names, left):
    """
    The longest of the names that Postfix may repeat leaves the room for the text, but never less than 64 octets.
    """
    assert encoded(("REJECT", "x" * 3000), names) == "REJECT " + "x" * left
    assert encoded(("REJECT", "5.7.1 " + "x" * 3000), names) == "REJECT 5.7.1 " + "x" * left
    assert encoded(("REJECT", "x" * left), names) == "REJECT " + "x" * left


def test_cutKeepsCharacters():
    """
    Where a text is cut, no character is split, and no blank is left at its end.
    """
    for extra in range(4):
        text = "x" * extra + "\U0001f600" * 300
        action = encoded(("REJECT", text), utf8=True)
        assert text.startswith(action.removeprefix("REJECT "))
        assert FITTING - 3 <= octets(action) - len("REJECT ") <= FITTING
    assert encoded(("REJECT", "x" * (FITTING - 1) + " " + "x" * 100)) == "REJECT " + "x" * (FITTING - 1)


@pytest.mark.parametrize("verb", REMARKS)
def test_longRemark(verb):
    """
    A text for the log is cut at 512 octets.
    """
    assert encoded((verb, "x" * 512)) == f"{verb} " + "x" * 512
    assert encoded((verb, "x" * 60000)) == f"{verb} " + "x" * 512
    assert encoded((verb, "\u00e9" * 300), utf8=True) == f"{verb} " + "\u00e9" * 256


def test_longHeader():
    """
    A header is cut at 900 octets, its name included.
    """
    assert encoded("PREPEND X-A: " + "x" * 895) == "PREPEND X-A: " + "x" * 895
    assert encoded("PREPEND X-A: " + "x" * 5000) == "PREPEND X-A: " + "x" * 895
    assert octets(encoded("PREPEND X-A: " + "\u20ac" * 500, utf8=True)) <= len("PREPEND ") + 900


@pytest.mark.parametrize(
    "answer",
    [
        "dunno",
        ("dunno", ""),
        ("REJECT", "no thanks"),
        "450 4.7.1 later",
        "PREPEND X-A: b",
        "permit",
        ("HOLD", "x"),
    ],
)
def test_remembered(answer):
    """
    The reply to an answer given again is the very same object, not made anew.
    """
    encoder = ReplyEncoder()
    assert encoder.encode(answer, REQUEST) is encoder.encode(answer, dict(REQUEST))


def test_rememberedForShortNamesOnly():
    """
    A remembered reply is not used where the names of a request leave less room.
    """
    text = "x" * 300
    for verb in ("REJECT", "450"):
        encoder = ReplyEncoder()
        for name in ("recipient", "sender", "helo_name", "client_name", "client_address", "etrn_domain"):
            for letter, length in (("r", 250), ("\u00e9", 125), ("r", 140), ("\u00e9", 70), ("\U0001f600", 45)):
                data = REQUEST | {name: letter * length}
                alone = ReplyEncoder().encode((verb, text), data)
                assert said(encoder.encode((verb, text), REQUEST)) == f"{verb} {text}"
                assert encoder.encode((verb, text), data) == alone
                assert max(octets(line) + 2 for line in smtpLines(said(alone), data)) <= 512


def test_rememberedNextToCut():
    """
    A text that had to be cut for one request goes out whole with the next.
    """
    encoder = ReplyEncoder()
    text = "x" * 300
    assert len(said(encoder.encode(("REJECT", text), REQUEST | {"sender": "s" * 2000}))) == len("REJECT ") + 64
    assert said(encoder.encode(("REJECT", text), REQUEST)) == f"REJECT {text}"


def test_missingNames():
    """
    A request without the attributes, or with others in their place, is answered as well.
    """
    encoder = ReplyEncoder()
    for data in (
        REQUEST,
        {},
        {"recipient": None},
        {"sender": 5, "recipient": ["x"]},
        REQUEST | {"helo_name": None},
    ):
        assert said(encoder.encode(("REJECT", "no"), data)) == "REJECT no"


def test_equalAnswers():
    """
    Of answers that are equal to Python each gets what it deserves, whichever came first.
    """
    encoder = ReplyEncoder()
    for _ in range(2):
        assert said(encoder.encode(450, REQUEST)) == "450 Please try again later"
        assert said(encoder.encode((450, "x"), REQUEST)) == "450 x"
        assert said(encoder.encode(("REJECT", 1), REQUEST)) == "REJECT 1"
        assert said(encoder.encode(("HOLD", 1.0), REQUEST)) == "HOLD 1.0"
        assert said(encoder.encode(("HOLD", "1"), REQUEST)) == "HOLD 1"
        for answer in (450.0, (450.0, "x"), True, 1, ("REJECT", True), ("HOLD", True)):
            with pytest.raises(BrokenAnswer):
                encoder.encode(answer, REQUEST)


def test_boundedMemory():
    """
    However many different answers a policy gives, 1,024 of a kind are remembered.
    """
    encoder = ReplyEncoder()
    for number in range(5000):
        assert said(encoder.encode(("REJECT", f"no {number}"), REQUEST)) == f"REJECT no {number}"
        encoder.encode(("HOLD", f"no {number}"), REQUEST)
    assert 0 < len(encoder._fitting) <= 1024
    assert 0 < len(encoder._settled) <= 1024
    kept = len(encoder._settled)
    encoder.encode(("PREPEND", "X-A: " + "x" * 800), REQUEST)
    assert len(encoder._settled) == kept


@pytest.mark.parametrize(
    "answer",
    [
        550,
        "550",
        ("521", "bye"),
        "REJECT",
        ("reject", "no"),
        " Reject\tno",
        ("DISCARD", ""),
        "discard gone",
        "permit_mynetworks, reject",
        "reject_unverified_recipient",
        "sleep 1,reject_unauth_destination",
        "warn_if_reject reject",
        ("FILTER", "discard:"),
        "filter error:5.1.1 no",
    ],
)
def test_permanent(answer):
    """
    Answers that refuse mail for good, or lose it, are known.
    """
    assert isPermanent(answer) is True


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        "dunno",
        ("", "REJECT"),
        (" ", "REJECT"),
        450,
        ("450", "4.3.0 reject"),
        (421, "550"),
        ("DEFER", "5.7.1 reject"),
        ("DEFER_IF_PERMIT", "REJECT"),
        "DEFER_IF_REJECT",
        ("WARN", "reject"),
        ("HOLD", "discard"),
        ("PREPEND", "X-A: reject"),
        ("REDIRECT", "reject@example.org"),
        "BCC reject@example.org",
        ("FILTER", "smtp:reject"),
        "FILTER",
        "OK reject",
        "permit",
        "defer_unauth_destination, defer",
        "rejected_class",
        "nonsense",
        object(),
        ("REJECT",),
        True,
    ],
)
def test_notPermanent(answer):
    """
    Answers that let a mail pass or come again, and what is no answer at all, are not.
    """
    assert isPermanent(answer) is False


BITS = (
    *(
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\0",
        "\x1b[2J",
        "\t",
        "\x7f",
        "\x85",
        "\x9b",
        "\u2028",
        "\u2029",
        "\udcff",
        "\udc80",
    ),
    *(
        "\ud83d",
        "\u202e",
        "\u202a",
        "\u2066",
        "\u2069",
        "\u00a0",
        "\ufeff",
        "\u200b",
        "\u00e9",
        "\u20ac",
        "\U0001f600",
    ),
    *(
        "%n",
        "%s%s%s",
        "{0}",
        "{}",
        "$recipient",
        "${x}",
        "\\",
        "\\n",
        "\\c",
        "'",
        '"',
        "`",
        ";",
        ":",
        ",",
        "=",
        "@",
        "<>",
    ),
    *(
        "action=OK",
        "\naction=OK\n\n",
        "action=",
        "550",
        "250 ok",
        "5.7.1",
        "5.7.1 ",
        "4.7.",
        "5.7.1234 ",
        "2..0",
        "9.9.9 ",
    ),
    *(
        "Bcc: x@example.org",
        "\nX-B: c",
        "\r\n\r\nbody",
        "REJECT",
        "permit",
        "reject_rbl_client",
        "check_policy_service",
    ),
    *(" ", "  ", "a", "text", "x" * 70, "\u00fc" * 70, "no thanks", "{ permit }", "\x00" * 20),
)


def hostileTexts():
    """
    The same 5,000 texts in each run, some of them of 60 KB.
    """
    chance = random.Random(20260821)
    texts = list(BITS)
    texts += [bytes([octet]).decode("utf-8", "surrogateescape") for octet in range(256)]
    texts += [chr(code) + "x" for code in (*range(256), *range(0x2000, 0x2070), 0xFFFE, 0xFFFF, 0x10FFFF)]
    while len(texts) < 5000:
        bits = chance.choices(BITS, k=chance.randint(2, 12))
        kind = chance.random()
        if kind < 0.2:
            bits = ["5.7.1 ", *bits]
        if kind > 0.99:
            bits *= 60000 // len("".join(bits)) + 1
        if 0.4 < kind < 0.5:
            noise = chance.randbytes(chance.randint(1, 600))
            bits.append(noise.decode("utf-8", "surrogateescape"))
        texts.append("".join(bits))
    assert max(map(len, texts)) >= 60000
    return texts


def hostileRequest(chance):
    """
    A request with ordinary names, of up to 100 characters, not all of them ASCII.
    """
    letters = chance.choice(("abcdefg.-", "abcdefg.-", "a\u00e9\u20ac", "a\udce9"))
    names = ("recipient", "sender", "helo_name", "client_name")
    return REQUEST | {name: "".join(chance.choices(letters, k=chance.randint(0, 100))) for name in names}


def checkReply(verb, reply, data, utf8):
    """
    What must hold for each reply, whatever the text was.
    """
    assert len(reply) <= 1000
    assert utf8 or reply.isascii()
    action = said(reply)
    sent, _, text = action.partition(" ")
    assert sent == verb
    if verb in REFUSALS and (text or verb.isdigit()):
        first = text.partition(" ")[0]
        address = first.count(".") == 3 and all(part.isdigit() and int(part) < 256 for part in first.split("."))
        if not first.strip("0123456789.") and "." in first and not address:
            digit = "5" if verb in ("REJECT", "550", "521") else "4"
            assert re.fullmatch(digit + r"\.[0-9]{1,3}\.[0-9]{1,3}", first)
        assert max(octets(line) + 2 for line in smtpLines(action, data)) <= 512
    elif verb == "PREPEND":
        assert re.match(r"[!-9;-~]+:", text)
        assert octets(text) <= 900
    elif verb in TARGETS:
        assert " " not in text
        assert (":" if verb == "FILTER" else "@") in text


@pytest.mark.parametrize("utf8", [False, True])
def test_hostileTexts(utf8):
    """
    No text, in whatever answer, makes Postfix read anything but one action with a harmless text.
    """
    chance = random.Random(42)
    encoder = ReplyEncoder(["myclass"], utf8)
    count = broken = 0
    for number, text in enumerate(hostileTexts()):
        data = hostileRequest(chance)
        for verb in (*REFUSALS, *REMARKS):
            answer = f"{verb} {text}" if number % 3 == 0 else (verb, text)
            checkReply(verb, encoder.encode(answer, data), data, utf8)
            count += 1
        reply = encoder.encode(("PREPEND", f"X-Policy: {text}"), data)
        checkReply("PREPEND", reply, data, utf8)
        assert said(reply).startswith("PREPEND X-Policy:")
        for verb, target in (
            ("PREPEND", text),
            ("FILTER", text),
            ("REDIRECT", text),
            ("BCC", f"a{text}@example.org"),
            ("FILTER", f"smtp:{text}"),
        ):
            try:
                reply = encoder.encode((verb, target), data)
            except BrokenAnswer:
                broken += 1
            else:
                checkReply(verb, reply, data, utf8)
                if verb != "PREPEND":
                    assert said(reply) == f"{verb} {target.strip(chr(32) + chr(9))}"
    assert count == 5000 * 15
    assert 0 < broken < 5000 * 5


@pytest.mark.parametrize("utf8", [False, True])
def test_hostileActions(utf8):
    """
    A text in place of an action is one that Postfix knows, or is refused.
    """
    encoder = ReplyEncoder(["myclass"], utf8)
    known = re.compile(
        r"(?i)dunno|reject\b.*|permit[a-z_]*([ ,]+permit)*[ ,]*|(reject_rbl_client [a-z]+[ ,]*)+"
        r"|550 [^ ].*|permit.*reject_rbl_client.*|[ ,]*(permit|reject|myclass).*"
    )
    accepted = 0
    for text in hostileTexts():
        for answer in (
            text,
            (text, ""),
            f"myclass {text}",
            f"permit_mynetworks,{text}",
            ("reject_rbl_client", text),
        ):
            try:
                reply = encoder.encode(answer, REQUEST)
            except BrokenAnswer:
                continue
            accepted += 1
            assert len(reply) <= 1000
            assert known.fullmatch(said(reply)), reply
    assert accepted > 100


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(exclude_categories=())), st.sampled_from((*REFUSALS, *REMARKS)), st.booleans())
def test_anyText(text, verb, utf8):
    """
    The same holds for texts that hypothesis thinks of.
    """
    checkReply(verb, ReplyEncoder(utf8=utf8).encode((verb, text), REQUEST), REQUEST, utf8)
