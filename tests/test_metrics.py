"""
Tests for the metrics: what Prometheus reads, whatever policies answer and checks say.
"""

import importlib.util
import itertools
import math
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parseOpenMetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from ppolicy import config, metrics
from ppolicy.errors import ConfigError
from ppolicy.generation import Generation
from ppolicy.resolver import Resolver
from ppolicy.verbs import Verbs
from tests.scraped import named, samples
from tests.serving import POSTFIX, Serving, asked

POLICY = """
from ppolicy.check import Check

class Coded(Check):
    blocking = False

    def hashArg(self, data):
        return data['recipient'] if data['size'] == '1' else 0

    def check(self, data):
        return coded(data['sender']), None

def coded(text):
    return float(text) if '.' in text or 'n' in text else int(text)

modules = NAMES

def check(factory, data, port):
    for name in modules:
        factory.check(name, data)
    return data['helo_name']
"""
CODED = "{name: (Coded, {}) for name in %r}"


class Site:
    """A server with its metrics, but for the HTTP."""

    def __init__(self, folder, text):
        self.serving = serving = Serving(folder, text)
        server = serving.server
        server.services.dns = Resolver(server.bridge, [])
        server.services.state.database = SimpleNamespace(problem=None, waiting=2, refusal=lambda table: None)
        self.service = SimpleNamespace(
            server=server,
            configuration=serving.generation.configuration,
            started=1_700_000_000.5,
            refusal=None,
            running=1,
            listeners=list,
            writer=SimpleNamespace(status=lambda: {"problem": None, "waiting": 3, "dropped": 4}),
        )
        self._connection = serving.connect()
        self.metrics = metrics.Metrics(self.service, Verbs(self.service))
        self.pages = metrics.pages(serving.clock, self.service, Verbs(self.service))

    def ask(self, **attributes):
        """Have one request decided."""
        protocol, transport = self._connection
        transport.clear()
        protocol.dataReceived(asked(**POSTFIX | {"instance": f"1.{next(_instances)}"} | attributes))
        assert transport.value()

    def text(self):
        """What Prometheus gets."""
        self.serving.clock.advance(metrics.KEPT)
        code, kind, octets = self.pages["/metrics"]()
        assert (code, kind) == (200, metrics.FORM)
        return octets.decode()

    def scrape(self):
        """{(name, labels in their order): value} by its parser; the one for OpenMetrics reads the same."""
        found = samples(parse(self.text()))
        registry = CollectorRegistry()
        registry.register(self.metrics)
        strict = samples(parseOpenMetrics(generate_latest(registry).decode()))
        moving = {key for key in found if key[0].startswith(("process_", "ppolicy_requests_waiting"))}
        assert {key: strict[key] for key in strict.keys() - moving} == {
            key: found[key] for key in found.keys() - moving
        }
        return found


_instances = itertools.count()


def site(folder, *names):
    """A site whose checks say what stands in C{sender}; the answer is the C{helo_name}."""
    text = POLICY.replace("NAMES", CODED % (names or ("one",),))
    return Site(folder, text)


def test_counts(tmp_path):
    """Requests are counted by action; answers of checks by check, code and whether they were cached."""
    one = site(tmp_path, "one", "two")
    for helo, sender in (
        ("dunno", "1"),
        ("450 4.7.1 no", "-1"),
        ("450 4.7.1 later", "0"),
        ("Prepend X-A: b", "3"),
    ):
        one.ask(helo_name=helo, sender=sender)
    for _ in range(3):
        one.ask(helo_name="dunno", sender="2", size="1")
    found = one.scrape()
    assert named(found, "ppolicy_requests_total") == {"DUNNO": 4, "450": 2, "PREPEND": 1}
    answers = {"1": 1, "-1": 1, "0": 1, "3": 1, "2": 1}
    assert named(found, "ppolicy_check_answers_total") == {
        ("false", name, code): number for name in ("one", "two") for code, number in answers.items()
    } | {("true", name, "2"): 2 for name in ("one", "two")}


