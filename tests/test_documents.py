"""
The documents in docs/ tell the truth: each listing runs, each command, option and parameter exists.
"""

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import click
import pytest

from ppolicy import check as contract
from ppolicy import config, offline
from ppolicy.__main__ import main
from ppolicy.check import Check
from ppolicy.errors import DNSError
from ppolicy.options import Options
from ppolicy.policy import Factory
from ppolicy.registry import Registry, bundledTypes
from ppolicy.testing import FakeResolver
from tests.documents import DOCS, PAGES, ROOT, commands, listings, located, prepare, prose, recipe
from tests.serving import POSTFIX, Serving, asked

CODE = [one for page in PAGES for one in listings(page) if one.language == "python"]
FATAL = ("4.3.0 Trouble in the policy server",)
# What else may stand in backticks and look like the name of an option.
OTHERS = {
    *("checkAll", "retryAfter", "lookupAll", "waitAll", "dryRun"),
    "keyFile",
}


def ask(serving, **changes):
    """The reply to a request as Postfix sends it."""
    protocol, transport = serving.connect()
    protocol.dataReceived(asked(**POSTFIX | changes))
    for _ in range(8):
        serving.clock.advance(0)
    return transport.value().decode().strip()


def serve(folder, page, text, records=None):
    """A server with a listing as its ppolicy.conf, and the files of its page."""
    prepare(folder, page)
    return Serving(folder, located(text, folder), records)


@pytest.mark.parametrize("one", CODE, ids=lambda one: one.name)
def test_listing(tmp_path, monkeypatch, one):
    """
    Each listing in Python is taken as ppolicy.conf, or as the part of it that it says it is, and then answers
    requests of all stages; one that is a file is run below.
    """
    if one.file is not None:
        assert one.page in FILES, "nobody runs it"
        return
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    serving = serve(tmp_path, one.page, one.configuration())
    for state in ("RCPT", "DATA", "END-OF-MESSAGE", "CONNECT"):
        for login in ("", "alice"):
            reply = ask(serving, protocol_state=state, sasl_username=login)
            assert reply.startswith("action=") and FATAL[0] not in reply, reply
    assert {name: slot.failures for name, slot in serving.generation.slots.items() if slot.failures} == {}
    serving.generation.stop()


# Pages with modules in files, and their tests in others.
FILES = {"check.md": ("test_bogus_mx.py", "test_newcomer.py")}


@pytest.mark.parametrize("page", FILES)
def test_files(tmp_path, page):
    """The test of a module passes as the page has it."""
    prepare(tmp_path, page)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES[page]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search("^[1-9][0-9]* passed", done.stdout, re.M), done.stdout


def test_languages():
    """Each fenced block says what is in it, so that none is passed over."""
    for page in PAGES:
        for one in listings(page):
            assert one.language in ("python", "console", "text", "sql", "yaml", "ini", "{toctree}") or (
                one.language.startswith("{")
            ), one.name


@pytest.mark.parametrize("page", PAGES)
def test_noIndented(page):
    """No listing hides from these tests as an indented block."""
    assert not re.search(r"\n\n {4}\S", prose(page))


def test_mainCf():
    """The lines for main.cf are those that `ppolicy check --postfix` prints."""
    wanted = offline.postfixLines(config.load(ROOT / "ppolicy.conf")).split("\n", 2)[2].strip()
    for page, heading in (
        ("quickstart.md", "3. Let Postfix ask"),
        ("postfix.md", "The line in main.cf"),
        ("cookbook.md", "Cookbook"),
    ):
        assert wanted in [one.text.strip() for one in listings(page) if one.heading == heading], page


