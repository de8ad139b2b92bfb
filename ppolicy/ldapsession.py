"""
One session with an LDAP server, over python-ldap; the only file that knows this library. It blocks.

python-ldap is a C library that not every host has: it is imported when it is needed.
"""

import re
import select
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

from ppolicy.directory import Lost
from ppolicy.errors import BackendError, ParamError

SCOPES = {"base": 0, "onelevel": 1, "subtree": 2}  # RFC 4511, 4.5.1.2
# Seconds for which a server that refused our password is left alone: some lock accounts after a few refusals.
REFUSED = 30.0
# Where systems keep the certificates that they trust, for when the LDAP library has not been told.
_TRUSTED = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
# A server that cannot exist.
_NOWHERE = "ldapi://%2Fnonexistent%2Fldapi"
# What the library says of trouble with TLS when it is built with GnuTLS.
_UNKNOWN = "(unknown error code)"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass
class Login:
    """
    How a session begins.

    @ivar name: the DN to bind as; '' to stay anonymous.
    @ivar startTLS: True to go on in TLS with servers that are C{ldap://}, or not at all.
    @ivar authority: file of the certificates that are trusted; None for those of the system.
    """

    name: str = ""
    password: str = field(default="", repr=False)
    startTLS: bool = False
    authority: Path | None = None


def library():
    """
    The library.

    @raises ParamError: when it is not installed.
    """
    try:
        import ldap
    except ImportError as error:
        raise ParamError(
            f"needs the Python package python-ldap: pip install 'ppolicy[ldap]', on Debian python3-ldap ({error})"
        ) from None
    return ldap


def prove(servers, login, base, filterText):
    """
    Find out what is wrong with parameters, without asking any server.

    @raises ParamError: with the parameter's name.
    """
    ldap = library()
    if login.authority is not None:
        try:
            ssl.create_default_context(cafile=login.authority)
        except OSError as error:  # an ssl.SSLError is one
            reason = "has no certificates" if isinstance(error, ssl.SSLError) else error.strerror
            raise ParamError(f"caFile: {login.authority}: {reason}") from None
    for server in servers:
        if not re.fullmatch(
            r"(?:ldaps?://[\w.-]+|ldaps?://\[[0-9A-Fa-f:.]+\])(?::\d+)?/?|ldapi://[^/\s?]*/?", server
        ):
            raise ParamError(
                f"uri: {server!r} is not ldap://host, ldaps://host or ldapi://path, a port may follow"
            )
        try:
            _prepared(ldap, server, login, 1)
        except (ldap.LDAPError, ValueError) as error:
            raise ParamError(f"uri: {server}: {_explained(error)}") from None
    if not ldap.dn.is_dn(base):
        raise ParamError(f"base: {base!r} is no distinguished name")
    try:
        ldap.initialize(_NOWHERE).search_ext(base, SCOPES["base"], filterText)
    except ldap.SERVER_DOWN:
        pass  # so it would have been sent
    except (ldap.LDAPError, ValueError):
        raise ParamError(f"filter: {filterText!r} is no filter as in RFC 4515") from None


