"""Tracing of a WSGI application (PEP 3333): `app = TracingMiddleware(app)`. Each request is one trace.

A request's trace is the current one while the application's code runs: in the call, in each step of its answer, in the
answer's `close`. In between the server runs. The duration ends with the body's last piece, the trace with `close`; an
answer that is in memory is complete when the application returns. See web/wsgi_bodies.py.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from epsagon_fast.producer import current, entering
from epsagon_fast.producer.context import TraceContext
from epsagon_fast.producer.entering import answered, called_at
from epsagon_fast.producer.fast_path import wsgi_answers
from epsagon_fast.producer.left_out import LeftOut, decide
from epsagon_fast.producer.process import process

from .choices import ignored_endpoints, said_lowest_error
from .web import left_out
from .web.request import KEY, caller, is_under_way, watch_frameworks
from .web.signalled import wait_when_terminated
from .web.wsgi_bodies import handed_on
from .web.wsgi_input import noting
from .web.wsgi_request import Environ, WsgiRequest, word

_here: Final = entering.current.get

Application = Callable[..., Iterable[bytes]]


class TracingMiddleware:
    """A WSGI application around another one; it makes a trace of each request."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self._ignored = ignored_endpoints()
        watch_frameworks()
        wait_when_terminated()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        if not self._ignored:
            body = _answered(self.app, environ, start_response)
            if body is not _UNUSUAL:
                return body  # type: ignore[no-any-return]
        return self._answer(environ, start_response)

    def _answer(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer any request, usual or not."""
        config = process.config()
        if self._ignored and _path(environ) in self._ignored:
            with current.within(current.NOT_TRACED):
                return self.app(environ, start_response)
        if KEY in environ or process.records_nothing() or _is_under_way(environ):
            return self.app(environ, start_response)
        own_id = ""
        if process.samples(config):
            decision = decide(config, _caller(environ))
            if type(decision) is LeftOut:
                return self._leave_out(decision, environ, start_response)
            own_id = str(decision)
        request = WsgiRequest(config, _path(environ), environ, start_response, own_id)
        return answered(request, _begin, self.app, environ, _begun_and_handed_on)  # type: ignore[no-any-return]

    def _leave_out(self, place: LeftOut, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Return the application's answer to a request of which nothing is recorded."""
        environ[KEY] = True
        try:
            body = called_at(place, self.app, environ, start_response)
        except BaseException:
            left_out.end(place, environ)
            raise
        return left_out.handed_on(place, body, environ)  # type: ignore[no-any-return]


def _begin(request: WsgiRequest, environ: Environ) -> None:
    environ[KEY] = True
    request.start()
    _expect_input(request, environ)


def _expect_input(request: WsgiRequest, environ: Environ) -> None:
    if request.expects_input():
        environ["wsgi.input"] = noting(environ.get("wsgi.input"), request)


def _handed_on(request: WsgiRequest, body: Any) -> Any:
    return handed_on(request, body)


def _begun_and_handed_on(request: WsgiRequest, body: Any) -> Any:
    request.begins_with(body)
    return handed_on(request, body)


def _is_under_way(environ: Environ) -> bool:
    if _here() is None:
        return False
    return is_under_way(environ.get("REQUEST_METHOD", ""), _path(environ), _decoded(word(environ, "PATH_INFO")))


def _caller(environ: Environ) -> TraceContext | None:
    if "HTTP_TRACEPARENT" not in environ:
        return None
    return caller(word(environ, "HTTP_TRACEPARENT"), word(environ, "HTTP_TRACESTATE"))


def _path(environ: Environ) -> str:
    return _decoded(word(environ, "SCRIPT_NAME") + word(environ, "PATH_INFO"))


def _decoded(path: str) -> str:
    # The server decoded the bytes as ISO 8859-1, whatever they are.
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


# What `_answered` returns if it has not even asked the application.
_UNUSUAL: Final = object()
_answered: Final = wsgi_answers(WsgiRequest, KEY, _caller, _expect_input, said_lowest_error, _handed_on, _UNUSUAL)
