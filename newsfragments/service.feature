A service: units for systemd in ``contrib/systemd``, with sockets that outlive the server, so that a restart or an
upgrade costs no mail, notification, watchdog, secrets as credentials (``credential:NAME`` wherever a file is wanted)
and hardening. Privileges are dropped once everything is bound, and a state folder that others can write to is refused.
docs/service.md tells all of it.
