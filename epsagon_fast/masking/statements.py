"""Finds literals in SQL that belong to a column, and the values of options in command lines: no sign stands between."""

import re
from collections.abc import Container, Iterator

from epsagon_fast.hints import Final
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK

from .pairs import CAST, NOT_SHOWN, PLACEHOLDER, Hidden, backwards, bracketed, closing, literal

# Read from the end, as names are.
_OPERATOR: Final = pattern(
    r"[a-z]?\s*+\(?\s*+"
    r"(?:(?:ekil|ekili|ekilr|pxeger|bolg|hctam|neewteb|morf\s++tcnitsid|ot\s++ralimis|sa|yb)\s++(?:(?:ton|si)\s++)*+"
    rf"|[!<>~*]{{0,3}}\s*+)(?:{CAST})?"
    r"""["'`\]]?([\w.-]++)(?:\s++([\w-]++))?""",
    re.IGNORECASE,
)
_IDENTIFIED: Final = pattern(r"\s*+(?:yb|sa)\s++(?:\S++\s++htiw\s++)?deifitnedi\b", re.IGNORECASE)
# `PASSWORD FOR 'user'@'host'`, read from the end. A user without quotes is a word of the name before the sign.
_PASSWORD_FOR: Final = pattern(r"""\s*+["'`]\S*+\s++rof\s++drowssap\b""", re.IGNORECASE)
_SET_TO: Final = pattern(r"""=\s*+(["'])""")
# Python's tuple or list of two, read from the end. What a call or IN has in its brackets is none.
_FIRST: Final = pattern(r"[a-z]?\s*+,\s*+'([^'\\\r\n]++)'[a-z]?[(\[](?![\w)\]]|\s*+ni\b)", re.IGNORECASE)
_END_OF_TWO: Final = pattern(r"'\s*+[)\]]")
_IN: Final = pattern(r"""\s*+ni\s++(?:ton\s++)?["'`\]]?([\w.]++)""", re.IGNORECASE)
_VALUES: Final = pattern(r"\s*+s?eulav\b", re.IGNORECASE)
# Characters of a list of columns, and between it and its values.
_MOST_NAMES: Final = 8192
_MOST_BETWEEN: Final = 64
_BETWEEN: Final = pattern(r"'\s*+and\s++[a-z]?'", re.IGNORECASE)
_STRING: Final = r"'(?:[^'\\]++|'')*+'"
_VALUE: Final = pattern(
    rf"""\s*+((?:{_STRING}|"[^"\\]*+"|\((?:[^()'"\\]++|{_STRING}|"[^"\\]*+")*+\)|[^,()'"\\]++)*+)([,)])"""
)
_NOTHING: Final = pattern(rf"{PLACEHOLDER}|[:@]\w+|", re.IGNORECASE)
_NEXT_ROW: Final = pattern(r"\s*+,\s*+\(")
# Postgres says so which value is there already.
_DETAIL: Final = pattern(r"\s*+\)((?:[^()=]++|\)[^()=]*+\()*+)\(")
_LITERAL: Final = pattern(r"=\s*+(?:[a-zA-Z]?'|\w++\((?=[^\r\n]{0,256}'))")
_NAMES: Final = pattern(r"[,()]|::|\.(?=[\"'`])|\s++as\s++", re.IGNORECASE)
_TO_BRACKET: Final = pattern(r"\s*+=\s*+\(([^\r\n]*)\)")
_CUT_OFF: Final = pattern(r"\s*+=\s*+\(")
# SQLAlchemy shows a statement and what was passed beside it.
_PASSED: Final = pattern(r"\[(SQL|parameters): ")
_WORD: Final = pattern(r"[\w-]+")
# An option. The words `--` and `-` are none.
_OPTION: Final = pattern(
    r"""(--?[^\W\d_][\w.-]*+)(?<!\.)(?:\s*+["']\s*+,\s*+[a-z]?(["'])|\s++(\\*["'])|[^\S\r\n]++)(?!-)"""
)
_ARGUMENT: Final = pattern(r"\S*+")


