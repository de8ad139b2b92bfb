"""
What operating system does the client run?
"""

from os import fsencode
from pathlib import Path

from ppolicy.address import address as parsed
from ppolicy.check import Check, parameter, wait
from ppolicy.errors import BackendError, ParamError
from ppolicy.fingerprint import PATH, Fingerprints, Refused

# Seconds for which it is kept that p0f could not be asked.
_SOON = 5


class P0f(Check):
    """
    Every operating system builds the packets that open a connection a little differently; p0f watches the network
    and tells from them what a client runs, without sending anything. Mail servers rarely run a desktop's Windows.
    Nothing is proven by it: let it count in a score, or decide who is greylisted.

    p0f 3 has to run on the host that takes the mail, with a socket that ppolicy may use:
    `p0f -i eth0 -s /var/run/p0f.socket 'tcp dst port 25'`. It knows what it has seen in the last two hours. A
    proxy in front of Postfix hides the clients from it.

    Check arguments:
        data ... the request; client_address is used

    Check returns:
        1 .... p0f has seen the client; information: a tuple with names:
               .os ('Linux', 'Windows', 'FreeBSD' ..., or 'unknown'), .isWindows; [3] .name and [4] .flavor, the
               system and its version; [5] .distance in hops, -1 unknown; [6] .link; [13] .uptime in minutes,
               0 unknown; and .firstSeen, .lastSeen, .connections, .program, .programFlavor, .language, .quality,
               .mismatch, .lastNAT, .uptimeModulo, .lastChange
        0 .... p0f has not seen the client, or cannot be asked
        -1 ... p0f refuses the question as a bad one
        information: where the code is not 1, why, a text

    Examples:
        # p0f with its socket in the usual place
        modules['p0f'] = ('P0f', {})
        # another place; what is known holds for ten minutes
        modules['p0f_fresh'] = ('P0f', {'socket': '/run/p0f/mail.socket', 'cachePositive': 600})
    """

    socket: Path = parameter("/var/run/p0f.socket", "UNIX socket of p0f")
    version: str | int | float | None = parameter("2.0.8", "not used: it is p0f 3 that is asked")
    ip: str | None = parameter(None, "not used: p0f 3 is asked for the client alone")
    port: int | str | None = parameter(25, "not used: p0f 3 is asked for the client alone")
    timeout: float = parameter(0.2, "seconds that p0f has for its answer", minimum=0.01, maximum=10)
    cachePositive: float = parameter(3600, "seconds a result above 0 is kept in the cache", minimum=0)
    cacheUnknown: float = parameter(900, "seconds a result of 0 is kept in the cache", minimum=0)
    cacheNegative: float = parameter(3600, "seconds a result below 0 is kept in the cache", minimum=0)

    def start(self):
        if len(fsencode(self.socket)) > PATH:
            raise ParamError(f"socket: the path of a UNIX socket has at most {PATH} octets")
        self._p0f = Fingerprints(self.state.bridge, self.socket)

    def status(self):
        return self._p0f.status()

    def stop(self):
        self._p0f.stop()

    def hashArg(self, data):
        address = parsed(data.get("client_address", ""))
        return 0 if address is None else str(address)

    def check(self, data):
        address = parsed(data.get("client_address", ""))
        if address is None:
            return 0, "the client has no IP address"
        try:
            found = wait(self._p0f.ask(address), self.timeout)
        except TimeoutError:
            return 0, f"p0f has not answered within {self.timeout:g} s", _SOON
        except Refused as error:
            return -1, str(error)
        except BackendError as error:
            return 0, str(error), _SOON
        return (0, "p0f has not seen the client") if found is None else (1, found)
