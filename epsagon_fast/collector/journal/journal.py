"""The journal: what was read from the rings and is not settled yet, in files that outlive the collector.

How the loop keeps it true that a record is always in a file:

- Each pass: `append` what was read, `commit`, and only then move the rings' tails and feed the records on. A commit
  that failed keeps its frames for the next one; until one succeeds no tail moves.
- At start: `replay`, then read each ring from the later of its tail and `ends()`, and store its tail there *before*
  the next commit. Commits delete segments; a tail that lags behind would have a deleted segment's records read again.
- A ring's file goes only after its last record was committed. So a ring that `ends()` names and the folder lacks
  belonged to a process that is gone: no mark says so, the missing file does.
- Every trace with records here is settled one day, or missing in what `keep_only` is given, or copied forward by
  `snapshot`; else it pins its segment and all younger ones.

A segment is a file `journal-<16 digits>`, see frames.py. One commit goes to one segment. Segments are deleted from the
oldest on, never out of turn and never the one being written: the mark of a settled trace stands behind its records, so
it outlives them.
"""

import errno
import logging
import os
import re
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

import epsagon_fast.private as private
from epsagon_fast.collector.bounds import LARGEST_JOURNAL_BYTES
from epsagon_fast.collector.journal.frames import (
    MAGIC,
    TORN,
    Batch,
    Frame,
    Marks,
    Parsed,
    Snapshot,
    encode_batch,
    encode_marks,
    encode_snapshot,
    parse,
)
from epsagon_fast.protocol import NO_TRACE, Record
from epsagon_fast.queue.names import CORRUPT, JOURNAL_NAME, journal_name

__all__ = ["SEGMENT_BYTES", "Batch", "Journal", "Settled", "Snapshot"]

SEGMENT_BYTES = 4 * 1024 * 1024
# While nothing can be written, so much waits for a better time; what is over it goes.
MAX_BUFFERED_BYTES = 4 * 1024 * 1024

_ASIDE = re.compile(JOURNAL_NAME.pattern + re.escape(CORRUPT))
_IOV_MAX = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 1024
# O_APPEND: after a partial write was cut off, the next one goes to the new end.
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND

_trace_id = itemgetter(Record._fields.index("trace_id"))
_logger = logging.getLogger(__name__)


class Settled(NamedTuple):
    """A trace that needs nothing more."""

    trace_id: bytes


@dataclass
class _Segment:
    number: int
    size_bytes: int = 0
    # Traces that have records here and are not settled.
    pinned: set[bytes] = field(default_factory=set)

    @property
    def name(self) -> str:
        return journal_name(self.number)


