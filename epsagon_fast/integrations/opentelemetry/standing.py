"""The span that stands for a place of ours: for a traced block, an event or a request, as OpenTelemetry sees it."""

from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode

from epsagon_fast.producer.context import handed_on, named_at
from epsagon_fast.producer.place import Place
from epsagon_fast.producer.plain import Copy, json_bytes, metadata_text
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.protocol import FUNCTION_TYPE, ErrorCode
from epsagon_fast.span_names import DESCRIPTION, DROPPED_EVENTS, DROPPED_LINKS, EVENTS, HTTP_TYPE, LINKS

from .limits import MOST
from .mapping import link_told
from .span import context_of, copied, happened, says_something


class Told:
    """The events or the links of a place, as they stand in its metadata."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.dropped = 0


# Those of the places of each open trace, by the place's id and their name in the metadata. They are not kept in a span,
# because a place may have several, one after the other.
_told: Final[WeakKeyDictionary[Tracer, dict[tuple[str | None, str], Told]]] = WeakKeyDictionary()


class StandingSpan(Span):
    """What is recorded here goes to the event, block or trace at a place. It does not end them."""

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
        """Say whether the block has not ended, and its trace is open."""
        tracer = self.place.still_open()
        return tracer is not None and tracer.recording and self._recorded() is not None

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        for key, value in copied(attributes).items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an entry in the metadata to `value` as it is now."""
        recorded = self._recorded()
        if isinstance(recorded, Tracer):
            recorded.set_runner_metadata(key, value)
        elif recorded is not None:
            recorded.metadata[key] = Copy().of(value)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event of OpenTelemetry's kind: it stands in the metadata, with those that were added here before."""
        self._tell(EVENTS, happened(name, attributes, timestamp).told(), DROPPED_EVENTS)

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link to another span. It stands in the metadata, with those that were added here before."""
        if says_something(context, attributes):
            self._tell(LINKS, link_told(Link(context, copied(attributes))), DROPPED_LINKS)

    def update_name(self, name: str) -> None:
        """Give the event or the trace another name. A request and a task keep theirs: it is a host, or the task's."""
        recorded, name = self._recorded(), metadata_text(name)
        if isinstance(recorded, Tracer):
            runner = recorded.runner_event
            if runner is not None and runner["resource"]["type"] == FUNCTION_TYPE:
                recorded.update_runner(name=name)
        elif recorded is not None and recorded.type != HTTP_TYPE:
            recorded.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set an error: the error code of the event or the trace, and the description in its metadata."""
        if not isinstance(status, Status):
            status = Status(status, description)
        if status.status_code is not StatusCode.ERROR:
            return
        self.set_attribute(DESCRIPTION, status.description or "")
        recorded = self._recorded()
        if isinstance(recorded, Tracer):
            recorded.update_runner(error_code=ErrorCode.ERROR)
        elif recorded is not None:
            recorded.error_code = int(ErrorCode.ERROR)

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

    def _tell(self, name: str, said: dict[str, Any], dropped: str) -> None:
        """Add to the list of this name in the metadata, or, if that is full, to the count of what it lacks."""
        tracer = self.place.still_open()
        if tracer is None:
            return
        told = _told.setdefault(tracer, {}).setdefault((self.place.span_id, name), Told())
        if len(told.said) < MOST:
            told.said.append(said)
            self.set_attribute(name, json_bytes(told.said).decode())
        else:
            told.dropped += 1
            self.set_attribute(dropped, told.dropped)

    def _recorded(self) -> Any:
        """Return what the place is of: an event, a block's event, a trace; None: it has ended."""
        place = self.place
        if hasattr(place, "event"):
            return place.event
        if hasattr(place, "block"):
            return place.block and (place.block.event or place.still_open())
        return place.still_open()


class EndedSpan(NonRecordingSpan):
    """What is left of a span that has ended where it is still the current one: its ids."""

    def __init__(self, place: Place[Tracer]) -> None:
        super().__init__(_ids_of(place))
        self.place = place


def _ids_of(place: Place[Tracer]) -> SpanContext:
    tracer = place.still_open()
    span_id = named_at(place)
    return context_of(place.heritage() if tracer is None else handed_on(tracer, span_id), span_id)
