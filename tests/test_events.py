"""Plain events come into their traces in one call, and nothing differs from feeding each."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import OTHER_TRACE_ID, RING, TRACE_ID, closed, event, label, opened

from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.events import (
    IMPLEMENTATION,
    pure_take_events,
    pure_unmasked,
    take_events,
    unmasked,
)
from epsagon_fast.collector.assembling.masks import Masks
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.compiled import COMPILED
from epsagon_fast.protocol import SHORTEN, Kind, Record

UNKNOWN_ID = bytes(16)
LIMIT_BYTES = 2000
WAYS = (take_events, pure_take_events)

# Records as a ring may bring them, broken payloads too; most are plain events, and some trace gets full.
RECORDS = st.lists(
    st.builds(
        Record,
        st.sampled_from([int(Kind.EVENT)] * 8 + list(map(int, Kind)) + [0, 255]),
        st.sampled_from([0] * 8 + [1, 128, 255]),
        st.sampled_from([0, 1, 2**64 - 1]),
        st.sampled_from([TRACE_ID, TRACE_ID, OTHER_TRACE_ID, UNKNOWN_ID]),
        st.one_of(
            st.sampled_from([b"", b"{", b"{}", event(), event(1, k="v" * 300), event(2, k="v" * 1500)]),
            st.integers(0, 700).map(bytes),
        ),
    ),
    max_size=30,
)


def traces(limit_bytes: int = LIMIT_BYTES) -> dict[bytes, OpenTrace]:
    """Return two open traces: one strips what is too much, the other shortens it."""
    assembly = Assembly()
    assembly.feed(RING, opened(max_trace_size_bytes=limit_bytes), 0.0)
    other = opened(max_trace_size_bytes=limit_bytes, trimming=SHORTEN)._replace(trace_id=OTHER_TRACE_ID)
    assembly.feed(RING, other, 0.0)
    return {each: trace for each in assembly.ids() if (trace := assembly.unclosed(each))}


def shown(found: dict[bytes, OpenTrace]) -> Any:
    """Return all that taking an event changes."""
    streams = [each.stream for each in found.values()]
    return [
        ([s.events, s.floor_bytes, s.arrived_bytes, s.stripped_count, s.is_too_big, s.dropped_events], t.held_bytes)
        for s, t in zip(streams, found.values(), strict=True)
    ] + [each.account.open_bytes for each in found.values()]


@given(RECORDS)
@example([Record(Kind.EVENT, 0, 0, TRACE_ID, b"x" * 3000)] * 3)
def test_taking_events_together_is_feeding_each(records: list[Record]) -> None:
    ends, states = [], []
    for way in WAYS:
        # What neither takes is added with care, so that later ones meet a trace that was trimmed.
        found, stops, at = traces(), [], 0
        while (at := way(records, at, found)) < len(records):
            stops.append(at)
            record = records[at]
            if record.kind == Kind.EVENT and record.payload and record.trace_id in found:
                trace = found[record.trace_id]
                trace.account.open_bytes += trace.stream.add_event(record.payload)
            at += 1
        ends.append(stops)
        states.append(shown(found))
        held = sum(trace.held_bytes for trace in found.values())
        assert {each.account.open_bytes for each in found.values()} == {held}
    assert ends[0] == ends[1]
    assert states[0] == states[1]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_plain_event_is_left_to_be_fed(way: Any) -> None:
    plain = Record(Kind.EVENT, 0, 0, TRACE_ID, event())
    others = [label("k", "v"), closed(1.0), plain._replace(flags=1), plain._replace(payload=b"")]
    others += [plain._replace(trace_id=UNKNOWN_ID), plain._replace(payload=bytes(3000))]
    for other in others:
        assert way([plain, other, plain], 0, found := traces()) == 1
        assert found[TRACE_ID].stream.events == [plain.payload]
        assert way([plain, other, plain], 2, found) == 3


@pytest.mark.parametrize("way", WAYS)
def test_no_place_outside_the_records_is_looked_at(way: Any) -> None:
    plain = Record(Kind.EVENT, 0, 0, TRACE_ID, event())
    assert [way([plain], at, traces()) for at in (1, 2, 2**62, -1)] == [1, 2, 2**62, -1]


@pytest.mark.skipif(IMPLEMENTATION != COMPILED, reason="Python looks itself")
def test_what_is_no_record_is_refused_and_what_came_before_it_is_counted() -> None:
    plain = Record(Kind.EVENT, 0, 0, TRACE_ID, event())
    odd: list[Any] = [None, (), (1,), tuple(plain)[:4], plain._replace(payload="text"), plain._replace(kind=None)]
    odd += [plain._replace(flags="0"), plain._replace(trace_id=[]), [*plain], plain._replace(kind=2**70)]
    for each in odd:
        found = traces()
        with pytest.raises((TypeError, OverflowError)):
            take_events([plain, each], 0, found)
        assert found[TRACE_ID].stream.arrived_bytes == len(plain.payload)
        assert found[TRACE_ID].account.open_bytes == sum(trace.held_bytes for trace in found.values())


def test_what_events_are_counted_as_malformed_or_cut_is_the_same() -> None:
    counted: list[Counter[str]] = []
    for way in WAYS:
        assembly, at = Assembly(), 0
        assembly.feed(RING, opened(max_trace_size_bytes=600), 0.0)
        found = {TRACE_ID: trace} if (trace := assembly.unclosed(TRACE_ID)) else {}
        records = [Record(Kind.EVENT, 0, 0, TRACE_ID, payload) for payload in (b"{", event(1, k="v" * 900), b"[") * 3]
        while (at := way(records, at, found)) < len(records):
            assembly.feed(RING, records[at], 0.0)
            at += 1
        counted.append(assembly.counters)
    assert counted[0] == counted[1]


MASKING = (unmasked, pure_unmasked)


class Hides:
    """A mask that may change what holds a word, and fails over another one."""

    def may_change(self, event: bytes) -> bool:
        if b"broken" in event:
            raise ValueError("cannot be searched")
        return b"secret" in event


def masks() -> Masks:
    found = Masks()
    found[TRACE_ID] = Hides()  # type: ignore[assignment]
    return found


PAYLOADS = st.sampled_from([b"", b"{}", b'{"secret":1}', b'{"broken":1}', event()])
KINDS = st.sampled_from([int(Kind.EVENT)] * 8 + list(map(int, Kind)) + [0, 255])
IDS = st.sampled_from([TRACE_ID, OTHER_TRACE_ID, UNKNOWN_ID])


@given(st.lists(st.builds(Record, KINDS, st.sampled_from([0, 1]), st.just(0), IDS, PAYLOADS), max_size=30))
def test_what_masking_may_change_is_found_alike(records: list[Record]) -> None:
    found: list[list[int]] = []
    for way in MASKING:
        stops, at = [], 0
        while (at := way(records, at, masks())) < len(records):
            stops.append(at)
            at += 1
        found.append(stops)
    expected = [
        at
        for at, each in enumerate(records)
        if (
            each.kind != Kind.EVENT or b"secret" in each.payload or b"broken" in each.payload
            if each.trace_id == TRACE_ID
            else each.kind == Kind.OPEN
        )
    ]
    assert found == [expected, expected]


@pytest.mark.parametrize("way", MASKING)
def test_no_position_before_or_behind_the_records_is_masked(way: Any) -> None:
    records = [Record(Kind.EVENT, 0, 0, TRACE_ID, event())]
    assert [way(records, at, masks()) for at in (-1, 0, 1, 5)] == [-1, 1, 1, 5]
    assert way([], 0, masks()) == 0


def test_compiled_search_takes_records_only() -> None:
    if IMPLEMENTATION != COMPILED:
        return
    for each in (None, (), (1, 2), ["no", "tuple", 0, b"", b""]):
        with pytest.raises(TypeError):
            unmasked([each], 0, masks())  # type: ignore[list-item]
