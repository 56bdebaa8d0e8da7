"""Where the values of a JSON text lie: the standard library's decoder says so.

An event is read as Latin-1, one character a byte, so that every index is a byte's index. JSON's own syntax and the keys
looked for are ASCII; all other bytes are copied unread, so no trimmer minds what UTF-8 they make.
"""

import json
import re

from epsagon_fast.rows import NamedTuple

# Numbers are not needed as numbers, and int() refuses more than 4300 digits, which JSON allows.
_decoder = json.JSONDecoder(parse_int=str, parse_float=str)
_spaces = re.compile(r"[ \t\n\r]*")
_quote_or_bracket = re.compile(r'["\[\]{}]')


class Member(NamedTuple):
    """Where a member of an object lies: `"key": value` is text[start:end], its value text[value:end]."""

    key: str
    start: int
    value: int
    end: int


def root(text: str) -> int:
    """Return where a text's only value starts. Raises ValueError or IndexError if it is not JSON."""
    start = _spaces_end(text, 0)
    if _spaces_end(text, value_end(text, start)) != len(text):
        raise ValueError("bytes after the value")
    return start


def first(text: str, start: int | None, key: str) -> int | None:
    """Return where the value of an object's first member of that name starts; None without object or member."""
    if start is None or text[start] != "{":
        return None
    members, _ = members_of(text, start)
    return next((member.value for member in members if member.key == key), None)


def members_of(text: str, start: int) -> tuple[list[Member], int]:
    """Return the members of the object at `start`, and the index of its closing brace."""
    members: list[Member] = []
    at = _spaces_end(text, start + 1)
    while text[at] != "}":
        if members:
            at = _spaces_end(text, at + 1)
        key, key_end = _string(text, at)
        value = _spaces_end(text, _spaces_end(text, key_end) + 1)
        end = value_end(text, value)
        members.append(Member(key, at, value, end))
        at = _spaces_end(text, end)
    return members, at


def value_end(text: str, start: int) -> int:
    """Return the index behind the value that starts there."""
    try:
        return _decoder.raw_decode(text, start)[1]
    except RecursionError:
        return _nested_end(text, start)


def _spaces_end(text: str, at: int) -> int:
    spaces = _spaces.match(text, at)
    assert spaces is not None
    return spaces.end()


def _string(text: str, start: int) -> tuple[str, int]:
    if text[start] != '"':
        raise ValueError("a string was expected")
    string, end = _decoder.raw_decode(text, start)
    return string, end


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
