"""
The listings in docs/ do what they say.
"""

import re
import textwrap
from pathlib import Path

import pytest

from ppolicy.errors import DNSError
from tests.serving import POSTFIX, Serving, asked

DNS = (Path(__file__).parent.parent / "docs" / "dns").read_text(encoding="utf-8")


def listing(begin):
    """The indented block of docs/dns that begins with this line."""
    match = re.search(rf"((?: {{4}}{re.escape(begin)}.*\n)(?:(?: {{4}}.*)?\n)*)", DNS)
    assert match, begin
    return textwrap.dedent(match[1])


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({"example.org": {"MX": [(10, "mail.example.org")]}}, "1 example.org"),
        ({"example.org": {"AAAA": ["2001:db8::1"]}}, "1 example.org"),
        ({"example.org": {}}, "-1 example.org takes no mail"),
        ({"example.org": DNSError("SERVFAIL")}, "0 SERVFAIL"),
    ],
)
def test_ownCheck(tmp_path, records, expected):
    """The check of one's own looks a sender's domain up."""
    text = listing("from ppolicy.check import Check") + (
        "\nmodules = {'mail': (HasMail, {})}\n"
        "def check(factory, data, port):\n"
        "    return 'WARN', '%s %s' % factory.check('mail', data)\n"
    )
    assert Serving(tmp_path, text, records).ask(sender="alice@Example.org") == f"action=WARN {expected}\n\n"


def test_names(tmp_path):
    """What a policy can ask about names and addresses gives what is written beside it."""
    first, *lines = listing("from ppolicy.address import").strip().splitlines()
    expected = {line.partition("#")[0].strip(): line.partition("#")[2].strip() for line in lines if line}
    assert len(expected) == 4
    text = f"{first}\ndef check(factory, data, port):\n    return 'WARN', repr([{', '.join(expected)}])\n"
    results = ", ".join(re.split("[;:] ", result)[0] for result in expected.values())
    assert Serving(tmp_path, text).ask(sender="") == f"action=WARN [{results}]\n\n"


def test_checkAll(tmp_path):
    """Several checks are asked at once with the line that the document shows."""
    text = (
        "modules = {name: ('Dummy', {}) for name in ('spf', 'lists', 'rdns')}\n"
        "def check(factory, data, port):\n"
        + textwrap.indent(listing("(spf, _), (lists, _)"), "    ")
        + "    return 'WARN', f'{spf} {lists} {name}'\n"
    )
    serving = Serving(tmp_path, text)
    protocol, transport = serving.connect()
    protocol.dataReceived(b"request=smtpd_access_policy\nsender=a@b\n\n")
    serving.clock.advance(0)
    assert transport.value() == b"action=WARN 0 0 0\n\n"


ZEN = "zen.spamhaus.org"
SITE = {
    "example.net": {"TXT": [(b"v=spf1 ip4:192.0.2.0/25 -all",)]},
    f"2.0.0.127.{ZEN}": {"A": ["127.0.0.2"]},
    f"1.2.0.192.{ZEN}": {},
    f"66.2.0.192.{ZEN}": {"A": ["127.0.0.2", "127.0.0.11"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["mail.example.net"]},
    "66.2.0.192.in-addr.arpa": {"PTR": ["mail.example.net"]},
    "mail.example.net": {"A": ["192.0.2.1", "192.0.2.66"]},
}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "prepend Received-SPF: Pass "),
        ("192.0.2.66", "550 5.7.1 Several block lists"),
        ("192.0.2.2", "DEFER_IF_PERMIT 4.7.1 Greylisted"),
        ("192.0.2.200", "550 5.7.23 Message rejected due to: SPF fail"),
    ],
)
def test_site(tmp_path, address, expected, monkeypatch):
    """The policy of a whole site welcomes, greylists and refuses."""
    monkeypatch.setattr("ppolicy.blocklistcheck.isPrivate", lambda _: False)  # addresses for documents
    serving = Serving(tmp_path, listing("modules = {"), SITE)
    protocol, transport = serving.connect()
    protocol.dataReceived(asked(**POSTFIX | {"client_address": address}))
    for _ in range(5):
        serving.clock.advance(0)
    assert transport.value().decode().startswith(f"action={expected}")
