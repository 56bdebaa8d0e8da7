"""A closed trace's body: what it holds, in which order, and never a byte over its limit."""

import json
from typing import Any

import orjson
import pytest
from records import RING, added, closed, event, exception_fields, label, opened, own_runner, record

from epsagon_fast import __version__
from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.protocol import TRACE_FIELDS, Kind, Record


def closed_trace(*records: Record) -> OpenTrace:
    assembly = Assembly()
    for each in (*records, closed()):
        assembly.feed(RING, assembly.masked(each), 0.0)
    assembly.end_pass(0.0)
    (ready,) = assembly.end_pass(0.0)
    return ready


def built(*records: Record) -> body.Body:
    return body.build(closed_trace(*records))


def sent(*records: Record, **counters: int) -> dict[str, Any]:
    """Return what is sent, after a look at what was counted."""
    closed = closed_trace(*records)
    data = body.build(closed).data
    assert closed.counters == counters
    assert data is not None
    trace: dict[str, Any] = orjson.loads(data)
    return trace


def metadata(sent_event: dict[str, Any]) -> dict[str, str]:
    strings: dict[str, str] = sent_event["resource"]["metadata"]
    return strings


def ids(trace: dict[str, Any]) -> list[str]:
    return [each["id"] for each in trace["events"]]


def with_limit(limit: int, *records: Record) -> list[Record]:
    """The records of a trace with another limit."""
    first = orjson.loads(records[0].payload)
    first["config"]["max_trace_size_bytes"] = limit
    return [records[0]._replace(payload=orjson.dumps(first)), *records[1:]]


def test_the_envelope_stands_in_wire_order() -> None:
    data = built(opened()).data
    assert data == (
        b'{"app_name":"shop","token":"secret-token","events":[],"exceptions":[],"version":"%b",'
        b'"platform":"python 3.11.7"}' % __version__.encode()
    )
    assert tuple(json.loads(data)) == TRACE_FIELDS


def test_the_runner_of_trace_stands_last_and_an_added_one_in_its_place() -> None:
    events = [added(event(number)) for number in range(3)]
    runner = added(event("runner", "runner"))
    assert ids(sent(opened(own_runner()), *events)) == ["event-0", "event-1", "event-2", "event-runner"]
    assert ids(sent(opened(), *events[:1], runner, *events[1:])) == ["event-0", "event-runner", "event-1", "event-2"]


def test_only_the_first_runner_is_the_runner() -> None:
    second = added(event("second", "runner"))
    trace = sent(opened(own_runner()), second, label("k", 1))
    assert [metadata(each) for each in trace["events"]] == [{}, {"labels": '{"k":1}'}]


def test_labels_replace_the_runners_own_and_are_empty_json_without_any() -> None:
    assert metadata(sent(opened(own_runner(labels="mine")))["events"][0]) == {"labels": "{}"}
    labels = [label("b", True), label("a", "é"), label("b", 0.5), label("n", -(2**63))]
    assert metadata(sent(opened(own_runner()), *labels)["events"][0]) == {
        "labels": '{"a":"é","b":0.5,"n":-9223372036854775808}'
    }


def test_a_label_of_more_than_64_bits_keeps_its_digits() -> None:
    huge = Record(Kind.LABEL, 0, 0, label("k", 1).trace_id, b'["k",%d]' % 2**70)
    assert metadata(sent(opened(own_runner()), huge)["events"][0]) == {"labels": f'{{"k":{2**70}}}'}


def test_labels_masked_a_label_shows_no_ignored_key() -> None:
    labels = [label("pin", 1234), label("card", '{"pin": 1234}'), label("user", "bob")]
    trace = sent(opened(own_runner(), ignored_keys=["pin"]), *labels)
    assert json.loads(metadata(trace["events"][0])["labels"]) == {
        "pin": "****",
        "card": '{"pin":"****"}',
        "user": "bob",
    }


def test_labels_kept_overwriting_gives_the_old_size_back() -> None:
    # 10240 bytes: one of the key and 10239 of the value.
    exact = [label("k", "x" * 10239), label("k", "y" * 10239)]
    assert json.loads(metadata(sent(opened(own_runner()), *exact)["events"][0])["labels"]) == {"k": "y" * 10239}
    trace = sent(opened(own_runner()), *exact, label("k", "x" * 10240), label("", 1), labels_full=2)
    assert json.loads(metadata(trace["events"][0])["labels"]) == {"k": "y" * 10239}


