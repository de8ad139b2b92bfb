"""
An SMTP client that can pose as any other client, by Postfix's XCLIENT command.
"""

import contextlib
import itertools
import smtplib
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

_subjects = itertools.count()


class Reply(NamedTuple):
    """
    What the SMTP server said to one command.
    """

    code: int
    text: str


class Outcome(NamedTuple):
    """
    What became of one mail: the reply to each recipient, and the one to its content, if it came to that.
    """

    recipients: dict
    data: Reply | None
    subject: str

    @property
    def first(self):
        return next(iter(self.recipients.values()))


class SMTPClient(smtplib.SMTP):
    """
    An SMTP session whose commands and replies are UTF-8.
    """

    def __init__(self, host, port, timeout=30):
        super().__init__(timeout=timeout, local_hostname="client.example.com")
        self.command_encoding = "utf-8"
        self.banner = Reply(*_decoded(self.connect(host, port)))

    def pose(self, address, name=None, helo="client.example.com", **more):
        """
        Be the client with this address, name and HELO name; name None is one without a name in the DNS.
        """
        address = ip_address(address)
        prefix = "IPV6:" if isinstance(address, IPv6Address) else ""
        attributes = {"ADDR": f"{prefix}{address}", "NAME": name or "[UNAVAILABLE]"} | more
        self.ehlo()
        reply = self.command("XCLIENT", " ".join(f"{key}={value}" for key, value in attributes.items()))
        assert reply.code == 220, reply
        reply = Reply(*_decoded(self.ehlo(helo)))
        assert reply.code == 250, reply
        return self

    def command(self, verb, arguments=""):
        """
        The reply to any command.
        """
        return Reply(*_decoded(self.docmd(verb, arguments)))

    def attempt(self, *recipients, sender="sender@example.com", options=()):
        """
        Try to send one mail. Recipients that Postfix hangs up before are missing from the outcome.
        """
        subject = f"live test {next(_subjects)}"
        self.ehlo_or_helo_if_needed()
        reply = self.command("MAIL", f"FROM:<{sender}> {' '.join(options)}".rstrip())
        assert reply.code == 250, reply
        replies, data = {}, None
        for recipient in recipients:
            replies[recipient] = self.command("RCPT", f"TO:<{recipient}>")
            if replies[recipient].code in (421, 521):
                return Outcome(replies, None, subject)
        if 250 in (reply.code for reply in replies.values()):
            data = self._content(f"Subject: {subject}\r\n\r\nA mail of the live tests.\r\n.\r\n")
        if data is None or data.code != 250:
            self.command("RSET")
        return Outcome(replies, data, subject)

    def _content(self, content):
        reply = self.command("DATA")
        if reply.code != 354:
            return reply
        self.send(content)
        return Reply(*_decoded(self.getreply()))

    def isDisconnected(self):
        """
        Whether the server has hung up.
        """
        try:
            self.noop()
        except smtplib.SMTPServerDisconnected:
            return True
        return False

    def __exit__(self, *exception):
        with contextlib.suppress(smtplib.SMTPException, OSError):  # Postfix may have hung up already
            self.quit()
        self.close()


def _decoded(reply):
    code, text = reply
    return code, text.decode()
