"""
The policy delegation protocol: attribute lines in, one action line out (Postfix's SMTPD_POLICY_README).
"""

import re

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import Factory as ProtocolFactory
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver

from ppolicy.attributes import ATTRIBUTES
from ppolicy.errors import BrokenAnswer, DeadlineExceeded, Overload
from ppolicy.logs import escaped, logFailure, prefix
from ppolicy.policy import Factory

# A request of Postfix has less than 1 KB, the worst forged one had 6 KB.
MAX_REQUEST = 65536
RECEIVE_BUFFER = 8192
# Seconds from its first octet in which a request must be complete.
RECEIVE = 30

DUNNO = b"action=dunno\n\n"


# The attributes as Postfix 3.2 and later sends them: the first ones differ with each request, the others, from
# etrn_domain on, are the same for most.
_HEAD = (
    *("request", "protocol_state", "protocol_name", "client_address", "client_name", "client_port"),
    *("reverse_client_name", "server_address", "server_port", "helo_name", "sender", "recipient"),
    *("recipient_count", "queue_id", "instance", "size"),
)
_head = re.compile("".join(f"{name}=(.*)\n" for name in _HEAD)).match
_TAILS = 1024
_TAIL_LENGTH = 1024
_tails: dict[str, dict] = {}


def parseRequest(block):
    """
    The attributes of a request: C{name=value} lines without the blank line.

    What is no UTF-8 is kept as lone surrogates; a line without C{=} is skipped; of a repeated attribute the
    last one counts. As ever, C{client_name=unknown} reads C{''} and addresses come without C{<>}. What this
    Postfix does not send is empty: one without SASL or TLS leaves out their attributes, an older one some others.
    """
    attributes = _attributes(block.decode("utf-8", "surrogateescape"))
    return _asEver(ATTRIBUTES | attributes) if attributes else attributes


def parseWhole(data):
    """
    The attributes of exactly one request with its blank line, in the order of Postfix and with a tail seen
    before; else None. One match and one copy take half the time of splitting every line.
    """
    text = data.decode("utf-8", "surrogateescape")
    match = _head(text)
    if match is None:
        return None
    tail = text[match.end() :]
    template = _tails.get(tail)
    if template is None:
        template = _template(tail)
        if template is None:
            return None
    made = template.copy()
    # Each by its name: that takes half the time of update() with L{_HEAD}.
    # fmt: off
    (
        made["request"], made["protocol_state"], made["protocol_name"], made["client_address"],
        made["client_name"], made["client_port"], made["reverse_client_name"], made["server_address"],
        made["server_port"], made["helo_name"], made["sender"], made["recipient"],
        made["recipient_count"], made["queue_id"], made["instance"], made["size"],
    ) = match.groups()
    # fmt: on
    return _asEver(made) if "<" in text or made["client_name"] == "unknown" else made


def _attributes(text):
    return dict([line.split("=", 1) for line in text.split("\n") if "=" in line])


def _asEver(attributes):
    if attributes.get("client_name") == "unknown":
        attributes["client_name"] = ""
    for name in ("sender", "recipient"):
        value = attributes.get(name)
        if value and value[0] == "<" and value[-1] == ">":
            attributes[name] = value[1:-1]
    return attributes


def _template(tail):
    """
    The attributes of a tail with room for those of the head, kept for the next request that ends alike. None
    when the tail is more than the rest of one request, or repeats an attribute of the head.
    """
    attributes = _attributes(tail)
    # What comes before it has ended with a newline: one more ends the request.
    if ("\n" + tail).find("\n\n") != len(tail) - 1 or not attributes.keys().isdisjoint(_HEAD):
        return None
    if len(_tails) >= _TAILS:
        _tails.clear()
    template = ATTRIBUTES | attributes  # which has those of the head, too
    if len(tail) < _TAIL_LENGTH:
        _tails[tail] = template
    return template


