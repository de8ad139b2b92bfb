"""
Assembles the server for `twistd -y ppolicy.tac`; everything else is in the package.
"""

import sys
from pathlib import Path

here = Path(__file__).absolute().parent
if (here / "ppolicy" / "__init__.py").is_file():  # a bare checkout: twistd puts no folder on the path
    sys.path.insert(0, str(here))

from ppolicy import config, reading, service, signals  # noqa: E402
from ppolicy.errors import ConfigError  # noqa: E402

signals.hold()
try:
    application = service.makeApplication(config.load(reading.find(beside=here)))
except ConfigError as error:
    raise SystemExit(str(error)) from None
