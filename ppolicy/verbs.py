"""
What the running server does for the ppolicy command: the verbs of the control socket.
"""

import os
import time

from ppolicy import __version__
from ppolicy.dryrun import carryOut, explain
from ppolicy.errors import PPolicyError


class Verbs:
    """
    @param service: the L{PPolicyService} that is told what to do.
    """

    def __init__(self, service):
        self._service = service

    def table(self):
        """
        {verb: function(arguments) -> dictionary, or a Deferred of one}.
        """
        return {
            "status": lambda request: self.status(),
            "reload": lambda request: self._service.reload(),
            "cache.flush": self._flushCache,
            "explain": self._explain,
            "command": self._command,
        }

    def status(self):
        """
        What the server is doing, as a dictionary.
        """
        service = self._service
        server = service.server
        generation = server.generation
        services = server.services
        database = services.state.database
        return {
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
                pool: {"busy": one.busy, "writtenOff": one.writtenOff, "size": one.size}
                for pool, one in (("module", server.modulePool), ("policy", server.policyPool))
            },
            "requestLogDropped": service.writer.dropped,
            "modules": {
                name: {
                    "type": slot.spec.cls.__name__,
                    "asked": slot.asked,
                    "fromCache": slot.hits,
                    "failed": slot.failures,
                    "seconds": round(slot.seconds, 3),
                }
                for name, slot in generation.slots.items()
            },
            "backends": {
                "database": {
                    "kind": type(database).__name__,
                    "target": str(database),
                    "problem": database.problem,
                    "waiting": database.waiting,
                    "tables": {
                        table.name: database.refusal(table.schema) or table.described()
                        for table in (*services.tables.tables, *services.state.tables.values())
                    },
                },
                "smtp": services.smtp.status(),
                "dns": services.dns.status() | {"lists": services.blocklists.status()},
            },
        }

    def _flushCache(self, request):
        name = request.get("module")
        server = self._service.server
        if name is None:
            return {"flushed": server.cache.flush(), "dns": server.services.dns.cache.flush()}
        return {"flushed": server.cache.flush(self._slot(name).token)}

    def _slot(self, name):
        slots = self._service.server.generation.slots
        if name not in slots:
            raise PPolicyError(f"there is no check {name!r}; modules has {', '.join(slots) or 'none'}")
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
        server = self._service.server
        return explain(server, server.generation, data)
