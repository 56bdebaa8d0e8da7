"""Hides the values of keys in texts of any form: JSON, JSON lines, forms, URLs, cookies, headers, XML, and prose.

A text says itself what it is. JSON is decoded, masked, and written again (compact, names sorted) only if something in
it was hidden; what stands around it stays. Everywhere else a name is what stands before `=`, before `:` or in a tag,
and pairs.py says how much of the rest may be its value. A text inside a text is treated alike: a string in JSON, or
what a URL encodes. Where a value's end cannot be known, the rest of the text is left out.
"""

import json
from collections.abc import Container
from typing import Any, Final

from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK

from .members import encoded, members_of, merged
from .pairs import NOT_SHOWN, Pairs, unquoted

# A byte order mark is no blank for Python, but may stand before JSON.
_SPACE: Final = " \t\r\n\ufeff"
# Texts inside texts.
_MOST_LEVELS: Final = 32
# Pieces of a text that begin like JSON and are none. Each is read to its end, so they must not be many.
_MOST_BROKEN: Final = 100
_DECODER: Final = json.JSONDecoder(object_pairs_hook=merged)
# Where a pair or JSON may begin. Brackets as in `user[0]` are none.
_BEGINNING: Final = pattern(r'[=:]|\{(?=\s*")|\[(?=\s*[\[{"])|<(?=\w)')
_USER: Final = pattern(r"(?<=://)[^\s/?#\"'<>\\]*@")
_BETWEEN_WORDS: Final = pattern(r"([\s&;='\"<>?,]+)")
_MAY_HOLD_NAMES: Final = pattern(r"%(?:25|3[ADEade]|[4-7])")
# The members of an object that is one name with its value.
_SAYS_NAME: Final = ("name", "key", "Name", "Key")
_SAYS_VALUE: Final = ("value", "Value")


class Texts:
    """Masks texts and decoded JSON by the names of one config."""

    def __init__(self, keys: Container[object]) -> None:
        self._keys = keys
        self._pairs = Pairs(keys)

    def text(self, text: str, level: int = 0) -> str:
        """Return a text masked; the same object if nothing in it is hidden. `level`: how many texts stand around it."""
        if not any(sign in text for sign in ":=[<%"):
            return text
        if level >= _MOST_LEVELS:
            return NOT_SHOWN
        stripped = text.strip(_SPACE)
        try:
            if stripped.startswith(("{", "[")):
                # The standard library's decoder keeps integers of any size.
                decoded = json.loads(stripped, object_pairs_hook=merged)
                return encoded(decoded) if self.nested(decoded, level) else text
        except json.JSONDecodeError:
            pass
        except (ValueError, RecursionError):
            # JSON that Python will not read (5000 digits, 1000 levels), so it cannot be searched.
            return NOT_SHOWN
        shown = self._mixed(self._unquoted(_USER.sub(f"{MASK}@", text), level), level)
        return text if shown == text else shown

    def nested(self, value: Any, level: int = 0) -> bool:
        """Mask decoded JSON in place; return whether anything changed."""
        changed = self._renamed(value, level) | self._named(value)
        for place, inner in members_of(value):
            if isinstance(value, dict) and place in self._keys:
                shown = MASK
            else:
                shown = self.text(inner, level + 1) if isinstance(inner, str) else inner
            if shown != inner:
                value[place] = shown
                changed = True
            else:
                changed |= self.nested(inner, level)
        return changed

    def _renamed(self, value: Any, level: int) -> bool:
        """Mask the names of an object as texts: what reads JSON as a form takes it for the name of a field."""
        if not isinstance(value, dict):
            return False
        pairs = [(self.text(name, level + 1), inner) for name, inner in value.items()]
        if all(shown in value for shown, _ in pairs):
            return False
        value.clear()
        value.update(merged(pairs))
        return True

    def _named(self, value: Any) -> bool:
        """Mask the value of a name if both stand in a list of two, or in members that say what they are."""
        name, place = _name_in(value)
        if name not in self._keys or value[place] == MASK:
            return False
        value[place] = MASK
        return True

    def _unquoted(self, text: str, level: int) -> str:
        """Return a text with what it encodes as URLs do masked."""
        if not _MAY_HOLD_NAMES.search(text):
            return text
        return "".join(self._word(word, level) if "%" in word else word for word in _BETWEEN_WORDS.split(text))

    def _word(self, word: str, level: int) -> str:
        plain = unquoted(word)
        masked = self.text(plain, level + 1)
        if masked == plain:
            return word
        from urllib.parse import quote_plus

        return quote_plus(masked, safe="*")

    def _mixed(self, text: str, level: int) -> str:
        """Mask pairs, tags, and JSON that stands between other words."""
        parts, copied, floor, broken = [], 0, 0, 0
        for found in _BEGINNING.finditer(text):
            at = found.start()
            if at < floor:
                continue
            if found[0] in "{[":
                value, end = _decoded(text, at) if broken < _MOST_BROKEN else (None, at)
                broken += end == at
                if end > at and self.nested(value, level):
                    parts += [text[copied:at], encoded(value)]
                    copied = end
                floor = max(floor, end)
                continue
            hidden = self._pairs.hidden(text, floor, at)
            floor = at + 1
            if hidden is not None:
                parts += [text[copied : hidden.start], hidden.shown]
                copied = floor = hidden.end
        return "".join([*parts, text[copied:]]) if parts else text


def _decoded(text: str, at: int) -> tuple[Any, int]:
    """Return the JSON that begins at a place of a text, and where it ends: at its beginning if it is none."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        return None, at
    except (ValueError, RecursionError):
        return [NOT_SHOWN], len(text)


def _name_in(value: Any) -> tuple[Any, Any]:
    if isinstance(value, list) and len(value) == 2:
        return value[0], 1
    if isinstance(value, dict) and len(value) <= 8:
        name = next((value[each] for each in _SAYS_NAME if each in value), None)
        return name, next((each for each in _SAYS_VALUE if each in value), None) if name is not None else None
    return None, None
