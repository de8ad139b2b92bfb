DOS counts in the database, shared by hosts: several limits at once, token buckets, weights, keys by domain and network,
limits for single keys, soft limits, notices, and mail refused later is given back. DistinctLimit counts from how many
networks or countries a user comes. ``ppolicy limit list|show|reset``.
