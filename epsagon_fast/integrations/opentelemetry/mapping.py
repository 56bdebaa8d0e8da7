"""What a span is as an event: docs/opentelemetry.md has the table.

Kinds, links, span events and statuses have no field in an event, so they stand in its metadata, under the names that
OpenTelemetry itself uses for formats that are not its own. The OTLP format turns them back.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from opentelemetry.trace import Link, SpanKind, Status, StatusCode, format_span_id, format_trace_id

from epsagon_fast.producer.plain import metadata_text
from epsagon_fast.protocol import FUNCTION_TYPE, INVOKE, ErrorCode

NS_PER_S: Final = 1_000_000_000
# The names of what an attribute cannot say.
KIND: Final = "span.kind"
SCOPE: Final = "otel.scope.name"
SCOPE_VERSION: Final = "otel.scope.version"
STATUS: Final = "otel.status_code"
DESCRIPTION: Final = "otel.status_description"
EVENTS: Final = "span.events"
LINKS: Final = "span.links"

EXCEPTION: Final = "exception"
_KINDS: Final = {kind: kind.name.lower() for kind in SpanKind}
_OK, _ERROR, _EXCEPTION = map(int, (ErrorCode.OK, ErrorCode.ERROR, ErrorCode.EXCEPTION))
# Attributes whose value is an event's type, and those that say its operation; the older names of some come last.
_TYPES: Final = (
    ("db.system.name", ("db.operation.name",)),
    ("db.system", ("db.operation", "db.operation.name")),
    ("messaging.system", ("messaging.operation.name", "messaging.operation.type", "messaging.operation")),
    ("rpc.system.name", ("rpc.method",)),
    ("rpc.system", ("rpc.method",)),
)
_HTTP: Final = "http"
_HTTP_METHODS: Final = ("http.request.method", "http.method")


class Happened:
    """An event of a span, in OpenTelemetry's sense of the word. `time_ns`: since the epoch."""

    __slots__ = ("attributes", "name", "time_ns")

    def __init__(self, name: str, attributes: dict[str, Any], time_ns: int) -> None:
        self.name = name
        self.attributes = attributes
        self.time_ns = time_ns


class Scope:
    """What OpenTelemetry calls the instrumentation scope: the library that makes spans. `metadata`: of its spans."""

    def __init__(self, name: str, version: str | None) -> None:
        self.name = name
        self.metadata = {SCOPE: name, **({SCOPE_VERSION: version} if version else {})}


class Recorded(Protocol):
    """What a span has recorded. Times are nanoseconds since the epoch."""

    span_id: str
    scope: Scope
    name: str
    kind: SpanKind
    attributes: dict[str, Any]
    events: list[Happened]
    links: list[Link]
    status: Status
    start_time: int
    end_time: int | None


def words_of(attributes: Mapping[str, Any]) -> tuple[str, str]:
    """Return an event's type and operation, as far as a span's attributes say them."""
    for name in _HTTP_METHODS:
        if name in attributes:
            return _HTTP, str(attributes[name])
    for name, operations in _TYPES:
        if name in attributes:
            said = next((attributes[each] for each in operations if each in attributes), INVOKE)
            return str(attributes[name]), str(said)
    return FUNCTION_TYPE, INVOKE


def event_of(span: Recorded) -> dict[str, Any]:
    """Return an ended span as an event, complete and in wire order."""
    metadata = {**span.attributes, **span.scope.metadata}
    kind, operation = words_of(metadata)
    if span.kind is not SpanKind.INTERNAL:
        metadata[KIND] = _KINDS[span.kind]
    status = span.status
    code, exception = _OK, None
    if status.status_code is StatusCode.ERROR:
        code = _ERROR
        if status.description:
            metadata[DESCRIPTION] = status.description
    elif status.status_code is StatusCode.OK:
        metadata[STATUS] = status.status_code.name
    if span.events:
        events = span.events.copy()
        if code != _OK and (exception := _exception_of(events)) is not None:
            code = _EXCEPTION
        if events:
            metadata[EVENTS] = metadata_text([_as_json(each) for each in events])
    if span.links:
        metadata[LINKS] = metadata_text([_link(each) for each in span.links])
    start_ns = span.start_time
    return {
        "id": span.span_id,
        "start_time": start_ns / NS_PER_S,
        "resource": {"name": span.name, "type": kind, "operation": operation, "metadata": metadata},
        "origin": span.scope.name,
        "duration": max(0, (span.end_time or start_ns) - start_ns) / NS_PER_S,
        "error_code": code,
        "exception": exception,
    }


def _exception_of(events: list[Happened]) -> dict[str, Any] | None:
    """Take the last exception out of a span's events."""
    for place in reversed(range(len(events))):
        if events[place].name == EXCEPTION:
            thrown = events.pop(place)
            rest = dict(thrown.attributes)
            return {
                "type": str(rest.pop("exception.type", "")),
                "message": str(rest.pop("exception.message", "")),
                "traceback": str(rest.pop("exception.stacktrace", "")),
                "time": thrown.time_ns / NS_PER_S,
                "additional_data": rest,
            }
    return None


def _as_json(event: Happened) -> dict[str, Any]:
    return {"name": event.name, "time_ns": event.time_ns, "attributes": event.attributes}


def _link(link: Link) -> dict[str, Any]:
    context = link.context
    said = {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}
    state = context.trace_state.to_header()
    return {**said, **({"trace_state": state} if state else {}), "attributes": dict(link.attributes or {})}


def frozen(value: Any) -> Any:
    """Return an attribute's value as it is now: later changes of a list or a mapping have no effect."""
    if isinstance(value, Mapping):
        return {key: frozen(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [frozen(inner) for inner in value]
    return value
