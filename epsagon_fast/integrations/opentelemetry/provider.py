"""OpenTelemetry's tracer provider and tracer, without its SDK."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, Span, SpanKind, TracerProvider, get_current_span
from opentelemetry.trace import Tracer as TracerInterface

from epsagon_fast.producer import current, lifecycle
from epsagon_fast.producer.decorate import decorated
from epsagon_fast.producer.entering import Entered, NotTraced
from epsagon_fast.producer.process import process

from .contexts import found_in
from .mapping import SpanScope
from .span import RecordedSpan, kept_links

F = TypeVar("F", bound=Callable[..., Any])
MS_PER_S: Final = 1000


class SpanProvider(TracerProvider):
    """Makes tracers whose spans we record. All have one recorder, so they share the process's config."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> "SpanTracer":
        """Return a tracer for a library, which is the spans' scope."""
        return SpanTracer(SpanScope(instrumenting_module_name or "", instrumenting_library_version))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do what `epsagon_fast.flush` does, as programs ask the SDK's provider to."""
        return lifecycle.flush(timeout_millis / MS_PER_S)

    def shutdown(self) -> None:
        """Flush. Other traces of the process go on: `epsagon_fast.shutdown` ends them."""
        self.force_flush()


class SpanTracer(TracerInterface):
    """Makes the spans of one scope."""

    def __init__(self, scope: SpanScope) -> None:
        self._scope = scope

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """Begin a span, which is no parent until it is made the current one; see OpenTelemetry's documentation."""
        if process.records_nothing():
            return _unrecorded(context)
        found = found_in(context)
        if isinstance(found, NotTraced):
            return INVALID_SPAN
        span = RecordedSpan(self._scope, name, kind, start_time)
        if attributes:
            span.set_attributes(attributes)
        for linked, said in kept_links(links):
            span.add_link(linked, said)
        if not (record_exception and set_status_on_exception):
            span.record_exceptions, span.set_status_on_exception = record_exception, set_status_on_exception
        return span if span.begin(found, span) else _unrecorded(context)

    def start_as_current_span(  # type: ignore[override]
        self, name: str, *args: Any, end_on_exit: bool = True, **options: Any
    ) -> "SpanBlock":
        """Begin a span that is the current one in a `with` block or in each call of the function that this decorates.

        The arguments are those of `start_span`.
        """
        if len(args) > 7:
            *args, end_on_exit = args  # type: ignore[assignment]
        return SpanBlock(self, name, args, options, end_on_exit)


class SpanBlock(Entered):
    """One or several runs in which a span is the current one."""

    def __init__(
        self, tracer: SpanTracer, name: str, args: Sequence[Any], options: Mapping[str, Any], end_on_exit: bool
    ) -> None:
        self._made_of = (tracer, name, args, options, end_on_exit)
        self._span: Span | None = None

    def open(self) -> Any:
        """Begin the span and return it."""
        tracer, name, args, options, _ = self._made_of
        self._span = span = tracer.start_span(name, *args, **options)
        self.place = span.place if type(span) is RecordedSpan else current.anywhere()
        return span

    def close(self, error: BaseException | None) -> None:
        """End the span with the exception that leaves the block. Only an Exception is an error, as in use_span."""
        span, self._span = self._span, None
        if type(span) is RecordedSpan:
            if isinstance(error, Exception):
                span.note_exception(error)
            if self._made_of[-1]:
                span.end()

    def cut_off(self) -> None:
        """End the span at once: an exception from outside is on its way to the application."""
        if self._span is not None and self._made_of[-1]:
            self._span.end()

    def note(self, key: str, value: Any) -> None:
        """Keep nothing of a call's arguments."""

    def __call__(self, function: F) -> F:
        """Decorate a function, a coroutine or a generator: each call has a span of its own."""
        return decorated(function, lambda: SpanCall(*self._made_of))


class SpanCall(SpanBlock):
    """The block of one call of a decorated function."""

    keeps_values = False

    def open(self) -> "SpanCall":
        """Begin the span."""
        super().open()
        return self


def _unrecorded(context: Context | None) -> Span:
    """Return a span that records nothing and hands on the ids of its parent."""
    return NonRecordingSpan(get_current_span(context).get_span_context())
