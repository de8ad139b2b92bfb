The check modules Dummy, Sleep, DumpDataFile and Greylist, the last on an embedded SQLite database. The other
modules of ppolicy 2.7 follow.
