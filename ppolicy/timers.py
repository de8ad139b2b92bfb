"""
Work that is done again and again.
"""


class Timers:
    """
    Calls functions from time to time, until it is stopped; one that raises is called again all the same.

    @param bridge: has the reactor.
    """

    def __init__(self, bridge):
        self._bridge = bridge
        self._calls = {}

    def every(self, seconds, function):
        """
        Call a function each time that so many seconds have passed.
        """

        def again():
            self.every(seconds, function)
            function()

        self._calls[function] = self._bridge.reactor.callLater(seconds, again)

    def stop(self):
        """
        Call nothing any more.
        """
        for call in self._calls.values():
            if call.active():
                call.cancel()
        self._calls.clear()
