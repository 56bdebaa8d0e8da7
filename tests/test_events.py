"""Usual records come into their traces in one call, and nothing differs from feeding each."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import OTHER_RING, OTHER_TRACE_ID, RING, TRACE_ID, added, closed, event, label, opened, own_runner

from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.body import Body
from epsagon_fast.collector.assembling.events import (
    IMPLEMENTATION,
    pure_strays,
    pure_take,
    pure_unmasked,
    pure_whole,
    strays,
    take,
    unmasked,
    whole,
)
from epsagon_fast.collector.assembling.masks import Masks
from epsagon_fast.collector.assembling.open_trace import NO_NEWS
from epsagon_fast.collector.assembling.open_traces import OpenTraces
from epsagon_fast.compiled import COMPILED
from epsagon_fast.protocol import (
    CLOSE_PAYLOAD,
    NO_TRACE,
    NOT_MEASURED,
    SHORTEN,
    STRIP,
    UNCHANGED,
    UNFINISHED,
    Kind,
    Record,
)

UNKNOWN_ID = bytes(16)
LIMIT_BYTES = 2000
WAYS = (take, pure_take)
APPLICATIONS: list[tuple[str, list[str]]] = [("a", []), ("ab", []), ("a", ["card"]), ("b", ["card", "pin"])]
ERRORS = [Record(Kind.ERROR, 0, 0, TRACE_ID, b'{"type":"E"}'), Record(Kind.EXCEPTION, 0, 0, TRACE_ID, b'{"type":"E"}')]

# Records as a ring may bring them, broken payloads too; most are plain events, and some trace gets full.
EVENTS = st.builds(
    Record,
    st.sampled_from([int(Kind.EVENT)] * 8 + list(map(int, Kind)) + [0, 255]),
    st.sampled_from([0] * 8 + [1, 128, 255]),
    # Only a CLOSE has a number.
    st.just(0),
    st.sampled_from([TRACE_ID, TRACE_ID, OTHER_TRACE_ID, UNKNOWN_ID]),
    st.one_of(
        st.sampled_from([b"", b"{", b"{}", event(), event(1, k="v" * 300), event(2, k="v" * 1500)]),
        st.integers(0, 700).map(bytes),
    ),
)
RUNNERS: list[Any] = [None, own_runner(), own_runner(card="1234"), {}, {"resource": {"metadata": {"labels": "own"}}}, 1]
ODD_OPENS = [
    b"",
    b"{}",
    b'{"config":{},"platform":"","runner":null,"opened_at":1.5}',
    opened().payload.replace(b'"opened_at":1700000000.0', b'"opened_at":17'),
    opened().payload.replace(b'"opened_at":1700000000.0', b'"opened_at":1.5,"opened_at":2.5,"more":{}'),
    opened(own_runner(deep="{" * 300)).payload,
    opened().payload.replace(b'"runner":null', b'"runner":null,"config":{}'),
    opened().payload[:-1],
]
OPENS = st.builds(
    lambda trace_id, payload: Record(Kind.OPEN, 0, 0, trace_id, payload),
    st.sampled_from([TRACE_ID, OTHER_TRACE_ID]),
    st.one_of(
        st.builds(
            lambda runner, limit, trimming, keys: (
                opened(runner, max_trace_size_bytes=limit, trimming=trimming, ignored_keys=keys).payload
            ),
            st.sampled_from(RUNNERS),
            st.sampled_from([300, LIMIT_BYTES, LIMIT_BYTES, 65536]),
            st.sampled_from([STRIP, SHORTEN]),
            st.sampled_from([[], ["card"]]),
        ),
        st.sampled_from(ODD_OPENS),
    ),
)
CLOSES = st.builds(
    Record,
    st.just(int(Kind.CLOSE)),
    st.sampled_from([0, 0, 0, UNFINISHED]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([TRACE_ID, OTHER_TRACE_ID]),
    st.one_of(
        st.builds(CLOSE_PAYLOAD.pack, st.sampled_from([0.5, NOT_MEASURED]), st.sampled_from([UNCHANGED, UNCHANGED, 2])),
        st.sampled_from([b"", b"short"]),
    ),
)
NEWS = [b"", b"[]", b"{}", b'{"resource":{"metadata":{"route":"/"}}}', b'{"resource":7,"error_code":2}']
NEWS += [
    b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"resource":{"metadata":{"url":"' + b"x" * 40_000 + b'"}}}',
    b'{"exception":null,"resource":{"name":"y"}}',
]
LABELS = [label("k", "v"), label("k", "other"), label("ä", "ü"), label("n", 7), label("n", 7.5), label("is", True)]
LABELS += [label(key, "x" * 4000) for key in "abc"]
ODD_LABELS = [b"", b"{}", b"[1]", b'["k",null]', b'["k",NaN]', b'[1,"v"]', b'["k","v","w"]', b'["k",%d]' % 2**70]
UPDATES = st.builds(
    lambda trace_id, record: record._replace(trace_id=trace_id),
    st.sampled_from([TRACE_ID, TRACE_ID, OTHER_TRACE_ID, UNKNOWN_ID]),
    st.sampled_from(
        [
            *(Record(Kind.RUNNER, 0, 0, TRACE_ID, payload) for payload in NEWS),
            *(Record(Kind.LABEL, 0, 0, TRACE_ID, payload) for payload in ODD_LABELS),
            *LABELS,
        ]
    ),
)
USUAL = [opened(own_runner(), ignored_keys=["card"]), Record(Kind.EVENT, 0, 0, TRACE_ID, event()), closed(0.5)]
RECORDS = st.lists(st.one_of(EVENTS, OPENS, UPDATES, CLOSES, st.sampled_from(USUAL)), max_size=30)


def slots_of(what: object) -> dict[str, Any]:
    """Return all that an object holds."""
    names = [name for cls in type(what).__mro__ for name in getattr(cls, "__slots__", ())]
    return {name: getattr(what, name) for name in names if name not in ("counters", "_counters")}


def shown(assembly: Assembly) -> Any:
    """Return all that is in an assembly."""
    found = []
    for _, trace in sorted(assembly._open.items()):
        held = slots_of(trace)
        account = held.pop("account")
        found.append((held | {"stream": slots_of(trace.stream)}, slots_of(account), type(trace.stream)))
        # All that is told of it can be read.
        assert account is assembly.accounts._accounts[trace.ring_id]
    by_ring = {each: trace for traces in assembly._open_of.values() for each, trace in traces.items()}
    assert by_ring == dict(assembly._open.items())
    closing = [trace.trace_id for trace in assembly._closed]
    return found, closing, assembly.counters, assembly.lost, assembly.held_bytes, dict(assembly.masks)


def fed(batches: list[tuple[bytes, list[Record]]], way: Any) -> tuple[Any, list[bytes], list[Any]]:
    """Feed a pass's records as the loop does. Return what came of it, whose outcome is waited for, and the bodies."""
    assembly, answered = Assembly(), list[bytes]()
    for ring_id, records in batches:
        masked = [assembly.masked(record) for record in records]
        books = (
            assembly._open,
            assembly._open_of,
            assembly._closed,
            assembly._is_new,
            assembly.accounts,
            assembly.counters,
        )
        at = 0
        while (at := way(masked, at, ring_id, *books, answered)) < len(records):
            assembly.feed(ring_id, masked[at], 0.0)
            if masked[at].ordinal and assembly.is_closed_by(masked[at].trace_id, ring_id):
                answered.append(masked[at].trace_id)
            at += 1
    found = shown(assembly)
    assembly.end_pass(1.0)
    return found, answered, [body.build(each) for each in assembly.end_pass(2.0)]


