"""Sockets and connections with a deadline for the whole request.

urllib3's timeouts bound each single read or write, so a server that sends a byte a second would hold a thread for ever.
Here every operation on a socket gets only the rest of the whole request's time: connecting to each address, TLS, a
proxy's CONNECT, sending, headers and body. The system's resolver takes no timeout, so lookups.py asks it in a thread.
"""

import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from functools import partial

from urllib3.connection import HTTPConnection, HTTPSConnection

from epsagon_fast.collector.sending.lookups import lookups
from epsagon_fast.hints import Any

OVER = "the request's time is over"
# A socket's timeout may be wrong by this part of what is left.
SLACK = 1 / 64


class _Own(threading.local):
    deadline = 0.0


class Attempt:
    """The state of this thread's request. Its sockets ask it, because a kept socket serves many threads in turn."""

    def __init__(self) -> None:
        # An object of its own, because each look into a thread's own attributes takes longer than all else here.
        self._own = _Own()

    def begin(self, timeout_s: float) -> None:
        """Start this thread's next attempt."""
        self._own.deadline = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the time that is left, in seconds. Raises TimeoutError if none is."""
        left_s = self._own.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(OVER)
        return left_s

    def bind(self, bound: socket.socket) -> None:
        """Let the next operation on a socket take no longer than is left, nearly: setting that is a system call."""
        left_s = self._own.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(OVER)
        set_s = bound.timeout
        if set_s is None or abs(set_s - left_s) > left_s * SLACK:
            bound.settimeout(left_s)


attempt = Attempt()


class _Socket(socket.socket):
    def recv_into(self, *args: Any) -> int:
        attempt.bind(self)
        return super().recv_into(*args)

    # TLS inside a TLS proxy reads with `recv`.
    def recv(self, *args: Any) -> bytes:
        attempt.bind(self)
        return _recv(self, *args)

    # It has one timeout for all of its data.
    def sendall(self, *args: Any) -> None:
        attempt.bind(self)
        _sendall(self, *args)

    def send(self, *args: Any) -> int:
        attempt.bind(self)
        return super().send(*args)


# Each request takes them. To look them up with super() takes several times as long.
_recv, _sendall = socket.socket.recv, socket.socket.sendall


class TLSSocket(_Socket, ssl.SSLSocket):
    """The sslsocket_class of our SSLContexts."""

    def do_handshake(self, block: bool = False) -> None:
        attempt.bind(self)
        super().do_handshake(block)

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        attempt.bind(self)
        return self.read(size)

    def sendall(self, data: Any, flags: int = 0) -> None:
        # A call takes a record of TLS, 16 KB. Nearly always that is all.
        sent = self.send(data)
        while sent < len(data):
            sent += self.send(memoryview(data)[sent:])


class PlainConnection(HTTPConnection):
    """A connection without TLS."""

    # Since those that are idle were last looked through.
    was_used = False
    _poll: "select.poll | None" = None

    @property
    def is_silent(self) -> bool:
        """Whether the server has said nothing more since its last answer, and has not closed."""
        if self._poll is None:
            # urllib3 makes one for each look.
            self._poll = select.poll()
            self._poll.register(self.sock, select.POLLIN)
        return not self._poll.poll(0)

    # Instead of urllib3's own, which gives every address of a name the whole timeout.
    def _new_conn(self) -> socket.socket:
        return _connect(self._dns_host, self.port, self.socket_options or ())


class TLSConnection(PlainConnection, HTTPSConnection):
    """A connection with TLS, to the backend or to its proxy."""


def _connect(host: str, port: int, options: Any) -> socket.socket:
    addresses = _addresses(host, port)
    for tried, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        connection = _Socket(family, kind, protocol)
        try:
            for option in options:
                connection.setsockopt(*option)
            connection.settimeout(attempt.left_s())
            connection.connect(address)
            return connection
        except OSError:
            connection.close()
            if tried == len(addresses):
                raise
    raise OSError("the name has no address")


def _addresses(host: str, port: int) -> list[Any]:
    find = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    # A host that is an address needs neither the resolver nor a thread.
    with suppress(socket.gaierror):
        return find(flags=socket.AI_NUMERICHOST)
    return lookups.ask(("addresses", host, port), find, attempt.left_s())
