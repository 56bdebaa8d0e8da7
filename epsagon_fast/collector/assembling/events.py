"""Takes plain events into their traces: most records are that, and need no more than to be kept and counted.

A plain event is for an open trace, has no flag, and fits into what its trace may hold without anything giving way.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.protocol import Kind, Record

__all__ = ["IMPLEMENTATION", "pure_take_events", "take_events"]

# As a plain integer: comparing with a member of Kind costs more than the rest of the decision.
_EVENT = int(Kind.EVENT)
IMPLEMENTATION: Final = implementation("feeding")


def pure_take_events(records: list[Record], at: int, traces: Mapping[bytes, OpenTrace]) -> int:
    """Take in the plain events from `at` on, of open `traces`; return where another record stands, or the end."""
    while 0 <= at < len(records):
        kind, flags, _, trace_id, payload = records[at]
        trace = traces.get(trace_id)
        if trace is None or kind != _EVENT or flags or not payload or not trace.stream.fits(payload):
            break
        trace.account.open_bytes += trace.stream.add_event(payload)
        at += 1
    return at


if TYPE_CHECKING or IMPLEMENTATION != COMPILED:
    take_events = pure_take_events
else:
    from epsagon_fast.collector.assembling._feeding import take_events
