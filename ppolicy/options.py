"""
The options that ppolicy.conf may set, each with type, default and help.
"""

import socket
from pathlib import Path
from typing import Any, Literal

from ppolicy.parameter import Parameters, parameter

# Options of 2.7 that have no work left, and why; set, they are warned about once.
IGNORED = {
    "commandPort": "the evaluating command port is gone, use the ppolicy command",
    "usePsyco": "Psyco is gone",
    "basePath": "modules are found through modulePath",
    "stateFile": "state is kept in the database",
    "databaseAPI": "the driver follows from database",
}

# Options that a running server cannot change.
AT_START = (
    *("stateDir", "controlSocket", "database", "user", "group"),
    *("logTarget", "eventLog", "metrics", "workerThreads"),
)


class Options(Parameters):
    """
    The values of one configuration's options.
    """

    ppolicyPort: int | str | list[int | str] = parameter(
        10031,
        "where to listen, one or a list of: 10031 (127.0.0.1 and ::1), '*:10031', '192.0.2.1:10031', "
        "'[::1]:10031', 'unix:/path:mode=660:user=u:group=g', or a Twisted endpoint such as 'systemd:…'. A socket "
        "that systemd holds for one of these is taken over; see docs/service.md",
    )
    connLimit: int = parameter(1000, "connections served at once; Postfix holds one for each smtpd", minimum=1)
    returnOnConnLimit: Any = parameter(
        ("450", "4.3.2 Too many connections to the policy server, please try again later"),
        "the answer to the first request on a connection beyond connLimit",
    )
    returnOnFatalError: Any = parameter(
        ("450", "4.3.0 Trouble in the policy server, please try again later"),
        "the answer when the policy raises, returns no valid answer or exceeds requestTimeout",
    )
    requestTimeout: float = parameter(
        30, "seconds after which a request is answered with returnOnFatalError", minimum=0.1, maximum=3600
    )
    modules: dict[Any, Any] = parameter({}, "the checks: {name: (type, {parameter: value})}", secret=True)
    modulePath: list[Path] | Path = parameter([], "folders of the site's own check modules, searched first")
    restrictionClasses: list[str] = parameter(
        [], "names from Postfix's smtpd_restriction_classes that the policy may return"
    )
    replyUtf8: bool = parameter(False, "send non-ASCII text as UTF-8 to the SMTP client instead of as '?'")
    policyThreads: bool = parameter(False, "run the policy function in worker threads, because it blocks")
    workerThreads: int = parameter(
        50, "threads for blocking modules, and as many for policyThreads", minimum=1, maximum=1000
    )
    requestLog: Literal["keyvalue", "json", None] = parameter(
        "keyvalue", "form of the line that each request gets"
    )
    historySize: int = parameter(
        10000, "how many decisions `ppolicy why` can look back at, in memory, about 200 octets each", minimum=0
    )
    privacy: Literal["full", "hash"] = parameter(
        "full",
        "'hash' writes pseudonyms instead of the addresses and names of clients, senders, recipients and logins, "
        "into the request log and what `ppolicy why`, `trace` and `cache show` show; they are made with "
        "privacy.key in stateDir",
    )
    metrics: str | None = parameter(
        None,
        "where Prometheus reads /metrics, and others /healthz and /readyz: '127.0.0.1:9154', '[::1]:9154' or "
        "'unix:/path:mode=660'; needs the extra metrics",
    )
    logTarget: str = parameter(
        "stdout",
        "where request lines go: 'stdout', a file, 'syslog' for this host's syslog daemon, or one that takes RFC "
        "5424: 'syslog:unix:/dev/log', 'syslog:udp:192.0.2.1:514', 'syslog:tcp:logs.example.org:514'; see "
        "docs/logs.md",
    )
    eventLog: Literal["text", "json"] = parameter(
        "text", "form in which ppolicy run prints everything else that is logged, on stdout"
    )
    logLevel: int | str = parameter("INFO", "least level of what the policy and modules log through logging")
    stateDir: Path | None = parameter(
        None,
        "folder of the embedded database and the control socket, where others must not write; by default "
        "$STATE_DIRECTORY, else /var/lib/ppolicy when it is ours to write, else 'state' beside ppolicy.conf",
    )
    controlSocket: Path | None = parameter(
        None, "UNIX socket of the ppolicy command; by default control.sock in stateDir"
    )
    user: str | None = parameter(None, "user to become once the ports are bound")
    group: str | None = parameter(None, "group to become; by default that of user")
    database: str | dict[str, Any] | None = parameter(
        None,
        "where state and lists are kept: sqlite:////path, mysql+pymysql://user@host/name, or 2.7's dictionary; "
        "by default ppolicy.sqlite in stateDir",
        secret=True,
    )
    stateSize: int = parameter(
        250000,
        "how many rows of each table of the embedded database are in memory too, and keys of a check that "
        "counts in memory alone, about 500 octets each; other rows are read from the file when they are needed, "
        "other keys are forgotten",
        minimum=1000,
    )
    dnsServers: list[str] = parameter(
        [],
        "name servers to ask: 'address', 'address:port', '[v6]:port'; by default those of /etc/resolv.conf. A "
        "caching one on this host is best: many lists refuse the large public ones",
    )
    dnsTrusted: list[str] = parameter(
        [], "addresses of name servers, beside those on this host, that are believed when they say DNSSEC is valid"
    )
    dnsTimeout: float = parameter(
        6, "seconds that a look-up in the DNS may take, all servers together", minimum=0.1, maximum=60
    )
    dnsCacheSize: int = parameter(50000, "how many answers of the DNS are kept, at most 32 MB", minimum=0)
    dnsLists: dict[Any, Any] = parameter(
        {},
        "the site's own DNS lists, and keys for subscribed ones: {'NAME': {'zone': 'bl.example.org', 'codes': "
        "{'127.0.0.2': 2.5}}}, {'ZEN': {'keyFile': '/etc/ppolicy/spamhaus.key'}}",
        secret=True,
    )
    cacheEngine: Literal["local", "memcache"] = parameter("local", "where results of checks are cached")
    cacheSize: int = parameter(50000, "how many results of checks are cached, up to 1 KB each", minimum=0)
    cacheServers: list[str] = parameter(["127.0.0.1:11211"], "servers of the cache engine memcache")
    admin: str = parameter("postmaster", "who to contact, for modules that tell others")
    domain: str = parameter("", "name of this server; by default the host's name")
    commandPort: Any = parameter(None, "accepted from 2.7 and ignored")
    usePsyco: Any = parameter(None, "accepted from 2.7 and ignored")
    basePath: Any = parameter(None, "accepted from 2.7 and ignored")
    stateFile: Any = parameter(None, "accepted from 2.7 and ignored")
    databaseAPI: Any = parameter(None, "accepted from 2.7 and ignored")

    def assume(self, accepted):
        super().assume(accepted)
        self.domain = self.domain or socket.gethostname()
        if isinstance(self.modulePath, Path):
            self.modulePath = [self.modulePath]
        if not isinstance(self.ppolicyPort, list):
            self.ppolicyPort = [self.ppolicyPort]
