"""
The last decisions, in memory, to answer why a mail was refused.

They are kept packed: ten thousand requests with all their texts would be 10 MB in pieces, and touching these one
after the other costs a busy server more than packing them into 2 MB does. C{marshal} packs and unpacks one in a
third of a microsecond, and sees no octet but its own.
"""

import marshal
from collections import deque

from ppolicy.logs import asText

# The longest value, and the longest information of a check, in characters.
LONGEST = 512
# Octets that a decision may take on average. Where clients send much longer values, the history goes back less
# far.
AVERAGE = 1024
# Decisions that are looked through before others get their turn: about a millisecond.
TURN = 500


class History:
    """
    @ivar size: how many decisions are kept, some more or less; the oldest go first.
    """

    def __init__(self, size):
        self.size = size
        self._count = self._octets = 0
        self._portions = deque()

    def __len__(self):
        return self._count

    def add(self, decisions, packed=None):
        """
        Keep these; L{ppolicy.decisions} says what they are.

        @param packed: what L{packedBriefly} has made of them, if it has.
        """
        if self.size:
            if packed is None:
                packed = marshal.dumps(decisions)
            self._portions.append((len(decisions), packed))
            self._count += len(decisions)
            self._octets += len(packed)
            self._shrink()

    def resize(self, size):
        """
        Keep so many from now on.
        """
        self.size = size
        self._shrink()

    def clear(self):
        """
        Forget all.
        """
        self._portions.clear()
        self._count = self._octets = 0

    def _shrink(self):
        portions = self._portions
        while portions and (
            self._count - portions[0][0] >= self.size or (self._octets > self.size * AVERAGE and len(portions) > 1)
        ):
            number, packed = portions.popleft()
            self._count -= number
            self._octets -= len(packed)

    def find(self, texts, limit):
        """
        The decisions about mails in whose queue id, instance, client, sender or recipient one of the texts
        occurs, in capitals or not: all decisions about such a mail, also those from before it had a queue id.

        @return: an iterator that gives None from time to time, and last a list, the oldest first, of the newest
            C{limit} of them.
        """
        texts = [text.lower() for text in texts]
        portions = list(self._portions)
        instances = set()
        for decision in _each(portions):
            if decision is None:
                yield None
            elif _matches(decision[1], texts):
                instances.add(asText(decision[1][0]))
        instances.discard("")
        found = deque(maxlen=limit)
        for decision in _each(portions):
            if decision is None:
                yield None
            elif asText(decision[1][0]) in instances or _matches(decision[1], texts):
                found.append(decision)
        yield list(found)


def packedBriefly(decisions):
    """
    Decisions as octets; None when some have more to say than is kept, or hold an object of the site's own. One
    look at the whole is what makes it cheap.
    """
    try:
        packed = marshal.dumps(decisions)
    except ValueError:
        return None
    return packed if len(packed) <= LONGEST * len(decisions) else None


def _each(portions):
    """
    All decisions, and None from time to time.
    """
    seen = 0
    for number, packed in portions:
        yield from marshal.loads(packed)  # noqa: S302 - packed by us, in this process
        seen += number
        if seen >= TURN:
            seen = 0
            yield None


def _matches(fields, texts):
    instance, queueId, client, sender, recipient, _, name, _, _ = fields
    searched = f"{instance}\n{queueId}\n{client}\n{sender}\n{recipient}\n{name}".lower()
    return any(text in searched for text in texts)
