"""
Evaluating SPF: may a client send mail in the name of a domain (RFC 7208)?

pyspf evaluates; its look-ups go to our resolver, and the time, the length of what it reads and what it may raise
have bounds.
"""

import re
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

import spf

from ppolicy.address import address as parsed
from ppolicy.address import aLabels
from ppolicy.bridge import timeLeft
from ppolicy.dns import Ahead
from ppolicy.errors import DNSError

# Seconds that an evaluation may take (RFC 7208, 4.6.4 wants 20 at least), and that a request keeps for its answer.
TIMEOUT = 20.0
_RESERVE = 1.0
# Look-ups that find nothing (RFC 7208, 4.6.4).
VOID_LIMIT = 2
# Characters of a term with macros, and dots in it: pyspf's time for them grows with their product.
_LONGEST_TERM = 512
_MOST_DOTS = 127
# What a record includes, as far as it is known without macros.
_INCLUDED = re.compile(r" [+?~-]?include:([^ %]+)(?= |$)", re.IGNORECASE)
# A macro, and those that always mean the same (RFC 7208, 7.1).
_MACRO = re.compile(r"(%(?:[%_-]|\{[^}]*\}))")
_FIXED = {"%%": "%", "%_": " ", "%-": "%20"}
# A modifier (RFC 7208, 4.6.1).
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=", re.IGNORECASE)
_KNOWN = ("redirect", "exp")
# Printable characters behind a backslash, apart from those that make another name of it.
_ESCAPED = re.compile(r"\\([^0-9.\\])")
_LABELS = re.compile(r"[^.]{1,63}(?:\.[^.]{1,63})*").fullmatch
# Characters of an explanation, which goes to the SMTP client.
_LONGEST_TEXT = 400
# Seconds an answer holds that needed no look-up.
_LONG = 3600


class Evaluation(NamedTuple):
    """
    What SPF says about one identity.

    @ivar result: 'pass', 'fail', 'softfail', 'neutral', 'none', 'permerror' or 'temperror'.
    @ivar status: 250, 550 or 451, as pyspf suggests.
    @ivar explanation: printable ASCII; that of the domain's owner where there is one, and the result is a fail.
    @ivar identity: 'mailfrom', or 'helo'.
    @ivar domain: whose record was evaluated; an internationalized one as A-labels.
    @ivar mechanism: what matched in this record, such as '-all', else None.
    @ivar problem: why it is an error or none, for the log, else ''.
    @ivar record: the SPF record, None without one.
    @ivar ttl: seconds for which the DNS says so.
    """

    result: str
    status: int
    explanation: str
    identity: str
    domain: str
    mechanism: str | None = None
    problem: str = ""
    record: str | None = None
    ttl: float = _LONG


def evaluate(dns, address, helo, sender, timeout=TIMEOUT, voidLimit=VOID_LIMIT, receiver="unknown"):
    """
    Evaluate the identity MAIL FROM, or with the null sender HELO (RFC 7208, 2.4). It waits for the resolver.

    @param dns: a L{ppolicy.resolver.Resolver}, or one L{Ahead}.
    @param address: of the client, C{helo} what it calls itself, C{sender} without < and >.
    @param timeout: seconds for the whole; the request's own time bounds it, too.
    @param receiver: our name, for the macro C{%{r}}.
    @return: an L{Evaluation}. Trouble of the DNS is a temperror, whatever else is wrong on our side, too.
    """
    identity = "mailfrom" if sender else "helo"
    local, _, domain = sender.rpartition("@") if sender else ("", "", helo)
    name = asciiDomain(domain)
    client = parsed(address.partition("%")[0])  # without the interface of a link-local one
    if client is None or name is None:
        problem = "no IP address" if client is None else "no domain name of several parts"
        return Evaluation("none", 250, "", identity, domain, problem=problem)
    query = _Query(dns, str(client), helo, local, name, timeout, voidLimit, receiver)
    try:
        result, status, text = query.check()
        if isinstance(text, _Explanation):
            text = query.explained(text) if result == "fail" else None
        if text is None:
            text = spf.EXPLANATIONS[result]
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # pyspf has stumbled over a record: nobody's mail is refused for this
        query.trouble = f"pyspf failed with {type(error).__name__}: {error}"
        result, status, text = "temperror", 451, "SPF Temporary Error: it cannot be evaluated"
    problem = query.trouble or getattr(query, "prob", "")
    return Evaluation(
        result,
        status,
        harmless(text),
        identity,
        name,
        None if query.mechanism is None else harmless(query.mechanism),
        harmless(problem) if result in ("permerror", "temperror") else "",
        query.record,
        query.ttl,
    )


