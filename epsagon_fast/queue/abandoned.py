"""Rings of dead processes in a folder without a collector: nothing reads them, and each holds half a MiB of memory.

They wait for the next collector, since their records were accepted. But where no collector comes (a frozen program, a
supervised collector that is not there) every short job leaves a ring, until shared memory is full. So a process that
makes a ring first removes the oldest abandoned rings if all of them together hold more than a bound. It counts the lost
records in its own ring.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import epsagon_fast.private as private
from epsagon_fast.interrupts import let_pass
from epsagon_fast.protocol import REFUSALS, Kind
from epsagon_fast.queue import layout, ring
from epsagon_fast.queue.folder import Folder
from epsagon_fast.queue.liveness import has_ended
from epsagon_fast.queue.names import RING_NAME
from epsagon_fast.rows import NamedTuple

# Abandoned rings may hold one SHARE-th of the filesystem, and at most MOST_BYTES.
SHARE = 8
MOST_BYTES = 256 * 1024 * 1024


class _DeadRing(NamedTuple):
    created_ns: int
    name: str
    size_bytes: int


def clean_up(folder: Folder) -> Counter[str]:
    """Remove the oldest rings of dead processes beyond the bound. Return how many records were lost, by reason.

    Nothing is removed while a collector lives. Raises OSError if the folder cannot be read.
    """
    dir_fd = folder.open()
    try:
        space = os.fstatvfs(dir_fd)
        bound_bytes = min(space.f_blocks * space.f_frsize // SHARE, MOST_BYTES)
        names = [name for name in os.listdir(dir_fd) if RING_NAME.fullmatch(name)]
        # Nearly always the function ends here.
        if sum(_size_bytes(dir_fd, name) for name in names) <= bound_bytes:
            return Counter()
        with _no_collector(dir_fd) as is_alone:
            return _reduce(dir_fd, names, bound_bytes) if is_alone else Counter()
    finally:
        os.close(dir_fd)


@contextmanager
def _no_collector(dir_fd: int) -> Iterator[bool]:
    """Hold the folder's lock, so that no collector begins to read here. False: one lives."""
    try:
        fcntl.flock(dir_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        let_pass(error)
        yield False
        return
    try:
        yield True
    finally:
        # Closing alone would not do: a child that another thread forked meanwhile has the descriptor too.
        fcntl.flock(dir_fd, fcntl.LOCK_UN)


def _reduce(dir_fd: int, names: list[str], bound_bytes: int) -> Counter[str]:
    lost: Counter[str] = Counter()
    dead = sorted(found for name in names if (found := _dead_ring(dir_fd, name)) is not None)
    excess_bytes = sum(each.size_bytes for each in dead) - bound_bytes
    for each in dead:
        if excess_bytes <= 0:
            break
        lost.update(_remove(dir_fd, each.name))
        excess_bytes -= each.size_bytes
    return +lost


def _dead_ring(dir_fd: int, name: str) -> _DeadRing | None:
    """Return a ring if its process has ended; None if the process lives or the file is no ring."""
    try:
        fd = private.open_file(name, os.O_RDWR, dir_fd=dir_fd)
    except OSError as error:
        let_pass(error)
        return None
    try:
        slots = layout.read_slots(fd)
        ended = has_ended(slots[layout.PID // 8], slots[layout.START_TIME // 8], fd)
        return _DeadRing(slots[layout.CREATED_NS // 8], name, os.fstat(fd).st_blocks * 512) if ended else None
    except (OSError, ValueError) as error:
        let_pass(error)
        return None
    finally:
        os.close(fd)


def _remove(dir_fd: int, name: str) -> Counter[str]:
    """Remove a ring and return what was lost with it: its records but the BYE, and its process's own refusals."""
    try:
        fd = private.open_file(name, os.O_RDWR, dir_fd=dir_fd)
    except OSError as error:
        let_pass(error)
        return Counter()
    try:
        lost = _content(fd)
        os.unlink(name, dir_fd=dir_fd)
    except OSError as error:
        let_pass(error)
        return Counter()
    finally:
        os.close(fd)
    return +lost


def _content(fd: int) -> Counter[str]:
    lost: Counter[str] = Counter()
    consumer = ring.Consumer(fd)
    try:
        for number, reason in enumerate(REFUSALS):
            untold = consumer.load(layout.REFUSED + 8 * number) - consumer.load(layout.TOLD + 8 * number)
            lost[reason] += max(0, min(untold, layout.LARGEST_COUNT))
        # In parts, because each record is copied.
        while records := consumer.read(64 * 1024):
            lost["no_collector"] += sum(record.kind != Kind.BYE for record in records)
    except ValueError:
        pass  # records after a corrupt one cannot be counted
    finally:
        consumer.close()
    return +lost


def _size_bytes(dir_fd: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_blocks * 512
    except OSError as error:
        let_pass(error)
        return 0
