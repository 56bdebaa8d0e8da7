"""Requests that the head has left out: the application answers them, and only what it calls hears of the decision.

The server gets the application's own body. If it can only iterate over that, each step is in the place of the request.
"""

from collections.abc import Iterator
from typing import Any

from epsagon_fast.producer import current
from epsagon_fast.producer.left_out import LeftOut

from .objects import attribute
from .wsgi_bodies import is_only_iterable


def handed_on(place: LeftOut, body: Any, file_wrapper: Any) -> Any:
    """Return what a server gets for the body of a WSGI application's answer."""
    if is_only_iterable(body, file_wrapper):
        return LeftOutBody(place, body)
    place.is_over = True
    return body


class LeftOutBody:
    """A body of which each step is in a place. Other attributes are those of the application's own body."""

    def __init__(self, place: LeftOut, body: Any) -> None:
        self._place = place
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        within = current.within(self._place)
        with within:
            pieces = iter(self._body)
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
        self._place.is_over = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._body, name)
