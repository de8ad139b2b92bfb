"""
Declared parameters: name, type, default, help and bounds said once, then checked wherever a value comes in.
"""

import collections.abc
import difflib
import math
import os
import types
import typing
from pathlib import Path

from ppolicy import credentials
from ppolicy.errors import ConfigError, Mistake

_REQUIRED = object()

_PLAIN = {
    typing.Any: "anything",
    collections.abc.Callable: "a function",
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
        given = described(type(value)) if self.secret else shown(value)
        try:
            value = _convert(value, self.type, folder)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        except Exception:  # noqa: BLE001 - ValueError, or whatever an object of the site's own raises
            raise ValueError(f"must be {described(self.type)}, not {given}") from None
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                raise ValueError(f"must be at least {self.minimum}, not {given}")
            if self.maximum is not None and value > self.maximum:
                raise ValueError(f"must be at most {self.maximum}, not {given}")
        return value

    def initial(self, folder):
        """
        The default as the attribute will hold it; None is a default for any type.

        @raises ValueError: as L{convert}, when the declaration is wrong.
        """
        return None if self.default is None else self.convert(self.default, folder)


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

        @raises ConfigError: when one is declared in a way that cannot work.
        """
        if "_declared" not in cls.__dict__:
            found = {}
            others = set()
            for base in reversed(cls.__mro__):
                hints = None
                for name in {**vars(base).get("__annotations__", {}), **vars(base)}:
                    value = vars(base).get(name)
                    if not isinstance(value, Parameter):
                        if name in found:
                            raise ConfigError(f"{name}: is a parameter, give it a value with parameter(…)")
                        others.add(name)
                        continue
                    if name in others:
                        raise ConfigError(f"{name}: a parameter cannot have this name, it is taken")
                    if hints is None:
                        hints = _hints(base)
                    value.name, value.type = name, hints.get(name, typing.Any)
                    if not _isKnown(value.type):
                        raise ConfigError(f"{name}: a parameter cannot be of type {shown(value.type)}")
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
            if not isinstance(name, str):
                mistakes.append((name, f"the name {shown(name)} of a parameter is no text"))
            elif name not in declared:
                mistakes.append((name, f"{name}: no such parameter{didYouMean(name, declared)}"))
        for name, one in declared.items():
            try:
                if name in values:
                    accepted[name] = one.convert(values[name], folder)
                elif one.required:
                    mistakes.append((None, f"{name}: is required{f' ({one.help})' if one.help else ''}"))
                else:
                    accepted[name] = one.initial(folder)
            except ValueError as error:
                mistakes.append((name, f"{name}: {'' if name in values else 'its default '}{error}"))
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
    names = {one.lower(): one for one in known if isinstance(one, str)}
    close = difflib.get_close_matches(str(name).lower(), names, 1, 0.7)
    return f", did you mean {names[close[0]]}?" if close else ""


def shown(value):
    """
    A value as it is written, if it is not too long.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a number of more than 4,300 digits, an object of the site's own
        return f"this {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


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
        # A union takes the first member that fits as it stands, so that 'a' stays a text in `str | list`; best the
        # type that the value has.
        for member in sorted(typing.get_args(wanted), key=lambda one: one is not type(value)):
            try:
                return _convert(value, member, folder)
            except ValueError:
                continue
        raise ValueError
    if origin is typing.Literal:
        if any(type(value) is type(choice) and value == choice for choice in typing.get_args(wanted)):
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
        return toPath(value, folder)
    if wanted is float:
        return _convertFloat(value)
    # Python 2 wrote 0 and 1 for them as often as not, and its 60 / 6 was a whole number.
    if wanted is bool and type(value) is int and value in (0, 1):
        return bool(value)
    if wanted is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) and wanted is not bool:
        raise ValueError
    if not isinstance(value, wanted):
        raise ValueError
    return value


def toPath(value, folder):
    """
    The path that is meant; a relative one begins in C{folder}, C{credential:NAME} is what systemd keeps.

    @raises ValueError: when no file can have it.
    @raises ConfigError: when there is no such credential.
    """
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError
    os.fsencode(value)  # a ValueError when there are halves of characters in it
    try:
        return credentials.locate(value) or folder / Path(value).expanduser()
    except RuntimeError:  # ~nobody
        raise ValueError from None


def _convertFloat(value):
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError
    try:
        value = float(value)
    except OverflowError:
        raise ValueError from None
    if not math.isfinite(value):
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


def described(wanted):
    """
    A type as a person says it.
    """
    origin, members = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(described(member) for member in members)
    if origin is typing.Literal:
        return " or ".join(repr(choice) for choice in members)
    if origin is list:
        return f"a list (each {described(members[0])})"
    if origin is tuple:
        if len(members) == 2 and members[1] is Ellipsis:
            return f"a tuple (each {described(members[0])})"
        return f"a tuple ({', '.join(described(member) for member in members)})"
    if origin is dict:
        key, item = map(described, members)
        return "a dictionary" if members == (typing.Any, typing.Any) else f"a dictionary {{{key}: {item}}}"
    return _PLAIN.get(origin or wanted) or getattr(wanted, "__name__", str(wanted))


def typeName(kind):
    """
    A type as a person writes it.
    """
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " | ".join(map(typeName, typing.get_args(kind)))
    if typing.get_origin(kind) or not isinstance(kind, type):
        return str(kind).replace("typing.", "").replace("pathlib.", "").replace("collections.abc.", "")
    return kind.__name__.replace("NoneType", "None")


def _hints(cls):
    try:
        return typing.get_type_hints(cls)
    except Exception as error:
        raise ConfigError(f"the annotations of {cls.__name__} are no types: {error}") from error


def _isKnown(wanted):
    """
    Is this a type that L{_convert} knows what to do with?
    """
    origin, members = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType, tuple):
        return all(one is Ellipsis or _isKnown(one) for one in members)
    if origin in (list, dict):
        return len(members) == (1 if origin is list else 2) and all(map(_isKnown, members))
    if origin in (typing.Literal, collections.abc.Callable):
        return True
    return wanted is typing.Any or (origin is None and isinstance(wanted, type))
