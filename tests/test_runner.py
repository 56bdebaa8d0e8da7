import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast.producer import runner as runner_module
from epsagon_fast.producer.opening import opening, opening_json, pure_opening_json
from epsagon_fast.producer.runner import Runner, encoded_runner, new_runner, pure_runner_json
from epsagon_fast.protocol import EVENT_FIELDS, UNCHANGED, ErrorCode, Kind


def test_runner_is_complete_and_in_wire_order() -> None:
    runner = orjson.loads(encoded_runner(new_runner("shop", "http", "GET", {"k": "v"}, 1_500_000_000), "ab"))
    assert tuple(runner) == EVENT_FIELDS
    assert runner["id"] == "ab"
    assert (runner["origin"], runner["start_time"]) == ("runner", 1.5)
    assert runner["resource"] == {"name": "shop", "type": "http", "operation": "GET", "metadata": {"k": "v"}}


def test_lone_surrogate_in_a_runner_is_replaced() -> None:
    runner = orjson.loads(encoded_runner(new_runner("\ud800", "http", "GET", {"\udfff": "v"}, 1_500_000_000), "ab"))
    assert runner["resource"]["name"] == "\ufffd"
    assert runner["resource"]["metadata"] == {"\ufffd": "v"}


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("parent_id", [None, "0123456789abcdef"])
@pytest.mark.parametrize(
    "runner",
    [
        new_runner("shop", "http", "GET", {"k": "v", "\u00e9": '"'}, 1_700_000_000_123_456_789),
        new_runner("", "", "", {}, 0),
        new_runner("put back", "", "", {}, -5),
        new_runner("far", "", "", {"k": "v"}, 1 << 70),
        new_runner("long", "", "", {"k": "v" * 100_000}, 1_500_000_000),
        new_runner("typed", "", "", {"int": 7, "float": 0.5, "bool": True, "list": ["a", 1]}, 1),  # type: ignore[dict-item]
    ],
    ids=lambda runner: runner[0],
)
def test_both_implementations_write_a_runner_alike(
    monkeypatch: pytest.MonkeyPatch, runner: Runner, parent_id: str | None, typed: bool
) -> None:
    written = encoded_runner(runner, "ab", parent_id, typed)
    monkeypatch.setattr(runner_module, "runner_json", pure_runner_json)
    dumped = encoded_runner(runner, "ab", parent_id, typed)
    # Seconds may have other digits that mean the same number.
    assert [*orjson.loads(written).items()] == [*orjson.loads(dumped).items()]
    assert written.partition(b'"resource"')[2] == dumped.partition(b'"resource"')[2]


@pytest.mark.parametrize("write", [opening_json, pure_opening_json])
def test_an_open_says_when_it_was_written(write: Callable[[bytes, bytes], bytes]) -> None:
    begun_at = time.time()
    opened = orjson.loads(write(b'{"config":{},"runner":', b"null"))
    assert list(opened) == ["config", "runner", "opened_at"]
    assert begun_at - 1 <= opened["opened_at"] <= time.time() + 1


def test_each_process_and_config_begins_its_opens_with_its_own(queue: FakeQueue) -> None:
    one, other = (epsagon.Config(token="t", application_name=name).resolve() for name in ("one", "other"))
    names = [orjson.loads(opening(config, None))["config"]["app_name"] for config in (one, other, one, one)]
    assert names == ["one", "other", "one", "one"]


@pytest.fixture
def tracer(queue: FakeQueue) -> epsagon.Tracer:
    made = epsagon.create_tracer()
    made.start()
    return made


def test_update_says_only_what_it_was_given(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.update_runner({"route": "\ud800"})
    assert not tracer.has_failed
    tracer.update_runner(error_code=ErrorCode.TIMEOUT, exception={"type": "T"})
    assert tracer.has_failed
    tracer.send_stop_signal()
    first, second = queue.bodies(Kind.RUNNER)
    assert first == {"resource": {"metadata": {"route": "\ufffd"}}}
    assert (second["error_code"], second["exception"]["type"], len(second)) == (3, "T", 2)
    [(_, error_code)] = queue.bodies(Kind.CLOSE)
    assert error_code == 3


def test_update_of_what_is_not_recorded_is_not_counted(queue: FakeQueue, tracer: epsagon.Tracer) -> None:
    tracer.send_stop_signal()
    tracer.update_runner({"k": "v"}, ErrorCode.ERROR)
    assert queue.kinds == ["OPEN", "CLOSE"]
    assert not queue.counts
    assert not tracer.has_failed


@pytest.mark.parametrize(
    ("code", "closed_with"),
    [
        *((2**31, -(2**31)), (0x80004005, -2147467259), (7, 7)),
        *((2**32, ErrorCode.ERROR), (-(10**30), ErrorCode.ERROR), ("2", ErrorCode.OK), (2.5, ErrorCode.OK)),
    ],
)
def test_trace_closes_whatever_error_code_its_runner_was_given(queue: FakeQueue, code: Any, closed_with: int) -> None:
    with epsagon.trace("updated") as tracer:
        tracer.update_runner(error_code=code)
    assert queue.bodies(Kind.CLOSE)[0][1] == closed_with
    with epsagon.trace("restated") as tracer:
        runner = tracer.runner_event
        assert runner is not None
        tracer.restate_and_close({**runner, "error_code": code})
    # What the runner says, if the code is none.
    stays = closed_with == ErrorCode.OK
    assert queue.bodies(Kind.CLOSE)[1][1] == (UNCHANGED if stays else closed_with)
