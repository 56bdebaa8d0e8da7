"""The backend's answers in JSON, and what becomes of an error. Every refusal is `{"error": "why"}`."""

import asyncio
import contextlib
import json
import sqlite3

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler, Receive, Scope, Send

from epsagon_fast.backend.filters import BadQuery
from epsagon_fast.backend.shape import NotATrace
from epsagon_fast.foreign import shown

# Twice the largest trace that a tracer may be configured to send.
MAX_BODY_BYTES = 1024 * 1024

# How much of a body that is too large is read and thrown away after the answer, and for how long.
_LINGER_BYTES = 8 * MAX_BODY_BYTES
_LINGER_S = 2.0


class TooLarge(Exception):
    """A body is larger than `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes


class Json(JSONResponse):
    """An answer in JSON."""

    def render(self, content: object) -> bytes:
        """Return the body, in ASCII: a terminal that shows an answer obeys what it is told beyond it, too."""
        return json.dumps(content, separators=(",", ":")).encode()


class _Parting(Json):
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


def parting(reason: str, status: int, headers: dict[str, str] | None = None) -> Response:
    """Return a refusal that is given before the body is read, and ends the connection."""
    return _Parting({"error": reason}, status, {"Connection": "close", **(headers or {})})


def misdirected(asked_for: list[str]) -> Response:
    """Return the answer to a request for another host. `asked_for`: its headers `Host`."""
    name = shown(", ".join(asked_for))
    reason = f"this backend does not answer as {name}: start it with --allow-host NAME if it should"
    return parting(reason, 421)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Json({"error": error.detail}, error.status_code, error.headers)


async def _bad(request: Request, error: Exception) -> Response:
    return Json({"error": str(error)}, 400)


async def _too_large(request: Request, error: Exception) -> Response:
    assert isinstance(error, TooLarge)
    return parting(f"a body may have {error.limit_bytes} bytes at most", 413)


async def _left(request: Request, error: Exception) -> Response:
    # No client reads this, because it went away in the middle of its body.
    return Response(status_code=400)


async def _unavailable(request: Request, error: Exception) -> Response:
    # A full disk, say. The tracer keeps the trace and tries again.
    return Json({"error": f"cannot use the database: {error}"}, 503)


HANDLERS: dict[object, ExceptionHandler] = {
    HTTPException: _refused,
    NotATrace: _bad,
    BadQuery: _bad,
    TooLarge: _too_large,
    ClientDisconnect: _left,
    sqlite3.Error: _unavailable,
}
