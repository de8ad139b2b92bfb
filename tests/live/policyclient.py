"""
A tiny policy client, independent of the server's own code: what Postfix's smtpd does, on a plain socket.
"""

import itertools
import re
import socket

# What Postfix 3.7 sends in a plain session; a test overrides what it is about.
ATTRIBUTES = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "protocol_name": "ESMTP",
    "client_address": "192.0.2.1",
    "client_name": "mail.example.com",
    "client_port": "34567",
    "reverse_client_name": "mail.example.com",
    "server_address": "127.0.0.1",
    "server_port": "25",
    "helo_name": "mail.example.com",
    "sender": "sender@example.com",
    "recipient": "recipient@example.org",
    "recipient_count": "0",
    "queue_id": "",
    "size": "0",
    "etrn_domain": "",
    "stress": "",
    "policy_context": "",
}

_instances = itertools.count()


class ConnectionClosed(ConnectionError):
    """
    The server closed the connection without a byte of an answer.
    """


class PolicyClient:
    """
    One connection to a policy server, given as (host, port) or as the path of a UNIX socket.
    """

    def __init__(self, address, timeout=10):
        unix = isinstance(address, str)
        family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._socket.close()

    def ask(self, attributes=None, **more):
        """
        Send one request, return the action; everything but one proper answer fails.
        """
        # Each request is a mail of its own by default: one that is repeated may be answered from memory.
        request = ATTRIBUTES | {"instance": f"live.{next(_instances):x}"} | (attributes or {}) | more
        text = "".join(f"{name}={value}\n" for name, value in request.items())
        try:
            self._socket.sendall(text.encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ConnectionClosed(str(error)) from error
        return self._answer()

    def _answer(self):
        received = b""
        while not received.endswith(b"\n\n"):
            try:
                chunk = self._socket.recv(4096)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                assert not received, f"closed in the middle of an answer: {received!r}"
                raise ConnectionClosed("no answer")
            received += chunk
        answer = re.fullmatch(rb"action=([^\r\n\0]+)\n\n", received)
        assert answer, f"not an answer: {received!r}"
        return answer[1].decode()
