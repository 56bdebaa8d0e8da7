"""Assembly: which records belong to which trace, who closes it, and when."""

import math
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from counting import opcodes
from hypothesis import given
from hypothesis import strategies as st
from records import (
    CONFIG,
    OPENED_AT,
    OTHER_RING,
    OTHER_TRACE_ID,
    RING,
    TRACE_ID,
    added,
    closed,
    event,
    exception_fields,
    label,
    opened,
    own_runner,
    record,
)

from epsagon_fast.collector.assembling import assembly as module
from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.accounts import TRACE_BYTES
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.events import pure_unmasked, unmasked
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.assembling.unopened import MAX_HELD_BYTES
from epsagon_fast.protocol import MAX_LABELS_BYTES, MAX_TRACE_BYTES, NO_TRACE, UNFINISHED, Kind, Record

NOW = OPENED_AT + 12.5
BYE = Record(Kind.BYE, 0, 0, NO_TRACE, b"")


@pytest.fixture
def assembly() -> Assembly:
    return Assembly()


def feed(assembly: Assembly, *records: Record, ring_id: bytes = RING) -> None:
    for each in records:
        assembly.feed(ring_id, assembly.masked(each), NOW)


def sent(ready: list[OpenTrace]) -> dict[str, Any]:
    (trace,) = ready
    data = body.build(trace).data
    assert data is not None
    decoded: dict[str, Any] = orjson.loads(data)
    return decoded


def finished(assembly: Assembly) -> dict[str, Any]:
    """End the pass in which the trace was closed, and the next one, which returns it."""
    assert assembly.end_pass(NOW) == []
    return sent(assembly.end_pass(NOW))


def ids(trace: dict[str, Any]) -> list[str]:
    return [each["id"] for each in trace["events"]]


def test_a_trace_is_returned_once_a_whole_pass_after_its_close(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), added(event()))
    assert assembly.end_pass(NOW) == assembly.end_pass(NOW) == []
    feed(assembly, closed())
    assert assembly.end_pass(NOW) == []
    (trace,) = assembly.end_pass(NOW)
    assert (trace.trace_id, trace.ring_id, trace.close_ordinal) == (TRACE_ID, RING, 1)
    assert (trace.config, trace.terms.debug) == (CONFIG, False)
    assert trace.terms.destination.url == CONFIG["collector_url"]
    assert assembly.end_pass(NOW) == []


def test_what_another_process_pushed_before_the_close_is_in_the_trace(assembly: Assembly) -> None:
    # Its ring is read before the opener's in each pass: its event is seen one pass later than the CLOSE.
    feed(assembly, opened(own_runner()), closed())
    assembly.end_pass(NOW)
    feed(assembly, added(event("child")), ring_id=OTHER_RING)
    assert ids(sent(assembly.end_pass(NOW))) == ["event-child", "event-runner"]


def test_records_that_come_before_their_open_are_held_for_a_whole_pass(assembly: Assembly) -> None:
    feed(assembly, added(event("first")), ring_id=OTHER_RING)
    assembly.end_pass(NOW)
    feed(assembly, added(event("second")), ring_id=OTHER_RING)
    assert TRACE_ID in assembly
    assert not assembly.is_open(TRACE_ID)
    feed(assembly, opened(own_runner()), added(event("third")), closed())
    assert ids(finished(assembly)) == ["event-first", "event-second", "event-third", "event-runner"]
    assert not assembly.counters


def test_held_records_are_masked_once_the_keys_are_known(assembly: Assembly) -> None:
    feed(assembly, added(event(pin="1234")), label("pin", 1234), ring_id=OTHER_RING)
    feed(assembly, opened(own_runner(), ignored_keys=["pin"]), closed())
    events = finished(assembly)["events"]
    assert [each["resource"]["metadata"] for each in events] == [{"pin": "****"}, {"labels": '{"pin":"****"}'}]


