"""The journal: it keeps what was read from the rings until it is settled, in files that outlive the collector.

How the loop keeps it true that a record is always in a file:

- Each pass: `append` what was read, `commit`, and only then feed the records on and move the rings' tails. A commit
  that failed keeps its frames for the next one. Tails move all the same, so until one succeeds a collector that dies
  loses what it read meanwhile, and nothing else.
- At start: `replay`, then read each ring from the later of its tail and `ends()`, and store its tail there *before*
  the next commit. Commits delete segments; a tail that lags behind would have a deleted segment's records read again.
- A ring's file goes only after its last record was committed. So a ring that `ends()` names and the folder lacks
  belonged to a process that is gone: no mark says so, the missing file does.
- Every trace with records here is settled one day, or missing in what `keep_only` is given, or copied forward by
  `snapshot`; else it pins its segment and all younger ones.

One commit goes to one segment (segments.py; frames.py says what is in it). Segments are deleted from the
oldest on, never out of turn and never the one being written: the mark of a settled trace stands behind its records, so
it outlives them. The file of a deleted segment may be kept for the next one (segments.py).
"""

from collections.abc import Container, Iterator, Sequence

from epsagon_fast.collector.journal.frames import Batch, Snapshot
from epsagon_fast.collector.journal.replay import Replay, Settled
from epsagon_fast.collector.journal.segments import SEGMENT_BYTES, Segments
from epsagon_fast.collector.journal.uncommitted import Uncommitted
from epsagon_fast.collector.journal.written import Slots, Written
from epsagon_fast.protocol import Record

__all__ = ["SEGMENT_BYTES", "Batch", "Journal", "Settled", "Snapshot"]

# The bound of what waits while nothing can be written. Beyond it the records are given up.
MAX_BUFFERED_BYTES = 4 * 1024 * 1024


class Journal:
    """The journal in one folder: `dir_fd`, which stays the caller's. `page`: see Written; `segment_bytes`: Segments."""

    def __init__(self, dir_fd: int, page: Slots | None = None, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._segments = Segments(dir_fd, segment_bytes, Written(page))
        self._uncommitted = Uncommitted()
        self._replay = Replay(self._segments)
        # Whether records were given up without being written, or deleted. Compaction copies all forward and clears it.
        self.incomplete = False
        # Bytes of batches ever written, without snapshots.
        self.batch_bytes = 0

    @property
    def segment_bytes(self) -> int:
        """The size that a segment exceeds only if a single commit does; it may change."""
        return self._segments.segment_bytes

    @segment_bytes.setter
    def segment_bytes(self, size_bytes: int) -> None:
        self._segments.segment_bytes = size_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes in all segments."""
        return self._segments.size_bytes

    @property
    def segments(self) -> int:
        """The number of segments."""
        return len(self._segments)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of records that wait for a commit."""
        return self._uncommitted.frame_bytes

    @property
    def corrupt(self) -> int:
        """How many segments had something to be set aside."""
        return self._replay.corrupt

    def pinned(self, index: int) -> frozenset[bytes]:
        """Return the traces that keep a segment; index 0 is the oldest, which keeps all others."""
        return frozenset(self._segments[index].pinned)

    def replay(self) -> Iterator[Batch | Snapshot | Settled]:
        """Return what the segments hold, in order, without the records of settled traces. Once, before any append.

        What an earlier frame holds of a trace that a snapshot follows is left out as well. When this returns, before
        anything is taken from the iterator, `ends`, `closes` and `pinned` are known.
        """
        return self._replay.run()

    def ends(self) -> dict[bytes, int]:
        """Return, by ring id, the last position that replay found."""
        return dict(self._replay.ends)

    def closes(self) -> dict[bytes, int]:
        """Return, by ring id, the ordinal of the last CLOSE that replay found; a ring without one is missing."""
        return dict(self._replay.closes)

    def forget_ring(self, ring_id: bytes) -> None:
        """Drop a ring from `ends` and `closes`."""
        self._replay.forget_ring(ring_id)

    def append(self, ring_id: bytes, end: int, records: Sequence[Record]) -> None:
        """Buffer records of one ring, which was read up to position `end`."""
        self._uncommitted.append(ring_id, end, records)

    def snapshot(self, ring_id: bytes, trace_id: bytes, records: Sequence[Record]) -> None:
        """Buffer all that is needed of a trace, in place of what was appended; `ring_id` is its opener's."""
        self._uncommitted.snapshot(ring_id, trace_id, records)

    def settled(self, *trace_ids: bytes) -> None:
        """Buffer the marks of settled traces, and let go of their records."""
        self._uncommitted.settled(trace_ids, written=self._segments.let_go(trace_ids))

    def keep_only(self, alive: Container[bytes]) -> None:
        """Let go of the committed records of traces that `alive` lacks: late ones, orphans, dropped traces.

        In the oldest segments only, up to the first that is needed: the others cannot go before it.
        To be called when all that was committed has been fed on, so that nothing is too new to be known.
        """
        for segment in self._segments:
            if segment.needed_by(alive):
                return

    def commit(self) -> None:
        """Write what is buffered, then delete the oldest segments that no trace needs.

        Raises OSError if it cannot be written: then nothing of it is in the segment, and all of it is still buffered,
        up to a bound; beyond it the records go, and `incomplete` says so. In a deleted folder nothing is done.
        """
        try:
            if self._uncommitted:
                self._write()
        except FileNotFoundError:
            # The folder was deleted. No collector will look for segments in it, so nothing waits for another try.
            self._uncommitted.clear()
        except OSError:
            if self.buffered_bytes > MAX_BUFFERED_BYTES:
                self._uncommitted.clear_frames()
                self.incomplete = True
            raise
        finally:
            # Also after a failure, because deleting makes space.
            self._segments.delete_unpinned()

    def close(self) -> None:
        """Let go of the file. If no trace needs any segment, none stays behind, so the tails must have been moved."""
        self._segments.stop_writing()
        self._segments.delete_unpinned()
        self._segments.drop_spares()

    def miss(self) -> list[str]:
        """Let go of the segments whose files somebody deleted; return their names.

        The journal is `incomplete` then, until compaction has copied forward what is in memory of all traces.
        """
        missing = self._segments.miss()
        self.incomplete |= bool(missing)
        return missing

    def tidy(self) -> None:
        """Let go of what is kept for the next segments, if none has begun since the last call."""
        self._segments.tidy()

    def _write(self) -> None:
        waiting = self._uncommitted
        segment = self._segments.write(waiting.frames())
        self.batch_bytes += waiting.batch_bytes
        self._segments.unpin(waiting.snapshots)
        segment.pinned |= waiting.pins
        waiting.clear()
