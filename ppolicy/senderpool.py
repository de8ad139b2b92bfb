"""
Is a client one of those that a sender's domain sends its mail from?
"""

from collections import OrderedDict

from ppolicy.address import address as parsed
from ppolicy.bridge import waitAll
from ppolicy.dns import Ahead, Answer
from ppolicy.spf import allowed, asciiDomain, evaluate

# Seconds that a decision is remembered, and one that trouble of the DNS has left open.
_KNOWN = 600
_OPEN = 30
# How many decisions are remembered, and seconds that one may take, twice.
_DECISIONS = 10_000
_TIMEOUT = 8.0
# Mail hosts of a domain that are looked at.
_HOSTS = 10


class SenderPools:
    """
    @param dns: a L{ppolicy.resolver.Resolver}.
    @param clock: gives seconds.
    """

    def __init__(self, dns, clock):
        self._dns = dns
        self._clock = clock
        self._decided = OrderedDict()

    def has(self, domain, network, address, helo, sender):
        """
        Does SPF pass, or is the client a host of the domain or one of its mail hosts? It waits. The decision is
        remembered for the domain and the network.

        @return: False as well when nobody could say.
        """
        now, key = self._clock(), (domain, network)
        decided, until = self._decided.get(key, (False, 0.0))
        if now < until:
            return decided
        name, client = asciiDomain(domain), parsed(address)
        found = False if name is None or client is None else self._ask(name, str(client), helo, sender)
        self._decided[key] = bool(found), now + (_OPEN if found is None else _KNOWN)
        self._decided.move_to_end(key)
        if len(self._decided) > _DECISIONS:
            self._decided.popitem(last=False)
        return bool(found)

    def _ask(self, domain, address, helo, sender):
        """
        @return: None when nobody could say.
        """
        kind = "AAAA" if ":" in address else "A"
        dns = Ahead(self._dns)
        for one in ("MX", kind):
            dns.begin(domain, one)
        result = evaluate(dns, address, helo, sender, _TIMEOUT).result
        if result == "pass":
            return True
        mailHosts, own = _answers(dns, [(domain, "MX"), (domain, kind)])
        hosts = [] if mailHosts is None else [host for _, host in mailHosts.records if host]
        answers = [own, *_answers(dns, [(host, kind) for host in hosts[:_HOSTS]])]
        if any(answer is not None and address in answer.records for answer in answers):
            return True
        return None if result == "temperror" or mailHosts is None or None in answers else False


def _answers(dns, questions):
    """
    @return: an L{Answer} each, None where nobody could say.
    """
    answers = waitAll([dns.ask(name, kind) for name, kind in questions], allowed(_TIMEOUT))
    return [answer if isinstance(answer, Answer) else None for answer in answers]
