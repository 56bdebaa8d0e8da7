"""Sanic behind its own server: each request is a trace. Behind an ASGI server it is an application like others.

    from epsagon_fast.integrations import sanic
    sanic.instrument()

A websocket is one trace until its handler returns. The trace's sizes are those of a body that is in memory; of what a
handler sends piece by piece there is none.
"""

from typing import Any, Final

from epsagon_fast.producer import current
from epsagon_fast.producer.process import process

from .web.asgi_request import SWITCHING_PROTOCOLS, HttpRequest
from .web.request import SERVER_ERROR, RequestTrace, ignored_endpoints, is_under_way
from .wrapping import Method, Wrapped


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
    ignored = ignored_endpoints()

    async def handle_traced(request: Any) -> None:
        config = process.config()
        path = request.path
        if path in ignored or not process.records(config) or is_under_way(request.method, path):
            await handle(request)
            return
        scope = _scope(request)
        trace = HttpRequest(config, scope)
        failure: BaseException | None = None
        try:
            with current.within(trace):
                await handle(request)
        except BaseException as error:
            failure = error
            raise
        finally:
            _take_note(trace, request)
            trace.finish(scope, failure)
            # Its traceback holds this frame.
            failure = None

    return handle_traced


def _scope(request: Any) -> dict[str, Any]:
    """Return a request as ASGI describes it."""
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
    query = request.query_string.encode("latin-1", "replace")
    return {"type": "http", "method": request.method, "path": request.path, "query_string": query, "headers": pairs}


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
        if isinstance(trace, RequestTrace) and getattr(exception, "status_code", SERVER_ERROR) >= SERVER_ERROR:
            trace.blame(exception)
        return respond(handler, request, exception)

    return response


_known: Final[list[Wrapped]] = []


def _methods() -> list[Wrapped]:
    if not _known:
        from sanic.handlers import ErrorHandler
        from sanic.server.protocols.http_protocol import HttpProtocol

        _known.append(Wrapped(HttpProtocol, "__init__", _traced_connection))
        _known.append(Wrapped(ErrorHandler, "response", _noted_exception))
    return _known
