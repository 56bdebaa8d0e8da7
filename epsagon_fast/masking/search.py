"""Says of an event's JSON whether it must be read, because a key may stand in it. Most events have none.

A name stands before `:` in JSON, in a header and in YAML, before `=` in a form, a URL, a cookie and an attribute,
before `>` in XML, as the first of two in a list, and as the value of a member `name` or `key`. The compiled search
jumps from one of these to the next and looks at what stands before it. The plain one looks for each key's fragment
anywhere, so it asks for more events to be read.
Both say yes where an escape could hide a name, and where a URL names its user.
"""

import re
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.patterns import pattern

from .keys import Keys

# What does not count in a name: that of keys.py, and the `+` that stands for a blank in a form.
_UNCOUNTED: Final = b"-_ +"
_LOWER: Final = bytes(range(256)).lower()
# Characters whose case-folded form has an ASCII letter, so that they may stand in a name instead of it.
_FOLDED: Final = "ßŉſǰẖẗẘẙẚẞ\u212aİﬀﬁﬂﬃﬄﬅﬆ"
# JSON writes ASCII as \u00.. too; what folds to it is known by three digits. A URL writes it as %.., and %25 is another
# %. Then the user in a URL.
_HIDING: Final = pattern(
    rb"\\u(?:00[2-7d]|01[347f]|1e9|212|fb0)|%[2-7]|:(?:\\*/){2}[^\s/?#\\\"]*@|"
    + b"|".join(each.encode() for each in _FOLDED),
    re.IGNORECASE,
)
# Classes of bytes for the compiled search. The others are the letters of the fragments, from 1.
OTHER, QUOTE, UNCOUNTED, PERCENT, MAY_FOLD = 0, 252, 253, 254, 255
# The state of an automaton that has found a fragment.
FOUND: Final = 0xFFFF


def search_for(keys: Keys) -> Callable[[bytes], bool]:
    """Return what says of an event's JSON whether one of the keys may stand in it."""
    if keys.fragments is None:
        return lambda event: True
    if implementation("search") == COMPILED:
        from epsagon_fast.masking._search import Search

        classes, width = _classes(keys.fragments)
        states = _automaton(keys.fragments, classes, width)
        if states is not None:
            return Search(classes, states.tobytes(), width).may_hold
    return partial(may_hold_plainly, keys.fragments)


def may_hold_plainly(fragments: Iterable[bytes], event: bytes) -> bool:
    """Return whether one of the fragments stands anywhere in an event, or may be hidden in it."""
    plain = event.translate(_LOWER, _UNCOUNTED)
    return any(fragment in plain for fragment in fragments) or _HIDING.search(event) is not None


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
    for each in _FOLDED:
        classes[each.encode()[0]] = MAY_FOLD
    return bytes(classes), len(letters) + 1


def _automaton(fragments: Iterable[bytes], classes: bytes, width: int) -> "array[int] | None":
    """Return the states that find a fragment when a name is read from its end (Aho and Corasick); None: too many.

    Row by row: where each class of letters leads from a state. State 0 is the start, from which OTHER leads to itself.
    """
    rows, ends = _tree(fragments, classes, width)
    if len(rows) >= FOUND:
        return None
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
    return array("H", (FOUND if to in ends else to for row in rows for to in row))


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
