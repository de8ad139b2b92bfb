"""
Have we met this sender, recipient and client before?
"""

import re
from functools import lru_cache
from hashlib import blake2b
from math import ceil
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from time import gmtime, strftime

from ppolicy.check import Check, command, parameter
from ppolicy.errors import BackendError, ParamError
from ppolicy.mailheader import isFirst
from ppolicy.senderpool import SenderPools

# Parts of a local part that are another one in each mail: numbers and hashes behind a separator.
_COUNTED = re.compile(r"(?<=[-+=._])(?:[0-9]+|[0-9a-f]*[0-9][0-9a-f]{4,})(?=[-+=._]|$)")
# BATV (prvs=0123abcdef=user), and SRS (srs0=hash=day=domain=user, srs1=hash=host==hash=day=domain=user).
_BATV = re.compile(r"^(?:prvs|btv1)=+[0-9a-z]+=+")
_SRS = re.compile(r"^srs(?:0[-+=]|1[-+=][^=]+=(?P<host>[^=]+)=[-+=])[^=]+=[^=]+=(?=.+=.)")
# The IPv6 form of an IPv4 address begins so (RFC 4291, 2.5.5.2).
_MAPPED = bytes(10) + b"\xff\xff"
_NOBODY = None, None
# Passes within so many seconds count as one: a single mail to many recipients is no reason to trust anybody.
_TOGETHER = 3600
# A triplet that passed is in the cache for one part of so many of its life.
_CACHED = 10
_WHITELISTED = "greylisting is not needed, {} has passed often enough"


