"""What rules remember of each name. `now` is monotonic seconds."""

from epsagon_fast.collector.sampling.durations import Durations

# More names than this share one memory. An application whose names hold ids has as many names as traces, and each
# would be a rare one that must be kept.
MOST_NAMES = 1000
MINUTE_S = 60.0
# A name that was not seen for so long makes room for others.
FORGOTTEN_S = 600.0
OTHERS = ""


class Name:
    """One name's memory."""

    __slots__ = ("durations", "kept", "minute", "seen_at")

    def __init__(self) -> None:
        self.durations = Durations()
        self.minute = -1
        # How many of its traces were kept in this minute.
        self.kept = 0
        self.seen_at = 0.0


class Names:
    """The memory of one application's names."""

    def __init__(self) -> None:
        self._names: dict[str, Name] = {}
        self._swept_at = 0.0

    def of(self, name: str, now: float) -> Name:
        """Return a name's memory, in which a new minute may have begun."""
        found = self._names.get(name) or self._new(name, now)
        found.seen_at = now
        minute = int(now // MINUTE_S)
        if found.minute != minute:
            found.minute, found.kept = minute, 0
        return found

    def _new(self, name: str, now: float) -> Name:
        if len(self._names) >= MOST_NAMES:
            self._sweep(now)
        if len(self._names) >= MOST_NAMES:
            name = OTHERS
        return self._names.setdefault(name, Name())

    def _sweep(self, now: float) -> None:
        if now - self._swept_at >= MINUTE_S:
            self._swept_at = now
            self._names = {name: each for name, each in self._names.items() if now - each.seen_at < FORGOTTEN_S}
