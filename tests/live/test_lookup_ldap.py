"""
LookupLDAP with a real OpenLDAP server: TLS, logins, hostile values, and a server that hangs, ends and comes back.
"""

import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from twisted.internet import reactor
from twisted.internet.defer import DeferredList, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ppolicy.bridge import Bridge
from ppolicy.state import StateStore
from ppolicy.testing import make, waiting
from tests.stalls import took

from . import slapd
from .mariadb import MariaDB
from .policyclient import PolicyClient
from .proxy import Proxy
from .slapd import BASE, PASSWORD, READER, Slapd, entry

PERSON = ["inetOrgPerson", "extensibleObject"]

# Values that a client may send, each of them somebody's name.
HOSTILE = [
    "*",
    "(",
    ")",
    "\\",
    "\\2a",
    "a*",
    "a)(uid=*",
    "*)(objectClass=*",
    "(|(uid=*))",
    "a\0b",
    "\x01\x7f",
    "%m",
    "%u%%{0}",
    "&|!=~<>",
    "#,+;\"'",
    "é",
    "\u2028",
    "\N{PILE OF POO}",
    "x" * 5000,
]
# No text, so no value of a text attribute; what they look like is there.
NO_TEXT = ["a\udcff", "\udc80*", "\udcc3"]


def person(uid, **more):
    return entry(f"uid={uid},{BASE}", objectClass=PERSON, uid=uid, cn=uid, sn=uid, **more)


ENTRIES = (
    person("alice", mail=["alice@example.org", "Alice.A@example.org"], jpegPhoto=b"\xff\xd8", description="ä")
    + entry(
        f"uid=hidden,ou=private,{BASE}", objectClass=PERSON, uid="hidden", cn="h", sn="h", mail="h@example.org"
    )
    + "".join(person(f"many{number}", mail="many@example.org") for number in range(30))
    + "".join(person(f"hostile{number}", description=value) for number, value in enumerate(HOSTILE))
    + entry(
        f"ou=elsewhere,{BASE}",
        objectClass=["referral", "extensibleObject"],
        ou="elsewhere",
        ref="ldap://127.0.0.1:9/",
    )
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    if (problem := slapd.missing()) is not None:
        pytest.skip(f"LIVE TEST SKIPPED: {problem}")
    folder = tmp_path_factory.mktemp("tls")
    _, authority = MariaDB.tls(folder)
    server = Slapd(ENTRIES, tls=folder)
    server.authority = authority
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="class")
def answering(request, directory):
    """
    The running server, as C{server} of the test class.
    """
    request.cls.server = directory


class Asking(TestCase):
    """
    A check in this process.
    """

    timeout = 60

    def setUp(self):
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)

    def check(self, **parameters):
        given = {"param": "recipient", "uri": self.server.uri, "base": BASE, **parameters}
        check = make("LookupLDAP", state=StateStore(self.bridge), **given)
        check.start()
        self.addCleanup(check.stop)
        return check

    def ask(self, check, value, timeout=30.0):
        asked = waiting(self.bridge, check.check, {"recipient": value}, timeout=timeout)
        return asked.addCallback(lambda answer: answer[:2])

    def folder(self):
        """
        A folder that is gone after the test.
        """
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)

    @inlineCallbacks
    def until(self, check, value, seconds):
        """
        Ask until the value is found; returns how long that took.
        """
        begin = time.monotonic()
        while (yield self.ask(check, value))[0] != 1:
            self.assertLess(took(begin), seconds, "it takes too long")
            yield deferLater(reactor, 0.05)
        return took(begin)

    def makeServer(self, *arguments, **keywords):
        server = Slapd(*arguments, **keywords)
        self.addCleanup(server.close)
        return server.start()


