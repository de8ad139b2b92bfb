"""
Asking mail hosts over SMTP what they would take, each only so often and so much at a time.
"""

from collections import OrderedDict, deque
from ipaddress import ip_address
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger

from ppolicy.bridge import inReactor
from ppolicy.cache import ResultCache
from ppolicy.smtpreply import harmless
from ppolicy.smtpsession import HAS_TLS, Call, Heard, Session

__all__ = ["HAS_TLS", "Call", "Heard", "Limits", "Prober", "harmless"]

# Seconds in which a connection must be there, and that a host has for its reply to QUIT.
CONNECT = 10.0
FAREWELL = 2.0
# Sessions at a time, all hosts together, and hosts of which something is remembered.
MOST = 200
PLACES = 10_000
# Questions that wait for their turn at one host.
QUEUE = 20
_MINUTE = 60.0
# So many different hosts that cannot be reached, one after the other, are no accident.
_UNREACHED = 10
_REMEMBERED = 10_000
_STOPS = "the server stops"


class Limits(NamedTuple):
    """
    How much one host may be asked.

    @ivar connections: at a time.
    @ivar perMinute: new ones in a minute.
    """

    connections: int = 2
    perMinute: int = 30


ORDINARY = Limits()


class Prober:
    """
    Asks hosts, each only so often and so much at a time.

    @ivar remembered: what is known of domains and addresses for a while, by keys of those who ask.
    """

    log = Logger()

    def __init__(self, bridge):
        self.bridge = bridge
        self.reactor = bridge.reactor
        self._greeted = {}
        self._unreached = set()  # addresses, since the last host has greeted us
        self.remembered = ResultCache(_REMEMBERED)
        self.asked = self.underWay = 0
        self._places = OrderedDict()
        self._attempts = set()
        self._isStopped = False

    def status(self):
        """
        What it is doing, as a dictionary.
        """
        problem = None
        if len(self._unreached) >= _UNREACHED:
            problem = f"the last {_UNREACHED} mail hosts could not be reached: may this host connect to port 25?"
        return {
            "problem": problem,
            "asked": self.asked,
            "underWay": self.underWay,
            "waiting": sum(len(place.waiting) for place in self._places.values()),
            "hosts": len(self._places),
        }

    def greeted(self, address):
        """
        Note that a host has said 220.
        """
        self._greeted[ip_address(address).is_global] = self.reactor.seconds()
        self._unreached.clear()

    def unreached(self, address):
        """
        Note that there was no connection to a host.
        """
        if len(self._unreached) < _UNREACHED:
            self._unreached.add(address)

    def reached(self, address, seconds):
        """
        Has any host greeted us within so many seconds, public or private as this one is, and not all others been
        out of reach since?
        """
        if len(self._unreached) >= _UNREACHED:
            return False
        last = self._greeted.get(ip_address(address).is_global)
        return last is not None and last >= self.reactor.seconds() - seconds

    def stop(self):
        """
        End all sessions, and begin none: who is told so would ask the next host.
        """
        self._isStopped = True
        for place in self._places.values():
            while place.waiting:
                place.waiting.popleft()[0].end(_STOPS)
        for attempt in list(self._attempts):
            attempt.giveUp(_STOPS)

    @inReactor
    def ask(self, address, call, limits=ORDINARY, name=""):
        """
        Ask a host.

        @param address: of IPv4 or IPv6, as text; C{name} is the host's, for TLS.
        @return: a Deferred of what was L{Heard}; it does not fail.
        """
        if self._isStopped:
            return succeed(Heard("limit", None, _STOPS))
        now = self.reactor.seconds()
        place = self._place(address, now)
        if place is None or self.underWay >= MOST:
            return succeed(Heard("limit", None, "too many mail hosts are being asked"))
        while place.begun and place.begun[0] <= now - _MINUTE:
            place.begun.popleft()
        if len(place.begun) >= limits.perMinute:
            return succeed(Heard("limit", None, f"it was asked {len(place.begun)} times in a minute already"))
        if place.active >= limits.connections and len(place.waiting) >= QUEUE:
            return succeed(Heard("limit", None, f"{QUEUE} questions wait for it already"))
        place.begun.append(now)
        attempt = _Attempt(self, place, address, call, name)
        if place.active < limits.connections:
            self._begin(attempt)
        else:
            place.waiting.append((attempt, limits))
            attempt.wait()
        return attempt.done

    def _place(self, address, now):
        """
        What is known of a host, None when it is one host too many.
        """
        places = self._places
        place = places.get(address)
        if place is None:
            if len(places) >= PLACES:
                oldest = next(iter(places))
                if not places[oldest].isIdle(now):
                    return None
                del places[oldest]
            place = places[address] = _Place()
        else:
            places.move_to_end(address)
        return place

    def _begin(self, attempt):
        attempt.place.active += 1
        self.underWay += 1
        self.asked += 1
        self._attempts.add(attempt)
        attempt.begin()

    def ended(self, attempt):
        """
        Called by an attempt whose connection is gone: the next one may begin.
        """
        place = attempt.place
        place.active -= 1
        self.underWay -= 1
        self._attempts.discard(attempt)
        while place.waiting:
            following, limits = place.waiting[0]
            if following.done.called:  # nobody waits any more
                place.waiting.popleft()
            elif place.active < limits.connections:
                place.waiting.popleft()
                self._begin(following)
            else:
                break


