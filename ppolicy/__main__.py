"""
The ppolicy command.
"""

import sys

import click

from ppolicy import __version__, administration, completion, databasecommands, exitcodes, listcommands, observation
from ppolicy.errors import ConfigError
from ppolicy.terminal import (
    Commands,
    ask,
    coloured,
    complain,
    configured,
    counted,
    echoJSON,
    headed,
    judged,
    printable,
    printsJSON,
    warn,
)

_EPILOG = f"""
\b
Exit codes:
{exitcodes.described()}

\b
Examples:
  ppolicy check --postfix                 is ppolicy.conf right, and what goes into main.cf?
  ppolicy -c /etc/ppolicy/ppolicy.conf run
  ppolicy status --check                  for monitoring: says what is wrong, exit code 5
  ppolicy try greylist sender=a@example.net recipient=b@example.org client_address=192.0.2.1
"""


@click.group(cls=Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ppolicy")
@configured
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    callback=coloured,
    expose_value=False,
    help="Colours; auto: on a terminal, unless NO_COLOR is set.",
)
def main(path):
    """
    ppolicy answers Postfix's policy requests with a policy written in Python.

    A command for the running server finds it by its configuration. Most commands print JSON with --json: one
    document on standard output, while errors and warnings are text on standard error.
    """


@main.command()
@configured
@printsJSON
@click.option("--postfix", is_flag=True, help="Also print the lines for Postfix's main.cf.")
def check(path, asJson, postfix):
    """
    Check a configuration.

    Every mistake is told with file and line, those in the policy as far as they can be seen without asking
    it; the exit code is 1 when there is one. Modules are started as for a dry run; a running server
    notices nothing. The JSON has the mistakes as well.
    """
    from ppolicy import offline

    try:
        configuration = offline.load(path)
        try:
            offline.start(configuration)
        finally:
            for warning in configuration.warnings:
                warn(warning)
    except ConfigError as error:
        if asJson:
            echoJSON({"mistakes": [_place(one) for one in error.mistakes]})
        raise
    lines = offline.postfixLines(configuration) if postfix else None
    if asJson:
        echoJSON(
            {
                "configuration": str(configuration.path),
                "checks": [spec.name for spec in configuration.specs],
                "mistakes": [],
                "warnings": [_place(one) for one in configuration.warnings],
                "postfix": lines,
            }
        )
        return
    click.echo(f"{configuration.path}: {counted(len(configuration.specs), 'check')}, no mistake")
    if postfix:
        click.echo(lines)


def _place(mistake):
    return {"file": mistake.file and str(mistake.file), "line": mistake.line, "sentence": mistake.sentence}


@main.command()
@configured
def run(path):
    """
    Run the server in the foreground.

    SIGTERM and Ctrl-C stop it, when it has answered what it is working on; SIGHUP has it read its configuration
    again.
    """
    from twisted.application import app
    from twisted.application.service import IService
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner

    from ppolicy import config, reading, service, signals
    from ppolicy.eventlog import EventLog

    signals.hold()
    configuration = config.load(reading.find(path))
    events = EventLog(configuration.options.eventLog)
    globalLogBeginner.beginLoggingTo([events], redirectStandardIO=False)
    try:
        application = service.makeApplication(configuration)
        IService(application).privilegedStartService()
        app.startApplication(application, False)
        reactor.run()
    finally:
        events.stop()


@main.command()
@configured
@printsJSON
@click.option("--check", "checks", is_flag=True, help="Print only what is wrong, with exit code 5 if anything is.")
def status(path, asJson, checks):
    """
    Show what the running server does, and what is wrong with it.

    The first line is about health, of the server, of every backend and of what checks depend on: a list file that
    cannot be read, a directory that does not answer. After it stands a line for each problem.
    """
    answer = ask(path, "status")
    problems = answer["health"]
    if asJson:
        echoJSON(answer, indent=2)
    else:
        del answer["health"]
        _showHealth(problems)
        for line in () if checks else _lines(answer):
            click.echo(line)
    if checks and problems:
        sys.exit(exitcodes.UNWELL)


def _showHealth(problems):
    number = len(problems)
    click.echo(headed("health: ") + judged(-number or 1, counted(number, "problem") if problems else "ok"))
    for one in problems:
        click.echo(f"  {printable(one['where'])}: " + judged(-1, printable(one["problem"])))


@main.command()
@configured
@printsJSON
def reload(path, asJson):
    """
    Have the running server read its configuration again.

    A mistake in it changes nothing, and is printed.
    """
    answer = ask(path, "reload")
    for warning in answer["warnings"]:
        warn(warning)
    if asJson:
        echoJSON(answer)
    else:
        click.echo(f"generation {answer['generation']} is at work")


