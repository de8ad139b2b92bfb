"""
What the check modules for lists of the DNS have in common: which lists, what they are asked, and how it is told.
"""

from ppolicy.address import address, isPrivate, registeredDomain
from ppolicy.blocklists import DeadList
from ppolicy.check import Check, parameter
from ppolicy.errors import ConfigError
from ppolicy.listhealth import CLEAN, LISTED, UNKNOWN

# Attributes with the name of a host, or an address that ends in one.
DOMAINS = ("sender", "helo_name", "reverse_client_name", "client_name")
CLIENT = "client_address"


class BlocklistCheck(Check):
    """
    A check that asks lists.

    @ivar lists: the L{ppolicy.blocklists.BlockList}s.
    @ivar dead: the L{ppolicy.blocklists.DeadList}s among those that were named.
    """

    cachePositive: float = parameter(21600, "seconds a result above 0 is kept in the cache", minimum=0)
    cacheUnknown: float = parameter(1800, "seconds a result of 0 is kept in the cache", minimum=0)
    cacheNegative: float = parameter(43200, "seconds a result below 0 is kept in the cache", minimum=0)

    asksLists = True

    def openLists(self, names):
        """
        Find the lists with these names, and have them tested from time to time.

        @raises ConfigError: with a sentence for each that cannot be used.
        """
        found, mistakes = [], []
        for name in dict.fromkeys(names):
            try:
                found.append(self.blocklists.find(name))
            except ConfigError as error:
                mistakes += error.mistakes
        if mistakes:
            raise ConfigError(*mistakes)
        self.dead = [one for one in found if isinstance(one, DeadList)]
        self.lists = list(dict.fromkeys(one for one in found if one not in self.dead))
        self.blocklists.use(self, self.lists)

    def stop(self):
        self.blocklists.release(self)

    def questions(self, data, params):
        """
        What the lists are asked about a request.

        @return: ([(list, subject)], why there is nothing to ask where that is so)
        """
        questions, reasons = [], {}
        for one in self.lists:
            subjects, reason = self._subjects(one, data, params)
            questions += [(one, subject) for subject in subjects]
            if not subjects:
                reasons[reason] = None
        return questions, "; ".join(reasons)

    def _subjects(self, one, data, params):
        if one.kind != "domain":
            return client(one, text(data, CLIENT)) if CLIENT in params else ([], "no client address is asked for")
        found = {}
        for name in DOMAINS:
            if name not in params:
                continue
            host = text(data, name).rpartition("@")[2].strip(".").lower()
            domain = registeredDomain(host)
            if domain is not None:
                if one.names in ("host", "both"):
                    found[host] = None
                if one.names in ("domain", "both"):
                    found[domain] = None
        return list(found), "" if found else "there is no domain"

    def asked(self, data, params, texts=True):
        """
        Ask all lists.

        @return: (findings by list: {list: [L{Finding}]}, why there is nothing to ask); the dictionary has a list
            when there is something to ask it.
        """
        questions, reason = self.questions(data, params)
        if not questions:
            return {}, reason
        found = {}
        for finding in self.blocklists.ask(questions, texts):
            found.setdefault(finding.list, []).append(finding)
        return found, reason


def text(data, name):
    """
    An attribute of the request.
    """
    value = data.get(name)
    return value if isinstance(value, str) else ""


def client(one, given):
    """
    What a list is asked about a client.

    @return: ([subject], ''), or ([], why it is not asked).
    """
    found = address(given)
    if found is None:
        return [], "there is no client address"
    if isPrivate(given):
        return [], f"{found} is a private or reserved address"
    if not (one.ipv4 if found.version == 4 else one.ipv6):
        return [], f"{one.name} knows no IPv{found.version}"
    return [found.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")], ""


def state(findings):
    """
    What a list says about all it was asked for: listed if anything is; else unknown if anything is.
    """
    states = {finding.state for finding in findings}
    return LISTED if LISTED in states else UNKNOWN if UNKNOWN in states else CLEAN


def score(findings):
    """
    The score of a list: each of its codes counts once, whatever has it.
    """
    return sum(code.score for code in dict.fromkeys(code for finding in findings for code in finding.codes))


def told(findings):
    """
    What is told about a list that lists something: {codes, meaning, text, score}.
    """
    listed = [finding for finding in findings if finding.state == LISTED]
    return {
        "codes": list(dict.fromkeys(one for finding in listed for one in finding.addresses)),
        "meaning": "; ".join(dict.fromkeys(code.meaning for finding in listed for code in finding.codes)),
        "text": " ".join(dict.fromkeys(finding.text for finding in listed if finding.text)),
        "score": score(findings),
    }


def whyUnknown(findings):
    """
    Why a list has not answered.
    """
    return next(finding.reason for finding in findings if finding.state == UNKNOWN)
