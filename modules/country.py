"""
Which country does an address come from?
"""

import re
from pathlib import Path

from ppolicy.check import Check, parameter
from ppolicy.errors import ConfigError, Mistake, ParamError
from ppolicy.geoip import GeoFile

# Where geoipupdate and the packages of distributions put a file; the last one is what 2.7 used.
_FOLDERS = ("/var/lib/GeoIP", "/usr/share/GeoIP", "/usr/local/share/GeoIP")
_NAMES = ("GeoLite2-Country.mmdb", "GeoIP2-Country.mmdb", "GeoLite2-City.mmdb", "GeoIP2-City.mmdb", "GeoIP.dat")


class Country(Check):
    """
    Finds the country that an address belongs to and, when one or several are wanted, compares: mail from a country
    that nobody here corresponds with deserves a closer look. Where an address is registered is not always where
    its user is.

    The data come from a file in the format MaxMind DB, for IPv4 and IPv6: GeoLite2, GeoIP2, DB-IP and others with
    countries, or with cities; none comes with ppolicy. It is kept in memory, read again soon after it has changed,
    and the old data stay in use as long as a new file is broken. Of a GeoIP.dat, which is the format before,
    nothing is read: all countries are unknown.

    The information is the code of the country, a text with attributes: `country` is the code again, `city`, `asn`
    (the number of the autonomous system, the network that announces the address) and `organisation` (who has that)
    are None unless the file knows them. Autonomous systems come in a file of their own: name it in `asnPath`
    beside the countries, or in `dataPath` to do without them; the information then is such as 'AS64496'.

    Check arguments:
        data ... the request; the attribute that `param` names is used

    Check returns:
        1 .... found, and one of those in `country`, when there are any; information: the code, such as 'CZ'
        0 .... unknown: no address, or the file does not know it; information: None
        -1 ... another country; information: its code, such as 'DE'

    Examples:
        # which country does the client come from?
        modules['country'] = ('Country', {'dataPath': '/var/lib/GeoIP/GeoLite2-Country.mmdb'})
        # does it come from here?
        modules['home'] = ('Country', {'dataPath': '/var/lib/GeoIP/GeoLite2-Country.mmdb', 'country': 'CZ'})
        # from one of the neighbours, and from whose network?
        modules['neighbour'] = ('Country', {'dataPath': '/var/lib/GeoIP/GeoLite2-City.mmdb',
                                            'asnPath': '/var/lib/GeoIP/GeoLite2-ASN.mmdb',
                                            'country': ['CZ', 'SK', 'AT', 'DE', 'PL']})
        # networks only
        modules['network'] = ('Country', {'dataPath': '/var/lib/GeoIP/GeoLite2-ASN.mmdb'})
    """

    param: str = parameter("client_address", "the attribute that holds the address")
    country: str | list[str] | None = parameter(None, "code of the wanted country (ISO 3166), or a list of codes")
    dataPath: Path | None = parameter(
        None, "the file, a .mmdb; by default that of geoipupdate, in /var/lib/GeoIP or /usr/share/GeoIP"
    )
    asnPath: Path | None = parameter(None, "a second file, with autonomous systems")

    def start(self):
        self._wanted = frozenset(_codes(self.country))
        self._file = _loaded("dataPath", self.dataPath or _standard())
        self._networks = None if self.asnPath is None else _loaded("asnPath", self.asnPath)
        if self._wanted and not self._file.hasCountries and not self._file.isLegacy:
            raise ParamError(f"country: there are no countries in {self._file.path}")
        for file in self._files():
            self.tables.watch(file, self.forgetResults)

    def _files(self):
        return [file for file in (self._file, self._networks) if file is not None]

    def status(self):
        return {"files": {str(file.path): file.status() for file in self._files()}}

    def stop(self):
        for file in self._files():
            self.tables.unwatch(file)
            file.close()

    def hashArg(self, data):
        return data.get(self.param, "")

    def check(self, data):
        address = data.get(self.param, "")
        found = self._file.find(address)
        if found is None or (self._wanted and not found.country):
            return 0, None
        if self._networks is not None:
            found = found.within(self._networks.find(address))
        return (-1 if self._wanted and found.country not in self._wanted else 1), found


def _standard():
    """
    The file that is where such files are.
    """
    for folder in _FOLDERS:
        for name in _NAMES:
            if (path := Path(folder, name)).is_file():
                return path
    raise ParamError(f"dataPath must name a .mmdb file: there is none in {', '.join(_FOLDERS)}")


def _loaded(parameter, path):
    file = GeoFile(path)
    try:
        file.load()
    except ConfigError as error:
        raise ConfigError(*[Mistake(f"{parameter}: {one}") for one in error.mistakes]) from error
    return file


def _codes(country):
    """
    @raises ParamError: when something is no code.
    """
    if country is None or country == "":
        return []
    codes = country.split(",") if isinstance(country, str) else country
    codes = [code.strip().upper() for code in codes]
    wrong = [code for code in codes if not re.fullmatch("[A-Z][A-Z0-9]", code)]
    if wrong or not codes:
        raise ParamError(
            f"country: {wrong[0]!r} is no code of a country, such as 'CZ'"
            if wrong
            else "country: the list is empty"
        )
    return codes
