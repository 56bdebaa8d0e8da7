"""A look at a folder from outside: who serves it and what its rings hold. It asks no process and changes nothing."""

import os
import time

import epsagon_fast.private as private
from epsagon_fast.frozen import field, frozen
from epsagon_fast.interrupts import let_pass
from epsagon_fast.protocol import REFUSALS
from epsagon_fast.queue import layout
from epsagon_fast.queue import state as states
from epsagon_fast.queue.folder import Folder
from epsagon_fast.queue.liveness import lives
from epsagon_fast.queue.names import CORRUPT, POISON, RING_NAME
from epsagon_fast.queue.state import Beat


@frozen
class RingView:
    """One ring as its header shows it."""

    pid: int
    lives: bool
    capacity_bytes: int
    unread_bytes: int
    # Bytes of its traces in the collector's memory, at most a second old.
    held_bytes: int
    closed: int
    settled: int
    refused: dict[str, int]


@frozen
class Overview:
    """A folder with its collector and its rings. `pid` is None if no collector serves it; ages are in seconds."""

    path: str
    pid: int | None
    is_leaving: bool
    heartbeat_age_s: float | None
    up_s: float | None
    incarnation: int
    gauges: dict[str, int]
    counters: dict[str, int]
    rings: list[RingView]
    # The limits and the like that the collector inherited from its starter and could not undo.
    inherited: list[str] = field(default_factory=list)


@frozen
class SetAside:
    """A file that is kept for a person to look at. It may hold bodies of traces, and an outbox also holds tokens."""

    path: str
    size_bytes: int
    age_s: float


def set_aside(directory: str) -> list[SetAside]:
    """Return the files that collectors set aside in a folder or a state directory, by name; [] if it does not exist."""
    try:
        with os.scandir(directory) as entries:
            found = [(entry.path, entry.stat(follow_symlinks=False)) for entry in entries if _is_set_aside(entry.name)]
    except OSError as error:
        let_pass(error)
        return []
    now = time.time()
    return [SetAside(path, each.st_size, max(0.0, now - each.st_mtime)) for path, each in sorted(found)]


def _is_set_aside(name: str) -> bool:
    return name.startswith(POISON) or CORRUPT in name


def look(path: str) -> Overview:
    """Return an overview of the folder `path`. Raises OSError if it is not ours or does not exist."""
    fd = private.open_directory(path)
    try:
        held = Folder(path).is_held()
        rings = [view for name in sorted(os.listdir(fd)) if (view := _ring(fd, name)) is not None]
        beat, gauges, counters, inherited = _page(fd)
    finally:
        os.close(fd)
    serves = held and beat is not None
    return Overview(
        path=path,
        pid=beat.pid if serves and beat else None,
        is_leaving=bool(serves and beat and beat.is_ending),
        heartbeat_age_s=(time.monotonic_ns() - beat.heartbeat_ns) / 1e9 if serves and beat else None,
        up_s=time.time() - beat.started_at if serves and beat else None,
        incarnation=beat.incarnation if beat else 0,
        gauges=gauges,
        counters=counters,
        rings=rings,
        inherited=inherited if serves else [],
    )


def _page(folder_fd: int) -> tuple[Beat | None, dict[str, int], dict[str, int], list[str]]:
    try:
        state = states.read(folder_fd)
    except (OSError, ValueError) as error:
        let_pass(error)
        return None, {}, {}, []
    return state.beat(), state.gauges(), state.counters(), state.inherited()


def _ring(folder_fd: int, name: str) -> RingView | None:
    if not RING_NAME.fullmatch(name):
        return None
    try:
        fd = private.open_file(name, os.O_RDONLY, dir_fd=folder_fd)
    except OSError as error:
        let_pass(error)
        return None
    try:
        slots = layout.read_slots(fd)
    except (OSError, ValueError) as error:
        let_pass(error)
        return None
    finally:
        os.close(fd)
    pid = slots[layout.PID // 8]
    refused = slots[layout.REFUSED // 8 :][: len(REFUSALS)]
    return RingView(
        pid=pid,
        lives=lives(pid, slots[layout.START_TIME // 8]),
        capacity_bytes=slots[layout.CAPACITY // 8],
        unread_bytes=slots[layout.HEAD // 8] - slots[layout.TAIL // 8],
        held_bytes=slots[layout.HELD // 8],
        closed=slots[layout.CLOSED_COUNT // 8],
        settled=slots[layout.SETTLED // 8],
        refused={reason: count for reason, count in zip(REFUSALS, refused, strict=True) if count},
    )
