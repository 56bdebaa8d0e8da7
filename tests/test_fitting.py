"""What is too large for a worker's ring or trace arrives in part."""

import json
import pickle
from typing import Any

import orjson
import pytest
from fakes import FakeQueue
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import anything, loose_events, loose_exceptions, wild_text

import epsagon_fast as epsagon
from epsagon_fast import Config
from epsagon_fast.backend.shape import summarize
from epsagon_fast.masking.texts import Texts
from epsagon_fast.producer.opening import fitted_opening
from epsagon_fast.producer.runner import encoded_runner, new_runner
from epsagon_fast.protocol import Kind
from epsagon_fast.testing import capture_traces

ROOM = 4000
LONG = "x" * 50_000


@pytest.fixture
def small(queue: FakeQueue) -> FakeQueue:
    queue.record_limit_bytes = ROOM
    return queue


def pieces(queue: FakeQueue, kind: Kind) -> list[Any]:
    assert all(len(record.payload) <= ROOM for record in queue.records)
    return queue.bodies(kind)


def raised(message: str) -> ValueError:
    def ping(left: int) -> None:
        pong(left - 1) if left else (lambda: exec("raise ValueError(message)", {"message": message}))()

    def pong(left: int) -> None:
        ping(left)

    try:
        ping(100)
    except ValueError as error:
        return error
    raise AssertionError


def test_the_event_that_failed_arrives_with_its_metadata_and_the_ends_of_its_traceback() -> None:
    def ping(number: int) -> None:
        pong(number)

    def pong(number: int) -> None:
        ping(number + 1)

    with capture_traces() as traces, epsagon.trace("request"):
        try:
            with epsagon.event("charge") as event:
                event.metadata["card"] = "visa"
                ping(0)
        except RecursionError:
            pass
    failed, runner = traces[0]["events"]
    assert (failed["resource"]["name"], failed["error_code"], runner["error_code"]) == ("charge", 2, 0)
    assert failed["resource"]["metadata"] == {"card": "visa"}
    lines = failed["exception"]["traceback"].splitlines()
    assert lines[0].startswith("Traceback") and lines[-1].startswith("RecursionError")
    assert [line for line in lines if line.endswith("characters left out ...")]


def test_each_record_is_cut_to_the_room_that_there_is(small: FakeQueue) -> None:
    error = raised(LONG)
    with epsagon.trace(LONG) as tracer:
        tracer.add_event({"id": "1", "error_code": 2, "exception": error, "resource": {"metadata": {"kept": "k"}}})
        tracer.add_exception(error)
        tracer.add_error("Custom", error)
        tracer.add_label("k" * 5000, LONG)
        tracer.set_runner_metadata("big", LONG)
        tracer.fail(error)
    [opened] = pieces(small, Kind.OPEN)
    assert opened["runner"]["resource"]["name"].startswith("xxx")
    [event] = pieces(small, Kind.EVENT)
    assert (event["error_code"], event["exception"]["type"]) == (2, "ValueError")
    [[key, value]] = pieces(small, Kind.LABEL)
    assert key.startswith("kkk") and value.startswith("xxx")
    assert pieces(small, Kind.EXCEPTION)[0]["traceback"].startswith("Traceback")
    assert pieces(small, Kind.ERROR)[0]["type"] == "Custom"
    marked, noted, failed = pieces(small, Kind.RUNNER)
    assert marked == {"resource": {"metadata": {"is_trimmed": "true"}}}
    assert noted["resource"]["metadata"]["big"].startswith("xxx")
    assert failed["error_code"] == 2
    assert small.counts["cut"] >= 6
    assert "too_large" not in small.counts


def test_what_is_left_out_of_any_value_is_counted(queue: FakeQueue) -> None:
    many = [0] * 10_005
    with epsagon.trace("one") as tracer:
        tracer.add_event({"id": "1", "resource": {"metadata": {"many": many}}})
        tracer.set_runner_metadata("many", many)
        tracer.add_exception({"additional_data": {"many": many}})
        tracer.add_error("Custom", "x" * 20_000)
    assert queue.counts == {"cut": 5 + 5 + 5 + 1}
    assert tracer.runner_event and tracer.runner_event["resource"]["metadata"]["many"].endswith('"... 5 more"]')