@pytest.mark.usefixtures("answering")
class AnswerTests(Asking):
    """
    What it answers.
    """

    @inlineCallbacks
    def test_entries(self):
        """
        Found is who is there, with the attributes asked for; texts as texts, octets as octets.
        """
        check = self.check(attributes=["UID", "mail", "jpegPhoto", "description", "nothing"])
        expected = {
            "UID": ["alice"],
            "mail": ["alice@example.org", "Alice.A@example.org"],
            "jpegPhoto": [b"\xff\xd8"],
            "description": ["ä"],
        }
        for value in ("alice@example.org", "ALICE.A@EXAMPLE.ORG"):
            self.assertEqual((1, [(f"uid=alice,{BASE}", expected)]), (yield self.ask(check, value)))
        self.assertEqual((-1, []), (yield self.ask(check, "bob@example.org")))
        code, entries = yield self.ask(self.check(attributes="1.1"), "alice@example.org")
        self.assertEqual((1, [(f"uid=alice,{BASE}", {})]), (code, entries))
        _, entries = yield self.ask(self.check(), "alice@example.org")
        self.assertEqual(PERSON, entries[0][1]["objectClass"])

    @inlineCallbacks
    def test_scope(self):
        """
        The scope says how deep is searched.
        """
        for scope, base, code in (
            ("subtree", BASE, 1),
            ("onelevel", BASE, 1),
            ("base", BASE, -1),
            ("base", f"uid=alice,{BASE}", 1),
            ("onelevel", f"uid=alice,{BASE}", -1),
        ):
            found = yield self.ask(self.check(scope=scope, base=base), "alice@example.org")
            self.assertEqual(code, found[0], (scope, base))

    @inlineCallbacks
    def test_parts(self):
        """
        The local part and the domain can be searched for.
        """
        check = self.check(filter="(&(uid=%u)(mail=*@%d))")
        for value, code in (
            ("Alice@example.org", 1),
            ("alice", -1),
            ("alice@example.com", -1),
            ("alice.a@example.org", -1),
            ("*@example.org", -1),
            ("alice@*", -1),
        ):
            self.assertEqual(code, (yield self.ask(check, value))[0], value)

    @inlineCallbacks
    def test_hostile(self):
        """
        Whatever a value has in it, it finds only what it names.
        """
        check = self.check(filter="(description=%m)", attributes=["uid"])
        for number, value in enumerate(HOSTILE):
            code, found = yield self.ask(check, value)
            self.assertEqual((1, [f"hostile{number}"]), (code, found and found[0][1]["uid"]), value[:20])
            self.assertEqual(1, len(found))
        for value in (*NO_TEXT, "**", "hostile*", "a)(uid=hostile0", "*)(uid=*))(|(uid=*"):
            self.assertEqual((-1, []), (yield self.ask(check, value)), value)
        for value in (*HOSTILE, *NO_TEXT):
            for text in ("(mail=%m)", "(&(mail=%u)(uid=%d))", "(|(mail=%m)(uid=%u))"):
                found = yield self.ask(self.check(filter=text), value)
                self.assertEqual(-1, found[0], (text, value[:20], found))

    @inlineCallbacks
    def test_login(self):
        """
        What only the reader may see is found with its password, from the configuration or from a file.
        """
        self.assertEqual((-1, []), (yield self.ask(self.check(), "h@example.org")))
        check = self.check(bind_dn=READER, bind_pass=PASSWORD)
        self.assertEqual(1, (yield self.ask(check, "h@example.org"))[0])
        path = self.folder() / "password"
        path.write_text(f"{PASSWORD}\n", encoding="utf-8")
        check = self.check(
            bind_dn=READER, bind_pass_file=str(path), startTLS=True, caFile=str(self.server.authority)
        )
        self.assertEqual(1, (yield self.ask(check, "h@example.org"))[0])

    @inlineCallbacks
    def test_wrongPassword(self):
        """
        With a wrong password nobody is found or not found, and it is tried once in 30 seconds only.
        """
        check = self.check(bind_dn=READER, bind_pass="geheim")
        for _ in range(3):
            code, info = yield self.ask(check, "alice@example.org")
            self.assertEqual((0, f"{self.server.uri}: login refused: Invalid credentials"), (code, info))
        self.assertGreater(check._directory._probing.getTime() - reactor.seconds(), 20)

    @inlineCallbacks
    def test_tls(self):
        """
        Over TLS the same is found, and the connection is kept.
        """
        for parameters in ({"uri": self.server.tlsUri}, {"startTLS": True}):
            check = self.check(caFile=str(self.server.authority), **parameters)
            for _ in range(3):
                self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
            self.assertEqual(1, self.server.connections())
            check.stop()
            yield deferLater(reactor, 0.05)

    @inlineCallbacks
    def test_certificateNotTrusted(self):
        """
        A certificate that nobody we trust has signed is refused.
        """
        for parameters in ({"uri": self.server.tlsUri}, {"startTLS": True}):
            check = self.check(bind_dn=READER, bind_pass=PASSWORD, **parameters)
            code, info = yield self.ask(check, "alice@example.org")
            self.assertEqual(0, code)
            self.assertIn("certificate is not trusted", info)
            self.assertNotIn(PASSWORD, info)

    @inlineCallbacks
    def test_noTLS(self):
        """
        When StartTLS is wanted a server without it gets neither password nor question.
        """
        server = self.makeServer()
        check = self.check(uri=server.uri, startTLS=True, bind_dn=READER, bind_pass=PASSWORD)
        code, info = yield self.ask(check, "h@example.org")
        self.assertEqual(0, code)
        self.assertIn("unsupported extended operation", info)

    @inlineCallbacks
    def test_certificateOfAnotherName(self):
        """
        A certificate for another name is refused.
        """
        folder = self.folder()
        _, authority = MariaDB.tls(folder, "DNS:other.example.org, IP:192.0.2.1")
        server = self.makeServer(tls=folder)
        for parameters in ({"uri": server.tlsUri}, {"uri": server.uri, "startTLS": True}):
            code, info = yield self.ask(self.check(caFile=str(authority), **parameters), "alice@example.org")
            self.assertEqual(0, code)
            self.assertIn("not valid for this name", info)

    @inlineCallbacks
    def test_referral(self):
        """
        A referral among the results is no entry; a base that is elsewhere is unknown.
        """
        self.assertEqual((-1, []), (yield self.ask(self.check(filter="(ou=%m)"), "elsewhere")))
        check = self.check(filter="(uid=%m)")
        self.assertEqual((-1, []), (yield self.ask(check, "nobody")))
        code, info = yield self.ask(self.check(base=f"ou=elsewhere,{BASE}"), "alice@example.org")
        self.assertEqual((0, f"{self.server.uri}: refers to another server, which is not followed"), (code, info))

    @inlineCallbacks
    def test_noSuchBase(self):
        """
        A base that is not there is unknown, and does not keep others from asking.
        """
        code, info = yield self.ask(self.check(base=f"ou=nowhere,{BASE}"), "alice@example.org")
        self.assertEqual((0, f"{self.server.uri}: No such object"), (code, info))

    @inlineCallbacks
    def test_sizeLimit(self):
        """
        Of many entries there are as many as are wanted; also when the server has a limit that is lower.
        """
        for most, expected in ((5, 5), (30, 30), (100, 30)):
            code, entries = yield self.ask(self.check(sizeLimit=most), "many@example.org")
            self.assertEqual((1, expected), (code, len(entries)))
        server = self.makeServer(ENTRIES, options="sizelimit 7")
        code, entries = yield self.ask(self.check(uri=server.uri), "many@example.org")
        self.assertEqual((1, 7), (code, len(entries)))

    @inlineCallbacks
    def test_many(self):
        """
        Two hundred questions at once have their answers, over four connections.
        """
        check = self.check(filter="(uid=%m)", attributes=["uid"])
        answers = yield DeferredList([self.ask(check, f"many{number % 30}") for number in range(200)])
        for number, (isFine, answer) in enumerate(answers):
            expected = (1, [(f"uid=many{number % 30},{BASE}", {"uid": [f"many{number % 30}"]})])
            self.assertEqual((True, expected), (isFine, answer))
        self.assertLessEqual(self.server.connections(), 4)


