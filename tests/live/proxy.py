"""
A network between a client and a server of loopback, as bad as a test needs it.
"""

import contextlib
import socket
import threading
import time

from .ports import freePort

HOST = "127.0.0.1"


class Proxy:
    """
    A network between a client and a port of loopback, as bad as a test needs it.

    `delay` is how many seconds each chunk on its way to the client is held up; it may be changed at any time.
    """

    def __init__(self, targetPort, delay=0.0):
        self.targetPort = targetPort
        self.delay = delay
        self.port = freePort()
        self._refuses = self._hangs = False
        self._connections = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse(self, flag):
        """
        Close new connections at once. (For the system to refuse them, nothing may listen: `close()`.)
        """
        self._refuses = flag

    def hang(self, flag):
        """
        Swallow everything silently, as a firewall does. A connection that lost something never recovers.
        """
        self._hangs = flag

    def cut(self):
        """
        Close all connections now.
        """
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _shutdown(connection.client, socket.SHUT_RDWR)
            if connection.server is not None:
                _shutdown(connection.server, socket.SHUT_RDWR)

    def close(self):
        """
        Close all connections, and take no more.
        """
        self._refuses = True
        _shutdown(self._listener, socket.SHUT_RDWR)  # ends accept(), which close() would not
        self._listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(client)
            with self._lock:
                if self._refuses:
                    connection.close()
                    continue
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            if self._hangs:
                connection.isLost = True
                connection.answered.set()
            else:
                connection.connect(self.targetPort)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
            self._pass(connection, connection.client, connection.server)
            connection.answered.wait()
        except OSError:
            pass  # the target refused: so the client is closed
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _answer(self, connection):
        try:
            self._pass(connection, connection.server, connection.client, isAnswer=True)
        finally:
            connection.answered.set()

    def _pass(self, connection, source, target, isAnswer=False):
        while chunk := _receive(source):
            if isAnswer:
                time.sleep(self.delay)
            if self._hangs:
                connection.isLost = True
            if connection.isLost:
                continue
            try:
                target.sendall(chunk)
            except OSError:
                return
        if not connection.isLost and not self._hangs:
            _shutdown(target, socket.SHUT_WR)


class _Connection:
    """
    A client's connection and the one to the server that belongs to it.
    """

    def __init__(self, client):
        self.client = client
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server = None
        self.isLost = False
        self.answered = threading.Event()

    def connect(self, port):
        self.server = socket.create_connection((HOST, port), timeout=10)
        self.server.settimeout(None)
        self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.client.close()
        if self.server is not None:
            self.server.close()


def _receive(source):
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _shutdown(connection, how):
    with contextlib.suppress(OSError):  # closed already
        connection.shutdown(how)
