"""`POST /v1/traces`: spans of OpenTelemetry come in, and join the request that they belong to."""

import threading
import zlib

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import epsagon_fast.backend.otlp as otlp
import epsagon_fast.backend.otlp_traces as otlp_traces
import epsagon_fast.backend.summary as summary
from epsagon_fast.backend.answers import TooLarge
from epsagon_fast.backend.intake import body_of
from epsagon_fast.backend.live import Live
from epsagon_fast.backend.store import Store

# Of a request, before and after it is unpacked.
MAX_BYTES = 8 * 1024 * 1024
# A trace of so many bytes grows no more: each time it is read and written whole.
MAX_TRACE_BYTES = 8 * 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS


class OtlpIntake:
    """Takes OTLP/HTTP."""

    def __init__(self, store: Store, live: Live) -> None:
        self._store = store
        self._live = live
        # A trace is read, grows and is written again.
        self._lock = threading.Lock()

    async def take(self, request: Request) -> Response:
        """Answer `POST /v1/traces`."""
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # A browser asks first whether a page of another site may send these.
        if content_type not in (otlp.JSON_TYPE, otlp.PROTOBUF_TYPE):
            raise HTTPException(415, f"Content-Type must be {otlp.JSON_TYPE} or {otlp.PROTOBUF_TYPE}")
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("gzip", "identity"):
            raise HTTPException(415, "Content-Encoding must be gzip or identity")
        body = await body_of(request, MAX_BYTES)
        answer = await run_in_threadpool(self._take, body, content_type, encoding == "gzip")
        self._live.notify()
        return Response(answer, media_type=content_type)

    def _take(self, body: bytes, content_type: str, is_packed: bool) -> bytes:
        try:
            parts = otlp.read(_unpacked(body) if is_packed else body, content_type)
        except ImportError as error:
            raise HTTPException(415, f"{error}; protobuf needs: pip install 'epsagon-fast[otlp]'") from None
        except otlp.NotOtlp as error:
            raise HTTPException(400, str(error)) from None
        refused, reason = 0, ""
        for trace_id, resource, spans in otlp_traces.by_trace(parts):
            whole = [span for span in spans if otlp.is_whole(span)]
            if len(whole) < len(spans):
                reason = "a span must have a trace id of 16 bytes and a span id of 8, not all zero"
            kept = self._keep(trace_id, resource, whole) if whole else 0
            if kept < len(whole):
                reason = f"a trace may have {otlp_traces.MAX_SPANS} spans or {MAX_TRACE_BYTES} bytes of one process"
            refused += len(spans) - kept
        return otlp.answer(refused, reason, content_type)

    def _keep(self, trace_id: str, resource: dict[str, str], spans: list[otlp.ReceivedSpan]) -> int:
        """Add spans to a trace; return how many."""
        with self._lock:
            known = self._store.body(trace_id)
            trace = None if known is None else orjson.loads(known)
            room = otlp_traces.MAX_SPANS - (len(trace["events"]) if trace else 0)
            taken = spans[: max(0, room)] if len(known or b"") < MAX_TRACE_BYTES else []
            if taken:
                trace = otlp_traces.merged(trace, resource, taken)
                self._store.replace(trace_id, b"", orjson.dumps(trace), summary.of(trace))
        return len(taken)


def _unpacked(body: bytes) -> bytes:
    unpacking = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacking.decompress(body, MAX_BYTES)
    except zlib.error:
        raise otlp.NotOtlp("the body is not gzip") from None
    if unpacking.unconsumed_tail:
        raise TooLarge(MAX_BYTES)
    return unpacked
