"""Moves the records of a ring that no collector will read any more into another ring."""

from collections.abc import Callable

from epsagon_fast.protocol import Kind, Record
from epsagon_fast.queue import layout, ring


def move_unread(source: ring.Producer, put: Callable[[int, int, bytes, bytes], bool]) -> int:
    """Close the ring, put every record between its tail and head again, in order, and return how many.

    The caller is the ring's own process and knows that no collector reads the ring. Later pushes of other threads are
    answered with CLOSED.
    """
    source.put_bye()
    position, head, count = source.load(layout.TAIL), source.head, 0
    while position < head:
        length, _, kind, flags, start, _, _, trace_id = layout.RECORD_HEADER.unpack(
            _bytes(source, position, layout.RECORD_HEADER.size)
        )
        if kind != Kind.BYE:
            rest = _bytes(source, position + layout.RECORD_HEADER.size, length)
            for each in layout.apart(Record(kind, flags, 0, trace_id, layout.start_of(source, start) + rest)):
                put(each.kind, each.flags, each.trace_id, each.payload)
                count += 1
        position += layout.record_bytes(length)
    return count


def _bytes(source: ring.Producer, position: int, length: int) -> bytes:
    capacity = source.load(layout.CAPACITY)
    offset = position % capacity
    first = min(length, capacity - offset)
    data = source.copy(layout.HEADER_BYTES + offset, first)
    return data if first == length else data + source.copy(layout.HEADER_BYTES, length - first)
