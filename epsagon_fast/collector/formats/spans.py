"""A trace as spans of OpenTelemetry: the one form from which OTLP's encodings are made.

An event may hold anything that JSON can say, because applications push events of their own. So each field is looked at
before it is used, and a value of a wrong type is as if it were not there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from epsagon_fast.hints import Any, TypeVar
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, PARENT_ID, TRACESTATE_KEY
from epsagon_fast.rows import NamedTuple
from epsagon_fast.span_names import DESCRIPTION, EVENTS

# The name of this tracer in resources and scopes.
SDK = "epsagon_fast"
SomeSpan = TypeVar("SomeSpan", bound="Span | Written")


class SpanIds:
    """The ids of one trace's spans. Each span has another; an event's own if that is one."""

    def __init__(self, trace_id: bytes, runner: Mapping[str, Any], has_runner: bool) -> None:
        shared = metadata_of(runner).get(HTTP_TRACE_ID_KEY)
        self.trace_id = shared if is_id(shared, TRACE_DIGITS) else trace_id.hex()
        self.runner_id = _own_id(trace_id)
        self._root = self.runner_id if has_runner else ""
        self._taken = {self.runner_id}

    def own(self, number: int, said: object) -> str:
        """Return the id of an event's span. One that is none, or taken already, gets another, the same at each attempt.

        `number`: its place in the trace.
        """
        if not is_id(said, SPAN_DIGITS) or said in self._taken:
            said = _own_id(sha256(f"{self.runner_id} {number} {said}".encode()))
        self._taken.add(said)
        return said

    def parent(self, span_id: str, said: object) -> str:
        """Return the id of the span below which a span stands, "" if there is none. `said`: by its event."""
        if is_id(said, SPAN_DIGITS) and said != span_id:
            return said
        return "" if span_id == self.runner_id else self._root


class Written(NamedTuple):
    """A span in its encoding."""

    scope: Scope
    data: bytes


# Writes an event as a span at once; None: it does not know how to. Takes the span's id, which only a runner has
# already, the event's place in the trace, the trace's ids, and unix nanoseconds of its begin.
Writer = Callable[[bytes, str | None, int, SpanIds, int], Written | None]


def spans_of(trace: FittedTrace, write: Writer | None = None) -> list[Span | Written]:
    """Return a trace's spans in the order of its events. Raises ValueError if an event is not JSON.

    The trace's exceptions are happenings of its runner's span, else of its first one; without any, of a span that is
    made for them. `write`: is asked first.
    """
    is_made = not trace.events and trace.exceptions
    events, place = ([b"{}"], 0) if is_made else (trace.events, trace.runner_place)
    runner = {} if place is None else object_of(orjson.loads(events[place]))
    ids, begun_ns = SpanIds(trace.trace_id, runner, place is not None), moment(runner.get("start_time"))
    state = text_of(metadata_of(runner).get(TRACESTATE_KEY))
    if trace.exceptions or state:
        # What is written cannot be changed.
        write = None
    spans: list[Span | Written] = []
    for number, each in enumerate(events):
        span_id = ids.runner_id if number == place else None
        written = write(each, span_id, number, ids, begun_ns) if write else None
        if written is not None:
            spans.append(written)
            continue
        event = runner if span_id else object_of(orjson.loads(each))
        span = _span(event, span_id or ids.own(number, event.get("id")), ids, begun_ns)
        spans.append(span._replace(trace_state=state) if state else span)
    if isinstance(host := spans[place or 0] if spans else None, Span):
        host.happenings.extend(thrown(_read(each), host.end_ns) for each in trace.exceptions)
    return spans


def name_of_runner(runner: Mapping[str, Any]) -> str:
    """Return the name of the span that a trace's runner becomes."""
    resource = object_of(runner.get("resource"))
    kind = resource.get("type")
    if isinstance(kind, str) and kind not in RENAMED:
        return text_of(resource.get("name"))
    words, metadata = _words(resource), object_of(resource.get("metadata"))
    return words[0] if is_told(metadata) else name_of(words, metadata, "", is_runner=True)


def by_scope(spans: Sequence[SomeSpan], version: str) -> Iterator[tuple[str, str, Iterator[SomeSpan]]]:
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


def _scope(span: Span | Written) -> Scope:
    return span.scope


def _sorting(span: "Span | Written") -> tuple[str, str]:
    return span.scope.name, span.scope.version or ""


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


def _own_id(data: bytes) -> str:
    # A span id of zeros means none.
    return data[: SPAN_DIGITS // 2].hex() if any(data[: SPAN_DIGITS // 2]) else "1".zfill(SPAN_DIGITS)


def _read(exception: bytes) -> dict[str, Any]:
    # What is broken is replaced before its trace is tried again, but a broken exception alone causes no second try.
    try:
        return object_of(orjson.loads(exception))
    except ValueError:
        return {}
