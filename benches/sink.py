"""A backend that takes every trace and does nothing with it, in a process of its own, so that its work is not measured.

It notes when each trace came (CLOCK_MONOTONIC, which all processes of a machine share), and may keep what came.
"""

import gzip
import json
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

ANSWER = b"HTTP/1.1 %d Sink\r\nContent-Length: %d\r\n\r\n%s"
# What Datadog's agent says of itself to ddtrace, which would ask for it again and again.
TAKES = ["/v0.4/traces", "/v0.5/traces", "/v0.6/stats", "/debugger/v1/diagnostics", "/debugger/v2/input"]
AGENT = json.dumps({"version": "7.60.0", "endpoints": TAKES, "client_drop_p0s": True}).encode()
SAYS = {"/info": AGENT}
KEY = b"idempotency-key:"
GZIP = b"\x1f\x8b"


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

    def bodies(self) -> list[bytes]:
        """Return all bodies that were taken since the last call, unpacked; of a sink that keeps them."""
        return [body for _, body in self.requests()]

    def requests(self) -> list[tuple[str, bytes]]:
        """The same, each with the path that it was sent to."""
        self._pipe.send("bodies")
        packed: list[tuple[str, bytes]] = self._pipe.recv()
        return [(path, gzip.decompress(body) if body.startswith(GZIP) else body) for path, body in packed]

    def answer(self, status: int) -> None:
        """Answer with another status from now on."""
        self._pipe.send(status)
        self._pipe.recv()


@contextmanager
def sink(delay_s: float = 0.0, certificate: str = "", keeps: bool = False) -> Iterator[Sink]:
    """Start a sink that answers after `delay_s`; with TLS if `certificate`, a PEM file with its key, is given."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, delay_s, certificate, keeps), daemon=True)
    process.start()
    try:
        assert ours.poll(30), "the server does not start"
        yield Sink(f"http{'s' * bool(certificate)}://localhost:{ours.recv()}/", process.pid or 0, ours)
    finally:
        process.kill()
        process.join()


def serve(pipe: Connection, delay_s: float, certificate: str, keeps: bool) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if certificate else None
    if tls:
        tls.load_cert_chain(certificate)
    server = Server(tls, delay_s, keeps)
    threading.Thread(target=server.accept, args=(listener,), daemon=True).start()
    pipe.send(listener.getsockname()[1])
    while True:
        asked = pipe.recv()
        if isinstance(asked, int):
            server.status = asked
        pipe.send(server.kept() if asked == "bodies" else server.came())


class Server:
    """What the sink's process does: a thread for each connection."""

    def __init__(self, tls: ssl.SSLContext | None, delay_s: float, keeps: bool) -> None:
        self.status = 200
        self._tls, self._delay_s, self._keeps = tls, delay_s, keeps
        self._arrived: dict[str, float] = {}
        self._bodies: list[tuple[str, bytes]] = []

    def came(self) -> dict[str, float]:
        # A dict's copy is one step under the GIL; what comes in between is told the next time.
        told = dict(self._arrived)
        for key in told:
            del self._arrived[key]
        return told

    def kept(self) -> list[tuple[str, bytes]]:
        told, self._bodies = self._bodies, []
        return told

    def accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection: Any) -> None:
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        # A collector that is killed at the end of a measurement resets its connections.
        with suppress(ConnectionError), connection, connection.makefile("rb") as stream:
            while first := stream.readline():
                key, length = "", 0
                while (line := stream.readline().lower()) != b"\r\n":
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                    elif line.startswith(KEY):
                        key = line.split(b":")[1].strip().decode()
                body = stream.read(length)
                self._arrived[key] = time.monotonic()
                status, path = self.status, first.split()[1].decode()
                if self._keeps and status == 200:
                    self._bodies.append((path, body))
                time.sleep(self._delay_s)
                said = SAYS.get(path, b"{}")
                connection.sendall(ANSWER % (status, len(said), said))
