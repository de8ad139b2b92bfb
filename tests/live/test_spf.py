"""
SPF through a running server: the test suite of RFC 7208, its zones served by a name server on a socket.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dns.name
import pytest
import yaml

from tests.dnsserver import DNSServer

SUITE = Path(__file__).parent.parent / "data/spf/rfc7208-tests.yml"
SCENARIOS = list(yaml.safe_load_all(SUITE.read_text(encoding="utf-8")))
STANDARD = "SPF fail - not authorized"
# One try of 1.5 s has to fit in.
TIMEOUT = 1.6

POLICY = """
    modules = {'spf': ('SPF', {'skipAddresses': [], 'timeout': 15})}

    def check(factory, data, port):
        code, spf = factory.check('spf', data)
        return 'WARN', f'{code} {spf[0]} {spf[2]}'
"""
CODES = {"pass": "1", "softfail": "-1", "fail": "-2", "permerror": "-2"}


def name(text):
    """
    A name of the suite as a zone file has it, or None when the DNS cannot have it.
    """
    labels = [label.encode("latin-1") for label in text.removesuffix(".").split(".")]
    if not all(0 < len(label) < 64 for label in labels):
        return None
    return dns.name.Name([*labels, b""]).to_text()


def strings(value):
    """
    The text of a TXT record as a zone file has it.
    """
    parts = [value] if isinstance(value, str) else value or [""]
    return " ".join('"' + "".join(f"\\{octet:03d}" for octet in part.encode("latin-1")) + '"' for part in parts)


def zone(data):
    """
    What the suite wants a name server to say.

    Of the type SPF there is nothing any more; such a record stands for one of type TXT where there is none.

    @return: (records, the names about which it is silent).
    """
    records, silent = {}, []
    for owner, entries in data.items():
        key = name(owner)
        if key is None:
            continue
        key = key.removesuffix(".").lower()
        kinds = records.setdefault(key, {})
        given = [(kind, value) for entry in entries if isinstance(entry, dict) for kind, value in entry.items()]
        hasTXT = any(kind == "TXT" for kind, _ in given)
        for kind, value in given:
            if value == "NONE" or (kind == "SPF" and hasTXT):
                continue
            if kind in ("SPF", "TXT"):
                kinds.setdefault("TXT", []).append(strings(value))
            elif kind == "MX":
                if value[1]:
                    kinds.setdefault("MX", []).append(f"{value[0]} {name(value[1])}")
            else:
                kinds.setdefault(kind, []).append(name(value) if kind in ("CNAME", "PTR") else value)
        if "TIMEOUT" in entries and "TXT" not in kinds:
            silent.append(key)
    return records, silent


def mistakes(makeServer, host, scenario):
    """
    Ask about each case of a scenario.

    @return: (how many were as they should be, what was wrong with the others).
    """
    records, silent = zone(scenario["zonedata"])
    with DNSServer(records, host=host) as nameServer:
        nameServer.personalities = dict.fromkeys(silent, "silence")
        server = makeServer(POLICY, dnsServers=[nameServer.address], dnsTimeout=TIMEOUT)
        with ThreadPoolExecutor(8) as pool:
            wrong = [
                found for found in pool.map(lambda one: mistake(server, *one), scenario["tests"].items()) if found
            ]
        server.terminate()
    return len(scenario["tests"]) - len(wrong), wrong


def mistake(server, title, case):
    """
    What is wrong with the answer to a case, else None.
    """
    answer = server.request(client_address=case["host"], helo_name=case["helo"], sender=case["mailfrom"])
    verb, code, result, explanation = [*answer.split(" ", 3), ""][:4]
    wanted = case["result"] if isinstance(case["result"], list) else [case["result"]]
    told = case.get("explanation")
    told = STANDARD if told in (None, "DEFAULT") else told
    if (
        verb == "WARN"
        and result in wanted
        and code == CODES.get(result, "0")
        and (result != "fail" or "explanation" not in case or explanation == told)
    ):
        return None
    return f"{title}: {answer}, not {wanted} {told}"


def test_suite(makeServer, capsys):
    """
    Every case of the suite has a result that RFC 7208 allows, and the explanation.
    """
    good, wrong = 0, []
    for scenario in SCENARIOS:
        right, others = mistakes(makeServer, "127.0.0.1", scenario)
        good += right
        wrong += others
    cases = sum(len(scenario["tests"]) for scenario in SCENARIOS)
    with capsys.disabled():
        print(f"\nRFC 7208 test suite over the wire: {good}/{cases}")
    assert not wrong, "\n".join(wrong)
    assert good == cases == 203


@pytest.mark.parametrize("number", [4, 8, 14])
def test_overIPv6(makeServer, number):
    """
    The same when the name server is reached over IPv6.
    """
    _, wrong = mistakes(makeServer, "::1", SCENARIOS[number])
    assert not wrong


ANSWERS = """
    modules = {
        'kept': ('SPF', {'checkHelo': True, 'permErrorReject': True, 'refuseMailFrom': 'SPF_Not_Pass'}),
        'deferred': ('SPF', {'tempErrorDefer': True, 'permErrorReject': True}),
        'forwarded': ('SPF', {'whitelistDomains': ['friend.example'], 'permErrorReject': True}),
    }

    def check(factory, data, port):
        code, spf = factory.check(data['policy_context'] or 'kept', data)
        return spf.answer(data)
