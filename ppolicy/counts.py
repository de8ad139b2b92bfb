"""
Where the rows of limits are kept: in memory alone, in a file, or in a server that several hosts share.

Each has C{change(key, step)}: C{step(row, now)} gets the row of a key (None: there is none) and the time in
milliseconds, and returns (the row as it shall be, was it changed, an answer). From reading to writing nobody else
changes the row. C{step.lives} is for how many seconds the row is of use.
"""

from collections import OrderedDict
from contextlib import suppress
from itertools import islice

from sqlalchemy import bindparam, literal_column, select
from sqlalchemy.dialects.mysql import insert
from twisted.internet.task import deferLater

from ppolicy.bridge import wait
from ppolicy.groupcommit import GroupCommit
from ppolicy.rows import decoded, digestOf, encoded, pattern, readable, taken
from ppolicy.shared import NOW, SharedTable
from ppolicy.statement import Compiled, ManyRows

# Mails that are known, and as many of those before; requests about one of them.
MAILS = 25_000
REQUESTS = 999
# Rows in memory that are looked at in one go, some ms.
_PORTION = 5000


def countsOf(state, table, name, inMemory, behind):
    """
    The rows of a check.

    @param table: name of the table of the database.
    @param name: of the check; checks with other names have other rows in the same table.
    @param inMemory: True to keep them in memory alone; they survive a reload, and no restart.
    @param behind: True to answer before a row is on disk.
    """
    kept = table, name, inMemory  # what a check of another type has counted under this name is of no use
    if inMemory:
        return state.kept.setdefault(kept, MemoryCounts(state))
    found = state.table(table, ("limiter", "subject"), "value")
    mails = state.kept.setdefault(kept, Mails())
    if isinstance(found, SharedTable):
        return SharedCounts(state, found, name, mails)
    return FileCounts(state, found, name, mails, behind)


def subjectOf(key):
    """
    A key as people see it, and ask for it.
    """
    return readable(key if key.__class__ is str else " ".join(key))


class Mails:
    """
    What was answered about mails of the last minutes, and what they were charged.

    A mail is known by its instance. What is kept of one request is a tuple (state, recipient, context, answer,
    charges), and a charge is a tuple too: nobody else has an equal one. Of most mails there is one request with
    one charge; that is kept as one flat tuple of texts and numbers, because memory that comes and goes with each
    mail costs more than all the rest.
    """

    def __init__(self):
        self._young, self._old = {}, {}

    def get(self, instance):
        """
        A list of what was noted, or None.
        """
        found = self._young.get(instance)
        if found is None and (not self._old or (found := self._old.get(instance)) is None):
            return None
        if found.__class__ is list:
            return found
        charge = found[4:]
        return [(*found[:3], [charge[0], charge[4], found[3]], (charge,))]

    def note(self, instance, data, answer, charges):
        """
        Note what was answered about a request.
        """
        request = *_request(data), answer, charges
        requests = self.get(instance)
        if requests is None:
            self._put(instance, [request])
        else:
            self._put(instance, [*requests[-REQUESTS:], request])

    def noteOne(self, instance, data, left, charge):
        """
        The same for the first request about a mail, with one charge. Its answer becomes [key, sum, what is left].
        """
        get = data.get
        state = get("protocol_state")
        young = self._young
        if len(young) >= MAILS:
            self._young, self._old = {}, young
            young = self._young
        young[instance] = (
            "RCPT" if state == "RCPT" else state,  # which is one text for all of them
            get("recipient"),
            get("policy_context"),
            left,
            *charge,
        )

    def _put(self, instance, requests):
        self._old.pop(instance, None)
        if len(self._young) >= MAILS and instance not in self._young:
            self._young, self._old = {}, self._young
        self._young[instance] = requests

    def take(self, instance, recipient):
        """
        Take away what a recipient was charged, unless another recipient has a part in it.

        @param recipient: None for all of them.
        @return: the charges.
        """
        requests = self.get(instance) or []
        taken, kept = [], []
        for request in requests:
            (taken if recipient is None or request[1] == recipient else kept).append(request)
        if not taken:
            return []
        self._put(instance, [(*one[:4], () if one in taken else one[4]) for one in requests])
        held = {charge for one in kept for charge in one[4]}
        return list(dict.fromkeys(charge for one in taken for charge in one[4] if charge not in held))

    def clear(self):
        """
        Know none any more.
        """
        self._young, self._old = {}, {}


def answered(requests, data):
    """
    The answer to the same request, or None.
    """
    same = _request(data)
    return next((one[3] for one in requests if one[:3] == same), None)


def chargeOf(requests, key):
    """
    The charge of a key, or None.
    """
    return next((charge for one in requests for charge in one[4] if charge[0] == key), None)


def _request(data):
    return data.get("protocol_state"), data.get("recipient"), data.get("policy_context")


