"""
What is wrong at present: what checks say of themselves, and every problem in a status.
"""

import json

from twisted.python.failure import Failure

# Characters that the status of one check may have, and seconds that it may take.
LONGEST = 20_000
_SECONDS = 1.0
# Parts of a status whose name says nothing to a person.
_SECTIONS = ("backends", "modules")


def ofCheck(slot, bridge):
    """
    The C{status()} of a check as JSON can carry it. Whatever goes wrong with that is the check's problem alone.
    """
    if not callable(slot.check.status):  # a parameter of a site's own check may be called that
        return {}
    results = []
    bridge.run(_asked, slot.check, bridge.watch, timeout=_SECONDS).addBoth(results.append)
    if not results:
        return _wrong("must not wait")
    (given,) = results
    if isinstance(given, Failure):
        return _wrong(f"failed with {given.type.__name__}: {given.getErrorMessage()}")
    if not isinstance(given, dict):
        return _wrong(f"must return a dictionary, not {type(given).__name__}")
    try:
        text = json.dumps(given, default=str, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return _wrong(f"returned what is no JSON: {error}")
    if len(text) > LONGEST:
        return _wrong(f"returned more than {LONGEST} characters")
    return json.loads(text)


def _asked(check, watch):
    watch.armed = True  # code of a site that holds the reactor is interrupted
    try:
        return check.status()
    finally:
        watch.armed = False


def _wrong(what):
    return {"problem": f"its status() {what}"[:500]}


def problems(status):
    """
    Everything in a status that has a C{problem}, as [{where, problem}]: a backend or part of one, or a check.
    """
    found = []
    for section, value in status.items():
        parts = value if section in _SECTIONS else {section: value}
        for name, part in parts.items():
            # What a check says names what it is about.
            found += _within(part, (name,), deep=section != "modules")
    return [{"where": where, "problem": problem} for where, problem in dict.fromkeys(found)]


def _within(part, path, deep):
    if not isinstance(part, dict):
        return
    problem = part.get("problem")
    if problem:
        yield " ".join(path), " ".join(str(problem).split())
    for name, inner in part.items():
        yield from _within(inner, (*path, name) if deep else path, deep)
