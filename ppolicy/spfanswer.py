"""
What Postfix is told about an SPF result: a refusal, a header, or nothing.
"""

import re
from typing import NamedTuple
from urllib.parse import quote

from ppolicy.mailheader import isFirst

_DOT_ATOM = re.compile(r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]+(?:\.[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]+)*").fullmatch
# RFC 2045, 5.1
_TOKEN = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`{|}~-]+").fullmatch
_QUOTED_PAIR = re.compile(r'(["\\])')
_COMMENT_PAIR = re.compile(r"([()\\])")
_ESCAPED = r"\\\1"
# RFC 7372, 3.2: validation failed; an error was met while it was tried.
_FAILED, _ERROR = "7.23", "7.24"


class Wording(NamedTuple):
    """
    How results are told. Plain values, so that a result can be kept in any cache.

    @ivar header: 'SPF' for C{Received-SPF}, 'AR' for C{Authentication-Results}, None for no header.
    @ivar authservId: who says so in C{Authentication-Results}.
    @ivar hideReceiver: leave the recipient's domain out.
    @ivar reason: text of a refusal, with {rejectdefer}, {spf} and {url}; C{url} with {0} 'helo' or 'mfrom', {1}
        what was checked, {2} the client, {3} the recipient.
    @ivar statusCodes: with the enhanced status codes of RFC 7372.
    """

    header: str | None
    authservId: str
    hideReceiver: bool
    reason: str
    url: str | None
    statusCodes: bool


class _Three(NamedTuple):
    result: str
    status: int
    explanation: str


class Verdict(_Three):
    """
    The information that the check SPF gives: C{(result, status, explanation)}, as it always was, and more.

    @ivar identity: 'mailfrom' or 'helo': which one has decided.
    @ivar domain: whose record that was.
    @ivar mechanism: what matched there, or None.
    @ivar problem: for the log, why it is an error, or not known, else ''.
    @ivar helo: the L{ppolicy.spf.Evaluation} of HELO, C{mailFrom} that of MAIL FROM; None where it was not made.
    @ivar shown: the one of them that the header is about.
    @ivar refusal: 'rejected', 'deferred' or None.
    @ivar restriction: what Postfix is to go on with after a pass, or None.
    @ivar skipped: why SPF was not asked at all, else ''.
    """

    def __new__(cls, result, status, explanation, **attributes):
        verdict = super().__new__(cls, result, status, explanation)
        verdict.__dict__.update(attributes)
        return verdict

    __repr__ = tuple.__repr__

    identity = domain = ""
    problem = skipped = reason = ""
    mechanism = helo = mailFrom = shown = refusal = restriction = None
    silent = False
    wording: Wording

    def answer(self, data):
        """
        What policyd-spf would answer, for a policy to return.

        A refusal is given for each recipient, a header once for a message, by C{instance}: its further recipients
        get ('dunno', '').

        @param data: the request that was checked.
        @return: (action, text).
        """
        if self.refusal is not None:
            return self._refuse(data)
        if self.restriction is not None:
            return self.restriction, ""
        header = None if self.silent else self.header(data)
        if header is None or not isFirst(data, self.wording.header):
            return "dunno", ""
        return "prepend", header

    def _refuse(self, data):
        wording = self.wording
        sender = data.get("sender", "")
        url = ""
        if wording.url:
            scope, who = ("helo", helo(data)) if self.identity == "helo" else ("mfrom", sender)
            parts = (scope, who, data.get("client_address", ""), data.get("recipient", ""))
            url = wording.url.format(*(quote(part.encode("utf-8", "surrogateescape"), "@") for part in parts))
        text = wording.reason.format(rejectdefer=self.refusal, spf=self.reason or self.explanation, url=url)
        isError = self.result in ("permerror", "temperror")
        digit, verb = ("5", "550") if self.refusal == "rejected" else ("4", "defer_if_permit")
        if wording.statusCodes:
            text = f"{digit}.{_ERROR if isError else _FAILED} {text}"
        return verb, text

    def header(self, data):
        """
        The header field for a request, ready for PREPEND; None when there is to be none.
        """
        if self.wording.header == "SPF":
            return self._comment(data) if self.skipped else self._receivedSPF(data)
        if self.wording.header == "AR":
            return self._authenticationResults(data)
        return None

    def _comment(self, data):
        return f"X-Comment: {self.skipped} - {_pairs(self._facts(data))}"

    def _receivedSPF(self, data):
        """
        RFC 7208, 9.1.
        """
        shown = self.shown
        facts = {"identity": shown.identity, **self._facts(data)}
        comment = _said(shown) if shown.identity == "helo" else shown.identity
        return f"Received-SPF: {shown.result.capitalize()} ({_commented(comment)}) {_pairs(facts)}"

    def _authenticationResults(self, data):
        """
        RFC 8601, 2.7.2.
        """
        facts = _commented(_pairs(self._facts(data)))
        begin = f"Authentication-Results: {_value(self.wording.authservId, _TOKEN)};"
        if self.skipped:
            return f"{begin} none ({_commented(self.skipped)} - {facts})"
        shown = self.shown
        name, value = ("helo", helo(data)) if shown.identity == "helo" else ("mailfrom", shown.domain)
        comment = f" ({_commented(said)})" if (said := _said(shown)) else ""
        return f"{begin} spf={shown.result}{comment} smtp.{name}={_value(value, _TOKEN)} ({facts})"

    def _facts(self, data):
        receiver = data.get("recipient", "").rpartition("@")[2]
        return {
            "client-ip": data.get("client_address", ""),
            "helo": helo(data),
            "envelope-from": data.get("sender", "") or "<>",
            "receiver": "<UNKNOWN>" if self.wording.hideReceiver or not receiver else receiver,
        }


def helo(data):
    """
    What a client calls itself; where it has said nothing, what its address is called, as ppolicy 2.7 has it.
    """
    return data.get("helo_name") or data.get("client_name", "")


def _pairs(facts):
    return "; ".join([f"{name}={_value(value)}" for name, value in facts.items()])


def _said(shown):
    return "no SPF record" if shown.result == "none" else shown.explanation


def _value(text, plain=_DOT_ATOM):
    """
    As RFC 7208, 9.1 wants it: a dot-atom, else a quoted string. The encoder of replies makes blanks of what cannot
    be printed.
    """
    return text if plain(text) else f'"{_QUOTED_PAIR.sub(_ESCAPED, text)}"'


def _commented(text):
    """
    A text as it may stand in a comment (RFC 5322, 3.2.2).
    """
    return _COMMENT_PAIR.sub(_ESCAPED, text)