def test_records_of_a_trace_that_never_opens_are_orphans(assembly: Assembly) -> None:
    feed(assembly, added(event()), label("k", 1))
    held_bytes = assembly.held_bytes
    assert held_bytes > len(event())
    assembly.end_pass(NOW)
    assert (assembly.held_bytes, assembly.counters["orphan"]) == (held_bytes, 0)
    assembly.end_pass(NOW)
    assert (assembly.held_bytes, assembly.counters) == (0, {"orphan": 2})
    assert TRACE_ID not in assembly


def test_held_records_are_bounded(assembly: Assembly) -> None:
    for number in range(MAX_HELD_BYTES // 1000):
        feed(assembly, added(event(number, weak="x" * 1000)))
    assert MAX_HELD_BYTES - 2000 < assembly.held_bytes <= MAX_HELD_BYTES
    assert assembly.counters["orphan"] > 0


def test_what_waits_for_a_trace_that_is_settled_meanwhile_is_late(assembly: Assembly) -> None:
    assembly.feed(OTHER_RING, added(event()), 0.0)
    assembly.forget(TRACE_ID)
    assert assembly.counters == {"late": 1}
    assert assembly.lost == {OTHER_RING: {"late": 1}}


def test_what_comes_after_the_end_is_late(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), closed())
    finished(assembly)
    feed(assembly, added(event()), opened(own_runner()), closed())
    assembly.forget(TRACE_ID)
    feed(assembly, added(event()))
    assert assembly.counters == {"late": 4}
    assert assembly.held_bytes == assembly.open_count == 0


def test_settled_traces_are_remembered_up_to_a_bound(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    trace_ids = [bytes([number]) * 16 for number in range(3)]
    for trace_id in (*trace_ids, trace_ids[2]):
        assembly.forget(trace_id)
    for trace_id in trace_ids:
        feed(assembly, added(event(), trace_id))
    assert assembly.counters == {"late": 2}
    assert trace_ids[0] in assembly


def test_a_trace_needs_its_records_until_it_is_settled(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()))
    assert TRACE_ID in assembly
    feed(assembly, closed())
    finished(assembly)
    assert TRACE_ID in assembly
    assembly.forget(TRACE_ID)
    assert TRACE_ID not in assembly


def test_a_trace_that_is_settled_while_it_is_open_is_gone(assembly: Assembly) -> None:
    # As a replay finds it: the mark of a settled trace behind its records.
    feed(assembly, opened(own_runner(), ignored_keys=["pin"]), added(event()), closed())
    assembly.forget(TRACE_ID)
    assert assembly.end_pass(NOW) == assembly.end_pass(NOW) == []
    assert assembly.held_bytes == assembly.open_count == 0


def test_only_the_opener_closes(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()))
    feed(assembly, added(event("child")), closed(), BYE, ring_id=OTHER_RING)
    assembly.ring_died(OTHER_RING, NOW)
    assert assembly.end_pass(NOW) == assembly.end_pass(NOW) == []
    assert assembly.counters == {"misplaced": 1}
    assert not assembly.is_closed_by(TRACE_ID, OTHER_RING)
    feed(assembly, closed())
    assert assembly.is_closed_by(TRACE_ID, RING)
    assert not assembly.is_closed_by(TRACE_ID, OTHER_RING)
    assert ids(finished(assembly)) == ["event-child", "event-runner"]


def test_close_brings_duration_and_error_code_to_a_runner_of_its_own(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), closed(1.5, 2))
    runner = finished(assembly)["events"][0]
    assert (runner["duration"], runner["error_code"]) == (1.5, 2)


def test_close_leaves_what_it_does_not_say(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), record(Kind.RUNNER, {"duration": 3, "error_code": 1}), closed(math.nan, -1))
    runner = finished(assembly)["events"][0]
    assert (runner["duration"], runner["error_code"]) == (3, 1)


