Trap: addresses, domains and patterns from a list, a file or a table; trapped clients are kept over restarts and shared
by hosts; ``ppolicy trap list|remove``.
