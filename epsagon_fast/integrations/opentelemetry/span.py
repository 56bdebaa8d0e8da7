"""A span as OpenTelemetry's interface wants it.

No lock: each call is one operation of a dict or a list, which the GIL makes whole.
"""

import logging
import time
from collections.abc import Mapping
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
from epsagon_fast.producer.exceptions import exception_of
from epsagon_fast.producer.plain import Copy, printed
from epsagon_fast.span_names import (
    DROPPED_ATTRIBUTES,
    DROPPED_EVENTS,
    DROPPED_LINKS,
    EXCEPTION,
    EXCEPTION_ESCAPED,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)

from .mapping import Happened, SpanScope
from .recording import Recording

# The defaults of OpenTelemetry's specification for one span.
MOST_ATTRIBUTES: Final = 128
MOST_EVENTS: Final = 128
MOST_LINKS: Final = 128
_SCALARS: Final = (str, int, bool, float)
_UNSET: Final = Status()
_logger: Final = logging.getLogger(__name__)


class RecordedSpan(Recording, Span):
    """One span. Times are nanoseconds since the epoch.

    Public beside OpenTelemetry's interface, as in its SDK: name, kind, attributes, events, links, status, start_time,
    end_time. Read only.
    """

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
        self._context: SpanContext | None = None

    def end(self, end_time: int | None = None) -> None:
        """End the span at `end_time`, by default now, and record it. A second call does nothing."""
        if self.end_time is not None:
            _logger.warning("Calling end() on an ended span.")
            return
        self.end_time = time.time_ns() if end_time is None else end_time
        self.finish()

    def get_span_context(self) -> SpanContext:
        """Return the ids with which others continue this span."""
        if self._context is None:
            tracer = self.place.still_open()
            context = self.place.heritage() if tracer is None else handed_on(tracer, self.span_id)
            self._context = context_of(context, self.span_id)
        return self._context

    def is_recording(self) -> bool:
        """Say whether the span has not ended, nor was left out by sampling."""
        return self.end_time is None and not self.is_left_out()

    def give(self, attributes: Mapping[str, Any]) -> None:
        """Set the attributes that the span begins with."""
        # A plain dict of scalars is what nearly all have. Its copy is one step.
        given = attributes.copy() if type(attributes) is dict else {}
        if given and len(given) <= MOST_ATTRIBUTES:
            for value in given.values():
                if type(value) not in _SCALARS:
                    break
            else:
                self.attributes = given
                return
        self.set_attributes(attributes)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute to `value` as it is now."""
        if self.end_time is not None:
            _logger.warning("Setting attribute on ended span.")
            return
        if type(key) is not str:
            _logger.warning("An attribute whose name is no text is left out.")
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
        if self._has_ended() or not (context and (context.is_valid or context.trace_state or attributes)):
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
        module = "" if kind.__module__ in (None, "builtins") else f"{kind.__module__}."
        known = exception_of("", exception)
        said = {
            EXCEPTION_TYPE: f"{module}{kind.__qualname__}",
            EXCEPTION_MESSAGE: known["message"],
            EXCEPTION_STACKTRACE: known["traceback"],
            EXCEPTION_ESCAPED: str(escaped),
        }
        self.add_event(EXCEPTION, {**said, **(attributes or {})}, timestamp)

    def note_exception(self, error: BaseException, escaped: bool = False) -> None:
        """Do what the span's tracer was told to do with an exception that leaves its block."""
        if self.end_time is not None:
            return
        if self.record_exceptions:
            self.record_exception(error, escaped=escaped)
        if self.set_status_on_exception:
            self.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {printed(error)}"))

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
