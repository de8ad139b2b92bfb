"""
What SMTP clients and recipients see when a real Postfix asks our policy server.
"""

import time

import pytest

VERDICTS = """
def check(factory, data, port):
    verdicts = {
        'reject@example.org': ('REJECT', 'no thanks'),
        'coded@example.org': ('550', '5.7.27 write to somebody else'),
        'defer@example.org': ('DEFER_IF_PERMIT', 'please try again'),
        'prepend@example.org': ('PREPEND', 'X-Policy: seen by ppolicy'),
        'leave@example.org': '421 come back later',
        'nothing@example.org': None,
    }
    return verdicts.get(data['recipient'], ('dunno', ''))
"""

REJECTED = "Recipient address rejected:"


@pytest.fixture(params=("tcp", "unix"))
def verdicts(request, postfix, makeServer):
    """
    A session with a Postfix that asks for the verdicts above, over TCP and over a UNIX socket.
    """
    start = len(postfix.log())
    postfix.usePolicy(makeServer(VERDICTS, request.param).target)
    with postfix.connect() as client:
        yield client
    assert postfix.complaints(start) == []


def test_accept(verdicts, sink):
    """
    A mail the policy has nothing against is delivered.
    """
    outcome = verdicts.attempt("accept@example.org", "nothing@example.org")
    assert [reply.code for reply in outcome.recipients.values()] == [250, 250]
    assert outcome.data.code == 250
    mail = sink.wait(outcome.subject)
    assert sorted(mail.recipients) == ["accept@example.org", "nothing@example.org"]
    assert mail.message["X-Policy"] is None


def test_refuse(verdicts):
    """
    REJECT, a reply code and DEFER_IF_PERMIT reach the SMTP client with their codes and texts.
    """
    outcome = verdicts.attempt("reject@example.org", "coded@example.org", "defer@example.org")
    assert outcome.recipients == {
        "reject@example.org": (554, f"5.7.1 <reject@example.org>: {REJECTED} no thanks"),
        "coded@example.org": (550, f"5.7.27 <coded@example.org>: {REJECTED} write to somebody else"),
        "defer@example.org": (450, f"4.7.1 <defer@example.org>: {REJECTED} please try again"),
    }
    assert outcome.data is None


def test_prepend(verdicts, sink):
    """
    A header given with PREPEND is the first one of the delivered mail.
    """
    outcome = verdicts.attempt("prepend@example.org")
    assert outcome.data.code == 250
    name, value = sink.wait(outcome.subject).message.items()[0]
    assert (name, value) == ("X-Policy", "seen by ppolicy")


def test_disconnect(verdicts):
    """
    The code 421 makes Postfix hang up on the SMTP client.
    """
    outcome = verdicts.attempt("leave@example.org", "accept@example.org")
    assert outcome.recipients == {
        "leave@example.org": (421, f"4.7.1 <leave@example.org>: {REJECTED} come back later")
    }
    assert verdicts.isDisconnected()


def test_mixedVerdicts(verdicts, sink):
    """
    Each recipient of one mail gets its own verdict, and the mail goes to those that were accepted.
    """
    outcome = verdicts.attempt(
        "accept@example.org",
        "reject@example.org",
        "prepend@example.org",
        "defer@example.org",
        "other@example.org",
    )
    assert [reply.code for reply in outcome.recipients.values()] == [250, 554, 250, 450, 250]
    mail = sink.wait(outcome.subject)
    assert sorted(mail.recipients) == ["accept@example.org", "other@example.org", "prepend@example.org"]
    assert mail.message["X-Policy"] == "seen by ppolicy"


@pytest.mark.parametrize("kind", ("tcp", "unix"))
def test_attributes(kind, postfix, makeServer):
    """
    The policy sees the SMTP client's address, names and HELO, IPv4 and IPv6, and where the request came in.
    """
    server = makeServer(
        """
        def check(factory, data, port):
            client = f"{data['client_address']},{data['client_name']},{data['helo_name']}"
            return 'REJECT', f"{client} at {port.host or ''},{port.port or ''},{port.path or ''}"
        """,
        kind,
    )
    postfix.usePolicy(server.target)
    here = f"127.0.0.1,{server.port}," if kind == "tcp" else f",,{server.address}"
    for address, name, helo, seen in (
        ("192.0.2.7", "mail.example.com", "mail.example.com", "192.0.2.7,mail.example.com,mail.example.com"),
        ("2001:db8::25", None, "[IPv6:2001:db8::25]", "2001:db8::25,,[IPv6:2001:db8::25]"),
    ):
        with postfix.connect() as client:
            reply = client.pose(address, name, helo).attempt("a@example.org").first
        assert reply == (554, f"5.7.1 <a@example.org>: {REJECTED} {seen} at {here}")