def asciiDomain(domain):
    """
    A domain name with A-labels in place of what is not ASCII (RFC 7208, 4.3), and without the dot that may be at
    its end: Postfix takes mail from C{user@example.net.}, and delivers it as that from C{user@example.net}.

    @return: None for what is no domain name of at least two labels.
    """
    try:
        domain = aLabels(domain).removesuffix(".")
    except UnicodeError:
        return None
    labels = domain.split(".")
    if len(labels) < 2 or not all(0 < len(label) < 64 for label in labels) or not domain.isprintable():
        return None
    if domain[0] == "[" or labels[-1].isdigit() or " " in domain:  # an address, in brackets or not
        return None
    return domain


def harmless(text):
    """
    A text of strangers as printable ASCII of limited length.
    """
    text = text[:_LONGEST_TEXT]
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if " " <= one <= "~" else "?" for one in text)


def allowed(timeout):
    """
    Seconds that may be spent here, so that the request keeps some for its answer.
    """
    left = timeLeft()
    return timeout if left is None else min(timeout, max(left - _RESERVE, left / 2))


def _askable(host):
    """
    A host as it is asked for: the resolver's answers escape what is unusual in a name (RFC 1035, 5.1).
    """
    return _ESCAPED.sub(r"\1", host) if "\\" in host else host


def _readable(record):
    """
    A record as pyspf reads it rightly: it knows modifiers in small letters only, though case does not matter
    (RFC 7208, 4.6.1), and wants those that it does not know only once, though they are to be ignored however often
    they appear (RFC 7208, 6). Of these only the macros have to be right (RFC 7208, 6 and 7.1).
    """
    if record.rfind("=") < len("v=spf1"):  # as most, it has none
        return record
    version, *terms = record.split(" ")
    found, unknown = [version], {}
    for term in terms:
        match = _MODIFIER.match(term)
        if match is None:
            found.append(term)
        elif (name := match[1].lower()) in _KNOWN:
            found.append(f"{name}={term[match.end() :]}")
        elif "%" in term:
            unknown[term[match.end() :]] = None
    return " ".join([*found, *(f"x{number}={text}" for number, text in enumerate(unknown))])


class _Explanation(NamedTuple):
    """
    Where the domain's owner explains; looked up only when there is something to explain.
    """

    name: str
    domain: str


