"""Stands where no ring could be made: takes nothing, counts in this process's memory, never raises."""

import os
from collections import Counter
from functools import partial

from epsagon_fast.protocol import REFUSALS
from epsagon_fast.queue import layout

# Its length says how often this process was forked off; asking the kernel for its pid would cost as much as all else
# that is done here. The hook is no function of ours: what a signal's handler raised in one would never reach the
# application.
_forks: list[None] = []
os.register_at_fork(after_in_child=partial(_forks.append, None))


class NoRing:
    """Answers as a full ring does, or as a foreign one in a process that was forked off its own."""

    head = 0

    def __init__(self, lacking: str, wanted_bytes: int) -> None:
        self.lacking = lacking
        self._generation = len(_forks)
        self._refused = layout.REFUSED + 8 * REFUSALS.index(lacking)
        self._slots = Counter({layout.CAPACITY: wanted_bytes})

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that made this object."""
        return self._generation != len(_forks)

    def push(self, kind: int, flags: int, trace_id: bytes, payload: bytes) -> int:
        """Refuse, or say that this is another process's."""
        if self._generation != len(_forks):
            return layout.FOREIGN
        self._slots[self._refused] += 1
        return layout.FULL

    def load(self, offset: int) -> int:
        """Return a counter."""
        return self._slots[offset]

    def add(self, offset: int, count: int) -> None:
        """Count."""
        self._slots[offset] += count

    def store(self, offset: int, value: int) -> None:
        """Set a counter."""
        self._slots[offset] = value

    def copy(self, offset: int, length: int) -> bytes:
        """Return zeros."""
        return bytes(length)

    def close(self) -> None:
        """Do nothing."""
