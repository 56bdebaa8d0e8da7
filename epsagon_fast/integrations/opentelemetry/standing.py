"""The span that stands for a place of ours: for a traced block, an event or a request, as OpenTelemetry sees it."""

import time
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode

from epsagon_fast.producer.context import handed_on
from epsagon_fast.producer.place import Place
from epsagon_fast.producer.plain import json_bytes
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.protocol import ErrorCode
from epsagon_fast.span_names import DESCRIPTION, EVENTS

from .mapping import Happened
from .span import context_of

# A traced block has this method, and an event's block has not.
NOTE: Final = "note"


class StandingSpan(Span):
    """What is recorded here goes to the event, block or trace at a place. It does not end them."""

    def __init__(self, place: Place[Tracer]) -> None:
        self.place = place
        self._context: SpanContext | None = None
        self._events: list[Happened] = []

    def end(self, end_time: int | None = None) -> None:
        """Do nothing."""

    def get_span_context(self) -> SpanContext:
        """Return the ids with which others continue the block."""
        if self._context is None:
            self._context = _ids_of(self.place)
        return self._context

    def is_recording(self) -> bool:
        """Say whether the block has not ended, and its trace is open."""
        tracer = self.place.still_open()
        return tracer is not None and tracer.recording and self._block() is not None

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an entry in the metadata."""
        block = self._block()
        if isinstance(block, Tracer):
            block.set_runner_metadata(key, value)
        elif hasattr(block, NOTE):
            block.note(key, value)
        elif block is not None:
            block.metadata[key] = value

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event of OpenTelemetry's kind: it stands in the metadata, with those that were added here before."""
        time_ns = time.time_ns() if timestamp is None else timestamp
        self._events.append(Happened(name, dict(attributes or {}), time_ns))
        self.set_attribute(EVENTS, json_bytes([each.told() for each in self._events]).decode())

    def update_name(self, name: str) -> None:
        """Give the event another name. A block's and a trace's stays."""
        block = self._block()
        if block is not None and not isinstance(block, Tracer) and not hasattr(block, NOTE):
            block.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set an error: the error code of the event or the trace, and the description in its metadata."""
        if not isinstance(status, Status):
            status = Status(status, description)
        if status.status_code is not StatusCode.ERROR:
            return
        self.set_attribute(DESCRIPTION, status.description or "")
        block = self._block()
        if isinstance(block, Tracer):
            block.update_runner(error_code=ErrorCode.ERROR)
        elif block is not None and not hasattr(block, NOTE):
            block.error_code = int(ErrorCode.ERROR)

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

    def _block(self) -> Any:
        """Return what the place is of: an event, a traced block, a trace; None: it has ended."""
        place = self.place
        for name in ("event", "block"):
            if hasattr(place, name):
                return getattr(place, name)
        return place.still_open()


class EndedSpan(NonRecordingSpan):
    """What is left of a span that has ended where it is still the current one: its ids."""

    def __init__(self, place: Place[Tracer]) -> None:
        super().__init__(_ids_of(place))
        self.place = place


def _ids_of(place: Place[Tracer]) -> SpanContext:
    tracer = place.still_open()
    context = place.heritage() if tracer is None else handed_on(tracer, place.span_id)
    return context_of(context, place.span_id)
