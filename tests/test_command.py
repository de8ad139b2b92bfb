"""
Tests for the ppolicy command, as far as it needs no running server.
"""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

CONF = """
stateDir = 'state'
modules = {'greylist': ('Greylist', {'delay': 300}), 'dummy': ('Dummy', {})}
def check(factory, data, port):
    factory.check('dummy', data)
    code, info = factory.check('greylist', data)
    if data['sender'] == 'raise@x':
        raise ValueError('as asked')
    return ('DEFER_IF_PERMIT', info[0]) if code < 0 else None
"""
REQUEST = (
    "request=smtpd_access_policy\nsender=a@example.net\nrecipient=b@example.org\nclient_address=192.0.2.1\n\n"
)


@pytest.fixture
def run(tmp_path):
    """Run the command in a folder with a configuration: (exit code, output, error output)."""
    (tmp_path / "ppolicy.conf").write_text(CONF)

    def run(*words, stdin=""):
        done = subprocess.run(
            [sys.executable, "-m", "ppolicy", *words],
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    run.folder = tmp_path
    return run


def test_check(run):
    """A good configuration is told so."""
    code, out, _ = run("check")
    assert (code, out) == (0, f"{run.folder}/ppolicy.conf: 2 checks, no mistake\n")
    assert not (run.folder / "state").exists()


def test_checkOne(run):
    """One check is one."""
    one = "modules = {'dummy': ('Dummy', {})}\ndef check(factory, data, port):\n    return 'dunno'\n"
    (run.folder / "ppolicy.conf").write_text(one)
    assert run("check")[1] == f"{run.folder}/ppolicy.conf: 1 check, no mistake\n"


def test_checkMistakes(run):
    """Mistakes are told with file and line, and the exit code is 1."""
    (run.folder / "ppolicy.conf").write_text("conLimit = 3\n" + CONF.replace("delay", "dely"))
    code, out, err = run("check")
    assert (code, out) == (1, "")
    assert err.split("\n") == [
        f"{run.folder}/ppolicy.conf:1: conLimit is no option, did you mean connLimit?",
        f"{run.folder}/ppolicy.conf:4: greylist (Greylist): dely: no such parameter, did you mean delay?",
        "",
    ]


def test_checkStart(run):
    """What only start() can find is found as well."""
    (run.folder / "ppolicy.conf").write_text(CONF.replace("'delay': 300", "'table': 'no table'"))
    code, _, err = run("check")
    assert code == 1
    assert "greylist (Greylist): 'no table' is no name for a table" in err


def test_checkListFile(run):
    """A mistake in the file of a list is told with that file and its line; so is a warning."""
    file = run.folder / "traps.txt"
    lists = "modules = {'traps': ('List', {'param': 'recipient', 'file': 'traps.txt'})}\n"
    (run.folder / "ppolicy.conf").write_text(lists + "def check(factory, data, port):\n    return 'dunno'\n")
    place = f"{run.folder}/ppolicy.conf:1: traps (List): {file}"
    code, _, err = run("check")
    assert (code, err) == (1, f"{place}: No such file or directory\n")
    file.write_text("a@example.org\n@\n")
    code, _, err = run("check")
    assert (code, err) == (1, f"{place}:2: @: after the @ there is no domain\n")
    file.write_text("a@example.org\n*@example.net\n")
    code, out, err = run("check", "--json")
    assert (code, err[: err.index(" a *")]) == (0, f"warning: {file}:2: *@example.net:")
    assert [(one["file"], one["line"]) for one in json.loads(out)["warnings"]] == [(str(file), 2)]


def test_checkListFileOfSeveral(run):
    """However many checks use a file, its warnings are told once."""
    (run.folder / "words.txt").write_text("*@example.net\n")
    lists = (
        "modules = {name: ('List', {'param': name, 'file': 'words.txt'}) for name in ('sender', 'recipient')}\n"
    )
    (run.folder / "ppolicy.conf").write_text(lists + "def check(factory, data, port):\n    return 'dunno'\n")
    _, out, err = run("check", "--json")
    assert (len(json.loads(out)["warnings"]), err.count("words.txt:1")) == (1, 1)


OLD = """
from ppolicy.Base import Base

class Old(Base):
    def start(self):
        connection = self.factory.getDbConnection()
        connection.cursor().execute('CREATE TABLE IF NOT EXISTS old (sender VARCHAR(255))')
        connection.commit()
        self.factory.releaseDbConnection(connection)
    def check(self, data, *args, **keywords):
        connection = self.factory.getDbConnection()
        connection.cursor().execute('INSERT INTO old VALUES (?)', [data['sender']])
        connection.commit()
        return 1, 'written'

stateDir = 'state'
modules = {'old': (Old, {})}
def check(factory, data, port):
    return 'WARN', factory.check('old', data)[1]
"""


def test_checkOldModule(run):
    """A module of 2.7 that creates its tables in start() is no mistake: `ppolicy check` has no database for it."""
    (run.folder / "ppolicy.conf").write_text(OLD)
    code, out, err = run("check")
    assert (code, out) == (0, f"{run.folder}/ppolicy.conf: 1 check, no mistake\n")
    warning = "old (Old): start() is not tried to its end, it asks the database: no database is open"
    assert err == f"warning: {run.folder}/ppolicy.conf:17: {warning}\n"
    assert not (run.folder / "state").exists()
    # only where it has asked for it
    (run.folder / "ppolicy.conf").write_text(
        OLD.replace("        connection = self", "        raise OSError\n#", 1)
    )
    assert run("check")[0] == 1


def test_dryRunOfOldModule(run):
    """What a module of 2.7 writes into the database is written with --write only."""
    (run.folder / "ppolicy.conf").write_text(OLD)
    assert "unable to open database file" in run("try", "old")[2]  # nor is it made
    assert not (run.folder / "state").exists()
    assert "'written'" in run("try", "--write", "old", "sender=a")[1]
    _, out, err = run("explain", stdin="sender=b\n\n")
    assert "failed with exception" in out
    assert "readonly database" in err
    with closing(sqlite3.connect(run.folder / "state" / "ppolicy.sqlite")) as connection:
        assert connection.execute("SELECT sender FROM old").fetchall() == [("a",)]
    assert (run.folder / "state" / "ppolicy.sqlite").stat().st_mode & 0o777 == 0o640


def test_checkDead(run):
    """What 2.7 could still use, and always answers 0 now, is told."""
    (run.folder / "GeoIP.dat").write_bytes(bytes(2000))
    (run.folder / "ppolicy.conf").write_text(
        "modules = {'a': ('Dnsbl', {'dnsbl': 'NJABL'}), 'b': ('DnsblScore', {'dnsbl': ['NJABL', 'SORBS']}),\n"
        "           'c': ('Country', {'dataPath': 'GeoIP.dat'})}\ndef check(factory, data, port): pass\n"
    )
    code, _, err = run("check")
    legacy, first, second, end = err.split("\n")
    assert (code, end) == (0, "")
    assert legacy.startswith(f"warning: {run.folder}/GeoIP.dat: it has the format GeoIP.dat, which is not read")
    assert first.startswith("warning: NJABL (njabl.org) is dead since March 2013: ")
    assert second == "warning: SORBS (sorbs.net) is dead since June 2024: it was emptied; the answer is always 0"


def test_checkPostfix(run):
    """The lines for main.cf name the listener."""
    _, out, _ = run("check", "--postfix")
    assert "reject_unauth_destination,\n    check_policy_service { inet:127.0.0.1:10031, timeout=35s," in out


def test_explain(run):
    """Every step is shown with code, time and information; nothing is changed."""
    for _ in range(2):
        code, out, _ = run("explain", stdin=REQUEST)
        assert code == 0
        dummy, greylist, action, _ = out.split("\n")
        assert dummy.split()[:2] == ["dummy", "0"]
        assert greylist.split()[:2] == ["greylist", "-1"]
        assert action == "action=DEFER_IF_PERMIT greylisting in progress: 300s"
    assert not (run.folder / "state").exists()


@pytest.mark.parametrize(
    ("port", "shown"),
    [
        ("[10040, 10041]", "127.0.0.1|10040|"),
        ("'*:10040'", "127.0.0.1|10040|"),
        ("'[::1]:10040'", "::1|10040|"),
        ("'unix:sock'", "||{folder}/sock"),
        ("'systemd:domain=INET:index=0'", "127.0.0.1||"),
    ],
)
def test_explainPort(run, port, shown):
    """The request came in at the first of the configured ports."""
    (run.folder / "ppolicy.conf").write_text(
        f"ppolicyPort = {port}\ndef check(factory, data, port):\n"
        "    return 'WARN', f'{port.host}|{port.port}|{port.path}'\n"
    )
    _, out, _ = run("explain", stdin=REQUEST)
    assert out == f"action=WARN {shown.format(folder=run.folder)}\n"


@pytest.mark.parametrize(
    ("port", "shown"),
    [
        ("10041", "127.0.0.1|10041|"),
        ("[::1]:10041", "::1|10041|"),
        ("192.0.2.1:10042", "192.0.2.1|10042|"),
        ("*:10042", "127.0.0.1|10042|"),
        ("unix:sock", "||{folder}/sock"),
        ("systemd:domain=INET:index=0", "127.0.0.1||"),
    ],
)
def test_explainOtherPort(run, port, shown):
    """With --port it came in at another one."""
    (run.folder / "ppolicy.conf").write_text(
        "ppolicyPort = [10040, 10041, '*:10042', 'unix:sock:mode=666', 'systemd:domain=INET:index=0']\n"
        "def check(factory, data, port):\n    return 'WARN', f'{port.host}|{port.port}|{port.path}'\n"
    )
    _, out, _ = run("explain", "--port", port, stdin=REQUEST)
    assert out == f"action=WARN {shown.format(folder=run.folder)}\n"


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ("10043", "ppolicyPort has no 127.0.0.1:10043; there is 127.0.0.1:10031, [::1]:10031"),
        ("tcp:10031", "ppolicyPort has no tcp:10031; there is 127.0.0.1:10031, [::1]:10031"),
        ("70000", "70000 is no port number, these are 1 to 65535"),
    ],
)
def test_explainNoPort(run, port, said):
    """A port where the server does not listen is refused, and those where it does are named."""
    assert run("explain", "--port", port, stdin=REQUEST) == (1, "", f"--port: {said}\n")


