"""Trimming while the records come: the bytes are those of trimming at the end, and memory is bounded."""

import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import times
from records import RING, TRACE_ID, added, closed, event, exception_fields, label, opened, own_runner, record
from strategies import trace_records

from epsagon_fast import __version__, cutting
from epsagon_fast.collector.assembling import body, stream
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.assembling.stream import ENTRY_BYTES
from epsagon_fast.masking import ExactMask
from epsagon_fast.protocol import FROM_RUNNER, MAX_LABELS_BYTES, SHORTEN, STRONG_KEYS, Kind, Record
from epsagon_fast.trimming import LEAST_LEVEL_BYTES, TraceTooBig, Trimmed, _reference, trim

MIB = 1024 * 1024
VERY_MANY = times(1_000_000, 200_000)


@pytest.fixture(autouse=True, scope="module")
def stripped_once() -> Iterator[None]:
    """Let the oracle remember what is left of an event, which it would find out anew for each limit."""
    with pytest.MonkeyPatch.context() as patch:
        remembering = lru_cache(maxsize=256)(_reference._without_weak_metadata)
        patch.setattr(_reference, "_without_weak_metadata", remembering)
        yield


def fed(records: list[Record], passes: frozenset[int] = frozenset()) -> Assembly:
    """Feed records, with a pass ending after each number in `passes`, checking at every step what must always hold."""
    assembly = Assembly()
    for number, each in enumerate(records):
        assembly.feed(RING, assembly.masked(each), 0.0)
        assert within_its_limit(assembly)
        if number in passes:
            assert assembly.end_pass(0.0) == []
    return assembly


def within_its_limit(assembly: Assembly) -> bool:
    for trace in assembly._open.values():
        content = trace.stream
        kept = (*content.events, *content.exceptions)
        assert content.floor_bytes == trace.envelope.size_bytes - 2 + sum(map(len, kept)) + len(kept)
        assert content.held_bytes == content.floor_bytes + ENTRY_BYTES * len(kept)
        assert content.stripped_count <= len(content.events)
        # The envelope alone may be over it.
        assert not kept or content.floor_bytes <= max(content.hold_bytes, content.limit_bytes)
    assert assembly.held_bytes == sum(trace.held_bytes for trace in assembly._open.values())
    return True


def finished(assembly: Assembly) -> OpenTrace:
    assembly.feed(RING, closed(), 0.0)
    assembly.end_pass(0.0)
    (trace,) = assembly.end_pass(0.0)
    assert assembly.held_bytes == 0
    return trace


def test_trace_without_records_is_sent() -> None:
    assert body.build(finished(fed([opened()]))) == at_the_end([opened()])


@settings(max_examples=300, deadline=None)
@given(trace_records(), st.frozensets(st.integers(0, 40), max_size=4))
def test_body_is_that_of_trimming_at_the_end(records: list[Record], passes: frozenset[int]) -> None:
    trace = finished(fed(records, passes))
    result = body.build(trace)
    assert result == at_the_end(records)
    assert result.size_bytes <= json.loads(records[0].payload)["config"]["max_trace_size_bytes"]
    assert body.build(trace) == result


def shaped(shape: str, *last: Record) -> list[Record]:
    """Return a small trace."""
    weak = [added(event(number, weak="x" * 400 * number, region="eu")) for number in range(4)]
    strong = [added(event(number, item_hash="y" * 200)) for number in range(4, 7)]
    thrown = record(Kind.EXCEPTION, exception_fields("m" * 50))
    runner = [added(event("runner", "runner", weak="z" * 60))] if shape == "among its events" else []
    first = opened(own_runner(weak="z" * 60) if shape == "of its own" else None)
    labels = [label("k", "x" * 200), label("k", 1)]
    return [first, *weak[:2], *runner, *labels, *weak[2:], thrown, *strong, *last]


def check_limit(limit: int, records: list[Record]) -> None:
    config = orjson.loads(records[0].payload)
    config["config"]["max_trace_size_bytes"] = limit
    records[0] = record(Kind.OPEN, config)
    result = body.build(finished(fed(records)))
    assert result == at_the_end(records)
    assert result.size_bytes <= limit


def shortening(records: list[Record], **more: Any) -> list[Record]:
    """Return the same trace, of which the longest values are shortened."""
    whole = orjson.loads(records[0].payload)
    whole["config"] |= {"trimming": SHORTEN, **more}
    return [record(Kind.OPEN, whole), *records[1:]]


