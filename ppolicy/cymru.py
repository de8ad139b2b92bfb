"""
Where an address comes from, by the DNS of Team Cymru: what is announced by BGP, and who that was assigned to.

It is described at https://www.team-cymru.com/ip-asn-mapping: TXT records with fields between bars.
"""

from ipaddress import ip_network

from ppolicy.dns import reverseName
from ppolicy.errors import BackendError, DNSError
from ppolicy.origin import Origin, asNumber, country, date, plain

ZONES = {4: "origin.asn.cymru.com", 6: "origin6.asn.cymru.com"}
NAMES = "asn.cymru.com"
# Addresses that have been announced for many years: where there is nothing about them, nothing else is believed.
CONTROLS = {4: "8.8.8.8", 6: "2001:4860:4860::8888"}
# Records of one answer that are looked at.
_RECORDS = 20


def ask(dns, address):
    """
    Ask for an address; it waits.

    @param dns: a L{ppolicy.resolver.Resolver}.
    @param address: an C{ipaddress.IPv4Address} or C{IPv6Address}.
    @return: an L{Origin}, None when the address is not announced.
    @raises DNSError: when nobody could say.
    @raises BackendError: when the answer is none, or nothing is known of any address.
    """
    zone = ZONES[address.version]
    answer = dns.lookup(reverseName(str(address), zone), "TXT")
    if not answer.records:
        if not dns.lookup(reverseName(CONTROLS[address.version], zone), "TXT").records:
            raise BackendError(f"{zone} has nothing for any address")
        return None
    found = best(answer.records, address)
    if found is None:
        raise BackendError("Team Cymru's answer is not understood")
    if not found.asn:
        return found
    try:
        named = dns.lookup(f"AS{found.asn}.{NAMES}", "TXT").records
    except DNSError:  # all but the name is known
        named = ()
    return found._replace(organisation=organisation(named))


def best(records, address):
    """
    What the record for the smallest network that has the address says: C{AS | network | country | registry |
    date}.

    @param records: as L{ppolicy.dns.Answer} has them.
    @return: an L{Origin} without an organisation, None when no record is of use.
    """
    found = {}
    for record in records[:_RECORDS]:
        fields = _fields(record)
        network = _network(fields[1]) if len(fields) >= 2 else None
        if network is not None and address in network:
            number, _, where, registry, allocated = (*fields, "", "", "")[:5]
            origin = Origin(
                str(network), country(where), asNumber(number), "", plain(registry.lower()), date(allocated)
            )
            found.setdefault(network.prefixlen, origin)
    return found[max(found)] if found else None


def organisation(records):
    """
    The name in C{AS | country | registry | date | name}, without the country that it may end with.
    """
    for record in records[:_RECORDS]:
        fields = _fields(record, 4)
        if len(fields) == 5:
            name, comma, where = fields[4].rpartition(",")
            return plain(name if comma and country(where) else fields[4])
    return ""


def _fields(record, most=-1):
    return [field.strip() for field in b"".join(record).decode("utf-8", "replace").split("|", most)]


def _network(text):
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
