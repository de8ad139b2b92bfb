"""
A server without sockets for tests: configuration text in, dialogues over string transports.
"""

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from ppolicy import config
from ppolicy.generation import Generation
from ppolicy.protocol import PolicyProtocol
from ppolicy.server import Server
from ppolicy.services import Services
from ppolicy.testing import FakeResolver


class Serving:
    """
    @param records: what the DNS knows, as L{FakeResolver} takes it.
    @ivar clock: the server's C{task.Clock}.
    @ivar server: the L{Server} that the configuration made.
    """

    def __init__(self, folder, text, records=None):
        self.path = folder / "ppolicy.conf"
        self.path.write_text(text, encoding="utf-8")
        self.clock = Clock()
        configuration = config.load(self.path)
        self.server = Server(self.clock, configuration.options)
        self.server.bridge.watch.ticking = True
        self.server.services = Services(self.server.bridge, configuration)
        self.server.services.state.clock = self.clock.seconds
        self.server.services.dns = self.server.services.blocklists.dns = FakeResolver(records or {})
        self.generation = Generation(1, configuration, self.server)
        self.generation.start()
        self.server.generation = self.generation

    def connect(self):
        """
        A connection: (protocol, transport).
        """
        protocol, transport = PolicyProtocol(self.server), StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def ask(self, request=None, **attributes):
        """
        The reply to one request on a connection of its own, as text.
        """
        protocol, transport = self.connect()
        protocol.dataReceived(request or asked(**attributes))
        return transport.value().decode()


def asked(**attributes):
    """
    A request on the wire, with C{request=} in front unless it is given as None.
    """
    attributes = {"request": "smtpd_access_policy", **attributes}
    lines = [f"{name}={value}\n" for name, value in attributes.items() if value is not None]
    return "".join(lines).encode("utf-8", "surrogateescape") + b"\n"


# Attributes as Postfix 3.8 sends them, in its order.
POSTFIX = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "protocol_name": "ESMTP",
    "client_address": "192.0.2.1",
    "client_name": "mail.example.net",
    "client_port": "4711",
    "reverse_client_name": "mail.example.net",
    "server_address": "192.0.2.25",
    "server_port": "25",
    "helo_name": "mail.example.net",
    "sender": "alice@example.net",
    "recipient": "bob@example.org",
    "recipient_count": "0",
    "queue_id": "",
    "instance": "1a2.65f.3c.0",
    "size": "1000",
    "etrn_domain": "",
    "stress": "",
    "sasl_method": "",
    "sasl_username": "",
    "sasl_sender": "",
    "ccert_subject": "",
    "ccert_issuer": "",
    "ccert_fingerprint": "",
    "ccert_pubkey_fingerprint": "",
    "encryption_protocol": "TLSv1.3",
    "encryption_cipher": "TLS_AES_256_GCM_SHA384",
    "encryption_keysize": "256",
    "policy_context": "",
    "compatibility_level": "3.8",
    "mail_version": "3.8.1",
}
