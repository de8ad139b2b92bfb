"""
What the command does without a running server: check a configuration, try a check, explain a decision.
"""

import os
import re
import sys

from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from ppolicy import config, controlclient, dryrun, listeners, privileges, reading, statefolder
from ppolicy.attributes import ATTRIBUTES
from ppolicy.errors import ConfigError, PPolicyError
from ppolicy.generation import Generation
from ppolicy.parameter import didYouMean
from ppolicy.protocol import parseRequest
from ppolicy.registry import Registry
from ppolicy.server import Server
from ppolicy.services import Services, openDatabase
from ppolicy.statefolder import controlPath, stateFolder


def load(path):
    """
    The configuration that the command is about.
    """
    return config.load(reading.find(path))


def prepared(configuration, database):
    """
    A generation whose checks have said what they want of a database that is not started.

    @raises ConfigError: with everything they have to say.
    """
    from twisted.internet import reactor

    server = Server(reactor, configuration.options, dryRun=True)
    server.services = Services(server.bridge, configuration, database)
    generation = Generation(0, configuration, server)
    generation.start()
    return generation


def start(configuration):
    """
    Start the checks of a configuration as for a dry run, and stop them again. What they warn of is one of its
    warnings then.

    @raises ConfigError: with everything they have to say.
    """
    from twisted.internet import reactor

    statefolder.refuse(stateFolder(configuration))
    server = Server(reactor, configuration.options, dryRun=True)
    server.services = Services(server.bridge, configuration)
    generation = Generation(0, configuration, server)
    generation.start()
    configuration.warnings += server.services.tables.warnings + server.services.blocklists.warnings
    generation.stop()


def postfixLines(configuration):
    """
    What to write into main.cf so that Postfix asks this server; the first listener that Postfix can reach.
    """
    (wanted, *_) = listeners.parsePort(configuration.options.ppolicyPort[0], configuration.folder)
    if isinstance(wanted, listeners.Unix):
        # smtpd may run chrooted in /var/spool/postfix: a path below it is written relative to it.
        target = "unix:" + str(wanted.path).removeprefix("/var/spool/postfix/")
    elif isinstance(wanted, listeners.Tcp):
        host = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(wanted.host, wanted.host)  # noqa: S104
        target = f"inet:[{host}]:{wanted.port}" if ":" in host else f"inet:{host}:{wanted.port}"
    else:
        target = "inet:127.0.0.1:PORT"
    timeout = int(configuration.options.requestTimeout) + 5
    return f"""
# In Postfix's main.cf, after reject_unauth_destination:
smtpd_recipient_restrictions =
    permit_mynetworks,
    permit_sasl_authenticated,
    reject_unauth_destination,
    check_policy_service {{ {target}, timeout={timeout}s, default_action=DUNNO }}
"""


def words(given, count):
    """
    The words of `ppolicy try`: C{attribute=value}, and as many arguments as stood after C{--}.

    @return: (attributes, arguments)
    @raises PPolicyError: when a word is neither.
    """
    attributes, arguments = given[: len(given) - count], given[len(given) - count :]
    wrong = [word for word in attributes if "=" not in word]
    if wrong:
        raise PPolicyError(f"{wrong[0]!r} is no attribute=value; arguments of the check come after --")
    given = parseRequest("\n".join(attributes).encode("utf-8", "surrogateescape"))
    return ATTRIBUTES | given, arguments


def misspelt(data):
    """
    A sentence about each attribute of a request that is not Postfix's, but resembles one.
    """
    hints = {name: didYouMean(name, ATTRIBUTES) for name in data if name not in ATTRIBUTES}
    return [f"Postfix sends no {name!r}{hint}" for name, hint in hints.items() if hint]


def requests(octets):
    """
    The requests in a stream of C{name=value} lines, each ended by a blank line.

    One that begins with C{date=} was written by DumpDataFile: its escapes are undone, and what it notes about
    results is left out. Attributes that are not given are empty, as Postfix would send them.

    @raises PPolicyError: when there is none, or a line that is none of a request.
    """
    found = []
    octets = octets.replace(b"\r\n", b"\n")
    for number, line in enumerate(octets.split(b"\n"), 1):
        if line.strip() and b"=" not in line:
            raise PPolicyError(f"line {number} of the request is no name=value: {ascii(line)[1:]:.80}")
    for block in octets.split(b"\n\n"):
        if not block.strip(b"\n"):
            continue
        data = parseRequest(block.strip(b"\n"))
        if block.lstrip(b"\n").startswith(b"date="):
            data = {name: unescaped(value) for name, value in data.items() if not _isNote(name)}
        found.append(ATTRIBUTES | data)
    if not found:
        raise PPolicyError("there is no request: lines name=value, then a blank line")
    return found


