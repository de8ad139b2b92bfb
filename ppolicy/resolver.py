"""
Answers the questions of L{ppolicy.dns.Lookups}: one name server after the other, along chains of CNAMEs; a cache,
and equal questions asked once.
"""

from ipaddress import ip_address

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from ppolicy.answercache import AnswerCache
from ppolicy.bridge import inReactor
from ppolicy.dns import SHORTEST, Answer, Lookups
from ppolicy.dnsmessage import NXDOMAIN, TYPES, nameOf, onWire
from ppolicy.errors import DNSError, DNSTimeout

# Seconds that an answer is kept at most, whatever its time to live; one that says there is nothing; and trouble.
LONGEST = 3600
NOTHING = 300
TROUBLE = 5
# How many names of a chain of CNAMEs are followed, and how many questions that may take.
_CHAIN = 16
_PARTS = 4


def _canonical(addresses):
    """
    Addresses as L{ppolicy.nameserver.NameServer} writes its own.
    """
    return {str(ip_address(one)) for one in addresses}


class Resolver(Lookups):
    """
    @param servers: L{ppolicy.nameserver.NameServer}s, asked in their order.
    @param size: how many answers are kept.
    @param timeout: seconds that an answer may take, all servers together.
    @param trusted: addresses of servers whose word is taken for it that an answer is validated, beside those of
        this host.
    """

    log = Logger()

    def __init__(self, bridge, servers, size=50_000, timeout=6.0, trusted=()):
        self.bridge = bridge
        self.reactor = bridge.reactor
        self.servers = servers
        self.timeout = timeout
        self.cache = AnswerCache(size)
        self.asked = self.fromCache = self.failed = 0
        self._trusted = _canonical(trusted)
        self._underWay = {}

    def stop(self):
        """
        Ask nobody any more.
        """
        for server in self.servers:
            server.stop()

    def use(self, servers, size, timeout, trusted=()):
        """
        Go on with other servers; what was answered is kept.
        """
        old, self.servers = self.servers, servers
        for server in old:
            if server not in servers:
                server.stop()
        self.timeout = timeout
        self.cache.resize(size)
        self._trusted = _canonical(trusted)

    def status(self):
        """
        What it is doing, as a dictionary.
        """
        down = [server for server in self.servers if server.down]
        return {
            "problem": "no name server answers" if down and len(down) == len(self.servers) else None,
            "servers": {
                str(server): {"problem": "does not answer" if server.down else None} for server in self.servers
            },
            "asked": self.asked,
            "fromCache": self.fromCache,
            "failed": self.failed,
            "underWay": len(self._underWay),
            "cached": len(self.cache),
        }

    @inReactor
    def ask(self, name, kind):
        wire = onWire(name)
        if wire is None:
            return succeed(Answer(exists=False, name=name))
        key = wire, kind
        found = self.cache.get(key, self.reactor.seconds())
        if found is not None:
            self.fromCache += 1
            return succeed(found) if isinstance(found, Answer) else fail(_again(found))
        waiting = self._underWay.get(key)
        done = Deferred(_abandon)
        if waiting is not None:
            waiting.append(done)
            return done
        question = _Question(self, wire, kind)
        self._underWay[key] = [done]
        self.asked += 1
        question.ask()
        return done

    def trusts(self, server):
        """
        Does it count what this server says of validation (RFC 6840, 5.8)?
        """
        return server.isLocal or server.host in self._trusted

    def answered(self, key, answer):
        """
        What a question calls with its answer.
        """
        self.cache.put(key, answer, self.reactor.seconds() + answer.ttl)
        for done in self._underWay.pop(key, ()):
            if not done.called:
                done.callback(answer)
                self.bridge.breathe()  # hundreds may have waited for it

    def notAnswered(self, key, error):
        """
        What a question calls with a L{DNSError}.
        """
        self.failed += 1
        if not error.later:
            self.cache.put(key, error, self.reactor.seconds() + TROUBLE)
        for done in self._underWay.pop(key, ()):
            if not done.called:
                done.errback(_again(error))


def _abandon(deferred):
    """
    Whoever waited does not any more; others may.
    """
    deferred.errback(DNSTimeout("no answer in time"))


def _again(error):
    """
    The same error for one more: an exception remembers where it was raised, and all that is there.
    """
    return type(error)(str(error), later=error.later)


