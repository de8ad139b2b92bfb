"""
A header that a mail gets once, however many recipients it has.
"""

import threading
from collections import OrderedDict

# How many mails are remembered that have got their header.
_MAILS = 10_000

_headed: OrderedDict = OrderedDict()
_lock = threading.Lock()  # a policy may run in a worker thread


def isFirst(data, kind):
    """
    Is this the recipient, of all that a mail has, who is asked about first? A request that Postfix sends again is.

    @param kind: a text that stands for the header.
    """
    instance = data.get("instance")
    if not instance:
        return True
    here = data.get("protocol_state"), data.get("recipient")
    with _lock:
        first = _headed.setdefault((instance, kind), here)
        if len(_headed) > _MAILS:
            _headed.popitem(last=False)
    return first == here
