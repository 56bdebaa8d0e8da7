"""How the journal's segments are written and read: bytes in, bytes out, no files.

A segment is a head, then frames. A frame is u32 length of the body, u32 CRC-32 of the body (begun with the length, so
that it covers that too), and the body: u8 kind, ring id, u64 end, then records in the ring's encoding without its
padding, or the ids of settled traces.

The head is MAGIC in a file's first segment. A file that is used again may have bytes of an older segment behind those
of its new one, so that one's head is AGAIN, u64 number, u64 old bytes (how long the file was), u32 CRC-32 of these two,
and a 1, which a torn head lacks. Its frames' CRCs are combined with the number: no frame of an older segment passes.

Three kinds of frames: a batch as it was read from a ring; marks; a snapshot, which is all that is needed of one trace
and stands in place of all that earlier frames hold of it.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence

from epsagon_fast.protocol import TRACE_ID_BYTES, Record
from epsagon_fast.queue import ring
from epsagon_fast.queue.layout import RECORD_HEADER
from epsagon_fast.queue.names import RING_ID_BYTES
from epsagon_fast.rows import NamedTuple

# The last byte is the version. A segment of another version is set aside.
MAGIC = b"EPSFJRN1"
AGAIN = b"EPSFJRN2"
_NONE = b"EPSFJRN0"
# The fault of a frame that may have been in the middle of its write (written.py); every other fault is damage.
TORN = "a torn frame"

_FRAME = struct.Struct("<II")
_BODY = struct.Struct(f"<B{RING_ID_BYTES}sQ")
_AGAIN = struct.Struct(f"<{len(AGAIN)}sQQIB")
_NUMBERS = struct.Struct("<QQ")
HEAD_BYTES = _AGAIN.size
# Put over the head of a segment that nothing needs: its file holds none.
RETIRED = _NONE.ljust(HEAD_BYTES, b"\0")
_BATCH = 1
_MARKS = 2
_SNAPSHOT = 3


class Batch(NamedTuple):
    """Records read from one ring, up to a position."""

    ring_id: bytes
    end: int
    records: list[Record]


class Marks(NamedTuple):
    """Traces that need nothing more."""

    trace_ids: list[bytes]


class Snapshot(NamedTuple):
    """One trace, opened by a ring's process: its records in place of all earlier ones."""

    ring_id: bytes
    records: list[Record]


Frame = Batch | Marks | Snapshot
# A frame's bytes, in two pieces: joining them would copy the second, which is long, once more.
Encoded = tuple[bytes, bytes | memoryview]


class SegmentHead(NamedTuple):
    """How a segment begins. `number`: 0: that of the file's name, in which it is the first segment."""

    number: int
    size_bytes: int
    # Where it ends before this position, what stands behind it may be of an older segment.
    old_bytes: int


class Parsed(NamedTuple):
    """What a segment holds: its good frames, the bytes they take, and what is wrong behind them (None: nothing)."""

    frames: list[Frame]
    good_bytes: int
    fault: str | None


def encode_batch(ring_id: bytes, end: int, records: Sequence[Record]) -> Encoded:
    """Return a batch's frame."""
    return _encode_records(_BATCH, ring_id, end, records)


def encode_snapshot(ring_id: bytes, records: Sequence[Record]) -> Encoded:
    """Return a snapshot's frame. All records are of one trace."""
    return _encode_records(_SNAPSHOT, ring_id, 0, records)


def encode_marks(trace_ids: Iterable[bytes]) -> Encoded:
    """Return the frame that says that traces are settled."""
    return _framed(_BODY.pack(_MARKS, bytes(RING_ID_BYTES), 0), b"".join(trace_ids))


def numbered(frame: Encoded, number: int) -> Encoded:
    """Return a frame as it stands in a segment whose head has this number; 0: it has none."""
    if not number:
        return frame
    start, rest = frame
    length, crc = _FRAME.unpack_from(start)
    return _FRAME.pack(length, crc ^ _word(number)) + start[_FRAME.size :], rest


def encode_head(number: int, old_bytes: int) -> bytes:
    """Return the head of a segment in a file that had others, which was so long."""
    return _AGAIN.pack(AGAIN, number, old_bytes, zlib.crc32(_NUMBERS.pack(number, old_bytes)), 1)


