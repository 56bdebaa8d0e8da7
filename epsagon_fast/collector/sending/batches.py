"""Which of a destination's waiting traces go now, and which of them share a request. No thread, no clock.

The first trace goes at once. After a request its destination's next ones wait until the format's `collect_s` have
passed since, or until many wait. So at a low rate a trace waits for none, and at a high one a request carries many.
A server that found a request too large gets smaller ones from then on. Where something in a request is wrong, its
halves go each in a request of their own, and their halves, until the wrong one is alone. `now` is monotonic seconds.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, takewhile

from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.rows import NamedTuple

# Traces that wait for no more: there are enough to share a request.
ENOUGH = 500
# How often the parts of one request are halved, while none arrives, to find what is wrong in it. One trace of 500 is
# found after 9 times. A server that finds everything wrong gets at most twice as many requests more.
MOST_HALVINGS = 32
# Destinations of which something is known here. One more, and all is forgotten, which costs a few requests.
MAX_REMEMBERED = 1000


class _Search:
    """The parts of a request in which something is wrong."""

    # Since a part arrived.
    halvings = 0


class _Part(NamedTuple):
    # How many of the traces that wait first.
    traces: int
    search: _Search


class Batches:
    """The requests of all destinations, one after the other."""

    def __init__(self) -> None:
        self._sent_at: dict[Destination, float] = {}
        # Bytes of bodies that a server takes in one request, where that is less than the format's bound.
        self._most_bytes: dict[Destination, int] = {}
        # How many of the traces that wait first are for each next request, while something wrong is looked for.
        self._parts: dict[Destination, deque[_Part]] = {}
        # The searches of the requests under way that are parts of another, by their first trace.
        self._searches: dict[bytes, _Search] = {}

    def are_due(self, destination: Destination, waiting: int, now: float) -> bool:
        """Say whether so many traces of a destination need not wait for others."""
        collect_s = format_for(destination).collect_s
        if destination in self._parts or not collect_s or waiting >= ENOUGH:
            return True
        return now - self._sent_at.get(destination, -collect_s) >= collect_s

    def found_no_room(self, destination: Destination) -> None:
        """Note that traces are left that were due. They do not wait for others once more."""
        self._sent_at.pop(destination, None)

    def next(self, waiting: deque[Parcel], now: float) -> list[Parcel]:
        """Take the traces of the next request, at least one, from those of one destination that wait."""
        (parcels,) = self.take(waiting, 1, now)
        return parcels

    def take(self, waiting: deque[Parcel], most: int, now: float) -> Iterator[list[Parcel]]:
        """Take the traces of the next requests, at most so many, from those of one destination that wait."""
        destination = waiting[0].destination
        self._remember()
        self._sent_at[destination] = now
        shares = format_for(destination).collect_s > 0
        for _ in range(most):
            if not waiting:
                return
            # First without looking for the destination, because mostly nothing is.
            if self._parts and destination in self._parts:
                yield self._next_part(destination, waiting)
            else:
                shared = self._shared(destination, waiting) if shares else 1
                yield [waiting.popleft() for _ in range(shared)] if shared > 1 else [waiting.popleft()]

    def halve(self, parcels: Sequence[Parcel], shrink: bool) -> bool:
        """Note that a server did not take these in one request. Return whether their halves are to be tried, at once.

        The caller puts them first among those that wait. `shrink`: later requests are to be smaller as well.
        """
        destination = parcels[0].destination
        if shrink:
            self._remember()
            self._sent_at.pop(destination, None)
            # Less than a half, so that even bodies without a byte become fewer.
            self._most_bytes[destination] = (sum(len(parcel.body) for parcel in parcels) - 1) // 2
            return True
        search = self._searches.get(parcels[0].trace_id) or _Search()
        if search.halvings >= MOST_HALVINGS:
            return False
        search.halvings += 1
        half = len(parcels) // 2
        parts = self._parts.setdefault(destination, deque())
        parts.extendleft((_Part(len(parcels) - half, search), _Part(half, search)))
        return True

    def are_over(self, parcels: Sequence[Parcel], arrived: bool) -> None:
        """Note that a request of these needs no more parts, and whether they arrived."""
        search = self._searches.pop(parcels[0].trace_id, None) if self._searches else None
        if search and arrived:
            search.halvings = 0

    def _next_part(self, destination: Destination, waiting: deque[Parcel]) -> list[Parcel]:
        parts = self._parts[destination]
        traces, search = parts.popleft()
        if not parts:
            del self._parts[destination]
        # Those that were to be first may be in the outbox meanwhile.
        taken = [waiting.popleft() for _ in range(min(traces, len(waiting)))]
        self._searches[taken[0].trace_id] = search
        return taken

    def _shared(self, destination: Destination, waiting: deque[Parcel]) -> int:
        if len(waiting) == 1:
            return 1
        try:
            shared = max(1, format_for(destination).shared(waiting))
        except Exception:
            # A body that a format cannot look into must not end the collector. Alone it gets its verdict.
            return 1
        most_bytes = self._most_bytes.get(destination)
        if most_bytes is not None:
            sizes = accumulate(len(parcel.body) for parcel in waiting)
            shared = min(shared, sum(1 for _ in takewhile(lambda size: size <= most_bytes, sizes)))
        return max(1, min(shared, len(waiting)))

    def _remember(self) -> None:
        for known in (self._sent_at, self._most_bytes, self._parts):
            if len(known) >= MAX_REMEMBERED:
                known.clear()
