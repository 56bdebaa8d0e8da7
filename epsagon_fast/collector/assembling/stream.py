"""The events and exceptions of an open trace, trimmed as they come, so that a trace never holds more than its limit.

The bytes that are sent must not depend on when something was trimmed. So a step is taken early only if the end would
have to take it in any case, and the test for that counts only what can never shrink: the envelope, events and
exceptions. Labels, error and runner may (an overwritten label, a replaced error), so they count as nothing. With
`floor_bytes` for that sum, and in the order of the end:

1. While the floor is over the limit, the next event is stripped.
2. All are stripped and the floor is still over it: the trace is too big for certain. Its texts are cut, and all that
   comes later is stripped and cut as it arrives.
3. Still over it: the longest prefix that fits is kept, so the last event goes, and with it all later ones.
4. No event is left and the floor is still over it: the last exception goes, and with it all later ones.

Each event is stripped once, cut once and dropped once, so the work grows with the trace's length and no faster.
"""

from collections import Counter

import orjson

import epsagon_fast.cutting as cutting
from epsagon_fast.rows import NamedTuple
from epsagon_fast.trimming import TraceTooBig, trim

# Memory of a bytes object and its slot in a list, without its bytes.
ENTRY_BYTES = 48
# Stands in place of an event or an exception that is not JSON.
NO_EVENT = b"{}"
# The fields of a snapshot, beside events and exceptions.
SAVED = (
    "stripped_count",
    "is_too_big",
    "dropped_events",
    "dropped_exceptions",
    "arrived_bytes",
    "floor_bytes",
    "hold_bytes",
    "level_bytes",
)


class FittedStream(NamedTuple):
    """The last events of a trace, and its exceptions, within its limit."""

    events: list[bytes]
    exceptions: list[bytes]
    stripped_count: int
    shortened_count: int
    level_bytes: int


