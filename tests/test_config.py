"""
Tests for reading ppolicy.conf: whatever is wrong in it is said at once, in a sentence, with its line.
"""

import logging
import os
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from ppolicy import config, foresight, listeners, offline, reading, statefolder
from ppolicy.check import Check, parameter
from ppolicy.errors import ConfigError
from ppolicy.options import Options
from ppolicy.parameter import Parameters, didYouMean, shown
from ppolicy.policy import Factory as PolicyFactory
from ppolicy.registry import Registry, bundledFolder, fileName, package
from tests.serving import Serving

POLICY = """
def check(factory, data, port):
    return 'dunno'
"""

BUNDLED = bundledFolder()
CLASS = "from ppolicy.check import Check, parameter\n"

# A site's module with a parameter of each type.
TYPED = """\
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ppolicy.check import Check, parameter


class Typed(Check):
    truth: bool = parameter(False, "a truth")
    whole: int = parameter(5, "a whole number", minimum=1, maximum=10)
    number: float = parameter(1, "a number", minimum=0.5, maximum=2.5)
    text: str = parameter("abc", "a text")
    path: Path = parameter("typed.dat", "a path")
    several: list[int] = parameter([], "several numbers")
    pair: tuple[str, int] = parameter(("a", 1), "a text and a number")
    many: tuple[str, ...] = parameter((), "texts")
    table: dict[str, int] = parameter({}, "numbers by name")
    choice: Literal["mx", 25, None] = parameter("mx", "one of three")
    function: Callable | None = parameter(None, "a function")
    maybe: int | None = parameter(None, "a number or nothing")
    either: str | list[str] = parameter("a", "one text or several")
    count: bool | float | int = parameter(False, "a number or not at all")
    place: Path | None = parameter(None, "a path or nothing")
    plain: dict = parameter({}, "a dictionary")
    anything: Any = parameter(None, "whatever")
    bare = parameter(None, "whatever")
    secret: str | None = parameter(None, "a password", secret=True)
    pin: int | None = parameter(None, "a secret number", secret=True, minimum=1000)
    timeout: float = parameter(5, "seconds to wait")

    def check(self, data):
        return 1, None
"""

DATA = Path(__file__).parent / "data" / "broken.txt"

# What only octets, or no file at all, can show: the content of ppolicy.conf, the mistake.
OCTETS = {
    "tabs": (
        b"if True:\n        a = 1\n\tb = 2\n",
        "3: TabError: inconsistent use of tabs and spaces in indentation",
    ),
    "NUL": (
        b"connLimit = 5\nadmin = 'post\0master'\n",
        "2: cannot be read as text, save it in UTF-8: there is a NUL character in it",
    ),
    "UTF-16": (
        "connLimit = 5\n".encode("utf-16-le"),
        "1: cannot be read as text, save it in UTF-8: there is a NUL character in it",
    ),
    "Latin-1": (
        b"connLimit = 5\ncacheSize = 7\n# caf\xe9 au lait\n",
        "3: cannot be read as text, save it in UTF-8: 'utf-8' codec can't decode byte 0xe9 in position 33: "
        "invalid continuation byte",
    ),
    "Latin-1 at once": (
        b"# caf\xe9 au lait\nconnLimit = 5\n",
        "1: cannot be read as text, save it in UTF-8: invalid or missing encoding declaration",
    ),
    "unknown encoding": (
        b"# coding: klingon\n",
        "-: cannot be read as text, save it in UTF-8: unknown encoding: klingon",
    ),
    "no text encoding": (
        b"# coding: hex\n",
        "-: cannot be read as text, save it in UTF-8: 'hex' is not a text encoding; use codecs.decode() to handle "
        "arbitrary codecs",
    ),
    "missing": (None, "-: cannot be read: No such file or directory"),
    "folder": (Path(), "-: cannot be read: Is a directory"),
    "loop": (Path("ppolicy.conf"), "-: cannot be read: Too many levels of symbolic links"),
}


def kinds():
    """
    {name: (content of ppolicy.conf, its mistakes, other files)} of all kinds of broken configurations.
    """
    found = {name: (content, [mistake], {}) for name, (content, mistake) in OCTETS.items()}
    for block in DATA.read_text(encoding="utf-8").split("\n=== ")[1:]:
        name, _, block = block.partition("\n")
        content, _, mistakes = block.partition("---\n")
        content, *others = content.split("+++ ")
        if not name.endswith("(no policy)"):
            content += POLICY
        assert name not in found, f"{name} is there twice"
        found[name] = (
            content,
            mistakes.partition("\n\n")[0].splitlines(),
            dict(one.split("\n", 1) for one in others),
        )
    return found


