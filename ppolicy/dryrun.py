"""
Ask a policy about one request and show every step; without `--write` nothing outside of memory changes.
"""

from time import monotonic

from ppolicy.errors import BrokenAnswer, DeadlineExceeded
from ppolicy.listeners import Port
from ppolicy.policy import Factory

PORT = Port("TCP", "127.0.0.1", 10031, "")


def explain(server, generation, data):
    """
    Decide about a request as the server would.

    @return: a Deferred of {steps: [{name, code, info, ms, cached}], action, ms, error}.
    """

    def work():
        factory = Factory(generation)
        begun = monotonic()
        error = None
        watch = server.bridge.watch
        try:
            watch.armed = True
            answer = generation.answer(factory, data, PORT)
            watch.armed = False
            reply = generation.encoder.encode(answer, data)
        except (BrokenAnswer, DeadlineExceeded) as problem:
            error, reply = str(problem), generation.fatal
        except BaseException as problem:  # noqa: BLE001 - shown to who asked
            error, reply = f"{type(problem).__name__}: {problem}", generation.fatal
        finally:
            watch.armed = False
        return {
            "steps": steps(factory),
            "action": reply[len(b"action=") : -2].decode(),
            "ms": round((monotonic() - begun) * 1000, 1),
            "error": error,
        }

    return server.bridge.run(work, timeout=generation.options.requestTimeout)


def tryCheck(server, generation, name, data, arguments):
    """
    Ask one check.

    @return: a Deferred of {steps: [...]} with its one step.
    """

    def work():
        factory = Factory(generation)
        factory.check(name, data, *arguments)
        return {"steps": steps(factory)}

    return server.bridge.run(work, timeout=generation.options.requestTimeout)


def steps(factory):
    """
    The checks a factory has asked, as dictionaries.
    """
    return [
        {"name": name, "code": code, "info": info, "ms": round(seconds * 1000, 1), "cached": cached}
        for name, code, seconds, cached, info in factory.steps
    ]
