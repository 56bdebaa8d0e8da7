"""Tests of what `privacy="strict"` and `before_send` let out of a process."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import epsagon_fast as epsagon
from epsagon_fast.producer.process import process
from epsagon_fast.producer.strict import NOT_SHOWN, Strict
from epsagon_fast.testing import capture_traces

SECRET = "canary-4711"
Event = dict[str, Any]


@pytest.fixture
def traces(untraced: None) -> Iterator[list[Event]]:
    with capture_traces() as captured:
        yield captured


def complete(**fields: Any) -> Event:
    resource = {"name": "n", "type": "t", "operation": "o", "metadata": {"route": "/a"}}
    head = {"id": "a", "start_time": 1, "resource": resource, "origin": "x", "duration": 1}
    return {**head, "error_code": 0, "exception": None, **fields}


def failing() -> None:
    try:
        raise RuntimeError(SECRET)
    except RuntimeError as cause:
        raise ValueError(f'{SECRET}\n  File "{SECRET}\n{SECRET}: x') from cause


def record_everything() -> None:
    with pytest.raises(ValueError, match=SECRET), epsagon.trace(f"job /in/{SECRET}") as tracer:
        tracer.set_runner_metadata("user", SECRET)
        epsagon.label("user", SECRET)
        epsagon.label("plan.name", "gold")
        metadata = {"url.full": SECRET, "path": SECRET, "db.statement": SECRET, "route": "/a/{b}"}
        name = f"GET /a/{SECRET} http://h?{SECRET} /a/{{b}}"
        epsagon.add_event(complete(resource={"name": name, "type": "", "operation": "", "metadata": metadata}))
        with epsagon.event(f"/b/{SECRET}") as event:
            event.metadata["card"] = {"number": SECRET}
        epsagon.add_exception({"type": "E", "message": SECRET, "traceback": SECRET, "additional_data": {"a": SECRET}})
        epsagon.add_error("Odd", SECRET)
        failing()


def test_strict_lets_nothing_out_that_is_not_listed(traces: list[Event]) -> None:
    epsagon.init(privacy="strict", allowed_keys=["PLAN.*"])
    record_everything()
    (trace,) = traces
    assert SECRET not in json.dumps(trace)
    added, block, runner = trace["events"]
    assert added["resource"]["name"] == "GET /a/{b}" and added["resource"]["metadata"] == {"route": "/a/{b}"}
    assert (block["resource"]["name"], block["resource"]["metadata"]) == ("", {})
    assert runner["resource"]["metadata"]["labels"] == '{"plan.name":"gold"}'
    assert (runner["exception"]["type"], runner["exception"]["message"]) == ("ValueError", NOT_SHOWN)
    lines = runner["exception"]["traceback"].splitlines()
    assert sum("in failing" in line for line in lines) == 2 and not any("raise" in line for line in lines)


def test_listed_types_of_exceptions_keep_their_texts(traces: list[Event]) -> None:
    epsagon.init(privacy="strict", allowed_exceptions=["ValueError"])
    record_everything()
    assert SECRET in traces[0]["events"][-1]["exception"]["message"]
    assert traces[0]["exceptions"][0]["message"] == NOT_SHOWN


def test_standard_records_what_the_application_adds(traces: list[Event]) -> None:
    record_everything()
    assert SECRET in traces[0]["events"][0]["resource"]["name"]


def test_names_of_remote_calls_are_no_paths() -> None:
    event = complete(resource={"name": "pkg.Svc/Do", "metadata": {"rpc.service": "pkg.Svc", "rpc.method": "Do"}})
    Strict((), ()).event(event)
    assert event["resource"]["name"] == "pkg.Svc/Do"


def test_the_hook_sees_and_changes_all_that_leaves(traces: list[Event]) -> None:
    seen: list[tuple[str, str]] = []

    def hook(event: Event) -> Event:
        seen.append((event["origin"], event["resource"]["name"]))
        # What the hook itself records is not part of any trace.
        epsagon.label("from hook", 1)
        text = json.dumps(event).replace(SECRET, "hidden")
        return {**json.loads(text), "unknown": 1}

    epsagon.init(before_send=hook)
    record_everything()
    (trace,) = traces
    assert SECRET not in json.dumps(trace) and "hidden" in trace["events"][-1]["exception"]["message"]
    assert {origin for origin, _ in seen} == {"runner", "label", "x", "python", "exception"}
    assert json.loads(trace["events"][-1]["resource"]["metadata"]["labels"]) == {"user": "hidden", "plan.name": "gold"}


def test_what_the_hook_leaves_out_is_counted_and_the_trace_arrives(traces: list[Event]) -> None:
    epsagon.init(before_send=lambda event: None)
    with pytest.raises(ValueError, match=SECRET), epsagon.trace(SECRET) as tracer:
        epsagon.add_event(complete())
        failing()
    (runner,) = traces[0]["events"]
    assert runner["id"] == tracer.trace_id and runner["error_code"] == 2 and runner["duration"] > 0
    assert SECRET not in json.dumps(traces)
    assert refused() == {"before_send": 3}


def test_the_hook_finds_each_field_of_a_runner_that_it_left_out_before(traces: list[Event]) -> None:
    seen: list[set[str]] = []

    def hook(event: Event) -> Event | None:
        seen.append(set(event))
        return None if event["origin"] == "runner" else event

    epsagon.init(before_send=hook)
    with pytest.raises(ValueError, match=SECRET), epsagon.trace("job") as tracer:
        tracer.set_runner_metadata("user", SECRET)
        failing()
    assert len(seen) == 3 and all(each >= set(complete()) for each in seen)
    assert refused() == {"before_send": 3} and SECRET not in json.dumps(traces)


@pytest.mark.parametrize("answer", [3, {}, {"resource": None}, {"resource": {"metadata": []}}, "raise"], ids=str)
def test_a_hook_that_fails_lets_nothing_pass(
    answer: Any, traces: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    def hook(event: Event) -> Any:
        if event["origin"] != "x":
            return event
        if answer == "raise":
            raise KeyError(SECRET)
        return answer

    epsagon.init(before_send=hook)
    with epsagon.trace("job"):
        epsagon.add_event(complete())
        epsagon.add_event(complete(id="b"))
    assert [event["origin"] for event in traces[0]["events"]] == ["runner"]
    assert refused() == {"hook_failed": 2}
    (warning,) = [record.getMessage() for record in caplog.records if "before_send" in record.getMessage()]
    assert SECRET not in warning


class Odd(dict[str, Any]):
    """Metadata of a hook that cannot be read."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(SECRET)