@given(trace_records(), st.frozensets(st.integers(0, 40), max_size=4))
def test_body_is_that_of_shortening_at_the_end(records: list[Record], passes: frozenset[int]) -> None:
    records = shortening(records)
    trace = finished(fed(records, passes))
    result = body.build(trace)
    assert result == at_the_end(records)
    assert result.size_bytes <= json.loads(records[0].payload)["config"]["max_trace_size_bytes"]
    assert body.build(trace) == result


@pytest.mark.parametrize("shape", ["of its own", "among its events", "none"])
def test_body_is_that_of_shortening_at_the_end_at_every_limit(shape: str) -> None:
    records = shortening(shaped(shape, added(event(8, weak="\u00e9" * 900, more="x" * 90))))
    for limit in range(1, at_the_end(records).size_bytes + 2, 23):
        check_limit(limit, records)


@pytest.mark.parametrize("shape", ["of its own", "none"])
def test_exceptions_of_the_trace_are_shortened_with_its_events(shape: str) -> None:
    """Each as often as the levels fall, wherever it stands; their ends stay where events would have been stripped."""
    long = record(Kind.EXCEPTION, exception_fields("m" * 900, traceback="begin" + "t" * 4000 + "end"))
    records = shortening([*shaped(shape, long), added(event(8, weak="w" * 900)), long])
    for limit in range(1500, at_the_end(records).size_bytes + 2, 211):
        check_limit(limit, records)
    check_limit(6500, records)
    sent = orjson.loads(body.build(finished(fed(records))).data or b"")
    assert sent["exceptions"][1]["traceback"].startswith("begint") and sent["exceptions"][1]["traceback"].endswith(
        "tend"
    )
    assert all(each["resource"]["metadata"] for each in sent["events"][:4])


@pytest.mark.parametrize("limit", [600, 3000, 65_536])
def test_an_exception_that_is_not_json_becomes_an_empty_one_where_exceptions_are_read(limit: int) -> None:
    broken = Record(Kind.EXCEPTION, 0, 0, TRACE_ID, b'{"message":"a')
    records = shortening([opened(own_runner(), max_trace_size_bytes=limit)])
    records += [broken, *[added(event(number, weak="x" * 90)) for number in range(900)], broken]
    trace = finished(fed(records))
    sent = orjson.loads(body.build(trace).data or b"")
    assert len(sent["exceptions"]) + int(sent["events"][-1]["resource"]["metadata"].get("dropped_exceptions", 0)) == 2
    assert trace.counters["malformed"] >= 1


@pytest.mark.parametrize("shape", ["of its own", "among its events", "none"])
def test_body_is_that_of_trimming_at_the_end_at_every_limit(shape: str) -> None:
    records = shaped(shape)
    for limit in range(1, at_the_end(records).size_bytes + 2):
        check_limit(limit, records)


@pytest.mark.parametrize("shape", ["of its own", "among its events", "none"])
def test_body_is_that_of_trimming_at_the_end_where_tracebacks_are_cut(shape: str) -> None:
    long = exception_fields(traceback="t" * 12_000)
    failed = [record(Kind.EXCEPTION, long), added(event(7, exception=long, weak="x" * 90))]
    records = shaped(shape, *failed, *failed)
    for limit in range(4000, at_the_end(records).size_bytes, 101):
        check_limit(limit, records)


def at_the_end(records: list[Record]) -> body.Body:
    """The same by another way: keep everything, decode everything, and write the whole body for every question."""
    late = _AtTheEnd(json.loads(records[0].payload))
    for each in records[1:]:
        late.take(each)
    return late.built()


