"""The ledger: figures in series, in a file of the folder. They outlive the collectors that count, and never go back.

A series has a key (bytes) and SLOTS numbers. One collector maps the file and writes it; any process of the same user
reads a copy (`read`) without asking it. Layout, in the machine's byte order: a header, the last two entries, the last
ids, and a table of series that grows as series come.

`post` counts things that have ids once, also if it is killed while it does so: it writes the ids, and as an entry what
the numbers will be, then that this is so (one store), then the numbers. The next collector writes the last ones again.
The ids tell it what was counted already, in case it comes to the same things again.
"""

import os
import struct
from collections.abc import Sequence

import epsagon_fast.private as private
from epsagon_fast.hints import Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.queue import ring
from epsagon_fast.queue.names import LEDGER
from epsagon_fast.rows import NamedTuple

MAGIC_VALUE: Final = int.from_bytes(b"EPSLEDG3", "little")
MAGIC, SERIES_COUNT, POSTED = range(0, 24, 8)
# How much is posted with it, where the numbers are, and three numbers.
_ENTRY: Final = struct.Struct("=5Q")
# One entry may be half written while the other one counts: the one that says what POSTED does.
LOG, ENTRIES = 64, 2
# The first 8 bytes of ids.
IDS: Final = LOG + ENTRIES * _ENTRY.size
ID_BYTES: Final = 8
# Those that are remembered: more than the traces that are under way when a collector dies. Traces that sampling lets
# wait for two seconds are under way, too.
MOST_IDS: Final = 16384
# The most that are posted at once.
AT_ONCE: Final = 256
TABLE: Final = IDS + MOST_IDS * ID_BYTES
KEY_BYTES, SLOTS = 512, 32
SERIES_BYTES: Final = KEY_BYTES + 8 * SLOTS
# The file grows by so many series at a time.
SERIES_AT_ONCE: Final = 32
MAX_SERIES: Final = 2048
_SLOTS: Final = struct.Struct(f"={SLOTS}Q")
WORD: Final = 2**64 - 1

# Three times a slot and what is added to it.
Amounts = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class Series(NamedTuple):
    """One series as a reader sees it."""

    key: bytes
    slots: tuple[int, ...]


