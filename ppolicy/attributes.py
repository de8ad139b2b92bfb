"""
What Postfix tells about a mail: the attributes of a request (SMTPD_POLICY_README).
"""

import sys

_ORDER = """
    request protocol_state protocol_name client_address client_name client_port reverse_client_name server_address
    server_port helo_name sender recipient recipient_count queue_id instance size etrn_domain stress sasl_method
    sasl_username sasl_sender ccert_subject ccert_issuer ccert_fingerprint ccert_pubkey_fingerprint
    encryption_protocol encryption_cipher encryption_keysize
    tls_sni policy_context compatibility_level mail_version
"""
_OTHERS = {
    "request": "smtpd_access_policy",
    "recipient_count": "0",
    "size": "0",
    "encryption_keysize": "0",
}
# The name of each in the order of Postfix, as of 3.12, and how Postfix writes that it is nothing. Interned, a name
# is the same object as in programs that look it up, which is quicker.
ATTRIBUTES = dict.fromkeys(map(sys.intern, _ORDER.split()), "") | _OTHERS
STATES = ("CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN", "XCLIENT")
