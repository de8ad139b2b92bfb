"""
Is a mail address, or a part of it, white, black or neither?
"""

from ppolicy.check import parameter
from ppolicy.listcheck import BlackWhiteCheck


class ListMailDomain(BlackWhiteCheck):
    """
    Looks a mail address up in a whitelist and a blacklist, from the whole address to its top level domain, in the
    order in which amavis searches:

        user@mail.example.com
        user@ (and user)
        @mail.example.com
        @.mail.example.com
        @.example.com
        @.com
        @.

    The first of them that is in a list decides; in both lists it is white. A host name is looked up as it is and
    then in the same way from `@` on. Files have their own form of entries, see the module List; there the most
    exact entry counts.

    Check arguments:
        data ... the request

    Check returns:
        1 .... white; information: the row
        0 .... in neither list; information: (). Unknown, because the database does not answer: None
        -1 ... black; information: the row
        information: the row, a tuple of the columns that `retcolsWhitelist` or `retcolsBlacklist` ask for

    Examples:
        # whole tables in memory
        modules['senders'] = ('ListMailDomain', {'param': 'sender', 'tableWhitelist': 'white_senders',
                                                 'tableBlacklist': 'black_senders'})
        # the name of the client
        modules['hosts'] = ('ListMailDomain', {'param': 'client_name', 'tableBlacklist': 'black_hosts',
                                               'cacheAll': False})
    """

    param: str = parameter(help="the attribute to look up, an address or a host name")
    cacheAll: bool = parameter(True, "keep the whole tables in memory")

    def start(self):
        self.openLists([self.param])

    def hashArg(self, data):
        return self.folded(data, [self.param])

    def check(self, data):
        found = 0, ()
        for (value,) in self.values(data, [self.param]):
            found = self._checkOne(value)
            if found[0] or found[1] is None:
                return found
        return found

    def _checkOne(self, value):
        return self.decide([(one,) for one in searchOrder(value)])


def searchOrder(value):
    """
    The entries that stand for an address or host name, the most exact first.
    """
    user, at, domain = value.rpartition("@")
    first = [value, f"{user}@", user] if at else [value] if value else []
    labels = domain.rstrip(".").split(".") if domain else []
    parents = [f"@.{'.'.join(labels[place:])}" for place in range(len(labels))]
    return [*first, *([f"@{domain}"] if labels else []), *parents, "@."]