def none(records: list[Record], at: int, *_: Any) -> int:
    """Take no record, so that each is fed."""
    return at


@given(st.lists(st.tuples(st.sampled_from([RING, OTHER_RING]), RECORDS), max_size=3))
@example([(RING, [*USUAL, *USUAL])])
@example([(RING, USUAL[:2]), (OTHER_RING, USUAL[1:]), (RING, USUAL[1:])])
@example([(RING, [*USUAL[:2], *(Record(Kind.RUNNER, 0, 0, TRACE_ID, news) for news in NEWS), *LABELS])])
@example([(RING, [opened(), Record(Kind.RUNNER, 0, 0, TRACE_ID, NEWS[3])])])
@example([(RING, [opened(max_trace_size_bytes=LIMIT_BYTES), *[USUAL[1]._replace(payload=b"x" * 900)] * 4])])
def test_taking_records_together_is_feeding_each(batches: list[tuple[bytes, list[Record]]]) -> None:
    expected = fed(batches, none)
    for way in WAYS:
        assert fed(batches, way) == expected
    assert not NO_NEWS


@given(
    st.sampled_from(RUNNERS[:-1]),
    st.lists(st.sampled_from([event(), event(1, "runner"), event(2, k="v" * 900)]), max_size=4),
    st.lists(st.sampled_from([label("k", "v"), label("n", 7), *ERRORS]), max_size=2),
    st.sampled_from([None, '{"late":1}']),
    st.sampled_from([500, LIMIT_BYTES, 65536]),
    st.sampled_from(["", "otlp+", "otlp-protobuf+"]),
)
@example(own_runner(), [event()], [], None, 65536, "")
@example(own_runner(), [event()], [], None, 65536, "otlp+")
@example(own_runner(), [event()], [Record(Kind.EVENT, 0, 0, TRACE_ID, b"{"), ERRORS[1]], None, 65536, "otlp+")
def test_whole_body_is_the_one_that_is_built_of_parts(
    runner: Any,
    events: list[bytes],
    others: list[Record],
    dropped_records: str | None,
    limit_bytes: int,
    form: str,
) -> None:
    assembly = Assembly()
    opening = opened(runner, max_trace_size_bytes=limit_bytes, collector_url=f"{form}http://127.0.0.1:1/")
    for record in [opening, *map(added, events), *others, closed(0.5)]:
        assembly.feed(RING, record, 0.0)
    (trace,) = assembly._open.values()
    trace.dropped_records = dropped_records
    try:
        usual = whole(trace)
    except ValueError:
        # So does the longer way, and what is not JSON is taken out.
        trace.stream.discard_broken()
        usual = whole(trace)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(body, "whole", pure_whole)
        built = body.build(trace)
    if usual is not None:
        assert built == Body(*usual, False, 0, 0, 0, False)
    elif IMPLEMENTATION == COMPILED:
        # Nothing usual is left.
        is_plain = runner and "metadata" in runner.get("resource", {})
        assert built.trimmed or others or dropped_records or not is_plain


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_usual_record_is_left_to_be_fed(way: Any) -> None:
    plain = Record(Kind.EVENT, 0, 0, TRACE_ID, event())
    others = [label("k", 0.5), closed(1.0)._replace(flags=UNFINISHED), plain._replace(flags=1), *ERRORS]
    others += [plain._replace(payload=b""), plain._replace(trace_id=UNKNOWN_ID), plain._replace(payload=bytes(3000))]
    for other in others:
        assembly = opened_assembly()
        assert take_in(way, assembly, [plain, other, plain]) == 1
        assert assembly._open[TRACE_ID].stream.events == [plain.payload]
        assert take_in(way, assembly, [plain, other, plain], 2) == 3