def test_close_leaves_a_runner_that_was_added(assembly: Assembly) -> None:
    feed(assembly, opened(), added(event("runner", "runner")), closed(1.5, 2, UNFINISHED))
    runner = finished(assembly)["events"][0]
    assert (runner["duration"], runner["error_code"]) == (0.25, 0)
    assert runner["resource"]["metadata"] == {"labels": "{}"}


def test_close_may_say_that_the_trace_is_unfinished(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), closed(flags=UNFINISHED))
    runner = finished(assembly)["events"][0]
    assert runner["resource"]["metadata"] == {"unfinished": "true", "labels": "{}"}
    assert (runner["error_code"], runner["exception"]) == (0, None)


def test_a_process_that_leaves_closes_what_it_opened_as_unfinished(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), added(event()), BYE)
    # Its ring goes away after that.
    assembly.ring_died(RING, NOW + 1)
    runner = finished(assembly)["events"][-1]
    assert runner["resource"]["metadata"] == {"unfinished": "true", "labels": "{}"}
    assert (runner["error_code"], runner["exception"], runner["duration"]) == (0, None, 12.5)


@pytest.mark.parametrize("pid", [None, 4711])
def test_a_process_that_dies_closes_what_it_opened_as_process_died(assembly: Assembly, pid: int | None) -> None:
    feed(
        assembly,
        opened(own_runner()),
        added(event()),
        record(Kind.OPEN, orjson.loads(opened().payload), OTHER_TRACE_ID),
    )
    feed(assembly, closed(trace_id=OTHER_TRACE_ID))
    assembly.ring_died(RING, NOW, pid)
    assembly.end_pass(NOW)
    first, second = sorted(assembly.end_pass(NOW), key=lambda trace: trace.trace_id)
    assert (first.close_ordinal, second.close_ordinal) == (0, 1)
    runner = sent([first])["events"][-1]
    assert (runner["error_code"], runner["duration"], runner["exception"]["type"]) == (2, 12.5, "ProcessDied")
    assert ("4711" in runner["exception"]["message"]) == (pid is not None)
    assert sent([second])["events"] == []


@pytest.mark.parametrize(
    ("limit", "code"), [("12.5", 3), ("12.7", 3), ("13", 2), ("never", 2), ("nan", 2), ("****", 2), (7, 3), (None, 2)]
)
def test_a_process_that_dies_at_its_time_limit_is_a_timeout(assembly: Assembly, limit: object, code: int) -> None:
    runner = own_runner()
    runner["resource"]["metadata"]["time_limit_s"] = limit
    feed(assembly, opened(runner))
    assembly.ring_died(RING, NOW)
    runner = finished(assembly)["events"][0]
    assert (runner["error_code"], runner["exception"]["type"]) == (code, "ProcessDied")


def test_an_error_set_before_its_process_died_is_kept_as_an_exception(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), record(Kind.ERROR, exception_fields("mine")))
    assembly.ring_died(RING, NOW)
    trace = finished(assembly)
    assert [each["message"] for each in trace["exceptions"]] == ["mine"]
    assert trace["events"][0]["exception"]["type"] == "ProcessDied"


def test_an_error_set_before_an_exception_left_the_block_is_kept_as_an_exception(assembly: Assembly) -> None:
    left = record(Kind.RUNNER, {"error_code": 2, "exception": exception_fields("left")})
    feed(assembly, opened(own_runner()), record(Kind.ERROR, exception_fields("mine")), left, closed(1.5, 2))
    trace = finished(assembly)
    assert [each["message"] for each in trace["exceptions"]] == ["mine"]
    assert (trace["events"][0]["error_code"], trace["events"][0]["exception"]["message"]) == (2, "left")


def test_death_closes_nothing_that_is_closed(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), closed(1.5, 0))
    assembly.ring_died(RING, NOW)
    runner = finished(assembly)["events"][0]
    assert (runner["duration"], runner["exception"]) == (1.5, None)


