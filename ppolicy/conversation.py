"""
What commands have checks do: in the running server, or here when there is none.
"""

import json

from ppolicy import controlclient
from ppolicy.terminal import controlSocket

# Rows that are sent to the server at once, and octets of them.
PORTION = 500
_OCTETS = 100_000


def ask(path, family, check, command, **arguments):
    """
    Have the running server's check do something; without a server do it here.
    """
    answers = []

    def dialogue():
        answers.append((yield request(family, check, command, **arguments)))

    converse(path, dialogue())
    return answers[0]


def request(family, check, command, **arguments):
    """
    A request for L{converse}.
    """
    return {"family": family, "check": check, "command": command, "arguments": arguments}


def converse(path, dialogue):
    """
    Have checks do several things, in the running server, or here when there is none.

    @param dialogue: a generator of requests, which is sent the answer to each.
    """
    socket = controlSocket(path)
    if not controlclient.isServed(socket):
        from ppolicy import offline

        offline.converse(offline.load(path), dialogue)
        return
    try:
        wanted = next(dialogue)
        while True:
            wanted = dialogue.send(controlclient.ask(socket, "command", **wanted))
    except StopIteration:
        return


def checksOf(path, family):
    """
    The names of the checks of a family.
    """
    from ppolicy import offline

    return [spec.name for spec in offline.load(path).specs if spec.cls.family == family]


def portions(rows):
    """
    Lists of rows that fit into a request each.
    """
    portion, octets = [], 0
    for row in rows:
        octets += len(json.dumps(row))
        if portion and (octets > _OCTETS or len(portion) == PORTION):
            yield portion
            portion, octets = [], len(json.dumps(row))
        portion.append(row)
    if portion:
        yield portion