class _Query(spf.query):
    """
    @ivar record: the first record that was found.
    @ivar trouble: of the DNS, for the log.
    @ivar ttl: the shortest of all answers.
    """

    # Single letters are macros in pyspf: none may be used as a name here.

    def __init__(self, dns, address, helo, local, domain, timeout, voidLimit, receiver):
        local = local.encode("utf-8", "surrogateescape").decode("utf-8", "replace") or "postmaster"
        super().__init__(i=address, s=f"{local}@{domain}", h=helo, receiver=receiver)
        # pyspf takes what is behind the first @, which may be within quotes.
        self.l, self.o, self.d = local, domain, domain
        self.mechanism = None
        self.record = None
        self.trouble = ""
        self.ttl = _LONG
        self._family = AF_INET if self.cidrmax == 32 else AF_INET6
        self._number = int(self.ipaddr)
        self._resolver = dns if isinstance(dns, Ahead) else Ahead(dns)
        left = timeLeft()
        self._ends = None if left is None else left - allowed(timeout)
        self._voidLimit = voidLimit

    def dns(self, name, qtype, cnames=None, ignore_void=False):
        """
        The records of a name; the resolver has followed its CNAMEs.
        """
        name = name.removesuffix(".")
        # A local part that is not ASCII is in no name (RFC 8616, 4), and a label has 1 to 63 octets.
        if not name.isascii() or not _LABELS(name):
            return []
        answer = self._asked(name, qtype)
        self.ttl = min(self.ttl, answer.ttl)
        records = list(answer.records)
        if not records:
            if not ignore_void:
                self.void_lookups += 1
                if self.void_lookups > self._voidLimit:
                    raise spf.PermError(f"Void lookup limit of {self._voidLimit} exceeded")
        elif qtype == "MX":
            records = [(preference, _askable(host)) for preference, host in records]
            if len(records) <= spf.MAX_MX:
                self._beginHosts([host for _, host in records])
        elif qtype == "PTR":
            records = [_askable(host) for host in records]
            self._beginHosts(records[: spf.MAX_PTR])
        return records

    def _beginHosts(self, hosts):
        if len(hosts) > 1:
            for host in hosts:
                self._resolver.begin(host, self.A)

    def _asked(self, name, kind):
        left = None
        if self._ends is not None:
            left = timeLeft() - self._ends
            if left <= 0:
                self._giveUp("the time for SPF is up", "out of time")
        try:
            return self._resolver.lookup(name, kind, left)
        except (DNSError, TimeoutError) as error:
            self._giveUp(f"{name} {kind}: {error}", f"DNS: {name} {kind} is not known now")

    def _giveUp(self, trouble, shown):
        """
        Which of our name servers does not answer is nothing for the SMTP client.
        """
        self.trouble = trouble
        raise spf.TempError(shown)

    def cidrmatch(self, ipaddrs, n):
        """
        Is the client in a network of C{n} bits around one of these addresses? pyspf's own way takes half of the
        time of an evaluation.
        """
        rest = self.cidrmax - n
        try:
            return any(
                int.from_bytes(inet_pton(self._family, one)) >> rest == self._number >> rest for one in ipaddrs
            )
        except (OSError, ValueError):
            raise spf.PermError("Invalid IP address", " ".join(ipaddrs)) from None

    def validated_ptrs(self):
        """
        The names of the client that lead back to it.
        """
        return [name for name in self.dns_ptr(self.i)[: spf.MAX_PTR] if self._leadsBack(name)]

    def _leadsBack(self, name):
        try:
            addresses = self.dns_a(name, self.A)
        except spf.TempError:
            # A name that is wrong is passed over (RFC 7208, 5.5); what nobody could say is trouble, as anywhere.
            if not self._isCircle(name):
                raise
            self.trouble = ""
            return False
        return self.cidrmatch(addresses, self.cidrmax)

    def _isCircle(self, name):
        """
        Do CNAMEs lead from a name to nowhere?
        """
        for _ in range(spf.MAX_CNAME):
            aliases = self._asked(name, "CNAME").records
            if not aliases:
                return False
            name = aliases[0]
        return True

    def dns_spf(self, domain):
        """
        The SPF record of a domain; what it includes is asked for at once, not one after the other.
        """
        record = super().dns_spf(domain)
        if self.record is None:
            self.record = record
        if record:
            included = _INCLUDED.findall(record)
            if len(included) > 1:
                for one in included[: spf.MAX_LOOKUP]:
                    self._resolver.begin(one)
        return record and _readable(record)

    def get_explanation(self, spec):
        return _Explanation(spec, self.d)

    def explained(self, explanation):
        """
        What the owner of a domain says, None without a valid text.
        """
        self.d = explanation.domain
        try:
            return super().get_explanation(explanation.name)
        except spf.TempError:
            return None

    def expand_domain(self, arg):
        if len(arg) > _LONGEST_TERM:
            raise spf.PermError("A domain is too long", arg[:80])
        return super().expand_domain(arg)

    def expand(self, s, stripdot=True):
        if "%" in s and (len(s) > _LONGEST_TERM or s.count(".") > _MOST_DOTS):
            raise spf.PermError("Macros are too long", s[:80])
        if stripdot:
            return super().expand(s)
        # An explanation, of which pyspf would drop the beginning when it is longer than a name may be.
        return "".join(map(self._expanded, _MACRO.split(s)))

    def _expanded(self, part):
        """
        A macro of an explanation, or what is between two.
        """
        return _FIXED.get(part) or (super().expand(part, False) if "%" in part else part)
