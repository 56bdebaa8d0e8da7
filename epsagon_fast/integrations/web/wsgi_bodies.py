"""What the server gets of an application's answer, and how a request learns of its end.

A server may know a body by its identity (gunicorn's ALREADY_HANDLED), its type (a list, a file in the server's own
wrapper) or its length. So such a body reaches it as it is. What is in memory is known at once, and its trace ends when
the application returns; a file tells its end by its `close`. A body that a server can only go over piece by piece is
wrapped, and the trace is the current one in each step.

The trace of a body that is never closed ends when it is exhausted or collected.
"""

import os
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from epsagon_fast.interrupts import let_pass
from epsagon_fast.producer import current

from .objects import attribute
from .wsgi_request import WsgiRequest

Close = Callable[[], Any]
# Notes what was sent of a body.
Count = Callable[[WsgiRequest, Any], None]

# No bodies by PEP 3333, but some servers take them.
ONE_PIECE: Final = frozenset({bytes, bytearray, str})
# Nothing runs when a server takes these apart, and nothing can be hung on them.
IN_MEMORY: Final = ONE_PIECE | {list, tuple, dict, set, frozenset}
# After the last piece. An exception that crosses a `with` costs more.
END: Final = object()


def handed_on(request: WsgiRequest, body: Any) -> Any:
    """Return what the server gets in place of a body: mostly itself. The request ends with it."""
    kind = type(body)
    if kind in IN_MEMORY:
        request.sent_pieces((body,) if kind in ONE_PIECE else body)
        request.end()
    elif _is_servers_file(request.file_wrapper, body):
        return _with_close_hook(request, body, _sent_file(_size_of(body)))
    elif issubclass(kind, (list, tuple)):
        request.sent_pieces(_stored(body))
        return _with_close_hook(request, body, lambda request, body: None)
    elif hasattr(kind, "__next__"):
        return IteratorBody(request, body)
    elif hasattr(kind, "__len__"):
        return SizedBody(request, body)
    elif hasattr(kind, "__iter__") or hasattr(kind, "__getitem__"):
        return IterableBody(request, body)
    else:
        # The application has answered by itself, and the server knows this object as the sign of it.
        request.answer_ends()
        request.end()
    return body


class WrappedBody:
    """A body that the server takes piece by piece. What else the application's own can do it still can."""

    def __init__(self, request: WsgiRequest, body: Any) -> None:
        self._request = request
        self._body = body
        # A step is never inside another one of the same body.
        self._in_trace = current.within(request)
        self._error: BaseException | None = None

    def close(self) -> None:
        """Let the application close its answer, then end the trace."""
        request, error = self._request, self._error
        # Its traceback holds the frame that holds this object.
        self._error = None
        if error is None and not request.answered:
            error = request.given_up(sys.exception())
        _close(request, attribute(self._body, "close"), error)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._body, name)

    def __del__(self) -> None:
        if not self._request.stopped:
            self._request.end(self._error)

    def _exhausted(self) -> None:
        self._request.exhausted(attribute(self._body, "close") is not None)


class IteratorBody(WrappedBody):
    """A body that is an iterator."""

    def __iter__(self) -> "IteratorBody":
        return self

    def __next__(self) -> bytes:
        try:
            with self._in_trace:
                piece: Any = next(self._body, END)
        except BaseException as error:
            self._error = error
            raise
        if piece is END:
            self._exhausted()
            raise StopIteration
        self._request.sent(piece)
        return piece  # type: ignore[no-any-return]


class IterableBody(WrappedBody):
    """A body that can be gone over, perhaps more than once."""

    _counted = 0

    def __iter__(self) -> Iterator[bytes]:
        # gevent's server goes over all pieces in the middle of sending them, to add up their lengths.
        for index, piece in enumerate(self._steps()):
            if index == self._counted:
                self._counted += 1
                self._request.sent(piece)
            yield piece

    def _steps(self) -> Iterator[bytes]:
        pieces: Iterator[bytes] | None = None
        while True:
            try:
                with self._in_trace:
                    pieces = iter(self._body) if pieces is None else pieces
                    piece: Any = next(pieces, END)
            except BaseException as error:
                self._error = error
                raise
            if piece is END:
                self._exhausted()
                return
            yield piece


class SizedBody(IterableBody):
    """A body of which a server may ask how many pieces there are, to send the length of a single one."""

    def __len__(self) -> int:
        return len(self._body)


class CloseHook:
    """Stands in for the `close` of a body that is handed on as it is. If it is never called, it acts when it dies."""

    _request: WsgiRequest | None = None

    def __init__(self, request: WsgiRequest, body: Any, count: Count) -> None:
        """Raises TypeError for a body without attributes of its own, or one that cannot be referred to weakly."""
        # The body holds this object: a circle would leave both to the garbage collector.
        self._body = weakref.ref(body)
        self._own: Close | None = vars(body).get("close")
        self._count = count
        self._request = request

    def __call__(self) -> None:
        request, body = self._request, self._body()
        self._request = None
        if request is None:
            return
        # What the server met while it sent the body, if anything.
        error = sys.exception()
        if error is None:
            self._count(request, body)
        else:
            error = request.given_up(error)
        _close(request, self._restored(body), error)

    def __del__(self) -> None:
        if self._request is not None:
            self._request.end()

    def _restored(self, body: Any) -> Close | None:
        """Leave the body as it was, and return its `close`."""
        if body is None or self._own is not None:
            return self._own
        vars(body).pop("close", None)
        close: Close | None = attribute(body, "close")
        return close


def _with_close_hook(request: WsgiRequest, body: Any, count: Count) -> Any:
    """Return the body itself, which tells its end from now on; if that cannot be, this is the end."""
    try:
        vars(body)["close"] = CloseHook(request, body, count)
    except Exception as error:  # made in C, or of a class with slots
        let_pass(error)
        count(request, body)
        request.end()
    return body


def _sent_file(size_bytes: int | None) -> Count:
    """Return what notes a file when the server is through with it; before that nothing says how much is sent."""

    def count(request: WsgiRequest, body: Any) -> None:
        # waitress counts down, and closes what it could not send as it closes what it sent.
        left = attribute(body, "remain")
        request.sent_file(size_bytes, left if type(left) is int else 0)

    return count


def _stored(body: Any) -> "Iterator[bytes]":
    """Go over what a list or a tuple holds, whatever its class makes of a loop."""
    return list.__iter__(body) if isinstance(body, list) else tuple.__iter__(body)


def _close(request: WsgiRequest, close: Close | None, error: BaseException | None) -> None:
    """Call a body's own `close`, if it has one, and end the trace."""
    if close is None:
        request.end(error)
        return
    try:
        with current.within(request):
            close()
    except BaseException as failure:
        error = failure
        raise
    finally:
        request.end(error)


def _is_servers_file(wrapper: Any, body: Any) -> bool:
    """Say whether the server may send a body by itself, since it is of its wrapper for files."""
    if wrapper is None or isinstance(wrapper, type):
        return wrapper is not None and issubclass(type(body), wrapper)
    # A function: uWSGI's remembers the file and returns it, others make an object in C.
    return attribute(body, "read") is not None or attribute(body, "filelike") is not None


def _size_of(body: Any) -> int | None:
    """Return how much is left of the file in a wrapper; None if that cannot be told."""
    file = attribute(body, "filelike") or attribute(body, "file") or body
    try:
        place = file.tell()
        end: int = file.seek(0, os.SEEK_END)
        file.seek(place)
        return end - int(place)
    except Exception as error:  # of the application's own object
        let_pass(error)
        return None
