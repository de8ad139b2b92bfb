"""
Is a value in a list?
"""

from pathlib import Path

from ppolicy.check import parameter
from ppolicy.errors import ParamError
from ppolicy.listcheck import LookupCheck, asList


class List(LookupCheck):
    """
    Looks an attribute of the request up in a table of the database, or in a file: whitelists, blacklists, known
    recipients. Values compare without regard to case unless `cacheCaseSensitive` is set.

    A table that is missing is created. The command `ppolicy list NAME add VALUE` fills it, or any SQL client.

    A file has one entry a line, with an optional text behind it: a value, an address or network
    (192.0.2.0/24, 2001:db8::/32; the longest wins), `.example.com` for a domain and all below it, `@example.com`
    for the addresses of exactly this domain, `user@` for this local part anywhere, /regex/. It is read again
    when it changes.

    Several attributes in `param` are compared with as many columns. Where the value of an attribute is a list,
    which a policy may have made, each of its members is looked up.

    Check arguments:
        data ... the request

    Check returns:
        1 .... found; information: the row, a tuple of the columns that `retcols` asks for (without it how many
               rows there are; of a file the entry and the text behind it)
        0 .... unknown: the database does not answer
        -1 ... not found
        information: the row, else None

    Examples:
        # is the sender in the column `sender` of the table `friends`?
        modules['friends'] = ('List', {'param': 'sender', 'table': 'friends'})
        # networks from a file, read again when it changes
        modules['networks'] = ('List', {'param': 'client_address', 'file': 'networks.txt'})
        # the whole table in memory, and what is written beside the address
        modules['vips'] = ('List', {'param': 'recipient', 'table': 'vips', 'column': 'mail',
                                    'retcols': 'reason,score', 'cacheAll': True})
    """

    param: str | list[str] = parameter(help="the attribute to look up, or a list of attributes")
    table: str | None = parameter(None, "table of the database")
    column: str | list[str] | None = parameter(None, "its column, by default named as the attribute")
    retcols: str | list[str] | None = parameter(
        None, "what is returned: a column, several with commas, *, or an aggregate such as MAX(score)"
    )
    file: Path | None = parameter(None, "file of values, instead of a table")
    memCacheExpire: float = parameter(900, "accepted from 2.7; cachePositive and cacheNegative do its work")
    memCacheSize: int = parameter(1000, "accepted from 2.7; the option cacheSize does its work")

    def start(self):
        self._params = asList(self.param)
        if (self.table is None) == (self.file is None):
            raise ParamError("either table or file must be given")
        if self.file is not None:
            if len(self._params) != 1 or self.column or self.retcols:
                raise ParamError("with a file, param is one attribute, and there is no column and no retcols")
            self._source = self.opened(self.fileSource(self.file))
            return
        columns = self._params if self.column is None else asList(self.column)
        if len(columns) != len(self._params):
            raise ParamError("column must name as many columns as param names attributes")
        self._source = self.opened(self.tableSource(self.table, columns, self.retcols))
