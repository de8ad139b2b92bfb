"""
A real unbound for the tests: a resolver on loopback that knows what it is told, and asks nobody.
"""

import shutil
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from .daemon import Daemon, run
from .ports import freePort

PROGRAM = "/usr/sbin/unbound"
HOSTS = ("127.0.0.1", "::1")

# Of the root zone: a probe asks for its servers, and the SOA says how long it holds that there is nothing.
ROOT = (". 300 IN NS localhost.", ". 300 IN SOA localhost. root.localhost. 1 3600 600 86400 30")

CONFIGURATION = """\
server:
    interface: 127.0.0.1
    interface: ::1
    port: {port}
    directory: "{folder}"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    logfile: ""
    do-daemonize: no
    num-threads: 1
    module-config: "{modules}"
    local-zone: "." static
{data}
remote-control:
    control-enable: no
{more}
"""


class Unbound(Daemon):
    """
    An unbound on a free port of loopback, IPv4 and IPv6; the port stays the same over restarts.

    @param records: lines as in zone files, such as C{"example.org. 300 IN A 192.0.2.1"}.
    @param signed: None, or a L{SignedZone} that it validates.
    """

    def __init__(self, records, signed=None):
        super().__init__("unbound")
        self.port = freePort()
        data = [f"    local-data: '{one}'" for one in (*ROOT, *records)]
        more = []
        if signed is not None:
            data += [f'    local-zone: "{signed.name}" transparent', f'    trust-anchor-file: "{signed.key}"']
            more = ["auth-zone:", f'    name: "{signed.name}"', f'    zonefile: "{signed.zone}"']
            more += ["    for-downstream: no", "    for-upstream: yes", "    fallback-enabled: no"]
        (self.folder / "conf").write_text(
            CONFIGURATION.format(
                port=self.port,
                folder=self.folder,
                data="\n".join(data),
                more="\n".join(more),
                modules="iterator" if signed is None else "validator iterator",
            )
        )

    def command(self):
        return [PROGRAM, "-d", "-c", str(self.folder / "conf")]

    def isReady(self):
        return all(map(self._answers, HOSTS))

    def _answers(self, host):
        try:
            dns.query.udp(dns.message.make_query(".", "NS"), host, 0.5, self.port)
        except (dns.exception.DNSException, OSError):
            return False
        return True

    def cpu(self):
        """
        Seconds of CPU time that it has used since it was started.
        """
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


class SignedZone:
    """
    A zone with DNSSEC.

    @param folder: where its files shall be.
    @param lines: of the zone file, SOA included.
    @ivar key: the file with its key, C{zone} that with what is signed.
    """

    def __init__(self, folder, name, lines):
        self.name = name
        plain = Path(folder) / "zone"
        plain.write_text("".join(f"{line}\n" for line in lines))
        base = run("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", name, folder=folder).strip()
        run("ldns-signzone", str(plain), base, folder=folder)
        self.zone, self.key = plain.with_name("zone.signed"), Path(folder) / f"{base}.key"

    def spoil(self, old, new):
        """
        Change what is signed, so that it is not what was signed any more.
        """
        text = self.zone.read_text()
        assert old in text
        self.zone.write_text(text.replace(old, new))


def missing():
    """
    What is not installed that this needs, None when all is.
    """
    if not Path(PROGRAM).exists():
        return f"{PROGRAM} is missing (Debian package unbound)"
    return None if shutil.which("ldns-signzone") else "ldns-signzone is missing (Debian package ldnsutils)"
