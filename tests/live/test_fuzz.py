"""
Random, mutated, divided and pipelined requests over a real socket: each gets one well-formed reply, in order.

C{make fuzz} sets PPOLICY_FUZZ=10000000, the number of mutated requests; without it there are 60,000. They are the
same ones in each run, the longer run begins with those of the shorter.
"""

import hashlib
import os
import random
import re

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ppolicy.attributes import ATTRIBUTES

from .policyserver import Server
from .wire import LARGEST, Wire, attributes, blocks, isPolicyRequest, longest, request

REQUESTS = int(os.environ.get("PPOLICY_FUZZ", "60000"))
# Of one example; each takes SCRIPT octets of the script that hypothesis writes and shrinks.
BATCH = 400
SCRIPT = 5

# Tells which request it answers, and with a hash of all attributes that it saw them as they were sent.
POLICY = """
import hashlib

ppolicyPort = [ppolicyPort, 'unix:socket:mode=666']

def check(factory, data, port):
    serial = data.get('serial', '')
    seen = hashlib.blake2b(digest_size=6)
    for name, value in sorted((name.encode('utf-8', 'surrogateescape'), value.encode('utf-8', 'surrogateescape'))
                              for name, value in data.items()):
        seen.update(name + b'=' + value + b'\\n')
    return 'dunno', f"{serial if serial.isdecimal() and serial.isascii() else '-'} {seen.hexdigest()}"
"""


def expected(stream):
    """
    The actions that the policy above has to give for a stream of octets.
    """
    return [_answer(attributes(block)) for block in blocks(stream)]


def _answer(said):
    if not isPolicyRequest(said):
        return "dunno"
    said = {name.encode(): nothing.encode() for name, nothing in ATTRIBUTES.items()} | said
    # As ever in ppolicy: an unknown name is none, and addresses come without their brackets.
    if said.get(b"client_name") == b"unknown":
        said[b"client_name"] = b""
    for name in (b"sender", b"recipient"):
        value = said.get(name, b"")
        if value.startswith(b"<") and value.endswith(b">") and value != b"<":
            said[name] = value[1:-1]
    serial = said.get(b"serial", b"")
    seen = hashlib.blake2b(b"".join(b"%s=%s\n" % one for one in sorted(said.items())), digest_size=6)
    return f"dunno {serial.decode() if re.fullmatch(b'[0-9]+', serial) else '-'} {seen.hexdigest()}"


# Each is a stream of one or more requests.
STREAMS = {
    "postfix": request(serial=1),
    "twice": request(serial=1) + request(serial=2),
    "CRLF": request(serial=1).replace(b"\n", b"\r\n"),
    "CRLF and LF": request(serial=1).replace(b"\n", b"\r\n", 7),
    "CRLF, twice": (request(serial=1) + request(serial=2)).replace(b"\n", b"\r\n"),
    "CR in values": request(serial=1, sender=b"\ra@b\r", helo_name=b"\r\r"),
    "CR before CRLF": b"serial=1\r\r\nsender=a\r\r\n\r\n",
    "a line of CR": b"serial=1\n\r\r\n\n",
    "blank lines in front": b"\n\n\n" + request(serial=1),
    "blank lines between": request(serial=1) + b"\n\n\n" + request(serial=2) + b"\n" + request(serial=3),
    "blank CRLF lines": b"\r\n\r\n" + request(serial=1) + b"\r\n\n\r\n" + request(serial=2),
    "no request": request("request", serial=1),
    "request last": request("request", serial=1, request_=1).replace(
        b"\n\n", b"\nrequest=smtpd_access_policy\n\n"
    ),
    "another request": request(serial=1, request="junk") + request(serial=2),
    "empty request": request(serial=1, request="") + request(serial=2),
    "no attribute": b"hello\n\n" + request(serial=2),
    "lines without =": b"hello\nserial=1\nworld\n\n",
    "only serial": b"serial=1\n\nserial=2\n\n",
    "empty names": b"=\n\n=x\nserial=2\n\n",
    "no UTF-8": request(serial=1, sender=b"\xff\xfe@\x80", helo_name=b"\xc3", recipient=b"\xed\xa0\x80@\xc0\x80"),
    "UTF-8": request(
        serial=1, sender="\u017elu\u0165ou\u010dk\u00fd@k\u016f\u0148", helo_name="\u2028\u0085\U0001f600"
    ),
    "NUL": request(serial=1, sender=b"\0a\0", helo_name=b"\0") + b"\0\n\n" + b"\0=\0\n\n",
    "repeated": b"serial=1\nserial=2\nsender=a\nsender=b\nserial=3\n\n",
    "repeated request": b"request=junk\nserial=1\nrequest=smtpd_access_policy\n\n",
    "repeated after Postfix's own": request(serial=1, policy_context="x\nsender=b\nclient_name=unknown"),
    "8 KB": request(serial=1, sender=b"s" * 8192),
    "8 KB without end": b"serial=1\n" + b"x" * 8192 + b"\n\n",
    "brackets": request(serial=1, sender="<a@b>", recipient="<>", client_name="unknown"),
    "one bracket": request(serial=1, sender="<", recipient=">"),
    "equals signs": request(serial=1, sender="a=b=c@d", helo_name="===="),
    "what ends with size": request("etrn_domain", "stress", "policy_context", queue_id="", instance="1.2")
    + b"serial=2\n\n",
    "the head of Postfix, then another": b"".join(
        f"{name}=\n".encode() if name != "request" else b"request=smtpd_access_policy\n"
        for name in (
            *("request", "protocol_state", "protocol_name", "client_address", "client_name", "client_port"),
            *("reverse_client_name", "server_address", "server_port", "helo_name", "sender", "recipient"),
            *("recipient_count", "queue_id", "instance", "size"),
        )
    )
    + b"\nserial=2\n\n",
    "reply in a value": request(serial=1, sender="action=ok", helo_name="action=ok\r\r") + b"action=ok\n\n",
}

