"""The collector's state page in the folder: who serves the folder, its heartbeat, and its counters.

It is one mapped file that the collector writes and that any process of the same user reads without asking it. The file
outlives collectors and is never reset, so counters go on where the last collector left them. Layout, in the machine's
byte order: the 64-bit slots named below, and from COUNTERS on entries of 64 bytes, each a counter's name (56 bytes,
NUL-padded ASCII) and its value.

A process that may have changed its user, or that looks at another folder, reads a copy instead (`read`): the file's
owner can truncate it, and touching a mapped page behind its end kills.
"""

import os
import struct
import sys

import epsagon_fast.private as private
from epsagon_fast.hints import cast
from epsagon_fast.interrupts import let_pass
from epsagon_fast.queue import ring
from epsagon_fast.queue.liveness import is_ending
from epsagon_fast.queue.names import STATE
from epsagon_fast.rows import NamedTuple

MAGIC_VALUE = int.from_bytes(b"EPSSTAT1", "little")
MAGIC_BYTES = struct.pack("=Q", MAGIC_VALUE)
STATE_BYTES = 8192

MAGIC, PID, START_TIME, INCARNATION, HEARTBEAT_NS, PHASE, GONE, STARTED_AT = range(0, 64, 8)
# The record or trace that the collector is working on, in case it dies of it; see collector/poison.py.
SUSPECT_DEATHS, SUSPECT = 64, 72
# Seconds since the epoch when a collector was last asked to leave (a signal, `epsagon-fast stop`).
ASKED_AT = 112
# 16 random bytes: the same for all collectors that ever serve this folder.
FOLDER_ID = 120
# The record or trace over which a collector died most recently. SUSPECT_DEATHS counts how many died over it in a row.
LAST_SUSPECT = 136
SUSPECT_BYTES = 32
# The incarnation of the last collector that served, which means that it came to the end of a pass.
SERVED = 168
# CLOCK_MONOTONIC of the collector's next pass while it sleeps, else 0. Until then only the bell wakes it.
NEXT_PASS_NS = 176
# How much of the journal's youngest file was written; see collector/journal/written.py.
JOURNALED = 184
# What the collector inherited from its starter and could not undo: lines of UTF-8, NUL-padded.
INHERITED, INHERITED_BYTES = 512, 512
GAUGES = 256
GAUGE_NAMES = ("rings", "open_traces", "held_bytes", "pending", "journal_bytes", "stored", "full", "resident_bytes")
COUNTERS = 1024
COUNTER_BYTES = 64
COUNTER_NAME_BYTES = 56

# The collector's phases.
NONE, SERVING, LEAVING = range(3)
# A collector that is well beats at least once a second. It is reported as stalled after this long without a beat.
STALLED_S = 30.0


class Beat(NamedTuple):
    """Who serves the folder, and the collector's last sign of life."""

    pid: int
    start_time: int
    incarnation: int
    heartbeat_ns: int  # CLOCK_MONOTONIC
    phase: int
    started_at: int  # seconds since the epoch
    served: int  # the incarnation of the last one that came to the end of a pass

    @property
    def is_ending(self) -> bool:
        """Whether the folder's last collector has made its last pass, or soon will, even if it still holds the lock."""
        return self.phase != SERVING and self.incarnation != 0

    @property
    def is_killed(self) -> bool:
        """Whether the folder's last collector was killed or has ended, even if it still holds the lock."""
        return self.incarnation != 0 and is_ending(self.pid, self.start_time)


# The beat of a folder that has had no collector yet.
NO_BEAT = Beat(0, 0, 0, 0, NONE, 0, 0)


