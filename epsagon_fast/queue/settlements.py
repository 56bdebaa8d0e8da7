"""Settlements: the collector tells a process, in its ring's header, what became of each closed trace.

They are a small ring of the last 256. The collector writes an entry and then the count, and the process reads them from
memory. A settlement that was overwritten before the process looked stays unknown to it, but the count of settled traces
is always right.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterable

from epsagon_fast.protocol import OUTCOMES, TRACE_ID_BYTES, Outcome
from epsagon_fast.queue import layout, ring
from epsagon_fast.queue.no_ring import NoRing

REASON_BYTES = 28
# Trace id, position of the outcome in protocol.OUTCOMES, reason in ASCII.
ENTRY = struct.Struct(f"<{TRACE_ID_BYTES}sI{REASON_BYTES}s")
_BEHIND_ID = struct.Struct(f"<I{REASON_BYTES}s")
ENTRIES = (layout.HEADER_BYTES - layout.SETTLEMENT_RING) // ENTRY.size
REMEMBERED = 1024
_NUMBERS = {outcome.name: number for number, outcome in enumerate(OUTCOMES)}


def publish(page: ring.Mapping, trace_ids: Iterable[bytes], outcome: Outcome) -> None:
    """Write an outcome of traces into their ring's header."""
    reason = (outcome.reason or "").encode("ascii", "replace")[:REASON_BYTES]
    entry = _BEHIND_ID.pack(_NUMBERS[outcome.name], reason)
    page.enter(layout.SETTLEMENTS, layout.SETTLEMENT_RING, ENTRIES, trace_ids, entry)


def _offset(number: int) -> int:
    return layout.SETTLEMENT_RING + number % ENTRIES * ENTRY.size


class Settlements:
    """The settlements of one ring, as its process reads them."""

    def __init__(self, page: ring.Mapping | NoRing) -> None:
        self._page = page
        self._read = 0
        self._known: OrderedDict[bytes, Outcome] = OrderedDict()

    def news(self) -> list[tuple[bytes, Outcome]]:
        """Return the settlements that came since the last call, oldest first."""
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
        """Return a trace's outcome if `news` has read it, else None."""
        return self._known.get(trace_id)

    def _entry(self, number: int) -> tuple[bytes, Outcome]:
        trace_id, outcome, reason = ENTRY.unpack(self._page.copy(_offset(number), ENTRY.size))
        known = OUTCOMES[outcome] if outcome < len(OUTCOMES) else Outcome.PENDING
        text = reason.rstrip(b"\0").decode("ascii", "replace")
        return trace_id, known.because(text) if text else known
