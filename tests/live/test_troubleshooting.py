"""
docs/troubleshooting.md with a real Postfix: what it shows is shown, what clients are told they are told.
"""

import re
import shlex
import subprocess
import sys
import time

from ppolicy.options import Options
from tests.documents import DOCS, commands, listings, prepare

PAGE = "troubleshooting.md"
POLICY = """
modules = {
    'spf': ('SPF', {}),
    'greylist': ('Greylist', {'delay': 300}),
    'recipients': ('DOS', {'params': 'sasl_username', 'logins': True}),
    'trap': ('Trap', {'traps': 'trap@example.org'}),
}


def check(factory, data, port):
    factory.check('spf', data)
    if factory.check('greylist', data)[0] == -1:
        return 'DEFER_IF_PERMIT', '4.7.1 Greylisted, please try again later'
    return 'dunno'
"""
ENDLESS = ("ppolicy trace", "ppolicy stats --watch")
NOT_THERE = 4


def plain(line):
    """A line without what is another one each time: numbers, and how wide they are."""
    return re.sub(r"instance \S+|\d+(\.\d+)?", "N", " ".join(line.split()))


def run(server, line, codes=(0,)):
    """Carry out a command of the page; what it prints."""
    program, *words = shlex.split(line)
    assert program == "ppolicy"
    done = subprocess.run(
        [sys.executable, "-m", "ppolicy", "-c", str(server.configuration), *words],
        cwd=server.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in codes, f"{line}: {done.returncode}\n{done.stdout}"
    return done.stdout


def test_page(makeServer, postfix):
    """A mail that Postfix has deferred is explained as the page shows it, and each other command works."""
    server = makeServer(POLICY, dnsServers=["127.0.0.1:1"])
    postfix.usePolicy(server.target)
    prepare(server.folder, PAGE)
    request = "protocol_state=RCPT\nsender=alice@example.net\nrecipient=x@example.org\nclient_address=192.0.2.1\n"
    (server.folder / "request.txt").write_text(request, encoding="utf-8")
    with postfix.connect() as session:
        session.pose("192.0.2.1", "mail.example.net", helo="mail.example.net")
        reply = session.attempt("bob@example.org", sender="alice@example.net").first
    assert (reply.code, "Greylisted" in reply.text) == (450, True)

    (shown,) = [one.text for one in listings(PAGE) if one.language == "text"]
    found = [plain(line) for line in run(server, "ppolicy why alice@example.net").splitlines()]
    assert [line for line in map(plain, shown.splitlines()) if line not in found] == []
    assert run(server, "ppolicy why nobody@example.net", (NOT_THERE,))

    for line in commands(PAGE):
        if line.startswith("ppolicy ") and not line.startswith(ENDLESS):
            run(server, line, (0, NOT_THERE))
    with postfix.connect() as session:
        session.pose("192.0.2.1", "mail.example.net")
        assert session.attempt("bob@example.org", sender="alice@example.net").first.code == 250


def told():
    """(code, text) of each row of the table of what clients are told."""
    text = (DOCS / PAGE).read_text(encoding="utf-8").partition("## What clients are told\n")[2]
    return re.findall(r"^\| `([^`]*)`, `([^`]*)` \|", text, re.M)


def attempt(postfix):
    with postfix.connect() as session:
        reply = session.attempt("bob@example.org").first
    return f"{reply.code} {reply.text}"


def test_told(makeServer, postfix):
    """Without a server, and with a policy that fails, clients are told what the page says."""
    missing, failing, full = told()
    server = makeServer("def check(factory, data, port):\n    return {}['nothing']\n")
    postfix.usePolicy(server.target)
    reply = attempt(postfix)
    assert reply.startswith(f"{failing[0]} ")
    assert all(word in reply for word in failing[1].split())
    server.terminate()
    reply = attempt(postfix)
    assert reply.startswith(f"{missing[0]} ")
    assert missing[1] in reply
    code, text = Options.declared()["returnOnConnLimit"].default
    assert (code, text.startswith(full[1])) == (full[0], True)


def test_endless(makeServer):
    """What goes on until Ctrl-C still does after two seconds."""
    server = makeServer(POLICY, dnsServers=["127.0.0.1:1"])
    lines = [line for line in commands(PAGE) if line.startswith(ENDLESS)]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "ppolicy", "-c", str(server.configuration), *shlex.split(line)[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for line in lines
    ]
    time.sleep(2)
    ended = [line for line, one in zip(lines, started, strict=True) if one.poll() is not None]
    for one in started:
        one.kill()
        one.wait()
    assert len(lines) == 3
    assert ended == []
