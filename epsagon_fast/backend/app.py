"""The backend's HTTP: routes, what is refused, and with which status.

Requests are served by one event loop; checking a body and SQLite run in threads, so one large trace does not hold up
the others. Every refusal is `{"error": "why"}`.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from epsagon_fast.backend.hosts import Hosts
from epsagon_fast.backend.shape import NotATrace, summarize
from epsagon_fast.backend.store import Store
from epsagon_fast.foreign import shown

# Twice the largest trace that a tracer may be configured to send.
MAX_BODY_BYTES = 1024 * 1024
MAX_PAGE_TRACES = 1000
_DEFAULT_PAGE_TRACES = 50

# Visible ASCII, and short enough to be a trace's address in `GET /traces/{trace_id}`.
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")
# Few enough digits for SQLite's integers.
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_MAX_OFFSET = 10**15

# How much of a body that is too large is read and thrown away after the answer, and for how long.
_LINGER_BYTES = 8 * MAX_BODY_BYTES
_LINGER_S = 2.0


class _TooLarge(Exception):
    pass


class _Json(JSONResponse):
    def render(self, content: object) -> bytes:
        # In ASCII: a terminal that shows an answer obeys what it is told beyond it, too.
        return json.dumps(content, separators=(",", ":")).encode()


class _Parting(_Json):
    """An answer given before the body is read, and the end of the connection.

    A socket closed with unread bytes in it sends a reset, which can overtake the answer: the client would see a broken
    pipe and never the 413. So the whole answer goes out first and the connection is closed a little later.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await _throw_away(receive)
        await send({"type": "http.response.body", "body": b""})


async def _throw_away(receive: Receive) -> None:
    left_bytes = _LINGER_BYTES
    while left_bytes > 0:
        message = await receive()
        # False at the body's end; a disconnect has no such field.
        if not message.get("more_body"):
            return
        left_bytes -= len(message["body"])


def application(store: Store, hosts: Hosts) -> ASGIApp:
    """Return the ASGI application that keeps its traces in `store`. Closing the store is left to the caller.

    hosts: a request for another one is refused.
    """
    endpoints = _Endpoints(store)
    app = Starlette(
        routes=[
            _route("/", "POST", endpoints.take),
            _route("/traces", "GET", endpoints.page),
            # A path: an Idempotency-Key may hold slashes.
            _route("/traces/{trace_id:path}", "GET", endpoints.trace),
            _route("/healthz", "GET", endpoints.health),
        ],
        exception_handlers={
            HTTPException: _refused,
            NotATrace: _not_a_trace,
            _TooLarge: _too_large,
            ClientDisconnect: _left,
            sqlite3.Error: _unavailable,
        },
    )

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        asked_for = Headers(scope=scope).getlist("host")
        known = len(asked_for) == 1 and hosts.hold(asked_for[0])
        await (app if known else _misdirected(asked_for))(scope, receive, send)

    return gate


def _route(path: str, method: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    route = Route(path, endpoint, methods=[method])
    # Starlette adds HEAD to every GET.
    route.methods = {method}
    return route


class _Endpoints:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(self, request: Request) -> Response:
        token = _token(request)
        key = _idempotency_key(request)
        body = await _body(request)
        trace_id, is_new = await run_in_threadpool(self._keep, token, key, body)
        return _Json({"trace_id": trace_id, "duplicate": not is_new})

    def _keep(self, token: bytes, key: str | None, body: bytes) -> tuple[str, bool]:
        summary = summarize(body)
        trace_id = key or hashlib.sha256(body).hexdigest()
        return trace_id, self._store.keep(trace_id, token, body, summary)

    async def page(self, request: Request) -> Response:
        limit = _whole_number(request, "limit", _DEFAULT_PAGE_TRACES, 1, MAX_PAGE_TRACES)
        offset = _whole_number(request, "offset", 0, 0, _MAX_OFFSET)
        traces = await run_in_threadpool(self._store.page, limit, offset)
        counts = await run_in_threadpool(self._store.counts)
        return _Json({"traces": traces, "total": counts["traces"], "limit": limit, "offset": offset})

    async def trace(self, request: Request) -> Response:
        body = await run_in_threadpool(self._store.body, request.path_params["trace_id"])
        if body is None:
            raise HTTPException(404, "there is no trace with this id")
        # A browser that guesses might take a trace for a page.
        return Response(body, headers={"X-Content-Type-Options": "nosniff"}, media_type="application/json")

    async def health(self, request: Request) -> Response:
        return _Json({"status": "ok", **await run_in_threadpool(self._store.counts)})


def _token(request: Request) -> bytes:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip(" \t")
    if scheme.lower() != "bearer" or not token:
        reason = "a bearer token is needed (any will do): Authorization: Bearer <token>"
        raise HTTPException(401, reason, {"WWW-Authenticate": "Bearer"})
    # Headers are decoded as latin-1: these are the bytes that came, UTF-8 from our tracer.
    return token.encode("latin-1")


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise HTTPException(400, "Idempotency-Key must be 1 to 200 visible ASCII characters")
    return key


async def _body(request: Request) -> bytes:
    announced = request.headers.get("content-length", "0")
    # Python refuses to parse numbers of thousands of digits.
    if len(announced) > 18 or int(announced) > MAX_BODY_BYTES:
        raise _TooLarge
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLarge
    return bytes(body)


def _whole_number(request: Request, name: str, default: int, lowest: int, highest: int) -> int:
    text = request.query_params.get(name, str(default))
    if not _WHOLE_NUMBER.fullmatch(text) or not lowest <= int(text) <= highest:
        raise HTTPException(400, f"{name} must be a whole number from {lowest} to {highest}")
    return int(text)


def _misdirected(asked_for: list[str]) -> Response:
    name = shown(", ".join(asked_for))
    reason = f"this backend does not answer as {name}: start it with --allow-host NAME if it should"
    return _Parting({"error": reason}, 421, {"Connection": "close"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _Json({"error": error.detail}, error.status_code, error.headers)


async def _not_a_trace(request: Request, error: Exception) -> Response:
    return _Json({"error": str(error)}, 400)


async def _too_large(request: Request, error: Exception) -> Response:
    reason = f"a trace may have {MAX_BODY_BYTES} bytes at most"
    return _Parting({"error": reason}, 413, {"Connection": "close"})


async def _left(request: Request, error: Exception) -> Response:
    # Nobody reads this: the client went away in the middle of its body.
    return Response(status_code=400)


async def _unavailable(request: Request, error: Exception) -> Response:
    # A full disk, say. The tracer keeps the trace and tries again.
    return _Json({"error": f"cannot use the database: {error}"}, 503)
