"""
Does a name or an address lead anywhere in the DNS, and back?
"""

from itertools import pairwise
from typing import Literal

from ppolicy.address import address, aLabels, isAddress
from ppolicy.check import Check, parameter
from ppolicy.dns import reverseName
from ppolicy.errors import DNSError

# How many names or addresses of one answer are followed; whoever owns them may have written thousands.
_MOST = 10
_FAMILIES = {4: ("A",), 6: ("AAAA",)}


class Resolve(Check):
    """
    Translates an address or a name in the DNS, step by step: `ip->name` asks for the names of an address,
    `name->ip` for the addresses of a host, `name->mx` for the mail hosts of a domain. Where a type begins and ends
    with the same word, as `ip->name->ip`, the way must lead back to where it began: that is what Postfix calls a
    verified client name. A number, as in `ip1->name->ip2`, says that it need not. Of a mail address the domain
    is taken. IPv4 and IPv6 are alike; of one answer ten names or addresses are followed.

    Check arguments:
        data ... the request

    Check returns:
        1 .... every step found something, and the way leads back where it should
        0 .... unknown: the attribute is empty, or the DNS does not answer
        -1 ... some step found nothing, or the way leads elsewhere
        information: a text that says what was found

    Examples:
        # has the client a name that is really its own?
        modules['rdns'] = ('Resolve', {'param': 'client_address', 'type': 'ip->name->ip'})
        # does the sender's domain take mail?
        modules['sender_mx'] = ('Resolve', {'param': 'sender', 'type': 'name->mx'})
        # is there such a host as the client says it is?
        modules['helo'] = ('Resolve', {'param': 'helo_name', 'type': 'name->ip'})
    """

    param: str = parameter(help="the attribute to translate")
    type: Literal[
        "ip->name",
        "name->ip",
        "name->mx",
        "ip->name->ip",
        "name->ip->name",
        "ip1->name->ip2",
        "ip->name->mx",
        "name1->ip->name2",
    ] = parameter(help="the way to go")
    cachePositive: float = parameter(86400, "seconds a way that leads somewhere is kept in the cache", minimum=0)
    cacheUnknown: float = parameter(1800, "seconds DNS trouble is kept in the cache", minimum=0)
    cacheNegative: float = parameter(21600, "seconds a way that leads nowhere is kept in the cache", minimum=0)

    def start(self):
        words = self.type.split("->")
        self._steps = [word.rstrip("12") for word in words]
        self._mustLeadBack = words[0] == words[-1]

    def hashArg(self, data):
        return self._value(data)

    def _value(self, data):
        value = data.get(self.param, "").lower()
        return value if self._steps[0] == "ip" else value.rpartition("@")[2].removesuffix(".")

    def check(self, data):
        value = self._value(data)
        if not value:
            return 0, f"{self.param} is empty"
        isIP = self._steps[0] == "ip"
        if isAddress(value) != isIP or (isIP and "%" in value):  # of interfaces the DNS knows nothing
            return -1, f"{value} is no {'IP address' if isIP else 'name'}"
        families = _FAMILIES[address(value).version] if self._mustLeadBack and isAddress(value) else ("A", "AAAA")
        found, way, troubles = [value], [value], []
        try:
            for start, end in pairwise(self._steps):
                found = self._translated(found[:_MOST], start, end, families, troubles)
                if not found and troubles:  # what could not be looked up may have one
                    raise troubles[0]
                if not found:
                    return -1, f"{' -> '.join(way)} has no {end}"
                way.append(" ".join(found[:3]))
        except DNSError as error:
            return 0, f"{' -> '.join(way)}: {error}"
        if self._mustLeadBack and not any(self._same(value, one) for one in found):
            if troubles:
                return 0, f"{' -> '.join(way)}: {troubles[0]}"
            return -1, f"{' -> '.join(way)} does not lead back"
        return 1, " -> ".join(way)

    def _translated(self, values, start, end, families, troubles):
        """
        What some values are translated to.

        @param troubles: gets the L{DNSError}s of those that could not be translated.
        """
        if start == "ip":
            questions = [(reverseName(value), "PTR") for value in values]
        else:
            kinds = ("MX",) if end == "mx" else families
            questions = [(value, kind) for value in values for kind in kinds]
        answers = self.dns.lookupAll(questions)
        troubles += [answer for answer in answers if isinstance(answer, DNSError)]
        records = [one for answer in answers if not isinstance(answer, DNSError) for one in answer.records]
        if end == "mx":
            records = [host for _, host in records]
        # The root is no host, and as a mail host it takes no mail: RFC 7505.
        return [one for one in dict.fromkeys(records) if one]

    def _same(self, one, other):
        return aLabels(one) == other if self._steps[0] == "name" else address(one) == address(other)
