"""
How bad, or good, is a client in the eyes of several lists of the DNS together?
"""

from ppolicy.blocklistcheck import CLIENT, DOMAINS, BlocklistCheck, score, state, told, whyUnknown
from ppolicy.blocklists import CATALOGUE
from ppolicy.blocklistservice import LISTED, UNKNOWN
from ppolicy.check import parameter
from ppolicy.errors import ParamError


class DnsblScore(BlocklistCheck):
    """
    Adds up the scores of all lists of the DNS that have the client's address, or a domain of the request, on them.
    A single list may be wrong; several that agree seldom are. Lists of good addresses make the sum smaller.

    All lists are asked at once, so that it takes as long as the slowest one. A list of domains is asked for the
    registered domain, example.co.uk of mail.example.co.uk. The scores are those that SpamAssassin has found out,
    where it has one; the option dnsLists changes them, and defines further lists. See Dnsbl for what lists there
    are, and what becomes of one that is ill.

    Check arguments:
        data ... the request; the attributes that `params` names are used

    Check returns:
        1 .... the sum reaches `threshold`; without one the sum itself, such as 6.154
        0 .... unknown: no list has answered; or the sum, when nothing is listed
        -1 ... the sum does not reach `threshold`; without one the sum, when good is all that is known
        information: {'score', 'listed', 'unknown', 'reason'}: the sum; {list: {'codes', 'meaning', 'text',
                     'score'}}; {list: why it has not answered}; why nothing was asked

    Examples:
        # the lists that are asked by default, for the client and the sender's domain
        modules['score'] = ('DnsblScore', {})
        # refuse what at least two lists agree about
        modules['listed'] = ('DnsblScore', {'dnsbl': ['ZEN', 'SPAMCOP', 'PSBL', 'MAILSPIKE'], 'threshold': 4})
        # every name that the client tells us
        modules['domains'] = ('DnsblScore', {'dnsbl': ['DBL', 'SURBL'], 'threshold': 2,
                                             'params': ['sender', 'helo_name', 'reverse_client_name']})
    """

    dnsbl: list[str] | None = parameter(None, "names of the lists; by default those that suit most sites")
    threshold: float | None = parameter(None, "the least sum for which the code is 1, below it -1")
    treshold: float | None = parameter(None, "the same, as 2.7 wrote it")
    params: list[str] = parameter(
        [CLIENT, "sender"],
        "the attributes that are looked up: client_address, sender, helo_name, reverse_client_name, client_name",
    )

    blocking = False

    def start(self):
        wrong = [name for name in self.params if name != CLIENT and name not in DOMAINS]
        if wrong or not self.params:
            known = ", ".join((CLIENT, *DOMAINS))
            raise ParamError(
                f"params: {wrong[0]!r} is none of {known}" if wrong else f"params: name some of {known}"
            )
        if self.threshold is None:
            self.threshold = self.treshold
        elif self.treshold not in (None, self.threshold):
            raise ParamError("threshold and treshold are the same, give one of them")
        names = self.dnsbl
        if names is None:
            names = [one.name for one in CATALOGUE.values() if one.default]
        if not names:
            raise ParamError("dnsbl: names no list")
        self.openLists(names)

    def hashArg(self, data):
        key = self.mark
        for name in self.params:
            value = data.get(name, "")
            if not isinstance(value, str):
                return 0
            key = f"{key}\n{value.lower().rpartition('@')[2]}"
        return key

    def check(self, data):
        found, reason = self.asked(data, self.params)
        unknown = {one.name: one.reason for one in self.dead}
        unknown |= {
            one.name: whyUnknown(findings) for one, findings in found.items() if state(findings) == UNKNOWN
        }
        listed = {one.name: told(findings) for one, findings in found.items() if state(findings) == LISTED}
        total = round(sum(score(findings) for findings in found.values()), 4) or 0
        info = {"score": total, "listed": listed, "unknown": unknown, "reason": "" if found else reason}
        if unknown and len(unknown) == len(found) + len(self.dead):
            return 0, info
        code = total if self.threshold is None else 1 if total >= self.threshold else -1
        # Who knows what the others would have said: ask them again as soon as after trouble.
        return (code, info, self.cacheUnknown) if len(unknown) > len(self.dead) else (code, info)
