"""The body of a WSGI request as the application reads it: each way of reading that the server's object has."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

from .departures import is_departure
from .wsgi_request import WsgiRequest


def _piece(data: bytes, *_: Any) -> bytes:
    return data


def _pieces(lines: list[bytes], *_: Any) -> bytes:
    return b"".join(lines)


def _filled(count: int | None, buffer: Any = b"", *_: Any) -> bytes:
    # A stream that does not wait says None if there is nothing yet.
    return bytes(memoryview(buffer).cast("B")[: count or 0])


def _nothing(*_: Any) -> bytes:
    return b""


# What was read, by the outcome of the call and its arguments. `peek` leaves what it shows to be read.
READS: Final[dict[str, Callable[..., bytes]]] = {
    "read": _piece,
    "read1": _piece,
    "readline": _piece,
    "readlines": _pieces,
    "readinto": _filled,
    "readinto1": _filled,
    "peek": _nothing,
}


class Input:
    """The server's object, noting what is read. It has the ways of reading that the other has, with its signatures."""

    def __init__(self, stream: Any, request: WsgiRequest) -> None:
        self._stream = stream
        self._request = request

    @property  # type: ignore[misc]  # it can be written elsewhere
    def __class__(self) -> Any:
        """Answer `isinstance` as the server's object does."""
        return type(self._stream)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._stream, name)
        read = READS.get(name)
        if read is None:
            return value

        def noted(*arguments: Any, **options: Any) -> Any:
            outcome = self._read(value, *arguments, **options)
            self._request.received(read, outcome, *arguments)
            return outcome

        # Not kept: it holds this object, which would hold it.
        return noted

    def _read(self, way: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return way(*arguments, **options)
        except Exception as error:
            # The connection is the server's: what fails here is the client's doing.
            if is_departure(error, told=True):
                self._request.client_leaves()
            raise


def noting(stream: Any, request: WsgiRequest) -> Input:
    """Return an object that reads from the server's `stream` and lets the request note it."""
    kind: Any = type(stream)
    return _class_for(kind)(stream, request)


# Servers have a few such classes.
@lru_cache(maxsize=16)
def _class_for(kind: Any) -> type[Input]:
    """Return the class for a kind of stream: Python looks for these methods there, so it has those that `kind` has."""
    methods = {name: method for name, method in METHODS.items() if hasattr(kind, name)}
    return type(Input.__name__, (Input,), methods)


def _loop(self: Input) -> Iterator[bytes]:
    lines = iter(self._stream)
    while True:
        try:
            line = self._read(next, lines)
        except StopIteration:
            return
        self._request.received(_piece, line)
        yield line


def _next(self: Input) -> bytes:
    line: bytes = self._read(next, self._stream)
    self._request.received(_piece, line)
    return line


def _enter(self: Input) -> Input:
    self._stream.__enter__()
    return self


def _exit(self: Input, *error: Any) -> Any:
    return self._stream.__exit__(*error)


METHODS: Final = {"__iter__": _loop, "__next__": _next, "__enter__": _enter, "__exit__": _exit}
