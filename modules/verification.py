"""
Would the mail hosts of an address take mail for it?
"""

import socket
from typing import Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ppolicy.check import Check, parameter, timeLeft, wait
from ppolicy.errors import BackendError, DeadlineExceeded, ParamError
from ppolicy.mailbox import mailbox, randomLocal
from ppolicy.mailhosts import Guard, mailHosts
from ppolicy.smtp import HAS_TLS, Call, Limits, harmless

# Connections for one answer, and answers that are being looked for.
_MOST = 3
_UNDER_WAY = 500
# Seconds before the request's deadline in which the policy must be able to go on.
_RESERVE = 0.5
# Seconds in which the names are to be looked up that a question needs.
_NAMES = 20.0
# For how long it is known that a host takes any address; that another host could be reached, before a refused
# connection counts; and how long an answer lives that says only that we did not ask.
_ACCEPTS_ALL = 86400
_REACHED = 600
_NOT_ASKED = 30
_LEVELS = ("mx", "connection", "domain", "user")

log = Logger()


class Verification(Check):
    """
    Asks the mail hosts of an address whether they would take mail for it, as far as RCPT and without sending any
    (a call-out). A sender who cannot get an answer is rarely honest; but it is other people's servers that have
    to answer for mail that was forged in their name. Ask only where all other checks have passed, and never for
    every mail.

    How far it goes is `vtype`: 'mx' only looks for hosts in the DNS, 'connection' wants one of them to greet us,
    'domain' to take mail for its postmaster, 'user' for the address itself. Hosts are tried in the order of their
    MX records (RFC 5321, 5.1), at most three, a single one twice; STARTTLS is used where it is offered, with any
    certificate.

    A no is only what is said about the address: a domain that does not exist or takes no mail (RFC 7505), no
    connection to any host while others can be reached, or a 5xx that says so (RFC 3463, 3.2; without such a code
    550, 551 and 553 whose text speaks of a user or mailbox). Whatever is said of us, our address or a policy
    (5.7.x), every 4xx, a time-out, a hang-up or trouble with the DNS is unknown. An answer that comes too late is
    kept for the next request.

    A host that takes an address that cannot exist takes any: 'user' then goes no further than 4.

    Nobody is asked where this host takes the mail itself, nor on addresses of private networks, see
    `allowPrivate`. One host is asked by at most `hostConnections` sessions at a time and `hostPerMinute` in a
    minute.

    Check arguments:
        data ... the request

    Check returns:
        5 .... the address is taken
        4 .... mail for the domain is taken: for its postmaster, or for any address
        3 .... a mail host greets us
        2 .... the domain has mail hosts
        1 .... accepted by rule: the null sender, postmaster
        0 .... unknown
        -1 ... it is no mail address
        -2 ... the domain has no mail hosts
        -3 ... no connection to any of its mail hosts
        -4 ... mail for the postmaster of the domain is refused
        -5 ... mail for the address is refused
        15 ... like 5, from the database; so are 12 to 14, and -15 to -12
        information: what happened, a text

    Examples:
        # does the domain of the sender take mail at all?
        modules['sender_domain'] = ('Verification', {'param': 'sender'})
        # does the sender exist? what is known is kept in the database
        modules['sender'] = ('Verification', {'param': 'sender', 'vtype': 'user', 'cacheDB': True,
                                              'timeout': 10})
        # does the mail server behind us take this recipient? It is on our own network.
        modules['recipient'] = ('Verification', {'param': 'recipient', 'vtype': 'user',
                                                 'allowPrivate': ['10.0.0.0/8']})
    """

    param: str = parameter(help="request attribute that holds the address")
    timeout: float = parameter(20, "seconds that a request waits", minimum=0.1)
    hostTimeout: float = parameter(
        30, "seconds that one host may take, also when no request waits any more", minimum=0.1, maximum=300
    )
    vtype: Literal["mx", "connection", "domain", "user"] = parameter("mx", "how far to go")
    cacheDB: bool = parameter(False, "keep what is known in the database")
    table: str = parameter("verification", "its table")
    dbExpirePositive: float = parameter(2419200, "seconds that a result above 0 is kept there", minimum=1)
    dbExpireNegative: float = parameter(10800, "seconds that a result below 0 is kept there", minimum=1)
    sender: str = parameter("", "address that asks, by default the null sender")
    helo: str | None = parameter(None, "name of this host, by default the option domain, or the host's name")
    port: int = parameter(25, "port of mail hosts", minimum=1, maximum=65535)
    startTLS: bool | None = parameter(
        None, "use STARTTLS where it is offered; None: if the Python package pyOpenSSL is there"
    )
    acceptAll: bool = parameter(True, "find out whether a host that takes an address takes any")
    allowPrivate: bool | list[str] = parameter(
        False, "True: also ask on private networks; or a list of networks, there even ourselves"
    )
    ownHosts: list[str] = parameter([], "further names and addresses of this host")
    hostConnections: int = parameter(2, "connections to one host at a time", minimum=1)
    hostPerMinute: int = parameter(30, "questions to one host in a minute", minimum=1)
    cachePositive: float = parameter(86400, "seconds a result above 0 is kept in the cache", minimum=0)
    cacheUnknown: float = parameter(900, "seconds a result of 0 is kept in the cache", minimum=0)
    cacheNegative: float = parameter(3600, "seconds a result below 0 is kept in the cache", minimum=0)

    def start(self):
        if self.startTLS and not HAS_TLS:
            raise ParamError("startTLS needs the Python package pyOpenSSL, which is not installed")
        names = [name for name in (self.helo, self._optionDomain(), socket.gethostname()) if name]
        self._helo = self.helo or next((name for name in names if "." in name), "")
        if not self._helo.isascii() or not self._helo.isprintable() or " " in self._helo:
            raise ParamError("helo must be a host's name")
        self._sender = ""
        if self.sender:
            asking = mailbox(self.sender)
            if asking is None:
                raise ParamError("sender must be a mail address, or empty")
            self._sender = asking.path
        try:
            self._guard = Guard([*names, *self.ownHosts], self.allowPrivate)
        except ValueError as error:
            raise ParamError(f"allowPrivate: {error}") from None
        self._limits = Limits(self.hostConnections, self.hostPerMinute)
        self._level = _LEVELS.index(self.vtype) + 2
        self._underWay = {}
        self._token = object()
        self._stored = None
        if self.cacheDB:
            self._stored = self.state.table(self.table, ("address", "vtype"), "value")

    def _optionDomain(self):
        factory = getattr(self, "factory", None)
        return factory.getConfig("domain") if factory is not None else None

    def hashArg(self, data):
        known, address = self._read(data)
        return 0 if known else self._subject(address)

    def _read(self, data):
        """
        @return: (the result for an address that needs no question, else None; its L{ppolicy.mailbox.Mailbox})
        """
        text = data.get(self.param, "")
        if not text:
            return (1, "the null sender is accepted"), None
        if text.lower().partition("@")[0] == "postmaster":  # RFC 5321, 4.5.1
            return (1, "postmaster is accepted"), None
        address = mailbox(text)
        return (None, address) if address else ((-1, "it is no mail address"), None)

    def _subject(self, address):
        """
        What the result depends on.
        """
        return address.path if self.vtype == "user" else address.domain

    def check(self, data):
        known, address = self._read(data)
        if known:
            return known
        subject = self._subject(address)
        late = self.smtp.remembered.get((self._token, subject), self.smtp.reactor.seconds())
        if late is not None:
            return late
        try:
            code, text = self._fromDatabase(subject)
        except (BackendError, TimeoutError):  # then it is asked for
            code = 0
        if code:
            return code, text
        waiting = self._underWay.get(subject)
        if waiting is None:
            if len(self._underWay) >= _UNDER_WAY:
                return 0, f"{_UNDER_WAY} addresses are being verified already", _NOT_ASKED
            waiting = self._underWay[subject] = []
            self._begin(subject, address)
        return self._waitFor(waiting)

    def _waitFor(self, waiting):
        left = timeLeft()
        seconds = self.timeout if left is None else min(self.timeout, left - _RESERVE)
        answer = Deferred()
        waiting.append(answer)
        try:
            return wait(answer, max(0.0, seconds))
        except TimeoutError:
            return 0, "no answer yet", 0

    # The work, which goes on when nobody waits for it any more

    def _begin(self, subject, address):
        most = _NAMES + self.hostTimeout * _MOST
        work = self.smtp.bridge.run(self._answer, subject, address, timeout=most)
        work.addBoth(self._answered, subject)

    def _answer(self, subject, address):
        code, text, *seconds = self._ask(address)
        if code and self._stored is not None:
            try:
                self._intoDatabase((subject, self.vtype), f"{code} {text}", self._lifetime(code))
            except (BackendError, TimeoutError) as error:
                log.warn("{name}: the result is not kept: {error}", name=self.name, error=str(error))
        return code, text, *seconds

    def _answered(self, result, subject):
        if isinstance(result, Failure):
            if not result.check(DeadlineExceeded):
                log.failure("{name}: verifying an address failed", result, name=self.name)
            result = 0, "it could not be verified", _NOT_ASKED
        waiting = [one for one in self._underWay.pop(subject) if not one.called]
        if not waiting and result[0]:
            lifetime = self.cachePositive if result[0] > 0 else self.cacheNegative
            now = self.smtp.reactor.seconds()
            self.smtp.remembered.put((self._token, subject), result, now + lifetime)
        for one in waiting:
            one.callback(result)

    def _ask(self, address):
        """
        @return: (code, text), or with the longest time in seconds that this may be cached.
        """
        domain = address.domain
        try:
            hosts = mailHosts(self.dns, domain, self._guard, _MOST)
        except (BackendError, TimeoutError) as error:
            return 0, f"the mail hosts of {domain} are not known: {error}"
        if not hosts.exists:
            return -2, hosts.reason
        if self.vtype == "mx":
            return (2, _named(domain, hosts.names)) if hosts.targets or hosts.isOwn else (0, hosts.reason)
        if not hosts.targets:
            return 0, hosts.reason
        knowsAll = self._knowsAll(domain) if self.acceptAll and self.vtype == "user" else None
        if knowsAll:
            return 4, f"{domain} takes mail for any address"
        recipients = self._recipients(address, knowsAll)
        targets = hosts.targets * 2 if len(hosts.targets) == 1 else hosts.targets
        return self._askHosts(domain, targets, recipients, hosts.isWhole)

    def _recipients(self, address, knowsAll):
        if self.vtype == "connection":
            return ()
        if self.vtype == "domain":
            return (f"postmaster@{address.domain}",)
        if self.acceptAll and knowsAll is None:
            return address.path, f"{randomLocal()}@{address.domain}"
        return (address.path,)

    def _askHosts(self, domain, targets, recipients, isWhole):
        """
        Ask one host after the other until one of them speaks about the address.
        """
        call = Call(recipients, self._sender, self._helo, self.port, self.startTLS is not False, self.hostTimeout)
        heard, texts = [], []
        for host, ip in targets:
            one = wait(self.smtp.ask(ip, call, self._limits, host))
            heard.append(one)
            name = "" if host == ip else f"{harmless(host.encode())} "
            text = f"{name}[{ip}] {one.text}"
            texts.append(text)
            if one.verdict or one.stage == "RCPT":
                return self._judge(domain, one, text)
        if all(one.verdict is False for one in heard):
            return self._noConnection(heard, texts[-1], targets[-1][1], isWhole)
        unknown = next(number for number, one in enumerate(heard) if one.verdict is None)
        seconds = (_NOT_ASKED,) if heard[unknown].stage == "limit" else ()
        return 0, texts[unknown], *seconds

    def _judge(self, domain, heard, text):
        if heard.acceptsAll is not None:
            self._noteAll(domain, heard.acceptsAll)
        if heard.acceptsAll:
            return 4, f"{text}; it takes mail for any address"
        code = self._level
        return (code if heard.verdict else -code if heard.verdict is False else 0), text

    def _noConnection(self, heard, text, ip, isWhole):
        """
        A refused connection may come from our own network, which then refuses all of them.
        """
        if not isWhole:
            return 0, f"{text}; not all of its hosts were asked"
        if any(one.stage == "connection" for one in heard) and not self.smtp.reached(ip, _REACHED):
            return 0, f"{text}; but lately no other host could be reached", _NOT_ASKED
        return -3, text

    # What is known already

    def _fromDatabase(self, subject):
        row = None if self._stored is None else self._stored.get((subject, self.vtype))
        if row is None:
            return 0, ""
        code, _, text = row["value"].partition(" ")
        try:
            number = int(code)
        except ValueError:  # somebody has edited it
            return 0, ""
        return number + (10 if number > 0 else -10), text

    def _intoDatabase(self, key, value, lifetime):
        self._stored.put(key, {"value": value}, lifetime)

    def _lifetime(self, code):
        return self.dbExpirePositive if code > 0 else self.dbExpireNegative

    def _knowsAll(self, domain):
        """
        Does the domain take mail for any address? None when that is not known.
        """
        known = self.smtp.remembered.get(("any", self.port, domain), self.smtp.reactor.seconds())
        if known is not None or self._stored is None:
            return known
        try:
            row = self._stored.get((domain, "any"))
        except (BackendError, TimeoutError):
            return None
        return None if row is None else row["value"] == "yes"

    def _noteAll(self, domain, takesAll):
        expires = self.smtp.reactor.seconds() + _ACCEPTS_ALL
        self.smtp.remembered.put(("any", self.port, domain), takesAll, expires)
        if self._stored is not None:
            try:
                self._intoDatabase((domain, "any"), "yes" if takesAll else "no", _ACCEPTS_ALL)
            except (BackendError, TimeoutError):  # it is in memory
                pass


def _named(domain, hosts):
    shown = ", ".join(hosts[:_MOST]) + (", ..." if len(hosts) > _MOST else "")
    return f"mail hosts of {domain}: {harmless(shown.encode())}"
