"""Requests that the head has left out: the application answers them, and only what it calls hears of the decision.

The server gets the application's own body. If it can only iterate over that, each step is in the place of the request.
"""

from collections.abc import Iterator
from typing import Any

from epsagon_fast.producer import current
from epsagon_fast.producer.left_out import LeftOut

from .objects import attribute
from .request import KEY
from .wsgi_bodies import is_only_iterable
from .wsgi_request import Environ


def handed_on(place: LeftOut, body: Any, environ: Environ) -> Any:
    """Return what a server gets for the body of a WSGI application's answer."""
    if type(body) is not list and is_only_iterable(body, environ.get("wsgi.file_wrapper")):
        return LeftOutBody(place, body, environ)
    end(place, environ)
    return body


def end(place: LeftOut, environ: Environ) -> None:
    """Note that a request is over. The environ is no more marked: see WsgiRequest."""
    place.is_over = True
    environ.pop(KEY, None)


class LeftOutBody:
    """A body of which each step is in a place. Other attributes are those of the application's own body."""

    def __init__(self, place: LeftOut, body: Any, environ: Environ) -> None:
        self._place = place
        self._environ = environ
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        with current.within(self._place):
            pieces = iter(self._body)
        return self._steps(pieces)

    def _steps(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        within = current.within(self._place)
        end = object()
        while True:
            with within:
                piece: Any = next(pieces, end)
            if piece is end:
                return
            yield piece

    def close(self) -> None:
        """Let the application close its answer."""
        close = attribute(self._body, "close")
        if close is not None:
            with current.within(self._place):
                close()
        environ, self._environ = self._environ, {}
        end(self._place, environ)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._body, name)
