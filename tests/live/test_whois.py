"""
Whois through a running server: Team Cymru's DNS from a name server on a socket, and whois servers on loopback that
answer, refer to each other, and do everything wrong.
"""

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.dnsserver import DNSServer
from tests.stalls import took

# The cache is off, so that each request asks the check; what that knows it has from its table.
POLICY = """
    off = {{'cachePositive': 0, 'cacheNegative': 0}}
    whois = {{'source': 'whois', 'port': {port}, 'allowPrivate': ['127.0.0.0/8'], 'table': 'whois_registry'}}
    modules = {{
        'dns': ('Whois', off),
        'dns_now': ('Whois', {{'wait': 5, 'table': 'whois_now', **off}}),
        'whois': ('Whois', {{'wait': 5, **whois, **off}}),
        'late': ('Whois', {{'wait': 1, **whois, **off}}),
        'closed': ('Whois', {{'wait': 5, 'source': 'whois', 'port': {port}, 'table': 'whois_closed', **off}}),
        'dummy': ('Dummy', {{'cacheUnknown': 0}}),
    }}

    def check(factory, data, port):
        name = data['helo_name']
        code, info = factory.check(name if name in modules else 'dummy', data)
        return '450', f"{{code}} {{'|'.join(map(str, info)) if code > 0 else info}}"
"""

RIPE = (
    "inetnum: {0}/32\nnetname: EXAMPLE\ncountry: CZ\ncreated: 2003-02-01T00:00:00Z\n\norg-name: Example s.r.o.\n"
)
RECORDS = {
    "8.8.8.8.origin.asn.cymru.com": {"TXT": ['"15169 | 8.8.8.0/24 | US | arin | "']},
    "4.3.2.9.origin.asn.cymru.com": {"TXT": ['"64496 | 9.2.0.0/16 | CZ | ripencc | 2003-02-01"']},
    "as64496.asn.cymru.com": {"TXT": ['"64496 | CZ | ripencc | 2004-01-15 | EXAMPLE-AS, CZ"']},
    "whois.iana.org": {"A": ["127.0.0.1"]},
    "whois.ripe.net": {"A": ["127.0.0.2"]},
    "whois.arin.net": {"A": ["127.0.0.3"]},
    "whois.apnic.net": {"A": ["127.0.0.9"]},  # nobody listens there
}


