"""
What is measured of the DNS service: questions to a local unbound, beside the resolvers of dnspython and Twisted.

As a program, C{python -m bench.dns_lines WAY PORT SECONDS}, it asks in one of L{WAYS} and prints what came of it.
"""

import asyncio
import itertools
import json
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.message
import dns.query
from twisted.internet.defer import Deferred
from twisted.names.client import Resolver as TwistedResolver

from bench.load import BenchError, Sample
from bench.progress import note
from bench.servers import ROOT, Server
from bench.table import Gate, Row, ratios
from ppolicy.bridge import Bridge
from ppolicy.dnsmessage import TYPES, onWire
from ppolicy.nameserver import NameServer
from ppolicy.resolver import Resolver

UNBOUND = Path("/usr/sbin/unbound")
HOST = "127.0.0.1"
NAMES = 1000
IN_FLIGHT = 16

_CONFIGURATION = """\
server:
    interface: {host}
    port: {port}
    directory: "{folder}"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    num-threads: 1
    module-config: "iterator"
    local-zone: "." static
    local-data: ". 300 IN NS localhost."
{data}
remote-control:
    control-enable: no
"""


class Unbound(Server):
    """
    Debian's unbound, with one thread, which knows all the names by itself.

    @param data: lines of its configuration with what it knows, by default the names of this line.
    """

    def __init__(self, folder, data=None):
        if not UNBOUND.exists():
            raise BenchError(f"{UNBOUND} is missing (Debian package unbound)")
        super().__init__("unbound", folder)
        data = data or [f"local-data: '{name(number)}. 300 IN A 192.0.2.1'" for number in range(NAMES)]
        data = "\n".join(f"    {line}" for line in data)
        text = _CONFIGURATION.format(host=HOST, port=self.port, folder=self.kept, data=data)
        (self.folder / "unbound.conf").write_text(text)

    def command(self):
        return [UNBOUND, "-d", "-c", self.folder / "unbound.conf"]

    def connect(self):
        return answering(self.port)


def answering(port):
    """
    What C{Server.start} closes again, once a name server answers.

    @raises OSError: when it does not.
    """
    try:
        dns.query.udp(dns.message.make_query(name(0), "A"), HOST, 1, port)
    except dns.exception.DNSException as error:
        raise OSError(str(error)) from error
    return _Nothing()


class _Nothing:
    def close(self):
        pass


def name(number):
    """
    One of the names that are asked for.
    """
    return f"host{number % NAMES}.example.org"


def lookups(bench):
    """
    Addresses of a thousand names, sixteen questions in flight, one process for each way; caches off.
    """
    samples = {way: [] for way in WAYS}
    with ExitStack() as stack:
        server = Unbound(bench.folder)
        bench.start(stack, server)
        for number in range(bench.rounds):
            bench.progress.round(number + 1, bench.rounds)
            for way, taken in samples.items():
                taken.append(_measure(server, way, bench.seconds))
    ours, bare, *others = samples.values()
    rates = [sample.rate for sample in ours]
    rows = [
        Row("dns, cache off", ours, gates=[Gate("questions/s", rates, atLeast=20_000)]),
        Row("dns, one name server, without the resolver", bare),
    ]
    for way, taken in zip(list(WAYS)[2:], others, strict=True):
        gate = Gate(f"ours x {way}, rate", ratios(ours, taken, "rate"), atLeast=1)
        rows.append(Row(f"dns, {way}", taken, gates=[gate]))
    return rows


def _measure(server, way, seconds):
    command = [sys.executable, "-m", "bench.dns_lines", way, str(server.port), str(seconds)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BenchError(f"{way} cannot be measured: {result.stderr}\n{server.said()}")
    note(f"  {way}: {result.stdout.strip()}")
    return Sample(**json.loads(result.stdout))


# As a program


class Count:
    """
    What was asked, and how long each answer took.
    """

    def __init__(self, seconds):
        self._names = map(name, itertools.count())
        self._times = []
        self._errors = 0
        self._cpu = _cpu()
        self._begin = time.perf_counter()
        self._end = self._begin + seconds

    def next(self):
        """
        @return: (name, when it is asked for), None at the end.
        """
        now = time.perf_counter()
        return (next(self._names), now) if now < self._end else None

    def answered(self, addresses, asked):
        """
        Note an answer; C{addresses} is what was found.
        """
        self._times.append(time.perf_counter() - asked)
        if list(addresses) != ["192.0.2.1"]:
            self._errors += 1

    def sample(self):
        """
        As L{Sample} takes it.
        """
        seconds = time.perf_counter() - self._begin
        count = len(self._times)
        times = [1e6 * one for one in sorted(self._times)]
        return {
            "rate": count / seconds,
            "cpu": 1e6 * (_cpu() - self._cpu) / count,
            **{
                name: times[int(share * (count - 1))]
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
            },
            "worst": times[-1],
            "requests": count,
            "errors": self._errors,
        }


def _cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _withTwisted(reactor, seconds, ask, found):
    """
    @param ask: C{ask(name)} gives a Deferred, C{found(answer)} the addresses in its result.
    """
    under = IN_FLIGHT

    def nextOne(count):
        nonlocal under
        one = count.next()
        if one is None:
            under -= 1
            if not under:
                reactor.stop()
            return
        wanted, now = one
        ask(wanted).addCallbacks(found, lambda _: ()).addCallback(answered, now, count)

    def answered(addresses, now, count):
        count.answered(addresses, now)
        nextOne(count)

    counts = []

    def begin():
        counts.append(Count(seconds))
        for _ in range(IN_FLIGHT):
            nextOne(counts[0])

    reactor.callWhenRunning(begin)
    reactor.run()
    return counts[0].sample()


def _ours(reactor, port, seconds):
    resolver = Resolver(Bridge(reactor), [NameServer(reactor, HOST, port)], size=0)
    return _withTwisted(reactor, seconds, lambda wanted: resolver.ask(wanted, "A"), lambda answer: answer.records)


def _bare(reactor, port, seconds):
    server = NameServer(reactor, HOST, port)

    def ask(wanted):
        answer = Deferred()
        server.ask(onWire(wanted), TYPES["A"], answer.callback)
        return answer

    def found(reply):
        return [value for *_, value in reply.records]

    return _withTwisted(reactor, seconds, ask, found)


def _twisted(reactor, port, seconds):
    resolver = TwistedResolver(servers=[(HOST, port)], timeout=(2,), reactor=reactor)

    def found(answer):
        return [record.payload.dottedQuad() for record in answer[0]]

    return _withTwisted(reactor, seconds, resolver.lookupAddress, found)


def _dnspython(_, port, seconds):
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [HOST], port

    async def ask(count):
        while (one := count.next()) is not None:
            wanted, now = one
            try:
                addresses = [record.address for record in await resolver.resolve(wanted, "A", search=False)]
            except dns.exception.DNSException:
                addresses = []
            count.answered(addresses, now)

    async def work():
        count = Count(seconds)
        await asyncio.gather(*[ask(count) for _ in range(IN_FLIGHT)])
        return count.sample()

    return asyncio.run(work())


WAYS = {"ppolicy": _ours, "name server": _bare, "twisted.names": _twisted, "dnspython": _dnspython}


def main():
    """
    Ask, and print a line of JSON.
    """
    from twisted.internet import reactor

    way, port, seconds = sys.argv[1:]
    print(json.dumps(WAYS[way](reactor, int(port), float(seconds))))


if __name__ == "__main__":
    main()
