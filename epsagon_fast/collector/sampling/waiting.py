"""Traces that no rule keeps, while one of the same request may still come that must be kept. `now` is monotonic."""

from collections import OrderedDict
from collections.abc import Callable

from epsagon_fast.collector.assembling.open_trace import OpenTrace

# A request's traces on one host close nearly together: the caller's soon after those of the services that it calls.
LONGEST_S = 2.0
# Of all memory that the collector may hold, waiting traces take at most this part. Beyond it the oldest are left out.
SHARE = 8


class WaitingRoom:
    """The waiting traces, by the shared id of their request."""

    def __init__(self, memory_bytes: int) -> None:
        self.most_bytes = memory_bytes // SHARE
        self.held_bytes = 0
        self._count = 0
        self._requests: OrderedDict[bytes, tuple[float, list[OpenTrace]]] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def add(self, shared_id: bytes, closed: OpenTrace, now: float) -> None:
        """Let a trace wait until its request's first one has waited long enough."""
        self._requests.setdefault(shared_id, (now, []))[1].append(closed)
        self.held_bytes += closed.held_bytes
        self._count += 1

    def take(self, shared_id: bytes, fits: Callable[[OpenTrace], bool] = lambda closed: True) -> list[OpenTrace]:
        """Return what waits of a request, to be decided now; what does not fit waits on."""
        _, waiting = self._requests.get(shared_id, (0.0, []))
        taken = [closed for closed in waiting if fits(closed)]
        # The list stays where it is, because the requests are in the order of their times.
        waiting[:] = [closed for closed in waiting if not fits(closed)]
        if not waiting:
            self._requests.pop(shared_id, None)
        self.held_bytes -= sum(closed.held_bytes for closed in taken)
        self._count -= len(taken)
        return taken

    def due(self, now: float) -> list[tuple[bytes, list[OpenTrace]]]:
        """Return the requests that have waited long enough, or for which there is no memory, with their traces."""
        due = []
        while self._requests:
            shared_id, (since, _) = next(iter(self._requests.items()))
            if now - since < LONGEST_S and self.held_bytes <= self.most_bytes:
                break
            due.append((shared_id, self.take(shared_id)))
        return due