class Journal:
    """The segments in one folder.

    `dir_fd` is the folder, and stays the caller's. No path is used: the folder may be moved or deleted under us.
    `segment_bytes` is the size that a segment exceeds only if a single commit does; it may change. Nothing is created
    before the first commit.
    """

    def __init__(self, dir_fd: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._dir_fd = dir_fd
        self.segment_bytes = segment_bytes
        # Oldest first. The last one is being written if _fd is set; segments found by replay are never written to.
        self._segments: list[_Segment] = []
        self._fd: int | None = None
        self._number = 0
        # A failed write left something behind.
        self._torn = False
        self._buffers: list[bytes] = []
        self._buffered_bytes = 0
        self._buffered_pins: set[bytes] = set()
        self._buffered_snapshots: set[bytes] = set()
        self._marks: list[bytes] = []
        # Of traces of which nothing is in a segment yet: if their records go, these may go too.
        self._buffered_marks: list[bytes] = []
        # By trace, where its last snapshot stands: segment number and frame in it. For replay.
        self._superseded: dict[bytes, tuple[int, int]] = {}
        # Whether something that was appended went without being written. Whoever copies all forward clears it.
        self.incomplete = False
        # Bytes of batches ever written; what snapshots cost is not in it.
        self.batch_bytes = 0
        self._buffered_batch_bytes = 0
        self._ends: dict[bytes, int] = {}
        self._closes: dict[bytes, int] = {}
        # How many segments had something to be set aside.
        self.corrupt = 0

    @property
    def size_bytes(self) -> int:
        """Bytes in all segments."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def segments(self) -> int:
        """The number of segments."""
        return len(self._segments)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of records that wait for a commit."""
        return self._buffered_bytes

    def pinned(self, index: int) -> frozenset[bytes]:
        """Return the traces that keep a segment; index 0 is the oldest, which keeps all others."""
        return frozenset(self._segments[index].pinned)

    def ends(self) -> dict[bytes, int]:
        """Return, by ring id, the last position that replay found."""
        return dict(self._ends)

    def closes(self) -> dict[bytes, int]:
        """Return, by ring id, the ordinal of the last CLOSE that replay found; a ring without one is missing."""
        return dict(self._closes)

    def forget_ring(self, ring_id: bytes) -> None:
        """Drop a ring from `ends` and `closes`."""
        self._ends.pop(ring_id, None)
        self._closes.pop(ring_id, None)

    def append(self, ring_id: bytes, end: int, records: Sequence[Record]) -> None:
        """Buffer records of one ring, which was read up to position `end`."""
        self._buffered_batch_bytes += self._buffer(encode_batch(ring_id, end, records))
        self._buffered_pins.update(map(_trace_id, records))

    def snapshot(self, ring_id: bytes, trace_id: bytes, records: Sequence[Record]) -> None:
        """Buffer all that is needed of a trace, in place of what was appended; `ring_id` is its opener's."""
        self._buffer(encode_snapshot(ring_id, records))
        self._buffered_snapshots.add(trace_id)
        self._buffered_pins.add(trace_id)

    def settled(self, trace_id: bytes) -> None:
        """Buffer the mark of a settled trace, and let go of its records."""
        written = any(trace_id in segment.pinned for segment in self._segments)
        (self._marks if written else self._buffered_marks).append(trace_id)
        self._buffered_pins.discard(trace_id)
        for segment in self._segments:
            segment.pinned.discard(trace_id)

    def keep_only(self, alive: Container[bytes]) -> None:
        """Let go of the committed records of traces that `alive` lacks: late ones, orphans, dropped traces.

        In the oldest segments only, up to the first that is needed: the others cannot go before it.
        To be called when all that was committed has been fed on, so that nothing is too new to be known.
        """
        for segment in self._segments:
            segment.pinned = {trace_id for trace_id in segment.pinned if trace_id in alive}
            if segment.pinned:
                return

    def commit(self) -> None:
        """Write what is buffered, then delete the oldest segments that no trace needs.

        Raises OSError if it cannot be written: then nothing of it is in the segment, and all of it is still buffered,
        up to a bound; beyond it the records go, and `incomplete` says so. In a deleted folder nothing is done.
        """
        try:
            if self._buffers or self._marks or self._buffered_marks:
                self._write()
        except FileNotFoundError:
            # The folder was deleted. Nobody will look for segments in it, so nothing need wait for another try.
            self._clear_buffers()
        except OSError:
            if self.buffered_bytes > MAX_BUFFERED_BYTES:
                self._clear_records()
                self.incomplete = True
            raise
        finally:
            # On failure too: this is what makes space.
            self._delete_settled()

    def close(self) -> None:
        """Let go of the file. If no trace needs any segment, none stays behind, so the tails must have been moved."""
        self._stop_writing()
        self._delete_settled()

    def replay(self) -> Iterator[Batch | Snapshot | Settled]:
        """Return what the segments hold, in order, without the records of settled traces. Once, before any append.

        What an earlier frame holds of a trace that a snapshot follows is left out as well.

        When this returns, before anything is taken from the iterator, `ends`, `closes` and `pinned` are known, a torn
        end is cut off, and what lies behind a corrupt frame is set aside in `journal-<number>.corrupt`.
        """
        settled: set[bytes] = set()
        names = os.listdir(self._dir_fd)
        found = sorted(_numbers(JOURNAL_NAME, names))
        # Each number once, as long as something bears it: what is set aside takes no earlier one's place.
        self._number = max([*found, *_numbers(_ASIDE, names)], default=0)
        for number in found:
            segment = _Segment(number)
            for index, frame in enumerate(self._load(segment, is_last=number == found[-1])):
                if isinstance(frame, Marks):
                    settled.update(frame.trace_ids)
                elif isinstance(frame, Snapshot):
                    self._note_snapshot(segment, index, frame)
                else:
                    self._note(segment, frame)
        for segment in self._segments:
            segment.pinned -= settled
        return chain.from_iterable(self._replay(segment, settled) for segment in self._segments[:])

    def _replay(self, segment: _Segment, settled: set[bytes]) -> Iterator[Batch | Snapshot | Settled]:
        # Read again, since only so is no more than one segment in memory at a time.
        try:
            data = self._read(segment)
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

    def _load(self, segment: _Segment, *, is_last: bool) -> list[Frame]:
        """Take in a segment that was found, without what is wrong with it; return its frames."""
        try:
            data = self._read(segment)
        except OSError as error:
            self._count_corrupt(segment, error.strerror or str(error))
            with suppress(OSError):
                os.rename(segment.name, segment.name + CORRUPT, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
            return []
        parsed = parse(data)
        segment.size_bytes = parsed.good_bytes
        self._segments.append(segment)
        if parsed.fault:
            # Only the last segment can have been in the middle of a write.
            if not (is_last and parsed.fault == TORN):
                self._set_aside(segment, data, parsed)
            self._truncate(segment)
        return parsed.frames

    def _note(self, segment: _Segment, batch: Batch) -> None:
        """Remember what a batch pins and how far it reaches."""
        segment.pinned.update(map(_trace_id, batch.records))
        segment.pinned.discard(NO_TRACE)
        self._ends[batch.ring_id] = batch.end
        for record in batch.records:
            if record.ordinal:
                self._closes[batch.ring_id] = record.ordinal

    def _note_snapshot(self, segment: _Segment, index: int, snapshot: Snapshot) -> None:
        for trace_id in {record.trace_id for record in snapshot.records}:
            for earlier in self._segments:
                earlier.pinned.discard(trace_id)
            segment.pinned.add(trace_id)
            self._superseded[trace_id] = segment.number, index
        # All batches of its ring may be gone, and the ring too: this is what names it then.
        self._ends.setdefault(snapshot.ring_id, 0)

    def _read(self, segment: _Segment) -> bytes:
        with open(private.open_file(segment.name, os.O_RDONLY, dir_fd=self._dir_fd), "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            # What is larger was not written by us, and its length may be a hole's: it must not fill the memory.
            if size_bytes > LARGEST_JOURNAL_BYTES:
                raise OSError(errno.EFBIG, f"a segment of {size_bytes} bytes")
            return file.read(LARGEST_JOURNAL_BYTES)

    def _set_aside(self, segment: _Segment, data: bytes, parsed: Parsed) -> None:
        """Copy what is wrong with a segment to a file of its own. With no space for that it is lost."""
        self._count_corrupt(segment, f"{parsed.fault} at byte {parsed.good_bytes}")
        with suppress(OSError):
            fd = private.open_file(segment.name + CORRUPT, _CREATE, dir_fd=self._dir_fd)
            with open(fd, "wb") as file:
                file.write(data[parsed.good_bytes :])

    def _count_corrupt(self, segment: _Segment, reason: str) -> None:
        self.corrupt += 1
        _logger.warning("%s: %s; set aside as %s", segment.name, reason, segment.name + CORRUPT)

    def _truncate(self, segment: _Segment) -> None:
        # If this fails, the next collector finds the same fault and stops at the same place.
        with suppress(OSError):
            fd = private.open_file(segment.name, os.O_WRONLY, dir_fd=self._dir_fd)
            try:
                os.ftruncate(fd, segment.size_bytes)
            finally:
                os.close(fd)

    def _write(self) -> None:
        if self._torn:
            self._cut_back()
        marks = [*self._marks, *self._buffered_marks]
        buffers = [*self._buffers, *(encode_marks(marks) if marks else ())]
        fd = self._segment_for(sum(map(len, buffers)))
        segment = self._segments[-1]
        if not segment.size_bytes:
            buffers.insert(0, MAGIC)
        try:
            written = _write_all(fd, buffers)
        except BaseException:
            self._torn = True
            with suppress(OSError):
                self._cut_back()
            raise
        segment.size_bytes += written
        self.batch_bytes += self._buffered_batch_bytes
        for each in self._segments:
            each.pinned -= self._buffered_snapshots
        segment.pinned |= self._buffered_pins - {NO_TRACE}
        self._clear_buffers()
        if segment.size_bytes > self.segment_bytes:
            # The one that is written cannot go, however little of it is needed.
            self._stop_writing()

    def _buffer(self, frame: tuple[bytes, bytes]) -> int:
        size = len(frame[0]) + len(frame[1])
        self._buffers += frame
        self._buffered_bytes += size
        return size

    def _clear_buffers(self) -> None:
        self._clear_records()
        self._marks.clear()

    def _clear_records(self) -> None:
        self._buffers.clear()
        self._buffered_bytes = 0
        self._buffered_pins.clear()
        self._buffered_snapshots.clear()
        self._buffered_marks.clear()
        self._buffered_batch_bytes = 0

    def _segment_for(self, size_bytes: int) -> int:
        """Return the descriptor of the segment that the next bytes belong to."""
        if self._fd is not None:
            filled = self._segments[-1].size_bytes
            if not filled or filled + size_bytes <= self.segment_bytes:
                return self._fd
            self._stop_writing()
        # Counted first: a name that is taken is passed by at the next try.
        self._number += 1
        segment = _Segment(self._number)
        self._fd = private.open_file(segment.name, _CREATE, dir_fd=self._dir_fd)
        self._segments.append(segment)
        return self._fd

    def _cut_back(self) -> None:
        """Remove a partial write. All of it is written again, so its first frames, if whole, would come twice."""
        assert self._fd is not None
        os.ftruncate(self._fd, self._segments[-1].size_bytes)
        self._torn = False

    def _stop_writing(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _delete_settled(self) -> None:
        whole = self._segments if self._fd is None else self._segments[:-1]
        for segment in whole[:]:
            if segment.pinned:
                return
            try:
                os.unlink(segment.name, dir_fd=self._dir_fd)
            except FileNotFoundError:
                pass
            except OSError:
                # No younger one may go before it.
                return
            self._segments.remove(segment)


def _numbers(pattern: re.Pattern[str], names: list[str]) -> list[int]:
    return [int(match[1]) for match in map(pattern.fullmatch, names) if match]


def _write_all(fd: int, buffers: list[bytes]) -> int:
    """Write all buffers; return the sum of their lengths."""
    total = 0
    for at in range(0, len(buffers), _IOV_MAX):
        part = buffers[at : at + _IOV_MAX]
        length = sum(map(len, part))
        written = os.writev(fd, part)
        if written < length:
            rest = memoryview(b"".join(part))[written:]
            while rest:
                rest = rest[os.write(fd, rest) :]
        total += length
    return total
