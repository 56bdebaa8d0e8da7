"""Says of an event's JSON whether it must be read, because a key may stand in it. Most events have none.

A name stands before `:` in JSON, in a header and in YAML, before `=` in a form, a URL, a cookie and an attribute,
before `>` in XML, before a literal or a list in SQL, behind `-` in a command line, as the first of two in a list, and
as the value of a member `name` or `key`. The compiled search first looks for the fragments of all keys, which most
events have nowhere. In a text with a fragment it jumps from one of these signs to the next and looks at what is before.
The plain one looks for fragments alone, so it asks for more events to be read.
Both say yes where an escape or a letter in another form could hide a name, and where a URL names its user.
"""

import re
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Final
from epsagon_fast.patterns import pattern

from .keys import Keys

IMPLEMENTATION: Final = implementation("search")

if TYPE_CHECKING or IMPLEMENTATION == COMPILED:
    # With this module and not with the first mask, which a request in the middle may be the first to need.
    from epsagon_fast.masking._search import Search

# What does not count in a name: that of keys.py, and the `+` that stands for a blank in a form.
_UNCOUNTED: Final = b"-_ +"
_LOWER: Final = bytes(range(256)).lower()
# Characters that may stand in a name instead of ASCII, or that do not count there: keys.py says why. In blocks of 16,
# from the first to the last.
_FOLDED: Final = (
    "a-b d 13-14 17 1c 1f 2b 2d-2e 37-38 60-61 6d 70 89 8e 180 1d2-1d6 1d9-1db 1e9 1fb-20a 210-218 246-24e 2a7 2c7 300 "
    "309 320-325 32b-32c 335-33f a7f fb0 fb2 fc5-fc6 fdf fe1 fe3-fe7 fef-ff5 ffe-fff 107a 110b-110c 1343 1bca "
    "1ccd-1ccf 1d17 1d40-1d6a 1d7c-1d7f 1f10-1f14 1f16 1f19 1fbf e000 e002-e007"
)
_BLOCKS: Final = tuple(
    (int(first, 16), int(last or first, 16)) for first, _, last in (block.partition("-") for block in _FOLDED.split())
)
_FOLDS: Final = pattern("[" + "".join(f"{chr(first << 4)}-{chr(last << 4 | 15)}" for first, last in _BLOCKS) + "]")
# JSON writes ASCII as \u00.. too, and any character by four digits.
_ESCAPED: Final = pattern(r"\\u(?:00[2-7]|d([89ab][0-9a-f]{2})\\+ud([c-f][0-9a-f]{2})|([0-9a-f]{4}))", re.IGNORECASE)
# A URL writes a character as %.., and %25 is another %.
_ENCODED: Final = pattern(r"%[2-7c-f]", re.IGNORECASE)
_URL: Final = pattern(r":(?:\\*/){2}")
# Classes of bytes for the compiled search. The others are the letters of the fragments, from 1.
OTHER, QUOTE, UNCOUNTED, PERCENT, WIDE = 0, 252, 253, 254, 255
# The state of an automaton that has found a fragment.
FOUND: Final = 0xFFFFFFFF
# Letters from the most frequent one, and any letter.
_FREQUENT: Final = b"etaoinsrhldcumfpgwybvkxjqz"
# A word of rare letters that stands in many events all the same. What ends in two of them is looked for last of all.
_USUAL: Final = b"number"
_ANY: Final = 0


def search_for(keys: Keys) -> Callable[[bytes], bool]:
    """Return what says of an event's JSON whether one of the keys may stand in it."""
    if keys.fragments is None:
        return lambda event: True
    if IMPLEMENTATION == COMPILED:
        return Search(*tables(keys.fragments)).may_hold
    return partial(may_hold_plainly, keys.fragments)


def tables(fragments: Iterable[bytes]) -> tuple[bytes, bytes, int, bytes, bytes]:
    """Return what the compiled search takes: classes of bytes, states, the rows' width, folding characters, a sieve."""
    fragments = tuple(fragments)
    classes, width = _classes(fragments)
    return classes, _automaton(fragments, classes, width).tobytes(), width, _folding(), _sieve(fragments)


def may_hold_plainly(fragments: Iterable[bytes], event: bytes) -> bool:
    """Return whether one of the fragments stands anywhere in an event, or may be hidden in it."""
    return _may_hold(fragments, event, event.decode("utf-8", "replace"))


def text_may_hold(fragments: Iterable[bytes], text: str) -> bool:
    """Return whether one of the fragments stands anywhere in a text, or may be hidden in it."""
    return _may_hold(fragments, text.encode("utf-8", "surrogatepass"), text)


def _may_hold(fragments: Iterable[bytes], event: bytes, text: str) -> bool:
    plain = event.translate(_LOWER, _UNCOUNTED)
    return any(fragment in plain for fragment in fragments) or _may_hide(text)


def _may_hide(text: str) -> bool:
    if not text.isascii() and _FOLDS.search(text):
        return True
    if "@" in text and (url := _URL.search(text)) and text.rfind("@") > url.end():
        return True
    if "%" in text and _ENCODED.search(text):
        return True
    return "\\u" in text and any(map(_hides, _ESCAPED.finditer(text)))