class _Question:
    """
    One question until it is answered: server after server, and along a chain of CNAMEs.
    """

    def __init__(self, resolver, wire, kind):
        self._resolver = resolver
        self._key = wire, kind
        self._wire = wire
        self._kind = TYPES[kind]
        self._kindName = kind
        self._deadline = resolver.reactor.seconds() + resolver.timeout
        self._parts = 0
        self._ttl = LONGEST
        self._authentic = True
        self._servers = []
        self._server = None
        self._troubled = set()
        self._error = None

    def ask(self):
        """
        Ask the next server that may know.
        """
        resolver = self._resolver
        left = self._deadline - resolver.reactor.seconds()
        if not self._servers:
            self._servers = [one for one in resolver.servers if not one.down and one not in self._troubled]
        if not self._servers or left <= 0:
            reason = "no name server answers" if resolver.servers else "no name servers"
            resolver.notAnswered(self._key, self._error or DNSError(reason, later=True))
            return
        self._server = self._servers.pop(0)
        self._server.ask(self._wire, self._kind, self._heard, left)

    def _heard(self, result):
        try:
            if isinstance(result, DNSError):
                self._notReplied(result)
            else:
                self._replied(result)
        except Exception as error:  # noqa: BLE001 - who waits for it must not wait for ever
            self._resolver.log.failure("a look-up failed")
            broken = DNSError(f"looking it up failed with {type(error).__name__}")
            self._resolver.notAnswered(self._key, broken)

    def _notReplied(self, error):
        self._error = error
        if not isinstance(error, DNSTimeout):
            self._troubled.add(self._server)  # it has said no; who only did not answer is asked again
        self.ask()

    def _replied(self, reply):
        server, trouble = self._server, reply.trouble
        if trouble is None:
            owner, values = self._followed(reply)
            if owner is None:
                trouble = "a chain of CNAMEs without an end"
            elif values and reply.code == NXDOMAIN:
                trouble = "records of a name that does not exist"
        if trouble is not None:
            self._error = DNSError(f"{server}: {trouble}")
            self._troubled.add(server)
            self.ask()
            return
        if not (reply.authentic and self._resolver.trusts(server)):
            self._authentic = False
        if values:
            if self._kindName == "MX":
                values.sort()
            self._finish(Answer(tuple(values), True, owner, self._authentic, self._ttl))
        elif reply.code == NXDOMAIN:
            self._nothing(reply, owner, exists=False)
        elif owner == reply.name or reply.negative is not None:
            self._nothing(reply, owner, exists=True)
        else:
            self._askFor(owner)  # the chain goes on where the server says nothing of

    def _followed(self, reply):
        """
        @return: (the name at the end of the chain, the values there); no name when there is no end.
        """
        owner, kind = reply.name, self._kindName
        chain = {}
        if kind != "CNAME":
            chain = {name: (value, ttl) for name, one, ttl, value in reply.records if one == "CNAME"}
        for _ in range(_CHAIN):
            if owner not in chain:
                break
            owner, ttl = chain[owner]
            self._ttl = min(self._ttl, ttl)
        else:
            return None, []
        values = {}  # in their order, each once
        for name, one, ttl, value in reply.records:
            if one == kind and name == owner:
                values[value] = None
                self._ttl = min(self._ttl, ttl)
        return owner, list(values)

    def _askFor(self, owner):
        self._parts += 1
        wire = onWire(owner)
        if wire is None or self._parts >= _PARTS:
            reason = f"{owner} is no name to ask for" if wire is None else "a chain of CNAMEs without an end"
            self._resolver.notAnswered(self._key, DNSError(f"{nameOf(self._key[0])}: {reason}"))
            return
        self._wire = wire
        self._servers, self._troubled, self._error = [], set(), None
        self.ask()

    def _nothing(self, reply, owner, exists):
        """
        Where no SOA says for how long it holds, not for long (RFC 2308, 5).
        """
        ttl = min(self._ttl, NOTHING, SHORTEST if reply.negative is None else reply.negative)
        self._finish(Answer((), exists, owner, self._authentic, ttl))

    def _finish(self, answer):
        answer.ttl = max(SHORTEST, answer.ttl)
        self._resolver.answered(self._key, answer)
