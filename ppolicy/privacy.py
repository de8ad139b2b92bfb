"""
The option C{privacy}: logs and history that name nobody.

Who has the key can tell whether an address is in a log; who has the log alone can not, not even by trying all
addresses, which for an unkeyed hash of an IPv4 address takes a minute (RFC 7693, keyed BLAKE2b).
"""

import base64
import hashlib
import ipaddress
import os
import re
from functools import lru_cache

from ppolicy.address import aLabels
from ppolicy.decisions import FURTHER, NAMES, shortened
from ppolicy.errors import ConfigError
from ppolicy.logs import asText, escaped
from ppolicy.reply import SHORTEST, clean

KEY_FILE = "privacy.key"
_KEY_LENGTH = 32
# They tell nothing of anybody.
_KEPT = ("", "unknown", "localhost", "127.0.0.1", "::1")
# What is an address of a host, one of mail (or a login, which may be one), and a name of any other kind. Of the
# attributes that are shown, the instance, the queue id and the protocol state tell nobody who it is.
_HOST, _MAIL, _NAME = range(3)
_KINDS = {"client_address": _HOST, "client_name": _NAME, "helo_name": _NAME} | dict.fromkeys(FURTHER, _NAME)
_KINDS |= dict.fromkeys(("sender", "recipient", "sasl_username", "sasl_sender"), _MAIL)
_KINDS_IN_ORDER = [_KINDS.get(name) for name in (*NAMES, *FURTHER)]
_NUMBERS = (bool, int, float, type(None))
# Shorter values, and local parts, are looked for in texts as whole words.
_WORD = 4
# Of a longer value there may be the begin only, where a text was cut off: what begins like it, by so many
# characters, is hidden to the end of the text. So is the begin of a shorter one that a text ends with.
_LONG = 40
_BEGIN = 20
# The longest text, and of values the longest part, that is read.
_TEXT = 4096
_READ = 255


class Privacy:
    """
    @param key: a secret of 16 to 64 octets.
    """

    def __init__(self, key):
        self._key = key
        self._known = lru_cache(4096)(self._pseudonym)
        self._knownForms = lru_cache(4096)(self._forms)

    def pseudonym(self, value):
        """
        What stands for a value, in capitals or not: C{~} and 13 letters and digits.
        """
        return (self._known if len(value) <= _READ else self._pseudonym)(value)

    def _pseudonym(self, value):
        octets = value.lower().encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(octets, digest_size=8, key=self._key).digest()
        return "~" + base64.b32encode(digest).decode("ascii").rstrip("=").lower()

    def conceal(self, decision):
        """
        The same decision with pseudonyms, also where the texts of checks and of the reply repeat a value, in
        capitals or not, or a part of an address.

        @param decision: one that has the attributes L{FURTHER}, too.
        @return: one that does not have them.
        """
        when, fields, steps, reply, seconds = decision
        values = list(map(asText, fields))
        secrets = [
            secret
            for kind, value in zip(_KINDS_IN_ORDER, values, strict=True)
            if kind is not None and value not in _KEPT
            for secret in self.forms(kind, value)
        ]
        # The longer ones first: one may be a part of another.
        secrets.sort(key=lambda secret: -len(secret[0]))
        shown = zip(_KINDS_IN_ORDER, values, NAMES, strict=False)
        # The action itself is the policy's own.
        action, blank, text = reply[:-2].partition(b" ")
        return (
            when,
            tuple(
                [value if kind is None or value in _KEPT else self.pseudonym(value) for kind, value, _ in shown]
            ),
            [
                (
                    name,
                    code,
                    took,
                    cached,
                    None if info is None else shortened(_without(asText(info), secrets)),
                )
                for name, code, took, cached, info in steps
            ],
            action + blank + _without(text.decode("utf-8", "replace"), secrets).encode() + b"\n\n",
            seconds,
        )

    def concealResult(self, arguments, info):
        """
        A result as it is cached: pseudonyms stand for all texts among the arguments, and where the information
        repeats one.

        @param arguments: what C{hashArg} gave: a text, whose lines count each for themselves, a number or a tuple.
        @return: (arguments, information), texts and numbers as they were.
        """
        several = arguments if isinstance(arguments, tuple | list) else (arguments,)
        named = {line for one in several if not isinstance(one, _NUMBERS) for line in asText(one).split("\n")}
        secrets = [
            secret
            for text in named.difference(_KEPT)
            for secret in self.forms(_MAIL if "@" in text else _HOST, text)
        ]
        secrets.sort(key=lambda secret: -len(secret[0]))
        shown = [self._lines(one) for one in several] if several is arguments else self._lines(arguments)
        return shown, None if info is None else shortened(_without(asText(info), secrets))

    def _lines(self, value):
        if isinstance(value, _NUMBERS):
            return value
        lines = asText(value).split("\n")
        return "\n".join(line if line in _KEPT else self.pseudonym(line) for line in lines)

    def forms(self, kind, value):
        """
        How a value may stand in a text: a tuple of (what is there in small letters, pattern, pseudonym).
        """
        return (self._knownForms if len(value) <= _READ else self._forms)(kind, value)

    def _forms(self, kind, value):
        found: dict = {}
        _look(found, value, self.pseudonym(value), len(value) < _WORD)
        if kind == _HOST:
            _look(found, _reverse(value), self.pseudonym(value), False)
        if kind == _MAIL and "@" in value:
            local, _, domain = value.rpartition("@")
            _look(found, local, self.pseudonym(local), True)
            _look(found, domain, self.pseudonym(domain), len(domain) < _WORD)
        return tuple(found.values())


