"""Hides the values of keys in texts of any form: JSON, JSON lines, forms, URLs, cookies, headers, XML, and prose.

A text says itself what it is. JSON is decoded, masked, and written again (compact, names sorted) only if something in
it was hidden; what stands around it stays. Everywhere else a name is what stands before `=`, before `:` or in a tag,
and pairs.py says how much of the rest may be its value. A text inside a text is treated alike: a string in JSON, or
what a URL encodes. Where a value's end cannot be known, the rest of the text is left out.
"""

import json
import re
from collections.abc import Iterable
from itertools import chain

from epsagon_fast.hints import Any, Final
from epsagon_fast.members import encoded, members_of, merged
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK

from .keys import Keys
from .pairs import NOT_SHOWN, Hidden, Pairs, unquoted
from .search import text_may_hold
from .statements import Statements, is_option
from .tags import Tags
from .users import without_users

# A byte order mark is no blank for Python, but may stand before JSON.
_SPACE: Final = " \t\r\n\ufeff"
# Texts inside texts.
_MOST_LEVELS: Final = 32
# How often a text's characters may be read in all, with all texts inside it, and how often in pieces that begin like
# JSON and are none. Each text has some more.
_MOST_READINGS: Final = 16
_MOST_BROKEN: Final = 4
_MORE: Final = 1 << 16
_DECODER: Final = json.JSONDecoder(object_pairs_hook=merged)
# How JSON ends, also when it is masked.
_ENDS_JSON: Final = ("}", "]", MASK, NOT_SHOWN)
# What may stand behind a name or hide it.
_SIGN: Final = pattern(r"[:=\[<%'(-]")
# Where a pair, JSON, a tag, a literal, a list of SQL or an option may begin. Brackets as in `user[0]` and `user["a"] =`
# are none, nor is a sign behind another one, nor the `::` of a cast.
_BEGINNING: Final = pattern(
    r"""(?<![=:&;,#{(])(?:=|:(?!:))|<(?=[\w>])|\{(?=\s*")|\[(?=\s*[\[{"])(?!"[^"\n]*+"\]\s*+[!<>~+|*^?]{0,3}=)|"(?=[\[{]\s*\\)"""
    r"""|(?<=[\s(])[a-zA-Z]?'|\(|(?<![^\n -,])-(?=-?[^\W\d_])"""
)
_BETWEEN_WORDS: Final = pattern(r"([\s&;='\"<>?,]+)")
# Characters of a name, a sign that is encoded, and a value.
_SHORTEST_WORD: Final = 5
_MAY_HOLD_NAMES: Final = pattern(r"%(?:2[257-9]|2[cd]|3[ade]|[4-7c-f])", re.IGNORECASE)
# The members of an object that is one name with its value. What pydantic found wrong has a place and an input instead.
_SAYS_NAME: Final = ("name", "key", "Name", "Key")
_SAYS_VALUE: Final = ("value", "Value")


class _Reading:
    """How many characters may still be read for one text."""

    def __init__(self, text: str) -> None:
        self.left = _MOST_READINGS * len(text) + _MORE


class _Lineless(str):
    """A text that has no lines for a decoder's error, which would count them from the beginning for each piece."""

    __slots__ = ()

    def count(self, *_: Any) -> int:
        return 0

    def rfind(self, *_: Any) -> int:
        return -1


