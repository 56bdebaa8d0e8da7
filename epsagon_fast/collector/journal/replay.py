"""What the segments of earlier collectors hold: their frames in order, without those of settled traces.

A torn end is cut off; what lies behind a corrupt frame is set aside in `journal-<number>.corrupt`. written.py says
which of the two it is.
"""

import logging
from collections.abc import Iterator
from itertools import chain

from epsagon_fast.collector.journal.frames import TORN, Batch, Frame, Marks, Snapshot, parse
from epsagon_fast.collector.journal.segments import Segment, Segments
from epsagon_fast.protocol import NO_TRACE
from epsagon_fast.queue import ring
from epsagon_fast.queue.names import journal_name
from epsagon_fast.rows import NamedTuple

_logger = logging.getLogger(__name__)


class Settled(NamedTuple):
    """A trace that needs nothing more."""

    trace_id: bytes


class Replay:
    """What was found, by ring id: where the last batch ended, and the ordinal of the last CLOSE."""

    def __init__(self, segments: Segments) -> None:
        self.ends: dict[bytes, int] = {}
        self.closes: dict[bytes, int] = {}
        # How many segments had something to be set aside.
        self.corrupt = 0
        self._segments = segments
        # By trace, where its last snapshot stands: segment number and frame in it.
        self._superseded: dict[bytes, tuple[int, int]] = {}

    def run(self) -> Iterator[Batch | Snapshot | Settled]:
        """Take in all segments; return what is in them, in order. Once, before anything is written."""
        settled: set[bytes] = set()
        found = self._segments.find()
        last = self._segments.written.file_number
        if last and all(segment.file_number != last for segment in found):
            self._count_missing(last)
        for segment in found:
            for index, frame in enumerate(self._load(segment, is_last=segment is found[-1])):
                if isinstance(frame, Marks):
                    settled.update(frame.trace_ids)
                elif isinstance(frame, Snapshot):
                    self._note_snapshot(segment, index, frame)
                else:
                    self._note(segment, frame)
        self._segments.unpin(settled)
        return chain.from_iterable(self._again(segment, settled) for segment in list(self._segments))

    def forget_ring(self, ring_id: bytes) -> None:
        """Drop what was found of a ring."""
        self.ends.pop(ring_id, None)
        self.closes.pop(ring_id, None)

    def _load(self, segment: Segment, *, is_last: bool) -> list[Frame]:
        """Take in a segment that was found, without what is wrong with it; return its frames."""
        try:
            data = self._segments.read(segment)
        except OSError as error:
            self._count_corrupt(segment, error.strerror or str(error))
            self._segments.set_aside(segment)
            return []
        parsed = parse(data)
        segment.size_bytes = parsed.good_bytes
        self._segments.take_in(segment)
        lacks = parsed.good_bytes < self._segments.written.bytes_of(segment.file_number)
        if parsed.fault or lacks:
            # Only the last segment can have been in the middle of a write.
            if lacks or not (is_last and parsed.fault == TORN):
                self._count_corrupt(segment, f"{parsed.fault or 'an early end'} at byte {parsed.good_bytes}")
                self._segments.copy_aside(segment, data[parsed.good_bytes :])
            self._segments.truncate(segment)
        return parsed.frames

    def _note(self, segment: Segment, batch: Batch) -> None:
        """Remember what a batch pins and how far it reaches."""
        segment.pinned |= ring.ids(batch.records)
        segment.pinned.discard(NO_TRACE)
        self.ends[batch.ring_id] = batch.end
        for record in batch.records:
            if record.ordinal:
                self.closes[batch.ring_id] = record.ordinal

    def _note_snapshot(self, segment: Segment, index: int, snapshot: Snapshot) -> None:
        trace_ids = {record.trace_id for record in snapshot.records}
        self._segments.unpin(trace_ids)
        segment.pinned |= trace_ids
        for trace_id in trace_ids:
            self._superseded[trace_id] = segment.number, index
        # The ring and all its batches may be gone. Then only this tells that its process had open traces.
        self.ends.setdefault(snapshot.ring_id, 0)

    def _again(self, segment: Segment, settled: set[bytes]) -> Iterator[Batch | Snapshot | Settled]:
        # Read a second time, so that only one segment is in memory at a time.
        try:
            data = self._segments.read(segment)
        except OSError as error:
            self.corrupt += 1
            _logger.warning("%s went while it was replayed: %s", segment.name, error)
            return
        superseded = self._superseded
        for index, frame in enumerate(parse(data).frames):
            if isinstance(frame, Marks):
                yield from map(Settled, frame.trace_ids)
                continue
            here = segment.number, index
            records = [
                record
                for record in frame.records
                if record.trace_id not in settled and superseded.get(record.trace_id, here) <= here
            ]
            if records or isinstance(frame, Batch):
                yield frame._replace(records=records)

    def _count_corrupt(self, segment: Segment, reason: str) -> None:
        self.corrupt += 1
        _logger.warning("%s: %s; set aside as %s", segment.name, reason, segment.name_aside)

    def _count_missing(self, file_number: int) -> None:
        self.corrupt += 1
        self._segments.written.forget(file_number)
        _logger.warning("%s was deleted, with what had not arrived", journal_name(file_number))
