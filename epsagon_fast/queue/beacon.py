"""Tells a forked child whether an inherited trace is still open in the process that opened it.

A child that was forked inside a trace may add to it, but has only a copy of the tracer and cannot see the trace's end.
So each trace has its id in a page of memory, which all forks share, until it closes. Children only read the page.
"""

from typing import Final

from epsagon_fast.protocol import NO_TRACE, TRACE_ID_BYTES

PAGE_BYTES: Final = 4096


class Page:
    """The ids of one process's open traces, as far as there is room."""

    def __init__(self) -> None:
        import mmap  # not needed before the first trace

        # Shared and anonymous, so it has no descriptor and no file.
        self._memory = mmap.mmap(-1, PAGE_BYTES)
        self._free = [*range(0, PAGE_BYTES, TRACE_ID_BYTES)]

    def light(self, trace_id: bytes) -> "Beacon | None":
        """Show that a trace is open. Returns None if the page is full."""
        try:
            place = self._free.pop()
        except IndexError:
            return None
        self._memory[place : place + TRACE_ID_BYTES] = trace_id
        return Beacon(self, place, trace_id)

    def put_out(self, place: int) -> None:
        """Show that the trace at `place` has ended."""
        self._memory[place : place + TRACE_ID_BYTES] = NO_TRACE
        self._free.append(place)

    def shows(self, place: int, trace_id: bytes) -> bool:
        """Say whether a trace is open at `place`, in the process that made the page."""
        return self._memory[place : place + TRACE_ID_BYTES] == trace_id


class Beacon:
    """The sign of one open trace for the forks of its process."""

    __slots__ = ("_page", "_place", "_trace_id")

    def __init__(self, page: Page, place: int, trace_id: bytes) -> None:
        self._page = page
        self._place = place
        self._trace_id = trace_id

    def shines(self) -> bool:
        """Say whether the trace is still open in the process that opened it."""
        return self._page.shows(self._place, self._trace_id)

    def put_out(self) -> None:
        """Show that the trace has ended."""
        self._page.put_out(self._place)
