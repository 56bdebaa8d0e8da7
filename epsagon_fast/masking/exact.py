"""Masks metadata and labels as epsagon-go does (docs/parity.md), for `masking="exact"`.

A key's name must match exactly, and its value becomes `****`. A string that holds a JSON object or array is decoded,
masked, and written again (compact, keys sorted) only if something in it was masked. A string inside that is not looked
into.
"""

import json
import re
from collections.abc import Iterable

import orjson

from epsagon_fast.hints import Any
from epsagon_fast.members import encoded, members_of, merged
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK

# Characters that JSON may write in more than one way without \u. A byte search could miss a key that has one of them.
_SHORT_ESCAPES = pattern(r'["\\/\x00-\x1f]')
_JSON_SPACE = " \t\n\r"


class ExactMask:
    """Masks by the ignored keys of one config. Without keys it changes nothing.

    Masking twice changes nothing more, so a record that the journal replays may pass through again.
    """

    def __init__(self, ignored_keys: Iterable[str]) -> None:
        self._keys = frozenset(ignored_keys)
        searchable = not any(map(_SHORT_ESCAPES.search, self._keys))
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

    def exception(self, exception: bytes) -> bytes:
        """Return the exception as it is."""
        return exception

    def runner(self, event: Any) -> bool:
        """Mask a decoded event, whole or partial, in place; return whether anything changed."""
        resource = event.get("resource") if isinstance(event, dict) else None
        metadata = resource.get("metadata") if isinstance(resource, dict) else None
        return self.metadata(metadata) if isinstance(metadata, dict) else False

    def metadata(self, metadata: dict[str, Any]) -> bool:
        """Mask metadata in place; return whether anything changed."""
        changed = False
        for key, value in metadata.items():
            _, masked = self.label(key, value)
            if masked != value:
                metadata[key] = masked
                changed = True
            elif isinstance(value, dict | list):
                changed |= self._nested(value)
        return changed

    def label(self, key: str, value: Any) -> tuple[str, Any]:
        """Return a label, or a member of metadata, masked; the same objects if nothing in it is secret."""
        if key in self._keys:
            return key, MASK
        return key, self.text(value) if isinstance(value, str) else value

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
            return encoded(decoded) if self._nested(decoded) else text
        except json.JSONDecodeError:
            return text
        except (ValueError, RecursionError):
            # JSON that Python will not read (5000 digits, 1000 levels). It cannot be searched, so it is hidden whole.
            return MASK

    def _nested(self, value: Any) -> bool:
        changed = False
        for key, inner in members_of(value):
            if not isinstance(value, dict) or key not in self._keys:
                changed |= self._nested(inner)
            elif inner != MASK:
                value[key] = MASK
                changed = True
        return changed
