import orjson
import pytest
from fakes import FakeQueue

import epsagon_fast as epsagon
from epsagon_fast import ErrorCode
from epsagon_fast.producer.runner import encoded_runner, new_runner
from epsagon_fast.protocol import EVENT_FIELDS, Kind


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
