"""A small real HTTP server on loopback that records what it is asked and misbehaves on demand.

    with Server() as server:                      # answers 200 and {} to everything
        ...POST to server.url...
        [request] = server.wait_for(1)            # bounded; AssertionError says what came instead
        request.method, request.path, request.headers["authorization"], request.body

    server.behave = status(503, {"Retry-After": "1"})     # from now on; also as Server(status(503))
    Server(tls=identity)                          # https://; see certificate()
    Server(port=server.port)                      # back on the same port after server.close()

A behaviour is called with (Request, socket) and returns whether to keep the connection. Every request that was read
whole is recorded before the behaviour is called. All waiting ends when the server is closed; close() leaves no thread.
"""

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import trustme
from waiting import TIMEOUT_S, until

HOST = "127.0.0.1"


class Request(NamedTuple):
    """One request as it came. Header names are in lower case; `connection` numbers the connections from 1."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


Behaviour = Callable[[Request, socket.socket], bool]


def reply(code: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of an answer with a Content-Length."""
    lines = [f"HTTP/1.1 {code} Said", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> Behaviour:
    """Answer with this status and keep the connection. A redirect is status(302, {"Location": ...})."""
    answer = reply(code, headers or {}, body)

    def behave(_: Request, connection: socket.socket) -> bool:
        connection.sendall(answer)
        return True

    return behave


def closing(code: int = 200) -> Behaviour:
    """Answer as if the connection were kept, then close it without a word."""
    answer = status(code)

    def behave(request: Request, connection: socket.socket) -> bool:
        answer(request, connection)
        return False

    return behave


def hang(request: Request, connection: socket.socket) -> bool:
    """Read the request and never answer."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    return False


def reset(request: Request, connection: socket.socket) -> bool:
    """Break the connection off with a RST instead of answering."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def drip(answer: bytes, pause_s: float = 0.05, *, at_once: bytes = b"") -> Behaviour:
    """Send `at_once`, then the bytes of `answer` one by one, with a pause before each."""

    def behave(_: Request, connection: socket.socket) -> bool:
        connection.sendall(at_once)
        # The client's end ends the pause: nobody need wait for the whole answer.
        connection.settimeout(pause_s)
        for position in range(len(answer)):
            with contextlib.suppress(TimeoutError):
                connection.recv(1)
                return False
            connection.sendall(answer[position : position + 1])
        connection.settimeout(TIMEOUT_S)
        return True

    return behave


def raw(answer: bytes) -> Behaviour:
    """Send these bytes, whatever they are, and close."""

    def behave(_: Request, connection: socket.socket) -> bool:
        connection.sendall(answer)
        return False

    return behave


def tunnel(request: Request, connection: socket.socket) -> bool:
    """Be a proxy for CONNECT: pass bytes both ways until either end closes."""
    host, _, port = request.path.rpartition(":")
    with socket.create_connection((host, int(port))) as target, contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        # One thread for both ways: a TLS socket must not be read in one while it is written in another.
        while data := (source := _readable(connection, target)).recv(65536):
            (target if source is connection else connection).sendall(data)
    return False


def _readable(connection: socket.socket, target: socket.socket) -> socket.socket:
    # What TLS has decrypted already is not seen by select.
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return connection
    ready: list[socket.socket] = select.select([connection, target], [], [])[0]
    return ready[0]


class Identity(NamedTuple):
    """A server's certificate, and the file with the authority that a client must trust to accept it."""

    context: ssl.SSLContext
    ca_file: str


def certificate(folder: Path, name: str = HOST) -> Identity:
    """Make a new authority and a certificate for `name`; its CA file lies in `folder`."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    ca_file = folder / f"ca-{name}.pem"
    authority.cert_pem.write_to_path(ca_file)
    return Identity(context, str(ca_file))


class Proof(NamedTuple):
    """What a client shows a server that wants to know who it is."""

    context: ssl.SSLContext
    ca_file: str
    certificate: str
    key: str


def mutual(folder: Path) -> Proof:
    """Make the identity of a server that refuses clients without a certificate of its authority, and one client's."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    client = authority.issue_cert("worker.example")
    files = {name: str(folder / f"{name}.pem") for name in ("ca", "certificate", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    client.cert_chain_pems[0].write_to_path(files["certificate"])
    client.private_key_pem.write_to_path(files["key"])
    return Proof(context, files["ca"], files["certificate"], files["key"])


class Server:
    """See the module. `requests` holds what came so far, `connections` counts the connections that were made."""

    def __init__(
        self, behave: Behaviour | None = None, *, tls: Identity | Proof | None = None, port: int = 0, keeps: bool = True
    ) -> None:
        """`keeps`: `requests` does; a soak sends gigabytes."""
        self.behave = behave or status(200)
        self.requests: list[Request] = []
        self.connections = 0
        self._tls = tls
        self._keeps = keeps
        self._listener = socket.create_server((HOST, port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self.port}/"
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._accepting = self._start(self._accept)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_for(self, count: int, timeout_s: float = TIMEOUT_S) -> list[Request]:
        """Return all requests once at least `count` have come."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.requests) >= count, timeout_s)
            assert came, f"waited {timeout_s} s for {count} requests, {len(self.requests)} came"
            return list(self.requests)

    def drop_connections(self) -> None:
        """Close every open connection, as a server that restarts does."""
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, close every connection, wait for every thread. The port refuses connections from then on."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(TIMEOUT_S)
        until(self._all_end, "a server's threads end", pause_s=0.001)
        self._listener.close()

    def _all_end(self) -> bool:
        # A connection that was accepted last is opened after the others were closed.
        self.drop_connections()
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        return not self._threads

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        # A soak makes many connections.
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        # TLS takes the socket over; this second handle can still end it from another thread.
        handle = connection.dup()
        with self._changed:
            self._open.add(handle)
        try:
            with contextlib.suppress(OSError, ValueError), self._secured(connection) as secured:
                self._converse(secured, number)
        finally:
            connection.close()
            with self._changed:
                self._open.discard(handle)
            handle.close()

    def _secured(self, connection: socket.socket) -> socket.socket:
        # A client that says nothing must not outlive a test's patience.
        connection.settimeout(TIMEOUT_S)
        return self._tls.context.wrap_socket(connection, server_side=True) if self._tls else connection

    def _converse(self, connection: socket.socket, number: int) -> None:
        with connection.makefile("rb") as stream:
            while (request := _read(stream, number)) and self._answer(request, connection):
                pass

    def _answer(self, request: Request, connection: socket.socket) -> bool:
        with self._changed:
            if self._keeps:
                self.requests.append(request)
            self._changed.notify_all()
        return self.behave(request, connection) and not self._closed


def _read(stream: BinaryIO, number: int) -> Request | None:
    first = stream.readline().split()
    if len(first) != 3:
        return None
    headers = {}
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", 0))
    body = _read_chunks(stream) if "transfer-encoding" in headers else stream.read(length)
    # A client that was killed in the middle of its request has sent none.
    if len(body) < length:
        return None
    return Request(first[0].decode(), first[1].decode(), headers, body, number)


def _read_chunks(stream: BinaryIO) -> bytes:
    body = b""
    while size := int(stream.readline(), 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body
