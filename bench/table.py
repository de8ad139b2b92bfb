"""
The one table that is printed.
"""

from dataclasses import dataclass, field
from statistics import median

COLUMNS = (
    *("", "requests/s", "CPU us", "p50 us", "p90 us", "p99 us", "max us"),
    *("x floor", "CPU x", "x postgrey", "CPU x", "errors", "gates"),
)


@dataclass
class Gate:
    """
    A bound, and what was measured against it in each round; the median counts.
    """

    name: str
    values: list
    atMost: float | None = None
    atLeast: float | None = None

    def met(self):
        value = median(self.values)
        return value <= self.atMost if self.atLeast is None else value >= self.atLeast

    def __str__(self):
        bound = f">= {_short(self.atLeast)}" if self.atMost is None else f"<= {_short(self.atMost)}"
        span = f" ({_short(min(self.values))}..{_short(max(self.values))})" if len(self.values) > 1 else ""
        return f"{self.name} {_short(median(self.values))}{span} {bound} {'met' if self.met() else 'MISSED'}"


@dataclass
class Row:
    """
    One line: samples by round, those of the floor and of postgrey in the same rounds, gates and notes.
    """

    title: str
    samples: list = field(default_factory=list)
    floor: list | None = None
    postgrey: list | None = None
    gates: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def errors(self):
        return sum(sample.errors for sample in self.samples)

    def cells(self):
        """
        The texts of all columns.
        """
        last = "; ".join([*map(str, self.gates), *self.notes])
        if not self.samples:
            return [self.title, *[""] * (len(COLUMNS) - 2), last]
        times = [self._median(name, ",.0f") for name in ("p50", "p90", "p99", "worst")]
        return [
            *(self.title, self._median("rate", ",.0f"), self._median("cpu", ".1f"), *times),
            *(*self._ratios(self.floor), *self._ratios(self.postgrey), f"{self.errors():.0f}", last),
        ]

    def _median(self, name, form):
        return format(median(getattr(sample, name) for sample in self.samples), form)

    def _ratios(self, others):
        if not others:
            return "", ""
        return [f"{median(ratios(self.samples, others, name)):.2f}" for name in ("rate", "cpu")]


def _short(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def ratios(ours, theirs, name):
    """
    The ratio of one number within each round.
    """
    pairs = zip(ours, theirs, strict=True)
    return [getattr(one, name) / (getattr(other, name) or float("nan")) for one, other in pairs]


def render(rows):
    """
    The table as text.
    """
    lines = [list(COLUMNS), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells, widths):
    first, *numbers, last = cells
    middle = "  ".join(number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True))
    return f"{first.ljust(widths[0])}  {middle}  {last}".rstrip()
