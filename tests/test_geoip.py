"""
Tests for files of countries and networks.
"""

import os
import shutil
import time
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ppolicy import geoip
from ppolicy.errors import ConfigError
from ppolicy.geoip import GeoFile, Place

DATA = Path(__file__).parent / "data" / "geoip"
COUNTRIES = DATA / "GeoIP2-Country-Test.mmdb"
CITIES = DATA / "GeoIP2-City-Test.mmdb"
NETWORKS = DATA / "GeoLite2-ASN-Test.mmdb"
BROKEN = sorted([*(DATA / "bad").glob("*.mmdb"), *DATA.glob("*-Broken-*"), *DATA.glob("*-Invalid-*")])

# Seconds that a crafted file may keep us busy.
BUSY = 5


def opened(path):
    file = GeoFile(path)
    file.load()
    return file


def change(path, octets, at=[1_000_000_000]):
    """
    Put another content in the place of a file, as its date shows too.
    """
    new = path.with_suffix(".new")
    new.write_bytes(octets)
    at[0] += 1
    os.utime(new, (at[0], at[0]))
    new.replace(path)


class LookupTests(SynchronousTestCase):
    """
    What a file tells.
    """

    def test_countries(self):
        """
        The country of addresses of both families; IPv4 is found in its IPv6 form too.
        """
        file = opened(COUNTRIES)
        for address, expected in (
            ("81.2.69.160", "GB"),
            ("2.125.160.216", "GB"),
            ("::ffff:81.2.69.160", "GB"),
            ("2001:218::1", "JP"),
            ("2001:0218:0::0001", "JP"),
        ):
            self.assertEqual(expected, file.find(address), address)
        self.assertTrue(file.hasCountries)

    def test_unknown(self):
        """
        What is not in the file, or no address, has no place.
        """
        file = opened(COUNTRIES)
        for text in (
            "192.0.2.1",
            "::1",
            "",
            "x",
            "81.2.69.160 ",
            "81.2.69.0/24",
            "81.2.69",
            "\udcff",
            "1" * 10**6,
        ):
            self.assertIsNone(file.find(text), text[:20])

    def test_city(self):
        """
        A file of cities tells the country and the city.
        """
        place = opened(CITIES).find("81.2.69.160")
        self.assertEqual(("GB", "GB", "London", None), (place, place.country, place.city, place.asn))

    def test_networks(self):
        """
        A file of networks alone tells the number and who has it.
        """
        file = opened(NETWORKS)
        place = file.find("1.128.0.0")
        self.assertEqual(
            ("AS1221", None, 1221, "Telstra Pty Ltd"), (place, place.country, place.asn, place.organisation)
        )
        self.assertFalse(file.hasCountries)

    def test_otherPublishers(self):
        """
        Records of other publishers, with plain texts, are understood; what is none of this tells nothing.
        """
        for record, expected in (
            ({"country_code": "cz"}, ("CZ", None, None, None)),
            ({"country": "CZ", "asn": "AS2852", "as_name": "CESNET"}, ("CZ", None, 2852, "CESNET")),
            ({"country": {"iso_code": "CZ"}, "city": "Brno"}, ("CZ", "Brno", None, None)),
            ({"country": {"iso_code": "CZ"}, "city": {"names": []}, "asn": "ASx"}, ("CZ", None, None, None)),
        ):
            place = geoip._place(record)
            self.assertEqual(expected, (place.country, place.city, place.asn, place.organisation))
        for record in (None, 7, "CZ", {}, {"country": {}}, {"country": 5}, {"asn": 0}, {"asn": "AS" + "9" * 5000}):
            self.assertIsNone(geoip._place(record))

    def test_within(self):
        """
        A place takes the network of another one, if that has any.
        """
        place = Place("CZ", "Brno")
        for other in (None, Place("DE")):
            self.assertIs(place, place.within(other))
        both = place.within(Place(asn=2852, organisation="CESNET"))
        self.assertEqual(("CZ", "Brno", 2852, "CESNET"), (both, both.city, both.asn, both.organisation))

    def test_shared(self):
        """
        Two users of one file have it in memory once, and not for longer than one of them uses it.
        """
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "data.mmdb"
        shutil.copy(COUNTRIES, path)
        first, second = opened(path), opened(path)
        content = weakref.ref(first._content)
        self.assertIs(content(), second._content)
        first.close()
        self.assertEqual("GB", second.find("81.2.69.160"))
        self.assertIsNone(first.find("81.2.69.160"))
        second.close()
        self.assertIsNone(content())

    def test_bounded(self):
        """
        Of what was looked up only so much is remembered.
        """
        self.patch(geoip, "REMEMBERED", 10)
        file = opened(COUNTRIES)
        for number in range(50):
            file.find(f"81.2.69.{number}")
        self.assertEqual(10, file._find.cache_info().currsize)


