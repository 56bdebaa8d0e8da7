"""What clients send, for `metadata_only=False`: query, headers and the first bytes of bodies, as metadata.

It is masked here, since the collector sees the texts only: what a body is called, and whether it is whole, is known
here. A text of a kind that masking does not know is left out if a key stands anywhere in it.
"""

import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl

from epsagon_fast.masking import LooseMask
from epsagon_fast.members import merged
from epsagon_fast.producer.encoding import metadata_text

# How many bytes of a body are kept.
MAX_BODY_BYTES: Final = 1024
# Headers that are always masked.
_SECRET_HEADERS: Final = LooseMask(("authorization", "proxy-authorization", "cookie", "set-cookie"))
BOM: Final = "\ufeff"
FORM: Final = "application/x-www-form-urlencoded"
# A field as browsers and people write it. Another text that calls itself a form has blanks, tags or several lines.
_FORM_TEXT: Final = re.compile(r"[^\s=&;<>{}]*=[^\r\n<>{}]*")
_BETWEEN_PAIRS: Final = re.compile(r";(?=[^&;=]+=)")


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

    def text(self, content_type: str, mask: LooseMask) -> str:
        """Return the part of the body that may be recorded."""
        data = b"".join(self._parts)
        whole = self.size_bytes == len(data)
        # The last character may have been cut in two.
        text = data.decode("utf-8", "replace" if whole else "ignore")
        # The content decides before the content type, because `curl -d` calls everything a form.
        if whole and _is_json(text):
            return mask.text(text)
        is_form = content_type.partition(";")[0].strip().lower() == FORM
        if whole and is_form and _FORM_TEXT.fullmatch(text):
            return query(text, mask)
        # UTF-16 and UTF-32 have a NUL beside each letter of a name. Some clients send JSON so; json.loads() reads it.
        hides = mask.may_mean_key(text.replace("\0", ""))
        return f"(not shown: {self.size_bytes} bytes that may hold a secret)" if hides else text


def headers(pairs: Iterable[tuple[str, str]], mask: LooseMask) -> str:
    """Return headers as a JSON object of lower-case names; values of secret and ignored names are masked."""
    shown: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        _, value = _SECRET_HEADERS.label(name, value)
        shown[name] = f"{shown[name]}, {value}" if name in shown else value
    return mask.text(metadata_text(shown))


def query(text: str, mask: LooseMask) -> str:
    """Return a query string or a form as a JSON object; the values of a name that comes twice are a list."""
    # Some clients write `;` between pairs, but it may also stand in a value.
    pairs = parse_qsl(_BETWEEN_PAIRS.sub("&", text), keep_blank_values=True)
    return mask.text(metadata_text(merged(pairs)))


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text.lstrip(BOM)), dict | list)
    except (ValueError, RecursionError):
        return False
