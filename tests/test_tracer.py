import asyncio
import json
import logging
import math
import os
import pickle
import re
import signal
import threading
from typing import Any

import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast import Config, Outcome
from epsagon_fast.pages import see
from epsagon_fast.producer import tracer as tracer_module
from epsagon_fast.producer.fast_path import PureFastPath
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import FROM_RUNNER, Kind
from epsagon_fast.queue.layout import CLOSED, FOREIGN, FULL, LOOK, TOO_LARGE

RUNNER = {
    "id": "r",
    "start_time": 1.5,
    "resource": {"name": "handler", "type": "lambda", "operation": "invoke", "metadata": {"memory": "128"}},
    "origin": "runner",
    "duration": 0.5,
    "error_code": 0,
    "exception": None,
}

EVENT_ID = r"[0-9a-f]{16,32}"


@pytest.fixture
def tracer(queue: FakeQueue) -> epsagon.Tracer:
    """A running tracer without a runner of its own."""
    made = epsagon.create_tracer()
    made.start()
    return made


def test_records_stand_in_the_order_of_the_calls(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.add_event({"id": "1"})
    tracer.add_exception(ValueError("x"))
    tracer.add_label("k", 1)
    tracer.set_runner_metadata("k", "v")
    tracer.add_error("E", "text")
    tracer.send_stop_signal()
    assert queue.kinds == ["OPEN", "EVENT", "EXCEPTION", "LABEL", "RUNNER", "ERROR", "CLOSE"]
    assert {record.trace_id.hex() for record in queue.records} == {tracer.trace_id}


def test_open_tells_the_collector_the_config_and_the_platform(queue: FakeQueue) -> None:
    tracer = epsagon.create_tracer(Config(token="t", application_name="shop", ignored_keys=["pin"]))
    tracer.start()
    [opened] = queue.bodies(Kind.OPEN)
    assert list(opened) == ["config", "platform", "runner", "opened_at"]
    assert opened["config"] == tracer.config.to_wire()
    assert opened["platform"].startswith("python 3.")
    assert opened["runner"] is None


def test_a_trace_needs_no_dict_for_what_each_sets(queue: FakeQueue) -> None:
    with epsagon.trace("work", new=True) as tracer:
        tracer.add_label("k", 1)
    # The fast path in plain Python keeps what is its own there.
    assert vars(tracer).keys() <= vars(PureFastPath).keys()


def test_event_is_encoded_at_the_call(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    event: dict[str, Any] = {"id": "1", "resource": {"metadata": {"k": "before"}}}
    tracer.add_event(event)
    event["resource"]["metadata"]["k"] = "after"
    [sent] = queue.bodies(Kind.EVENT)
    assert sent["resource"]["metadata"] == {"k": "before"}
    assert list(sent) == ["id", "start_time", "resource", "origin", "duration", "error_code", "exception"]


def test_field_of_a_wrong_type_is_counted_as_malformed(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.add_event({"id": 7, "start_time": "now"})
    assert queue.counts == {"malformed": 2}
    assert re.fullmatch(EVENT_ID, queue.bodies(Kind.EVENT)[0]["id"])


def test_each_event_without_an_id_gets_one_of_its_own(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    """Row event-id: epsagon-go sent the empty text."""
    empty = {**RUNNER, "origin": "sdk", "id": ""}
    slow = {"id": "", "origin": None}
    for event in ({}, {"origin": "sdk"}, {"id": None}, {"resource": None}, {"id": ""}, empty, slow, {"id": "mine"}):
        tracer.add_event(event)
    *given, mine = [event["id"] for event in queue.bodies(Kind.EVENT)]
    assert mine == "mine"
    assert len({*given}) == len(given) and all(re.fullmatch(EVENT_ID, each) for each in given)


@pytest.mark.parametrize("nothing", [None, 5, "text", [1]])
def test_what_is_no_event_does_not_raise(queue: FakeQueue, tracer: epsagon.Tracer, nothing: Any) -> None:
    tracer.add_event(nothing)
    tracer.add_exception(nothing)
    tracer.add_label(nothing, nothing)
    tracer.add_error(nothing, "x")
    assert queue.counts["malformed"] >= 1


def test_only_an_event_of_the_runner_has_the_flag(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.add_event({"origin": "sdk"})
    tracer.add_event(RUNNER)
    assert [record.flags for record in queue.records if record.kind == Kind.EVENT] == [0, FROM_RUNNER]


def test_close_leaves_the_runner_of_the_application_alone(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.add_event(RUNNER)
    tracer.send_stop_signal()
    [(duration_s, error_code)] = queue.bodies(Kind.CLOSE)
    assert math.isnan(duration_s)
    assert error_code == -1


# Misuse: one warning per process, all counted.


def test_adding_before_start_and_after_stop_is_ignored_and_counted(
    queue: FakeQueue, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = epsagon.create_tracer()
    tracer.add_event({})
    tracer.add_label("a", 1)
    assert queue.records == []
    tracer.start()
    tracer.send_stop_signal()
    tracer.add_event({})
    tracer.add_error("E", "x")
    assert queue.kinds == ["OPEN", "CLOSE"]
    assert queue.counts == {"misuse": 4}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_stop_before_start_is_dropped_at_once(queue: FakeQueue) -> None:
    tracer = epsagon.create_tracer()
    outcome = tracer.stop()
    assert outcome == Outcome.DROPPED
    assert outcome.reason == "never started"
    assert tracer.stopped
    assert not tracer.running


@pytest.mark.parametrize(("owner", "step"), [(process, "writer_for"), (tracer_module, "fitted_opening")])
def test_start_that_is_interrupted_is_none(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    def limit(*_: object) -> None:
        raise TimeoutError

    tracer = epsagon.create_global_tracer()
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, limit)
        with pytest.raises(TimeoutError):
            tracer.start()
    # It stops the one before, which has no queue and waits for nothing.
    epsagon.create_global_tracer()
    assert tracer.stopped
    assert tracer.stop().reason == "never started"
    assert tracer.handle().runtime_dir == ""


def test_start_after_stop_is_ignored(queue: FakeQueue) -> None:
    tracer = epsagon.create_tracer()
    tracer.stop()
    tracer.start()
    assert not tracer.running
    assert queue.records == []


def test_second_start_and_second_stop_change_nothing(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.start()
    assert tracer.running
    assert not tracer.stopped
    tracer.send_stop_signal()
    tracer.send_stop_signal()
    assert not tracer.running
    assert tracer.stopped
    assert queue.kinds == ["OPEN", "CLOSE"]


def test_with_starts_and_sends_the_stop_signal(queue: FakeQueue) -> None:
    with epsagon.create_tracer() as tracer:
        assert tracer.running
    assert queue.kinds == ["OPEN", "CLOSE"]


def test_many_threads_that_stop_close_once(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    barrier = threading.Barrier(8)

    def stop() -> None:
        barrier.wait(60)
        tracer.send_stop_signal()

    threads = [threading.Thread(target=stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert queue.kinds == ["OPEN", "CLOSE"]


# Disabled.


@pytest.mark.parametrize(("config", "reason"), [(Config(disable=True), "disabled"), (Config(token=""), "no token")])
def test_disabled_tracer_does_nothing(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, config: Config, reason: str
) -> None:
    monkeypatch.delenv("EPSAGON_TOKEN")
    tracer = epsagon.create_tracer(config)
    tracer.start()
    assert tracer.running
    tracer.add_event(RUNNER)
    tracer.add_label("a", 1)
    tracer.set_runner_metadata("k", "v")
    assert tracer.runner_event is None
    outcome = tracer.stop()
    assert outcome == Outcome.DISABLED
    assert outcome.reason == reason
    assert tracer.stopped
    tracer.add_event(RUNNER)
    assert (queue.asked, queue.records, queue.counts) == (0, [], {})


# What became of it.


def test_stop_returns_what_became_of_the_trace(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.send_stop_signal()
    queue.settle(Outcome.REJECTED.because("HTTP 401"))
    outcome = tracer.stop()
    assert outcome == Outcome.REJECTED
    assert outcome.reason == "HTTP 401"


def test_stop_waits_until_the_trace_is_settled(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    # The third time that the waiter looks for a collector.
    def start() -> None:
        queue.starts += 1
        if queue.starts == 3:
            queue.settle(Outcome.DELIVERED)

    queue.ensure_collector = start  # type: ignore[method-assign]
    assert tracer.stop(60) == Outcome.DELIVERED


def test_stop_gives_up_after_its_timeout(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    assert tracer.stop(0.01) == Outcome.PENDING
    assert queue.starts > 0
    assert tracer.stopped


def test_stored_may_later_become_delivered(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.send_stop_signal()
    queue.settle(Outcome.STORED.because("connection refused"))
    assert tracer.stop() == Outcome.STORED
    queue.settle(Outcome.DELIVERED)
    assert tracer.stop() == Outcome.DELIVERED


def test_astop_lets_the_event_loop_run(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    async def settle() -> None:
        while "CLOSE" not in queue.kinds:
            await asyncio.sleep(0)
        queue.settle(Outcome.DELIVERED)

    async def both() -> Outcome:
        settling = asyncio.create_task(settle())
        outcome = await tracer.astop(60)
        await settling
        return outcome

    assert asyncio.run(both()) == Outcome.DELIVERED


def test_each_new_reason_is_logged_once(queue: FakeQueue, caplog: pytest.LogCaptureFixture) -> None:
    rejected = Outcome.REJECTED.because("HTTP 401")
    for news in ([rejected, rejected], [rejected, Outcome.STORED.because("timeout")], [Outcome.DELIVERED]):
        queue.news = [(bytes(16), outcome) for outcome in news]
        with epsagon.create_tracer():
            pass
    assert [record.message for record in caplog.records] == [
        f"A trace was rejected: HTTP 401{see('losses')}",
        f"A trace was stored: timeout{see('losses')}",
    ]


# Answers of the ring.


def test_refused_open_drops_the_trace_at_once(queue: FakeQueue) -> None:
    queue.codes.append(FULL)
    tracer = epsagon.create_tracer()
    tracer.start()
    assert queue.counts == {"queue_full": 1}
    tracer.add_event({})
    outcome = tracer.stop()
    assert outcome == Outcome.DROPPED
    assert outcome.reason == "queue_full"
    assert queue.counts == {"queue_full": 2}
    assert queue.records == []


def test_refused_event_is_counted_and_the_trace_goes_on(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    queue.codes.extend([FULL, TOO_LARGE])
    for number in range(3):
        tracer.add_event({"id": str(number)})
    assert queue.counts == {"queue_full": 1, "too_large": 1}
    assert [event["id"] for event in queue.bodies(Kind.EVENT)] == ["2"]


def test_event_for_a_closed_ring_is_handed_on_whole(
    queue: FakeQueue, tracer: epsagon.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_on: list[Any] = []
    monkeypatch.setattr(queue, "attend", lambda *record: handed_on.append(record) is None)
    queue.codes.extend([CLOSED, CLOSED])
    tracer.add_event({**RUNNER, "origin": "sdk"})
    [(code, kind, _, _, payload)] = handed_on
    assert (code, kind, json.loads(payload)) == (CLOSED, Kind.EVENT, {**RUNNER, "origin": "sdk"})


def test_time_to_look_is_attended_to_and_nothing_is_pushed_twice(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    queue.codes.append(LOOK)
    tracer.add_event({})
    assert queue.attended == [LOOK]
    assert queue.kinds == ["OPEN", "EVENT"]


def test_tracer_follows_a_fork_to_a_ring_of_its_own(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    queue.codes.append(FOREIGN)
    tracer.add_event({"id": "1"})
    tracer.add_event({"id": "2"})
    assert queue.kinds == ["OPEN"]
    assert [event["id"] for event in queue.others[queue.path].bodies(Kind.EVENT)] == ["1", "2"]


def test_event_over_the_trace_limit_is_stripped_in_the_worker(queue: FakeQueue) -> None:
    with epsagon.create_tracer(Config(token="t", max_trace_size_bytes=1000)) as tracer:
        metadata = {"big": "x" * 2000, "item_hash": "abc"}
        tracer.add_event({"id": "1", "resource": {"metadata": metadata}})
    [event] = queue.bodies(Kind.EVENT)
    assert event["resource"]["metadata"] == {"item_hash": "abc"}
    assert queue.bodies(Kind.RUNNER) == [{"resource": {"metadata": {"is_trimmed": "true"}}}]
    assert queue.counts == {}


# Labels, errors, exceptions.


def test_labels_of_the_four_types_are_taken(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    for value in ("text", 1, 2.5, True):
        tracer.add_label("k", value)
    assert queue.bodies(Kind.LABEL) == [["k", "text"], ["k", 1], ["k", 2.5], ["k", True]]


@pytest.mark.parametrize("value", [None, [1], {}, float("nan"), float("inf"), b"x"])
def test_label_of_another_type_is_ignored(queue: FakeQueue, tracer: epsagon.Tracer, value: Any) -> None:
    tracer.add_label("k", value)
    assert queue.kinds == ["OPEN"]
    assert queue.counts == {"malformed": 1}


def test_error_brings_its_own_traceback(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    def deep() -> None:
        raise ValueError("no stock")

    try:
        deep()
    except ValueError as error:
        tracer.add_error("ShopError", error)
    [error_json] = queue.bodies(Kind.ERROR)
    assert list(error_json) == ["type", "message", "traceback", "time", "additional_data"]
    assert (error_json["type"], error_json["message"]) == ("ShopError", "no stock")
    assert "in deep" in error_json["traceback"]


@pytest.mark.parametrize("value", ["no stock", ValueError("no stock")], ids=["text", "never raised"])
def test_error_without_a_traceback_has_the_callers_stack(
    queue: FakeQueue, tracer: epsagon.Tracer, value: str | ValueError
) -> None:
    tracer.add_error("ShopError", value)
    [error_json] = queue.bodies(Kind.ERROR)
    last_line = error_json["traceback"].rstrip().splitlines()[-1]
    assert "tracer.add_error" in last_line


def test_error_of_another_type_is_ignored_with_a_debug_line(queue: FakeQueue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="epsagon_fast")
    with epsagon.create_tracer(Config(token="t", debug=True)) as tracer:
        tracer.add_error("E", 5)  # type: ignore[arg-type]
    assert queue.kinds == ["OPEN", "CLOSE"]
    assert "must be a str or an exception" in caplog.text


def test_exceptions_come_as_exception_as_fields_or_as_type_and_message(
    queue: FakeQueue, tracer: epsagon.Tracer
) -> None:
    tracer.add_exception(KeyError("a"))
    tracer.add_exception({"type": "T", "message": "m", "time": 1.5, "additional_data": {"k": "v"}})
    tracer.add_exception_type_and_message("T", "m")
    first, second, third = queue.bodies(Kind.EXCEPTION)
    assert (first["type"], first["message"]) == ("KeyError", "'a'")
    assert second == {"type": "T", "message": "m", "traceback": "", "time": 1.5, "additional_data": {"k": "v"}}
    assert third["type"] == "T"
    assert "tracer.add_exception_type_and_message" in third["traceback"]


# The runner.


def test_runner_event_is_a_copy(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    assert tracer.runner_event is None
    tracer.add_event({"origin": "sdk"})
    assert tracer.runner_event is None
    tracer.add_event(RUNNER)
    tracer.add_event({**RUNNER, "id": "second"})
    copy = tracer.runner_event
    assert copy == RUNNER
    copy["resource"]["metadata"]["k"] = "v"
    assert tracer.runner_event == RUNNER


def test_runner_metadata_is_set_until_the_trace_closes(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.add_event(RUNNER)
    tracer.set_runner_metadata("status", 200)
    tracer.set_runner_metadata("path", "/a")
    assert tracer.runner_event is not None
    assert tracer.runner_event["resource"]["metadata"] == {"memory": "128", "status": "200", "path": "/a"}
    assert queue.bodies(Kind.RUNNER)[0] == {"resource": {"metadata": {"status": "200"}}}
    tracer.send_stop_signal()
    tracer.set_runner_metadata("late", "x")
    assert len(queue.bodies(Kind.RUNNER)) == 2
    assert queue.counts == {"misuse": 1}


# Other places.


def test_only_the_opening_process_closes_a_trace(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    pid = os.fork()
    if pid == 0:
        tracer.add_event({"id": "child"})
        outcome = tracer.stop()
        inherited = queue.kinds == ["OPEN", "EVENT"] and tracer.running and outcome == Outcome.PENDING
        os._exit(0 if inherited else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    tracer.send_stop_signal()
    assert queue.kinds == ["OPEN", "CLOSE"]


def test_tracer_made_before_a_fork_is_another_trace_in_the_child(queue: FakeQueue) -> None:
    tracer = epsagon.create_tracer()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        tracer.start()
        os.write(writing, tracer.trace_id.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    tracer.start()
    assert os.read(reading, 32).decode() != tracer.trace_id
    os.close(reading)
    os.close(writing)


def test_signal_handler_may_add_while_an_event_is_added(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    class Interrupting:
        def __str__(self) -> str:
            signal.raise_signal(signal.SIGUSR1)
            return "interrupted"

    before = signal.signal(signal.SIGUSR1, lambda number, frame: tracer.add_event({"id": "inner"}))
    try:
        tracer.add_event({"id": "outer", "resource": {"metadata": {"k": Interrupting()}}})
    finally:
        signal.signal(signal.SIGUSR1, before)
    inner, outer = queue.bodies(Kind.EVENT)
    assert (inner["id"], outer["id"]) == ("inner", "outer")
    assert outer["resource"]["metadata"] == {"k": "interrupted"}


def test_test_mode_keeps_the_trace_in_memory(queue: FakeQueue) -> None:
    tracer = epsagon.create_tracer(Config(test_mode=True))
    tracer.start()
    tracer.add_event(RUNNER)
    assert tracer.runner_event == RUNNER
    outcome = tracer.stop()
    assert (outcome, outcome.reason) == (Outcome.DISABLED, "test_mode")
    assert queue.asked == 0


def test_test_mode_gives_the_global_tracer_if_there_is_one(queue: FakeQueue) -> None:
    existing = epsagon.create_global_tracer(Config(token="t"))
    assert epsagon.create_tracer(Config(test_mode=True)) is existing


def test_no_secret_shows_in_the_log(queue: FakeQueue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="epsagon_fast")
    config = Config(token="very-secret", ignored_keys=["pin"], debug=True)
    with epsagon.create_tracer(config) as tracer:
        tracer.add_event({"resource": {"metadata": {"pin": "1234-5678"}}})
        tracer.add_label("pin", "1234-5678")
        tracer.add_label("bad", ["1234-5678"])  # type: ignore[arg-type]
    queue.settle(Outcome.DELIVERED)
    tracer.stop()
    assert "tracer created" in caplog.text
    assert f"outcome of {tracer.trace_id}: DELIVERED" in caplog.text
    assert "event added" in caplog.text
    assert "label added" in caplog.text
    assert "very-secret" not in caplog.text + repr(tracer.handle())
    assert "1234-5678" not in caplog.text


def test_nothing_is_logged_without_debug(queue: FakeQueue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="epsagon_fast")
    with epsagon.create_tracer() as tracer:
        tracer.add_event({})
        tracer.add_label("k", "v")
    assert caplog.records == []


def test_handle_is_picklable_and_holds_no_token(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    packed = pickle.dumps(tracer.handle())
    assert b"secret-token" not in packed
    assert pickle.loads(packed).trace_id == tracer.trace_id
