"""
The commands about what checks keep: C{ppolicy greylist}, C{ppolicy list}, C{ppolicy limit} and C{ppolicy trap}.
"""

import csv
import json
import sys
import time

import click

from ppolicy.errors import PPolicyError

_CONFIG = "The configuration; by default $PPOLICY_CONF, ./ppolicy.conf, /etc/ppolicy/ppolicy.conf."
# Rows of an import that are sent to the server at once.
_PORTION = 500
_OCTETS = 100_000


def options(function):
    """
    The options that all of these commands have.
    """
    function = click.option("-c", "--config", "path", metavar="FILE", help=_CONFIG)(function)
    return click.option("--json", "asJson", is_flag=True, help="Print JSON.")(function)


def ask(path, family, check, command, **arguments):
    """
    Have the running server's check do something; without a server do it here.
    """
    answers = []

    def dialogue():
        answers.append((yield request(family, check, command, **arguments)))

    converse(path, dialogue())
    return answers[0]


def request(family, check, command, **arguments):
    """
    A request for L{converse}.
    """
    return {"family": family, "check": check, "command": command, "arguments": arguments}


def converse(path, dialogue):
    """
    Have checks do several things, in the running server, or here when there is none.

    @param dialogue: a generator of requests, which is sent the answer to each.
    """
    from ppolicy import config, control, offline, service

    configured = config.find(path)
    socket = service.controlPath(config.glance(configured))
    if not control.isServed(socket):
        offline.converse(offline.load(path), dialogue)
        return
    try:
        wanted = next(dialogue)
        while True:
            wanted = dialogue.send(control.ask(socket, "command", **wanted))
    except StopIteration:
        return


def configured(path, family):
    """
    The names of the checks of a family.
    """
    from ppolicy import offline

    return [spec.name for spec in offline.load(path).specs if spec.cls.family == family]


def show(answer, asJson, rows=None):
    """
    Print an answer: JSON, or its rows as a table.
    """
    if asJson:
        click.echo(json.dumps(answer, default=str))
    elif rows is None:
        for name, value in answer.items():
            click.echo(f"{name}: {value}")
    else:
        table(answer[rows])


