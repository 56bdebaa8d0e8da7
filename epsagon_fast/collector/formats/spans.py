"""A trace as spans of OpenTelemetry: the one form from which OTLP's encodings are made.

An event may hold anything that JSON can say, because applications push events of their own. So each field is looked at
before it is used, and a value of a wrong type is as if it were not there.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import orjson

from epsagon_fast.collector.digests import sha256
from epsagon_fast.collector.formats import FittedTrace
from epsagon_fast.collector.formats.conventions import (
    RENAMED,
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
from epsagon_fast.collector.formats.told import dropped_of, happenings_of, is_told, links_of, told
from epsagon_fast.hints import Any, Protocol
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, PARENT_ID, TRACESTATE_KEY
from epsagon_fast.span_names import DESCRIPTION, EVENTS

# The name of this tracer in resources and scopes.
SDK = "epsagon_fast"


class TakenIds(Protocol):
    """Ids of spans: a set, or what the compiled writer has instead."""

    def __contains__(self, span_id: object, /) -> bool: ...

    def add(self, span_id: str, /) -> None: ...


class SpanIds:
    """The ids of one trace's spans. Each span has another; an event's own if that is one.

    shared: the trace's id by its runner. taken: the ids of spans that are written already.
    """

    def __init__(self, trace_id: bytes, shared: object, has_runner: bool, taken: TakenIds | None = None) -> None:
        self.trace_id = shared if is_id(shared, TRACE_DIGITS) else trace_id.hex()
        self.runner_id = own_id(trace_id)
        self._root = self.runner_id if has_runner else ""
        self._taken: TakenIds = {self.runner_id} if taken is None else taken

    def own(self, number: int, said: object) -> str:
        """Return the id of an event's span. One that is none, or taken already, gets another, the same at each attempt.

        `number`: its place in the trace.
        """
        if not is_id(said, SPAN_DIGITS) or said in self._taken:
            said = other_id(self.runner_id, number, said)
        self._taken.add(said)
        return said

    def parent(self, span_id: str, said: object) -> str:
        """Return the id of the span below which a span stands, "" if there is none. `said`: by its event."""
        if is_id(said, SPAN_DIGITS) and said != span_id:
            return said
        return "" if span_id == self.runner_id else self._root


class SpansOfTrace:
    """The spans of a trace, one after the other. Raises ValueError if an event is not JSON.

    The trace's exceptions are happenings of its runner's span, else of its first one; without any, of a span that is
    made for them. taken: as SpanIds has it.
    """

    def __init__(self, trace: FittedTrace, taken: TakenIds | None = None) -> None:
        is_made = not trace.events and trace.exceptions
        self.events, self._place = ([b"{}"], 0) if is_made else (trace.events, trace.runner_place)
        self._exceptions = trace.exceptions
        self._runner = {} if self._place is None else object_of(orjson.loads(self.events[self._place]))
        metadata = metadata_of(self._runner)
        self.ids = SpanIds(trace.trace_id, metadata.get(HTTP_TRACE_ID_KEY), self._place is not None, taken)
        self.begun_ns = moment(self._runner.get("start_time"))
        self.state = text_of(metadata.get(TRACESTATE_KEY))

    def span(self, number: int) -> Span:
        """Return the span of the event at this place. Each is asked for once, in their order."""
        is_runner = number == self._place
        event = self._runner if is_runner else object_of(orjson.loads(self.events[number]))
        span_id = self.ids.runner_id if is_runner else self.ids.own(number, event.get("id"))
        span = _span(event, span_id, self.ids, self.begun_ns)
        if number == (self._place or 0):
            span.happenings.extend(thrown(_read(each), span.end_ns) for each in self._exceptions)
        return span._replace(trace_state=self.state) if self.state else span


def spans_of(trace: FittedTrace) -> list[Span]:
    """Return a trace's spans in the order of its events. Raises ValueError if an event is not JSON."""
    spans = SpansOfTrace(trace)
    return [spans.span(number) for number in range(len(spans.events))]


