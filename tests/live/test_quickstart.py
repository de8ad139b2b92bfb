"""
The five minutes of docs/quickstart.md, as a new user goes through them.
"""

import os
import subprocess
import sys

from tests.documents import ROOT, commands, listings, prepare

PAGE = "quickstart.md"


def below(heading, language):
    """The listings below a heading."""
    return [one.text for one in listings(PAGE) if one.heading == heading and one.language == language]


def run(server, line):
    """Carry out a command in the server's folder; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *line.split()],
        cwd=server.folder,
        env=os.environ | {"PPOLICY_CONF": str(server.configuration)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{line}:\n{done.stdout}"
    return done.stdout


def test_fiveMinutes(makeServer, postfix):
    """A mail is deferred and passes when it is allowed; each command works, and shows what the page says."""
    server = makeServer("def check(factory, data, port):\n    return 'dunno'\n")
    shipped = (ROOT / "ppolicy.conf").read_text(encoding="utf-8").replace("10031", str(server.port))
    server.configuration.write_text(f"stateDir = {str(server.stateDir)!r}\n{shipped}", encoding="utf-8")
    assert server.reload().returncode == 0
    prepare(server.folder, PAGE)

    explained = run(server, "ppolicy explain request.txt")
    assert below("2. Ask it something", "text")[1] in explained
    assert "greylist" in explained

    name, _, value = below("3. Let Postfix ask", "text")[0].partition(" =\n")
    settings = {name: " ".join(value.split()).replace("10031", str(server.port))}
    postfix.usePolicy(server.target)
    postfix.configure(**settings)

    def reply():
        with postfix.connect() as session:
            session.pose("192.0.2.1", "mail.example.net")
            return session.attempt("bob@example.org", sender="alice@example.net").first

    first = reply()
    assert f"{first.code} {first.text}\n" == below("4. See it work", "text")[0]
    server.waitForLog("checks=greylist:-1")
    done = {}
    for line in commands(PAGE):
        if line.startswith("ppolicy "):
            done[line] = run(server, line)
    assert "alice@example.net" in done["ppolicy greylist list"]
    assert reply().code == 250

    text = server.configuration.read_text(encoding="utf-8")
    assert 'delay": 300' in text
    server.configuration.write_text(text.replace('delay": 300', 'delay": 60'), encoding="utf-8")
    run(server, "ppolicy reload")
    request = (server.folder / "request.txt").read_text(encoding="utf-8")
    (server.folder / "request.txt").write_text(request.replace("bob@", "carol@"), encoding="utf-8")
    assert "in 60 seconds" in run(server, "ppolicy explain request.txt")
