P0f speaks the protocol of p0f 3, IPv4 and IPv6, without blocking; its information is a named tuple (``.os``,
``.distance``, ``.uptime`` …). Whois, an empty shell in 2.7, tells the network, country, AS, organisation and registry
of an address, from Team Cymru's DNS or the registries, asked in the background and kept in the database.
