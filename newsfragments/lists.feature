The check modules List, LookupDB, ListBW, ListMailDomain and ListDyn, with values from tables and from files that
are read again when they change; DumpDataDB. ``ppolicy list`` edits lists, ``ppolicy greylist`` looks into a
greylist and corrects it, both in the running server.
