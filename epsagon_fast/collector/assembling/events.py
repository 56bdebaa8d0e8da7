"""Takes plain events into their traces: most records are that, and need no more than to be kept and counted.

Before that it passes over records that masking leaves as they are, and most are that too.

A plain event is for an open trace, has no flag, and fits into what its trace may hold without anything giving way.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.masking import Mask
from epsagon_fast.protocol import Kind, Record

__all__ = ["IMPLEMENTATION", "pure_take_events", "pure_unmasked", "take_events", "unmasked"]

# As plain integers: comparing with a member of Kind costs more than the rest of the decision.
_OPEN, _EVENT = int(Kind.OPEN), int(Kind.EVENT)
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


def pure_unmasked(records: list[Record], at: int, masks: Mapping[bytes, Mask]) -> int:
    """Return where, from `at` on, a record stands that masking may change, or the end.

    One whose mask raises is such a record: the caller asks again, and knows then which it was.
    """
    while 0 <= at < len(records):
        kind, _, _, trace_id, payload = records[at]
        mask = masks.get(trace_id)
        if mask is None:
            if kind == _OPEN:
                break
        elif kind != _EVENT:
            break
        else:
            try:
                if mask.may_change(payload):
                    break
            except Exception:
                break
        at += 1
    return at


if TYPE_CHECKING or IMPLEMENTATION != COMPILED:
    take_events = pure_take_events
    unmasked = pure_unmasked
else:
    from epsagon_fast.collector.assembling._feeding import take_events, unmasked
