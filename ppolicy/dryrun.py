"""
Ask a policy about one request and show every step; without `--write` nothing outside of memory changes. And
have a check carry out a command.
"""

import inspect
import json
from time import monotonic

from twisted.logger import Logger

from ppolicy.decisions import describedSteps
from ppolicy.errors import BrokenAnswer, DeadlineExceeded, Mistake, PPolicyError
from ppolicy.listeners import Endpoint, Port, Tcp, Unix, describe, isSame, parsePort
from ppolicy.logs import escaped
from ppolicy.parameter import didYouMean
from ppolicy.policy import Factory
from ppolicy.reading import explained

log = Logger()

# Seconds that a command of the administrator may take, and the longest line in the log about one.
COMMAND = 60.0
_LONGEST = 500
# Arguments of commands that are lists or dictionaries. All others are texts, or numbers.
_MANY = ("values", "rows", "columns")


def portOf(configuration, text=None):
    """
    Where a request comes in that Postfix has not sent.

    @param text: one of C{ppolicyPort}, in any of its forms; None is the first of them.
    @raises PPolicyError: when it is none of them.
    """
    folder = configuration.folder
    there = [one for value in configuration.options.ppolicyPort for one in parsePort(value, folder)]
    if text is None:
        wanted = there[0]
    else:
        try:
            (wanted, *_) = parsePort(text, folder)
        except ValueError as error:
            raise PPolicyError(f"--port: {error}") from None
        if not any(_takes(one, wanted) for one in there):
            names = ", ".join(map(describe, there))
            raise PPolicyError(f"--port: ppolicyPort has no {describe(wanted)}; there is {names}")
    if isinstance(wanted, Unix):
        return Port("UNIX", "", "", str(wanted.path))
    if isinstance(wanted, Tcp):
        isAny = wanted.host in ("::", "0.0.0.0")  # noqa: S104
        return Port("TCP", "127.0.0.1" if isAny else wanted.host, wanted.port, "")
    return Port("TCP", "127.0.0.1", "", "")  # which port systemd has is not known here


def _takes(listener, wanted):
    """
    Does what is sent to one parsed port come in at another?
    """
    if isinstance(listener, Endpoint) or isinstance(wanted, Endpoint):
        return listener == wanted
    return isSame(wanted, listener)


def explain(server, generation, data, port=None):
    """
    Decide about a request as the server would.

    @param port: where it came in, see L{portOf}.
    @return: a Deferred of {steps: [{name, code, info, ms, cached}], action, ms, error}.
    """
    port = portOf(generation.configuration, port)

    def work():
        factory = Factory(generation)
        begun = monotonic()
        error = None
        watch = server.bridge.watch
        try:
            watch.armed = True
            answer = generation.answer(factory, data, port)
            watch.armed = False
            reply = generation.encoder.encode(answer, data)
        except BaseException as problem:  # noqa: BLE001 - shown to who asked
            path = generation.configuration.path
            line, sentence = explained(problem, path)
            if isinstance(problem, BrokenAnswer | DeadlineExceeded):
                sentence = str(problem)
            error, reply = str(Mistake(sentence, path, line)) if line else sentence, generation.fatal
        finally:
            watch.armed = False
        return {
            "steps": describedSteps(factory.steps),
            "action": reply[len(b"action=") : -2].decode(),
            "ms": round((monotonic() - begun) * 1000, 1),
            "error": error,
        }

    return _run(server, generation, work, generation.options.requestTimeout)


def tryCheck(server, generation, name, data, arguments):
    """
    Ask one check.

    @return: a Deferred of {steps: [...]} with its one step.
    """

    def work():
        factory = Factory(generation)
        factory.check(name, data, *arguments)
        return {"steps": describedSteps(factory.steps)}

    return _run(server, generation, work, generation.options.requestTimeout)


def carryOut(server, generation, request):
    """
    Have a check carry out a command of the administrator.

    @param request: {family, check, command, arguments}; the check may be None where only one is of this family.
    @return: a Deferred of the dictionary that the check gives.
    @raises PPolicyError: when there is no such check or command, or it does not take these arguments.
    """
    family, name = request.get("family"), request.get("check")
    slots = {slot.name: slot for slot in generation.slots.values() if slot.check.family == family}
    if name is None and len(slots) == 1:
        (name,) = slots
    slot = slots.get(name) if isinstance(name, str) else None
    if slot is None:
        if not slots:
            raise PPolicyError(f"modules in ppolicy.conf has no check for the command {family}")
        there = f"there is {', '.join(slots)}{didYouMean(name, slots)}"
        raise PPolicyError(f"no {family} check {name!r} in modules; {there}" if name else f"which check? {there}")
    method = getattr(type(slot.check), str(request.get("command")), None)
    arguments = request.get("arguments") or {}
    if not hasattr(method, "changes") or not isinstance(arguments, dict):
        raise PPolicyError(f"{slot.name} has no command {request.get('command')!r}")
    signature = inspect.signature(method)
    try:
        signature.bind(slot.check, **arguments)
    except TypeError as error:
        raise PPolicyError(f"{slot.name}: {error}") from None
    for argument, value in arguments.items():
        isNumber = type(signature.parameters[argument].default) in (int, float)
        kinds = (int, float) if isNumber else (list, dict, type(None)) if argument in _MANY else (str, type(None))
        if type(value) not in kinds:
            raise PPolicyError(f"{slot.name}: {argument} cannot be {value!r:.100}")

    def work():
        answer = method(slot.check, **arguments)
        if method.changes:
            for one in slots.values():
                generation.forget(one.name)
            server.repeats.flush()
            what = f"{family} {slot.name} {request['command']} {json.dumps(arguments)}"
            log.info("{by}: {what}", by=request.get("by", "command"), what=escaped(what)[:_LONGEST])
        return answer

    return _run(server, generation, work, COMMAND)


def _run(server, generation, work, timeout):
    """
    Do some work with the checks of a generation. A reload replaces it meanwhile, but does not stop it.
    """

    def held():
        generation.active += 1
        try:
            return work()
        finally:
            generation.active -= 1
            server.retire(generation)

    return server.bridge.run(held, timeout=timeout)
