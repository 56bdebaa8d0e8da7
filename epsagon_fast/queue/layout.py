"""The layout of a ring's file and of a record. Both implementations of the ring use these constants.

A file is HEADER_BYTES of header and then `capacity` bytes of data. The header consists of slots, 8-byte aligned u64 in
the machine's order (a ring never leaves its machine). A record's position counts the bytes ever pushed before it, so
positions only grow. Its bytes lie at position % capacity and may wrap. Producer and consumer write different slots, in
different cache lines.
"""

import os
import struct

from epsagon_fast.hints import Final, Protocol
from epsagon_fast.protocol import CLOSE_PAYLOAD, REFUSALS, TRACE_ID_BYTES, Kind, Record

HEADER_BYTES: Final = 16384
MAGIC_VALUE: Final = int.from_bytes(b"EPSFRING", "little")
LAYOUT_VERSION: Final = 2
# Version 1 had neither shared starts nor ENDs, and zeros in their places. So its rings are read alike.
READ_VERSIONS: Final = (1, 2)

# Slots that are written once, when the file is made.
MAGIC: Final = 0
VERSION: Final = 8
CAPACITY: Final = 16
PID: Final = 24
# Clock ticks since boot (field 22 of /proc/<pid>/stat); 0 where there is no /proc.
START_TIME: Final = 32
# 1: pure Python fills this ring. Python cannot order its stores, so each record has a CRC-32 of its position, header
# and payload. Without the position a record of the last lap, which is still there, would pass for the new one.
CHECKSUMMED: Final = 40
# When the file was made, in nanoseconds since the epoch. The file's own time may change when mapped pages are written.
CREATED_NS: Final = 48

# The producer's slots.
HEAD: Final = 128
# The number of CLOSE records pushed.
CLOSED_COUNT: Final = 136
# One slot for each of protocol.REFUSALS. `push` itself counts queue_full, and what of an END is too large.
REFUSED: Final = 256
QUEUE_FULL: Final = REFUSED + 8 * REFUSALS.index("queue_full")
NEWS_TOO_LARGE: Final = REFUSED + 8 * REFUSALS.index("too_large")
REFUSED_SLOTS: Final = 16
# 1 after a BYE.
LEFT: Final = 384
# Traces of which nothing was recorded, because the head had left them out.
LEFT_OUT: Final = 392

# The consumer's slots.
TAIL: Final = 512
# Ordinal of the last CLOSE before tail.
CLOSES_READ: Final = 520
SETTLED: Final = 528
# How many settlements were ever published.
SETTLEMENTS: Final = 536
# Incarnation, pid and start time of the collector that has mapped the ring; 0: none has. While that one lives it goes
# on reading, even if the file and the state page are deleted.
ADOPTED: Final = 544
READER_PID: Final = 552
READER_START_TIME: Final = 560
# How many bytes of the producer's traces the collector has in memory.
HELD: Final = 568
# One slot for each of protocol.REFUSALS: how many of the refusals a trace has told the backend, or is about to tell.
TOLD: Final = 640
# The same for how many of them are in the collector's counters.
COUNTED: Final = 768
# The same for LEFT_OUT.
LEFT_OUT_COUNTED: Final = 896

# Starts that many records share: what the OPENs of one config say up to their runner. Each stands here once, and a
# record in the ring has its number and the rest. An entry is its length, a u64 that is stored last, and its bytes,
# padded to 8. Entries stay as long as the file. An entry's number is its offset in the header, divided by 8.
STARTS: Final = 1024
STARTS_END: Final = 4096

# The latest settlements, up to the end of the header. settlements.py defines an entry.
SETTLEMENT_RING: Final = STARTS_END
# All slots before the settlements, for `read_slots`.
_SLOTS: Final = struct.Struct(f"={SETTLEMENT_RING // 8}Q")

# Length of the payload without its start, CRC-32 or 0, kind, flags, number of the start or 0, zeros, ordinal, trace id.
# The payload is padded to 8 bytes.
RECORD_HEADER: Final = struct.Struct(f"<IIBBHIQ{TRACE_ID_BYTES}s")

# How many traces have room in the page that shows which are open, and one more; see beacon.py. No part of a ring.
PLACES: Final = 256

# The answers of `push`. PUSHED and LOOK: the record is in the ring. With LOOK the caller should see whether a collector
# lives. All others: nothing was written. FULL was counted by `push` itself, because it may come with every push.
PUSHED: Final = 0
LOOK: Final = 1
FULL: Final = 2
TOO_LARGE: Final = 3
FOREIGN: Final = 4
CLOSED: Final = 5
# In place of an answer: `push` was not asked yet.
NOT_ASKED: Final = -1

# `push` answers LOOK when head passes a multiple of 2 to this power.
LOOK_SHIFT: Final = 16
# A producer looks for a collector only at one FULL in so many: LOOKs came before the first one.
FULLS_PER_LOOK: Final = 16

