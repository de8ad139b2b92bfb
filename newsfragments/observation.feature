The running server shows what it does: `ppolicy stats` counts requests by action, by check and code, with what came
from the cache and how long answers took, in the last minute and since the start; `ppolicy why TEXT` tells why a
mail was refused, by a queue id, an instance, a client, a sender or a recipient, with every check that was asked
and the action as it was sent, from the last `historySize` decisions; `ppolicy trace` follows decisions as they are
made; `ppolicy log level` and `ppolicy cache show` and `flush` need no reload. What is changed through the control
socket is logged with who did it. With `privacy = 'hash'`, logs and history have pseudonyms in place of addresses,
names and logins, also in the texts of checks and replies; a mail is still found by its addresses, and what the
history knew before is forgotten.
