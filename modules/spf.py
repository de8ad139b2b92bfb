"""
May this client send mail for this domain?
"""

import ipaddress
import socket
from typing import Literal

from ppolicy.address import address as parsed
from ppolicy.check import Check, parameter, wait
from ppolicy.dns import Ahead, reverseName
from ppolicy.errors import DNSError, ParamError
from ppolicy.spf import allowed, asciiDomain, evaluate
from ppolicy.spfanswer import Verdict, Wording, helo

_CODES = {"pass": 1, "softfail": -1, "fail": -2, "permerror": -2}
# What is refused when a rule has this name.
_REFUSED = {
    "SPF_Not_Pass": ("fail", "softfail", "neutral"),
    "Softfail": ("fail", "softfail"),
    "Fail": ("fail",),
    "Null": ("fail",),
}
_NOBODY_MAILS = "v=spf1 -all"
# Seconds that trouble of the DNS is kept at most, and the shortest that a refusal is.
_TROUBLE = 30
_SHORTEST = 60
# How many names of an address are looked at (RFC 7208, 4.6.4).
_NAMES = 10


class SPF(Check):
    """
    SPF tells whether a client may send mail for a domain: the domain's owner says so in the DNS (RFC 7208). A fail
    means that the owner does not want such mail to be taken, a softfail that he is not sure.

    The domain is that of the sender (MAIL FROM), and of the name that the client gives itself (HELO) where there
    is no sender, as in bounces. With `checkHelo` HELO is looked at in any case, first, and what is refused there
    is refused whatever the sender is.

    The codes below tell the result. What becomes of it may be left to the check: the information has a method
    `answer(data)` which gives the action and the text that policyd-spf would answer, under the rules in the
    parameters, such as a refusal, or a header Received-SPF or Authentication-Results for the first recipient of
    each message; `header(data)` gives the header alone. For rules of their own for some recipients configure two
    checks, and let the policy choose which one to ask; the message still has one header.

    Loopback addresses and the white lists below are not looked at: their result is none. When a white list could
    not be asked because of trouble in the DNS, nothing is refused, and neither it is for a temperror: it gives at
    most a defer, with `tempErrorDefer`.

    Ask at RCPT, and not for mail of your own users.

    Check arguments:
        data ... the request; client_address, helo_name and sender are used

    Check returns:
        1 .... pass
        0 .... none, neutral, or unknown: temperror, trouble in the DNS
        -1 ... softfail
        -2 ... fail, or permerror: the domain's record is wrong
        information: (result, status, explanation), such as ('fail', 550, 'SPF fail - not authorized'), with
               the attributes identity, domain, mechanism, problem, helo, mailFrom, refusal, skipped and the
               methods answer(data) and header(data)

    Examples:
        # in the policy: code, spf = factory.check('spf', data); return spf.answer(data)
        modules['spf'] = ('SPF', {})
        # HELO too, a forwarder and the second mail host let through, a page that explains
        modules['spf_strict'] = ('SPF', {'checkHelo': True, 'refuseMailFrom': 'Softfail',
                                         'permErrorReject': True, 'tempErrorDefer': True,
                                         'whitelistDomains': ['forwarder.example.net'],
                                         'whitelist': ['192.0.2.25', '2001:db8:25::/48'],
                                         'reasonUrl': 'https://example.org/spf?s={0};id={1};ip={2}'})
        # refuse nothing, write a header that a filter understands
        modules['spf_header'] = ('SPF', {'enforce': False, 'headerType': 'AR',
                                         'authservId': 'mx.example.org'})
    """

    checkHelo: bool = parameter(False, "look at HELO too when there is a sender")
    refuseHelo: Literal["SPF_Not_Pass", "Softfail", "Fail", "Null", "False", "No_Check"] = parameter(
        "Fail",
        "what answer() refuses by HELO: fail, softfail and neutral; fail and softfail; fail; fail when there is "
        "no sender; nothing; No_Check: do not look at HELO at all",
    )
    refuseMailFrom: Literal["SPF_Not_Pass", "Softfail", "Fail", "False", "No_Check"] = parameter(
        "Fail", "the same by the sender"
    )
    enforce: bool = parameter(True, "False: answer() refuses nothing and says in the header what it found")
    permErrorReject: bool = parameter(False, "answer() refuses for a permerror, where it may refuse at all")
    tempErrorDefer: bool = parameter(False, "answer() defers for a temperror, where it may refuse at all")
    noMail: bool = parameter(False, "refuse for records only that are exactly 'v=spf1 -all': no mail at all")
    rejectNotPassDomains: list[str] = parameter(
        [], "domains, with all below, for which fail, softfail and neutral are refused, whatever the rules"
    )
    skipAddresses: list[str] = parameter(
        ["127.0.0.0/8", "::ffff:127.0.0.0/104", "::1"], "addresses and networks that are not looked at"
    )
    whitelist: list[str] = parameter([], "addresses and networks of relays that are let through")
    whitelistHelo: list[str] = parameter([], "HELO names let through when they have the client's address")
    whitelistDomains: list[str] = parameter(
        [], "domains whose SPF record lets a client through for any sender: forwarders"
    )
    whitelistPTR: list[str] = parameter(
        [], "domains whose hosts are let through, by their reverse name, which must lead back to the address"
    )
    prospective: str | None = parameter(
        None, "an address to be tried in place of the client's; there is no header then"
    )
    headerType: Literal["SPF", "AR"] | None = parameter(
        "SPF", "header that answer() gives: Received-SPF, Authentication-Results, None"
    )
    authservId: str | None = parameter(
        None, "our name in Authentication-Results (RFC 8601, 2.5); by default the host's"
    )
    hideReceiver: bool = parameter(False, "leave the recipient's domain out of headers")
    reasonText: str = parameter(
        "Message {rejectdefer} due to: {spf}", "text of a refusal, with {rejectdefer}, {spf} and {url}"
    )
    reasonUrl: str | None = parameter(
        None,
        "page that explains a refusal, with {0}: helo or mfrom, {1}: what was checked, {2}: the client, "
        "{3}: the recipient",
    )
    statusCodes: bool = parameter(True, "with enhanced status codes in refusals (RFC 7372)")
    heloPassRestriction: str | None = parameter(None, "restriction class that answer() gives for a pass of HELO")
    mailFromPassRestriction: str | None = parameter(None, "the same for a pass of the sender")
    timeout: float = parameter(20, "seconds that looking at HELO or the sender may take", minimum=0.1)
    whitelistTimeout: float = parameter(10, "seconds that asking the DNS for a white list may take", minimum=0.1)
    voidLimit: int = parameter(2, "look-ups that may find nothing, else it is a permerror", minimum=0)
    cachePositive: float = parameter(86400, "seconds a pass is kept in the cache", minimum=0)
    cacheUnknown: float = parameter(
        21600, "seconds none and neutral are kept in the cache; a temperror 30 at most", minimum=0
    )
    cacheNegative: float = parameter(
        86400,
        "seconds fail, softfail and permerror are kept in the cache, not longer than the DNS says",
        minimum=0,
    )

    answers = ("heloPassRestriction", "mailFromPassRestriction")

    def start(self):
        self._skipped = _networks("skipAddresses", self.skipAddresses)
        self._whitelisted = _networks("whitelist", self.whitelist)
        self._asksHelo = self.checkHelo and self.refuseHelo not in ("Null", "No_Check")
        self._receiver = socket.gethostname()
        if self.prospective is not None and parsed(self.prospective) is None:
            raise ParamError(f"prospective: {self.prospective!r} is no IP address")
        reason = self.reasonText
        if self.reasonUrl and "{url}" not in reason:
            reason = f"{reason}. Please see {{url}}"
        try:
            reason.format(rejectdefer="", spf="", url="")
        except (LookupError, ValueError, AttributeError):
            raise ParamError(
                "reasonText may have {rejectdefer}, {spf} and {url} in it, and other braces doubled"
            ) from None
        try:
            (self.reasonUrl or "").format("", "", "", "")
        except (LookupError, ValueError, AttributeError):
            raise ParamError("reasonUrl may have {0} to {3} in it, and other braces doubled") from None
        self._wording = Wording(
            self.headerType,
            self.authservId or self._receiver,
            self.hideReceiver,
            reason,
            self.reasonUrl,
            self.statusCodes,
        )

    def hashArg(self, data):
        return f"{data.get('client_address', '')}\n{helo(data)}\n{data.get('sender', '')}".lower()

    def check(self, data):
        text = self.prospective or data.get("client_address", "")
        address, dns = parsed(text), Ahead(self.dns)
        name, sender = helo(data), data.get("sender", "")
        if address is not None:
            if any(address in network for network in self._skipped):
                return self._skip("SPF check N/A for local connections")
            if any(address in network for network in self._whitelisted):
                return self._skip("SPF skipped for whitelisted relay")
        asksHelo = self.refuseHelo != "No_Check" if not sender else self._asksHelo
        asksMailFrom = sender and self.refuseMailFrom != "No_Check"
        if asksHelo and asksMailFrom:
            _beginAll(dns, [name, sender.rpartition("@")[2]])
        skipped, doubt = self._whitelistedBy(address, name)
        if skipped:
            return self._skip(skipped)
        byHelo = self._evaluate(dns, text, name, "") if asksHelo else None
        if byHelo is not None:
            refusal, reason = self._refusal(byHelo, self.refuseHelo)
            if refusal or not asksMailFrom:
                return self._verdict(byHelo, byHelo, None, refusal, reason, doubt)
        if not asksMailFrom:
            return self._skip("SPF not checked", silent=True)
        byMailFrom = self._evaluate(dns, text, name, sender)
        return self._verdict(
            byMailFrom, byHelo, byMailFrom, *self._refusal(byMailFrom, self.refuseMailFrom), doubt
        )

    def _evaluate(self, dns, address, name, sender):
        return evaluate(dns, address, name, sender, self.timeout, self.voidLimit, self._receiver)

    def _refusal(self, found, rule):
        """
        @return: ('rejected', 'deferred' or None, what is said instead of the explanation).
        """
        reason = ""
        if self.rejectNotPassDomains and _isWithin(found.domain, self.rejectNotPassDomains):
            rule, reason = "SPF_Not_Pass", f"Receiver policy for SPF {found.result.capitalize()}"
        if rule == "False" or not self.enforce:
            return None, ""
        if found.result == "permerror":
            return ("rejected" if self.permErrorReject else None), reason
        if found.result == "temperror":
            return ("deferred" if self.tempErrorDefer else None), ""
        if found.result not in _REFUSED[rule]:
            return None, ""
        if self.noMail and " ".join((found.record or "").lower().split()) != _NOBODY_MAILS:
            return None, ""
        return "rejected", reason

    def _verdict(self, decisive, byHelo, byMailFrom, refusal, reason, doubt):
        shown = decisive
        if byHelo is not None and byHelo.result != "none" and decisive.result == "none":
            shown = byHelo  # which says more
        code = _CODES.get(decisive.result, 0)
        if doubt and (code < 0 or refusal == "rejected"):
            # it might have been let through, had the white list been known
            decisive = shown = decisive._replace(
                result="temperror",
                status=451,
                explanation="SPF Temporary Error: DNS",
                problem=doubt,
                mechanism=None,
            )
            code, refusal, reason = 0, ("deferred" if self.tempErrorDefer and self.enforce else None), ""
        restriction = None
        if refusal is None:
            if byMailFrom is not None and byMailFrom.result == "pass":
                restriction = self.mailFromPassRestriction
            elif byHelo is not None and byHelo.result == "pass":
                restriction = self.heloPassRestriction
        verdict = Verdict(
            decisive.result,
            decisive.status,
            decisive.explanation,
            identity=decisive.identity,
            domain=decisive.domain,
            mechanism=decisive.mechanism,
            problem=decisive.problem,
            helo=byHelo,
            mailFrom=byMailFrom,
            shown=shown,
            refusal=refusal,
            reason=reason,
            restriction=restriction,
            silent=self.prospective is not None,
            wording=self._wording,
        )
        if doubt or any(one is not None and one.result == "temperror" for one in (decisive, byHelo)):
            return code, verdict, _TROUBLE
        return (code, verdict, max(_SHORTEST, decisive.ttl)) if code < 0 else (code, verdict)

    def _skip(self, reason, silent=False):
        silent = silent or self.prospective is not None
        return 0, Verdict("none", 250, "", skipped=reason, silent=silent, wording=self._wording)

    # White lists that take the DNS

    def _whitelistedBy(self, address, name):
        """
        @return: (why a client is let through or '', why that is not known or '').
        """
        if address is None or not (self.whitelistDomains or self.whitelistHelo or self.whitelistPTR):
            return "", ""
        doubt = ""
        for asked, names, reason in (
            (self._passesFor, self.whitelistDomains, "SPF skipped for whitelisted relay domain"),
            (self._hasHelo, self.whitelistHelo, "SPF skipped for whitelisted HELO domain"),
            (self._hasName, self.whitelistPTR, "SPF skipped for PTR whitelisted relay domain"),
        ):
            try:
                if names and asked(address, name, names):
                    return reason, ""
            except (DNSError, TimeoutError) as error:
                doubt = f"{reason}? {error}"
        return "", doubt

    def _passesFor(self, address, _, domains):
        dns = Ahead(self.dns)
        _beginAll(dns, domains)
        trouble = None
        for domain in domains:
            found = evaluate(dns, str(address), domain, f"postmaster@{domain}", self.whitelistTimeout)
            if found.result == "pass":
                return True
            if found.result == "temperror":
                trouble = found.problem
        if trouble is not None:
            raise DNSError(trouble)
        return False

    def _hasHelo(self, address, name, names):
        listed = [one.lower().rstrip(".") for one in names]
        return name.lower().removesuffix(".") in listed and self._hasAddress(name, address)

    def _hasName(self, address, _, domains):
        names = [name for name in self._ask(reverseName(str(address)), "PTR") if _isWithin(name, domains)]
        return any(self._hasAddress(name, address) for name in names[:_NAMES])

    def _hasAddress(self, name, address):
        return str(address) in self._ask(name, "A" if address.version == 4 else "AAAA")

    def _ask(self, name, kind):
        return wait(self.dns.ask(name, kind), allowed(self.whitelistTimeout)).records


def _beginAll(dns, domains):
    """
    Have the records of all of them asked for at once.
    """
    for one in {asciiDomain(one) for one in domains} - {None}:
        dns.begin(one)


def _isWithin(domain, domains):
    """
    Is a domain one of these, or below one?
    """
    domain = f".{domain.lower().rstrip('.')}"
    return any(domain.endswith(f".{one.lower().strip('.')}") for one in domains)


def _networks(parameterName, texts):
    try:
        return [_plain(ipaddress.ip_network(text, strict=False)) for text in texts]
    except ValueError as error:
        raise ParamError(f"{parameterName}: {error}") from None


def _plain(network):
    """
    A network of IPv4 as such, though it be written as one of IPv6.
    """
    mapped = network.network_address.ipv4_mapped if network.version == 6 else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - 96))
