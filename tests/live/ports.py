"""
Free TCP ports for the servers under test.
"""

import random
import socket


def freePort():
    """
    A port that nothing uses on loopback, IPv4 and IPv6.

    It lies below the range that client ports come from: else, while a server is down for its restart,
    a client could be given its port, or even connect to itself.
    """
    while True:
        port = random.randint(15000, 32000)
        if _isFree(socket.AF_INET, "127.0.0.1", port) and _isFree(socket.AF_INET6, "::1", port):
            return port


def _isFree(family, host, port):
    with socket.socket(family) as trial:
        try:
            trial.bind((host, port))
        except OSError:
            return False
    return True
