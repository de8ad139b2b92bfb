"""
Tests for pseudonyms: nobody is named, and who has the key still finds a mail.
"""

import os
import stat

import pytest
from twisted.internet.task import Clock

from ppolicy.decisions import FURTHER, NAMES, Decisions, described
from ppolicy.errors import ConfigError
from ppolicy.privacy import KEY_FILE, Privacy, readKey
from ppolicy.reply import clean

from .serving import POSTFIX

PRIVACY = Privacy(b"k" * 32)


def concealed(info=None, reply=b"action=dunno\n\n", **more):
    """A decision as it is shown: (fields, information, reply)."""
    data = POSTFIX | more
    fields = tuple(data.get(name, "") for name in (*NAMES, *FURTHER))
    decision = (1.0, fields, [("spf", 1, 0.001, False, info)], reply, 0.001)
    _, fields, ((*_, info),), reply, _ = PRIVACY.conceal(decision)
    return dict(zip(NAMES, fields, strict=True)), info, reply


def test_fields():
    """Addresses, names and logins have pseudonyms; instance, queue id and state stay."""
    fields, _, _ = concealed(queue_id="4XYZ", sasl_username="alice")
    for name in ("client_address", "client_name", "sender", "recipient", "helo_name", "sasl_username"):
        assert fields[name] == PRIVACY.pseudonym({**POSTFIX, "sasl_username": "alice"}[name])
        assert fields[name].startswith("~")
        assert len(fields[name]) == 14
    assert (fields["instance"], fields["queue_id"], fields["protocol_state"]) == ("1a2.65f.3c.0", "4XYZ", "RCPT")


@pytest.mark.parametrize("value", ("", "unknown", "localhost", "127.0.0.1", "::1"))
def test_nobody(value):
    """What names nobody is shown."""
    assert concealed(sender=value, client_name=value)[0]["client_name"] == value


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("alice@example.net", "{alice}"),
        ("alice@example.net\n\n192.0.2.0/24", "{alice}\n\n{net}"),
        (("alice@example.net", 25, None, True, ""), ["{alice}", 25, None, True, ""]),
        (7, 7),
    ],
)
def test_result(arguments, shown):
    """Of a cached result all texts among the arguments have pseudonyms; numbers stay."""
    names = {"alice": PRIVACY.pseudonym("alice@example.net"), "net": PRIVACY.pseudonym("192.0.2.0/24")}

    def filled(value):
        return value.format_map(names) if isinstance(value, str) else value

    expected = [filled(one) for one in shown] if isinstance(shown, list) else filled(shown)
    assert PRIVACY.concealResult(arguments, None) == (expected, None)


def test_resultInformation():
    """The information of a cached result repeats none of its arguments, nor a part of an address."""
    info = ("25 mails of Alice@example.net", "no MX for example.net", "198.51.100.7")
    _, shown = PRIVACY.concealResult(("alice@example.net", 25), info)
    assert "alice" not in shown.lower()
    assert "example.net" not in shown
    assert "25 mails of ~" in shown
    assert "198.51.100.7" in shown


def test_pseudonym():
    """A value has one pseudonym, in capitals or not, which depends on the key."""
    assert PRIVACY.pseudonym("Alice@Example.net") == PRIVACY.pseudonym("alice@example.NET")
    assert PRIVACY.pseudonym("alice@example.net") != PRIVACY.pseudonym("alice@example.org")
    assert PRIVACY.pseudonym("alice@example.net") != Privacy(b"l" * 32).pseudonym("alice@example.net")
    assert PRIVACY.pseudonym("\ud800\udcff" * 500)


@pytest.mark.parametrize(
    "text",
    [
        "alice@example.net is not welcome",
        "ALICE@Example.NET",
        "<alice@example.net>",
        "example.net has no MX",
        "the user alice",
        "relay=mail.example.net[192.0.2.1]",
        "1.2.0.192.zen.example",
        ("alice@example.net", 5),
        {"mail": ["alice@example.net"]},
        "xalice@example.netx",
    ],
)
def test_texts(text):
    """What a check tells of the mail is told of a pseudonym."""
    _, info, _ = concealed(text)
    low = info.lower()
    for one in ("alice", "example.net", "192.0.2.1", "2.0.192"):
        assert one not in low
    assert "~" in low


def test_reply():
    """So is the text of the answer; the action stays, whatever a client calls itself."""
    for name in ("action", "REJECT", "action=REJECT", "t", "="):
        _, _, reply = concealed(None, b"action=REJECT 5.7.1 REJECT alice@example.net action\n\n", helo_name=name)
        assert reply.startswith(b"action=REJECT ")
        assert reply.endswith(b"\n\n")
        assert b"alice" not in reply
    assert concealed(None, b"action=REJECT\n\n", helo_name="reject")[2] == b"action=REJECT\n\n"
    _, _, reply = concealed(None, b"action=REDIRECT bob@example.org\n\n")
    assert reply == f"action=REDIRECT {PRIVACY.pseudonym('bob@example.org')}\n\n".encode()


def test_others():
    """Attributes that are never shown are hidden in texts, too."""
    _, info, _ = concealed(
        "dsl-1-2-3.example.com, CN=Carol", reverse_client_name="dsl-1-2-3.example.com", ccert_subject="Carol"
    )
    assert "dsl" not in info
    assert "carol" not in info.lower()


def test_short():
    """Short values and local parts are hidden where they are words, and break no others."""
    _, info, _ = concealed(
        "bo has sent 5 mails about boxes, in for info", sasl_username="bo", sender="in@x.example"
    )
    assert info == f"{PRIVACY.pseudonym('bo')} has sent 5 mails about boxes, {PRIVACY.pseudonym('in')} for info"


