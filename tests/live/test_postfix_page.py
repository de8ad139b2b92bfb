"""
The tables of docs/postfix.md, read and held against a real Postfix: what is known at each stage, and what each
action does there.
"""

import contextlib
import re
import smtplib
import time

import pytest

from tests.documents import DOCS, recipe

from .postfix import LISTS
from .smtpclient import SMTPClient

PAGE = "postfix.md"
CLIENT = "XCLIENT", "ADDR=23.1.2.3 NAME=mail.example.net"
DECLARED = 4321
IGNORED = re.compile("is unavailable in|is always skipped|must be used before")

POLICY = """
import pathlib


def check(factory, data, port):
    state, _, action = pathlib.Path('now').read_text().partition('|')
    return action if data['protocol_state'] == state else 'dunno'
"""


def table(heading):
    """The rows of the table below a heading: its head, then the others."""
    text = (DOCS / PAGE).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in text.split("\n") if line[:1] == "|"
    ]
    return rows[0], rows[2:]


STAGES, ACTIONS = table("What each action does at each stage")


@pytest.fixture
def early(postfix):
    """Postfix asks before RCPT as well."""
    postfix.configure(smtpd_delay_reject="no")
    yield
    postfix.configure(smtpd_delay_reject="yes")


def dumped(path):
    """The requests in a file of DumpDataFile, once those of two mails are there."""
    waitFor(lambda: path.exists() and path.read_text().count("protocol_state=END-OF-MESSAGE\n") == 2, "two mails")
    blocks = path.read_text().strip("\n").split("\n\n")
    return [dict(line.split("=", 1) for line in block.split("\n")) for block in blocks]


def waitFor(condition, text):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, text
        time.sleep(0.02)


def test_attributes(postfix, makeServer, early):
    """At each stage those attributes are empty, 0 or set for which the table says so."""
    server = makeServer(recipe(PAGE, "What is known at each stage"))
    postfix.usePolicy(server.target, LISTS)
    with postfix.connect() as session:
        session.command("HELO", "old.example.net")
        session.pose("23.1.2.3", "mail.example.net")
        session.command("VRFY", "bob@example.org")
        session.command("ETRN", "example.org")
        for recipients in (["bob@example.org"], ["bob@example.org", "carol@example.org"]):
            outcome = session.attempt(*recipients, sender="alice@example.net", options=[f"SIZE={DECLARED}"])
            assert outcome.data.code == 250
    requests = dumped(server.folder / "requests.txt")
    posing = next(i for i, one in enumerate(requests) if one["client_address"] == "23.1.2.3")
    requests = [
        one for i, one in enumerate(requests) if i >= posing or one["protocol_state"] in ("CONNECT", "HELO")
    ]
    head, rows = table("What is known at each stage")
    firsts = {}
    for one in requests:
        firsts.setdefault((one["instance"], one["protocol_state"]), one["recipient"])
    stages = {}
    for one in requests:
        state = one["protocol_state"]
        if state == "XCLIENT":
            state = "CONNECT"
        elif state == "RCPT":
            isFirst = firsts[one["instance"], state] == one["recipient"]
            state += ", the first" if isFirst else ", further ones"
        elif state in ("DATA", "END-OF-MESSAGE"):
            state += ", one recipient" if one["recipient_count"] == "1" else ", two recipients"
        stages.setdefault(state, []).append(one)
    assert set(stages) == {row[0] for row in rows}
    for row in rows:
        for one in stages[row[0]]:
            for name, wanted in zip(head[1:], row[1:], strict=True):
                found = one[name]
                if wanted == "declared":
                    assert found == str(DECLARED), (row[0], name)
                elif wanted == "real":
                    assert found.isdigit() and 0 < int(found) < DECLARED, (row[0], name)
                elif wanted == "set":
                    assert found not in ("", "0"), (row[0], name)
                else:
                    assert found == wanted.replace("-", ""), (row[0], name)
            assert one["client_address"] and one["client_port"]
            assert bool(one["etrn_domain"]) == (row[0] == "ETRN")


class Session:
    """A session that goes as far as a stage, and further: the reply to each, by stage."""

    def __init__(self, port, until):
        self.client = SMTPClient("127.0.0.1", port)
        self.replies = {"CONNECT": self.client.banner.code}
        self.subject = f"page {until} {time.monotonic()}"
        with contextlib.suppress(smtplib.SMTPServerDisconnected):
            self._say("EHLO", "EHLO", "mail.example.net")
            if until == "ETRN":
                self._say("ETRN", "ETRN", "example.org")
                return
            self._say("MAIL", "MAIL", "FROM:<alice@example.net>")
            self._say("RCPT", "RCPT", "TO:<bob@example.org>")
            self._say("DATA", "DATA")
            if self.replies["DATA"] == 354:
                self.client.send(f"Subject: {self.subject}\r\n\r\nx\r\n.\r\n")
                self.replies["END-OF-MESSAGE"] = self.client.getreply()[0]

    def _say(self, stage, *words):
        self.replies[stage] = self.client.command(*words).code

    def close(self):
        with contextlib.suppress(smtplib.SMTPServerDisconnected):
            self.client.quit()
        self.client.close()


