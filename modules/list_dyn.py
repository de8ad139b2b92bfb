"""
A list that the policy itself keeps.
"""

from typing import Literal

from ppolicy.check import parameter
from ppolicy.errors import ParamError
from ppolicy.listcheck import TROUBLE, ListCheck, asList, mapped
from ppolicy.listquery import columnList


class ListDyn(ListCheck):
    """
    Adds values of the request to a table of the database, removes them, or looks whether they are there: a
    policy's own white and black lists, or a store for what it has found out. It survives restarts, and where
    several hosts share the database they share the list.

    A row may expire softly, when it should be renewed, and hard, when it is gone. The policy may give each row
    times of its own where the parameters are set, to 0 for rows that else never expire. `mapping` names the
    columns and, for a table that is created, their types.

    Check arguments:
        data ... the request
        operation ... 'check', 'add' or 'remove', instead of the parameter
        value ... with 'add': {column of retcols: what to keep beside the values}
        softExpire, hardExpire ... with 'add': seconds, instead of the parameters; 0: never

    Check returns:
        2 .... check: found, but softly expired
        1 .... check: found; add, remove: done
        0 .... unknown: the database does not answer
        -1 ... check: not found
        information: check with retcols: a list of [code, column ...] for each row found; else a text

    Examples:
        # remember who our users have written to, for a month
        modules['known'] = ('ListDyn', {'param': ['sender', 'recipient'], 'table': 'known',
                                        'hardExpire': 86400 * 30, 'operation': 'add'})
        # keep a score beside the client
        modules['scores'] = ('ListDyn', {'param': 'client_address', 'table': 'scores', 'retcols': 'score',
                                         'mapping': {'score': ('score', 'INT')}, 'softExpire': 3600})
    """

    param: str | list[str] = parameter(help="the attribute whose value is kept, or a list of attributes")
    table: str = parameter("list", "table of the database")
    retcols: str | list[str] | None = parameter(None, "columns beside the values, one or several")
    softExpire: float | None = parameter(
        None, "seconds after which a row should be renewed; 0: only where the policy says when", minimum=0
    )
    hardExpire: float | None = parameter(
        None, "seconds after which a row is gone; 0: only where the policy says when", minimum=0
    )
    mapping: dict = parameter({}, "{attribute or column: column or (column, SQL type)}")
    operation: Literal["check", "add", "remove"] = parameter("check", "what to do unless the policy says it")
    cachePositive: float = parameter(0, "not used: the list is asked each time", minimum=0)
    cacheUnknown: float = parameter(0, "not used: the list is asked each time", minimum=0)
    cacheNegative: float = parameter(0, "not used: the list is asked each time", minimum=0)

    def start(self):
        self._params = asList(self.param)
        self._returned = columnList(self.retcols) or []
        if not all(name.isidentifier() for name in self._returned):
            raise ParamError("retcols must name columns, each by itself")
        columns, types = mapped(self._params, self.mapping)
        returned, moreTypes = mapped(self._returned, self.mapping)
        (soft, hard), _ = mapped(["soft_expire", "hard_expire"], self.mapping)
        soft, hard = None if self.softExpire is None else soft, None if self.hardExpire is None else hard
        self._columns = dict(zip(self._returned, returned, strict=True))
        self._source = self.opened(self.tableSource(self.table, columns, returned, types | moreTypes, soft, hard))

    def check(self, data, operation=None, value=None, softExpire=None, hardExpire=None):
        operation = operation or self.operation
        try:
            combinations = self.values(data, self._params)
            if operation == "check":
                return self._look(combinations)
            if operation == "add":
                self._source.add(combinations, self._beside(value or {}), self._lives(softExpire, hardExpire))
                return 1, f"added to {self.table}"
            if operation == "remove":
                return 1, f"{self._source.remove(combinations)} removed from {self.table}"
        except TROUBLE as error:
            return 0, str(error)
        raise ValueError(f"there is no operation {operation!r}, only 'check', 'add' and 'remove'")

    def _look(self, combinations):
        code, rows = -1, []
        for values in combinations:
            found = self._source.find([values])
            one = self._code(found)
            if one > 0:
                rows.append([one, *found[1][: len(self._returned)]])
                code = max(code, one)
        if self._returned:
            return code, rows
        return code, f"{'found' if code > 0 else 'not found'} in {self.table}"

    def _code(self, found):
        if found is None:
            return -1
        # The seconds left stand behind the columns: until it expires softly, hard.
        soft = None if self.softExpire is None else found[1][-1 if self.hardExpire is None else -2]
        hard = None if self.hardExpire is None else found[1][-1]
        if hard is not None and hard <= 0:
            return -1
        return 2 if soft is not None and soft <= 0 else 1

    def _beside(self, value):
        unknown = [name for name in value if name not in self._columns]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not one of the retcols: {', '.join(self._columns) or 'none'}")
        return {self._columns[name]: one for name, one in value.items()}

    def _lives(self, softExpire, hardExpire):
        given = [(self.softExpire, softExpire, "softExpire"), (self.hardExpire, hardExpire, "hardExpire")]
        for configured, wanted, name in given:
            if wanted and configured is None:
                raise ValueError(f"{name} can be given here only when the parameter {name} is set, to 0 perhaps")
        return [
            configured if wanted is None else float(wanted)
            for configured, wanted, _ in given
            if configured is not None
        ]
