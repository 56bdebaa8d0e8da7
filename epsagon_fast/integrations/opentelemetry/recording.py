"""What a span is in our recorder: an event of the trace around it, or a trace of its own if there is none.

Only the process that began a span ends it; in a child that was forked inside it, ending it does nothing.
"""

from opentelemetry.trace import Span

from epsagon_fast.producer.context import TraceContext, handed_on, named_at
from epsagon_fast.producer.ids import span_id
from epsagon_fast.producer.place import Place
from epsagon_fast.producer.plain import metadata_text
from epsagon_fast.producer.process import process
from epsagon_fast.producer.runner import new_runner
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.propagation import HTTP_TRACE_ID_KEY, continue_context
from epsagon_fast.protocol import RUNNER_ORIGIN
from epsagon_fast.queue.ring import own_pid
from epsagon_fast.span_names import KIND, type_and_operation

from .mapping import INTERNAL, KIND_NAMES, Recorded, event_of
from .place import SpanPlace


class OwnTrace:
    """The trace that is a span's own. If the span is lost without its end, the trace is closed as unfinished."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def __del__(self) -> None:
        if self.tracer.recording:
            self.tracer.abandon()


class Recording(Recorded):
    """A span under way. `span_id`: 16 hex digits, set when it begins. `place`: where it is the current one."""

    place: SpanPlace
    # The trace that is this span's own, while it is open.
    _own: OwnTrace | None = None
    _parent_id: str | None = None
    _owner_pid = 0

    def begin(self, found: Place[Tracer] | TraceContext | None, shown: Span, own_id: str | None = None) -> bool:
        """Begin below what was found in a context; False: nothing is recorded.

        `shown`: the span as OpenTelemetry sees it. `own_id`: its id, if it has one already.
        """
        self._owner_pid = pid = own_pid()
        if found is None or isinstance(found, TraceContext):
            return self._begin_trace(found, shown, own_id)
        tracer = found.open_trace()
        if tracer is None:
            return self._begin_trace(_left_at(found), shown, own_id)
        if tracer.owner_pid != pid:
            # A child that was forked inside a trace does not know how long that stays open.
            return self._begin_trace(handed_on(tracer, named_at(found)), shown, own_id)
        if tracer.ignores:
            return False
        tracer.has_blocks = True
        self.span_id = own_id = own_id or span_id()
        self._parent_id = found.span_id
        self.place = SpanPlace(found, self, shown, own_id, found.encloses)
        return True

    def _begin_trace(self, context: TraceContext | None, shown: Span, own_id: str | None) -> bool:
        own = self._opened(context, own_id)
        tracer = own.tracer
        # One that sampling has left out hands that on.
        if tracer.ignores and not tracer.is_left_out:
            return False
        self._own = own
        self.span_id = own_id = tracer.span_id
        self.place = SpanPlace(tracer.place, self, shown, own_id, True)
        return True

    def is_left_out(self) -> bool:
        """Say whether sampling has left out the trace that is the span's own."""
        return self._own is not None and self._own.tracer.ignores

    def is_under_way(self) -> bool:
        """Say whether the span has not ended, and is this process's own."""
        return self.end_time is None and self._owner_pid == own_pid()

    def succeed(self, context: TraceContext | None) -> Tracer:
        """Become a trace of its own with the same ids, because the trace that it was part of has ended."""
        if self._own is None:
            if context is not None and self._parent_id is not None:
                context = context._replace(parent_id=self._parent_id)
            self._own = self._opened(context, self.span_id)
        return self._own.tracer

    def _opened(self, context: TraceContext | None, own_id: str | None) -> OwnTrace:
        """Open the span's own trace. Its runner is provisional: a process that is killed will not tell more."""
        config = process.config()
        metadata = {**self.attributes, **self.scope.metadata}
        if not config.keeps_types:
            metadata = {key: metadata_text(value) for key, value in metadata.items()}
        metadata[KIND] = kind = KIND_NAMES.get(id(self.kind), INTERNAL)
        words = type_and_operation(metadata, kind)
        tracer = Tracer(config, new_runner(self.name, *words, metadata, self.start_time), own_id)
        metadata[HTTP_TRACE_ID_KEY] = continue_context(tracer, context)
        # Before the start: an exception from outside may come in between.
        own = OwnTrace(tracer)
        tracer.start()
        return own

    def finish(self) -> None:
        """Record the span, whose end is known."""
        if self._owner_pid != own_pid():
            return
        tracer = self._own.tracer if self._own else self.place.still_open() or self.succeed(self.place.heritage())
        event = event_of(self, tracer.typed)
        if self._own is None:
            parent_id = self._parent_id
            tracer.add_event_under(event, None if parent_id == tracer.span_id else parent_id)
        else:
            tracer.restate_and_close({**event, "id": tracer.trace_id, "origin": RUNNER_ORIGIN})
            self._own = None
        self.place.end()


def _left_at(place: Place[Tracer]) -> TraceContext | None:
    context, span_id = place.heritage(), named_at(place)
    return context._replace(parent_id=span_id) if context and span_id else context
