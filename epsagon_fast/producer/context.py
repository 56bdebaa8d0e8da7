"""The trace context (W3C Trace Context): what all the traces have in common that one request causes."""

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.hints import Any, Final, Protocol
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY
from epsagon_fast.rows import NamedTuple

from .entering import current
from .ids import SPAN_ID
from .process import process

SAMPLED: Final = 1
VERSION: Final = "00"


class TraceContext(NamedTuple):
    """The shared trace that a piece of work is part of, and its caller.

    trace_id: 32 lower-case hex digits. parent_id: 16 digits, the caller's own step. flags: eight bits, 1 is "sampled".
    tracestate: the vendors' list as it came, "" if there was none or it was broken.
    """

    trace_id: str
    parent_id: str
    flags: int = SAMPLED
    tracestate: str = ""

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"{VERSION}-{self.trace_id}-{self.parent_id}-{self.flags & 0xFF:02x}"


class Ids(NamedTuple):
    """Where work is traced, in lower-case hex digits.

    trace_id: 32, under which the trace arrives at the backend. span_id: 16, of the innermost open event. http_trace_id:
    32, shared by all traces that one request causes.
    """

    trace_id: str
    span_id: str
    http_trace_id: str


class Continuing(Protocol):
    """The part of a tracer that this module needs."""

    config: ResolvedConfig
    trace_id: str
    span_id: str
    context: TraceContext | None

    def set_runner_metadata(self, key: str, value: Any) -> None: ...


def continue_context(tracer: Continuing, context: TraceContext | None) -> str:
    """Let a trace that is not started yet continue `context`; None: let it begin a context of its own.

    Returns the shared trace id, which the runner's metadata must hold as `http_trace_id`.
    """
    if context is None and process.records(tracer.config):
        context = begun_by(tracer)
    tracer.context = context
    return context.trace_id if context else tracer.trace_id


def context_of(tracer: Continuing) -> TraceContext | None:
    """Return the context that a trace is part of. A recorded trace without a context begins one and notes it.

    Returns None if the trace is not recorded: work that continued it would have a parent that never arrives.
    """
    if tracer.context is None and process.records(tracer.config):
        tracer.context = begun_by(tracer)
        tracer.set_runner_metadata(HTTP_TRACE_ID_KEY, tracer.context.trace_id)
    return tracer.context


def begun_by(tracer: Continuing) -> TraceContext:
    """Return the context that a trace begins if it continues none."""
    return TraceContext(tracer.trace_id, tracer.span_id)


# Below neither _replace nor the class is called: each is a function in Python, which takes longer than all the rest.
def left_by(tracer: Continuing) -> TraceContext:
    """Return the context with which later work continues a trace that has ended: its runner is the parent."""
    trace_id, _, flags, state = tracer.context or (tracer.trace_id, "", SAMPLED, "")
    return tuple.__new__(TraceContext, (trace_id, tracer.span_id, flags, state))


def handed_on(tracer: Continuing, span_id: str | None) -> TraceContext | None:
    """Return the context for a message sent inside a trace. `span_id`: the event that sends it; None: the runner."""
    context = context_of(tracer)
    if context is None:
        return None
    trace_id, _, flags, state = context
    if span_id is not None and not is_span_id(span_id):
        here: Any = current.get()
        is_inside = getattr(here, "span_id", None) is not None and here.open_trace() is tracer
        span_id = named_at(here) if is_inside else None
    return tuple.__new__(TraceContext, (trace_id, span_id or tracer.span_id, flags, state))


def named_at(place: Any) -> str | None:
    """Return the id of the innermost event around a place that a header can name; None: that is the runner.

    A program may have set any id. A receiver takes a header with another than a span id for broken, and begins a
    request of its own.
    """
    while place is not None and not is_span_id(place.span_id):
        place = place.outer
    return None if place is None else place.span_id


def is_span_id(value: Any) -> bool:
    """Say whether an id is one that W3C Trace Context allows for a span."""
    return type(value) is str and SPAN_ID.fullmatch(value) is not None
