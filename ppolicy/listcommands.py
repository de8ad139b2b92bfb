"""
The commands C{ppolicy list}: the values of a list, also as CSV.
"""

import csv
import io

import click

from ppolicy import completion
from ppolicy.conversation import PORTION, ask, converse, portions, request
from ppolicy.errors import PPolicyError
from ppolicy.terminal import echoJSON, found, options, progress, show


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


@lists.command("export")
@_table
@click.pass_obj
def exportList(chosen, path, asJson, table):
    """
    Print all rows as CSV, in the form that import reads.
    """
    rows = []

    def dialogue():
        after, portion = 0, (yield chosen.request("export", table=table, limit=PORTION))
        with progress("rows", portion["total"], asJson) as bar:
            while True:
                some = portion["rows"]
                if asJson:
                    rows.extend(some)
                else:
                    click.echo(_csv(portion["columns"], some), nl=False)
                after += len(some)
                bar.update(len(some))
                if len(some) < PORTION:
                    return
                portion = yield chosen.request("export", table=table, after=after, limit=PORTION)

    converse(path, dialogue())
    if asJson:
        echoJSON({"rows": rows})


def _csv(columns, rows):
    text = io.StringIO()
    csv.writer(text).writerows([row[column] for column in columns] for row in rows)
    return text.getvalue()