class Session:
    """
    @param seconds: that connecting, and each step of the login, may take.
    @ivar server: the server's URI.
    @raises Lost: when the server does not answer, or does not let us in.
    """

    def __init__(self, server, login, seconds):
        self._library = ldap = library()
        self.server = server
        self.used = monotonic()
        ends = self.used + seconds
        tls = server.startswith("ldaps:")
        try:
            if tls:
                _knock(server, seconds)
            self._ldap = _prepared(ldap, server, login, self._within(ends))
            if login.startTLS and server.startswith("ldap:"):
                tls = True
                self._ldap.start_tls_s()
            self._answer(self._ldap.simple_bind(login.name, login.password), ends)
        except (ldap.INVALID_CREDENTIALS, ldap.INAPPROPRIATE_AUTH) as error:
            self.close()
            raise Lost(f"{server}: login refused: {_explained(error)}", REFUSED) from None
        except (ldap.LDAPError, OSError, ValueError) as error:
            self.close()
            hint = ""
            if tls and isinstance(error, ldap.SERVER_DOWN | ldap.CONNECT_ERROR):
                hint = " (or its certificate is not trusted, or not valid for this name)"
            raise Lost(f"{server}: {_explained(error)}{hint}") from None

    def isUsable(self):
        """
        Has the server said nothing since, and not hung up?
        """
        try:
            watch = select.poll()
            watch.register(self._ldap.fileno(), select.POLLIN)
            return not watch.poll(0)
        except (self._library.LDAPError, OSError, ValueError):
            return False

    def search(self, base, scope, filterText, attributes, most, seconds):
        """
        Entries as (DN, {attribute: [octets]}); referrals are none, and are not followed.

        @param most: so many at most, the others are left out.
        @raises Lost: when the session is of no use any more.
        @raises BackendError: when the server cannot answer this.
        """
        ldap, found, ends = self._library, [], monotonic() + seconds
        try:
            # The server's own limit is a little shorter, so that it says so itself when a search takes too long.
            limit = max(1, int(seconds) - 1)
            number = self._ldap.search_ext(base, scope, filterText, attributes, timeout=limit, sizelimit=most)
            kind = None
            while kind != ldap.RES_SEARCH_RESULT:
                kind, entries = self._answer(number, ends)
                if kind == ldap.RES_SEARCH_ENTRY:
                    found += entries
                if len(found) > most:
                    self._ldap.abandon_ext(number)
                    break
        except ldap.SIZELIMIT_EXCEEDED:
            pass  # the server may have a limit of its own
        except (
            ldap.SERVER_DOWN,
            ldap.CONNECT_ERROR,
            ldap.TIMEOUT,
            ldap.UNAVAILABLE,
            ldap.BUSY,
            ldap.LOCAL_ERROR,
            ldap.DECODING_ERROR,
            ldap.PROTOCOL_ERROR,
        ) as error:
            raise Lost(f"{self.server}: {_explained(error)}") from None
        except ldap.REFERRAL:
            raise BackendError(f"{self.server}: refers to another server, which is not followed") from None
        except (ldap.LDAPError, ValueError) as error:
            raise BackendError(f"{self.server}: {_explained(error)}") from None
        return found[:most]

    def _answer(self, number, ends):
        """
        The next message that answers a request: (kind, data).
        """
        return self._ldap.result3(number, all=0, timeout=self._within(ends))[:2]

    def _within(self, ends):
        left = ends - monotonic()
        if left <= 0:
            raise self._library.TIMEOUT
        return left

    def close(self):
        """
        Say good-bye, whatever state it is in.
        """
        session, self._ldap = getattr(self, "_ldap", None), None
        if session is not None:
            try:
                session.unbind_ext()
            except (self._library.LDAPError, ValueError):
                pass  # it is given up in any case


def _prepared(ldap, server, login, seconds):
    """
    What a connection is opened with, later.
    """
    session = ldap.initialize(server)
    session.set_option(ldap.OPT_PROTOCOL_VERSION, 3)
    session.set_option(ldap.OPT_REFERRALS, ldap.OPT_OFF)
    session.set_option(ldap.OPT_NETWORK_TIMEOUT, float(seconds))
    session.set_option(ldap.OPT_TIMEOUT, float(seconds))
    if server.startswith("ldaps:") or (login.startTLS and server.startswith("ldap:")):
        session.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
        trusted = login.authority
        if trusted is None and not session.get_option(ldap.OPT_X_TLS_CACERTFILE):
            trusted = next((path for path in _TRUSTED if Path(path).exists()), None)
        if trusted is not None:
            session.set_option(ldap.OPT_X_TLS_CACERTFILE, str(trusted))
        session.set_option(ldap.OPT_X_TLS_NEWCTX, 0)  # what was set takes effect
    return session


def _knock(server, seconds):
    """
    Find out whether a server is ready for TLS: the LDAP library waits for that without any limit. Nothing is sent,
    so nothing is verified yet.

    @raises OSError: when it is not.
    """
    ends, parts = monotonic() + seconds, urlsplit(server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((parts.hostname, parts.port or 636), seconds) as plain:
        plain.settimeout(max(0.001, ends - monotonic()))
        with context.wrap_socket(plain):
            pass


def _explained(error):
    """
    What is said of an error, on one line, and not too long; the server wrote a part of it.
    """
    if isinstance(error, TimeoutError) or type(error).__name__ == "TIMEOUT":
        return "no answer in time"
    given = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    parts = [str(given[name]) for name in ("desc", "info") if given.get(name) not in (None, "", _UNKNOWN)]
    parts = parts or [getattr(error, "strerror", None) or str(error)]
    return _CONTROL.sub(" ", ": ".join(parts))[:200].strip()
