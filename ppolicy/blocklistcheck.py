"""
What the check modules for lists of the DNS have in common: which lists, what they are asked, and how it is told.
"""

import hashlib

from ppolicy.address import address, isPrivate, registeredDomain
from ppolicy.blocklists import DeadList
from ppolicy.blocklistservice import CLEAN, LISTED, UNKNOWN
from ppolicy.check import Check, parameter
from ppolicy.errors import ConfigError

# Attributes with the name of a host, or an address that ends in one.
DOMAINS = ("sender", "helo_name", "reverse_client_name", "client_name")
CLIENT = "client_address"


class BlocklistCheck(Check):
    """
    A check that asks lists.

    @ivar lists: the L{ppolicy.blocklists.BlockList}s.
    @ivar mark: stands for all that ppolicy.conf and the catalogue say of the lists, for C{hashArg()}.
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
        # What they mean may be another thing after a reload, so that cached results must not be found any more.
        self.mark = hashlib.blake2b(repr(self.lists).encode(), digest_size=6).hexdigest()
        self.blocklists.use(self, self.lists, self.forgetResults)

    def stop(self):
        self.blocklists.release(self)

    def questions(self, data, params):
        """
        What the lists are asked about a request.

        @return: ([(list, subject)], why there is nothing to ask where that is so)
        """
        questions, reasons = [], {}
        whose = Client(text(data, CLIENT)) if CLIENT in params else None
        names = {host: registeredDomain(host) for host in _hosts(data, params)}
        for one in self.lists:
            if one.kind == "domain":
                subjects, reason = _domains(one, names), "there is no domain"
            elif whose is None:
                subjects, reason = (), f"{CLIENT} is not asked for"
            else:
                reason = whose.notFor(one)
                subjects = () if reason else (whose.reversed,)
            questions += [(one, subject) for subject in subjects]
            if not subjects:
                reasons[reason] = None
        return questions, "; ".join(reasons)

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


class Client:
    """
    A client as lists are asked about it.

    @ivar reversed: its address as it stands before a list's zone, empty where nobody is asked.
    """

    def __init__(self, given):
        self.address = address(given)
        self._reason = self.reversed = ""
        if self.address is None:
            self._reason = "there is no client address"
        elif isPrivate(given):
            self._reason = f"{self.address} is a private or reserved address"
        else:
            name = self.address.reverse_pointer
            self.reversed = name.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")

    def notFor(self, one):
        """
        Why a list is not asked about it; empty when it is.
        """
        if self._reason:
            return self._reason
        version = self.address.version
        return "" if (one.ipv4 if version == 4 else one.ipv6) else f"{one.name} knows no IPv{version}"


def _hosts(data, params):
    """
    The names of hosts and domains in some attributes of a request.
    """
    hosts = [text(data, name).rpartition("@")[2].strip(".").lower() for name in DOMAINS if name in params]
    return dict.fromkeys(host for host in hosts if host)


def _domains(one, names):
    """
    What a list of domains is asked, each once.

    @param names: {host: its registered domain, or None}
    """
    found = {}
    for host, domain in names.items():
        if domain is not None:
            if one.names in ("host", "both"):
                found[host] = None
            if one.names in ("domain", "both"):
                found[domain] = None
    return tuple(found)


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
