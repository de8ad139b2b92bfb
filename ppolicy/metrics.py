"""
Metrics for Prometheus, and the answers to "does it live?" and "is it ready?", over HTTP: the option C{metrics}.

https://prometheus.io/docs/instrumenting/writing_exporters/ says how to name them. No label has a value that a
stranger can choose: checks, lists and servers are those of the configuration; actions and codes are told apart up
to a bound.
"""

import resource
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.utils import floatToGoString

from ppolicy import __version__, health, listeners, webpages
from ppolicy.logs import asText
from ppolicy.statistics import EDGES

# Seconds that a page with metrics is kept: how often it is made is not for others to decide.
KEPT = 1.0

# https://prometheus.io/docs/instrumenting/exposition_formats/: the form that every version reads.
FORM = "text/plain; version=0.0.4; charset=utf-8"
# The bounds of the histogram: three for each power of ten.
_BOUNDS = [number for number in range(len(EDGES)) if number % 10 in (0, 4, 7)]


def listen(reactor, service, verbs):
    """
    Answer where the option says.

    @return: Twisted's listening port.
    @raises ConfigError: when it cannot be bound.
    """
    wanted = listeners.parseLoopback(service.configuration.options.metrics, service.configuration.folder)
    return listeners.listen(reactor, wanted, webpages.factory(reactor, pages(reactor, service, verbs)), "metrics")


def pages(reactor, service, verbs):
    """
    The pages, as L{webpages.factory} wants them.
    """
    text = _Text(reactor, Metrics(service, verbs))
    return {
        "/metrics": lambda: (200, FORM, text.current()),
        "/healthz": lambda: (200, webpages.TEXT, b"alive\n"),
        "/readyz": lambda: (
            (200, webpages.TEXT, b"ready\n") if service.running else (503, webpages.TEXT, b"stopping\n")
        ),
    }


class _Text:
    """
    Metrics as text, not made more often than L{KEPT} says.
    """

    def __init__(self, reactor, metrics):
        self._reactor = reactor
        self._registry = CollectorRegistry()
        self._registry.register(metrics)
        self._text = b""
        self._until = reactor.seconds()

    def current(self):
        if self._reactor.seconds() >= self._until:
            self._text = generate_latest(self._registry)
            self._until = self._reactor.seconds() + KEPT
        return self._text


class Metrics:
    """
    Makes the metrics when somebody wants them; counting costs a request nothing beyond its statistics.
    """

    def __init__(self, service, verbs):
        self._service = service
        self._verbs = verbs

    def collect(self):
        """
        As L{prometheus_client} wants it.
        """
        decisions = self._service.server.decisions
        decisions.settle()
        counts, status = decisions.statistics.total(), self._verbs.status()
        yield InfoMetricFamily("ppolicy_build", "The version that runs.", {"version": __version__})
        yield from _ofProcess(self._service.started)
        yield from _ofRequests(counts, status["requests"])
        yield from _ofChecks(counts, status["modules"])
        yield from _ofServer(status)
        yield from _ofBackends(status["backends"])
        yield from _ofDns(status["backends"]["dns"])


