"""Rings of dead processes in a folder without a collector: nothing reads them, and each holds half a MiB of memory.

They wait for the next collector, since what is in them was accepted. But where none comes (a frozen program, a
supervised collector that is not there) every short job leaves one, until the application's own segments find no room.
So the process that makes a ring first removes the oldest of them, as far as together they hold more than a bound, and
counts in its own ring what was in them.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import epsagon_fast.private as private
from epsagon_fast.interrupts import let_pass
from epsagon_fast.protocol import REFUSALS, Kind
from epsagon_fast.queue import layout, ring
from epsagon_fast.queue.folder import RING_NAME, Folder
from epsagon_fast.queue.process import has_ended

# They may hold this part of the filesystem, and never more than so much.
SHARE = 8
MOST_BYTES = 256 * 1024 * 1024


class _Ring(NamedTuple):
    created_ns: int
    name: str
    size_bytes: int


def clean_up(folder: Folder) -> Counter[str]:
    """Remove what dead processes left beyond the bound, oldest first. Return how many records were lost, by reason.

    Nothing is removed while a collector lives. OSError if the folder cannot be looked at.
    """
    dir_fd = folder.open()
    try:
        space = os.fstatvfs(dir_fd)
        bound_bytes = min(space.f_blocks * space.f_frsize // SHARE, MOST_BYTES)
        names = [name for name in os.listdir(dir_fd) if RING_NAME.fullmatch(name)]
        # Nearly always this is all.
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
        # Not by closing alone: a child that another thread forked meanwhile has the descriptor, too.
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


def _dead_ring(dir_fd: int, name: str) -> _Ring | None:
    """Return a ring if its process has ended; None if that lives, or the file is no ring."""
    try:
        fd = private.open_file(name, os.O_RDWR, dir_fd=dir_fd)
    except OSError as error:
        let_pass(error)
        return None
    try:
        slots = layout.read_slots(fd)
        ended = has_ended(slots[layout.PID // 8], slots[layout.START_TIME // 8], fd)
        return _Ring(slots[layout.CREATED_NS // 8], name, os.fstat(fd).st_blocks * 512) if ended else None
    except (OSError, ValueError) as error:
        let_pass(error)
        return None
    finally:
        os.close(fd)


def _remove(dir_fd: int, name: str) -> Counter[str]:
    """Remove a ring; return what was lost with it: its records but the BYE, and what its process had counted itself."""
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
        # Some at a time: each is copied.
        while records := consumer.read(64 * 1024):
            lost["no_collector"] += sum(record.kind != Kind.BYE for record in records)
    except ValueError:
        pass  # what comes after a corrupt record cannot be counted
    finally:
        consumer.close()
    return +lost


def _size_bytes(dir_fd: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_blocks * 512
    except OSError as error:
        let_pass(error)
        return 0
