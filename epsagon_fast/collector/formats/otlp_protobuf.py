"""OTLP in binary protobuf, for backends that take no JSON.

Messages are written here, member by member: objects of opentelemetry-proto cost three times as much. A tag is the
number of a member and its wire type, as OTLP's .proto files have them. A test reads messages with opentelemetry-proto.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from epsagon_fast.collector.formats.conventions import Value
from epsagon_fast.collector.formats.shapes import REMEMBERED_CHARACTERS, Happening, Link, Span
from epsagon_fast.collector.formats.spans import by_scope

CONTENT_TYPE = "application/x-protobuf"
# No span takes fewer: its ids and its times.
LEAST_SPAN_BYTES = 46
# The members on the way from a request to its spans: resource_spans, scope_spans, spans.
_WAY_TO_SPANS = (1, 2, 2)
_PARTIAL_SUCCESS = 1
# `rejected_spans` as it stands first in a partial success: member 1, a varint.
_REJECTED = b"\x08"
_ERROR_MESSAGE = 2
_OF_BYTES = 2
_ONE_BYTE = [bytes([number]) for number in range(0x80)]
_ALL_BITS = 2**64 - 1
# A tag and a number of a fixed size: a span's times, an event's, a link's flags, a float.
_TIMES, _TIME, _FLAGS, _DOUBLE = (struct.Struct(form) for form in ("<BQBQ", "<BQ", "<BI", "<Bd"))


def resource(attributes: Mapping[str, Value]) -> bytes:
    """Return what spans of one resource have in common."""
    return _each(b"\x0a", _pairs(attributes))


def part(resource: bytes, version: str, spans: Sequence[Span]) -> bytes:
    """Return one trace's part of a request. `resource`: as the function of this name made it."""
    scopes = (
        scope(name, of_name) + _each(b"\x12", map(span, of_scope))
        for name, of_name, of_scope in by_scope(spans, version)
    )
    return _sized(b"\x0a", _sized(b"\x0a", resource) + _each(b"\x12", scopes))


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


def scope(name: str, version: str) -> bytes:
    """Return the part of a scope's spans that stands before them."""
    return _sized(b"\x0a", _text(b"\x0a", name) + _text(b"\x12", version))


def named(name: str, kind: int) -> bytes:
    """Return the part of a span that stands between its ids and its times."""
    return _text(b"\x2a", name) + _number(b"\x30", kind)


def members(attributes: Mapping[str, Value]) -> bytes:
    """Return attributes as they stand in a span."""
    return _each(b"\x4a", _pairs(attributes))


def rest(status: int) -> bytes:
    """Return the part of a span that stands behind its attributes, if nothing happened in it."""
    return _sized(b"\x7a", _number(b"\x18", status))


def span(span: Span) -> bytes:
    """Return one span."""
    dropped = span.dropped
    return b"".join(
        (
            _sized(b"\x0a", bytes.fromhex(span.trace_id)),
            _sized(b"\x12", bytes.fromhex(span.span_id)),
            _text(b"\x1a", span.trace_state),
            _sized(b"\x22", bytes.fromhex(span.parent_id)) if span.parent_id else b"",
            named(span.name, span.kind),
            _TIMES.pack(0x39, span.start_ns, 0x41, span.end_ns),
            members(span.attributes),
            _number(b"\x50", dropped.attributes),
            _each(b"\x5a", map(_happening, span.happenings)),
            _number(b"\x60", dropped.happenings),
            _each(b"\x6a", map(_link, span.links)),
            _number(b"\x70", dropped.links),
            _sized(b"\x7a", _text(b"\x12", span.message) + _number(b"\x18", span.status)),
        )
    )


def _link(link: Link) -> bytes:
    return b"".join(
        (
            _sized(b"\x0a", bytes.fromhex(link.trace_id)),
            _sized(b"\x12", bytes.fromhex(link.span_id)),
            _text(b"\x1a", link.trace_state),
            _each(b"\x22", _pairs(link.attributes)),
            _FLAGS.pack(0x35, link.flags) if link.flags else b"",
        )
    )


def _happening(happening: Happening) -> bytes:
    attributes = _each(b"\x1a", _pairs(happening.attributes))
    return _TIME.pack(0x09, happening.time_ns) + _text(b"\x12", happening.name) + attributes


def _pairs(attributes: Mapping[str, Value]) -> Iterator[bytes]:
    """Yield each attribute as a KeyValue."""
    for key, value in attributes.items():
        name = _key(key) if len(key) <= REMEMBERED_CHARACTERS else _key.__wrapped__(key)
        if type(value) is str:
            # Most are texts.
            encoded = value.encode()
            yield name + _sized(b"\x12", b"\x0a" + _varint_of(len(encoded)) + encoded)
        else:
            yield name + _sized(b"\x12", _value(value))


# An application has few keys, and each of its spans has them again.
@lru_cache(1024)
def _key(key: str) -> bytes:
    return _text(b"\x0a", key)


def _value(value: Value) -> bytes:
    """Return an AnyValue. Unlike other members, one that is empty or zero is written too."""
    if isinstance(value, str):
        return _sized(b"\x0a", value.encode())
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, list):
        return _sized(b"\x2a", _each(b"\x0a", map(_value, value)))
    if isinstance(value, int):
        # A negative one is written as its two's complement.
        return b"\x18" + _varint_of(value & _ALL_BITS)
    return _DOUBLE.pack(0x21, value)


def _each(tag: bytes, members: Iterable[bytes]) -> bytes:
    return b"".join([tag + _varint_of(len(member)) + member for member in members])


def _sized(tag: bytes, member: bytes) -> bytes:
    return tag + _varint_of(len(member)) + member


def _text(tag: bytes, text: str) -> bytes:
    return _sized(tag, text.encode()) if text else b""


def _number(tag: bytes, number: int) -> bytes:
    return tag + _varint_of(number) if number else b""


def _varint_of(number: int) -> bytes:
    if number < 0x80:
        return _ONE_BYTE[number]
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
