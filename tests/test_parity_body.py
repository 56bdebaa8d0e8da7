"""epsagon-go's forty golden traces through records, assembly and body: equal, or different for a reason with a name."""

import json
from typing import Any

import pytest
from records import RING, TRACE_ID, closed, opened
from vectors import GIVEN_ID, Case, comparable, go_bytes, traces, without_given_ids, without_stacks

from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.runners import MARKER_BYTES
from epsagon_fast.producer.encoding import encode_event, encode_exception, encode_label, exception_of
from epsagon_fast.protocol import MAX_TRACE_BYTES, Kind, Record

CASES = {case.name: case for case in traces()}
# The forty less what never leaves the worker.
SENT = [case for case in CASES.values() if case.row != "disabled-free"]


def built(case: Case, limit_bytes: int = MAX_TRACE_BYTES) -> body.Body:
    assembly = Assembly()
    for record in records(case, limit_bytes):
        assembly.feed(RING, assembly.masked(record), 0.0)
    assert assembly.end_pass(0.0) == []
    (trace,) = assembly.end_pass(0.0)
    assert not assembly.counters["malformed"]
    return body.build(trace)


def records(case: Case, limit_bytes: int) -> list[Record]:
    config = {"app_name": case.application_name, "token": case.token, "ignored_keys": list(case.ignored_keys)}
    pushed = [opened(None, max_trace_size_bytes=limit_bytes, **config)]
    for event in case.events:
        # Row event-id: epsagon-go sent an empty one.
        encoded, flags, _, _ = encode_event({**event, "id": event.get("id") or GIVEN_ID})
        pushed.append(Record(Kind.EVENT, flags, 0, TRACE_ID, encoded))
    thrown = [encode_exception(exception).data for exception in case.exceptions]
    pushed += [Record(Kind.EXCEPTION, 0, 0, TRACE_ID, exception) for exception in thrown]
    labels = [encode_label(key, value) for key, value in case.labels]
    pushed += [Record(Kind.LABEL, 0, 0, TRACE_ID, label) for label in labels if label is not None]
    if case.error:
        pushed.append(Record(Kind.ERROR, 0, 0, TRACE_ID, encode_exception(exception_of(*case.error)).data))
    return [*pushed, closed()]


def shifted_limit(case: Case) -> int:
    """Return the limit at which we decide at the same distance from it as epsagon-go did."""
    if case.limit_bytes is None:
        return 65536
    untrimmed = built(case).data
    assert untrimmed is not None
    return case.limit_bytes + len(untrimmed) - go_bytes(untrimmed)


def same(case: Case, result: body.Body) -> bool:
    assert result.data is not None
    assert case.expected_body is not None
    ours, theirs = comparable(result.data), comparable(case.expected_body)
    without_given_ids(ours, theirs)
    return (without_stacks(ours) if case.error else ours) == theirs


def events_of(result: body.Body) -> list[dict[str, Any]]:
    assert result.data is not None
    events: list[dict[str, Any]] = json.loads(result.data)["events"]
    return events


@pytest.mark.parametrize("case", [case for case in SENT if case.row is None], ids=str)
def test_a_golden_trace_comes_out_as_epsagon_go_sent_it(case: Case) -> None:
    assert same(case, built(case, shifted_limit(case)))


@pytest.mark.parametrize("case", [case for case in SENT if case.limit_bytes and case.expected_body], ids=str)
def test_the_yardstick_for_limits_measures_what_epsagon_go_sent(case: Case) -> None:
    assert case.expected_body is not None
    assert go_bytes(case.expected_body) == len(case.expected_body.encode())


@pytest.mark.parametrize("case", [case for case in SENT if case.row == "marker-counted"], ids=str)
def test_marker_counted_the_answer_of_epsagon_go_needs_room_for_the_marker(case: Case) -> None:
    limit = shifted_limit(case)
    assert same(case, built(case, limit + MARKER_BYTES))
    result = built(case, limit)
    assert result.trimmed
    assert result.size_bytes <= limit


@pytest.mark.parametrize("case", [case for case in SENT if case.row == "too-big"], ids=str)
def test_too_big_is_sent_without_its_last_events(case: Case) -> None:
    limit = shifted_limit(case)
    result = built(case, limit)
    assert result.trimmed
    assert 0 < result.size_bytes <= limit
    # Those without a runner have nowhere to say so.
    others = [event for event in events_of(result) if event["origin"] != "runner"]
    given = [event for event in case.events if event["origin"] != "runner"]
    assert [event["id"] for event in others] == [event["id"] for event in given[: len(others)]]
    assert result.dropped_events == len(given) - len(others) > 0


def test_no_panic_a_trace_without_a_runner_is_trimmed() -> None:
    case = CASES["no_runner_trimmed_panics"]
    limit = shifted_limit(case)
    result = built(case, limit)
    assert 0 < result.size_bytes <= limit
    assert [event["id"] for event in events_of(result)] == [event["id"] for event in case.events]
    assert 0 < result.stripped_count < len(case.events)


@pytest.mark.parametrize("name", ["runner_metadata_null_panics", "resource_null_panics"])
def test_no_panic_what_is_missing_gets_its_default(name: str) -> None:
    case = CASES[name]
    events = events_of(built(case))
    assert len(events) == len(case.events)
    assert all(isinstance(event["resource"]["metadata"], dict) for event in events)
    assert events[0]["resource"]["metadata"]["labels"] == "{}"


def test_json_forms_what_is_no_number_is_null() -> None:
    case = CASES["floats_common"]
    ours, theirs = comparable(built(case).data or b""), comparable(case.expected_body or "")
    for mine, other in zip(ours["events"], theirs["events"], strict=True):
        for field in ("start_time", "duration"):
            expected = other.pop(field)
            assert mine.pop(field) == (None if isinstance(expected, str) else float(expected))
    assert ours == theirs


def test_ints_exact_a_masked_neighbour_does_not_round_integers() -> None:
    case = CASES["ignored_keys_arrays"]
    metadata = events_of(built(case))[0]["resource"]["metadata"]
    assert json.loads(metadata["nums"]) == {
        "f": [1.0, 1e21, 1e20, 0.1, 12345678901234567890, 0, -0.0, 1e5],
        "s": "****",
    }
    assert "12345678901234567890" in metadata["nums"]
    theirs = json.loads(case.expected_body or "")["events"][0]["resource"]["metadata"]
    assert [key for key in metadata if json.dumps(metadata[key]) != json.dumps(theirs[key])] == ["nums"]


def test_all_forty_are_here() -> None:
    assert len(CASES) == 40
    assert {case.row for case in CASES.values()} == {
        *(None, "marker-counted", "too-big", "no-panic", "json-forms", "ints-exact", "disabled-free")
    }