def test_explainOverlay(run):
    """Requests of one run see each other's writes, in memory."""
    code, out, _ = run("explain", "--json", stdin=REQUEST + REQUEST)
    assert code == 0
    first, second = map(json.loads, out.splitlines())
    assert [step["cached"] for step in first["steps"]] == [False, False]
    assert [step["cached"] for step in second["steps"]] == [True, False]


def test_explainWrite(run):
    """With --write the state is changed for real, and read back by a dry run."""
    run("explain", "--write", stdin=REQUEST)
    assert (run.folder / "state" / "ppolicy.sqlite").exists()
    time.sleep(1)
    _, out, _ = run(
        "try", "greylist", "sender=a@example.net", "recipient=b@example.org", "client_address=192.0.2.1"
    )
    seconds = int(out.rpartition(", ")[2].rstrip(")\n"))
    assert seconds < 300


def test_explainWriteAfterCrash(run, tmp_path):
    """The socket of a server that was killed is no server."""
    (tmp_path / "state").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "state" / "control.sock"))
    code, out, err = run("explain", "--write", stdin=REQUEST)
    assert (code, err) == (0, "")
    assert "action=" in out


def test_explainError(run):
    """A policy that raises is shown with its error, and the exit code is 1."""
    code, out, err = run("explain", stdin=REQUEST.replace("a@example.net", "raise@x"))
    assert code == 1
    assert f"error: {run.folder}/ppolicy.conf:8: ValueError: as asked" in err
    assert "action=450 " in out