class _Place:
    """
    A host: sessions with it under way, those that wait, and when the last ones began.
    """

    __slots__ = ("active", "begun", "waiting")

    def __init__(self):
        self.active = 0
        self.begun = deque()
        self.waiting = deque()

    def isIdle(self, now):
        return not self.active and not self.waiting and (not self.begun or self.begun[-1] <= now - _MINUTE)


class _Attempt(ClientFactory):
    """
    One question to one host: a session, and another one without TLS when TLS is what fails.
    """

    noisy = False

    def __init__(self, prober, place, address, call, name):
        self.prober, self.place = prober, place
        self.address, self.call, self.name = address, call, name
        self.done = Deferred(lambda _: None)
        self.useTLS = call.startTLS and HAS_TLS
        self._timer = self._securing = self._connector = self._session = None

    def wait(self):
        """
        Wait for a turn, but not for ever.
        """
        self._timer = self.prober.reactor.callLater(
            self.call.seconds, self.end, "it is asked by others all the time"
        )

    def end(self, why):
        """
        Wait no more.
        """
        self._stopTimer()
        self.tell(Heard("limit", None, why))

    def begin(self):
        self._stopTimer()
        self._timer = self.prober.reactor.callLater(self.call.seconds, self._timeUp)
        self._connect()

    def _connect(self):
        self._session = None
        self._connector = self.prober.reactor.connectTCP(
            self.address, self.call.port, self, timeout=min(CONNECT, self.call.seconds)
        )

    def buildProtocol(self, address):
        self._session = Session(self)
        return self._session

    def clientConnectionFailed(self, connector, reason):
        self.prober.unreached(self.address)
        if reason.check(ConnectionRefusedError):
            self.tell(Heard("connection", False, "refuses the connection"))
        else:
            self.tell(Heard("connection", None, f"no connection: {harmless(_octets(reason))}"))
        self._over()

    def clientConnectionLost(self, connector, reason):
        self.secured()
        if not self.done.called and self._session.isSecuring:
            self._withoutTLS()
            return
        self.tell(self._session.lost("hung up"))
        self._over()

    def _withoutTLS(self):
        self.useTLS = False
        self._connect()

    def tell(self, heard):
        """
        Say what was heard. The session may still have to be ended.
        """
        if not self.done.called:
            self.done.callback(heard)

    def securing(self):
        """
        The session begins TLS: when that hangs, there must be time left to go on without.
        """
        most = min(CONNECT, self.call.seconds / 3)
        self._securing = self.prober.reactor.callLater(most, self._session.transport.abortConnection)

    def secured(self):
        """
        TLS is there, or will not be.
        """
        if self._securing is not None and self._securing.active():
            self._securing.cancel()

    def farewell(self):
        """
        The session has said QUIT.
        """
        self._stopTimer()
        self._timer = self.prober.reactor.callLater(FAREWELL, self._timeUp)

    def giveUp(self, reason):
        """
        End it now.
        """
        if self._session is None:
            self.tell(Heard("connection", None, reason))
            self._connector.stopConnecting()
        else:
            self.tell(self._session.lost(reason))
            self._session.transport.abortConnection()

    def _timeUp(self):
        self._timer = None
        self.giveUp(f"no answer within {self.call.seconds:g} s")

    def _over(self):
        self._stopTimer()
        self.prober.ended(self)

    def _stopTimer(self):
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _octets(reason):
    return reason.getErrorMessage().encode("ascii", "replace")
