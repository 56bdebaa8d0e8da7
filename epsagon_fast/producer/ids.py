"""Ids of events, taken from the kernel many at a time: one call of it costs as much as all else about an event."""

import os
from typing import Final

from epsagon_fast.queue.ring import own_pid

ID_BYTES: Final = 16
_AT_ONCE: Final = 64
_DIGITS: Final = 2 * ID_BYTES

# Whose they are, and those that are left. A forked child must not take those of its parent.
_stock: tuple[int, list[str]] = (0, [])


def event_id() -> str:
    """Return a random id, 32 hex digits.

    For events only: what restores a frozen process several times (a snapshot of a machine) restores the stock, too.
    Within a trace that does no harm, but a trace's own id must be another one each time.
    """
    owner, left = _stock
    if not left:
        return _from_new_stock()
    try:
        taken = left.pop()
    except IndexError:
        # Another thread took the last one.
        return _from_new_stock()
    # After it was taken: a signal's handler may fork in between.
    return taken if owner == own_pid() else _from_new_stock()


def _from_new_stock() -> str:
    global _stock
    digits = os.urandom(_AT_ONCE * ID_BYTES).hex()
    left = [digits[start : start + _DIGITS] for start in range(_DIGITS, len(digits), _DIGITS)]
    _stock = (own_pid(), left)
    return digits[:_DIGITS]
