"""
What tests of check modules need, ours and yours: no network, no clock, no server.
"""

from pathlib import Path

from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock

from ppolicy.blocklistservice import Blocklists
from ppolicy.bridge import Bridge
from ppolicy.dns import Answer, Lookups
from ppolicy.errors import ConfigError
from ppolicy.registry import Registry
from ppolicy.smtp import Prober
from ppolicy.state import StateStore
from ppolicy.tables import TableService


def make(kind, state=None, dns=None, **parameters):
    """
    A check of this type, as ppolicy.conf would make it, not yet started.

    @param kind: the name of a module type, or a class.
    @param state: a L{StateStore}; by default a new one in memory.
    @param dns: a L{FakeResolver}; by default one that knows no name.
    @raises ConfigError: when a parameter is wrong.
    """
    cls = Registry().find(kind) if isinstance(kind, str) else kind
    mistakes = []
    accepted = cls.accept(parameters, Path.cwd(), mistakes)
    if mistakes:
        raise ConfigError(*[sentence for _, sentence in mistakes])
    check = cls.made(cls.__name__.lower(), accepted)
    check.state = state or memoryState()
    check.tables = TableService(check.state.bridge, check.state.database)
    check.dns = dns or FakeResolver({})
    check.blocklists = Blocklists(check.state.bridge, check.dns)
    check.smtp = Prober(check.state.bridge)
    check.forgetResults = lambda: None
    return check


class FakeResolver(Lookups):
    """
    A resolver that knows what it is given.

    @ivar records: {name: {kind: [values] or an exception}}, or an exception instead of the kinds. A name that is
        missing does not exist; of one that is there, a kind that is missing is nothing.
    @ivar asked: the (name, kind) of every question.
    """

    def __init__(self, records):
        self.records = records
        self.asked = []

    def ask(self, name, kind):
        name = name.removesuffix(".").lower()
        self.asked.append((name, kind))
        kinds = self.records.get(name)
        found = kinds if kinds is None or isinstance(kinds, Exception) else kinds.get(kind, ())
        if isinstance(found, Exception):
            return fail(found)
        return succeed(Answer(tuple(found or ()), kinds is not None, name, ttl=300))


def memoryState(clock=None):
    """
    A state store in memory whose time is that of a C{task.Clock}, C{state.bridge.reactor}.
    """
    clock = clock or Clock()
    return StateStore(Bridge(clock), clock=clock.seconds)


def waiting(bridge, function, *arguments, timeout=30.0):
    """
    Run a function that may wait(), in a greenlet.

    @return: a Deferred of its result.
    """
    return bridge.run(function, *arguments, timeout=timeout)
