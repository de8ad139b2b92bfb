Greylist counts clients by network and senders without the number of the mail, trusts clients that have passed
often (``whitelistAfter``), can store hashes instead of addresses (``privacyKey``), and words its information
(``text``, ``header``).
