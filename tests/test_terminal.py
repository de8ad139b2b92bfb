"""
Tests for what all commands have in common: JSON, exit codes, colours, bars, completion, how they end.
"""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pytest
from click.testing import CliRunner

from ppolicy import controlclient, exitcodes, reading, terminal
from ppolicy.__main__ import main
from ppolicy.errors import NoServer, PPolicyError

CONF = """
stateDir = 'state'
modules = {
    'greylist': ('Greylist', {'delay': 300}), 'friends': ('List', {'param': 'sender', 'table': 'friends'}),
    'outgoing': ('DistinctLimit', {'params': 'sender', 'value': 'recipient', 'limit': 3}),
    'trapped': ('Trap', {'traps': 'info99@example.com'}), 'slow': ('Sleep', {'sleep': 20}),
}
def check(factory, data, port):
    return None
"""
TRIPLET = ["a@example.net", "b@example.org", "192.0.2.1"]

# Commands that print nothing that a program would read.
NO_JSON = {
    "run": "it is the server, whose lines have the options logTarget and requestLog",
    "completion": "what it prints is a program for a shell",
}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with a configuration, and `ppolicy` on the path."""
    (tmp_path / "ppolicy.conf").write_text(CONF)
    program = tmp_path / "bin" / "ppolicy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ppolicy "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    # With the last one Python takes a write that was cut short for a whole one.
    for name in ("NO_COLOR", "PPOLICY_CONF", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(site, *words, **more):
    """`ppolicy` in that folder, finished."""
    return subprocess.run(
        ["ppolicy", *words],
        cwd=site,
        **{"capture_output": True, "text": True, "timeout": 60, "check": False} | more,
    )


def commands(command=main, path=()):
    """(words, command) of all commands but groups."""
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from commands(one, (*path, name))
    else:
        yield " ".join(path), command


ALL = dict(commands())


# What every command has


@pytest.mark.parametrize("name", ALL)
def test_json(name):
    """Each command prints JSON with --json, unless it is one of a few."""
    options = [one for parameter in ALL[name].params for one in parameter.opts]
    assert ("--json" in options) != (name in NO_JSON)


@pytest.mark.parametrize("name", [name for name in ALL if name != "completion"])
def test_configuration(name):
    """Each command takes -c."""
    assert "-c" in [one for parameter in ALL[name].params for one in parameter.opts]


def _all(command=main, path=()):
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from _all(one, (*path, name))


@pytest.mark.parametrize(("name", "command"), list(_all()), ids=[name or "ppolicy" for name, _ in _all()])
def test_help(name, command):
    """Each command says in a first sentence what it does, and what each option is for."""
    first = (command.help or "").strip().split("\n\n")[0]
    assert first.endswith(".")
    assert len(first) <= 80
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts
    words = name.split()
    place = words.index("list") + 1 if words[:1] == ["list"] else len(words)
    words[place:place] = ["friends"] if words[:1] == ["list"] else []
    result = CliRunner().invoke(main, [*words, "-h"])
    assert result.exit_code == 0
    assert first in " ".join(result.output.split())


def test_places():
    """The help of a command names each place where a configuration is looked for."""
    text = " ".join(CliRunner().invoke(main, ["check", "-h"]).output.split())
    assert all(place in text for place in ("$PPOLICY_CONF", "./ppolicy.conf", *reading._PLACES))


def test_exitCodes():
    """Every exit code is told by --help, and has one meaning."""
    said = CliRunner().invoke(main, ["--help"]).output
    codes = [value for name, value in vars(exitcodes).items() if name.isupper() and isinstance(value, int)]
    assert sorted(codes) == sorted(exitcodes.MEANINGS)
    for code, meaning in exitcodes.MEANINGS.items():
        assert f"{code}  {meaning}" in said


@pytest.mark.parametrize("words", [["-c", "other.conf", "check"], ["check", "-c", "other.conf"]])
def test_configurationAnywhere(site, words):
    """-c may stand before the command and behind it."""
    (site / "ppolicy.conf").rename(site / "other.conf")
    assert run(site, *words).stdout == f"{site}/other.conf: 5 checks, no mistake\n"


# Exit codes


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["check"], 0, ""),
        (["statsu"], 2, "Did you mean"),
        (["status"], 3, "no server is running"),
        (["status", "--check"], 3, "`ppolicy run`"),
        (["greylist", "show", *TRIPLET], 4, "nothing found"),
        (["greylist", "remove", "--sender", "a@example.net"], 4, ""),
        (["greylist", "allow", "--sender", "a@example.net"], 4, ""),
        (["greylist", "list"], 0, "nothing found"),
        (["greylist", "list", "--sender", "a@example.net"], 4, "nothing found"),
        (["list", "friends", "show"], 0, "nothing found"),
        (["list", "friends", "show", "a*"], 4, "nothing found"),
        (["list", "friends", "remove", "a@example.net"], 4, ""),
        (["limit", "list"], 0, "nothing found"),
        (["limit", "list", "--key", "a*"], 4, "nothing found"),
        (["limit", "show", "outgoing", "a"], 4, "nothing found"),
        (["limit", "reset", "outgoing", "a"], 4, ""),
        (["trap", "list"], 0, "nothing found"),
        (["trap", "remove", "--client", "192.0.2.1"], 4, ""),
        (
            ["list", "freinds", "show"],
            1,
            "no list check 'freinds' in modules; there is friends, did you mean friends?",
        ),
        (["try", "gerylist"], 1, "did you mean greylist?"),
        (["list", "friends", "add", "a", "--with", "b"], 2, "'b' is no COLUMN=TEXT"),
        (["explain", "nowhere"], 2, "nowhere"),
        (
            ["db", "import", "nothing"],
            1,
            "no greylist and no list has the table nothing; there is friends, greylist",
        ),
        (["-c", "nowhere", "check"], 1, "nowhere: cannot be read: No such file or directory"),
        (["-c", "nowhere", "status"], 1, "nowhere: cannot be read: No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_exitCode(site, words, code, said):
    """What went wrong has its exit code and, on stderr, a sentence; JSON does not change that."""
    done = run(site, *words)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    if code in (0, 3, 4):
        done = run(site, *words, "--json")
        assert done.returncode == code, done.stderr
        assert code == 3 or json.loads(done.stdout) is not None


def test_noCheck(site):
    """A command for checks of which there is none says that."""
    (site / "ppolicy.conf").write_text("def check(factory, data, port): pass\n")
    done = run(site, "greylist", "list")
    assert (done.returncode, done.stderr) == (1, "modules in ppolicy.conf has no check for the command greylist\n")


def test_checkJSON(site):
    """A configuration's mistakes are in the document as well, with file and line."""
    (site / "ppolicy.conf").write_text("conLimit = 3\n" + CONF)
    done = run(site, "check", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "mistakes": [
            {
                "file": f"{site}/ppolicy.conf",
                "line": 1,
                "sentence": "conLimit is no option, did you mean connLimit?",
            }
        ]
    }
    assert done.stderr == f"{site}/ppolicy.conf:1: conLimit is no option, did you mean connLimit?\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    ("group", "mode", "said"),
    [
        ("root", 0o660, "only root may use {}; use sudo, or let a group in with the options user and group"),
        ("mail", 0o660, "only root and the group mail may use {}; use sudo, or join: usermod -aG mail NAME"),
    ],
)
def test_notAllowed(group, mode, said):
    """Who may not use the control socket is told who may, and what to do."""
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        Path(folder).chmod(0o755)
        path = Path(folder) / "sock"
        listening.bind(str(path))
        shutil.chown(path, group=group)
        path.chmod(mode)
        listening.listen()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                for ask in (lambda: controlclient.ask(path, "status"), lambda: controlclient.isServed(path)):
                    try:
                        ask()
                    except NoServer as error:
                        os.write(writing, f"{error}\n".encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as lines:
            assert lines.read().splitlines() == 2 * [f"{path}: Permission denied: {said.format(path)}"]
        os.waitpid(child, 0)


@pytest.mark.parametrize("line", [b"220 mx ESMTP", b"\xff", b"{}", b"[1]", b"[]", b"7", b'{"ok": false}'])
def test_notOurs(tmp_path, line):
    """Another program that listens where a server should is told from one, in a sentence."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(line + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NoServer, match="what listens there is no ppolicy"):
            controlclient.ask(path, "status")
        thread.join()


def test_notAdmitted(tmp_path):
    """Whom the server does not admit cannot reach it either."""
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve():
            with listening.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(b'{"ok": false, "error": "not admitted: only root may use it"}\n')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(NoServer, match="not admitted: only root may use it"):
            controlclient.ask(path, "status")
        thread.join(5)


# Colours


def onTerminal(site, *words, environment=(), until=None, key=b"", stdout=None):
    """What `ppolicy` prints on a terminal, and its exit code."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, b"\x20\x00\x60\x00\x00\x00\x00\x00")
    process = subprocess.Popen(
        [*words],
        cwd=site,
        stdin=follower,
        stdout=stdout or follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", **dict(environment)},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(follower)
    seen, ends = b"", time.monotonic() + 60
    try:
        while time.monotonic() < ends:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    octets = os.read(leader, 65536)
                except OSError:  # nobody writes any more
                    break
                seen += octets
                if not octets:
                    break
            if until is not None and until in seen:
                os.write(leader, key)
                until = None
        return seen.decode(), process.wait(20)
    finally:
        process.kill()
        process.wait()
        os.close(leader)


@pytest.mark.parametrize(
    ("words", "environment", "isColoured"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": "1"}, False),
        ((), {"NO_COLOR": ""}, True),
        (("--color=never",), {}, False),
        (("--color=always",), {"NO_COLOR": "1"}, True),
    ],
)
def test_colours(site, words, environment, isColoured):
    """On a terminal there are colours, unless somebody wants none."""
    shown, code = onTerminal(site, "ppolicy", *words, "status", environment=environment)
    assert code == 3
    assert ("\x1b[31m" in shown) == isColoured
    assert "no server is running" in shown


@pytest.mark.parametrize(("words", "isColoured"), [((), False), (("--color=always",), True)])
def test_noTerminal(site, words, isColoured):
    """Where the output is no terminal there are colours only if they are asked for."""
    done = run(site, *words, "try", "Sleep")
    assert ("\x1b[32m   1\x1b[0m" in done.stdout) == isColoured, done
    assert "Sleep" in done.stdout


# Bars


def test_bar(site):
    """Long work shows on a terminal how far it is; not with JSON, and not elsewhere."""
    rows = site / "rows.csv"
    rows.write_text("".join(f"user{number}@example.net\n" for number in range(1200)))
    shown, code = onTerminal(site, "ppolicy", "list", "friends", "import", str(rows))
    assert code == 0, shown
    assert "100%" in shown
    assert "added: 1200" in shown
    with (site / "out").open("wb") as out:
        shown, code = onTerminal(site, "ppolicy", "list", "friends", "export", stdout=out)
    assert code == 0
    assert "100%" in shown
    assert "user7@" not in shown
    assert len((site / "out").read_text().splitlines()) == 1200
    shown, code = onTerminal(site, "ppolicy", "list", "friends", "import", "--json", str(rows))
    assert (shown.strip(), code) == ('{"added": 1200}', 0)
    done = run(site, "list", "friends", "import", str(rows))
    assert (done.stdout, done.stderr) == ("added: 1200\n", "")
    shown, code = onTerminal(site, "ppolicy", "db", "upgrade")
    assert code == 0
    assert "100%" in shown


# What is read


def test_importedAsMeant(site):
    """A line of white space is no empty value, and the mark at the begin of a file of Windows is none either."""
    rows = site / "rows.csv"
    rows.write_bytes(b'\xef\xbb\xbfalice@example.net\r\n \t\r\n\r\n""\r\n bob@example.net \r\n')
    assert run(site, "list", "friends", "import", str(rows)).stdout == "added: 3\n"
    found = json.loads(run(site, "list", "friends", "show", "--json").stdout)["rows"]
    assert [list(row.values())[0] for row in found] == ["", "alice@example.net", "bob@example.net"]


def test_statusIsPrintable(site, monkeypatch):
    """Whatever checks say of themselves, it does nothing to the terminal."""
    own = {"problem": "\x1b[2Jgone", "last": "\u202eoik", "\x9bmore": {"list": ["a", "\x07"]}, "none": None}
    status = {"health": [{"where": "own\x1b", "problem": "\x1b[2Jgone"}], "modules": {"own": {"status": own}}}
    monkeypatch.setattr("ppolicy.__main__.ask", lambda path, verb: json.loads(json.dumps(status)))
    shown = CliRunner().invoke(main, ["status"]).output
    assert shown.replace("\n", "").isprintable()
    assert "\\x1b[2Jgone" in shown
    assert "last: \\u202eoik" in shown


@pytest.mark.parametrize("value", ["John", 1e18, 1e300, float("inf")])
def test_noTime(value, capsys):
    """A column of a site's own list is shown whatever is in it, also when it is called as our times are."""
    terminal.table([{"first": value}, {"first": 0}])
    assert capsys.readouterr().out.split() == ["first", str(value), "0"]


def test_importOfNoCSV(site):
    """What is no CSV is told with its line."""
    rows = site / "rows.csv"
    rows.write_text("alice@example.net\n" + '"' + "bob@example.net\n" * 10_000)
    done = run(site, "list", "friends", "import", str(rows))
    assert done.returncode == 1
    assert done.stderr.startswith(f"{rows}: line ")


# How it ends


def test_hungUp(site):
    """When nobody reads any more, the command ends without a word."""
    rows = site / "rows.csv"
    rows.write_text("".join(f"user{number}@example.net\n" for number in range(3000)))
    assert run(site, "list", "friends", "import", str(rows)).returncode == 0
    for words in ("list friends export", "list friends show --limit 3000", "list friends export --json"):
        with subprocess.Popen(
            ["ppolicy", *words.split()], cwd=site, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.read(1)
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(20) == 141, words


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "words", ["check", "list friends import /dev/null", "list friends show", "completion bash"]
)
def test_closed(site, words, closed):
    """Who has closed its output, as a daemon may, hears how it went all the same."""
    done = subprocess.run(
        ["sh", "-c", f"ppolicy {words} {closed}"],
        cwd=site,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.replace("nothing found\n", "")) == (0, "")


def test_diskFull(site):
    """What cannot be printed is told in a sentence."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            ["ppolicy", "check"], cwd=site, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (1, "standard output: No space left on device\n")


def test_interrupted(site):
    """Ctrl-C ends a command with 130, without a traceback, and its state is closed in order."""
    process = subprocess.Popen(
        ["ppolicy", "try", "slow", "--write"],
        cwd=site,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )
    lock = site / "state" / "lock"
    deadline = time.monotonic() + 20
    while not lock.exists() or lock.read_text(encoding="ascii") != f"{process.pid}\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)  # it has begun; the check takes 20 s
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert not (site / "state" / "ppolicy.sqlite-wal").exists()


def test_otherErrors():
    """What nobody expected is a traceback, not a sentence."""

    @click.group(cls=terminal.Commands)
    def group():
        pass

    @group.command()
    @click.argument("kind")
    def fail(kind):
        raise {"error": PPolicyError("so it is"), "bug": ValueError("a bug")}[kind]

    assert (CliRunner().invoke(group, ["fail", "error"])).exit_code == 1
    assert isinstance(CliRunner().invoke(group, ["fail", "bug"]).exception, ValueError)


# Completion


def completed(site, line):
    """The words that bash offers at the end of a line, by the script that ppolicy prints."""
    *_, last = words = line.split(" ")
    load = 'eval "$(ppolicy completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))'
    ask = f'{load}; _ppolicy_completion ppolicy "$0"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f'{ask}; printf "%s\\n" "${{COMPREPLY[@]}}"', last, *words],
        cwd=site,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ppolicy relo", {"reload"}),
        ("ppolicy cache f", {"flush"}),
        ("ppolicy status --ch", {"--check"}),
        ("ppolicy completion ", {"bash", "zsh", "fish"}),
        ("ppolicy --color ", {"auto", "always", "never"}),
        ("ppolicy try ", {"greylist", "friends", "outgoing", "trapped", "slow"}),
        ("ppolicy try s", {"slow"}),
        ("ppolicy list ", {"friends"}),
        ("ppolicy list friends ex", {"export"}),
        ("ppolicy limit show ", {"outgoing"}),
        ("ppolicy trap list --check ", {"trapped"}),
        ("ppolicy greylist show --check g", {"greylist"}),
        ("ppolicy cache flush t", {"trapped"}),
        ("ppolicy -c other.conf try ", {"other"}),
        ("ppolicy try -c other.conf ", {"other"}),
        ("ppolicy try -c nowhere.conf ", set()),
        ("ppolicy try -c broken.conf ", set()),
    ],
)
def test_bash(site, line, expected):
    """Bash completes commands, options and the names of checks; a configuration with mistakes disturbs nothing."""
    (site / "other.conf").write_text(
        "print('x y')\nmodules = {'other': ('Dummy', {})}\ndef check(a, b, c): pass\n"
    )
    (site / "broken.conf").write_text("import sys\nprint('x')\nprint('y', file=sys.stderr)\nraise SystemExit(7)\n")
    assert set(completed(site, line)) == expected


def test_bashByTab(site):
    """On a terminal the tab key completes the line."""
    (site / "rc").write_text(
        'PS1="> "\nbind "set enable-bracketed-paste off"\neval "$(ppolicy completion bash)"\necho ready\n'
    )
    shown, _ = onTerminal(
        site,
        "bash",
        "--noprofile",
        "--rcfile",
        "rc",
        "-i",
        until=b"ready",
        key=b"ppolicy comp\tzs\t | head -1; exit\n",
    )
    assert "#compdef ppolicy" in shown


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_otherShells(site, shell):
    """The scripts for other shells are accepted by these, where they are."""
    done = run(site, "completion", shell)
    assert done.returncode == 0
    assert "_PPOLICY_COMPLETE" in done.stdout
    assert re.search(r"\bppolicy\b", done.stdout)
    if shutil.which(shell):
        (site / "script").write_text(done.stdout)
        subprocess.run([shell, "-n", str(site / "script")], check=True, timeout=20)


def test_notCommitted():
    """What completes is made when it is asked for, and lies nowhere in the project."""
    root = Path(__file__).parent.parent
    found = [
        path for path in root.glob("contrib/**/*") if path.is_file() and b"_PPOLICY_COMPLETE" in path.read_bytes()
    ]
    assert found == []
