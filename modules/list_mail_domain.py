"""
Is a mail address, or a part of it, white, black or neither?
"""

from ppolicy.check import parameter
from ppolicy.listcheck import TROUBLE, BlackWhiteCheck, FileSource


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
    then in the same way from `@` on, the empty sender as '' and `@.`. Files have their own form of entries, see
    the module List; an entry counts as exact as the one in a table that means the same, regular expressions
    least.

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

    def fileSource(self, path):
        return _File(path, self.cacheCaseSensitive, self.tables, self.forgetResults)

    def check(self, data):
        found = 0, ()
        try:
            for (value,) in self.values(data, [self.param]):
                found = self.decide([(one,) for one in searchOrder(value)])
                if found[0]:
                    break
        except TROUBLE:
            return 0, None
        return found


class _File(FileSource):
    """
    A file, whose entries say themselves what they stand for. Only the value is looked up in it.
    """

    def find(self, combinations):
        """
        @return: the place says how exact the entry is: that of the same one in a table, or behind all.
        """
        found = self.file.find(combinations[0][0])
        if found is None:
            return None
        entry = found[0].lower()
        entry = f"@{entry}" if entry.startswith(".") else entry
        places = (place for place, (one,) in enumerate(combinations) if one.lower() == entry)
        return next(places, len(combinations)), found[:2]


def searchOrder(value):
    """
    The entries that stand for an address or host name, the most exact first: itself.
    """
    user, at, domain = value.rpartition("@")
    users = [f"{user}@", user] if at else []
    labels = domain.rstrip(".").split(".") if domain else []
    parents = [f"@.{'.'.join(labels[place:])}" for place in range(len(labels))]
    return [value, *users, *([f"@{domain}"] if labels else []), *parents, "@."]
