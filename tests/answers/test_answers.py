"""The answer with the middleware is the answer without it: byte for byte, and in the server's memory.

Each server of lineup.py runs twice, side by side, and is asked the same.
"""

import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import asgi_apps
import pytest
import wsgi_apps
from gunicorns import path_of, runners
from lineup import ALL, Server, Serving, chosen
from places import Place, until
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend

BIG_BYTES = (400 if ALL else 64) << 20
# Allocators differ from run to run by this much; a file in memory is far more.
SLACK_BYTES = 16 << 20
NOT_COMPARED = ("/file/big", "/endless")
# Some servers leave a connection open after an answer that is not whole. Daphne looks once a second.
QUIET_S = 3.0
GAP = b"\r\n\r\n"
# Masked with zeros: "hi"; an end with the code 1000.
TEXT_FRAME, CLOSE_FRAME = b"\x81\x82\0\0\0\0hi", b"\x88\x82\0\0\0\0\x03\xe8"
CLOSE_OPCODE = b"\x88"
DATE = re.compile(rb"\r\ndate: [^\r]*", re.IGNORECASE)

pytestmark = pytest.mark.timeout(120)


def request(path: str, method: str = "GET", body: bytes = b"", *headers: str) -> bytes:
    """Return a request that ends its connection."""
    lines = [f"{method} {path} HTTP/1.1", "Host: h", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask(port: int, sent: bytes, ends: bool = False, quiet_s: float = TIMEOUT_S) -> bytes:
    """Return all that is answered, without the date. `ends`: send nothing more, and say so."""
    with socket.create_connection(("127.0.0.1", port), quiet_s) as client:
        client.sendall(sent)
        if ends:
            client.shutdown(socket.SHUT_WR)
        return DATE.sub(b"", received(client))


def talk(port: int, path: str) -> bytes:
    """Return all that comes of a websocket: its client sends a text to an echo, and says its end second."""
    with socket.create_connection(("127.0.0.1", port), QUIET_S) as client:
        client.sendall(upgrade(path))
        answer = received(client, GAP)
        if b" 101 " in answer:
            if path.endswith("echo"):
                client.sendall(TEXT_FRAME)
            answer += received(client, b"hihi", CLOSE_OPCODE)
            client.sendall(CLOSE_FRAME)
        return DATE.sub(b"", answer + received(client))


def received(client: socket.socket, *ends: bytes) -> bytes:
    """Return what comes until one of `ends` is in it, else until the connection ends or goes on in silence."""
    data = b""
    try:
        while not any(end in data for end in ends) and (more := client.recv(1 if ends else 1 << 20)):
            data += more
    except TimeoutError:
        data += b"<goes on>"
    except ConnectionResetError:  # by a server that had ended before it read everything
        pass
    return data


def count_bytes(port: int, sent: bytes) -> int:
    """Return the size of an answer that is too big to be kept."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        client.sendall(sent)
        return sum(iter(lambda: len(client.recv(1 << 20)), 0))


@pytest.fixture
def big_file(place: Place) -> Iterator[Path]:
    path = place.scratch / "big"
    with open(path, "wb") as file:
        file.truncate(BIG_BYTES)
    place.env["ANSWERS_BIG_FILE"] = str(path)
    yield path
    path.unlink()


def wsgi_requests(server: Server) -> Iterator[bytes]:
    for path in sorted({*wsgi_apps.APPS}.difference(server.unsteady)):
        if path in wsgi_apps.READERS:
            yield request(path, "POST", b"one\ntwo\n", "Content-Length: 8")
            yield request(path, "POST", b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
        elif path not in NOT_COMPARED:
            yield request(path)
            yield request(path, "HEAD")
    # Two on one connection.
    yield b"GET /list/length HTTP/1.1\r\nHost: h\r\n\r\n" + request("/generator/length")


def asgi_requests(server: Server) -> Iterator[bytes]:
    for path in sorted({*asgi_apps.APPS}.difference(server.unsteady)):
        yield request(path)
        yield request(path, "HEAD")
        yield request(path, "POST", b"sent", "Content-Length: 4")
    yield request("/echo?q=1", "POST", b"4\r\nsent\r\n0\r\n\r\n", "Transfer-Encoding: chunked", "X-Two: 1", "X-Two: 2")


def leave(port: int, sent: bytes) -> None:
    """Ask, and leave before the end of the answer."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        client.sendall(sent)
        assert client.recv(1 << 16)


def upgrade(path: str) -> bytes:
    """Return the request for a websocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: h",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
    ]
    return "\r\n".join([*lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]).encode() + GAP


def compare(bare: Serving, traced: Serving, ask: Callable[[int, Any], bytes], requests: Iterable[Any]) -> int:
    """Hold that both answer each request alike; return how many there were."""
    different, count = [], 0
    with ThreadPoolExecutor(2) as both:
        for count, sent in enumerate(requests, 1):  # noqa: B007 - returned
            expected, got = both.map(ask, (bare.port, traced.port), (sent, sent))
            if got != expected:
                different.append((sent, expected, got))
    assert not different
    return count


def each_is_one_trace(backend: Backend, count: int) -> None:
    """Hold that so many traces arrive."""
    until(lambda: backend.store.counts()["traces"] >= count, lambda: f"{count} traces: {backend.store.counts()}")
    assert backend.store.counts()["traces"] == count


@pytest.mark.parametrize("server", chosen("wsgi"), ids=str)
def test_wsgi_answers_are_those_of_the_application(
    server: Server, place: Place, backend: Backend, big_file: Path
) -> None:
    with Serving(server, place, False) as bare, Serving(server, place, True) as traced:
        compare(bare, traced, partial(ask, ends=server.reads_on), wsgi_requests(server))
        before = bare.peak_bytes(), traced.peak_bytes()
        big = request("/file/big")
        assert count_bytes(bare.port, big) == count_bytes(traced.port, big) > BIG_BYTES
        used = [serving.peak_bytes() - peak for serving, peak in zip((bare, traced), before, strict=True)]
        assert used[1] <= used[0] + SLACK_BYTES
        leave(traced.port, request("/endless"))
        wanted = traced.reached()
        each_is_one_trace(backend, wanted.total())
    found = {path_of(runner): runner for runner in runners(backend)}
    assert Counter(map(path_of, runners(backend))) == wanted
    left = found["/endless"]
    closed = left["resource"]["metadata"].get("client_closed")
    assert (left["error_code"], closed) == (0, "true" if server.notices else None)
    big = found["/file/big"]["resource"]["metadata"]
    assert int(big["response_bytes"]) == BIG_BYTES


@pytest.mark.parametrize("server", chosen("asgi"), ids=str)
def test_asgi_answers_are_those_of_the_application(server: Server, place: Place, backend: Backend) -> None:
    with Serving(server, place, False) as bare, Serving(server, place, True) as traced:
        count = compare(bare, traced, partial(ask, quiet_s=QUIET_S), asgi_requests(server))
        count += compare(bare, traced, talk, asgi_apps.TALKS)
    each_is_one_trace(backend, count)
    for runner in runners(backend):
        found = runner["resource"]["metadata"]
        if path_of(runner) in ("/hello", "/listens", "/streamed"):
            assert "client_closed" not in found and runner["error_code"] == 0
        if runner["resource"]["operation"] == "HEAD":
            assert found["response_bytes"] == "0"
