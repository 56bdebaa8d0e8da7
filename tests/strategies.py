"""All hypothesis strategies, by the part of the package they serve."""

from hypothesis import strategies as st

from epsagon_fast.protocol import Kind
from epsagon_fast.queue import layout


def pushes() -> st.SearchStrategy[list[tuple[Kind | None, int]]]:
    """What happens to a ring: a push (kind, length of the payload), or the consumer empties it (None, 0)."""
    kinds = st.sampled_from([kind for kind in Kind if kind != Kind.BYE])
    push = st.tuples(kinds, st.sampled_from([0, 1, 8, 12, 24, 25, 100, 471, 472, 473]))
    return st.lists(push | st.just((None, 0)), max_size=60)


def damage() -> st.SearchStrategy[list[tuple[int, bytes]]]:
    """Bytes to write over a ring with a few records in it, and where: slots of the header, record headers, anywhere."""
    slots = (layout.CAPACITY, layout.CHECKSUMMED, layout.HEAD, layout.CLOSED_COUNT, layout.TAIL, layout.CLOSES_READ)
    slot = st.tuples(st.sampled_from((*slots, layout.LEFT)), st.binary(min_size=1, max_size=8))
    near = st.integers(2**32 - 600, 2**32 + 600).map(lambda value: value.to_bytes(8, "little"))
    position = st.tuples(st.sampled_from((layout.HEAD, layout.TAIL)), near)
    data = st.tuples(st.integers(layout.HEADER_BYTES, layout.HEADER_BYTES + 1000), st.binary(min_size=1, max_size=24))
    return st.lists(slot | position | data, min_size=1, max_size=3)