class Stream:
    """The events and exceptions of one trace, without the runner."""

    # Slots, because with many open traces this object is in no cache when a record comes.
    __slots__ = ("_counters", "_empty_bytes", "events", "exceptions", "limit_bytes", *SAVED)

    def __init__(self, envelope_bytes: int, limit_bytes: int, counters: Counter[str]) -> None:
        self.limit_bytes = limit_bytes
        # The floor from which on something must give way.
        self.hold_bytes = limit_bytes
        # The level to which all values are shortened; 0: none is.
        self.level_bytes = 0
        self.events: list[bytes] = []
        self.exceptions: list[bytes] = []
        # How many events, from the first on, are stripped already.
        self.stripped_count = 0
        # True once the end must find the trace too big: all events are stripped and all texts cut.
        self.is_too_big = False
        # Once one had to go, all later ones go too.
        self.dropped_events = 0
        self.dropped_exceptions = 0
        # All that ever came, before trimming.
        self.arrived_bytes = 0
        # Every event and every exception is counted with a comma, so two are too many.
        self._empty_bytes = envelope_bytes - 2
        self.floor_bytes = self._empty_bytes
        self._counters = counters

    @property
    def event_count(self) -> int:
        """All events that came."""
        return len(self.events) + self.dropped_events

    @property
    def exception_count(self) -> int:
        """All exceptions that came."""
        return len(self.exceptions) + self.dropped_exceptions

    @property
    def held_bytes(self) -> int:
        """Memory that this holds, nearly."""
        return self.floor_bytes + ENTRY_BYTES * (len(self.events) + len(self.exceptions))

    def fits(self, event: bytes) -> bool:
        """Say whether an event can be kept as it is, and nothing gives way for it."""
        return self.floor_bytes + len(event) + 1 <= self.hold_bytes and not self.is_too_big

    def add_event(self, event: bytes) -> int:
        """Take in an event's JSON, masked. Return by how much `held_bytes` has grown."""
        size = len(event)
        if not self.fits(event):
            before = self.held_bytes
            self._add_with_care(event)
            return self.held_bytes - before
        # The fast path: nearly every event fits.
        self.arrived_bytes += size
        self.floor_bytes += size + 1
        self.events.append(event)
        return size + 1 + ENTRY_BYTES

    def add_exception(self, exception: bytes) -> None:
        """Take in the JSON of an exception of the trace."""
        self.arrived_bytes += len(exception)
        if self.dropped_exceptions:
            self.dropped_exceptions += 1
            return
        if self.is_too_big:
            exception = self._cut(exception)
        self.exceptions.append(exception)
        self._grow(len(exception) + 1)

    def give_up(self) -> None:
        """Strip all events and cut all texts: the trace is too big. Once more changes nothing."""
        if self.is_too_big:
            return
        self.is_too_big = True
        while self.stripped_count < len(self.events):
            self._strip_next()
        self.events = [self._cut(event) for event in self.events]
        self.exceptions = [self._cut(exception) for exception in self.exceptions]
        self._add_up()

    def level_all(self) -> None:
        """Shorten what came later to the level of what came before; here there is none."""

    def leveled(self, event: bytes) -> bytes:
        """Return an event at that level."""
        return event

    def fitted(self, events: list[bytes], limit_bytes: int, outside_bytes: int, reserve_bytes: int) -> FittedStream:
        """Return the last events of the trace, and its exceptions, within its limit. Raises TraceTooBig.

        `outside_bytes`: the body without both. `reserve_bytes`: as of `trim`.
        """
        outside_bytes += joined_bytes(self.exceptions)
        kept = trim(events, limit_bytes, envelope_bytes=outside_bytes, reserve_bytes=reserve_bytes)
        return FittedStream(kept.events, self.exceptions, kept.stripped_count, 0, limit_bytes)

    def discard_broken(self) -> None:
        """Replace each event and exception that is not JSON by an empty one, and count it."""
        for kept in (self.events, self.exceptions):
            for number, each in enumerate(kept):
                if not _is_json(each):
                    self._counters["malformed"] += 1
                    kept[number] = NO_EVENT

    def _add_with_care(self, event: bytes) -> None:
        self.arrived_bytes += len(event)
        if self.is_too_big:
            if self.dropped_events or self.dropped_exceptions:
                self.dropped_events += 1
                return
            event = self._cut(self._strip(event))
            self.stripped_count += 1
        self.events.append(event)
        self._grow(len(event) + 1)

    def _add_up(self) -> None:
        kept = (*self.events, *self.exceptions)
        self.floor_bytes = self._empty_bytes + sum(map(len, kept)) + len(kept)

    def _grow(self, size: int) -> None:
        self.floor_bytes += size
        if self.floor_bytes > self.hold_bytes:
            self._shrink()

    def _shrink(self) -> None:
        while self.floor_bytes > self.limit_bytes and self.stripped_count < len(self.events):
            self._strip_next()
        if self.floor_bytes > self.limit_bytes:
            self.give_up()
            self._drop()

    def _drop(self) -> None:
        while self.floor_bytes > self.limit_bytes and self.events:
            self._shorten(self.events)
            self.stripped_count -= 1
            self.dropped_events += 1
        while self.floor_bytes > self.limit_bytes and self.exceptions:
            self._shorten(self.exceptions)
            self.dropped_exceptions += 1

    def _shorten(self, kept: list[bytes]) -> None:
        self.floor_bytes -= len(kept.pop()) + 1

    def _cut(self, value: bytes) -> bytes:
        shorter = _cut(value)
        if shorter is not value:
            self._counters["cut"] += 1
        return shorter

    def _strip_next(self) -> None:
        event = self.events[self.stripped_count]
        stripped = self.events[self.stripped_count] = self._strip(event)
        self.floor_bytes -= len(event) - len(stripped)
        self.stripped_count += 1

    def _strip(self, event: bytes) -> bytes:
        try:
            # One byte less than it has: stripped if there is anything to strip.
            return trim([event], len(event) - 1).events[0]
        except TraceTooBig:
            return event
        except ValueError:
            self._counters["malformed"] += 1
            return NO_EVENT


def joined_bytes(parts: list[bytes]) -> int:
    """Return the length of the parts with a comma between neighbours."""
    return sum(map(len, parts)) + max(0, len(parts) - 1)


def _is_json(event: bytes) -> bool:
    try:
        orjson.loads(event)
    except ValueError:
        return False
    return True


def _cut(value: bytes) -> bytes:
    """Return the JSON of an event or an exception with its texts cut; the same object if there is nothing to cut."""
    if len(value) <= cutting.TEXT_BYTES:
        return value
    try:
        decoded = orjson.loads(value)
    except ValueError:
        decoded = None
    shorter = cutting.texts(decoded, cutting.TEXT_BYTES)
    return value if shorter == decoded else orjson.dumps(shorter)