# Kinds of records are those of protocol.Kind, and one that only rings know: a RUNNER with the CLOSE behind it. Its
# payload is the RUNNER's and then the CLOSE's, which has CLOSE_BYTES; its flags are the CLOSE's. What reads a ring
# hands over two records. Where only the CLOSE has room, `push` writes that alone and counts the RUNNER.
END: Final = int(max(Kind)) + 1
CLOSE_BYTES: Final = CLOSE_PAYLOAD.size
# The largest number of a kind; the smallest is 1.
LAST_KIND: Final = END
# For each kind from 0 on: a record of this kind leaves capacity >> shift bytes free for more important records. With 63
# that is nothing.
_SHIFTS: Final[dict[int, int]] = {Kind.OPEN: 4, Kind.ERROR: 5, Kind.CLOSE: 63, Kind.BYE: 63}
FREE_SHIFTS: Final = tuple(_SHIFTS.get(kind, 3) for kind in range(LAST_KIND + 1))
# Room that is kept for the CLOSE of each open trace and for the BYE of the ring, whatever else is refused.
CLOSE_ROOM_BYTES: Final = 64
BYE_ROOM_BYTES: Final = RECORD_HEADER.size
LARGEST_CLOSE_BYTES: Final = CLOSE_ROOM_BYTES - RECORD_HEADER.size

# Another process writes the header. A larger count than this is nonsense and must not enter our own counters.
LARGEST_COUNT: Final = 2**48

MIN_CAPACITY_BYTES: Final = 1024
# With this limit every sum of a length and an offset fits into 32 bits.
MAX_CAPACITY_BYTES: Final = 1 << 30


class CorruptRing(ValueError):
    """A ring's header or a record in it is not what a producer writes."""


class UnfinishedRing(CorruptRing):
    """A ring's file is still being made, or its maker died before it was complete."""


def record_bytes(payload_bytes: int) -> int:
    """Return the room that a record with a payload of so many bytes takes."""
    return RECORD_HEADER.size + (payload_bytes + 7 & ~7)


def largest_payload_bytes(capacity_bytes: int) -> int:
    """Return the length of the largest payload that a ring of this capacity takes: a record is at most a quarter."""
    return (capacity_bytes // 4 & ~7) - RECORD_HEADER.size


def apart(record: Record) -> tuple[Record, ...]:
    """Return the records that one of a ring stands for: an END for two, any other for itself."""
    if record.kind != END:
        return (record,)
    _, flags, ordinal, trace_id, payload = record
    at = max(0, len(payload) - CLOSE_BYTES)
    news = Record(int(Kind.RUNNER), 0, 0, trace_id, payload[:at])
    return news, Record(int(Kind.CLOSE), flags, ordinal, trace_id, payload[at:])


class Header(Protocol):
    """The part of a mapped ring in which its shared starts stand."""

    def load(self, offset: int, /) -> int: ...
    def copy(self, offset: int, length: int, /) -> bytes: ...


def start_of(header: Header, number: int) -> bytes:
    """Return the start with this number; empty for 0, and for a number of none."""
    offset = 8 * number
    if not STARTS <= offset < STARTS_END:
        return b""
    length = header.load(offset)
    return header.copy(offset + 8, length) if offset + 8 + length <= STARTS_END else b""


def find_start(header: Header, start: bytes) -> tuple[int, int]:
    """Return the number of a start in the header, and the offset where it is to be written because it is not there.

    Either may be 0; both are if there is no room for it.
    """
    offset = STARTS
    while start and offset + 8 + len(start) <= STARTS_END:
        length = header.load(offset)
        if not length:
            return 0, offset
        if length == len(start) and start_of(header, offset // 8) == start:
            return offset // 8, 0
        offset += 8 + (length + 7 & ~7)
    return 0, 0


def check_capacity(capacity_bytes: int) -> None:
    """Raise ValueError if no ring may have this capacity."""
    if capacity_bytes % 8 or not MIN_CAPACITY_BYTES <= capacity_bytes <= MAX_CAPACITY_BYTES:
        raise ValueError(
            f"capacity is {capacity_bytes} bytes, must be a multiple of 8 "
            f"from {MIN_CAPACITY_BYTES} to {MAX_CAPACITY_BYTES}"
        )


def read_capacity(fd: int) -> int:
    """Return the capacity of the ring in an open file, or raise CorruptRing saying what is wrong with its header."""
    start = os.pread(fd, CHECKSUMMED + 8, 0)
    if len(start) < CHECKSUMMED + 8 or not any(start[MAGIC : MAGIC + 8]):
        raise UnfinishedRing("the ring has no header yet")
    magic, version, capacity, _, _, _ = struct.unpack("=6Q", start)
    if magic != MAGIC_VALUE:
        raise CorruptRing(f"magic is {magic:#x}, not {MAGIC_VALUE:#x}")
    if version not in READ_VERSIONS:
        raise CorruptRing(f"layout version is {version}, not {LAYOUT_VERSION}")
    try:
        check_capacity(capacity)
    except ValueError as error:
        raise CorruptRing(str(error)) from None
    size_bytes = os.fstat(fd).st_size
    if size_bytes != HEADER_BYTES + capacity:
        raise CorruptRing(f"the file has {size_bytes} bytes, not {HEADER_BYTES} + {capacity}")
    return int(capacity)


def read_slots(fd: int) -> tuple[int, ...]:
    """Return the slots of a ring's header; the slot at offset N is number N // 8. Raises what `read_capacity` raises.

    Use it to look at a ring from outside. It maps nothing, so it does no harm if the ring's owner truncates the file.
    """
    read_capacity(fd)
    header = os.pread(fd, _SLOTS.size, 0)
    if len(header) < _SLOTS.size:
        raise CorruptRing(f"the file has only {len(header)} bytes")
    return _SLOTS.unpack(header)
