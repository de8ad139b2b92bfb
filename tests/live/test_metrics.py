"""
Metrics of a real server, read as Prometheus reads them.
"""

import contextlib
import http.client
import itertools
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.dnsserver import DNSServer
from tests.documents import listings
from tests.scraped import named, samples
from tests.stalls import took

from .policyclient import ATTRIBUTES
from .policyserver import Server
from .ports import freePort
from .proxy import Proxy

PLAIN = "def check(factory, data, port): return 'dunno'\n"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def get(where, path="/metrics", method="GET"):
    """(status, headers, text) of a page; where is a port or the path of a socket."""
    plain = isinstance(where, int)
    connection = (
        http.client.HTTPConnection("127.0.0.1", where, 10) if plain else _UnixConnection(str(where), timeout=10)
    )
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


def scrape(where):
    """{(name, label values in the order of the labels): value} of all samples."""
    status, headers, text = get(where)
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return samples(parse(text))


def until(where, wanted, seconds=20):
    """Scrape until `wanted(found)` is true."""
    deadline = time.monotonic() + seconds
    while not wanted(found := scrape(where)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


@pytest.fixture
def server():
    """A server that is not started yet."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def served():
    """A server with a bit of everything, and the port of its metrics."""
    server, metrics = Server(), freePort()
    with DNSServer({"2.0.0.127.bl.test": {"A": ["127.0.0.2"]}, ".": {"NS": ["localhost."]}}) as names:
        server.configure(
            EVERYTHING,
            metrics=f"127.0.0.1:{metrics}",
            dnsServers=[names.address],
            dnsLists={"OURS": {"zone": "bl.test", "codes": "127.0.0.0/24"}},
        )
        try:
            yield server.start(), metrics
        finally:
            server.close()


EVERYTHING = """
modules = {'listed': ('Dnsbl', {'dnsbl': 'OURS'}), 'dummy': ('Dummy', {})}

def check(factory, data, port):
    factory.check('dummy', data)
    factory.check('listed', data)
    return 'dunno'
"""


# Under load

LOAD = """
import random
from ppolicy.check import Check

class Coded(Check):
    blocking = False

    def check(self, data):
        return int(data['size']), None

class Random(Check):
    blocking = False

    def check(self, data):
        return random.uniform(-1e9, 1e9), None

class Failing(Check):
    blocking = False

    def check(self, data):
        raise ValueError('as asked')

restrictionClasses = [f'class{number}' for number in range(3000)]
modules = {
    'coded': (Coded, {}),
    'random': (Random, {}),
    'dummy': ('Dummy', {'cacheUnknown': 600}),
    'failing': (Failing, {}),
}

def check(factory, data, port):
    factory.check('coded', data)
    factory.check('random', data)
    factory.check('dummy', data)
    if data['queue_id'] == 'fail':
        factory.check('failing', data)
    return data['helo_name']
"""
REQUESTS = 100_000
TOGETHER = 100
_FIXED = "".join(
    f"{name}={value}\n" for name, value in ATTRIBUTES.items() if name not in ("helo_name", "size", "queue_id")
)


def wire(helo, size, queueId=""):
    """A request."""
    return f"{_FIXED}helo_name={helo}\nsize={size}\nqueue_id={queueId}\n\n".encode()


def exchange(connection, requests):
    """Send requests at once, and wait for all their answers."""
    connection.sendall(b"".join(requests))
    received = b""
    while received.count(b"\n\n") < len(requests):
        part = connection.recv(65536)
        assert part, "closed"
        received += part
    assert received.count(b"\n\n") == len(requests)


class Watcher(threading.Thread):
    """Does something again and again beside a test, until `stop()`, which raises what went wrong."""

    def __init__(self, step, pause):
        super().__init__(daemon=True)
        self._step, self._pause = step, pause
        self._stopped = threading.Event()
        self.error = None
        self.start()

    def run(self):
        try:
            while not self._stopped.wait(self._pause):
                self._step()
        except BaseException as error:  # noqa: BLE001 - raised again in the test
            self.error = error

    def stop(self):
        self._stopped.set()
        self.join(20)
        if self.error is not None:
            raise self.error


def compare(last, found):
    """No counter goes down, and the buckets of the histogram count up to the number of requests."""
    for key, value in last.items():
        if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
            assert found[key] >= value, key
    buckets = named(found, "ppolicy_request_duration_seconds_bucket")
    assert list(buckets.values()) == sorted(buckets.values())
    count = found["ppolicy_request_duration_seconds_count",]
    assert buckets["+Inf"] == count == sum(named(found, "ppolicy_requests_total").values())


def test_load(makeServer):
    """
    While very many requests are answered, each scrape can be read, no counter ever goes down, also over reloads,
    no answer waits long for a scrape, and in the end each request and each answer of a check was counted once.
    """
    metrics = freePort()
    server = makeServer(LOAD, metrics=f"127.0.0.1:{metrics}", requestLog=None, historySize=0)
    good = server.configuration.read_text()
    connections = [socket.create_connection(server.address, 30) for _ in range(5)]
    scrapes, latencies = [scrape(metrics)], []

    def look():
        found = scrape(metrics)
        compare(scrapes[-1], found)
        scrapes.append(found)

    def ask():
        begun = time.monotonic()
        exchange(connections[-1], [wire("dunno", 0)])
        latencies.append(time.monotonic() - begun)

    watchers = [Watcher(look, 0.1), Watcher(ask, 0.01)]
    chance = random.Random(1)
    actions, codes, failing = Counter(), Counter(), 0
    for number in range(REQUESTS // TOGETHER):
        requests = []
        for _ in range(TOGETHER):
            helo = chance.choice(("dunno", "450 4.7.1 no", "reject 5.7.1 no", f"class{chance.randrange(3000)}"))
            code = chance.randrange(-30, 31)
            fails = chance.random() < 0.0002
            requests.append(wire(helo, code, "fail" if fails else ""))
            actions[helo.split()[0].upper()] += 1
            codes[str(code) if -20 <= code <= 20 else ">0" if code > 0 else "<0"] += 1
            failing += fails
        exchange(connections[number % 4], requests)
        if number in (250, 500, 750):
            server.configuration.write_text(good + ("conLimit = 3\n" if number == 500 else ""))
            server.hangUp()
    for watcher in watchers:
        watcher.stop()
    first = scrapes[0]
    time.sleep(1.1)  # a page may be a second old
    look()
    last = scrapes[-1]
    made = len({one["process_cpu_seconds_total",] for one in scrapes})
    print(f"{len(scrapes)} scrapes of {made} pages, {len(last)} series, {max(latencies) * 1000:.0f} ms at most")
    assert made >= 3
    assert max(latencies) < 5, sorted(latencies)[-5:]
    asked = REQUESTS + len(latencies)
    actions["DUNNO"] += len(latencies)
    actions.update(named(first, "ppolicy_requests_total"))
    codes["0"] += len(latencies)
    told = named(last, "ppolicy_requests_total")
    assert sum(told.values()) == sum(actions.values())
    assert len(told) == 101
    plain = ("DUNNO", "450", "REJECT")
    assert {action: told[action] for action in plain} == {action: actions[action] for action in plain}
    assert all(number <= actions[action] for action, number in told.items() if action != "other")
    answers = Counter(named(last, "ppolicy_check_answers_total"))
    answers.subtract(named(first, "ppolicy_check_answers_total"))
    assert {code: number for (_, name, code), number in answers.items() if name == "coded"} == codes
    assert {key for key in answers if key[1] == "random"} <= {
        ("false", "random", code) for code in ("<0", "0", ">0")
    }
    assert sum(number for (_, name, _), number in answers.items() if name == "random") == asked
    assert answers["true", "dummy", "0"] + answers["false", "dummy", "0"] == asked
    assert answers["true", "dummy", "0"] >= asked - 1
    assert answers["false", "failing", "0"] == failing == last["ppolicy_check_failures_total", "failing"] > 0
    assert sum(answers.values()) == 3 * asked + failing
    assert (last["ppolicy_config_generation",], last["ppolicy_config_last_reload_successful",]) == (3, 1)
    assert last["ppolicy_connections",] == len(connections)


# The pages


def listening(server):
    """The TCP ports that the process listens on."""
    inodes = set()
    for one in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(one.readlink()))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in inodes:
                found.add(int(local.rpartition(":")[2], 16))
    return found


def test_off(makeServer):
    """Nothing listens unless the option is set."""
    server = makeServer(PLAIN)
    assert listening(server) == {server.port}


STOPPING = """
import time
from ppolicy.check import Check

class Slow(Check):
    blocking = True

    def check(self, data):
        print('asked', flush=True)
        time.sleep(3)
        return 1, None

modules = {'slow': (Slow, {})}

def check(factory, data, port):
    if data['sender'] == 'slow':
        factory.check('slow', data)
    return 'dunno'
"""


def test_pages(makeServer):
    """A server that is told to stop is not ready any more while it answers what has come in, and still lives."""
    metrics = freePort()
    server = makeServer(STOPPING, metrics=f"127.0.0.1:{metrics}")
    assert get(metrics, "/healthz")[::2] == (200, "alive\n")
    assert get(metrics, "/readyz")[::2] == (200, "ready\n")
    assert get(metrics, "/")[::2] == (404, "Not here. There is /metrics, /healthz, /readyz.\n")
    status, headers, text = get(metrics, "/metrics", "HEAD")
    assert (status, int(headers["Content-Length"]) > 1000, text) == (200, True, "")
    assert get(metrics, "/metrics", "POST")[0] == 405
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.request(sender="slow")))
    asking.start()
    server.waitForLog("asked")
    server.process.send_signal(signal.SIGTERM)
    server.waitForLog("SIGTERM, stopping")
    assert get(metrics, "/readyz")[::2] == (503, "stopping\n")
    assert get(metrics, "/healthz")[0] == 200
    asking.join(10)
    assert answers == ["dunno"]
    assert server.process.wait(10) == 0


def test_hostile(served):
    """Who opens connections, sends half of something and reads nothing keeps nobody else out."""
    server, metrics = served
    before = scrape(metrics)["process_open_fds",]
    chance = random.Random(2)
    held = []
    parts = (
        b"",
        b"GET /metrics HTTP/1.1\r\n",
        b"\xff" * 999,
        b"GET /metrics HTTP/1.0\r\n\r\n" * 100,
        b"POST / HTTP/1.1\r\n",
    )
    with server.connect() as postfix:
        for number in range(400):
            connection = socket.create_connection(("127.0.0.1", metrics), 5)
            held.append(connection)
            with contextlib.suppress(OSError):
                connection.sendall(chance.choice(parts))
            if number % 20 == 0:
                begun = time.monotonic()
                assert get(metrics)[0] == 200
                assert postfix.ask() == "dunno"
                assert took(begun) < 5
        time.sleep(1.1)
        assert scrape(metrics)["process_open_fds",] <= before + 25
    for connection in held:
        connection.close()
    assert "Traceback" not in server.log()
    assert len(server.output) < 50


def test_often(served):
    """Who asks as often as he can has the same page again, and answers for Postfix come all the same."""
    server, metrics = served
    latencies = []

    def ask(connection=server.connect()):
        begun = time.monotonic()
        connection.ask()
        latencies.append(time.monotonic() - begun)

    watchers = [Watcher(lambda: get(metrics), 0), Watcher(lambda: get(metrics), 0), Watcher(ask, 0.01)]
    deadline = time.monotonic() + 20
    while len(latencies) <= 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    for watcher in watchers:
        watcher.stop()
    assert len(latencies) > 20
    assert max(latencies) < 5


def test_unix(server):
    """On a UNIX socket with its mode, also after root's rights are gone, and again after a restart."""
    more = {"user": "nobody"} if os.geteuid() == 0 else {}
    path = server.stateDir / "metrics.sock"
    server.configure(PLAIN, metrics=f"unix:{path}:mode=606", **more)
    for kills in (True, False):
        server.start()
        status = path.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o606
        found = until(path, lambda found: found["ppolicy_requests_total", "DUNNO"] >= 1)
        assert found["process_open_fds",] > 3
        assert found["process_resident_memory_bytes",] > 1_000_000
        if more:
            assert status.st_uid == pwd.getpwnam("nobody").pw_uid
        assert get(path, "/readyz")[0] == 200
        if kills:
            server.kill()
            assert path.exists()
        else:
            server.terminate()
            assert not path.exists()


def run(server):
    """A start that fails: (exit code, what it printed)."""
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


def test_refused(server, tmp_path):
    """A port or a path that cannot be had is a sentence at the start, which says who has it."""
    with socket.create_server(("127.0.0.1", freePort())) as other:
        port = other.getsockname()[1]
        server.configure(PLAIN, metrics=f"127.0.0.1:{port}")
        code, text = run(server)
        assert code != 0
        assert f"metrics: cannot listen on 127.0.0.1:{port}: Address already in use, by " in text
        assert f", pid {os.getpid()}" in text
        assert "Traceback" not in text
    server.configure(PLAIN, metrics=f"unix:{tmp_path}/no/such/folder")
    code, text = run(server)
    assert (code != 0, f"metrics: cannot listen on {tmp_path}/no/such/folder: " in text) == (True, True)
    assert "Traceback" not in text


def test_reload(makeServer):
    """A refused reload is told until one is accepted; another port takes effect after a restart."""
    metrics, other = freePort(), freePort()
    server = makeServer(PLAIN, metrics=f"127.0.0.1:{metrics}")
    good = server.configuration.read_text()
    server.configuration.write_text(good + "conLimit = 3\n")
    server.hangUp()
    found = until(metrics, lambda found: found["ppolicy_config_last_reload_successful",] == 0)
    assert (found["ppolicy_config_generation",], found["ppolicy_problems",]) == (1, 1)
    server.configuration.write_text(good.replace(str(metrics), str(other)))
    server.hangUp()
    server.waitForLog("metrics has changed: this takes effect when the server is started again")
    found = until(metrics, lambda found: found["ppolicy_config_last_reload_successful",] == 1)
    assert (found["ppolicy_config_generation",], found["ppolicy_problems",]) == (2, 0)
    assert listening(server) == {server.port, metrics}


NAMES = {"*": {"A": ["192.0.2.1"]}, ".": {"NS": ["localhost."]}}
AWAY = """
modules = {
    'greylist': ('Greylist', {}),
    'helo': ('Resolve', {'param': 'helo_name', 'type': 'name->ip'}),
}

def check(factory, data, port):
    factory.check('greylist', data)
    factory.check('helo', data)
    return 'dunno'
"""


def test_away(makeServer, mariadb):
    """A database and a name server that are away are told, and told no more once they are back."""
    metrics, numbers = freePort(), itertools.count()
    proxy, names = Proxy(mariadb.port), DNSServer(NAMES)

    def become(database, dns):
        def isSo(found):
            server.request(helo_name=f"h{next(numbers)}.example.net", sender=f"s{next(numbers)}@example.net")
            backends = named(found, "ppolicy_backend_ok")
            servers = set(named(found, "ppolicy_name_server_ok").values())
            return (backends["database"], backends["dns"], servers) == (database, dns, {dns})

        until(metrics, isSo)

    with names:
        server = makeServer(
            AWAY,
            metrics=f"127.0.0.1:{metrics}",
            database=mariadb.url.replace(f":{mariadb.port}/", f":{proxy.port}/"),
            dnsServers=[names.address],
        )
        become(1, 1)
    proxy.refuse(True)
    proxy.cut()
    become(0, 0)
    proxy.refuse(False)
    with DNSServer(NAMES, port=names.port):
        become(1, 1)
    proxy.close()


# What goes with it

ROOT = Path(__file__).parent.parent.parent
BOARD = json.loads((ROOT / "contrib" / "grafana" / "ppolicy.json").read_text())
RULES = ROOT / "contrib" / "prometheus" / "ppolicy.rules.yml"
PROMETHEUS = ROOT / "contrib" / "prometheus" / "prometheus.yml"
ALERTS = [one for group in yaml.safe_load(RULES.read_text())["groups"] for one in group["rules"]]
# What Prometheus itself adds.
ADDED = {"job", "instance"}


def families(metrics):
    """{name of a sample: its labels} of a scrape, and {name in the documents: (type, labels)}."""
    labels, documented = {}, {}
    for family in parse(get(metrics)[2]):
        assert family.samples, family.name
        for one in family.samples:
            labels.setdefault(one.name, set()).update(one.labels)
        name = family.samples[0].name if family.type != "histogram" else family.name
        documented[name] = family.type, set(family.samples[0].labels) - {"le"}
    return labels, documented


def queries():
    """Each PromQL query of the dashboard, the alerts and the page, with where it is from."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]
    (text,) = [one.text for one in listings("metrics.md") if one.text.startswith("# requests")]
    for part in text.split("\n\n"):
        yield "metrics.md", "\n".join(part.split("\n")[1:])


def asked(query):
    """
    ({metric: labels of its selectors}, labels that are grouped or joined by) of a query.
    """
    selectors = {}
    for name, inner in re.findall(r"\b((?:ppolicy|process)_\w+|up)\b(?:\{([^}]*)\})?", query):
        selectors.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inner))
    groups = re.findall(r"\b(?:by|without|on|ignoring|group_left)\s*\(([^)]*)\)", query)
    by = {label.strip() for group in groups for label in group.split(",")}
    by |= {label for _, label in re.findall(r"label_values\((.*), (\w+)\)", query)}
    return selectors, by


def test_queries(served):
    """Every metric that the dashboard, the alerts and the page name is in a scrape, with the labels they name."""
    labels, _ = families(served[1])
    labels["up"] = set()
    used = set()
    for where, query in queries():
        selectors, by = asked(query)
        assert selectors, where
        assert selectors.keys() <= labels.keys(), where
        for name, wanted in selectors.items():
            assert wanted <= labels[name] | ADDED, (where, name)
        assert by <= ADDED.union(*(labels[name] for name in selectors)), where
        assert not set(re.findall(r"\$(\w+)", query)) - {"instance", "check", "__rate_interval"}, where
        used |= selectors.keys()
    # Whatever there is to be seen is drawn.
    assert labels.keys() - used <= {"process_virtual_memory_bytes"}, labels.keys() - used


@pytest.mark.parametrize(
    "query",
    [
        "rate(ppolicy_request_total[5m])",
        "sum by (actions) (ppolicy_requests_total)",
        'ppolicy_requests_total{code="1"}',
        "label_values(ppolicy_check_ok, name)",
        "ppolicy_connections / on (host) ppolicy_connections_limit",
    ],
)
def test_asked(served, query):
    """Each of these would be found."""
    labels, _ = families(served[1])
    selectors, by = asked(query)
    known = ADDED.union(*(labels.get(name, ()) for name in selectors))
    isGood = all(name in labels and wanted <= labels[name] | ADDED for name, wanted in selectors.items())
    assert not (isGood and by <= known)


def test_alerts(served):
    """Each alert says what to do, with labels that its query has, and is in the page."""
    labels, _ = families(served[1])
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(Ppolicy\w+)`", page, re.M) == [alert["alert"] for alert in ALERTS]
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("warning", "critical")
        summary = alert["annotations"]["summary"]
        assert len(summary) > 80
        selectors, by = asked(alert["expr"])
        known = by - {"le"} if by else ADDED.union(*(labels.get(name, ()) for name in selectors))
        assert set(re.findall(r"\$labels\.(\w+)", summary)) <= known, alert["alert"]
    (job,) = yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
    assert job["job_name"] == "ppolicy"
    assert {one for alert in ALERTS for one in re.findall(r'job="([^"]*)"', alert["expr"])} == {"ppolicy"}


def test_board():
    """The dashboard has a place for each panel, and takes its data source from the one variable for it."""
    assert BOARD["id"] is None
    assert [one["name"] for one in BOARD["templating"]["list"] if one["type"] == "datasource"] == ["datasource"]
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert all(one == {"type": "prometheus", "uid": "${datasource}"} for one in sources)
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_documented(served):
    """The page has every metric of a scrape, with its type and its labels, and no other."""
    _, documented = families(served[1])
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:ppolicy|process)_\w+)` \| (\w+) \| ([^|]*)\| [^|]+ \|$", page, re.M)
    assert {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == documented
    assert len(rows) == len(documented)


@pytest.mark.parametrize("arguments", [("rules", RULES), ("config", PROMETHEUS), ("metrics",)])
def test_promtool(served, arguments):
    """Where Prometheus is installed, its own tool has nothing to complain about."""
    tool = shutil.which("promtool")
    if tool is None:  # a large package, which the tests do not install
        assert yaml.safe_load(RULES.read_text())["groups"]
        return
    done = subprocess.run(
        [tool, "check", *map(str, arguments)], input=get(served[1])[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
