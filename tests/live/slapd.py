"""
A real OpenLDAP server for the tests, and what can happen to it.
"""

import base64
import os
import shutil
import socket
from pathlib import Path

from .daemon import Daemon, run
from .ports import freePort

HOST = "127.0.0.1"
PROGRAM = "/usr/sbin/slapd"
BASE = "dc=example,dc=org"
READER, PASSWORD = f"cn=reader,{BASE}", "reader's secret: (*)"

CONFIGURATION = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
argsfile {folder}/args
{options}
database mdb
maxsize 16777216
suffix "{base}"
directory {folder}/data
dbnosync
index objectClass,mail,uid eq
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=private,{base}" by dn.exact="{reader}" read by * none
access to * by * read
"""


def entry(dn, **attributes):
    """
    An entry as LDIF (RFC 2849). A value is a text, octets or a list of them.
    """
    lines = [_line("dn", dn)]
    for name, values in attributes.items():
        lines += [_line(name, value) for value in (values if isinstance(values, list) else [values])]
    return "\n".join(lines) + "\n\n"


def _line(name, value):
    octets = value if isinstance(value, bytes) else value.encode()
    return f"{name}:: {base64.b64encode(octets).decode()}"


class Slapd(Daemon):
    """
    An OpenLDAP server on free ports of loopback; ports and data stay the same over restarts.

    @param entries: LDIF of what it has beside the entry C{BASE}, the container ou=private and C{READER}.
    @param options: lines for its configuration.
    @param tls: None, or a folder with server.pem and server-key.pem, such as C{MariaDB.tls} makes.
    """

    def __init__(self, entries="", options="", tls=None):
        super().__init__("slapd")
        self.port, self.tlsPort = freePort(), freePort()
        self._urls = f"ldap://{HOST}:{self.port}/"
        if tls is not None:
            options += f"\nTLSCertificateFile {tls}/server.pem\nTLSCertificateKeyFile {tls}/server-key.pem"
            self._urls += f" ldaps://{HOST}:{self.tlsPort}/"
        (self.folder / "data").mkdir()
        self._configuration = self.folder / "slapd.conf"
        self._configuration.write_text(
            CONFIGURATION.format(folder=self.folder, base=BASE, reader=READER, options=options)
        )
        first = entry(BASE, objectClass=["dcObject", "organization"], dc="example", o="Example")
        first += entry(f"ou=private,{BASE}", objectClass="organizationalUnit", ou="private")
        first += entry(
            READER, objectClass=["organizationalRole", "simpleSecurityObject"], cn="reader", userPassword=PASSWORD
        )
        (self.folder / "ldif").write_text(first + entries)
        run("/usr/sbin/slapadd", "-f", str(self._configuration), "-l", str(self.folder / "ldif"))

    @property
    def uri(self):
        return f"ldap://{HOST}:{self.port}"

    @property
    def tlsUri(self):
        return f"ldaps://{HOST}:{self.tlsPort}"

    def command(self):
        return [PROGRAM, "-d", "0", "-h", self._urls, "-f", str(self._configuration)]

    def isReady(self):
        try:
            socket.create_connection((HOST, self.port), 0.5).close()
        except OSError:
            return False
        return True

    def connections(self):
        """
        How many connections it has.
        """
        found = 0
        for one in Path(f"/proc/{self._process.pid}/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state = one.split()[:4]
            found += int(local.rpartition(":")[2], 16) in (self.port, self.tlsPort) and state == "01"
        return found


def missing():
    """
    What is not installed that this needs, None when all is.
    """
    if not Path(PROGRAM).exists():
        return f"{PROGRAM} is missing (Debian package slapd)"
    if shutil.which("openssl") is None:
        return "openssl is missing (Debian package openssl)"
    try:
        import ldap  # noqa: F401
    except ImportError:
        return "python-ldap is missing (pip install 'ppolicy[ldap]')"
    if os.geteuid() != 0 and not os.access("/etc/ldap/schema/core.schema", os.R_OK):
        return "/etc/ldap/schema cannot be read"
    return None