# Pieces that mutations put in.
TOKENS = (
    *(
        b"\n",
        b"\n\n",
        b"\r\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\r\n",
        b"\r\r\n",
        b"\0",
        b"=",
        b"\n=",
        b"<",
        b">",
        b" ",
        b"\t",
    ),
    *(
        b"request=",
        b"request=smtpd_access_policy\n",
        b"request=junk\n",
        b"\nserial=",
        b"action=ok\n\n",
        b"client_name=",
    ),
    *(
        b"\xff",
        b"\x80",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\xf0\x9f\x98\x80",
        b"\x1b[2J",
        b"\x7f",
    ),
    *(b"%s%n", b"{0}{begin}", b"\\n", b"'\"`$(", b"x" * 3000),
)


def mutated(script):
    """
    A stream of about as many requests as the script has steps, most of them changed in one place.
    """
    kinds = [stream for stream in STREAMS.values() if len(stream) < 2000]
    pieces = []
    for start in range(0, len(script) - SCRIPT + 1, SCRIPT):
        kind, how, where, length, token = script[start : start + SCRIPT]
        piece = kinds[kind % len(kinds)].replace(b"serial=1", b"serial=%d" % start)
        at = where * len(piece) // 256
        span = piece[at : at + length]
        inserted = TOKENS[token % len(TOKENS)]
        pieces.append(
            (
                piece,
                piece[:at] + inserted + piece[at:],
                piece[:at] + inserted + piece[at + length :],
                piece[:at] + piece[at + length :],
                piece[:at] + span + span + piece[at + length :],
                piece[:at] + bytes(octet ^ token for octet in span) + piece[at + length :],
                piece[:at],
                piece[:at] + bytes([token]) * length + piece[at:],
            )[how % 8]
        )
    return b"".join(pieces)


def cut(stream, size, seed):
    """
    The stream in pieces of up to so many octets, or whole.
    """
    if not size:
        return [stream]
    lengths, pieces = random.Random(seed), []
    while stream:
        length = lengths.randint(1, size)
        pieces.append(stream[:length])
        stream = stream[length:]
    return pieces


def compare(found, wanted, stream):
    """
    Fail with the first request that got something else than it had to.
    """
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if one != other:
            block = b"\n".join(blocks(stream)[number])
            raise AssertionError(f"request {number} got {one!r}, not {other!r}: {block!r}")


def expectNoComplaint(server):
    """
    Fail when what the server has logged since the last time tells of anything but requests that were none.
    """
    lines = server.output[:]
    del server.output[: len(lines)]  # in a long run they would fill the memory
    wrong = re.search("(?m)^.*(Traceback|Unhandled|Unable to format|failed|Error|critical).*$", "".join(lines))
    assert not wrong, wrong[0]


@pytest.fixture(scope="module")
def _server():
    server = Server()
    server.configure(POLICY, requestLog=None)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def server(_server):
    """
    A server whose policy tells what it saw; it must have nothing to complain of but requests that were none.
    """
    yield _server
    expectNoComplaint(_server)


