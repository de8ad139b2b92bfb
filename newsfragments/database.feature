One option, ``database``, moves a site from the embedded SQLite to MariaDB or MySQL, which several hosts may
share. Tables appear and are upgraded by themselves; ``ppolicy db create``, ``upgrade``, ``status`` and ``import``
are for those who want to do it themselves, and for the tables of 2.7. No database trouble costs a mail: a check
that cannot ask answers 0 within seconds, and at once while the database is known to be away.
