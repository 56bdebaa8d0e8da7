"""Notes what a WSGI application reads of its request's body, by each reading method that the server's object has."""

import weakref
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
    # A non-blocking stream returns None if no byte is there yet.
    return bytes(memoryview(buffer).cast("B")[: count or 0])


def _nothing(*_: Any) -> bytes:
    return b""


# For each method: a function that takes the call's result and arguments and returns the bytes that were read. `peek`
# reads none.
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
    """Stands for the server's object and notes what is read. Its reading methods have the same signatures."""

    def __init__(self, stream: Any, request: WsgiRequest) -> None:
        self._stream = stream
        # A weak reference, because the environ holds this object, and the server's `start_response`, which the request
        # holds, the environ. An open trace is held elsewhere.
        self._request = weakref.ref(request)

    @property  # type: ignore[misc]  # it can be written elsewhere
    def __class__(self) -> Any:
        """The server's class, so that `isinstance` answers as for the server's object."""
        return type(self._stream)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._stream, name)
        read = READS.get(name)
        if read is None:
            return value

        def noted(*arguments: Any, **options: Any) -> Any:
            outcome = self._read(value, *arguments, **options)
            self._received(read, outcome, *arguments)
            return outcome

        # Not cached on this object: the function refers to it, which would make a circle.
        return noted

    def _read(self, way: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return way(*arguments, **options)
        except Exception as error:
            # The connection is the server's, so a failure here is the client's doing.
            if is_departure(error, told=True) and (request := self._request()) is not None:
                request.client_leaves()
            raise

    def _received(self, read: Callable[..., bytes], *outcome: Any) -> None:
        if (request := self._request()) is not None:
            request.received(read, *outcome)


def noting(stream: Any, request: WsgiRequest) -> Input:
    """Return an object that reads from the server's `stream` and tells `request` what was read."""
    kind: Any = type(stream)
    return _class_for(kind)(stream, request)


# A server has a few classes of streams.
@lru_cache(maxsize=16)
def _class_for(kind: Any) -> type[Input]:
    """Return the class for a kind of stream. Python looks up these methods on the class, so it has those of `kind`."""
    methods = {name: method for name, method in METHODS.items() if hasattr(kind, name)}
    return type(Input.__name__, (Input,), methods)


def _loop(self: Input) -> Iterator[bytes]:
    lines = iter(self._stream)
    while True:
        try:
            line = self._read(next, lines)
        except StopIteration:
            return
        self._received(_piece, line)
        yield line


def _next(self: Input) -> bytes:
    line: bytes = self._read(next, self._stream)
    self._received(_piece, line)
    return line


def _enter(self: Input) -> Input:
    self._stream.__enter__()
    return self


def _exit(self: Input, *error: Any) -> Any:
    return self._stream.__exit__(*error)


METHODS: Final = {"__iter__": _loop, "__next__": _next, "__enter__": _enter, "__exit__": _exit}
