"""
Tests for the choice of name servers.
"""

import pytest

from ppolicy.resolvconf import nameServer, nameServers, publicServers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("::1", ("::1", 53)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
        ("fe80::1%lo", ("fe80::1%lo", 53)),
    ],
)
def test_forms(text, expected):
    """A server is an address of IPv4 or IPv6, with a port where it is not 53."""
    assert nameServers([text, "192.0.2.9"]) == [expected, ("192.0.2.9", 53)]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "ns.example.org",
            "192.0.2.53:",
            "192.0.2.53:0",
            "192.0.2.53:65536",
            "192.0.2.300",
            "[192.0.2.53]:53",
        ),
        *("2001:db8::53]:53", "[2001:db8::53", "[2001:db8::53]:x", ":53", "192.0.2.53:53:53", " 192.0.2.53"),
    ],
)
def test_mistakes(text):
    """Anything else is a mistake, which says what is possible."""
    with pytest.raises(ValueError, match="none of 'address', 'address:port'"):
        nameServer(text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.org\n",
            [("192.0.2.1", 53), ("2001:db8::1", 53)],
        ),
        ("# nothing\n", [("127.0.0.1", 53)]),
        ("nameserver rubbish\n", [("127.0.0.1", 53)]),
        ("options timeout:x\nnameserver 192.0.2.1\n", [("192.0.2.1", 53)]),
        (
            "nameserver rubbish\nnameserver\n nameserver\t192.0.2.1 # ours\r\nnameserver [2001:db8::1]\n"
            ";nameserver 192.0.2.2\nnameserver 192.0.2.1\nnameserver fe80::1%eth0",
            [("192.0.2.1", 53), ("fe80::1%eth0", 53)],
        ),
        (f"domain {'x' * 70}\nsearch a..b\nnameserver 192.0.2.1\n", [("192.0.2.1", 53)]),
        (b"# f\xfcr alle\nsearch b\xfccher.example\nnameserver 192.0.2.1\n", [("192.0.2.1", 53)]),
        (None, [("127.0.0.1", 53)]),
    ],
)
def test_system(tmp_path, content, expected):
    """Without the option those of resolv.conf are asked; without any, one on this host."""
    path = tmp_path / "resolv.conf"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert nameServers([], path) == expected


def test_public():
    """The large public resolvers are known."""
    servers = nameServers(["127.0.0.1", "8.8.8.8", "[2606:4700:4700::1111]:53", "192.0.2.1"])
    assert publicServers(servers) == ["8.8.8.8", "2606:4700:4700::1111"]
