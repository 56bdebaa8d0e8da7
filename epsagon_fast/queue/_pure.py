"""The ring in pure Python, for machines where the extension is not built. Same classes, same answers, slower.

It maps files through the C library, because an mmap.mmap keeps a descriptor of its file, and a worker must keep none:
after a daemon's closerange the same number may be the application's database connection.
"""

import binascii
import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable

from epsagon_fast.hints import Generic, TypeVar
from epsagon_fast.protocol import NO_TRACE, TRACE_ID_BYTES, Kind, Record
from epsagon_fast.queue import layout
from epsagon_fast.queue.layout import (
    CLOSED,
    FOREIGN,
    FULL,
    HEADER_BYTES,
    LOOK,
    PUSHED,
    RECORD_HEADER,
    TOO_LARGE,
    CorruptRing,
)

T = TypeVar("T")
R = TypeVar("R")
Push = tuple[int, int, bytes, bytes]

_PROT_READ_WRITE = 1 | 2
_MAP_SHARED = 1
_MAP_FAILED = ctypes.c_void_p(-1).value
_ROLLED_OVER = 1 << 64
_CLOSING = (int(Kind.CLOSE), layout.END)

# The most records that may wait while a push is at work. Only a storm of signals within one push comes near it.
_MAX_WAITING = 1000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class PureMapping:
    """The first `length_bytes` of a file, shared and writable. The caller may close fd at once."""

    # The state before __init__, and after an __init__ that failed.
    _address = 0
    _closed = True

    def __init__(self, fd: int, length_bytes: int) -> None:
        self._length_bytes = length_bytes
        self._adding: Turns[tuple[int, int], None] = Turns()
        size_bytes = os.fstat(fd).st_size
        # Touching a page past the file's end kills the process with SIGBUS.
        if not 0 < length_bytes <= size_bytes:
            raise ValueError(f"cannot map {length_bytes} bytes of a file of {size_bytes}")
        address = _libc.mmap(None, length_bytes, _PROT_READ_WRITE, _MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._address = address
        self._closed = False

    def __reduce__(self) -> str:
        raise TypeError(f"a {type(self).__name__} of a ring cannot be copied: it belongs to one process")

    def load(self, offset: int) -> int:
        """Return the u64 at an offset."""
        return self._u64(offset).value

    def store(self, offset: int, value: int) -> None:
        """Set the u64 at an offset."""
        if not 0 <= value < _ROLLED_OVER:
            raise OverflowError("value must fit into 64 bits unsigned")
        self._u64(offset).value = value

    def add(self, offset: int, amount: int) -> None:
        """Add to the u64 at an offset. Exact among the users of this object, not among several mappings of a file."""
        self._u64(offset)
        self._adding.take((offset, amount), self._add)

    def copy(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from an offset."""
        return ctypes.string_at(self._place(offset, length), length)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes at an offset."""
        if type(data) is not bytes:
            raise TypeError("data must be bytes")
        ctypes.memmove(self._place(offset, len(data)), data, len(data))

    def enter(self, count_at: int, at: int, places: int, items: Iterable[bytes], tail: bytes) -> None:
        """Write each of `items`, bytes, with `tail` behind it, to the next of `places` from `at` on, and count it.

        The count, a u64 at `count_at`, says which place is next. All entries have one length. A reader finds no more
        than one entry that is being written over, since each is counted as soon as it is written.
        """
        count = self.load(count_at)
        for item in items:
            entry = item + tail
            self.write(at + count % places * len(entry), entry)
            # A damaged header may hold the largest number.
            count = (count + 1) % _ROLLED_OVER
            self.store(count_at, count)

    def close(self) -> None:
        """Let go of the file. Later calls raise ValueError; closing again does nothing."""
        # The memory stays until the object goes: another thread may be about to copy from it.
        self._closed = True

    def __del__(self) -> None:
        if self._address:
            _libc.munmap(self._address, self._length_bytes)

    def _place(self, offset: int, length: int) -> int:
        if self._closed:
            raise ValueError("the mapping is closed")
        if offset < 0 or length < 0 or offset + length > self._length_bytes:
            raise IndexError(f"{length} bytes at {offset} are not within {self._length_bytes}")
        return self._address + offset

    def _u64(self, offset: int) -> ctypes.c_uint64:
        if offset % 8:
            raise IndexError(f"offset {offset} is not a multiple of 8")
        return ctypes.c_uint64.from_address(self._place(offset, 8))

    def _add(self, increment: tuple[int, int], own: bool) -> None:
        offset, amount = increment
        self.store(offset, (self.load(offset) + amount) % _ROLLED_OVER)


class Turns(Generic[T, R]):
    """Works on items one at a time and in order, without a lock.

    A caller that arrives while another is at work (in another thread, or in a signal handler that interrupted it)
    leaves its item with that one and goes on. A lock would not do, because a handler cannot wait for the code that it
    interrupted.
    """

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._holder: dict[str, T] = {}

    def take(self, item: T, work: Callable[[T, bool], R]) -> R | None:
        """Return the result of `work(item, True)`, or None if the item was left with another caller.

        An item that another caller left here is worked on as `work(item, False)`. Each `item` must be a new object.
        """
        result = None
        self._waiting.append(item)
        try:
            # setdefault is one step that neither a thread nor a signal divides. _waiting is looked at again after the
            # turn was given up, because an item may have been left in between.
            while self._waiting and self._holder.setdefault("holder", item) is item:
                result = self._drain(item, work, result)
                self._holder.clear()
        finally:
            # A signal handler that raises must not keep the turn for ever.
            if self._holder.get("holder") is item:
                self._holder.clear()
        return result

    def __len__(self) -> int:
        return len(self._waiting)

    def _drain(self, own: T, work: Callable[[T, bool], R], result: R | None) -> R | None:
        while self._waiting:
            item = self._waiting.popleft()
            done = work(item, item is own)
            result = done if item is own else result
        return result


class _Ring(PureMapping):
    """A whole ring, with its data addressed by position."""

    def __init__(self, fd: int) -> None:
        self._capacity_bytes = layout.read_capacity(fd)
        self._largest_bytes = layout.largest_payload_bytes(self._capacity_bytes)
        super().__init__(fd, HEADER_BYTES + self._capacity_bytes)
        # These three views are made once, because a load or store costs as much as the rest of a push. They live no
        # longer than the mapping.
        self._head, self._tail, self._left = map(self._u64, (layout.HEAD, layout.TAIL, layout.LEFT))

    @property
    def head(self) -> int:
        """The position after the last record."""
        return self.load(layout.HEAD)

    @property
    def tail(self) -> int:
        """The position up to which the consumer is done."""
        return self.load(layout.TAIL)

    def _copy_data(self, position: int, length: int) -> bytes:
        offset = position % self._capacity_bytes
        first = min(length, self._capacity_bytes - offset)
        return self.copy(HEADER_BYTES + offset, first) + self.copy(HEADER_BYTES, length - first)

    def _write_data(self, position: int, data: bytes) -> None:
        offset = position % self._capacity_bytes
        first = self._capacity_bytes - offset
        self.write(HEADER_BYTES + offset, data[:first])
        if first < len(data):
            self.write(HEADER_BYTES, data[first:])


class PureProducer(_Ring):
    """The end of a ring that fills it."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        if not self.load(layout.CHECKSUMMED):
            raise ValueError("this ring was not created for a producer in pure Python")
        self._owner_pid = os.getpid()
        self._open_traces = 0
        # What stands in the header, with the numbers. Replaced, not changed: a push may be reading it.
        self._starts: tuple[tuple[int, bytes], ...] = ()
        self._sharing: Turns[tuple[bytes], int] = Turns()
        self._pushing: Turns[Push, int] = Turns()

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that made this object."""
        return os.getpid() != self._owner_pid

    def share(self, start: bytes) -> int:
        """Keep a start of OPENs in the header, so that each takes less room. Return its number; 0: it is not there."""
        if type(start) is not bytes:
            raise TypeError("start must be bytes")
        if self._closed or self.foreign:
            return 0
        return self._sharing.take((start,), self._share) or 0

    def push(self, kind: int, flags: int, trace_id: bytes, payload: bytes, /) -> int:
        """Append a record. Return one of layout.py's answers: PUSHED, LOOK, FULL, TOO_LARGE, FOREIGN, CLOSED."""
        _check(kind, flags, trace_id, payload)
        if self.foreign:
            return FOREIGN
        if self._closed or self._left.value:
            return CLOSED
        if len(payload) > self._largest_for(kind):
            if kind != layout.END:
                return TOO_LARGE
            self.add(layout.NEWS_TOO_LARGE, 1)
            return self._looked_after(self.push(Kind.CLOSE, flags, trace_id, payload[-layout.CLOSE_BYTES :]))
        if len(self._pushing) >= _MAX_WAITING:
            self.add(layout.QUEUE_FULL, 1)
            return FULL
        code = self._pushing.take((kind, flags, trace_id, payload), self._work)
        return PUSHED if code is None else code

    def put_bye(self) -> int:
        """Say that this process leaves by itself; every later push answers CLOSED."""
        return self.push(Kind.BYE, 0, NO_TRACE, b"")

    @staticmethod
    def _looked_after(code: int) -> int:
        """Return the answer for an END of which only the CLOSE was pushed."""
        return LOOK if code == PUSHED else code

    def _largest_for(self, kind: int) -> int:
        if kind == Kind.CLOSE:
            return layout.LARGEST_CLOSE_BYTES
        return 0 if kind == Kind.BYE else self._largest_bytes

    def _share(self, wanted: tuple[bytes], own: bool) -> int:
        (start,) = wanted
        number, offset = layout.find_start(self, start)
        if offset:
            self.write(offset + 8, start)
            self.store(offset, len(start))
            number = offset // 8
        if number and (number, start) not in self._starts:
            self._starts = (*self._starts, (number, start))
        return number

    def _start_of(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        if kind == Kind.OPEN:
            for number, start in self._starts:
                if payload.startswith(start):
                    return number, start
        return 0, b""

    def _work(self, record: Push, own: bool) -> int:
        code = self._append(*record)
        # The push of another caller's record has returned PUSHED already. So if a BYE overtook the record, the loss is
        # counted here.
        if code == FULL or (code == CLOSED and not own):
            self.add(layout.QUEUE_FULL, 1)
        return code

    def _append(self, kind: int, flags: int, trace_id: bytes, payload: bytes) -> int:
        number, start = self._start_of(kind, payload)
        length = len(payload) - len(start)
        head, size = self._head.value, layout.record_bytes(length)
        # Checked again, because a BYE may have come first while this record waited for its turn.
        if self._left.value:
            return CLOSED
        if not self._has_room(kind, head, size):
            if kind != layout.END:
                return FULL
            self.add(layout.QUEUE_FULL, 1)
            return self._looked_after(self._append(Kind.CLOSE, flags, trace_id, payload[-layout.CLOSE_BYTES :]))
        ordinal = self._ordinal(kind)
        fields = kind, flags, number, 0, ordinal, trace_id
        crc = _crc(head, RECORD_HEADER.pack(length, 0, *fields), payload)
        self._write_data(head, RECORD_HEADER.pack(length, crc, *fields) + payload[len(start) :])
        if ordinal:
            self.store(layout.CLOSED_COUNT, ordinal)
        self._open_traces = self._open_after(kind)
        self._head.value = (head + size) % _ROLLED_OVER
        if kind == Kind.BYE:
            self._left.value = 1
        return LOOK if (head ^ head + size) >> layout.LOOK_SHIFT else PUSHED

    def _has_room(self, kind: int, head: int, size: int) -> bool:
        used = head - self._tail.value
        # No consumer writes such a tail. Overwriting would tear records; a refusal is counted.
        if not 0 <= used <= self._capacity_bytes:
            return False
        set_aside = self._open_after(kind) * layout.CLOSE_ROOM_BYTES + layout.BYE_ROOM_BYTES
        if kind == Kind.BYE:
            set_aside = 0
        kept = max(self._capacity_bytes >> layout.FREE_SHIFTS[kind], set_aside)
        return used + size + kept <= self._capacity_bytes

    def _open_after(self, kind: int) -> int:
        if kind == Kind.OPEN:
            return self._open_traces + 1
        return max(self._open_traces - 1, 0) if kind in _CLOSING else self._open_traces

    def _ordinal(self, kind: int) -> int:
        return (self.load(layout.CLOSED_COUNT) + 1) % _ROLLED_OVER if kind in _CLOSING else 0


class PureConsumer(_Ring):
    """The end of a ring that empties it."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._position = self.load(layout.TAIL)
        self._closes_read = self.load(layout.CLOSES_READ)
        self._stuck = False

    @property
    def position(self) -> int:
        """Where the next read starts."""
        return self._position

    @property
    def closes_read(self) -> int:
        """The ordinal of the last CLOSE before `position`."""
        return self._closes_read

    @property
    def stuck(self) -> bool:
        """Whether the last read stopped at a record whose checksum did not fit: still being written, or corrupt."""
        return self._stuck

    def read(self, limit_bytes: int, until: int | None = None) -> list[Record]:
        """Return the next records and move `position` behind them.

        Starts no record at or after `until`, nor once `limit_bytes` of records were read, with their shared starts; so
        there is at least one record if there is any. Raises CorruptRing, with `position` on the bad record, if no good
        one stands before it.
        """
        records: list[Record] = []
        head = self._checked_head()
        end = head if until is None else min(head, until)
        taken_bytes = 0
        checksummed = bool(self.load(layout.CHECKSUMMED))
        self._stuck = False
        while self._position < end and taken_bytes < limit_bytes:
            try:
                record, size = self._record_at(self._position, head, checksummed)
            except CorruptRing:
                # Python cannot order its stores, so a record that looks corrupt may still be being written.
                self._stuck = checksummed
                if checksummed or records:
                    break
                raise
            if record[0] in _CLOSING:
                self._closes_read = record[2]
            self._position += size
            for each in layout.apart(record):
                records.append(each)
                taken_bytes += layout.record_bytes(len(each[4]))
        return records

    def seek(self, position: int, closes_read: int) -> None:
        """Go on from a position after `tail`: an earlier consumer has read and kept all records before it."""
        if not 0 <= position < _ROLLED_OVER or not 0 <= closes_read < _ROLLED_OVER:
            raise OverflowError("position and closes_read must fit into 64 bits unsigned")
        self._position, self._closes_read = position, closes_read

    def commit(self) -> None:
        """Give the room before `position` back to the producer."""
        self.store(layout.CLOSES_READ, self._closes_read)
        self.store(layout.TAIL, self._position)

    def _checked_head(self) -> int:
        head = self.head
        used = head - self._position
        if not 0 <= used <= self._capacity_bytes or (head | self._position) % 8:
            raise CorruptRing(f"head is {head} at position {self._position}, capacity {self._capacity_bytes}")
        return head

    def _record_at(self, position: int, head: int, checksummed: bool) -> tuple[Record, int]:
        if head - position < RECORD_HEADER.size:
            raise CorruptRing(f"{head - position} bytes before head at position {position} are no record")
        header = self._copy_data(position, RECORD_HEADER.size)
        length, crc, kind, flags, number, zeros, ordinal, trace_id = RECORD_HEADER.unpack(header)
        if not 1 <= kind <= layout.LAST_KIND or zeros or (number and kind != Kind.OPEN):
            raise CorruptRing(f"no record at position {position}: kind {kind}")
        size = layout.record_bytes(length)
        if length > self._largest_bytes or size > head - position:
            raise CorruptRing(f"a record of {length} bytes at position {position}, head is {head}")
        payload = layout.start_of(self, number) + self._copy_data(position + RECORD_HEADER.size, length)
        if checksummed and crc != _crc(position, header[:4] + bytes(4) + header[8:], payload):
            raise CorruptRing(f"wrong checksum at position {position}")
        return Record(kind, flags, ordinal, trace_id, payload), size


def pure_batch(records: Iterable[Record]) -> list[Record]:
    """Return records as `read` does; the same object if they are."""
    return records if isinstance(records, list) else list(records)


def pure_ids(records: Iterable[Record]) -> set[bytes]:
    """Return the traces of records."""
    return {trace_id for _, _, _, trace_id, _ in records}


def pure_pack(records: Iterable[Record]) -> bytes:
    """Return records as in a ring, without checksums and padding."""
    parts: list[bytes] = []
    for kind, flags, ordinal, trace_id, payload in records:
        parts += (RECORD_HEADER.pack(len(payload), 0, kind, flags, 0, 0, ordinal, trace_id), payload)
    return b"".join(parts)


def _crc(position: int, header: bytes, payload: bytes) -> int:
    return binascii.crc32(payload, binascii.crc32(header, binascii.crc32(position.to_bytes(8, "little"))))


def _check(kind: int, flags: int, trace_id: bytes, payload: bytes) -> None:
    for name, value, least, most in (("kind", kind, 1, layout.LAST_KIND), ("flags", flags, 0, 255)):
        if not isinstance(value, int):
            raise TypeError(f"{name} must be int")
        if not least <= value <= most:
            raise ValueError(f"{name} must be {least} to {most}")
    if type(trace_id) is not bytes or type(payload) is not bytes:
        raise TypeError("trace_id and payload must be bytes")
    if len(trace_id) != TRACE_ID_BYTES:
        raise ValueError(f"trace_id must be {TRACE_ID_BYTES} bytes")
