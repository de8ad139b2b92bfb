"""
A DNS server for tests that says what it is told, and that misbehaves as it is told: UDP and TCP on one port.

It is written upon dnspython and plain sockets, so that it shares no mistake with what it tests.
"""

import contextlib
import heapq
import itertools
import random
import socket
import struct
import threading
import time

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

# What a personality may be. All but the last three leave TCP as it is.
PERSONALITIES = (
    "silence",  # no answer at all
    "SERVFAIL",
    "REFUSED",
    "FORMERR",
    "NXDOMAIN",  # no such name, whatever the records say
    "NODATA",  # no such record, whatever the records say
    "bare NXDOMAIN",  # without an SOA
    "bare NODATA",
    "referral",  # it looks nothing up, and says who knows more
    "lame",  # it looks nothing up, and says nothing at all
    "wrong id",
    "wrong question",
    "no reply",  # the right octets, but not marked as a reply
    "rubbish",  # random octets behind the right id
    "short",  # a reply that ends in its middle
    "forged",  # some wrong replies, then the right one
    "other port",  # the right reply from another port
    "other port first",  # a wrong reply from another port, then the right one
    "twice",  # the right reply, two times
    "loop",  # a CNAME that leads back to the name
    "endless",  # a CNAME that leads to a new name, each time
    "listed",  # 127.0.0.2 whatever is asked
    "long",  # 64 KB over TCP
    "truncated",  # nothing but TC over UDP, the whole over TCP
    "truncated, counted",  # what is cut off is counted all the same, as dnscache does it
    "truncated always",  # over TCP as well
    "truncated, TCP hangs",
    "truncated, TCP drops",
    "truncated, TCP wrong id",
)

_CHAIN = 20
_SERIAL = "ns.test. hostmaster.test. 1 3600 600 86400"