@main.command("try", context_settings={"ignore_unknown_options": True})
@configured
@click.option("--write", is_flag=True, help="Let it change the state for real; the server must not be running.")
@printsJSON
@click.argument("name", shell_complete=completion.checks())
@click.argument("words", nargs=-1, metavar="[ATTRIBUTE=VALUE]... [-- ARGUMENT]...")
def tryCommand(path, write, asJson, name, words):
    """
    Ask one check.

    NAME is a configured one, else a module type, taken with default parameters. Attributes are those of a
    request, arguments what a policy would give the check beside it.

    \b
    Examples:
      ppolicy try greylist sender=a@example.net recipient=b@example.org client_address=192.0.2.1
      ppolicy try SPF sender=a@example.net client_address=192.0.2.1
    """
    from ppolicy import offline

    attributes, arguments = offline.words(words, _separator())
    for sentence in offline.misspelt(attributes):
        warn(sentence)
    _show(offline.tryCheck(offline.load(path), name, attributes, arguments, write), asJson)


@main.command()
@configured
@click.option(
    "--write", is_flag=True, help="Let it change the state for real, in the running server if there is one."
)
@click.option("--port", metavar="PORT", help="Where it came in: one of ppolicyPort, by default the first.")
@click.option("--json", "asJson", is_flag=True, help="Print JSON, an object in a line for each request.")
@click.argument("request", type=click.File("rb"), default="-")
def explain(path, write, port, asJson, request):
    """
    Show step by step how the policy decides.

    The request comes from a file or from standard input. It is lines `name=value`, as Postfix sends
    them or as DumpDataFile wrote them; what is left out is empty. Nothing is changed unless --write is
    given. The exit code is 1 when the policy fails.

    \b
    Example:
      printf 'sender=a@example.net\\nrecipient=b@example.org\\nprotocol_state=RCPT\\n' | ppolicy explain
    """
    from ppolicy import offline
    from ppolicy.logs import escaped

    datas = offline.requests(request.read())
    for sentence in dict.fromkeys(sentence for data in datas for sentence in offline.misspelt(data)):
        warn(sentence)
    answers = offline.explain(offline.load(path), datas, write, port)
    for data, answer in zip(datas, answers, strict=True):
        if len(datas) > 1 and not asJson:
            about = f"{data['protocol_state']}  client {data['client_address']}  <{data['sender']}>"
            click.echo("\n" + headed(escaped(f"{about} to <{data['recipient']}>")))
        _show(answer, asJson)
    sys.exit(exitcodes.REFUSED if any(answer["error"] for answer in answers) else exitcodes.FINE)


@main.command("completion")
@click.argument("shell", type=click.Choice(completion.SHELLS))
def completionCommand(shell):
    """
    Print the script by which a shell completes this command.

    \b
    Examples:
      eval "$(ppolicy completion bash)"       in ~/.bashrc
      ppolicy completion bash > /usr/share/bash-completion/completions/ppolicy
      ppolicy completion zsh > /usr/share/zsh/vendor-completions/_ppolicy
      ppolicy completion fish > ~/.config/fish/completions/ppolicy.fish
    """
    click.echo(completion.script(main, shell))


main.add_command(observation.stats)
main.add_command(observation.why)
main.add_command(observation.trace)
main.add_command(observation.log)
main.add_command(observation.cache)
main.add_command(administration.greylist)
main.add_command(listcommands.lists)
main.add_command(administration.limit)
main.add_command(administration.trap)
main.add_command(databasecommands.db)


def _separator():
    """
    How many of the command line's words stand after C{--}; click does not tell.
    """
    words = sys.argv[1:]
    return len(words) - words.index("--") - 1 if "--" in words else 0


def _show(answer, asJson):
    if asJson:
        echoJSON(answer)
        return
    for step in answer["steps"]:
        cached = " from the cache" if step["cached"] else ""
        code = judged(step["code"], f"{step['code']:>4}")
        click.echo(f"{step['name']:<20} {code}  {step['ms']:8.1f} ms{cached}  {step['info']!r}")
    if answer.get("error"):
        complain(f"error: {printable(answer['error'])}")
    if "action" in answer:
        click.echo(headed("action=") + printable(answer["action"]))


def _lines(value, indent=""):
    for name, one in value.items():
        title = printable(name)
        if isinstance(one, dict):
            lines = list(_lines(one, indent + "  "))
            if lines:
                yield f"{indent}{title if indent else headed(title)}:"
                yield from lines
        elif name == "problem":
            if one:
                yield f"{indent}problem: " + judged(-1, printable(" ".join(str(one).split())))
        else:
            shown = ", ".join(map(str, one)) if isinstance(one, list) else one
            yield f"{indent}{title}: {printable(shown) if shown is not None else '-'}"


if __name__ == "__main__":
    main(prog_name="ppolicy")
