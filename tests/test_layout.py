"""
The map that HACKING draws is true: which file may import which, and what stands nowhere.
"""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The files of ppolicy/, each importing only files that stand before it.
ORDER = [
    *(
        "errors",
        "signals",
        "notify",
        "inherited",
        "privileges",
        "statefolder",
        "address",
        "origin",
        "whoistext",
        "dnsmessage",
        "resolvconf",
        "blocklists",
        "dynamicname",
        "smtpreply",
        "smtpsession",
        "mailbox",
        "mailhosts",
        "mailheader",
        "spfanswer",
        "garbage",
        "cache",
        "keyfilter",
        "watchedfile",
        "listentries",
        "listfile",
        "geoip",
        "writer",
        "attributes",
    ),
    *(
        "credentials",
        "parameter",
        "target",
        "ownlists",
        "options",
        "reading",
        "portholder",
        "listeners",
        "ports",
        "logtarget",
        "syslogreceiver",
        "logoption",
        "controlclient",
        "control",
        "reply",
        "statement",
        "schema",
        "lane",
        "database",
        "purge",
        "mariadb",
        "sqlite",
    ),
    *(
        "watchdog",
        "outcome",
        "threadwait",
        "bridge",
        "epoll",
        "logs",
        "eventlog",
        "statistics",
        "history",
        "decisions",
        "trace",
        "privacy",
        "requestlog",
        "threads",
        "directory",
        "ldapsession",
        "timers",
        "fingerprint",
        "enquiries",
        "check",
        "Base",
        "rows",
        "groupcommit",
        "shared",
        "tableload",
        "writebehind",
        "localtable",
        "state",
        "limits",
        "counts",
        "limitcheck",
        "dns",
        "answercache",
        "dnstransport",
        "nameserver",
        "resolver",
        "listhealth",
        "blocklistservice",
        "blocklistcheck",
        "spf",
        "senderpool",
        "cymru",
        "whoisclient",
        "smtp",
        "memory",
        "listquery",
        "listtable",
        "tables",
        "dumptable",
        "listcheck",
    ),
    *(
        "services",
        "registry",
        "foresight",
        "places",
        "validation",
        "config",
        "policy",
        "generation",
        "protocol",
        "server",
        "dryrun",
    ),
    *("health", "verbs", "webpages", "metrics", "service"),
    *(
        "offline",
        "exitcodes",
        "completion",
        "terminal",
        "observation",
        "conversation",
        "administration",
        "listcommands",
        "opened",
        "oldtables",
        "databasecommands",
        "testing",
        "__main__",
    ),
    *("commandtree", "pages", "manpages", "reference"),
]

# What check modules may import of ppolicy: the contract, and services that are no part of the server.
CONTRACT = {"ppolicy.check", "ppolicy.errors"}
SERVICES = {
    "ppolicy.address",
    "ppolicy.blocklistcheck",
    "ppolicy.blocklists",
    "ppolicy.dns",
    "ppolicy.cymru",
    "ppolicy.dynamicname",
    "ppolicy.enquiries",
    "ppolicy.fingerprint",
    "ppolicy.geoip",
    "ppolicy.origin",
    "ppolicy.whoisclient",
    "ppolicy.blocklistservice",
    "ppolicy.mailbox",
    "ppolicy.mailheader",
    "ppolicy.mailhosts",
    "ppolicy.senderpool",
    "ppolicy.smtp",
    "ppolicy.spf",
    "ppolicy.spfanswer",
    "ppolicy.directory",
    "ppolicy.dumptable",
    "ppolicy.ldapsession",
    "ppolicy.counts",
    "ppolicy.limitcheck",
    "ppolicy.limits",
    "ppolicy.listcheck",
    "ppolicy.listentries",
    "ppolicy.listfile",
    "ppolicy.logtarget",
    "ppolicy.listquery",
    "ppolicy.listtable",
    "ppolicy.tables",
    "ppolicy.writer",
}

CORE = sorted((ROOT / "ppolicy").glob("*.py"))
CHECKS = sorted(path for path in (ROOT / "modules").glob("*.py") if path.stem != "__init__")


def projectFiles():
    """
    Every text file of the project, but nothing that was installed, built or kept by a server.
    """
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".gitignore") for part in parts)
        made = any(
            part in ("build", "dist", "state", "__pycache__") or part.endswith(".egg-info") for part in parts
        )
        if path.is_file() and not hidden and not made and not path.name.startswith("twistd."):
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def programs():
    """
    The syntax tree of every file in Python.
    """
    for path, text in projectFiles():
        if path.suffix in (".py", ".tac") or path.name == "ppolicy.conf":
            yield path, ast.parse(text, str(path))


