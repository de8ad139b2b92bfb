"""
Where request lines go: every target with hostile values, real receivers, and what goes wrong with both.
"""

import grp
import gzip
import json
import os
import pwd
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stalls import took

from . import rsyslog
from .faults import rss
from .loglines import FIELDS, FORMS, hostileRequests, isHarmless, remembered
from .policyserver import Server
from .syslogreceiver import Receiver
from .wire import Wire, request

POLICY = """
def check(factory, data, port):
    return 'dunno', 'nothing'
"""

HOSTNAME = "mx.example.org"
# Seconds in which an answer has to come, whatever becomes of its line.
ANSWER = 1.0
# Seconds in which lines flow again after a fault.
RECOVERY = 10
# What a message may have, by the kind of receiver, in octets.
LONGEST = {"udp": 2048, "tcp": 8000, "unix": 8000, "stream": 8000}


@pytest.fixture(scope="module")
def needsRsyslog():
    if (problem := rsyslog.missing()) is not None:
        pytest.skip(f"LIVE TEST SKIPPED: {problem}")


@pytest.fixture
def rsyslogd(needsRsyslog):
    server = rsyslog.Rsyslog()
    try:
        yield server.start()
        print(server.log()[-2000:])
    finally:
        server.close()


def answered(server, *instances):
    """
    Ask once for each instance, on one connection. No answer may take long.
    """
    with Wire(server.address) as wire:
        for instance in instances:
            begin = time.monotonic()
            assert wire.ask(request(instance=instance)) == "dunno nothing"
            assert took(begin) < ANSWER, "an answer took too long"


def instancesOf(records, form="keyvalue"):
    return [FORMS[form](record)["instance"].decode() for record in records]


def until(true, seconds=RECOVERY):
    """
    Wait until something is true.

    @return: the seconds that it took.
    """
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - begin


def compare(asked, records, form, longest=None):
    """
    Each request has its record, in their order, and what was sent is read back from it; of a message that was cut
    there is the begin.
    """
    assert len(records) == len(asked)
    whole = 0
    for one, record in zip(asked, records, strict=True):
        assert isHarmless(record)
        if longest is not None and len(record.encode()) > longest:
            assert record.startswith(("time=", '{"time":'))
            continue
        whole += 1
        fields = FORMS[form](record)
        for name, attribute in FIELDS.items():
            if attribute in one:
                assert fields[name] in remembered(one[attribute]), (
                    f"{attribute} {one[attribute][:99]!r}: {record[:300]}"
                )
    assert whole > 0.9 * len(asked)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["stdout", "file", "udp", "tcp", "unix", "stream"])
def test_injection(makeServer, tmp_path, form, kind):
    """
    Whatever stands in the attributes, each decision is one record at each target, and reads back as it was.
    """
    asked = hostileRequests(random.Random(2), 500)
    receiver = None if kind in ("stdout", "file") else Receiver(kind, tmp_path)
    target = {"stdout": "stdout", "file": "requests.log"}.get(kind) or receiver.target
    server = makeServer(POLICY, requestLog=form, logTarget=target, domain=HOSTNAME)
    with Wire(server.address) as wire:
        for begin in range(0, len(asked), 500):
            part = asked[begin : begin + 500]
            assert set(wire.talk([request(**one) for one in part], len(part))) == {"dunno nothing"}
    if receiver is None:
        found = fromFile(server, len(asked) + 1) if kind == "file" else fromStdout(server, len(asked) + 1)
        compare(asked, found[1:], form)
        return
    messages = receiver.wait(len(asked) + 1)[1:]  # the first request was to see whether it has started
    receiver.stop()
    assert {(one.pri, one.version, one.hostname, one.app, one.msgid, one.data) for one in messages} == {
        ("22", "1", HOSTNAME, "ppolicy", "decision", "-")
    }
    assert {one.procid for one in messages} == {str(server.process.pid)}
    assert max(map(len, receiver.octets)) <= LONGEST[kind]
    header = len(receiver.octets[1]) - len(messages[0].msg.encode())
    compare(asked, [one.msg for one in messages], form, LONGEST[kind] - header - 8)


