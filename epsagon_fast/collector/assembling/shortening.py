"""A stream whose longest values are shortened before anything is stripped.

It may hold twice its limit. Beyond that its values are shortened to the highest level at which what is there fits. The
level of the end is no higher, since at the end there is at least as much; and a level and then a lower one leave what
the lower one alone leaves. So the bytes are those of shortening at the end, and each byte is read a few times only.

Once the least level is not enough, every event is kept at that, and the rules of a stream that strips hold.
"""

from collections import Counter

from epsagon_fast.trimming import LEAST_LEVEL_BYTES, TraceTooBig, at_level, shorten

from .stream import NO_EVENT, FittedStream, Stream, joined_bytes

# An exception of the trace has the level that an event's has: it is shortened as that of an event with nothing else.
_HEAD, _TAIL = b'{"exception":', b"}"
_AROUND_BYTES = len(_HEAD) + len(_TAIL)


class ShorteningStream(Stream):
    """The events and exceptions of one trace, without the runner."""

    __slots__ = ()

    def __init__(self, envelope_bytes: int, limit_bytes: int, counters: Counter[str]) -> None:
        super().__init__(envelope_bytes, limit_bytes, counters)
        self.hold_bytes = 2 * limit_bytes

    @property
    def is_at_least(self) -> bool:
        """Whether no value can be shortened further."""
        return self.level_bytes == LEAST_LEVEL_BYTES and self.hold_bytes == 0

    def give_up(self) -> None:
        """Strip all events and cut all texts, as any stream, but at the least level."""
        if not self.is_at_least:
            self._sink()
        super().give_up()

    def level_all(self) -> None:
        """Shorten what came later to the level of what came before."""
        if self.level_bytes:
            self._level_to(self.level_bytes)

    def leveled(self, event: bytes) -> bytes:
        """Return an event at that level."""
        return at_level([event], self.level_bytes)[0] if self.level_bytes else event

    def fitted(self, events: list[bytes], limit_bytes: int, outside_bytes: int, reserve_bytes: int) -> FittedStream:
        """Return what is left within the limit, shortened or stripped. Raises TraceTooBig."""
        rule = super().fitted if self.is_at_least else self._shortened
        return rule(events, limit_bytes, outside_bytes, reserve_bytes)

    def add_exception(self, exception: bytes) -> None:
        """Take in the JSON of an exception of the trace."""
        arrived = len(exception)
        if self.is_at_least:
            try:
                (exception,) = _exceptions_at([exception], self.level_bytes)
            except ValueError:
                self._counters["malformed"] += 1
                exception = NO_EVENT
        super().add_exception(exception)
        self.arrived_bytes += arrived - len(exception)

    def _shortened(self, events: list[bytes], limit_bytes: int, outside_bytes: int, reserve_bytes: int) -> FittedStream:
        wrapped = _wrapped(self.exceptions)
        # What stands around the exceptions here, and the comma before the first, is not in the body.
        limit_bytes += _AROUND_BYTES * len(wrapped) + bool(events and wrapped)
        together = [*events, *wrapped]
        result = shorten(together, limit_bytes, envelope_bytes=outside_bytes, reserve_bytes=reserve_bytes)
        kept, exceptions = result.events[: len(events)], _unwrapped(result.events[len(events) :])
        return FittedStream(kept, exceptions, result.stripped_count, result.shortened_count, result.level_bytes)

    def _add_with_care(self, event: bytes) -> None:
        arrived = len(event)
        if self.is_at_least:
            try:
                event = self.leveled(event)
            except ValueError:
                self._counters["malformed"] += 1
                event = NO_EVENT
        super()._add_with_care(event)
        self.arrived_bytes += arrived - len(event)

    def _grow(self, size: int) -> None:
        self.floor_bytes += size
        if self.floor_bytes > (self.hold_bytes or self.limit_bytes):
            self._shrink()

    def _shrink(self) -> None:
        if not self.is_at_least:
            self._shorten_all()
        super()._shrink()

    def _shorten_all(self) -> None:
        try:
            self.level_all()
            # So that the size with all events is the floor.
            outside = self.floor_bytes - joined_bytes(self.events) - joined_bytes(self.exceptions)
            result = self._shortened(self.events, self.limit_bytes, outside, 0)
        except TraceTooBig:
            self._sink()
            return
        except ValueError:
            self.discard_broken()
            self._add_up()
            self._shorten_all()
            return
        if result.stripped_count:
            self._sink()
        elif result.shortened_count:
            self.events, self.exceptions, self.level_bytes = result.events, result.exceptions, result.level_bytes
            self._add_up()

    def _sink(self) -> None:
        """Go down to the least level, for good."""
        self._level_to(LEAST_LEVEL_BYTES)
        self.level_bytes, self.hold_bytes = LEAST_LEVEL_BYTES, 0

    def _level_to(self, level_bytes: int) -> None:
        self.events = at_level(self.events, level_bytes)
        self.exceptions = _exceptions_at(self.exceptions, level_bytes)
        self._add_up()


def _exceptions_at(exceptions: list[bytes], level_bytes: int) -> list[bytes]:
    return _unwrapped(at_level(_wrapped(exceptions), level_bytes))


def _wrapped(exceptions: list[bytes]) -> list[bytes]:
    return [_HEAD + each + _TAIL for each in exceptions]


def _unwrapped(events: list[bytes]) -> list[bytes]:
    return [each[len(_HEAD) : -len(_TAIL)] for each in events]