class _Copy:
    """Reads from bytes as ring.Mapping reads from a mapped file."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def load(self, offset: int) -> int:
        return int.from_bytes(self.copy(offset, 8), sys.byteorder)

    def copy(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]

    def close(self) -> None:
        self._content = b""


class StatePage:
    """The mapped page. Reading and writing it is memory access, no system call."""

    def __init__(self, folder_fd: int, *, create: bool = False) -> None:
        """Map the folder's page, and make it with `create`.

        Raises FileNotFoundError if there is none, ValueError if it has another layout, NotOurs if it is not ours.
        """
        fd = private.open_file(STATE, os.O_RDWR | (os.O_CREAT if create else 0), dir_fd=folder_fd)
        try:
            content = _checked(fd, create)
            if len(content) < STATE_BYTES:
                _complete(fd, len(content))
            self._page: ring.Mapping = ring.Mapping(fd, STATE_BYTES)
        finally:
            os.close(fd)
        if create:
            self._page.store(MAGIC, MAGIC_VALUE)
        self._slots: dict[str, int] = {}

    def beat(self) -> Beat:
        """Return the last sign of life."""
        slots = (PID, START_TIME, INCARNATION, HEARTBEAT_NS, PHASE, STARTED_AT, SERVED)
        return Beat(*map(self._page.load, slots))

    @property
    def gone(self) -> bool:
        """Whether the folder was deleted while its collector lived. New traces then need another folder."""
        return self._page.load(GONE) == 1

    def store(self, slot: int, value: int) -> None:
        """Write one of the 64-bit slots named in this module."""
        self._page.store(slot, value)

    def load(self, slot: int) -> int:
        """Read one of the 64-bit slots named in this module."""
        return self._page.load(slot)

    def folder_id(self) -> bytes:
        """Return the folder's id, which no other folder has. The first call makes it."""
        if not any(self._page.copy(FOLDER_ID, 16)):
            self._page.write(FOLDER_ID, os.urandom(16))
        return self._page.copy(FOLDER_ID, 16)

    def suspect(self, key: bytes) -> None:
        """Write down what the collector is about to work on (32 bytes); b"": nothing."""
        if len(key) != SUSPECT_BYTES:
            key = key[:SUSPECT_BYTES].ljust(SUSPECT_BYTES, b"\0")
        self._page.write(SUSPECT, key)

    def suspected(self) -> bytes:
        """Return what the last collector was working on when it ended."""
        return self._page.copy(SUSPECT, SUSPECT_BYTES)

    def remember_suspect(self, key: bytes) -> None:
        """Write down over what a collector died."""
        self._page.write(LAST_SUSPECT, key)

    def last_suspect(self) -> bytes:
        """Return over what a collector died most recently."""
        return self._page.copy(LAST_SUSPECT, SUSPECT_BYTES)

    def set_inherited(self, texts: list[str]) -> None:
        """Write what the collector inherited and could not undo. Texts beyond the room are left out."""
        data = "\n".join(texts).encode("utf-8", "replace")[:INHERITED_BYTES]
        self._page.write(INHERITED, data.ljust(INHERITED_BYTES, b"\0"))

    def inherited(self) -> list[str]:
        """Return what the collector inherited and could not undo."""
        return self._page.copy(INHERITED, INHERITED_BYTES).rstrip(b"\0").decode("utf-8", "replace").splitlines()

    def set_gauge(self, name: str, value: int) -> None:
        """Set a gauge."""
        self._page.store(GAUGES + 8 * GAUGE_NAMES.index(name), value)

    def gauges(self) -> dict[str, int]:
        """Return the gauges by name."""
        return {name: self._page.load(GAUGES + 8 * i) for i, name in enumerate(GAUGE_NAMES)}

    def counters(self) -> dict[str, int]:
        """Return the counters by name, in the order of their first appearance."""
        found = {}
        for offset in range(COUNTERS, STATE_BYTES, COUNTER_BYTES):
            name = self._page.copy(offset, COUNTER_NAME_BYTES).rstrip(b"\0").decode("ascii", "replace")
            if not name:
                break
            self._slots[name] = offset
            found[name] = self._page.load(offset + COUNTER_NAME_BYTES)
        return found

    def set_counter(self, name: str, value: int) -> bool:
        """Write a counter's value. False if the page has no room for one more name."""
        offset = self._slots.get(name)
        if offset is None:
            offset = COUNTERS + COUNTER_BYTES * len(self.counters())
            if offset + COUNTER_BYTES > STATE_BYTES:
                return False
            self._slots[name] = offset
            self._page.store(offset + COUNTER_NAME_BYTES, value)
            self._page.write(
                offset, name.encode("ascii", "replace")[:COUNTER_NAME_BYTES].ljust(COUNTER_NAME_BYTES, b"\0")
            )
        self._page.store(offset + COUNTER_NAME_BYTES, value)
        return True

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()


def read(folder_fd: int) -> StatePage:
    """Return a copy of the folder's page, for reading only. Raises what StatePage raises."""
    fd = private.open_file(STATE, os.O_RDONLY, dir_fd=folder_fd)
    try:
        content = _checked(fd, create=False)
    finally:
        os.close(fd)
    copy = StatePage.__new__(StatePage)
    copy._page, copy._slots = cast(ring.Mapping, _Copy(content)), {}
    return copy


def beat_in(folder: str) -> Beat:
    """Return the last sign of life of a folder's collectors, NO_BEAT if there is none."""
    try:
        fd = private.open_directory(folder)
        try:
            return read(fd).beat()
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        let_pass(error)
        return NO_BEAT


def is_to_be_made(folder_fd: int) -> bool:
    """Say whether a collector may make the folder's page: there is none, or an unfinished one."""
    try:
        fd = private.open_file(STATE, os.O_RDONLY, dir_fd=folder_fd)
    except OSError as error:
        let_pass(error)
        return isinstance(error, FileNotFoundError)
    try:
        _checked(fd, create=True)
        return True
    except ValueError:
        return False
    finally:
        os.close(fd)


def _checked(fd: int, create: bool) -> bytes:
    """Return a page's content, which may be short only with `create`. Raises ValueError if it is no state page."""
    content = os.pread(fd, STATE_BYTES, 0)
    is_ours = content.startswith(MAGIC_BYTES)
    if len(content) < STATE_BYTES and not create:
        raise ValueError("the state page is not complete")
    # A collector that was killed while it made one left zeros.
    if not is_ours and (not create or any(content) or os.fstat(fd).st_size > STATE_BYTES):
        raise ValueError("the state page has another layout")
    return content


def _complete(fd: int, size_bytes: int) -> None:
    """Fill the file now, because a write into a mapped hole of a full filesystem kills the process."""
    os.pwrite(fd, bytes(STATE_BYTES - size_bytes), size_bytes)