def test_explainMany(run):
    """Of several requests each is told with what it is about; in JSON each is a line."""
    requests = REQUEST + REQUEST.replace("a@example.net", "c\x1b@example.net")
    _, out, _ = run("explain", stdin=requests)
    about = "client 192.0.2.1  <{}> to <b@example.org>"
    assert [line.strip() for line in out.split("\n") if " to " in line] == [
        about.format(sender) for sender in ("a@example.net", "c\\x1b@example.net")
    ]
    assert " to <" not in run("explain", stdin=REQUEST)[1]
    assert len(run("explain", "--json", stdin=requests)[1].splitlines()) == 2


@pytest.mark.parametrize("words", [["try", "mine"], ["explain"]])
def test_failure(run, words):
    """A check that fails is shown with its traceback."""
    conf = (
        "from ppolicy.check import Check\nclass Mine(Check):\n"
        "    def check(self, data):\n        return 1, 1 / 0\n"
        "modules = {'mine': (Mine, {})}\ndef check(factory, data, port):\n    factory.check('mine', data)\n"
    )
    (run.folder / "ppolicy.conf").write_text(conf)
    code, out, err = run(*words, stdin=REQUEST)
    assert (code, out.split()[:2]) == (0, ["mine", "0"])
    assert "mine failed\n" in err and 'ppolicy.conf", line 4' in err and "ZeroDivisionError" in err


