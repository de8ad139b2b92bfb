The server: Postfix asks over TCP or UNIX sockets, a policy written in Python answers. Checks are cached, wait
without blocking others, and can be written in one file. ``ppolicy check``, ``run``, ``status``, ``reload``,
``cache flush``, ``try`` and ``explain``.
Requests with an answer in the cache pass those that have to look much up.
Attributes that a Postfix does not send, because it is older or was built without SASL or TLS, are empty.