def test_restrictionLists(postfix, makeServer):
    """
    From any restriction list the policy is told the state of the SMTP session, and its refusal counts there.
    """
    server = makeServer(
        """
        def check(factory, data, port):
            wanted = data['sender'].split('@')[0]
            if data['policy_context'] == wanted or data['protocol_state'] == wanted.upper():
                return 'REJECT', f"{data['protocol_state']} from {data['client_address']}"
            return 'dunno', ''
        """
    )
    lists = ("client", "helo", "sender", "recipient", "data", "end_of_data")
    postfix.usePolicy(server.target, lists, policy_context="any")
    with postfix.connect() as client:
        client.pose("192.0.2.8")
        early = client.attempt("a@example.org", sender="rcpt@example.com").first
        data = client.attempt("a@example.org", sender="data@example.com").data
        end = client.attempt("a@example.org", sender="end-of-message@example.com").data
        fine = client.attempt("a@example.org", sender="other@example.com").data
    # Postfix puts client restrictions off until the recipient is known, so they are the first to ask.
    assert early == (554, "5.7.1 <unknown[192.0.2.8]>: Client host rejected: RCPT from 192.0.2.8")
    assert data == (554, "5.7.1 <DATA>: Data command rejected: DATA from 192.0.2.8")
    assert end == (554, "5.7.1 <END-OF-MESSAGE>: End-of-data rejected: END-OF-MESSAGE from 192.0.2.8")
    assert fine.code == 250
    postfix.usePolicy(server.target, ("sender",), policy_context="bulk")
    with postfix.connect() as client:
        reply = client.attempt("a@example.org", sender="bulk@example.com").first
    assert reply == (554, "5.7.1 <bulk@example.com>: Sender address rejected: RCPT from 127.0.0.1")


UTF8 = """
def check(factory, data, port):
    if data['sender'] == 'jörg@example.com' and data['recipient'] == 'übung@example.org':
        return 'REJECT', 'žádná pošta, nein danke'
    return 'dunno', ''
"""


@pytest.mark.parametrize("options", (("SMTPUTF8",), ()), ids=("declared", "undeclared"))
@pytest.mark.parametrize("replyUtf8", (True, None))
def test_utf8(postfix, makeServer, replyUtf8, options):
    """
    A policy can compare UTF-8 addresses; its UTF-8 text arrives unchanged with replyUtf8, else as ASCII.
    """
    server = makeServer(UTF8, **({} if replyUtf8 is None else {"replyUtf8": replyUtf8}))
    postfix.usePolicy(server.target)
    with postfix.connect() as client:
        reply = client.attempt("übung@example.org", sender="jörg@example.com", options=options).first
        other = client.attempt("übung@example.org", sender="jorg@example.com", options=options).first
    text = reply.text.removeprefix(f"5.7.1 <übung@example.org>: {REJECTED} ")
    assert (reply.code, text != reply.text) == (554, True)
    if replyUtf8:
        assert text == "žádná pošta, nein danke"
    else:
        assert text.isascii()
        assert text.endswith("nein danke")
    assert other.code == 250


def test_utf8Delivery(postfix, makeServer, sink):
    """
    A mail between UTF-8 addresses that the policy accepts is delivered.
    """
    postfix.usePolicy(makeServer(UTF8).target)
    with postfix.connect() as client:
        outcome = client.attempt("další@example.org", sender="jörg@example.com", options=("SMTPUTF8",))
    mail = sink.wait(outcome.subject)
    assert (mail.sender, mail.recipients) == ("jörg@example.com", ["další@example.org"])


GREYLIST = """
modules = {'greylist': ('Greylist', {'delay': %d, 'mustRetry': %d})}

def check(factory, data, port):
    code, info = factory.check('greylist', data)
    if code < 0:
        return 'DEFER_IF_PERMIT', info[0]
    return 'dunno', ''
"""


def attempt(postfix, recipient="a@example.org", client="192.0.2.10"):
    """
    The reply to one mail of a client, in a session of its own.
    """
    with postfix.connect() as session:
        return session.pose(client, "mail.example.com").attempt(recipient).first


def test_greylist(postfix, makeServer):
    """
    A first mail and an early retry are deferred; a retry after the delay is accepted, as is every later one.
    """
    server = makeServer(GREYLIST % (5, 60))
    postfix.usePolicy(server.target)
    for _retry in range(2):
        reply = attempt(postfix)
        assert (reply.code, REJECTED in reply.text) == (450, True)
        assert "greylist" in reply.text.lower()
    time.sleep(5.2)
    assert attempt(postfix).code == 250
    assert attempt(postfix).code == 250
    assert attempt(postfix, "b@example.org").code == 450
    assert attempt(postfix, client="198.51.100.10").code == 450
    assert (server.stateDir / "ppolicy.sqlite").exists()


def test_greylistMustRetry(postfix, makeServer):
    """
    A retry later than mustRetry counts as a first mail.
    """
    postfix.usePolicy(makeServer(GREYLIST % (1, 5)).target)
    assert attempt(postfix).code == 450
    time.sleep(5.5)
    assert attempt(postfix).code == 450
    time.sleep(1.2)
    assert attempt(postfix).code == 250


def test_greylistRestart(postfix, makeServer):
    """
    What the greylist knows outlives a restart of the server.
    """
    server = makeServer(GREYLIST % (1, 60))
    postfix.usePolicy(server.target)
    assert attempt(postfix).code == 450
    server.terminate()
    server.start()
    time.sleep(1.2)
    assert attempt(postfix).code == 250