def test_a_clock_set_back_makes_no_negative_duration(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()))
    assembly.ring_died(RING, OPENED_AT - 3600)
    assert finished(assembly)["events"][0]["duration"] == 0


def test_a_second_open_or_close_changes_nothing(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), opened(), added(event()), closed(1.5), closed(7.5))
    assert assembly.counters == {"misplaced": 2}
    trace = finished(assembly)
    assert (ids(trace), trace["events"][1]["duration"]) == (["event-0", "event-runner"], 1.5)


def test_traces_do_not_mix(assembly: Assembly) -> None:
    feed(assembly, opened(), record(Kind.OPEN, orjson.loads(opened(token="other").payload), OTHER_TRACE_ID))
    feed(assembly, added(event(1)), added(event(2), OTHER_TRACE_ID), added(event(3)))
    feed(assembly, closed(), closed(trace_id=OTHER_TRACE_ID))
    assembly.end_pass(NOW)
    traces = {trace.terms.destination.token: sent([trace]) for trace in assembly.end_pass(NOW)}
    assert {token: ids(trace) for token, trace in traces.items()} == {
        "secret-token": ["event-1", "event-3"],
        "other": ["event-2"],
    }


def test_masked_is_the_same_record_unless_something_is_masked(assembly: Assembly) -> None:
    records = [opened(own_runner(), ignored_keys=["pin"]), added(event(user="bob")), label("k", 1), closed()]
    records += [record(Kind.RUNNER, {"resource": {"metadata": {"k": "v"}}}), record(Kind.ERROR, exception_fields())]
    assert all(assembly.masked(each) is each for each in records)
    secret = own_runner(pin="1234")
    changed = [opened(secret, ignored_keys=["pin"]), added(event(pin="1234")), label("pin", 1234)]
    changed.append(record(Kind.RUNNER, {"resource": {"metadata": {"pin": "1234"}}}))
    for each in changed:
        masked = assembly.masked(each)
        assert b"1234" not in masked.payload
        assert masked._replace(payload=each.payload) == each
        assert assembly.masked(masked) is masked


def test_an_open_makes_its_keys_known_before_it_is_fed(assembly: Assembly) -> None:
    assembly.masked(opened(ignored_keys=["pin"]))
    assert b"1234" not in assembly.masked(added(event(pin="1234"))).payload


def test_keys_are_those_of_the_records_own_trace(assembly: Assembly) -> None:
    feed(assembly, opened(ignored_keys=["pin"]))
    other = added(event(pin="1234"), OTHER_TRACE_ID)
    assert assembly.masked(other) is other


def test_what_cannot_be_searched_for_keys_is_kept_nowhere(assembly: Assembly) -> None:
    feed(assembly, opened(ignored_keys=["pin"]))
    for kind in (Kind.EVENT, Kind.LABEL, Kind.RUNNER):
        broken = assembly.masked(Record(kind, 0, 0, TRACE_ID, b'{"pin": 1234'))
        assert broken.payload == b""
        feed(assembly, broken)
    assert assembly.counters == {"malformed": 3}


def broken_opens() -> list[Any]:
    good = orjson.loads(opened(own_runner()).payload)
    broken: list[Any] = [[], {}, None, {**good, "config": []}, {**good, "runner": []}, {**good, "opened_at": "now"}]
    for name, value in (
        *(("token", 1), ("token", None), ("collector_url", {}), ("proxy_url", 1), ("send_timeout_s", "soon")),
        *(("max_trace_size_bytes", 0), ("max_trace_size_bytes", 2**30), ("max_trace_size_bytes", "1")),
        *(("ignored_keys", None), ("ignored_keys", [[]])),
    ):
        broken.append({**good, "config": {**good["config"], name: value}})
    broken.append({**good, "config": {**good["config"], "ignored_keys": ["pin"], "token": None}})
    return broken


