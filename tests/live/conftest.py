"""
Fixtures of the live tests: policy servers as processes, a real Postfix and the mail server behind it.
"""

import os
import shutil
from pathlib import Path

import pytest

from .mariadb import MariaDB
from .policyserver import Server
from .postfix import Postfix
from .smtpsink import Sink


@pytest.fixture
def makeServer():
    """
    Builds policy servers; they end with the test.
    """
    servers = []

    def make(policy, kind="tcp", **options):
        server = Server(kind)
        servers.append(server)
        server.configure(policy, **options)
        return server.start()

    yield make
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def sink():
    """
    The mail server that Postfix relays to.
    """
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture(scope="session")
def _postfix(request):
    # `.ci/run` looks for these words: a live test that was skipped is a failure there.
    if os.geteuid() != 0:
        pytest.skip("LIVE TEST SKIPPED: starting Postfix needs root")
    missing = [path for path in ("/usr/sbin/postfix", "/usr/lib/postfix/sbin/smtpd") if shutil.which(path) is None]
    if missing:
        pytest.skip(f"LIVE TEST SKIPPED: {missing[0]} is missing (Debian package postfix)")
    postfix = Postfix(request.getfixturevalue("sink").port)
    try:
        yield postfix.start()
    finally:
        postfix.stop()


@pytest.fixture
def postfix(_postfix):
    """
    The running Postfix; its log is shown when the test fails.
    """
    start = len(_postfix.log())
    yield _postfix
    print(*_postfix.log()[start:].splitlines()[-100:], sep="\n")


@pytest.fixture(scope="session")
def needsMariaDB():
    """
    For tests that start a MariaDB of their own.
    """
    if os.geteuid() != 0:
        pytest.skip("LIVE TEST SKIPPED: starting MariaDB needs root")
    programs = ("mariadb-install-db", "openssl")
    missing = [name for name in programs if shutil.which(name) is None]
    missing += [path for path in ("/usr/sbin/mariadbd",) if not Path(path).exists()]
    if missing:
        pytest.skip(f"LIVE TEST SKIPPED: {missing[0]} is missing (Debian packages mariadb-server, openssl)")


@pytest.fixture(scope="session")
def _mariadb(needsMariaDB):
    server = MariaDB()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def mariadb(_mariadb):
    """
    The running MariaDB, without any table.
    """
    _mariadb.empty()
    return _mariadb