def test_numbers_and_bools_count_64_bytes_in_the_bound_of_labels() -> None:
    fitting = label("é", "x" * (10240 - 2 - 2 * (1 + 64)))
    trace = sent(opened(own_runner()), label("n", 1.5), label("b", True), fitting, label("", "x"), labels_full=1)
    assert json.loads(metadata(trace["events"][0])["labels"]).keys() == {"n", "b", "é"}


def test_the_last_error_is_the_runners() -> None:
    errors = [record(Kind.ERROR, exception_fields(message)) for message in ("first", "last")]
    runner = sent(opened(own_runner()), *errors)["events"][0]
    assert (runner["error_code"], runner["exception"]) == (1, exception_fields("last"))


def test_without_a_runner_labels_and_error_are_lost() -> None:
    trace = sent(opened(), added(event()), label("k", 1), record(Kind.ERROR, exception_fields()))
    assert trace["events"] == [orjson.loads(event())]


def test_exceptions_come_in_their_order() -> None:
    thrown = [record(Kind.EXCEPTION, exception_fields(str(number))) for number in range(3)]
    assert [each["message"] for each in sent(opened(), *thrown)["exceptions"]] == ["0", "1", "2"]


def test_news_of_the_runner_are_merged_object_by_object_even_before_it_comes() -> None:
    news = [record(Kind.RUNNER, {"resource": {"metadata": {key: "1"}}, "error_code": 2}) for key in "ab"]
    runner = added(event("runner", "runner", a="0", c="0"))
    trace = sent(opened(), news[0], runner, news[1])
    assert metadata(trace["events"][0]) == {"a": "1", "c": "0", "b": "1", "labels": "{}"}
    assert trace["events"][0]["error_code"] == 2


def test_no_panic_a_runner_whose_parts_are_missing_gets_them() -> None:
    for resource in (None, {"name": "n"}, {"name": "n", "metadata": None}):
        runner = sent(opened({**own_runner(), "resource": resource}))["events"][0]
        assert metadata(runner) == {"labels": "{}"}


def trimmable(runner: bool = True) -> list[Record]:
    events = [added(event(number, weak="x" * 200, region="eu")) for number in range(4)]
    return [opened(own_runner(weak="y" * 50) if runner else None), *events]


def test_a_body_of_exactly_its_limit_is_not_trimmed_and_one_byte_more_is() -> None:
    whole = built(*trimmable())
    assert built(*with_limit(whole.size_bytes, *trimmable())) == whole
    assert not whole.trimmed
    over = built(*with_limit(whole.size_bytes - 1, *trimmable()))
    assert over.data is not None
    assert [metadata(each).keys() for each in json.loads(over.data)["events"]] == [
        {"region"},
        *[{"weak", "region"}] * 3,
        {"weak", "labels", "is_trimmed"},
    ]
    assert over.size_bytes == whole.size_bytes - len('"weak":"",') - 200 + len(',"is_trimmed":"true"')
    assert (over.trimmed, over.stripped_count, over.size_before_bytes) == (True, 1, whole.size_bytes)


@pytest.mark.parametrize("runner", [True, False])
def test_no_limit_is_ever_exceeded_and_a_larger_one_never_sends_less(runner: bool) -> None:
    previous = built(*trimmable(runner))
    for limit in range(previous.size_bytes, 0, -1):
        result = built(*with_limit(limit, *trimmable(runner)))
        assert result.size_bytes <= limit
        assert result.dropped_events >= previous.dropped_events
        if result.data is not None:
            assert previous.data is not None
            assert result.stripped_count >= previous.stripped_count
        previous = result
    assert previous.data is None
    assert previous.dropped_events == 4


def test_marker_counted_the_marker_is_within_the_limit() -> None:
    # After one strip it would fit by 19 bytes; the marker takes 20, so a second event goes.
    whole = built(*trimmable()).size_bytes
    one_stripped = whole - len('"weak":"",') - 200
    assert built(*with_limit(one_stripped + 20, *trimmable())).stripped_count == 1
    assert built(*with_limit(one_stripped + 19, *trimmable())).stripped_count == 2


