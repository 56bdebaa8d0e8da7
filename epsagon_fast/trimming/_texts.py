"""The values of an event that may be shortened, and what a level leaves of each: the reference's.

A value's length is what stands between its quotes or brackets, in bytes of JSON. One that is no longer than the level
stays as it is. Of another so much stays that it has at most the level's length with its mark, cut where a character or
an escape ends. An object or an array becomes the text of its JSON, and of that the beginning stays.

A value that ends with a mark is one that was shortened before: it is as if it still had all its bytes. So a level and
then a lower one leave what the lower one alone would have left.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from epsagon_fast.protocol import STRONG_KEYS
from epsagon_fast.rows import NamedTuple
from epsagon_fast.trimming._types import (
    EXCEPTION_KEY,
    EXCEPTION_SHARE,
    EXCEPTION_TEXT_KEYS,
    LEAST_LEVEL_BYTES,
    MARK_AT_END,
    MARK_BETWEEN,
    MARK_DIGITS,
    MARK_HEAD,
    METADATA_KEY,
    RESOURCE_KEY,
)
from epsagon_fast.trimming._walking import first, members_of, root, value_end

_NUMBER = f"([1-9][0-9]{{0,{MARK_DIGITS - 1}}})"
_END = re.compile(rf"{re.escape(MARK_HEAD)}{_NUMBER}{MARK_AT_END}\Z")
_BETWEEN = re.compile(f"{re.escape(MARK_HEAD)}{_NUMBER}{re.escape(MARK_BETWEEN)}")
# What no cut may go through: the escapes of a surrogate pair, another escape, a character; in Latin-1, a byte a letter.
# A character has three continuations at most. A longer run is not UTF-8, and may be cut anywhere.
_UNIT = re.compile(
    r"(?:\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|[^\\\x80-\xbf])[\x80-\xbf]{0,3}|[\x80-\xbf]",
    re.DOTALL,
)
_SPECIAL = re.compile(r'["\\\n\r\t]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Text:
    """One value of an event's text, at [start, end) of it.

    content: what stands, or would stand, between its quotes. length: what is compared with the level. has_tail: it may
    have EXCEPTION_SHARE times the level, and its last half is kept as well as its first.
    """

    def __init__(self, start: int, end: int, content: str, length: int, has_tail: bool) -> None:
        self.start, self.end, self.length, self._has_tail = start, end, length, has_tail
        self.share, self._behind = (EXCEPTION_SHARE, MARK_BETWEEN) if has_tail else (1, MARK_AT_END)
        mark = (_BETWEEN if has_tail else _END).search(content)
        self._head = content[: mark.start()] if mark else content
        self._tail = content[mark.end() :] if mark else content
        # No more than a mark can say, or it would not be known as one the next time.
        left = len(self._head) + len(self._tail)
        self._original = min(left + int(mark[1]), 10**MARK_DIGITS - 1) if mark else len(content)
        self._head_cuts = _cuts(self._head)
        self._tail_cuts = _cuts(self._tail) if mark else self._head_cuts

    def at(self, level: int) -> str | None:
        """Return the value as JSON if it is over the level, else None."""
        limit = level * self.share
        if self.length <= limit:
            return None
        room = limit - len(MARK_HEAD) - len(str(self._original)) - len(self._behind)
        # What the cuts cannot use, or a number that became shorter, leaves room.
        while len(self._with(room + 1)) <= limit:
            room += 1
        return f'"{self._with(room)}"'

    def _with(self, room: int) -> str:
        """Return the content with at most so many bytes of its own."""
        head_room, tail_room = ((room + 1) // 2, room // 2) if self._has_tail else (room, 0)
        head = self._head[: self._head_cuts[bisect_right(self._head_cuts, head_room) - 1]]
        tail = self._tail[self._tail_cuts[bisect_left(self._tail_cuts, len(self._tail) - tail_room)] :]
        return f"{head}{MARK_HEAD}{self._original - len(head) - len(tail)}{self._behind}{tail}"


class Read(NamedTuple):
    """An event, with those of its values that may be shortened, in the order in which they stand."""

    event: bytes
    text: str
    metadata: list[Text]
    exception: list[Text]

    @property
    def longest(self) -> int:
        """A level at which the event stays as it is."""
        return max((each.length for each in (*self.metadata, *self.exception)), default=0)

    def growth(self, level: int) -> int:
        """Return how much longer the event is at a level; never more than 0."""
        changes = ((each, each.at(level)) for each in (*self.metadata, *self.exception))
        return sum(len(value) - (each.end - each.start) for each, value in changes if value is not None)

    def shortened_count(self, level: int, is_stripped: bool) -> int:
        """Return how many of its values are shortened at a level."""
        counted = self.exception if is_stripped else (*self.metadata, *self.exception)
        return sum(each.at(level) is not None for each in counted)

    def at(self, level: int) -> bytes:
        """Return the event at a level; the same object if nothing in it is over it."""
        parts, done = [], 0
        for each in sorted((*self.metadata, *self.exception), key=lambda text: text.start):
            value = each.at(level)
            if value is not None:
                parts += [self.text[done : each.start], value]
                done = each.end
        return "".join((*parts, self.text[done:])).encode("latin-1") if parts else self.event


def read(event: bytes) -> Read:
    """Find the values of an event that may be shortened. Raises ValueError or IndexError if it is not JSON."""
    text = bytes.decode(event, "latin-1")
    start = root(text)
    metadata = first(text, first(text, start, RESOURCE_KEY), METADATA_KEY)
    exception = first(text, start, EXCEPTION_KEY)
    return Read(event, text, [*_weak(text, metadata)], [*_exception(text, exception)])


def _weak(text: str, metadata: int | None) -> Iterator[Text]:
    if metadata is None or text[metadata] != "{":
        return
    for member in members_of(text, metadata)[0]:
        length = member.end - member.value - 2
        if member.key in STRONG_KEYS or length <= LEAST_LEVEL_BYTES or text[member.value] not in '"[{':
            continue
        value = text[member.value : member.end]
        content = value[1:-1] if value[0] == '"' else _SPECIAL.sub(lambda found: _ESCAPES[found[0]], value)
        yield Text(member.value, member.end, content, length, has_tail=False)


def _exception(text: str, exception: int | None) -> Iterator[Text]:
    for key in EXCEPTION_TEXT_KEYS:
        start = first(text, exception, key)
        if start is None or text[start] != '"':
            continue
        end = value_end(text, start)
        if end - start - 2 > LEAST_LEVEL_BYTES * EXCEPTION_SHARE:
            yield Text(start, end, text[start + 1 : end - 1], end - start - 2, has_tail=True)


def _cuts(content: str) -> Sequence[int]:
    """Return where a text may be cut, both its ends among that."""
    if content.isascii() and "\\" not in content:
        return range(len(content) + 1)
    return array("Q", [0, *(unit.end() for unit in _UNIT.finditer(content))])
