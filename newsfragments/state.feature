Checks of your own can keep what they need: ``self.state.take`` (token buckets), ``add`` (sliding sums), ``touch``,
``get``, ``put``, ``delete`` and ``scan``, on SQLite, MariaDB and in memory. With
SQLite ``stateSize`` rows of each table are in memory too.
