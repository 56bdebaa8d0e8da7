"""OTLP/HTTP in JSON and in protobuf: what its requests say and what its answers look like."""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from epsagon_fast.digits import signed

JSON_TYPE, PROTOBUF_TYPE = "application/json", "application/x-protobuf"

_MAX_DEPTH = 20


class NotOtlp(ValueError):
    """A body is not an OTLP request; the text says where and why."""


class ReceivedSpan(NamedTuple):
    """One span. Ids are in hex, times in nanoseconds; attributes are texts, others than strings as JSON."""

    trace_id: str
    id: str
    parent_id: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, str]
    status: int
    message: str
    # (name, time, attributes) of what happened in it.
    events: list[tuple[str, int, dict[str, str]]]


Part = tuple[dict[str, str], list[ReceivedSpan]]


def read(body: bytes, content_type: str) -> list[Part]:
    """Return each resource's attributes with its spans. Raises NotOtlp, and ImportError for protobuf without it."""
    if content_type == PROTOBUF_TYPE:
        return _from_protobuf(body)
    try:
        return _from_json(json.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise NotOtlp(f"the body is not OTLP in JSON: {type(error).__name__}") from None


def _from_json(request: Mapping[str, Any]) -> list[Part]:
    parts: list[Part] = []
    for resource in request.get("resourceSpans") or ():
        spans = [span for scope in resource.get("scopeSpans") or () for span in scope.get("spans") or ()]
        attributes = _json_attributes((resource.get("resource") or {}).get("attributes"))
        parts.append((attributes, [_json_span(span) for span in spans]))
    return parts


def _json_span(span: Mapping[str, Any]) -> ReceivedSpan:
    status = span.get("status") or {}
    return ReceivedSpan(
        trace_id=_json_id(span["traceId"], 16),
        id=_json_id(span["spanId"], 8),
        parent_id=_json_id(span.get("parentSpanId") or "", 8),
        name=_text(span.get("name", "")),
        kind=_whole(span.get("kind", 0)),
        start_ns=_whole(span.get("startTimeUnixNano", 0)),
        end_ns=_whole(span.get("endTimeUnixNano", 0)),
        attributes=_json_attributes(span.get("attributes")),
        status=_whole(status.get("code", 0)),
        message=_text(status.get("message", "")),
        events=[
            (
                _text(event.get("name", "")),
                _whole(event.get("timeUnixNano", 0)),
                _json_attributes(event.get("attributes")),
            )
            for event in span.get("events") or ()
        ],
    )


def _json_id(said: str, size: int) -> str:
    # Hexadecimal in OTLP's JSON, in either case; something else is an error there.
    if said and len(bytes.fromhex(said)) != size:
        raise ValueError("an id has another length")
    return said.lower()


def _text(said: Any) -> str:
    if not isinstance(said, str):
        raise TypeError("a text is none")
    # JSON can say half of a pair of surrogates, UTF-8 cannot.
    return said.encode("utf-8", "replace").decode()


def _whole(said: Any) -> int:
    found = _integer(said)
    if not 0 <= found < 2**64:
        raise ValueError("a number is out of range")
    return found


def _integer(said: Any) -> int:
    """Return what JSON says, which has most 64-bit integers as texts of digits."""
    found = signed(said, most=20) if isinstance(said, str) else int(said)
    if found is None:
        raise ValueError("a text is no number")
    return found


def _json_attributes(pairs: Any) -> dict[str, str]:
    return {_text(pair["key"]): _as_text(_json_value(pair.get("value") or {})) for pair in pairs or ()}


def _json_value(value: Mapping[str, Any], depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        return None
    for kind, said in value.items():
        if kind == "intValue":
            return _integer(said)
        if kind == "arrayValue":
            return [_json_value(each, depth + 1) for each in said.get("values") or ()]
        if kind == "kvlistValue":
            return {pair["key"]: _json_value(pair.get("value") or {}, depth + 1) for pair in said.get("values") or ()}
        return said
    return None


def _as_text(value: Any) -> str:
    return _text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _from_protobuf(body: bytes) -> list[Part]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise NotOtlp("the body is not OTLP in protobuf") from None
    return [
        (
            _protobuf_attributes(resource.resource.attributes),
            [_protobuf_span(span) for scope in resource.scope_spans for span in scope.spans],
        )
        for resource in request.resource_spans
    ]


def _protobuf_span(span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=span.kind,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_protobuf_attributes(span.attributes),
        status=span.status.code,
        message=span.status.message,
        events=[(event.name, event.time_unix_nano, _protobuf_attributes(event.attributes)) for event in span.events],
    )


def _protobuf_attributes(pairs: Iterable[Any]) -> dict[str, str]:
    return {pair.key: _as_text(_protobuf_value(pair.value)) for pair in pairs}


def _protobuf_value(value: Any, depth: int = 0) -> Any:
    kind = value.WhichOneof("value")
    if kind is None or depth > _MAX_DEPTH:
        return None
    said = getattr(value, kind)
    if kind == "array_value":
        return [_protobuf_value(each, depth + 1) for each in said.values]
    if kind == "kvlist_value":
        return {pair.key: _protobuf_value(pair.value, depth + 1) for pair in said.values}
    return base64.b64encode(said).decode() if kind == "bytes_value" else said


def is_whole(span: ReceivedSpan) -> bool:
    """Say whether a span has what it is found by."""
    return len(span.trace_id) == 32 and len(span.id) == 16 and bool(span.trace_id.strip("0") and span.id.strip("0"))


def answer(refused: int, reason: str, content_type: str) -> bytes:
    """Return the body of the answer to a request of which so many spans were not taken."""
    if content_type == PROTOBUF_TYPE:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTracePartialSuccess,
            ExportTraceServiceResponse,
        )

        if not refused:
            return b""
        partial = ExportTracePartialSuccess(rejected_spans=refused, error_message=reason)
        return bytes(ExportTraceServiceResponse(partial_success=partial).SerializeToString())
    partial_success = {"partialSuccess": {"rejectedSpans": str(refused), "errorMessage": reason}}
    return json.dumps(partial_success if refused else {}).encode()
