"""The trace of an ASGI request: HTTP, or a websocket from the client's request to the end of the connection."""

import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.digits import number
from epsagon_fast.interrupts import let_pass
from epsagon_fast.masking import client_mask_of
from epsagon_fast.producer.context import TraceContext

from ..choices import SERVER_ERROR, lowest_error
from . import payloads
from .objects import header, status_of, text, texts
from .request import RequestTrace, caller
from .routes import asgi_route, django_route_in_calls

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RawHeaders = Iterable[tuple[bytes, bytes]]

WEBSOCKET: Final = "WEBSOCKET"
SWITCHING_PROTOCOLS: Final = 101
# The status that a server answers if a websocket is closed before it was accepted.
FORBIDDEN: Final = 403
# The messages that carry the body: bytes, or a file that the server sends by itself, by its path or open.
PIECES: Final = ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")
# The close code of a connection that broke (RFC 6455).
BROKEN: Final = 1006


class AsgiRequest(RequestTrace):
    """The common part of HTTP requests and websockets."""

    __slots__ = ()

    def __init__(self, config: ResolvedConfig, scope: Scope, own_id: str = "") -> None:
        """own_id: the trace's, if the head has decided by it."""
        pairs = listed(scope)
        headers = dict(texts(pairs))
        host = headers["host"] if "host" in headers else server_of(scope)
        context = caller_of(scope) if "traceparent" in headers else None
        super().__init__(config, host, scope.get("method", WEBSOCKET), _known(config, scope, pairs), context, own_id)
        # Whether the application has returned or raised. What its tasks send later is not recorded.
        self.is_over = False
        self._host = host
        self._length = number(headers.get("content-length", ""))
        self._request_type = headers.get("content-type", "")
        self._response_headers: RawHeaders = ()
        self._has_trailers = self._accepted = False
        self._request_body = self._response_body = None

    def begin(self) -> None:
        """Open the trace, and keep the bodies from now on if they are wanted."""
        self.start()
        if self.keeps_values:
            self._request_body, self._response_body = payloads.Payload(True), payloads.Payload(True)

    def finish(self, scope: Scope, error: BaseException | None) -> None:
        """Close the trace when the application has returned or raised."""
        self.is_over = True
        if error is None and not (self.status or self.client_closed or self.answered):
            # The application returned without an answer, so the server answers with an error.
            self.status = SERVER_ERROR
        self.route = self.route or self._route(scope)
        if self.keeps_values:
            self._keep_values()
        # The Content-Length is preferred, because it also counts what the application left unread.
        if self._length is not None:
            self.request_bytes = self._length
        # A server sends no body in answer to HEAD, whatever the application gives it.
        if self.method == "HEAD":
            self.response_bytes = 0
        self.end(error)

    def received(self, message: Message) -> None:
        """Take note of a message that the server gave the application."""
        raise NotImplementedError

    def is_last(self, message: Message) -> bool:
        """Say whether a message completes the answer."""
        raise NotImplementedError

    def sent(self, message: Message, headers: RawHeaders) -> None:
        """Take note of a message that the server took."""
        raise NotImplementedError

    def _takes(self, data: bytes) -> None:
        """Take note of a piece of the request's body."""
        self.request_bytes += len(data)
        if self._request_body is not None:
            self._request_body.add(data)

    def _gives(self, data: bytes) -> None:
        """Take note of a piece of the answer."""
        self.response_bytes += len(data)
        if self._response_body is not None:
            self._response_body.add(data)

    def _keep_values(self) -> None:
        mask = client_mask_of(self.config)
        # With files that the server has sent by itself.
        self._response_body.size_bytes = self.response_bytes
        headers = [*texts(self._response_headers)]
        if self.status:
            self.notes["response_headers"] = payloads.headers(headers, mask)
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        for name, body, body_type in (
            ("request_body", self._request_body, self._request_type),
            ("response_body", self._response_body, kind),
        ):
            if body.size_bytes:
                self.notes[name] = body.text(body_type, mask)

    def _route(self, scope: Scope) -> str:
        try:
            return asgi_route(scope, self._host)
        except Exception as error:  # raised by the framework's own objects
            let_pass(error)
            return ""

    def _starts(self, message: Message, headers: RawHeaders) -> None:
        self.status = status_of(message.get("status"))
        self._response_headers = headers
        if self.status >= lowest_error():
            self.blame(sys.exception())
        self.route = self.route or django_route_in_calls()


