"""
The contract that a check module keeps; with L{wait} and L{waitAll} all that it needs of ppolicy.
"""

from typing import Any, ClassVar

from ppolicy.bridge import timeLeft, wait, waitAll
from ppolicy.parameter import Parameters, parameter

__all__ = ["Check", "command", "parameter", "timeLeft", "wait", "waitAll"]


def command(method=None, *, changes=False):
    """
    Declare a method that carries out a command of the administrator. It may wait; its keywords come from the
    command line, what it returns is a dictionary for it.

    @param changes: True when answers given so far are true no longer.
    """

    def declare(method):
        method.changes = changes
        return method

    return declare if method is None else declare(method)


class Check(Parameters):
    """
    A check: a subject with parameters, asked once per request.

    Declare each parameter as an annotated attribute, C{delay: int = parameter(600, "seconds …")}; the checked
    value is then C{self.delay}. Override C{check()}, and of the rest what is needed.

    @ivar name: the name given to this check in ppolicy.conf.
    @ivar state: the L{ppolicy.state.StateStore}, for checks that remember.
    @ivar dns: the L{ppolicy.resolver.Resolver}, for checks that look names up.
    @ivar blocklists: the L{ppolicy.blocklistservice.Blocklists}, for checks that ask lists of the DNS.
    @ivar smtp: the L{ppolicy.smtp.Prober}, for checks that ask mail hosts.
    @ivar tables: the L{ppolicy.tables.TableService}, for checks that look values up in lists.
    @ivar forgetResults: to be called when what the check has answered so far is true no longer.
    @ivar dryRun: True when a request is only tried: nothing outside of C{state} may be written.
    @cvar blocking: True when C{check()} really blocks (a C library, C{requests}) and has to run in a worker
        thread. None means: True outside the bundled modules.
    @cvar once: True when asking counts or remembers something, so that a request which Postfix sends again
        must not be counted again: the first answer is repeated for five minutes.
    @cvar asksLists: True when it asks DNS lists, which refuse the large public resolvers.
    @cvar answers: names of parameters that are an answer for Postfix, such as a restriction class.
    @cvar family: the command whose L{command}s the check carries out, as in C{ppolicy greylist list}.
    """

    cachePositive: float = parameter(900, "seconds a result above 0 is kept in the cache", minimum=0)
    cacheUnknown: float = parameter(900, "seconds a result of 0 is kept in the cache", minimum=0)
    cacheNegative: float = parameter(900, "seconds a result below 0 is kept in the cache", minimum=0)
    saveResult: bool = parameter(True, "save code, information and time in the request's attributes")
    saveResultPrefix: str = parameter("result_", "what the names of these attributes begin with")

    blocking: ClassVar[bool | None] = None
    once: ClassVar[bool] = False
    asksLists: ClassVar[bool] = False
    answers: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[str | None] = None

    name: str
    state: Any
    tables: Any
    dns: Any
    blocklists: Any
    smtp: Any
    forgetResults: Any
    dryRun = False

    def __init__(self, name):
        self.name = name

    @classmethod
    def made(cls, name, accepted, factory=None):
        """
        A check with the parameters that C{accept()} made, not yet started.

        @param factory: what checks for ppolicy 2.7 are given.
        """
        check = cls(name)
        check.assume(accepted)
        return check

    def start(self):
        """
        Prepare. Runs before the first request, outside the reactor: it may block, it cannot wait().

        @raises ConfigError: when the parameters cannot be worked with. Any exception refuses the start; a
            backend that is down is none.
        """

    def oldTables(self):
        """
        The tables of ppolicy 2.7 that a command C{importRows} takes: (name, columns, columns of type DATETIME).
        """
        return ()

    def status(self):
        """
        What C{ppolicy status} shows of the check, a dictionary of what JSON knows. In it, and in dictionaries
        within it, C{problem} is a sentence about what is wrong now, or None. It must not block or wait, and is
        asked from the reactor; nothing secret belongs in it.
        """
        return {}

    def stop(self):
        """
        Give back what L{start} took, once no request uses the check any more.
        """

    def hashArg(self, data, *args, **keywords):
        """
        The values that the result depends on, as a text, number or tuple; 0 when it must not be cached.
        """
        return 0

    def check(self, data, *args, **keywords):
        """
        Look at a request.

        @return: (code, information): the code is above 0 for yes, 0 for unknown, below 0 for no. A third item
            is the longest time in seconds this one result may be cached.
        """
        raise NotImplementedError(f"{type(self).__name__} has no check()")