"""
MECHANISMS = ("mx:hosts", "a:host", "include:hosts", "redirect=hosts", "exists:nothing", "ptr")
TROUBLES = (
    *(None, "silence", "SERVFAIL", "REFUSED", "FORMERR", "wrong id", "wrong question", "no reply", "rubbish"),
    *("short", "other port", "loop", "truncated always", "truncated, TCP hangs", "truncated, TCP drops"),
)


def troubledZone(number, trouble):
    """
    Domains whose SPF record says that 192.0.2.NUMBER may not use them, with trouble where the record leads to.

    @return: (records, personalities).
    """
    end = f"t{number}.example"
    host = {"A": ["198.51.100.1"], "MX": [f"10 host.{end}."], "TXT": ['"v=spf1 -all"']}
    records = {f"hosts.{end}": host, f"host.{end}": host}
    records[f"nothing.{end}"] = {"TXT": host["TXT"]}
    troubled = [f"hosts.{end}", f"host.{end}", f"nothing.{end}"]
    for place, mechanism in enumerate(MECHANISMS):
        term = mechanism if mechanism == "ptr" else f"{mechanism}.{end}"
        rest = "" if "=" in term else " -all"
        records[f"m{place}.{end}"] = {"TXT": [f'"v=spf1 {term}{rest}"']}
    records[f"{number}.2.0.192.in-addr.arpa"] = {"PTR": [f"host.m5.{end}."]}
    records[f"host.m5.{end}"] = {"A": ["198.51.100.1"]}
    return records, dict.fromkeys([*troubled, f"{number}.2.0.192.in-addr.arpa"], trouble)


def test_trouble(makeServer):
    """
    Trouble at any look-up, of whatever kind, is a header or a defer, and never a refusal.
    """
    with DNSServer() as nameServer:
        for number, trouble in enumerate(TROUBLES):
            records, personalities = troubledZone(number, trouble)
            nameServer.records |= records
            nameServer.personalities |= personalities
        server = makeServer(ANSWERS, dnsServers=[nameServer.address], dnsTimeout=TIMEOUT)

        def ask(case):
            number, place, context = case
            return server.request(
                client_address=f"192.0.2.{number}",
                sender=f"a@m{place}.t{number}.example",
                policy_context=context,
            )

        cases = [
            (number, place, context)
            for number in range(len(TROUBLES))
            for place in range(len(MECHANISMS))
            for context in ("kept", "deferred")
        ]
        with ThreadPoolExecutor(24) as pool:
            answers = dict(zip(cases, pool.map(ask, cases), strict=True))
    for (number, place, context), answer in answers.items():
        if TROUBLES[number] is None:
            wanted = "550 5.7.23 "
        elif context == "kept":
            wanted = "prepend Received-SPF: Temperror "
        else:
            wanted = "defer_if_permit 4.7.24 "
        assert answer.startswith(wanted), f"{TROUBLES[number]} {MECHANISMS[place]} {context}: {answer}"


@pytest.mark.parametrize("trouble", ["silence", "SERVFAIL", "rubbish"])
def test_forwarder(makeServer, trouble):
    """
    Who might be a forwarder is not refused while nobody can say, and is refused when he is none.
    """
    records = {"fail.example": {"TXT": ['"v=spf1 -all"']}, "friend.example": {"TXT": ['"v=spf1 -all"']}}
    request = {"client_address": "192.0.2.1", "sender": "a@fail.example", "policy_context": "forwarded"}
    with DNSServer(records) as nameServer:
        server = makeServer(ANSWERS, dnsServers=[nameServer.address], dnsTimeout=TIMEOUT)
        nameServer.personalities["friend.example"] = trouble
        assert server.request(request).startswith("prepend Received-SPF: Temperror ")
        nameServer.personalities.clear()
        other = {"client_address": "192.0.2.2"}
        deadline = time.monotonic() + 15
        while not (answer := server.request(request | other)).startswith("550 5.7.23 "):
            assert time.monotonic() < deadline, answer
            # what nobody could say is remembered for seconds: each time another sender
            other["sender"] = f"{time.monotonic()}@fail.example"
            time.sleep(0.5)


def test_oneHeader(makeServer):
    """
    A message has one header, whoever of its recipients is asked about again; a refusal is repeated.
    """
    records = {
        "pass.example": {"TXT": ['"v=spf1 ip4:192.0.2.1 -all"']},
        "fail.example": {"TXT": ['"v=spf1 -all"']},
    }
    with DNSServer(records) as nameServer:
        server = makeServer(ANSWERS, dnsServers=[nameServer.address])
        request = {"client_address": "192.0.2.1", "sender": "a@pass.example", "instance": "1.2.3"}
        header = (
            "prepend Received-SPF: Pass (mailfrom) identity=mailfrom; client-ip=192.0.2.1; "
            'helo=mail.example.com; envelope-from="a@pass.example"; receiver=example.org'
        )
        answers = [server.request(request | {"recipient": f"{one}@example.org"}) for one in "abac"]
        assert answers == [header, "dunno", header, "dunno"]
        request |= {"sender": "a@fail.example", "instance": "1.2.4"}
        answers = [server.request(request | {"recipient": f"{one}@example.org"}) for one in "ab"]
        assert answers == ["550 5.7.23 Message rejected due to: SPF fail - not authorized"] * 2