class _AtTheEnd:
    def __init__(self, opened: dict[str, Any]) -> None:
        self.config = opened["config"]
        self.platform = opened["platform"]
        self.mask = ExactMask(self.config["ignored_keys"])
        self.runner = opened["runner"]
        self.mask.runner(self.runner)
        self.place: int | None = None
        self.events: list[dict[str, Any]] = []
        self.exceptions: list[dict[str, Any]] = []
        self.labels: dict[str, Any] = {}
        self.dropped_labels = 0
        self.error: dict[str, Any] | None = None
        self.news: list[dict[str, Any]] = []

    def take(self, each: Record) -> None:
        value = json.loads(each.payload)
        if each.kind == Kind.EVENT:
            self.mask.runner(value)
            if each.flags == FROM_RUNNER and self.runner is None:
                self.runner, self.place = value, len(self.events)
            else:
                self.events.append(value)
        elif each.kind == Kind.EXCEPTION:
            self.exceptions.append(value)
        elif each.kind == Kind.LABEL:
            self.label(*self.mask.label(*value))
        elif each.kind == Kind.ERROR:
            self.error = value
        elif each.kind == Kind.RUNNER:
            self.mask.runner(value)
            self.news.append(value["resource"]["metadata"])

    def label(self, key: str, value: Any) -> None:
        labels = {**self.labels, key: value}
        sizes = (len(name) + (len(held.encode()) if isinstance(held, str) else 64) for name, held in labels.items())
        if sum(sizes) <= MAX_LABELS_BYTES:
            self.labels = labels

    def built(self) -> body.Body:
        runner = self.runner
        if runner is not None:
            own = runner["resource"]["metadata"]
            for news in self.news:
                own.update(news)
            own["labels"] = sorted_json(self.labels)
            if self.error:
                runner.update(error_code=1, exception=self.error)
        limit = self.config["max_trace_size_bytes"]
        whole = self.whole(self.events, self.exceptions, runner)
        if len(whole) <= limit:
            return body.Body(whole, len(whole), False, 0, 0, 0)
        return self.trimmed(limit, len(whole)) or self.cut(limit, len(whole))

    @property
    def shortens(self) -> bool:
        return self.config.get("trimming") == SHORTEN

    def trimmed(self, limit: int, before: int) -> body.Body | None:
        events = self.with_runner(self.events, self.runner)
        encoded = [orjson.dumps(each) for each in events]
        # Exceptions have a level as those of events have it.
        thrown = [orjson.dumps({"exception": each}) for each in self.exceptions] if self.shortens else []
        outside = len(self.whole([], [] if self.shortens else self.exceptions, None))
        more = sum(len(b'{"exception":}') for _ in thrown) + (1 if thrown and encoded else 0)
        try:
            rule = _reference.shorten if self.shortens else _reference.trim
            reserve = 20 if self.runner else 0
            kept = rule(encoded + thrown, limit + more, envelope_bytes=outside, reserve_bytes=reserve)
        except TraceTooBig:
            return None
        decoded = [json.loads(each) for each in kept.events[: len(encoded)]]
        exceptions = [json.loads(each)["exception"] for each in kept.events[len(encoded) :]] or self.exceptions
        for each, source in zip(decoded, events, strict=True):
            if source is self.runner:
                each["resource"]["metadata"]["is_trimmed"] = "true"
        return body.Body(self.whole(decoded, exceptions, None), before, True, kept.stripped_count, 0, 0)

    def cut(self, limit: int, before: int) -> body.Body:
        if self.shortens:
            encoded = [orjson.dumps(each) for each in self.events]
            self.events = [json.loads(each) for each in _reference.at_level(encoded, LEAST_LEVEL_BYTES)]
            thrown = [orjson.dumps({"exception": each}) for each in self.exceptions]
            least = _reference.at_level(thrown, LEAST_LEVEL_BYTES)
            self.exceptions = [json.loads(each)["exception"] for each in least]
        for each in (*self.events, *([self.runner] if self.runner else ())):
            metadata = each["resource"]["metadata"]
            for key in [key for key in metadata if key not in STRONG_KEYS]:
                del metadata[key]
            each.update(cutting.texts(each, cutting.TEXT_BYTES))
        for each in self.exceptions:
            each.update(cutting.texts(each, cutting.TEXT_BYTES))
        self.cut_labels()
        events, exceptions = len(self.events), len(self.exceptions)
        # Events go first, then exceptions, each from the end on.
        choices = [(dropped, 0) for dropped in range(events + 1)]
        choices += [(events, dropped) for dropped in range(exceptions + 1)]
        for gone in choices:
            whole = self.marked(events - gone[0], exceptions - gone[1])
            if len(whole) <= limit:
                return body.Body(whole, before, True, events + (self.runner is not None), *gone)
        return self.stub(limit, before) or body.Body(None, before, True, 0, events, exceptions)

    def cut_labels(self) -> None:
        """Keep the longest prefix of the labels, each cut, of which the JSON text has at most 1 KiB as JSON."""
        if self.runner is None:
            return
        kept = {key: cutting.texts(value, 256) for key, value in self.labels.items()}
        while len(orjson.dumps(sorted_json(kept))) - 2 > cutting.TEXT_BYTES:
            kept.popitem()
        self.runner["resource"]["metadata"]["labels"] = sorted_json(kept)
        self.dropped_labels = len(self.labels) - len(kept)

    def stub(self, limit: int, before: int) -> body.Body | None:
        if self.runner is None:
            return None
        events, exceptions = len(self.events), len(self.exceptions)
        marks = self.marks(0, 0)
        room = limit - len(self.whole([], [], None)) - len(orjson.dumps(marks)) + 1
        data = cutting.fitted_stub(self.runner, room)
        if data is None:
            return None
        runner = json.loads(data)
        runner["resource"]["metadata"] = marks
        whole = orjson.dumps(orjson.loads(self.whole([], [], runner)))
        return body.Body(whole, before, True, events + 1, events, exceptions)

    def marked(self, events: int, exceptions: int) -> bytes:
        runner = None
        if self.runner is not None:
            marks = self.marks(events, exceptions)
            resource = self.runner["resource"]
            runner = {**self.runner, "resource": {**resource, "metadata": {**resource["metadata"], **marks}}}
        return self.whole(self.events[:events], self.exceptions[:exceptions], runner)

    def marks(self, events: int, exceptions: int) -> dict[str, str]:
        marks = {"is_trimmed": "true"}
        if events < len(self.events):
            marks["dropped_events"] = str(len(self.events) - events)
        if exceptions < len(self.exceptions):
            marks["dropped_exceptions"] = str(len(self.exceptions) - exceptions)
        if self.dropped_labels:
            marks["dropped_labels"] = str(self.dropped_labels)
        return marks

    def with_runner(self, events: list[Any], runner: Any) -> list[Any]:
        place = len(events) if self.place is None else self.place
        return events if runner is None else [*events[:place], runner, *events[place:]]

    def whole(self, events: list[Any], exceptions: list[Any], runner: Any) -> bytes:
        return orjson.dumps(
            {
                "app_name": self.config["app_name"],
                "token": self.config["token"],
                "events": self.with_runner(events, runner),
                "exceptions": exceptions,
                "version": __version__,
                "platform": self.platform,
            }
        )


