"""What both trimmers return and raise, and the two member names on the way to an event's metadata."""

from typing import NamedTuple

RESOURCE_KEY = "resource"
METADATA_KEY = "metadata"


class Trimmed(NamedTuple):
    """A trace's events within its limit, in add order."""

    events: list[bytes]
    # The body's size with these events: envelope, events, and the commas between them.
    size_bytes: int
    # Events visited from the front; those after them are the caller's own objects.
    stripped_count: int


class TraceTooBig(ValueError):
    """Stripping every event left the body over its limit; `size_bytes` is what remained."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes with every event stripped"
