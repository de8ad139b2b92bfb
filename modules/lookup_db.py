"""
Which row of a table belongs to a request?
"""

from ppolicy.check import parameter
from ppolicy.listcheck import LookupCheck, asList, mapped


class LookupDB(LookupCheck):
    """
    Looks attributes of the request up in a table of the database and returns the row: who a recipient is, what a
    customer has paid for. Without `cacheCaseSensitive` upper and lower case are the same.

    `mapping` says which column an attribute is compared with and, for a table that is created, its type; by
    default the column is named as the attribute and of type VARCHAR(255).

    Check arguments:
        data ... the request

    Check returns:
        1 .... found; information: the row, a tuple of the columns that `retcols` asks for (without it how many
               rows there are)
        0 .... unknown: the database does not answer
        -1 ... not found
        information: the row, else None

    Examples:
        # is there a row for this sender?
        modules['lookup1'] = ('LookupDB', {'param': 'sender', 'table': 'senders'})
        # the whole row for a sender and recipient
        modules['lookup2'] = ('LookupDB', {'param': ['sender', 'recipient'], 'table': 'my_list',
                                           'mapping': {'sender': ('mail', 'VARCHAR(50)')},
                                           'retcols': '*'})
    """

    param: str | list[str] = parameter(help="the attribute to look up, or a list of attributes")
    table: str = parameter(help="table of the database")
    retcols: str | list[str] | None = parameter(
        None, "what is returned: a column, several with commas, *, or an aggregate such as MAX(score)"
    )
    mapping: dict = parameter({}, "{attribute: column or (column, SQL type)}")

    def start(self):
        self._params = asList(self.param)
        columns, types = mapped(self._params, self.mapping)
        self._source = self.opened(self.tableSource(self.table, columns, self.retcols, types))