def fromFile(server, count):
    path = server.folder / "requests.log"
    until(lambda: path.read_bytes().count(b"\n") >= count)
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def fromStdout(server, count):
    def records():
        return [line.removesuffix("\n") for line in list(server.output) if line.startswith(("time=", "{"))]

    until(lambda: len(records()) >= count)
    for line in server.output:
        assert line.startswith(("time=", "{", "20", "\t")), line
    return records()


@pytest.mark.parametrize("module", ["imudp", "imtcp", "imptcp", "imuxsock"])
def test_rsyslog(makeServer, rsyslogd, module):
    """
    rsyslog understands each part of a message as it is meant.
    """
    values = [
        "plain@example.org",
        "a b",
        "\u017elu\u0165@k\u016f\u0148",
        "\x1b[2J\r\x85",
        "%s {0} <22>1 - - - -",
        b"\xff",
    ]
    before = time.time()
    server = makeServer(POLICY, logTarget=rsyslogd.targets[module], domain=HOSTNAME)
    with Wire(server.address) as wire:
        for value in values:
            wire.ask(request(sender=value, instance="the.one"))
        wire.ask(request(sender="x" * 60000, instance="the.one"))

    def ours(messages):
        return [one for one in messages if "instance=the.one " in one["msg"]]

    found = ours(rsyslogd.wait(lambda messages: len(ours(messages)) > len(values)))
    assert len(found) == len(values) + 1
    for one in found:
        assert one["input"] == module
        assert (one["pri"], one["version"], one["data"]) == ("22", "1", "-")
        assert (one["hostname"], one["app"], one["msgid"]) == (HOSTNAME, "ppolicy", "decision")
        assert one["procid"] == str(server.process.pid)
        assert before - 1 < time.mktime(time.strptime(one["time"][:19], "%Y-%m-%dT%H:%M:%S")) < time.time() + 1
    for value, one in zip(values, found, strict=False):
        msg = one["msg"].removeprefix("\ufeff")  # rsyslog leaves the mark of UTF-8 where it is
        assert FORMS["keyvalue"](msg)["sender"] in remembered(value)
    # Nothing came of the rest of a long line.
    assert all("ppolicy" in one["app"] for one in rsyslogd.messages())


