"""Which of a destination's waiting traces go now, and which of them share a request. No thread, no clock.

The first trace goes at once. After a request its destination's next ones wait until the format's `collect_s` have
passed since, or until many wait. So at a low rate a trace waits for none, and at a high one a request carries many.
A server that found a request too large gets smaller ones from then on. `now` is monotonic seconds.
"""

from collections import deque
from collections.abc import Sequence
from itertools import accumulate, takewhile

from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.parcel import Destination, Parcel

# Traces that wait for no more: there are enough to share a request.
ENOUGH = 500
# Destinations of which something is known here. One more, and all is forgotten, which costs a few requests.
MAX_REMEMBERED = 1000


class Batches:
    """The requests of all destinations, one after the other."""

    def __init__(self) -> None:
        self._sent_at: dict[Destination, float] = {}
        # Bytes of bodies that a server takes in one request, where that is less than the format's bound.
        self._most_bytes: dict[Destination, int] = {}

    def are_due(self, destination: Destination, waiting: int, now: float) -> bool:
        """Say whether so many traces of a destination need not wait for others."""
        collect_s = format_for(destination).collect_s
        if not collect_s or waiting >= ENOUGH:
            return True
        return now - self._sent_at.get(destination, -collect_s) >= collect_s

    def next(self, waiting: deque[Parcel], now: float) -> list[Parcel]:
        """Take the traces of the next request, at least one, from those of one destination that wait."""
        destination = waiting[0].destination
        self._remember()
        self._sent_at[destination] = now
        return [waiting.popleft() for _ in range(self._shared(destination, waiting))]

    def were_too_large(self, parcels: Sequence[Parcel]) -> None:
        """Note that a server did not take these in one request: each half of them is due at once."""
        self._remember()
        destination = parcels[0].destination
        self._sent_at.pop(destination, None)
        # Less than a half, so that even bodies without a byte become fewer.
        self._most_bytes[destination] = (sum(len(parcel.body) for parcel in parcels) - 1) // 2

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
        for known in (self._sent_at, self._most_bytes):
            if len(known) >= MAX_REMEMBERED:
                known.clear()
