"""
The check module to copy: it does nothing, in the way every check module does something.
"""

from ppolicy.check import Check, parameter


class Dummy(Check):
    """
    Answer every request alike. To begin a module of your own, copy this file and its test.

    Check arguments:
        data ... the request; nothing of it is used

    Check returns:
        0 .... always
        information: 'dummy'

    Examples:
        # with default parameters
        modules['dummy1'] = ('Dummy', {})
        # with parameters of its own, its results kept for a minute
        modules['dummy2'] = ('Dummy', {'test1': 'one', 'test2': 'two', 'cacheUnknown': 60})
    """

    test1: str | int | None = parameter(None, "a parameter without a value")
    test2: str = parameter("abc", "a parameter with a default value")

    def hashArg(self, data):
        return "dummy"

    def check(self, data):
        return 0, "dummy"
