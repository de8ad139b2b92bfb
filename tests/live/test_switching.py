"""
Listings of docs/switching.md, each as it stands there, asked by a real Postfix.

Two things are changed for the tests: five minutes are a second, and who takes reports is on a port of its own.
"""

import time

import pytest

from tests.dnsserver import DNSServer
from tests.documents import prepare, recipe

from .policyserver import Server

PAGE = "switching.md"
RECORDS = {
    "9.113.0.203.in-addr.arpa": {"PTR": ["mail.example.com."]},
    "mail.example.com": {"A": ["203.0.113.9"]},
    "example.com": {"MX": ["10 mail.example.com."]},
}


@pytest.fixture
def switch(postfix):
    """Has a new server use what is below a heading, and Postfix ask it from some restriction lists."""
    dns, servers = DNSServer(RECORDS), []

    def work(heading, lists=("recipient",), **changes):
        text = recipe(PAGE, heading)
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        server = Server()
        servers.append(server)
        prepare(server.folder, PAGE)
        server.configure(text, dnsServers=[dns.address])
        server.start()
        postfix.usePolicy(server.target, lists)
        return server

    with dns:
        yield work
        for server in servers:
            server.close()


def test_postgrey(switch, postfix, sink):
    """Mail that was greylisted has one header that tells it, whoever is in the lists has not waited."""
    recipients = ["carol@example.org", "dave@example.org"]
    switch("postgrey", **{"'delay': 300": "'delay': 1"})
    with postfix.connect() as session:
        session.pose("203.0.113.9", "mail.example.com")
        early = session.attempt(*recipients)
        assert [one.code for one in early.recipients.values()] == [450, 450]
        assert session.attempt("bob@example.org").first.code == 250
        deadline = time.monotonic() + 30
        while (late := session.attempt(*recipients)).first.code == 450:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert len(sink.wait(late.subject).message.get_all("X-Greylist")) == 1


def test_report(switch, postfix, sink):
    """The postmaster is told once, in a mail, that somebody has passed a limit."""
    switch("policyd-rate-limit", ("data",), **{"'localhost'": f"'127.0.0.1', {sink.port}"})
    with postfix.connect() as session:
        session.pose("203.0.113.9", "mail.example.com", LOGIN="erin")
        replies = [session.attempt("bob@example.org").data for _ in range(13)]
    assert [one.code for one in replies] == [250] * 10 + [450] * 3
    assert "4.7.28" in replies[-1].text
    report = sink.wait("erin: more than 10 in 60 seconds")
    assert report.recipients == ["postmaster@example.org"]
    assert "from 203.0.113.9" in report.message.get_content()


def test_score(switch, postfix, sink):
    """The sum of the scores stands in one header, and who has too many is refused, but for abuse."""
    switch("policyd-weight")
    with postfix.connect() as session:
        session.pose("203.0.113.9", "mail.example.com", helo="elsewhere.example.com")
        outcome = session.attempt("carol@example.org", "dave@example.org")
        assert outcome.data.code == 250
        assert sink.wait(outcome.subject).message.get_all("X-Policy-Score") == ["1.5"]
    with postfix.connect() as session:
        session.pose("203.0.113.77", "dsl-203-0-113-77.pool.example.com", helo="elsewhere.example.com")
        refused = session.attempt("carol@example.org", "Abuse@example.org", sender="x@gone.example")
    assert [one.code for one in refused.recipients.values()] == [550, 250]


def test_anotherServer(switch, postfix, makeServer):
    """Where the policy names a restriction class, Postfix asks the policy server that is in there."""
    other = makeServer("def check(factory, data, port):\n    return 'REJECT', 'asked the other'\n")
    postfix.configure(smtpd_restriction_classes="other", other=f"check_policy_service {other.target}")
    switch("mtpolicyd")
    try:
        with postfix.connect() as session:
            reply = session.attempt("bob@example.org").first
        assert (reply.code, "asked the other" in reply.text) == (554, True)
    finally:
        postfix.configure(smtpd_restriction_classes="", other="")
