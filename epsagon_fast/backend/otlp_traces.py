"""Spans of OpenTelemetry as traces in the tracer's own format.

What one process (an OTLP resource) did in one OpenTelemetry trace is one trace here. Its spans come in several
requests, so a trace grows: `merged` adds spans to what is there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from epsagon_fast.backend.otlp import Part, ReceivedSpan
from epsagon_fast.protocol import RUNNER_ORIGIN, ErrorCode
from epsagon_fast.span_names import EXCEPTION, KIND, KINDS, type_and_operation

# Of one process in one trace; the rest is refused.
MAX_SPANS = 20_000
_ORIGIN = "otlp"
# Who was called: such a span stands for its process.
_CALLED = ("server", "consumer")
_ERROR_STATUS = 2


def by_trace(parts: Iterable[Part]) -> Iterator[tuple[str, dict[str, str], list[ReceivedSpan]]]:
    """Yield (id of the trace here, the resource's attributes, spans) for each process in each OpenTelemetry trace."""
    for attributes, spans in parts:
        process = sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()[:16]
        traces: dict[str, list[ReceivedSpan]] = {}
        for span in spans:
            traces.setdefault(span.trace_id, []).append(span)
        for trace_id, members in traces.items():
            yield f"{trace_id}-{process}", attributes, members


def merged(
    known: Mapping[str, Any] | None, resource: Mapping[str, str], spans: Iterable[ReceivedSpan]
) -> dict[str, Any]:
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
        is_called = event["resource"]["metadata"].get(KIND) in _CALLED
        return event.get("parent_id") in ids, not is_called, event["start_time"]

    for event in events:
        event["origin"] = _ORIGIN
    runner = min(events, key=rank)
    runner["origin"] = RUNNER_ORIGIN
    runner["resource"]["metadata"]["http_trace_id"] = http_trace_id


def _event(span: ReceivedSpan) -> dict[str, Any]:
    exception = _exception(span)
    failed = ErrorCode.EXCEPTION if exception else ErrorCode.ERROR
    kind = KINDS[span.kind] if 0 <= span.kind < len(KINDS) else KINDS[0]
    type_, operation = type_and_operation(span.attributes, kind)
    metadata = {**span.attributes, KIND: kind}
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


def _exception(span: ReceivedSpan) -> dict[str, Any] | None:
    for name, time_ns, attributes in reversed(span.events):
        if name == EXCEPTION:
            said = {key: attributes.get(f"exception.{key}", "") for key in ("type", "message", "stacktrace")}
            more = {key: value for key, value in attributes.items() if not key.startswith("exception.")}
            traceback = said.pop("stacktrace")
            return {**said, "traceback": traceback, "time": time_ns / 1e9, "additional_data": more}
    if span.message:
        at = {"time": span.end_ns / 1e9, "additional_data": {}}
        return {"type": "Error", "message": span.message, "traceback": "", **at}
    return None
