"""
Compile the C programs, and measure one server with the load generator.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.progress import note

HERE = Path(__file__).parent
BUILD = HERE / "build"

_LINE = re.compile(
    r"(?P<rate>\d+) req/s  n=(?P<requests>\d+) err=(?P<errors>\d+)"
    r"  us p50=(?P<p50>\d+) p90=(?P<p90>\d+) p99=(?P<p99>\d+) max=(?P<worst>\d+)"
    r"  cpu_us/req=(?P<cpu>[\d.]+)  actions:(?P<actions>.*)"
)


class BenchError(Exception):
    """
    Why nothing can be measured; shown as a sentence.
    """


@dataclass
class Sample:
    """
    One run of the load generator; times in microseconds, cpu for each request.
    """

    rate: float
    cpu: float
    p50: float
    p90: float
    p99: float
    worst: float
    requests: int
    errors: int


def build():
    """
    Compile policyload, floor and slowdns, unless that is done.
    """
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise BenchError(
            f"the load generator is C, and there is no compiler {compiler!r}: "
            "install one (Debian: apt-get install gcc libc6-dev) or name yours in $CC"
        )
    BUILD.mkdir(exist_ok=True)
    for name in ("policyload", "floor", "slowdns"):
        source, program = HERE / f"{name}.c", BUILD / name
        if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
            continue
        if subprocess.run([compiler, "-O2", "-Wall", "-o", program, source, "-lm"], check=False).returncode:
            raise BenchError(f"{source} does not compile")


def measure(server, seed, expected, *, requests=0, connections=8, mode="zipf", population=10_000, **how):
    """
    Load a server for some seconds, or with so many requests; wait until it has done what that left to do.

    @param expected: the action that every answer must have; others count as errors.
    @param how: C{seconds}; C{rate}, how many requests a second at most; and C{settle}: False to leave it with what
        there is to do.
    @return: a L{Sample}.
    """
    command = [BUILD / "policyload", "-c", connections, "-m", mode, "-p", population, "-s", seed]
    command += ["-d", how.get("seconds", 600), "-n", requests]
    if "rate" in how:
        command += ["-r", how["rate"]]
    for pid in server.pids():
        command += ["-k", pid]
    command.append(f"127.0.0.1:{server.port}")
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    note(f"  {server.name}: {result.stdout.strip()}")
    found = _LINE.search(result.stdout)
    if not found or found["requests"] == "0":
        raise BenchError(f"{server.name} cannot be measured: {result.stderr or result.stdout}\n{server.said()}")
    if how.get("settle", True):
        server.settle()
    numbers = {name: float(text) for name, text in found.groupdict().items() if name != "actions"}
    actions = dict(pair.rsplit("=", 1) for pair in found["actions"].split())
    numbers["errors"] += sum(int(count) for action, count in actions.items() if action != expected)
    return Sample(**numbers)
