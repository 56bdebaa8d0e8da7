"""Finds, in a text that is no JSON as a whole, the value that belongs to a name: more of the text rather than less."""

import re
from collections.abc import Container, Iterator
from typing import Final, NamedTuple

from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK

# Instead of what is not understood and may hold a value that must not show.
NOT_SHOWN: Final = "(not shown: it may hold a secret)"
# Characters before `=` or `:` that may belong to a name, and words of a name without quotes.
_LONGEST_NAME: Final = 256
_MOST_WORDS: Final = 4

# A name, read from its end: in quotes, which have backslashes if they stand in a string, or bare.
_QUOTED: Final = pattern(r"""[ \t\r\n]*["']\\*([^\n"']*)""")
_BARE: Final = pattern(r"""[ \t]*([^\n\r\t"'&;?,{}()<>|=:#\\]*)""")
_SIGNS: Final = r"[=:>]*[ \t\r\n]*"
_OPENING_QUOTE: Final = pattern(rf"""{_SIGNS}[a-zA-Z]{{0,2}}(\\*)(["'])""")
_BRACKET: Final = pattern(rf"{_SIGNS}[{{\[(]")
_SCHEME: Final = r"(?:(?:bearer|basic|digest|token|negotiate)[ \t+]+)?"
# A value after `=`. What follows `&` or `;` without a name of its own still belongs to it.
_IN_FORM: Final = pattern(rf"[=:>]*[ \t]*({_SCHEME}[^\s&;<>]*(?:[&;](?![ \t]*[^&;=\s]*=)[^\s&;<>]*)*)", re.IGNORECASE)
# After `:`, behind a name in quotes.
_IN_OBJECT: Final = pattern(rf"{_SIGNS}({_SCHEME}[^\s,\]}})]*)", re.IGNORECASE)
# After `:`, the rest of the line, and the lines below that are indented.
_IN_LINE: Final = pattern(r"[=:>]*[ \t]*([^\r\n]*(?:\r?\n[ \t]+[^\r\n]*)*)")
_TAG: Final = pattern(r"<([\w:.-]+)(?:\s[^<>]*)?>")
_END_OF_TAG: Final = "</"


class Hidden(NamedTuple):
    """The part of a text that is not shown, and what is shown instead."""

    start: int
    end: int
    shown: str


class Pairs:
    """Finds the values of the names of one config."""

    def __init__(self, keys: Container[object]) -> None:
        self._keys = keys

    def hidden(self, text: str, floor: int, at: int) -> Hidden | None:
        """Return what the `=`, `:` or `<` at `at` hides; None: nothing. No name begins before `floor`."""
        found = self._in_tag(text, at) if text[at] == "<" else self._after_sign(text, floor, at)
        return found if found is not None and text[found.start : found.end].strip() else None

    def _in_tag(self, text: str, at: int) -> Hidden | None:
        tag = _TAG.match(text, at)
        if tag is None or (tag[1] not in self._keys and tag[1].rpartition(":")[2] not in self._keys):
            return None
        end = text.find(_END_OF_TAG, tag.end())
        return Hidden(tag.end(), len(text) if end < 0 else end, MASK)

    def _after_sign(self, text: str, floor: int, at: int) -> Hidden | None:
        before = text[max(floor, at - _LONGEST_NAME) : at][::-1]
        quoted = _QUOTED.match(before)
        names = [quoted[1][::-1]] if quoted else _bare_names(before)
        if any(name in self._keys or (("%" in name or "+" in name) and unquoted(name) in self._keys) for name in names):
            return _value(text, at, quoted is not None)
        return None


def unquoted(text: str) -> str:
    """Return what a text says that a form or a URL encodes."""
    # Imported here, because few texts need it: see producer/late_imports.py.
    from urllib.parse import unquote_plus

    return unquote_plus(text)


def _bare_names(before: str) -> Iterator[str]:
    """Return what may be the name at the end of a text that is given backwards: its last word, its last two, ..."""
    found = _BARE.match(before)
    if found is None:
        return
    words = found[1][::-1].split()
    for count in range(1, min(len(words), _MOST_WORDS) + 1):
        yield " ".join(words[-count:])
    if words and before[found.end() :].startswith("\\"):
        # The first letter belongs to an escape, as in `\npassword`.
        yield words[0][1:]


def _value(text: str, at: int, is_named_in_quotes: bool) -> Hidden:
    """Return the value behind the sign at `at`."""
    if quote := _OPENING_QUOTE.match(text, at):
        return Hidden(quote.end(), _closing(text, quote.end(), quote[1], quote[2]), MASK)
    if bracket := _BRACKET.match(text, at):
        return Hidden(bracket.end() - 1, len(text), NOT_SHOWN)
    kind = _IN_FORM if text[at] == "=" else _IN_OBJECT if is_named_in_quotes else _IN_LINE
    found = kind.match(text, at)
    return Hidden(*found.span(1), MASK) if found else Hidden(at + 1, len(text), NOT_SHOWN)


def _closing(text: str, start: int, escapes: str, quote: str) -> int:
    """Return where a text in quotes ends. Its closing quote has as many backslashes as the opening one."""
    # In a text that stands in no other, two backslashes are one that was written.
    before = r"(?<!\\)" if escapes else r"(?<!\\)(?:\\\\)*"
    found = re.compile(before + re.escape(escapes + quote)).search(text, start)
    return found.end() - len(escapes + quote) if found else len(text)