@pytest.mark.parametrize("payload", [b"", b"\xff", *map(orjson.dumps, broken_opens())])
def test_a_broken_open_opens_nothing(assembly: Assembly, payload: bytes) -> None:
    feed(assembly, Record(Kind.OPEN, 0, 0, TRACE_ID, payload))
    assert assembly.counters == {"malformed": 1}
    assert assembly.held_bytes == assembly.open_count == len(assembly.masks) == 0


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Kind.EVENT, b""),
        (Kind.EXCEPTION, b""),
        *((Kind.LABEL, text) for text in (b"", b"{}", b'["k"]', b"[1,2]", b'["k",null]', b'["k",[]]', b'["k",NaN]')),
        (Kind.LABEL, b'["k",1e999]'),
        (Kind.LABEL, b'["\\ud800",1]'),
        (Kind.LABEL, b'["k",' + b"9" * 5000 + b"]"),
        *(
            (kind, text)
            for kind in (Kind.RUNNER, Kind.ERROR)
            for text in (b"", b"[]", b"\xff", b'{"a":' * 300 + b"1" + b"}" * 300)
        ),
    ],
)
def test_a_broken_record_changes_nothing(assembly: Assembly, kind: Kind, payload: bytes) -> None:
    feed(assembly, opened(own_runner()))
    held_bytes = assembly.held_bytes
    feed(assembly, Record(kind, 0, 0, TRACE_ID, payload))
    assert assembly.counters == {"malformed": 1}
    assert assembly.held_bytes == held_bytes
    feed(assembly, closed())
    assert finished(assembly)["events"][0]["resource"]["metadata"] == {"labels": "{}"}


def test_a_label_beyond_the_bound_is_lost_and_counted(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()))
    feed(assembly, label("k", 1), label("l", 1), label("large", "x" * MAX_LABELS_BYTES), ring_id=OTHER_RING)
    assert assembly.counters == {"labels_full": 1}
    assert assembly.lost == {OTHER_RING: {"labels_full": 1}}


def test_news_of_a_runner_beyond_the_bound_are_lost_and_counted(assembly: Assembly) -> None:
    large = record(Kind.RUNNER, {"resource": {"metadata": {"k": "x" * MAX_TRACE_BYTES}}})
    feed(assembly, opened(own_runner()))
    feed(assembly, *[record(Kind.RUNNER, {"duration": 3})] * 2, large, ring_id=OTHER_RING)
    assert assembly.counters == {"runner_full": 1}
    assert assembly.lost == {OTHER_RING: {"runner_full": 1}}


def test_what_is_held_of_a_trace_is_the_openers(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), added(event()), label("k", "v"), record(Kind.ERROR, exception_fields()))
    trace = assembly.unclosed(TRACE_ID)
    assert trace is not None
    assert assembly.held_bytes == trace.held_bytes
    assert assembly.accounts.held_by(RING) == (trace.held_bytes, trace.held_bytes - TRACE_BYTES)
    # An error that was set moves to the exceptions.
    assembly.ring_died(RING, NOW)
    assert assembly.held_bytes == trace.held_bytes
    assert assembly.unclosed(TRACE_ID) is None


@pytest.mark.parametrize("end", [Assembly.bye, Assembly.ring_died])
def test_a_trace_is_closed_once_also_by_a_broken_close(
    assembly: Assembly, end: Callable[[Assembly, bytes, float], None]
) -> None:
    broken = closed()._replace(payload=b"")
    feed(assembly, opened(own_runner()), broken, broken, closed())
    end(assembly, RING, NOW)
    assembly.end_pass(NOW)
    assert len(assembly.end_pass(NOW)) == 1
    assert assembly.counters == {"malformed": 1, "misplaced": 2}