class MemoryCounts:
    """
    Rows in memory: the ones not used for longest leave it first.

    @cvar isOwn: does this process alone change them?
    """

    isOwn = True

    def __init__(self, state):
        self.mails = Mails()
        self._state = state
        self._rows = OrderedDict()

    def __len__(self):
        return len(self._rows)

    def change(self, key, step):
        rows = self._rows
        row, changed, answer = step(rows.get(key), int(self._state.clock() * 1000))
        if changed:
            rows[key] = row
            rows.move_to_end(key)
            if len(rows) > self._state.size:
                rows.popitem(last=False)
                if len(rows) > self._state.size:  # which is smaller since a reload
                    rows.popitem(last=False)
        return answer

    def now(self):
        """
        The present time in milliseconds.
        """
        return int(self._state.clock() * 1000)

    def scan(self, like, limit):
        """
        @param like: what the subject looks like, with C{*} for anything; None for all, else it may wait.
        @return: [(subject, row)], at most so many, the youngest first.
        """
        keys = reversed(self._rows) if like is None else self._like(like)
        return [(subjectOf(key), self._rows[key]) for key in islice(keys, limit)]

    def remove(self, like):
        """
        Forget the rows that L{scan} with the same C{like}, which is a text, would give.

        @return: how many there were.
        """
        removed = 0
        for key in self._like(like):
            del self._rows[key]
            removed += 1
        return removed

    def _like(self, like):
        """
        The keys that look so, the youngest first. Requests go on between portions of them: a million take half a
        second.
        """
        wanted = pattern(like)
        for number, key in enumerate(list(reversed(self._rows)), 1):
            if key in self._rows and wanted.fullmatch(subjectOf(key)):
                yield key
            if number % _PORTION == 0:
                wait(deferLater(self._state.bridge.reactor, 0))


class TableCounts:
    """
    Rows in a table of the database, which also has those of other checks.

    @param mails: the L{Mails} of these limits.
    """

    isOwn = False

    def __init__(self, state, table, name, mails):
        self.mails = mails
        self._state = state
        self._table = table
        self._name = name

    def now(self):
        return int(self._state.clock() * 1000)

    def _stored(self, key):
        return (self._name, key) if key.__class__ is str else (self._name, *key)

    def scan(self, like, limit):
        found = self._table.scan(_alike(like), limit, {"limiter": self._name})
        rows = [(row["subject"], decoded(row["value"])) for row in found]
        return [(subject, row) for subject, row in rows if row is not None]

    def remove(self, like):
        return self._table.remove(_alike(like), {"limiter": self._name})


def _alike(like):
    return {} if like is None else {"subject": like}


class FileCounts(TableCounts):
    """
    Rows that this process alone changes: a L{ppolicy.localtable.LocalTable} has what was written at once, and
    waits only after that.
    """

    isOwn = True

    def __init__(self, state, table, name, mails, behind):
        super().__init__(state, table, name, mails)
        self._behind = behind

    def change(self, key, step):
        columns = None if key.__class__ is str else (self._name, " ".join(key))
        return self._table.change(self._stored(key), step, columns, self._behind)


class SharedCounts(TableCounts):
    """
    Rows that several hosts change: a transaction locks the rows of all steps that wait, changes them by the
    server's clock, and writes them.
    """

    def __init__(self, state, table, name, mails):
        super().__init__(state, table, name, mails)
        self._database, schema = state.database, table.schema
        self._schema = schema
        given = {column.name: bindparam(column.name) for column in schema.columns}
        empty = insert(schema).values({**given, "value": literal_column("''"), "expires": NOW})
        empty = empty.on_duplicate_key_update(expires=schema.c.expires)
        row = schema.c.value, schema.c.expires, NOW
        dialect = self._database.dialect
        self._lock = ManyRows(Compiled(empty.returning(*row), dialect))
        self._lockOne = ManyRows(Compiled(empty, dialect))
        self._select = Compiled(select(*row).where(schema.c.key == bindparam("key")).with_for_update(), dialect)
        filled = insert(schema).values({**given, "expires": NOW + bindparam("ttl")})
        filled = filled.on_duplicate_key_update(value=filled.inserted.value, expires=filled.inserted.expires)
        self._fill = ManyRows(Compiled(filled, dialect))
        self._commits = GroupCommit(state.bridge, self._database, self._write)

    def change(self, key, step):
        return self._commits.add((*digestOf(self._stored(key), (self._name, subjectOf(key))), step))

    def _write(self, connection, entries):
        """
        In the thread.

        @return: the answer of each step.
        """
        self._database.usable(connection, self._schema)
        connection.raw.begin()
        try:
            answers = self._changed(connection, entries)
            connection.raw.commit()
        except BaseException:
            with suppress(self._database.Error, OSError):
                connection.raw.rollback()
            raise
        return answers

    def _changed(self, connection, entries):
        columns = {digest: texts for digest, texts, _ in entries}
        # All hosts lock rows in the same order, so that they do not wait for each other in a circle.
        digests = sorted(columns)
        rows = dict(zip(digests, self._locked(connection, [(one, *columns[one]) for one in digests]), strict=True))
        answers, written = [], {}
        for digest, _, step in entries:
            text, now = rows[digest]
            row, changed, answer = taken(step, decoded(text), now)
            if changed:
                rows[digest] = encoded(row), now
                written[digest] = step.lives
            answers.append(answer)
        if written:
            filled = [(one, rows[one][0], written[one], *columns[one]) for one in sorted(written)]
            self._fill(connection, filled)
        return answers

    def _locked(self, connection, keys):
        """
        @return: (text of the row or None, present time) of each key.
        """
        if connection.isMariaDB:
            found = self._lock(connection, keys)
        else:
            found = []
            for key in keys:
                self._lockOne(connection, [key])
                found += self._select(connection, key=key[0]).fetchall()
        return [(value if expires > float(now) else None, int(float(now) * 1000)) for value, expires, now in found]
