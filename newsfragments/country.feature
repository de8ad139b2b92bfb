Country reads MaxMind DB files: IPv4 and IPv6, cities, autonomous systems, lists of countries; a new file is used as
soon as it is there, a broken one never.
