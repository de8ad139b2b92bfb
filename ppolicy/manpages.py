"""
Renders the manual pages: ppolicy(1), the commands, and ppolicy.conf(5), the options.
"""

from ppolicy.commandtree import entries
from ppolicy.options import Options
from ppolicy.parameter import typeName


def command(main):
    """
    The text of docs/man/ppolicy.1.
    """
    whole, *below = entries(main)
    lines = [
        *_head("ppolicy", 1, "policy server for Postfix"),
        ".SH SYNOPSIS",
        r".B ppolicy",
        r".RI [ options ]\  command\  [ arguments ]",
        ".SH DESCRIPTION",
        *_prose(whole.paragraphs),
        *_options(whole.options),
        *_prose(whole.more),
        ".SH COMMANDS",
    ]
    for entry in below:
        lines += [".SS " + _quoted(f"{entry.name} {entry.usage}".strip())]
        lines += [*_prose(entry.paragraphs), *_options(entry.options), *_prose(entry.more)]
    return "\n".join([*lines, *_tail("ppolicy.conf (5), postconf (5)")])


def configuration():
    """
    The text of docs/man/ppolicy.conf.5.
    """
    lines = [
        *_head("ppolicy.conf", 5, "configuration of the policy server ppolicy"),
        ".SH DESCRIPTION",
        *_prose(
            [
                "ppolicy.conf is a program in Python: it sets options and the dictionary modules, which has the "
                "checks, and defines the function check(factory, data, port), which decides about each request.",
                "It is the file $PPOLICY_CONF, else ppolicy.conf in the present folder, else "
                "/etc/ppolicy/ppolicy.conf, else /etc/postfix/ppolicy.conf. "
                '"ppolicy check" tells every mistake in it.',
            ]
        ),
        ".SH OPTIONS",
    ]
    for name, one in sorted(Options.declared().items()):
        lines += [".TP", f".B {name}", _text(one.help), ".br"]
        lines += [_text(f"{typeName(one.type)}, default: {one.default!r}")]
    return "\n".join([*lines, *_tail("ppolicy (1), access (5)")])


def _head(name, section, about):
    return [
        r".\" Made by python -m ppolicy.reference",
        f'.TH {name.upper()} {section} "" ppolicy',
        ".nh",
        ".ad l",
        ".SH NAME",
        rf"{name} \- {about}",
    ]


def _tail(others):
    names = [one.split() for one in others.split(", ")]
    refers = [
        f".BR {name} {section}" + ("," if (name, section) != tuple(names[-1]) else "") for name, section in names
    ]
    return [".SH SEE ALSO", *refers, ""]


def _prose(paragraphs):
    for one in paragraphs:
        yield ".PP"
        if "\n" in one:
            yield from [".nf", _text(one), ".fi"]
        else:
            yield _text(one)


def _options(options):
    for written, text in options:
        yield from [".TP", rf".B {_quoted(written)}", _text(text or "-")]


def _quoted(text):
    """
    An argument of a request.
    """
    return '"' + _text(text).removeprefix(r"\&").replace('"', r"\(dq") + '"'


def _text(text):
    """
    Text that groff shows as it is written.
    """
    for character, escape in (
        ("\\", r"\e"),
        ("-", r"\-"),
        ("'", r"\(aq"),
        ("`", r"\(ga"),
        ("^", r"\(ha"),
        ("~", r"\(ti"),
    ):
        text = text.replace(character, escape)
    lines = [rf"\&{line}" if line.startswith((".", r"\(aq")) else line for line in text.split("\n")]
    return "".join([one if one.isascii() else rf"\[u{ord(one):04X}]" for one in "\n".join(lines)])
