"""Copies forward in the journal what is still needed, so that old segments can be deleted.

A segment is deleted after the last of its traces is settled, oldest first, so a trace that stays open for an hour would
keep all segments after its own. When most of the journal belongs to settled traces, all others get a snapshot at its
end, some in each pass. Then the old segments are not needed any more.

Compaction also mends a journal that could not be written for a while, because what it lacks is in memory.
"""

import sys
from collections import deque

from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.journal import snapshot
from epsagon_fast.collector.journal.journal import Journal
from epsagon_fast.collector.sending.dispatch import Dispatch

# A journal of at most this many segments is left alone.
FEW_SEGMENTS = 4
# Copying is worth its cost if it frees this part of the journal.
WORTH = 1 / 4
WORTH_AT_BOUND = 1 / 16
# Bytes copied in one pass, so that the loop never stands still.
PART_BYTES = 1024 * 1024


class Compaction:
    """Decides when to copy, and does it in parts."""

    def __init__(self, journal: Journal, assembly: Assembly, sending: Dispatch) -> None:
        self._journal = journal
        self._assembly = assembly
        self._sending = sending
        self._to_copy: deque[bytes] = deque()
        self._batch_bytes_before = 0

    def step(self, part_bytes: int = PART_BYTES, bound_bytes: int = sys.maxsize) -> None:
        """Copy a part, if there is reason to. To be called when all that was appended has been fed on.

        bound_bytes: of the journal. At the bound processes wait, so there a smaller gain is reason enough.
        """
        worth = WORTH
        if self._journal.size_bytes >= bound_bytes:
            self._journal.keep_only(self._assembly)
            worth = WORTH_AT_BOUND
        if not self._to_copy and (self._journal.incomplete or self._is_wasteful(worth)):
            self._to_copy.extend(self._assembly.ids())
            self._journal.incomplete = False
            self._batch_bytes_before = self._journal.batch_bytes
        until = self._journal.buffered_bytes + part_bytes
        not_yet = []
        while self._to_copy and self._journal.buffered_bytes < until:
            trace_id = self._to_copy.popleft()
            if not self._copy(trace_id):
                not_yet.append(trace_id)
        self._to_copy.extend(not_yet)

    def _is_wasteful(self, worth: float) -> bool:
        """Say whether copying frees that part of the journal, of what came since the last copying."""
        size = self._journal.size_bytes
        needed = self._assembly.held_bytes + self._sending.held_bytes
        grown = self._journal.batch_bytes - self._batch_bytes_before
        return size > FEW_SEGMENTS * self._journal.segment_bytes and min(size - needed, grown) >= worth * size

    def _copy(self, trace_id: bytes) -> bool:
        """Copy a trace; False: it is closed and its body is not built yet, so try again in a later pass."""
        trace = self._assembly.unclosed(trace_id)
        if trace is not None:
            self._journal.snapshot(trace.ring_id, trace_id, snapshot.of_trace(trace))
            return True
        finished, parcel = self._assembly.finished(trace_id), self._sending.parcel(trace_id)
        if finished is not None and parcel is not None:
            self._journal.snapshot(finished.ring_id, trace_id, snapshot.of_parcel(parcel, finished.ordinal))
        return not self._assembly.is_open(trace_id)