class DNSServer:
    """
    A context manager.

    Names in C{records} and C{personalities} are in lower case, without a dot at the end. A name that is missing
    does not exist, unless there is one below it or "*" in its place; of one that is there, a kind that is missing
    is nothing. A CNAME is followed as far as the records go.

    @ivar records: {name: {kind: [values as in zone files]}}, such as C{{"example.org": {"MX": ["10 mx.test."],
        "TXT": ['"v=spf1 -all"']}}}; the root is ".". Replace it at any time.
    @ivar personalities: {name: one of L{PERSONALITIES}}, or C{("slow", seconds)}, for single names.
    @ivar personality: the same for all others; None is a good server.
    @ivar delay: seconds before every answer.
    @ivar ttl: seconds to live of every record; C{minimum} that of the SOA, for what is not there.
    @ivar authentic: is the AD bit set?
    @ivar asked: the (name, kind) of every question; C{overTCP} of those that came over TCP.
    @ivar ids: (id, port of the client) of every question over UDP.
    @param tcp: False: connections are refused.
    @param port: by default a free one.
    """

    def __init__(self, records=(), host="127.0.0.1", personality=None, tcp=True, port=0):
        self.records = dict(records)
        self.personalities = {}
        self.personality = personality
        self.delay = 0.0
        self.ttl, self.minimum = 300, 60
        self.authentic = False
        self.asked, self.overTCP, self.ids = [], [], []
        self.host = host
        self.port = port
        self._tcp = tcp
        self._later = []
        self._numbers = itertools.count()
        self._connections = set()
        self._closed = threading.Event()
        self._threads = []

    @property
    def address(self):
        """
        As the option dnsServers takes it.
        """
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __enter__(self):
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        while True:
            self._udp = socket.socket(family, socket.SOCK_DGRAM)
            self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._udp.bind((self.host, self.port))
            port = self._udp.getsockname()[1]
            self._listener = socket.socket(family)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self._listener.bind((self.host, port))
            except OSError:  # free for UDP, not for TCP
                self._udp.close()
                self._listener.close()
                if self.port:
                    raise
                continue
            break
        self.port = port
        self._other = socket.socket(family, socket.SOCK_DGRAM)
        self._other.bind((self.host, 0))
        self._run(self._serveUDP)
        if self._tcp:
            self._listener.listen(100)
            self._run(self._serveTCP)
        return self

    def __exit__(self, *_):
        if self._closed.is_set():
            return
        self._closed.set()
        with contextlib.suppress(OSError):  # closed already
            self._other.sendto(b"", (self.host, self.port))  # ends its waiting
        with contextlib.suppress(OSError):  # it does not listen
            self._listener.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() would not
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for one in (self._udp, self._other, self._listener):
            one.close()

    def _run(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()]
        self._threads.append(thread)
        thread.start()

    # UDP

    def _serveUDP(self):
        while not self._closed.is_set():
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                _, _, sender, octets, client = heapq.heappop(self._later)
                with contextlib.suppress(OSError):  # the client is gone
                    sender.sendto(octets, client)
            self._udp.settimeout(min(0.05, self._later[0][0] - now) if self._later else 0.05)
            try:
                octets, client = self._udp.recvfrom(65535)
            except TimeoutError:
                continue
            except OSError:  # what ICMP says of an answer before
                continue
            self._questionUDP(octets, client)

    def _questionUDP(self, octets, client):
        try:
            query = dns.message.from_wire(octets)
        except (dns.exception.DNSException, ValueError):
            return
        personality, delay = self._heard(query)
        self.ids.append((query.id, client[1]))
        for sender, answer in self._packets(query, personality):
            due = time.monotonic() + delay
            heapq.heappush(self._later, (due, next(self._numbers), sender, answer, client))

    def _heard(self, query):
        """
        @return: (personality, delay) for a question.
        """
        name, kind = _name(query), dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append((name, kind))
        personality = self.personalities.get(name, self.personality)
        if isinstance(personality, tuple):
            return None, personality[1]
        assert personality is None or personality in PERSONALITIES, personality
        return personality, self.delay

    def _packets(self, query, personality):
        """
        @return: (socket, octets) of everything that is sent for a question over UDP.
        """
        if personality == "silence":
            return
        whole = self._reply(query, personality).to_wire(max_size=65535)
        if personality == "long" or (personality or "").startswith("truncated") or len(whole) > query.payload:
            octets = self._emptyReply(query, dns.flags.TC).to_wire()
            yield self._udp, octets[:6] + b"\0\3" + octets[8:] if personality == "truncated, counted" else octets
        elif personality == "other port":
            yield self._other, whole
        elif personality == "other port first":
            yield self._other, self._emptyReply(query).to_wire()
            yield self._udp, whole
        elif personality == "twice":
            yield self._udp, whole
            yield self._udp, whole
        elif personality == "forged":
            for wrong in ("wrong id", "wrong question", "no reply", "rubbish", "short"):
                yield self._udp, _spoiled(whole, wrong)
            yield self._udp, whole[:1]
            yield self._udp, whole
        else:
            yield self._udp, _spoiled(whole, personality)

    # TCP

    def _serveTCP(self):
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            self._run(self._connected, connection)

    def _connected(self, connection):
        with connection, contextlib.suppress(OSError, dns.exception.DNSException, ValueError):
            while not self._closed.is_set():
                (length,) = struct.unpack("!H", _receive(connection, 2))
                if not self._questionTCP(connection, dns.message.from_wire(_receive(connection, length))):
                    break
        self._connections.discard(connection)

    def _questionTCP(self, connection, query):
        """
        @return: may there be another question?
        """
        self.overTCP.append((_name(query), dns.rdatatype.to_text(query.question[0].rdtype)))
        personality, delay = self._heard(query)
        self._closed.wait(delay)
        if personality in ("truncated, TCP drops",):
            return False
        if personality in ("truncated, TCP hangs", "silence"):
            self._closed.wait()
            return False
        if personality == "truncated always":
            answer = self._emptyReply(query, dns.flags.TC).to_wire()
        else:
            answer = self._reply(query, personality).to_wire(max_size=65535)
            answer = _spoiled(answer, (personality or "").removeprefix("truncated, TCP "))
        connection.sendall(struct.pack("!H", len(answer)) + answer)
        return True

    # What is said

    def _emptyReply(self, query, flags=0, rcode=dns.rcode.NOERROR):
        reply = dns.message.make_response(query, recursion_available=True)
        reply.flags |= flags
        if self.authentic:
            reply.flags |= dns.flags.AD
        reply.set_rcode(rcode)
        return reply

    def _reply(self, query, personality):
        if personality in ("SERVFAIL", "REFUSED", "FORMERR"):
            return self._emptyReply(query, rcode=dns.rcode.from_text(personality))
        if personality in ("bare NXDOMAIN", "bare NODATA", "NXDOMAIN", "NODATA"):
            rcode = dns.rcode.NXDOMAIN if personality.endswith("NXDOMAIN") else dns.rcode.NOERROR
            reply = self._emptyReply(query, rcode=rcode)
            if not personality.startswith("bare"):
                self._addSOA(reply)
            return reply
        question = query.question[0]
        reply = self._emptyReply(query)
        if personality in ("referral", "lame"):
            reply.flags &= ~dns.flags.RA
            if personality == "referral":
                self._add(reply.authority, dns.name.root, "NS", ["a.root-servers.test."])
        elif personality == "loop":
            target = dns.name.from_text(f"loop.{question.name}")
            self._add(reply.answer, question.name, "CNAME", [target.to_text()])
            self._add(reply.answer, target, "CNAME", [question.name.to_text()])
        elif personality == "endless":
            label, _, rest = question.name.to_text().partition(".")
            self._add(reply.answer, question.name, "CNAME", [f"{label}x.{rest}"])
        elif personality == "listed" and question.rdtype == dns.rdatatype.A:
            self._add(reply.answer, question.name, "A", ["127.0.0.2"])
        elif personality == "long":
            strings = ['"' + "x" * 255 + '"'] * 7
            self._add(reply.answer, question.name, "TXT", [" ".join([f'"{i}"', *strings]) for i in range(35)])
        else:
            self._fill(reply, question)
        return reply

    def _fill(self, reply, question):
        records = self.records
        owner, kind = question.name, dns.rdatatype.to_text(question.rdtype)
        for _ in range(_CHAIN):
            kinds = _found(records, owner.to_text(omit_final_dot=True).lower())
            if kinds is None:
                reply.set_rcode(dns.rcode.NXDOMAIN)
                self._addSOA(reply)
                return
            if kinds.get(kind):
                self._add(reply.answer, owner, kind, kinds[kind])
                return
            if not kinds.get("CNAME"):
                self._addSOA(reply)
                return
            self._add(reply.answer, owner, "CNAME", kinds["CNAME"])
            owner = dns.name.from_text(kinds["CNAME"][0])
            if any(one.name == owner for one in reply.answer):
                return  # round in circles

    def _add(self, section, owner, kind, values):
        group = dns.rrset.RRset(owner, dns.rdataclass.IN, dns.rdatatype.from_text(kind))
        group.ttl = self.ttl
        for value in values:
            group.add(dns.rdata.from_text(group.rdclass, group.rdtype, value, dns.name.root, False), self.ttl)
        section.append(group)

    def _addSOA(self, reply):
        self._add(reply.authority, dns.name.from_text("test."), "SOA", [f"{_SERIAL} {self.minimum}"])


def _name(query):
    return query.question[0].name.to_text(omit_final_dot=True).lower()


def _found(records, name):
    """
    @return: {kind: values} of a name, or of "*" in place of its first labels; None when it does not exist.
    """
    if name in records:
        return records[name]
    if any(one.endswith(f".{name}") for one in list(records)):
        return {}
    while "." in name:
        name = name.partition(".")[2]
        if f"*.{name}" in records:
            return records[f"*.{name}"]
        if name in records:
            return None
    return None


def _spoiled(octets, how):
    """
    A reply with something wrong in it.
    """
    if how == "wrong id":
        return bytes((octets[0] ^ 0x55, octets[1] ^ 0xAA)) + octets[2:]
    if how == "wrong question":
        return octets[:13] + bytes((octets[13] ^ 1,)) + octets[14:]
    if how == "no reply":
        return octets[:2] + bytes((octets[2] & 0x7F,)) + octets[3:]
    if how == "rubbish":
        return octets[:2] + random.randbytes(100)
    if how == "short":
        return octets[: (12 + len(octets)) // 2]
    return octets


def _receive(connection, length):
    octets = b""
    while len(octets) < length:
        octets += (more := connection.recv(length - len(octets)))
        if not more:
            raise ConnectionError("hung up")
    return octets
