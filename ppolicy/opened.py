"""
The database of a configuration, opened by a command and not by a server.
"""

from ppolicy import offline, privileges
from ppolicy.errors import BackendError, ConfigError
from ppolicy.schema import ddl, described, prepare
from ppolicy.services import openDatabase
from ppolicy.target import databaseTarget

# Where the connections of these commands wait: changing a large table takes its time.
_PATIENT = "load"


class Opened:
    """
    The database of a configuration, and the checks that want something of it, without a reactor. What needs a
    connection stands in a C{with} statement.

    @param url: connect with this instead of the option C{database}.
    @ivar tables: those that the configuration wants, as SQLAlchemy has them.
    """

    def __init__(self, path, url=None):
        from twisted.internet import reactor

        self.configuration = offline.load(path)
        if url is not None:
            self.configuration.options.database = url
        self.database = openDatabase(reactor, self.configuration)
        try:
            self.generation = offline.prepared(self.configuration, self.database)
        except ValueError as error:
            raise ConfigError(f"database: {error}") from None
        self.tables = sorted(self.database.wanted(), key=lambda table: table.name)
        for lane in self.database.lanes:  # where a reactor runs later, no table must be created by itself
            lane.stop()

    def __enter__(self):
        file = databaseTarget(self.configuration).path
        if file is not None and file.parent.is_dir():
            privileges.becomeOwner(file.parent)  # what root made, the server could not change
        try:
            self.connection = self.database.connect(_PATIENT, writing=True)
        except (self.database.Error, OSError) as error:
            raise BackendError(f"{self.database}: {self.database.explained(error)}") from None
        return self

    def __exit__(self, kind, error, trace):
        self.connection.close()
        if isinstance(error, self.database.Error):
            raise BackendError(f"{self.database}: {self.database.explained(error)}") from None

    def statements(self):
        """
        The statements that create all tables.
        """
        return [one for table in self.tables for one in ddl(table, self.database.dialect)]

    def prepare(self, table, upgrade):
        """
        Create a table, or bring it up to date.

        @raises BackendError: with the reason why that cannot be.
        """
        prepare(self.database, self.connection, table, upgrade)

    def states(self):
        """
        {name of a table: its state, as a sentence}.
        """
        return {table.name: described(self.database, self.connection, table) for table in self.tables}
