"""What "the client left" looks like: the one place that knows, for WSGI and ASGI.

Servers and frameworks have classes of their own for it. An OSError alone says nothing: it may be the application's
database that is gone. It counts where the server raised it, and after the server has said that the client is gone.
"""

from collections.abc import Callable
from typing import Any, Final

from epsagon_fast.producer.scope import is_error, parts_of

# By name: none of their modules may be imported here, and they have no base in common.
NAMES: Final = frozenset(
    {
        "ClientDisconnect",  # Starlette
        "ClientDisconnected",  # waitress, uvicorn, Werkzeug
        "DisconnectionError",  # WebOb: a body that ends too early
        "UnreadablePostError",  # Django
        "WebSocketDisconnect",  # Starlette, Litestar
    }
)
# Of AnyIO and Trio. An application's own streams raise them too.
NAMES_IF_TOLD: Final = frozenset({"BrokenResourceError", "ClosedResourceError"})
# Of servers that cancel or ignore an application that does not listen: the class whose `receive` they hand out, and the
# attribute that says that the connection is lost.
SERVERS_WORDS: Final = {
    "RequestResponseCycle": "disconnected",  # uvicorn
    "BodyReceiver": "_closed",  # gunicorn's own worker
}
_MRO: Final = type.__dict__["__mro__"]
_NAME: Final = type.__dict__["__name__"]


def is_departure(error: BaseException | None, *, told: bool) -> bool:
    """Say whether an exception only tells that the client has left.

    `told`: whether the server raised it (out of `send`, `write`, a read of the body, or while it sent an answer), or
    has said before that the client is gone. Of a group all that are errors must tell it.
    """
    if error is None:
        return False
    failures = [part for part in parts_of(error) if is_error(part)]
    return bool(failures) and all(_tells(type(part), told) for part in failures)


def is_broken(receive: Callable[..., Any]) -> bool:
    """Say whether the server behind an ASGI application's `receive` knows that the client is gone."""
    server = getattr(receive, "__self__", None)
    word = SERVERS_WORDS.get(type(server).__name__)
    return word is not None and getattr(server, word, False) is True


def _tells(kind: type[BaseException], told: bool) -> bool:
    if told and issubclass(kind, OSError):
        return True
    # A metaclass may override what it says of itself.
    names = {_NAME.__get__(each) for each in _MRO.__get__(kind)}
    return not names.isdisjoint(NAMES) or (told and not names.isdisjoint(NAMES_IF_TOLD))
