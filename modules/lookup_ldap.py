"""
Is a value in an LDAP directory?
"""

import re
from pathlib import Path

from ppolicy import ldapsession
from ppolicy.check import Check, parameter, timeLeft, wait
from ppolicy.directory import Directory
from ppolicy.errors import BackendError, ParamError

# Seconds before the request's deadline in which the policy must be able to go on.
_RESERVE = 0.5
# Seconds that trouble is kept in the cache at most: a directory that is back is to be noticed.
_TROUBLE = 5
_ATTRIBUTE = re.compile(r"(?:[A-Za-z][A-Za-z0-9-]*|\d+(?:\.\d+)+)(?:;[A-Za-z0-9-]+)*|[*+]")
# Octets that stand for themselves in a filter (RFC 4515, 3), and surely so in every server.
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@._-+=")


class LookupLDAP(Check):
    """
    Looks an attribute of the request up in an LDAP directory, such as OpenLDAP or Active Directory: known
    recipients, logins, groups. The filter (RFC 4515) says what is searched for; in it %m is the value, %u what is
    before its @ (without one the whole value), %d the domain, %% a percent sign. No value can change the filter:
    whatever is special in it is escaped. With `param` 'recipient', '(|(mail=%m)(mailAlternateAddress=%m))' finds
    users of this server.

    Several servers may be named; they have to know the same. The first one is asked, a server that fails goes
    to the end of the order. With ldaps:// and with `startTLS` certificates are verified, and nothing is sent to a
    server whose certificate is not valid for its name. Connections are kept and shared, and replaced when a server
    closes them. While no server can be reached the answer is 0 at once, and every two seconds it is tried
    again; every 30 when the login is refused. Referrals to other servers are not followed, and are no entries.

    Needs the Python package python-ldap: pip install 'ppolicy[ldap]'.

    Check arguments:
        data ... the request

    Check returns:
        1 .... found; information: the entries, [(DN, {attribute: [values]})]; values are texts, bytes where one
               of the attribute's values is no UTF-8, or the attribute is named in `binary`
        0 .... unknown: the directory does not answer, or cannot answer this; information: why
        -1 ... not found, or the value is empty; information: []
        information: the entries, an empty list, or a text

    Examples:
        # has the user who logged in an entry with this uid?
        modules['account'] = ('LookupLDAP', {'param': 'sasl_username', 'uri': 'ldap://localhost',
                                             'base': 'ou=people,dc=example,dc=org', 'filter': '(uid=%u)'})
        # two servers with TLS, a login, and what may be sent per hour: info[0][1]['mailQuota'][0]
        modules['quota'] = ('LookupLDAP', {
            'param': 'sasl_username', 'uri': ['ldap://ldap1.example.org', 'ldap://ldap2.example.org'],
            'startTLS': True, 'base': 'dc=example,dc=org', 'attributes': ['mailQuota'],
            'bind_dn': 'cn=ppolicy,dc=example,dc=org', 'bind_pass': 'secret'})
    """

    param: str = parameter(help="the attribute to look up")
    uri: str | list[str] = parameter(
        help="the server, ldap://host, ldaps://host or ldapi://path; several as a list, or with blanks between"
    )
    base: str = parameter(help="the entry to search below, such as 'dc=example,dc=org'")
    scope: str = parameter("subtree", "how far: 'subtree', 'onelevel' or only the 'base' itself")
    filter: str = parameter("(mail=%m)", "what to search for; %m is the value, %u its local part, %d its domain")
    attributes: str | list[str] | None = parameter(
        None, "attributes that the entries have in the information, by default all; '1.1' for none"
    )
    binary: list[str] = parameter([], "attributes whose values are bytes")
    bind_dn: str | None = parameter(None, "whom to log in as; None: nobody")
    bind_pass: str | None = parameter(None, "the password", secret=True)
    bind_pass_file: Path | None = parameter(None, "a file with the password in its first line, instead")
    bind_method: str | int | None = parameter(None, "accepted from 2.7: 'simple', there is no other")
    startTLS: bool = parameter(False, "go on in TLS with servers that are ldap://, else do not use them")
    caFile: Path | None = parameter(None, "certificates that are trusted, by default those of the system")
    timeout: float = parameter(5, "seconds that a request waits", minimum=0.1, maximum=60)
    serverTimeout: float = parameter(
        2, "seconds that a server may take to be connected, and to answer", minimum=0.05, maximum=60
    )
    connections: int = parameter(4, "connections at a time", minimum=1, maximum=50)
    cacheUnknown: float = parameter(
        900, "seconds a result of 0 is kept in the cache; no trouble is kept for more than 5", minimum=0
    )
    sizeLimit: int = parameter(100, "entries in the information", minimum=1, maximum=10000)
    cacheCaseSensitive: bool = parameter(
        False, "False: values are looked up, and kept in the cache, in lower case"
    )

    def start(self):
        servers = self.uri.split() if isinstance(self.uri, str) else self.uri
        if not servers:
            raise ParamError("uri: names no server")
        self._scope = ldapsession.SCOPES.get(self.scope.lower())
        if self._scope is None:
            raise ParamError(f"scope: must be 'subtree', 'onelevel' or 'base', not {self.scope!r}")
        if self.bind_method not in (None, "", "simple", 128):  # 128: as python-ldap numbers it
            raise ParamError("bind_method: must be 'simple'")
        unknown = set(re.findall("%(.?)", self.filter)) - set("mud%")
        if unknown:
            raise ParamError(f"filter: there is no %{min(unknown)}, only %m, %u, %d and %%")
        self._attributes = self._names(self.attributes)
        self._spelling = {name.lower(): name for name in self._attributes or ()}
        self._binary = {name.lower() for name in self.binary}
        login = ldapsession.Login(self.bind_dn or "", self._password(), self.startTLS, self.caFile)
        ldapsession.prove(servers, login, self.base, self._filled("a@b"))
        self._directory = Directory(
            self.state.bridge,
            self.name,
            servers,
            lambda server, seconds: ldapsession.Session(server, login, seconds),
            self.connections,
            self.timeout,
            min(self.serverTimeout, self.timeout),
        )

    def _names(self, given):
        if given is None:
            return None
        names = re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else given
        for name in names:
            if not _ATTRIBUTE.fullmatch(name):
                raise ParamError(f"attributes: {name!r} is no name of an attribute")
        return names or None

    def _password(self):
        """
        Without a password a server takes any name as nobody's: it must not seem to be a login (RFC 4513, 5.1.2).
        """
        if self.bind_pass and self.bind_pass_file:
            raise ParamError("bind_pass, bind_pass_file: only one of them can be given")
        password = self.bind_pass or ""
        if self.bind_pass_file is not None:
            try:
                password = self.bind_pass_file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "is no text"
                raise ParamError(f"bind_pass_file: {self.bind_pass_file}: {reason}") from None
        if not self.bind_dn:
            return ""
        if not password:
            raise ParamError("bind_dn: needs a password, bind_pass or bind_pass_file")
        return password

    def status(self):
        return self._directory.status()

    def stop(self):
        self._directory.stop()

    def hashArg(self, data):
        return self._value(data)

    def _value(self, data):
        value = str(data.get(self.param, ""))
        return value if self.cacheCaseSensitive else value.lower()

    def check(self, data):
        value = self._value(data)
        asked = self._filled(value) if value else None
        if asked is None:
            return -1, []
        left = timeLeft()
        seconds = self.timeout if left is None else min(self.timeout, left - _RESERVE)
        if seconds <= 0:
            return 0, "no time is left to ask the directory", _TROUBLE

        def search(session, seconds):
            return session.search(self.base, self._scope, asked, self._attributes, self.sizeLimit, seconds)

        try:
            found = wait(self._directory.ask(search), seconds)
        except TimeoutError:
            return 0, f"{self.name}: no answer within {seconds:.3g} s", _TROUBLE
        except BackendError as error:
            return 0, str(error), _TROUBLE
        return (1, [(dn, self._shown(values)) for dn, values in found]) if found else (-1, [])

    def _filled(self, value):
        """
        The filter with a value in it; None when nothing can be found: %d where there is no domain, or a value that
        never came from the network and is no text.
        """
        local, _, domain = value.rpartition("@") if "@" in value else (value, "", "")
        if not domain and "%d" in self.filter.replace("%%", ""):
            return None
        try:
            parts = {"m": escaped(value), "u": escaped(local), "d": escaped(domain), "%": "%"}
        except UnicodeEncodeError:
            return None
        return re.sub("%(.)", lambda match: parts[match[1]], self.filter)

    def _shown(self, values):
        return {self._spelling.get(name.lower(), name): self._texts(name, some) for name, some in values.items()}

    def _texts(self, name, values):
        """
        The values of an attribute as texts, all or none of them.
        """
        if name.lower() in self._binary or name.lower().endswith(";binary"):
            return values
        try:
            return [value.decode("utf-8") for value in values]
        except UnicodeDecodeError:
            return values


def escaped(value):
    """
    A value as a filter may hold it (RFC 4515, 3): octets that could be special as backslash and two digits. Octets
    that were no UTF-8 are what they were.

    @raises UnicodeEncodeError: when it has other lone surrogates.
    """
    return "".join(
        chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in value.encode("utf-8", "surrogateescape")
    )
