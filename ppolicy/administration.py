"""
The commands about what checks keep: C{ppolicy greylist}, C{ppolicy list}, C{ppolicy limit} and C{ppolicy trap}.
"""

import csv
import io
import json

import click

from ppolicy import completion, controlclient
from ppolicy.errors import PPolicyError
from ppolicy.terminal import configured, controlSocket, echoJSON, found, printsJSON, progress, show, table

# Rows of an import that are sent to the server at once.
_PORTION = 500
_OCTETS = 100_000


def options(function):
    """
    The options that all of these commands have.
    """
    return printsJSON(configured(function))


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
    socket = controlSocket(path)
    if not controlclient.isServed(socket):
        from ppolicy import offline

        offline.converse(offline.load(path), dialogue)
        return
    try:
        wanted = next(dialogue)
        while True:
            wanted = dialogue.send(controlclient.ask(socket, "command", **wanted))
    except StopIteration:
        return


def checksOf(path, family):
    """
    The names of the checks of a family.
    """
    from ppolicy import offline

    return [spec.name for spec in offline.load(path).specs if spec.cls.family == family]


def _check(family):
    return click.option(
        "--check",
        metavar="NAME",
        shell_complete=completion.checks(family),
        help="The check, where there are several.",
    )


@click.group()
def greylist():
    """
    The triplets of a greylist.

    A text with * in it stands for everything that looks like it.

    \b
    Examples:
      ppolicy greylist list --sender '*@example.net'
      ppolicy greylist allow --client 192.0.2.0/24
    """


def _triplet(function):
    for name, text in (
        ("client", "Client address or network."),
        ("recipient", "Recipient."),
        ("sender", "Envelope sender; '' for bounces."),
    ):
        function = click.option(f"--{name}", metavar="TEXT", help=text)(function)
    return options(_check("greylist")(function))


@greylist.command("list")
@_triplet
@click.option("--limit", default=100, show_default=True, help="At most so many.")
def listTriplets(path, asJson, check, sender, recipient, client, limit):
    """
    List triplets, those that stay longest first.
    """
    answer = ask(path, "greylist", check, "list", sender=sender, recipient=recipient, client=client, limit=limit)
    show(answer, asJson, "triplets")
    if sender is not None or recipient is not None or client:
        found(answer["triplets"])


@greylist.command("show")
@click.argument("sender")
@click.argument("recipient")
@click.argument("client")
@options
@_check("greylist")
def showTriplet(path, asJson, check, sender, recipient, client):
    """
    Show one triplet as the check would count it.
    """
    answer = ask(path, "greylist", check, "show", sender=sender, recipient=recipient, client=client)
    show(answer, asJson, "triplets")
    found(answer["triplets"])


@greylist.command("allow")
@_triplet
def allowTriplets(path, asJson, check, sender, recipient, client):
    """
    Have triplets that are there pass from now on.

    One that is named in full need not be there. Who is never to be greylisted belongs into a list that the
    policy asks before.
    """
    answer = ask(path, "greylist", check, "allow", sender=sender, recipient=recipient, client=client)
    show(answer, asJson)
    found(answer["allowed"])


@greylist.command("remove")
@_triplet
def removeTriplets(path, asJson, check, sender, recipient, client):
    """
    Forget triplets: they have to wait again.
    """
    answer = ask(path, "greylist", check, "remove", sender=sender, recipient=recipient, client=client)
    show(answer, asJson)
    found(answer["removed"])


