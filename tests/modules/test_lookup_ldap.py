"""
Tests for the LookupLDAP check module.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ppolicy import ldapsession
from ppolicy.bridge import Bridge
from ppolicy.directory import Lost
from ppolicy.errors import BackendError, ConfigError
from ppolicy.registry import Registry
from ppolicy.state import StateStore
from ppolicy.testing import make, waiting
from tests.stalls import took

NEEDED = {"param": "recipient", "uri": "ldap://ldap.example.org", "base": "dc=example,dc=org"}


class Answers:
    """
    Stands for a session: knows a few filters, and keeps what it was asked.
    """

    def __init__(self, found):
        self.found = found
        self.asked = []
        self.logins = []

    def __call__(self, server, login, seconds):
        self.server, self.used = server, 0.0
        self.logins.append((server, login))
        return self

    def isUsable(self):
        return False

    def close(self):
        pass

    def search(self, base, scope, filterText, attributes, most, seconds):
        self.asked.append((base, scope, filterText, attributes, most))
        found = self.found.get(filterText, [])
        if isinstance(found, Exception):
            raise found
        return found


class Prepared:
    """
    A check whose directory is not there; python-ldap is not needed.
    """

    def prepared(self, found=None, state=None, **parameters):
        self.answers = Answers(found or {})
        self.patch(ldapsession, "prove", lambda *arguments: None)
        self.patch(ldapsession, "Session", self.answers)
        check = make("LookupLDAP", state=state, **{**NEEDED, **parameters})
        check.start()
        self.addCleanup(check.stop)
        return check


class AskingTests(Prepared, TestCase):
    """
    What is asked, and what is made of answers.
    """

    timeout = 30

    def setUp(self):
        self.bridge = Bridge(reactor)
        self.addCleanup(self.bridge.stop)

    def check(self, found=None, **parameters):
        return self.prepared(found, StateStore(self.bridge), **parameters)

    def ask(self, check, value, timeout=30.0):
        return waiting(self.bridge, check.check, {"recipient": value}, timeout=timeout)

    @inlineCallbacks
    def test_codes(self):
        """
        1 and the entries for what is found, -1 and nothing for what is not, 0 and a reason in case of trouble,
        which is kept for some seconds only.
        """
        check = self.check(
            {
                "(mail=alice@example.org)": [("uid=alice", {"cn": [b"Alice"], "mail": [b"a", b"\xc3\xa9"]})],
                "(mail=odd@example.org)": BackendError("odd"),
                "(mail=gone@example.org)": Lost("gone"),
            }
        )
        expected = (1, [("uid=alice", {"cn": ["Alice"], "mail": ["a", "é"]})])
        self.assertEqual(expected, (yield self.ask(check, "Alice@Example.org")))
        self.assertEqual(("dc=example,dc=org", 2, "(mail=alice@example.org)", None, 100), self.answers.asked[-1])
        self.assertEqual((-1, []), (yield self.ask(check, "bob@example.org")))
        self.assertEqual((0, "odd", 5), (yield self.ask(check, "odd@example.org")))
        self.assertEqual((0, "gone", 5), (yield self.ask(check, "gone@example.org")))

    @inlineCallbacks
    def test_nothingToAsk(self):
        """
        An empty value, none at all, and one without the domain that the filter needs are not found, nor asked for.
        """
        check = self.check(filter="(&(uid=%u)(domain=%d))")
        for value in ("", "alice", "alice@", "\ud800@example.org"):
            self.assertEqual((-1, []), (yield self.ask(check, value)), value)
        self.assertEqual((-1, []), (yield waiting(self.bridge, check.check, {})))
        self.assertEqual([], self.answers.asked)

    @inlineCallbacks
    def test_filter(self):
        """
        The value, its parts and a percent sign go where the filter has them, escaped, and are not looked at again.
        """
        for text, value, expected in (
            ("(mail=%m)", "*", "(mail=\\2a)"),
            ("(mail=%m)", "a)(uid=*", "(mail=a\\29\\28uid=\\2a)"),
            ("(mail=%m)", "\\", "(mail=\\5c)"),
            ("(mail=%m)", "a\0b", "(mail=a\\00b)"),
            ("(mail=%m)", " é", "(mail=\\20\\c3\\a9)"),
            ("(mail=%m)", "\udcff", "(mail=\\ff)"),
            ("(mail=%m)", "%u%d", "(mail=\\25u\\25d)"),
            ("(uid=%u)", "alice", "(uid=alice)"),
            ("(uid=%u)", "a@b@c", "(uid=a@b)"),
            ("(uid=%u)", "*@c", "(uid=\\2a)"),
            ("(|(mail=%m)(d=%d)(d=*.%d))", "a@c", "(|(mail=a@c)(d=c)(d=*.c))"),
            ("(cn=%%%m%%d)", "a", "(cn=%a%d)"),
        ):
            check = self.check(filter=text)
            yield self.ask(check, value)
            self.assertEqual([expected], [one[2] for one in self.answers.asked], (text, value))

    @inlineCallbacks
    def test_values(self):
        """
        Attributes are spelt as they were asked for; values that are no text, or are not to be, stay octets.
        """
        given = {"MAILQUOTA": [b"5"], "photo": [b"abc", b"\xff"], "key;binary": [b"a"], "objectGUID": [b"0"]}
        check = self.check(
            {"(mail=a@b)": [("dn", given)]}, attributes="mailQuota, photo", binary=["objectguid"], sizeLimit=7
        )
        _, entries = yield self.ask(check, "a@b")
        self.assertEqual(
            {"mailQuota": ["5"], "photo": [b"abc", b"\xff"], "key;binary": [b"a"], "objectGUID": [b"0"]},
            entries[0][1],
        )
        self.assertEqual((["mailQuota", "photo"], 7), self.answers.asked[0][3:])

    @inlineCallbacks
    def test_login(self):
        """
        Servers are tried in order, as whom and with what was configured; the password's file ends with its line.
        """
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "password"
        path.write_text("secret\r\nmore\n", encoding="utf-8")
        check = self.check(uri="ldap://a  ldap://b", bind_dn="cn=me", bind_pass_file=str(path), startTLS=True)
        yield self.ask(check, "a@b")
        ((server, login),) = self.answers.logins
        self.assertEqual(
            ("ldap://a", "cn=me", "secret", True), (server, login.name, login.password, login.startTLS)
        )
        self.assertNotIn("secret", repr(login))

    @inlineCallbacks
    def test_noTime(self):
        """
        The answer comes before the request's deadline, whatever the directory does.
        """
        check = self.check()
        begin = time.monotonic()
        self.patch(check._directory, "ask", lambda search: Deferred(lambda _: None))
        self.assertEqual((0, "no time is left to ask the directory", 5), (yield self.ask(check, "a@b", 0.4)))
        code, info, _ = yield self.ask(check, "a@b", 0.8)
        self.assertEqual(0, code)
        self.assertRegex(info, "^lookupldap: no answer within 0.[123]")
        self.assertLess(took(begin), 0.8)


class ParameterTests(Prepared, SynchronousTestCase):
    """
    What is accepted, and what the results depend on.
    """

    def test_hashArg(self):
        """
        A result is kept for the value in any case, or with cacheCaseSensitive in this one, and for nothing else.
        """
        check = self.prepared()
        self.assertEqual(check.hashArg({"recipient": "A@B"}), check.hashArg({"recipient": "a@b", "sender": "x"}))
        self.assertNotEqual(check.hashArg({"recipient": "a@b"}), check.hashArg({"recipient": "a@c"}))
        check = self.prepared(cacheCaseSensitive=True)
        self.assertNotEqual(check.hashArg({"recipient": "A@B"}), check.hashArg({"recipient": "a@b"}))

    def test_old(self):
        """
        The parameters of 2.7 are accepted, in any case of the scope.
        """
        for scope, name, method, attributes in (
            ("ONELEVEL", "", "simple", ["mail"]),
            ("base", "cn=me", 128, "mail"),
        ):
            old = {"scope": scope, "bind_dn": name, "bind_pass": "x", "bind_method": method}
            check = self.prepared(**old, attributes=attributes)
            self.assertEqual((scope, name, attributes), (check.scope, check.bind_dn, check.attributes))

    def test_refused(self):
        """
        Parameters that cannot work are refused, by name and without the password.
        """
        for parameters, expected in (
            ({"uri": ""}, "uri: names no server"),
            ({"uri": []}, "uri: names no server"),
            ({"scope": "all"}, "scope: must be 'subtree', 'onelevel' or 'base', not 'all'"),
            ({"filter": "(mail=%s)"}, "filter: there is no %s"),
            ({"filter": "(mail=%m)%"}, "filter: there is no %,"),
            ({"attributes": ["a b"]}, "attributes: 'a b' is no name"),
            ({"bind_dn": "cn=me"}, "bind_dn: needs a password"),
            ({"bind_dn": "cn=me", "bind_pass": "geheim", "bind_pass_file": "/x"}, "only one of them"),
            ({"bind_dn": "cn=me", "bind_pass_file": "/nonexistent/x"}, "bind_pass_file: /nonexistent/x: No such"),
            ({"bind_method": "kerberos"}, "bind_method: must be 'simple'"),
            ({"sizeLimit": 0}, "sizeLimit: must be at least 1"),
            ({"bind_pass": 5}, "bind_pass: must be a text or None, not a whole number"),
        ):
            error = self.assertRaises(ConfigError, self.prepared, **parameters)
            self.assertIn(expected, str(error), parameters)
            self.assertNotIn("geheim", str(error))

    def test_withoutLibrary(self):
        """
        Without python-ldap the check can be described, and its start says what to install.
        """
        self.assertIn("LDAP directory", Registry().find("LookupLDAP").__doc__)
        check = make("LookupLDAP", **NEEDED)
        with mock.patch.dict(sys.modules, {"ldap": None}):
            error = self.assertRaises(ConfigError, check.start)
        self.assertIn("pip install 'ppolicy[ldap]'", str(error))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"uri": "http://host"}, "uri: 'http://host' is not"),
        ({"uri": "ldap://host/dc=example"}, "uri: 'ldap://host/dc=example' is not"),
        ({"uri": "host"}, "uri: 'host' is not"),
        ({"uri": "ldap://host:port"}, "uri: 'ldap://host:port' is not"),
        ({"base": "example"}, "base: 'example' is no"),
        ({"filter": "(mail=%m"}, "filter: '(mail=a@b' is no"),
        ({"filter": "%m"}, "filter: 'a@b' is no"),
        ({"caFile": "/nonexistent"}, "caFile: /nonexistent: No such"),
        ({"caFile": "/etc/passwd"}, "caFile: /etc/passwd: has no certificates"),
    ],
)
def test_proved(parameters, expected):
    """
    With python-ldap what no server could work with is refused at the start.
    """
    pytest.importorskip("ldap")
    with pytest.raises(ConfigError) as caught:
        make("LookupLDAP", **{**NEEDED, **parameters}).start()
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["ldap://host", "ldaps://host.example.org:636/", "ldap://[::1]:389", "ldapi:///", "ldapi://%2Frun%2Fldapi"],
)
def test_uris(uri):
    """
    Every form of a server's address starts, though nothing is there.
    """
    pytest.importorskip("ldap")
    check = make("LookupLDAP", **{**NEEDED, "uri": uri})
    check.start()
    check.stop()
