"""How much of the youngest segment's file was written whole: a slot of the state page, which outlives the collector.

A collector may be killed in the middle of a write. What it leaves looks like damage, above all in a file that is used
again: behind the torn end older frames stand. But such an end was never promised: its records are still in their
rings. All that stands before it was, and the rings have let go of it. So a fault before this place is a loss.
"""

from epsagon_fast.hints import Protocol
from epsagon_fast.queue.state import JOURNALED

# The slot holds the number in the file's name, then a size in bytes, which LARGEST_JOURNAL_BYTES bounds; 0: none.
_SIZE_BITS = 32


class Slots(Protocol):
    """The part of StatePage that this needs."""

    def load(self, slot: int) -> int: ...
    def store(self, slot: int, value: int) -> None: ...


class Written:
    """The slot. Without a page nothing is known, and what may be a torn end is taken for one."""

    def __init__(self, page: Slots | None) -> None:
        self._page = page

    @property
    def file_number(self) -> int:
        """The number of the file that it is about; 0: it is about none."""
        return self._page.load(JOURNALED) >> _SIZE_BITS if self._page is not None else 0

    def bytes_of(self, file_number: int) -> int:
        """Return how much of a file is known to have been written."""
        if self._page is None or self.file_number != file_number:
            return 0
        return self._page.load(JOURNALED) & (1 << _SIZE_BITS) - 1

    def set(self, file_number: int, size_bytes: int) -> None:
        """Note that so much of a file is written. Memory access, no system call."""
        if self._page is not None:
            # A number that has no room here follows a name that somebody else gave a file. Then nothing is known.
            fits = not file_number >> _SIZE_BITS
            self._page.store(JOURNALED, file_number << _SIZE_BITS | size_bytes if fits else 0)

    def cut(self, file_number: int, size_bytes: int) -> None:
        """Note that a file has no more than this now."""
        if self.bytes_of(file_number) > size_bytes:
            self.set(file_number, size_bytes)

    def forget(self, file_number: int) -> None:
        """Note that a file is about to go, or to be used again."""
        if self._page is not None and self.file_number == file_number:
            self._page.store(JOURNALED, 0)
