"""
What the check modules that limit have in common: keys, whom they concern, notices, and the commands of C{ppolicy
limit}.
"""

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from itertools import product
from math import prod
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from ppolicy.address import networkOf, registeredDomain
from ppolicy.check import Check, command, parameter
from ppolicy.counts import countsOf
from ppolicy.errors import BackendError, ParamError
from ppolicy.logs import escaped
from ppolicy.threads import ThreadPool

log = Logger()

TROUBLE = (BackendError, TimeoutError)
# Combinations of values that one request may have.
_COMBINATIONS = 1000
# The longest value in a key; real addresses end at 320.
LENGTH = 320
# Notices that wait, threads that carry them out, and seconds that one may take.
_WAITING = 100
_THREADS = 2
_PATIENCE = 60.0
# Complaints that are remembered, not to be made twice.
_COMPLAINTS = 100


class LimitCheck(Check):
    """
    A check that counts by keys, and some requests only.
    """

    params: str | Callable | list[Any] = parameter(help=(
        "what requests are counted by: an attribute, 'domain:sender', 'registered_domain:sender',"
        " 'network:client_address', a function (data), or a list of these"
    ))  # fmt: skip
    caseSensitive: bool = parameter(False, "tell upper and lower case apart")
    ipv4Prefix: int = parameter(24, "bits of an IPv4 address that are its network", minimum=1, maximum=32)
    ipv6Prefix: int = parameter(64, "bits of an IPv6 address that are its network", minimum=1, maximum=128)
    networks: list[str] = parameter([], "only clients in these networks are counted; empty: all")
    trusted: list[str] = parameter([], "clients in these networks are not counted")
    logins: bool | list[str] = parameter(
        False, "True: only mail of users who have logged in is counted; or a list of their names"
    )
    onError: int = parameter(
        0, "code when nothing can be counted: 0, 1 (as if over) or -1 (as if below)", minimum=-1, maximum=1
    )
    memory: bool = parameter(
        False, "count in memory alone: the quickest, forgotten with a restart, not shared with other hosts"
    )
    writeBehind: bool = parameter(
        True,
        "answer before it is on disk: a crash may forget the last second, a clean stop nothing; in a database that"
        " several hosts share, each request waits in any case",
    )
    notify: Callable | None = parameter(
        None,
        "a function (name, key, info, data), called in a thread once per key and period when it is over, and once"
        " when a soft limit is passed",
    )
    cachePositive: float = parameter(0, "not used: every request counts", minimum=0)
    cacheUnknown: float = parameter(0, "not used: every request counts", minimum=0)
    cacheNegative: float = parameter(0, "not used: every request counts", minimum=0)

    family = "limit"

    def open(self, table):
        """
        Prepare what is said here.

        @raises ParamError: when a parameter cannot be.
        """
        if "*" in self.name:
            raise ParamError("its name must have no * in it, which stands for anything in commands")
        given = self.params if isinstance(self.params, list) else [self.params]
        if not given:
            raise ParamError("params must name an attribute")
        self._values = [self.reader(one, "params") for one in given]
        self._complaints = set()
        # Most have one, and this is quicker.
        self._only = given[0] if len(given) == 1 and isinstance(given[0], str) and ":" not in given[0] else None
        self._within = parsed(self.networks, "networks")
        self._trusted = parsed(self.trusted, "trusted")
        self._logins = frozenset(one.lower() for one in self.logins) if isinstance(self.logins, list) else None
        self._isPartial = bool(self.networks or self.trusted or self.logins)
        self._trusts = lru_cache(10_000)(self._isTrusted)
        self._notices = Notices(self.state.bridge, self.notify, self.name) if self.notify else None
        self._counts = countsOf(self.state, table, self.name, self.memory, self.writeBehind)

    def status(self):
        return {} if self._notices is None else {"notices": self._notices.status()}

    def stop(self):
        self._trusts = self._values = None  # they know the check
        if self._notices is not None:
            self._notices.stop()

    # Whom it concerns

    def concerns(self, data):
        """
        Is this request to be counted?
        """
        if self.logins:
            login = data.get("sasl_username", "").lower()
            if not login or (self._logins is not None and login not in self._logins):
                return False
        return not (self.networks or self.trusted) or not self._trusts(data.get("client_address", ""))

    def _isTrusted(self, text):
        try:
            found = ip_address(text)
        except ValueError:
            return bool(self._within)
        found = getattr(found, "ipv4_mapped", None) or found
        if self._within and not any(found in network for network in self._within):
            return True
        return any(found in network for network in self._trusted)

    # Keys

    def reader(self, given, name):
        """
        What a parameter says of where a value is, as a function (data) -> a text, a list of texts, or None.

        @raises ParamError: when it is none.
        """
        if callable(given):
            return given
        if not isinstance(given, str) or not given:
            raise ParamError(f"{name}: {given!r} is neither an attribute nor a function")
        kind, colon, attribute = given.partition(":")
        if not colon:
            return lambda data: data.get(given, "")
        forms = {
            "network": lambda text: networkOf(text, self.ipv4Prefix, self.ipv6Prefix),
            "domain": lambda text: text.rpartition("@")[2].lower(),
            "registered_domain": lambda text: registeredDomain(text) or text.rpartition("@")[2].lower(),
        }
        if kind not in forms or not attribute:
            raise ParamError(f"{name}: {given!r}: before the colon there may be {', '.join(forms)}")
        form = lru_cache(10_000)(forms[kind])

        def value(data):
            found = data.get(attribute, "")
            return [form(str(one)) for one in found] if isinstance(found, list | tuple) else form(found)

        return value

    def keys(self, data):
        """
        The keys of a request, each a text or, for several C{params}, a tuple of texts; none when it has none.

        @raises BackendError: when there are too many.
        """
        if self._only is not None:
            value = data.get(self._only, "")
            if value.__class__ is str and len(value) <= LENGTH:
                return (value if self.caseSensitive else value.lower(),)
        columns = []
        for function in self._values:
            found = function(data)
            if found is None:
                return ()
            columns.append([self._text(one) for one in (found if isinstance(found, list | tuple) else (found,))])
        if prod(map(len, columns)) > _COMBINATIONS:
            raise BackendError(f"a request has more than {_COMBINATIONS} combinations of values")
        found = dict.fromkeys(product(*columns))
        return [key[0] for key in found] if len(columns) == 1 else list(found)

    def _text(self, value):
        text = str(value)
        return bounded(text if self.caseSensitive else text.lower())

    # Notices

    def tell(self, key, info, data):
        """
        Have the administrator's function called, later.
        """
        if self._notices is not None and not self.dryRun:
            self._notices.add(self.name, key, info, dict(data))

    def complain(self, sentence):
        """
        Say in the log what is wrong with something that the policy has given, once.
        """
        if sentence not in self._complaints:
            if len(self._complaints) >= _COMPLAINTS:
                self._complaints.clear()
            self._complaints.add(sentence)
            log.warn("{name}: {sentence}", name=self.name, sentence=escaped(sentence))

    # Commands

    def described(self, subject, row, now):
        """
        A row as a dictionary for people.
        """
        raise NotImplementedError

    @command
    def list(self, key=None, limit=100):
        now = self._counts.now()
        rows = self._counts.scan(key, int(limit))
        return {"limits": [self.described(subject, row, now) for subject, row in rows]}

    @command
    def show(self, key):
        return self.list(key)

    @command(changes=True)
    def reset(self, key):
        """
        Forget what was counted; C{*} in the key stands for anything.
        """
        self._counts.mails.clear()
        return {"reset": self._counts.remove(key)}


