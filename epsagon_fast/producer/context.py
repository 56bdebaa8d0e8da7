"""What a trace continues: the context that all traces share which one request causes (W3C Trace Context)."""

from typing import Any, Final, NamedTuple, Protocol

from epsagon_fast.config import ResolvedConfig

from .process import process

# The strong key of each runner that takes part.
HTTP_TRACE_ID_KEY: Final = "http_trace_id"
SAMPLED: Final = 1
PARENT_ID_DIGITS: Final = 16
_VERSION: Final = "00"


class TraceContext(NamedTuple):
    """Whose work a request is part of.

    trace_id: 32 lower-case hex digits. parent_id: 16, the caller's own step. flags: the eight bits, 1 is "sampled".
    tracestate: the vendors' list as it came, "" if there was none or it was broken.
    """

    trace_id: str
    parent_id: str
    flags: int = SAMPLED
    tracestate: str = ""

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"{_VERSION}-{self.trace_id}-{self.parent_id}-{self.flags:02x}"


class Continuing(Protocol):
    """What this module needs of a tracer."""

    config: ResolvedConfig
    trace_id: str
    context: TraceContext | None

    def set_runner_metadata(self, key: str, value: Any) -> None: ...


def continue_context(tracer: Continuing, context: TraceContext | None) -> str:
    """Let a trace that is not started yet continue `context`; None: begin a context of its own.

    Returns the shared trace id, which belongs into the runner's metadata as `http_trace_id`.
    """
    if context is None and process.records(tracer.config):
        context = begun_by(tracer)
    tracer.context = context
    return context.trace_id if context else tracer.trace_id


def context_of(tracer: Continuing) -> TraceContext | None:
    """Return the context that a trace is part of. A recorded one without any begins one, and its runner tells it.

    None: the trace is not recorded, so what continues it would continue nothing that arrives.
    """
    if tracer.context is None and process.records(tracer.config):
        tracer.context = begun_by(tracer)
        tracer.set_runner_metadata(HTTP_TRACE_ID_KEY, tracer.context.trace_id)
    return tracer.context


def begun_by(tracer: Continuing) -> TraceContext:
    """Return the context that a trace begins if it continues none."""
    return TraceContext(tracer.trace_id, tracer.trace_id[:PARENT_ID_DIGITS])
