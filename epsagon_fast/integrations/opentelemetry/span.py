"""A span on our recorder: an event of the trace around it, or a trace of its own if there is none.

No lock: each call is one operation of a dict or a list, which the GIL makes whole. Only the process that began a span
ends it; in a child that was forked inside it, ending it does nothing.
"""

import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    INVALID_SPAN_CONTEXT,
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from epsagon_fast.producer.context import TraceContext, handed_on
from epsagon_fast.producer.ids import span_id
from epsagon_fast.producer.place import Place
from epsagon_fast.producer.plain import Copy, metadata_text
from epsagon_fast.producer.process import process
from epsagon_fast.producer.runner import new_runner
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.propagation import HTTP_TRACE_ID_KEY, continue_context
from epsagon_fast.protocol import RUNNER_ORIGIN
from epsagon_fast.queue.ring import own_pid
from epsagon_fast.span_names import (
    DROPPED_ATTRIBUTES,
    DROPPED_EVENTS,
    DROPPED_LINKS,
    EXCEPTION,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
    KIND,
    type_and_operation,
)

from .mapping import KIND_NAMES, NS_PER_S, Happened, SpanScope, event_of
from .place import SpanPlace

# The defaults of OpenTelemetry's specification for one span.
MOST_ATTRIBUTES: Final = 128
MOST_EVENTS: Final = 128
MOST_LINKS: Final = 128
_SCALARS: Final = (str, int, bool, float)
_UNSET: Final = Status()
_logger: Final = logging.getLogger(__name__)