class PolicyProtocol(LineReceiver):
    """
    One connection of Postfix: any number of requests, answered in their order.

    The delimiter is the blank line, so a "line" is a whole request. While a request waits, C{paused} stops the
    parser but not the transport, which would hide a hang-up.
    """

    delimiter = b"\n\n"
    MAX_LENGTH = MAX_REQUEST
    log = Logger()

    def __init__(self, server):
        self._server = server
        self._bridge = server.bridge
        self._overLimit = False
        self._isNew = True
        self._lost = False
        self._carry = b""
        self._timer = None
        self._held = False
        self._busy = False
        self._full = False
        self._send = None

    def connectionMade(self):
        server = self._server
        self._overLimit = len(server.connections) >= server.generation.options.connLimit
        server.connections.add(self)
        self._port = server.portOf(self.transport.getHost())
        transport = self.transport
        if isinstance(transport, Connection):  # not TLS, not a test's transport
            if isinstance(transport.getHost(), IPv4Address | IPv6Address):
                transport.setTcpNoDelay(True)
            self._send = transport.socket.send
            # A request fits; the 64 KB that Twisted would have ready cost more to get than to fill.
            transport.bufferSize = RECEIVE_BUFFER
            server.epoll.adopt(transport)
        else:
            transport.registerProducer(self, True)
        if self._overLimit:
            self._limitTime()

    def connectionLost(self, reason):
        self._lost = True
        self._server.connections.discard(self)
        self._unlimitTime()

    def dataReceived(self, data):
        if data[-2:] == b"\n\n" and not self._buffer and not self.paused and b"\r" not in data:
            # All of one request and nothing else, as Postfix sends it.
            request = parseWhole(data)
            if request is not None and len(data) <= MAX_REQUEST and not self._carry:
                return self._received(request)
        if b"\r" in data or self._carry:
            data = self._carry + data
            self._carry = b""
            if data.endswith(b"\r"):
                data, self._carry = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n")
        if not self._buffer:
            data = data.lstrip(b"\n")
        LineReceiver.dataReceived(self, data)
        return self._afterData()

    def _afterData(self):
        """
        Keep time while a request is half there, and the transport quiet while too much is.
        """
        if self._lost:
            return
        buffered = self._buffer
        if buffered == b"\n":
            buffered = self._buffer = b""
        if (buffered or self._carry) and not self.paused:
            if self._timer is None:
                self._limitTime()
        elif not self._overLimit:
            self._unlimitTime()
        if self.paused and len(buffered) > MAX_REQUEST:
            if not self._held:
                self._held = True
                self.transport.pauseProducing()
        elif self._held:
            self._held = False
            if not self._full:
                self.transport.resumeProducing()

    def _limitTime(self):
        self._timer = self._bridge.reactor.callLater(RECEIVE, self._tooSlow)

    def _unlimitTime(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tooSlow(self):
        self._timer = None
        self.log.warn(
            "a request on {port} was not complete after {seconds} s, closed", port=self._port, seconds=RECEIVE
        )
        self.transport.abortConnection()

    def lineLengthExceeded(self, line):
        self.log.warn(
            "a request on {port} has more than {limit} octets, closed", port=self._port, limit=MAX_REQUEST
        )
        self.hangUp()

    def lineReceived(self, block):
        """
        A whole request, or nothing between two blank lines.
        """
        block = block.lstrip(b"\n")
        if block:
            self._received(parseRequest(block))

    def _received(self, data):
        if self._timer is not None:
            self._unlimitTime()
        self._isNew = False
        server = self._server
        server.requests += 1
        if self._overLimit:
            server.overLimit += 1
            self.log.warn("more than {limit} connections (connLimit)", limit=server.generation.options.connLimit)
            self._write(server.generation.full)
            self.hangUp()
            return
        if not data or data.get("request", "smtpd_access_policy") != "smtpd_access_policy":
            self.log.warn("no policy request, answered dunno: {begin!r}", begin=str(data)[:80])
            self._write(DUNNO)
            return
        self._busy = self.paused = True
        if self._bridge.start(self._serve, data, server.generation.timeout, self._proceed):
            self._busy = False
            self.paused = self._full

    def _proceed(self):
        """
        The request that had to wait is answered; go on with what came in meanwhile.
        """
        self._busy = False
        self.paused = self._full
        if not self._lost and not self.paused:
            LineReceiver.dataReceived(self, b"")
            self._afterData()

    def pauseProducing(self):
        """
        The client does not read its answers: it gets no more of them, and is not read either.
        """
        self._full = self.paused = True
        self.transport.pauseProducing()

    def resumeProducing(self):
        """
        It has read them.
        """
        self._full = False
        if not self._held:
            self.transport.resumeProducing()
        if not self._busy:
            self._proceed()

    def finish(self, isLate):
        """
        The server ends: close, unless a request is worked on or half there; what they are owed comes first. So is
        a first request that was not sent yet, until it is late for that.
        """
        if not (self._busy or self._buffer or self._carry or (self._isNew and not isLate)):
            self.hangUp()

    def hangUp(self):
        """
        Close, once what is written is sent.
        """
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _serve(self, data):
        """
        Decide about one request and answer it, in a greenlet; the one net for what policy functions do wrong.
        """
        server = self._server
        generation = server.generation
        watch = self._bridge.watch
        begun = watch.since
        generation.active += 1
        factory = Factory(generation)
        try:
            watch.armed = True
            answer = generation.answer(factory, data, self._port)
            watch.armed = False
            reply = generation.encoder.encode(answer, data)
        except BaseException as error:  # noqa: BLE001 - SystemExit too must cost no more than one answer
            watch.armed = False
            reply = self._failed(generation, error)
        generation.active -= 1
        self._write(reply)
        ended = self._bridge.seconds()
        server.decisions.add(data, factory.steps, reply, ended, ended - begun)
        if generation is not server.generation:
            server.retire(generation)

    def _failed(self, generation, error):
        self._server.failures += 1
        if isinstance(error, BrokenAnswer | DeadlineExceeded | Overload):
            what = "broken answer of the policy" if isinstance(error, BrokenAnswer) else "the policy was stopped"
            self.log.error("{instance}{what}: {error}", instance=prefix(), what=what, error=escaped(str(error)))
        else:
            logFailure(self.log, "the policy failed")
        return generation.fatal

    def _write(self, reply):
        if self._send is not None:
            self._server.outbox.add(self, reply)
        elif not self._lost:
            self.transport.write(reply)  # which buffers

    def send(self, reply):
        """
        Write a reply straight to the socket; with nothing buffered that saves a turn of the reactor.
        """
        if self._lost:
            return
        if self._send is not None:
            try:
                taken = self._send(reply)
            except OSError:
                taken = 0
            if taken == len(reply):
                return
            # The socket is full or broken: from now on the transport buffers up to a bound, and finds out.
            self._send = None
            reply = reply[taken:]
            self.transport.registerProducer(self, True)
        self.transport.write(reply)


class Outbox:
    """
    The replies of one round, sent together at its end. Sent one by one, each of them would wake a client that
    waits, and waking costs the sender as much as the rest of the reply.

    @param flushed: is called after that.
    """

    def __init__(self, bridge, flushed):
        self._bridge = bridge
        self._flushed = flushed
        self._replies = []

    def add(self, protocol, reply):
        """
        Send a reply at the end of this round.
        """
        if not self._replies:
            self._bridge.atEnd(self.flush)
        self._replies.append((protocol, reply))

    def flush(self):
        """
        Send them now, in their order.
        """
        replies, self._replies = self._replies, []
        for protocol, reply in replies:
            protocol.send(reply)
        self._flushed()


class PolicyListener(ProtocolFactory):
    """
    Makes a L{PolicyProtocol} for each connection.
    """

    noisy = False

    def __init__(self, server):
        self._server = server

    def buildProtocol(self, address):
        return PolicyProtocol(self._server)
