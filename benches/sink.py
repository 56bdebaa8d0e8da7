"""A backend that takes every trace and does nothing with it, in a process of its own, so that its work is not measured.

It notes when each trace came (CLOCK_MONOTONIC, which all processes of a machine share).
"""

import multiprocessing
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

ANSWER = b"HTTP/1.1 %d Sink\r\nContent-Length: 2\r\n\r\n{}"
KEY = b"idempotency-key:"


@dataclass
class Sink:
    """A running server."""

    url: str
    pid: int
    _pipe: Connection

    def arrivals(self) -> dict[str, float]:
        """Return when each trace came that came since the last call, by the id in its Idempotency-Key."""
        self._pipe.send(None)
        arrived: dict[str, float] = self._pipe.recv()
        return arrived

    def answer(self, status: int) -> None:
        """Answer with another status from now on."""
        self._pipe.send(status)
        self._pipe.recv()


@contextmanager
def sink(delay_s: float = 0.0, certificate: str = "") -> Iterator[Sink]:
    """Start a sink that answers after `delay_s`; with TLS if `certificate`, a PEM file with its key, is given."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, delay_s, certificate), daemon=True)
    process.start()
    try:
        assert ours.poll(30), "the server does not start"
        yield Sink(f"http{'s' * bool(certificate)}://localhost:{ours.recv()}/", process.pid or 0, ours)
    finally:
        process.kill()
        process.join()


def serve(pipe: Connection, delay_s: float, certificate: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if certificate else None
    if tls:
        tls.load_cert_chain(certificate)
    arrived: dict[str, float] = {}
    status = [200]
    threading.Thread(target=accept, args=(listener, tls, delay_s, arrived, status), daemon=True).start()
    pipe.send(listener.getsockname()[1])
    while True:
        asked = pipe.recv()
        if asked is not None:
            status[0] = asked
        # A dict's copy is one step under the GIL; what comes in between is told the next time.
        told = dict(arrived)
        for key in told:
            del arrived[key]
        pipe.send(told)


def accept(
    listener: socket.socket, tls: ssl.SSLContext | None, delay_s: float, arrived: dict[str, float], status: list[int]
) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=converse, args=(connection, tls, delay_s, arrived, status), daemon=True).start()


def converse(
    connection: Any, tls: ssl.SSLContext | None, delay_s: float, arrived: dict[str, float], status: list[int]
) -> None:
    if tls:
        connection = tls.wrap_socket(connection, server_side=True)
    # A collector that is killed at the end of a measurement resets its connections.
    with suppress(ConnectionError), connection, connection.makefile("rb") as stream:
        while stream.readline():
            key, length = "", 0
            while (line := stream.readline().lower()) != b"\r\n":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                elif line.startswith(KEY):
                    key = line.split(b":")[1].strip().decode()
            stream.read(length)
            arrived[key] = time.monotonic()
            time.sleep(delay_s)
            connection.sendall(ANSWER % status[0])
