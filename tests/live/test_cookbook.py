"""
The recipes of docs/cookbook.md, each as it stands there, asked by a real Postfix about clients of all kinds.

Two things are changed for the tests: the folder of the files of countries, and five minutes are a second.
"""

import shlex
import signal
import time
from pathlib import Path

import pytest

from tests.dnsserver import DNSServer
from tests.documents import commands, listings, located, prepare, recipe

from .policyserver import Server

PAGE = "cookbook.md"
ZEN, DNSWL = "zen.spamhaus.org", "list.dnswl.org"


def reverse(address):
    return ".".join(reversed(address.split(".")))


def host(address, name):
    """The records of a client whose names in the DNS are as they should be."""
    return {f"{reverse(address)}.in-addr.arpa": {"PTR": [f"{name}."]}, name: {"A": [address]}}


RECORDS = {
    # The lists have what they must have, and somebody.
    f"2.0.0.127.{ZEN}": {"A": ["127.0.0.2", "127.0.0.4", "127.0.0.10"]},
    f"{reverse('23.1.2.5')}.{ZEN}": {"A": ["127.0.0.2"]},
    f"2.0.0.127.{DNSWL}": {"A": ["127.0.10.0"]},
    f"{reverse('23.1.2.7')}.{DNSWL}": {"A": ["127.0.5.2"]},
    **host("23.1.2.4", "mail.example.net"),
    **host("23.1.2.5", "mx.example.com"),
    **host("23.1.2.8", "dsl-23-1-2-8.pool.example.com"),
    "example.net": {"TXT": ['"v=spf1 ip4:23.1.2.0/24 -all"']},
    "soft.example": {"TXT": ['"v=spf1 ~all"']},
    "lists.example": {"TXT": ['"v=spf1 ip4:23.1.0.0/16 -all"']},
    "example.org": {"MX": ["20 mx.elsewhere.example.", "10 mx2.mail.example.net."]},
}


@pytest.fixture(scope="module")
def dns():
    """The name server."""
    with DNSServer(RECORDS) as server:
        yield server


@pytest.fixture(scope="module")
def _server(dns):
    server = Server()
    server.configure("def check(factory, data, port):\n    return 'dunno'\n", dnsServers=[dns.address])
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def cook(_server, postfix, dns):
    """
    Has the running server use a recipe, and Postfix ask from some restriction lists; the recipe's commands are
    carried out.
    """

    def work(heading, lists=("recipient",), **options):
        text = recipe(PAGE, heading).replace("'delay': 300", "'delay': 1")
        prepare(_server.folder, PAGE)
        _server.configure(located(text, _server.folder), dnsServers=[dns.address])
        before = len(_server.output)
        _server.process.send_signal(signal.SIGHUP)
        _server.waitForLog(" serves ", start=before)
        for line in commands(PAGE, heading):
            run(_server, line)
        postfix.usePolicy(_server.target, lists, **options)
        return _server

    return work


