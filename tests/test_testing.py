import threading

import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast import Config, Outcome
from epsagon_fast.protocol import Kind
from epsagon_fast.testing import Trace, capture_traces, reset


def names(traces: list[dict]) -> list[str]:  # type: ignore[type-arg]
    return [trace["events"][-1]["resource"]["name"] for trace in traces]


def test_finished_traces_are_collected_as_they_would_be_sent(queue: FakeQueue) -> None:
    epsagon.init(application_name="shop")
    with capture_traces() as traces:
        with epsagon.trace("checkout") as tracer:
            with epsagon.event("charge", type="http", operation="POST") as event:
                event.metadata["card"] = "visa"
            epsagon.label("user", 42)
            epsagon.add_exception(ValueError("x"))
        assert len(traces) == 1
    [trace] = traces
    assert list(trace) == ["app_name", "token", "events", "exceptions", "version", "platform"]
    assert trace["app_name"] == "shop"
    charge, runner = trace["events"]
    assert charge["resource"]["metadata"] == {"card": "visa"}
    assert runner["id"] == tracer.trace_id
    assert runner["resource"]["metadata"] == {"labels": '{"user":42}'}
    assert runner["duration"] > 0
    assert trace["exceptions"][0]["type"] == "ValueError"


@pytest.mark.parametrize("prepare", [lambda: None, lambda: epsagon.init(disable=True), lambda: epsagon.shutdown(0)])
def test_neither_init_nor_token_is_needed(untraced: None, prepare: object, caplog: pytest.LogCaptureFixture) -> None:
    prepare()  # type: ignore[operator]
    with capture_traces() as traces, epsagon.trace("a"):
        pass
    assert names(traces) == ["a"]
    assert caplog.messages == []


def test_trace_after_the_block_warns_that_it_has_no_token(untraced: None, caplog: pytest.LogCaptureFixture) -> None:
    with capture_traces(), epsagon.trace("a"):
        pass
    with epsagon.trace("b"):
        assert [message.partition(" (")[0] for message in caplog.messages] == ["No token is set"]


@pytest.mark.parametrize("scheme", ["", "otlp+", "otlp-protobuf+"])
def test_traces_have_our_own_form_whatever_the_backend_takes(queue: FakeQueue, scheme: str) -> None:
    epsagon.init(collector_url=f"{scheme}http://127.0.0.1:1", trimming="strip")
    with capture_traces() as traces, epsagon.trace("a"), epsagon.event("b") as event:
        event.metadata["n"] = 1
    [trace] = traces
    assert (str(trace.tree()), trace.tree().find("b").event["resource"]["metadata"]) == ("a\n    b", {"n": "1"})
    assert {type(each["start_time"]) for each in trace["events"]} == {float}
    with epsagon.trace("sent"), epsagon.event("b") as event:
        event.metadata["n"] = 1
    assert queue.bodies(Kind.EVENT)[0]["resource"]["metadata"] == {"n": 1 if scheme else "1"}


def test_nothing_reaches_the_queue(queue: FakeQueue) -> None:
    with capture_traces(), epsagon.trace("a") as tracer:
        tracer.add_event({})
    assert (queue.asked, queue.records) == (0, [])
    assert tracer.stop() == Outcome.DELIVERED


def test_after_the_block_all_is_as_before(queue: FakeQueue) -> None:
    with pytest.raises(KeyError), capture_traces() as traces:
        raise KeyError
    with epsagon.trace("a"):
        pass
    assert traces == []
    assert queue.kinds == ["OPEN", "CLOSE"]


def test_open_trace_is_not_collected(queue: FakeQueue) -> None:
    with capture_traces() as traces:
        tracer = epsagon.create_tracer()
        tracer.start()
        assert traces == []
        tracer.stop()
        assert len(traces) == 1


def test_trace_that_opened_in_the_block_is_collected_even_later(queue: FakeQueue) -> None:
    with capture_traces() as traces:
        tracer = epsagon.create_tracer()
        tracer.start()
    tracer.add_event({"id": "1", "origin": "runner"})
    tracer.stop()
    assert traces[0]["events"][0]["id"] == "1"


def test_inner_block_takes_the_traces_that_open_in_it(queue: FakeQueue) -> None:
    with capture_traces() as outer:
        with epsagon.trace("first"):
            pass
        with capture_traces() as inner, epsagon.trace("second"):
            pass
        with epsagon.trace("third"):
            pass
    assert names(outer) == ["first", "third"]
    assert names(inner) == ["second"]


def test_traces_of_all_threads_are_collected(queue: FakeQueue) -> None:
    def work(name: str) -> None:
        for _ in range(20):
            with epsagon.trace(name):
                epsagon.label(name, 1)

    with capture_traces() as traces:
        threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(names(traces)) == sorted(str(number) for number in range(8) for _ in range(20))
    for trace in traces:
        [runner] = trace["events"]
        assert runner["resource"]["metadata"]["labels"] == f'{{"{runner["resource"]["name"]}":1}}'


