"""
Does a client have an address that changes, as people at home do?
"""

from ppolicy.address import address, isPrivate
from ppolicy.blocklistcheck import CLIENT, BlocklistCheck, state, told, whyUnknown
from ppolicy.blocklistservice import LISTED, UNKNOWN
from ppolicy.check import parameter
from ppolicy.dynamicname import looksDynamic
from ppolicy.errors import ParamError


class DnsblDynamic(BlocklistCheck):
    """
    Finds out whether a client seems to have one of the addresses that providers give to their customers at home. A
    mail server hardly has one; a machine that somebody has broken into often does.

    It looks at the reverse name of the client: words such as dsl, dialup, dynamic, pool, ppp, cable, or its own
    address written in the name (host-192-0-2-1, c0000201); not when the name looks like that of a mail server,
    or says static. And it asks lists of such addresses. Some honest mail servers look like that too: take it as
    one reason among others, to greylist longer for example.

    Check arguments:
        data ... the request; client_address and reverse_client_name (or client_name) are used

    Check returns:
        1 .... the address seems to be dynamic
        0 .... unknown: the name says nothing, and no list has answered
        -1 ... it does not seem to be
        information: {'reason', 'listed', 'unknown'}: why; {list: {'codes', 'meaning', 'text', 'score'}}; {list:
                     why it has not answered}

    Examples:
        # by the name, and the list of Spamhaus
        modules['dynamic'] = ('DnsblDynamic', {})
        # by the name alone
        modules['dynamic_name'] = ('DnsblDynamic', {'dnsbl': []})
        # by lists alone
        modules['dynamic_list'] = ('DnsblDynamic', {'dnsbl': ['PBL', 'SPAMRATS_DYNA'], 'check_name': False})
    """

    dnsbl: list[str] = parameter(["PBL"], "names of lists of dynamic addresses")
    check_name: bool = parameter(True, "look at the name of the client as well")

    blocking = False

    def start(self):
        if not self.dnsbl and not self.check_name:
            raise ParamError("dnsbl: names no list, and check_name is False, so there is nothing to go by")
        self.openLists(self.dnsbl)
        wrong = [one.name for one in self.lists if one.kind != "client"]
        if wrong:
            self.stop()
            raise ParamError(f"dnsbl: {wrong[0]} is no list of addresses that are dynamic")

    def hashArg(self, data):
        client = data.get(CLIENT, "")
        return f"{self.mark}\n{client}\n{self._name(data)}".lower() if isinstance(client, str) else 0

    def _name(self, data):
        """
        The name of the client: better the one that it claims to have than none, nobody claims this.
        """
        for key in ("reverse_client_name", "client_name"):
            name = data.get(key)
            if isinstance(name, str) and name not in ("", "unknown"):
                return name
        return ""

    def check(self, data):
        given = data.get(CLIENT)
        found = address(given) if isinstance(given, str) else None
        info = {"reason": "", "listed": {}, "unknown": {one.name: one.reason for one in self.dead}}
        if found is None or isPrivate(given):
            kind = "there is no client address" if found is None else f"{found} is a private or reserved address"
            return -1, info | {"reason": kind}
        why = looksDynamic(self._name(data), found) if self.check_name else None
        if why is not None:
            return 1, info | {"reason": why}
        answers, _ = self.asked(data, (CLIENT,))
        for one, findings in answers.items():
            if state(findings) == LISTED:
                info["listed"][one.name] = told(findings)
            elif state(findings) == UNKNOWN:
                info["unknown"][one.name] = whyUnknown(findings)
        if info["listed"]:
            return 1, info | {"reason": f"listed in {', '.join(info['listed'])}"}
        if info["unknown"] and len(info["unknown"]) == len(answers) + len(self.dead):
            return 0, info | {"reason": "no list has answered"}
        result = -1, info | {"reason": "nothing says so"}
        return (*result, self.cacheUnknown) if len(info["unknown"]) > len(self.dead) else result