def imported(path):
    """
    The modules of ppolicy that a file imports, wherever in it.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            if node.module == "ppolicy":
                files = {alias.name for alias in node.names if (ROOT / "ppolicy" / f"{alias.name}.py").is_file()}
                found |= {f"ppolicy.{name}" for name in files} or {"ppolicy"}
            else:
                found.add(node.module)
    return {name for name in found if name.split(".")[0] == "ppolicy"}


def test_orderIsComplete():
    """
    Every file of ppolicy/ has its place in the order.
    """
    assert sorted([*ORDER, "__init__"]) == [path.stem for path in CORE]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_importsPointOneWay(path):
    """
    A file of the server imports only those before it.
    """
    before = ORDER[: ORDER.index(path.stem)] if path.stem in ORDER else []
    assert imported(path) <= {"ppolicy", *(f"ppolicy.{name}" for name in before)}


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_checksImportTheContract(path):
    """
    A check module knows the contract and some services, neither the server nor another check module.
    """
    assert imported(path) <= CONTRACT | SERVICES


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_serverNamesNoCheck(path):
    """
    No file of the server has the name of a check module in its code; a docstring may give one as an example.
    """
    types = {
        node.name
        for check in CHECKS
        for node in ast.parse(check.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    types.discard("SPF")  # the name of a header, too
    assert not names & (types | {f"ppolicy.modules.{check.stem}" for check in CHECKS})
    assert not [name for name in imported(path) if name.startswith("ppolicy.modules")]


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_checkHasTest(path):
    """
    Every bundled check module has its test file, named alike.
    """
    assert (ROOT / "tests" / "modules" / f"test_{path.name}").is_file()


def test_noReactorAtModuleLevel():
    """
    The reactor is handed over, or imported where it is run: importing a file installs none. Tests may.
    """
    for path, tree in programs():
        for node in tree.body if ROOT / "tests" not in path.parents else ():
            if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                assert "reactor" not in [alias.name for alias in node.names], f"{path}:{node.lineno}"
            elif isinstance(node, ast.Import):
                assert "twisted.internet.reactor" not in [alias.name for alias in node.names], (
                    f"{path}:{node.lineno}"
                )


def dangers(tree):
    """
    (what, line) of everything that runs data as a program.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            for name in names:
                if name.split(".")[0] in ("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill"):
                    yield name, node.lineno
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.removeprefix("builtins.") in ("eval", "exec", "os.system", "os.popen", "yaml.load"):
                yield called, node.lineno
            for keyword in node.keywords:
                if keyword.arg == "shell" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    yield "shell=", node.lineno


def test_nothingRunsData():
    """
    Only the configuration, which is the administrator's own program, is executed, and only in one place. The
    history unpacks what it has packed itself.
    """
    found = [(path.relative_to(ROOT).as_posix(), what) for path, tree in programs() for what, _ in dangers(tree)]
    assert found == [("ppolicy/history.py", "marshal"), ("ppolicy/reading.py", "exec")]


@pytest.mark.parametrize(
    "text",
    [
        "eval(text)",
        "builtins.exec(text)",
        "import pickle",
        "from pickle import loads",
        "yaml.load(text)",
        "os.system(text)",
        "run(text, shell=True)",
        "run(text, shell=wanted)",
    ],
)
def test_dangers(text):
    """
    Each of these would be found.
    """
    assert len(list(dangers(ast.parse(text)))) == 1


def test_newsfragments():
    """
    Every news fragment is of a type that NEWS has a heading for.
    """
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
    types = [one["directory"] for one in tool["type"]]
    for path in (ROOT / tool["directory"]).iterdir():
        if not path.name.startswith("."):
            assert re.fullmatch(rf"[^.]+\.({'|'.join(types)})(\.\d+)?", path.name), path.name
            assert path.read_text(encoding="utf-8").strip(), f"{path.name} is empty"


def test_noForeignPaths():
    """
    No file mentions a folder of somebody's machine, or a paper that is not part of the project.
    """
    foreign = re.compile(
        r"(?<![\w.])/(?:work|farm|workspace|Users|root|home/\w+|opt/(?:wheels|pypi))/"
        r"|bash_jobs|\b(?:DESIGN|STYLE)(?:\.md| \d)|\bfacts/\w+\.md"
    )
    for path, text in projectFiles():
        if path != Path(__file__):
            for number, line in enumerate(text.splitlines(), 1):
                assert not foreign.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