@pytest.mark.usefixtures("directory")
class FaultTests(Asking):
    """
    What happens to servers.
    """

    def setUp(self):
        super().setUp()
        self.server = self.makeServer(person("alice", mail="alice@example.org"))

    @inlineCallbacks
    def test_idle(self):
        """
        A connection that the server has closed because it was idle is replaced without anybody noticing.
        """
        server = self.makeServer(person("alice", mail="alice@example.org"), options="idletimeout 1")
        check = self.check(uri=server.uri)
        self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
        yield deferLater(reactor, 2.5)
        self.assertEqual(0, server.connections())
        self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])

    @inlineCallbacks
    def test_restarted(self):
        """
        A server that was killed and started again between two questions costs none of them.
        """
        check = self.check()
        self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
        self.server.kill()
        self.server.start()
        self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])

    @inlineCallbacks
    def test_killed(self):
        """
        While the server is away the answer is 0 at once; when it is back it takes seconds at most.
        """
        check = self.check()
        self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
        self.server.kill()
        for _ in range(20):
            begin = time.monotonic()
            code, info = yield self.ask(check, "alice@example.org")
            self.assertEqual(0, code)
            self.assertIn(f"{self.server.uri}: Can't contact LDAP server", info)
            self.assertLess(took(begin), 0.5)
        self.server.start()
        self.assertLess((yield self.until(check, "alice@example.org", 10)), 4)

    @inlineCallbacks
    def test_hangs(self):
        """
        A server that hangs costs the first askers their time and later ones none; it is back by itself.
        """
        check = self.check(timeout=1, serverTimeout=0.4)
        self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
        self.server.freeze()
        for most in (1.5, 0.2, 0.2):
            begin = time.monotonic()
            self.assertEqual(0, (yield self.ask(check, "alice@example.org"))[0])
            self.assertLess(took(begin), most)
        yield deferLater(reactor, 3)
        self.server.thaw()
        self.assertLess((yield self.until(check, "alice@example.org", 10)), 4)

    @inlineCallbacks
    def test_hangsInTLS(self):
        """
        So does one that hangs in the middle of a connection with TLS; the other server is found.
        """
        folder = self.folder()
        _, authority = MariaDB.tls(folder)
        first, second = (self.makeServer(person("alice", mail="alice@example.org"), tls=folder) for _ in range(2))
        for start in (False, True):
            uris = [one.uri if start else one.tlsUri for one in (first, second)]
            check = self.check(uri=uris, startTLS=start, caFile=str(authority), timeout=3, serverTimeout=0.5)
            self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
            self.assertEqual((1, 0), (first.connections(), second.connections()))
            first.freeze()
            begin = time.monotonic()
            self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
            self.assertLess(took(begin), 2)
            begin = time.monotonic()
            self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
            self.assertLess(took(begin), 0.4)
            check.stop()
            check = self.check(uri=uris, startTLS=start, caFile=str(authority), timeout=3, serverTimeout=0.5)
            begin = time.monotonic()
            self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
            self.assertLess(took(begin), 2)
            check.stop()
            first.thaw()
            yield deferLater(reactor, 0.3)

    @inlineCallbacks
    def test_silentNetwork(self):
        """
        A network that swallows everything counts as a server that hangs, and so does one that is slow as that.
        """
        proxy = Proxy(self.server.port)
        self.addCleanup(proxy.close)
        check = self.check(uri=f"ldap://127.0.0.1:{proxy.port}", timeout=1, serverTimeout=0.4)
        self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
        for trouble in ("hang", "delay", "cut"):
            if trouble == "delay":
                proxy.delay = 3
            else:
                proxy.hang(trouble == "hang")
            if trouble == "cut":
                proxy.cut()
            else:
                begin = time.monotonic()
                self.assertEqual(0, (yield self.ask(check, "alice@example.org"))[0])
                self.assertLess(took(begin), 1.5)
            proxy.hang(False)
            proxy.delay = 0
            yield self.until(check, "alice@example.org", 10)

    @inlineCallbacks
    def test_nonsense(self):
        """
        What is no LDAP server at all, or breaks off in the middle of an answer, is unknown in time.
        """
        half = bytes.fromhex("3084000000640201 01 61")
        for said in (b"", b"220 mail.example.org ESMTP\r\n", half, b"\xff" * 5000, b"\x30\x84\x7f\xff\xff\xff"):
            for scheme in ("ldap", "ldaps"):
                port = self.talker(said)
                check = self.check(uri=f"{scheme}://127.0.0.1:{port}", timeout=1, serverTimeout=0.4)
                begin = time.monotonic()
                code, info = yield self.ask(check, "alice@example.org")
                self.assertEqual(0, code)
                self.assertRegex(info, f"^{scheme}://127.0.0.1:{port}: .|^lookupldap: no answer within 1 s$")
                self.assertLess(took(begin), 1.5)
                check.stop()

    def talker(self, said):
        """
        The port of a server that says something to everybody, and nothing more.
        """
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        taken = []

        def talk():
            while True:
                try:
                    taken.append(listener.accept()[0])
                    taken[-1].sendall(said)
                except OSError:
                    return

        threading.Thread(target=talk, daemon=True).start()
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)
        return listener.getsockname()[1]

    @inlineCallbacks
    def test_firstIsDown(self):
        """
        With the first server down the second one answers every question; when that is down too, the first again.
        """
        other = self.makeServer(person("alice", mail="alice@example.org"))
        check = self.check(uri=f"{self.server.uri} {other.uri}")
        self.server.kill()
        for _ in range(3):
            self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])
        other.kill()
        self.server.start()
        self.assertEqual(1, (yield self.ask(check, "alice@example.org"))[0])


