"""
The option dnsLists: a site's own lists, and keys for subscribed ones.

    dnsLists = {
        # what an answer means, and its score
        'OURS': {'zone': 'bl.example.org', 'codes': {'127.0.0.2': 2.5, '127.0.0.3': ('open relay', 4)}},
        # every address of a network alike
        'THEIRS': {'zone': 'dbl.example.net', 'kind': 'domain', 'codes': '127.0.1.0/24', 'score': 1.5},
        # a subscription: the key is in a file that only ppolicy can read
        'ZEN': {'keyFile': '/etc/ppolicy/spamhaus.key'},
    }
"""

import dataclasses
import math
import re
from pathlib import Path

from ppolicy.blocklists import CATALOGUE, KINDS, NAMES, SELFTESTS, BlockList, Code, compiled, deadZone
from ppolicy.dnsmessage import onWire
from ppolicy.errors import ConfigError
from ppolicy.parameter import didYouMean, shown, toPath

# Every key with what it must be.
_KEYS = {
    "zone": "a text",
    "kind": "'client', 'domain' or 'white'",
    "codes": "{'127.0.0.2': score}, {'127.0.0.2': ('meaning', score)}, or a text such as '127.0.0.0/24'",
    "score": "a number",
    "errors": "a list of texts such as '127.0.0.255'",
    "selftest": "'strict', 'negative-only' or None",
    "test": "a name that is always listed, which 'invalid' never is (RFC 5782)",
    "names": "'domain', 'host' or 'both'",
    "ipv4": "True or False",
    "ipv6": "True or False",
    "key": "a text",
    "keyFile": "a path",
    "note": "a text",
}
# 64 characters of a reversed IPv6 address stand before a zone, and a name has at most 253 (RFC 1035, 2.3.4).
_LONGEST_ZONE = 180
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,63}")
# Zones below which the label in front is a key.
_SUBSCRIBED = re.compile(r"(?P<key>[^.]+)\.(?:\w+\.dq\.spamhaus\.net|[\w-]+\.mail\.abusix\.zone)")
_LARGEST_KEY_FILE = 4096


def parse(own, folder=None):
    """
    Read the option.

    @param own: {name: {key: value}}
    @param folder: where relative paths begin; by default the present one.
    @return: {name: L{BlockList}}
    @raises ConfigError: with a sentence for each mistake; no key is ever in it.
    """
    if not isinstance(own, dict):
        raise ConfigError(f"dnsLists: must be a dictionary {{'NAME': {{'zone': …}}}}, not {_kindOf(own)}")
    lists, mistakes = {}, []
    for name, given in own.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            mistakes.append(f"dnsLists: the name {shown(name)} of a list must be of letters, digits, _ and -")
            continue
        if not isinstance(given, dict):
            mistakes.append(f"dnsLists: {name}: must be a dictionary with its zone, not {_kindOf(given)}")
            continue
        reading = _Reading(name, given, Path(folder or ""))
        one = reading.blockList()
        mistakes += reading.mistakes
        if one is not None:
            lists[name] = one
    if mistakes:
        raise ConfigError(*mistakes)
    _shareKeys(lists)
    return lists


def _shareKeys(lists):
    """
    A key goes for all lists of the catalogue that are in the same zone.
    """
    keyed = {one.zone: one.key for one in lists.values() if one.key is not None}
    for name, one in CATALOGUE.items():
        if name not in lists and one.keyZone in keyed:
            lists[name] = dataclasses.replace(one, zone=one.keyZone, key=keyed[one.keyZone])


def _kindOf(value):
    return {dict: "a dictionary", str: "a text", list: "a list"}.get(type(value), f"a {type(value).__name__}")


