"""Hides the values of ignored keys in metadata and labels, so that they never leave the machine.

A key's name must match exactly, and its value becomes `****`, as in epsagon-go (docs/parity.md). A string that holds a
JSON object or array is decoded, masked at any depth, and written again (compact, keys sorted) only if something in it
was masked. The same is done to a string inside it: a form's field, a message or an argument may be JSON in JSON.

Both sides of the queue mask. A worker that has to cut an event hides its secrets first, because the collector could not
find a key in half a text.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

from epsagon_fast.protocol import MASK

# Characters that JSON may write in more than one way without \u. A byte search could miss a key that has one of them.
_SHORT_ESCAPES = re.compile(r'["\\/\x00-\x1f]')
_JSON_SPACE = " \t\n\r"
_SEPARATORS = str.maketrans("", "", "-_ ")


class LooseNames(frozenset[str]):
    """A set of names that ignores case, dashes, underscores and spaces."""

    def __new__(cls, names: Iterable[str]) -> "LooseNames":
        return super().__new__(cls, map(_loose, names))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(_loose(name))


class Mask:
    """Masks by the ignored keys of one config. Without keys it changes nothing.

    `loosely`: names match without regard to case, dashes, underscores and spaces. This is for what clients send, since
    they write names in their own way.

    Masking twice changes nothing more, so a record that the journal replays may pass through again.
    """

    def __init__(self, ignored_keys: Iterable[str], *, loosely: bool = False) -> None:
        self._keys = LooseNames(ignored_keys) if loosely else frozenset(ignored_keys)
        searchable = not loosely and not any(map(_SHORT_ESCAPES.search, self._keys))
        # A key follows a quote, in the event itself (`"key`) and in a JSON string inside it (`\"key`).
        # The empty needle is found in every event, so every event is then decoded.
        self._needles = [b'"' + key.encode("utf-8", "replace") for key in self._keys] if searchable else [b""]
        # Only a \u escape can still hide a key. Of ASCII keys and their quotes only an escape of ASCII can.
        ascii_only = all(map(str.isascii, self._keys))
        self._hidden = re.compile(rb"\\u00[2-7]" if ascii_only else rb"\\u")

    def __bool__(self) -> bool:
        return bool(self._keys)

    def event(self, event: bytes) -> bytes:
        """Return an event's JSON with its metadata masked; the same object if nothing had to be.

        Raises ValueError if it had to be read and is not JSON.
        """
        if not self.may_change(event):
            return event
        decoded = orjson.loads(event)
        return orjson.dumps(decoded) if self.runner(decoded) else event

    def runner(self, event: Any) -> bool:
        """Mask a decoded event, whole or partial, in place; return whether anything changed."""
        resource = event.get("resource") if isinstance(event, dict) else None
        metadata = resource.get("metadata") if isinstance(resource, dict) else None
        return self.metadata(metadata) if isinstance(metadata, dict) else False

    def metadata(self, metadata: dict[str, Any]) -> bool:
        """Mask metadata in place; return whether anything changed."""
        changed = False
        for key, value in metadata.items():
            masked = self.value(key, value)
            if masked != value:
                metadata[key] = masked
                changed = True
            elif isinstance(value, dict | list):
                changed |= self._nested(value)
        return changed

    def value(self, key: str, value: Any) -> Any:
        """Return a metadata value or a label masked; the same object if nothing in it is secret."""
        if key in self._keys:
            return MASK
        return self.text(value) if isinstance(value, str) else value

    def may_change(self, event: bytes) -> bool:
        """Return whether an event's JSON must be read to know whether something in it is secret."""
        return bool(self._keys) and self._may_hold_key(event)

    def _may_hold_key(self, event: bytes) -> bool:
        for needle in self._needles:
            if needle in event:
                return True
        # A single byte is found many times faster than two.
        return b"\\" in event and self._hidden.search(event) is not None

    def text(self, text: str) -> str:
        """Return a text masked, which may be JSON; the same object if nothing in it is secret."""
        if not text.lstrip(_JSON_SPACE).startswith(("{", "[")):
            return text
        try:
            # The standard library's decoder keeps integers of any size. For a name that comes twice it keeps one value,
            # but the text holds both, so `merged` collects them.
            decoded = json.loads(text, object_pairs_hook=merged)
            return _encode(decoded) if self._nested(decoded) else text
        except json.JSONDecodeError:
            return text
        except (ValueError, RecursionError):
            # JSON that Python will not read (5000 digits, 1000 levels). It cannot be searched, so it is hidden whole.
            return MASK

    def _nested(self, value: Any) -> bool:
        changed = False
        for key, inner in _members(value):
            if isinstance(value, dict) and key in self._keys:
                shown: Any = MASK
            else:
                shown = self.text(inner) if isinstance(inner, str) else inner
            if shown != inner:
                value[key] = shown
                changed = True
            else:
                changed |= self._nested(inner)
        return changed


def _loose(name: str) -> str:
    return name.translate(_SEPARATORS).casefold()


def merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dict; the values of a key that comes twice are a list, so that masking sees them all."""
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    lists: dict[str, list[Any]] = {}
    for key, value in pairs:
        lists.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in lists.items()}


def _members(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _encode(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        # An integer over 64 bits or a lone surrogate. ASCII output, so that the result can always be encoded to UTF-8.
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
