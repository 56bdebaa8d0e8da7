"""How much the collector may hold, and how much of that each process. `now` is monotonic seconds.

A process holds the traces that it opened, until they are settled. It may hold SHARE times as much as is left over, and
all together may hold a quarter more than the bound. So a process alone may fill the bound, two that want all of it have
five ninths each, and a process that holds little finds room, whatever the others hold.

The ring of a process that holds its share is not read. It fills, and its producer refuses, counted as `queue_full`: a
trace that the collector has is worth more than one that would come. But a closed trace makes room once its CLOSE is
seen, so to reach an unread CLOSE a process may hold twice its share.

If a ring was not read for half a minute and its process holds as much as before, the process that holds most open
traces loses the oldest of them, down to its share.
"""

import math
import os

from epsagon_fast.rows import NamedTuple, maker

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
    """How much of each store is held, or left."""

    memory_bytes: int
    journal_bytes: int


made = maker(Held)


class _Stop:
    """A stop of a ring: since when it is not read, or since its process last held less than before."""

    def __init__(self, since: float, least_bytes: int) -> None:
        self.since = since
        self.least_bytes = least_bytes


class Bounds:
    """Knows what is left and which rings are not read. Call `begin` in each pass and `look` when something changed."""

    def __init__(self, memory_bytes: int | None = None) -> None:
        self.memory_bytes = configured_bytes() if memory_bytes is None else memory_bytes
        self.journal_bytes = JOURNAL_BYTES
        self._held = self._left = Held(0, 0)
        self._now = 0.0
        self._stopped: dict[bytes, _Stop] = {}
        self._stopped_before: dict[bytes, _Stop] = {}

    @property
    def stopped(self) -> int:
        """How many rings with unread records were not read in this pass."""
        return len(self._stopped)

    def begin(self, now: float) -> None:
        """Begin a pass, in which no ring is stopped yet."""
        self._now = now
        self._stopped_before, self._stopped = self._stopped, {}

    def look(self, memory_bytes: int, journal_bytes: int) -> None:
        """Note what is held. `journal_bytes`: 0 while the journal cannot be written, since waiting would not help."""
        memory, journal = self.memory_bytes, self.journal_bytes
        self._held = made((memory_bytes, journal_bytes))
        self._left = made((memory + memory // SHARE - memory_bytes, journal + journal // SHARE - journal_bytes))

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
        """Return how much may be read of a stopped ring to reach a CLOSE in it."""
        memory, journal = self.memory_bytes, self.journal_bytes
        left = _less(Held(memory + _reserve(memory), journal + _reserve(journal)), self._held)
        return -_excess_bytes(held, left, 2 * SHARE) // (1 + 2 * SHARE)

    def stuck(self) -> bool:
        """Say whether a ring has been stopped so long that waiting does not help."""
        return any(self._now - stop.since > PATIENCE_S for stop in self._stopped.values())

    def relieved(self) -> None:
        """Note that room was made. All stopped rings get time to use it."""
        for stop in self._stopped.values():
            stop.since = self._now

    def excess_bytes(self, held: Held) -> int:
        """Return how much must go of what a process holds, so that its ring is read again."""
        # What goes is left over afterwards, so it counts on both sides of the comparison.
        return math.ceil(_excess_bytes(held, self._left, RESUME_SHARE * SHARE) / (1 + RESUME_SHARE * SHARE))

    def fit_journal(self, folder_fd: int, size_bytes: int) -> None:
        """Set the journal's bound by the filesystem's free space. `size_bytes`: what the journal has already."""
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
    """Return by how much the larger excess of the two stores is over its share; negative: room is left in both."""
    (memory_bytes, journal_bytes), (memory_left, journal_left) = held, left
    return int(max(memory_bytes - share * memory_left, journal_bytes - share * journal_left))
