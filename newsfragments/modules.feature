The check modules Dummy, Sleep, DumpDataFile and Greylist. The other
modules of ppolicy 2.7 follow.