@pytest.fixture
def stage(postfix, makeServer, early):
    """Has the policy answer with an action at a stage, and a client try: (its session, Postfix's log of it)."""
    server = makeServer(POLICY.replace("'now'", repr(str(postfix.folder / "now"))))
    now = postfix.folder / "now"
    now.write_text("|")
    postfix.usePolicy(server.target, LISTS)
    postfix.connect().close()

    def work(state, action):
        now.write_text(f"{state}|{action}")
        start = len(postfix.log())
        session = Session(postfix.port, state)
        return session, lambda: postfix.log()[start:]

    return work


def test_actions(stage):
    """The client is told what the table says, or Postfix warns; after 421 and 521 it hangs up."""
    assert len(ACTIONS) == 19
    for row in ACTIONS:
        for state, wanted in zip(STAGES[1:], row[1:], strict=True):
            session, log = stage(state, row[0])
            if wanted == "-":
                waitFor(lambda log=log: IGNORED.search(log()), f"{row[0]} at {state}: no warning")
            else:
                assert session.replies[state] == int(wanted), f"{row[0]} at {state}"
                assert session.client.isDisconnected() == (wanted in ("421", "521")), f"{row[0]} at {state}"
            session.close()


def test_effects(stage, sink):
    """Header, other recipients, hold, discard and filter do to the mail what the page says, at each stage."""
    for state in ("MAIL", "RCPT", "DATA", "END-OF-MESSAGE"):
        if state != "END-OF-MESSAGE":
            session, _ = stage(state, "PREPEND X-Policy: text")
            assert sink.wait(session.subject).message.items()[0] == ("X-Policy", "text")
            session.close()
        session, _ = stage(state, "REDIRECT other@example.org")
        assert sink.wait(session.subject).recipients == ["other@example.org"]
        session.close()
        session, _ = stage(state, "BCC other@example.org")
        assert set(sink.wait(session.subject).recipients) == {"bob@example.org", "other@example.org"}
        session.close()
        for action, word in (
            ("HOLD text", ": hold: "),
            ("DISCARD text", ": discard: "),
            ("FILTER discard:there", " triggers FILTER discard:there"),
            ("WARN text", ": warn: "),
            ("INFO text", ": info: "),
        ):
            session, log = stage(state, action)
            waitFor(lambda log=log, word=word: word in log(), f"{action} at {state}")
            session.close()


def test_afterRefusal(stage):
    """A refusal at CONNECT is followed by 503; at EHLO the client may go on; DEFER_IF_PERMIT waits until RCPT."""
    session, _ = stage("CONNECT", "REJECT text")
    assert set(list(session.replies.values())[1:]) == {503}
    session.close()
    session, _ = stage("EHLO", "REJECT text")
    assert session.replies["END-OF-MESSAGE"] == 250
    session.close()
    for state in ("EHLO", "MAIL"):
        session, _ = stage(state, "DEFER_IF_PERMIT text")
        assert session.replies["RCPT"] == 450
        session.close()


def test_restrictionsInOrder(postfix, makeServer):
    """DEFER_IF_PERMIT gives way to a refusal behind it, DEFER_IF_REJECT softens it, OK leaves it out."""
    server = makeServer("def check(factory, data, port):\n    return data['policy_context'], 'text'\n")
    postfix.usePolicy(server.target)  # and no other list
    for action, wanted in (("DEFER_IF_PERMIT", 554), ("DEFER_IF_REJECT", 450), ("OK", 250), ("DUNNO", 554)):
        service = f"check_policy_service {{ {server.target} policy_context={action} }}"
        postfix.configure(smtpd_recipient_restrictions=f"{service}, reject")
        with postfix.connect() as session:
            assert session.attempt("bob@example.org").first.code == wanted, action


@pytest.mark.parametrize(("options", "wanted"), [({}, 451), ({"default_action": "DUNNO"}, 250)])
def test_noServer(postfix, makeServer, options, wanted):
    """Without a server the client gets 451, and with default_action=DUNNO its mail is taken."""
    server = makeServer("def check(factory, data, port):\n    return 'dunno'\n")
    postfix.usePolicy(server.target, **options)
    server.terminate()
    with postfix.connect() as session:
        reply = session.attempt("bob@example.org").first
    assert reply.code == wanted
    assert ("4.3.5" in reply.text) == (wanted == 451)
