"""
The commands that show what the running server does: C{ppolicy stats}, C{why}, C{trace}, C{log} and C{cache}.
"""

import time
from datetime import datetime

import click

from ppolicy import completion, controlclient
from ppolicy.terminal import (
    ask,
    configured,
    controlSocket,
    counted,
    echoJSON,
    found,
    headed,
    judged,
    printable,
    printsJSON,
    table,
)

_CODES = 6


@click.command()
@configured
@printsJSON
@click.option(
    "--watch",
    type=click.FloatRange(0.5, 3600),
    metavar="SECONDS",
    is_flag=False,
    flag_value=2.0,
    help="Show it again and again, each 2 seconds unless told otherwise.",
)
def stats(path, asJson, watch):
    """
    Show how many requests were answered how, and how fast.

    By action, by check and code, with what came from the cache and how long the answers took: in the last minute
    and since the start. The percentiles are of the time from the request to its answer.
    """
    while True:
        answer = ask(path, "stats")
        if asJson:
            echoJSON(answer)
        else:
            if watch:
                click.clear()
            _showStatistics(answer)
        if not watch:
            return
        time.sleep(watch)


@click.command()
@configured
@printsJSON
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The newest so many.")
@click.argument("text")
def why(path, asJson, limit, text):
    """
    Show why mails were answered as they were.

    TEXT is a queue id, an instance, an address or name of a client, a sender or a recipient, or a part of one.
    Each decision comes with every check that was asked, its code, information and time, and the action as it was
    sent. The server remembers the last historySize decisions, 10,000 unless told otherwise; what is older is in
    its log.

    \b
    Examples:
      ppolicy why alice@example.net
      ppolicy why 4bXkRz1yPqz3         the queue id in Postfix's log
    """
    answer = ask(path, "why", text=text, limit=limit)
    decisions = answer["decisions"]
    if asJson:
        echoJSON(answer)
    for decision in () if asJson else decisions:
        _showDecision(decision)
        click.echo()
    if not decisions:
        click.echo(f"nothing about {text!r} in the last {answer['remembered']} decisions", err=True)
    found(decisions)


@click.command()
@configured
@printsJSON
@click.option("--client", metavar="NETWORK", help="An address, a network, or a part of the client's name.")
@click.option("--sender", metavar="TEXT", help="A part of the sender.")
@click.option("--recipient", metavar="TEXT", help="A part of the recipient.")
@click.option("--action", metavar="VERB", help="Such as REJECT, 450 or DEFER_IF_PERMIT.")
def trace(path, asJson, **filters):
    """
    Follow the decisions of the running server, until Ctrl-C.

    Only what fits all of the options is shown. On a busy server some are left out, and their number is told. With
    --json each line is an object.

    \b
    Examples:
      ppolicy trace --action REJECT
      ppolicy trace --client 192.0.2.0/24 --recipient @example.org
    """
    for decision in controlclient.follow(controlSocket(path), "trace", **filters):
        if asJson:
            echoJSON(decision)
            continue
        if "leftOut" in decision:
            click.echo(f"({decision['leftOut']} left out)", err=True)
        _showDecision(decision)
        click.echo()


@click.group()
@configured
def log(path):
    """
    What the running server logs.
    """


@log.command()
@configured
@printsJSON
@click.argument(
    "name", metavar="[LEVEL]", required=False, type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], False)
)
def level(path, asJson, name):
    """
    Show or set the least level of what policies and modules log.

    What is set holds until the next reload, which goes back to the option logLevel.
    """
    answer = ask(path, "log.level", level=name)
    if asJson:
        echoJSON(answer)
    else:
        click.echo(f"{answer['level']} (logLevel is {answer['configured']})")


@click.group()
@configured
def cache(path):
    """
    The cache of results.
    """


@cache.command("show")
@configured
@printsJSON
@click.argument("check", required=False, shell_complete=completion.checks())
def showCache(path, asJson, check):
    """
    Show what is cached: how many results of each check, or the results of one.
    """
    answer = ask(path, "cache.show", module=check)
    if asJson:
        echoJSON(answer)
    elif check is not None:
        table(answer["entries"])
    else:
        answers = counted(answer["dns"], "answer")
        click.echo(f"{answer['entries']} of at most {answer['size']} results, {answers} of the DNS")
        if answer["checks"]:
            table([{**one, "hits": _percent(one["fromCache"], one["asked"])} for one in answer["checks"]])


@cache.command()
@configured
@printsJSON
@click.argument("check", required=False, shell_complete=completion.checks())
def flush(path, asJson, check):
    """
    Forget the cached results of one check, or all.
    """
    answer = ask(path, "cache.flush", module=check)
    if asJson:
        echoJSON(answer)
        return
    more = f", {counted(answer['dns'], 'answer')} of the DNS" if "dns" in answer else ""
    click.echo(f"{counted(answer['flushed'], 'result')}{more} forgotten")


def _showStatistics(answer):
    minute, start = answer["minute"], answer["start"]
    rows = [
        {"": name, "last minute": show(minute), "since the start": show(start)}
        for name, show in (
            ("seconds", lambda part: part["seconds"]),
            ("requests", lambda part: f"{part['requests']:,}"),
            ("a second", lambda part: f"{part['perSecond']:,}"),
            *(
                (f"{name}, ms", lambda part, name=name: part["milliseconds"][name])
                for name in start["milliseconds"]
            ),
        )
    ]
    table(rows)
    actions = [
        {
            "action": printable(name),
            "last minute": f"{minute['actions'].get(name, 0):,}",
            "since the start": f"{number:,}",
        }
        for name, number in start["actions"].items()
    ]
    checks = [
        {
            "check": name,
            "last minute": f"{minute['checks'].get(name, {}).get('asked', 0):,}",
            "since the start": f"{one['asked']:,}",
            "cached": _percent(one["fromCache"], one["asked"]),
            "mean ms": one.get("meanMilliseconds", "-"),
            "codes": _codes(one["codes"]),
        }
        for name, one in start["checks"].items()
    ]
    for part in (actions, checks):
        if part:
            click.echo()
            table(part)


def _codes(codes):
    often = sorted(codes.items(), key=lambda item: -item[1])
    more = ["..."] if len(often) > _CODES else []
    return " ".join([*(f"{code}:{number:,}" for code, number in often[:_CODES]), *more])


def _percent(part, whole):
    return f"{part / whole:.0%}" if whole else "-"


def _showDecision(decision):
    """
    One decision for people: when and about whom, a line for each check, and what was sent.
    """
    when = datetime.fromtimestamp(decision["time"]).isoformat(" ", "milliseconds")
    names = {
        "": decision["protocol_state"],
        "instance": decision["instance"],
        "queue id": decision["queue_id"],
        "login": decision["sasl_username"],
    }
    about = "  ".join(f"{name} {printable(value)}".strip() for name, value in names.items() if value)
    click.echo(headed(f"{when}  {about}"))
    client = " ".join(filter(None, (decision["client_address"], decision["client_name"])))
    click.echo(f"  client {printable(client)}, HELO {printable(decision['helo_name'])}")
    click.echo(f"  <{printable(decision['sender'])}> to <{printable(decision['recipient'])}>")
    for step in decision["steps"]:
        took = "cached" if step["cached"] else f"{step['ms']:.1f} ms"
        info = "" if step["info"] is None else printable(step["info"])
        click.echo(
            judged(step["code"], f"  {printable(step['name']):<20} {step['code']:>4}  {took:>10}  {info}".rstrip())
        )
    click.echo(f"  action={printable(decision['action'])}  ({decision['ms']:.1f} ms)")
