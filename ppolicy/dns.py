"""
Looking names up in the DNS, without blocking: what checks call, and what they get.

That there is nothing is an answer; that nobody could say is an error. A check takes the first as no, the second
as unknown.
"""

from ppolicy.address import address as addressOf
from ppolicy.bridge import timeLeft, wait, waitAll
from ppolicy.errors import BackendError, DNSError, DNSTimeout

# Seconds that an answer holds at least, whatever its time to live.
SHORTEST = 5
# Seconds of a request's time that no look-up takes: a name that nobody answers for must not end the whole policy.
_RESERVE = 0.5


class Answer:
    """
    What the DNS says about a name.

    @ivar records: a tuple of values. Addresses and host names are text, names in lower case without the dot at
        the end; MX gives (preference, host), lowest preference first; TXT gives the tuple of a record's strings,
        octets.
    @ivar exists: False when there is no such name; when there is only no such record, it is True.
    @ivar name: the name that has the records, at the end of a chain of CNAMEs.
    @ivar authentic: did a server that we trust say that it is validated (DNSSEC)?
    @ivar ttl: seconds for which it holds.
    """

    __slots__ = ("authentic", "exists", "name", "records", "ttl")

    def __init__(self, records=(), exists=True, name="", authentic=False, ttl=SHORTEST):
        self.records = records
        self.exists = exists
        self.name = name
        self.authentic = authentic
        self.ttl = ttl

    def __repr__(self):
        return f"Answer({self.records!r}, exists={self.exists}, name={self.name!r}, ttl={self.ttl})"


class Lookups:
    """
    What checks call, upon C{ask()}.
    """

    def ask(self, name, kind):
        """
        @param name: a domain name as text; it is taken as absolute.
        @param kind: 'A', 'AAAA', 'MX', 'PTR', 'TXT', 'NS', 'CNAME' or 'SOA'.
        @return: a Deferred of an L{Answer}. It fails with L{DNSError}, or L{DNSTimeout}, when nobody could say.
        """
        raise NotImplementedError

    def lookup(self, name, kind, timeout=None):
        """
        The same and wait: an L{Answer}.

        @param timeout: seconds, at most.
        @raises DNSError: when nobody could say; it is a L{DNSTimeout} after C{timeout}, and a little before the
            time for the request is up.
        """
        try:
            return wait(self.ask(name, kind), _allowed(timeout))
        except TimeoutError as error:
            raise DNSTimeout(str(error)) from None

    def lookupAll(self, questions):
        """
        Ask all at once and wait for all, until a little before the time for the request is up.

        @param questions: (name, kind) of each.
        @return: for each of them an L{Answer}, or the L{DNSError}.
        """
        answers = waitAll([self.ask(name, kind) for name, kind in questions], _allowed())
        answers = [
            DNSTimeout("no answer in time") if isinstance(answer, TimeoutError) else answer for answer in answers
        ]
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, DNSError):
                raise answer
        return answers

    def addresses(self, name):
        """
        All addresses of a host, those of IPv4 first; it waits.

        @raises DNSError: when one half is not known, and the other is empty.
        """
        answers = self.lookupAll([(name, "A"), (name, "AAAA")])
        found = [one for answer in answers if isinstance(answer, Answer) for one in answer.records]
        trouble = [answer for answer in answers if isinstance(answer, DNSError)]
        if not found and trouble:
            raise trouble[0]
        return found

    def names(self, address):
        """
        The names of an address, as its owner says; it waits.

        @raises DNSError: when nobody could say.
        """
        return self.lookup(reverseName(address), "PTR").records


class Ahead(Lookups):
    """
    A resolver for one mail: it is asked at once what will be needed in a moment, and C{lookup} asks for nothing
    twice, as the domain of HELO and that of the sender often lead to the same names.
    """

    def __init__(self, dns):
        self._dns = dns
        self._begun = {}
        self._known = {}

    def begin(self, name, kind="TXT"):
        """
        Ask now what C{ask} will be asked for.
        """
        key = name.lower(), kind
        if key not in self._begun:
            # Trouble is for who needs the answer; perhaps nobody does.
            self._begun[key] = self._dns.ask(name, kind).addErrback(lambda failure: failure.value)

    def ask(self, name, kind):
        """
        What was asked ahead is for the first who asks for it.
        """
        begun = self._begun.pop((name.lower(), kind), None)
        return self._dns.ask(name, kind) if begun is None else begun.addCallback(_orRaise)

    def lookup(self, name, kind, timeout=None):
        key = name.lower(), kind
        answer = self._known.get(key)
        if answer is None:
            answer = self._known[key] = super().lookup(name, kind, timeout)
        return answer


def _allowed(timeout=None):
    """
    Seconds that may be waited, at most C{timeout}; None for any.
    """
    left = timeLeft()
    if left is None:
        return timeout
    left = max(left - _RESERVE, left / 2)
    return left if timeout is None else min(timeout, left)


def _orRaise(answer):
    if isinstance(answer, BaseException):
        raise answer
    return answer


def reverseName(address, zone=None):
    """
    The name under which something is said about an address: its host's name by default, else what a list with
    this zone says of it.

    @param address: of IPv4 or IPv6, as text; an IPv4 one that is mapped into IPv6 counts as itself.
    @raises BackendError: when it is no address.
    """
    found = addressOf(address)
    if found is None or getattr(found, "scope_id", None):
        raise BackendError(f"{address!r} is no IP address")
    name = found.reverse_pointer
    if zone is None:
        return name
    return f"{name.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}"
