"""
A name server that takes its time: `python -m bench.slowdns PORT MILLISECONDS`. It answers every question of
type A, MX, PTR, TXT and NS alike, but for names below `listed.example`, which do not exist, except for the point
that a list must have (RFC 5782, 5).
"""

import asyncio
import socket
import struct
import sys
from contextlib import suppress

_SO_RCVBUFFORCE = 33  # for root, beyond the system's bound
_BUFFER = 8 << 20
_ADDRESS = bytes((198, 51, 100, 7))
_HOST = b"\4mail\7example\3net\0"
_RECORD = b"v=spf1 ip4:192.0.2.0/24 mx -all"
# Seconds: what is known must last as long as a measurement.
_TTL = 3600
_TIMES = struct.pack("!IIIII", 1, 60, 60, 60, _TTL)
_NEGATIVE = b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, _TTL, 22) + b"\0\0" + _TIMES


def _answer(kind, value):
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, _TTL, len(value)) + value


_ANSWERS = {
    1: _answer(1, _ADDRESS),
    2: _answer(2, _HOST),
    12: _answer(12, _HOST),
    15: _answer(15, b"\0\12" + _HOST),
    16: _answer(16, bytes((len(_RECORD),)) + _RECORD),
}


_LISTED = _answer(1, bytes((127, 0, 0, 2)))


def reply(octets):
    """
    What is said to a question.
    """
    end = 12
    while octets[end]:
        end += 1 + octets[end]
    question = octets[12 : end + 5]
    answer = _ANSWERS.get(question[-3])
    if b"\6listed\7example\0" in question.lower():
        answer = _LISTED if question.startswith(b"\x012\x010\x010\x03127") and question[-3] == 1 else None
    flags, answers, authorities = (0x8183, 0, 1) if answer is None else (0x8180, 1, 0)
    header = octets[:2] + struct.pack("!HHHHH", flags, 1, answers, authorities, 0)
    return header + question + (answer or _NEGATIVE)


class Slow(asyncio.DatagramProtocol):
    def __init__(self, seconds):
        self._seconds = seconds

    def connection_made(self, transport):
        self._transport = transport
        self._later = asyncio.get_running_loop().call_later

    def datagram_received(self, octets, address):
        self._later(self._seconds, self._transport.sendto, reply(octets), address)


async def serve(port, seconds):
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):
        with suppress(OSError):  # without it questions are lost when many come at once
            listening.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    listening.bind(("127.0.0.1", port))
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: Slow(seconds), sock=listening)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
