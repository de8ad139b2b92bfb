"""
Does a client write to addresses that nobody has?
"""

import math
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path

from ppolicy.address import address, networkOf
from ppolicy.check import Check, command, parameter
from ppolicy.errors import BackendError, Mistake, ParamError
from ppolicy.listcheck import TROUBLE
from ppolicy.listentries import folded, parse
from ppolicy.listfile import ListFile

_KNOWN = 10_000  # clients
# Domains above that of a recipient for which a table is asked.
_LABELS = 10
# Touched traps that a command looks at, and of one client shows.
_LISTED, _SHOWN = 100_000, 5


class Trap(Check):
    """
    Spam traps are addresses that nobody has or ever gave away: who writes to them has a list of addresses that was
    bought, guessed or collected by a robot. A client that has touched several traps is not to be trusted with its
    other mail either, for a while.

    Traps are given in `traps`, in a file, in a table of the database, or in several of these. An entry is an
    address, `user@` for this local part anywhere, `@example.com` for all addresses of exactly this domain,
    `.example.com` for this domain and all below it; in `traps` and in a file also /regex/. Case does not count. A
    file is read again when it changes, and has one entry a line. Each entry is one trap, however many addresses it
    stands for.

    A client is trapped when it has touched more than `treshold` different traps, each within the last `expire`
    seconds. A negative treshold is that fraction of all traps, at least 1: with -2 more than half of them, with -3
    more than a third; all of them if there are no more than that. Only mail to a trap counts, and only that keeps
    a client trapped. What is counted is kept over restarts, and shared by all hosts with one database.

    Mail from the null sender, which is a bounce, and mail to postmaster touch no trap and are never suspect (RFC
    5321, 4.5.1 and 4.5.5). Ask at RCPT.

    Check arguments:
        data .... the request; sender, recipient and client_address are used
        traps ... the traps for this request instead of the configured ones: a list, or a text with commas

    Check returns:
        1 .... the client is trapped
        0 .... unknown: null sender, postmaster, no address of a client, or the database does not answer
        -1 ... neither
        -2 ... the recipient is a trap
        information: why, as a text; it names no trap

    Examples:
        # who has touched more than half of these is trapped for an hour
        modules['trap'] = ('Trap', {'traps': 'info99@example.com, sales99@example.com, @old.example.com'})
        # one touch is enough, for a day; the traps are in a file
        modules['trap_file'] = ('Trap', {'file': 'traps.txt', 'treshold': 0, 'expire': 86400})
        # traps in the column `trap` of a table; the hosts of a network count as one client
        modules['trap_table'] = ('Trap', {'table': 'traps', 'treshold': 1, 'ipv4Prefix': 24})
    """

    traps: str | list[str] = parameter("", "the traps: a list, or a text with commas")
    file: Path | None = parameter(None, "file of traps")
    table: str | None = parameter(None, "table of traps in the database")
    column: str = parameter("trap", "its column")
    cacheAllRefresh: float = parameter(60, "seconds after which that table is read again", minimum=1)
    treshold: int = parameter(
        -2, "a client that has touched more traps is trapped; negative: fraction of all traps"
    )
    threshold: int | None = parameter(None, "the same, and it counts if both are given")
    expire: float = parameter(3600, "seconds for which it counts that a client has touched a trap", minimum=1)
    ipv4Prefix: int = parameter(32, "bits of an IPv4 address that count as the client", minimum=8, maximum=32)
    ipv6Prefix: int = parameter(64, "bits of an IPv6 address that count as the client", minimum=16, maximum=128)
    stateTable: str = parameter("trap", "table for the traps that clients have touched")
    cachePositive: float = parameter(0, "not used: nothing is kept in the cache", minimum=0)
    cacheUnknown: float = parameter(0, "not used", minimum=0)
    cacheNegative: float = parameter(0, "not used", minimum=0)

    family = "trap"
    once = True

    def start(self):
        if self.threshold is None:
            self.threshold = self.treshold
        self._sources = [_entries(_items(self.traps))]
        self._file = self._table = None
        if self.file is not None:
            self._file = ListFile(self.file)
            self._file.load()
            self._sources.append(self._file)
        if self.table is not None:
            if self.table in (self.stateTable, f"{self.stateTable}_clients"):
                raise ParamError(f"table and stateTable must not both be {self.table}")
            self._table = self.tables.table(
                self.table,
                (self.column,),
                cacheAll=True,
                refresh=self.cacheAllRefresh,
                expire=max(3600.0, self.cacheAllRefresh),
            )
            self._sources.append(_Listed(self._table))
        self._network = lru_cache(_KNOWN)(self._networkOf)
        self._decided = OrderedDict()
        self._touches = self.state.table(self.stateTable, ("client", "trap"))
        self._clients = self.state.table(f"{self.stateTable}_clients", ("client",))
        if self._file is not None:
            self.tables.watch(self._file, self.forgetResults)
        if self._table is not None:
            self._table.open()

    def status(self):
        lists = {} if self._file is None else {str(self._file.path): self._file.status()}
        return {"lists": lists if self._table is None else lists | {self._table.name: self._table.status()}}

    def stop(self):
        self._network = None  # it knows the check
        if self._file is not None:
            self.tables.unwatch(self._file)
        if self._table is not None:
            self._table.close()

    def check(self, data, traps=None):
        recipient = data.get("recipient", "")
        if not data.get("sender"):
            return 0, "mail from the null sender touches no trap"
        if recipient[:10].lower() == "postmaster" and recipient.partition("@")[0].lower() == "postmaster":
            return 0, "mail to postmaster touches no trap"
        client = self._network(data.get("client_address", ""))
        if client is None:
            return 0, "there is no address of a client"
        sources = self._sources if traps is None else [_entries(_items(traps))]
        try:
            trap = _trapOf(recipient, sources)
            if trap is None:
                return self._innocent(client, sources)
        except TROUBLE as error:
            return 0, f"traps cannot be asked: {error}"
        try:
            self._touch(client, trap)
        except TROUBLE as error:
            return -2, f"the recipient is a trap, which cannot be noted: {error}"
        return -2, "the recipient is a trap"

    def _networkOf(self, text):
        """
        The text that stands for a client, None when it has no address.
        """
        found = address(text)
        if found is None:
            return None
        prefix = self.ipv4Prefix if found.version == 4 else self.ipv6Prefix
        return str(found) if prefix == found.max_prefixlen else networkOf(text, self.ipv4Prefix, self.ipv6Prefix)

    # What is remembered: a row for each trap that a client has touched, which lives as long as that counts; and
    # one for the client, which outlives those and counts them as they come into being, if anything too often. A
    # look at that is enough for nearly everybody; of the few whose count is over the treshold the rows are read.

    def _touch(self, client, trap):
        _, _, _, count, expires = self._touches.touch((client, trap), self.expire, self.expire)
        known = None if count == 1 else self._clients.get(client)
        if known is None or known["expires"] < expires:
            self._clients.touch(client, 2 * self.expire, 2 * self.expire)

    def _innocent(self, client, sources):
        """
        The answer for mail to somebody who is no trap.
        """
        known = self._clients.get(client)
        if known is None:
            return -1, "the client has touched no trap"
        most = self._most(sources)
        if known["count"] <= most or not self._isTrapped(client, known["count"], most):
            return -1, "the client has touched too few traps"
        return 1, f"the client has touched more than {most} trap{'' if most == 1 else 's'}"

    def _most(self, sources):
        """
        How many traps somebody may touch who is not trapped.

        @raises BackendError: when it is not known how many there are.
        """
        if self.threshold >= 0:
            return self.threshold
        number = sum(map(len, sources))
        # What somebody has touched may be a trap no longer.
        return min(max(1, number // -self.threshold), number - 1) if number else math.inf

    def _isTrapped(self, client, count, most):
        """
        Has a client really touched more traps? What is found out is remembered as long as that is sure.

        @param count: what was counted; as long as that stays, nothing can have been added.
        """
        now, asked = self.state.clock(), (count, most)
        isTrapped, before, until = self._decided.get(client, (False, None, now))
        if before == asked and now < until:
            return isTrapped
        rows = self._touches.scan({"client": client}, most + 1)  # those that live longest come first
        isTrapped = len(rows) > most
        until = rows[most]["expires"] if isTrapped else now + self.expire
        self._decided[client] = isTrapped, asked, until
        if len(self._decided) > _KNOWN:
            self._decided.popitem(last=False)
        return isTrapped

    # Commands

    def _like(self, client):
        if client is None:
            return {}
        return {"client": client if "*" in client or "/" in client else self._network(client) or client}

    @command
    def list(self, client=None, limit=100):
        """
        Clients that have touched traps, those that did so last come first.
        """
        clients = {}
        for row in self._touches.scan(self._like(client), _LISTED):
            clients.setdefault(row["client"], []).append(row)
        try:
            most = self._most(self._sources)
        except BackendError:
            most = None
        return {"clients": [_described(rows, most) for rows in [*clients.values()][: int(limit)]]}

    @command(changes=True)
    def remove(self, client=None):
        """
        Forget what clients have touched.
        """
        if client is None:
            raise BackendError("say which: --client; '*' is all")
        like = self._like(client)
        self._touches.remove(like)
        removed = self._clients.remove(like)
        self._decided.clear()
        return {"removed": removed}


class _Listed:
    """
    A table of traps, asked as a L{ListFile} is.
    """

    def __init__(self, table):
        self._table = table

    def __len__(self):
        rows = None if self._table.memory is None else self._table.memory.rows()
        if rows is None:
            raise BackendError(f"list {self._table.name}: it is not known how long it is")
        return len(rows)

    def find(self, recipient):
        """
        @return: (entry,) or None.
        @raises BackendError: when the table cannot be asked.
        """
        local, at, domain = recipient.rpartition("@")
        labels = domain.split(".")[-_LABELS:]
        entries = [recipient]
        if at:
            entries += [f"{local}@", f"@{domain}", *(f".{'.'.join(labels[n:])}" for n in range(len(labels)))]
        found = self._table.find([(entry,) for entry in entries])
        return None if found is None else (entries[found[0]],)


def _trapOf(recipient, sources):
    """
    The entry that a recipient is a trap by, None when it is none.
    """
    if recipient:
        for source in sources:
            found = source.find(recipient)
            if found is not None:
                return folded(found[0])
    return None


def _items(traps):
    """
    Traps that are given as a text or list, as a tuple.
    """
    if isinstance(traps, str):
        traps = traps.split(",")
    return tuple(text for one in traps if (text := one.strip()))


@lru_cache(100)
def _entries(items):
    """
    @raises ParamError: when one is no entry.
    """
    wrong = [one for one in items if one.startswith("#") or "\n" in one or "\r" in one]
    if wrong:
        raise ParamError(f"traps: {wrong[0]!r} is no address")
    entries, _ = parse("\n".join(items).encode("utf-8", "surrogateescape"))
    if entries.mistakes:
        raise ParamError(*[Mistake(f"traps: {sentence}") for _, sentence in entries.mistakes])
    return entries


def _described(rows, most):
    traps = [row["trap"] for row in rows]
    return {
        "client": rows[0]["client"],
        "state": "unknown" if most is None else "trapped" if len(rows) > most else "watched",
        "touched": len(rows),
        "mails": sum(row["count"] for row in rows),
        "first": round(min(row["first"] for row in rows)),
        "last": round(max(row["last"] for row in rows)),
        "expires": round(max(row["expires"] for row in rows)),
        "traps": ", ".join(traps[:_SHOWN]) + (", ..." if len(traps) > _SHOWN else ""),
    }
