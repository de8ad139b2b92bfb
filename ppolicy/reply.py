# SPDX-License-Identifier: MIT
"""
The one encoder that writes every reply (Postfix's SMTPD_POLICY_README and access(5)).

A reply is C{action=}, what the policy answered, and a blank line. Postfix believes whatever it reads there: an
empty action or a bare number means OK, an unknown word refuses every mail with 451, and a line feed in a text
starts an attribute of its own. So an answer is read here as Postfix would read it, before it is sent.
"""

import re

from ppolicy.errors import BrokenAnswer

DUNNO = b"action=dunno\n\n"

# Octets of a reply line of SMTP, CRLF included (RFC 5321, 4.5.3.1.5). Postfix does not keep to it by itself.
SMTP_LINE = 512
# Of these, what a name, its class (see NAMES) and a text may share: the rest is what Postfix puts around them.
SHARED = SMTP_LINE - len("554 5.777.777 <>:  rejected: \r\n")
# Octets of text that are sent even if names leave less room: a code without a text would be OK to Postfix.
SHORTEST = 64
# Octets of a text that only the log sees.
LOGGED = 512
# Octets of a header, a target or a list of restrictions. A line of a mail has 998 (RFC 5322, 2.1.1); Postfix
# breaks longer ones anywhere.
LONGEST = 900

# Postfix tells the client which name was refused. That depends on the list that asks, which is not in the
# request; so texts are made to fit after each: attribute, class.
NAMES = (
    ("recipient", "Recipient address"),
    ("sender", "Sender address"),
    ("helo_name", "Helo command"),
    ("etrn_domain", "Etrn command"),
)
CLIENT = "[]Client host"
END_OF_DATA = len("END-OF-MESSAGE") + len("End-of-data")
# At least what is added to the octets of any one name, of which a client's may have to read "unknown" twice.
ADDED = len("unknown") * 2 + len(CLIENT)

LATER = "Please try again later"
DENIED = "Access denied"
# Actions with a text for the SMTP client: class of their status code (RFC 3463, 2), text if none is left.
REFUSALS = {
    "REJECT": ("5", DENIED),
    "DEFER": ("4", LATER),
    "DEFER_IF_PERMIT": ("4", LATER),
    "DEFER_IF_REJECT": ("4", LATER),
}
# Actions whose text, if any, goes no further than Postfix's log. HANGUP is undocumented, hence missing.
REMARKS = frozenset(("DUNNO", "OK", "RELAY", "HOLD", "DISCARD", "WARN", "INFO"))
# Actions with a target, what it looks like, and how to say so. A target in angle brackets or a list of them
# is one address that does not exist to Postfix, and the mail would be lost.
ADDRESS = re.compile(r'(?:"[^"]+"|[^"<>,]+)@[^@"<>,]+')
TARGETS = {
    "FILTER": (re.compile(r"[^:]+:.*"), "transport:destination"),
    "REDIRECT": (ADDRESS, "user@domain"),
    "BCC": (ADDRESS, "user@domain"),
}

# The restrictions of postconf(5) that a policy may return in place of an action, with what must follow. Not
# here: what takes a table or a service, because Postfix refuses a ':' in a reply, and what 3.9 removed
# (permit_naked_ip_address, reject_maps_rbl, check_relay_domains).
RESTRICTIONS = dict.fromkeys(
    """
    permit reject defer defer_if_permit defer_if_reject warn_if_reject

    permit_inet_interfaces permit_mynetworks permit_sasl_authenticated
    permit_tls_all_clientcerts permit_tls_clientcerts
    reject_unknown_client_hostname reject_unknown_reverse_client_hostname reject_unknown_client
    reject_plaintext_session reject_unauth_pipelining reject_multi_recipient_bounce

    reject_invalid_helo_hostname reject_non_fqdn_helo_hostname reject_unknown_helo_hostname
    reject_invalid_hostname reject_non_fqdn_hostname reject_unknown_hostname

    reject_non_fqdn_sender reject_unknown_sender_domain reject_unlisted_sender reject_unverified_sender
    reject_unknown_address
    reject_sender_login_mismatch reject_known_sender_login_mismatch
    reject_authenticated_sender_login_mismatch reject_unauthenticated_sender_login_mismatch

    permit_auth_destination permit_mx_backup reject_unauth_destination defer_unauth_destination
    reject_non_fqdn_recipient reject_unknown_recipient_domain reject_unlisted_recipient
    reject_unverified_recipient check_recipient_maps
    """.split()  # noqa: SIM905 - a table, not a list of strings
)
# A list in DNS and the answers that count, such as zen.spamhaus.org=127.0.0.[2..11;255]. Of all mistakes in a
# reply this costs most: a wrong pattern (or a range that runs backwards) ends smtpd, and no other is started for
# a minute (seen on Postfix 3.7).
OCTET = "(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
RANGE = rf"{OCTET}(?:\.\.{OCTET})?"
FIELD = rf"(?:{OCTET}|\[{RANGE}(?:;{RANGE})*\])"
ZONE = re.compile(rf"[A-Za-z0-9._-]+(?:={FIELD}(?:\.{FIELD}){{3}})?"), "domain or domain=d.d.d.d"
ENDS_OF_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
RESTRICTIONS |= dict.fromkeys(
    """
    reject_rbl_client reject_rbl permit_dnswl_client permit_rhswl_client
    reject_rhsbl_client reject_rhsbl_reverse_client reject_rhsbl_helo reject_rhsbl_sender
    reject_rhsbl_recipient
    """.split(),  # noqa: SIM905
    ZONE,
)
RESTRICTIONS["sleep"] = re.compile(r"[0-9]{1,4}"), "a number of seconds"

