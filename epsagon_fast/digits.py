"""Reads whole numbers that come from outside: of a header, a setting, an answer.

int() alone takes more than they may be: other scripts' digits, spaces, `_`, a sign. And it refuses thousands of digits.
"""

from epsagon_fast.hints import Final

# What fits into 63 bits, whatever the digits.
MOST_DIGITS: Final = 18


def number(text: str | bytes, most: int = MOST_DIGITS) -> int | None:
    """Return what 1 to `most` ASCII digits say; None: it is something else."""
    return int(text) if text.isdigit() and len(text) <= most and text.isascii() else None


def signed(text: str, most: int = MOST_DIGITS) -> int | None:
    """The same with a `-` before it, or without."""
    found = number(text.removeprefix("-"), most)
    return -found if found is not None and text.startswith("-") else found
