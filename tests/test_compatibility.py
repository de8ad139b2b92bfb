"""
Configurations written for ppolicy 2.7 go on to work: every parameter it had is there, with the same default.
"""

import pytest

from ppolicy.registry import Registry
from tests.serving import POSTFIX, Serving, asked

# Seconds that results are kept in the cache: positive, unknown, negative.
CACHE = ("cachePositive", "cacheUnknown", "cacheNegative")

_LISTS = {"cacheCaseSensitive": False, "cacheAll": False, "cacheAllRefresh": 900, "cacheAllExpire": 3600}
_BLACK_WHITE = {
    "mappingWhitelist": {},
    "mappingBlacklist": {},
    "retcolsWhitelist": None,
    "retcolsBlacklist": None,
    **_LISTS,
}

# Of each module: the parameters that had to be given, those with a default, the times of the cache. What UPGRADE
# says to be another default now stands here as that.
MODULES = {
    "Dummy": ({}, {"test1": None, "test2": "abc"}, (900, 900, 900)),
    "Sleep": ({}, {"sleep": 1}, (0, 0, 0)),
    "DumpDataFile": ({"fileName": "dump.dat"}, {}, (0, 0, 0)),
    "DumpDataDB": ({}, {"table": "dump", "split": None, "interval": None}, (0, 0, 0)),
    "Greylist": (
        {},
        {"table": "greylist", "delay": 600, "mustRetry": 43200, "expiration": 2678400},
        (86400, 30, 0),
    ),
    "List": (
        {"param": "sender", "table": "list1", "column": "mail"},
        {"retcols": None, "memCacheExpire": 900, "memCacheSize": 1000, **_LISTS},
        (900, 900, 900),
    ),
    "LookupDB": (
        {"param": ["sender"], "table": "list2", "retcols": "*"},
        {"mapping": {}, **_LISTS},
        (900, 900, 900),
    ),
    "ListBW": (
        {"param": "sender", "tableWhitelist": "white", "tableBlacklist": "black"},
        _BLACK_WHITE,
        (900, 900, 900),
    ),
    "ListMailDomain": (
        {"param": "sender", "tableWhitelist": "whites", "tableBlacklist": "blacks"},
        {**_BLACK_WHITE, "cacheAll": True},
        (900, 900, 900),
    ),
    "ListDyn": (
        {"param": "sender", "softExpire": 0, "hardExpire": 0},
        {"table": "list", "retcols": None, "mapping": {}, "operation": "check"},
        (0, 0, 0),
    ),
    "LookupLDAP": (
        {"param": "sasl_username", "uri": "ldap://127.0.0.1:1", "base": "dc=example,dc=org"},
        {
            "scope": "subtree",
            "filter": "(mail=%m)",
            "attributes": None,
            "bind_dn": None,
            "bind_pass": None,
            "bind_method": None,
        },
        (900, 900, 900),
    ),
    "Dnsbl": ({"dnsbl": "NJABL"}, {}, (21600, 1800, 43200)),
    "DnsblScore": (
        {"dnsbl": ["NJABL", "ORDB"]},
        {"treshold": None, "params": ["client_address", "sender"]},
        (21600, 1800, 43200),
    ),
    "DnsblDynamic": ({"dnsbl": ["NJABLDYNA", "SORBSDUL"]}, {"check_name": True}, (21600, 1800, 43200)),
    "Resolve": ({"param": "client_address", "type": "ip->name->ip"}, {}, (86400, 1800, 21600)),
    "SPF": ({}, {}, (86400, 21600, 86400)),
    "Verification": (
        {"param": "sender"},
        {
            "timeout": 20,
            "vtype": "mx",
            "cacheDB": False,
            "table": "verification",
            "dbExpirePositive": 2419200,
            "dbExpireNegative": 10800,
        },
        (86400, 900, 3600),
    ),
    "DOS": (
        {"params": ["sender", "recipient"]},
        {
            "limitCount": 1000,
            "limitTime": 3600,
            "limitGran": 10,
            "perRecipient": True,
            "caseSensitive": False,
            "countOver": False,
        },
        (0, 0, 0),
    ),
    "Trap": ({"traps": "spam@a.example,spam@b.example"}, {"treshold": -2, "expire": 3600}, (0, 0, 0)),
    "Country": ({"param": "client_address", "dataPath": "GeoIP.dat"}, {"country": None}, (900, 900, 900)),
    "P0f": (
        {"version": "2.0.8", "ip": "192.0.2.1"},
        {"socket": "/var/run/p0f.socket", "port": 25},
        (3600, 900, 3600),
    ),
    "Whois": ({}, {"test1": "client_address"}, (3600, 900, 3600)),
}


@pytest.mark.parametrize("kind", MODULES)
def test_defaults(kind):
    """Each parameter of 2.7 is there, and has the default it had."""
    _, others, times = MODULES[kind]
    declared = Registry().find(kind).declared()
    expected = {
        **others,
        **dict(zip(CACHE, times, strict=True)),
        "saveResult": True,
        "saveResultPrefix": "result_",
    }
    assert {name: declared[name].default for name in expected} == expected


@pytest.mark.parametrize("truths", [(True, False), (1, 0)], ids=["words", "numbers"])
@pytest.mark.parametrize("kind", MODULES)
def test_writtenOut(tmp_path, kind, truths):
    """A configuration that writes all of them out starts, and the check answers as it may."""
    if kind == "LookupLDAP":
        pytest.importorskip("ldap")
    required, others, times = MODULES[kind]
    parameters = {**required, **others, **dict(zip(CACHE, times, strict=True)), "saveResult": True}
    parameters = {
        name: truths[not value] if isinstance(value, bool) else value for name, value in parameters.items()
    }
    (tmp_path / "GeoIP.dat").write_bytes(bytes(2000))
    serving = Serving(
        tmp_path,
        f"modules = {{'one': ({kind!r}, {parameters!r})}}\n"
        "def check(factory, data, port):\n    return 'WARN', f\"{factory.check('one', data)}\"\n",
    )
    protocol, transport = serving.connect()
    protocol.dataReceived(asked(**POSTFIX))
    serving.clock.advance(1)
    serving.clock.advance(0)
    serving.generation.stop()
    reply = transport.value().decode()
    assert reply.startswith("action=WARN (")
    assert "exception" not in reply
