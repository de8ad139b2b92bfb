The server: Postfix asks over TCP or UNIX sockets, a policy written in Python answers. Checks are cached, wait
without blocking others, and can be written in one file. ``ppolicy check``, ``run``, ``status``, ``reload``,
``cache flush``, ``try`` and ``explain``.