class Statements:
    """Finds what belongs to the names of one config in SQL and in command lines."""

    def __init__(self, keys: Container[object]) -> None:
        self._keys = keys

    def literal(self, text: str, floor: int, at: int) -> Iterator[Hidden]:
        """Yield what the quote at `at` begins."""
        before = backwards(text, floor, at)
        found = _OPERATOR.match(before)
        is_named = found is not None and self._is_column(found[1], found[2])
        if not is_named and not ("password" in self._keys and _IDENTIFIED.match(before)):
            yield from self._second(text, at)
            return
        end = literal(text, at + 1, "'")
        if both := _BETWEEN.match(text, end):
            end = closing(text, both.end(), "'")
        yield Hidden(at + 1, end)

    def _second(self, text: str, at: int) -> Iterator[Hidden]:
        """Yield the literal at `at` if it is the second of two in brackets, and the first is a key."""
        first = _FIRST.match(backwards(text, 0, at))
        if first and first[1][::-1] in self._keys:
            end = closing(text, at + 1, "'")
            if _END_OF_TWO.match(text, end):
                yield Hidden(at + 1, end)

    def _is_column(self, last: str, before: str | None) -> bool:
        last, before = last[::-1], (before or "")[::-1]
        # What parsers say about what they read.
        if before.lower().endswith("expected"):
            return False
        if last in self._keys or last.rpartition(".")[2] in self._keys:
            return True
        return before not in self._keys and f"{before} {last}" in self._keys

    def listed(self, text: str, floor: int, at: int) -> Iterator[Hidden]:
        """Yield what is hidden in the brackets that open at `at`, behind IN or VALUES."""
        before = backwards(text, floor, at)
        if (found := _IN.match(before)) and self._is_column(found[1], None):
            hidden = bracketed(text, at)
            if not all(_NOTHING.fullmatch(each.strip()) for each in text[at + 1 : hidden.end - 1].split(",")):
                yield hidden
        elif found := _VALUES.match(before):
            names = _columns(text, at - found.end())
            secret = [place for place, name in enumerate(names) if name in self._keys]
            if secret:
                yield from _rows(text, at, secret)

    def detail(self, text: str, floor: int, at: int) -> Iterator[Hidden]:
        """Yield the values behind the sign at `at`, before which their names stand in brackets, or in a call."""
        before = backwards(text, floor, at)
        if _PASSWORD_FOR.match(before) and "password" in self._keys and (quote := _SET_TO.match(text, at)):
            yield Hidden(quote.end(), literal(text, quote.end(), quote[1]))
        found = _DETAIL.match(before)
        if not found or not any(name.strip(" \"'`") in self._keys for name in _NAMES.split(found[1][::-1])):
            return
        if values := _TO_BRACKET.match(text, at):
            if not text.startswith((NOT_SHOWN, f"({MASK})"), values.start(1) - 1):
                yield Hidden(*values.span(1))
        elif cut := _CUT_OFF.match(text, at):
            yield Hidden(cut.end() - 1, len(text), NOT_SHOWN)
        elif found := _LITERAL.match(text, at):
            end = found.end()
            yield Hidden(end, closing(text, end, "'")) if text[end - 1] == "'" else bracketed(text, end - 1)

    def option(self, text: str, at: int) -> Iterator[Hidden]:
        """Yield the value of the option at `at`."""
        found = _OPTION.match(text, at)
        if found is None or found[1].strip("-") not in self._keys:
            return
        quote = found[2] or found[3]
        end = closing(text, found.end(), quote) if quote else _end(text, found.end())
        yield Hidden(found.end(), end)

    def passed(self, text: str) -> str:
        """Return a text without what was passed beside a statement in which a key stands."""
        if "parameters: " not in text:
            return text
        parts: list[str] = []
        copied, statement = 0, None
        for found in _PASSED.finditer(text):
            if found.start() < copied:
                continue
            if found[1] == "SQL":
                statement = found.end()
            elif statement is not None:
                words = _WORD.findall(text, statement, found.start())
                if any(word in self._keys for word in words) and text.startswith(("(", "["), found.end()):
                    hidden = bracketed(text, found.end())
                    parts += [text[copied : hidden.start], hidden.shown]
                    copied = hidden.end
                statement = None
        return "".join([*parts, text[copied:]]) if parts else text


def is_option(text: object) -> bool:
    """Return whether a text is an option by itself, so that its value is another text."""
    return isinstance(text, str) and text.startswith("-") and not any(sign in text for sign in "= \t")


def _columns(text: str, end: int) -> list[str]:
    """Return the names in the brackets before `end`."""
    close = text.rfind(")", max(0, end - _MOST_BETWEEN), end)
    opening = text.rfind("(", max(0, close - _MOST_NAMES), close) if close >= 0 else -1
    if opening < 0 or text.find(")", opening, close) >= 0:
        return []
    return [each.strip(" \t\r\n\"'`[]\\") for each in text[opening + 1 : close].split(",")]


def _end(text: str, start: int) -> int:
    found = _ARGUMENT.match(text, start)
    return found.end() if found else start


def _rows(text: str, at: int, places: list[int]) -> Iterator[Hidden]:
    """Yield the values at some places of each row."""
    opening: int | None = at
    while opening is not None:
        if text.startswith(NOT_SHOWN, opening):
            return
        place, at, sign = 0, opening + 1, ","
        while sign == ",":
            found = _VALUE.match(text, at)
            if found is None:
                yield Hidden(at if place else opening, len(text), NOT_SHOWN)
                return
            value = found[1].rstrip()
            if place in places and not _NOTHING.fullmatch(value):
                start, end = found.start(1), found.start(1) + len(value)
                is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
                yield Hidden(start + is_quoted, end - is_quoted)
            place, at, sign = place + 1, found.end(), found[2]
        following = _NEXT_ROW.match(text, at)
        opening = following.end() - 1 if following else None