POLICY = """
modules = {{
    'known': ('LookupLDAP', {{'param': 'recipient', 'uri': '{uri}', 'base': '{base}', 'timeout': 2,
              'serverTimeout': 0.8, 'cachePositive': 0, 'cacheUnknown': 0, 'cacheNegative': 0,
              'bind_dn': "{dn}", 'bind_pass': "{password}"}}),
    'dummy': ('Dummy', {{'cacheUnknown': 0}}),
}}
def check(factory, data, port):
    if data['recipient'] == 'dummy':
        return 'WARN', str(factory.check('dummy', data))
    code, info = factory.check('known', data)
    return 'WARN', f'{{code}} {{info}}'
"""


def test_server(directory, makeServer):
    """
    In a running server: answers; while the directory hangs others go on, and time-outs hold; no password anywhere.
    """
    own = Slapd(person("alice", mail="alice@example.org"))
    try:
        own.start()
        server = makeServer(POLICY.format(uri=own.uri, base=BASE, dn=READER, password=PASSWORD))
        answer = server.request(recipient="alice@example.org")
        assert answer.startswith(f"WARN 1 [('uid=alice,{BASE}', {{'objectClass': ")
        assert server.request(recipient="bob@example.org") == "WARN -1 []"
        own.freeze()
        with PolicyClient(server.address) as stuck, PolicyClient(server.address) as other:
            stuck._socket.sendall(b"request=smtpd_access_policy\nrecipient=alice@example.org\n\n")
            begin, slowest, count = time.monotonic(), 0.0, 0
            while time.monotonic() - begin < 1.5:
                asked = time.monotonic()
                assert other.ask(recipient="dummy") == "WARN (0, 'dummy')"
                slowest, count = max(slowest, took(asked)), count + 1
            assert stuck._answer().startswith("WARN 0 ")
            assert took(begin) < 5
        assert count > 5 and slowest < 1
        begin = time.monotonic()
        assert server.request(recipient="alice@example.org").startswith("WARN 0 ")
        assert took(begin) < 1.5  # it is not asked, which takes two seconds
        own.thaw()
        while not server.request(recipient="alice@example.org").startswith("WARN 1 "):
            assert took(begin) < 10
            time.sleep(0.1)
        own.kill()
        assert server.request(recipient="alice@example.org").startswith("WARN 0 ldap://")
        own.start()
        begin = time.monotonic()
        while not server.request(recipient="alice@example.org").startswith("WARN 1 "):
            assert took(begin) < 10
            time.sleep(0.1)
        assert server.reload().returncode == 0
        assert server.request(recipient="alice@example.org").startswith("WARN 1 ")
        assert re.search("works again", server.log())
        assert PASSWORD not in server.log()
        assert server.terminate() < 5
    finally:
        own.close()


def test_try(directory, tmp_path):
    """
    The command shows what a value finds, and why a directory does not answer.
    """
    configuration = tmp_path / "ppolicy.conf"

    def tried(password, recipient):
        configuration.write_text(POLICY.format(uri=directory.uri, base=BASE, dn=READER, password=password))
        done = subprocess.run(
            [sys.executable, "-m", "ppolicy", "try", "-c", str(configuration), "known", f"recipient={recipient}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert password not in done.stdout + done.stderr
        return done.stdout

    assert f"uid=hidden,ou=private,{BASE}" in tried(PASSWORD, "h@example.org")
    assert re.search(r"-1\b", tried(PASSWORD, "nobody@example.org"))
    assert "login refused: Invalid credentials" in tried("geheim", "h@example.org")
