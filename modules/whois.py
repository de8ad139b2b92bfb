"""
Whose address is it?
"""

from typing import Literal

from ppolicy.address import address as parsed
from ppolicy.address import isPrivate, networkOf
from ppolicy.check import Check, parameter, timeLeft, wait
from ppolicy.cymru import ask as askCymru
from ppolicy.enquiries import Enquiries
from ppolicy.errors import BackendError, ParamError
from ppolicy.mailhosts import Guard
from ppolicy.origin import fromText, toText
from ppolicy.whoisclient import WhoisClient

# Seconds before the request's deadline in which the policy must be able to go on.
_RESERVE = 0.5
# Seconds for which it is remembered that there was trouble.
_TROUBLE = 60
# Seconds that one question may take, servers and names together, and that `ppolicy try` waits for it.
_LONGEST = 90.0
_TRY = 20.0
_NOT_YET = 0, "not known yet", 0
_NOTHING = "nobody knows this address"


class Whois(Check):
    """
    Every address on the internet was given to somebody, and registries keep the books: which network it belongs
    to, in which country, to whom, and which autonomous system (the network of a provider) announces it. Whoever
    gets spam from all over one provider's network can let that count. The country is that of the owner's office,
    not that of the host.

    The `source` 'dns' is Team Cymru's free service, which needs two look-ups in the DNS; 'whois' asks the registry
    itself (RFC 3912), from whois.iana.org on along its referrals; 'both' is the DNS, and whois where that knows
    nothing.

    Others have to answer, so nobody is asked twice: what is known is kept in the database, by the DNS for the
    whole /24 (IPv6: /48). Questions are asked in the background, at most `perMinute` in a minute: the first mail
    from a network gets 0, later ones the answer; unless the policy lets requests `wait`. `ppolicy try` waits.

    Check arguments:
        data ... the request

    Check returns:
        1 .... known; information: a tuple with names: .network, .country ('CZ'), .asn (a number, 0 unknown),
               .organisation, .registry ('arin', 'ripencc' ...), .allocated ('2004-01-15'); texts are '' where
               nobody says
        0 .... not known yet, or nobody could say
        -1 ... nothing is registered: a private address, or one that nobody announces
        information: where the code is not 1, why, a text

    Examples:
        # who is the client? known from its network's second mail on
        modules['whois'] = ('Whois', {})
        # let mail wait for the answer, but not for long
        modules['whois_now'] = ('Whois', {'wait': 3})
        # ask the registries where the DNS has nothing, six times a minute at most; keep it for a month
        modules['whois_registry'] = ('Whois', {'source': 'both', 'perMinute': 6, 'keep': 2592000})
    """

    param: str = parameter("client_address", "request attribute that holds the address")
    test1: str | None = parameter("client_address", "not used, as in ppolicy 2.7")
    source: Literal["dns", "whois", "both"] = parameter("dns", "who is asked")
    wait: float = parameter(0, "seconds that a request waits for the answer", minimum=0, maximum=100)
    perMinute: int = parameter(60, "questions that are asked in a minute, at most", minimum=1, maximum=10_000)
    queue: int = parameter(1000, "addresses that wait to be asked for, at most", minimum=1, maximum=100_000)
    table: str = parameter("whois", "table of what is known")
    keep: float = parameter(604800, "seconds that it is kept there", minimum=60)
    keepNothing: float = parameter(86400, "seconds that it is kept there that nothing is registered", minimum=60)
    server: str = parameter("whois.iana.org", "whois server that is asked first, a host's name or address")
    port: int = parameter(43, "port of whois servers", minimum=1, maximum=65535)
    allowPrivate: bool | list[str] = parameter(
        False, "True: also ask whois servers on private networks; or a list of networks, there even this host"
    )
    cachePositive: float = parameter(3600, "seconds a result above 0 is kept in the cache", minimum=0)
    cacheUnknown: float = parameter(900, "not used: a result of 0 is not kept in the cache", minimum=0)
    cacheNegative: float = parameter(3600, "seconds a result below 0 is kept in the cache", minimum=0)

    def start(self):
        try:
            guard = Guard([], self.allowPrivate)
        except ValueError as error:
            raise ParamError(f"allowPrivate: {error}") from None
        if not self.server.isascii() or not self.server.isprintable() or " " in self.server or not self.server:
            raise ParamError("server must be a host's name or address")
        self._problem = None  # why the last question had no answer
        bridge = self.state.bridge
        self._clock = bridge.seconds
        self._client = WhoisClient(bridge.reactor, self.dns, guard, self.server, self.port)
        self._enquiries = Enquiries(bridge, self._findOut, self.perMinute, _LONGEST, most=self.queue)
        self._stored = self.state.table(self.table, ("address", "source"), "value")

    def status(self):
        return {"problem": self._problem, "source": self.source, **self._enquiries.status()}

    def stop(self):
        self._enquiries.stop()

    def hashArg(self, data):
        address = parsed(data.get(self.param, ""))
        if address is None:
            return 0
        return "private" if isPrivate(str(address)) else self._network(address)

    def _network(self, address):
        """
        The network that an answer is for, a text.
        """
        prefixes = (24, 48) if self.source == "dns" else (32, 64)
        return networkOf(str(address), *prefixes)

    def check(self, data):
        address = parsed(data.get(self.param, ""))
        if address is None:
            return 0, "it is no IP address", 0
        if isPrivate(str(address)):
            return -1, "it is a private or reserved address"
        network = self._network(address)
        known = self._enquiries.remembered.get(network, self._clock()) or self._fromDatabase(network)
        if known is not None:
            return known
        if not self._enquiries.ask(network, address):
            return 0, f"{self.queue} addresses wait to be asked for already", 0
        seconds = max(self.wait, _TRY) if self.dryRun else self.wait
        left = timeLeft()
        if left is not None:
            seconds = min(seconds, left - _RESERVE)
        if seconds <= 0:
            return _NOT_YET
        try:
            return wait(self._enquiries.answer(network), seconds) or _NOT_YET
        except TimeoutError:
            return _NOT_YET

    # In the background

    def _findOut(self, network, address):
        result = self._ask(address)
        self._problem = None if result[0] else result[1]
        seconds = _TROUBLE
        if result[0]:
            seconds = self.keep if result[0] > 0 else self.keepNothing
            self._intoDatabase(network, result, seconds)
            seconds = min(seconds, max(self.cachePositive, _TROUBLE))
        self._enquiries.remembered.put(network, result, self._clock() + seconds)
        return result

    def _ask(self, address):
        """
        @return: a result of the check.
        """
        troubles = []
        for name, ask in (("dns", askCymru), ("whois", None)):
            if self.source not in (name, "both"):
                continue
            try:
                found = ask(self.dns, address) if ask else self._client.ask(address)
            except (BackendError, TimeoutError) as error:
                troubles.append(str(error))
                continue
            if found is not None:
                return 1, found
        return (0, "; ".join(troubles), 0) if troubles else (-1, _NOTHING)

    # What is known already

    def _fromDatabase(self, network):
        """
        A result, None when nothing is known or the database does not answer: then it is asked for.
        """
        try:
            row = self._stored.get((network, self.source))
        except (BackendError, TimeoutError):
            return None
        if row is None:
            return None
        if not row["value"]:
            return -1, _NOTHING
        found = fromText(row["value"])
        return None if found is None else (1, found)

    def _intoDatabase(self, network, result, seconds):
        code, found = result
        try:
            self._stored.put((network, self.source), {"value": toText(found) if code > 0 else ""}, seconds)
        except (BackendError, TimeoutError):  # it is in memory
            pass