class Greylist(Check):
    """
    Greylisting defers the first mail of a sender, recipient and client that were not met together before (a
    triplet). A mail server tries again after a while, and then passes; much of what sends spam never does
    (RFC 6647). Mail is only delayed by this, never lost.

    A new triplet has to wait for `delay` seconds and is forgotten unless it comes back before `mustRetry`.
    Once passed it is known for `expiration` seconds after its last mail.

    Large sites try again from another address: clients count by their network, `ipv4Prefix` and `ipv6Prefix`
    bits of it (32 and 128: each address for itself). Senders that carry a number of the mail (VERP, BATV, SRS)
    count without it, and without an extension as in user+extension, unless `normalizeSender` is False.

    With `senderPool` the sender's domain counts as the client where SPF passes for it, or where the client is one
    of its mail hosts or has its name: so all the hosts of a large site are one. With trouble in the DNS the client
    counts by its network.

    With `whitelistAfter` a client's network whose mail has passed so often is greylisted no more, and neither
    is a sender's domain from such a network, as long as it goes on writing. Passes within an hour count as one.

    Ask at RCPT, and not for mail of your own users. Mail to postmaster is never greylisted (RFC 5321, 4.5.1).
    Who else is exempt is for the policy to say: ask a list or a whitelist of the DNS before.

    Check arguments:
        data ... the request; sender, recipient and client_address are used

    Check returns:
        2 .... mail for postmaster, not greylisted
        1 .... the triplet has passed before, or passes now; information: (text, seconds it stays known)
        0 .... unknown: the database does not answer
        -1 ... greylisting in progress; information: ('greylisting in progress: 600s', 600)
        -2 ... the sender is no mail address
        information: always (text, seconds)

    Examples:
        # defer for ten minutes, remember for a month
        modules['greylist'] = ('Greylist', {})
        # a table of its own, a short delay, triplets known for a year
        modules['greylist_fast'] = ('Greylist', {'table': 'grey', 'delay': 60,
                                                 'expiration': 86400 * 365})
        # networks that have passed five times are trusted; tell the client more; no address is stored
        modules['greylist_wise'] = ('Greylist', {'whitelistAfter': 5, 'privacyKey': 'any long secret',
                                                 'text': 'greylisted, {domain} takes it in {minutes} minutes'})
        # hosts of large sites count as one, by SPF and MX
        modules['greylist_pools'] = ('Greylist', {'senderPool': True})
    """

    table: str = parameter("greylist", "table of the triplets")
    delay: float = parameter(600, "seconds a new triplet has to wait", minimum=0)
    mustRetry: float = parameter(43200, "seconds within which a new triplet has to come back", minimum=1)
    retryWindow: float | None = parameter(None, "the same as mustRetry, in the words of postgrey", minimum=1)
    expiration: float = parameter(2678400, "seconds a triplet is known after its last mail", minimum=1)
    ipv4Prefix: int = parameter(24, "bits of an IPv4 address that count as the client", minimum=8, maximum=32)
    ipv6Prefix: int = parameter(64, "bits of an IPv6 address that count as the client", minimum=16, maximum=128)
    normalizeSender: bool = parameter(True, "leave out what is another in each mail of one sender")
    senderPool: bool = parameter(
        False, "count hosts that a sender's domain sends from as one client, by SPF and MX; it asks the DNS"
    )
    whitelistAfter: int = parameter(0, "passes after which a client is greylisted no more; 0: never", minimum=0)
    text: str = parameter(
        "greylisting in progress: {seconds}s",
        "information for code -1, with {seconds}, {minutes} and {domain}, that of the recipient",
    )
    header: bool = parameter(
        False, "give a header X-Greylist as information when a triplet passes first, once for a mail"
    )
    privacyKey: str | None = parameter(None, "store hashes with this key, no addresses", secret=True)
    writeBehind: bool = parameter(
        True, "answer before the triplet is on disk: a crash may forget the last second, a clean stop nothing"
    )
    cachePositive: float = parameter(
        86400, "seconds a triplet that passed is kept in the cache, a tenth of expiration at most", minimum=0
    )
    cacheUnknown: float = parameter(30, "seconds a database failure is kept in the cache", minimum=0)
    cacheNegative: float = parameter(0, "not used: a triplet that waits is looked up each time", minimum=0)

    family = "greylist"

    def start(self):
        if self.retryWindow is not None:
            self.mustRetry = self.retryWindow
        if self.mustRetry <= self.delay:
            raise ParamError(f"mustRetry ({self.mustRetry:g}) must be longer than delay ({self.delay:g})")
        try:
            self.text.format(seconds=1, minutes=1, domain="")
        except (LookupError, ValueError, AttributeError, TypeError):
            raise ParamError(
                "text may have {seconds}, {minutes} and {domain} in it, and other braces doubled"
            ) from None
        self.cacheNegative = 0.0  # 2.7 had 60: who came back in time would have been told to wait
        self._plainText = self.text == type(self).declared()["text"].default
        self._asked = _NOBODY
        self._pools = SenderPools(self.dns, self.state.clock) if self.senderPool else None
        self._network = lru_cache(10_000)(self._networkOf)
        self._triplets = self.state.table(self.table, ("sender", "recipient", "client_address"))
        if self.whitelistAfter:
            self._clients = self.state.table(f"{self.table}_clients", ("client_address",))
            self._domains = self.state.table(f"{self.table}_domains", ("domain", "client_address"))

    def stop(self):
        self._network = None  # it knows the check

    def hashArg(self, data):
        triplet = self._triplet(data)
        self._asked = data, triplet
        return "\n".join(triplet)  # which is looked up more quickly than a tuple

    def _triplet(self, data):
        sender = data.get("sender", "").lower()
        if self.normalizeSender and sender:
            sender = normalized(sender)
        return sender, data.get("recipient", "").lower(), self._network(data.get("client_address", "").lower())

    def check(self, data):
        # Who asks has just called hashArg() for the same request, as a rule.
        asked, triplet = self._asked
        if asked is not data:
            triplet = self._triplet(data)
        self._asked = _NOBODY
        sender, recipient, _ = triplet
        if recipient.startswith("postmaster") and recipient.partition("@")[0] == "postmaster":
            return 2, ("mail to postmaster is not greylisted", 0)
        if sender and "@" not in sender:  # the empty sender is valid, it brings bounces
            return -2, ("the sender is no mail address", 0)
        if self._pools is not None and sender:
            triplet = self._pooled(data, triplet)
        try:
            if self.whitelistAfter and (known := self._whitelisted(triplet)):
                return known
            now, first, previous, _, expires = self._triplets.touch(
                self._stored(triplet), self.expiration, self.mustRetry, None, self.delay, self.writeBehind
            )
            left = first + self.delay - now
            if left > 0:
                return self._wait(ceil(left), recipient)
            isFirstPass = previous < first + self.delay
            if isFirstPass and self.whitelistAfter:
                self._countPass(triplet)
        except (BackendError, TimeoutError) as error:
            return 0, (f"greylisting is not possible: {error}", 0)
        known = max(0, int(expires - now))
        if isFirstPass and self.header and isFirst(data, "X-Greylist"):
            date = strftime("%a, %d %b %Y %H:%M:%S +0000", gmtime(now))
            return 1, (f"X-Greylist: delayed {int(now - first)} seconds by ppolicy; {date}", known), 0
        # Mail that is answered from the cache does not make the triplet live longer.
        return 1, ("greylisting passed", known), known // _CACHED

    def _pooled(self, data, triplet):
        """
        The triplet with the sender's domain as the client, where that sends from there.
        """
        sender, recipient, network = triplet
        domain = sender.rpartition("@")[2]
        address, helo = data.get("client_address", ""), data.get("helo_name", "")
        if self._pools.has(domain, network, address, helo, data["sender"]):
            return sender, recipient, domain
        return triplet

    def _wait(self, seconds, recipient):
        if self._plainText:
            return -1, (f"greylisting in progress: {seconds}s", seconds)
        domain = recipient.rpartition("@")[2]
        return -1, (self.text.format(seconds=seconds, minutes=ceil(seconds / 60), domain=domain), seconds)

    # Clients and domains that have passed often

    def _whitelisted(self, triplet):
        """
        The answer for a client that need not wait, else None.
        """
        sender, _, network = triplet
        domain = sender.rpartition("@")[2]
        for table, key, name in (
            (self._clients, (network,), network),
            (self._domains, (domain, network), domain),
        ):
            row = table.get(self._stored(key))
            if row is not None and row["count"] >= self.whitelistAfter:
                self._countIn(table, key)
                return 1, (_WHITELISTED.format(name), int(self.expiration)), 60
        return None

    def _countPass(self, triplet):
        sender, _, network = triplet
        earlier = self.state.clock() - _TOGETHER
        for table, key in (
            (self._clients, (network,)),
            (self._domains, (sender.rpartition("@")[2], network)),
        ):
            row = table.get(self._stored(key))
            if row is None or row["last"] <= earlier:
                self._countIn(table, key)

    def _countIn(self, table, key):
        table.touch(self._stored(key), self.expiration, self.expiration, behind=self.writeBehind)

    # Keys

    def _networkOf(self, address):
        """
        The network that stands for a client; what is no address stands for itself.
        """
        kind, octets = AF_INET, _octets(AF_INET, address)
        if octets is not None and self.ipv4Prefix == 24:  # most are, and this is quicker than below
            return f"{address[: address.rindex('.')]}.0/24"
        if octets is None:
            kind, octets = AF_INET6, _octets(AF_INET6, address)
            if octets is None:
                return address
            if octets.startswith(_MAPPED):
                kind, octets = AF_INET, octets[len(_MAPPED) :]
        prefix = self.ipv4Prefix if kind == AF_INET else self.ipv6Prefix
        rest = len(octets) * 8 - prefix
        if rest == 0:
            return inet_ntop(kind, octets)
        number = int.from_bytes(octets, "big") >> rest << rest
        return f"{inet_ntop(kind, number.to_bytes(len(octets), 'big'))}/{prefix}"

    def _stored(self, texts):
        """
        A key as it is stored.
        """
        return texts if self.privacyKey is None else self._hidden(texts)

    def _hidden(self, texts):
        key = blake2b(self.privacyKey.encode(), digest_size=32).digest()
        return tuple(
            blake2b(text.encode("utf-8", "surrogateescape"), key=key, digest_size=16).hexdigest() for text in texts
        )

    # Commands

    def _like(self, sender, recipient, client):
        """
        What the columns of wanted triplets are like; an address as the check would count it, C{*} for anything.
        """
        given = {"sender": sender, "recipient": recipient, "client_address": client}
        return {
            column: self._counted(column, str(text).lower()) for column, text in given.items() if text is not None
        }

    def _counted(self, column, text):
        if "*" in text:
            return text
        if column == "client_address" and "/" not in text:
            text = self._network(text)
        elif column == "sender" and self.normalizeSender:
            text = normalized(text)
        return self._stored((text,))[0]

    def _described(self, row):
        now = self.state.clock()
        left = row["first"] + self.delay - now
        state = f"waits {ceil(left)} s" if left > 0 else "passed" if self._hasPassed(row) else "may pass"
        return {
            "sender": row["sender"],
            "recipient": row["recipient"],
            "client": row["client_address"],
            "state": state,
            "mails": row["count"],
            "first": round(row["first"]),
            "last": round(row["last"]),
            "expires": round(row["expires"]),
        }

    def _hasPassed(self, row):
        return row["last"] - row["first"] >= self.delay

    @command
    def list(self, sender=None, recipient=None, client=None, limit=100):
        rows = self._triplets.scan(self._like(sender, recipient, client), int(limit))
        return {"triplets": [self._described(row) for row in rows]}

    @command
    def show(self, sender, recipient, client):
        return self.list(sender, recipient, client)

    @command(changes=True)
    def allow(self, sender=None, recipient=None, client=None):
        """
        Have waiting triplets pass; one that is named in full need not be there.
        """
        like = self._like(sender, recipient, client)
        if not like:
            raise BackendError("say which: --sender, --recipient or --client")
        passed = {"first": 0.0, "previous": 0.0}
        allowed = self._triplets.alter(like, passed, self.expiration)
        if not allowed and len(like) == 3 and not any("*" in text for text in (sender, recipient, client)):
            key = self._triplet({"sender": sender, "recipient": recipient, "client_address": client})
            fields = passed | {"last": self.state.clock(), "count": 0}
            self._triplets.put(self._stored(key), fields, self.expiration)
            allowed = 1
        return {"allowed": allowed}

    @command(changes=True)
    def remove(self, sender=None, recipient=None, client=None):
        like = self._like(sender, recipient, client)
        if not like:
            raise BackendError("say which: --sender, --recipient or --client; '*' is all")
        return {"removed": self._triplets.remove(like)}

    def oldTables(self):
        return [(self.table, ("sender", "recipient", "client_address", "state"), ("date",))]

    @command(changes=True)
    def importRows(self, table, rows):
        """
        Take rows of 2.7: sender, recipient, client, state (1 passed, -1 waiting), the time of the last change.
        """
        now, taken = self.state.clock(), 0
        for sender, recipient, client, state, date in rows:
            left = date + (self.expiration if state > 0 else self.mustRetry) - now
            if left <= 0:
                continue
            key = self._triplet({"sender": sender, "recipient": recipient, "client_address": client})
            first = date - self.delay if state > 0 else date
            fields = {"first": first, "last": date, "previous": first, "count": 2 if state > 0 else 1}
            self._triplets.put(self._stored(key), fields, left, behind=True)
            taken += 1
        return {"taken": taken}

    @command
    def stats(self):
        delay = self.delay
        answer = self._triplets.statistics(
            {
                "triplets": lambda row, now: row.expires > now,
                "waiting": lambda row, now: (row.expires > now) & (now - row.first < delay),
                "passed": lambda row, now: (row.expires > now) & (row.last - row.first >= delay),
                "neverRetried": lambda row, now: (row["count"] == 1) & (now - row.first >= delay),
                "expired": lambda row, now: row.expires <= now,
            }
        )
        if self.whitelistAfter:
            often = self.whitelistAfter
            for name, table in (("clients", self._clients), ("domains", self._domains)):
                answer |= table.statistics(
                    {
                        f"{name}Known": lambda row, now: row.expires > now,
                        f"{name}Trusted": lambda row, now: row["count"] >= often,
                    }
                )
        return answer


def _octets(kind, address):
    try:
        return inet_pton(kind, address)
    except (OSError, ValueError):
        return None


def normalized(sender):
    """
    A sender without what is another in each of its mails.
    """
    local, at, domain = sender.rpartition("@")
    if not at or local.isalnum():
        return sender
    same = _COUNTED.sub("#", _SRS.sub(r"srs=\g<host>=", _BATV.sub("", local)))
    return f"{same.partition('+')[0] or local}@{domain}"
