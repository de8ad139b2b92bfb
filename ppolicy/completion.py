"""
What a shell offers behind a word of the command that is not finished yet.
"""

import io
from contextlib import redirect_stderr, redirect_stdout

from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
# Where the chosen configuration is kept among what a command knows.
CONFIGURATION = "ppolicy.configuration"


def script(command, shell):
    """
    The script that makes a shell ask C{ppolicy} what may come next.
    """
    return get_completion_class(shell)(command, {}, "ppolicy", "_PPOLICY_COMPLETE").source()


def checks(family=None):
    """
    Offers the names of the configured checks, of one family or all.
    """

    def offer(context, parameter, incomplete):
        names = _names(context.meta.get(CONFIGURATION), family)
        return [name for name in names if name.startswith(incomplete)]

    return offer


def _names(path, family):
    """
    Nothing that is wrong with a configuration may disturb the line that is being typed.
    """
    from ppolicy import config, reading

    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            specs = config.load(reading.find(path)).specs
    except Exception:  # noqa: BLE001 - a configuration is a program
        return []
    return [spec.name for spec in specs if family is None or spec.cls.family == family]