def test_secrets_are_masked_before_anything_is_cut(small: FakeQueue) -> None:
    keys = ["password"]
    small.at(small.path).record_limit_bytes = ROOM
    with epsagon.create_tracer(Config(token="t", ignored_keys=keys)) as tracer:
        tracer.add_event({"id": "1", "resource": {"metadata": {"password": LONG, "user": "ann"}}})
        tracer.set_runner_metadata("body", json.dumps({"password": LONG, "user": "ann"}))
        tracer.add_label("password", LONG)
        with epsagon.attach(tracer.handle()) as attached:
            attached.add_event({"id": "2", "resource": {"metadata": {"body": json.dumps({"password": LONG})}}})
    [event] = pieces(small, Kind.EVENT)
    assert event["resource"]["metadata"] == {"password": "****", "user": "ann"}
    noted = pieces(small, Kind.RUNNER)[0]
    assert noted == {"resource": {"metadata": {"body": '{"password":"****","user":"ann"}'}}}
    assert pieces(small, Kind.LABEL) == [["password", "****"]]
    [other] = small.others[small.path].bodies(Kind.EVENT)
    assert "x" not in other["resource"]["metadata"].get("body", "")


def test_what_is_over_any_limit_is_not_read_for_secrets_that_will_not_be_sent(
    small: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(Texts, "text", lambda _, text, *rest: read.append(text) or text)
    huge = json.dumps([{"password": "x"}] * 100_000)
    with epsagon.create_tracer(Config(token="t", ignored_keys=["password"])) as tracer:
        tracer.add_event({"id": "1", "resource": {"metadata": {"body": huge, "region": "password="}}})
    assert pieces(small, Kind.EVENT)[0]["resource"]["metadata"] == {"region": "password="}
    assert "password=" in read
    assert huge not in read
    assert pieces(small, Kind.RUNNER)


def shortening(**settings: Any) -> Config:
    return Config(token="t", trimming="shorten", **settings)


def test_a_value_that_is_too_large_alone_keeps_its_beginning_and_is_counted_to_the_byte(small: FakeQueue) -> None:
    sql, kept = "SELECT " + "\u00e9" * 100_000, {"rows": "41", "db": "shop"}
    small.at(small.path).record_limit_bytes = ROOM
    with epsagon.create_tracer(shortening()) as tracer:
        tracer.add_event({"id": "1", "resource": {"metadata": {"sql": sql, **kept}}})
        with epsagon.attach(pickle.loads(pickle.dumps(tracer.handle()))) as attached:
            attached.add_event({"id": "2", "resource": {"metadata": {"sql": sql, **kept}}})
    (event,), (other,) = pieces(small, Kind.EVENT), small.others[small.path].bodies(Kind.EVENT)
    assert ROOM - 2 <= len(orjson.dumps(event)) <= ROOM
    runner = encoded_runner(new_runner("request", "", "", {"sql": sql, **kept}, 0), "ab")
    opened = orjson.loads(fitted_opening(shortening().resolve(), runner, ROOM)[0])
    for each in (event, other, opened["runner"]):
        metadata = each["resource"]["metadata"]
        left, gone = metadata.pop("sql").split("... ")
        assert left.startswith("SELECT \u00e9") and metadata == kept
        assert len(left.encode()) + int(gone.removesuffix(" bytes left out")) == len(sql.encode())
    assert {"resource": {"metadata": {"is_trimmed": "true"}}} in pieces(small, Kind.RUNNER)


@pytest.mark.parametrize("body", [{"user": "ann", "password": "hunter2"}, json.dumps({"in": '{"password":"hunter2"}'})])
def test_no_secret_is_in_the_beginning_of_a_value(small: FakeQueue, body: Any) -> None:
    # Once it is cut, it is no JSON in which the collector could find the key.
    rows = [body] * 5000
    with epsagon.create_tracer(shortening(ignored_keys=["password"])) as tracer:
        tracer.add_event({"id": "1", "resource": {"metadata": {"rows": json.dumps(rows), "nested": rows}}})
        tracer.add_event({"id": "2", "resource": {"metadata": {"rows": json.dumps(rows * 10), "region": "eu"}}})
    one, huge = (event["resource"]["metadata"] for event in pieces(small, Kind.EVENT))
    assert "****" in one["rows"] and "****" in one["nested"]
    assert "hunter2" not in str(one) and len(str(one)) > ROOM // 2
    assert huge == {"region": "eu"}


def test_what_has_nothing_to_cut_is_refused_and_counted(small: FakeQueue) -> None:
    with epsagon.create_tracer(Config(token="t", max_trace_size_bytes=100)) as tracer:
        tracer.add_event({"id": "1"})
        tracer.add_exception({"additional_data": {str(number): "" for number in range(5000)}})
    assert small.kinds == ["OPEN", "CLOSE"]
    assert small.counts["too_large"] == 2


def test_large_first_an_event_that_is_too_large_alone_saves_the_metadata_of_those_before_it() -> None:
    """Row large-first: by epsagon-go's order the first three would be stripped, too."""
    config = Config(token="t", max_trace_size_bytes=3000)
    with capture_traces() as traces, epsagon.create_tracer(config) as tracer:
        for number in range(3):
            tracer.add_event({"id": str(number), "resource": {"metadata": {"weak": "x" * 100}}})
        tracer.add_event({"id": "large", "resource": {"metadata": {"weak": "x" * 4000}}})
        tracer.add_event({"id": "runner", "origin": "runner"})
    kept = {event["id"]: set(event["resource"]["metadata"]) for event in traces[0]["events"]}
    assert kept == {"0": {"weak"}, "1": {"weak"}, "2": {"weak"}, "large": set(), "runner": {"labels", "is_trimmed"}}


@pytest.mark.parametrize("limit_bytes", [600, 1000, 16_384])
def test_a_trace_that_cannot_be_fitted_leaves_a_stub(limit_bytes: int) -> None:
    config = epsagon.Config(token="t", max_trace_size_bytes=limit_bytes)
    with capture_traces() as traces, epsagon.create_tracer(config) as tracer:
        tracer.add_event({"id": "1", "origin": "runner", "resource": {"name": "import"}, "duration": 1.5})
        tracer.add_event({"id": "2", "resource": {"name": "row" * 1000}})
        for number in range(30):
            tracer.add_label(f"label{number}", "x" * 300)
        tracer.add_error("ValueError", raised("bad rows: " + "x" * 20_000))
    [trace] = traces
    [runner] = [event for event in trace["events"] if event["origin"] == "runner"]
    assert len(json.dumps(trace, separators=(",", ":"))) <= limit_bytes
    assert (runner["resource"]["name"], runner["duration"], runner["error_code"]) == ("import", 1.5, 1)
    metadata = runner["resource"]["metadata"]
    assert metadata["is_trimmed"] == "true"
    assert int(metadata["dropped_labels"]) > 20
    if limit_bytes > 1000:
        assert len(trace["events"]) == 2
        assert runner["exception"]["message"].startswith("bad rows")
        assert json.loads(metadata["labels"])["label0"]
    else:
        assert metadata["dropped_events"] == "1"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(loose_events() | anything(), max_size=4),
    st.lists(loose_exceptions() | anything(), max_size=2),
    st.lists(st.tuples(wild_text(), anything()), max_size=4),
    st.sampled_from([500, 1000, 3000, 65_536]),
    st.sampled_from(["", "x", "é", '"', "\x01"]),
)
def test_whatever_is_traced_becomes_a_trace_for_the_backend_within_its_limit(
    events: list[Any], exceptions: list[Any], entries: list[tuple[str, Any]], limit_bytes: int, filler: str
) -> None:
    config = Config(token="t", max_trace_size_bytes=limit_bytes)
    long = filler * 20_000
    with capture_traces() as traces, epsagon.create_tracer(config) as tracer:
        tracer.add_event({"origin": "runner", "error_code": 2**40, "resource": {"name": long}})
        for event in events:
            tracer.add_event(event)
        for exception in exceptions:
            tracer.add_exception(exception)
        for key, value in entries:
            tracer.add_label(key, value)
            tracer.set_runner_metadata(key, value)
        tracer.add_error("Error", long)
    [trace] = traces
    data = orjson.dumps(trace)
    assert len(data) <= limit_bytes
    assert summarize(data).error_code == 1
