"""
How far the bench is: a bar on a terminal, lines elsewhere.
"""

import sys

import click

_bars = []  # those that are on the terminal


def note(text):
    """
    Print a line about one measurement.
    """
    if _bars:  # what stands in the line of the bar, which is drawn again with the next step
        click.echo("\r\x1b[K", nl=False, err=True)
    print(text, file=sys.stderr)


class Progress:
    """
    @param lines: how many lines will be measured.
    """

    def __init__(self, lines):
        self._name = ""
        self._bar = None
        if sys.stderr.isatty():
            self._bar = click.progressbar(
                length=lines, label="bench", file=sys.stderr, item_show_func=lambda item: item or ""
            )

    def __enter__(self):
        if self._bar is not None:
            self._bar.__enter__()
            _bars.append(self._bar)
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            _bars.remove(self._bar)
            self._bar.__exit__(*error)

    def begin(self, name):
        """
        A line is begun.
        """
        self._name = name
        self._say(name)

    def round(self, number, rounds):
        """
        A round of it is begun.
        """
        self._say(f"{self._name}, round {number} of {rounds}" if self._bar else f"round {number} of {rounds}")

    def end(self):
        """
        It is measured.
        """
        if self._bar is not None:
            self._bar.update(1, self._name)

    def _say(self, text):
        if self._bar is None:
            print(text, file=sys.stderr)
        else:
            self._bar.update(0, text)
            self._bar.render_progress()
