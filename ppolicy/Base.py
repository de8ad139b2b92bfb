"""
The base class of check modules written for ppolicy 2.7: C{from ppolicy.Base import Base, ParamError}.

New modules derive from L{ppolicy.check.Check}; this one only translates 2.7's contract to it.
"""

from ppolicy.check import Check
from ppolicy.errors import CheckError, ParamError
from ppolicy.parameter import didYouMean

__all__ = ["Base", "CheckError", "ParamError"]


class Base(Check):
    """
    A check whose parameters are declared in C{PARAMS}, {name: (help or None, default)}.

    @ivar factory: gives C{getConfig(name)}, C{getDbConnection()} and C{releaseDbConnection(connection)}.
    """

    PARAMS: dict = {}

    CHECK_SUCCESS = 1
    CHECK_UNKNOWN = 0
    CHECK_FAILED = -1

    def __init__(self, name, factory=None, *args, **keywords):
        super().__init__(name)
        self.type = type(self).__name__
        self.factory = factory
        self._values = {}
        self.setParams(**keywords)

    @classmethod
    def made(cls, name, accepted, factory=None):
        # 2.7 gave all of this to the constructor, where modules with one of their own use it.
        return cls(name, factory, **accepted)

    @classmethod
    def _allParams(cls):
        """
        {name: (help, default)} of the class and its bases, C{Check}'s own parameters first.
        """
        found = {name: (one.help, one.default) for name, one in Check.declared().items()}
        for base in reversed(cls.__mro__):
            for name, (help, default) in vars(base).get("PARAMS", {}).items():
                found[name] = (help if help is not None else found.get(name, ("",))[0], default)
        return found

    @classmethod
    def accept(cls, values, folder, mistakes):
        known = cls._allParams()
        for name in values:
            if name not in known:
                mistakes.append((name, f"{name}: no such parameter{didYouMean(name, known)}"))
        accepted = {name: values.get(name, default) for name, (_, default) in known.items()}
        own = {name: accepted[name] for name in Check.declared()}
        return accepted | Check.accept(own, folder, mistakes)

    def assume(self, accepted):
        for name, value in accepted.items():
            if name in Check.declared():
                setattr(self, name, value)
            self._values[name] = value

    def getName(self):
        """The name given to this check in ppolicy.conf."""
        return self.name

    def getId(self):
        """Type and name, for log lines."""
        return f"{self.type}[{self.name}]"

    def getFactory(self):
        """The object with getConfig() and getDbConnection()."""
        return self.factory

    def setParam(self, key, value):
        """
        Set a parameter.

        @raises ParamError: when it is not declared.
        """
        if key not in self._allParams():
            raise ParamError(f"{key}: no such parameter")
        self.assume({key: value})

    def setParams(self, *_, **keywords):
        """Set several."""
        for key, value in keywords.items():
            self.setParam(key, value)

    def getParam(self, key, default=None):
        """The value of a parameter; None is no value, so that the default counts."""
        value = self._values.get(key)
        return default if value is None else value

    def getParams(self):
        """{name: (help, value)} of all parameters."""
        return {name: (help, self._values.get(name)) for name, (help, _) in self._allParams().items()}

    def dataArg(self, position, key, default, /, *args, **keywords):
        """A check argument by name, else by its place after `data`, else the default."""
        if key in keywords:
            return keywords[key]
        return args[position] if len(args) > position else default
