"""
Asking whois servers (RFC 3912): one after the other, as each refers to the next one.
"""

from ipaddress import ip_address

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ClientFactory, Protocol

from ppolicy import whoistext
from ppolicy.address import isAddress
from ppolicy.check import wait
from ppolicy.errors import BackendError

# Octets of an answer that are read; seconds that a server has, connecting included; servers that are asked after
# the first one.
OCTETS = 64 << 10
SECONDS = 10.0
REFERRALS = 3
# Addresses of a host that are tried.
_ADDRESSES = 2

# How they want to be asked for an address, so that the answer has no data of persons in it (what RIPE counts), or
# all of it (ARIN).
_QUESTIONS = {
    "whois.arin.net": "n + {}",
    "whois.ripe.net": "-r {}",
    "whois.apnic.net": "-r {}",
    "whois.afrinic.net": "-r {}",
}


class WhoisClient:
    """
    @param dns: a L{ppolicy.resolver.Resolver}.
    @param guard: a L{ppolicy.mailhosts.Guard}: which addresses may be connected to.
    @param server: host that is asked first; by its address it may be anywhere.
    """

    def __init__(self, reactor, dns, guard, server="whois.iana.org", port=43):
        self._reactor = reactor
        self._dns = dns
        self._guard = guard
        self._server = server.lower()
        self._port = port

    def ask(self, address):
        """
        Find the server that knows an address, and ask it; it waits. An answer that refers to another server does
        not count, for it is not that server's network.

        @param address: an C{ipaddress.IPv4Address} or C{IPv6Address}.
        @return: an L{ppolicy.origin.Origin}, None when a server says that there is nothing.
        @raises BackendError: when a server cannot be asked, or its answer cannot be used.
        """
        host, asked = self._server, []
        while True:
            asked.append(host)
            answer = self._answer(host, _QUESTIONS.get(host, "{}").format(address))
            following = whoistext.referral(answer)
            if following is None or following in asked:
                break
            if len(asked) > REFERRALS:
                raise BackendError(f"more than {REFERRALS} whois servers refer to another one")
            host = following
        found = whoistext.origin(answer, address, host)
        if found is None and not whoistext.saysNothing(answer):
            raise BackendError(f"the answer of {host} is not understood")
        return found

    def _answer(self, host, question):
        trouble = f"{host} has no address that may be asked"
        addresses = self._addresses(host)
        for address in addresses:
            seconds = SECONDS / len(addresses)
            try:
                return wait(askServer(self._reactor, address, self._port, question, seconds))
            except BackendError as error:
                trouble = f"{host}: {error}"
        raise BackendError(trouble)

    def _addresses(self, host):
        if host == self._server and isAddress(host):
            return [host]
        found = [host] if isAddress(host) else self._dns.addresses(host)
        allowed = [one for one in found if not self._guard.isOwn(one) and not self._guard.refuses(one)]
        return allowed[:_ADDRESSES]


def askServer(reactor, address, port, question, seconds=SECONDS):
    """
    Ask one server.

    @param address: of it, as text.
    @param question: a line, as text without its end.
    @param seconds: that it has, connecting included.
    @return: a Deferred of the octets of its answer, at most L{OCTETS} of it. It fails with L{BackendError}.
    """
    return _Question(reactor, str(ip_address(address)), port, question, seconds).done


class _Question(ClientFactory):
    """
    A question to one server.
    """

    noisy = False

    def __init__(self, reactor, address, port, question, seconds):
        self.question = question.encode("ascii", "replace") + b"\r\n"
        self.done = Deferred(lambda _: self.end("nobody waits any more"))
        self._timer = reactor.callLater(seconds, self.end, f"no whole answer within {seconds:g} s")
        self._connector = reactor.connectTCP(address, port, self, timeout=seconds)

    def buildProtocol(self, address):
        return _Answer(self)

    def end(self, why):
        """
        Give it up.
        """
        self.finish(BackendError(why))
        self._connector.disconnect()

    def finish(self, result):
        """
        Note the octets of the answer, or a L{BackendError}.
        """
        if self._timer.active():
            self._timer.cancel()
        if not self.done.called:
            if isinstance(result, BackendError):
                self.done.errback(result)
            else:
                self.done.callback(result)

    def clientConnectionFailed(self, connector, reason):
        self.finish(BackendError(f"no connection: {_plain(reason)}"))


class _Answer(Protocol):
    """
    The connection; the server closes it when it has said all.
    """

    def __init__(self, question):
        self._question = question
        self._chunks: list = []
        self._size = 0

    def connectionMade(self):
        self.transport.write(self._question.question)

    def dataReceived(self, data):
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= OCTETS:
            self._question.finish(b"".join(self._chunks)[:OCTETS].rpartition(b"\n")[0])
            self.transport.abortConnection()

    def connectionLost(self, reason):
        if not reason.check(ConnectionDone):
            self._question.finish(BackendError(_plain(reason)))
        elif not self._chunks:
            self._question.finish(BackendError("no answer"))
        else:
            self._question.finish(b"".join(self._chunks))


def _plain(reason):
    return " ".join(reason.getErrorMessage().split())[:100].rstrip(".")
