"""
Countries, cities and networks (autonomous systems) of addresses, from a file in MaxMind's format DB.

The file is read into memory as a whole: one that is mapped kills the process when somebody truncates it. It is
read again when it changes (L{ppolicy.tables.TableService.watch}), in a thread; a new one has to show that it can
be used before it takes the place of the old one. The format: https://maxmind.github.io/MaxMind-DB/
"""

import io
import ipaddress
import random
import time
from functools import lru_cache
from weakref import WeakValueDictionary

from maxminddb import MODE_FD, open_database
from maxminddb.errors import InvalidDatabaseError
from twisted.logger import Logger

from ppolicy.address import address
from ppolicy.errors import ConfigError, Mistake
from ppolicy.watchedfile import WatchedFile

LARGEST = 2**30  # octets of a file
REMEMBERED = 10_000  # addresses; looking one up takes some 70 microseconds
TRIED = 100  # records of each family that a new file has to show

_ADDRESS = 45  # characters of the longest address (INET6_ADDRSTRLEN)
_BITS = {4: 32, 6: 128}
# What the metadata begin with, and the largest size they may have.
_MARKER, _METADATA = b"\xab\xcd\xefMaxMind.com", 128 * 1024
# What stands near the end of a file in the format before, and at most how far from it.
_LEGACY_MARKER, _LEGACY_END = b"\xff\xff\xff", 25
_LEGACY = "it has the format GeoIP.dat, which is not read any more: all addresses are unknown"
# What reading a damaged file can raise. Each look-up has a bound on what it decodes.
_DAMAGE = (InvalidDatabaseError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)

# Contents in use, by what their file looks like: several checks, and generations, share them.
_contents: WeakValueDictionary = WeakValueDictionary()


class Place(str):
    """
    Where an address is: the code of its country (ISO 3166), or its network, such as C{AS1221}, where the file has
    no countries.

    @ivar country: the code again, None when it is not known.
    @ivar city: its English name, or None.
    @ivar asn: the number of the autonomous system, or None.
    @ivar organisation: who has that, or None.
    """

    country: str | None
    city: str | None
    asn: int | None
    organisation: str | None

    def __new__(cls, country=None, city=None, asn=None, organisation=None):
        place = super().__new__(cls, country or (f"AS{asn}" if asn else ""))
        place.country, place.city, place.asn, place.organisation = country, city, asn, organisation
        return place

    def within(self, network):
        """
        The same place with the network of another one, which may be None.
        """
        if network is None or network.asn is None:
            return self
        return Place(self.country, self.city, network.asn, network.organisation)


class GeoFile(WatchedFile):
    """
    A file, read again when it changes.

    C{load()} and C{refresh()} use the disk and take long; they are called by one thread at a time. C{find()} is
    safe meanwhile.
    """

    def __init__(self, path):
        super().__init__(path)
        self._use(_Content())

    def status(self):
        """
        How it is, as a dictionary.
        """
        content = self._content
        problem = self.problem or content.trouble
        if self.isLegacy:
            problem = _LEGACY
        return {
            "problem": problem and (problem if str(self.path) in problem else f"{self.path}: {problem}"),
            **content.described(),
        }

    @property
    def warnings(self):
        """
        L{Mistake}s that do not keep the file from being used.
        """
        return [Mistake(f"{_LEGACY}; name a .mmdb file", self.path)] if self.isLegacy else []

    @property
    def hasCountries(self):
        """
        Does it tell countries?
        """
        return self._content.hasCountries

    @property
    def isLegacy(self):
        """
        Is it a file in the format before, of which nothing is read?
        """
        return self._content.isLegacy

    def find(self, text):
        """
        @param text: an address.
        @return: a L{Place}; None when the file does not know it, or the text is no address.
        """
        return self._find(text) if len(text) <= _ADDRESS else None

    def load(self):
        """
        Read the file.

        @raises ConfigError: when it cannot be used; what was read before stays.
        """
        self._use(self._read())
        self.problem = None

    def refresh(self):
        """
        Read the file if it has changed. When it cannot be used, C{problem} says so, what was read before stays,
        and nothing is tried until it changes again.

        @return: True when there is something new.
        """
        if not self.changed():
            return False
        try:
            content = self._read()
            if self.changed():
                raise ConfigError(Mistake("it is being written", self.path))
            if self.hasCountries and not content.hasCountries:
                raise ConfigError(Mistake("there are no countries in it any more", self.path))
        except ConfigError as error:
            self.problem = f"{error}; what was read before is used"
            return False
        self._use(content)
        self.problem = None
        return True

    def close(self):
        """
        Needed no longer.
        """
        self._use(_Content())

    def _use(self, content):
        self._content = content
        self._find = lru_cache(REMEMBERED)(content.find)

    def _read(self):
        looks = self._look()
        found = _contents.get((self.path, looks))
        if found is not None:
            self.seen = looks
            return found
        octets = self._octets(LARGEST)
        try:
            content = _Content(octets, self.path)
        except _DAMAGE as error:
            raise ConfigError(Mistake(f"it cannot be used: {_shown(error)}", self.path)) from error
        # Who writes to it now makes it another one.
        if not self.changed():
            _contents[self.path, self.seen] = content
        return content