def _look(found, value, name, isWord):
    """
    Note how a value, for which a name is to stand, may be found.
    """
    for one in _spellings(value[:_READ]):
        if len(value) <= _READ:
            pattern = re.escape(one)
            found.setdefault(one, (one, rf"(?<!\w){pattern}(?!\w)" if isWord else pattern, name))
        if len(one) > _LONG:
            begin = one[:_BEGIN]
            found.setdefault(begin, (begin, f"{re.escape(begin)}.*", name))


def _spellings(value):
    """
    A value as replies, logs and Python write it; without a letter or digit it names nobody.
    """
    found = {value}
    if not (value.isascii() and value.isprintable() and "'" not in value and "\\" not in value):
        found |= {clean(value, False), clean(value, True), repr(value)[1:-1], escaped(value), ascii(value)[1:-1]}
        try:
            found.add(aLabels(value))
        except UnicodeError:
            pass
    return [one for one in dict.fromkeys(map(str.lower, sorted(found))) if any(map(str.isalnum, one))]


def _reverse(address):
    """
    The labels of an address as lists in the DNS are asked about it (RFC 5782).
    """
    try:
        return ipaddress.ip_address(address).reverse_pointer.rsplit(".", 2)[0]
    except ValueError:
        return ""


def _without(text, secrets):
    text = text[:_TEXT]
    low = text.lower()
    for form, source, name in secrets:
        if form in low:
            pattern = re.compile(source, re.IGNORECASE | re.DOTALL)
            text = pattern.sub(name, text)
            low = text.lower()
            if pattern.search(low):  # some letters have other small ones than re thinks
                text = low = pattern.sub(name, low)
    if len(text) >= SHORTEST:
        for form, _, name in secrets:
            at = low.rfind(form[:_WORD], -_LONG)
            if at >= 0 and len(form) > _WORD and form.startswith(low[at:]):
                text = low = low[:at] + name
    return text


def readKey(folder):
    """
    The key in a state folder, made when there is none.

    @raises ConfigError: when it cannot be read or made, or is no key.
    """
    path = folder / KEY_FILE
    try:
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            key = path.read_bytes()
        else:
            key = os.urandom(_KEY_LENGTH)
            try:
                with os.fdopen(file, "wb") as new:
                    new.write(key)
            except OSError:
                path.unlink()
                raise
    except OSError as error:
        raise ConfigError(f"privacy: {path}: {error.strerror}") from None
    if not 16 <= len(key) <= 64:
        raise ConfigError(f"privacy: {path} must have 16 to 64 octets; remove it, and a new one is made")
    return key
