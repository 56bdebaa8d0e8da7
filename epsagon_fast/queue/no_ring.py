"""Stands where no ring could be made: takes nothing, counts in this process's memory, never raises."""

import os
from collections import Counter

from epsagon_fast.queue import layout


class NoRing:
    """Answers as a full ring does."""

    head = 0

    def __init__(self, lacking: str, wanted_bytes: int) -> None:
        self.lacking = lacking
        self._owner_pid = os.getpid()
        self._slots = Counter({layout.CAPACITY: wanted_bytes})

    @property
    def foreign(self) -> bool:
        """Whether this process is a fork of the one that made this object."""
        return self._owner_pid != os.getpid()

    def push(self, kind: int, flags: int, trace_id: bytes, payload: bytes) -> int:
        """Refuse."""
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
