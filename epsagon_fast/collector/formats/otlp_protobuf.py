"""OTLP in binary protobuf, for backends that take no JSON.

Only `resource` and `part` need the extra `otlp`: what they made can be counted, joined and sent without it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from epsagon_fast.collector.formats.conventions import Value
from epsagon_fast.collector.formats.shapes import Happening, Link, Span
from epsagon_fast.collector.formats.spans import by_scope

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1 import trace_pb2

CONTENT_TYPE = "application/x-protobuf"
# The members on the way from a request to its spans: resource_spans, scope_spans, spans.
_WAY_TO_SPANS = (1, 2, 2)
_PARTIAL_SUCCESS = 1
# `rejected_spans` as it stands first in a partial success: member 1, a varint.
_REJECTED = b"\x08"
_ERROR_MESSAGE = 2
_OF_BYTES = 2


def resource(attributes: Mapping[str, Value]) -> bytes:
    """Return what spans of one resource have in common. Raises ImportError without the extra."""
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    return bytes(Resource(attributes=_pairs(attributes)).SerializeToString())


def part(resource: bytes, version: str, spans: Sequence[Span]) -> bytes:
    """Return one trace's part of a request. `resource`: as the function of this name made it."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.ParseFromString(resource)
    for name, of_name, of_scope in by_scope(spans, version):
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = name
        scope_spans.scope.version = of_name
        scope_spans.spans.extend(map(_span, of_scope))
    return bytes(request.SerializeToString())


def request(parts: Sequence[bytes]) -> bytes:
    """Return a request's body of the parts of several traces. In protobuf, messages one after another are their sum."""
    return b"".join(parts)


def span_count(part: bytes) -> int:
    """Return how many spans a part has."""
    found = [part]
    for member in _WAY_TO_SPANS:
        found = [inner for outer in found for inner in _members(outer, member)]
    return len(found)


def partial_success(answer: bytes) -> tuple[int, str]:
    """Return how many spans a friendly answer says were not taken, and why."""
    try:
        partial = next(_members(answer, _PARTIAL_SUCCESS), b"")
        if not partial.startswith(_REJECTED):
            return 0, ""
        spans, at = _varint(partial, 1)
        return spans, next(_members(partial[at:], _ERROR_MESSAGE), b"").decode("utf-8", "replace")
    except (IndexError, ValueError):
        # It is no protobuf.
        return 0, ""


def _members(message: bytes, wanted: int) -> Iterator[bytes]:
    """Yield the members of this number in a message that has only members with a length."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        size, at = _varint(message, at)
        if tag & 7 != _OF_BYTES:
            raise ValueError("a member without a length")
        if tag >> 3 == wanted:
            yield message[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it. Raises IndexError if it breaks off."""
    number = shift = 0
    while data[at] >= 0x80:
        number |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return number | data[at] << shift, at + 1


def _span(span: Span) -> "trace_pb2.Span":
    from opentelemetry.proto.trace.v1 import trace_pb2

    return trace_pb2.Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        trace_state=span.trace_state,
        parent_span_id=bytes.fromhex(span.parent_id),
        name=span.name,
        kind=cast(Any, span.kind),
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_pairs(span.attributes),
        events=map(_happening, span.happenings),
        status=trace_pb2.Status(code=cast(Any, span.status), message=span.message),
        links=map(_link, span.links),
        dropped_attributes_count=span.dropped.attributes,
        dropped_events_count=span.dropped.happenings,
        dropped_links_count=span.dropped.links,
    )


def _link(link: Link) -> "trace_pb2.Span.Link":
    from opentelemetry.proto.trace.v1 import trace_pb2

    return trace_pb2.Span.Link(
        trace_id=bytes.fromhex(link.trace_id),
        span_id=bytes.fromhex(link.span_id),
        trace_state=link.trace_state,
        flags=link.flags,
        attributes=_pairs(link.attributes),
    )


def _happening(happening: Happening) -> "trace_pb2.Span.Event":
    from opentelemetry.proto.trace.v1 import trace_pb2

    attributes = _pairs(happening.attributes)
    return trace_pb2.Span.Event(time_unix_nano=happening.time_ns, name=happening.name, attributes=attributes)


def _pairs(attributes: Mapping[str, Value]) -> "list[KeyValue]":
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: Value) -> "AnyValue":
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=map(_value, value)))
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)
