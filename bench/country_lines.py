"""
The line about countries of clients.
"""

from contextlib import ExitStack

from bench.servers import Floor, PPolicy
from bench.table import Gate, Row, ratios

COUNTRY = """
    modules = {"country": ("Country", %r)}

    def check(factory, data, port):
        code, country = factory.check("country", data)
        return ("dunno", "") if code == 1 else ("DEFER_IF_PERMIT", "4.7.1 Nobody knows where you are")
    """

# Networks of this many bits have a country each, one of these.
BITS = 16
CODES = ("CZ", "SK", "AT", "DE", "PL", "FR", "GB", "US", "JP", "BR")


def country(bench):
    """
    The country of clients, some of whom come often, most rarely: with results cached, as by default, and without.
    """
    path = bench.folder / "countries.mmdb"
    path.write_bytes(countries())
    notCached = dict.fromkeys(("cachePositive", "cacheUnknown", "cacheNegative"), 0)
    with ExitStack() as stack:
        floor = Floor(bench.folder)
        cached, asked = [
            PPolicy(f"country{what}", bench.folder, COUNTRY % ({"dataPath": str(path)} | parameters))
            for what, parameters in (("", {}), (", not cached", notCached))
        ]
        servers = (floor, cached, asked)
        bench.start(stack, *servers)
        base, ours, bare = bench.measureInTurn(servers, dict.fromkeys(servers, "dunno"))
        bench.ask(*servers)
    return [
        Row("floor, zipf, 8 connections", base),
        Row(cached.name, ours, base, gates=[Gate("rate", ratios(ours, base, "rate"), atLeast=0.33)]),
        Row(asked.name, bare, base),
    ]


def countries():
    """
    A file in the format MaxMind DB where each address of IPv4 has a country.
    https://maxmind.github.io/MaxMind-DB/
    """
    records = [_map(country=_map(iso_code=_text(code))) for code in CODES]
    nodes = 2**BITS - 1
    pointers = [nodes + 16 + sum(map(len, records[:number])) for number in range(len(CODES))]
    # A whole tree, level by level: below node n are 2n + 1 and 2n + 2, below the last level the countries.
    tree = bytearray()
    for node in range(2 * nodes):
        below = node + 1
        pointer = below if below < nodes else pointers[below % len(CODES)]
        tree += pointer.to_bytes(3, "big")
    metadata = _map(
        binary_format_major_version=_number(5, 2),
        binary_format_minor_version=_number(5, 0),
        build_epoch=b"\x04\x02" + bytes(4),
        database_type=_text("Country"),
        description=_map(),
        ip_version=_number(5, 4),
        languages=b"\x00\x04",
        node_count=_number(6, nodes),
        record_size=_number(5, 24),
    )
    return bytes(tree) + bytes(16) + b"".join(records) + b"\xab\xcd\xefMaxMind.com" + metadata


def _text(text):
    return bytes([2 << 5 | len(text)]) + text.encode()


def _map(**members):
    return bytes([7 << 5 | len(members)]) + b"".join(_text(key) + value for key, value in members.items())


def _number(kind, number):
    octets = number.to_bytes(4, "big").lstrip(b"\0")
    return bytes([kind << 5 | len(octets)]) + octets
