"""Any Python value as valid JSON in valid UTF-8, without ever raising into the application.

orjson does the work where it can. What it refuses (cycles, deep nesting, ints over 64 bits, lone surrogates, keys that
are no strings) is walked in Python, within bounds: a graph of objects that name each other has more paths than atoms.
"""

import json
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import orjson

# Stands for what was cut: too deep, too much, or a value inside itself.
CUT = "..."
MAX_DEPTH = 100
# More does not fit into a trace, and walking it would hold up the application for tens of milliseconds.
MAX_VALUES = 10_000


def clean(text: str) -> str:
    """Return `text` as an exact str that UTF-8 can encode: each lone surrogate becomes U+FFFD, pairs are joined."""
    # A subclass may override every method that is used here.
    text = str.__str__(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def printed(value: object) -> str:
    """Return what `value` says of itself by str, repr, or at least its type and address."""
    for show in (str, repr, object.__repr__):
        try:
            return clean(show(value))
        except Exception:
            # The application's own __str__ failed. It is not for a tracer to say so by raising.
            continue
    return "<unprintable>"


def json_bytes(value: object) -> bytes:
    """Return `value` as JSON; what JSON lacks becomes a string, NaN and infinities null."""
    try:
        return orjson.dumps(value, _in_words_of_json, orjson.OPT_NON_STR_KEYS)
    except Exception:
        return _walked(value)


def metadata_text(value: Any) -> str:
    """Return a metadata value: a string as it is, another value as its JSON text.

    What is a string in JSON (a UUID, a date, bytes) comes without the quotes.
    """
    # isinstance would ask the object for its __class__, which may fail.
    if issubclass(type(value), str):
        return clean(value)
    text = json_bytes(value)
    if text.startswith(b'"'):
        return str(json.loads(text))
    return text.decode()


def _in_words_of_json(value: Any) -> Any:
    """Return something nearer to JSON than `value`, which orjson does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    # Iterators and generators are not touched: the application wants to consume them itself.
    if isinstance(value, (set, frozenset, deque)):
        return list(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    return printed(value)


def _walked(value: object) -> bytes:
    try:
        text = json.dumps(_Walk().plain(value), ensure_ascii=False, separators=(",", ":"))
        return text.encode()
    except Exception:
        # Only near the interpreter's recursion limit, or out of memory.
        return orjson.dumps(CUT)


class _Walk:
    """One walk over a value: how much it may still visit, and the containers it is in."""

    def __init__(self) -> None:
        self._left = MAX_VALUES
        self._inside: list[int] = []

    def plain(self, value: Any) -> Any:
        """Return `value` in dicts, lists and scalars that the standard library's encoder takes."""
        self._left -= 1
        if self._left < 0:
            return CUT
        try:
            return self._scalar_or_container(value)
        except Exception:
            return printed(value)

    def _scalar_or_container(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, int):
            return _exact(value)
        if isinstance(value, float):
            return float.__float__(value) if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return self._within(value, self._members, value.items())
        if isinstance(value, (list, tuple, set, frozenset, deque)):
            return self._within(value, self._elements, value)
        if is_dataclass(value) and not isinstance(value, type):
            return self._within(value, self._members, ((f.name, getattr(value, f.name)) for f in fields(value)))
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _in_words_of_json(value)
        # orjson knows dates, UUIDs and enums.
        return orjson.loads(orjson.dumps(value, printed))

    def _within(self, container: Any, copy: Any, content: Any) -> Any:
        if len(self._inside) >= MAX_DEPTH or id(container) in self._inside:
            return CUT
        self._inside.append(id(container))
        try:
            return copy(content)
        finally:
            self._inside.pop()

    def _members(self, items: Any) -> dict[str, Any]:
        members = {}
        for key, value in items:
            if self._left <= 0:
                members[CUT] = CUT
                break
            members[metadata_text(key)] = self.plain(value)
        return members

    def _elements(self, values: Any) -> list[Any]:
        elements = []
        for value in values:
            elements.append(self.plain(value))
            if self._left <= 0:
                break
        return elements


def _exact(value: int) -> int | str:
    value = int.__index__(value)
    try:
        str(value)
    except ValueError:
        # Over the interpreter's limit of decimal digits (sys.set_int_max_str_digits).
        return hex(value)
    return value
