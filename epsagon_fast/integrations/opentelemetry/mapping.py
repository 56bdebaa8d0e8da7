"""What a span is as an event: docs/opentelemetry.md has the table.

Kinds, links, span events and statuses have no field in an event, so they stand in its metadata, under the names that
OpenTelemetry itself uses for formats that are not its own. The OTLP format turns them back.
"""

from typing import Any, Final

from opentelemetry.trace import Link, SpanKind, Status, StatusCode, format_span_id, format_trace_id

from epsagon_fast.producer.plain import json_bytes
from epsagon_fast.producer.times import NS_PER_S, written
from epsagon_fast.protocol import ErrorCode
from epsagon_fast.span_names import (
    DESCRIPTION,
    EVENTS,
    EXCEPTION,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
    KIND,
    LINKS,
    OK,
    SCOPE,
    SCOPE_VERSION,
    STATUS,
    type_and_operation,
)

from .ignoring import error_code

INTERNAL: Final = SpanKind.INTERNAL.name.lower()
# By the id of a kind, because an enum's own hash costs as much as a function. What is no kind has no name here.
KIND_NAMES: Final = {id(kind): kind.name.lower() for kind in SpanKind}
_OK, _ERROR, _EXCEPTION = map(int, (ErrorCode.OK, ErrorCode.ERROR, ErrorCode.EXCEPTION))


class Happened:
    """An event of a span, in OpenTelemetry's sense of the word. `time_ns`: since the epoch."""

    __slots__ = ("attributes", "name", "time_ns")

    def __init__(self, name: str, attributes: dict[str, Any], time_ns: int) -> None:
        self.name = name
        self.attributes = attributes
        self.time_ns = time_ns

    def told(self) -> dict[str, Any]:
        """Return what stands in the metadata."""
        return {"name": self.name, "time_ns": self.time_ns, "attributes": self.attributes}


class SpanScope:
    """What OpenTelemetry calls the instrumentation scope: the library that makes spans. `metadata`: of its spans."""

    def __init__(self, name: str, version: str | None) -> None:
        self.name = name
        self.metadata = {SCOPE: name, **({SCOPE_VERSION: version} if version else {})}


class Recorded:
    """What a span has recorded. Times are nanoseconds since the epoch."""

    span_id: str
    scope: SpanScope
    name: str
    kind: SpanKind
    attributes: dict[str, Any]
    events: list[Happened]
    links: list[Link]
    status: Status
    start_time: int
    end_time: int | None
    # How many attributes, events and links were too many, by their names in span_names.py.
    dropped: dict[str, int]


def event_of(span: Recorded, typed: bool) -> dict[str, Any]:
    """Return an ended span as an event, complete and in wire order.

    `typed`: whether the trace's format keeps types, and with them nanoseconds.
    """
    metadata = {**span.attributes, **span.scope.metadata}
    start_ns, kind = span.start_time, KIND_NAMES.get(id(span.kind), INTERNAL)
    words = type_and_operation(metadata, kind)
    if kind != INTERNAL:
        metadata[KIND] = kind
    code, exception = _OK, None
    if span.status.status_code is not StatusCode.UNSET or span.events or span.links or span.dropped:
        code, exception = _add_rest(metadata, span, typed)
    if kind != INTERNAL:
        code = error_code(span.kind, span.attributes, code)
    return {
        "id": span.span_id,
        "start_time": written(start_ns, typed),
        "resource": {"name": span.name, "type": words[0], "operation": words[1], "metadata": metadata},
        "origin": span.scope.name,
        "duration": max(0, (span.end_time or start_ns) - start_ns) / NS_PER_S,
        "error_code": code,
        "exception": exception,
    }


def _add_rest(metadata: dict[str, Any], span: Recorded, typed: bool) -> tuple[int, dict[str, Any] | None]:
    """Add what few spans have to the metadata. Return the event's error code and exception."""
    code, exception, events = _OK, None, span.events
    if span.status.status_code is StatusCode.ERROR:
        code, exception, events = _failure(events, typed)
        if span.status.description:
            metadata[DESCRIPTION] = span.status.description
    elif span.status.status_code is StatusCode.OK:
        metadata[STATUS] = OK
    if events:
        metadata[EVENTS] = json_bytes([each.told() for each in events]).decode()
    if span.links:
        metadata[LINKS] = json_bytes(list(map(link_told, span.links))).decode()
    metadata.update(span.dropped)
    return code, exception


def _failure(events: list[Happened], typed: bool) -> tuple[int, dict[str, Any] | None, list[Happened]]:
    """Return a failed span's error code, the last exception among its events, and the other events."""
    for place in reversed(range(len(events))):
        if events[place].name == EXCEPTION:
            rest = events[place].attributes.copy()
            return (
                _EXCEPTION,
                {
                    "type": str(rest.pop(EXCEPTION_TYPE, "")),
                    "message": str(rest.pop(EXCEPTION_MESSAGE, "")),
                    "traceback": str(rest.pop(EXCEPTION_STACKTRACE, "")),
                    "time": written(events[place].time_ns, typed),
                    "additional_data": rest,
                },
                [*events[:place], *events[place + 1 :]],
            )
    return _ERROR, None, events


def link_told(link: Link) -> dict[str, Any]:
    """Return what stands in the metadata."""
    context = link.context
    return {
        "trace_id": format_trace_id(context.trace_id),
        "span_id": format_span_id(context.span_id),
        "trace_state": context.trace_state.to_header(),
        "flags": int(context.trace_flags),
        "attributes": dict(link.attributes or {}),
    }
