"""Publishes the collector's counters in the folder's state page, where they survive the collector."""

from collections import Counter

from epsagon_fast.queue.state import StatePage

# The sum of counters without room in the page: a backend may answer with any number of statuses.
UNNAMED = "unnamed"


class Counters:
    """Publishes the sums of several sources. A source is a Counter whose values never become smaller."""

    def __init__(self, state: StatePage, *sources: "Counter[str]") -> None:
        self._state = state
        self._sources = sources
        self._base = state.counters()
        # Set now, while the page has room for it.
        self._state.set_counter(UNNAMED, self._base.setdefault(UNNAMED, 0))
        self._published: dict[str, int] = {}
        self._without_room: set[str] = set()

    def publish(self, **gauges: int) -> None:
        """Write the counters that have changed to the state page, and all `gauges`."""
        self._publish_counts()
        for name, value in gauges.items():
            self._state.set_gauge(name, value)

    def _publish_counts(self) -> None:
        # A dict: adding Counters calls Python for each name.
        total = self._base.copy()
        for source in self._sources:
            for name, value in source.items():
                total[name] = total.get(name, 0) + value
        for name, value in total.items():
            if self._published.get(name) != value and not self._state.set_counter(name, value):
                self._without_room.add(name)
        if self._without_room:
            unnamed = sum(total[name] for name in self._without_room)
            self._state.set_counter(UNNAMED, self._base[UNNAMED] + unnamed)
        self._published = total
