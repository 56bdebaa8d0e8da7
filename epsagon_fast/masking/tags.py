"""Finds, in XML and HTML, what an element holds whose name is a key, or that an attribute gives a key's name."""

import re
from collections.abc import Container, Iterator

from epsagon_fast.hints import Final
from epsagon_fast.patterns import pattern

from .pairs import NOT_SHOWN, Hidden

# An attribute's value has no `<` in XML. One that may have it would be read to the text's end for each tag in it.
_TAG: Final = pattern(r"""<([\w:.-]++)((?:\s(?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+)?)>""")
# A tag whose quotes do not match.
_LOOSE_TAG: Final = pattern(r"<([\w:.-]++)((?:\s[^<>]*+)?)>")
_ATTRIBUTE: Final = pattern(r"""(?<![\w:.-])([\w:.-]++)\s*+=\s*+(?:\\*(["'])([^"'<>\\]*+)\\*\2|([^\s"'<>]++))""")
_SAYS_NAME: Final = frozenset(("name", "key", "id", "property", "itemprop"))
_SAYS_VALUE: Final = frozenset(("value", "content", "data", "data-value"))
# Elements that hold the name of what the next one holds, and what they hold.
_HOLDS_NAME: Final = frozenset(("name", "key", "string"))
_HELD: Final = pattern(r"([^<>]{1,256}+)</[\w:.-]++\s*+>\s*+(?=<[\w])")
_CDATA: Final = pattern(r"\s*+<!\[CDATA\[")
_END_OF_CDATA: Final = "]]>"
_IN_NAME: Final = pattern(r"[\w:.-]")
# Names of elements that end nowhere. More are no HTML, and each costs a search to the text's end.
_MOST_ENDLESS: Final = 32


class Tags:
    """Finds the values of the names of one config in tags, and in the elements that they begin.

    For one text. It keeps which elements end nowhere behind a place, so that no end is looked for again and again.
    """

    def __init__(self, keys: Container[object], text: str) -> None:
        self._keys = keys
        self._text = text
        self._endless: set[str] = set()

    def hidden(self, at: int) -> Iterator[Hidden]:
        """Yield what the tag at `at` hides."""
        tag = _TAG.match(self._text, at) or _LOOSE_TAG.match(self._text, at)
        if tag is None:
            return
        name, is_closed = tag[1], tag[2].endswith("/")
        if not is_closed and (name in self._keys or name.rpartition(":")[2] in self._keys):
            end = self._end(name, tag.end())
            yield Hidden(tag.end(), len(self._text) if end is None else end)
        elif name.rpartition(":")[2].lower() in _HOLDS_NAME and (value := self._next(tag)):
            end = self._end(value[1], value.end())
            yield Hidden(value.end(), len(self._text) if end is None else end)
        elif "=" in tag[2]:
            yield from self._named(tag, is_closed)

    def _next(self, tag: re.Match[str]) -> re.Match[str] | None:
        """Return the tag behind the element that `tag` begins if that holds a key."""
        held = _HELD.match(self._text, tag.end())
        value = _TAG.match(self._text, held.end()) if held and held[1].strip() in self._keys else None
        return value if value and not value[2].endswith("/") else None

    def _named(self, tag: re.Match[str], is_closed: bool) -> Iterator[Hidden]:
        attributes = list(_ATTRIBUTE.finditer(self._text, tag.start(2), tag.end(2)))
        if not any(each[1].lower() in _SAYS_NAME and _value(each) in self._keys for each in attributes):
            return
        for each in attributes:
            if each[1].lower() in _SAYS_VALUE:
                yield Hidden(*each.span(3 if each[2] else 4))
        # What has no end, as `<input>`, holds nothing.
        end = None if is_closed else self._end(tag[1], tag.end())
        if end is not None:
            yield Hidden(tag.end(), end)
        elif len(self._endless) > _MOST_ENDLESS:
            yield Hidden(tag.end(), len(self._text), NOT_SHOWN)

    def _end(self, name: str, start: int) -> int | None:
        """Return where the element ends whose content begins at `start`. CDATA may hold what looks like its end."""
        while opening := _CDATA.match(self._text, start):
            start = self._text.find(_END_OF_CDATA, opening.end())
            if start < 0:
                return len(self._text)
            start += len(_END_OF_CDATA)
        if name in self._endless:
            return None
        end = self._text.find(f"</{name}", start)
        while end >= 0 and _IN_NAME.match(self._text, end + 2 + len(name)):
            end = self._text.find(f"</{name}", end + 1)
        if end < 0:
            self._endless.add(name)
        return None if end < 0 else end


def _value(attribute: re.Match[str]) -> str:
    return attribute[3] if attribute[2] else attribute[4]
