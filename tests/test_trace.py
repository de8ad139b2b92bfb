"""
Tests for following decisions while they are made.
"""

import pytest

from ppolicy.decisions import NAMES
from ppolicy.errors import PPolicyError
from ppolicy.trace import MOST, Follower


def decision(when=0.0, action="dunno", **more):
    """One about a mail of Alice's."""
    values = {
        "client_address": "192.0.2.7",
        "client_name": "Mail.Example.net",
        "sender": "Alice@example.net",
        "recipient": "bob@example.org",
    } | more
    return (when, tuple(values.get(name, "") for name in NAMES), [], f"action={action}\n\n".encode(), 0.001)


def seen(wanted, *decisions):
    """How many of them fit."""
    events = []
    Follower(lambda event: not events.append(event), wanted).follow(decisions, decisions)
    return len(events)


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({}, True),
        ({"client": None, "sender": "", "recipient": None, "action": ""}, True),
        ({"client": "192.0.2.7"}, True),
        ({"client": "192.0.2.8"}, False),
        ({"client": "192.0.2.0/24"}, True),
        ({"client": "192.0.2.99/24"}, True),
        ({"client": "192.0.3.0/24"}, False),
        ({"client": "2001:db8::/32"}, False),
        ({"client": "EXAMPLE.net"}, True),
        ({"client": "example.com"}, False),
        ({"sender": "alice@EXAMPLE"}, True),
        ({"sender": "bob"}, False),
        ({"recipient": "@example.org"}, True),
        ({"recipient": "alice"}, False),
        ({"action": "Dunno"}, True),
        ({"action": "dun"}, False),
        ({"client": "192.0.2.7", "sender": "alice", "recipient": "bob", "action": "dunno"}, True),
        ({"client": "192.0.2.7", "sender": "alice", "recipient": "bob", "action": "reject"}, False),
    ],
)
def test_filters(wanted, fits):
    """Only what fits all of the filters is followed, in capitals or not."""
    assert seen(wanted, decision()) == fits


@pytest.mark.parametrize("action", ("REJECT no", "reject", "Reject 5.7.1 no"))
def test_action(action):
    """An action is known by its verb."""
    assert seen({"action": "reject"}, decision(action=action)) == 1
    assert seen({"action": "450"}, decision(action="450 4.7.1 later")) == 1


def test_networks():
    """Networks are of both families; what is no address is in none."""
    wanted = {"client": "2001:db8::/32"}
    assert seen(wanted, decision(client_address="2001:db8::1"), decision(client_address="2001:db9::1")) == 1
    assert seen(wanted, decision(client_address=""), decision(client_address="unknown\udcff")) == 0
    assert seen({"client": "2001:DB8:0::1"}, decision(client_address="2001:db8::1")) == 1


@pytest.mark.parametrize(
    "wanted",
    [
        {"client": "192.0.2.0/33"},
        {"client": "a/b"},
        {"clients": "x"},
        {"sender": 5},
        {"action": ["x"]},
        {"text": None},
    ],
)
def test_refused(wanted):
    """What can be no filter is refused, not ignored."""
    with pytest.raises(PPolicyError):
        Follower(lambda event: True, wanted)


def test_tooMany():
    """So many in a tenth of a second; the next one tells how many were left out before it."""
    events = []
    follower = Follower(lambda event: not events.append(event), {})
    crowd = [decision(0.01)] * (MOST // 2)
    for _ in range(4):
        follower.follow(crowd, crowd)
    assert len(events) == MOST
    assert not any("leftOut" in event for event in events)
    for when in (0.11, 0.12):
        follower.follow([decision(when)], [decision(when)])
    assert [event.get("leftOut") for event in events[MOST:]] == [MOST, None]


def test_noRoom():
    """Who reads too slowly is sent nothing more for now, and told how much that was."""
    events, room = [], []
    offered = []

    def send(event):
        offered.append(event)
        if room:
            events.append(event)
        return bool(room)

    follower = Follower(send, {"sender": "alice"})
    for tenth in range(10):
        follower.follow([decision(tenth / 10)] * 20, [decision()] * 20)
    assert len(offered) == 10  # what is not sent is not even written
    room.append(True)
    others = [decision(2.0, sender="other@example.com")] * 5
    follower.follow([*others, decision(2.0)], [*others, decision(2.0)])
    assert [event["leftOut"] for event in events] == [200]


def test_private():
    """Filters look at what is true, and show what may be shown."""
    events = []
    follower = Follower(
        lambda event: not events.append(event), {"sender": "alice@example.net", "client": "192.0.2.0/24"}
    )
    follower.follow([decision()], [decision(sender="~abc", client_address="~def")])
    assert [(event["sender"], event["client_address"]) for event in events] == [("~abc", "~def")]
