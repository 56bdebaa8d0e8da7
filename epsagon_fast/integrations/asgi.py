"""Tracing of an ASGI application: `app = TracingMiddleware(app)`. Each HTTP request and each websocket is one trace.

The trace is the current one in the application's task. It ends when the application returns; its duration ends with the
last piece of the answer, so work in the background after it belongs to the trace and does not make it longer.
"""

import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.producer import current, process

from . import payloads
from .http import KEY, SERVER_ERROR, Exchange, caller, ignored_endpoints, watch_frameworks

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = Iterable[tuple[bytes, bytes]]

WEBSOCKET: Final = "WEBSOCKET"
SWITCHING_PROTOCOLS: Final = 101
# What a server answers when a websocket is closed before it was accepted.
FORBIDDEN: Final = 403
# The close code that stands for a connection that broke (RFC 6455).
BROKEN: Final = 1006


class TracingMiddleware:
    """An ASGI application around another one; it makes a trace of each request and each websocket."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self._ignored = ignored_endpoints()
        watch_frameworks()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; a lifespan is none of our business."""
        kind = KINDS.get(scope["type"])
        config = process.config()
        if kind is None or KEY in scope or scope["path"] in self._ignored or not process.records(config):
            await self.app(scope, receive, send)
            return
        # A copy: what the application's routers write into it is read at the end, and the server's own stays as it is.
        scope = dict(scope)
        connection = scope[KEY] = kind(config, scope, receive, send)
        before = current.swap(connection)
        try:
            await self.app(scope, connection.receive, connection.send)
        except BaseException as error:
            connection.finish(scope, error)
            raise
        else:
            connection.finish(scope, None)
        finally:
            current.leave(connection, before)


class Connection(Exchange):
    """What HTTP and websockets share."""

    def __init__(self, config: ResolvedConfig, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        host = headers[b"host"].decode("latin-1") if b"host" in headers else _server(scope)
        context = caller(_all(scope, b"traceparent"), _all(scope, b"tracestate")) if b"traceparent" in headers else None
        super().__init__(config, host, scope.get("method", WEBSOCKET), _known(config, scope), context)
        self._receive = receive
        self._send = send
        self._root_path: str = scope.get("root_path", "")
        self._length = headers.get(b"content-length", b"")
        self._request_type = headers.get(b"content-type", b"").decode("latin-1")
        self._response_type = ""
        self._request_body = payloads.Body(self.keeps_values)
        self._response_body = payloads.Body(self.keeps_values)

    def finish(self, scope: Scope, error: BaseException | None) -> None:
        """Close the trace when the application has returned or raised."""
        if self.client_closed and _tells_of_the_client(error):
            error = None
        if error is None and not (self.status or self.client_closed or self.answered):
            # It returned without an answer: servers say so for it.
            self.status = SERVER_ERROR
        path = getattr(scope.get("route"), "path", "")
        # A mounted application sees only the rest of the path.
        self.route = scope.get("root_path", "")[len(self._root_path) :] + path if path else ""
        # What the application left unread counts too.
        self.request_bytes = int(self._length) if self._length.isdigit() else self._request_body.size_bytes
        self.response_bytes = self._response_body.size_bytes
        if self.keeps_values:
            self._keep_bodies()
        self.end(error)

    async def send(self, message: Message) -> None:
        """Hand the application's message to the server, then take note of it."""
        if self.client_closed:
            # Frameworks still answer, with an error: nobody gets it.
            await self._send(message)
            return
        self._before(message)
        try:
            await self._send(message)
        except OSError:
            # The ASGI specification's way to say that nobody listens any more.
            self.client_closed = not self.answered
            raise
        self._sent(message)

    def _keep_bodies(self) -> None:
        for name, body, kind in (
            ("request_body", self._request_body, self._request_type),
            ("response_body", self._response_body, self._response_type),
        ):
            if body.size_bytes:
                self.notes[name] = body.text(kind, self.config.ignored_keys)

    def _before(self, message: Message) -> None:
        """Take note of what is to be sent."""

    def _sent(self, message: Message) -> None:
        """Take note of what was sent."""

    def _starts(self, message: Message) -> None:
        self.status = message["status"]
        if self.status >= SERVER_ERROR:
            self.blame(sys.exception())
        if self.keeps_values:
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            self.notes["response_headers"] = payloads.headers(headers, self.config.ignored_keys)
            self._response_type = next((value for name, value in headers if name.lower() == "content-type"), "")


class Http(Connection):
    """An HTTP request."""

    async def receive(self) -> Message:
        """Hand the server's message to the application."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._request_body.add(message.get("body", b""))
        elif message["type"] == "http.disconnect":
            # After a complete answer this is how every request ends.
            self.client_closed = not self.answered
        return message

    def _before(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._starts(message)

    def _sent(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            self._response_body.add(message.get("body", b""))
            if not message.get("more_body"):
                self.answer_ends()
        elif kind == "http.response.pathsend":
            self.answer_ends()


class WebSocket(Connection):
    """A websocket, from the client's request to the end of the connection."""

    _accepted = False

    async def receive(self) -> Message:
        """Hand the server's message to the application."""
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self._request_body.add(_data(message))
        elif message["type"] == "websocket.disconnect" and not self.answered:
            code = message.get("code", BROKEN)
            self.client_closed = code == BROKEN
            self._closes(code)
        return message

    def _sent(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.send":
            self._response_body.add(_data(message))
        elif kind == "websocket.accept":
            self._accepted, self.status = True, SWITCHING_PROTOCOLS
        elif kind == "websocket.close":
            self.status = self.status or FORBIDDEN
            self._closes(message.get("code", 1000))
        elif kind == "websocket.http.response.start":
            self._starts(message)
        elif kind == "websocket.http.response.body":
            self._response_body.add(message.get("body", b""))
            if not message.get("more_body"):
                self.answer_ends()

    def _closes(self, code: int) -> None:
        if self._accepted:
            self.notes["close_code"] = str(code)
        self.answer_ends()


KINDS: Final[dict[str, type[Http] | type[WebSocket]]] = {"http": Http, "websocket": WebSocket}


def _known(config: ResolvedConfig, scope: Scope) -> dict[str, str]:
    """Return the metadata that a request has before the application sees it."""
    metadata = {"path": scope["path"]}
    if not config.metadata_only:
        pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        metadata["query"] = payloads.query(scope.get("query_string", b"").decode("latin-1"))
        metadata["request_headers"] = payloads.headers(pairs, config.ignored_keys)
    return metadata


def _all(scope: Scope, wanted: bytes) -> str:
    """Return a header's values as one: two `traceparent` are none."""
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == wanted)


def _server(scope: Scope) -> str:
    host, port = scope.get("server") or ("", None)
    return f"{host}:{port}" if port else str(host)


def _data(message: Message) -> bytes:
    data = message.get("bytes")
    return data if data is not None else (message.get("text") or "").encode("utf-8", "replace")


def _tells_of_the_client(error: BaseException | None) -> bool:
    """Say whether an exception only says that the client has left: the server's, or what Starlette makes of it."""
    return isinstance(error, OSError) or type(error).__name__ == "ClientDisconnect"
