"""A trace as compaction copies it forward: exactly what the collector holds of it in memory.

An open trace is its state, as JSON, and the events and exceptions that are left of it after early trimming. A finished
trace is its body and where that goes. Records of these kinds stand in the journal only, never in a ring.
"""

import json
from collections import Counter
from collections.abc import Sequence

from epsagon_fast.collector.assembling.open_trace import SAVED as TRACE_FIELDS
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.assembling.payloads import BROKEN
from epsagon_fast.collector.assembling.stream import SAVED as STREAM_FIELDS
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.hints import Any
from epsagon_fast.protocol import Kind, Record
from epsagon_fast.rows import NamedTuple

# Kinds of records in the journal only, beyond every Kind of the rings.
STATE = 64
BODY = 65


class Finished(NamedTuple):
    """A trace whose body was built. `ordinal` is its CLOSE's number in the opener's ring, 0 without one."""

    parcel: Parcel
    ordinal: int


def of_trace(open_trace: OpenTrace) -> list[Record]:
    """Return an open trace's records."""
    trace_id, flow = open_trace.trace_id, open_trace.stream
    state = {
        "config": open_trace.config,
        "platform": open_trace.terms.platform,
        "trace": {name: getattr(open_trace, name) for name in TRACE_FIELDS},
        "stream": {name: getattr(flow, name) for name in STREAM_FIELDS},
    }
    return [
        Record(STATE, 0, 0, trace_id, _encode(state)),
        *(Record(Kind.EVENT, 0, 0, trace_id, event) for event in flow.events),
        *(Record(Kind.EXCEPTION, 0, 0, trace_id, exception) for exception in flow.exceptions),
    ]


def of_parcel(parcel: Parcel, ordinal: int) -> list[Record]:
    """Return a finished trace's records."""
    return [
        Record(STATE, 0, ordinal, parcel.trace_id, _encode({"destination": list(parcel.destination)})),
        Record(BODY, 0, 0, parcel.trace_id, parcel.body),
    ]


def restored(ring_id: bytes, records: Sequence[Record], counters: Counter[str]) -> OpenTrace | Finished:
    """Return what a snapshot holds; `ring_id` is the opener's. Raises one of BROKEN if it is none of ours."""
    first, *rest = records
    if first.kind != STATE:
        raise ValueError("not a snapshot")
    state = json.loads(first.payload)
    if "destination" in state:
        (body,) = rest
        return Finished(Parcel(first.trace_id, Destination(*state["destination"]), body.payload), first.ordinal)
    return _trace(ring_id, first.trace_id, state, rest, counters)


def _trace(
    ring_id: bytes, trace_id: bytes, state: dict[str, Any], rest: list[Record], counters: Counter[str]
) -> OpenTrace:
    opened = {"config": state["config"], "platform": state["platform"], "runner": None, "opened_at": 0.0}
    made = OpenTrace(trace_id, ring_id, _encode(opened), counters)
    for name in TRACE_FIELDS:
        setattr(made, name, state["trace"][name])
    for name in STREAM_FIELDS:
        setattr(made.stream, name, state["stream"][name])
    made.stream.events = [record.payload for record in rest if record.kind == Kind.EVENT]
    made.stream.exceptions = [record.payload for record in rest if record.kind == Kind.EXCEPTION]
    return made


def _encode(value: Any) -> bytes:
    # The standard library's encoder keeps integers of any size and lone surrogates.
    return json.dumps(value, separators=(",", ":")).encode()


__all__ = ["BROKEN", "Finished", "of_parcel", "of_trace", "restored"]
