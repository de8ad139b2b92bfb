"""
The `factory` that a policy function asks: cache, single flight, saved results, and the one net for check modules.
"""

import functools

from twisted.logger import Logger

from ppolicy.bridge import Gate, awaitHere, inReactor, timeLeft, wait, waitAll
from ppolicy.errors import CheckError, DeadlineExceeded, Overload
from ppolicy.logs import logFailure, prefix

log = Logger()

# For how long Postfix may send a request again that it has sent before.
_REPEAT = 300
# The largest whole number that is a code, and how many checks of one request are remembered, for the log and in
# the request's attributes.
_LARGEST = 2**63
_STEPS = 1000


class Factory:
    """
    What a policy function sees of ppolicy while it decides about one request.

    @ivar steps: (check name, code, seconds, cached, information) of each check asked so far.
    """

    __slots__ = ("bridge", "generation", "steps")

    def __init__(self, generation):
        self.generation = generation
        self.bridge = generation.bridge
        self.steps = []

    def getConfig(self, name, default=None):
        """
        The value of an option.
        """
        return self.generation.getConfig(name, default)

    def getDbConnection(self):
        """
        A new DB-API connection to the database; see L{ppolicy.generation.Generation.getDbConnection}.
        """
        return self.generation.getDbConnection()

    def releaseDbConnection(self, connection):
        """
        The opposite of L{getDbConnection}.
        """
        self.generation.releaseDbConnection(connection)

    def check(self, name, data, *args, **keywords):
        """
        Ask a check.

        @return: (code, information). The answer may come from the cache; it is saved in C{data} as
            C{result_<name>_code}, C{_info}, C{_time} (ms) and C{_cache}.
        @raises CheckError: when no check has this name. A check that fails gives 0.
        """
        bridge = self.bridge
        watch = bridge.watch
        # From here on nothing may be interrupted half-way, but for the module's own code.
        watch.armed = False
        try:
            generation = self.generation
            slot = generation.slots.get(name)
            if slot is None:
                raise CheckError(
                    f"there is no check {name!r}; modules has {', '.join(generation.slots) or 'none'}"
                )
            begun = bridge.seconds()
            seconds, cached = 0.0, False
            slot.asked += 1
            try:
                watch.armed = True
                # Without * a call takes half the time.
                key = slot.hashArg(data, *args, **keywords) if args or keywords else slot.hashArg(data)
                watch.armed = False
                if key.__class__ is int and key == 0:
                    found = self._ask(slot, data, args, keywords, begun)
                else:
                    key = slot.token, key
                    found = generation.cache.get(key, begun)
                    if found is None:
                        found = self._askOnce(slot, key, data, args, keywords, begun)
                    else:
                        cached = True
                        slot.hits += 1
                code, info = found[0], found[1]
            except DeadlineExceeded:
                watch.armed = False
                slot.failures += 1
                raise
            except BaseException as error:  # noqa: BLE001 - the one net for check modules
                watch.armed = False
                code, info = self._failed(slot, error)
            if not cached:
                seconds = bridge.seconds() - begun
                slot.seconds += seconds
            if len(self.steps) >= _STEPS:  # a policy that asks for ever is nothing to remember
                return code, info
            self.steps.append((name, code, seconds, cached, info))
            if slot.prefix is not None:
                if slot.codeKey in data:
                    self._saveFurther(slot, data, code, info, seconds, cached)
                else:
                    data[slot.codeKey] = code
                    data[slot.infoKey] = info
                    data[slot.timeKey] = int(seconds * 1000)
                    data[slot.cacheKey] = cached
            return code, info
        finally:
            watch.armed = True

    def checkAll(self, data, *questions):
        """
        Ask several checks at once: together they take the time of the slowest.

        @param questions: the name of each, or (name, argument, …) with further arguments for its check().
        @return: their (code, information) in the same order.
        @raises CheckError: when no check has one of the names.
        """
        questions = [(one,) if isinstance(one, str) else tuple(one) for one in questions]
        answers = [
            self.check(name, data, *more) if self._isCached(name, data, more) else None
            for name, *more in questions
        ]
        watch = self.bridge.watch
        watch.armed = False
        try:
            left = timeLeft()
            asked = [
                self.bridge.run(self.check, name, data, *more, timeout=left, request=data)
                for answer, (name, *more) in zip(answers, questions, strict=True)
                if answer is None
            ]
            late = iter(waitAll(asked))
            answers = [next(late) if answer is None else answer for answer in answers]
        finally:
            watch.armed = True
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _isCached(self, name, data, more):
        """
        Is there an answer in the cache, for which nobody needs to wait?
        """
        slot = self.generation.slots.get(name)
        if slot is None:
            return False
        try:
            key = slot.hashArg(data, *more)
        except Exception:  # noqa: BLE001 - check() has the net for it, and meets it again
            return False
        watch = self.bridge.watch
        watch.armed = False
        try:
            return self.generation.cache.get((slot.token, key), self.bridge.seconds()) is not None
        except TypeError:  # no key; again check() has the net
            return False
        finally:
            watch.armed = True

    def _saveFurther(self, slot, data, code, info, seconds, cached):
        number = 1
        while f"{slot.prefix}#{number}_code" in data:
            number += 1
        prefix = f"{slot.prefix}#{number}"
        data[f"{prefix}_code"] = code
        data[f"{prefix}_info"] = info
        data[f"{prefix}_time"] = int(seconds * 1000)
        data[f"{prefix}_cache"] = cached

    def _askOnce(self, slot, key, data, args, keywords, begun):
        """
        Ask, and keep the answer in the cache; equal questions under way are asked once.
        """
        if slot.once:
            result = self._ask(slot, data, args, keywords, begun)
        else:
            result = self._single(key, slot, data, args, keywords)
        code = result[0]
        seconds = slot.ttl[(code > 0) - (code < 0)]
        if len(result) > 2 and result[2] < seconds:
            seconds = result[2]
        if seconds > 0:
            self.generation.cache.put(key, result[:2], self.bridge.seconds() + seconds)
        return result

    def _single(self, key, slot, data, args, keywords):
        """
        Single flight: who asks first does the work, the others wait for its result. When its time is up
        before theirs, one of them does the work.
        """
        inFlight = self.generation.inFlight
        while key in inFlight:
            gate = inFlight[key]
            if gate is None:
                gate = inFlight[key] = Gate()
            result = gate.wait()
            if result is not None:
                return result
        inFlight[key] = result = None  # a gate when somebody waits
        try:
            self.bridge.giveWay()
            result = self._run(slot, data, args, keywords)
        except DeadlineExceeded:
            raise
        except BaseException:
            result = (0, f"{slot.name} failed with exception", 0)  # for those who wait; not for the cache
            raise
        finally:
            gate = inFlight.pop(key)
            if gate is not None:
                gate.open(result, self.bridge)
        return result

    def _ask(self, slot, data, args, keywords, begun):
        """
        Ask; a check that counts answers a request that Postfix sends again as it did before.
        """
        get = data.get
        if not slot.once or not (instance := get("instance")):
            return self._run(slot, data, args, keywords)
        # No attribute has a line feed in it.
        key = (
            f"{slot.mark}\n{instance}\n{get('protocol_state')}\n{get('recipient')}\n{get('policy_context')}"
            f"\n{(args, keywords) if args or keywords else ''}"
        )
        repeats = self.generation.server.repeats
        result = repeats.get(key, begun)
        if result is None:
            result = self._single(key, slot, data, args, keywords)
            repeats.put(key, result, self.bridge.seconds() + _REPEAT)
        return result

    def _run(self, slot, data, args, keywords):
        watch = self.bridge.watch
        if slot.blocking:
            result = wait(
                self.generation.server.modulePool.run(functools.partial(slot.ask, data, *args, **keywords))
            )
        else:
            watch.armed = True
            try:
                result = slot.ask(data, *args, **keywords) if args or keywords else slot.ask(data)
                if slot.coroutine:
                    result = awaitHere(result)
            finally:
                watch.armed = False
        if (
            result.__class__ is tuple
            and 2 <= len(result) <= 3
            and (isinstance(result[0], float) or (isinstance(result[0], int) and -_LARGEST < result[0] < _LARGEST))
            and (len(result) == 2 or isinstance(result[2], int | float))
        ):
            return result
        raise CheckError(f"{slot.name}: check() must return (code, information), not {result!r:.100}")

    def _failed(self, slot, error):
        """
        A check that raised counts as unknown; the reason goes to the log, once.
        """
        slot.failures += 1
        if isinstance(error, Overload):
            log.warn("{instance}{name}: {error}", instance=prefix(), name=slot.name, error=str(error))
            return 0, str(error)
        logFailure(log, f"{slot.name} failed")
        return 0, f"{slot.name} failed with exception"


class ThreadFactory(Factory):
    """
    The factory for a policy function in a worker thread: checks are asked in the reactor's thread.
    """

    __slots__ = ()

    def __init__(self, factory):
        self.generation, self.bridge, self.steps = factory.generation, factory.bridge, factory.steps

    check = inReactor(Factory.check)
    checkAll = inReactor(Factory.checkAll)
