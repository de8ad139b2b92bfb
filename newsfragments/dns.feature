A DNS service of its own, asynchronous and with a cache (docs/dns.md), and the check modules that use it: SPF with
all that policyd-spf can do, Dnsbl, DnsblScore and DnsblDynamic with a catalogue of lists that are alive and a
watch on their health (``dnsLists`` defines your own and has the keys of subscribed ones), Resolve, and
Verification, which asks mail hosts without blocking, with STARTTLS where it is offered (install ppolicy[tls]);
Greylist's senderPool. ``factory.checkAll`` asks several checks at once. ``ppolicy.address`` tells policies the
registered domain of a name, and more about addresses.