class Texts:
    """Masks texts and decoded JSON by the names of one config."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._pairs = Pairs(keys)
        self._statements = Statements(keys)

    def text(self, text: str, level: int = 0, reading: _Reading | None = None) -> str:
        """Return a text masked; the same object if nothing in it is hidden.

        `level`: how many texts stand around it. `reading`: that of the outermost one.
        """
        if not _SIGN.search(text):
            return text
        if not self._may_hold(text):
            return text
        reading = reading or _Reading(text)
        reading.left -= len(text)
        if level >= _MOST_LEVELS or reading.left < 0:
            return NOT_SHOWN
        stripped = text.strip(_SPACE)
        try:
            if stripped.startswith(("{", "[", '"')):
                # The standard library's decoder keeps integers of any size.
                changed, decoded = self._masked(json.loads(stripped, object_pairs_hook=merged), level, reading)
                return encoded(decoded) if changed else text
        except json.JSONDecodeError:
            pass
        except (ValueError, RecursionError):
            # JSON that Python will not read (5000 digits, 1000 levels), so it cannot be searched.
            return NOT_SHOWN
        shown = self._unquoted(without_users(text), level, reading)
        shown = self._mixed(self._statements.passed(shown), level, reading)
        return text if shown == text else shown

    def _may_hold(self, text: str) -> bool:
        return self._keys.fragments is None or text_may_hold(self._keys.fragments, text)

    def _masked(self, value: Any, level: int, reading: _Reading) -> tuple[bool, Any]:
        """Return decoded JSON masked, and whether anything changed. It may be a text, which may hold more JSON."""
        if isinstance(value, str):
            shown = self.text(value, level + 1, reading)
            return shown != value, shown
        return self.nested(value, level, reading), value

    def nested(self, value: Any, level: int = 0, reading: _Reading | None = None) -> bool:
        """Mask decoded JSON in place; return whether anything changed."""
        changed = self._renamed(value, level, reading) | self._named(value)
        is_value = False
        for place, inner in members_of(value):
            if is_value or (isinstance(value, dict) and place in self._keys):
                shown = MASK
            else:
                shown = self.text(inner, level + 1, reading) if isinstance(inner, str) else inner
            is_value = isinstance(value, list) and is_option(inner) and not is_value and inner.strip("-") in self._keys
            is_value = is_value and not is_option(value[place + 1] if place + 1 < len(value) else "-")
            if shown != inner:
                value[place] = shown
                changed = True
            else:
                changed |= self.nested(inner, level, reading)
        return changed

    def _renamed(self, value: Any, level: int, reading: _Reading | None) -> bool:
        """Mask the names of an object as texts: what reads JSON as a form takes it for the name of a field."""
        if not isinstance(value, dict):
            return False
        pairs = [(self.text(name, level + 1, reading), inner) for name, inner in value.items()]
        if all(shown in value for shown, _ in pairs):
            return False
        value.clear()
        value.update(merged(pairs))
        return True

    def _named(self, value: Any) -> bool:
        """Mask the value of a name if both stand in a list of two, or in members that say what they are."""
        names, places = _names_in(value)
        if not any(name in self._keys for name in names):
            return False
        shown = [place for place in places if value[place] != MASK]
        for place in shown:
            value[place] = MASK
        return bool(shown)

    def _unquoted(self, text: str, level: int, reading: _Reading) -> str:
        """Return a text with what it encodes as URLs do masked."""
        if not _MAY_HOLD_NAMES.search(text):
            return text
        words = _BETWEEN_WORDS.split(text)
        return "".join(
            self._word(word, level, reading) if "%" in word and len(word) >= _SHORTEST_WORD else word for word in words
        )

    def _word(self, word: str, level: int, reading: _Reading) -> str:
        plain = unquoted(word)
        masked = self.text(plain, level + 1, reading)
        if masked == plain:
            return word
        from urllib.parse import quote_plus

        return quote_plus(masked, safe="*")

    def _mixed(self, text: str, level: int, reading: _Reading) -> str:
        """Mask pairs, tags, literals, options, and JSON that stands between other words."""
        parts: list[str] = []
        copied = floor = 0
        tags = Tags(self._keys, text)
        broken = _MOST_BROKEN * len(text) + _MORE
        lineless: str | None = None
        for found in _BEGINNING.finditer(text):
            at = found.start()
            if at < floor:
                continue
            if found[0] in '{["':
                lineless = lineless or _Lineless(text)
                value, end, length = _decoded(lineless, at) if broken > 0 else (None, len(text), 0)
                broken -= length
                changed, value = self._masked(value, level, reading)
                if end > at and (value is None or changed):
                    parts += [text[copied:at], NOT_SHOWN if value is None else encoded(value)]
                    copied = end
                floor = max(floor, end)
                continue
            spans = self._hidden(text, floor, found, tags)
            if found[0] in "=:":
                floor = at + 1
            for hidden in spans:
                if hidden.start >= copied and text[hidden.start : hidden.end].strip():
                    parts += [text[copied : hidden.start], hidden.shown]
                    copied = floor = hidden.end
        return "".join([*parts, text[copied:]]) if parts else text

    def _hidden(self, text: str, floor: int, found: re.Match[str], tags: Tags) -> Iterable[Hidden]:
        """Return what is hidden behind a place where a name may have ended."""
        at, sign = found.start(), found[0]
        if sign == "(":
            return self._statements.listed(text, floor, at)
        if sign == "-":
            return self._statements.option(text, at)
        if sign == "<" and not text.startswith("<>", at):
            return tags.hidden(at)
        if sign.endswith("'"):
            return self._statements.literal(text, floor, found.end() - 1)
        pairs = self._pairs.hidden(text, floor, at)
        return chain(pairs, self._statements.detail(text, floor, at)) if sign == "=" else pairs


def _decoded(text: str, at: int) -> tuple[Any, int, int]:
    """Return the JSON that begins at a place of a text, its end, and how much was read in vain.

    It ends where it begins if it is none, and nowhere if Python will not read it: 5000 digits, 1000 levels.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        return None, at, max(error.pos - at, 0) + 100
    except (ValueError, RecursionError):
        return None, len(text), 0
    # The quote at the end of another text is no beginning of JSON in a text.
    return (value, end, 0) if not isinstance(value, str) or value.endswith(_ENDS_JSON) else (None, at, end - at)


def _names_in(value: Any) -> tuple[list[Any], list[Any]]:
    """Return the names that an array of two or an object says, and where their values stand: nowhere if it has none."""
    if isinstance(value, list) and len(value) == 2:
        return value[:1], [1]
    if isinstance(value, dict) and len(value) <= 8:
        located = value.get("loc")
        if isinstance(located, list) and "input" in value:
            return located, ["input"]
        name = next((value[each] for each in _SAYS_NAME if each in value), None)
        return [name], [each for each in _SAYS_VALUE if each in value]
    return [], []
