"""The request's body as an application reads it: every way of reading, and a client that leaves meanwhile."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from naming import named
from test_wsgi import ask, metadata, runner, traces

import epsagon_fast as epsagon
from epsagon_fast.integrations.wsgi import TracingMiddleware

__all__ = ["traces"]
Traces = list[dict[str, Any]]
BODY = b"one\ntwo\n"


class Named(io.BytesIO):
    """As gunicorn's and cheroot's: the size has a name."""

    def read(self, size: int | None = None) -> bytes:
        return super().read(size)


class Bare:
    """As little as PEP 3333 asks for."""

    def read(self, size: int = -1) -> bytes:
        return BODY[:size]


def reading(read: Callable[[Any], Any]) -> Callable[..., list[bytes]]:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        outcome = read(environ["wsgi.input"])
        start_response("200 OK", [])
        return [repr(outcome).encode()]

    return app


def into(stream: Any, way: str) -> Any:
    buffer = bytearray(3)
    return getattr(stream, way)(memoryview(buffer)), bytes(buffer)


READS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "read": (lambda stream: stream.read(), 8),
    "read(size=2)": (lambda stream: stream.read(size=2), 2),
    "readline": (lambda stream: stream.readline(), 4),
    "readline(2)": (lambda stream: stream.readline(2), 2),
    "readlines": (lambda stream: stream.readlines(), 8),
    "loop": (lambda stream: list(stream), 8),
    "next": (lambda stream: next(stream), 4),
    "readinto": (lambda stream: into(stream, "readinto"), 3),
    "readinto1": (lambda stream: into(stream, "readinto1"), 3),
    "read1": (lambda stream: stream.read1(5), 5),
    "peek": (lambda stream: stream.peek(2), 0),
    "nothing": (lambda stream: None, 0),
    "buffered": (lambda stream: io.TextIOWrapper(stream).read(), 8),
}


@pytest.mark.parametrize("way", READS)
@pytest.mark.parametrize("headers", [{"HTTP_TRANSFER_ENCODING": "chunked"}, {"CONTENT_LENGTH": "8"}], ids=named)
def test_every_way_of_reading_gives_the_same_and_is_noted(traces: Traces, way: str, headers: dict[str, str]) -> None:
    epsagon.init(metadata_only=False)
    read, size = READS[way]

    def stream() -> Any:
        return Named(BODY) if "size" in way else io.BufferedReader(io.BytesIO(BODY))  # type: ignore[arg-type]

    got = ask(TracingMiddleware(reading(read)), **headers, **{"wsgi.input": stream()})
    assert got == repr(read(stream())).encode()
    found = metadata(traces)
    assert found.get("request_body", "") == BODY[:size].decode()
    assert found["request_bytes"] == (str(size) if "HTTP_TRANSFER_ENCODING" in headers else "8")


@pytest.mark.parametrize("stream", [Bare(), io.BytesIO()], ids=named)
def test_stream_has_the_ways_that_the_servers_has(traces: Traces, stream: Any) -> None:
    names = ("read", "read1", "readinto", "readline", "peek", "seek", "__iter__", "__next__", "__enter__", "fileno")
    expected = [hasattr(stream, name) for name in names]
    app = reading(lambda found: ([hasattr(found, name) for name in names], isinstance(found, type(stream))))
    answer = ask(TracingMiddleware(app), CONTENT_LENGTH="1", **{"wsgi.input": stream})
    assert answer == repr((expected, True)).encode()


def test_request_without_a_body_keeps_the_servers_stream(traces: Traces) -> None:
    stream = io.BytesIO()
    app = reading(lambda found: found is stream)
    assert ask(TracingMiddleware(app), **{"wsgi.input": stream}) == b"True"


@pytest.mark.parametrize("length", ["9" * 5000, "²", "\u0663", "1_0", "-1", ""])
def test_length_that_is_no_number_is_the_servers_to_refuse(traces: Traces, length: str) -> None:
    assert ask(TracingMiddleware(reading(lambda stream: None)), CONTENT_LENGTH=length) == b"None"
    assert metadata(traces)["request_bytes"] == "0"


class Broken:
    """A connection that its client has left."""

    def read(self, *_: Any) -> bytes:
        raise ConnectionResetError

    __next__ = read


@pytest.mark.parametrize("way", [lambda stream: stream.read(), next])
def test_client_that_leaves_while_its_body_is_read_is_no_error(traces: Traces, way: Callable[[Any], Any]) -> None:
    with pytest.raises(ConnectionResetError):
        ask(TracingMiddleware(reading(way)), CONTENT_LENGTH="8", **{"wsgi.input": Broken()})
    assert (runner(traces)["error_code"], metadata(traces)["client_closed"]) == (0, "true")


def test_connection_of_the_applications_own_that_breaks_is_an_error(traces: Traces) -> None:
    with pytest.raises(ConnectionResetError):
        ask(TracingMiddleware(reading(lambda stream: Broken().read())), CONTENT_LENGTH="8")
    assert runner(traces)["exception"]["type"] == "ConnectionResetError"