def sorted_json(labels: dict[str, Any]) -> str:
    return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode()


def big_event(number: int) -> bytes:
    return event(number, **{f"key{index}": f"{number:080}" for index in range(10)})


def test_a_trace_of_very_many_events_stays_small() -> None:
    assembly = fed([opened(own_runner(), max_trace_size_bytes=512 * 1024)])
    head, tail = big_event(0).split(b"event-0")
    assert len(head + tail) > 1000
    payloads = (b"%bevent-%d%b" % (head, number, tail) for number in range(VERY_MANY))
    tracemalloc.start()
    try:
        # Tracing makes it ten times slower; by then the trace has long been full.
        for payload in islice(payloads, 20_000):
            assembly.feed(RING, Record(Kind.EVENT, 0, 0, TRACE_ID, payload), 0.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    assert peak < 4 * assembly.held_bytes
    held_bytes = assembly.held_bytes
    for payload in payloads:
        assembly.feed(RING, Record(Kind.EVENT, 0, 0, TRACE_ID, payload), 0.0)
    assert assembly.held_bytes == held_bytes
    result = body.build(finished(assembly))
    assert result.data is not None
    sent = json.loads(result.data)["events"]
    assert [each["id"] for each in sent[:-1]] == [f"event-{number}" for number in range(len(sent) - 1)]
    assert sent[-1]["resource"]["metadata"]["dropped_events"] == str(result.dropped_events)
    assert len(sent) - 1 + result.dropped_events == VERY_MANY
    assert assembly.counters["too_big"] == result.dropped_events
    assert result.size_before_bytes > 1000 * VERY_MANY


@pytest.mark.parametrize("late", ["event", "runner"])
def test_what_comes_after_an_early_level_is_brought_to_it(late: str) -> None:
    """Cuts between escapes leave room at a level. What comes later must not have it, since it could not at the end."""
    fitted = 0
    for limit in range(30_000, 30_900, 60):
        runner = own_runner(weak="r" * (180 if late == "runner" else 9))
        records = shortening([opened(runner, max_trace_size_bytes=limit)])
        records += [added(event(number, **{f"k{n}": "\x01" * 60 for n in range(10)})) for number in range(16)]
        records += [added(event(16, weak="l" * 180))] * (late == "event")
        trace = finished(fed(records))
        assert trace.stream.level_bytes > LEAST_LEVEL_BYTES
        assert body.build(trace) == at_the_end(records)
        fitted += trace.stream.level_bytes < 180 and trace.stream.floor_bytes < limit - 100
    assert fitted > 3


def test_a_long_trace_that_is_shortened_stays_small() -> None:
    (first,) = shortening([opened(own_runner(), max_trace_size_bytes=64 * 1024)])
    assembly = fed([first])
    levels = []
    for number in range(200):
        long = event(number, sql="x" * (50 if number % 8 else 9000 + number))
        assembly.feed(RING, Record(Kind.EVENT, 0, 0, TRACE_ID, long), 0.0)
        assert assembly.held_bytes < 3 * 64 * 1024
        levels += [each.stream.level_bytes for each in assembly._open.values()]
    # It only falls.
    assert levels == [0] * levels.count(0) + sorted(filter(None, levels), reverse=True)
    assert len(set(levels)) > 3
    result = body.build(finished(assembly))
    assert 0.99 * 64 * 1024 < result.size_bytes <= 64 * 1024


def test_events_without_a_byte_to_strip_are_bounded_with_what_holds_them() -> None:
    assembly = fed([opened(max_trace_size_bytes=512 * 1024)])
    for _ in range(400_000):
        assembly.feed(RING, Record(Kind.EVENT, 0, 0, TRACE_ID, b"{}"), 0.0)
    assert assembly.held_bytes < 512 * 1024 * (2 + 1 + ENTRY_BYTES) // 3 + MIB


def test_exceptions_and_a_growing_runner_are_bounded() -> None:
    assembly = fed([opened(own_runner())])
    thrown = record(Kind.EXCEPTION, exception_fields("x" * 500, "t" * 5000))
    for number in range(2000):
        assembly.feed(RING, thrown, 0.0)
        assembly.feed(RING, record(Kind.RUNNER, {"resource": {"metadata": {f"key{number}": "x" * 5000}}}), 0.0)
        assembly.feed(RING, label(f"key{number}", "x" * 100), 0.0)
    assert assembly.held_bytes < MIB
    assert assembly.counters.keys() == {"runner_full", "labels_full", "cut"}
    # What its process will tell.
    assert assembly.lost[RING] == {name: assembly.counters[name] for name in ("runner_full", "labels_full")}
    assert body.build(finished(assembly)).data is not None


def test_a_runner_that_is_written_over_again_and_again_is_never_full() -> None:
    assembly = fed([opened(own_runner())])
    for number in range(1000):
        assembly.feed(RING, record(Kind.RUNNER, {"resource": {"metadata": {"key": f"{number:05000}"}}}), 0.0)
    assert not assembly.counters
    data = body.build(finished(assembly)).data
    assert data is not None
    assert json.loads(data)["events"][0]["resource"]["metadata"]["key"] == f"{999:05000}"


def test_each_event_is_stripped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    visits: Counter[bytes] = Counter()

    def counted(events: list[bytes], limit_bytes: int) -> Trimmed:
        visits.update(events)
        return trim(events, limit_bytes)

    monkeypatch.setattr(stream, "trim", counted)
    events = [big_event(number) for number in range(2000)]
    fed([opened(own_runner(), max_trace_size_bytes=128 * 1024), *map(added, events)])
    assert set(visits.values()) == {1}
    assert len(visits) > 500


def test_nothing_is_stripped_for_a_label_that_may_shrink_again() -> None:
    events = [added(big_event(number)) for number in range(4)]
    pushed = [opened(own_runner()), label("k", "x" * 9000), *events, label("k", "")]
    untrimmed = body.build(finished(fed(pushed)))
    limit = untrimmed.size_bytes
    exact = [opened(own_runner(), max_trace_size_bytes=limit), *pushed[1:]]
    assert body.build(finished(fed(exact))) == untrimmed
    assert not untrimmed.trimmed


def test_nothing_is_stripped_for_an_error_that_is_replaced() -> None:
    events = [added(big_event(number)) for number in range(4)]
    errors = [record(Kind.ERROR, exception_fields(message)) for message in ("x" * 9000, "")]
    untrimmed = body.build(finished(fed([opened(own_runner()), errors[0], *events, errors[1]])))
    first = opened(own_runner(), max_trace_size_bytes=untrimmed.size_bytes)
    assert body.build(finished(fed([first, errors[0], *events, errors[1]]))) == untrimmed
    assert not untrimmed.trimmed


def test_an_event_that_is_not_json_becomes_an_empty_one() -> None:
    broken = Record(Kind.EVENT, 0, 0, TRACE_ID, b'{"resource":{"metadata":{"weak":"' + b"x" * 3000)
    for limit in (1500, 4000):
        pushed = [opened(max_trace_size_bytes=limit), broken, *(added(big_event(number)) for number in range(3))]
        assembly = fed(pushed)
        data = body.build(finished(assembly)).data
        assert data is not None
        assert json.loads(data)["events"][0] == {}
        assert assembly.counters["malformed"] == 1
