"""
Run the benchmark and print its table: `python -m bench.run`, from the root of the checkout. See README.
"""

import argparse
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from bench.lines import LINES, Bench
from bench.load import BenchError, build
from bench.progress import Progress
from bench.table import render


class Machine:
    """
    What else this machine is doing meanwhile.
    """

    def __init__(self):
        self._load = os.getloadavg()[0]
        self._used, self._all = self._ticks()
        self._ours = self._seconds()

    def _ticks(self):
        user, nice, system, idle, wait, *rest = map(
            int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
        )
        used = user + nice + system + sum(rest)
        return used, used + idle + wait

    def _seconds(self):
        both = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(one.ru_utime + one.ru_stime for one in both)

    def describe(self):
        """
        In one line; to be asked when all servers have ended.
        """
        used, whole = self._ticks()
        ours = (self._seconds() - self._ours) * os.sysconf("SC_CLK_TCK")
        others = max(0.0, (used - self._used - ours) / max(1, whole - self._all))
        warning = ", too much to rely on the rates" if others > 0.1 else ""
        return (
            f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}; "
            f"load {self._load:.2f} before, {os.getloadavg()[0]:.2f} after; "
            f"others used {others:.0%} of the CPU time{warning}"
        )


def options():
    """
    What the command line says.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measure ppolicy; see bench/README.")
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement (3)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated (5)")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=LINES, help=f"one of {', '.join(LINES)}"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large table (1000000)")
    return parser.parse_args()


def interrupt(*_):
    """
    Ctrl-C, SIGTERM and SIGHUP end the bench alike.
    """
    raise KeyboardInterrupt


def measureAll(bench, names):
    """
    @return: the rows of all lines; what cannot be measured becomes a remark.
    """
    rows = []
    parent = bench.folder
    with Progress(len(names)) as bench.progress:
        for name in names:
            bench.progress.begin(name)
            bench.folder = parent / name
            bench.folder.mkdir()
            try:
                rows += LINES[name](bench)
            except BenchError as error:
                bench.remarks.append(f"{name}: {error}")
                bench.errors += 1
            bench.progress.end()
    return rows


def main():
    """
    @return: the exit code: 1 when a request failed or something could not be measured. Gates are only shown.
    """
    chosen = options()
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, interrupt)
    folder = Path(tempfile.mkdtemp(prefix="ppolicy-bench-"))
    machine = Machine()
    bench = Bench(folder, chosen.seconds, chosen.rounds, chosen.rows)
    try:
        build()
        rows = measureAll(bench, [name for name in LINES if not chosen.only or name in chosen.only])
    except KeyboardInterrupt:
        print("interrupted, all servers are stopped", file=sys.stderr)
        return 130
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{machine.describe()}")
    print(f"medians of {chosen.rounds} rounds of {chosen.seconds:g} s; ratios are taken within each round\n")
    print(render(rows))
    for remark in bench.remarks:
        print(f"! {remark}")
    return 1 if bench.errors or any(row.errors() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
