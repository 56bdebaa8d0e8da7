"""`DjangoMiddleware`, for the list MIDDLEWARE in a project's settings. Where the server is traced, it does nothing."""

from collections.abc import Callable
from typing import Any

from epsagon_fast.integrations.wsgi import TracingMiddleware
from epsagon_fast.log import warn_once


class DjangoMiddleware:
    """A Django middleware that makes a trace of each request behind a WSGI server.

    An answer that is sent piece by piece belongs to the trace until the middleware returns it.
    """

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Answer one request."""
        environ = getattr(request, "environ", None)
        if not isinstance(environ, dict):
            warn_once(
                "compat django",
                "Behind ASGI the middleware is epsagon_fast.integrations.asgi.TracingMiddleware",
                about="the old names",
            )
            return self._get_response(request)
        answer = DjangoAnswer(self._get_response, request)
        TracingMiddleware(answer)(environ, _no_server)
        return answer.response


class DjangoAnswer:
    """Django's answer to one request, given as WSGI gives it. `response`: as Django gives it."""

    def __init__(self, get_response: Callable[[Any], Any], request: Any) -> None:
        self._get_response = get_response
        self._request = request
        self.response: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """Let Django answer."""
        self.response = response = self._get_response(self._request)
        start_response(f"{response.status_code} {response.reason_phrase}", [*response.items()])
        return [] if response.streaming else [response.content]


def _no_server(*_: Any) -> Any:
    """Stand for what a WSGI server hands its application: Django's handler, around us, calls the server's own."""
