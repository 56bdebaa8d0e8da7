"""How a trace comes in: who may send, the body, its id."""

import hashlib
import re

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from epsagon_fast.backend.answers import MAX_BODY_BYTES, Json, TooLarge
from epsagon_fast.backend.live import Live
from epsagon_fast.backend.shape import summarize
from epsagon_fast.backend.store import Store
from epsagon_fast.digits import number

# Visible ASCII, and short enough to be a trace's address in `GET /traces/{trace_id}`.
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,200}")


class EpsagonIntake:
    """Takes traces in the tracer's own format."""

    def __init__(self, store: Store, live: Live) -> None:
        self._store = store
        self._live = live

    async def take(self, request: Request) -> Response:
        """Answer `POST /`."""
        token = bearer(request)
        key = _idempotency_key(request)
        body = await body_of(request)
        trace_id, is_new = await run_in_threadpool(self._keep, token, key, body)
        self._live.notify()
        return Json({"trace_id": trace_id, "duplicate": not is_new})

    def _keep(self, token: bytes, key: str | None, body: bytes) -> tuple[str, bool]:
        summary = summarize(body)
        trace_id = key or hashlib.sha256(body).hexdigest()
        return trace_id, self._store.keep(trace_id, token, body, summary)


def bearer(request: Request) -> bytes:
    """Return a request's bearer token as it came; 401 without one."""
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


async def body_of(request: Request, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return a request's body; TooLarge as soon as it is over the limit."""
    announced = request.headers.get("content-length", "0")
    size_bytes = number(announced)
    # What is no number of so few digits is none that is read.
    if size_bytes is None or size_bytes > limit_bytes:
        raise TooLarge(limit_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLarge(limit_bytes)
    return bytes(body)