def test_rest(tmp_path):
    """What the server is doing has its numbers."""
    one = site(tmp_path)
    one.ask(helo_name="dunno", sender="1", size="1")
    one.ask(helo_name="dunno", sender="?")
    one.ask(helo_name="no such action", sender="1")
    one.serving.connect()
    found = one.scrape()
    wanted = {
        "ppolicy_requests_failed_total": 1,
        "ppolicy_requests_over_limit_total": 0,
        "ppolicy_requests_waiting": 0,
        "ppolicy_reactor_blocked_total": 0,
        "ppolicy_config_generation": 1,
        "ppolicy_config_last_reload_successful": 1,
        "ppolicy_problems": 0,
        "ppolicy_connections": 2,
        "ppolicy_connections_limit": 1000,
        "ppolicy_cache_entries": 1,
        "ppolicy_cache_entries_limit": 50_000,
        "ppolicy_database_operations_waiting": 2,
        "ppolicy_log_lines_waiting": 3,
        "ppolicy_log_lines_dropped_total": 4,
        "ppolicy_dns_queries_total": 0,
        "process_start_time_seconds": 1_700_000_000.5,
    }
    assert {name: found[name,] for name in wanted} == wanted
    assert named(found, "ppolicy_check_failures_total") == {"one": 1}
    assert named(found, "ppolicy_threads_written_off") == {"module": 0, "policy": 0}
    assert 1_000_000 < found["process_resident_memory_bytes",] < found["process_virtual_memory_bytes",]
    assert 3 < found["process_open_fds",] <= found["process_max_fds",]
    assert found["process_cpu_seconds_total",] > 0


def test_histogram(tmp_path):
    """The buckets count up to the number of requests; a time that is a bound is within it."""
    one = site(tmp_path)
    took = [0.0, 1e-5, 1.1e-5, 0.001, 0.0010001, 0.3, 100.0, 100.1, 5000.0]
    data = dict.fromkeys(POSTFIX, "")
    for seconds in took:
        one.serving.server.decisions.add(data, [], b"action=dunno\n\n", 0.0, seconds)
    found = one.scrape()
    buckets = named(found, "ppolicy_request_duration_seconds_bucket")
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets == {bound: sum(seconds <= float(bound) for seconds in took) for bound in buckets}
    assert (buckets["1e-05"], buckets["0.001"], buckets["100.0"], buckets["+Inf"]) == (2, 4, 7, 9)
    assert found["ppolicy_request_duration_seconds_count",] == len(took)
    assert found["ppolicy_request_duration_seconds_sum",] == pytest.approx(math.fsum(took))
    assert found["ppolicy_requests_total", "DUNNO"] == len(took)


def test_bounded(tmp_path):
    """However many different actions and codes there are, the series are few, and nothing is counted twice."""
    one = site(tmp_path, "one", "two", "three")
    replies = [f"{number} 4.7.1 no {text}" for number in range(400, 600) for text in ("a", "b")]
    replies += [f"check_client_access hash:/etc/{number}" for number in range(300)]
    replies += [f"permit_mynetworks, reject_rbl_client {number}.example.org" for number in range(300)]
    codes = [*map(str, range(-500, 500)), *(f"{number / 7}" for number in range(500)), "nan", "inf", "-inf"]
    codes += [f"{7**300}", f"-{7**300}.5"]
    asked, last = 0, {}
    for (number, code), reply in zip(enumerate(codes), itertools.cycle(replies), strict=False):
        one.ask(helo_name=reply, sender=code)
        asked += 1
        if number % 300 == 0:
            one.serving.clock.advance(7)
            found = one.scrape()
            assert all(found[key] >= value for key, value in last.items())
            last = {key: value for key, value in found.items() if key[0].endswith(("_total", "_bucket", "_count"))}
    found = one.scrape()
    actions = named(found, "ppolicy_requests_total")
    assert sum(actions.values()) == asked
    assert len(actions) == 101
    assert actions["other"] > 0
    answers = named(found, "ppolicy_check_answers_total")
    assert sum(answers.values()) == 3 * asked
    assert len(answers) <= 3 * 45
    assert {code for _, _, code in answers} == {*map(str, range(-20, 21)), ">0", "<0"}