@greylist.command("stats")
@options
@_check("greylist")
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
@click.argument("name", shell_complete=completion.checks("list"))
@click.pass_context
def lists(context, name):
    """
    The values of a list.

    NAME is the check that looks them up. Without a running server the commands work on its database themselves.

    \b
    Examples:
      ppolicy list friends add alice@example.net
      ppolicy list friends show '*@example.net'
      ppolicy list friends export > friends.csv
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
    answer = chosen.ask(path, "show", table=table, like=like, limit=limit)
    show(answer, asJson, "rows")
    if like is not None:
        found(answer["rows"])


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
        raise click.BadParameter(f"{wrong[0]!r} is no COLUMN=TEXT", param_hint="--with")
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
    answer = chosen.ask(path, "remove", table=table, values=[list(values)])
    show(answer, asJson)
    found(answer["removed"])


@lists.command("import")
@_table
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"), default="-")
@click.pass_obj
def importList(chosen, path, asJson, table, file):
    """
    Add the rows of a CSV file, or of standard input.

    A row has the values of the columns that are compared, and of those beside them or not. Behind all of these it
    may have until when it lives, in seconds since 1970; 0 is for ever. What is there already gets the new values.
    """
    rows = _rows(file)
    added = 0

    def dialogue(bar):
        nonlocal added
        for portion in portions(rows):
            added += (yield chosen.request("importRows", table=table, rows=portion))["taken"]
            bar.update(len(portion))

    with progress("rows", len(rows), asJson) as bar:
        converse(path, dialogue(bar))
    show({"added": added}, asJson)


def _rows(file):
    """
    The rows of a CSV file, without comments and blank lines. An empty value, such as the sender of bounces, is
    C{""}: a line of white space is none.
    """
    reader = csv.reader(file)
    try:
        return [
            [one.strip() for one in row]
            for row in reader
            if row and not row[0].startswith("#") and not (len(row) == 1 and row[0].isspace())
        ]
    except csv.Error as error:
        raise PPolicyError(f"{file.name}: line {reader.line_num}: {error}") from None


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

    def dialogue():
        after, portion = 0, (yield chosen.request("export", table=table, limit=_PORTION))
        with progress("rows", portion["total"], asJson) as bar:
            while True:
                some = portion["rows"]
                if asJson:
                    rows.extend(some)
                else:
                    click.echo(_csv(portion["columns"], some), nl=False)
                after += len(some)
                bar.update(len(some))
                if len(some) < _PORTION:
                    return
                portion = yield chosen.request("export", table=table, after=after, limit=_PORTION)

    converse(path, dialogue())
    if asJson:
        echoJSON({"rows": rows})


def _csv(columns, rows):
    text = io.StringIO()
    csv.writer(text).writerows([row[column] for column in columns] for row in rows)
    return text.getvalue()


@click.group()
def limit():
    """
    What limits have counted.

    KEY is what a limit counts by; several values have blanks between them, and * in it stands for anything. Shown
    are the limits of ppolicy.conf, also where the policy or a function of yours gives others.

    \b
    Examples:
      ppolicy limit list --key '*@example.org'
      ppolicy limit reset outgoing alice@example.org
    """


@limit.command("list")
@options
@click.argument("name", required=False, shell_complete=completion.checks("limit"))
@click.option("--key", metavar="TEXT", help="What the key looks like.")
@click.option("--limit", default=100, show_default=True, help="At most so many of each check.")
def listLimits(path, asJson, name, key, limit):
    """
    List keys, those that stay longest first.

    NAME is a check; without it those of all are listed.
    """
    names = [name] if name else checksOf(path, "limit") or [None]
    rows = []

    def dialogue():
        for one in names:
            answer = yield request("limit", one, "list", key=key, limit=limit)
            rows.extend({"check": one, **row} for row in answer["limits"])

    converse(path, dialogue())
    if asJson:
        show({"limits": rows}, asJson)
    elif not rows:
        table(rows)
    else:
        for one in names:  # each check has columns of its own
            own = [row for row in rows if row["check"] == one]
            if own:
                table(own)
    if key is not None:
        found(rows)


@limit.command("show")
@options
@click.argument("name", shell_complete=completion.checks("limit"))
@click.argument("key")
def showLimit(path, asJson, name, key):
    """
    Show what was counted for a key, and its limits.
    """
    answer = ask(path, "limit", name, "show", key=key)
    show(answer, asJson, "limits")
    found(answer["limits"])


@limit.command("reset")
@options
@click.argument("name", shell_complete=completion.checks("limit"))
@click.argument("key")
def resetLimit(path, asJson, name, key):
    """
    Forget what was counted for a key: it starts again.
    """
    answer = ask(path, "limit", name, "reset", key=key)
    show(answer, asJson)
    found(answer["reset"])


@click.group()
def trap():
    """
    Clients that went into a trap.

    A text with * in it stands for everything that looks like it.
    """


def _trapped(function):
    function = click.option("--client", metavar="TEXT", help="Client address or network.")(function)
    return options(_check("trap")(function))


@trap.command("list")
@_trapped
@click.option("--limit", default=100, show_default=True, help="At most so many.")
def listTrapped(path, asJson, check, client, limit):
    """
    List clients, those that stay longest first.
    """
    answer = ask(path, "trap", check, "list", client=client, limit=limit)
    rows = next(iter(answer))
    show(answer, asJson, rows)
    if client:
        found(answer[rows])


@trap.command("remove")
@_trapped
def removeTrapped(path, asJson, check, client):
    """
    Let clients go.
    """
    answer = ask(path, "trap", check, "remove", client=client)
    show(answer, asJson)
    found(answer["removed"])
