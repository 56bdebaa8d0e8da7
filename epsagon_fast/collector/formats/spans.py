"""A trace as spans of OpenTelemetry: the one form from which OTLP's encodings are made.

An event may hold anything that JSON can say, because applications push events of their own. So each field is looked at
before it is used, and a value of a wrong type is as if it were not there.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any

import orjson

from epsagon_fast.collector.formats import FittedTrace
from epsagon_fast.collector.formats.conventions import (
    Words,
    attributes_of,
    error_type,
    kind_of,
    name_of,
    origin_of,
    was_refused,
)
from epsagon_fast.collector.formats.shapes import (
    ERROR,
    MAX_NS,
    SPAN_DIGITS,
    TRACE_DIGITS,
    UNSET,
    Happening,
    Scope,
    Span,
    is_id,
    moment,
    nanoseconds,
    object_of,
    text_of,
    thrown,
)
from epsagon_fast.collector.formats.told import happenings_of, is_told, told
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, PARENT_ID, TRACESTATE_KEY
from epsagon_fast.span_names import EVENTS

# The name of this tracer in resources and scopes.
SDK = "epsagon_fast"


def spans_of(trace: FittedTrace) -> list[Span]:
    """Return a trace's spans in the order of its events. Raises ValueError if an event is not JSON.

    The trace's exceptions are happenings of its runner's span, else of its first one; without any, of a span that is
    made for them.
    """
    events = [object_of(orjson.loads(each)) for each in trace.events]
    runner = {} if trace.runner_place is None else events[trace.runner_place]
    shared = metadata_of(runner).get(HTTP_TRACE_ID_KEY)
    trace_id = shared if is_id(shared, TRACE_DIGITS) else trace.trace_id.hex()
    runner_id = _own_id(trace.trace_id)
    if not events and trace.exceptions:
        events, runner_place = [{}], 0
    else:
        runner_place = -1 if trace.runner_place is None else trace.runner_place
    ids = _ids(events, runner_place, runner_id)
    parent = runner_id if runner_place >= 0 else ""
    begun_ns = moment(runner.get("start_time"))
    spans = [
        _span(event, trace_id, span_id, "" if number == runner_place else parent, number == runner_place, begun_ns)
        for number, (event, span_id) in enumerate(zip(events, ids, strict=True))
    ]
    if state := text_of(metadata_of(runner).get(TRACESTATE_KEY)):
        spans = [span._replace(trace_state=state) for span in spans]
    if spans:
        host = spans[max(0, runner_place)]
        host.happenings.extend(thrown(_read(each), host.end_ns) for each in trace.exceptions)
    return spans


def name_of_runner(runner: Mapping[str, Any]) -> str:
    """Return the name of the span that a trace's runner becomes."""
    resource = object_of(runner.get("resource"))
    words, metadata = _words(resource), metadata_of(runner)
    return words[0] if is_told(metadata) else name_of(words, metadata, "", is_runner=True)


def by_scope(spans: Sequence[Span], version: str) -> Iterator[tuple[str, str, Iterator[Span]]]:
    """Yield OpenTelemetry's instrumentation scopes: name, version, spans. `version`: of this tracer's own scopes."""
    for scope, of_scope in groupby(sorted(spans, key=_sorting), _scope):
        yield scope.name, version if scope.version is None else scope.version, of_scope


def metadata_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's metadata."""
    return object_of(object_of(event.get("resource")).get("metadata"))


def _scope(span: Span) -> Scope:
    return span.scope


def _sorting(span: Span) -> tuple[str, str]:
    return span.scope.name, span.scope.version or ""


def _span(event: dict[str, Any], trace_id: str, span_id: str, parent_id: str, is_runner: bool, begun_ns: int) -> Span:
    resource = object_of(event.get("resource"))
    metadata = object_of(resource.get("metadata"))
    words = _words(resource)
    named = event.get(PARENT_ID)
    parent = named if is_id(named, SPAN_DIGITS) and named != span_id else parent_id
    if is_told(metadata):
        return told((trace_id, span_id, parent), words[0], event, metadata, is_runner)
    origin = text_of(event.get("origin"))
    # An event that an application adds may have no time. It is shown where its trace begins, and not in 1970.
    start_ns = moment(event.get("start_time")) or begun_ns
    end_ns = min(MAX_NS, start_ns + nanoseconds(event.get("duration")))
    exception = object_of(event.get("exception"))
    attributes = attributes_of(words, metadata, is_runner)
    failed = bool(event.get("error_code")) or was_refused(words, attributes, is_runner)
    if failed:
        attributes.setdefault("error.type", error_type(event.get("error_code"), exception or None, attributes))
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent,
        name=name_of(words, metadata, origin, is_runner),
        kind=kind_of(words, metadata, is_runner),
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=attributes,
        status=ERROR if failed else UNSET,
        message=text_of(exception.get("message")) if failed else "",
        happenings=_happenings(metadata, exception, end_ns),
        scope=Scope(f"{SDK}.{recorder}" if (recorder := origin_of(words, origin, is_runner)) else SDK),
    )


def _happenings(metadata: Mapping[str, Any], exception: dict[str, Any], end_ns: int) -> list[Happening]:
    found = list(happenings_of(metadata[EVENTS])) if EVENTS in metadata else []
    if exception:
        found.append(thrown(exception, end_ns))
    return found


def _words(resource: Mapping[str, Any]) -> Words:
    return text_of(resource.get("name")), text_of(resource.get("type")), text_of(resource.get("operation"))


def _ids(events: list[dict[str, Any]], runner_place: int, runner_id: str) -> Iterator[str]:
    """Yield the events' span ids. One that is none, or taken already, gets another, the same at each attempt."""
    taken = {runner_id}
    for number, event in enumerate(events):
        if number == runner_place:
            yield runner_id
            continue
        span_id = event.get("id")
        if not is_id(span_id, SPAN_DIGITS) or span_id in taken:
            span_id = _own_id(sha256(f"{runner_id} {number} {span_id}".encode()).digest())
        taken.add(span_id)
        yield span_id


def _own_id(data: bytes) -> str:
    # A span id of zeros means none.
    return data[: SPAN_DIGITS // 2].hex() if any(data[: SPAN_DIGITS // 2]) else "1".zfill(SPAN_DIGITS)


def _read(exception: bytes) -> dict[str, Any]:
    # What is broken is replaced before its trace is tried again, but a broken exception alone causes no second try.
    try:
        return object_of(orjson.loads(exception))
    except ValueError:
        return {}