def _hides(escape: re.Match[str]) -> bool:
    high, low, alone = escape.groups()
    if high is not None:
        return _FOLDS.match(chr(0x10000 + ((int(high, 16) - 0x800 << 10) | int(low, 16) - 0xC00))) is not None
    return alone is None or _FOLDS.match(chr(int(alone, 16))) is not None


def _folding() -> bytes:
    """Return a bit for each block of 16 characters: whether one may stand in a name instead of ASCII."""
    bits = bytearray(0x110000 >> 7)
    for first, last in _BLOCKS:
        for block in range(first, last + 1):
            bits[block >> 3] |= 1 << (block & 7)
    return bytes(bits)


def _sieve(fragments: Iterable[bytes]) -> bytes:
    """Return what is looked for first: for each fragment three of its letters, and what may hide one. See sift.h."""
    places = [(fragment, _rarest(fragment)) for fragment in fragments]
    triples = sorted(
        {_triple(fragment, place) for fragment, place in places}, key=lambda triple: (triple[1] >> 4, triple)
    )
    halves, bits = bytearray(4 * 32), bytearray(1 << 12)
    for number, triple in enumerate(triples):
        # Eight groups of neighbours. A group knows halves of bytes, so what shares one is mistaken for fewer others.
        group = 1 << number * 8 // len(triples)
        for place, letter in enumerate(triple):
            capital = letter - 32 if letter >= ord("a") else letter
            _add(halves, place, group, range(256) if letter == _ANY else (letter, capital))
        for first, middle, last in product(*(range(32) if each == _ANY else (each & 31,) for each in triple)):
            bit = first << 10 | middle << 5 | last
            bits[bit >> 3] |= 1 << (bit & 7)
    wide = {
        chr(block << 4).encode("utf-8", "surrogatepass")[0] for low, high in _BLOCKS for block in range(low, high + 1)
    }
    # Bytes that begin no character are read as one of those all the same.
    wide |= {each | 8 for each in wide if each >= 0xF0}
    for number, others in enumerate(
        (b"- +", b"_", b"%", b"@", *([each for each in wide if each >> 4 == high] for high in range(12, 16)))
    ):
        _add(halves, 3, 1 << number, others)
    return bytes(halves + bits) + bytes([max(len(fragment) - place for fragment, place in places)])


def _add(halves: bytearray, place: int, bit: int, found: Iterable[int]) -> None:
    for each in found:
        halves[32 * place + (each & 15)] |= bit
        halves[32 * place + 16 + (each >> 4)] |= bit


def _rarest(fragment: bytes) -> int:
    """Return the place in a fragment of a letter that is rare, as are those on both sides."""
    places = range(1, len(fragment) - 1)
    return max(places, key=lambda at: _rarity(fragment[at - 1 : at + 2]), default=0)


def _rarity(letters: bytes) -> tuple[bool, int]:
    return letters[1:] not in _USUAL, sum(map(_FREQUENT.find, letters))


def _triple(fragment: bytes, at: int) -> tuple[int, int, int]:
    """Return the letters of a fragment around a place."""
    return fragment[at - 1] if at else _ANY, fragment[at], fragment[at + 1] if at + 1 < len(fragment) else _ANY


def _classes(fragments: Iterable[bytes]) -> tuple[bytes, int]:
    """Return the class of each byte, and how many classes of letters there are with OTHER."""
    letters = sorted(set(b"".join(fragments)))
    classes = bytearray(256)
    for number, letter in enumerate(letters, 1):
        classes[letter] = number
    for letter in range(ord("A"), ord("Z") + 1):
        classes[letter] = classes[letter + 32]
    for byte in _UNCOUNTED:
        classes[byte] = UNCOUNTED
    classes[ord('"')] = QUOTE
    classes[ord("%")] = PERCENT
    # The first byte of a character that is none of ASCII's.
    classes[0xC2:] = bytes([WIDE]) * len(classes[0xC2:])
    return bytes(classes), len(letters) + 1


def _automaton(fragments: Iterable[bytes], classes: bytes, width: int) -> "array[int]":
    """Return the states that find a fragment when a name is read from its end (Aho and Corasick).

    Row by row: where each class of letters leads from a state. A state is known by the place of its row. State 0 is the
    start, from which OTHER leads to itself.
    """
    rows, ends = _tree(fragments, classes, width)
    fallback = [0] * len(rows)
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        for letter in range(1, width):
            onward = rows[fallback[state]][letter] if state else 0
            if child := rows[state][letter]:
                fallback[child] = onward
                if onward in ends:
                    ends.add(child)
                waiting.append(child)
            else:
                rows[state][letter] = onward
    return array("I", (FOUND if to in ends else to * width for row in rows for to in row))


def _tree(fragments: Iterable[bytes], classes: bytes, width: int) -> tuple[list[list[int]], set[int]]:
    """Return the states that the fragments have when no one falls back, and those at which one ends."""
    rows, ends = [[0] * width], set()
    for fragment in fragments:
        state = 0
        for letter in reversed(fragment):
            if not rows[state][classes[letter]]:
                rows[state][classes[letter]] = len(rows)
                rows.append([0] * width)
            state = rows[state][classes[letter]]
        ends.add(state)
    return rows, ends
