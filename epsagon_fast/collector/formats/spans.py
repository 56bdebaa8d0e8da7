"""A trace as spans of OpenTelemetry: the one form from which OTLP's encodings are made.

An event may hold anything that JSON can say, because applications push events of their own. So each field is looked at
before it is used, and a value of a wrong type is as if it were not there.
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from itertools import groupby
from typing import Any, NamedTuple, TypeGuard

import orjson

from epsagon_fast.collector.formats import FittedTrace
from epsagon_fast.collector.formats.conventions import (
    Value,
    Words,
    attribute,
    attributes_of,
    error_type,
    kind_of,
    name_of,
)
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, PARENT_ID

# The name of this tracer in resources and scopes.
SDK = "epsagon_fast"
UNSET, ERROR = 0, 2
NS_PER_S = 1_000_000_000
# OTLP's times are unsigned numbers of 64 bits.
MAX_NS = 2**64 - 1
# Before epoch or after the year 2554 a float says nothing that OTLP can hold; its decimal would be hundreds of digits.
_MAX_S = MAX_NS / NS_PER_S
_TRACE_DIGITS, _SPAN_DIGITS = 32, 16
_DIGITS = frozenset(string.hexdigits.lower())

Attributes = dict[str, Value]


class Happening(NamedTuple):
    """An event of a span, in OpenTelemetry's sense of the word."""

    name: str
    time_ns: int
    attributes: Attributes


class Span(NamedTuple):
    """One span. Ids are lower-case hex digits, `parent_id` "" without a parent; times are unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    status: int
    message: str
    happenings: list[Happening]
    # What recorded it.
    origin: str


def spans_of(trace: FittedTrace) -> list[Span]:
    """Return a trace's spans in the order of its events. Raises ValueError if an event is not JSON.

    The trace's exceptions are happenings of its runner's span, else of its first one; without any, of a span that is
    made for them.
    """
    events = [_object(orjson.loads(each)) for each in trace.events]
    runner = {} if trace.runner_place is None else events[trace.runner_place]
    shared = metadata_of(runner).get(HTTP_TRACE_ID_KEY)
    trace_id = shared if _is_id(shared, _TRACE_DIGITS) else trace.trace_id.hex()
    runner_id = _own_id(trace.trace_id)
    if not events and trace.exceptions:
        events, runner_place = [{}], 0
    else:
        runner_place = -1 if trace.runner_place is None else trace.runner_place
    ids = _ids(events, runner_place, runner_id)
    parent = runner_id if runner_place >= 0 else ""
    begun_ns = nanoseconds(runner.get("start_time"))
    spans = [
        _span(event, trace_id, span_id, "" if number == runner_place else parent, number == runner_place, begun_ns)
        for number, (event, span_id) in enumerate(zip(events, ids, strict=True))
    ]
    if spans:
        host = spans[max(0, runner_place)]
        host.happenings.extend(_thrown(_read(each), host.end_ns) for each in trace.exceptions)
    return spans


def name_of_runner(runner: Mapping[str, Any]) -> str:
    """Return the name of the span that a trace's runner becomes."""
    resource = _object(runner.get("resource"))
    return name_of(_words(resource), _object(resource.get("metadata")), "", is_runner=True)


def by_scope(spans: Sequence[Span]) -> Iterator[tuple[str, Iterator[Span]]]:
    """Yield OpenTelemetry's instrumentation scopes, one for each origin, with their spans."""
    for origin, of_origin in groupby(sorted(spans, key=_origin), _origin):
        yield (f"{SDK}.{origin}" if origin else SDK), of_origin


def metadata_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's metadata."""
    return _object(_object(event.get("resource")).get("metadata"))


def nanoseconds(seconds: object) -> int:
    """Return unix nanoseconds of what JSON holds as seconds, without the error of a float's multiplication."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _MAX_S:
        return 0
    # The shortest decimal that means this float: the digits that the JSON had.
    return min(MAX_NS, int(Decimal(repr(seconds)) * NS_PER_S))


def _origin(span: Span) -> str:
    return span.origin


def _span(event: dict[str, Any], trace_id: str, span_id: str, parent_id: str, is_runner: bool, begun_ns: int) -> Span:
    resource = _object(event.get("resource"))
    metadata = _object(resource.get("metadata"))
    origin = _text(event.get("origin"))
    words = _words(resource)
    named = event.get(PARENT_ID)
    # An event that an application adds may have no time. It is shown where its trace begins, and not in 1970.
    start_ns = nanoseconds(event.get("start_time")) or begun_ns
    end_ns = min(MAX_NS, start_ns + nanoseconds(event.get("duration")))
    exception = event.get("exception")
    exception = exception if isinstance(exception, dict) and exception else None
    attributes = attributes_of(words, metadata, is_runner)
    failed = bool(event.get("error_code"))
    if failed:
        attributes.setdefault("error.type", error_type(event.get("error_code"), exception, attributes))
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=named if _is_id(named, _SPAN_DIGITS) and named != span_id else parent_id,
        name=name_of(words, metadata, origin, is_runner),
        kind=kind_of(words, metadata, is_runner),
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=attributes,
        status=ERROR if failed else UNSET,
        message=_text(exception.get("message")) if failed and exception else "",
        happenings=[_thrown(exception, end_ns)] if exception else [],
        origin=origin,
    )


def _words(resource: Mapping[str, Any]) -> Words:
    return _text(resource.get("name")), _text(resource.get("type")), _text(resource.get("operation"))


def _thrown(exception: dict[str, Any], end_ns: int) -> Happening:
    """Return an exception as the conventions want it. `end_ns`: of its span, for one without a time."""
    said = {
        "exception.type": _text(exception.get("type")),
        "exception.message": _text(exception.get("message")),
        "exception.stacktrace": _text(exception.get("traceback")),
    }
    more = {key: attribute(value) for key, value in _object(exception.get("additional_data")).items()}
    known = {key: value for key, value in said.items() if value}
    return Happening("exception", nanoseconds(exception.get("time")) or end_ns, {**more, **known})


def _ids(events: list[dict[str, Any]], runner_place: int, runner_id: str) -> Iterator[str]:
    """Yield the events' span ids. One that is none, or taken already, gets another, the same at each attempt."""
    taken = {runner_id}
    for number, event in enumerate(events):
        if number == runner_place:
            yield runner_id
            continue
        span_id = event.get("id")
        if not _is_id(span_id, _SPAN_DIGITS) or span_id in taken:
            span_id = _own_id(sha256(f"{runner_id} {number} {span_id}".encode()).digest())
        taken.add(span_id)
        yield span_id


def _own_id(data: bytes) -> str:
    # A span id of zeros means none.
    return data[: _SPAN_DIGITS // 2].hex() if any(data[: _SPAN_DIGITS // 2]) else "1".zfill(_SPAN_DIGITS)


def _is_id(said: object, digits: int) -> TypeGuard[str]:
    return isinstance(said, str) and len(said) == digits and _DIGITS.issuperset(said) and said.strip("0") != ""


def _read(exception: bytes) -> dict[str, Any]:
    # What is broken is replaced before its trace is tried again, but a broken exception alone causes no second try.
    try:
        return _object(orjson.loads(exception))
    except ValueError:
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(attribute(value))