def table(rows):
    """
    Print dictionaries as lines with columns.
    """
    if not rows:
        click.echo("nothing found", err=True)
        return
    names = list(rows[0])
    lines = [names, *([_cell(name, row[name]) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(name, value):
    if name in ("first", "last", "expires", "soft_expire", "hard_expire") and value:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(value)))
    return str(value).encode("unicode_escape").decode("ascii") if not str(value).isprintable() else str(value)


@click.group()
def greylist():
    """
    The triplets of a greylist.

    A text with * in it stands for everything that looks like it.
    """


def _triplet(function):
    for name, text in (
        ("client", "Client address or network."),
        ("recipient", "Recipient."),
        ("sender", "Envelope sender; '' for bounces."),
    ):
        function = click.option(f"--{name}", metavar="TEXT", help=text)(function)
    return options(click.option("--check", metavar="NAME", help="The check, where there are several.")(function))


@greylist.command("list")
@_triplet
@click.option("--limit", default=100, show_default=True, help="At most so many.")
def listTriplets(path, asJson, check, sender, recipient, client, limit):
    """
    List triplets, those that stay longest first.
    """
    answer = ask(path, "greylist", check, "list", sender=sender, recipient=recipient, client=client, limit=limit)
    show(answer, asJson, "triplets")


@greylist.command("show")
@click.argument("sender")
@click.argument("recipient")
@click.argument("client")
@options
@click.option("--check", metavar="NAME", help="The check, where there are several.")
def showTriplet(path, asJson, check, sender, recipient, client):
    """
    Show one triplet as the check would count it.
    """
    answer = ask(path, "greylist", check, "show", sender=sender, recipient=recipient, client=client)
    show(answer, asJson, "triplets")


@greylist.command("allow")
@_triplet
def allowTriplets(path, asJson, check, sender, recipient, client):
    """
    Have triplets pass from now on. One that is named in full need not be there.
    """
    show(ask(path, "greylist", check, "allow", sender=sender, recipient=recipient, client=client), asJson)


@greylist.command("remove")
@_triplet
def removeTriplets(path, asJson, check, sender, recipient, client):
    """
    Forget triplets: they have to wait again.
    """
    show(ask(path, "greylist", check, "remove", sender=sender, recipient=recipient, client=client), asJson)


@greylist.command("stats")
@options
@click.option("--check", metavar="NAME", help="The check, where there are several.")
def countTriplets(path, asJson, check):
    """
    Count triplets: those that wait, have passed, were never tried again.
    """
    show(ask(path, "greylist", check, "stats"), asJson)


class Chosen:
    """
    The list that a command is about.
    """

    def __init__(self, name):
        self.name = name

    def request(self, command, **arguments):
        return request("list", self.name, command, **arguments)

    def ask(self, path, command, **arguments):
        return ask(path, "list", self.name, command, **arguments)


@click.group("list")
@click.argument("name")
@click.pass_context
def lists(context, name):
    """
    The values of a list; NAME is the check that looks them up.
    """
    context.obj = Chosen(name)


def _table(function):
    return options(
        click.option("--table", metavar="TABLE", help="The table, where the check has several.")(function)
    )


@lists.command("show")
@_table
@click.argument("like", required=False)
@click.option("--limit", default=100, show_default=True, help="At most so many.")
@click.pass_obj
def showList(chosen, path, asJson, table, like, limit):
    """
    Show rows; LIKE is what the first column looks like, with * for anything.
    """
    show(chosen.ask(path, "show", table=table, like=like, limit=limit), asJson, "rows")


@lists.command("add")
@_table
@click.argument("values", nargs=-1, required=True)
@click.option("--with", "beside", metavar="COLUMN=TEXT", multiple=True, help="What stands beside the values.")
@click.option("--live", default=0.0, help="Seconds until the row expires; 0: never.")
@click.pass_obj
def addToList(chosen, path, asJson, table, values, beside, live):
    """
    Add a row: one value for each column that is compared.
    """
    wrong = [one for one in beside if "=" not in one]
    if wrong:
        raise PPolicyError(f"--with {wrong[0]}: is no COLUMN=TEXT")
    columns = dict(one.split("=", 1) for one in beside)
    show(chosen.ask(path, "add", table=table, values=[list(values)], columns=columns, live=live), asJson)


@lists.command("remove")
@_table
@click.argument("values", nargs=-1, required=True)
@click.pass_obj
def removeFromList(chosen, path, asJson, table, values):
    """
    Remove a row.
    """
    show(chosen.ask(path, "remove", table=table, values=[list(values)]), asJson)


@lists.command("import")
@_table
@click.argument("file", type=click.File(encoding="utf-8", errors="surrogateescape"), default="-")
@click.pass_obj
def importList(chosen, path, asJson, table, file):
    """
    Add the rows of a CSV file (or standard input): the values of the columns that are compared, and of those
    beside them or not. What is there already gets the new values beside it.
    """
    rows = [[one.strip() for one in row] for row in csv.reader(file) if row and not row[0].startswith("#")]
    added = 0

    def dialogue(bar):
        nonlocal added
        for portion in portions(rows):
            added += (yield chosen.request("importRows", table=table, rows=portion))["taken"]
            bar.update(len(portion))

    with click.progressbar(length=len(rows), label="rows", file=sys.stderr) as bar:
        converse(path, dialogue(bar))
    show({"added": added}, asJson)


def portions(rows):
    """
    Lists of rows that fit into a request each.
    """
    portion, octets = [], 0
    for row in rows:
        octets += len(json.dumps(row))
        if portion and (octets > _OCTETS or len(portion) == _PORTION):
            yield portion
            portion, octets = [], len(json.dumps(row))
        portion.append(row)
    if portion:
        yield portion


@lists.command("export")
@_table
@click.pass_obj
def exportList(chosen, path, asJson, table):
    """
    Print all rows as CSV, in the form that import reads.
    """
    rows = []
    writer = csv.writer(sys.stdout)

    def dialogue():
        after = 0
        while True:
            portion = yield chosen.request("export", table=table, after=after, limit=_PORTION)
            found = portion["rows"]
            if asJson:
                rows.extend(found)
            else:
                writer.writerows([row[column] for column in portion["columns"]] for row in found)
            after += len(found)
            if len(found) < _PORTION:
                return

    converse(path, dialogue())
    if asJson:
        click.echo(json.dumps({"rows": rows}, default=str))


@click.group()
def limit():
    """
    What limits have counted.

    KEY is what a limit counts by; several values have blanks between them, and * in it stands for anything.
    """


@limit.command("list")
@options
@click.argument("name", required=False)
@click.option("--key", metavar="TEXT", help="What the key looks like.")
@click.option("--limit", default=100, show_default=True, help="At most so many of each check.")
def listLimits(path, asJson, name, key, limit):
    """
    List keys, those that stay longest first; NAME is a check, without it all are listed.
    """
    names = [name] if name else configured(path, "limit") or [None]
    found = []

    def dialogue():
        for one in names:
            answer = yield request("limit", one, "list", key=key, limit=limit)
            found.extend({"check": one, **row} for row in answer["limits"])

    converse(path, dialogue())
    if asJson:
        show({"limits": found}, asJson)
        return
    # Each check has columns of its own.
    for rows in [[row for row in found if row["check"] == one] for one in names] if found else [[]]:
        if rows or not found:
            table(rows)


@limit.command("show")
@options
@click.argument("name")
@click.argument("key")
def showLimit(path, asJson, name, key):
    """
    Show what was counted for a key, and its limits.
    """
    show(ask(path, "limit", name, "show", key=key), asJson, "limits")


@limit.command("reset")
@options
@click.argument("name")
@click.argument("key")
def resetLimit(path, asJson, name, key):
    """
    Forget what was counted for a key: it starts again.
    """
    show(ask(path, "limit", name, "reset", key=key), asJson)


@click.group()
def trap():
    """
    Clients that went into a trap.

    A text with * in it stands for everything that looks like it.
    """


def _trapped(function):
    function = click.option("--client", metavar="TEXT", help="Client address or network.")(function)
    return options(click.option("--check", metavar="NAME", help="The check, where there are several.")(function))


@trap.command("list")
@_trapped
@click.option("--limit", default=100, show_default=True, help="At most so many.")
def listTrapped(path, asJson, check, client, limit):
    """
    List clients, those that stay longest first.
    """
    answer = ask(path, "trap", check, "list", client=client, limit=limit)
    show(answer, asJson, next(iter(answer)))


@trap.command("remove")
@_trapped
def removeTrapped(path, asJson, check, client):
    """
    Let clients go.
    """
    show(ask(path, "trap", check, "remove", client=client), asJson)
