"""The answer's body on its way from the application to the server, and how the trace learns of its end.

A server may treat a body by its identity (gunicorn's ALREADY_HANDLED), its type (a list, a file in the server's own
wrapper) or its length, so such a body is handed on as it is. A body in memory is known at once, and its trace ends when
the application returns. A file's end is seen at its `close`. A body that a server can only iterate over is wrapped, and
the trace is the current one in each step.

The trace of a body that is never closed ends when the body is exhausted or collected.
"""

import os
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from epsagon_fast.interrupts import let_pass
from epsagon_fast.producer import current
from epsagon_fast.producer.entering import Unclosed, closed

from .objects import attribute
from .wsgi_request import WsgiRequest

Close = Callable[[], Any]
# A function that notes how much of a body was sent.
Count = Callable[[WsgiRequest, Any], None]

# PEP 3333 does not allow these as bodies, but some servers take them.
ONE_PIECE: Final = frozenset({bytes, bytearray, str})
# No code runs when a server takes these apart, and no attribute can be set on them.
IN_MEMORY: Final = ONE_PIECE | {list, tuple, dict, set, frozenset}
# Marks the end of an iteration. A StopIteration that crosses a `with` would cost more.
END: Final = object()


def handed_on(request: WsgiRequest, body: Any) -> Any:
    """Return what the server gets for a body: mostly the body itself. The request's trace ends with it."""
    kind = type(body)
    if kind in IN_MEMORY:
        request.sent_pieces((body,) if kind in ONE_PIECE else body)
        request.end()
    elif _is_servers_file(request.file_wrapper, body):
        return _with_close_hook(request, body, _sent_file(_size_of(body)))
    elif issubclass(kind, (list, tuple)):
        request.sent_pieces(_stored(body))
        return _with_close_hook(request, body, lambda request, body: None)
    elif not _is_iterable(kind):
        # The application has answered over the socket itself. The server knows this object as the sign of that.
        request.answer_ends()
        request.end()
    elif attribute(kind, "__len__") is not None:
        return SizedBody(request, body)
    elif attribute(kind, "__next__") is not None:
        return IteratorBody(request, body)
    else:
        return IterableBody(request, body)
    return body


def is_only_iterable(body: Any, file_wrapper: Any) -> bool:
    """Say whether a server can do nothing with a body but iterate over it. `file_wrapper`: the server's, or None."""
    kind = type(body)
    if kind in IN_MEMORY or attribute(kind, "__len__") is not None or _is_servers_file(file_wrapper, body):
        return False
    return _is_iterable(kind)


def _is_iterable(kind: type) -> bool:
    # A class with __next__ alone is not: no server can take it.
    return attribute(kind, "__iter__") is not None or attribute(kind, "__getitem__") is not None


class WrappedBody(Unclosed):
    """A body that the server takes piece by piece. Other attributes are those of the application's own body."""

    def __init__(self, request: WsgiRequest, body: Any) -> None:
        self._request = self._unclosed = request
        self._body = body
        # One object serves all steps, since a step is never inside another step of the same body.
        self._in_trace = current.within(request)

    def close(self) -> None:
        """Let the application close its answer, then end the trace."""
        request, error = self._request, self._error
        # The error's traceback holds the frame that holds this object.
        self._error = None
        if error is None and not request.answered:
            error = request.given_up(sys.exception())
        closed(request, attribute(self._body, "close"), error)
        self._unclosed = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._body, name)

    def __reduce__(self) -> Any:
        # Two would end one trace.
        raise TypeError("this cannot be copied: its pieces come once")

    def _exhausted(self) -> None:
        self._request.exhausted(attribute(self._body, "close") is not None)


