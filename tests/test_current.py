import logging
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast import Config, Outcome
from epsagon_fast.producer import current
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import Kind

ACTIONS: list[Callable[[], None]] = [
    lambda: epsagon.add_event({"id": "1"}),
    lambda: epsagon.add_label("k", 1),
    lambda: epsagon.label("k", 2),
    lambda: epsagon.add_exception(ValueError("x")),
    lambda: epsagon.add_exception_type_and_message("T", "m"),
    lambda: epsagon.add_error("T", "m"),
    lambda: epsagon.error("m"),
]
ACTION_KINDS = ["EVENT", "LABEL", "LABEL", "EXCEPTION", "EXCEPTION", "ERROR", "ERROR"]


def act() -> None:
    for action in ACTIONS:
        action()


def test_module_functions_act_on_the_current_trace(queue: FakeQueue) -> None:
    with epsagon.trace("a") as tracer:
        act()
    assert queue.kinds == ["OPEN", *ACTION_KINDS, "CLOSE"]
    assert {record.trace_id.hex() for record in queue.records} == {tracer.trace_id}


def test_module_functions_act_on_the_running_global_tracer(queue: FakeQueue) -> None:
    with epsagon.create_global_tracer() as tracer:
        act()
    assert queue.kinds == ["OPEN", *ACTION_KINDS, "CLOSE"]
    assert {record.trace_id.hex() for record in queue.records} == {tracer.trace_id}


def test_current_trace_comes_before_the_global_tracer(queue: FakeQueue) -> None:
    with epsagon.create_global_tracer(), epsagon.trace("a") as tracer:
        epsagon.label("k", 1)
    [label] = [record for record in queue.records if record.kind == Kind.LABEL]
    assert label.trace_id.hex() == tracer.trace_id


def test_without_a_trace_all_is_counted_and_one_debug_line_says_so(
    queue: FakeQueue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "epsagon_fast")
    act()
    epsagon.create_global_tracer()
    act()
    epsagon.stop_global_tracer()
    act()
    assert process.refusals() == {"no_trace": 3 * len(ACTIONS)}
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert queue.records == []


