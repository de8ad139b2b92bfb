"""
Tests for check modules written for ppolicy 2.7.
"""

import sqlite3

import pytest

from ppolicy.Base import Base, CheckError, ParamError
from ppolicy.errors import ConfigError
from ppolicy.policy import Factory
from ppolicy.sqlite import SQLite
from ppolicy.testing import make
from tests.serving import Serving

MODULE = '''
from ppolicy.Base import Base, ParamError

class Old(Base):
    """A module as 2.7's documentation describes one."""
    PARAMS = { 'limit': ('how many', 3),
               'needed': ('has to be given', None),
               'cachePositive': (None, 60*2),
               }
    def start(self):
        if self.getParam('needed') == None:
            raise ParamError('needed has to be specified for this module')
    def hashArg(self, data, *args, **keywords):
        return hash("\\n".join(map(lambda x: "%s=%s" % (x, data.get(x, '').lower()), [ 'sender' ])))
    def check(self, data, *args, **keywords):
        what = self.dataArg(0, 'what', 'nothing', *args, **keywords)
        return 1, '%s %s %s %s' % (self.getId(), what, self.getParam('limit'), self.factory.getConfig('admin'))
'''


def serve(tmp_path, parameters):
    """A server with the old module in a folder of the site."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "Old.py").write_text(MODULE)
    return Serving(
        tmp_path,
        f"admin = 'me@example.org'\nmodulePath = ['site']\nmodules = {{'old': ('Old', {parameters})}}\n"
        "policyThreads = False\n"
        "def check(factory, data, port):\n    return 'WARN', factory.check('old', data, 'this')[1]\n",
    )


def test_oldModule(tmp_path):
    """A custom module of 2.7 works after one changed import line."""
    serving = serve(tmp_path, "{'needed': 1, 'limit': 9}")
    slot = serving.generation.slots["old"]
    assert slot.blocking
    slot.blocking = False  # no threads on a test's clock
    assert serving.ask(sender="a") == "action=WARN Old[old] this 9 me@example.org\n\n"
    assert slot.ttl == (900, 120, 900)


def test_database(tmp_path):
    """It gets a connection to the database, and gives it back."""
    serving = serve(tmp_path, "{'needed': 1}")
    factory = serving.generation.slots["old"].check.factory
    assert factory is serving.generation
    serving.server.services.state.database = SQLite(serving.clock, tmp_path / "state.sqlite")
    for one in (factory, Factory(factory)):
        connection = one.getDbConnection()
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
        one.releaseDbConnection(connection)
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_start(tmp_path):
    """Its start() may refuse."""
    with pytest.raises(ConfigError, match=r"old \(Old\): needed has to be specified"):
        serve(tmp_path, "{}")


def test_unknownParameter(tmp_path):
    """A parameter it did not declare is refused, where 2.7 only logged it."""
    with pytest.raises(ConfigError, match="limt: no such parameter, did you mean limit"):
        serve(tmp_path, "{'needed': 1, 'limt': 9}")


def test_constructor(tmp_path):
    """A constructor of its own finds the parameters and the factory, however it takes them."""
    sources = []
    for name, arguments in (("First", "*args"), ("Second", "name, factory, *args")):
        sources.append(
            f"class {name}(Base):\n    PARAMS = {{'size': ('entries', 3), 'kept': ('', None)}}\n"
            f"    def __init__(self, {arguments}, **keywords):\n"
            f"        Base.__init__(self, {arguments}, **keywords)\n"
            "        self.room = [self.getParam('size'), self.getParam('kept'), self.saveResult, self.getName(),\n"
            "                     self.factory.getConfig('admin')]\n"
            "    def check(self, data, *args, **keywords):\n        return 1, self.room\n"
        )
    serving = Serving(
        tmp_path,
        "from ppolicy.Base import Base\nadmin = 'me@example.org'\n"
        + "".join(sources)
        + "modules = {'a': (First, {'size': 7, 'saveResult': False}), 'b': (Second, {})}\n"
        "def check(factory, data, port):\n    return 'dunno'\n",
    )
    checks = [slot.check for slot in serving.generation.slots.values()]
    assert checks[0].room == [7, None, False, "a", "me@example.org"]
    assert checks[1].room == [3, None, True, "b", "me@example.org"]


class Plain(Base):
    """Has one parameter of its own."""

    PARAMS = {"one": ("a parameter", 1), "unset": ("another", None), "cacheNegative": (None, 5)}


def test_parameters():
    """getParam, setParam, setParams and getParams as ever; setParam of something undeclared raises."""
    check = make(Plain, one=2)
    assert check.getParam("one") == 2
    check.setParam("one", 3)
    assert check.getParams()["one"] == ("a parameter", 3)
    assert check.getParams()["cacheNegative"][1] == 5 == check.cacheNegative
    assert check.getParam("none", "default") == "default"
    assert (check.getParam("unset"), check.getParam("unset", "default")) == (None, "default")
    check.setParams(unset=0)
    assert check.getParam("unset", "default") == 0
    with pytest.raises(ParamError):
        check.setParam("two", 1)
    assert issubclass(ParamError, CheckError)


def test_codes():
    """The codes have names, which modules return."""
    assert (Base.CHECK_SUCCESS, Base.CHECK_UNKNOWN, Base.CHECK_FAILED) == (1, 0, -1)


@pytest.mark.parametrize(
    ("args", "keywords", "expected"),
    [
        ((), {}, "default"),
        (("place",), {}, "place"),
        ((), {"key": "name"}, "name"),
        (("x",), {"key": "name"}, "name"),
    ],
)
def test_dataArg(args, keywords, expected):
    """An argument by name, else by its place, else the default."""
    assert make(Plain).dataArg(0, "key", "default", *args, **keywords) == expected
