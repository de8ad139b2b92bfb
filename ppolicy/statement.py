"""
SQLAlchemy statements compiled once, for one row or for many.
"""

from itertools import chain


class Compiled:
    """
    A SQLAlchemy statement made text once, for all its executions.

    @ivar names: of its parameters, in the order of the marks.
    """

    def __init__(self, statement, dialect):
        result = statement.compile(dialect=dialect)
        self.text = str(result)
        self.names = tuple(result.positiontup or ())
        self._constants = result.params

    def __call__(self, connection, **values):
        """
        Execute it; returns the cursor.
        """
        return connection.execute(self.text, self.bound(values))

    def bound(self, values):
        """
        The values in the order of the marks.
        """
        return [values.get(name, self._constants[name]) for name in self.names]


class ManyRows:
    """
    An insert statement made for many rows at once. One step of the database takes them all; row by row the
    writing thread and the reactor would take the interpreter from each other each time.

    @param single: the L{Compiled} statement for one row, with an ON clause.
    @ivar row: the names of its parameters that belong to a row, in order; C{common} those of the ON clause.
    """

    EXACT = 64
    LARGEST = 512

    def __init__(self, single):
        self._before, _, rest = single.text.partition(" VALUES ")
        self._row, self._on, self._after = rest.partition(" ON ")
        count = self._row.count("?") + self._row.count("%s")
        self.row, self.common = single.names[:count], single.names[count:]
        self._single = single
        self._texts = {}

    def __call__(self, connection, rows, **common):
        """
        Insert rows, tuples of their values: up to 64 in one statement, more in few.

        @return: the rows that the statements give back.
        """
        after = self._single.bound(common)[len(self.row) :]
        found, start = [], 0
        while start < len(rows):
            size = len(rows) - start
            if size > self.EXACT:  # few different statements, so that SQLite keeps them prepared
                size = min(self.LARGEST, 1 << (size.bit_length() - 1))
            values = list(chain.from_iterable(rows[start : start + size] if size < len(rows) else rows))
            found += connection.execute(self._text(size), values + after).fetchall()
            start += size
        return found

    def _text(self, size):
        text = self._texts.get(size)
        if text is None:
            text = f"{self._before} VALUES {', '.join([self._row] * size)}{self._on}{self._after}"
            self._texts[size] = text
        return text
