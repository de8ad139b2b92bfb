Greylist counts clients by network and senders without the number of the mail, trusts clients that have passed
often (``whitelistAfter``), can store hashes instead of addresses (``privacyKey``), words its information
(``text``), and gives a mail one header X-Greylist (``header``).
