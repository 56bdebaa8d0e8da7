"""A span as OpenTelemetry's interface wants it.

No lock: each call is one operation of a dict or a list, which the GIL makes whole. An argument of a wrong type breaks
nothing, as with OpenTelemetry's own spans that record nothing.
"""

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

from epsagon_fast.log import warn
from epsagon_fast.producer.context import TraceContext, handed_on
from epsagon_fast.producer.exceptions import exception_of
from epsagon_fast.producer.plain import Copy, clean, full_type_name, printed
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

from .limits import Limits
from .mapping import Happened, SpanScope
from .recording import Recording

_SCALARS: Final = (str, int, bool, float)
_UNSET: Final = Status()


class RecordedSpan(Recording, Span):
    """One span. Times are nanoseconds since the epoch.

    Public beside OpenTelemetry's interface, as in its SDK: name, kind, attributes, events, links, status, start_time,
    end_time. Read only.
    """

    def __init__(self, scope: SpanScope, limits: Limits, name: str, kind: SpanKind, start_ns: int | None) -> None:
        self.scope = scope
        self.name = name
        self.kind = kind
        self.attributes: dict[str, Any] = {}
        self.events: list[Happened] = []
        self.links: list[Link] = []
        self.status = _UNSET
        self.start_time = time.time_ns() if start_ns is None else nanoseconds(start_ns)
        self.end_time: int | None = None
        # Empty from the first call of `end` on.
        self._ends = [None]
        self._limits = limits
        self.dropped: dict[str, int] = {}
        self.record_exceptions = self.set_status_on_exception = True
        self._context: SpanContext | None = None

    def end(self, end_time: int | None = None) -> None:
        """End the span at `end_time`, by default now, and record it. A second call does nothing."""
        try:
            # One step, so only one of several threads ends the span.
            self._ends.pop()
        except IndexError:
            _complain("Calling end() on an ended span")
            return
        self.end_time = time.time_ns() if end_time is None else nanoseconds(end_time)
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
        most, _, _, characters = self._limits
        given = attributes.copy() if type(attributes) is dict and characters is None else {}
        if given and len(given) <= most:
            for value in given.values():
                if type(value) not in _SCALARS:
                    break
            else:
                self.attributes = given
                return
        self.set_attributes(attributes)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        if not isinstance(attributes, Mapping):
            _complain("Attributes that are no mapping are left out")
            return
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute to `value` as it is now."""
        if self.end_time is not None:
            _complain("Setting attribute on ended span")
            return
        if type(key) is not str:
            if not issubclass(type(key), str):
                _complain("An attribute whose name is no text is left out")
                return
            key = clean(key)
        attributes = self.attributes
        most, _, _, characters = self._limits
        kept = value if type(value) in _SCALARS else Copy().of(value)
        attributes[key] = kept if characters is None else shortened(kept, characters)
        if len(attributes) > most:
            # Of a copy, because another thread may add one meanwhile.
            attributes.pop(next(iter(attributes.copy())), None)
            self._drop(DROPPED_ATTRIBUTES)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event. `timestamp`: nanoseconds since the epoch, by default now."""
        if self._has_ended():
            return
        self.events.append(happened(name, attributes, timestamp))
        if len(self.events) > self._limits.events:
            self.events.pop(0)
            self._drop(DROPPED_EVENTS)

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link to another span, unless that has neither ids nor anything else to say."""
        if self._has_ended() or not says_something(context, attributes):
            return
        self.links.append(Link(context, copied(attributes)))
        if len(self.links) > self._limits.links:
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
        known = exception_of("", exception)
        said = {
            EXCEPTION_TYPE: full_type_name(exception),
            EXCEPTION_MESSAGE: known["message"],
            EXCEPTION_STACKTRACE: known["traceback"],
            EXCEPTION_ESCAPED: str(escaped),
        }
        self.add_event(EXCEPTION, {**said, **copied(attributes)}, timestamp)

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
            _complain("Tried calling a method on an ended span")
        return self.end_time is not None


def happened(name: str, attributes: Mapping[str, Any] | None, time_ns: int | None) -> Happened:
    """Return an event of a span as it is now. `time_ns`: None: now."""
    return Happened(name, copied(attributes), time.time_ns() if time_ns is None else nanoseconds(time_ns))


def copied(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of attributes; {} if they are no mapping."""
    copy = Copy().of(attributes) if attributes else None
    return copy if type(copy) is dict else {}


def says_something(context: Any, attributes: object) -> bool:
    """Say whether a link is worth keeping."""
    return isinstance(context, SpanContext) and bool(context.is_valid or context.trace_state or attributes)


def nanoseconds(said: Any) -> int:
    """Return a time as an int. If it is no number, now."""
    if type(said) is int:
        return said
    try:
        return int(said)
    except (TypeError, ValueError, OverflowError):
        return time.time_ns()


def shortened(value: Any, most: int) -> Any:
    """Return an attribute whose texts have at most so many characters."""
    if type(value) is list:
        return [shortened(each, most) for each in value]
    return value[:most] if type(value) is str else value


def context_of(context: TraceContext | None, own_id: str | None) -> SpanContext:
    """Return a trace context as OpenTelemetry has it. `own_id`: the span itself; None: the context's own one."""
    if context is None:
        return INVALID_SPAN_CONTEXT
    state = TraceState.from_header([context.tracestate]) if context.tracestate else DEFAULT_TRACE_STATE
    ids = int(context.trace_id, 16), int(own_id or context.parent_id, 16)
    return SpanContext(*ids, False, TraceFlags(context.flags), state)


def _complain(what: str) -> None:
    # Each time, as OpenTelemetry's SDK does.
    warn(what, about="OpenTelemetry's spans")