def write(folder, content, files=()):
    """
    Write ppolicy.conf, octets or a text, and other files beside it.

    @param content: None writes no ppolicy.conf, and a path makes it a link there; the empty path makes a folder.
    @return: the path of ppolicy.conf.
    """
    path = folder / "ppolicy.conf"
    if content == Path():
        path.mkdir()
    elif isinstance(content, Path):
        path.symlink_to(content)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, text in dict(files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return path


def said(mistakes, folder):
    """
    Mistakes or warnings as C{line: sentence}, whatever folders they are in.
    """
    assert {one.file for one in mistakes} <= {folder / "ppolicy.conf"}
    text = "\n".join(f"{one.line or '-'}: {one.sentence}" for one in mistakes)
    text = text.replace(str(folder), "FOLDER").replace(str(BUNDLED), "BUNDLED")
    return re.sub("x{50,}", "x…", text).splitlines()


def load(folder, text, files=()):
    """
    Load a configuration; a policy is appended when it has none.
    """
    text = textwrap.dedent(text).lstrip("\n")
    return config.load(write(folder, text if "def check(factory" in text else text + POLICY, files))


@pytest.fixture(autouse=True)
def noRemains():
    """
    A test's modules are not there for the next one.
    """
    before = list(package().__path__)
    yield
    package().__path__[:] = before
    for name in [name for name in sys.modules if re.match(r"ppolicy\.modules\.(my_check|MyCheck|typed)$", name)]:
        del sys.modules[name]


KINDS = kinds()


class TestBroken:
    @pytest.fixture(params=KINDS)
    def kind(self, request, tmp_path):
        """
        The path of a broken configuration, and its mistakes.
        """
        content, mistakes, files = KINDS[request.param]
        (tmp_path / "folder").mkdir()
        return write(tmp_path, content, {"file": "", "site/typed.py": TYPED, **files}), mistakes

    def test_mistakes(self, kind):
        """Each kind of broken configuration is refused with all its mistakes, in order, and with nothing else."""
        path, mistakes = kind
        with pytest.raises(ConfigError) as raised:
            config.load(path)
        assert said(raised.value.mistakes, path.parent) == mistakes != []

    def test_glance(self, kind):
        """However broken a configuration is, it can be asked where its server listens for commands."""
        path, _ = kind
        glanced = reading.glance(path)
        assert (glanced.path, glanced.folder) == (path, path.parent)
        assert statefolder.controlPath(glanced).is_absolute()

    def test_kinds(self):
        """There are a hundred kinds and more, all of them different."""
        assert len(KINDS) >= 100
        assert len({(content, *files.items()) for content, _, files in KINDS.values()}) == len(KINDS)

    def test_parentheses(self, tmp_path):
        """So many parentheses are too many for Python, whose sentence is told."""
        with pytest.raises(ConfigError, match=r"ppolicy\.conf:1: SyntaxError: too many nested parentheses"):
            load(tmp_path, "a = " + "(" * 300 + ")" * 300)

    def test_lines(self, tmp_path):
        """The text of the error has one line for each mistake: file, line and sentence."""
        with pytest.raises(ConfigError) as raised:
            load(tmp_path, "conLimit = 5\ncacheSize = -1")
        path = tmp_path / "ppolicy.conf"
        assert str(raised.value).splitlines() == [
            f"{path}:1: conLimit is no option, did you mean connLimit?",
            f"{path}:2: cacheSize: must be at least 0, not -1",
        ]

    @pytest.mark.parametrize("depth", ["1 + " * 100_000 + "1", "-" * 100_000 + "1"])
    def test_deep(self, depth, tmp_path):
        """A text that is too much for Python's compiler is a mistake like any other."""
        with pytest.raises(ConfigError, match=r"ppolicy\.conf: (Recursion|Memory)Error"):
            load(tmp_path, f"a = {depth}")

    def test_octal(self, tmp_path):
        """An octal number of Python 2 is a syntax error with its line."""
        with pytest.raises(ConfigError, match=r"ppolicy\.conf:2: SyntaxError: leading zeros"):
            load(tmp_path, "connLimit = 5\nmode = 0660")

    def test_impossibleName(self):
        """A file that cannot exist is not there."""
        with pytest.raises(ConfigError, match="cannot be read: embedded null"):
            config.load("/tmp/a\0b")

    def test_nothingExecutedBeforeASyntaxError(self, tmp_path):
        """A syntax error anywhere keeps the whole file from being run."""
        with pytest.raises(ConfigError, match="'return' outside function"):
            load(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w').close()\nreturn")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "text",
        [
            "database = 'hunter2'",
            "database = ['hunter2']",
            "database = {1: 'hunter2'}",
            "database = {'host': 'localhost', 'passwd': 'hunter2'}\nconLimit = 5",
            "database = 'mysql+pymysql://me:hunter2@localhost/mail'\nconLimit = 5",
            "database = 'postgresql://me:hunter2@localhost/mail'",
            "database = 'postgresql:me:hunter2'",
            "database = 'sqlite://me:hunter2@localhost/mail'",
            "databse = {'passwd': 'hunter2'}",
            "modules = [('Typed', {'secret': 'hunter2'})]",
            "modules = {'a': {'secret': 'hunter2'}}",
            "modules = {'a': ('Typed', 'hunter2')}",
            "modules = {'a': ({'secret': 'hunter2'}, 'Typed')}",
            "modules = {'a': (['hunter2'], {})}",
            "modules = {'a': ('Typed', {'secret': ['hunter2']})}",
            "modules = {'a': ('Typed', {'secret': b'hunter2'})}",
            "modules = {'a': ('Typed', {'secre': 'hunter2'})}",
            "modules = {'a': ('Typed', {'secret': 'hunter2', 'secret': 'hunter2'})}",
            "modules = {'a': ('Typed', {'secret': 'hunter2', 'whole': 0})}",
        ],
    )
    def test_secrets(self, text, tmp_path):
        """No sentence shows any of a secret, whatever is wrong with it or beside it."""
        with pytest.raises(ConfigError) as raised:
            load(tmp_path, f"modulePath = 'site'\n{text}", {"site/typed.py": TYPED})
        assert raised.value.mistakes and "hunter2" not in str(raised.value)

    def test_secretNumbers(self, tmp_path):
        """A secret that is a number is not shown either, not even when it is out of bounds."""
        text = "database = 4711\nmodulePath = 'site'\nmodules['a'] = ('Typed', {'pin': 471})"
        with pytest.raises(ConfigError) as raised:
            load(tmp_path, text, {"site/typed.py": TYPED})
        assert said(raised.value.mistakes, tmp_path) == [
            "1: database: must be a text or a dictionary {a text: anything} or None, not a whole number",
            "3: a (Typed): pin: must be at least 1000, not a whole number",
        ]

    def test_dnsTrusted(self, tmp_path):
        """Who is trusted is an address, without a port."""
        assert load(tmp_path, "dnsTrusted = ['192.0.2.53', '2001:db8::53']").warnings == []
        with pytest.raises(ConfigError, match="dnsTrusted: '192.0.2.53:53' does not appear to be"):
            load(tmp_path, "dnsTrusted = ['192.0.2.53:53']")

    def test_restrictionOfACheck(self, tmp_path):
        """A restriction class that a check would answer is one that Postfix is known to have."""
        text = "modules = {\n 'spf': ('SPF', {\n  'mailFromPassRestriction': 'trusted'})}\n"
        with pytest.raises(ConfigError) as raised:
            load(tmp_path, text)
        assert said(raised.value.mistakes, tmp_path) == [
            "3: spf (SPF): mailFromPassRestriction: 'trusted' is no action, no restriction and not in"
            " restrictionClasses"
        ]
        load(tmp_path, f"{text}restrictionClasses = ['trusted']")

    def test_dnsServers(self, tmp_path):
        """Each name server that is none is named, with what it can be."""
        with pytest.raises(ConfigError) as raised:
            load(tmp_path, "dnsServers = ['192.0.2.1', 'ns.example.org', '[::1]:99999']")
        form = "is none of 'address', 'address:port', '[v6]:port'"
        assert said(raised.value.mistakes, tmp_path) == [
            f"1: dnsServers: 'ns.example.org' {form}",
            f"1: dnsServers: '[::1]:99999' {form}",
        ]


class Odd:
    """
    An object with which nothing can be done.
    """

    def raises(self, *args):
        raise ZeroDivisionError

    __repr__ = __str__ = __eq__ = __len__ = __iter__ = __format__ = __getattr__ = raises
    __hash__ = object.__hash__


class OddDict(dict):
    """
    A dictionary in which nothing can be found.
    """

    items = keys = values = __iter__ = Odd.raises


def nested(depth):
    """
    A list in a list in a list …
    """
    inner = []
    for _ in range(depth):
        inner = [inner]
    return inner


ENDLESS = []
ENDLESS.append(ENDLESS)

CARELESS = [
    *(None, True, -1, 0, 10**400, -(10**5000), 0.0, float("nan"), float("inf"), 1j, b"x", ..., object(), object),
    *("", " ", "x", "x" * 5000, "9" * 5000, "\0", "\ud800", "~nosuch/x", "/", "/etc/passwd/x", "sqlite:///\0"),
    *("unix:\0", "unix:\ud800", "tcp:\ud800", "sqlite:///\ud800", "sqlite:///" + "x" * 5000, "mysql:"),
    *([], [None], [[]], [""], ["\0"], ["\ud800"], ["x" * 5000], [Odd()], ENDLESS, nested(20_000)),
    *((), ("450",), ("450", None), ("450", object()), (object(), object()), (5, []), ("Dummy", OddDict(x=5))),
    *({}, {None: None}, {"": ""}, {(): ()}, {"x": Odd()}, OddDict(x=5), set(), range(3), (one for one in ())),
    *(type, len, iter, dict, lambda: 1, Odd, Odd(), Check, Check("x"), sys, Path("x"), Path("\0"), Path("\ud800")),
]


class TestCareless:
    @pytest.mark.parametrize("name", [*Options.declared(), "nosuch"])
    def test_options(self, name, tmp_path, monkeypatch):
        """Whatever an option is set to, the configuration is loaded or refused with a ConfigError."""
        self.tryAll(tmp_path, monkeypatch, f"{name} = value\n{POLICY}")

    @pytest.mark.parametrize(
        "text",
        [
            *("modules['a'] = value", "modules['a'] = (value, {})", "modules['a'] = ('Dummy', value)"),
            *("modules['a'] = ('Dummy', {'test1': value})", "raise value", "check = value", "del value"),
        ],
    )
    def test_others(self, text, tmp_path, monkeypatch):
        """Whatever stands anywhere else, the same is true."""
        self.tryAll(tmp_path, monkeypatch, text if "check" in text else f"{text}\n{POLICY}")

    @pytest.mark.parametrize("text", ["modules[value] = ('Dummy', {})", "modules['a'] = ('Dummy', {value: 5})"])
    def test_keys(self, text, tmp_path, monkeypatch):
        """Whatever is a name, the same is true."""
        self.tryAll(
            tmp_path,
            monkeypatch,
            f"try:\n    hash(value)\nexcept TypeError:\n    pass\nelse:\n    {text}\n{POLICY}",
        )

    @pytest.mark.parametrize("name", re.findall(r"^    (\w+).* = parameter", TYPED, re.MULTILINE))
    def test_parameters(self, name, tmp_path, monkeypatch):
        """Whatever a parameter is set to, the same is true."""
        write(tmp_path, None, {"site/typed.py": TYPED})
        text = f"modulePath = 'site'\nmodules['a'] = ('Typed', {{{name!r}: value}})\n{POLICY}"
        self.tryAll(tmp_path, monkeypatch, text)

    def tryAll(self, folder, monkeypatch, text):
        """
        Load a configuration with each of the careless values in turn.
        """
        path = write(folder, f"from careless import value\n{text}")
        for value in CARELESS:
            careless = ModuleType("careless")
            careless.value = value
            monkeypatch.setitem(sys.modules, "careless", careless)
            try:
                config.load(path)
            except ConfigError as error:
                assert error.mistakes and all(one.sentence for one in error.mistakes)
            reading.glance(path)


# Start: text, the refusals.
STARTS = {
    "ConfigError": ("raise ConfigError('the file is empty')", ["the file is empty"]),
    "several": ("raise ConfigError('no file', 'no network')", ["no file", "no network"]),
    "ParamError": ("raise ParamError('limit: is too small')", ["limit: is too small"]),
    "OSError": (
        "open('/nosuch/file')",
        ["start() failed with FileNotFoundError: [Errno 2] No such file or directory: '/nosuch/file'"],
    ),
    "bug": ("None.upper()", ["start() failed with AttributeError: 'NoneType' object has no attribute 'upper'"]),
    "wait": ("wait(None)", None),
}


class TestStart:
    @pytest.mark.parametrize("name", STARTS)
    def test_refusal(self, name, tmp_path):
        """A check that refuses to start is named with type, file and line, and what it has to say."""
        body, sentences = STARTS[name]
        configuration = load(
            tmp_path,
            f"""
            from ppolicy.check import Check, wait
            from ppolicy.errors import ConfigError, ParamError

            class Mine(Check):
                def start(self):
                    {body}
                def check(self, data):
                    return 1, None

            modules = {{
                'mine': (Mine, {{}}),
            }}
            """,
        )
        with pytest.raises(ConfigError) as raised:
            offline.start(configuration)
        found = said(raised.value.mistakes, tmp_path)
        if sentences is None:
            assert len(found) == 1 and found[0].startswith("11: mine (Mine): start() failed with WaitError: ")
        else:
            assert found == [f"11: mine (Mine): {sentence}" for sentence in sentences]

    def test_all(self, tmp_path):
        """All checks that refuse do so together, and those that had started are stopped again."""
        configuration = load(
            tmp_path,
            """
            from ppolicy.check import Check
            from ppolicy.errors import ParamError

            stopped = []

            class Good(Check):
                def check(self, data):
                    return 1, None
                def stop(self):
                    stopped.append(self.name)

            class Bad(Good):
                def start(self):
                    raise ParamError(f'{self.name} is no good')

            modules['good1'] = (Good, {})
            modules['bad1'] = (Bad, {})
            modules['good2'] = (Good, {})
            modules['grey'] = ('Greylist', {'delay': 60, 'mustRetry': 30})
            modules['file'] = ('DumpDataFile', {'fileName': 'dump'})
            modules['bad2'] = (Bad, {})
            """,
        )
        with pytest.raises(ConfigError) as raised:
            offline.start(configuration)
        assert said(raised.value.mistakes, tmp_path) == [
            "17: bad1 (Bad): bad1 is no good",
            "19: grey (Greylist): mustRetry (30) must be longer than delay (60)",
            "21: bad2 (Bad): bad2 is no good",
        ]
        assert sorted(sys.modules[reading.MODULE_NAME].stopped) == ["good1", "good2"]

    def test_good(self, tmp_path):
        """Checks that start well are stopped again, and leave nothing behind."""
        offline.start(
            load(tmp_path, "modules = {'g': ('Greylist', {}), 'f': ('DumpDataFile', {'fileName': 'dump'})}")
        )
        assert [path.name for path in tmp_path.iterdir()] == ["ppolicy.conf"]


OLD = """\
# A configuration of ppolicy 2.7
import logging

logLevel = logging.DEBUG
admin = 'postmaster@example.org'
domain = 'example.org'

databaseAPI = 'MySQLdb'
database = {
    'host': 'localhost', 'port': 3306, 'db': 'ppolicy', 'user': 'ppolicy', 'passwd': 'secret',
    'cp_min': 1, 'cp_max': 5, 'cp_noisy': False,
}

commandPort = 10030
ppolicyPort = [10031, 10032]

cacheEngine = 'memcache'
cacheSize = 50000
cacheServers = ['127.0.0.1:11211', '127.0.0.1:11212']

stateFile = '/var/lib/ppolicy/state'
basePath = '/usr/share/ppolicy'
usePsyco = True

connLimit = 100
returnOnConnLimit = ('450', 'reached connection limit to ppolicy, retry later')
returnOnFatalError = ('450', 'fatal error in ppolicy, retry later')

modules = {}
modules['greylist1'] = ('Greylist', {'table': 'greylist', 'delay': 10 * 60})
modules['dummy1'] = ('Dummy', {'test1': None, 'cachePositive': 60, 'saveResultPrefix': 'result_'})


def check(factory, data, port):
    logging.getLogger().log(logging.DEBUG, 'check')
    if port.port == 10032:
        return 'dunno', ''
    code, info = factory.check('dummy1', data)
    if code < 0:
        return '450', 'no'
    return 'dunno', factory.getConfig('admin')
"""


class TestOld:
    def test_warnings(self, tmp_path):
        """A configuration that sets every option of 2.7 loads, with one warning for each that has no work left."""
        configuration = load(tmp_path, OLD)
        assert said(configuration.warnings, tmp_path) == [
            "8: databaseAPI is ignored: the driver follows from database",
            "9: database: cp_min is ignored: connections are made as they are needed",
            "9: database: cp_max is ignored: connections are made as they are needed",
            "9: database: cp_noisy is ignored: connections are made as they are needed",
            "14: commandPort is ignored: the evaluating command port is gone, use the ppolicy command",
            "17: cacheEngine 'memcache' is not there yet: the local cache is used",
            "21: stateFile is ignored: state is kept in the database",
            "22: basePath is ignored: modules are found through modulePath",
            "23: usePsyco is ignored: Psyco is gone",
        ]

    def test_values(self, tmp_path):
        """getConfig() gives a policy back what the options were set to."""
        serving = Serving(tmp_path, OLD)
        written = vars(sys.modules[reading.MODULE_NAME])
        for name in (
            *("logLevel", "admin", "domain", "databaseAPI", "database", "commandPort", "ppolicyPort"),
            *("cacheEngine", "cacheSize", "cacheServers", "stateFile", "basePath", "usePsyco", "connLimit"),
            *("returnOnConnLimit", "returnOnFatalError", "modules"),
        ):
            assert serving.generation.getConfig(name) == written[name], name
        assert serving.generation.getConfig("nosuch", 5) == 5

    def test_answers(self, tmp_path):
        """Its policy and its checks work."""
        configuration = load(tmp_path, OLD)
        assert [(spec.name, spec.cls.__name__, spec.line) for spec in configuration.specs] == [
            ("greylist1", "Greylist", 30),
            ("dummy1", "Dummy", 31),
        ]
        assert configuration.specs[0].parameters["delay"] == 600
        assert Serving(tmp_path, OLD).ask(sender="a@example.net") == "action=dunno postmaster@example.org\n\n"

    def test_noneIsAnOptionToo(self, tmp_path):
        """What 2.7 left unset stays unset, without a warning."""
        assert load(tmp_path, "database = None\nppolicyPort = 10031").warnings == []


# Warnings: text, files, what is said.
ASKING = """from ppolicy.check import Check
class Lists(Check):
    asksLists = True
    def check(self, data):
        return 0, ''
modules = {'lists': (Lists, {})}
"""
WARNINGS = {
    "public resolver": (
        ASKING + "dnsServers = ['127.0.0.1', '8.8.8.8:53']",
        {},
        [
            "7: dnsServers: many DNS lists refuse 8.8.8.8, a resolver for everybody; have a caching one on this"
            " host, see docs/dns.md"
        ],
    ),
    "public resolver, no lists": ("dnsServers = ['8.8.8.8']", {}, []),
    "own resolver": (ASKING + "dnsServers = ['127.0.0.1', '192.0.2.53:5353']", {}, []),
    "unused": ("colour = 'red'", {}, ["1: colour is no option, and nothing uses it"]),
    "unused twice": (
        "shades = 5\n\ncolour = 'red'",
        {},
        ["1: shades is no option, and nothing uses it", "3: colour is no option, and nothing uses it"],
    ),
    "written only": (
        "counter = 0\ncounter += 1\n",
        {},
        ["2: counter is no option, and nothing uses it"],
    ),
    "unused in a condition": (
        "if True:\n    colour = 'red'\n",
        {},
        ["2: colour is no option, and nothing uses it"],
    ),
    "replaced": (
        "requestTimeout = 5\nmodules = {'a': ('Dummy', {})}\nrequestTimeout = 6\n\n"
        "def check(factory, data, port):\n    return 'reject'\n\nmodules = {}\n\n"
        "def check(factory, data, port):\n    return 'dunno'",
        {},
        [
            "1: requestTimeout is there again in line 3: this one has no effect",
            "2: modules is there again in line 8: this one has no effect",
            "5: check is there again in line 10: this one has no effect",
        ],
    ),
    "used before it is replaced": (
        "import socket\nconnLimit = 5\nif socket.gethostname() == 'mx1':\n    connLimit = 6\n"
        "modules = {'a': ('Dummy', {})}\nmodules = dict(modules)\nppolicyPort = [10031]\nppolicyPort += [10032]\n"
        "def logged(function):\n    return function\n\n"
        "def check(factory, data, port):\n    return 'ok'\n\nold = check\n\n"
        "def check(factory, data, port):\n    return old(factory, data, port)\n\ncheck = logged(check)",
        {},
        [],
    ),
    "used by the policy": (
        "quiet = ['a']\n\ndef check(factory, data, port):\n    return 'ok' if 'a' in quiet else 'dunno'",
        {},
        [],
    ),
    "used by an option": ("number = 5\nconnLimit = number * 2", {}, []),
    "private": ("_colour = 'red'\n__version__ = 5", {}, []),
    "taken back": ("colour = 'red'\ndel colour", {}, []),
    "annotation only": ("colour: str\nconnLimit: int", {}, []),
    "function": ("def colour():\n    pass", {}, []),
    "lambda": ("colour = lambda: 'red'", {}, []),
    "class": ("class Colour:\n    red = 5", {}, []),
    "imports": ("import logging, os.path\nfrom time import time, timezone\nfrom errno import *", {}, []),
    "function like an option": ("def domains(data):\n    return []", {}, []),
    "class like an option": ("class modulePaths:\n    pass", {}, []),
    "import like an option": ("from time import time as requestTimeouts", {}, []),
    "imported value like an option": ("from math import pi as connLimits", {}, []),
    "assigned function like an option": ("def find():\n    pass\n\ndomains = find", {}, []),
    "function named like an option": (
        "def user(data):\n    return data\n\ndef domain():\n    pass\n\nimport os as group",
        {},
        [],
    ),
    "loop": ("for port in (1, 2):\n    pass\nwith open('/dev/null') as file:\n    pass", {}, []),
    "timeout": (
        "requestTimeout = 20\nmodulePath = 'site'\nmodules = {\n    't': ('Typed', {\n        'timeout': 20}),\n}",
        {"site/typed.py": TYPED},
        ["5: t (Typed): timeout is not below requestTimeout, which ends it after 20 s"],
    ),
    "timeout by default": (
        "requestTimeout = 2.5\nmodulePath = 'site'\nmodules['t'] = ('Typed', {})",
        {"site/typed.py": TYPED},
        ["3: t (Typed): timeout is not below requestTimeout, which ends it after 2.5 s"],
    ),
    "timeout below": (
        "requestTimeout = 20\nmodulePath = 'site'\nmodules['t'] = ('Typed', {'timeout': 19.9})",
        {"site/typed.py": TYPED},
        [],
    ),
    "timeout of 2.7": (
        "from ppolicy.Base import Base\nclass Old(Base):\n    PARAMS = {'timeout': ('', 10 ** 400)}\n"
        "    def check(self, data):\n        return 1, None\n\nmodules['old'] = (Old, {})",
        {},
        ["7: old (Old): timeout is not below requestTimeout, which ends it after 30 s"],
    ),
    "hidden": (
        "connLimit = 5\nmodulePath = ['site']\nmodules = {'a': ('Dummy', {}), 'b': ('Dummy', {})}",
        {"site/dummy.py": CLASS + "class Dummy(Check):\n    def check(self, data):\n        return 1, None\n"},
        ["2: FOLDER/site/dummy.py hides the bundled dummy.py"],
    ),
    "hidden but not used": (
        "modulePath = ['site']\nmodules = {'a': ('Sleep', {})}",
        {"site/dummy.py": CLASS + "class Dummy(Check):\n    pass\n"},
        [],
    ),
    "bundled folder": (f"modulePath = {str(BUNDLED)!r}\nmodules = {{'a': ('Dummy', {{}})}}", {}, []),
    "class without check": (
        CLASS + "class Mine(Check):\n    pass\n\nmodules['mine'] = (Mine, {})",
        {},
        ["5: mine (Mine): it has no check(self, data) that could answer"],
    ),
    "own names": (
        "def check(factory, data, port):\n    global seen\n    seen = __name__, __file__, zip\n"
        "    return 'dunno', str([seen for seen in data])",
        {},
        [],
    ),
    "undefined is expected": (
        "def text(value):\n    try:\n        return unicode(value)\n    except NameError:\n        return value",
        {},
        [],
    ),
    "defined under a condition": (
        "try:\n    import nosuch.thing as thing\nexcept ImportError:\n    hasThing = False\nelse:\n"
        "    hasThing, _limit = True, 5\n"
        "def check(factory, data, port):\n    return thing.answer(_limit) if hasThing else 'dunno'",
        {},
        [],
    ),
    "attributes": (
        "modules['a'] = ('Dummy', {})\ndef own(data):\n    data['score'] = 1\n"
        "def check(factory, data, port):\n    own(data)\n"
        "    if data['sendr'] or data.get('from') or data['score'] or data['result_a_code']:\n"
        "        return data['result_b_code']\n    return {'sendr': 1}['sendr'], data['sender']",
        {},
        [
            "6: Postfix sends no 'sendr', and it is not set here, did you mean sender?",
            "6: Postfix sends no 'from', and it is not set here",
            "7: Postfix sends no 'result_b_code', and it is not set here",
        ],
    ),
    "attributes that are set": (
        "modules['a'] = ('Dummy', {'saveResult': True, 'saveResultPrefix': 'x'})\n"
        "def check(factory, data, port):\n    data.update({'country': 'de'}, score=1)\n"
        "    data.setdefault('asn', 5)\n    factory.check('a', data)\n"
        "    names = data['country'], data['score'], data['asn'], data['xa_code'], data['xa#1_info']\n"
        "    return str(names), data['no']",
        {},
        ["7: Postfix sends no 'no', and it is not set here"],
    ),
    "attributes that others set": (
        "import site\ndef check(factory, data, port):\n    site.enrich(data)\n"
        "    if data['country'] or data['sendr']:\n        return 'dunno'",
        {},
        ["4: Postfix sends no 'sendr', and it is not set here, did you mean sender?"],
    ),
    "no request": (
        "data = {'networks': []}\nconnLimit = len(data['networks']) or 5\n"
        "def load(text):\n    data = dict(text)\n    return data['networks']\n"
        "class factory:\n    check = print\n\nfactory.check('nothing')",
        {},
        [],
    ),
    "attributes of checks": (
        "modules = {\n    'a': ('DOS', {'params': ['sasl_usrname', 'domain:sender']}),\n"
        "    'b': ('List', {'param': 'sendr', 'table': 'x'}),\n"
        "    'c': ('List', {'param': 'sizes', 'table': 'x'}),\n"
        "    'd': ('DOS', {'params': 'network:client_adress'})}\ndef check(factory, data, port):\n"
        "    data['sizes'] = []\n    return 'dunno'",
        {},
        [
            "2: a (DOS): params: Postfix sends no 'sasl_usrname', did you mean sasl_username?",
            "3: b (List): param: Postfix sends no 'sendr', did you mean sender?",
            "5: d (DOS): params: Postfix sends no 'client_adress', did you mean client_address?",
        ],
    ),
    "texts that are compared with numbers": (
        "def check(factory, data, port):\n    if data['size'] > 1000 or data.get('recipient_count') == 1:\n"
        "        return 'dunno'\n    data['stress'] = 0\n"
        "    if data['stress'] >= 0 or int(data['size']) > -1:\n        return 'dunno'\n"
        "    if -1 < data['size']:\n        return 'ok'",
        {},
        [
            "2: size is a text, as all of a request is: compare int(…) of it",
            "2: recipient_count is a text, as all of a request is: compare int(…) of it",
            "7: size is a text, as all of a request is: compare int(…) of it",
        ],
    ),
    "attributes that are never None": (
        "def check(factory, data, port):\n"
        "    if data['sasl_username'] is not None or data.get('sender') is None:\n"
        "        return 'dunno'",
        {},
        ["2: sasl_username is never None, but '' where Postfix knows none"],
    ),
    "ports": (
        "def isOpen(port):\n    return port == 25\ndef check(factory, data, port):\n"
        "    if port == 10031 or '10032' in (port, 1) or port.port == 10032 or port != '::1':\n"
        "        return 'dunno'\n    if port is not None:\n"
        "        return port.path, str((port._asdict(), port.number))",
        {},
        [
            *["4: port is no number or text: compare port.port, .host or .path"] * 2,
            "7: port has no number; there are type, host, port, path",
        ],
    ),
    "methods of the factory": (
        "def check(factory, data, port):\n    factory.getconfig('admin')\n    factory.chek('a', data)\n"
        "    factory.steps\n    return factory.getConfig('admin', 'dunno')",
        {},
        [
            "2: factory.getconfig does not exist, did you mean getConfig?",
            "3: factory.chek does not exist, did you mean check?",
        ],
    ),
    "states": (
        "def check(factory, data, port):\n    if data['protocol_state'] not in ('RCPT', 'END_OF_MESSAGE', ''):\n"
        "        return 'dunno'\n"
        "    if 'rcpt' == data.get('protocol_state', '') != data['protocol_state'].lower():\n"
        "        return 'dunno'\n    return 'ok' if data['protocol_state'].lower() == 'rcpt' else 'dunno'",
        {},
        [
            "2: protocol_state is never 'END_OF_MESSAGE', did you mean END-OF-MESSAGE?",
            "4: protocol_state is never 'rcpt', did you mean RCPT?",
        ],
    ),
    "results": (
        "modules['a'] = ('Dummy', {})\ndef check(factory, data, port):\n    if factory.check('a', data) < 0:\n"
        "        return 'dunno'\n    if port and not factory.check('a', data):\n        return 'dunno'\n"
        "    result = factory.check('a', data)\n    if result == 1 or result[0] == 1:\n        return 'dunno'\n"
        "    code = factory.check('a', data)\n    code = code[0]\n    if code < 0 or result == (0, 'dummy'):\n"
        "        return 'dunno'",
        {},
        [f"{line}: what a check gives is a pair, whose first item is the code" for line in (3, 5, 8)],
    ),
    "results that are compared": (
        "modules['a'] = ('Dummy', {})\ndef told(result):\n    return 'dunno' if result else 'ok'\n"
        "def check(factory, data, port):\n    first = factory.check('a', data)\n"
        "    second = factory.check('a', data)\n    if first == second or first is None:\n"
        "        result = factory.check('a', data)\n        return told(result[0])",
        {},
        [],
    ),
    "decorated answers": (
        "def answering(function):\n    return lambda *given: 'dunno' if function(*given) else 'ok'\n"
        "@answering\ndef isKnown(data):\n    return True\n"
        "def check(factory, data, port):\n    return isKnown(data)",
        {},
        [],
    ),
    "answers": (
        "LATER = '450 later'\ndef own():\n    return 'DEFFER', LATER\ndef other():\n    return 5\n"
        "def check(factory, data, port):\n    def inner():\n        return 5\n    if port:\n"
        "        return ('REFUSE', 'x') if data else own()\n    for one in data:\n"
        "        return 'DEFER', '4.7.1', one\n    if other():\n        return 'PREPEND', one\n"
        "    if port:\n        return 'reject_rbl_client', f'{one}'\n"
        "    return f'{one}' or 550 or LATER or (550, one)",
        {},
        [
            "3: own() returns what is no answer: 'DEFFER' is no action, no restriction and not in"
            " restrictionClasses, did you mean DEFER?",
            "10: check() returns what is no answer: 'REFUSE' is no action, no restriction and not in"
            " restrictionClasses",
            "12: check() returns what is no answer: an answer is an action and a text, not 3 items",
        ],
    ),
    "no folder": (
        "ppolicyPort = [10031, 'unix:mail/ppolicy/sock', 'unix:sock']",
        {},
        ["1: ppolicyPort: there is no folder FOLDER/mail/ppolicy: make it, unless systemd does"],
    ),
    "no folder for commands, nor for metrics": (
        "metrics = 'unix:run/metrics.sock'\ncontrolSocket = 'run/control.sock'",
        {},
        [
            "1: metrics: there is no folder FOLDER/run: make it, unless systemd does",
            "2: controlSocket: there is no folder FOLDER/run: make it, unless systemd does",
        ],
    ),
    "folder for commands": ("stateDir = 'new'\ncontrolSocket = 'new/commands.sock'", {}, []),
    "group": ("group = 'root'", {}, ["1: group has no effect without user"]),
    "group of user": ("user = 'root'\ngroup = 'root'", {}, []),
    "MySQL": ("database = 'mysql+pymysql://me:hunter2@localhost/mail'", {}, []),
}


class TestWarnings:
    def test_factory(self):
        """What is taken for a method of the factory is one."""
        assert all(callable(getattr(PolicyFactory, name)) for name in foresight.FACTORY)

    @pytest.mark.parametrize("name", WARNINGS)
    def test_warnings(self, name, tmp_path):
        """A configuration that works is loaded with exactly these warnings, sorted by line."""
        text, files, expected = WARNINGS[name]
        assert said(load(tmp_path, text, files).warnings, tmp_path) == expected

    def test_shippedConfiguration(self):
        """The configuration that is shipped has nothing to warn about."""
        assert config.load(Path(__file__).parent.parent / "ppolicy.conf").warnings == []


class TestFind:
    @pytest.fixture(autouse=True)
    def places(self, tmp_path, monkeypatch):
        """No configuration anywhere, but in the folders of the test."""
        monkeypatch.delenv("PPOLICY_CONF", raising=False)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(
            reading, "_PLACES", (str(tmp_path / "etc" / "first"), str(tmp_path / "etc" / "second"))
        )
        (tmp_path / "etc").mkdir()

    def test_given(self, tmp_path, monkeypatch):
        """A file that is named is taken before all others, whether it exists or not."""
        monkeypatch.setenv("PPOLICY_CONF", "/other.conf")
        write(tmp_path, "")
        assert reading.find("sub/my.conf") == tmp_path / "sub" / "my.conf"
        assert reading.find("/a/my.conf") == Path("/a/my.conf")

    def test_environment(self, tmp_path, monkeypatch):
        """Else it is the one that $PPOLICY_CONF names."""
        monkeypatch.setenv("PPOLICY_CONF", "my.conf")
        write(tmp_path, "")
        assert reading.find() == tmp_path / "my.conf"

    def test_namedIsTrusted(self, tmp_path, monkeypatch):
        """A file that is named may be written by everybody: somebody chose it."""
        path = write(tmp_path, POLICY)
        path.chmod(0o666)
        assert reading.find(path) == path
        monkeypatch.setenv("PPOLICY_CONF", str(path))
        assert reading.find() == path

    def test_local(self, tmp_path):
        """Else it is the one in the present folder."""
        (tmp_path / "etc" / "first").write_text("")
        path = write(tmp_path, "")
        path.chmod(0o644)
        assert reading.find() == path
        assert reading.find(None) == reading.find("") == path

    def test_beside(self, tmp_path):
        """For the .tac it is the one beside it, instead of the present folder's."""
        write(tmp_path, "")
        (tmp_path / "other").mkdir()
        path = write(tmp_path / "other", "")
        path.chmod(0o644)
        assert reading.find(beside=tmp_path / "other") == path

    def test_system(self, tmp_path):
        """Else it is the system's, the first that exists."""
        (tmp_path / "etc" / "second").write_text("")
        assert reading.find() == tmp_path / "etc" / "second"
        (tmp_path / "etc" / "first").write_text("")
        assert reading.find() == tmp_path / "etc" / "first"

    def test_folderIsNoFile(self, tmp_path):
        """A folder of that name is no configuration."""
        (tmp_path / "ppolicy.conf").mkdir()
        (tmp_path / "etc" / "first").write_text("")
        assert reading.find() == tmp_path / "etc" / "first"

    def test_none(self, tmp_path):
        """When there is none, the places that were looked at are named."""
        with pytest.raises(ConfigError) as raised:
            reading.find()
        assert str(raised.value) == (
            f"no configuration: there is no {tmp_path}/ppolicy.conf, no {tmp_path}/etc/first and no "
            f"{tmp_path}/etc/second; name one with -c or $PPOLICY_CONF"
        )

    @pytest.mark.parametrize("mode", [0o666, 0o646, 0o602, 0o664, 0o777])
    def test_writable(self, mode, tmp_path):
        """One that was found by chance, and that others can write, is not run."""
        path = write(tmp_path, POLICY)
        path.chmod(mode)
        with pytest.raises(ConfigError) as raised:
            reading.find()
        assert str(raised.value) == (
            f"{path} belongs to somebody else, or may be written by everybody or its group; name it with -c or "
            "$PPOLICY_CONF if you trust it"
        )

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_foreign(self, tmp_path, monkeypatch):
        """Nor is one that belongs to somebody else; root's own is good for everybody."""
        path = write(tmp_path, POLICY)
        path.chmod(0o644)
        os.chown(path, 12345, 12345)
        with pytest.raises(ConfigError, match="belongs to somebody else"):
            reading.find()
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert reading.find() == path
        os.chown(path, 0, 0)
        assert reading.find() == path

    def test_lostFolder(self, tmp_path, monkeypatch):
        """Whose present folder is gone gets a sentence, not a traceback."""
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        with pytest.raises(ConfigError, match=r"cannot look for ppolicy\.conf: No such file or directory"):
            reading.find()
        monkeypatch.chdir(tmp_path)


class TestLoad:
    def test_relative(self, tmp_path, monkeypatch):
        """Relative paths start in the folder of the configuration, wherever the command was given."""
        monkeypatch.chdir("/")
        configuration = load(
            tmp_path,
            """
            stateDir = 'state'
            controlSocket = 'run/control.sock'
            modulePath = ['site']
            logTarget = 'requests.log'
            modules['t'] = ('Typed', {'path': 'a/b', 'place': '../c'})
            """,
            {"site/typed.py": TYPED},
        )
        options = configuration.options
        assert (options.stateDir, options.controlSocket) == (tmp_path / "state", tmp_path / "run" / "control.sock")
        assert options.modulePath == [tmp_path / "site"]
        parameters = configuration.specs[0].parameters
        assert (parameters["path"], parameters["place"]) == (tmp_path / "a/b", tmp_path / "../c")

    def test_relativeToTheFile(self, tmp_path, monkeypatch):
        """A configuration may be named by a relative path itself."""
        (tmp_path / "etc").mkdir()
        write(tmp_path / "etc", "stateDir = 'state'" + POLICY)
        monkeypatch.chdir(tmp_path)
        configuration = config.load("etc/ppolicy.conf")
        assert configuration.path == tmp_path / "etc" / "ppolicy.conf"
        assert configuration.options.stateDir == tmp_path / "etc" / "state"

    def test_defaults(self, tmp_path):
        """Without options, the server serves on the loopback addresses and knows no check."""
        configuration = load(tmp_path, "")
        assert (configuration.options.ppolicyPort, configuration.specs) == ([10031], [])
        assert configuration.policy(None, {}, None) == "dunno"
        assert configuration.warnings == []

    @pytest.mark.parametrize(
        "port",
        [
            *("10031", "'10031'", "'*:10031'", "'192.0.2.1:10031'", "'[::1]:10031'", "'localhost:10031'"),
            *("'unix:sock'", "'unix:sock:mode=0600:user=root:group=root'", "'[fe80::1%lo]:10031'"),
            *("'tcp:10031:interface=127.0.0.1'", "'tcp6:10031'", "'haproxy:tcp:10031'"),
            *("'systemd:domain=INET:index=0'", "'systemd:domain=UNIX:name=ppolicy'"),
            "(10031, '*:10032')",
        ],
    )
    def test_ports(self, port, tmp_path):
        """Every form of listener is accepted; systemd's sockets need not be there yet."""
        assert load(tmp_path, f"ppolicyPort = {port}").warnings == []

    def test_systemdIsMissing(self, tmp_path):
        """A server that was not given a socket by systemd says so when it starts."""
        (wanted,) = listeners.parsePort("systemd:domain=INET:index=0", tmp_path)
        with pytest.raises(ConfigError) as raised:
            listeners.listen(MemoryReactor(), wanted, None)
        assert str(raised.value) == (
            "ppolicyPort: cannot listen on systemd:domain=INET:index=0: systemd has passed no such socket"
        )

    def test_noFolder(self, tmp_path):
        """The folder of a socket has to be there."""
        (wanted,) = listeners.parsePort("unix:none/sock", tmp_path)
        with pytest.raises(ConfigError, match=f"there is no folder {tmp_path}/none, make it first$"):
            listeners.listen(MemoryReactor(), wanted, Factory())

    @pytest.mark.parametrize(
        "text",
        [
            *("logLevel = 'debug'", "logLevel = 15", "requestLog = None", "modulePath = []"),
            *("stateDir = 'will/be/made'", "stateDir = 's'\ndatabase = 'sqlite:///s/p.sqlite'"),
            *("database = 'sqlite:///p.sqlite'", "logTarget = 'syslog'", "logTarget = '/dev/null'"),
            *("logTarget = 'syslog:udp:[::1]:514'", "logTarget = 'syslog:tcp:logs:514'", "eventLog = 'json'"),
            *("returnOnFatalError = None", "returnOnFatalError = 'permit'", "returnOnConnLimit = 451"),
            "restrictionClasses = ['later']\nreturnOnFatalError = 'later'",
            "returnOnConnLimit = ['DEFER_IF_PERMIT', 'come again']",
            "from __future__ import annotations\nconnLimit: int = 5",
            "modules = {'a': ['Dummy', {}]}",
            "del modules",
            "check = print",
            "import functools\ncheck = functools.partial(lambda word, factory, data, port: word, 'dunno')",
        ],
    )
    def test_good(self, text, tmp_path):
        """None of these is a mistake or worth a warning."""
        path = write(tmp_path, text + ("" if "check =" in text else "\n" + POLICY))
        assert config.load(path).warnings == []

    def test_encoding(self, tmp_path):
        """A configuration in Latin-1 that says so, or in UTF-8 from Windows, is read as it is meant."""
        path = write(tmp_path, b"# coding: latin-1\nadmin = 'caf\xe9'\n" + POLICY.encode())
        assert config.load(path).options.admin == "café"
        path = write(tmp_path, b"\xef\xbb\xbfadmin = 'caf\xc3\xa9'\r\n" + POLICY.replace("\n", "\r\n").encode())
        assert config.load(path).options.admin == "café"

    def test_policyElsewhere(self, tmp_path, monkeypatch):
        """Options and policy may come from other files of the administrator."""
        monkeypatch.syspath_prepend(tmp_path)
        files = {"sitepolicy.py": f"connLimit = 77\nmodules = {{'d': ('Dummy', {{}})}}\n{POLICY}"}
        configuration = config.load(write(tmp_path, "from sitepolicy import *", files))
        assert configuration.options.connLimit == 77
        assert [spec.name for spec in configuration.specs] == ["d"]
        del sys.modules["sitepolicy"]

    def test_defaultsAreNotShared(self, tmp_path):
        """Whoever changes a list that an option or parameter has by default, changes it for itself."""
        files = {"site/typed.py": TYPED}
        first = load(tmp_path, "modulePath = 'site'\nmodules['t'] = ('Typed', {})", files)
        first.specs[0].parameters["several"].append(5)
        first.options.restrictionClasses.append("later")
        second = config.load(first.path)
        assert second.specs[0].parameters["several"] == second.options.restrictionClasses == []


# A site's module in three states.
MINE = CLASS + "class MyCheck(Check):\n    def check(self, data):\n        return {}, 'mine'\n"


class TestModules:
    def only(self, folder, kind="'MyCheck'", files=()):
        """
        The class of the only check.
        """
        configuration = load(folder, f"modulePath = 'site'\nmodules['a'] = ({kind}, {{}})", files)
        return configuration.specs[0].cls

    @pytest.mark.parametrize("file", ["my_check.py", "MyCheck.py"])
    def test_siteModule(self, file, tmp_path):
        """A class lives in a file named in either way, whose module is one of ppolicy.modules."""
        cls = self.only(tmp_path, files={f"site/{file}": MINE.format(1)})
        assert cls("a").check({}) == (1, "mine")
        assert cls.__module__ == f"ppolicy.modules.{file.removesuffix('.py')}"
        assert sys.modules[cls.__module__].__file__ == str(tmp_path / "site" / file)
        assert cls.blocking is None

    def test_firstFolder(self, tmp_path):
        """Of several folders the first one that has the file counts."""
        files = {"one/other.py": "", "two/my_check.py": MINE.format(2), "three/my_check.py": MINE.format(3)}
        configuration = load(
            tmp_path, "modulePath = ['one', 'two', 'three']\nmodules['a'] = ('MyCheck', {})", files
        )
        assert configuration.specs[0].cls("a").check({}) == (2, "mine")

    def test_hides(self, tmp_path):
        """The site's module of a bundled one's name is taken, as one that may block; others stay as they are."""
        body = CLASS + "class Dummy(Check):\n    def check(self, data):\n        return 5, 'mine'\n"
        write(tmp_path, "", {"site/dummy.py": body})
        configuration = load(tmp_path, "modulePath = 'site'\nmodules = {'a': ('Dummy', {}), 'b': ('Sleep', {})}")
        mine, bundled = [spec.cls for spec in configuration.specs]
        assert (mine("a").check({}), mine.blocking) == ((5, "mine"), None)
        assert (sys.modules[bundled.__module__].__file__, bundled.blocking) == (str(BUNDLED / "sleep.py"), False)
        # Without the folder it is the bundled one again.
        (cls,) = [spec.cls for spec in load(tmp_path, "modules['a'] = ('Dummy', {})").specs]
        assert (cls("a").check({}), cls.blocking) == ((0, "dummy"), False)

    def test_bundledFolderInModulePath(self, tmp_path):
        """Who names the folder of the bundled modules gets them as bundled ones, this time and the next."""
        text = f"modulePath = {str(BUNDLED)!r}\nmodules['a'] = ('Dummy', {{}})"
        assert load(tmp_path, text).specs[0].cls.blocking is False
        assert load(tmp_path, "modules['a'] = ('Sleep', {})").specs[0].cls.blocking is False
        assert load(tmp_path, text).specs[0].cls.blocking is False

    def test_unchanged(self, tmp_path):
        """A file that did not change gives the same class, so that cached results are kept."""
        first = self.only(tmp_path, files={"site/my_check.py": MINE.format(1)})
        assert self.only(tmp_path) is first
        os.utime(tmp_path / "site" / "my_check.py", (5, 5))
        assert self.only(tmp_path) is first

    def test_changed(self, tmp_path):
        """A changed file is read again, even within the same second, while the old class goes on."""
        first = self.only(tmp_path, files={"site/my_check.py": MINE.format(1)})
        stamp = (tmp_path / "site" / "my_check.py").stat()
        second = self.only(tmp_path, files={"site/my_check.py": MINE.format(2)})
        os.utime(tmp_path / "site" / "my_check.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        third = self.only(tmp_path, files={"site/my_check.py": MINE.format(3)})
        assert [cls("a").check({})[0] for cls in (first, second, third)] == [1, 2, 3]

    def test_brokenMeanwhile(self, tmp_path):
        """A file that breaks is refused, leaves the old module where it was, and is taken once it is mended."""
        first = self.only(tmp_path, files={"site/my_check.py": MINE.format(1)})
        with pytest.raises(ConfigError, match="NameError: name 'nonsense' is not defined"):
            self.only(tmp_path, files={"site/my_check.py": "nonsense"})
        assert sys.modules[first.__module__].MyCheck is first
        assert self.only(tmp_path, files={"site/my_check.py": MINE.format(3)})("a").check({}) == (3, "mine")

    def test_helper(self, tmp_path):
        """Modules of a site may import one another."""
        files = {
            "site/my_helper.py": "ANSWER = 42\n",
            "site/my_check.py": "from ppolicy.modules.my_helper import ANSWER\n" + MINE.format("ANSWER"),
        }
        assert self.only(tmp_path, files=files)("a").check({}) == (42, "mine")
        del sys.modules["ppolicy.modules.my_helper"]

    def test_noBytecode(self, tmp_path):
        """Nothing is written into the site's folder."""
        self.only(tmp_path, files={"site/my_check.py": MINE.format(1)})
        assert [path.name for path in (tmp_path / "site").iterdir()] == ["my_check.py"]

    def test_library(self, tmp_path):
        """A check module may have the name of a library that it imports."""
        files = {
            "site/greenlet.py": "import greenlet\n"
            + MINE.format("greenlet.__name__").replace("MyCheck", "Greenlet")
        }
        assert self.only(tmp_path, "'Greenlet'", files)("a").check({}) == ("greenlet", "mine")
        del sys.modules["ppolicy.modules.greenlet"]

    def test_classInConfiguration(self, tmp_path):
        """The type may be a class of the configuration itself, with parameters like any other."""
        configuration = load(
            tmp_path,
            CLASS
            + """
class Mine(Check):
    limit: int = parameter(5, "most of it")

    def check(self, data):
        return self.limit, None

modules = {'a': (Mine, {}), 'b': (Mine, {'limit': 6})}
""",
        )
        assert [spec.create().check({}) for spec in configuration.specs] == [(5, None), (6, None)]
        assert [str(spec) for spec in configuration.specs] == ["a (Mine)", "b (Mine)"]

    def test_ownBundled(self, tmp_path):
        """A class of the configuration may build on a bundled one, and give its parameters other defaults."""
        configuration = load(
            tmp_path,
            """
            from ppolicy.check import parameter
            from ppolicy.registry import Registry

            class Mine(Registry().find('Greylist')):
                delay: float = parameter(60, "seconds to wait")

            modules = {'a': (Mine, {'expiration': 100000})}
            """,
        )
        parameters = configuration.specs[0].parameters
        assert (parameters["delay"], parameters["expiration"], parameters["mustRetry"]) == (60, 100000, 43200)

    @pytest.mark.parametrize(
        "typeName, stem",
        [
            *(("DnsblScore", "dnsbl_score"), ("LookupLDAP", "lookup_ldap"), ("DOS", "dos"), ("P0f", "p0f")),
            *(("ListBW", "list_bw"), ("SPF", "spf"), ("DumpDataDB", "dump_data_db"), ("Dummy", "dummy")),
        ],
    )
    def test_fileName(self, typeName, stem):
        """A capital letter after a small one or a digit begins a new word."""
        assert fileName(typeName) == stem

    def test_noFolder(self):
        """A registry can do with folders that do not exist."""
        assert Registry(["/nosuch"]).find("Dummy").__name__ == "Dummy"


def function():
    """
    A function for a parameter.
    """


# Parameter, value as given, value as it is then.
FOLDER = Path("/etc/ppolicy")
CONVERTED = [
    ("truth", True, True),
    ("truth", 0, False),
    ("truth", 1, True),
    ("whole", 7, 7),
    ("whole", 7.0, 7),
    ("count", 1, 1),
    ("count", 2.0, 2.0),
    ("count", 0, 0),
    ("count", True, True),
    ("number", 2, 2.0),
    ("number", 1.5, 1.5),
    ("text", "", ""),
    ("path", "a/b", FOLDER / "a/b"),
    ("path", "/a/b", Path("/a/b")),
    ("path", Path("a"), FOLDER / "a"),
    ("path", "~/a", Path.home() / "a"),
    ("several", [1, 2], [1, 2]),
    ("several", (1, 2), [1, 2]),
    ("several", [], []),
    ("pair", ["a", 1], ("a", 1)),
    ("many", ["a", "b", "c"], ("a", "b", "c")),
    ("table", {"a": 1}, {"a": 1}),
    ("choice", 25, 25),
    ("choice", None, None),
    ("function", function, function),
    ("function", None, None),
    ("maybe", None, None),
    ("maybe", 0, 0),
    ("either", "a", "a"),
    ("either", ("a", "b"), ["a", "b"]),
    ("place", None, None),
    ("place", "a", FOLDER / "a"),
    ("plain", {1: "a"}, {1: "a"}),
    ("anything", b"a", b"a"),
    ("bare", function, function),
    ("secret", "hunter2", "hunter2"),
    ("pin", 4711, 4711),
]


class TestParameters:
    @pytest.fixture
    def typed(self, tmp_path):
        """
        The class with a parameter of each type.
        """
        write(tmp_path, None, {"typed.py": TYPED})
        return Registry([tmp_path]).find("Typed")

    @pytest.mark.parametrize(
        "name, given, expected", CONVERTED, ids=lambda value: getattr(value, "__name__", str(value))
    )
    def test_converted(self, name, given, expected, typed):
        """A value of the declared type is taken, as the type that was declared."""
        mistakes = []
        value = typed.accept({name: given}, FOLDER, mistakes)[name]
        assert (value, type(value), mistakes) == (expected, type(expected), [])

    def test_everyTypeIsConverted(self, typed):
        """The table above has each of the parameters."""
        assert {name for name, _, _ in CONVERTED} == typed.declared().keys() - Check.declared().keys() - {
            "timeout"
        }

    def test_defaults(self, typed):
        """Defaults are converted like values; None is one for any type."""
        accepted = typed.accept({}, FOLDER, [])
        assert (accepted["number"], type(accepted["number"])) == (1, float)
        assert (accepted["path"], accepted["place"]) == (FOLDER / "typed.dat", None)
        assert accepted.keys() == typed.declared().keys()

    def test_attributes(self, typed):
        """The values are attributes of the check."""
        check = typed("a")
        check.assume(typed.accept({"several": (1, 2)}, FOLDER, []))
        assert (check.several, check.text, check.cachePositive) == ([1, 2], "abc", 900)

    def test_inherited(self):
        """A class has the parameters of its bases, and may declare one of them anew."""

        class Base(Parameters):
            one: int = parameter(1)
            two: int = parameter(2)

        class Derived(Base):
            two: str = parameter("zwei")
            three: int = parameter(3)

        assert Derived.accept({}, FOLDER, []) == {"one": 1, "two": "zwei", "three": 3}
        assert Base.accept({}, FOLDER, []) == {"one": 1, "two": 2}
        mistakes = []
        Derived.accept({"two": 2, "four": 4}, FOLDER, mistakes)
        assert mistakes == [("four", "four: no such parameter"), ("two", "two: must be a text, not 2")]

    @pytest.mark.parametrize(
        "name, hint",
        [("dely", ", did you mean delay?"), ("DELAY", ", did you mean delay?"), ("colour", ""), (5, "")],
    )
    def test_didYouMean(self, name, hint):
        """A name that resembles a known one, also in small letters, is told; any other is not."""
        assert didYouMean(name, ["delay", "mustRetry", 5]) == hint

    def test_shown(self):
        """A value is shown as it is written, in at most 60 characters."""
        assert (shown("a"), shown(5), shown("é")) == ("'a'", "5", "'é'")
        assert len(shown("x" * 100)) == 60
        assert shown(10**5000) == "this int"


def test_logLevels(tmp_path):
    """A level of the logging module and its name are the same to the server."""
    assert load(tmp_path, f"logLevel = {logging.DEBUG}").options.logLevel == logging.DEBUG
