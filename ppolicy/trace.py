"""
Follow decisions while they are made: C{ppolicy trace}.
"""

import ipaddress

from ppolicy.decisions import NAMES, described
from ppolicy.errors import PPolicyError
from ppolicy.logs import asText
from ppolicy.statistics import verb

# Followers at once, and the decisions that one of them is told of in each tenth of a second.
FOLLOWERS = 10
MOST = 100
_FILTERS = ("client", "sender", "recipient", "action")

_CLIENT, _SENDER, _RECIPIENT = (NAMES.index(name) for name in ("client_address", "sender", "recipient"))
_CLIENT_NAME = NAMES.index("client_name")


class Follower:
    """
    @param send: is given a dictionary for each decision that fits; it says False when it has no room.
    @param wanted: {client, sender, recipient, action}, each a text or None. A client is an address, a network
        or a part of a name; sender and recipient are parts of the address; an action is its verb.
    @raises PPolicyError: when one of them cannot be what it should.
    """

    def __init__(self, send, wanted):
        self._send = send
        unknown = wanted.keys() - set(_FILTERS)
        if unknown or not all(value is None or isinstance(value, str) for value in wanted.values()):
            raise PPolicyError(f"trace filters by {', '.join(_FILTERS)}, each a text")
        self._client, self._sender, self._recipient, action = (
            (wanted.get(name) or "").lower() for name in _FILTERS
        )
        self._action = action.upper()
        self._network = _network(self._client)
        self._left = 0
        self._tenth = self._sent = 0

    def follow(self, decisions, shown):
        """
        Send those that fit, as they may be shown. When they are too many, the next that is sent tells how many
        were left out before it.
        """
        hasRoom = True
        for decision, visible in zip(decisions, shown, strict=True):
            if not self._fits(decision):
                continue
            tenth = int(decision[0] * 10)
            if tenth != self._tenth:
                self._tenth, self._sent = tenth, 0
            if hasRoom and self._sent < MOST:
                event = described(visible)
                if self._left:
                    event["leftOut"] = self._left
                hasRoom = self._send(event)
                if hasRoom:
                    self._sent += 1
                    self._left = 0
                    continue
            self._left += 1

    def _fits(self, decision):
        _, fields, _, reply, _ = decision
        return (
            self._sender in asText(fields[_SENDER]).lower()
            and self._recipient in asText(fields[_RECIPIENT]).lower()
            and (not self._action or verb(reply) == self._action)
            and (not self._client or self._isClient(asText(fields[_CLIENT]), asText(fields[_CLIENT_NAME])))
        )

    def _isClient(self, address, name):
        if self._network is None:
            return self._client in name.lower() or self._client == address.lower()
        try:
            return ipaddress.ip_address(address) in self._network
        except ValueError:
            return False


def _network(text):
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        if "/" in text:
            raise PPolicyError(f"{text!r} is no network such as 192.0.2.0/24") from None
        return None
