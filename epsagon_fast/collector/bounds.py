"""How much the collector may hold, and how much of that each process. `now` is monotonic seconds.

A process may hold SHARE times as much as is left over. So one alone may fill a store up to its bound, since a part of
the bound more is kept for others; two that want all have nearly half of it each; and for a process that holds little
there is always room. What a process holds are the traces that it opened, until they are settled.

The ring of a process that holds its share is not read: it fills, and its producer refuses, counted as `queue_full`.
What is in a collector is worth more than what would come. Except that a trace which is closed makes room once its CLOSE
is seen, so for the sake of an unread CLOSE a process may hold twice its share.

If the ring of any process was not read for half a minute and nothing that it holds went, the process that holds most
open traces loses the oldest of them, down to its share.
"""

import math
import os
from dataclasses import dataclass
from typing import NamedTuple

DEFAULT_MEMORY_MB = 256
MIB = 1024 * 1024
JOURNAL_BYTES = 64 * MIB
# Of a filesystem's free space the journal takes at most an eighth: the application may need the rest.
JOURNAL_SHARE = 8
LEAST_JOURNAL_BYTES = MIB // 16
# One process may hold this many times what is left over. Beyond a bound, one part in SHARE is kept for others.
SHARE = 4
LARGEST_JOURNAL_BYTES = JOURNAL_BYTES + JOURNAL_BYTES // SHARE
# A CLOSE may take at least this much beyond a bound.
LEAST_RESERVE_BYTES = MIB
# A stopped ring is read again once its process holds this part of its share: a margin, lest it stops every pass.
RESUME_SHARE = 0.9
# After this time without room for a ring, no process will close what is held.
PATIENCE_S = 30.0


class Held(NamedTuple):
    """What is held of each store, or left of it."""

    memory_bytes: int
    journal_bytes: int


@dataclass
class _Stop:
    """Since when a ring is not read, or since it last held less than before."""

    since: float
    least_bytes: int


class Bounds:
    """What is left, and which rings are not read. Call `begin` in each pass, `look` whenever something changed."""

    def __init__(self, memory_bytes: int | None = None) -> None:
        self.memory_bytes = configured_bytes() if memory_bytes is None else memory_bytes
        self.journal_bytes = JOURNAL_BYTES
        self._left = self._left_for_closes = Held(0, 0)
        self._now = 0.0
        self._stopped: dict[bytes, _Stop] = {}
        self._stopped_before: dict[bytes, _Stop] = {}

    @property
    def stopped(self) -> int:
        """How many rings with something unread were not read in this pass."""
        return len(self._stopped)

    def begin(self, now: float) -> None:
        """Begin a pass: which rings are stopped will be seen."""
        self._now = now
        self._stopped_before, self._stopped = self._stopped, {}

    def look(self, memory_bytes: int, journal_bytes: int) -> None:
        """See what is left; journal_bytes is 0 while it cannot be written, since waiting would not make it smaller."""
        memory, journal = self.memory_bytes, self.journal_bytes
        held = Held(memory_bytes, journal_bytes)
        self._left = _less(Held(memory + memory // SHARE, journal + journal // SHARE), held)
        self._left_for_closes = _less(Held(memory + _reserve(memory), journal + _reserve(journal)), held)

    def room_bytes(self, ring_id: bytes, held: Held, readers: int) -> int:
        """Return how much may be read of a ring while `readers` rings are read; not positive: it is stopped."""
        stop = self._stopped_before.get(ring_id)
        room_bytes = -_excess_bytes(held, self._left, SHARE * (RESUME_SHARE if stop else 1.0)) // (1 + SHARE * readers)
        if room_bytes <= 0:
            if stop is None or held.memory_bytes < stop.least_bytes:
                stop = _Stop(self._now, held.memory_bytes)
            self._stopped[ring_id] = stop
        return room_bytes

    def room_for_close_bytes(self, held: Held) -> int:
        """Return how much may be read of one stopped ring for the sake of a CLOSE in it."""
        return -_excess_bytes(held, self._left_for_closes, 2 * SHARE) // (1 + 2 * SHARE)

    def stuck(self) -> bool:
        """Say whether waiting has not helped a ring that is stopped."""
        return any(self._now - stop.since > PATIENCE_S for stop in self._stopped.values())

    def relieved(self) -> None:
        """Take note that room was made: all that are stopped are given time to use it."""
        for stop in self._stopped.values():
            stop.since = self._now

    def excess_bytes(self, held: Held) -> int:
        """Return how much must go of what a process holds, so that its ring is read again."""
        # What goes is left over afterwards, so it counts on both sides of the comparison.
        return math.ceil(_excess_bytes(held, self._left, RESUME_SHARE * SHARE) / (1 + RESUME_SHARE * SHARE))

    def fit_journal(self, folder_fd: int, size_bytes: int) -> None:
        """Give the journal, which has size_bytes, its part of the filesystem's free space."""
        free = os.fstatvfs(folder_fd)
        share = (free.f_bavail * free.f_frsize + size_bytes) // JOURNAL_SHARE
        self.journal_bytes = min(JOURNAL_BYTES, max(share, LEAST_JOURNAL_BYTES))


def configured_bytes() -> int:
    """Return EPSAGON_COLLECTOR_MEMORY_MB in bytes, or the default if that is not a positive number."""
    try:
        megabytes = float(os.environ["EPSAGON_COLLECTOR_MEMORY_MB"])
    except (KeyError, ValueError):
        megabytes = 0.0
    return int((megabytes if 0 < megabytes < math.inf else DEFAULT_MEMORY_MB) * MIB)


def _reserve(bound_bytes: int) -> int:
    # A quarter of a small bound has no room for the records that stand before a CLOSE in its ring.
    return max(bound_bytes // SHARE, min(bound_bytes, LEAST_RESERVE_BYTES))


def _less(all_bytes: Held, held: Held) -> Held:
    return Held(all_bytes.memory_bytes - held.memory_bytes, all_bytes.journal_bytes - held.journal_bytes)


def _excess_bytes(held: Held, left: Held, share: float) -> int:
    """Return how much more is held than the share of what is left, where that is most; negative: less."""
    return int(max(held.memory_bytes - share * left.memory_bytes, held.journal_bytes - share * left.journal_bytes))