class _Content:
    """
    What one file has, never changed.

    @ivar trouble: why an address could not be looked up, None while that did not happen.
    @raises Exception: one of C{_DAMAGE}, when it cannot be used.
    """

    log = Logger()

    def __init__(self, octets=b"", path=None):
        self._reader = None
        self._path = path
        self._version = 0
        self.trouble = None
        self.hasCountries = False
        self.isLegacy = _isLegacy(octets, path)
        if path is not None and not self.isLegacy:
            if _MARKER not in octets[-_METADATA:]:
                raise ValueError("it is no MaxMind DB")
            # MODE_FD is MODE_MEMORY for what is open already.
            self._reader = open_database(io.BytesIO(octets), MODE_FD)
            self._version = self._reader.metadata().ip_version
            self._try()

    def _try(self):
        """
        Look some addresses up.
        """
        if self._version not in _BITS:
            raise ValueError("it is for neither IPv4 nor IPv6")
        places = [
            _place(record) for version in _BITS if version <= self._version for record in self._some(version)
        ]
        known = [place for place in places if place is not None]
        if not known:
            raise ValueError("it has neither countries nor autonomous systems")
        self.hasCountries = any(place.country for place in known)

    def _some(self, version):
        """
        Records from all over the tree. Beside an empty network there is one that is not: so each search ends soon,
        however few there are.
        """
        bits, kind = _BITS[version], (ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)
        chosen = random.Random(version)  # noqa: S311 - the same ones each time
        for _ in range(TRIED):
            number = chosen.getrandbits(bits)
            for _ in range(bits):
                record, length = self._reader.get_with_prefix_len(kind(number))
                if record is not None:
                    yield record
                if record is not None or not length:
                    break
                number ^= 1 << (bits - length)

    def find(self, text):
        """
        The L{Place} of an address, else None.
        """
        if self._reader is None:
            return None
        wanted = address(text)
        if wanted is None or wanted.version > self._version:
            return None
        try:
            return _place(self._reader.get(wanted))
        except _DAMAGE as error:
            if self.trouble is None:
                self.trouble = f"it is damaged, {text} cannot be looked up: {_shown(error)}"
                self.log.error(
                    "{path}: it is damaged, {address} cannot be looked up: {error}",
                    path=str(self._path),
                    address=text,
                    error=_shown(error),
                )
            return None

    def described(self):
        """
        What it says about itself.
        """
        if self._reader is None:
            return {}
        metadata = self._reader.metadata()
        return {
            "type": ascii(metadata.database_type)[1:-1][:100],
            "built": time.strftime("%Y-%m-%d", time.gmtime(metadata.build_epoch)),
            "nodes": metadata.node_count,
        }


def _place(record):
    """
    The L{Place} that a record tells, None when it does not. Besides MaxMind's own records those of other
    publishers are known, who have plain texts.
    """
    if not isinstance(record, dict):
        return None
    country = record.get("country")
    if isinstance(country, dict):
        country = country.get("iso_code")
    country = _text(country) or _text(record.get("country_code"))
    city = record.get("city")
    if isinstance(city, dict):
        names = city.get("names")
        city = names.get("en") if isinstance(names, dict) else None
    asn = record.get("autonomous_system_number", record.get("asn"))
    if isinstance(asn, str):
        asn = asn.upper().removeprefix("AS")
        asn = int(asn) if asn.isdecimal() and len(asn) <= 10 else None
    asn = asn if isinstance(asn, int) and asn > 0 else None
    organisation = _text(record.get("autonomous_system_organization")) or _text(record.get("as_name"))
    if not country and asn is None:
        return None
    return Place(country.upper() if country else None, _text(city), asn, organisation)


def _text(value):
    return value if isinstance(value, str) and value else None


def _isLegacy(octets, path):
    """
    Is it a GeoIP.dat?
    """
    if path is None or _MARKER in octets[-_METADATA:]:
        return False
    return path.suffix.lower() == ".dat" or (len(octets) > 1000 and _LEGACY_MARKER in octets[-_LEGACY_END:])


def _shown(error):
    # The library names its file, which is none.
    said = str(error).partition("). ")[2] or str(error)
    return ascii(said)[1:-1][:100] or type(error).__name__