def in_metadata(event: Event) -> Event:
    event["resource"]["metadata"] = Odd(a=SECRET)
    return event


@pytest.mark.parametrize(
    "hook", [in_metadata, lambda event: {**event, "start_time": 10**400}, lambda event: {**event, "id": 10**5000}]
)
def test_no_answer_of_a_hook_breaks_the_application(hook: Any, traces: list[Event]) -> None:
    epsagon.init(before_send=hook)
    with epsagon.trace("job") as tracer:
        epsagon.label("a", SECRET)
        epsagon.add_event(complete())
    assert traces[0]["events"][-1]["id"] == tracer.trace_id
    labels = traces[0]["events"][-1]["resource"]["metadata"]["labels"]
    assert labels == ("{}" if hook is in_metadata else '{"a":"canary-4711"}')


def test_strict_looks_through_what_the_quick_reader_cannot_read(traces: list[Event]) -> None:
    epsagon.init(privacy="strict")
    with epsagon.trace("job"):
        epsagon.add_event(complete(start_time=10**400, resource={"name": "", "metadata": {"card": SECRET}}))
    assert SECRET not in json.dumps(traces) and len(traces[0]["events"]) == 2


def test_a_hook_that_traces_its_own_work_is_not_asked_about_it(traces: list[Event]) -> None:
    asked: list[str] = []

    def hook(event: Event) -> Event:
        asked.append(event["resource"]["name"])
        with epsagon.trace("in the hook", new=True) as own:
            epsagon.label("a", 1)
            tracer.add_event(complete(id="b"))
        assert not own.recording
        return event

    epsagon.init(before_send=hook)
    with epsagon.trace("job") as tracer:
        epsagon.add_event(complete())
    assert asked[1:] == ["n"] and len(traces) == 1
    assert [event["id"] for event in traces[0]["events"]] == ["a", tracer.trace_id]
    with epsagon.trace("after it"):
        pass
    assert len(traces) == 2


def test_a_hook_cannot_take_the_runner_out_of_its_trace(traces: list[Event]) -> None:
    epsagon.init(before_send=lambda event: {**event, "id": "hidden", "origin": "hidden"})
    with epsagon.trace("job") as tracer:
        epsagon.error(ValueError())
        epsagon.add_event(complete())
    event, runner = traces[0]["events"]
    assert (event["id"], event["origin"]) == ("hidden", "hidden")
    assert (runner["id"], runner["origin"]) == (tracer.trace_id, "runner")


def test_an_event_that_the_hook_has_made_larger_is_made_to_fit(traces: list[Event]) -> None:
    def hook(event: Event) -> Event:
        event["resource"]["metadata"]["long"] = "x" * 70_000
        return event

    epsagon.init(before_send=hook)
    with epsagon.trace("job"):
        epsagon.add_event(complete())
    assert len(json.dumps(traces[0])) < 66_000


def test_another_process_keeps_to_the_mode_of_the_opener(traces: list[Event]) -> None:
    epsagon.init(privacy="strict", allowed_keys=["plan"])
    with epsagon.trace("job") as tracer, epsagon.attach(tracer.handle()) as attached:
        attached.add_event(complete(resource={"name": "", "metadata": {"plan": "gold", "card": SECRET}}))
    assert traces[0]["events"][0]["resource"]["metadata"] == {"plan": "gold"}


def test_without_mode_or_hook_no_record_is_looked_at(traces: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Callable[..., Any]] = []
    monkeypatch.setattr("epsagon_fast.producer.recorder.Guard", made.append)
    record_everything()
    assert traces and not made


def refused() -> dict[str, int]:
    writer: Any = process.writer_for(process.config())
    counted: dict[str, int] = writer.refusals()
    return counted
