"""
Mail addresses as commands of SMTP have them.
"""

import re
import secrets
from typing import NamedTuple

from ppolicy.address import aLabels

# Octets of an address, with < and > 256 (RFC 5321, 4.5.3.1.3).
LONGEST = 254

_ATOM = re.compile(r"[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+(?:\.[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+)*")
_QUOTED = re.compile(r'"(?:[^\x00-\x1f\x7f"\\]|\\[^\x00-\x1f\x7f])*"')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_LITERAL = re.compile(r"\[(?:ipv6:)?[0-9a-f.:]+\]")


class Mailbox(NamedTuple):
    """
    A mail address (RFC 5321, 4.1.2).

    @ivar local: its local part as an SMTP command has it, quoted where it must be.
    @ivar domain: in lower case, in ASCII (IDNA); or an address in brackets.
    """

    local: str
    domain: str

    @property
    def path(self):
        """
        The address as it stands between < and >.
        """
        return f"{self.local}@{self.domain}"


def mailbox(text):
    """
    Read an address as Postfix gives it to policy servers: without quotes, whatever is in the local part.

    @return: a L{Mailbox}, or None for what is no address.
    """
    local, at, domain = text.rpartition("@")
    domain = domain.removesuffix(".").lower()
    if not at or not local or _CONTROL.search(local):
        return None
    try:
        octets = len(local.encode("utf-8"))  # halves of characters come from what is no UTF-8
        domain = aLabels(domain)
    except UnicodeError:
        return None
    if not (_DOMAIN.fullmatch(domain) or _LITERAL.fullmatch(domain)) or len(domain) > 253:
        return None
    if any(len(label) > 63 for label in domain.split(".")) or octets + 1 + len(domain) > LONGEST:
        return None
    if not _ATOM.fullmatch(local) and not _QUOTED.fullmatch(local):
        local = '"{}"'.format(re.sub(r'(["\\])', r"\\\1", local))
    return Mailbox(local, domain)


def randomLocal():
    """
    A local part that nobody has.
    """
    return f"x{secrets.token_hex(8)}"
