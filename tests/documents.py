"""
The documents in docs/ as tests need them: their listings, and how to run one.
"""

import ast
import re
import shutil
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))

_FENCE = re.compile(r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.M | re.S)
_ABOVE = "above modules"
_BODY = "in check():"
_FILE = "file "
_ANSWER = "\ndef check(factory, data, port):\n    return 'dunno'\n"
_GEOIP = {"Country": "GeoIP2-Country", "City": "GeoIP2-City", "ASN": "GeoLite2-ASN"}


class Listing(NamedTuple):
    """
    A fenced block of a page.

    @ivar heading: what it stands below.
    @ivar mark: the text of a comment right above it, which says what kind of listing it is. "file NAME": it is
        this file. Of Python also "above modules": it is to stand in ppolicy.conf before C{modules}, and
        "in check(): NAMES": in the policy function, with checks of these names. Python without a mark is a
        whole ppolicy.conf when it defines the policy function, else a part of one that sets options. The files
        of the page are beside it.
    """

    page: str
    heading: str
    number: int
    language: str
    mark: str
    text: str

    @property
    def name(self):
        return f"{self.page}:{self.number}"

    @property
    def file(self):
        return self.mark.removeprefix(_FILE) if self.mark.startswith(_FILE) else None

    def configuration(self):
        """
        The listing as a ppolicy.conf.
        """
        if self.mark == _ABOVE:
            return self.text + _ANSWER
        if self.mark.startswith(_BODY):
            names = self.mark.removeprefix(_BODY).split()
            head = f"modules = {{name: ('Dummy', {{}}) for name in {names!r}}}\ndef check(factory, data, port):\n"
            return head + textwrap.indent(self.text, "    ") + "    return 'dunno'\n"
        assert not self.mark, f"{self.name}: what is {self.mark}?"
        defined = [one.name for one in ast.parse(self.text).body if isinstance(one, ast.FunctionDef)]
        return self.text if "check" in defined else self.text + _ANSWER


def listings(page):
    """
    All listings of a page.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0, page
    found = []
    for match in _FENCE.finditer(text):
        headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text[: match.start()]), re.M)
        number = text.count("\n", 0, match.start("text"))
        found.append(Listing(page, headings[-1], number, match["language"], match["mark"] or "", match["text"]))
    return found


def recipe(page, heading):
    """
    The one whole ppolicy.conf below a heading.
    """
    found = [
        one
        for one in listings(page)
        if one.heading == heading and one.language == "python" and "def check(" in one.text
    ]
    assert len(found) == 1, f"{page}: {heading}: {len(found)} listings"
    return found[0].text


def prose(page):
    """
    A page without its listings.
    """
    return _FENCE.sub("", (DOCS / page).read_text(encoding="utf-8"))


def commands(page, heading=None):
    """
    The command lines of a page, or of what is below a heading, without the prompt.
    """
    for one in listings(page):
        if one.language == "console" and heading in (None, one.heading):
            text = one.text.replace("\\\n", " ")
            yield from (line[2:] for line in text.split("\n") if line.startswith(("$ ", "# ")))


def prepare(folder, page):
    """
    Put the files of a page, and others that its listings may name, into a folder.
    """
    for name in ("password", "db.pem", "database", "zen"):
        (folder / name).write_text("secret\n", encoding="utf-8")
    for one in listings(page):
        if one.file is not None:
            (folder / one.file).write_text(one.text, encoding="utf-8")
    for name, data in _GEOIP.items():
        shutil.copy(ROOT / "tests" / "data" / "geoip" / f"{data}-Test.mmdb", folder / f"GeoLite2-{name}.mmdb")


def located(text, folder):
    """
    A ppolicy.conf that finds the files of C{prepare()}.
    """
    return re.sub("/var/lib/GeoIP/|/etc/ppolicy/|/etc/ssl/", f"{folder}/", text)
