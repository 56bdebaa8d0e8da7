"""The ids of the current trace, for what is written about its work elsewhere: log lines, reports, headers."""

from epsagon_fast.hints import Final

from . import entering
from .context import Ids, begun_by
from .current import NOT_TRACED, global_tracer
from .tracer import Tracer

_get: Final = entering.current.get


def current_ids() -> Ids | None:
    """Return the ids of the current trace, else of the running global tracer; None where nothing is recorded.

    It opens no trace and records nothing.
    """
    ids = plain_ids()
    return None if ids is None else Ids(*ids)


def plain_ids() -> tuple[str, str, str] | None:
    """Return the same as a plain tuple, which costs each log line less."""
    place = _get()
    if place is NOT_TRACED:
        return None
    # A block whose trace has ended becomes a trace when something is added to it. A log line adds nothing, and the
    # opening writes log lines of its own.
    tracer: Tracer | None = None if place is None else place.still_open()
    span_id: str | None = None if tracer is None else place.span_id
    if tracer is None:
        tracer = global_tracer()
    if tracer is None:
        return None
    if span_id is None:
        span_id = tracer.within_id or tracer.span_id
    ids = tracer.ids
    return ids if ids is not None and ids[1] is span_id else _found(tracer, span_id)


def _found(tracer: Tracer, span_id: str) -> tuple[str, str, str] | None:
    if not tracer.recording:
        return None
    # A trace that is open begins a context under its own id, if it continues none.
    context = tracer.context or begun_by(tracer)
    ids = tracer.ids = (tracer.trace_id, span_id, context.trace_id)
    return ids
