"""
Declared parameters: name, type, default, help and bounds said once, then checked wherever a value comes in.
"""

import collections.abc
import difflib
import types
import typing
from pathlib import Path

from ppolicy.errors import Mistake

_REQUIRED = object()

_PLAIN = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    type(None): "None",
    dict: "a dictionary",
    list: "a list",
    tuple: "a tuple",
}


class Parameter:
    """
    One declared parameter of a class; its name and type are those of the annotated attribute.
    """

    def __init__(self, default, help, minimum, maximum, secret):
        self.default = default
        self.help = help
        self.minimum = minimum
        self.maximum = maximum
        self.secret = secret
        self.name = ""
        self.type: typing.Any = typing.Any

    @property
    def required(self):
        return self.default is _REQUIRED

    def convert(self, value, folder):
        """
        The value as the attribute will hold it: numbers of the declared type, relative paths made absolute.

        @raises ValueError: with the end of a sentence that starts with the parameter's name; the value of a
            secret is never in it.
        """
        try:
            value = _convert(value, self.type, folder)
        except ValueError:
            shown = type(value).__name__ if self.secret else _shown(value)
            raise ValueError(f"must be {_describe(self.type)}, not {shown}") from None
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                raise ValueError(f"must be at least {self.minimum}, not {value}")
            if self.maximum is not None and value > self.maximum:
                raise ValueError(f"must be at most {self.maximum}, not {value}")
        return value


def parameter(
    default: typing.Any = _REQUIRED,
    help: str = "",
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
) -> typing.Any:
    """
    Declare a parameter: `delay: int = parameter(600, "seconds …")`. Without a default it is required.
    """
    return Parameter(default, help, minimum, maximum, secret)


class Parameters:
    """
    A class whose annotated attributes are declared with L{parameter}.
    """

    @classmethod
    def declared(cls):
        """
        The parameters by name, those of base classes first.
        """
        if "_declared" not in cls.__dict__:
            found = {}
            for base in reversed(cls.__mro__):
                hints = None
                for name, value in list(vars(base).items()):
                    if not isinstance(value, Parameter):
                        continue
                    if hints is None:
                        hints = typing.get_type_hints(base)
                    value.name, value.type = name, hints.get(name, typing.Any)
                    found[name] = value
            cls._declared = found
        return cls._declared

    @classmethod
    def accept(cls, values, folder, mistakes):
        """
        The full dictionary of values for an instance: the given ones converted, the others by default.

        Whatever is wrong is appended to `mistakes` as (parameter name, sentence).
        """
        declared = cls.declared()
        accepted = {}
        for name in values:
            if name not in declared:
                mistakes.append((name, f"{name}: no such parameter{didYouMean(name, declared)}"))
        for name, one in declared.items():
            if name in values:
                try:
                    accepted[name] = one.convert(values[name], folder)
                except ValueError as error:
                    mistakes.append((name, f"{name}: {error}"))
            elif one.required:
                mistakes.append((None, f"{name}: is required ({one.help})"))
            else:
                accepted[name] = _convert(one.default, Path, folder) if one.type is Path else one.default
        return accepted

    def assume(self, accepted):
        """
        Take the values that L{accept} made.
        """
        for name, value in accepted.items():
            setattr(self, name, value)


def didYouMean(name, known):
    """
    ', did you mean …?' when a known name resembles this one, else nothing.
    """
    close = difflib.get_close_matches(str(name), [str(one) for one in known], 1, 0.7)
    return f", did you mean {close[0]}?" if close else ""


def toMistakes(found, prefix, file, lines, line):
    """
    L{Parameters.accept}'s pairs as mistakes with the place of each parameter, else of the whole.
    """
    return [Mistake(f"{prefix}{sentence}", file, lines.get(name, line)) for name, sentence in found]


def _convert(value, wanted, folder):
    if wanted is typing.Any:
        return value
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        # A union takes the first member that fits as it stands, so that 'a' stays a text in `str | list`.
        for member in typing.get_args(wanted):
            try:
                return _convert(value, member, folder)
            except ValueError:
                continue
        raise ValueError
    if origin is typing.Literal:
        if any(value == choice and type(value) is type(choice) for choice in typing.get_args(wanted)):
            return value
        raise ValueError
    if origin is list:
        if not isinstance(value, list | tuple):
            raise ValueError
        (item,) = typing.get_args(wanted)
        return [_convert(one, item, folder) for one in value]
    if origin is tuple:
        return _convertTuple(value, typing.get_args(wanted), folder)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError
        key, item = typing.get_args(wanted)
        return {_convert(k, key, folder): _convert(v, item, folder) for k, v in value.items()}
    if origin is collections.abc.Callable:
        if not callable(value):
            raise ValueError
        return value
    if wanted is Path:
        if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
            raise ValueError
        return folder / Path(value).expanduser()
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError
        return value
    if isinstance(value, bool) and wanted is not bool:
        raise ValueError
    if not isinstance(value, wanted):
        raise ValueError
    return value


def _convertTuple(value, members, folder):
    if not isinstance(value, list | tuple):
        raise ValueError
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(_convert(one, members[0], folder) for one in value)
    if len(value) != len(members):
        raise ValueError
    return tuple(_convert(one, member, folder) for one, member in zip(value, members, strict=True))


def _describe(wanted):
    origin, members = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(member) for member in members)
    if origin is typing.Literal:
        return " or ".join(repr(choice) for choice in members)
    if origin is list:
        return f"a list of which each is {_describe(members[0])}"
    if origin is tuple:
        if len(members) == 2 and members[1] is Ellipsis:
            return f"a tuple of which each is {_describe(members[0])}"
        return f"a tuple ({', '.join(_describe(member) for member in members)})"
    if origin is dict:
        return "a dictionary"
    if origin is collections.abc.Callable:
        return "a function"
    return _PLAIN.get(wanted, getattr(wanted, "__name__", str(wanted)))


def _shown(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
