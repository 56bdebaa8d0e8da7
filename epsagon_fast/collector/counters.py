"""What the collector counted, kept in the folder's state page so that it survives the collector."""

from collections import Counter

from epsagon_fast.queue.state import State


class Counters:
    """Sums of several sources. A source is a Counter that its owner only ever adds to."""

    def __init__(self, state: State, *sources: "Counter[str]") -> None:
        self._state = state
        self._sources = sources
        self._base = state.counters()
        self._published: dict[str, int] = {}

    def publish(self) -> None:
        """Write what changed to the state page."""
        total = Counter(self._base)
        for source in self._sources:
            total.update(source)
        for name, value in total.items():
            if self._published.get(name) != value:
                self._state.set_counter(name, value)
        self._published = dict(total)
