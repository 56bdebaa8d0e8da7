"""The place of a span in our own context: where it is the current one, `event()` and `inject` know it as the parent.

It is a block's place (see producer/place.py) that also knows its span, so OpenTelemetry's context can be told of it.
"""

from typing import Protocol

from opentelemetry.trace import Span

from epsagon_fast.producer.context import TraceContext
from epsagon_fast.producer.place import PassingPlace, Place, lasting
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.queue.ring import own_pid


class Going(Protocol):
    """The part of a span that its place needs."""

    def is_under_way(self) -> bool: ...
    def succeed(self, context: TraceContext | None) -> Tracer: ...


class SpanPlace(Place[Tracer]):
    """Where a span is the current one. If its trace ends before it, the span becomes a trace of its own."""

    __slots__ = ("_root", "_span", "_trunk", "encloses", "outer", "shown")

    def __init__(self, outer: Place[Tracer], span: Going, shown: Span, span_id: str, encloses: bool) -> None:
        """`shown`: the span as OpenTelemetry sees it."""
        # As in Place. A call of its __init__ would cost as much as all this.
        self.tracer = self.context = None
        self.span_id = span_id
        self._trunk: Place[Tracer]
        # The same if it is a trace's own place, which can be asked for less.
        self._root: Place[Tracer] | None
        outer.shorten()
        self._hang_on(outer)
        self.encloses = encloses
        self._span: Going | None = span
        self.shown: Span | None = shown

    def _hang_on(self, outer: Place[Tracer]) -> None:
        self.outer: Place[Tracer] = outer
        # The place that holds the trace, so that deep nesting costs nothing. An outer span may hold one of its own.
        if type(outer) is SpanPlace and outer.tracer is None:
            self._trunk, self._root = outer._trunk, outer._root
        else:
            self._trunk, self._root = outer, outer if type(outer) is Place else None

    @property
    def has_ended(self) -> bool:  # type: ignore[override]
        """Whether the span has ended, without having been a trace of its own."""
        return self._span is None and self.tracer is None and self.context is None

    def shorten(self) -> None:
        """See Place."""
        if self.has_ended:
            self._hang_on(lasting(self.outer))

    def open_trace(self) -> Tracer | None:
        """Return the trace that the span is part of, or the span's own trace if that one has ended."""
        # As the places would say, but without asking one after the other.
        root = self._root
        if root is not None and (tracer := root.tracer) is not None and tracer.owner_pid == own_pid():
            return tracer
        return self._trunk.open_trace() or super().open_trace() or self._succeeded()

    def still_open(self) -> Tracer | None:
        """Return what `open_trace` does, and open none."""
        root = self._root
        if root is not None and (tracer := root.tracer) is not None and tracer.owner_pid == own_pid():
            return tracer
        return self._trunk.still_open() or super().open_trace()

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was here."""
        return self.context or self._trunk.heritage()

    def end(self) -> None:
        """Let go of the span, which has ended. Contexts that live longer keep its id."""
        self._span = self.shown = None
        if self.tracer is not None:
            self.vacate()

    def _succeeded(self) -> Tracer | None:
        span = self._span
        if self.tracer is None and span is not None and span.is_under_way():
            self.tracer = span.succeed(self.heritage())
        return super().open_trace()


class UnrecordedPlace(PassingPlace[Tracer]):
    """Where a span that is not recorded here is the current one: it only hands on its ids. `shown`: the span."""

    __slots__ = ("shown",)

    def __init__(self, outer: Place[Tracer] | None, shown: Span) -> None:
        super().__init__(outer, caller_in(shown))
        self.shown = shown


def caller_in(span: Span) -> TraceContext | None:
    """Return the ids of a span, below which a trace goes on; None if they are invalid."""
    ids = span.get_span_context()
    if not ids.is_valid:
        return None
    state = ids.trace_state.to_header()
    return TraceContext(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", int(ids.trace_flags) & 0xFF, state)
