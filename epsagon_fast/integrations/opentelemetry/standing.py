"""The span that stands for a place of ours: for a traced block, an event or a request, as OpenTelemetry sees it."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode

from epsagon_fast.producer.context import handed_on
from epsagon_fast.producer.place import Place
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.protocol import ErrorCode

from .span import context_of


class StandingSpan(Span):
    """What is recorded here goes to the trace at a place. Its own block ends it, so ending it here does nothing."""

    def __init__(self, place: Place[Tracer]) -> None:
        self.place = place
        self._context: SpanContext | None = None

    def end(self, end_time: int | None = None) -> None:
        """Do nothing."""

    def get_span_context(self) -> SpanContext:
        """Return the ids with which others continue the block."""
        if self._context is None:
            self._context = _ids_of(self.place)
        return self._context

    def is_recording(self) -> bool:
        """Say whether the trace here is open."""
        tracer = self.place.still_open()
        return tracer is not None and tracer.recording

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an entry in the metadata of the block."""
        tracer = self.place.still_open()
        if tracer is not None:
            tracer.set_runner_metadata(key, value)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Do nothing yet."""

    def update_name(self, name: str) -> None:
        """Do nothing: the block has its name."""

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the error of the trace."""
        tracer = self.place.still_open()
        code = status.status_code if isinstance(status, Status) else status
        if tracer is not None and code is StatusCode.ERROR:
            tracer.update_runner(error_code=ErrorCode.ERROR)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an exception to the trace's own list."""
        tracer = self.place.still_open()
        if tracer is not None:
            tracer.add_exception(exception)


class EndedSpan(NonRecordingSpan):
    """What is left of a span that has ended where it is still the current one: its ids."""

    def __init__(self, place: Place[Tracer]) -> None:
        super().__init__(_ids_of(place))
        self.place = place


def _ids_of(place: Place[Tracer]) -> SpanContext:
    tracer = place.still_open()
    context = place.heritage() if tracer is None else handed_on(tracer, place.span_id)
    return context_of(context, place.span_id)
