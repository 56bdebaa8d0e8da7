"""Hides what a user never wants to leave the machine: the values of ignored keys in metadata and labels.

As in the seed: key names match exactly, the value becomes `****`, and a metadata string that holds a JSON object or
array is decoded once, masked at any depth, and written again (compact, keys sorted) only if something in it was masked.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

from epsagon_fast.protocol import MASK

# Characters that JSON may write in more than one way without \u: a byte search could miss a key that has one.
_SHORT_ESCAPES = re.compile(r'["\\/\x00-\x1f]')
_JSON_SPACE = " \t\n\r"


class Mask:
    """The ignored keys of one config. Without keys it changes nothing.

    Every method leaves what is masked already as it is, so a replayed record may pass through again.
    """

    def __init__(self, ignored_keys: Iterable[str]) -> None:
        self._keys = frozenset(ignored_keys)
        searchable = not any(map(_SHORT_ESCAPES.search, self._keys))
        # A key follows a quote, in the event itself (`"key`) as in a JSON string inside it (`\"key`).
        # The empty needle is in every event.
        self._needles = [b'"' + key.encode("utf-8", "replace") for key in self._keys] if searchable else [b""]
        # Only \u can still hide a key; for ASCII keys and their quotes, only escapes of ASCII.
        ascii_only = all(map(str.isascii, self._keys))
        self._hidden = re.compile(rb"\\u00[2-7]" if ascii_only else rb"\\u")

    def __bool__(self) -> bool:
        return bool(self._keys)

    def event(self, event: bytes) -> bytes:
        """Return an event's JSON with its metadata masked; the same object if nothing had to be.

        Raises ValueError if it had to be read and is not JSON.
        """
        if not self._keys or not self._may_hold_key(event):
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
        """Return what may be shown of a metadata value or a label; the same object if that is all of it."""
        if key in self._keys:
            return MASK
        if isinstance(value, str) and value.lstrip(_JSON_SPACE).startswith(("{", "[")):
            return self._text(value)
        return value

    def _may_hold_key(self, event: bytes) -> bool:
        for needle in self._needles:
            if needle in event:
                return True
        # A single byte is found many times faster than two.
        return b"\\" in event and self._hidden.search(event) is not None

    def _text(self, text: str) -> str:
        try:
            # The standard library's decoder keeps integers of any size.
            decoded = json.loads(text)
            return _encode(decoded) if self._nested(decoded) else text
        except json.JSONDecodeError:
            return text
        except (ValueError, RecursionError):
            # JSON that Python will not read (5000 digits, 1000 levels): what cannot be searched is not shown.
            return MASK

    def _nested(self, value: Any) -> bool:
        changed = False
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in self._keys:
                    changed |= inner != MASK
                    value[key] = MASK
                else:
                    changed |= self._nested(inner)
        elif isinstance(value, list):
            for inner in value:
                changed |= self._nested(inner)
        return changed


def _encode(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        # Integers over 64 bits and lone surrogates. ASCII, so that whatever it holds can be encoded once more.
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
