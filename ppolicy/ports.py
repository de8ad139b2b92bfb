"""
The open ports of the server: those of `ppolicyPort`, bound or inherited, at the start and with each reload.
"""

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from ppolicy import listeners
from ppolicy.errors import ConfigError


class Ports:
    """
    @param inherited: the L{Inherited} sockets.
    @param makeFactory: gives the protocol factory of a new port.
    """

    log = Logger()

    def __init__(self, reactor, inherited, makeFactory):
        self._reactor = reactor
        self._inherited = inherited
        self._makeFactory = makeFactory
        self._open = {}

    def __str__(self):
        return ", ".join(self.described())

    def described(self):
        """
        The ports as texts.
        """
        return [listeners.describe(wanted) for wanted in self._open]

    def bind(self, values, folder):
        """
        All wanted ports, for L{use}; those that are open already are kept as they are.

        @raises ConfigError: when one cannot be bound; then the new ones are closed again.
        """
        bound = {}
        try:
            for value in values:
                for wanted in map(self._asOpen, listeners.parsePort(value, folder)):
                    port = self._open.get(wanted) or self._listen(wanted)
                    if port is not None:
                        bound[wanted] = port
        except ConfigError:
            for wanted in bound.keys() - self._open.keys():
                self._close(wanted, bound[wanted])
            raise
        return bound

    def _asOpen(self, wanted):
        """
        The same address as it is open: 10031 has ::1 where the host has it, '[::1]:10031' in any case.
        """
        same = (one for one in self._open if isinstance(wanted, listeners.Tcp) and one[:2] == wanted[:2])
        return next(same, wanted)

    def _listen(self, wanted):
        try:
            return self._listening(wanted)
        except ConfigError as error:
            own = [listeners.describe(one) for one in self._open if listeners.isInTheWay(wanted, one)]
            if not own:
                raise
            raise ConfigError(f"{error}; this server has {own[0]} open: start it again to change that") from None

    def _listening(self, wanted):
        passed = listeners.passed(wanted, self._inherited)
        if passed is not None and not listeners.isWrapped(wanted):
            return passed.listen(self._reactor, self._makeFactory())
        port = listeners.listen(self._reactor, wanted, self._makeFactory())
        return _result(port, wanted) if isinstance(port, Deferred) else port

    def unclaimed(self, values, folder):
        """
        A sentence for each inherited socket that none of the values means.
        """
        wanted = [one for value in values for one in listeners.parsePort(value, folder)]
        return self._inherited.unclaimed([listeners.passed(one, self._inherited) for one in wanted])

    def use(self, bound):
        """
        From now on these are the ports; others that were open are closed.
        """
        former, self._open = self._open, bound
        for wanted in former.keys() - bound.keys():
            self._close(wanted, former[wanted])

    def stop(self):
        """
        Accept nothing any more.

        @return: a Deferred.
        """
        return DeferredList([self._close(wanted, port) for wanted, port in self._open.items()])

    def _close(self, wanted, port):
        return maybeDeferred(port.stopListening).addErrback(
            lambda failure: self.log.warn(
                "{port}: {error}", port=listeners.describe(wanted), error=failure.getErrorMessage()
            )
        )


def _result(deferred, wanted):
    """
    What a Deferred that has fired already holds; endpoints of the local host are that quick.
    """
    results = []
    deferred.addBoth(results.append)
    if not results:
        deferred.cancel()
        raise ConfigError(f"ppolicyPort: {wanted.description} is not there at once")
    if isinstance(results[0], Exception) or hasattr(results[0], "getErrorMessage"):
        raise ConfigError(f"ppolicyPort: {wanted.description}: {results[0].getErrorMessage()}")
    return results[0]