def test_moreBounded(tmp_path):
    """With very many checks, what is beyond the bound is told together."""
    one = site(tmp_path, *(f"check{number}" for number in range(60)))
    for code in range(-20, 21):
        one.ask(helo_name="dunno", sender=str(code))
    answers = named(one.scrape(), "ppolicy_check_answers_total")
    assert len(answers) == 1001
    assert sum(answers.values()) == 60 * 41
    assert answers["false", "other", "other"] == 60 * 41 - 1000


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\u00e4\u20ac", "{}", "a b", "\udc80", "le", "x" * 300])
def test_names(tmp_path, name):
    """A check may have any name."""
    one = site(tmp_path, name)
    one.ask(helo_name="dunno", sender="1")
    found = one.scrape()
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert named(found, "ppolicy_check_answers_total") == {("false", shown, "1"): 1}
    assert named(found, "ppolicy_check_ok") == {shown: 1}


STATUS = """
from twisted.internet.defer import Deferred
from ppolicy.check import Check, wait

class Own(Check):
    blocking = False

    def check(self, data):
        return 1, None

class Good(Own):
    def status(self):
        return {'problem': None, 'file': {'problem': ''}}

class Wrong(Own):
    def status(self):
        return {'problem': None, 'file': {'problem': 'gone'}}

class Raises(Own):
    def status(self):
        raise SystemExit

class Waits(Own):
    def status(self):
        wait(Deferred())

modules = {kind.__name__: (kind, {}) for kind in (Good, Wrong, Raises, Waits)}

def check(factory, data, port):
    pass
"""


def test_status(tmp_path):
    """A check whose status() says that something is wrong, or raises or waits, is not well; the others are."""
    one = Site(tmp_path, STATUS)
    for _ in range(3):
        found = one.scrape()
        assert named(found, "ppolicy_check_ok") == {"Good": 1, "Wrong": 0, "Raises": 0, "Waits": 0}
        assert found["ppolicy_problems",] == 3


def test_backends(tmp_path):
    """What is away is told."""
    one = site(tmp_path)
    assert set(named(one.scrape(), "ppolicy_backend_ok").values()) == {1}
    one.service.server.services.state.database.problem = "away"
    one.service.refusal = "line 3"
    found = one.scrape()
    assert {name for name, value in named(found, "ppolicy_backend_ok").items() if not value} == {"database"}
    assert found["ppolicy_config_last_reload_successful",] == 0
    assert found["ppolicy_problems",] == 2


def test_tables(tmp_path):
    """A table that cannot be used, made by a newer ppolicy, say, is told as a database that is away."""
    one = site(tmp_path)
    services = one.service.server.services
    services.state.tables["greylist"] = SimpleNamespace(name="greylist", schema="newer", described=dict)
    assert named(one.scrape(), "ppolicy_backend_ok")["database"] == 1
    services.state.database.refusal = {"newer": "made by a newer ppolicy"}.get
    found = one.scrape()
    assert {name for name, value in named(found, "ppolicy_backend_ok").items() if not value} == {"database"}
    assert found["ppolicy_problems",] == 1


def test_reload(tmp_path):
    """What is counted of a check goes on over a reload, which may bring and take away others."""
    one = site(tmp_path, "one", "two")
    one.ask(helo_name="dunno", sender="?")
    one.ask(helo_name="dunno", sender="1")
    before = one.scrape()
    one.serving.path.write_text(one.serving.path.read_text().replace("'two'", "'three'"))
    following = Generation(2, config.load(one.serving.path), one.service.server)
    following.start(one.serving.generation)
    following.countOn(one.serving.generation)
    one.service.server.generation = following
    one.ask(helo_name="dunno", sender="?")
    found = one.scrape()
    assert named(found, "ppolicy_check_failures_total") == {"one": 2, "three": 1}
    assert found["ppolicy_check_seconds_total", "one"] >= before["ppolicy_check_seconds_total", "one"]
    assert found["ppolicy_config_generation",] == 2
    assert {key for _, key, _ in named(found, "ppolicy_check_answers_total")} == {"one", "two", "three"}


def test_ready(tmp_path):
    """A server lives until it is gone, and is ready until it stops."""
    one = site(tmp_path)
    assert [one.pages[path]()[::2] for path in ("/healthz", "/readyz")] == [(200, b"alive\n"), (200, b"ready\n")]
    one.service.running = 0
    assert [one.pages[path]()[::2] for path in ("/healthz", "/readyz")] == [
        (200, b"alive\n"),
        (503, b"stopping\n"),
    ]


