"""Knows how long one name's traces take, and so which of them are among the slowest."""

import math

# One range of durations is a tenth longer than the one before.
GROWTH = math.log(1.1)
SHORTEST_S = 1e-6
# After so many traces each count is halved, so that what is slow today is not judged by last week. A range of which
# less is left is forgotten.
MEMORY = 2000
LEAST = 1 / 16


class Durations:
    """How many traces took how long: a histogram with narrow ranges."""

    def __init__(self) -> None:
        self._counts: dict[int, float] = {}
        self._total = 0.0

    def share(self, duration_s: float, slowest: float) -> float:
        """Count a trace. Return the share to keep of those that take as long, so that `slowest` is kept of all."""
        place = int(math.log(max(duration_s, SHORTEST_S)) // GROWTH)
        self._count(place)
        longer = sum(count for other, count in self._counts.items() if other > place)
        return (slowest * self._total - longer) / self._counts[place]

    def _count(self, place: int) -> None:
        if self._total >= MEMORY:
            self._counts = {other: count / 2 for other, count in self._counts.items() if count > LEAST}
            self._total = sum(self._counts.values())
        self._counts[place] = self._counts.get(place, 0.0) + 1
        self._total += 1