def _isNote(name):
    return name == "date" or name.startswith("result_")


def unescaped(value):
    """
    Undo the escapes of DumpDataFile.
    """
    text = re.sub(
        r"\\(?:x([0-9a-f]{2})|(.))",
        lambda match: _octet(int(match[1], 16)) if match[1] else {"n": "\n"}.get(match[2], match[2]),
        value,
    )
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _octet(number):
    return chr(number) if number < 0x80 else chr(0xDC00 + number)


def explain(configuration, datas, write, port=None):
    """
    How the policy decides about each request; with C{write} in the running server, if there is one.

    @param port: where they came in, see L{ppolicy.dryrun.portOf}.
    @return: a list of dictionaries as from L{ppolicy.dryrun.explain}.
    """
    path = controlPath(configuration)
    if write and controlclient.isServed(path):
        return [controlclient.ask(path, "explain", request=data, port=port) for data in datas]

    _tellFailures()

    @inlineCallbacks
    def work(server, generation):
        answers = []
        for data in datas:
            answers.append((yield dryrun.explain(server, generation, data, port)))
        return answers

    return _run(configuration, write, work)


def tryCheck(configuration, name, data, arguments, write):
    """
    What one check says about a request.

    @param name: one of the configuration's checks, else a module type, taken with default parameters.
    """
    if name not in [spec.name for spec in configuration.specs]:
        configuration.specs = [_spec(configuration, name)]
    _tellFailures()
    return _run(
        configuration,
        write,
        lambda server, generation: dryrun.tryCheck(server, generation, name, data, arguments),
    )


def _tellFailures():
    """
    Print the tracebacks of checks that fail, which a server would log.
    """

    def observe(event):
        if "traceback" in event:
            print(formatEvent(event).rstrip(), file=sys.stderr)

    globalLogPublisher.addObserver(observe)


def converse(configuration, dialogue):
    """
    Have checks carry out commands of the administrator, where no server is running.

    @param dialogue: a generator of requests, which is sent the answer to each.
    """

    @inlineCallbacks
    def work(server, generation):
        try:
            request = next(dialogue)
            while True:
                request = dialogue.send((yield dryrun.carryOut(server, generation, request)))
        except StopIteration:
            return

    _run(configuration, True, work)


def _spec(configuration, name):
    try:
        cls = Registry(configuration.options.modulePath).find(name)
    except ConfigError as error:
        names = [spec.name for spec in configuration.specs]
        there = ", ".join(names) or "none"
        raise PPolicyError(
            f"{name} is no configured check (there is {there}){didYouMean(name, names)}\nand {error}"
        ) from None
    mistakes = []
    parameters = cls.accept({}, configuration.folder, mistakes)
    if mistakes:
        raise ConfigError(*[f"{name}: {sentence}" for _, sentence in mistakes])
    return config.CheckSpec(name, cls, parameters, configuration.path, None)


def _takeFolder(configuration):
    """
    Make changes in the place of the server, and as its user: what root made, it could not change.
    """
    folder = stateFolder(configuration)
    account = privileges.account(configuration.options)
    if account is not None:
        statefolder.make(folder, *account[:2])
        privileges.become(*account)
    elif os.geteuid() == 0 and folder.exists():
        statefolder.refuse(folder)
        privileges.becomeOwner(folder)
    else:
        statefolder.make(folder)
    statefolder.lockFolder(folder)


def _run(configuration, write, work):
    """
    Run a reactor for as long as some work takes.

    @param work: called with the server and its generation; it gives a Deferred.
    @return: the result.
    """
    from twisted.internet import reactor

    server = Server(reactor, configuration.options, dryRun=not write)
    if write:
        _takeFolder(configuration)
    database = openDatabase(reactor, configuration, readOnly=not write)
    server.services = Services(server.bridge, configuration, database)
    server.services.start()
    generation = Generation(0, configuration, server)
    server.generation = generation
    generation.start()
    server.bridge.watch.start()
    results = []

    def finish(result):
        results.append(result)
        if reactor.running:
            reactor.stop()

    def close():
        generation.stop()
        return server.services.stop().addTimeout(10, reactor).addErrback(lambda _: None)

    reactor.addSystemEventTrigger("before", "shutdown", close)
    reactor.callWhenRunning(lambda: maybeDeferred(work, server, generation).addBoth(finish))
    reactor.run()
    server.bridge.watch.stop()
    if not results:  # a signal has ended it
        raise KeyboardInterrupt
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]