def test_cutOff():
    """Of a long address not even the begin is shown, which is what a reply has room for."""
    long = "x" * 10 + "secret" * 100 + "@example.com"
    _, info, reply = concealed(f"no {long[:200]}", f"action=REJECT no {long[:300]}\n\n".encode(), sender=long)
    assert "secret" not in info
    assert b"secret" not in reply
    for length in range(1, 18):
        text = f"{'long ' * 20}{'alice@example.net'[:length]}"
        _, info, reply = concealed(text, f"action=REJECT {text}\n\n".encode())
        for shown in (info, reply.decode()):
            assert ("alic" in shown) is False
            assert ("~" in shown) == (length >= 4)


ODD = [
    "'quoted'@example.com",
    '"with blank"@example.com',
    "back\\slash@example.com",
    "tab\there@example.com",
    "\x1b[31mred@example.com",
    "\u017elu\u0165ou\u010dk\u00fd@k\u016f\u0148.example",
    "STRASSE@STRA\u00dfE.example",
    "\u0130stanbul@example.com",
    "latin\udce9@example.com",
    "a@b@example.com",
    "@example.com",
    "no-at-sign",
    "a+b*c?(d)[e]{f}|g^h$i.j@example.com",
    "2001:db8::1",
    "x" * 300 + "@example.com",
    "\u2028line@example.com",
    "~tilde@example.com",
    "\\1\\g<0>@example.com",
]


@pytest.mark.parametrize("value", ODD, ids=ascii)
@pytest.mark.parametrize(
    "name", ["sender", "recipient", "helo_name", "client_name", "sasl_username", "client_address"]
)
def test_odd(name, value):
    """An odd address is hidden in every way in which a check, a log or a reply may write it."""
    for text in (value, value.upper(), (value, None), {"x": value}, f"a {value} b", ascii(value)):
        fields, info, reply = concealed(
            text, f"action=REJECT no {clean(value, False)}\n\n".encode(), **{name: value}
        )
        for shown in (*fields.values(), info, reply.decode()):
            assert value.lower() not in shown.lower()
            for letters in ("quoted", "blank", "slash", "istanbul", "latin", "ou\u010dk", "no-at", "db8", "xxxx"):
                if letters in value.lower():
                    assert letters not in shown.lower()


def made(size=100):
    """Decisions with privacy."""
    decisions = Decisions(Clock(), size)
    decisions.conceal(PRIVACY)
    return decisions


def add(decisions, info=None, **more):
    """A decision."""
    decisions.add(POSTFIX | more, [("spf", 1, 0.001, False, info)], b"action=dunno\n\n", 0.0, 0.001)


def kept(decisions, *texts):
    """What is found in the history."""
    *_, found = decisions.history.find(texts, 100)
    return [described(one) for one in found]


def test_history():
    """The history names nobody, and finds who is asked for."""
    decisions = made()
    add(decisions, "alice@example.net is unknown")
    add(decisions, sender="other@example.net", instance="other.1")
    decisions.settle()
    assert kept(decisions, "alice@example.net") == []
    (one,) = kept(decisions, "alice@example.net", PRIVACY.pseudonym("Alice@example.net"))
    assert "alice" not in str(one)
    assert one["steps"][0]["info"] == f"{PRIVACY.pseudonym('alice@example.net')} is unknown"


def test_switchedOn():
    """When privacy begins, the history forgets those whom it could name; when it ends, nothing."""
    decisions = Decisions(Clock(), 100)
    add(decisions)
    decisions.conceal(None)
    assert len(kept(decisions, "alice")) == 1
    add(decisions)  # pending when it is switched on
    decisions.conceal(PRIVACY)
    assert len(decisions.history) == 0
    add(decisions)
    decisions.conceal(Privacy(b"k" * 32))  # a reload that changes nothing of it
    assert len(decisions.history) == 1
    add(decisions)
    decisions.conceal(None)
    add(decisions, instance="1a2.65f.4")
    decisions.settle()
    assert len(kept(decisions, "1a2.65f")) == 3
    assert len(kept(decisions, "alice")) == 1


def test_strangeRequests():
    """A policy that empties its request, or makes it long or strange, is no way around."""
    decisions = made()
    decisions.add({}, [], b"action=dunno\n\n", 0.0, 0.001)
    add(decisions, sender=None, recipient=["alice@example.net"], info=object())
    add(decisions, sender="alice@example.net" * 3000, info="alice@example.net" * 3000)
    decisions.settle()
    assert len(decisions.history) == 3
    assert kept(decisions, "alice") == []
    assert "alice" not in str(kept(decisions, ""))


def test_key(tmp_path):
    """A key is made once, for the server's user alone, and read from then on."""
    key = readKey(tmp_path)
    path = tmp_path / KEY_FILE
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert readKey(tmp_path) == key


@pytest.mark.parametrize("octets", (b"", b"x" * 15, b"x" * 65))
def test_noKey(tmp_path, octets):
    """A file that is no key is refused, with what to do."""
    (tmp_path / KEY_FILE).write_bytes(octets)
    with pytest.raises(ConfigError, match="must have 16 to 64 octets; remove it"):
        readKey(tmp_path)


def test_unwritable(tmp_path, monkeypatch):
    """A key that cannot be written is said so, and leaves no half of it behind."""
    with pytest.raises(ConfigError, match="No such file"):
        readKey(tmp_path / "nowhere")
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="No such file"):
        readKey(tmp_path)
    (tmp_path / KEY_FILE).unlink()
    monkeypatch.setattr(os, "urandom", lambda length: b"")

    def full(file, mode):
        os.close(file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(ConfigError, match="No space left"):
        readKey(tmp_path)
    assert list(tmp_path.iterdir()) == []