def test_a_trace_that_is_settled_while_it_is_open_leaves_nothing_in_the_accounts(assembly: Assembly) -> None:
    second = opened()._replace(trace_id=OTHER_TRACE_ID)
    feed(assembly, opened(ignored_keys=["pin"]), second)
    assembly.forget(TRACE_ID)
    assert not assembly.masks
    held = assembly.accounts.held_by(RING)
    assert held == (assembly.held_bytes, assembly.held_bytes - TRACE_BYTES)
    feed(assembly, closed(trace_id=OTHER_TRACE_ID))
    finished(assembly)
    assert assembly.accounts.held_by(RING) == (0, 0)


def test_a_trace_that_is_finished_is_not_among_the_open_ones(assembly: Assembly) -> None:
    feed(assembly, opened(ignored_keys=["pin"]), opened()._replace(trace_id=OTHER_TRACE_ID), closed())
    finished(assembly)
    assert assembly.accounts.held_by(RING) == (assembly.held_bytes, assembly.held_bytes - TRACE_BYTES)
    assert not assembly.masks


def test_a_body_that_is_made_again_counts_once(assembly: Assembly) -> None:
    assembly.restore_finished(TRACE_ID, RING, 3, 500)
    found = assembly.finished(TRACE_ID)
    assert found is not None and (found.ring_id, found.ordinal, found.body_bytes) == (RING, 3, 500)
    assembly.have_bodies([(TRACE_ID, 700)])
    assert assembly.accounts.held_by(RING) == (700, 700)
    assert assembly.unsettled_count == 1
    assembly.forget(TRACE_ID)
    assert (assembly.accounts.held_by(RING), assembly.unsettled_count) == ((0, 0), 0)


def test_an_open_trace_goes_on_masking_in_later_passes(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner(), ignored_keys=["pin"]))
    assembly.end_pass(NOW)
    # With a hundred thousand open traces it would be one more dictionary in no cache.
    assert not assembly.masks
    late = added(event(pin="1234"))
    assert unmasked([late], 0, assembly.masks) == 0
    feed(assembly, late, closed())
    assert finished(assembly)["events"][0]["resource"]["metadata"] == {"pin": "****"}


@pytest.mark.parametrize("way", [unmasked, pure_unmasked])
def test_a_second_open_uncovers_nothing(assembly: Assembly, way: Any) -> None:
    first = opened(own_runner(), ignored_keys=["pin"])
    feed(assembly, first)
    assembly.end_pass(NOW)
    # As the producer writes it, which is passed over without being read.
    assert way([first, added(event()), added(event(pin="1234"))], 0, assembly.masks) == 2
    assert way([opened(), added(event(pin="1234"))], 0, assembly.masks) == 1


def test_a_trace_that_is_restored_takes_records_and_masks_them(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner(), ignored_keys=["pin"]))
    trace = assembly.unclosed(TRACE_ID)
    assert trace is not None
    successor = Assembly()
    successor.restore(trace)
    assert successor.accounts.held_by(RING) == (trace.held_bytes, trace.held_bytes - TRACE_BYTES)
    feed(successor, added(event(pin="1234")), closed())
    assert finished(successor)["events"][0]["resource"]["metadata"] == {"pin": "****"}


def test_it_knows_who_opened_a_trace_until_it_is_settled(assembly: Assembly) -> None:
    feed(assembly, added(event()), ring_id=OTHER_RING)
    assert (assembly.knows(TRACE_ID), assembly.opener(TRACE_ID), assembly.unclosed(TRACE_ID)) == (False, None, None)
    assert not assembly.is_closed_by(TRACE_ID, RING)
    feed(assembly, opened(own_runner()))
    assert (assembly.knows(TRACE_ID), assembly.opener(TRACE_ID), assembly.is_open(TRACE_ID)) == (True, RING, True)
    feed(assembly, closed())
    assert assembly.unclosed(TRACE_ID) is None
    finished(assembly)
    assert (assembly.knows(TRACE_ID), assembly.opener(TRACE_ID), assembly.is_open(TRACE_ID)) == (True, RING, False)
    assembly.forget(TRACE_ID)
    assert (assembly.knows(TRACE_ID), assembly.opener(TRACE_ID)) == (True, None)


