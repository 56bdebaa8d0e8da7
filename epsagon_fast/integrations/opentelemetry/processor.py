"""For programs that keep OpenTelemetry's SDK: its spans are recorded here, too, beside its own exporters."""

from typing import Final
from weakref import WeakValueDictionary

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanContext

from epsagon_fast.producer import lifecycle
from epsagon_fast.producer.context import TraceContext
from epsagon_fast.producer.entering import NotTraced
from epsagon_fast.producer.place import Place
from epsagon_fast.producer.process import process
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.span_names import DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS

from .contexts import PLACE, found_in, keep_as_one
from .mapping import Happened, SpanScope
from .recording import Recording

MS_PER_S: Final = 1000


class FollowedSpan(Recording):
    """A span of the SDK. What it has recorded is read when it begins, and again when it has ended."""

    def read(self, span: ReadableSpan) -> None:
        """Take over what the span says now."""
        scope = span.instrumentation_scope
        self.scope = SpanScope(scope.name if scope else "", scope.version if scope else None)
        self.name = span.name
        self.kind = span.kind
        self.attributes = dict(span.attributes or {})
        self.events = [Happened(each.name, dict(each.attributes or {}), each.timestamp) for each in span.events]
        self.links = list(span.links)
        self.status = span.status
        self.start_time = span.start_time or 0
        self.end_time = span.end_time
        counts = (
            (DROPPED_ATTRIBUTES, span.dropped_attributes),
            (DROPPED_EVENTS, span.dropped_events),
            (DROPPED_LINKS, span.dropped_links),
        )
        self.dropped = {name: count for name, count in counts if count}


class EpsagonSpanProcessor(SpanProcessor):
    """Records the sampled spans of the SDK: `provider.add_span_processor(EpsagonSpanProcessor())`.

    Each has the ids that it has in the SDK. Our events and theirs are parents of each other, as with `install`.
    """

    def __init__(self) -> None:
        # The span itself holds what follows it. One that is dropped without its end leaves here by itself.
        self._followed: WeakValueDictionary[int, FollowedSpan] = WeakValueDictionary()
        keep_as_one()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Begin an event of the trace around the span, or a trace of its own."""
        ids = span.get_span_context()
        if not ids.trace_flags.sampled or process.records_nothing():
            return
        found = self._found(span, ids, parent_context)
        if isinstance(found, NotTraced):
            return
        followed = FollowedSpan()
        followed.read(span)
        if followed.begin(found, span, f"{ids.span_id:016x}"):
            setattr(span, PLACE, followed.place)
            self._followed[ids.span_id] = followed

    def on_end(self, span: ReadableSpan) -> None:
        """Record the span."""
        followed = self._followed.pop(span.context.span_id, None) if span.context else None
        if followed is not None:
            followed.read(span)
            followed.finish()

    def shutdown(self) -> None:
        """Flush, as `epsagon_fast.flush` does. What is open in this process stays open."""
        self.force_flush()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do what `epsagon_fast.flush` does."""
        return lifecycle.flush(timeout_millis / MS_PER_S)

    def _found(self, span: Span, ids: SpanContext, context: Context | None) -> Place[Tracer] | TraceContext | NotTraced:
        parent = span.parent
        if parent is not None and (known := self._followed.get(parent.span_id)) is not None:
            return known.place
        found = found_in(context)
        if isinstance(found, NotTraced) or (parent is not None and found and not isinstance(found, TraceContext)):
            return found
        state = ids.trace_state.to_header() if ids.trace_state else ""
        caller_id = ids.span_id if parent is None else parent.span_id
        return TraceContext(f"{ids.trace_id:032x}", f"{caller_id:016x}", int(ids.trace_flags), state)