class _Reading:
    """
    One entry of the option; what is wrong with it in C{mistakes}.
    """

    def __init__(self, name, given, folder):
        self.name = name
        self.given = given
        self.folder = folder
        self.mistakes = []
        self.present = CATALOGUE.get(name)

    def mistake(self, sentence):
        self.mistakes.append(f"dnsLists: {self.name}: {sentence}")

    def blockList(self):
        """
        The L{BlockList}; None when something is wrong.
        """
        for key in self.given:
            if key not in _KEYS:
                self.mistake(f"{shown(key)} is no key of a list{didYouMean(key, _KEYS)}")
        kind = self._oneOf("kind", KINDS, self.present.kind if self.present else "client")
        changes = {
            "kind": kind,
            "selftest": self._oneOf("selftest", SELFTESTS, self.present.selftest if self.present else "strict"),
            "names": self._oneOf("names", NAMES, self.present.names if self.present else "domain"),
            "note": self._text("note", self.present.note if self.present else ""),
            "test": self._test(self.present.test if self.present else "test"),
            "ipv4": self._truth("ipv4", self.present.ipv4 if self.present else True),
            "ipv6": self._truth("ipv6", self.present.ipv6 if self.present else False),
            "errors": self._errors(),
            "codes": self._codes(kind),
        }
        key = self._keyOf()
        zone = self._zone(key)
        if not self.mistakes and not (changes["ipv4"] or changes["ipv6"]):
            self.mistake("ipv4 or ipv6 must be True")
        if self.mistakes:
            return None
        present = self.present or BlockList(self.name, "", kind, source="ppolicy.conf")
        if "codes" in self.given or "score" in self.given:
            changes["source"] = "ppolicy.conf"
        return dataclasses.replace(present, zone=zone, key=key, **changes)

    def _wrong(self, key):
        self.mistake(f"{key} must be {_KEYS[key]}")

    def _oneOf(self, key, choices, default):
        value = self.given.get(key, default)
        if not isinstance(value, str | None) or value not in choices:
            self._wrong(key)
        return value

    def _text(self, key, default):
        value = self.given.get(key, default)
        if not isinstance(value, str):
            self._wrong(key)
        return value

    def _test(self, default):
        value = self._text("test", default)
        if isinstance(value, str) and (value.lower() == "invalid" or onWire(f"{value}.zone") is None):
            self._wrong("test")
        return value

    def _truth(self, key, default):
        value = self.given.get(key, default)
        if not isinstance(value, bool):
            self._wrong(key)
        return value

    # The zone and its key

    def _zone(self, key):
        present = self.present
        if "zone" not in self.given and present is not None:
            if key is None:
                if not present.zone:
                    self.mistake("needs a key, or a file with it as keyFile")
                return present.zone
            if not present.keyZone:
                self.mistake("this list has no keys")
            return present.keyZone
        zone = self.given.get("zone")
        if not isinstance(zone, str):
            self.mistake("needs a zone, such as 'bl.example.org'")
            return None
        subscribed = _SUBSCRIBED.fullmatch(zone.strip("."))
        if subscribed and subscribed["key"] != "{key}":
            self.mistake(
                "write {key} for the key in its zone, and the key itself as 'key' or into a file as 'keyFile'"
            )
            return None
        hasKey = zone.count("{key}")
        zone = zone.replace("{key}", "\0").strip(".").lower().replace("\0", "{key}")
        labels = zone.split(".")
        if (
            len(labels) < 2
            or len(zone) > _LONGEST_ZONE
            or not all(label == "{key}" or _LABEL.fullmatch(label) for label in labels)
        ):
            self.mistake(f"{shown(zone)} is no zone of the DNS, such as 'bl.example.org'")
            return None
        dead = deadZone(zone)
        if dead is not None:
            self.mistake(f"{zone} {dead}; take it out of the configuration")
        if hasKey and key is None:
            self.mistake("its zone has {key} in it, so it needs a key, or a file with it as keyFile")
        if key is not None and not hasKey:
            self.mistake("it has a key, so its zone must have {key} in it")
        return zone

    def _keyOf(self):
        if "key" in self.given and "keyFile" in self.given:
            self.mistake("give either key or keyFile")
            return None
        key = self.given.get("key")
        if "keyFile" in self.given:
            key = self._fromFile()
            if key is None:
                return None
        if key is None:
            if "key" in self.given:
                self._wrong("key")
            return None
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            where = "the first line of keyFile" if "keyFile" in self.given else "key"
            self.mistake(f"{where} is no key: it must be of letters, digits, _ and -, at most 63")
            return None
        return key

    def _fromFile(self):
        path = self.given["keyFile"]
        try:
            with toPath(path, self.folder).open("rb") as file:
                octets = file.read(_LARGEST_KEY_FILE)
        except ConfigError as error:
            self.mistake(f"keyFile {error}")
            return None
        except ValueError:
            self._wrong("keyFile")
            return None
        except OSError as error:
            self.mistake(f"keyFile {path} cannot be read: {error.strerror}")
            return None
        lines = octets.decode("ascii", "replace").strip().splitlines()
        return lines[0].strip() if lines else ""

    # What its answers mean

    def _errors(self):
        value = self.given.get("errors", self.present.errors if self.present else ())
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            self._wrong("errors")
            return ()
        return tuple(one for one in value if self._isPattern("errors", one))

    def _isPattern(self, key, text):
        try:
            compiled(text)
        except ValueError:
            self.mistake(
                f"{key}: {shown(text)} is no address in 127.0.0.0/8: '127.0.0.2', '127.0.0.4-7', '127.0.*.3', "
                "'127.0.0.&8' for a bit, or a network '127.0.0.0/24'"
            )
            return False
        return True

    def _codes(self, kind):
        given = self.given.get("codes")
        score = self.given.get("score", -1.0 if kind == "white" else 1.0)
        if not self._isScore(score):
            self._wrong("score")
            return ()
        if given is None:
            if "codes" in self.given:
                self._wrong("codes")
                return ()
            if self.present is not None:
                codes = self.present.codes
                if "score" in self.given:
                    codes = tuple(dataclasses.replace(code, score=float(score)) for code in codes)
                return self._signed(kind, codes)
            given = "127.0.0.2"
        if isinstance(given, str):
            given = [given]
        if isinstance(given, list | tuple):
            given = dict.fromkeys(given, score) if all(isinstance(one, str) for one in given) else None
        elif "score" in self.given:
            self.mistake("score goes with codes that have none: give it to each of them instead")
        if not isinstance(given, dict) or not given:
            self._wrong("codes")
            return ()
        return self._signed(kind, tuple(filter(None, map(self._code, given.items()))))

    def _code(self, item):
        pattern, value = item
        meaning = "listed"
        if isinstance(value, list | tuple) and len(value) == 2:
            meaning, value = value
        if not isinstance(pattern, str) or not isinstance(meaning, str) or not self._isScore(value):
            self._wrong("codes")
            return None
        return Code(pattern, meaning, float(value)) if self._isPattern("codes", pattern) else None

    def _isScore(self, value):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    def _signed(self, kind, codes):
        wrong = [code.pattern for code in codes if (code.score > 0 if kind == "white" else code.score < 0)]
        if wrong:
            sign = (
                "a white list has scores below 0" if kind == "white" else "a list of what is bad has none below 0"
            )
            self.mistake(f"{wrong[0]}: {sign}")
        return codes