class ReloadTests(SynchronousTestCase):
    """
    A file that changes.
    """

    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "data.mmdb"
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def test_reload(self):
        """
        A new file is used from then on, what was remembered of the old one is not.
        """
        shutil.copy(COUNTRIES, self.path)
        file = opened(self.path)
        self.assertIsNone(file.find("81.2.69.160").city)
        self.assertFalse(file.refresh())
        change(self.path, CITIES.read_bytes())
        self.assertIsNone(file.find("81.2.69.160").city)
        self.assertTrue(file.refresh())
        self.assertEqual("London", file.find("81.2.69.160").city)
        self.assertFalse(file.refresh())

    def test_broken(self):
        """
        No broken file takes the place of the old data; each has its problem told, and a good one afterwards works.
        """
        good = COUNTRIES.read_bytes()
        self.assertEqual(23, len(BROKEN))
        contents = {path.name: path.read_bytes() for path in BROKEN} | {
            "empty": b"",
            "text": b"Too many requests\n" * 100,
            "truncated": good[: len(good) // 2],
            "without its middle": good[:5000] + good[9000:],
            "of zeros": bytes(len(good)),
            "networks": NETWORKS.read_bytes(),
        }
        shutil.copy(COUNTRIES, self.path)
        file = opened(self.path)
        for name, octets in contents.items():
            change(self.path, octets)
            begin = time.monotonic()
            self.assertFalse(file.refresh(), name)
            self.assertLess(time.monotonic() - begin, BUSY, name)
            self.assertIn("what was read before is used", file.problem, name)
            self.assertIn(str(self.path), file.problem)
            self.assertEqual("GB", file.find("81.2.69.160"), name)
            file._find.cache_clear()
            self.assertEqual("GB", file.find("81.2.69.160"), name)
        change(self.path, good)
        self.assertTrue(file.refresh())
        self.assertIsNone(file.problem)

    def test_gone(self):
        """
        When the file is removed, is no file or cannot be read, the old data stay.
        """
        shutil.copy(COUNTRIES, self.path)
        file = opened(self.path)
        self.path.unlink()
        for make in (lambda: None, self.path.mkdir, lambda: (self.path.rmdir(), os.mkfifo(self.path))):
            make()
            self.assertFalse(file.refresh())
            self.assertIn("what was read before is used", file.problem)
            self.assertEqual("GB", file.find("81.2.69.160"))

    def test_beingWritten(self):
        """
        A file that changes while it is read is not used yet.
        """
        shutil.copy(COUNTRIES, self.path)
        file = opened(self.path)
        change(self.path, CITIES.read_bytes())
        looks = iter([file._look(), file._look(), file._look(), None])
        self.patch(file, "_look", lambda: next(looks))
        self.assertFalse(file.refresh())
        self.assertIn("it is being written", file.problem)
        self.assertIsNone(file.find("81.2.69.160").city)

    def test_inPlace(self):
        """
        A file that is truncated while it is in use does no harm.
        """
        shutil.copy(COUNTRIES, self.path)
        file = opened(self.path)
        with self.path.open("r+b") as stream:
            stream.truncate(10)
        self.assertEqual("JP", file.find("2001:218::1"))

    def test_large(self):
        """
        A file that is too large for memory is not read.
        """
        self.patch(geoip, "LARGEST", 1000)
        shutil.copy(COUNTRIES, self.path)
        self.assertIn("larger than", str(self.assertRaises(ConfigError, opened, self.path)))

    def test_legacy(self):
        """
        Nothing is read from a GeoIP.dat, by its name or by its content; it does not take the place of data.
        """
        old = self.path.with_name("GeoIP.dat")
        old.write_bytes(b"anything")
        content = bytes(5000) + b"\xff\xff\xff\x01"
        self.path.write_bytes(content)
        for path in (old, self.path):
            file = opened(path)
            self.assertTrue(file.isLegacy)
            self.assertIsNone(file.find("81.2.69.160"))
        change(self.path, COUNTRIES.read_bytes())
        self.assertTrue(file.refresh())
        self.assertEqual("GB", file.find("81.2.69.160"))
        change(self.path, content)
        self.assertFalse(file.refresh())
        self.assertEqual("GB", file.find("81.2.69.160"))

    def test_damagedLater(self):
        """
        A look-up that damage is met in has no place; the log says so once.
        """
        self.patch(geoip, "_contents", {})
        self.patch(geoip._Content, "_try", lambda content: None)
        file = opened(DATA / "GeoIP2-City-Test-Broken-Double-Format.mmdb")
        for address in ("2.125.160.216", "81.2.69.160", "2001:218::1"):
            self.assertIsNone(file.find(address))
        (event,) = [event for event in self.events if "cannot be looked up" in event.get("log_format", "")]
        self.assertEqual("2.125.160.216", event["address"])
        self.assertIn(f"{file.path}: it is damaged, 2.125.160.216 cannot be", file.status()["problem"])


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_brokenAtFirst(path):
    """
    A file that is broken from the start is refused in time, with its name.
    """
    begin = time.monotonic()
    with pytest.raises(ConfigError, match=path.name):
        opened(path)
    assert time.monotonic() - begin < BUSY


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_brokenLookups(path, monkeypatch):
    """
    Even if a broken file were used, look-ups would neither raise nor take long.
    """
    monkeypatch.setattr(geoip, "_contents", {})
    monkeypatch.setattr(geoip._Content, "_try", lambda content: None)
    file = GeoFile(path)
    try:
        file.load()
    except ConfigError:
        return
    begin = time.monotonic()
    for address in ("1.1.1.1", "81.2.69.160", "2.125.160.216", "255.255.255.255", "::", "2001:218::1"):
        place = file.find(address)
        assert place is None or place.country is None or len(place) == 2
    assert time.monotonic() - begin < BUSY
