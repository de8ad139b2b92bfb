"""
Secrets that systemd keeps for the server (LoadCredential= and its kin), wherever a path of a file is wanted:
`credential:NAME`.
"""

import os
from pathlib import Path

from ppolicy.errors import ConfigError

PREFIX = "credential:"


def locate(text):
    """
    The file of C{credential:NAME} in C{$CREDENTIALS_DIRECTORY}; None for any other text.

    @raises ConfigError: when there is no such credential.
    """
    if not str(text).startswith(PREFIX):
        return None
    name = str(text).removeprefix(PREFIX)
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ConfigError(f"{text!r}: a credential has the name of a file, as in LoadCredential=NAME:/path")
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise ConfigError(
            f"{text}: systemd has passed no credentials: add LoadCredential={name}:/path/of/the/file to the unit; "
            "without systemd, set CREDENTIALS_DIRECTORY to the folder with this file"
        )
    path = Path(folder) / name
    if not path.exists():
        raise ConfigError(
            f"{text}: there is no {name} in {folder}: add LoadCredential={name}:/path/of/the/file to the unit"
        )
    return path