class Ledger:
    """The mapped file. Only the thread that made the object uses it."""

    def __init__(self, folder_fd: int) -> None:
        """Map the folder's ledger, and make it if there is none. `folder_fd` must stay open.

        Raises OSError if that cannot be done (no space), ValueError if a file in its place has another layout.
        """
        self._folder_fd = folder_fd
        self._inode = 0
        self._page = self._mapped(SERIES_AT_ONCE)
        self._page.store(MAGIC, MAGIC_VALUE)
        self._count = min(self._page.load(SERIES_COUNT), MAX_SERIES)
        self._room = SERIES_AT_ONCE
        if self._count > self._room:
            self._grow(self._count)
        self._posted = self._page.load(POSTED)
        self._by_key = {self._key(number): number for number in range(self._count)}
        # Of the entry that counts.
        self._entry = 0
        if self._posted:
            self._find_entry()

    def number_of(self, key: bytes) -> int | None:
        """Return the number of the series with this key, which is added; None: there is no room for it."""
        number = self._by_key.get(key)
        if number is not None or len(key) > KEY_BYTES or self._count >= MAX_SERIES:
            return number
        try:
            if self._count >= self._room:
                self._grow(self._room + SERIES_AT_ONCE)
        except (OSError, ValueError) as error:
            let_pass(error)
            return None
        number = self._count
        self._page.write(TABLE + number * SERIES_BYTES, key.ljust(KEY_BYTES, b"\0"))
        self._count += 1
        # Last, so that a series is complete when a reader finds it.
        self._page.store(SERIES_COUNT, self._count)
        self._by_key[key] = number
        return number

    def keys(self) -> dict[bytes, int]:
        """Return the numbers of all series by their keys."""
        return self._by_key.copy()

    def load(self, number: int, slot: int) -> int:
        """Return a series' number."""
        return self._page.load(_place(number, slot))

    def store(self, number: int, slot: int, value: int) -> None:
        """Set a series' number."""
        self._page.store(_place(number, slot), value)

    def post(self, items: Sequence[bytes], number: int, amounts: Amounts) -> None:
        """Add to a series, for the things with these ids, once and for all.

        items: AT_ONCE at most, of 8 bytes or more.
        """
        (a, more_a), (b, more_b), (c, more_c) = amounts
        page, base = self._page, _place(number, 0)
        at_a, at_b, at_c = base + 8 * a, base + 8 * b, base + 8 * c
        value_a, value_b = page.load(at_a) + more_a & WORD, page.load(at_b) + more_b & WORD
        value_c = page.load(at_c) + more_c & WORD
        self._write_ids(b"".join([item[:ID_BYTES] for item in items]))
        posted, entry = self._posted + len(items), 1 - self._entry
        places = number << 24 | a << 16 | b << 8 | c
        page.write(LOG + entry * _ENTRY.size, _ENTRY.pack(posted, places, value_a, value_b, value_c))
        self._posted, self._entry = posted, entry
        page.store(POSTED, posted)
        page.store(at_a, value_a)
        page.store(at_b, value_b)
        page.store(at_c, value_c)

    def add(self, number: int, amounts: Amounts) -> None:
        """Add (slot, amount) to a series."""
        page, base = self._page, _place(number, 0)
        for slot, more in amounts:
            if more:
                at = base + 8 * slot
                page.store(at, page.load(at) + more & WORD)

    def posted(self) -> set[bytes]:
        """Return the first 8 bytes of the ids of the last things that were posted."""
        ids = self._page.copy(IDS, MOST_IDS * ID_BYTES)
        # A collector that was killed may have left ids in the next places, of what it did not count.
        first = max(0, self._posted - MOST_IDS + AT_ONCE)
        places = (number % MOST_IDS * ID_BYTES for number in range(first, self._posted))
        return {ids[at : at + ID_BYTES] for at in places}

    def close(self) -> None:
        """Unmap the file."""
        self._page.close()

    def _write_ids(self, ids: bytes) -> None:
        """Write ids to the next places; behind the last place comes the first."""
        at = self._posted % MOST_IDS * ID_BYTES
        room = MOST_IDS * ID_BYTES - at
        self._page.write(IDS + at, ids[:room])
        if len(ids) > room:
            self._page.write(IDS, ids[room:])

    def _find_entry(self) -> None:
        """Find the entry that counts, and write its numbers again, which does no harm if it was done before."""
        for entry in range(ENTRIES):
            posted, places, *values = _ENTRY.unpack(self._page.copy(LOG + entry * _ENTRY.size, _ENTRY.size))
            # No collector writes a number of a series that there is not; the file was damaged.
            if posted == self._posted and places >> 24 < self._count:
                self._entry, base = entry, _place(places >> 24, 0)
                for shift, value in zip((16, 8, 0), values, strict=True):
                    self._page.store(base + 8 * (places >> shift & 0xFF), value)

    def _key(self, number: int) -> bytes:
        return self._page.copy(TABLE + number * SERIES_BYTES, KEY_BYTES).rstrip(b"\0")

    def _grow(self, series: int) -> None:
        """Make room for so many series. The old mapping stays if that fails."""
        page = self._mapped(series)
        self._page.close()
        self._page, self._room = page, series

    def _mapped(self, series: int) -> ring.Mapping:
        size_bytes = TABLE + series * SERIES_BYTES
        fd = private.open_file(LEDGER, os.O_RDWR | (0 if self._inode else os.O_CREAT), dir_fd=self._folder_fd)
        try:
            found = os.fstat(fd)
            if self._inode not in (0, found.st_ino):
                raise ValueError("another file is in the ledger's place")
            self._inode = found.st_ino
            _check(os.pread(fd, LOG, 0), found.st_size)
            if found.st_size < size_bytes:
                # Filled now, because a write into a mapped hole of a full filesystem kills the process.
                _fill(fd, found.st_size, size_bytes)
            return ring.Mapping(fd, size_bytes)
        finally:
            os.close(fd)


def read(folder_fd: int) -> list[Series]:
    """Return a copy of the folder's series; [] if there is no ledger. Raises OSError, or ValueError if it is none."""
    try:
        fd = private.open_file(LEDGER, os.O_RDONLY, dir_fd=folder_fd)
    except FileNotFoundError:
        return []
    try:
        header = os.pread(fd, LOG, 0)
        _check(header, os.fstat(fd).st_size)
        # A collector that was killed while it made the file left it short, or without a header.
        count = struct.unpack_from("=Q", header.ljust(LOG, b"\0"), SERIES_COUNT)[0]
        table = os.pread(fd, min(count, MAX_SERIES) * SERIES_BYTES, TABLE)
    finally:
        os.close(fd)
    whole = range(0, len(table) - SERIES_BYTES + 1, SERIES_BYTES)
    return [Series(table[at : at + KEY_BYTES].rstrip(b"\0"), _SLOTS.unpack_from(table, at + KEY_BYTES)) for at in whole]


def _place(number: int, slot: int) -> int:
    return TABLE + number * SERIES_BYTES + KEY_BYTES + 8 * slot


def _check(header: bytes, size_bytes: int) -> None:
    """Raise ValueError if this is the start of another file, or of a ledger that has lost its end."""
    magic, count, posted = struct.unpack_from("=3Q", header.ljust(LOG, b"\0"))
    if magic not in (0, MAGIC_VALUE) or (not magic and any(header)):
        raise ValueError("the ledger has another layout")
    if count > MAX_SERIES or size_bytes < (TABLE + count * SERIES_BYTES) * bool(count or posted):
        raise ValueError("the ledger is not complete")


def _fill(fd: int, start: int, size_bytes: int) -> None:
    written = start
    while written < size_bytes:
        written += os.pwrite(fd, bytes(size_bytes - written), written)
