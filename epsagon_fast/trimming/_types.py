"""What both trimmers return and raise, the names that they look for, and what they write in place of what is gone."""

from epsagon_fast.pages import see
from epsagon_fast.rows import NamedTuple

RESOURCE_KEY = "resource"
METADATA_KEY = "metadata"
EXCEPTION_KEY = "exception"
EXCEPTION_TEXT_KEYS = ("message", "traceback")

# No value is shortened to less: with a mark in it, it would say next to nothing.
LEAST_LEVEL_BYTES = 64
# An exception's texts may have so many times the level: mostly they are what a trace is looked at for.
EXCEPTION_SHARE = 4
# A mark is MARK_HEAD, a number, and what follows it. A shortened value ends with its mark; an exception's text has it
# between its two ends.
MARK_HEAD = "... "
MARK_AT_END = " bytes left out"
MARK_BETWEEN = " bytes left out ..."
# A number of more digits is the application's own.
MARK_DIGITS = 15

# The end of each error: the page that helps.
PAGE = see("trimming")


class Trimmed(NamedTuple):
    """A trace's events within its limit, in add order."""

    events: list[bytes]
    """The events, in the order of adding."""
    size_bytes: int
    """The body's size with these events: envelope, events, and the commas between them."""
    stripped_count: int
    """Events visited from the front; those after them are the caller's own objects."""


class Shortened(NamedTuple):
    """A trace's events within its limit, in add order. Those in which nothing changed are the caller's own objects."""

    events: list[bytes]
    """The events, in the order of adding."""
    size_bytes: int
    """The body's size with these events: envelope, events, and the commas between them."""
    level_bytes: int
    """The most that a value was left, in bytes of JSON between its quotes; the limit if nothing was to be done."""
    shortened_count: int
    """Values that were shortened and are still there."""
    stripped_count: int
    """Events stripped from the front, since not even the least level was enough; 0 for nearly every trace."""


class TraceTooBig(ValueError):
    """Stripping every event left the body over its limit; `size_bytes` is what remained."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes with every event stripped{PAGE}"
