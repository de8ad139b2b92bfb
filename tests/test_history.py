"""
Tests for the last decisions, kept in memory.
"""

import random

import pytest

from ppolicy.history import AVERAGE, TURN, History, packedBriefly

NAMES = ("instance", "queue_id", "client_address", "sender", "recipient", "state", "client_name", "helo", "login")


def decision(number=0, **more):
    """A decision about one recipient of a mail."""
    values = {
        "instance": f"{number}.a",
        "client_address": "192.0.2.1",
        "sender": f"s{number}@example.net",
        "recipient": "r@example.org",
        "client_name": "Mail.Example.COM",
    } | more
    fields = tuple(values.get(name, "") for name in NAMES)
    return (float(number), fields, [("spf", 1, 0.001, False, None)], b"action=dunno\n\n", 0.002)


def found(history, *texts, limit=1000):
    """What is found, at one go."""
    *turns, decisions = history.find(texts, limit)
    assert turns == [None] * len(turns)
    return decisions


def filled(size, count, portion=32):
    """A history that was told of so many decisions."""
    history = History(size)
    for begin in range(0, count, portion):
        decisions = [decision(number) for number in range(begin, min(begin + portion, count))]
        history.add(decisions, packedBriefly(decisions))
    return history


def test_asTheyWere():
    """A decision is found as it was told, lone surrogates and all kinds of information included."""
    history = History(10)
    odd = decision(sender="\udcff\u017e\0@x")
    odd[2].append(("x", -1.5, 0.0, True, [1, None, {"a": ("b", b"c")}]))
    history.add([odd], packedBriefly([odd]))
    assert found(history, "r@example.org") == [odd]


def test_newest():
    """About as many as wanted are kept, the newest of them are shown, and these in their order."""
    history = filled(100, 1000)
    assert 100 <= len(history) < 132
    assert [one[0] for one in found(history, "EXAMPLE.net", limit=3)] == [997.0, 998.0, 999.0]
    assert len(found(history, "example")) == len(history)


@pytest.mark.parametrize(
    "text", ("2c.7", "4bXk", "4BXK", "192.0.2.77", "bob@", "BOB@example.org", "alice@", "mx7.e")
)
def test_found(text):
    """A mail is found by a part of instance, queue id, client, sender or recipient, in capitals or not."""
    history = filled(1000, 100)
    wanted = decision(
        instance="1.2c.7",
        queue_id="4bXkRz1",
        client_address="192.0.2.77",
        client_name="mx7.example.net",
        sender="Alice@example.net",
        recipient="bob@example.org",
    )
    history.add([wanted])
    assert found(history, text) == [wanted]


@pytest.mark.parametrize("text", ("RCPT", "helo7", "login7"))
def test_notFound(text):
    """What is nothing of these is not searched."""
    history = History(10)
    history.add([decision(state="RCPT", helo="helo7", login="login7")])
    assert found(history, text) == []


def test_wholeMail():
    """All decisions about a mail are found by its queue id, also those from before it had one."""
    history = filled(1000, 70)
    mail = [decision(instance="m.1", recipient=f"r{number}@example.org") for number in range(3)]
    mail.append(decision(instance="m.1", queue_id="4XYZ"))
    for one in mail:
        history.add([one])
        history.add([decision(99)])
    assert found(history, "4XYZ") == mail
    # Those without an instance have nothing in common.
    history.add([decision(instance="", queue_id="4ABC"), decision(instance="", sender="other@example.net")])
    assert len(found(history, "4ABC")) == 1


def test_nothingKept():
    """A size of 0 keeps nothing, from the start or from then on."""
    history = filled(0, 100)
    assert (len(history), found(history, "example")) == (0, [])
    history = filled(100, 50)
    history.resize(0)
    history.add([decision()])
    assert (len(history), found(history, "example")) == (0, [])
    history.resize(10)
    history.add([decision()])
    assert len(found(history, "example")) == 1


def test_resized():
    """A smaller size forgets the oldest at once, a larger one nothing."""
    history = filled(1000, 1000)
    history.resize(100)
    assert 100 <= len(history) < 132
    assert found(history, "example")[-1][0] == 999.0
    history.resize(5000)
    assert 100 <= len(history) < 132


def test_octets():
    """Long values make it look back less far, instead of taking more memory; the newest is always there."""
    history = History(1000)
    long = decision(sender="x" * 400_000)
    for _ in range(20):
        history.add([long])
    assert sum(len(packed) for _, packed in history._portions) <= 1000 * AVERAGE
    assert len(history) == 2
    small = History(1)
    small.add([long])
    assert len(found(small, "xxx")) == 1
    for _ in range(3):
        history.add([decision()])
    history.clear()
    assert (len(history), found(history, "example")) == (0, [])


def test_turns():
    """A search leaves room for others again and again, and what is told meanwhile does not disturb it."""
    history = filled(10_000, 10_000)
    search = history.find(["s1234@"], 5)
    turns = 0
    for step in search:
        if step is not None:
            break
        turns += 1
        history.add([decision(turns)])
        if turns == 3:
            history.clear()
    assert turns >= 2 * 10_000 / (TURN + 32) - 2
    assert [one[0] for one in step] == [1234.0]


def test_packedBriefly():
    """Decisions with much to say, or with objects that are none of Python's own, are not taken as they are."""
    assert packedBriefly([decision()]) is not None
    assert packedBriefly([decision(sender="x" * 2000)]) is None

    class Code(int):
        pass

    for strange in (Code(1), object(), random.Random(1)):
        odd = decision()
        odd[2].append(("x", 1, 0.0, False, strange))
        assert packedBriefly([odd]) is None
    deep = []
    for _ in range(5000):
        deep = [deep]
    odd = decision()
    odd[2].append(("x", 1, 0.0, False, deep))
    assert packedBriefly([odd]) is None


def test_oddInstance():
    """A policy that has put something else than a text into its request keeps nobody from searching."""
    history = History(10)
    history.add([decision(instance=["a", "b"], sender=5), decision(recipient=None)])
    assert len(found(history, "5")) == 1
    assert len(found(history, "example")) == 2