@pytest.mark.parametrize(
    "name", ["README", "HACKING", "UPGRADE", "ppolicy.conf", *(f"docs/{page}" for page in PAGES)]
)
def test_namedPages(name):
    """Each page of docs/ that a text names is there."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for found in re.findall(r"\bdocs/[\w./]*\w", text):
        assert (ROOT / found).exists(), found


# Commands

# What may stand before a command: sudo, variables.
PREFIX = re.compile(r"^(?:sudo |[A-Z_]+=\S+ )*")


def words(line):
    """The words of a command line behind `ppolicy`, as far as the shell gives them to it."""
    given = shlex.split(line)
    ends = [place for place, word in enumerate(given) if word in ("|", "<", ">", "&&", ";", "2>")]
    return given[1 : ends[0] if ends else None]


def problem(given, complete):
    """
    What is wrong with the words behind `ppolicy`, else None.

    @param complete: nothing that is required may be missing.
    """
    command, name = main, "ppolicy"
    while True:
        context = click.Context(command, click.Context(main, **main.context_settings), name)
        if command.name == "try":
            return None if given or not complete else "there is no name"
        try:
            options, given, _ = command.make_parser(context).parse_args(list(given))
        except click.UsageError as error:
            return error.format_message()
        missing = [one.name for one in command.params if one.required and _absent(options.get(one.name))]
        if missing and complete:
            return f"{missing} is missing"
        if not isinstance(command, click.Group):
            return f"{given} is too much" if given else None
        if not given:
            return "there is no subcommand" if complete else None
        name, *given = given
        if name not in command.commands:
            return f"there is no {name}"
        command = command.commands[name]


def _absent(value):
    return value is None or value == () or not isinstance(value, str | bool | tuple | list | int | float)


@pytest.mark.parametrize("page", PAGES)
def test_commands(page):
    """Each command line of ppolicy on a page is one that the command takes."""
    for line in commands(page):
        line = PREFIX.sub("", line)
        if line.startswith("ppolicy "):
            assert problem(words(line), complete=True) is None, f"{line}: {problem(words(line), True)}"


def test_examples():
    """Each example in the help of a command is one."""
    lines = [line for one in listings("commands.md") for line in one.text.split("\n") if line.startswith("  ")]
    found = [re.split(r" {2,}", line.strip())[0] for line in lines if line.strip().startswith("ppolicy ")]
    assert len(found) > 5
    for line in found:
        assert problem(words(line), complete=True) is None, f"{line}: {problem(words(line), True)}"


MENTIONED = re.compile(r"`(ppolicy [^`]*)`")


@pytest.mark.parametrize("name", [*(f"docs/{page}" for page in PAGES), "README", "UPGRADE", "MODULES"])
def test_mentionedCommands(name):
    """Each command that a text mentions exists, with its options."""
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
    for line in MENTIONED.findall(text):
        if " COMMAND" not in line:
            assert problem(words(line), complete=False) is None, f"{line}: {problem(words(line), False)}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ppolicy check --nope", "No such option"),
        ("ppolicy nope", "there is no nope"),
        ("ppolicy list friends nope", "there is no nope"),
        ("ppolicy list friends add", "is missing"),
        ("ppolicy reload now", "is too much"),
        ("ppolicy explain < request", None),
        ("ppolicy list friends add a@b.example", None),
        ("ppolicy list friends remove a@b.example -c ppolicy.conf", None),
    ],
)
def test_problem(line, expected):
    """A wrong command would be found."""
    found = problem(words(line), complete=True)
    assert found is None if expected is None else expected in found, found


# Options and parameters


def known():
    """Every name that a text may have in backticks: options, parameters, what a policy and a check call."""
    names = set(Options.declared()) | set(Check.declared()) | set(contract.__all__) | OTHERS
    for kind in bundledTypes():
        names |= set(Registry().find(kind).declared())
    for cls in (Factory, FakeResolver, Check):
        names |= {name for name in dir(cls) if not name.startswith("_")}
    for module in ("address", "mailheader", "testing"):
        names |= {name for name in vars(importlib.import_module(f"ppolicy.{module}")) if not name.startswith("_")}
    return names


@pytest.mark.parametrize("page", PAGES)
def test_names(page):
    """Each name in mixedCase that a page has in backticks is an option, a parameter or a function."""
    found = re.findall(r"`([a-z]+[A-Z]\w*)(?:\(\))?`", prose(page))
    assert [name for name in found if name not in known()] == []


# What single listings do


def listing(page, begin):
    """The listing that begins with this line."""
    (found,) = [one for one in CODE if one.page == page and one.text.startswith(begin)]
    return found


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({"example.org": {"MX": [(10, "mail.example.org")]}}, "1 example.org"),
        ({"example.org": {"AAAA": ["2001:db8::1"]}}, "1 example.org"),
        ({"example.org": {}}, "-1 example.org takes no mail"),
        ({"example.org": {"MX": [(0, "")], "A": ["192.0.2.1"]}}, "-1 example.org takes no mail"),
        ({"example.org": DNSError("SERVFAIL")}, "0 SERVFAIL"),
    ],
)
def test_ownCheck(tmp_path, records, expected):
    """The check of one's own looks a sender's domain up."""
    text = listing("dns.md", "from ppolicy.check import Check").text + (
        "\nmodules = {'mail': (HasMail, {})}\n"
        "def check(factory, data, port):\n"
        "    return 'WARN', '%s %s' % factory.check('mail', data)\n"
    )
    assert Serving(tmp_path, text, records).ask(sender="alice@Example.org") == f"action=WARN {expected}\n\n"


def test_addresses(tmp_path):
    """What a policy can ask about names and addresses gives what is written beside it."""
    first, *lines = listing("dns.md", "from ppolicy.address import").text.strip().splitlines()
    expected = {line.partition("#")[0].strip(): line.partition("#")[2].strip() for line in lines if line}
    assert len(expected) == 4
    text = f"{first}\ndef check(factory, data, port):\n    return 'WARN', repr([{', '.join(expected)}])\n"
    results = ", ".join(re.split("[;:] ", result)[0] for result in expected.values())
    assert Serving(tmp_path, text).ask(sender="") == f"action=WARN [{results}]\n\n"


ZEN = "zen.spamhaus.org"
SITE = {
    "example.net": {
        "TXT": [(b"v=spf1 ip4:192.0.2.0/25 ip4:203.0.113.0/24 ~all",)],
        "MX": [(10, "mail.example.net")],
    },
    "partner.example": {"TXT": [(b"v=spf1 ip4:192.0.2.77 -all",)]},
    f"2.0.0.127.{ZEN}": {"A": ["127.0.0.2"]},
    f"1.2.0.192.{ZEN}": {},
    f"66.2.0.192.{ZEN}": {"A": ["127.0.0.2", "127.0.0.11"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["mail.example.net"]},
    "66.2.0.192.in-addr.arpa": {"PTR": ["mail.example.net"]},
    "mail.example.net": {"A": ["192.0.2.1", "192.0.2.66"]},
}


@pytest.mark.parametrize(
    ("address", "sender", "expected"),
    [
        ("192.0.2.1", "alice@example.net", "prepend Received-SPF: Pass "),
        ("192.0.2.66", "alice@example.net", "550 5.7.1 Several block lists"),
        ("192.0.2.2", "alice@example.net", "DEFER_IF_PERMIT 4.7.1 Greylisted"),
        ("192.0.2.200", "alice@partner.example", "550 5.7.23 Message rejected due to: SPF fail"),
    ],
)
def test_dnsSite(tmp_path, address, sender, expected, monkeypatch):
    """The policy of a whole site in docs/dns.md welcomes, greylists and refuses."""
    monkeypatch.setattr("ppolicy.blocklistcheck.isPrivate", lambda _: False)  # addresses for documents
    serving = serve(tmp_path, "dns.md", recipe("dns.md", "A policy with all of it"), SITE)
    assert ask(serving, client_address=address, sender=sender).startswith(f"action={expected}")
    assert ask(serving, client_address=address, sender=sender, recipient="Abuse@example.org") == "action=dunno"


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("cookbook.md", "Limits for users who have logged in"),
        ("cookbook.md", "A limit of its own for each user"),
        ("policy.md", "A real site's"),
    ],
)
def test_neverPasses(tmp_path, page, heading):
    """A mail with more recipients than the limit has is refused, for it would be deferred for ever."""
    serving = serve(tmp_path, page, recipe(page, heading))
    replies = [
        ask(serving, protocol_state="DATA", sasl_username="erin", recipient_count=number, instance=number)
        for number in ("101", "100", "1")
    ]
    assert replies[0].startswith("action=550 5.7.28 ")
    assert replies[1] == "action=dunno"
    assert re.match(r"action=450 4\.7\.28 Too many recipients, please try again in [0-9]+ seconds$", replies[2])
    serving.generation.stop()


WEB = {"client_address": "192.0.2.2", "client_name": "unknown", "reverse_client_name": "unknown"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "prepend Received-SPF: Pass "),
        (WEB, "DEFER_IF_PERMIT 4.7.1 Greylisted"),
        (WEB | {"recipient": "Postmaster@example.org"}, "dunno"),
        ({"helo_name": "[192.0.2.1]"}, "DEFER_IF_PERMIT 4.7.1 Greylisted"),
        ({"reverse_client_name": "dsl-192-0-2-1.pool.example.net"}, "DEFER_IF_PERMIT"),
        ({"client_address": "192.0.2.66"}, "550 5.7.1 Several block lists"),
        ({"client_address": "198.51.100.9", "sender": "x@partner.example"}, "dunno"),
        ({"client_address": "203.0.113.9"}, "550 5.7.1 We take no mail from your address"),
        ({"client_address": "192.0.2.200", "sender": "x@partner.example"}, "550 5.7.23"),
        ({"client_address": "192.0.2.77", "sender": "x@partner.example"}, "prepend Received-SPF: Pass"),
        (WEB | {"sender": "carol@example.net"}, "prepend Received-SPF: Pass"),
        ({"sender": "bob@Example.ORG"}, "550 5.7.1 Our own users log in"),
        ({"recipient": "info1999@example.org"}, "550 5.1.1 No such user"),
        ({"protocol_state": "DATA"}, "dunno"),
        ({"sasl_username": "bob", "sender": "bob@example.org"}, "dunno"),
        ({"sasl_username": "bob", "protocol_state": "DATA", "recipient_count": "100"}, "dunno"),
        ({"sasl_username": "bob", "protocol_state": "DATA", "recipient_count": "101"}, "550 5.7.28 More rec"),
    ],
)
def test_site(tmp_path, changes, expected, monkeypatch):
    """The policy of a real site does with each kind of mail what it says."""
    Registry().find("DnsblDynamic")
    for module in ("blocklistcheck", "modules.dnsbl_dynamic"):  # addresses for documents
        monkeypatch.setattr(f"ppolicy.{module}.isPrivate", lambda _: False)
    serving = serve(tmp_path, "policy.md", recipe("policy.md", "A real site's"), SITE)
    assert ask(serving, **changes).startswith(f"action={expected}")


def test_placesAndRecipients(tmp_path):
    """Mail that is refused because of the places it comes from uses nothing up of the recipients."""
    serving = serve(tmp_path, "policy.md", recipe("policy.md", "A real site's"), SITE)
    user = {"protocol_state": "DATA", "sasl_username": "bob", "recipient_count": "10"}
    answers = [ask(serving, **user, client_address=f"192.0.{i}.1", instance=f"3.{i}") for i in range(20)]
    assert answers[:5] == ["action=dunno"] * 5
    assert {answer[:45] for answer in answers[5:]} == {"action=450 4.7.28 Your account is used from t"}
    assert serving.generation.slots["recipients"].check.list()["limits"][0]["sum"].startswith("50,")


def test_trapped(tmp_path):
    """Who has touched a trap is deferred at a real site."""
    serving = serve(tmp_path, "policy.md", recipe("policy.md", "A real site's"), SITE)
    ask(serving, recipient="info1999@example.org", instance="1.1")
    assert ask(serving, instance="1.2").startswith("action=450 4.7.1 Please try again tomorrow")


def test_tenLines(tmp_path):
    """The ten lines are ten, are those of README, and greylist."""
    text = recipe("policy.md", "Ten lines")
    assert len([line for line in text.split("\n") if line]) == 10
    assert textwrap.indent(text, "    ").rstrip().replace("    \n", "\n") in (ROOT / "README").read_text()
    serving = serve(tmp_path, "policy.md", text)
    assert ask(serving).startswith("action=DEFER_IF_PERMIT 4.7.1 ")
    assert ask(serving, sasl_username="alice") == "action=dunno"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "action=DEFER_IF_PERMIT 4.7.1 Greylisted, please try again in 300 seconds"),
        ({"recipient": "ABUSE@example.org"}, "action=dunno"),
        ({"ccert_subject": "relay"}, "action=dunno"),
    ],
)
def test_exempt(tmp_path, changes, expected):
    """Those who must get through do."""
    assert ask(serve(tmp_path, "policy.md", recipe("policy.md", "Who must get through")), **changes) == expected


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({}, "action=DEFER_IF_PERMIT 4.7.25 No name that leads back: 192.0.2.1 has no name"),
        ({"1.2.0.192.in-addr.arpa": DNSError("SERVFAIL")}, "action=dunno"),
        (SITE, "action=dunno"),
    ],
)
def test_unknown(tmp_path, records, expected):
    """Trouble in the DNS defers nobody."""
    assert ask(serve(tmp_path, "policy.md", recipe("policy.md", "Unknown is not no"), records)) == expected


def test_stages(tmp_path):
    """Each stage has its function; one without has no opinion."""
    serving = serve(tmp_path, "policy.md", recipe("policy.md", "Whoever is asked about more than RCPT"))
    assert ask(serving).startswith("action=DEFER_IF_PERMIT")
    assert ask(serving, protocol_state="ETRN") == "action=dunno"
    codes = [ask(serving, protocol_state="DATA", sasl_username="bob", instance=f"2.{i}") for i in range(201)]
    assert codes[199] == "action=dunno"
    assert codes[200].startswith("action=450 4.7.28")
    end = {"protocol_state": "END-OF-MESSAGE", "size": "500000001"}
    assert ask(serving, **end, sasl_username="bob", instance="3").startswith("action=450")
    assert ask(serving, **end, sender="", instance="4") == "action=dunno"


def test_newcomer(tmp_path):
    """A domain is new once."""
    text = (
        "modulePath = ['.']\nmodules = {'new': ('Newcomer', {})}\n"
        "def check(factory, data, port):\n"
        "    return 'WARN', '%s %s' % factory.check('new', data)\n"
    )
    serving = serve(tmp_path, "check.md", text)
    assert ask(serving) == "action=WARN 1 example.net"
    assert ask(serving, sender="x@Example.Net", instance="2") == "action=WARN -1 example.net"


def test_explain(tmp_path):
    """A request in a file is explained with the policy of a real site."""
    prepare(tmp_path, "policy.md")
    (tmp_path / "ppolicy.conf").write_text(recipe("policy.md", "A real site's"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "ppolicy", "explain", "request.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "action=550 5.7.1 We take no mail from your address" in done.stdout, done.stdout + done.stderr


# The site


def test_build(tmp_path):
    """The site is built without a warning, and each link of it leads somewhere."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", "-n", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "modules.html").read_text(encoding="utf-8")
    assert all(f'id="{kind.lower()}"' in page for kind in bundledTypes())


def test_manuals():
    """The manual pages have nothing that groff complains about."""
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    for path in sorted((DOCS / "man").iterdir()):
        done = subprocess.run(
            ["groff", "-man", "-ww", "-z", "-Tutf8", str(path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), path.name
        assert not re.search(r"[^\x00-\x7f]", path.read_text(encoding="utf-8"))


def test_syntax():
    """Each listing in Python is Python."""
    for one in CODE:
        ast.parse(one.text, one.name)