# What becomes a blank: C0, DEL, C1, line and paragraph separators, bidirectional overrides and isolates (they
# make a log line read as another), and the lone surrogates that stand for octets that were no UTF-8.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

NUMBER = re.compile(r"[0-9]+")
CODE = re.compile(r"[45][0-9][0-9]")
# Header names: printable ASCII without colon and blank (RFC 5322, 3.6.8).
HEADER = re.compile(r"[!-9;-~]+:")
STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
# What is taken for a status code, unless it is the address of a client, which may begin a text as well.
LIKE_STATUS = re.compile(r"[0-9]*\.[0-9.]*")
ADDRESS_4 = re.compile(rf"{OCTET}(?:\.{OCTET}){{3}}")

# Answers whose replies are remembered, at most, and characters of the longest of them.
REMEMBERED = 1024
MEMORABLE = 600


class ReplyEncoder:
    """
    Turns what a policy function returned into what Postfix is told.

    @param restrictionClasses: names of C{smtpd_restriction_classes} in Postfix's main.cf.
    @param utf8: whether texts other than ASCII are sent as they are, to any SMTP client; else C{?} stands for
        each of their characters.
    """

    def __init__(self, restrictionClasses=(), utf8=False):
        self._classes = frozenset(restrictionClasses)
        self._utf8 = utf8
        # Both have exact strings, or pairs of them, as keys: nothing else that is an answer equals these, as
        # 450.0 would equal 450 and True 1.
        # Replies that are the same for all requests.
        self._settled = {}
        # Replies with a text for the SMTP client, and the length in characters of names that certainly fit.
        self._fitting = {}

    def encode(self, answer, data):
        """
        The octets that tell Postfix C{answer}.

        @param answer: None, an action, or (action, text) as a tuple or list. The action is a string, which may
            include a text, or the number of a reply code. The text is a string, a number, None, or a tuple
            that begins with one of these.
        @param data: the request's attributes; names in it that Postfix will repeat bound the text.
        @return: C{b"action=...\\n\\n"}, at most 1,000 octets of UTF-8.
        @raise BrokenAnswer: Postfix would not understand this, or not as it is meant.
        """
        if answer is None:
            return DUNNO
        try:
            reply = self._settled.get(answer)
            if reply is not None:
                return reply
            reply, length = self._fitting[answer]
            if (
                len(data["recipient"]) <= length
                and len(data["sender"]) <= length
                and len(data["helo_name"]) <= length
                and len(data["client_name"]) + len(data["client_address"]) <= length
                and len(data.get("etrn_domain", "")) <= length
            ):
                return reply
        except (KeyError, TypeError):  # not remembered; not hashable; a request without one of the names
            pass
        return self._compose(answer, data)

    def _compose(self, answer, data):
        """
        The reply to an answer that is not remembered, or not known to fit this request.
        """
        action, text = pair(answer)
        start, shown, most = self._understood(action, text)
        forClient = most is None
        if forClient:
            most = max(SHARED - longestName(data), SHORTEST)
        octets = len(shown.encode())
        if octets > most:
            return f"action={start}{cutText(shown, most)}\n\n".encode()
        reply = f"action={start}{shown}\n\n".encode()
        if len(action) + len(text) <= MEMORABLE:
            key = action if isinstance(answer, str) else (action, text)
            if forClient:
                # A character takes up to four octets of UTF-8.
                remember(self._fitting, key, (reply, (SHARED - octets - ADDED) // 4))
            else:
                remember(self._settled, key, reply)
        return reply

    def _understood(self, action, text):
        """
        What Postfix will understand: what must be sent whole, the text after it, and the octets of this text
        that may be sent, or None if it goes to the SMTP client.
        """
        said = f"{action} {text}"
        action = clean(action, self._utf8).strip(" ")
        if not action:
            return "dunno", "", 0
        verb, _, inner = action.partition(" ")
        text = f"{inner.strip(' ')} {clean(text, self._utf8)}".strip(" ")
        # upper() makes ASCII of some letters that Postfix takes for what they are.
        known = verb.upper() if verb.isascii() else verb
        if known in REFUSALS:
            digit, default = REFUSALS[known]
            if not text:
                return verb, "", 0
            status, text = statusAndText(text, digit)
            return f"{verb} {status}", text or default, None
        if known in REMARKS:
            return (f"{verb} ", text, LOGGED) if text else (verb, "", 0)
        if known == "PREPEND":
            name = HEADER.match(text)
            if not name or name.end() > LONGEST:
                raise BrokenAnswer(f"PREPEND needs a header, Name: value, not {text[:40]!r}")
            return f"{verb} ", text, LONGEST
        if known in TARGETS:
            self._checkTarget(known, text, said)
            return f"{verb} {text}", "", 0
        if CODE.fullmatch(verb):
            status, text = statusAndText(text, verb[0])
            return f"{verb} {status}", text or (LATER if verb[0] == "4" else DENIED), None
        if NUMBER.fullmatch(verb):
            raise BrokenAnswer(f"{verb[:40]} is no code for a refusal, these are 400 to 599")
        line = f"{verb} {text}".rstrip(" ")
        self._checkRestrictions(line)
        return line, "", 0

    def _checkTarget(self, action, target, said):
        """
        Refuse a target that is none, or would not arrive as C{said} by the policy: other than a text, it is of no
        use in part, and mail that goes to another place is lost.
        """
        pattern, form = TARGETS[action]
        if target != said.replace("\t", " ").strip(" ")[len(action) :].strip(" "):
            raise BrokenAnswer(f"{action} has a target with characters that cannot be sent: {target[:40]!r}")
        if " " in target or not pattern.fullmatch(target):
            raise BrokenAnswer(f"{action} needs {form}, not {target[:40]!r}")
        if len(target.encode()) > LONGEST:
            raise BrokenAnswer(f"{action} has a target of more than {LONGEST} octets: {target[:40]!r}")

    def _checkRestrictions(self, line):
        """
        Refuse what is no list of restrictions, separated by blanks or commas, to Postfix.
        """
        if ":" in line:
            verb = line.partition(":")[0]
            if CODE.fullmatch(verb) or verb.upper() in (*REFUSALS, *REMARKS, *TARGETS, "PREPEND"):
                raise BrokenAnswer(f"behind {verb} stands no colon, but its text: {line[:80]!r}")
            raise BrokenAnswer(
                f"Postfix takes no table and no policy service from a policy, name a restriction class that has "
                f"it: {line[:80]!r}"
            )
        if len(line) > LONGEST:
            raise BrokenAnswer(f"more than {LONGEST} octets of restrictions, name a restriction class instead")
        # Not split(): what else Python takes for a blank is none to Postfix.
        listed = [word for word in line.replace(",", " ").split(" ") if word]
        if not listed:
            raise BrokenAnswer(f"{line[:40]!r} is no list of restrictions")
        words = iter(listed)
        for word in words:
            name = word.lower() if word.isascii() else word
            if name not in RESTRICTIONS:
                if word not in self._classes:
                    raise BrokenAnswer(f"{word[:40]!r} is no action, no restriction and not in restrictionClasses")
            elif RESTRICTIONS[name]:
                pattern, form = RESTRICTIONS[name]
                argument = next(words, "")
                ranges = ENDS_OF_RANGE.findall(argument.partition("=")[2])
                if not pattern.fullmatch(argument) or any(int(low) > int(high) for low, high in ranges):
                    raise BrokenAnswer(f"{word} needs {form}, not {argument[:40]!r}")


def isPermanent(answer):
    """
    Whether C{answer} may refuse mail for good, or lose it.

    So do 5NN, REJECT, a list with any restriction that can reject (a warn_if_reject in front is not considered),
    DISCARD, and FILTER to the transports discard and error. For options that stand in for an answer when
    something is wrong on our side (returnOnFatalError, returnOnConnLimit): that must not cost a mail.

    What a restriction class does is written in Postfix's main.cf; it is not taken for permanent, nor are REDIRECT
    and HOLD, which keep the mail. An answer that L{ReplyEncoder.encode} would refuse may give either.
    """
    try:
        action, text = pair(answer)
    except BrokenAnswer:
        return False
    action = clean(action, True).strip(" ,")
    if not action:
        return False
    words = f"{action} {clean(text, True)}".replace(",", " ").lower().split()
    if words[0].upper() in REMARKS or words[0] in ("prepend", "redirect", "bcc"):
        return words[0] == "discard"
    if words[0] == "filter":
        return words[1:] != [] and words[1].startswith(("discard:", "error:"))
    if words[0].upper() in REFUSALS or CODE.fullmatch(words[0]):
        return words[0].startswith(("5", "reject"))
    return any(word in RESTRICTIONS and word.startswith("reject") for word in words)


def pair(answer):
    """
    Action and text of any answer, as two exact strings.

    @raise BrokenAnswer: it is of no type that an answer may have.
    """
    action, text = answer, None
    if isinstance(answer, tuple | list):
        if len(answer) != 2:
            items = "1 item" if len(answer) == 1 else f"{len(answer)} items"
            raise BrokenAnswer(f"an answer is an action and a text, not {items}")
        action, text = answer
    if isinstance(text, tuple) and text:
        # The information of Greylist is (text, seconds), and 2.7 let a policy return it as the text.
        text = text[0]
    if action is None:
        action = ""
    elif isinstance(action, str):
        # Of a subclass, too, the characters and nothing else.
        action = str.__str__(action)
    elif isinstance(action, int) and not isinstance(action, bool):
        if not 400 <= action <= 599:
            raise BrokenAnswer("a number that is an action must be from 400 to 599")
        action = str(int(action))
    else:
        raise BrokenAnswer(f"an action is a string or the number of a code, not a {type(action).__name__}")
    if text is None:
        text = ""
    elif isinstance(text, str):
        text = str.__str__(text)
    elif isinstance(text, int | float) and not isinstance(text, bool):
        try:
            text = str(text)
        except ValueError as error:  # Python prints no integer of more than 4,300 digits
            raise BrokenAnswer(f"a text is a number that cannot be printed: {error}") from error
    else:
        raise BrokenAnswer(f"a text is a string or a number, not a {type(text).__name__}")
    return action, text


def clean(text, utf8):
    """
    C{text} with a blank for each character that must not be sent and, unless C{utf8}, C{?} for each that is not
    ASCII. No character comes or goes.
    """
    if text.isascii() and text.isprintable():
        return text
    text = UNPRINTABLE.sub(" ", text)
    return text if utf8 else text.encode("ascii", "replace").decode()


def statusAndText(text, digit):
    """
    Take apart the enhanced status code (RFC 3463), if any, and the text after it.

    Postfix corrects the class of a code (C{digit}), but not its form: what only resembles a code would be shown to
    the client, so it is left out. A code that nothing follows makes Postfix before 3.8.16, 3.9.10 and 3.10.9 read
    beyond the end of the text (CVE-2026-43964): never send the status alone.

    @return: the code and a blank, or C{''}, and the rest, which may be C{''}.
    """
    # More than can be sent, and a bound on the work.
    text = text[:LONGEST]
    while text:
        word, _, rest = text.partition(" ")
        if not LIKE_STATUS.fullmatch(word) or ADDRESS_4.fullmatch(word):
            break
        text = rest.lstrip(" ")
        if STATUS.fullmatch(word):
            return f"{digit}{word[1:]} ", text
    return "", text


def longestName(data):
    """
    Octets of the longest name, with its class, that Postfix may put in front of a text.
    """
    client, address = data.get("client_name") or "unknown", data.get("client_address") or "unknown"
    return max(
        END_OF_DATA,
        octetsOf(client) + octetsOf(address) + len(CLIENT),
        *[octetsOf(data.get(name, "")) + len(kind) for name, kind in NAMES],
    )


def octetsOf(name):
    """
    Octets of a name as Postfix knows it; a lone surrogate stands for one.
    """
    # A policy may have put anything into its request.
    name = str(name)
    return len(name) if name.isascii() else len(name.encode("utf-8", "replace"))


def cutText(text, octets):
    """
    As many whole characters of C{text} as C{octets} hold.
    """
    if text.isascii():
        return text[:octets].rstrip(" ")
    return text.encode()[:octets].decode("utf-8", "ignore").rstrip(" ")


def remember(replies, answer, reply):
    """
    Keep a reply, and let go of all others when there are too many: policies have few answers, or endless ones.
    """
    if len(replies) >= REMEMBERED:
        replies.clear()
    replies[answer] = reply
