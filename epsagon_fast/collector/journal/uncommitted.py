"""Holds the frames that wait for the journal's next commit, and what is pinned and marked when they are written."""

from collections.abc import Iterable, Sequence, Set

from epsagon_fast.collector.journal.frames import Encoded, encode_batch, encode_marks, encode_snapshot
from epsagon_fast.protocol import NO_TRACE, Record
from epsagon_fast.queue import ring


class Uncommitted:
    """Everything that was appended or settled since the last commit."""

    def __init__(self) -> None:
        self._frames: list[Encoded] = []
        self.frame_bytes = 0
        # The part of it that batches take; snapshots take the rest.
        self.batch_bytes = 0
        # Traces that have records in the frames.
        self._pins: set[bytes] = set()
        # Traces that have a snapshot in the frames: earlier records of them are not needed any more.
        self.snapshots: set[bytes] = set()
        self._marks: list[bytes] = []
        # Marks of traces that no segment has records of. They are worth nothing without the frames.
        self._marks_of_frames: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._frames or self.marks)

    @property
    def marks(self) -> list[bytes]:
        """The settled traces that are not marked yet."""
        return [*self._marks, *self._marks_of_frames]

    @property
    def pins(self) -> set[bytes]:
        """The traces that need what is written."""
        return self._pins - {NO_TRACE}

    def append(self, ring_id: bytes, end: int, records: Sequence[Record]) -> None:
        """Add a batch."""
        self.batch_bytes += self._add(encode_batch(ring_id, end, records))
        self._pins |= ring.ids(records)

    def snapshot(self, ring_id: bytes, trace_id: bytes, records: Sequence[Record]) -> None:
        """Add a snapshot."""
        self._add(encode_snapshot(ring_id, records))
        self.snapshots.add(trace_id)
        self._pins.add(trace_id)

    def settled(self, trace_ids: Iterable[bytes], *, written: Set[bytes]) -> None:
        """Add the marks of settled traces. `written`: those of which a segment has records."""
        for trace_id in trace_ids:
            (self._marks if trace_id in written else self._marks_of_frames).append(trace_id)
        self._pins.difference_update(trace_ids)

    def frames(self) -> list[Encoded]:
        """Return all that is to be written, in order."""
        marks = self.marks
        return [*self._frames, encode_marks(marks)] if marks else self._frames

    def clear(self) -> None:
        """Let go of all: it is written, or never will be."""
        self.clear_frames()
        self._marks.clear()

    def clear_frames(self) -> None:
        """Let go of the frames, and of marks that mean nothing without them."""
        self._frames.clear()
        self.frame_bytes = self.batch_bytes = 0
        self._pins.clear()
        self.snapshots.clear()
        self._marks_of_frames.clear()

    def _add(self, frame: Encoded) -> int:
        size = len(frame[0]) + len(frame[1])
        self._frames.append(frame)
        self.frame_bytes += size
        return size
