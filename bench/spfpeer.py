"""
Debian's policyd-spf as a server on a port: `/usr/bin/python3 bench/spfpeer.py PORT DNSPORT FILE`.

Postfix starts it once for each smtpd and talks to its standard input and output; here one connection after the
other gets that place, in one process, with the name server on 127.0.0.1:DNSPORT. FILE is its configuration.
"""

import os
import socket
import sys

import DNS
from spf_engine.policyd_spf import main


def serve(port, dnsPort, configuration):
    DNS.defaults["server"] = ["127.0.0.1"]
    DNS.defaults["port"] = dnsPort
    listening = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sys.stdin, sys.stdout = connection.makefile("r"), connection.makefile("w")
        sys.argv = ["policyd-spf", configuration]
        try:
            main()
        except (SystemExit, OSError):
            pass
        connection.close()


if __name__ == "__main__":
    try:
        serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    except KeyboardInterrupt:
        os._exit(0)
