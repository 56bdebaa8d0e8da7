"""Spans of OpenTelemetry, as OTLP/HTTP sends them in JSON and in protobuf, as traces in the tracer's own format.

What one process (an OTLP resource) did in one OpenTelemetry trace is one trace here. Its spans come in several
requests, so a trace grows: `merged` adds spans to what is there.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from epsagon_fast.protocol import RUNNER_ORIGIN, ErrorCode

JSON_TYPE, PROTOBUF_TYPE = "application/json", "application/x-protobuf"
# Of one process in one trace; the rest is refused.
MAX_SPANS = 20_000

_ORIGIN = "otlp"
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_KIND_KEY = "span.kind"
# Who was called: such a span stands for its process.
_CALLED = ("server", "consumer")
_ERROR_STATUS = 2
_EXCEPTION = "exception"
_MAX_DEPTH = 20


class NotOtlp(ValueError):
    """A body is not an OTLP request; the text says where and why."""


class Span(NamedTuple):
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


Part = tuple[dict[str, str], list[Span]]


def read(body: bytes, content_type: str) -> list[Part]:
    """Return each resource's attributes with its spans. Raises NotOtlp, and ImportError for protobuf without it."""
    if content_type == PROTOBUF_TYPE:
        return _from_protobuf(body)
    try:
        return _from_json(json.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NotOtlp(f"the body is not OTLP in JSON: {type(error).__name__}") from None


def _from_json(request: Mapping[str, Any]) -> list[Part]:
    parts: list[Part] = []
    for resource in request.get("resourceSpans") or ():
        spans = [span for scope in resource.get("scopeSpans") or () for span in scope.get("spans") or ()]
        attributes = _json_attributes((resource.get("resource") or {}).get("attributes"))
        parts.append((attributes, [_json_span(span) for span in spans]))
    return parts


def _json_span(span: Mapping[str, Any]) -> Span:
    status = span.get("status") or {}
    return Span(
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
    number = int(said)
    if not 0 <= number < 2**64:
        raise ValueError("a number is out of range")
    return number


def _json_attributes(pairs: Any) -> dict[str, str]:
    return {_text(pair["key"]): _as_text(_json_value(pair.get("value") or {})) for pair in pairs or ()}


def _json_value(value: Mapping[str, Any], depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        return None
    for kind, said in value.items():
        if kind == "intValue":
            return int(said)
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


def _protobuf_span(span: Any) -> Span:
    return Span(
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


def by_trace(parts: Iterable[Part]) -> Iterator[tuple[str, dict[str, str], list[Span]]]:
    """Yield (id of the trace here, the resource's attributes, spans) for each process in each OpenTelemetry trace."""
    for attributes, spans in parts:
        process = sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()[:16]
        traces: dict[str, list[Span]] = {}
        for span in spans:
            traces.setdefault(span.trace_id, []).append(span)
        for trace_id, members in traces.items():
            yield f"{trace_id}-{process}", attributes, members


def merged(known: Mapping[str, Any] | None, resource: Mapping[str, str], spans: Iterable[Span]) -> dict[str, Any]:
    """Return a trace with the events of `known`, the same trace as it was so far, and these spans."""
    events = {event["id"]: event for event in (known["events"] if known else ())}
    http_trace_id = ""
    for span in spans:
        events[span.id] = _event(span)
        http_trace_id = span.trace_id
    _choose_runner(list(events.values()), http_trace_id)
    language = resource.get("telemetry.sdk.language", "")
    return {
        "app_name": resource.get("service.name", "unknown_service"),
        "token": "",
        "events": list(events.values()),
        "exceptions": [],
        "version": resource.get("telemetry.sdk.version", ""),
        "platform": f"{language} {resource.get('process.runtime.version', '')}".strip(),
    }


def _choose_runner(events: list[dict[str, Any]], http_trace_id: str) -> None:
    """Have one event stand for the process: one that none of it has caused, if possible one that was called."""
    ids = {event["id"] for event in events}

    def rank(event: dict[str, Any]) -> tuple[bool, bool, float]:
        is_called = event["resource"]["metadata"].get(_KIND_KEY) in _CALLED
        return event.get("parent_id") in ids, not is_called, event["start_time"]

    for event in events:
        event["origin"] = _ORIGIN
    runner = min(events, key=rank)
    runner["origin"] = RUNNER_ORIGIN
    runner["resource"]["metadata"]["http_trace_id"] = http_trace_id


def _event(span: Span) -> dict[str, Any]:
    exception = _exception(span)
    failed = ErrorCode.EXCEPTION if exception else ErrorCode.ERROR
    kind = _KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else _KINDS[0]
    type_, operation = _type(span.attributes, kind)
    metadata = {**span.attributes, _KIND_KEY: kind}
    event: dict[str, Any] = {
        "id": span.id,
        "start_time": span.start_ns / 1e9,
        "resource": {"name": span.name, "type": type_, "operation": operation, "metadata": metadata},
        "origin": _ORIGIN,
        "duration": max(0, span.end_ns - span.start_ns) / 1e9,
        "error_code": int(failed if span.status == _ERROR_STATUS else ErrorCode.OK),
        "exception": exception if span.status == _ERROR_STATUS else None,
    }
    return event | ({"parent_id": span.parent_id} if span.parent_id else {})


def _type(attributes: Mapping[str, str], kind: str) -> tuple[str, str]:
    """Return an event's type and operation, by OpenTelemetry's semantic conventions, old and new."""
    for method in ("http.request.method", "http.method"):
        if method in attributes:
            return "http", attributes[method]
    for system, operation in (("db.system.name", "db.operation.name"), ("db.system", "db.operation")):
        if system in attributes:
            return attributes[system], attributes.get(operation, "")
    for system, operation in (("messaging.system", "messaging.operation.type"), ("rpc.system", "rpc.method")):
        if system in attributes:
            return attributes[system], attributes.get(operation, kind)
    return "span", kind


def _exception(span: Span) -> dict[str, Any] | None:
    for name, time_ns, attributes in reversed(span.events):
        if name == _EXCEPTION:
            said = {key: attributes.get(f"exception.{key}", "") for key in ("type", "message", "stacktrace")}
            more = {key: value for key, value in attributes.items() if not key.startswith("exception.")}
            traceback = said.pop("stacktrace")
            return {**said, "traceback": traceback, "time": time_ns / 1e9, "additional_data": more}
    if span.message:
        at = {"time": span.end_ns / 1e9, "additional_data": {}}
        return {"type": "Error", "message": span.message, "traceback": "", **at}
    return None


def is_whole(span: Span) -> bool:
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