def test_explainAttributes(run):
    """What is not given is empty, as Postfix would have it."""
    conf = "def check(factory, data, port):\n    return 'WARN', repr([data['sasl_username'], data['size']])\n"
    (run.folder / "ppolicy.conf").write_text(conf)
    assert run("explain", stdin="sender=a@example.net\n")[1] == "action=WARN ['', '0']\n"


@pytest.mark.parametrize("stdin", ["", "\n\n\n"])
def test_explainNothing(run, stdin):
    """No request is an error that says what a request is."""
    code, _, err = run("explain", stdin=stdin)
    assert code == 1
    assert "lines name=value" in err


def test_explainNoRequest(run):
    """What is no request is not taken for an empty one; the line is named."""
    code, out, err = run("explain", stdin="sender=a@example.net\n \nclient: 192.0.2.1\n")
    assert (code, out) == (1, "")
    assert err == "line 3 of the request is no name=value: 'client: 192.0.2.1'\n"


def test_attributes(run):
    """Of an attribute that Postfix does not send the name may be a mistake, or one that the policy knows."""
    code, _, err = run("try", "dummy", "sendr=a@example.net", "score=3", "sender=b@example.net")
    assert (code, err) == (0, "warning: Postfix sends no 'sendr', did you mean sender?\n")
    assert run("explain", stdin="reciepient=a@example.net\n")[2].startswith(
        "warning: Postfix sends no 'reciepient'"
    )


def test_try(run):
    """A check is asked by its name, or a module type with default parameters."""
    assert run("try", "dummy")[1].split()[:2] == ["dummy", "0"]
    assert run("try", "Sleep")[1].split()[:2] == ["Sleep", "1"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nothing"], "nothing is no configured check (there is greylist, dummy)"),
        (["dummy", "word"], "'word' is no attribute=value"),
        (["DumpDataFile"], "DumpDataFile: fileName: is required"),
    ],
)
def test_tryWrong(run, words, error):
    """What cannot be tried is told in a sentence."""
    code, _, err = run("try", *words)
    assert code == 1
    assert error in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["status"], ["reload"], ["cache", "flush"]])
def test_noServer(run, words):
    """Commands for a running server say when none runs, how to start one, and have an exit code for it."""
    code, out, err = run(*words)
    assert (code, out) == (3, "")
    first, second, _ = err.split("\n")
    assert first == f"no server is running: there is no socket {run.folder}/state/control.sock"
    assert "`ppolicy run`" in second


def test_noConfiguration(run):
    """Without any configuration the places are named where it was looked for."""
    (run.folder / "ppolicy.conf").unlink()
    code, _, err = run("check")
    assert code == 1
    assert "/etc/ppolicy/ppolicy.conf" in err


@pytest.mark.parametrize(
    "words", [[], ["check"], ["run"], ["status"], ["reload"], ["cache", "flush"], ["try"], ["explain"]]
)
def test_help(run, words):
    """Each command has a help."""
    code, out, _ = run(*words, "--help")
    assert code == 0
    assert out.startswith("Usage: ppolicy")


def test_loadsLittle(run):
    """What a command needs to ask a running server is there at once: nothing large is imported for it."""
    program = f"""
import sys
from ppolicy.__main__ import main
try:
    main(["status", "-c", {str(run.folder / "ppolicy.conf")!r}])
except SystemExit as end:
    print(end.code, sorted({{"twisted", "sqlalchemy", "dns", "greenlet"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "3 []\n", done.stderr
