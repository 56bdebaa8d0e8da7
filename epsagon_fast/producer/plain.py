"""Any Python value as valid JSON in valid UTF-8, without ever raising into the application.

orjson does the work where it can: on dicts, lists and scalars, not too many. What it refuses (cycles, deep nesting, big
ints, lone surrogates) or would follow for ever is walked in Python, within bounds: objects that name each other in many
ways have more paths than there are atoms.
"""

import codecs
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
_SCALARS = frozenset({str, int, float, bool, type(None)})
# No iterators and generators: the application wants to consume those itself.
_ROWS = (list, tuple, set, frozenset, deque)


def clean(text: str) -> str:
    """Return `text` as an exact str that UTF-8 can encode: each lone surrogate becomes U+FFFD, pairs are joined."""
    # A subclass may override every method that is used here.
    text = str.__str__(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        # By the functions and not by the codec's name, which would import the codec: see queue/folder.py.
        pairs, _ = codecs.utf_16_le_encode(text, "surrogatepass")
        return codecs.utf_16_le_decode(pairs, "replace", True)[0]
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
        if _is_for_orjson(value):
            return orjson.dumps(value, _in_words_of_json, orjson.OPT_NON_STR_KEYS)
    except Exception:
        return _walked(value)
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


def _is_for_orjson(value: Any) -> bool:
    """Say whether `value` is made of dicts, lists and what is no container, and of no more than MAX_VALUES of them."""
    left = MAX_VALUES
    pending = [value]
    while pending:
        value = pending.pop()
        if type(value) in _SCALARS:
            continue
        if isinstance(value, dict):
            content: Any = value.values()
        elif isinstance(value, (list, tuple)):
            content = value
        elif isinstance(value, (Mapping, *_ROWS)) or is_dataclass(value):
            return False
        else:
            continue
        left -= len(content)
        if left < 0:
            return False
        pending.extend(content)
    return True


def _in_words_of_json(value: Any) -> Any:
    """Return a scalar of JSON for one that orjson does not know."""
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
        if isinstance(value, _ROWS):
            return self._within(value, self._elements, value)
        if is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in fields(value) if not field.name.startswith("_")]
            return self._within(value, self._members, ((name, getattr(value, name)) for name in names))
        # orjson knows dates, UUIDs and enums.
        return orjson.loads(orjson.dumps(value, _in_words_of_json))

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