class HttpRequest(AsgiRequest):
    """An HTTP request."""

    __slots__ = ()

    def received(self, message: Message) -> None:
        """Take note of a piece of the body, or of the connection's end."""
        if message["type"] == "http.request":
            self._takes(message.get("body", b""))
        elif message["type"] == "http.disconnect":
            self.client_leaves()

    def is_last(self, message: Message) -> bool:
        """Say whether a message completes the answer."""
        kind = message.get("type")
        if kind == "http.response.start":
            return False
        if kind == "http.response.trailers":
            return not message.get("more_trailers")
        whole = kind in PIECES and not message.get("more_body")
        return whole and not self._has_trailers

    def sent(self, message: Message, headers: RawHeaders) -> None:
        """Take note of the status and of pieces of the answer, also of files that the server sends by itself."""
        kind = message["type"]
        if kind == "http.response.body":
            self._gives(message.get("body") or b"")
        elif kind == "http.response.start":
            if message.get("trailers"):
                self._has_trailers = True
            self._starts(message, headers)
        elif kind == "http.response.pathsend":
            self.response_bytes = _length(self._response_headers) or _size_of(message["path"])
        elif kind == "http.response.zerocopysend":
            self.response_bytes += message.get("count") or _length(self._response_headers)


class WebSocketRequest(AsgiRequest):
    """A websocket, from the client's request to the end of the connection."""

    __slots__ = ()

    def received(self, message: Message) -> None:
        """Take note of a message's data, or of the connection's end."""
        if message["type"] == "websocket.receive":
            self._takes(_data(message))
        elif message["type"] == "websocket.disconnect" and not self.answered:
            code = message.get("code", BROKEN)
            self.client_closed = code == BROKEN
            self._closes(code)
            self.answer_ends()

    def is_last(self, message: Message) -> bool:
        """Say whether a message ends the connection."""
        kind = message.get("type")
        refuses = kind == "websocket.http.response.body" and not message.get("more_body")
        return refuses or kind == "websocket.close"

    def sent(self, message: Message, headers: RawHeaders) -> None:
        """Take note of a message's data, and of what became of the connection."""
        kind = message["type"]
        if kind == "websocket.send":
            self._gives(_data(message))
        elif kind == "websocket.accept":
            self._accepted, self.status = True, SWITCHING_PROTOCOLS
        elif kind == "websocket.close":
            self.status = self.status or FORBIDDEN
            self._closes(message.get("code", 1000))
        elif kind == "websocket.http.response.start":
            self._starts(message, headers)
        elif kind == "websocket.http.response.body":
            self._gives(message.get("body") or b"")

    def _closes(self, code: int) -> None:
        if self._accepted:
            self.notes["close_code"] = str(code)


KINDS: Final[dict[str, type[HttpRequest] | type[WebSocketRequest]]] = {
    "http": HttpRequest,
    "websocket": WebSocketRequest,
}


def listed(holder: dict[str, Any]) -> RawHeaders:
    """Return the headers of a scope or a message. If they are an iterator, a new one takes its place."""
    headers = holder.get("headers", ())
    if type(headers) is not list and isinstance(headers, Iterator):
        headers = list(headers)
        # An iterator and not the list, so that a server that reads the headers twice finds what it finds without us.
        holder["headers"] = iter(headers)
    return headers  # type: ignore[no-any-return]


def caller_of(scope: Scope) -> TraceContext | None:
    """Return the trace context that the caller sent, None if it sent none."""
    pairs = listed(scope)
    # Most callers send none, and to look for it is all that a request costs that the head leaves out.
    try:
        for name, _ in pairs:
            if name == b"traceparent":
                return caller(_all(pairs, "traceparent"), _all(pairs, "tracestate"))
    except (TypeError, ValueError) as error:  # not pairs
        let_pass(error)
    return None


def _known(config: ResolvedConfig, scope: Scope, headers: RawHeaders) -> dict[str, str]:
    """Return the metadata that a request has before the application sees it."""
    metadata = {"path": text(scope.get("path", ""))}
    if not config.metadata_only:
        mask = client_mask_of(config)
        metadata["query"] = payloads.query(text(scope.get("query_string", b"")), mask)
        metadata["request_headers"] = payloads.headers(texts(headers), mask)
    return metadata


def _all(headers: RawHeaders, wanted: str) -> str:
    """Return all values of a header as one text. Two `traceparent` then are an invalid one."""
    return ",".join(value for name, value in texts(headers) if name == wanted)


def server_of(scope: Scope) -> str:
    """Return what stands for a missing host: the server's address."""
    server = scope.get("server")
    # A server may give a socket's whole name, which has four parts for IPv6.
    host, port = (*server, None, None)[:2] if isinstance(server, tuple | list) and server else ("", None)
    return f"{host}:{port}" if port else str(host)


def _data(message: Message) -> bytes:
    data = message.get("bytes")
    return data if data is not None else (message.get("text") or "").encode("utf-8", "replace")


def _length(headers: RawHeaders) -> int:
    """Return the body's size as the answer's headers say it; 0 if they do not."""
    return number(header(headers, "content-length")) or 0


def _size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError as error:
        let_pass(error)
        return 0
