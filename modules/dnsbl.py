"""
Is the client, or a domain, in a list of the DNS?
"""

from ppolicy.blocklistcheck import CLIENT, DOMAINS, BlocklistCheck, state, told, whyUnknown
from ppolicy.blocklistservice import CLEAN, LISTED
from ppolicy.check import parameter
from ppolicy.errors import ParamError


class Dnsbl(BlocklistCheck):
    """
    Looks the client's address up in a list of the DNS: of addresses that send spam, of addresses that are not to
    send mail at all, of good ones. Lists of domains are asked for that of the sender.

    A list has a name (ZEN, SPAMCOP, DNSWL, DBL ...; the file ppolicy/blocklists.py has them all, with what their
    answers mean). The option dnsLists defines others, and keys for subscribed ones. Lists of ppolicy 2.7 that are
    dead, such as NJABL, are warned about, and nobody asks them; the zone of a dead list is refused.

    A list answers for itself, and not always well: it is tested from time to time, and suspended while it lists
    everything, answers with error codes or does not answer. That is never taken for a listing. Ask through a
    resolver of your own; several lists do not answer public ones.

    Check arguments:
        data ... the request; client_address or sender is used

    Check returns:
        1 .... listed; information: {'list', 'codes', 'meaning', 'text', 'score'}: the addresses that the list
               answers, what they mean, the explanation it gives
        0 .... unknown: the DNS does not answer, or the list is suspended or dead
        -1 ... not listed, or not asked: private addresses are in no list
        information: a text that says why, unless listed

    Examples:
        # Spamhaus: known sources of spam, broken into machines, addresses that must not send mail
        modules['zen'] = ('Dnsbl', {'dnsbl': 'ZEN'})
        # clients that dnswl.org trusts highly; DNSWL alone has those whom it merely knows as well
        modules['dnswl'] = ('Dnsbl', {'dnsbl': 'DNSWL_HI'})
        # is the domain of the HELO name one of spammers?
        modules['dbl'] = ('Dnsbl', {'dnsbl': 'DBL', 'param': 'helo_name'})
    """

    dnsbl: str = parameter(help="the name of the list")
    param: str | None = parameter(
        None, "the attribute that is looked up, by default client_address, of a list of domains sender"
    )

    blocking = False

    def start(self):
        self.openLists([self.dnsbl])
        kind = self.lists[0].kind if self.lists else None
        allowed = (CLIENT, *DOMAINS) if kind is None else DOMAINS if kind == "domain" else (CLIENT,)
        if self.param is not None and self.param not in allowed:
            self.stop()
            raise ParamError(
                f"param: {self.dnsbl} can be asked for {' or '.join(allowed)}, not for {self.param!r}"
            )
        self._params = (self.param or allowed[0],)

    def hashArg(self, data):
        value = data.get(self._params[0], "")
        return f"{self.mark}\n{value.lower().rpartition('@')[2]}" if isinstance(value, str) else 0

    def check(self, data):
        if self.dead:
            return 0, self.dead[0].reason
        found, reason = self.asked(data, self._params)
        if not found:
            return -1, reason
        ((one, findings),) = found.items()
        if state(findings) == LISTED:
            return 1, {"list": one.name, **told(findings)}
        if state(findings) == CLEAN:
            return -1, "not listed"
        return 0, whyUnknown(findings)
