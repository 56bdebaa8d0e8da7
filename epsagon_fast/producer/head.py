"""The decision at the head: whether a trace is recorded at all, made when it begins and handed on to all that it calls.

With a `sample_rate` below 1 a caller's flag decides for what that caller causes. What begins here is recorded if the
random bits of its id pass the threshold of the rate (thresholds.py). What is not recorded costs little, and the context
that it hands on says so with the flag 00.
"""

from functools import lru_cache

import epsagon_fast.thresholds as thresholds
from epsagon_fast.hints import Final
from epsagon_fast.protocol import SAMPLING_KEY, SAMPLING_WEIGHT_KEY, TRACESTATE_KEY

from .context import SAMPLED, Continuing, TraceContext

# Why a trace is there that the head has let pass.
REASON: Final = "head"
# Characters of a tracestate that every service should hand on (W3C Trace Context). Of a longer one the runner keeps
# what sampling needs.
MAX_STATE: Final = 512

threshold_of = lru_cache(maxsize=16)(thresholds.threshold_of)


@lru_cache(maxsize=16)
def least_digits(rate: float) -> str:
    """Return the 14 lower-case hex digits that random bits must not sort before. At a rate of 0 all do."""
    threshold = threshold_of(rate)
    return "g" if threshold >= thresholds.ALL else f"{threshold:0{thresholds.DIGITS}x}"


def decided(tracer: Continuing, rate: float) -> TraceContext:
    """Return the context that a trace has after the decision: its flag says whether the trace is recorded.

    rate: 0 to 1, for a trace that continues no other.
    """
    context = tracer.context
    if context is None or (context.trace_id, context.parent_id) == (tracer.trace_id, tracer.span_id):
        return begun(tracer.trace_id, tracer.span_id, rate)
    return checked(context)


def begun(trace_id: str, span_id: str, rate: float) -> TraceContext:
    """Return the context that a trace begins."""
    threshold = threshold_of(rate)
    if thresholds.randomness_of(trace_id) < threshold:
        return TraceContext(trace_id, span_id, 0)
    return TraceContext(trace_id, span_id, SAMPLED, thresholds.with_threshold("", threshold))


def checked(context: TraceContext) -> TraceContext:
    """Return a caller's context without a threshold that its own flag contradicts."""
    threshold = thresholds.passed(context.tracestate)
    if threshold is None:
        return context
    has_passed = thresholds.randomness_of(context.trace_id, context.tracestate) >= threshold
    if has_passed == bool(context.flags & SAMPLED):
        return context
    return context._replace(tracestate=thresholds.with_threshold(context.tracestate, None))


def marks(context: TraceContext, rate: float) -> dict[str, str]:
    """Return the metadata that a runner needs so that its readers know what was decided at the head."""
    state = context.tracestate
    if not state:
        return {}
    found = {TRACESTATE_KEY: state if len(state) <= MAX_STATE else thresholds.own_member(state)}
    threshold = thresholds.passed(state) if rate < 1.0 else None
    if threshold is not None:
        found |= {SAMPLING_KEY: REASON, SAMPLING_WEIGHT_KEY: f"{thresholds.weight_of(threshold):.6g}"}
    return {key: value for key, value in found.items() if value}
