"""Where a web request's trace keeps what it knows, compiled or in plain Python.

It is compiled because a usual request is answered in C, where each attribute of a class in Python costs a look-up.
"""

from collections.abc import Callable

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Any

from .fast_path import PureFastPath

__all__ = ["Exchange", "PureExchange", "PureRequestPath", "RequestPath", "prepare_exchanges", "pure_prepare_exchanges"]


class PureRequestPath(PureFastPath):
    """The attributes of a request. web/request.py and web/wsgi_request.py, in integrations, explain them."""

    __slots__ = (
        *("method", "path", "status", "reason", "request_bytes", "response_bytes", "route", "client_closed", "notes"),
        *("_answered_ns", "_is_told"),
        # Of a WSGI request.
        *("_environ", "_script_name", "_mount", "_is_served", "_start_response", "_server_write", "_headers"),
        *("_request_body", "_response_body", "_is_begun", "_has_body"),
        # Of an ASGI request.
        *("is_over", "_host", "_length", "_request_type", "_response_headers", "_has_trailers", "_accepted"),
    )


class PureExchange:
    """An ASGI request's scope, `receive` and `send`, and its trace while that is begun here.

    Each method does what asgi.py and web/asgi_request.py do, or says that it was left to do, as here it always is.
    """

    __slots__ = ("request", "scope", "server_receive", "server_send")

    def __init__(self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        self.scope = scope
        self.server_receive = receive
        self.server_send = send
        self.request: Any = None

    def begin(self) -> bool:
        """Begin the request's trace and make it the current one. Return False if that was left to do."""
        return False

    def has_received(self, message: Any) -> bool:
        """Take note of a message for the application. Return False if that was left to do."""
        return False

    def begins_to_send(self, message: Any) -> bool | None:
        """Return whether a message of the application completes the answer; None if all about it was left to do."""
        return None

    def has_sent(self, message: Any, is_last: bool) -> bool:
        """Take note of a message that the server took. is_last: what `begins_to_send` said of it.

        Return False if that was left to do.
        """
        return False

    def end(self) -> bool:
        """End the trace, because the application has returned. Return False if that was left to do."""
        return False

    def leave(self) -> None:
        """Take the trace's place away, if it still is the current one."""


def pure_prepare_exchanges(
    request_class: type,
    key: str,
    context_of: Callable[[dict[str, Any]], Any],
    server_of: Callable[[dict[str, Any]], str],
    number: Callable[[str], int | None],
    lowest_error: Callable[[], int | None],
    route_in_calls: Callable[[], str],
) -> None:
    """Say what all exchanges have in common.

    request_class: of an HTTP request's trace. key: of the sign in its scope that it is traced. context_of: returns what
    the caller sent. server_of: returns what stands for a missing host. number: reads a length. lowest_error: the status
    from which on an answer is an error. route_in_calls: returns the pattern that Django matched.
    """


if TYPE_CHECKING or implementation("add_event") == COMPILED:
    from epsagon_fast.producer._fast_path import Exchange, RequestPath, prepare_exchanges
else:
    Exchange = PureExchange
    RequestPath = PureRequestPath
    prepare_exchanges = pure_prepare_exchanges
