"""
The ppolicy command.
"""

import json
import sys

import click

from ppolicy import __version__, administration, config, databasecommands
from ppolicy.errors import PPolicyError


class _Command(click.Group):
    """
    Shows errors raised on purpose as a sentence, and exits with 1.
    """

    def invoke(self, context):
        try:
            return super().invoke(context)
        except PPolicyError as error:
            click.echo(str(error), err=True)
            sys.exit(1)


def _configured(function):
    return click.option(
        "-c",
        "--config",
        "path",
        metavar="FILE",
        help="The configuration; by default $PPOLICY_CONF, ./ppolicy.conf, /etc/ppolicy/ppolicy.conf.",
    )(function)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ppolicy")
def main():
    """
    ppolicy answers Postfix's policy requests with a policy written in Python.
    """


@main.command()
@_configured
@click.option("--postfix", is_flag=True, help="Also print the lines for Postfix's main.cf.")
def check(path, postfix):
    """
    Check a configuration: every mistake with file and line, exit code 1 when there is one.

    Modules are started as for a dry run; a running server notices nothing.
    """
    from ppolicy import offline

    configuration = offline.load(path)
    for warning in configuration.warnings:
        click.echo(f"warning: {warning}", err=True)
    offline.start(configuration)
    click.echo(f"{configuration.path}: {len(configuration.specs)} checks, no mistake")
    if postfix:
        click.echo(offline.postfixLines(configuration))


@main.command()
@_configured
def run(path):
    """
    Run the server in the foreground; SIGTERM stops it, SIGHUP reloads.
    """
    from twisted.application import app
    from twisted.application.service import IService
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from ppolicy import service

    configuration = config.load(config.find(path))
    sys.stdout.reconfigure(errors="backslashreplace")  # no log line is lost for the want of a letter
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    application = service.makeApplication(configuration)
    IService(application).privilegedStartService()
    app.startApplication(application, False)
    reactor.run()


@main.command()
@_configured
@click.option("--json", "asJson", is_flag=True, help="Print JSON.")
def status(path, asJson):
    """
    Show what the running server does.
    """
    answer = _ask(path, "status")
    if asJson:
        click.echo(json.dumps(answer, indent=2))
        return
    for line in _lines(answer):
        click.echo(line)


@main.command()
@_configured
def reload(path):
    """
    Make the running server read its configuration again; a mistake changes nothing and is printed.
    """
    answer = _ask(path, "reload")
    for warning in answer["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"generation {answer['generation']} is at work")


@main.group()
def cache():
    """
    The cache of results.
    """


@cache.command()
@_configured
@click.argument("module", required=False)
def flush(path, module):
    """
    Forget the cached results of one check, or all.
    """
    answer = _ask(path, "cache.flush", module=module)
    more = f", {answer['dns']} answers of the DNS" if "dns" in answer else ""
    click.echo(f"{answer['flushed']} results{more} forgotten")


@main.command("try", context_settings={"ignore_unknown_options": True})
@_configured
@click.option("--write", is_flag=True, help="Let it change the state for real; the server must not be running.")
@click.option("--json", "asJson", is_flag=True, help="Print JSON.")
@click.argument("name")
@click.argument("words", nargs=-1, metavar="[ATTRIBUTE=VALUE]... [-- ARGUMENT]...")
def tryCommand(path, write, asJson, name, words):
    """
    Ask one check: a configured name, else a module type with default parameters.

    Attributes are those of a request, arguments what a policy would give the check beside it.
    """
    from ppolicy import offline

    attributes, arguments = offline.words(words, _separator())
    _show(offline.tryCheck(offline.load(path), name, attributes, arguments, write), asJson)


@main.command()
@_configured
@click.option(
    "--write", is_flag=True, help="Let it change the state for real, in the running server if there is one."
)
@click.option("--json", "asJson", is_flag=True, help="Print JSON.")
@click.argument("request", type=click.File("rb"), default="-")
def explain(path, write, asJson, request):
    """
    Show step by step how the policy decides about a request, read from standard input or a file.

    A request is lines `name=value`, as Postfix sends them or as DumpDataFile wrote them. Nothing is changed
    unless --write is given.
    """
    from ppolicy import offline

    answers = offline.explain(offline.load(path), offline.requests(request.read()), write)
    for answer in answers:
        _show(answer, asJson)
    sys.exit(1 if any(answer["error"] for answer in answers) else 0)


main.add_command(administration.greylist)
main.add_command(administration.lists)
main.add_command(administration.limit)
main.add_command(administration.trap)
main.add_command(databasecommands.db)


def _ask(path, verb, **arguments):
    from ppolicy import control, service

    # A configuration with mistakes still says where its server listens for commands.
    return control.ask(service.controlPath(config.glance(config.find(path))), verb, **arguments)


def _separator():
    """
    How many of the command line's words stand after C{--}; click does not tell.
    """
    words = sys.argv[1:]
    return len(words) - words.index("--") - 1 if "--" in words else 0


def _show(answer, asJson):
    if asJson:
        click.echo(json.dumps(answer, default=str))
        return
    for step in answer["steps"]:
        cached = " from the cache" if step["cached"] else ""
        click.echo(f"{step['name']:<20} {step['code']:>4}  {step['ms']:8.1f} ms{cached}  {step['info']!r}")
    if answer.get("error"):
        click.echo(f"error: {answer['error']}", err=True)
    if "action" in answer:
        click.echo(f"action={answer['action']}")


def _lines(value, indent=""):
    for name, one in value.items():
        if isinstance(one, dict):
            yield f"{indent}{name}:"
            yield from _lines(one, indent + "  ")
        else:
            shown = ", ".join(map(str, one)) if isinstance(one, list) else one
            yield f"{indent}{name}: {shown if shown is not None else '-'}"


if __name__ == "__main__":
    main(prog_name="ppolicy")
