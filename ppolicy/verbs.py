"""
What the running server does for the ppolicy command: the verbs of the control socket.
"""

import logging
import os
import time

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ppolicy import __version__, health
from ppolicy.decisions import described, plain
from ppolicy.dryrun import carryOut, explain
from ppolicy.errors import PPolicyError
from ppolicy.logs import escaped
from ppolicy.parameter import didYouMean
from ppolicy.trace import FOLLOWERS, Follower

# Decisions, and entries of the cache, that are shown at once.
_MOST = 1000
# The longest line in the log about a change.
_LONGEST = 500


class Verbs:
    """
    @param service: the L{PPolicyService} that is told what to do.
    """

    log = Logger()

    def __init__(self, service):
        self._service = service

    def table(self):
        """
        {verb: function(arguments) -> dictionary, or a Deferred of one}, as L{ppolicy.control} wants it.
        """
        return {
            "status": lambda request: self.status(),
            "reload": self._reload,
            "stats": lambda request: self._stats(),
            "why": self._why,
            "log.level": self._logLevel,
            "cache.show": self._showCache,
            "cache.flush": self._flushCache,
            "explain": self._explain,
            "command": self._command,
        }

    def streams(self):
        """
        {verb: function(arguments, send) -> function that ends it}.
        """
        return {"trace": self._trace}

    def status(self):
        """
        What the server is doing, as a dictionary.
        """
        service = self._service
        server = service.server
        generation = server.generation
        status = {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.time() - service.started),
            "configuration": str(service.configuration.path),
            "generation": generation.number,
            "listeners": service.listeners(),
            "connections": {"open": len(server.connections), "limit": generation.options.connLimit},
            "requests": {
                "answered": server.requests,
                "waiting": server.bridge.working,
                "failed": server.failures,
                "beyondConnLimit": server.overLimit,
                "blockedReactor": server.bridge.watch.reports,
            },
            "cache": {"entries": len(server.cache), "size": server.cache.size},
            "threads": {
                pool: one.status() for pool, one in (("module", server.modulePool), ("policy", server.policyPool))
            },
            "reload": {"problem": service.refusal},
            "modules": self._modules(),
            "backends": self._backends(),
        }
        return {"health": health.problems(status), **status}

    def _modules(self):
        server = self._service.server
        return {
            name: {
                "type": slot.spec.cls.__name__,
                "asked": slot.asked,
                "fromCache": slot.hits,
                "failed": slot.failures,
                "seconds": round(slot.seconds, 3),
            }
            | _own(slot, server.bridge)
            for name, slot in server.generation.slots.items()
        }

    def _backends(self):
        services = self._service.server.services
        database = services.state.database
        return {
            "database": {
                "kind": type(database).__name__,
                "target": str(database),
                "problem": database.problem,
                "waiting": database.waiting,
                "tables": {
                    table.name: {
                        "problem": database.refusal(table.schema),
                        "holds": table.described(),
                    }
                    for table in (*services.tables.tables, *services.state.tables.values())
                },
            },
            "requestLog": self._service.writer.status(),
            "smtp": services.smtp.status(),
            "dns": services.dns.status()
            | {"lists": {name: {"problem": why or None} for name, why in services.blocklists.status().items()}},
        }

    def _reload(self, request):
        self._tell(request, "reload")
        return self._service.reload()

    def _stats(self):
        server = self._service.server
        server.decisions.settle()
        statistics = server.decisions.statistics.described(server.bridge.seconds())
        for slot in server.generation.slots.values():
            if slot.asked > slot.hits and slot.name in statistics["start"]["checks"]:
                mean = round(slot.seconds / (slot.asked - slot.hits) * 1000, 3)
                statistics["start"]["checks"][slot.name]["meanMilliseconds"] = mean
        return statistics

    @inlineCallbacks
    def _why(self, request):
        text, limit = request.get("text"), request.get("limit")
        if not isinstance(text, str) or not text.strip():
            raise PPolicyError("why which mail? Give a queue id, an instance, a client, a sender or a recipient")
        if type(limit) is not int or not 1 <= limit <= _MOST:
            raise PPolicyError(f"the limit is a number from 1 to {_MOST}")
        decisions = self._service.server.decisions
        decisions.settle()
        text = text.strip()
        texts = [text] if decisions.privacy is None else [text, decisions.privacy.pseudonym(text)]
        for found in decisions.history.find(texts, limit):
            if found is None:
                yield deferLater(self._service.server.bridge.reactor, 0)
        return {
            "decisions": [described(decision) for decision in found],
            "remembered": len(decisions.history),
        }

    def _trace(self, request, send):
        decisions = self._service.server.decisions
        decisions.settle()  # what was decided before is not followed
        if len(decisions.followers) >= FOLLOWERS:
            raise PPolicyError(f"{FOLLOWERS} others follow already, which is the most at once")
        follower = Follower(send, {name: value for name, value in request.items() if name != "by"})
        decisions.followers.append(follower)
        return lambda: decisions.followers.remove(follower)

    def _logLevel(self, request):
        level = request.get("level")
        logger = logging.getLogger()
        if level is not None:
            known = logging.getLevelNamesMapping()
            if not isinstance(level, str) or level.upper() not in known:
                raise PPolicyError(f"there is no level {level!r}; there are {', '.join(known)}")
            logger.setLevel(level.upper())
            self._tell(request, f"log level is {level.upper()} until the next reload")
        configured = self._service.configuration.options.logLevel
        return {"level": logging.getLevelName(logger.level), "configured": configured}

    def _showCache(self, request):
        server = self._service.server
        name = request.get("module")
        if name is None:
            counts = server.cache.counts()
            return {
                "entries": len(server.cache),
                "size": server.cache.size,
                "dns": len(server.services.dns.cache),
                "checks": [
                    {
                        "check": slot.name,
                        "entries": counts[slot.token],
                        "asked": slot.asked,
                        "fromCache": slot.hits,
                    }
                    for slot in server.generation.slots.values()
                ],
            }
        now = server.bridge.seconds()
        newest = server.cache.newest(self._slot(name).token, _MOST)
        return {"entries": [self._cached(*entry, now) for entry in newest if entry[2] > now]}

    def _cached(self, arguments, result, expires, now):
        privacy = self._service.server.decisions.privacy
        code, info = result
        if privacy is not None:
            arguments, info = privacy.concealResult(arguments, info)
        return {
            "arguments": plain(arguments),
            "code": plain(code),
            "info": plain(info),
            "seconds": round(expires - now, 1),
        }

    def _flushCache(self, request):
        name = request.get("module")
        server = self._service.server
        if name is None:
            self._tell(request, "all cached results are forgotten")
            told = {"flushed": server.cache.flush(), "dns": server.services.dns.cache.flush()}
        else:
            token = self._slot(name).token
            self._tell(request, f"the cached results of {name} are forgotten")
            told = {"flushed": server.cache.flush(token)}
        # What is being asked now is not to be cached either.
        for one in server.generation.slots if name is None else [name]:
            server.generation.forget(one)
        return told

    def _tell(self, request, what):
        """
        Nothing is changed without a line in the log.
        """
        self.log.info("{by}: {what}", by=request.get("by"), what=escaped(what))

    def _slot(self, name):
        slots = self._service.server.generation.slots
        if not isinstance(name, str) or name not in slots:
            there = f"modules has {', '.join(slots) or 'none'}{didYouMean(name, slots)}"
            raise PPolicyError(f"there is no check {name!r}; {there}")
        return slots[name]

    def _command(self, request):
        """
        A command of the administrator, carried out by the check that it is about.
        """
        server = self._service.server
        return carryOut(server, server.generation, request)

    def _explain(self, request):
        data = request.get("request")
        if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
            raise PPolicyError("a request is a dictionary of texts")
        port = request.get("port")
        if not isinstance(port, str | None):
            raise PPolicyError("a port is a text")
        server = self._service.server
        mail = " ".join(
            f"{name}={data[name]}" for name in ("sender", "recipient", "client_address") if name in data
        )
        self._tell(request, f"explain --write {mail}"[:_LONGEST])
        return explain(server, server.generation, data, port)


def _own(slot, bridge):
    """
    What a check says of itself, where it does.
    """
    own = health.ofCheck(slot, bridge)
    return {"status": own} if own else {}
