"""Tells a forked child whether an inherited trace is still open in the process that opened it.

A child that was forked inside a trace may add to it, but has only a copy of the tracer and cannot see the trace's end.
So each trace has its id in a page of memory, which all forks share, until it closes. Children only read the page.
"""

from epsagon_fast.compiled import COMPILED
from epsagon_fast.hints import TYPE_CHECKING
from epsagon_fast.protocol import NO_TRACE, TRACE_ID_BYTES
from epsagon_fast.queue import ring
from epsagon_fast.queue.layout import PLACES

__all__ = ["Page", "PurePage"]


class PurePage:
    """The ids of one process's open traces, as far as there is room."""

    def __init__(self) -> None:
        import mmap  # not needed before the first trace

        # Shared and anonymous, so it has no descriptor and no file.
        self._memory = mmap.mmap(-1, PLACES * TRACE_ID_BYTES)
        # The place 0 is left free: it means none.
        self._free: list[int] = [*range(1, PLACES)]

    def light(self, trace_id: bytes) -> int:
        """Show that a trace is open. Return its place; 0: the page is full."""
        try:
            place = self._free.pop()
        except IndexError:
            return 0
        self._memory[_at(place)] = trace_id
        return place

    def shows(self, place: int, trace_id: bytes) -> bool:
        """Say whether a trace is still open in the process that opened it; True if it has no place."""
        return place == 0 or self._memory[_at(place)] == trace_id

    def put_out(self, place: int, trace_id: bytes) -> None:
        """Show that a trace has ended. The second call does nothing."""
        if place and self.shows(place, trace_id):
            self._memory[_at(place)] = NO_TRACE
            self._free.append(place)


def _at(place: int) -> slice:
    return slice(place * TRACE_ID_BYTES, (place + 1) * TRACE_ID_BYTES)


if TYPE_CHECKING or ring.IMPLEMENTATION == COMPILED:
    from epsagon_fast.queue._ring import Page
else:
    Page = PurePage
