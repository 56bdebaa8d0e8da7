"""OTLP in JSON, as its specification maps it from protobuf: ids in hex, 64-bit numbers as texts."""

from collections.abc import Mapping, Sequence

import orjson

from epsagon_fast.collector.formats.conventions import Value
from epsagon_fast.collector.formats.shapes import Happening, Link, Span
from epsagon_fast.collector.formats.spans import by_scope
from epsagon_fast.digits import signed
from epsagon_fast.hints import Any

CONTENT_TYPE = "application/json"
# No span takes fewer: the names of the members that each has.
LEAST_SPAN_BYTES = 180
# Inside a string the quotes have backslashes, so only a span has this.
_MARK_OF_SPAN = b'"startTimeUnixNano":"'


def resource(attributes: Mapping[str, Value]) -> bytes:
    """Return what spans of one resource have in common."""
    return orjson.dumps({"attributes": pairs(attributes)})


def part(resource: bytes, version: str, spans: Sequence[Span]) -> bytes:
    """Return one trace's part of a request. `resource`: as the function of this name made it."""
    scopes = [
        {"scope": {"name": name, "version": of_name}, "spans": list(map(_span, of_scope))}
        for name, of_name, of_scope in by_scope(spans, version)
    ]
    return orjson.dumps({"resource": orjson.Fragment(resource), "scopeSpans": scopes})


def request(parts: Sequence[bytes]) -> bytes:
    """Return a request's body of the parts of several traces."""
    # Each is copied once, and not again for what stands around all of them.
    pieces = [*parts]
    pieces[0] = b'{"resourceSpans":[' + pieces[0]
    pieces[-1] += b"]}"
    return b",".join(pieces)


def span_count(part: bytes) -> int:
    """Return how many spans a part has."""
    return part.count(_MARK_OF_SPAN)


def partial_success(answer: bytes) -> tuple[int, str]:
    """Return how many spans a friendly answer says were not taken, and why."""
    try:
        said = orjson.loads(answer)["partialSuccess"]
        rejected = said.get("rejectedSpans", 0)
        count = signed(rejected) if isinstance(rejected, str) else int(rejected)
        return count or 0, str(said.get("errorMessage") or "")
    except (ValueError, TypeError, KeyError, AttributeError):
        # Some backends answer with a page, or with nothing.
        return 0, ""


def span(span: Span) -> bytes:
    """Return one span."""
    return orjson.dumps(_span(span))


def scope(name: str, version: str) -> bytes:
    """Return the part of a scope's spans that stands before them."""
    return orjson.dumps({"scope": {"name": name, "version": version}, "spans": []})[:-2]


def named(name: str, kind: int) -> bytes:
    """Return the part of a span that stands between its ids and its times."""
    return orjson.dumps({"name": name, "kind": kind})[1:-1]


def members(attributes: Mapping[str, Value]) -> bytes:
    """Return attributes as they stand in a span, without what is around them."""
    return orjson.dumps(pairs(attributes))[1:-1]


def rest(status: int) -> bytes:
    """Return the part of a span that stands behind its attributes, if nothing happened in it."""
    return b"]," + orjson.dumps({"events": [], "status": {"code": status, "message": ""}})[1:-1]


def _span(span: Span) -> dict[str, Any]:
    said: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "parentSpanId": span.parent_id,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": pairs(span.attributes),
        "events": [_happening(each) for each in span.happenings],
        "status": {"code": span.status, "message": span.message},
    }
    if span.trace_state:
        said["traceState"] = span.trace_state
    if span.links:
        said["links"] = list(map(_link, span.links))
    if any(span.dropped):
        attributes, events, links = span.dropped
        said |= {"droppedAttributesCount": attributes, "droppedEventsCount": events, "droppedLinksCount": links}
    return said


def _link(link: Link) -> dict[str, Any]:
    return {
        "traceId": link.trace_id,
        "spanId": link.span_id,
        "traceState": link.trace_state,
        "flags": link.flags,
        "attributes": pairs(link.attributes),
    }


def _happening(happening: Happening) -> dict[str, Any]:
    return {
        "timeUnixNano": str(happening.time_ns),
        "name": happening.name,
        "attributes": pairs(happening.attributes),
    }


def pairs(attributes: Mapping[str, Value]) -> list[dict[str, Any]]:
    """Return attributes as OTLP has them."""
    # Most are texts, and need no call.
    return [
        {"key": key, "value": {"stringValue": value} if type(value) is str else _value(value)}
        for key, value in attributes.items()
    ]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": list(map(_value, value))}}
    return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}