def test_a_users_own_marker_passes_untrimmed_and_is_replaced_when_trimmed() -> None:
    records = [opened(own_runner(is_trimmed="mine")), added(event(0, weak="x" * 200, is_trimmed="mine"))]
    whole = built(*records)
    assert b'"is_trimmed":"mine"' in (whole.data or b"")
    trace = sent(*with_limit(whole.size_bytes - 1, *records))
    assert [metadata(each).get("is_trimmed") for each in trace["events"]] == [None, "true"]


def too_big(limit: int, *, exceptions: int = 0, traceback: str = "", events: int = 50) -> list[Record]:
    """Events that only strong metadata fills, so that nothing can be stripped."""
    pushed = [added(event(number, item_hash="x" * 100)) for number in range(events)]
    thrown = record(Kind.EXCEPTION, exception_fields(traceback=traceback))
    return [opened(own_runner(weak="y"), max_trace_size_bytes=limit), *pushed, *[thrown] * exceptions]


def test_too_big_the_longest_prefix_of_events_is_sent_with_the_runner() -> None:
    result = built(*too_big(2000))
    trace = orjson.loads(result.data or b"")
    assert ids(trace) == [*[f"event-{number}" for number in range(5)], "event-runner"]
    assert metadata(trace["events"][-1]) == {"labels": "{}", "is_trimmed": "true", "dropped_events": "45"}
    assert (result.dropped_events, result.dropped_exceptions, result.trimmed) == (45, 0, True)
    one_more = len(event(5, item_hash="x" * 100)) + 1
    assert 2000 - one_more < result.size_bytes <= 2000


def test_too_big_never_skips_an_event_to_send_a_smaller_one() -> None:
    records = [*too_big(2000, events=3), added(event("huge", item_hash="x" * 2000)), added(event("small"))]
    assert ids(sent(*records, too_big=2, cut=1)) == ["event-0", "event-1", "event-2", "event-runner"]


def test_too_big_cuts_tracebacks_before_it_drops_anything() -> None:
    text = "start " + "é" * 5000 + " end"
    inner = exception_fields(traceback=text)
    records = [
        opened(own_runner(), max_trace_size_bytes=15_000),
        added(event(0, exception=inner, item_hash="kept")),
        record(Kind.EXCEPTION, inner),
        record(Kind.ERROR, inner),
    ]
    trace = sent(*records, cut=2)
    failed, runner = trace["events"]
    (thrown,) = trace["exceptions"]
    assert failed["exception"] == thrown == runner["exception"]
    cut = thrown["traceback"]
    assert cut.startswith("start é") and cut.endswith("é end")
    assert " characters left out " in cut
    assert 4096 - 20 <= len(cut.encode()) <= 4096
    assert metadata(runner) == {"labels": "{}", "is_trimmed": "true"}


def test_a_trace_that_trimming_alone_fits_keeps_its_tracebacks() -> None:
    thrown = record(Kind.EXCEPTION, exception_fields(traceback="x" * 5000))
    records = [opened(own_runner(), max_trace_size_bytes=8000), added(event(0, weak="x" * 5000)), thrown]
    assert len(sent(*records)["exceptions"][0]["traceback"]) == 5000


def test_too_big_exceptions_go_after_all_events_from_the_end_on() -> None:
    result = built(*too_big(2000, exceptions=30))
    trace = orjson.loads(result.data or b"")
    assert ids(trace) == ["event-runner"]
    count = len(trace["exceptions"])
    assert 0 < count < 30
    assert metadata(trace["events"][0]) == {
        "labels": "{}",
        "is_trimmed": "true",
        "dropped_events": "50",
        "dropped_exceptions": str(30 - count),
    }
    assert result.dropped_exceptions == 30 - count
    sent(*too_big(2000, exceptions=30), too_big=50 + 30 - count)


def test_too_big_without_a_runner_sends_what_fits() -> None:
    events = [added(event(number, item_hash="x" * 100)) for number in range(9)]
    trace = sent(opened(max_trace_size_bytes=1000), *events, too_big=6)
    assert ids(trace) == ["event-0", "event-1", "event-2"]


def test_a_runner_that_does_not_fit_is_not_sent() -> None:
    result = built(*too_big(300))
    assert (result.data, result.size_bytes, result.dropped_events) == (None, 0, 50)
    assert result.size_before_bytes > 10_000