def opened_assembly() -> Assembly:
    assembly = Assembly()
    assembly.feed(RING, opened(max_trace_size_bytes=LIMIT_BYTES), 0.0)
    return assembly


def take_in(
    way: Any,
    assembly: Assembly,
    records: list[Any],
    at: int = 0,
    ring_id: bytes = RING,
    answered: list[bytes] | None = None,
) -> int:
    """Take in records with one implementation, as Assembly.take does."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("epsagon_fast.collector.assembling.assembly.take", way)
        return assembly.take(ring_id, records, at, [] if answered is None else answered)


def test_traces_whose_opens_begin_alike_are_told_apart() -> None:
    texts = [opened(own_runner(card="1"), app_name=name, ignored_keys=keys).payload for name, keys in APPLICATIONS]
    # Each of them after itself and after each other one, and cut off before, within and behind the runner's name.
    order = [text for one in texts for other in texts for text in (one, other)]
    order += [texts[0][:at] for at in range(len(texts[0]))]
    order.append(texts[0])
    records = [Record(Kind.OPEN, 0, 0, number.to_bytes(16, "big"), text) for number, text in enumerate(order, 1)]
    found = []
    for take_all, pass_over in ((take, unmasked), (pure_take, pure_unmasked)):
        assembly = Assembly()
        passed = [pass_over([record], 0, assembly.masks) for record in records]
        for record in records:
            if not take_in(take_all, assembly, [record]):
                assembly.feed(RING, record, 0.0)
        found.append((passed, {each: (trace.config, trace.runner) for each, trace in assembly._open.items()}))
    assert found[0] == found[1]


@pytest.mark.parametrize("way", WAYS)
def test_no_place_outside_the_records_is_looked_at(way: Any) -> None:
    plain = Record(Kind.EVENT, 0, 0, TRACE_ID, event())
    places = (1, 2, 2**62, -1)
    assert [take_in(way, opened_assembly(), [plain], at) for at in places] == [*places]


@pytest.mark.skipif(IMPLEMENTATION != COMPILED, reason="Python looks itself")
def test_what_is_no_record_is_refused_before_anything_is_taken() -> None:
    plain = Record(Kind.EVENT, 0, 0, TRACE_ID, event())
    odd: list[Any] = [None, (), (1,), tuple(plain)[:4], plain._replace(payload="text"), plain._replace(kind=None)]
    odd += [plain._replace(flags="0"), plain._replace(trace_id=[]), [*plain], plain._replace(kind=2**70)]
    for each in odd:
        assembly = opened_assembly()
        with pytest.raises((TypeError, OverflowError)):
            take_in(take, assembly, [plain, each])
        assert not assembly._open[TRACE_ID].stream.events


@given(RECORDS)
def test_strays_are_the_traces_with_a_record_before_their_open(records: list[Record]) -> None:
    ids = {record.trace_id for record in records} - {NO_TRACE}
    first = {each: next(record.kind for record in records if record.trace_id == each) for each in ids}
    expected = {each for each, kind in first.items() if kind != Kind.OPEN}
    assert strays(records, OpenTraces()) == pure_strays(records, {}) == expected
    traces = opened_assembly()._open
    expected -= {TRACE_ID}
    assert strays(records, traces) == pure_strays(records, dict(traces.items())) == expected


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
        if each.kind == Kind.OPEN
        or (
            each.trace_id == TRACE_ID
            and each.kind != Kind.CLOSE
            and (each.kind == Kind.LABEL or b"secret" in each.payload or b"broken" in each.payload)
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
