"""Where things lie in a ring's file, and what a record looks like. Both implementations of the ring read this.

A file is HEADER_BYTES of header and then `capacity` bytes of data. All slots are 8-byte aligned u64 in the machine's
order (a ring never leaves its machine). A record's position counts the bytes ever pushed before it, so positions only
grow; its bytes lie at position % capacity and may wrap. Each side of the ring writes only its own lines.
"""

import os
import struct
from typing import Final

HEADER_BYTES: Final = 16384
MAGIC_VALUE: Final = int.from_bytes(b"EPSFRING", "little")
LAYOUT_VERSION: Final = 1

# Written once, by whoever creates the file.
MAGIC: Final = 0
VERSION: Final = 8
CAPACITY: Final = 16
PID: Final = 24
# Clock ticks since boot (field 22 of /proc/<pid>/stat); 0 where there is no /proc.
START_TIME: Final = 32
# 1: pure Python fills this ring. It cannot order its stores, so each record carries a CRC-32 of its position, header
# and payload. The position matters: without it a record of the last lap, still visible, would pass for the new one.
CHECKSUMMED: Final = 40
# Nanoseconds since the epoch. Not the file's time, which writing to the mapped pages may change.
CREATED_NS: Final = 48

# The producer's lines.
HEAD: Final = 128
# CLOSE records pushed.
CLOSED_COUNT: Final = 136
# One slot for each of protocol.REFUSALS, of which queue_full is the first: `push` itself counts those.
REFUSED: Final = 256
QUEUE_FULL: Final = REFUSED
REFUSED_SLOTS: Final = 16
# 1 after BYE.
LEFT: Final = 384

# The consumer's lines.
TAIL: Final = 512
# Ordinal of the last CLOSE before tail.
CLOSES_READ: Final = 520
SETTLED: Final = 528
# How many settlements were ever published.
SETTLEMENTS: Final = 536
# Incarnation, pid and start time of the collector that has the ring mapped: while it lives it goes on reading, even if
# the file is deleted, and its state page with it. 0: none has.
ADOPTED: Final = 544
READER_PID: Final = 552
READER_START_TIME: Final = 560
# Bytes that the collector has in memory of the producer's traces.
HELD: Final = 568
# One slot for each of protocol.REFUSALS: how many of them a trace has told the backend, or is about to.
TOLD: Final = 640

# The latest settlements, up to the end of the header; their entries are settlements.py's.
SETTLEMENT_RING: Final = 4096
# All before them, for a look from outside.
_SLOTS: Final = struct.Struct(f"={SETTLEMENT_RING // 8}Q")

# Length of the payload, CRC-32 or 0, kind, flags, two zeros, ordinal, trace id. The payload is padded to 8 bytes.
RECORD_HEADER: Final = struct.Struct("<IIBBHIQ16s")

# What `push` answers. PUSHED and LOOK: the record is in the ring, and with LOOK it is time to see whether a collector
# lives. All others: nothing was written. FULL: and it was counted, since it may come with every push.
PUSHED: Final = 0
LOOK: Final = 1
FULL: Final = 2
TOO_LARGE: Final = 3
FOREIGN: Final = 4
CLOSED: Final = 5

# LOOK comes whenever head passes a multiple of this.
LOOK_SHIFT: Final = 16
# Whoever puts many events need look for a collector with every so many FULLs only: LOOKs came before.
FULLS_PER_LOOK: Final = 16

# protocol.Kind: the numbers from 1 to this are kinds.
LAST_KIND: Final = 8
# By kind, from 0: a record of it leaves capacity >> shift bytes free for more important ones. 63 leaves nothing.
FREE_SHIFTS: Final = (3, 4, 3, 3, 3, 3, 5, 63, 63)
# Every open trace has this much set aside, and the ring one BYE, whatever else is refused.
CLOSE_ROOM_BYTES: Final = 64
BYE_ROOM_BYTES: Final = RECORD_HEADER.size
LARGEST_CLOSE_BYTES: Final = CLOSE_ROOM_BYTES - RECORD_HEADER.size

# Headers are written by other processes. What no honest one counts must not go through our own counting.
LARGEST_COUNT: Final = 2**48

MIN_CAPACITY_BYTES: Final = 1024
# Keeps every sum of a length and an offset far within 32 bits.
MAX_CAPACITY_BYTES: Final = 1 << 30


class CorruptRing(ValueError):
    """A ring's header or a record in it is not what a producer writes."""


class UnfinishedRing(CorruptRing):
    """A ring's file is still being created, or its creator died over it."""


def record_bytes(payload_bytes: int) -> int:
    """Return the room that a record with a payload of so many bytes takes."""
    return RECORD_HEADER.size + (payload_bytes + 7 & ~7)


def largest_payload_bytes(capacity_bytes: int) -> int:
    """Return the length of the largest payload that a ring of this capacity takes: a record is at most a quarter."""
    return (capacity_bytes // 4 & ~7) - RECORD_HEADER.size


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
    if version != LAYOUT_VERSION:
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
    """Return the slots of a ring's header, slot N of the file at N // 8, or raise what `read_capacity` does.

    For those who look at a ring from outside: nothing is mapped, so its owner may truncate it meanwhile.
    """
    read_capacity(fd)
    header = os.pread(fd, _SLOTS.size, 0)
    if len(header) < _SLOTS.size:
        raise CorruptRing(f"the file has only {len(header)} bytes")
    return _SLOTS.unpack(header)
