import multiprocessing
import pickle
from pathlib import Path

import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast import Config, Outcome
from epsagon_fast.producer import exiting
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import Kind
from epsagon_fast.queue.folder import instance_name


def handle_of_another_process(folder: str = "/their/folder") -> epsagon.Handle:
    return epsagon.Handle(
        trace_id="0123456789abcdef" * 2, runtime_dir=folder, max_trace_size_bytes=5000, metadata_only=False, debug=False
    )


def test_attached_trace_goes_to_the_openers_folder(queue: FakeQueue) -> None:
    handle = handle_of_another_process()
    tracer = epsagon.attach(handle)
    assert tracer.running
    tracer.add_event({"id": "1"})
    tracer.add_label("k", 1)
    there = queue.others["/their/folder"]
    assert there.kinds == ["EVENT", "LABEL"]
    assert {record.trace_id.hex() for record in there.records} == {tracer.trace_id} == {handle.trace_id}


def test_leaving_an_attached_trace_restores_the_one_before_and_closes_nothing(queue: FakeQueue) -> None:
    with epsagon.trace("own") as own:
        with epsagon.attach(handle_of_another_process()):
            epsagon.label("theirs", 1)
            with epsagon.trace("inner"):
                pass
        epsagon.label("own", 1)
    there = queue.others["/their/folder"]
    assert there.kinds == ["LABEL", "EVENT"]
    assert queue.kinds == ["OPEN", "LABEL", "CLOSE"]
    assert {record.trace_id.hex() for record in queue.records} == {own.trace_id}


def test_only_the_opener_closes(queue: FakeQueue) -> None:
    tracer = epsagon.attach(handle_of_another_process())
    outcome = tracer.stop()
    assert outcome == Outcome.PENDING
    assert outcome.reason == "opened by another process"
    tracer.add_event({})
    assert queue.others["/their/folder"].kinds == ["EVENT"]


def test_openers_config_rules(queue: FakeQueue) -> None:
    tracer = epsagon.attach(handle_of_another_process())
    assert tracer.config.max_trace_size_bytes == 5000
    assert tracer.keeps_values
    tracer.add_event({"resource": {"metadata": {"big": "x" * 5000}}})
    assert queue.others["/their/folder"].bodies(Kind.EVENT)[0]["resource"]["metadata"] == {}


@pytest.mark.parametrize(("url", "expected"), [("otlp+http://127.0.0.1:1", 7), ("http://127.0.0.1:1", "7")])
def test_the_openers_backend_says_whether_metadata_keep_their_types(
    queue: FakeQueue, url: str, expected: object
) -> None:
    epsagon.init(collector_url=url)
    with epsagon.trace("theirs") as tracer:
        handle = tracer.handle()
        tracer.add_event({"resource": {"metadata": {"n": 7}}})
        tracer.set_runner_metadata("n", 7)
        tracer.add_exception({"additional_data": {"n": 7}})
        assert (tracer.runner_event or {})["resource"]["metadata"]["n"] == expected
    epsagon.init(collector_url="http://127.0.0.1:1" if "otlp" in url else "otlp+http://127.0.0.1:1")
    epsagon.attach(handle).add_event({"resource": {"metadata": {"n": 7}}})
    told = queue.bodies(Kind.EVENT) + queue.bodies(Kind.RUNNER) + queue.others[queue.path].bodies(Kind.EVENT)
    assert [each["resource"]["metadata"]["n"] for each in told if "n" in each["resource"]["metadata"]] == [expected] * 3
    assert queue.bodies(Kind.EXCEPTION)[0]["additional_data"] == {"n": expected}


def test_process_that_attaches_keeps_its_own_ring_and_its_own_patience(queue: FakeQueue) -> None:
    mine = epsagon.init(ring_bytes=4 << 20, shutdown_timeout_s=0.3)
    with epsagon.trace("theirs") as tracer:
        handle = tracer.handle()
    with epsagon.attach(handle) as attached:
        assert (attached.config.ring_bytes, attached.config.shutdown_timeout_s) == (4 << 20, 0.3)
    assert process.config() is mine


def test_init_after_attaching_sets_the_patience_and_cannot_change_the_ring(
    queue: FakeQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience: list[float | None] = []
    monkeypatch.setattr(exiting, "register", lambda timeout_s=None: patience.append(timeout_s))
    folder = tmp_path / instance_name()
    folder.mkdir()
    epsagon.attach(handle_of_another_process(str(folder))).add_event({})
    with pytest.raises(ValueError, match="ring_bytes=4194304 comes too late: this process already uses 524288"):
        epsagon.init(runtime_dir=str(tmp_path), ring_bytes=4 << 20)
    assert patience == [None], "as the config in force will say"
    # Another folder has a ring of its own.
    epsagon.init(runtime_dir="/mine", ring_bytes=4 << 20)


def test_attaching_to_a_trace_that_is_not_recorded_does_nothing(queue: FakeQueue) -> None:
    opener = epsagon.create_tracer(Config(disable=True))
    opener.start()
    with epsagon.attach(opener.handle()) as tracer:
        epsagon.label("k", 1)
        tracer.add_event({})
    assert queue.others == {}
    assert process.refusals() == {}


def test_attaching_needs_no_token_and_warns_of_nothing(untraced: None, caplog: pytest.LogCaptureFixture) -> None:
    epsagon.attach(handle_of_another_process(""))
    assert caplog.records == []


def test_folder_that_is_not_there_is_ignored_and_counted(untraced: None, tmp_path: Path) -> None:
    before = process.refusals()
    with epsagon.attach(handle_of_another_process(str(tmp_path / "gone"))) as tracer:
        tracer.add_event({})
        epsagon.label("k", 1)
    assert (process.refusals() - before).total() == 2
    assert not (tmp_path / "gone").exists()


def test_handle_goes_to_a_spawned_process(queue: FakeQueue) -> None:
    handle = handle_of_another_process()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(pickle.dumps, (handle,)) == pickle.dumps(handle)


def test_stopping_an_attached_trace_waits_for_nothing(queue: FakeQueue) -> None:
    assert epsagon.attach(handle_of_another_process()).stop(60) == Outcome.PENDING
    epsagon.shutdown(0)
    assert epsagon.attach(handle_of_another_process()).stop(60) == Outcome.PENDING


def test_what_is_added_by_the_handle_of_a_closed_trace_is_the_collectors_to_count_as_late(queue: FakeQueue) -> None:
    with epsagon.trace("closed") as tracer:
        pass
    with epsagon.attach(tracer.handle()):
        epsagon.label("late", 1)
    assert queue.others[queue.path].kinds == ["LABEL"]