def test_library_in_a_program_that_does_not_trace_prints_nothing() -> None:
    code = """
import sys
import epsagon_fast as epsagon
from epsagon_fast.producer.process import process
with epsagon.event("query") as event:
    event.metadata["rows"] = 1
epsagon.label("user", 42)
epsagon.error("no")
assert process.refusals() == {"no_trace": 3}, process.refusals()
assert "logging" not in sys.modules
import logging
epsagon.label("user", 42)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_early_refusals_are_counted_in_the_first_ring(queue: FakeQueue) -> None:
    epsagon.label("k", 1)
    assert queue.counts == {}
    with epsagon.trace("a"):
        pass
    assert queue.counts == {"no_trace": 1}
    assert process.refusals() == {"no_trace": 1}


def test_closed_trace_is_nobodys_current_trace(queue: FakeQueue) -> None:
    with epsagon.trace("a") as tracer:
        tracer.send_stop_signal()
        epsagon.label("k", 1)
    assert queue.kinds == ["OPEN", "CLOSE"]
    assert queue.counts == {"no_trace": 1}


def test_error_takes_the_type_of_an_exception_and_exception_for_text(queue: FakeQueue) -> None:
    with epsagon.trace("a"):
        epsagon.error(KeyError("k"))
        epsagon.error("text")
    assert [error["type"] for error in queue.bodies(Kind.ERROR)] == ["KeyError", "Exception"]


def test_thread_has_no_trace_of_the_thread_that_started_it(queue: FakeQueue) -> None:
    with epsagon.trace("a"):
        thread = threading.Thread(target=epsagon.label, args=("k", 1))
        thread.start()
        thread.join(60)
    assert queue.kinds == ["OPEN", "CLOSE"]
    assert queue.counts == {"no_trace": 1}


def test_what_is_not_traced_goes_nowhere_and_is_not_counted(queue: FakeQueue) -> None:
    with epsagon.create_global_tracer(), epsagon.trace("a"), current.within(current.NOT_TRACED):
        act()
        with epsagon.event("e"):
            pass
    assert [record.kind for record in queue.records] == [Kind.OPEN, Kind.OPEN, Kind.CLOSE, Kind.CLOSE]
    assert process.refusals() == {}


def test_trace_where_nothing_is_traced_is_one_of_its_own(queue: FakeQueue) -> None:
    with epsagon.trace("a") as outer, current.within(current.NOT_TRACED):
        with epsagon.trace("b") as inner:
            epsagon.label("k", 1)
        assert current.current_trace() is None
        epsagon.label("k", 2)
    assert inner is not outer
    assert [record.trace_id.hex() for record in queue.records if record.kind == Kind.LABEL] == [inner.trace_id]
    assert queue.counts == {}


# The global tracer.


def test_there_is_no_global_tracer_at_first(queue: FakeQueue) -> None:
    assert epsagon.global_tracer() is None
    assert epsagon.stop_global_tracer() is None
    assert epsagon.global_tracer_config() == Config()


def test_global_tracer_is_created_not_started(queue: FakeQueue) -> None:
    config = Config(token="t", application_name="shop")
    tracer = epsagon.create_global_tracer(config)
    assert epsagon.global_tracer() is tracer
    assert not tracer.running
    assert epsagon.global_tracer_config() == config.resolve()


def test_stopping_the_global_tracer_returns_its_outcome_once(queue: FakeQueue) -> None:
    epsagon.create_global_tracer().start()
    queue.ensure_collector = lambda: queue.settle(Outcome.DELIVERED)  # type: ignore[method-assign]
    assert epsagon.stop_global_tracer() == Outcome.DELIVERED
    assert epsagon.stop_global_tracer() is None
    assert epsagon.global_tracer_config() == Config()


def test_creating_over_a_running_global_tracer_stops_it_first(queue: FakeQueue) -> None:
    queue.ensure_collector = lambda: queue.settle(Outcome.DELIVERED)  # type: ignore[method-assign]
    first = epsagon.create_global_tracer()
    first.start()
    second = epsagon.create_global_tracer()
    assert first.stopped
    assert not second.stopped
    assert epsagon.global_tracer() is second
    assert queue.kinds == ["OPEN", "CLOSE"]


def test_many_threads_that_create_a_global_tracer_leave_one_running(queue: FakeQueue) -> None:
    queue.ensure_collector = lambda: queue.settle(Outcome.DELIVERED)  # type: ignore[method-assign]
    barrier = threading.Barrier(8)
    made: list[epsagon.Tracer] = []

    def create() -> None:
        barrier.wait(60)
        made.append(epsagon.create_global_tracer())

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [tracer for tracer in made if not tracer.stopped] == [epsagon.global_tracer()]


# The config of new tracers.


def test_tracer_without_a_config_takes_the_one_of_init(queue: FakeQueue) -> None:
    config = epsagon.init(token="other", application_name="shop")
    assert epsagon.create_tracer().config is config


def test_tracer_without_init_takes_the_environment(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_APP_NAME", "from-env")
    assert epsagon.create_tracer().config.application_name == "from-env"


def test_a_larger_trace_limit_after_the_first_use_asks_for_no_other_ring(queue: FakeQueue) -> None:
    with epsagon.trace("first"):
        pass
    assert epsagon.init(max_trace_size_bytes=512 * 1024).max_trace_size_bytes == 512 * 1024


def test_runtime_dir_and_ring_size_are_fixed_by_the_first_use(queue: FakeQueue) -> None:
    epsagon.init(runtime_dir="/a")
    epsagon.init(runtime_dir="/b")
    with epsagon.trace("a"):
        pass
    with pytest.raises(ValueError, match="runtime_dir"):
        epsagon.init(runtime_dir="/a")
    with pytest.raises(ValueError, match="ring_bytes"):
        epsagon.create_tracer(Config(runtime_dir="/b", ring_bytes=2**20))
    epsagon.init(runtime_dir="/b", application_name="other")
