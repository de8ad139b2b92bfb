"""
The mail server behind Postfix: takes every mail and keeps it for inspection.
"""

import email
import email.policy
import re
import socketserver
import threading
from typing import NamedTuple

REPLIES = {"EHLO": "250-sink.test\r\n250-8BITMIME\r\n250 SMTPUTF8", "QUIT": "221 bye", "DATA": "354 go ahead"}


class Delivered(NamedTuple):
    """
    One mail as it left Postfix.
    """

    sender: str
    recipients: list
    content: bytes

    @property
    def message(self):
        return email.message_from_bytes(self.content, policy=email.policy.SMTPUTF8)


class _Session(socketserver.StreamRequestHandler):
    def handle(self):
        self._say("220 sink.test ESMTP")
        sender, recipients = "", []
        for line in self.rfile:
            command = line.decode().strip()
            verb = command[:4].upper()
            self._say(REPLIES.get(verb, "250 ok"))
            if verb == "MAIL":
                sender, recipients = _address(command), []
            elif verb == "RCPT":
                recipients.append(_address(command))
            elif verb == "DATA":
                content = b"".join(iter(self._contentLine, None))
                self.server.sink.keep(Delivered(sender, recipients, content))
                self._say("250 kept")
            elif verb == "QUIT":
                break

    def _say(self, reply):
        self.wfile.write(reply.encode() + b"\r\n")

    def _contentLine(self):
        line = self.rfile.readline()
        if line in (b"", b".\r\n"):
            return None
        return line.removeprefix(b".")


def _address(command):
    return re.search(r"<(.*?)>", command)[1]


class _TCPServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


class Sink:
    """
    An SMTP server on a free port of loopback, in threads of its own.
    """

    def __init__(self):
        self._mails = []
        self._arrived = threading.Condition()
        self._server = _TCPServer(("127.0.0.1", 0), _Session)
        self._server.sink = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def keep(self, mail):
        with self._arrived:
            self._mails.append(mail)
            self._arrived.notify_all()

    def wait(self, subject, timeout=15):
        """
        The mail with this subject, once it has arrived.
        """

        def found():
            return next((mail for mail in self._mails if mail.message["subject"] == subject), None)

        with self._arrived:
            mail = self._arrived.wait_for(found, timeout)
        assert mail, f"no mail with subject {subject!r} was delivered"
        return mail

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
