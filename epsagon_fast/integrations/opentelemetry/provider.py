"""OpenTelemetry's tracer provider and tracer, without its SDK."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, Span, SpanKind, TracerProvider, get_current_span
from opentelemetry.trace import Tracer as TracerInterface

from epsagon_fast.config.opentelemetry import resource_attributes
from epsagon_fast.producer import current, lifecycle
from epsagon_fast.producer.context import TraceContext
from epsagon_fast.producer.decorate import decorated
from epsagon_fast.producer.entering import Entered, NotTraced
from epsagon_fast.producer.process import process

from .contexts import found_in
from .ignoring import UntracedSpan, is_ignored
from .limits import Limits, from_environment
from .mapping import SpanScope
from .place import UnrecordedPlace
from .span import RecordedSpan

F = TypeVar("F", bound=Callable[..., Any])
MS_PER_S: Final = 1000


class SpanResource:
    """What OpenTelemetry calls the resource: what the process is. `attributes`: as far as it was told."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = attributes


class SpanProvider(TracerProvider):
    """Makes tracers whose spans we record. All have one recorder, so they share the process's config."""

    def __init__(self) -> None:
        self._limits = from_environment()

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> "SpanTracer":
        """Return a tracer for a library, which is the spans' scope."""
        return SpanTracer(SpanScope(instrumenting_module_name or "", instrumenting_library_version), self._limits)

    @property
    def resource(self) -> SpanResource:
        """What the process is. As with the SDK's provider, an instrumentation of logging writes its `service.name`."""
        said = {**resource_attributes(), **dict(process.setting("resource_attributes"))}
        name = process.setting("application_name")
        return SpanResource({**said, "service.name": name} if name else said)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do what `epsagon_fast.flush` does, as programs ask the SDK's provider to."""
        return lifecycle.flush(timeout_millis / MS_PER_S)

    def shutdown(self) -> None:
        """Flush. Other traces of the process go on: `epsagon_fast.shutdown` ends them."""
        self.force_flush()


class SpanTracer(TracerInterface):
    """Makes the spans of one scope."""

    def __init__(self, scope: SpanScope, limits: Limits) -> None:
        self._scope = scope
        self._limits = limits

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
        found = found_in(context)
        if found is None or type(found) is TraceContext:
            if process.records_nothing():
                return _unrecorded(context)
        elif isinstance(found, NotTraced):
            return INVALID_SPAN
        if kind is not SpanKind.INTERNAL and attributes and is_ignored(kind, attributes):
            return UntracedSpan()
        span = RecordedSpan(self._scope, self._limits, name, kind, start_time)
        if attributes:
            span.give(attributes)
        if links:
            for link in links:
                if isinstance(link, Link):
                    span.add_link(link.context, link.attributes)
        if not (record_exception and set_status_on_exception):
            span.record_exceptions, span.set_status_on_exception = record_exception, set_status_on_exception
        return span if span.begin(found, span) else _unrecorded(context)

    def start_as_current_span(  # type: ignore[override]
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> "SpanBlock":
        """Begin a span that is the current one in a `with` block, or one for each call of a function."""
        told = (name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)
        return SpanBlock(self, told, end_on_exit)


class SpanBlock(Entered):
    """One or several runs in which a span is the current one. `told`: the arguments of `start_span`."""

    _span: Span | None = None

    def __init__(self, tracer: SpanTracer, told: tuple[Any, ...], end_on_exit: bool) -> None:
        self._tracer = tracer
        self._told = told
        self._end_on_exit = end_on_exit

    def open(self) -> Any:
        """Begin the span and return it."""
        self._span = span = self._tracer.start_span(*self._told)
        if type(span) is RecordedSpan:
            self.place = span.place
        elif type(span) is UntracedSpan:
            self.place = span.epsagon_place
        elif span.get_span_context().is_valid:
            self.place = UnrecordedPlace(current.current_place(), span)
        else:
            self.place = current.anywhere()
        return span

    def close(self, error: BaseException | None) -> None:
        """End the span with the exception that leaves the block. Only an Exception is an error, as in use_span."""
        span, self._span = self._span, None
        if type(span) is RecordedSpan:
            if isinstance(error, Exception):
                span.note_exception(error)
            if self._end_on_exit:
                span.end()

    def cut_off(self) -> None:
        """End the span at once: an exception from outside is on its way to the application."""
        if self._span is not None and self._end_on_exit:
            self._span.end()

    def note(self, key: str, value: Any) -> None:
        """Keep nothing of a call's arguments."""

    def __call__(self, function: F) -> F:
        """Decorate a function, a coroutine or a generator: each call has a span of its own."""
        return decorated(function, lambda: SpanCall(self._tracer, self._told, self._end_on_exit))


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
