"""
Is a value white, black or neither?
"""

from ppolicy.check import parameter
from ppolicy.listcheck import TROUBLE, BlackWhiteCheck, asList


class ListBW(BlackWhiteCheck):
    """
    Looks attributes of the request up in a whitelist and a blacklist, tables of the database or files as the
    module List has them. One of the two lists may be left out.

    Where the value of an attribute is a list, which a policy may have made, its members are looked up one after
    the other; the first one that is in a list decides. Who is in both lists is white.

    Check arguments:
        data ... the request

    Check returns:
        1 .... white; information: the row
        0 .... in neither list; information: (). Unknown, because the database does not answer: None
        -1 ... black; information: the row
        information: the row, a tuple of the columns that `retcolsWhitelist` or `retcolsBlacklist` ask for

    Examples:
        # two tables with a column `sender`
        modules['bw1'] = ('ListBW', {'param': 'sender', 'tableWhitelist': 'my_whitelist',
                                     'tableBlacklist': 'my_blacklist'})
        # clients in a file of networks, and the reason from a table
        modules['bw2'] = ('ListBW', {'param': 'client_address', 'fileWhitelist': 'networks.txt',
                                     'tableBlacklist': 'bad_clients',
                                     'mappingBlacklist': {'client_address': ('ip', 'VARCHAR(50)')},
                                     'retcolsBlacklist': 'reason'})
    """

    param: str | list[str] = parameter(help="the attribute to look up, or a list of attributes")

    def start(self):
        self._params = asList(self.param)
        self.openLists(self._params)

    def hashArg(self, data):
        return self.folded(data, self._params)

    def check(self, data):
        try:
            return self.decide(self.values(data, self._params))
        except TROUBLE:
            return 0, None