def test_mutated(server):
    """
    Requests changed at random get one reply each, for exactly what they say, however they are cut into writes.
    """
    addresses = (server.address, str(server.folder / "socket"))
    answered = 0

    @settings(
        max_examples=max(1, REQUESTS // BATCH),
        derandomize=True,
        phases=(Phase.generate,),  # shrinking takes minutes, and compare() names the request
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.binary(min_size=BATCH * SCRIPT, max_size=BATCH * SCRIPT),
        st.sampled_from((0, 0, 8192, 1500, 100, 7)),
        st.sampled_from(addresses),
    )
    def example(script, size, address):
        nonlocal answered
        stream = mutated(script)
        # Whatever it ended in, this request is one of its own, and the last.
        stream += b"\n\nserial=0\n\n"
        if longest(stream) > LARGEST:
            return
        wanted = expected(stream)
        with Wire(address) as wire:
            compare(wire.talk(cut(stream, size, script), len(wanted)), wanted, stream)
            wire.expectNothing()
        expectNoComplaint(server)
        answered += len(wanted)

    example()
    assert answered > REQUESTS * 0.7, "fewer requests than meant"


def test_random(server):
    """
    Octets that have next to nothing of a request get what they deserve, on one connection.
    """
    with Wire(server.address) as wire:

        @settings(max_examples=1000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            st.lists(
                st.one_of(st.binary(max_size=40), st.sampled_from(TOKENS), st.just(b"serial=1\n")), max_size=60
            )
        )
        def example(pieces):
            stream = b"".join(pieces) + b"\n\nserial=0\n\n"
            wanted = expected(stream)
            compare(wire.talk([stream], len(wanted)), wanted, stream)

        example()


@pytest.mark.parametrize("name", STREAMS)
def test_everySplit(server, name):
    """
    A request is read alike in one part or in two, divided anywhere.
    """
    stream = STREAMS[name]
    wanted = expected(stream)
    assert wanted
    with Wire(server.address) as other:
        wires = [Wire(server.address) for _ in range(200)]
        for start in range(1, len(stream) + 1, len(wires)):
            parts = list(zip(wires, range(start, len(stream) + 1), strict=False))
            for wire, point in parts:
                wire.send(stream[:point])
            # One turn of the server's loop may be under way; after the next it has read the first parts.
            for _ in range(2):
                assert other.ask(b"serial=0\n\n").startswith("dunno 0 ")
            for wire, point in parts:
                wire.send(stream[point:])
            for wire, point in parts:
                assert wire.replies(len(wanted)) == wanted, f"divided after {stream[:point]!r}"
        for wire in wires:
            assert wire.ask(b"serial=0\n\n").startswith("dunno 0 ")
            wire.close()


PIPELINE = [stream.replace(b"serial=1", b"serial=%d" % number) for number, stream in enumerate(STREAMS.values())]


@pytest.mark.parametrize("kind", ("tcp", "unix"))
@pytest.mark.parametrize("count", (2, 3, 20, 200))
def test_pipeline(server, count, kind):
    """
    Requests sent without waiting for replies get them all, in order, in one write as in many.
    """
    stream = b"".join(PIPELINE[number % len(PIPELINE)] for number in range(count))
    wanted = expected(stream)
    assert len(wanted) >= count
    address = server.address if kind == "tcp" else str(server.folder / "socket")
    with Wire(address) as wire:
        for size in (0, 0, 8192, 1000, 7) if count > 20 else (0, 0, 1000, 7, 2, 1):
            compare(wire.talk(cut(stream, size, size), len(wanted)), wanted, stream)


@pytest.mark.parametrize("blank", (b"\n", b"\r\n", b"\n" * 1000, b"\r\n" * 1000, b"\n\r\n" * 3))
def test_blank(server, blank):
    """
    Empty lines between requests get no reply, together with a request or alone.
    """
    with Wire(server.address) as wire:
        for _ in range(3):
            wire.send(blank)
            wire.expectNothing(0.05)
            assert wire.talk([blank, b"serial=1\n\n", blank, b"serial=2\n\n" + blank], 2) == expected(
                b"serial=1\n\nserial=2\n\n"
            )
            wire.expectNothing(0.05)


@pytest.mark.parametrize(
    "junk", (b"x\n\n", b"\0\n\n", b"request=\n\n", b"request=junk\nserial=1\n\n", b"\r\r\n\n")
)
def test_noPolicyRequest(server, junk):
    """
    What is no policy request is answered dunno, without asking the policy, and the connection goes on.
    """
    with Wire(server.address) as wire:
        assert wire.ask(junk) == "dunno"
        assert wire.talk([junk + b"serial=1\n\n" + junk], 3) == ["dunno", *expected(b"serial=1\n\n"), "dunno"]


def test_noRequestLine(server):
    """
    A request without a line request= is the policy's all the same.
    """
    with Wire(server.address) as wire:
        assert wire.ask(request("request", serial=5)).startswith("dunno 5 ")
        assert wire.ask(b"serial=6\n\n").startswith("dunno 6 ")