class WhoisServers:
    """
    Whois servers on 127.0.0.1 to 3 and one port; the second octet of the address that is asked for says how they
    answer.

    @ivar asked: (server, question) of each.
    """

    def __init__(self):
        self.asked = []
        self._ends = threading.Event()
        while True:
            self._listeners = [socket.create_server(("127.0.0.1", 0))]
            self.port = self._listeners[0].getsockname()[1]
            try:
                for host in ("127.0.0.2", "127.0.0.3"):
                    self._listeners.append(socket.create_server((host, self.port)))
            except OSError:
                self._close()
                continue
            break
        for one in self._listeners:
            threading.Thread(target=self._accept, args=(one,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):  # the client may go
            connection.settimeout(20)
            question = b""
            while not question.endswith(b"\r\n"):
                octets = connection.recv(100)
                if not octets:
                    return
                question += octets
            host = connection.getsockname()[0]
            text = question.decode().strip()
            self.asked.append((host, text))
            address = text.split()[-1]
            getattr(self, f"answer{address.split('.')[1]}", self._good)(connection, host, address)

    def _good(self, connection, host, address):
        said = "refer: whois.ripe.net\n" if host == "127.0.0.1" else RIPE.format(address)
        connection.sendall(said.encode())

    def answer10(self, connection, host, address):
        """Nothing is registered."""
        connection.sendall(b"%ERROR:101: no entries found\n")

    def answer11(self, connection, host, address):
        """Silence."""
        self._ends.wait(15)

    def answer12(self, connection, host, address):
        """A few octets now and then, without an end."""
        while not self._ends.wait(0.1):
            connection.sendall(b"remarks: more to come\n")

    def answer13(self, connection, host, address):
        """Rubbish."""
        connection.sendall(bytes(range(256)) * 40)

    def answer14(self, connection, host, address):
        """A megabyte, with an answer in the beginning."""
        connection.sendall(RIPE.format(address).encode() + b"\n" + b"remarks: x\n" * 95_000)

    def answer15(self, connection, host, address):
        """Nothing but the end."""

    def answer16(self, connection, host, address):
        """A loop."""
        other = {"127.0.0.1": "whois.arin.net", "127.0.0.3": "whois.ripe.net", "127.0.0.2": "whois.arin.net"}
        connection.sendall(f"refer: {other[host]}\n".encode())

    def answer17(self, connection, host, address):
        """To a server that does not listen."""
        connection.sendall(b"refer: whois.apnic.net\n")

    def answer18(self, connection, host, address):
        """To a host that does not exist."""
        connection.sendall(b"refer: whois.nowhere.example\n")

    def answer19(self, connection, host, address):
        """A reset in the middle."""
        connection.sendall(RIPE.format(address).encode())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def answer20(self, connection, host, address):
        """What must not reach anybody's terminal."""
        text = RIPE.format(address).replace("Example s.r.o.", "\x1b[31mred\x00" + "x" * 500)
        connection.sendall(text.encode())

    def _close(self):
        for one in self._listeners:
            with contextlib.suppress(OSError):  # it is not connected
                one.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() would not
            one.close()

    def close(self):
        """
        Answer nobody any more.
        """
        self._ends.set()
        self._close()


@pytest.fixture
def whois():
    """
    The whois servers.
    """
    servers = WhoisServers()
    yield servers
    servers.close()


@pytest.fixture
def dns():
    """
    The name server.
    """
    with DNSServer(RECORDS) as server:
        yield server


@pytest.fixture
def server(makeServer, dns, whois):
    """
    A running server that asks them.
    """
    return makeServer(POLICY.format(port=whois.port), dnsServers=[dns.address], dnsTimeout=2.0)


def ask(server, check, address="9.2.3.4"):
    """
    What a check says about a client.
    """
    attributes = {"request": "smtpd_access_policy", "client_address": address, "helo_name": check}
    return server.request(attributes).partition(" ")[2]


def asked(dns):
    """
    The questions about addresses so far.
    """
    return [name for name, _ in dns.asked if name.endswith(".origin.asn.cymru.com")]


KNOWN = "1 9.2.0.0/16|CZ|64496|EXAMPLE-AS|ripencc|2003-02-01"


def test_dns(server, dns):
    """
    The first request gets 0, later ones what Team Cymru says, also after a restart, and from another address of
    the network; nobody is asked twice.
    """
    assert ask(server, "dns") == "0 not known yet"
    deadline = time.monotonic() + 5
    while ask(server, "dns") != KNOWN:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.terminate()
    server.start()
    assert ask(server, "dns") == KNOWN
    assert ask(server, "dns", "9.2.3.77") == KNOWN
    assert asked(dns) == ["4.3.2.9.origin.asn.cymru.com"]


def test_wait(server, dns):
    """
    Who waits has the answer at once; an address that is not announced is -1, trouble is 0.
    """
    assert ask(server, "dns_now") == KNOWN
    assert ask(server, "dns_now", "9.99.3.4") == "-1 nobody knows this address"
    dns.personality = "SERVFAIL"
    assert ask(server, "dns_now", "9.98.3.4").startswith("0 ")
    dns.personality = "silence"
    assert ask(server, "dns_now", "9.97.3.4").startswith("0 ")
    assert ask(server, "dns_now", "192.168.1.1") == "-1 it is a private or reserved address"


def test_everythingMissing(server, dns):
    """
    A name server that knows no name at all is not believed that nobody has an address.
    """
    dns.personality = "NXDOMAIN"
    assert ask(server, "dns_now") == "0 origin.asn.cymru.com has nothing for any address"
    assert ask(server, "dns_now", "2620:fe::fe") == "0 origin6.asn.cymru.com has nothing for any address"


def test_whois(server, whois):
    """
    The registry is asked that whois.iana.org refers to.
    """
    assert ask(server, "whois") == "1 9.2.3.4/32|CZ|0|Example s.r.o.|ripencc|2003-02-01"
    assert whois.asked == [("127.0.0.1", "9.2.3.4"), ("127.0.0.2", "-r 9.2.3.4")]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (10, "-1 nobody knows this address"),
        (13, "0 the answer of whois.iana.org is not understood"),
        (14, "1 9.14.3.4/32|CZ|0|Example s.r.o.|whois.iana.org|2003-02-01"),
        (15, "0 whois.iana.org: no answer"),
        (16, "0 the answer of whois.ripe.net is not understood"),
        (17, "0 whois.apnic.net: no connection: "),
        (18, "0 whois.nowhere.example has no address that may be asked"),
        (19, "0 whois.iana.org: "),
    ],
)
def test_wrong(server, kind, expected):
    """
    Whatever servers do wrong is unknown.
    """
    assert ask(server, "whois", f"9.{kind}.3.4").startswith(expected)


def test_harmless(server):
    """
    What a server says is short and printable.
    """
    said = ask(server, "whois", "9.20.3.4")
    assert said.startswith("1 9.20.3.4/32|CZ|0|?[31mred?xxx")
    assert said.isprintable()
    assert len(said) < 200


@pytest.mark.parametrize("kind", [11, 12])
def test_slow(server, kind):
    """
    Servers that never come to an end delay nobody who does not wait, and are given up after ten seconds.
    """
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        late = pool.submit(ask, server, "late", f"9.{kind}.3.4")
        time.sleep(0.1)
        assert ask(server, "dummy") == "0 dummy"
        assert not late.done()
        assert late.result() == "0 not known yet"
        assert time.monotonic() - begun > 0.9
        assert took(begun) < 3
    while time.monotonic() - begun < 13:
        said = ask(server, "late", f"9.{kind}.3.4")
        if said != "0 not known yet":
            break
    assert said == "0 whois.iana.org: no whole answer within 10 s"


def test_private(server, whois):
    """
    Names lead to no server on our own network, unless that is allowed.
    """
    assert ask(server, "closed") == "0 whois.iana.org has no address that may be asked"
    assert whois.asked == []


def test_try(server):
    """
    ppolicy try waits for the answer.
    """
    done = server.ppolicy("try", "dns", "client_address=9.2.3.4", "--json")
    (step,) = json.loads(done.stdout)["steps"]
    assert step["code"] == 1, done
    assert step["info"] == ["9.2.0.0/16", "CZ", 64496, "EXAMPLE-AS", "ripencc", "2003-02-01"]
