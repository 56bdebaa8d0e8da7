"""The collector's answers, in each ring's header: what became of a closed trace.

A small ring of the last 256 answers. The collector writes an entry and then the count; the worker reads from memory.
One that was overwritten before the worker looked stays unknown to it; the counts of closed and settled do not.
"""

import struct
from collections import OrderedDict

from epsagon_fast.protocol import OUTCOMES, Outcome
from epsagon_fast.queue import layout, ring
from epsagon_fast.queue.no_ring import NoRing

REASON_BYTES = 28
# Trace id, position of the outcome in protocol.OUTCOMES, reason in ASCII.
ENTRY = struct.Struct(f"<16sI{REASON_BYTES}s")
ENTRIES = (layout.HEADER_BYTES - layout.SETTLEMENT_RING) // ENTRY.size
REMEMBERED = 1024


def publish(page: ring.Mapping, trace_id: bytes, outcome: Outcome) -> None:
    """Write what became of a trace into its ring's header."""
    count = page.load(layout.SETTLEMENTS)
    reason = (outcome.reason or "").encode("ascii", "replace")[:REASON_BYTES]
    page.write(_offset(count), ENTRY.pack(trace_id, OUTCOMES.index(outcome), reason))
    # A stranger may have written the largest number there is.
    page.store(layout.SETTLEMENTS, count + 1 & 0xFFFF_FFFF_FFFF_FFFF)


def _offset(number: int) -> int:
    return layout.SETTLEMENT_RING + number % ENTRIES * ENTRY.size


class Settlements:
    """The worker's view: the answers of one ring, read as they come."""

    def __init__(self, page: ring.Mapping | NoRing) -> None:
        self._page = page
        self._read = 0
        self._known: OrderedDict[bytes, Outcome] = OrderedDict()

    def news(self) -> list[tuple[bytes, Outcome]]:
        """Return the answers that came since the last call, oldest first."""
        count = self._page.load(layout.SETTLEMENTS)
        if count == self._read:
            return []
        found = [self._entry(number) for number in range(max(self._read, count - ENTRIES), count)]
        self._read = count
        self._known.update(found)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    def outcome(self, trace_id: bytes) -> Outcome | None:
        """Return what became of a trace as far as `news` has read, or None if nothing is known."""
        return self._known.get(trace_id)

    def _entry(self, number: int) -> tuple[bytes, Outcome]:
        trace_id, outcome, reason = ENTRY.unpack(self._page.copy(_offset(number), ENTRY.size))
        known = OUTCOMES[outcome] if outcome < len(OUTCOMES) else Outcome.PENDING
        text = reason.rstrip(b"\0").decode("ascii", "replace")
        return trace_id, known.because(text) if text else known