def run(server, line):
    """Carry out a command of the page; what it prints."""
    program, *words = shlex.split(line)
    assert program == "ppolicy"
    done = server.ppolicy(*words, together=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def send(postfix):
    """Sends one mail in a session of its own: (replies to the recipients, reply to the content, its subject)."""

    def work(*recipients, client="23.1.2.4", name="mail.example.net", sender="alice@example.net", **more):
        with postfix.connect() as session:
            session.pose(client, name, helo=more.pop("helo", "mail.example.net"), **more)
            return session.attempt(*(recipients or ["bob@example.org"]), sender=sender)

    return work


def test_suspicious(cook, send):
    """Who has a good name passes; a listed client, a dial-up line and one without a name are greylisted."""
    cook("Greylist only the suspicious")
    assert send().first.code == 250
    listed = send(client="23.1.2.5", name="mx.example.com").first
    assert (listed.code, "Greylisted, please try again in 1 seconds" in listed.text) == (450, True)
    assert send(client="23.1.2.8", name="dsl-23-1-2-8.pool.example.com").first.code == 450
    assert send(client="23.1.3.6", name=None).first.code == 450
    assert send(client="23.1.2.7", name=None).first.code == 250  # white-listed
    time.sleep(1.1)
    assert send(client="23.1.2.5", name="mx.example.com").first.code == 250


def test_spf(cook, send, sink):
    """A fail is refused; all other mail gets one header, however many recipients it has."""
    cook("SPF with a header")
    outcome = send("bob@example.org", "carol@example.org")
    assert outcome.data.code == 250
    (header,) = sink.wait(outcome.subject).message.get_all("Received-SPF")
    assert header.startswith("Pass ")
    reply = send(client="23.9.9.9").first
    assert (reply.code, reply.text[:6]) == (550, "5.7.23")
    assert send("Postmaster@example.org", client="23.9.9.9").first.code == 250
    outcome = send(client="23.9.9.9", sender="x@soft.example")
    assert sink.wait(outcome.subject).message["Received-SPF"].startswith("Softfail ")


def test_limits(cook, send):
    """A user may have a hundred recipients in an hour, and write from five networks; all others any number."""
    server = cook("Limits for users who have logged in", ("data",))
    many = [f"user{number}@example.org" for number in range(60)]
    assert send(*many[:50], LOGIN="erin").data.code == 250
    assert send(*many[:50], LOGIN="erin").data.code == 250
    reply = send(LOGIN="erin").data
    assert (reply.code, reply.text.startswith("4.7.28 ")) == (450, True)
    assert "Too many recipients, please try again in 3" in reply.text
    assert send(*many).data.code == send(*many).data.code == 250
    for number in range(5):
        assert send(client=f"23.2.{number}.1", LOGIN="frank").data.code == 250
    reply = send(client="23.2.5.1", LOGIN="frank").data
    assert (reply.code, "too many places" in reply.text) == (450, True)
    assert "erin" in run(server, "ppolicy limit list recipients")
    run(server, "ppolicy limit reset recipients erin")
    assert send(LOGIN="erin").data.code == 250


def test_quota(cook, send):
    """Limits are those in the table; who is not in it has the common one."""
    cook("A limit of its own for each user", ("data",))
    many = [f"user{number}@example.org" for number in range(101)]
    assert send(*many[:5], LOGIN="trainee").data.code == 250
    assert send(LOGIN="trainee").data.code == 450
    assert send(*many, LOGIN="newsletter").data.code == 250
    assert send(*many, LOGIN="grace").data.code == 550
    assert send(*many).data.code == 250


def test_countries(cook, send):
    """Clients from blocked countries are refused, except for the postmaster."""
    cook("Block countries")
    reply = send(client="2001:218::1").first
    assert (reply.code, "no mail from JP" in reply.text) == (550, True)
    assert send("Postmaster@example.org", client="2001:218::1").first.code == 250
    assert send(client="81.2.69.160").first.code == 250
    assert send(client="192.0.2.1").first.code == 250


def test_forged(cook, send):
    """A sender of ours is refused to all but users who have logged in, and forwarders."""
    cook("Refuse forged local senders")
    reply = send(sender="Alice@Example.ORG").first
    assert (reply.code, "with a login" in reply.text) == (550, True)
    assert send("Abuse@example.org", sender="alice@example.org").first.code == 250
    assert send(sender="alice@example.org", LOGIN="alice").first.code == 250
    assert send(sender="alice@example.org", client="198.51.100.7").first.code == 250
    assert send(sender="alice@example.org", client="2001:db8:25::7").first.code == 250
    assert send().first.code == 250
    assert send(sender="").first.code == 250


def test_disconnect(cook, postfix, dns):
    """Who writes to somebody in the list, whose mail host matches, is cut off; no other mail is."""
    cook("Disconnect by the recipient's mail host and a list")
    with postfix.connect() as session:
        session.pose("23.1.2.4", "mail.example.net")
        assert session.attempt("carol@example.org").first.code == 250
        reply = session.attempt("Bob@example.org").first
        assert reply == (521, "5.7.1 <Bob@example.org>: Recipient address rejected: This mailbox takes no mail")
        assert session.isDisconnected()


def test_notThisHost(cook, send, _server, dns):
    """With another first mail host, or with none that is known, nobody is cut off."""
    cook("Disconnect by the recipient's mail host and a list")
    old = dns.records
    for records in ({"example.org": {"MX": ["10 mx.elsewhere.example.", "20 mx2.mail.example.net."]}}, {}):
        run(_server, "ppolicy cache flush")
        dns.records = records
        assert send("bob@example.org").first.code == 250
    dns.records = old


def test_kind(cook, send, postfix):
    """
    A bounce is greylisted at DATA, but none of our own hosts; a list's next mail, and the next host of a site,
    need not wait again.
    """
    server = cook("Greylisting that is kind to bounces and mailing lists")
    (line,) = [one.text for one in listings(PAGE) if one.language == "text" and "kind to bounces" in one.heading]
    name, _, value = line.replace("inet:127.0.0.1:10031", server.target).partition("=")
    postfix.configure(**{name.strip(): " ".join(value.split())})
    assert send(sender="", client="10.99.99.99").data.code == 250
    bounce = send(sender="")
    assert (bounce.first.code, bounce.data.code) == (250, 450)
    assert send("a@example.org", "b@example.org", sender="").data.code == 450
    assert send(sender="list-bounces+1-bob=example.org@lists.example", client="23.1.7.1").first.code == 450
    time.sleep(1.1)
    assert send(sender="").data.code == 250
    assert send(sender="list-bounces+2-bob=example.org@lists.example", client="23.1.8.1").first.code == 250


def test_submission(cook, postfix, _server):
    """Incoming mail is greylisted; a user may send twenty mails in a minute, each to many."""
    cook("Another policy for submission")

    def reply(**more):
        with postfix.connect() as session:
            session.pose("23.4.1.1", "dsl.example", **more)
            return session.attempt(sender="henry@example.net", *["bob@example.org"]).first.code

    assert reply() == 450
    postfix.usePolicy(_server.target, ("data",), policy_context="submission")
    with postfix.connect() as session:
        session.pose("23.4.1.1", "dsl.example", LOGIN="henry")
        codes = [session.attempt("a@example.org", "b@example.org").data.code for _ in range(21)]
    assert codes == [250] * 20 + [450]


def test_dryRun(cook, send, postfix, sink):
    """Refusals are lines in Postfix's log, except where the policy is in force; headers are written."""
    cook("Try a policy without refusing anything")
    start = len(postfix.log())
    outcome = send(client="23.9.9.9")
    assert outcome.data.code == 250
    assert sink.wait(outcome.subject).message["Received-SPF"] is None
    postfix.waitForLog("would be: 550 5.7.23 Message rejected due to: SPF fail", start)
    outcome = send()
    assert sink.wait(outcome.subject).message["Received-SPF"].startswith("Pass ")


def test_dryRunOfPostfix(cook, send, postfix, _server):
    """With warn_if_reject a refusal is a line in Postfix's log."""
    cook("SPF with a header")
    service = f"warn_if_reject check_policy_service {_server.target}"
    postfix.configure(smtpd_recipient_restrictions=service)
    start = len(postfix.log())
    assert send(client="23.9.9.9").data.code == 250
    postfix.waitForLog("reject_warning: RCPT from mail.example.net[23.9.9.9]: 550 5.7.23", start)


def test_optOut(cook, send, _server):
    """Recipients in the table are not greylisted."""
    cook("Recipients who do not want it")
    outcome = send("Bob@example.org", "carol@example.org", client="23.5.1.1")
    assert [reply.code for reply in outcome.recipients.values()] == [250, 450]
    assert "bob@example.org" in run(_server, "ppolicy list optout show")


def test_traps(cook, send):
    """Who touches a trap is refused there, and deferred everywhere else."""
    cook("Spam traps")
    assert send(client="23.6.1.1").first.code == 250
    reply = send("Info1999@example.org", client="23.6.1.1").first
    assert (reply.code, reply.text[:5]) == (550, "5.1.1")
    assert send(client="23.6.1.1").first.code == 450
    assert send("abuse@example.org", client="23.6.1.1").first.code == 250
    assert send(client="23.6.2.1").first.code == 250


def test_complete(request):
    """Every recipe of the page has its test here."""
    source = Path(__file__).read_text(encoding="utf-8")
    wanted = {one.heading for one in listings(PAGE) if one.language == "python"}
    assert [heading for heading in wanted if f'cook("{heading}"' not in source] == []
