"""Takes the place of a ring where none could be made: refuses every record and counts the refusals in memory."""

from collections import Counter

from epsagon_fast.protocol import REFUSALS
from epsagon_fast.queue import layout
from epsagon_fast.queue.ring import own_pid


class NoRing:
    """Answers as a full ring does, and in a forked child as a foreign ring does."""

    head = 0

    def __init__(self, lacking: str, wanted_bytes: int) -> None:
        self.lacking = lacking
        self._owner_pid = own_pid()
        self._refused = layout.REFUSED + 8 * REFUSALS.index(lacking)
        self._slots = Counter({layout.CAPACITY: wanted_bytes})

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that made this object."""
        return self._owner_pid != own_pid()

    def push(self, kind: int, flags: int, trace_id: bytes, payload: bytes) -> int:
        """Refuse the record and count it; in a forked child answer FOREIGN."""
        if self._owner_pid != own_pid():
            return layout.FOREIGN
        self._slots[self._refused] += 1
        return layout.FULL

    def share(self, start: bytes) -> int:
        """Return 0, because there is no room for it."""
        return 0

    def load(self, offset: int) -> int:
        """Return the counter at an offset."""
        return self._slots[offset]

    def add(self, offset: int, count: int) -> None:
        """Add to the counter at an offset."""
        self._slots[offset] += count

    def store(self, offset: int, value: int) -> None:
        """Set the counter at an offset."""
        self._slots[offset] = value

    def copy(self, offset: int, length: int) -> bytes:
        """Return zeros."""
        return bytes(length)

    def close(self) -> None:
        """Do nothing."""