def test_a_broken_close_still_closes(assembly: Assembly) -> None:
    feed(assembly, opened(own_runner()), closed()._replace(payload=b"short"))
    assert assembly.counters == {"malformed": 1}
    assert ids(finished(assembly)) == ["event-runner"]


def test_a_broken_runner_is_no_runner(assembly: Assembly) -> None:
    broken = added(event("runner", "runner"))._replace(payload=b"{")
    feed(assembly, opened(), broken, added(event("second", "runner")), closed())
    assert ids(finished(assembly)) == ["event-second"]


def anything() -> st.SearchStrategy[list[tuple[bytes, Record]]]:
    """Records of two traces in two rings, good and bad, in any order."""
    good = [opened(own_runner(), max_trace_size_bytes=900), opened(ignored_keys=["pin"]), closed(), BYE, label("k", 1)]
    good += [
        added(event(1, pin="1", weak="x" * 400)),
        added(event("r", "runner")),
        record(Kind.ERROR, exception_fields()),
    ]
    good += [record(Kind.EXCEPTION, exception_fields()), record(Kind.RUNNER, {"resource": {"metadata": {"a": "b"}}})]
    payloads = st.binary(max_size=20) | st.sampled_from([each.payload for each in good])
    trace_ids = st.sampled_from([TRACE_ID, OTHER_TRACE_ID, NO_TRACE])
    bad = st.builds(Record, st.integers(0, 255), st.integers(0, 255), st.just(0), trace_ids, payloads)
    replaced = st.builds(lambda each, trace_id: each._replace(trace_id=trace_id), st.sampled_from(good), trace_ids)
    return st.lists(st.tuples(st.sampled_from([RING, OTHER_RING]), st.sampled_from(good) | replaced | bad), max_size=30)


@given(anything(), st.sets(st.integers(0, 30), max_size=6))
def test_nothing_that_comes_out_of_a_ring_raises(records: list[tuple[bytes, Record]], passes: set[int]) -> None:
    assembly = Assembly()
    ready: list[OpenTrace] = []
    for number, (ring_id, each) in enumerate(records):
        assembly.feed(ring_id, assembly.masked(each), NOW)
        assert assembly.held_bytes >= 0
        if number in passes:
            ready += assembly.end_pass(NOW)
    for ring_id in (RING, OTHER_RING):
        assembly.ring_died(ring_id, NOW)
    ready += [*assembly.end_pass(NOW), *assembly.end_pass(NOW)]
    assert len({trace.trace_id for trace in ready}) == len(ready)
    for trace in ready:
        assert body.build(trace).size_bytes <= trace.config["max_trace_size_bytes"]
        assembly.forget(trace.trace_id)
    assert assembly.held_bytes == assembly.open_count == 0
    assert not assembly.masks


@pytest.mark.parametrize("end", [Assembly.bye, Assembly.ring_died])
def test_end_of_a_process_looks_at_its_own_traces_alone(end: Callable[[Assembly, bytes, float], None]) -> None:
    # When a service ends, all its processes do, each with traces that are open.
    def steps(processes: int) -> int:
        assembly, ids = Assembly(), [number.to_bytes(16, "big") for number in range(processes)]
        for each in ids:
            feed(assembly, opened()._replace(trace_id=each), ring_id=each)
        return opcodes(lambda: end(assembly, ids[-1], NOW))

    assert steps(1) == steps(50)


def test_ring_of_which_no_trace_is_open_is_not_remembered(assembly: Assembly) -> None:
    feed(assembly, opened(), opened()._replace(trace_id=OTHER_TRACE_ID), closed())
    assembly.forget(OTHER_TRACE_ID)
    finished(assembly)
    assert assembly._open_of == {}
