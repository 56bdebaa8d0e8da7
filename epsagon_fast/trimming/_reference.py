"""The trimmer in plain Python. `_walking.py` says where an event's values lie, `_texts.py` how one is shortened."""

from bisect import bisect_right
from collections.abc import Sequence
from operator import index

from epsagon_fast.pages import see
from epsagon_fast.protocol import STRONG_KEYS
from epsagon_fast.trimming._texts import Read, read
from epsagon_fast.trimming._types import (
    LEAST_LEVEL_BYTES,
    METADATA_KEY,
    RESOURCE_KEY,
    Shortened,
    TraceTooBig,
    Trimmed,
)
from epsagon_fast.trimming._walking import first, members_of, root

# Of the bytes themselves, whatever a subclass says its length is; C code sees nothing else either.
_length = bytes.__len__


def trim(events: Sequence[bytes], limit_bytes: int, *, envelope_bytes: int = 0, reserve_bytes: int = 0) -> Trimmed:
    """Strip events in order until a body fits its limit.

    events: JSON objects in add order. limit_bytes: the largest body. envelope_bytes: the body without its events.
    reserve_bytes: room to leave under the limit once anything is stripped.
    Returns the same event objects, in a new list, if the body fits as it is.
    Raises TraceTooBig if it never fits, ValueError for a negative size or an event that is not JSON, TypeError.
    """
    kept, limit, envelope, reserve = _checked(events, limit_bytes, envelope_bytes, reserve_bytes)
    size = envelope + _joined_size(kept)
    if size <= limit:
        return Trimmed(kept, size, 0)
    for number, event in enumerate(kept):
        kept[number] = _strip(event, number)
        size -= _length(event) - _length(kept[number])
        if size <= limit - reserve:
            return Trimmed(kept, size, number + 1)
    raise TraceTooBig(size)


def shorten(events: Sequence[bytes], limit_bytes: int, *, envelope_bytes: int = 0, reserve_bytes: int = 0) -> Shortened:
    """Shorten the longest values of a trace, all to the same length, until a body fits its limit.

    The level is the highest at which it fits: no value loses a byte while a longer one keeps more. What has a level is
    weak metadata and, at EXCEPTION_SHARE times as much, the message and traceback of each event's exception. If
    LEAST_LEVEL_BYTES is too high a level, events are stripped from the front as `trim` does it.
    Arguments and errors are those of `trim`; each event is read if the body does not fit as it is.
    """
    kept, limit, envelope, reserve = _checked(events, limit_bytes, envelope_bytes, reserve_bytes)
    size = envelope + _joined_size(kept)
    if size <= limit:
        return Shortened(kept, size, limit, 0, 0)
    readings = [_read(event, number) for number, event in enumerate(kept)]
    level = _highest_level(readings, limit - reserve - size)
    if level >= LEAST_LEVEL_BYTES:
        shorter = [reading.at(level) for reading in readings]
        return Shortened(shorter, envelope + _joined_size(shorter), level, _count(readings, level, 0), 0)
    least = [reading.at(LEAST_LEVEL_BYTES) for reading in readings]
    stripped = trim(least, max(0, limit - reserve), envelope_bytes=envelope)
    count = _count(readings, LEAST_LEVEL_BYTES, stripped.stripped_count)
    return Shortened(stripped.events, stripped.size_bytes, LEAST_LEVEL_BYTES, count, stripped.stripped_count)


def at_level(events: Sequence[bytes], level_bytes: int) -> list[bytes]:
    """Shorten what is over a level, whatever the size. Returns a new list, with the same object where nothing changed.

    level_bytes: at least LEAST_LEVEL_BYTES. Errors as of `shorten`.
    """
    level = _size("level_bytes", level_bytes)
    if level < LEAST_LEVEL_BYTES:
        raise ValueError(f"level_bytes is less than {LEAST_LEVEL_BYTES}: {level}{see('trimming')}")
    kept = list(events)
    _joined_size(kept)
    return [_read(event, number).at(level) for number, event in enumerate(kept)]


def _highest_level(readings: list[Read], room: int) -> int:
    """Return the highest level at which the events grow by at most `room`, a negative number.

    Less than LEAST_LEVEL_BYTES if there is none: a level higher by a byte never makes a value shorter.
    """

    def growth(level: int) -> int:
        return sum(reading.growth(level) for reading in readings)

    top = max((reading.longest for reading in readings), default=0)
    return LEAST_LEVEL_BYTES - 1 + bisect_right(range(LEAST_LEVEL_BYTES, top + 1), room, key=growth)


def _count(readings: list[Read], level: int, stripped: int) -> int:
    """Return how many values are shortened at a level, without those that went with an event's metadata."""
    return sum(reading.shortened_count(level, number < stripped) for number, reading in enumerate(readings))


def _checked(
    events: Sequence[bytes], limit_bytes: int, envelope_bytes: int, reserve_bytes: int
) -> tuple[list[bytes], int, int, int]:
    limit = _size("limit_bytes", limit_bytes)
    envelope = _size("envelope_bytes", envelope_bytes)
    reserve = _size("reserve_bytes", reserve_bytes)
    return list(events), limit, envelope, reserve


def _size(name: str, value: int) -> int:
    size = index(value)
    if size < 0:
        raise ValueError(f"{name} is negative: {size}{see('trimming')}")
    return size


def _joined_size(events: list[bytes]) -> int:
    """Return the length of the events with a comma between neighbours."""
    for number, event in enumerate(events):
        if not isinstance(event, bytes):
            raise TypeError(f"event {number} is {type(event).__name__}, not bytes{see('trimming')}")
    return sum(map(_length, events)) + max(0, len(events) - 1)


def _read(event: bytes, number: int) -> Read:
    try:
        return read(event)
    except (ValueError, IndexError):
        raise ValueError(f"event {number} is not JSON{see('trimming')}") from None


def _strip(event: bytes, number: int) -> bytes:
    """Return the event without its weak metadata; the same object if there is nothing to take away."""
    try:
        stripped = _without_weak_metadata(bytes.decode(event, "latin-1")).encode("latin-1")
    except (ValueError, IndexError):
        raise ValueError(f"event {number} is not JSON{see('trimming')}") from None
    return event if bytes.__eq__(stripped, event) else stripped


def _without_weak_metadata(text: str) -> str:
    metadata = first(text, first(text, root(text), RESOURCE_KEY), METADATA_KEY)
    if metadata is None or text[metadata] != "{":
        return text
    members, close = members_of(text, metadata)
    strong = [text[member.start : member.end] for member in members if member.key in STRONG_KEYS]
    return text[: metadata + 1] + ",".join(strong) + text[close:]