def name_of_runner(runner: Mapping[str, Any]) -> str:
    """Return the name of the span that a trace's runner becomes."""
    resource = object_of(runner.get("resource"))
    kind = resource.get("type")
    if isinstance(kind, str) and kind not in RENAMED:
        return text_of(resource.get("name"))
    words, metadata = _words(resource), object_of(resource.get("metadata"))
    return words[0] if is_told(metadata) else name_of(words, metadata, "", is_runner=True)


def by_scope(spans: Sequence[Span], version: str) -> Iterator[tuple[str, str, Iterator[Span]]]:
    """Yield OpenTelemetry's instrumentation scopes: name, version, spans. `version`: of this tracer's own scopes."""
    for scope, of_scope in groupby(sorted(spans, key=_sorting), _scope):
        yield scope.name, version if scope.version is None else scope.version, of_scope


def metadata_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's metadata."""
    return object_of(object_of(event.get("resource")).get("metadata"))


def scope_of(words: Words, origin: str, is_runner: bool) -> Scope:
    """Return the scope of what this tracer recorded itself."""
    recorder = origin_of(words, origin, is_runner)
    return Scope(f"{SDK}.{recorder}" if recorder else SDK)


def order_of(scope: Scope) -> tuple[str, bool, str]:
    """Return by what a part's scopes are sorted. No two have the same."""
    return scope.name, scope.version is not None, scope.version or ""


def _scope(span: Span) -> Scope:
    return span.scope


def _sorting(span: Span) -> tuple[str, bool, str]:
    return order_of(span.scope)


def _span(event: dict[str, Any], span_id: str, ids: SpanIds, begun_ns: int) -> Span:
    is_runner = span_id == ids.runner_id
    resource = object_of(event.get("resource"))
    metadata = object_of(resource.get("metadata"))
    words = _words(resource)
    parent = ids.parent(span_id, event.get(PARENT_ID))
    if is_told(metadata):
        return told((ids.trace_id, span_id, parent), words[0], event, metadata, is_runner)
    origin = text_of(event.get("origin"))
    # An event that an application adds may have no time. It is shown where its trace begins, and not in 1970.
    start_ns = moment(event.get("start_time")) or begun_ns
    end_ns = min(MAX_NS, start_ns + nanoseconds(event.get("duration")))
    exception = object_of(event.get("exception"))
    attributes = attributes_of(words, metadata, is_runner)
    status, message = UNSET, ""
    if event.get("error_code") or was_refused(words, attributes, is_runner):
        attributes.setdefault("error.type", error_type(event.get("error_code"), exception or None, attributes))
        status, message = ERROR, text_of(metadata.get(DESCRIPTION)) or text_of(exception.get("message"))
    return Span(
        trace_id=ids.trace_id,
        span_id=span_id,
        parent_id=parent,
        name=name_of(words, metadata, origin, is_runner),
        kind=kind_of(words, metadata, is_runner),
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=attributes,
        status=status,
        message=message,
        happenings=_happenings(metadata, exception, end_ns),
        scope=scope_of(words, origin, is_runner),
        links=links_of(metadata),
        dropped=dropped_of(metadata),
    )


def _happenings(metadata: Mapping[str, Any], exception: dict[str, Any], end_ns: int) -> list[Happening]:
    found = list(happenings_of(metadata[EVENTS])) if EVENTS in metadata else []
    if exception:
        found.append(thrown(exception, end_ns))
    return found


def _words(resource: Mapping[str, Any]) -> Words:
    return text_of(resource.get("name")), text_of(resource.get("type")), text_of(resource.get("operation"))


def own_id(data: bytes) -> str:
    """Return the id of a span that has none but these bytes."""
    # A span id of zeros means none.
    return data[: SPAN_DIGITS // 2].hex() if any(data[: SPAN_DIGITS // 2]) else "1".zfill(SPAN_DIGITS)


def other_id(runner_id: str, number: int, said: object) -> str:
    """Return the id of an event's span that has none of its own. `number`: its place; `said`: what it has as its id."""
    return own_id(sha256(f"{runner_id} {number} {said}".encode()))


def _read(exception: bytes) -> dict[str, Any]:
    # What is broken is replaced before its trace is tried again, but a broken exception alone causes no second try.
    try:
        return object_of(orjson.loads(exception))
    except ValueError:
        return {}
