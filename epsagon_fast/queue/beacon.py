"""Tells a forked child whether an inherited trace is still open in the process that opened it.

A child that was forked inside a trace may add to it, but has only a copy of the tracer and cannot see the trace's end.
So each trace has its id in a page of memory, which all forks share, until it closes. Children only read the page.
"""

from epsagon_fast.hints import TYPE_CHECKING, Final
from epsagon_fast.protocol import NO_TRACE, TRACE_ID_BYTES

if TYPE_CHECKING:
    import mmap

PAGE_BYTES: Final = 4096


class Page:
    """The ids of one process's open traces, as far as there is room."""

    def __init__(self) -> None:
        import mmap  # not needed before the first trace

        # Shared and anonymous, so it has no descriptor and no file.
        memory = mmap.mmap(-1, PAGE_BYTES)
        self._free: list[Beacon] = []
        self._free += [Beacon(memory, place, self._free) for place in range(0, PAGE_BYTES, TRACE_ID_BYTES)]

    def light(self, trace_id: bytes) -> "Beacon | None":
        """Show that a trace is open. Returns None if the page is full."""
        try:
            beacon = self._free.pop()
        except IndexError:
            return None
        beacon.trace_id = beacon.memory[beacon.place] = trace_id
        return beacon


class Beacon:
    """The sign of one open trace for the forks of its process. It serves one trace after the other."""

    __slots__ = ("_free", "memory", "place", "trace_id")

    def __init__(self, memory: "mmap.mmap", place: int, free: "list[Beacon]") -> None:
        """`free`: takes this when its trace has ended."""
        self.memory = memory
        self.place = slice(place, place + TRACE_ID_BYTES)
        # In a fork: the trace that was open when the process forked.
        self.trace_id = NO_TRACE
        self._free = free

    def shines(self) -> bool:
        """Say whether the trace is still open in the process that opened it."""
        return self.memory[self.place] == self.trace_id

    def put_out(self) -> None:
        """Show that the trace has ended."""
        self.memory[self.place] = NO_TRACE
        self._free.append(self)
