"""The trimmer in plain Python: the standard library's JSON decoder says where keys and values end.

An event is read as Latin-1, one character a byte, so that every index is a byte's index. JSON's own syntax and the keys
looked for are ASCII; all other bytes are copied unread, so neither trimmer minds what UTF-8 they make.
"""

import json
import re
from collections.abc import Sequence
from operator import index
from typing import NamedTuple

from epsagon_fast.protocol import STRONG_KEYS
from epsagon_fast.trimming._types import METADATA_KEY, RESOURCE_KEY, TraceTooBig, Trimmed

# Numbers are not needed as numbers, and int() refuses more than 4300 digits, which JSON allows.
_decoder = json.JSONDecoder(parse_int=str, parse_float=str)
_spaces = re.compile(r"[ \t\n\r]*")
_quote_or_bracket = re.compile(r'["\[\]{}]')
# Of the bytes themselves, whatever a subclass says its length is; C code sees nothing else either.
_length = bytes.__len__


class _Member(NamedTuple):
    """Where a member of an object lies: `"key": value` is text[start:end], its value text[value:end]."""

    key: str
    start: int
    value: int
    end: int


def trim(events: Sequence[bytes], limit_bytes: int, *, envelope_bytes: int = 0, reserve_bytes: int = 0) -> Trimmed:
    """Strip events in order until a body fits its limit.

    events: JSON objects in add order. limit_bytes: the largest body. envelope_bytes: the body without its events.
    reserve_bytes: room to leave under the limit once anything is stripped.
    Returns the same event objects, in a new list, if the body fits as it is.
    Raises TraceTooBig if it never fits, ValueError for a negative size or an event that is not JSON, TypeError.
    """
    limit = _size("limit_bytes", limit_bytes)
    envelope = _size("envelope_bytes", envelope_bytes)
    reserve = _size("reserve_bytes", reserve_bytes)
    kept = list(events)
    size = envelope + _joined_size(kept)
    if size <= limit:
        return Trimmed(kept, size, 0)
    for number, event in enumerate(kept):
        kept[number] = _strip(event, number)
        size -= _length(event) - _length(kept[number])
        if size <= limit - reserve:
            return Trimmed(kept, size, number + 1)
    raise TraceTooBig(size)


def _size(name: str, value: int) -> int:
    size = index(value)
    if size < 0:
        raise ValueError(f"{name} is negative: {size}")
    return size


def _joined_size(events: list[bytes]) -> int:
    """Return the length of the events with a comma between neighbours."""
    for number, event in enumerate(events):
        if not isinstance(event, bytes):
            raise TypeError(f"event {number} is {type(event).__name__}, not bytes")
    return sum(map(_length, events)) + max(0, len(events) - 1)


def _strip(event: bytes, number: int) -> bytes:
    """Return the event without its weak metadata; the same object if there is nothing to take away."""
    try:
        stripped = _without_weak_metadata(bytes.decode(event, "latin-1")).encode("latin-1")
    except (ValueError, IndexError):
        raise ValueError(f"event {number} is not JSON") from None
    return event if bytes.__eq__(stripped, event) else stripped


def _without_weak_metadata(text: str) -> str:
    start = _skip_spaces(text, 0)
    end = _value_end(text, start)
    if _skip_spaces(text, end) != len(text):
        raise ValueError("bytes after the value")
    resource = _first(text, start, RESOURCE_KEY)
    metadata = _first(text, resource, METADATA_KEY)
    if metadata is None or text[metadata] != "{":
        return text
    members, close = _members(text, metadata)
    strong = [text[member.start : member.end] for member in members if member.key in STRONG_KEYS]
    return text[: metadata + 1] + ",".join(strong) + text[close:]


def _first(text: str, start: int | None, key: str) -> int | None:
    """Return where the value of an object's first member of that name starts; None without object or member."""
    if start is None or text[start] != "{":
        return None
    members, _ = _members(text, start)
    return next((member.value for member in members if member.key == key), None)


def _members(text: str, start: int) -> tuple[list[_Member], int]:
    """Return the members of the object at `start`, and the index of its closing brace."""
    members: list[_Member] = []
    at = _skip_spaces(text, start + 1)
    while text[at] != "}":
        if members:
            at = _skip_spaces(text, at + 1)
        key, key_end = _string(text, at)
        value = _skip_spaces(text, _skip_spaces(text, key_end) + 1)
        end = _value_end(text, value)
        members.append(_Member(key, at, value, end))
        at = _skip_spaces(text, end)
    return members, at


def _skip_spaces(text: str, at: int) -> int:
    spaces = _spaces.match(text, at)
    assert spaces is not None
    return spaces.end()


def _string(text: str, start: int) -> tuple[str, int]:
    if text[start] != '"':
        raise ValueError("a string was expected")
    string, end = _decoder.raw_decode(text, start)
    return string, end


def _value_end(text: str, start: int) -> int:
    try:
        return _decoder.raw_decode(text, start)[1]
    except RecursionError:
        return _nested_end(text, start)


def _nested_end(text: str, start: int) -> int:
    """Find the end of a container nested deeper than the decoder's stack allows: JSON itself has no limit."""
    depth, at = 0, start
    while found := _quote_or_bracket.search(text, at):
        at = found.end()
        if found[0] == '"':
            at = _string(text, found.start())[1]
            continue
        depth += 1 if found[0] in "[{" else -1
        if depth == 0:
            return at
    raise ValueError("a container without end")
