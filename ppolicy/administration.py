"""
The commands about what checks remember: C{ppolicy greylist}, C{ppolicy limit} and C{ppolicy trap}.
"""

import click

from ppolicy import completion
from ppolicy.conversation import ask, checksOf, converse, request
from ppolicy.terminal import found, options, show, table


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