class IterableBody(WrappedBody):
    """A body that can be iterated over, perhaps more than once."""

    _counted = 0

    def __iter__(self) -> Iterator[bytes]:
        return self._steps(self._iterated())

    def _iterated(self) -> Iterator[bytes]:
        """Return what the application's own `__iter__` gives, or raise what it raises."""
        try:
            with self._in_trace:
                return iter(self._body)
        except BaseException as error:
            self._error = error
            raise

    def _steps(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        index = 0
        while (piece := self._step(pieces)) is not END:
            # gevent's server iterates a second time in the middle of sending, to add up the lengths.
            if index == self._counted:
                self._counted += 1
                self._request.sent(piece)
            index += 1
            yield piece

    def _step(self, pieces: Iterator[bytes]) -> Any:
        """Return the next piece, END after the last one."""
        try:
            with self._in_trace:
                piece: Any = next(pieces, END)
        except BaseException as error:
            self._error = error
            raise
        if piece is END:
            self._exhausted()
        return piece


class IteratorBody(IterableBody):
    """A body that is an iterator, mostly over itself."""

    def __iter__(self) -> Iterator[bytes]:
        pieces = self._iterated()
        return self if pieces is self._body else self._steps(pieces)

    def __next__(self) -> bytes:
        piece = self._step(self._body)
        if piece is END:
            raise StopIteration
        self._request.sent(piece)
        return piece  # type: ignore[no-any-return]


class SizedBody(IterableBody):
    """A body with a length: a server that finds a single piece may send its size as Content-Length."""

    def __len__(self) -> int:
        return len(self._body)


class CloseHook(Unclosed):
    """Takes the place of `close` on a body that is handed on as it is. If never called, it acts when collected."""

    def __init__(self, request: WsgiRequest, body: Any, count: Count) -> None:
        """Raises TypeError if the body has no `__dict__` or no weak references."""
        # A weak reference, because the body holds this object.
        self._body = weakref.ref(body)
        self._own: Close | None = vars(body).get("close")
        self._count = count
        self._unclosed = request

    def __call__(self) -> None:
        request, body = self._unclosed, self._body()
        if request is None:
            return
        # The exception that the server met while it sent the body, if any.
        error = sys.exception()
        if error is None:
            self._count(request, body)
        else:
            error = request.given_up(error)
        closed(request, self._restored(body), error)
        self._unclosed = None

    def _restored(self, body: Any) -> Close | None:
        """Take the hook off the body again, and return the body's own `close`."""
        if body is None or self._own is not None:
            return self._own
        vars(body).pop("close", None)
        close: Close | None = attribute(body, "close")
        return close


def _with_close_hook(request: WsgiRequest, body: Any, count: Count) -> Any:
    """Return the body itself, with a hook on its `close`. If no hook can be set, end the trace now."""
    try:
        vars(body)["close"] = CloseHook(request, body, count)
    except Exception as error:  # made in C, or of a class with slots
        let_pass(error)
        count(request, body)
        request.end()
    return body


def _sent_file(size_bytes: int | None) -> Count:
    """Return a function that notes how much of a file was sent, which is known when the server is done with it."""

    def count(request: WsgiRequest, body: Any) -> None:
        # waitress counts down in `remain`, and closes a file that it could not send as one that it sent.
        left = attribute(body, "remain")
        request.sent_file(size_bytes, left if type(left) is int else 0)

    return count


def _stored(body: Any) -> "Iterator[bytes]":
    """Iterate over a list's or a tuple's items, even if its class overrides `__iter__`."""
    return list.__iter__(body) if isinstance(body, list) else tuple.__iter__(body)


def _is_servers_file(wrapper: Any, body: Any) -> bool:
    """Say whether a body was made by the server's own wrapper for files, so that the server may send it by itself."""
    if wrapper is None or isinstance(wrapper, type):
        return wrapper is not None and issubclass(type(body), wrapper)
    # The wrapper is a function. uWSGI's remembers the file and returns it; others make an object in C.
    return attribute(body, "read") is not None or attribute(body, "filelike") is not None


def _size_of(body: Any) -> int | None:
    """Return how much is left of the file in a wrapper; None if that cannot be found out."""
    file = attribute(body, "filelike") or attribute(body, "file") or body
    try:
        place = file.tell()
        end: int = file.seek(0, os.SEEK_END)
        file.seek(place)
        return end - int(place)
    except Exception as error:  # raised by the application's own object
        let_pass(error)
        return None