def test_kept(tmp_path):
    """However often somebody asks, metrics are made once a second."""
    one = site(tmp_path)
    first = one.text()
    one.ask(helo_name="dunno", sender="1")
    one.serving.clock.advance(metrics.KEPT * 0.9)
    assert one.pages["/metrics"]()[2].decode() == first
    assert 'ppolicy_requests_total{action="DUNNO"} 1.0\n' in one.text()


# The option


PLAIN = "def check(factory, data, port): pass\n"


def refusal(folder, *lines):
    """Why a configuration is refused."""
    path = folder / "ppolicy.conf"
    path.write_text("".join(f"{line}\n" for line in (*lines, PLAIN)))
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return str(caught.value).replace(str(folder), "")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("9154", "must be a text or None, not 9154"),
        (
            "'9154'",
            "'9154' is none of '127.0.0.1:9154', '[::1]:9154', 'unix:/path:mode=660'; to be read from another",
        ),
        ("'*:9154'", "'*:9154' is none of '127.0.0.1:9154'"),
        ("'0.0.0.0:9154'", "'0.0.0.0:9154' is none of '127.0.0.1:9154'"),
        ("'192.0.2.1:9154'", "'192.0.2.1:9154' is none of '127.0.0.1:9154'"),
        ("'[2001:db8::1]:9154'", "'[2001:db8::1]:9154' is none of '127.0.0.1:9154'"),
        ("'localhost:9154'", "'localhost:9154' is none of '127.0.0.1:9154'"),
        ("'systemd:name=metrics'", "'systemd:name=metrics' is none of '127.0.0.1:9154'"),
        ("'127.0.0.999:9154'", "127.0.0.999 is no IP address"),
        ("'127.0.0.1:99154'", "99154 is no port number, these are 1 to 65535"),
        ("'127.0.0.1:0'", "'127.0.0.1:0': nobody could tell which port that will be"),
        ("'unix:'", "'unix:' names no path"),
        ("'unix:/a:mod=660'", "'mod=660' in 'unix:/a:mod=660' is none of mode=, user=, group="),
        ("'unix:/a:group=nosuchgroup'", "there is no group 'nosuchgroup'"),
        ("''", "'' is none of '127.0.0.1:9154'"),
    ],
)
def test_wrong(tmp_path, value, sentence):
    """What is no place on this host is a mistake with its line."""
    assert refusal(tmp_path, "", f"metrics = {value}").startswith(f"/ppolicy.conf:2: metrics: {sentence}")


@pytest.mark.parametrize(
    ("port", "metrics"),
    [
        ("9154", "127.0.0.1:9154"),
        ("9154", "[::1]:9154"),
        ("'*:9154'", "127.0.0.2:9154"),
        ("'0.0.0.0:9154'", "127.0.0.1:9154"),
        ("['unix:/a/b', 'unix:/a/c:mode=600']", "unix:/a/c"),
    ],
)
def test_twice(tmp_path, port, metrics):
    """A port is for Postfix or for Prometheus."""
    said = refusal(tmp_path, f"metrics = {metrics!r}", f"ppolicyPort = {port}")
    assert said == f"/ppolicy.conf:1: metrics: {metrics} is in ppolicyPort already, where Postfix asks"


@pytest.mark.parametrize(
    ("port", "metrics"), [("9154", "127.0.0.2:9154"), ("9155", "127.0.0.1:9154"), ("'unix:/a/b'", "unix:/a/c")]
)
def test_other(tmp_path, port, metrics):
    """Other ports are others."""
    path = tmp_path / "ppolicy.conf"
    path.write_text(f"metrics = {metrics!r}\nppolicyPort = {port}\n{PLAIN}")
    assert config.load(path).options.metrics == metrics


def test_missing(tmp_path, monkeypatch):
    """Without the package that makes them, metrics are a mistake with its name; else it is not needed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = refusal(tmp_path, "metrics = '127.0.0.1:9154'")
    wanted = "metrics: needs the Python package prometheus-client: pip install 'ppolicy[metrics]'"
    assert said == f"/ppolicy.conf:1: {wanted}"
    (tmp_path / "ppolicy.conf").write_text(PLAIN)
    assert config.load(tmp_path / "ppolicy.conf").options.metrics is None