def bounded(text, length=LENGTH):
    """
    A text that takes no more room than C{length} characters: the rest of a longer one is told apart by a hash.
    """
    if len(text) <= length:
        return text
    digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    return f"{text[: length - 28]}... {digest}"


class Notices:
    """
    Calls a function of the administrator's in a thread, off the way of the mail. It may take a minute; what comes
    while too many wait is dropped, and logged.
    """

    log = Logger()

    def __init__(self, bridge, function, name):
        self._bridge = bridge
        self._function = function
        self._name = name
        self._pool = ThreadPool(bridge, "notify", _THREADS)
        self._waiting = deque()
        self._busy = 0
        self._isStopped = False
        self._problem = None

    def status(self):
        """
        How it is, as a dictionary.
        """
        return {"problem": self._problem, "waiting": len(self._waiting), "working": self._busy}

    def add(self, *arguments):
        if len(self._waiting) >= _WAITING:
            self.log.warn(
                "{name}: {number} notices wait already, one is dropped", name=self._name, number=_WAITING
            )
            return
        self._waiting.append(arguments)
        # Outside of the request, whose time must not bound it.
        self._bridge.reactor.callLater(0, self._next)

    def _next(self):
        if not self._waiting or self._busy >= _THREADS:
            return
        self._busy += 1
        done = maybeDeferred(self._pool.run, self._function, *self._waiting.popleft())
        done.addTimeout(_PATIENCE, self._bridge.reactor)
        done.addCallbacks(self._told, self._failed)
        done.addCallback(self._done)

    def _told(self, _):
        self._problem = None

    def _failed(self, failure):
        self._problem = f"notify failed with {failure.type.__name__}: {failure.getErrorMessage()}"
        self.log.failure("{name}: notify failed", failure, name=self._name)

    def _done(self, _):
        self._busy -= 1
        self._next()
        self._endThreads()

    def stop(self):
        """
        Take no more. Those that wait are carried out: of what they tell there is no second one in the same period.
        """
        self._isStopped = True
        self._endThreads()

    def _endThreads(self):
        if self._isStopped and not self._busy and not self._waiting:
            self._pool.stop()


def parsed(networks, name):
    """
    Texts as networks; an address is a network of itself.

    @raises ParamError: when one is none.
    """
    try:
        return [ip_network(one, strict=False) for one in networks]
    except ValueError as error:
        raise ParamError(f"{name}: {error}") from None