def parse_head(data: bytes) -> SegmentHead | None:
    """Return how a segment begins; None: there is none in this file. Raises ValueError if it begins otherwise."""
    # Empty: the file was created and never written to, or cut off at its start.
    if not data or data.startswith(_NONE):
        return None
    if data.startswith(MAGIC):
        return SegmentHead(0, len(MAGIC), 0)
    if MAGIC.startswith(data) or (data.startswith(AGAIN) and len(data) < HEAD_BYTES):
        raise ValueError(TORN)
    if not data.startswith(AGAIN):
        raise ValueError("no segment of this version")
    _, number, old_bytes, _, is_whole = _AGAIN.unpack_from(data)
    if data.startswith(encode_head(number, old_bytes)):
        return SegmentHead(number, HEAD_BYTES, old_bytes)
    if is_whole:
        raise ValueError("a wrong head")
    return None


def parse(data: bytes) -> Parsed:
    """Read a segment up to its end or the first frame that is not whole. Never raises."""
    try:
        head = parse_head(data)
    except ValueError as error:
        return Parsed([], 0, str(error))
    if head is None:
        return Parsed([], 0, None)
    frames: list[Frame] = []
    at = head.size_bytes
    while at < len(data):
        try:
            end = _check_frame(data, at, _word(head.number))
            frames.append(_parse_body(data, at + _FRAME.size, end))
        except ValueError as error:
            # Where older bytes may stand, they are most likely what is wrong.
            return Parsed(frames, at, TORN if at < head.old_bytes else str(error))
        at = end
    return Parsed(frames, at, None)


def _word(number: int) -> int:
    return number & 0xFFFFFFFF


def _encode_records(kind: int, ring_id: bytes, end: int, records: Sequence[Record]) -> Encoded:
    # Without the CRC that records have in a ring: the frame has one.
    return _framed(_BODY.pack(kind, ring_id, end), ring.pack(records))


def _framed(start: bytes, rest: bytes | memoryview) -> Encoded:
    length = len(start) + len(rest)
    return _FRAME.pack(length, ring.crc32(rest, ring.crc32(start, length))) + start, rest


def _check_frame(data: bytes, at: int, word: int) -> int:
    """Return where the frame at a position ends. Raises ValueError if it is not what was once written.

    `word`: with what its CRC is combined.
    """
    begin = at + _FRAME.size
    if begin > len(data):
        raise ValueError(TORN)
    length, crc = _FRAME.unpack_from(data, at)
    end = begin + int(length)
    if end > len(data):
        raise ValueError(TORN)
    if zlib.crc32(memoryview(data)[begin:end], length) ^ word != crc:
        # After a power cut a file may have its new length and not its last bytes.
        raise ValueError(TORN if end == len(data) else "a frame with a wrong CRC")
    return end


def _parse_body(data: bytes, at: int, end: int) -> Frame:
    """Return what a frame says. Raises ValueError if it was written whole, but by something else."""
    if end - at < _BODY.size:
        raise ValueError("a frame that is too short")
    kind, ring_id, position = _BODY.unpack_from(data, at)
    at += _BODY.size
    if kind == _BATCH:
        return Batch(ring_id, position, _parse_records(data, at, end))
    if kind == _SNAPSHOT:
        return Snapshot(ring_id, _parse_records(data, at, end))
    if kind == _MARKS and (end - at) % TRACE_ID_BYTES == 0:
        return Marks([data[i : i + TRACE_ID_BYTES] for i in range(at, end, TRACE_ID_BYTES)])
    raise ValueError(f"a frame of kind {kind}")


def _parse_records(data: bytes, at: int, end: int) -> list[Record]:
    records = []
    while at < end:
        if end - at < RECORD_HEADER.size:
            raise ValueError("a record that is cut off")
        length, _, kind, flags, _, _, ordinal, trace_id = RECORD_HEADER.unpack_from(data, at)
        at += RECORD_HEADER.size + length
        if at > end:
            raise ValueError("a record that is longer than its frame")
        records.append(Record(kind, flags, ordinal, trace_id, data[at - length : at]))
    return records
