"""Recognises that a client has left, for WSGI and ASGI.

Servers and frameworks have exception classes of their own for it. An OSError alone proves nothing: the application's
database may be gone. It counts if the server raised it, or came after the server had said that the client is gone.
"""

from collections.abc import Callable
from typing import Any, Final

from epsagon_fast.producer.failures import is_cancellation, is_error, parts_of

# The classes by name, because their modules must not be imported here and they have no base in common.
NAMES: Final = frozenset(
    {
        "ClientDisconnect",  # Starlette
        "ClientDisconnected",  # waitress, uvicorn, Werkzeug
        "DisconnectionError",  # WebOb: a body that ends too early
        "UnreadablePostError",  # Django
        "WebSocketDisconnect",  # Starlette, Litestar
    }
)
# Classes of AnyIO and Trio. They count only if the server told it, since an application's own streams raise them too.
NAMES_IF_TOLD: Final = frozenset({"BrokenResourceError", "ClosedResourceError"})
# Some servers cancel or ignore an application that does not listen. For these: the class that has `receive`, and its
# attribute that is true when the connection is lost.
LOST_ATTRIBUTES: Final = {
    "RequestResponseCycle": "disconnected",  # uvicorn
    "BodyReceiver": "_closed",  # gunicorn's own worker
}
_MRO: Final = type.__dict__["__mro__"]
_NAME: Final = type.__dict__["__name__"]


def is_departure(error: BaseException | None, *, told: bool) -> bool:
    """Say whether an exception only tells that the client has left.

    `told`: the server raised it (in `send`, `write`, a read of the body, or while it sent an answer), or has said
    before that the client is gone. In a group every exception that is an error must tell it.
    """
    if error is None:
        return False
    failures = [part for part in parts_of(error) if is_error(part)]
    return bool(failures) and all(_tells(type(part), told) for part in failures)


def is_broken(receive: Callable[..., Any]) -> bool:
    """Say whether the server behind an ASGI application's `receive` knows that the client is gone."""
    server = getattr(receive, "__self__", None)
    attribute = LOST_ATTRIBUTES.get(type(server).__name__)
    return attribute is not None and getattr(server, attribute, False) is True


def _tells(kind: type[BaseException], told: bool) -> bool:
    # Some frameworks serve a request in a task of their own, cancel that when the client leaves, and await it.
    if told and (issubclass(kind, OSError) or is_cancellation(kind)):
        return True
    # Read through `type`, because a metaclass may override `__name__` and `__mro__`.
    names = {_NAME.__get__(each) for each in _MRO.__get__(kind)}
    return not names.isdisjoint(NAMES) or (told and not names.isdisjoint(NAMES_IF_TOLD))
