"""
How the ppolicy command ends: its exit codes.
"""

from ppolicy.errors import NoServer

FINE, REFUSED, USAGE, NO_SERVER, NOT_FOUND, UNWELL = range(6)
# As of a process that a signal ended (128 + its number), which is what a shell makes of it.
INTERRUPTED, HUNG_UP = 130, 141

MEANINGS = {
    FINE: "it is done, and nothing is wrong",
    REFUSED: "it was refused, or failed; what to do is said",
    USAGE: "the command line is wrong",
    NO_SERVER: "no server is running, or it cannot be reached",
    NOT_FOUND: "what was named is not there: a row, a triplet, a key, a client",
    UNWELL: "ppolicy status --check: something is wrong",
    INTERRUPTED: "interrupted by Ctrl-C",
    HUNG_UP: "who read what it printed has hung up",
}


def of(error):
    """
    The exit code for a L{PPolicyError}.
    """
    return NO_SERVER if isinstance(error, NoServer) else REFUSED


def described():
    """
    All of them as lines.
    """
    return "\n".join(f"{code:>4}  {meaning}" for code, meaning in MEANINGS.items())
