"""
Wait a while: to slow a client down, or to see how a server bears slow checks.
"""

from twisted.internet.defer import Deferred

from ppolicy.check import Check, parameter, timeLeft, wait


class Sleep(Check):
    """
    Wait before the request is answered. Other requests are served meanwhile, any number of them.

    A client kept waiting at RCPT (tarpitting) holds one of Postfix's smtpd processes; a few seconds are
    plenty. The wait never reaches the request's deadline.

    Check arguments:
        data ... the request; nothing of it is used

    Check returns:
        1 .... after the wait
        information: the seconds waited

    Examples:
        # the second that 2.7 waited
        modules['sleep'] = ('Sleep', {})
        # five seconds
        modules['tarpit'] = ('Sleep', {'sleep': 5})
    """

    sleep: float = parameter(1, "seconds to wait", minimum=0, maximum=100)
    cachePositive: float = parameter(0, "not used: every request waits", minimum=0)
    cacheUnknown: float = parameter(0, "not used", minimum=0)
    cacheNegative: float = parameter(0, "not used", minimum=0)

    def check(self, data):
        seconds = min(self.sleep, max(0, timeLeft() - 0.1))
        try:
            wait(Deferred(), seconds)
        except TimeoutError:
            pass  # that is what we waited for
        return 1, seconds
