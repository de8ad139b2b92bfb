"""
Tests for the Country check module.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.defer import inlineCallbacks
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ppolicy import tables
from ppolicy.errors import ConfigError
from ppolicy.testing import make
from tests.listing import Listing
from tests.test_geoip import BROKEN, CITIES, COUNTRIES, NETWORKS, change


class CountryTests(SynchronousTestCase):
    """
    One file, which stays as it is.
    """

    def country(self, **parameters):
        check = make("Country", **{"dataPath": str(COUNTRIES)} | parameters)
        check.start()
        self.addCleanup(check.stop)
        return check

    def folder(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)

    def test_codes(self):
        """
        Found and equal to the wanted country is 1, another country is -1, and what is not known is 0.
        """
        for wanted, address, expected in (
            (None, "81.2.69.160", (1, "GB")),
            ("", "81.2.69.160", (1, "GB")),
            ("GB", "81.2.69.160", (1, "GB")),
            ("gb", "81.2.69.160", (1, "GB")),
            ("CZ", "81.2.69.160", (-1, "GB")),
            (["CZ", "GB"], "81.2.69.160", (1, "GB")),
            ("CZ, GB", "81.2.69.160", (1, "GB")),
            (["CZ", "JP"], "2001:218::1", (1, "JP")),
            (["CZ", "DE"], "2001:218::1", (-1, "JP")),
            (None, "192.0.2.1", (0, None)),
            ("GB", "192.0.2.1", (0, None)),
            ("GB", "unknown", (0, None)),
            ("GB", "", (0, None)),
        ):
            check = self.country(country=wanted)
            self.assertEqual(expected, check.check({"client_address": address}), (wanted, address))
        self.assertEqual((0, None), check.check({}))

    def test_param(self):
        """
        The address may be in another attribute.
        """
        self.assertEqual((1, "JP"), self.country(param="server_address").check({"server_address": "2001:218::1"}))

    def test_city(self):
        """
        A file of cities gives the same codes, and the city with them.
        """
        code, place = self.country(dataPath=str(CITIES), country="GB").check({"client_address": "81.2.69.160"})
        self.assertEqual((1, "GB", "London"), (code, place, place.city))

    def test_plainText(self):
        """
        The information is a text like any other.
        """
        _, place = self.country().check({"client_address": "81.2.69.160"})
        self.assertEqual(("GB", "'GB'", '"GB"', {"GB"}), (f"{place}", repr(place), json.dumps(place), {place}))

    def test_networks(self):
        """
        With a file of networks alone, the information is the network.
        """
        check = self.country(dataPath=str(NETWORKS))
        code, place = check.check({"client_address": "1.128.0.0"})
        self.assertEqual((1, "AS1221", 1221), (code, place, place.asn))
        self.assertEqual((0, None), check.check({"client_address": "192.0.2.1"}))

    def test_both(self):
        """
        With two files the information has the country and the network.
        """
        check = self.country(asnPath=str(NETWORKS))
        code, place = check.check({"client_address": "149.101.100.1"})
        self.assertEqual((1, "US", "US", 6167), (code, place, place.country, place.asn))
        code, place = check.check({"client_address": "81.2.69.160"})
        self.assertEqual((1, "GB", None), (code, place, place.asn))

    def test_hashArg(self):
        """
        A result is kept for the address and nothing else.
        """
        check = self.country()
        one = {"client_address": "192.0.2.1", "sender": "a@example.org"}
        self.assertEqual(check.hashArg(one), check.hashArg(one | {"sender": "b@example.org"}))
        self.assertNotEqual(check.hashArg(one), check.hashArg({"client_address": "192.0.2.2"}))

    def test_mistakes(self):
        """
        What cannot work refuses the start and names the parameter.
        """
        for parameters, expected in (
            ({"dataPath": "/nowhere/x.mmdb"}, "dataPath: /nowhere/x.mmdb: No such file"),
            ({"dataPath": "/"}, "dataPath: /: it is no file"),
            ({"dataPath": __file__}, "dataPath: "),
            ({"dataPath": str(BROKEN[0])}, "dataPath: "),
            ({"asnPath": "/nowhere/x.mmdb"}, "asnPath: /nowhere/x.mmdb"),
            ({"country": "Czechia"}, "country: 'CZECHIA' is no code"),
            ({"country": []}, "country: the list is empty"),
            ({"country": ["CZ", ""]}, "country: '' is no code"),
            ({"dataPath": str(NETWORKS), "country": "CZ"}, "country: there are no countries in"),
        ):
            error = self.assertRaises(ConfigError, self.country, **parameters)
            self.assertIn(expected, str(error))

    def test_standardPlace(self):
        """
        Without a path the file is looked for where geoipupdate puts it.
        """
        module = __import__(type(self.country()).__module__, fromlist=["_FOLDERS"])
        self.patch(module, "_FOLDERS", ("/nowhere",))
        error = self.assertRaises(ConfigError, self.country, dataPath=None)
        self.assertIn("dataPath must name a .mmdb file", str(error))
        folder = self.folder()
        shutil.copy(COUNTRIES, folder / "GeoLite2-Country.mmdb")
        self.patch(module, "_FOLDERS", ("/nowhere", str(folder)))
        self.assertEqual((1, "GB"), self.country(dataPath=None).check({"client_address": "81.2.69.160"}))

    def test_legacy(self):
        """
        With a GeoIP.dat everything is unknown, and the log warns.
        """
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        path = self.folder() / "GeoIP.dat"
        path.write_bytes(bytes(2000))
        check = self.country(dataPath=str(path), country="CZ")
        self.assertEqual((0, None), check.check({"client_address": "81.2.69.160"}))
        (event,) = [event for event in events if "GeoIP.dat" in event.get("warning", "")]
        self.assertTrue(event["warning"].startswith(f"{path}: "))


class ReloadTests(Listing):
    """
    A file that changes while the server runs.
    """

    @inlineCallbacks
    def setUp(self):
        self.patch(tables, "WATCH", 0.05)
        yield super().setUp()
        self.file = self.folder / "data.mmdb"
        shutil.copy(COUNTRIES, self.file)
        self.check = yield self.start("Country", dataPath=str(self.file))
        self.tables.start()
        self.request = {"client_address": "81.2.69.160"}

    @inlineCallbacks
    def test_reload(self):
        """
        Soon after a change the new data are used, and cached results forgotten.
        """
        self.assertIsNone(self.check.check(self.request)[1].city)
        change(self.file, CITIES.read_bytes())
        yield self.until(lambda: self.forgotten)
        self.assertEqual("London", self.check.check(self.request)[1].city)

    @inlineCallbacks
    def test_broken(self):
        """
        The old data stay in use while the file is broken, and the log says so once for each.
        """
        events = self.logged()
        for number, path in enumerate(BROKEN[:3], 1):
            change(self.file, path.read_bytes())
            yield self.until(lambda number=number: len(self.problems(events)) == number)
            self.assertEqual((1, "GB"), self.check.check(self.request))
        change(self.file, CITIES.read_bytes())
        yield self.until(lambda: self.forgotten)
        self.assertEqual(3, len(self.problems(events)))

    def problems(self, events):
        return {event["problem"] for event in events if "what was read before" in event.get("problem", "")}

    def test_stop(self):
        """
        A check that was stopped leaves no file watched, and no data in memory.
        """
        self.check.stop()
        self.assertEqual({}, self.tables._files)
        self.assertEqual((0, None), self.check.check(self.request))
