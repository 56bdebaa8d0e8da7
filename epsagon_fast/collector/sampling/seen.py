"""What sampling reads of a closed trace, and what it writes into the runner of one that is sent.

A runner may hold anything that JSON can say, so each field is looked at before it is used.
"""

import string
from collections.abc import Mapping

import epsagon_fast.thresholds as thresholds
from epsagon_fast.collector.assembling import runners
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.formats.spans import name_of_runner
from epsagon_fast.collector.sampling.policy import Seen
from epsagon_fast.hints import Any
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, SAMPLING_KEY, SAMPLING_WEIGHT_KEY, TRACE_ID_BYTES, TRACESTATE_KEY
from epsagon_fast.rows import NamedTuple

_DIGITS = frozenset(string.hexdigits.lower())
# A name is remembered for long, and may be as long as a trace.
NAME_CHARACTERS = 200
# No trace takes a century.
_MOST_S = 3.2e9


class Request(NamedTuple):
    """The request that a trace is part of: its shared id, and the tracestate with which it came."""

    shared_id: bytes
    tracestate: str

    @property
    def randomness(self) -> int:
        """The 56 random bits that all services see."""
        return thresholds.randomness_of(self.shared_id.hex(), self.tracestate)


def request_of(closed: OpenTrace) -> Request:
    """Return the request of a closed trace; a trace without a shared id is a request of its own."""
    metadata = _object(_object((closed.runner or {}).get("resource")).get("metadata"))
    shared_id = _text(metadata.get(HTTP_TRACE_ID_KEY))
    is_id = len(shared_id) == 2 * TRACE_ID_BYTES and _DIGITS.issuperset(shared_id)
    return Request(bytes.fromhex(shared_id) if is_id else closed.trace_id, _text(metadata.get(TRACESTATE_KEY)))


def seen_of(trace: OpenTrace, request: Request) -> Seen:
    """Return what the rules ask of a closed trace."""
    runner = trace.runner or {}
    failed = trace.has_failed or trace.stream.exception_count > 0
    return Seen(name_of_runner(runner)[:NAME_CHARACTERS], failed, _seconds(runner.get("duration")), request.randomness)


def mark(trace: OpenTrace, request: Request, reason: str, threshold: int) -> None:
    """Write into a trace's runner why it is sent, for how many it stands, and the threshold in the tracestate.

    The threshold is never below the one that it had passed before. One that it cannot have passed says nothing.
    """
    if trace.runner is None:
        return
    threshold = max(threshold, thresholds.passed(request.tracestate) or thresholds.ALWAYS)
    is_consistent = threshold <= request.randomness
    marks = {
        SAMPLING_KEY: reason,
        TRACESTATE_KEY: thresholds.with_threshold(request.tracestate, threshold if is_consistent else None),
    }
    if is_consistent:
        marks[SAMPLING_WEIGHT_KEY] = f"{thresholds.weight_of(threshold):.6g}"
    trace.runner = runners.with_metadata(trace.runner, {key: value for key, value in marks.items() if value})


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(value: Any) -> float | None:
    # Some number that JSON has may be longer than any float.
    is_time = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_S
    return float(value) if is_time else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