class RecordedSpan(Span):
    """One span. Times are nanoseconds since the epoch. `span_id`: 16 hex digits, set when it begins.

    Public beside OpenTelemetry's interface, as in its SDK: name, kind, attributes, events, links, status, start_time,
    end_time. Read only.
    """

    span_id: str
    place: SpanPlace

    def __init__(self, scope: SpanScope, name: str, kind: SpanKind, start_ns: int | None) -> None:
        self.scope = scope
        self.name = name
        self.kind = kind
        self.attributes: dict[str, Any] = {}
        self.events: list[Happened] = []
        self.links: list[Link] = []
        self.status = _UNSET
        self.start_time = time.time_ns() if start_ns is None else start_ns
        self.end_time: int | None = None
        self.dropped: dict[str, int] = {}
        self.record_exceptions = self.set_status_on_exception = True
        # The trace that is this span's own, while it is open.
        self._own: Tracer | None = None
        self._parent_id: str | None = None
        self._owner_pid = own_pid()
        self._context: SpanContext | None = None

    # Beginning.

    def begin_in(self, outer: Place[Tracer], tracer: Tracer, encloses: bool) -> None:
        """Begin as an event of an open trace."""
        tracer.has_blocks = True
        self.span_id = own_id = span_id()
        self._parent_id = outer.span_id
        self.place = SpanPlace(outer, self, own_id, encloses)

    def begin(self, context: TraceContext | None) -> bool:
        """Begin a trace of its own, which continues `context`; False: it is not recorded."""
        tracer = self._opened(context, None)
        if tracer.ignores:
            return False
        self._own = tracer
        self.span_id = tracer.span_id
        self.place = SpanPlace(tracer.place, self, tracer.span_id, True)
        return True

    def succeed(self, context: TraceContext | None) -> Tracer | None:
        """Become a trace of its own with the same ids, because the trace that it was part of has ended."""
        if self._owner_pid != own_pid() or self._own is not None:
            return self._own
        if context is not None and self._parent_id is not None:
            context = context._replace(parent_id=self._parent_id)
        self._own = tracer = self._opened(context, self.span_id)
        return tracer

    def _opened(self, context: TraceContext | None, own_id: str | None) -> Tracer:
        """Open the span's own trace. Its runner is provisional: a process that is killed will not tell more."""
        metadata = {key: metadata_text(value) for key, value in self.attributes.items()} | self.scope.metadata
        metadata[KIND] = kind = KIND_NAMES[self.kind]
        words = type_and_operation(metadata, kind)
        runner = new_runner(self.name, *words, metadata, self.start_time / NS_PER_S)
        tracer = Tracer(process.config(), runner, own_id)
        metadata[HTTP_TRACE_ID_KEY] = continue_context(tracer, context)
        tracer.start()
        return tracer

    # Ending.

    def end(self, end_time: int | None = None) -> None:
        """End the span at `end_time`, by default now, and record it. A second call does nothing."""
        if self.end_time is not None:
            _logger.warning("Calling end() on an ended span.")
            return
        self.end_time = time.time_ns() if end_time is None else end_time
        if self._owner_pid != own_pid():
            return
        tracer = self._own or self.place.still_open() or self.succeed(self.place.heritage())
        if tracer is not None:
            self._record(tracer)

    def _record(self, tracer: Tracer) -> None:
        event = event_of(self, tracer.config.keeps_types)
        if tracer is not self._own:
            parent_id = self._parent_id
            tracer.add_event_under(event, None if parent_id == tracer.span_id else parent_id)
            return
        self._own = None
        tracer.restate_runner({**event, "id": tracer.trace_id, "origin": RUNNER_ORIGIN})
        tracer.send_stop_signal()
        self.place.vacate()

    # OpenTelemetry's interface.

    def get_span_context(self) -> SpanContext:
        """Return the ids with which others continue this span."""
        if self._context is None:
            tracer = self.place.still_open()
            context = self.place.heritage() if tracer is None else handed_on(tracer, self.span_id)
            self._context = context_of(context, self.span_id)
        return self._context

    def is_recording(self) -> bool:
        """Say whether the span has not ended."""
        return self.end_time is None

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute to `value` as it is now."""
        if self.end_time is not None:
            _logger.warning("Setting attribute on ended span.")
            return
        attributes = self.attributes
        attributes[key] = value if type(value) in _SCALARS else Copy().of(value)
        if len(attributes) > MOST_ATTRIBUTES:
            attributes.pop(next(iter(attributes)), None)
            self._drop(DROPPED_ATTRIBUTES)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event. `timestamp`: nanoseconds since the epoch, by default now."""
        if self._has_ended():
            return
        kept = Copy().of(dict(attributes)) if attributes else {}
        self.events.append(Happened(name, kept, time.time_ns() if timestamp is None else timestamp))
        if len(self.events) > MOST_EVENTS:
            self.events.pop(0)
            self._drop(DROPPED_EVENTS)

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link to another span, unless that has neither ids nor anything else to say."""
        if self._has_ended() or not (context.is_valid or context.trace_state or attributes):
            return
        self.links.append(Link(context, Copy().of(dict(attributes)) if attributes else None))
        if len(self.links) > MOST_LINKS:
            self.links.pop(0)
            self._drop(DROPPED_LINKS)

    def update_name(self, name: str) -> None:
        """Give the span another name."""
        if not self._has_ended():
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status. OK is final, and UNSET sets nothing."""
        if self._has_ended():
            return
        if not isinstance(status, Status):
            status = Status(status, description)
        if self.status.status_code is not StatusCode.OK and status.status_code is not StatusCode.UNSET:
            self.status = status

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an exception as an event."""
        kind = type(exception)
        module = kind.__module__
        said = {
            EXCEPTION_TYPE: kind.__qualname__ if module in ("builtins", None, "") else f"{module}.{kind.__qualname__}",
            EXCEPTION_MESSAGE: str(exception),
            EXCEPTION_STACKTRACE: "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event(EXCEPTION, {**said, **(attributes or {})}, timestamp)

    def note_exception(self, error: BaseException, escaped: bool = False) -> None:
        """Do what the span's tracer was told to do with an exception that leaves its block."""
        if self.end_time is not None:
            return
        if self.record_exceptions:
            self.record_exception(error, escaped=escaped)
        if self.set_status_on_exception:
            self.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the span, with the exception that leaves its block."""
        if error is not None:
            self.note_exception(error, escaped=True)
        self.end()

    def _drop(self, name: str) -> None:
        self.dropped[name] = self.dropped.get(name, 0) + 1

    def _has_ended(self) -> bool:
        if self.end_time is not None:
            _logger.warning("Tried calling a method on an ended span.")
        return self.end_time is not None


def context_of(context: TraceContext | None, own_id: str | None) -> SpanContext:
    """Return a trace context as OpenTelemetry has it. `own_id`: the span itself; None: the context's own one."""
    if context is None:
        return INVALID_SPAN_CONTEXT
    state = TraceState.from_header([context.tracestate]) if context.tracestate else DEFAULT_TRACE_STATE
    ids = int(context.trace_id, 16), int(own_id or context.parent_id, 16)
    return SpanContext(*ids, False, TraceFlags(context.flags), state)


def kept_links(links: Sequence[Link] | None) -> list[tuple[SpanContext, Any]]:
    """Return the links that a span is begun with."""
    return [(link.context, link.attributes) for link in links or () if link]
