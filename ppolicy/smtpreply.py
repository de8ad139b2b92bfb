"""
What the replies of mail hosts mean: what a host says about an address is told apart from what it says about us.
"""

import re

# Characters of a reply that are shown.
_SHOWN = 160

# Codes of RFC 3463: at the beginning of a text (RFC 2034, 4), or somewhere in it, as old servers have them.
_ENHANCED = re.compile(r"(?<![\d.])5\.(\d{1,3})\.(\d{1,3})(?!\.?\d)")
# Which of 5.1.x are about the recipient (RFC 3463, 3.2; RFC 7505, 4.2): not its 7 and 8, the sender's address.
_NO_ADDRESS = {"0", "1", "2", "3", "6", "10"}
_NO_CODES = {550, 551, 553}
# Words by which a host shows that it means the client, the sender or its own rules.
_ABOUT_US = re.compile(
    r"black|blocked|blocking|block ?list|\bbl\b|spam|polic|[dr]n?sbl|\brbl|\blisted|reputation|denied|banned|abus"
    r"|\bspf\b|dmarc|dkim|\bptr\b|reverse|r?dns\b|grey|gray|sender|client|host ?name|helo|ehlo|verif"
    r"|relay(?! recipient)|call-?out|call-?back|null|bounce|empty|return path|auth|\btls\b|encrypt"
    r"|\brate\b|too many|too fast|limit|quota|\bfull\b|storage|temporar|try again|later|rejected for"
    r"|your (?:ip|server|network|domain|host|country|address|message|e?-?mail)|content"
    r"|not allowed to|permi(?:t|ssion)|prohibit|virus|administrat|trust"
    r"|\bip\b|\bhost\b|dynamic|dial-?up|mail ?from|fail|disabled|suspend|inactive",
    re.IGNORECASE,
)
# Words by which a host without enhanced codes shows that it means the recipient: 550 alone may be anything.
_ABOUT_IT = re.compile(
    r"user|mail ?box|inbox|recipient|account|address|alias|unknown|exist|no such|not found|unrout|nobody"
    r"|by that name|local part",
    re.IGNORECASE,
)


def harmless(octets):
    """
    What a host has said as text that can be shown anywhere: printable ASCII, cut.
    """
    text = " ".join("".join(chr(one) if 32 < one < 127 else " " if one < 33 else "?" for one in octets).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def taken(code, text, address=""):
    """
    Is a recipient taken, going by the reply to RCPT?

    ===============================================  =======  ===================================
    reply                                            verdict  source
    ===============================================  =======  ===================================
    2xx                                              yes      RFC 5321, 4.2.1, 3.4 (251)
    4xx                                              unknown  RFC 5321, 4.2.1
    5xx with 5.7.x anywhere                          unknown  RFC 3463, 3.8: security or policy
    5xx that speaks of us, the sender or its rules   unknown  RFC 5321, 7.8 and 4.2.2: 550 is that too
    5xx with 5.1.0, 1, 2, 3, 6, 10                   no       RFC 3463, 3.2; RFC 7505, 4.2
    5xx with any other 5.x.y                         unknown  5.2.x: it exists; 5.1.7, 5.1.8: the sender
    550, 551, 553 without a code, of the recipient   no       RFC 5321, 4.2.2, 3.4
    anything else                                    unknown
    ===============================================  =======  ===================================

    @param text: of the reply, C{address} the recipient, which tells nothing when it is repeated there.
    @return: True, False, or None for unknown.
    """
    if 200 <= code <= 299:
        return True
    if not 500 <= code <= 599:
        return None
    text = text.lower().replace(address.lower() or " ", " ")
    codes = _ENHANCED.findall(text)
    if any(subject == "7" for subject, _ in codes) or _ABOUT_US.search(text):
        return None
    if codes:
        subject, detail = codes[0]
        return False if subject == "1" and detail in _NO_ADDRESS else None
    return False if code in _NO_CODES and _ABOUT_IT.search(text) else None
