"""
What checks use beyond the request: state, lists, the DNS.
"""

from ppolicy.dns import Resolver
from ppolicy.nameserver import NameServer
from ppolicy.resolvconf import nameServers
from ppolicy.state import StateStore
from ppolicy.tables import TableService


class Services:
    """
    The running services, which all generations of a configuration share.

    @param database: a L{ppolicy.database.Database}, None for a state in memory only.
    @ivar state: the L{StateStore}, C{tables} the L{TableService}, C{dns} the L{Resolver}.
    """

    def __init__(self, bridge, options, database=None):
        self._bridge = bridge
        self.state = StateStore(bridge, database)
        self.tables = TableService(bridge, database)
        self._nameServers = nameServers(options.dnsServers)
        self.dns = Resolver(bridge, self._connected(), options.dnsCacheSize, options.dnsTimeout)

    def _connected(self):
        return [NameServer(self._bridge.reactor, host, port) for host, port in self._nameServers]

    def start(self):
        """
        Begin to work.
        """
        self.state.start()
        self.tables.start()

    def stop(self):
        """
        Stop working. The Deferred fires when all is on disk.
        """
        self.dns.stop()
        self.tables.stop()
        return self.state.stop()

    def equip(self, check):
        """
        Give a check what it may use.
        """
        check.state, check.tables, check.dns = self.state, self.tables, self.dns

    def follow(self, options):
        """
        Go on with other options, as far as a running server can change them; resolv.conf is read again.
        """
        wanted = nameServers(options.dnsServers)
        servers = self.dns.servers
        if wanted != self._nameServers:
            self._nameServers = wanted
            servers = self._connected()
        self.dns.use(servers, options.dnsCacheSize, options.dnsTimeout)