class TestFaults:
    def test_absent(self, makeServer, rsyslogd):
        """
        A receiver that is not there when the server starts gets all lines once it is.
        """
        rsyslogd.stop()
        server = makeServer(POLICY, logTarget=rsyslogd.targets["imtcp"])
        answered(server, *map(str, range(50)))
        server.waitForLog("Connection refused; lines wait")
        rsyslogd.start()
        until(lambda: len(rsyslogd.messages()) > 50)
        assert instancesOf(one["msg"] for one in rsyslogd.messages())[1:] == list(map(str, range(50)))
        server.waitForLog("works again after")
        assert "no lines were lost" in server.log()
        assert server.log().count("Connection refused") == 1

    @pytest.mark.parametrize("module", ["imtcp", "imudp", "imptcp", "imuxsock"])
    def test_restarted(self, makeServer, rsyslogd, module):
        """
        One that is stopped and started again gets what was decided meanwhile, once, and the log says both.
        """
        server = makeServer(POLICY, logTarget=rsyslogd.targets[module])
        answered(server, "before")
        until(lambda: len(rsyslogd.messages()) == 2)
        rsyslogd.stop()
        for number in range(30):
            answered(server, f"during.{number}")
            time.sleep(0.05)
        server.waitForLog("lines wait")
        rsyslogd.start()
        recovered = until(lambda: "during.29" in instancesOf(one["msg"] for one in rsyslogd.messages()))
        answered(server, "after")
        until(lambda: instancesOf(one["msg"] for one in rsyslogd.messages())[-1] == "after")
        print(f"{module}: lines flow again after {recovered:.1f} s")
        found = instancesOf(one["msg"] for one in rsyslogd.messages())[1:]
        assert found == ["before", *(f"during.{number}" for number in range(30)), "after"]
        assert server.log().count("lines wait") == 1
        server.waitForLog("works again after")
        assert server.log().count("works again") == 1

    @pytest.mark.parametrize("module", ["imtcp", "imuxsock"])
    def test_frozen(self, makeServer, rsyslogd, module):
        """
        While one hangs, answers go on, memory is bounded, what does not fit is counted; then nothing is torn.
        """
        server = makeServer(POLICY, logTarget=rsyslogd.targets[module])
        answered(server, "before")
        memory = rss(server)
        rsyslogd.freeze()
        count, longest = 0, 0.0
        with Wire(server.address) as wire:
            while count < 70_000:
                begin = time.monotonic()
                wire.talk([b"".join(request(instance=f"n.{count + number}.end") for number in range(500))], 500)
                longest = max(longest, time.monotonic() - begin)
                count += 500
        until(lambda: "lines wait" in server.log() or "lines are lost" in server.log())
        for number in range(20):
            answered(server, f"late.{number}")
        grown = rss(server) - memory
        rsyslogd.thaw()
        recovered = until(lambda: "works again" in server.log())
        answered(server, "after")
        until(lambda: "after" in instancesOf(one["msg"] for one in rsyslogd.messages()))
        lost = status(server)["dropped"]
        print(f"{module}: 500 answers in {longest:.2f} s, {grown / 1e6:.0f} MB more, {lost} lost", end=", ")
        print(f"again in {recovered:.1f} s")
        assert longest < 5
        assert grown < 100e6
        found = instancesOf(one["msg"] for one in rsyslogd.messages())
        assert len(found) == len(set(found))
        assert 0 < lost == count + 20 + 3 - len(found)
        assert f"{lost} lines were lost" in server.log()

    def test_killed(self, makeServer, rsyslogd):
        """
        Of one that dies without a word, at most what it had already taken is lost, and nothing comes twice.
        """
        server = makeServer(POLICY, logTarget=rsyslogd.targets["imtcp"])
        answered(server, *(f"before.{number}" for number in range(20)))
        until(lambda: len(rsyslogd.messages()) == 21)
        rsyslogd.kill()
        answered(server, *(f"during.{number}" for number in range(20)))
        server.waitForLog("lines wait")
        rsyslogd.start()
        until(lambda: len(rsyslogd.messages()) == 41)
        found = instancesOf(one["msg"] for one in rsyslogd.messages())
        assert len(found) == len(set(found))

    def test_stopWhileItHangs(self, makeServer, rsyslogd):
        """
        The server ends in time although lines wait for a host that does not answer, and says how many are lost.
        """
        server = makeServer(POLICY, logTarget=rsyslogd.targets["imtcp"])
        rsyslogd.freeze()
        with Wire(server.address) as wire:
            for _ in range(100):
                wire.talk([b"".join(request() for _ in range(500))], 500)
        assert server.terminate() < 5
        assert " lines are lost" in server.log()

    def test_unknownHost(self, makeServer):
        """
        A host whose name is not known does no harm.
        """
        server = makeServer(POLICY, logTarget="syslog:tcp:nobody.invalid:514")
        answered(server, *map(str, range(20)))
        server.waitForLog("syslog:tcp:nobody.invalid:514: ", 30)
        answered(server, *map(str, range(20)))
        assert server.terminate() < 5

    def test_slowStdout(self, tmp_path):
        """
        Nobody reads what the server prints: answers go on, whatever is logged, and it ends in time.
        """
        server = Server()
        server.configure(POLICY.replace("return", "import logging; logging.warning('x' * 900)\n    return"))
        server.process = subprocess.Popen(
            server.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            until(lambda: canBeAsked(server), 20)
            for number in range(300):
                answered(server, str(number))
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(10) == 0
        finally:
            server.process.stdout.close()
            server._reader = None
            server.close()


def canBeAsked(server):
    try:
        with Wire(server.address) as wire:
            return bool(wire.ask(request()))
    except OSError:
        return False


def status(server):
    """
    That of the request log, as `ppolicy status` has it.
    """
    return server.status()["backends"]["requestLog"]


@contextmanager
def tinyDisk(folder, wanted):
    """
    A folder on a disk of 256 KB; None where that is not wanted, or cannot be mounted.
    """
    folder.mkdir()
    mounted = wanted and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "ppolicy-test", str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], stdin=subprocess.DEVNULL, check=True)


