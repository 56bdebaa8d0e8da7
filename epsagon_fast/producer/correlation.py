"""The ids of the current trace, for what is written about its work elsewhere: log lines, reports, headers."""

from typing import Final

from . import entering
from .context import Ids, begun_by
from .current import NOT_TRACED, global_tracer
from .tracer import Tracer

_get: Final = entering.current.get


def current_ids() -> Ids | None:
    """Return the ids of the current trace, else of the running global tracer; None where nothing is recorded.

    It opens no trace and records nothing.
    """
    place = _get()
    if place is NOT_TRACED:
        return None
    # A block whose trace has ended becomes a trace when something is added to it. A log line adds nothing, and the
    # opening writes log lines of its own.
    tracer: Tracer | None = None if place is None else place.still_open()
    span_id: str | None = None if tracer is None else place.span_id
    tracer = tracer or global_tracer()
    if tracer is None or not tracer.recording:
        return None
    ids = tracer.ids
    span_id = span_id or tracer.within_id or tracer.span_id
    if ids is None or ids[1] != span_id:
        ids = tracer.ids = _ids(tracer, span_id)
    return ids


def _ids(tracer: Tracer, span_id: str) -> Ids:
    # A trace that is open begins a context under its own id, if it continues none.
    context = tracer.context or begun_by(tracer)
    return Ids(tracer.trace_id, span_id, context.trace_id)