def test_global_tracer_and_test_mode_are_collected(queue: FakeQueue) -> None:
    with capture_traces() as traces, epsagon.create_global_tracer(Config(test_mode=True)):
        epsagon.add_event({"id": "1"})
    assert traces[0]["events"][0]["id"] == "1"


def test_secrets_are_masked(queue: FakeQueue) -> None:
    epsagon.init(ignored_keys=["password"])
    with capture_traces() as traces, epsagon.trace("a"), epsagon.event("b") as event:
        event.metadata["password"] = "hunter2"
    assert traces[0]["events"][0]["resource"]["metadata"]["password"] == "****"


def test_large_traces_are_trimmed(queue: FakeQueue) -> None:
    with capture_traces() as traces, epsagon.trace("a"):
        for _ in range(10):
            epsagon.add_event({"resource": {"metadata": {"big": "x" * 10_000}}})
    runner = traces[0]["events"][-1]
    assert runner["resource"]["metadata"]["is_trimmed"] == "true"


def test_attached_trace_is_collected_in_the_same_process(queue: FakeQueue) -> None:
    with capture_traces() as traces, epsagon.trace("a") as tracer, epsagon.attach(tracer.handle()):
        epsagon.label("k", 1)
    assert traces[0]["events"][-1]["resource"]["metadata"]["labels"] == '{"k":1}'


def test_exception_that_leaves_a_trace_shows_in_the_runner(queue: FakeQueue) -> None:
    with capture_traces() as traces, pytest.raises(KeyError), epsagon.trace("a"):
        raise KeyError("k")
    runner = traces[0]["events"][-1]
    assert runner["error_code"] == 2
    assert runner["exception"]["type"] == "KeyError"


def test_unfinished_trace_says_so(queue: FakeQueue) -> None:
    with capture_traces() as traces, epsagon.trace("a"):
        epsagon.shutdown(0)
    assert traces[0]["events"][-1]["resource"]["metadata"]["unfinished"] == "true"


def test_reset_ends_what_is_open_and_forgets_what_init_said(queue: FakeQueue) -> None:
    epsagon.init(application_name="shop", ring_bytes=1 << 20)
    tracer = epsagon.create_global_tracer()
    tracer.start()
    reset()
    assert queue.kinds == ["OPEN", "CLOSE", "BYE"]
    assert tracer.stopped and epsagon.global_tracer() is None
    assert epsagon.init(ring_bytes=2 << 20).application_name == ""


def event(name: str, start: float, parent: str | None = None, id: str = "") -> dict[str, object]:
    said: dict[str, object] = {"id": id or name, "start_time": start, "resource": {"name": name}, "origin": "python"}
    return said if parent is None else {**said, "parent_id": parent}


def test_tree_hangs_each_event_below_the_one_that_it_names_and_all_others_below_the_runner() -> None:
    events = [
        event("read", 3.0, parent="charge"),
        event("write", 2.0, parent="charge"),
        event("charge", 1.0),
        event("unknown parent", 4.0, parent="elsewhere"),
        event("runner's child", 5.0, parent="00f067aa0ba902b7"),
        {**event("checkout", 0.0, id="00f067aa0ba902b7" * 2), "origin": "runner"},
    ]
    root = Trace(events=events).tree()
    assert str(root).splitlines() == [
        *("checkout", "    charge", "        write", "        read", "    unknown parent", "    runner's child")
    ]
    assert root.find("read").event is events[0]
    assert [node.name for node in root.find("charge")] == ["charge", "write", "read"]
    with pytest.raises(LookupError, match=r"no event 'pay' in\ncharge\n    write"):
        root.find("charge").find("pay")


def test_tree_loses_no_event_whatever_they_say_of_each_other() -> None:
    events = [
        event("its own parent", 1.0, parent="its own parent"),
        event("one of a circle", 2.0, parent="the other"),
        event("the other", 3.0, parent="one of a circle"),
        event("below the circle", 4.0, parent="the other"),
        event("twice", 5.0, id="same"),
        event("twice again", 6.0, id="same", parent="same"),
        {**event("runner", 0.0), "origin": "runner"},
    ]
    nodes = [*Trace(events=events).tree()]
    assert sorted(node.name for node in nodes) == sorted(str(each["resource"]["name"]) for each in events)  # type: ignore[index]


def test_trace_without_a_runner_has_no_tree(queue: FakeQueue) -> None:
    with capture_traces() as traces, epsagon.create_tracer() as tracer:
        tracer.add_event({"id": "1"})
    with pytest.raises(LookupError, match="no runner"):
        traces[0].tree()


def test_captured_trace_shows_its_tree(queue: FakeQueue) -> None:
    @epsagon.trace
    def work() -> None:
        with epsagon.event("read"):
            pass

    with capture_traces() as traces, epsagon.trace("checkout"):
        with epsagon.event("charge"):
            epsagon.add_event({"id": "x", "start_time": 0.0, "resource": {"name": "a ready one"}})
            work()
        with epsagon.event("ship"):
            pass
    [trace] = traces
    names = [str(node).splitlines() for node in trace.tree().children]
    assert names[0][:2] == ["charge", "    a ready one"]
    assert names[0][2].endswith("work") and names[0][3:] == ["        read"]
    assert names[1:] == [["ship"]]