class TestFile:
    @pytest.mark.parametrize("how", ["disk", "limit"])
    def test_fullDisk(self, makeServer, tmp_path, how):
        """
        On a full disk answers go on; once there is room again all lines are in the file, each of them whole.
        """
        with tinyDisk(tmp_path / "disk", how == "disk") as disk:
            path = (disk or tmp_path) / "requests.log"
            server = makeServer(POLICY, logTarget=str(path))
            answered(server, "first")
            if disk is not None:
                with (disk / "filler").open("wb", buffering=0) as filler:
                    fill(filler)
            else:
                until(lambda: path.stat().st_size > 0)
                limit = (path.stat().st_size + 5000, resource.RLIM_INFINITY)
                resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limit)
            for number in range(0, 300, 10):
                answered(server, *(f"full.{number + more}" for more in range(10)))
            server.waitForLog("; lines wait")
            print("full: " + ("a disk of 256 KB" if disk else "RLIMIT_FSIZE"))
            if disk is not None:
                (disk / "filler").unlink()
            else:
                resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            until(lambda: "works again" in server.log())
            answered(server, "last")
            until(lambda: "instance=last " in path.read_text())
            assert instancesOf(path.read_text().splitlines())[1:] == [
                "first",
                *(f"full.{number}" for number in range(300)),
                "last",
            ]
            assert server.log().count("lines wait") == 1
            server.terminate()

    def test_removedWithItsFolder(self, makeServer):
        """
        A log whose folder is taken away goes on once there is one again.
        """
        server = Server()
        (server.folder / "logs").mkdir()
        server.configure(POLICY, logTarget="logs/requests.log")
        try:
            server.start()
            path = server.folder / "logs" / "requests.log"
            until(path.exists)
            path.unlink()
            path.parent.rmdir()
            answered(server, "without")
            server.waitForLog(f"{path}: No such file or directory; lines wait")
            path.parent.mkdir()
            until(lambda: path.exists() and "instance=without " in path.read_text())
            assert instancesOf(path.read_text().splitlines())[-1:] == ["without"]
        finally:
            server.close()

    def test_missingFolder(self, makeServer):
        """
        A folder that is not there is found by `ppolicy check`, with file and line.
        """
        server = makeServer(POLICY)
        server.configure(POLICY, logTarget="logs/requests.log")
        done = server.ppolicy("check")
        assert done.returncode != 0
        assert f"ppolicy.conf:3: logTarget: there is no folder {server.folder}/logs" in done.stderr

    @pytest.mark.parametrize("how", ["moved", "copytruncate", "create"])
    def test_rotation(self, makeServer, how):
        """
        Whichever way logrotate does it, and told by SIGHUP or not, each decision is in one of the files.
        """
        server = makeServer(POLICY, logTarget="requests.log")
        path = server.folder / "requests.log"
        wanted, pieces = [], []
        for number in range(6):
            wanted += [f"{number}.{more}" for more in range(50)]
            answered(server, *wanted[-50:])
            until(lambda: path.exists() and f"instance={wanted[-1]} " in path.read_text())
            if how == "copytruncate":
                pieces.append(path.read_text())
                os.truncate(path, 0)
            else:
                old = path.rename(path.with_suffix(f".{number}"))
                if how == "create":
                    path.touch(0o640)
                pieces.append(old.read_text())
            if number % 2:
                server.hangUp()
        pieces.append(path.read_text() if path.exists() else "")
        found = instancesOf("".join(pieces).splitlines())
        assert [one for one in found if "." in one and not one.startswith("live")] == wanted
        if how != "copytruncate":
            answered(server, "end")
            until(lambda: path.exists() and "instance=end " in path.read_text())
            assert path.stat().st_mode & 0o777 == 0o640

    def test_logrotate(self, makeServer):
        """
        The shipped configuration for logrotate rotates, compresses, and loses no line.
        """
        program = "/usr/sbin/logrotate"
        if not Path(program).exists():
            pytest.skip(f"LIVE TEST SKIPPED: {program} is missing (Debian package logrotate)")
        server = makeServer(POLICY, logTarget="requests.log")
        path = server.folder / "requests.log"
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        text = (Path(__file__).parents[2] / "contrib" / "logrotate" / "ppolicy").read_text()
        text = text.replace("/var/log/ppolicy/*.log {", f"{server.folder}/*.log {{").replace(
            "su ppolicy ppolicy", f"su {user} {group}"
        )
        shipped = server.folder / "logrotate.conf"
        shipped.write_text(text)
        shipped.chmod(0o644)
        for number in range(3):
            answered(server, f"line.{number}")
            until(lambda: path.exists() and f"instance=line.{number} " in path.read_text())
            command = [program, "--force", "--state", str(server.folder / "rotated"), str(shipped)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
        old = [server.folder / name for name in ("requests.log.3.gz", "requests.log.2.gz", "requests.log.1")]
        found = [gzip.decompress(one.read_bytes()) if one.suffix == ".gz" else one.read_bytes() for one in old]
        for number, piece in enumerate(found):
            assert instancesOf(piece.decode().splitlines())[-1] == f"line.{number}"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_privileges(self, makeServer):
        """
        The file is opened, and after rotation opened anew, as the user that the server runs as; where that one may
        not, the start is refused with a sentence.
        """
        nobody = pwd.getpwnam("nobody")
        server = Server()
        try:
            logs = server.folder / "logs"
            logs.mkdir()
            os.chown(logs, nobody.pw_uid, nobody.pw_gid)
            server.configure(POLICY, logTarget="logs/requests.log", user="nobody")
            server.start()
            path = logs / "requests.log"
            until(path.exists)
            path.rename(path.with_suffix(".1"))
            answered(server, "rotated")
            until(lambda: path.exists() and "instance=rotated " in path.read_text())
            assert path.stat().st_uid == nobody.pw_uid
            server.terminate()
            os.chown(logs, 0, 0)
            path.unlink()
            with pytest.raises(AssertionError, match=f"logTarget: {path}: Permission denied"):
                server.start()
        finally:
            server.close()


def fill(file):
    """
    Write until the disk is full.
    """
    try:
        while True:
            file.write(b"x" * 1024)
    except OSError:
        pass


class TestEventLog:
    def test_json(self, makeServer):
        """
        With eventLog = 'json' each event is an object on one line, with the instance of the request it is about.
        """
        server = makeServer(
            "def check(factory, data, port):\n    raise ValueError(data['sender'])\n", eventLog="json"
        )
        with Wire(server.address) as wire:
            wire.ask(request(sender="\x1b[2J\u2028x", instance="the.one"))
        server.waitForLog("the.one", 3)
        events = [json.loads(line) for line in server.output if line.startswith("{")]
        assert len(events) + sum(line.startswith("time=") for line in server.output) == len(server.output)
        (event,) = [one for one in events if one.get("instance") == "the.one"]
        assert (event["level"], event["text"]) == ("error", "the policy failed")
        assert "ValueError" in event["traceback"]
        assert all(isHarmless(line.rstrip("\n")) for line in server.output)

    def test_twistd(self, tmp_path):
        """
        twistd takes either form with --logger.
        """
        server = Server()
        try:
            server.configure(POLICY, requestLog=None)
            tac = str(Path(__file__).parents[2] / "ppolicy.tac")
            command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
            command += ["-noy", tac, "--pidfile=", "--logger=ppolicy.eventlog.jsonLines"]
            server.command = lambda: command
            server.surroundings = lambda: {"env": os.environ | {"PPOLICY_CONF": str(server.configuration)}}
            server.start()
            server.terminate()
            texts = [json.loads(line)["text"] for line in server.output]
            assert any("serves" in text for text in texts)
            assert texts[-1] == "Server Shut Down."
        finally:
            server.close()