def _ofProcess(started):
    """
    What the client library's own collector tells; that one needs /proc/stat, which a hardened service cannot see.
    """
    used, page = resource.getrusage(resource.RUSAGE_SELF), resource.getpagesize()
    seconds = used.ru_utime + used.ru_stime
    yield CounterMetricFamily("process_cpu_seconds", "Processor time that the server has taken.", seconds)
    numbers = {
        "start_time_seconds": ("When the server was started, in seconds since 1970.", started),
        "max_fds": ("How many files and connections may be open.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    }
    with suppress(OSError):  # there is no /proc in some cages
        size, resident = map(int, Path("/proc/self/statm").read_bytes().split()[:2])
        numbers["virtual_memory_bytes"] = "Memory that the server may address.", size * page
        numbers["resident_memory_bytes"] = "Memory that the server has.", resident * page
        numbers["open_fds"] = "Open files and connections.", sum(1 for _ in Path("/proc/self/fd").iterdir())
    for name, (text, number) in numbers.items():
        yield GaugeMetricFamily(f"process_{name}", text, number)


def _ofRequests(counts, requests):
    yield _counters("requests", "Requests decided, by action.", action=counts.actions)
    buckets, below, seen = [], 0, 0
    for number in _BOUNDS:
        seen += sum(counts.latency[below : number + 1])
        below = number + 1
        buckets.append((floatToGoString(EDGES[number]), seen))
    buckets.append(("+Inf", counts.requests))
    yield HistogramMetricFamily(
        "ppolicy_request_duration_seconds", "From a request to its answer.", buckets, counts.seconds
    )
    yield _counter("requests_failed", "Requests answered with returnOnFatalError.", requests["failed"])
    yield _counter("requests_over_limit", "Requests answered with returnOnConnLimit.", requests["beyondConnLimit"])
    yield _gauge("requests_waiting", "Requests that wait for something.", requests["waiting"])
    yield _counter("reactor_blocked", "How often code held up all requests.", requests["blockedReactor"])


def _ofChecks(counts, checks):
    answers = CounterMetricFamily(
        "ppolicy_check_answers", "Answers of checks, by code.", labels=["check", "code", "cached"]
    )
    for (name, code, cached), number in counts.checks.items():
        answers.add_metric([_label(name), str(code), "true" if cached else "false"], number)
    yield answers
    yield _counters(
        "check_failures",
        "How often a check raised or took too long.",
        check={name: one["failed"] for name, one in checks.items()},
    )
    yield _counters(
        "check_seconds",
        "Time spent in a check; answers from the cache take none.",
        check={name: one["seconds"] for name, one in checks.items()},
    )
    wrong = {one["where"] for one in health.problems({"modules": checks})}
    yield _gauges(
        "check_ok",
        "1 unless a check says that something is wrong with what it needs.",
        check={name: name not in wrong for name in checks},
    )


def _ofServer(status):
    yield _gauge("config_generation", "One more with each reload.", status["generation"])
    isGood = not status["reload"]["problem"]
    yield _gauge("config_last_reload_successful", "1 unless the last reload was refused.", isGood)
    yield _gauge("problems", "How many problems ppolicy status tells.", len(status["health"]))
    yield _gauge("connections", "Open connections of Postfix.", status["connections"]["open"])
    yield _gauge("connections_limit", "The option connLimit.", status["connections"]["limit"])
    yield _gauge("cache_entries", "Results of checks in the cache.", status["cache"]["entries"])
    yield _gauge("cache_entries_limit", "The option cacheSize.", status["cache"]["size"])
    pools = status["threads"]
    yield _gauges(
        "threads_busy", "Worker threads at work.", pool={name: one["busy"] for name, one in pools.items()}
    )
    yield _gauges(
        "threads_written_off",
        "Worker threads that are stuck: whoever asked them has given up.",
        pool={name: one["writtenOff"] for name, one in pools.items()},
    )


def _ofBackends(backends):
    good = _good(backends)
    # Who needs a table that cannot be used finds no use in the database either.
    good["database"] = good["database"] and all(_good(backends["database"]["tables"]).values())
    yield _gauges("backend_ok", "1 unless something is wrong with it.", backend=good)
    waiting = backends["database"]["waiting"]
    yield _gauge("database_operations_waiting", "Operations that wait for the database.", waiting)
    lines = backends["requestLog"]
    yield _gauge("log_lines_waiting", "Request lines that are not written yet.", lines["waiting"])
    yield _counter("log_lines_dropped", "Request lines that were lost.", lines["dropped"])


def _ofDns(dns):
    yield _gauges("name_server_ok", "1 unless it does not answer.", server=_good(dns["servers"]))
    yield _gauges("dns_list_ok", "1 unless this DNS list is suspended.", list=_good(dns["lists"]))
    yield _counter("dns_queries", "Questions to the DNS.", dns["asked"])
    yield _counter("dns_cache_hits", "Questions that were answered from memory instead.", dns["fromCache"])
    yield _counter("dns_failures", "Questions that the DNS did not answer.", dns["failed"])


def _good(parts):
    return {name: not one.get("problem") for name, one in parts.items()}


def _counter(name, text, number):
    return CounterMetricFamily(f"ppolicy_{name}", text, number)


def _gauge(name, text, number):
    return GaugeMetricFamily(f"ppolicy_{name}", text, float(number))


def _counters(name, text, **values):
    return _labelled(CounterMetricFamily, name, text, values)


def _gauges(name, text, **values):
    return _labelled(GaugeMetricFamily, name, text, values)


def _labelled(kind, name, text, values):
    """
    @param values: {label: {its value: number}}, with one label.
    """
    ((label, numbers),) = values.items()
    family = kind(f"ppolicy_{name}", text, labels=[label])
    for value, number in numbers.items():
        family.add_metric([_label(value)], float(number))
    return family


def _label(value):
    """
    A name of the configuration as UTF-8 can carry it.
    """
    return asText(value).encode("utf-8", "backslashreplace").decode()
