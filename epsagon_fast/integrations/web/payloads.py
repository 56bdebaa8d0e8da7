"""What clients send, for `metadata_only=False`: query, headers and the first bytes of bodies, as metadata.

It is masked here, because clients write names in their own way: `API-Key` is `api_key`. Masking looks into JSON, so the
values are written as JSON. If `ignored_keys` are set, a value that cannot be JSON is left out: a part of a body, or a
text of another kind, could hold one of the keys where masking does not find it.
"""

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from epsagon_fast.masking import LooseNames, Mask, merged
from epsagon_fast.producer.encoding import metadata_text
from epsagon_fast.protocol import MASK

# How many bytes of a body are kept.
MAX_BODY_BYTES: Final = 1024
# Headers that are always masked.
SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
FORM: Final = "application/x-www-form-urlencoded"
# A name and a value as browsers encode them and as people write them by hand. Another text that calls itself a form
# (XML, YAML) could hold an ignored key that is no field's name.
_FIELD: Final = r"[\w.~*+%\[\]-]+=[\w.~*+%\[\]!'(),/:@$?=-]*"
_FORM_TEXT: Final = re.compile(f"{_FIELD}(?:&{_FIELD})*", re.ASCII)


class Payload:
    """The size of a body, and its beginning if that is wanted."""

    def __init__(self, keep: bool) -> None:
        self.size_bytes = 0
        self._left_bytes = MAX_BODY_BYTES if keep else 0
        self._parts: list[bytes] = []

    def add(self, data: bytes) -> None:
        """Take note of a piece."""
        self.size_bytes += len(data)
        if self._left_bytes > 0 and data:
            self._parts.append(bytes(data[: self._left_bytes]))
            self._left_bytes -= len(data)

    def text(self, content_type: str, ignored_keys: Iterable[str]) -> str:
        """Return the part of the body that may be recorded."""
        data = b"".join(self._parts)
        whole = self.size_bytes == len(data)
        # The last character may have been cut in two.
        text = data.decode("utf-8", "replace" if whole else "ignore")
        # The content decides before the content type, because `curl -d` calls everything a form.
        if whole and _is_json(text):
            return _masked(text, ignored_keys)
        is_form = content_type.partition(";")[0].strip().lower() == FORM
        if whole and is_form and (not ignored_keys or _FORM_TEXT.fullmatch(text)):
            return query(text, ignored_keys)
        return f"<{self.size_bytes} bytes>" if ignored_keys and text else text


def headers(pairs: Iterable[tuple[str, str]], ignored_keys: Iterable[str]) -> str:
    """Return headers as a JSON object of lower-case names; values of secret and ignored names are masked."""
    hidden = LooseNames((*SECRET_HEADERS, *ignored_keys))
    shown: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        value = MASK if name in hidden else value
        shown[name] = f"{shown[name]}, {value}" if name in shown else value
    return _masked(metadata_text(shown), ignored_keys)


def query(text: str, ignored_keys: Iterable[str] = ()) -> str:
    """Return a query string or a form as a JSON object; the values of a name that comes twice are a list."""
    return _masked(metadata_text(merged(parse_qsl(text, keep_blank_values=True))), ignored_keys)


def _masked(text: str, ignored_keys: Iterable[str]) -> str:
    keys = tuple(ignored_keys)
    return _mask(keys).text(text) if keys else text


# All requests with the same config share one mask.
@lru_cache(maxsize=16)
def _mask(ignored_keys: tuple[str, ...]) -> Mask:
    return Mask(ignored_keys, loosely=True)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
