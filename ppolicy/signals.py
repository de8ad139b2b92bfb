"""
SIGTERM and SIGHUP, in every moment of the server's life.

Before C{take()} SIGTERM ends the process at once, as ever: nothing is half done then.
"""

import signal


class _Held:
    """
    Keeps a signal for later.
    """

    came = False

    def __call__(self, *_):
        self.came = True


def hold():
    """
    From now on a SIGHUP does not end the process: the server that starts will obey it.
    """
    if not isinstance(signal.getsignal(signal.SIGHUP), _Held):
        signal.signal(signal.SIGHUP, _Held())


def take(reactor, terminate, hangUp):
    """
    From now on both are obeyed, by functions that are called in the reactor's turn: C{terminate} but once.
    """
    held = signal.getsignal(signal.SIGHUP)
    terminated = []

    def once():
        if not terminated:
            terminated.append(True)
            terminate()

    # Twisted's own way with SIGTERM would end the process by that signal; exit 0 says that it was clean.
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(once))
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(hangUp))
    if isinstance(held, _Held) and held.came:
        hangUp()
