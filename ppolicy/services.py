"""
What checks use beyond the request: state, tables, the DNS and its lists.
"""

from ppolicy.blocklistservice import Blocklists
from ppolicy.nameserver import NameServer
from ppolicy.resolvconf import nameServers
from ppolicy.resolver import Resolver
from ppolicy.smtp import Prober
from ppolicy.sqlite import SQLite
from ppolicy.state import StateStore
from ppolicy.tables import TableService
from ppolicy.target import databaseTarget


class Services:
    """
    The running services, which all generations of a configuration share.

    @param configuration: the L{ppolicy.config.Configuration}.
    @param database: a L{ppolicy.database.Database}, None for a state in memory only.
    @ivar state: the L{StateStore}, C{tables} the L{TableService}, C{dns} the L{Resolver}, C{blocklists} the
        L{Blocklists}, C{smtp} the L{Prober} of mail hosts.
    """

    def __init__(self, bridge, configuration, database=None):
        options = configuration.options
        self._bridge = bridge
        self.state = StateStore(bridge, database, size=options.stateSize)
        self.tables = TableService(bridge, database)
        self._nameServers = nameServers(options.dnsServers)
        self.dns = Resolver(
            bridge, self._connected(), options.dnsCacheSize, options.dnsTimeout, options.dnsTrusted
        )
        self.blocklists = Blocklists(bridge, self.dns, options.dnsLists, configuration.folder)
        self.smtp = Prober(bridge)

    def _connected(self):
        return [
            NameServer(self._bridge.reactor, host, port, self._bridge.breathe) for host, port in self._nameServers
        ]

    def start(self):
        """
        Begin to work.
        """
        self.state.start()
        self.tables.start()
        self.blocklists.start()

    def stop(self):
        """
        Stop working. The Deferred fires when all is on disk.
        """
        self.smtp.stop()
        self.blocklists.stop()
        self.dns.stop()
        self.tables.stop()
        return self.state.stop()

    def equip(self, check):
        """
        Give a check what it may use.
        """
        check.state, check.tables = self.state, self.tables
        check.dns, check.blocklists, check.smtp = self.dns, self.blocklists, self.smtp

    def prepare(self, configuration):
        """
        Have what the checks of another configuration will ask for when they start.
        """
        self.blocklists.configure(configuration.options.dnsLists, configuration.folder)

    def follow(self, options):
        """
        Go on with other options, as far as a running server can change them; resolv.conf is read again.
        """
        self.state.size = options.stateSize
        wanted = nameServers(options.dnsServers)
        servers = self.dns.servers
        if wanted != self._nameServers:
            self._nameServers = wanted
            servers = self._connected()
        self.dns.use(servers, options.dnsCacheSize, options.dnsTimeout, options.dnsTrusted)


def openDatabase(reactor, configuration, readOnly=False):
    """
    The database that the option C{database} names, by default a file in the state folder; not yet started.
    """
    target = databaseTarget(configuration)
    if target.path is not None:
        return SQLite(reactor, target.path, readOnly)
    from ppolicy.mariadb import MariaDB  # the driver is needed by those who use it

    return MariaDB(reactor, target, readOnly)
