"""How much a collector holds, and what it still reads when that is too much. Pure: `now` is monotonic seconds.

At the bound the rings are not read: they fill, and producers refuse, counted as `queue_full`. What is in a collector is
then worth more than what would come. Except that a trace which is closed makes room once its CLOSE is seen, so rings
with an unread CLOSE are read on, a few in each pass, up to a second bound. If all that is held are traces that nobody
closes, the oldest of them goes, so that others may be traced.
"""

import math
import os
from enum import IntEnum

DEFAULT_MEMORY_MB = 256
MIB = 1024 * 1024
# Beyond the bound so much more is read for the sake of a CLOSE.
SLACK_BYTES = 16 * MIB
JOURNAL_BYTES = 64 * MIB
# On a filesystem with little space it may have this part of that: the application may need the rest.
JOURNAL_SHARE = 8
LEAST_JOURNAL_BYTES = MIB // 16
# At the bound so long without one trace that was closed or settled: nobody will close them.
PATIENCE_S = 30.0
# After the oldest one went, so long until the next: its room is not there at once.
PAUSE_S = 2.0
# Between the bound and this part of it nothing changes, lest every pass does.
RESUME_SHARE = 0.9


class Level(IntEnum):
    """What is read."""

    ALL = 0
    CLOSES = 1
    NOTHING = 2


class Bounds:
    """Where the collector stands; `look` is told once in each pass."""

    def __init__(self, memory_bytes: int | None = None) -> None:
        self.memory_bytes = configured_bytes() if memory_bytes is None else memory_bytes
        self.journal_bytes = JOURNAL_BYTES
        self.level = Level.ALL
        self._progress_at = 0.0

    def look(self, memory_bytes: int, journal_bytes: int, progress: bool, now: float) -> Level:
        """Return what may be read in the next pass.

        memory_bytes, journal_bytes: what is held now; the latter 0 while the journal cannot be written, since waiting
        would not make it smaller. progress: whether a trace was closed or settled.
        """
        if progress or self.level == Level.ALL:
            self._progress_at = now
        share = RESUME_SHARE if self.level else 1.0
        if self.room_bytes(memory_bytes, journal_bytes) <= 0:
            self.level = Level.NOTHING
        elif memory_bytes >= share * self.memory_bytes or journal_bytes >= share * self.journal_bytes:
            self.level = Level.CLOSES
        else:
            self.level = Level.ALL
        return self.level

    def room_bytes(self, memory_bytes: int, journal_bytes: int) -> int:
        """Return how much may still be read until nothing may. A pass that brings more would not see the bound."""
        journal_slack = min(SLACK_BYTES, self.journal_bytes)
        return min(self.memory_bytes + SLACK_BYTES - memory_bytes, self.journal_bytes + journal_slack - journal_bytes)

    def stuck(self, now: float) -> bool:
        """Say whether waiting has not helped."""
        return self.level != Level.ALL and now - self._progress_at > PATIENCE_S

    def dropped(self, now: float) -> None:
        """Take note that the oldest trace went."""
        self._progress_at = now - PATIENCE_S + PAUSE_S

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
