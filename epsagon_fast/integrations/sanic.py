"""Sanic behind its own server: each request is a trace. Behind an ASGI server it is an application like others.

    from epsagon_fast.integrations import sanic
    sanic.instrument()

A websocket is one trace until its handler returns. The trace's sizes are those of a body that is in memory; of what a
handler sends piece by piece there is none.
"""

import functools
from typing import Any, Final

from epsagon_fast.producer import current

from .asgi import TracingMiddleware
from .choices import SERVER_ERROR, lowest_error
from .web.asgi_request import SWITCHING_PROTOCOLS, HttpRequest
from .web.request import KEY, RequestTrace
from .wrapping import Method, Wrapped

# Where a scope holds Sanic's request.
REQUEST: Final = "epsagon_fast.sanic"


def instrument() -> None:
    """Trace the requests of connections that open from now on. A second call changes nothing."""
    for method in _methods():
        method.put_on()


def uninstrument() -> None:
    """Trace no further connections."""
    for method in _methods():
        method.take_off()


def _traced_connection(make: Method, method: Wrapped) -> Method:
    # Sanic writes its own request handler anew when it starts, so the wrapper is around what a connection calls.
    def __init__(protocol: Any, *args: Any, **options: Any) -> None:
        make(protocol, *args, **options)
        if method.is_on:
            protocol.request_handler = _traced(protocol.request_handler)

    return __init__


def _traced(handle: Method) -> Method:
    async def answer(scope: dict[str, Any], *_: Any) -> None:
        request = scope[REQUEST]
        try:
            await handle(request)
        finally:
            trace = current.current_trace()
            # Without the mark it is the trace of a request that is under way.
            if KEY in scope and isinstance(trace, HttpRequest):
                _take_note(trace, request)

    middleware = TracingMiddleware(answer)

    async def handle_traced(request: Any) -> None:
        await middleware(_scope(request), _no_channel, _no_channel)

    return handle_traced


async def _no_channel(*_: Any) -> Any:
    """Stand for what an ASGI server hands its application: Sanic's requests have their own way."""


def _scope(request: Any) -> dict[str, Any]:
    """Return a request as ASGI describes it, with itself."""
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
    return {
        "type": "http",
        "method": request.method,
        "path": request.path,
        "query_string": request.query_string.encode("latin-1", "replace"),
        "headers": pairs,
        REQUEST: request,
    }


def _take_note(trace: HttpRequest, request: Any) -> None:
    """Take note of the answer, which Sanic has sent."""
    response = getattr(request.stream, "response", None)
    if response is not None:
        headers = [
            (str(name).encode("latin-1"), str(value).encode("latin-1")) for name, value in response.headers.items()
        ]
        trace.sent({"type": "http.response.start", "status": response.status}, headers)
        trace.sent({"type": "http.response.body", "body": getattr(response, "body", None)}, ())
        trace.answer_ends()
    elif "upgrade" in request.headers:
        trace.status = SWITCHING_PROTOCOLS
    trace.route = f"/{request.route.path}" if request.route else ""


def _noted_exception(respond: Method, method: Wrapped) -> Method:
    def response(handler: Any, request: Any, exception: Any) -> Any:
        trace = current.current_trace()
        # Sanic says with exceptions, too, that a page does not exist.
        if isinstance(trace, RequestTrace) and getattr(exception, "status_code", SERVER_ERROR) >= lowest_error():
            trace.blame(exception)
        return respond(handler, request, exception)

    return response


@functools.cache
def _methods() -> tuple[Wrapped, ...]:
    from sanic.handlers import ErrorHandler
    from sanic.server.protocols.http_protocol import HttpProtocol

    return Wrapped(HttpProtocol, "__init__", _traced_connection), Wrapped(ErrorHandler, "response", _noted_exception)
