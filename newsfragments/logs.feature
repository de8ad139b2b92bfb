Logs: request lines go to stdout, to a file that may be rotated in any way, to this host's syslog daemon, or in the
form of RFC 5424 to a UNIX socket, over UDP or over TCP (``logTarget``). No answer waits for any of them; during
trouble lines wait, and what is lost is counted and told. What else is logged is text or, with ``eventLog``, JSON, in
which nothing can forge a line, with priorities in the journal. See docs/logs.md.
