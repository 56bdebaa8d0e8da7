import inspect
import json
import math
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeQueue
from rings import exit_code, in_child
from straced import system_calls

import epsagon_fast as epsagon
from epsagon_fast.producer import current
from epsagon_fast.producer.encoding import encode_event
from epsagon_fast.producer.event import Event, PureEvent
from epsagon_fast.producer.process import process
from epsagon_fast.producer.scope import pure_event
from epsagon_fast.propagation import inject
from epsagon_fast.protocol import Kind

VALUES: list[Any] = [
    *(0, -1, 2**63, 2**64 - 1, 2**70, True, False, None, 1.5, 100.0, 1e300, math.nan, -math.inf),
    *([], [1, "two", None, 2.5, True], [[1], 2], ["\ud800"], list(range(200)), {"k": 1}, (1, 2), "text", b"bytes"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_metadata_becomes_the_same_text_on_each_path(queue: FakeQueue, value: Any) -> None:
    with epsagon.trace("run") as tracer, epsagon.event("charge") as event:
        event.metadata.update({"first": 1, "value": value, "last": "text"})
        before = dict(event.metadata)
        ready = {"id": "1", "start_time": 1.5, "resource": {}, "origin": "o", "duration": 0, "error_code": 0}
        ready |= {"exception": None}
        ready["resource"] = {"name": "n", "type": "t", "operation": "o", "metadata": before}
        tracer.add_event(ready)
    assert ready["resource"]["metadata"] is before
    assert list(before.values())[::2] == [1, "text"]
    texts = json.loads(encode_event(ready).data)["resource"]["metadata"]
    assert [list(body["resource"]["metadata"].items()) for body in queue.bodies(Kind.EVENT)] == [[*texts.items()]] * 2


@pytest.mark.parametrize("make", [epsagon.event, pure_event], ids=["compiled", "reference"])
def test_event_says_what_it_lacks_and_what_it_does_not_know(make: Any) -> None:
    event = make(name="n", operation="o")
    assert (event.name, event.type, event.operation, event.origin) == ("n", "python-function", "o", "python")
    assert str(inspect.signature(make)).startswith("(name")
    for args, more, message in [
        ((), {}, "missing 1 required"),
        (("a", "b"), {}, "takes 1 positional argument but 2"),
        (("a",), {"x": 1}, "unexpected keyword argument 'x'"),
        (("a",), {"name": "b"}, "multiple values for argument 'name'"),
    ]:
        with pytest.raises(TypeError, match=message):
            make(*args, **more)


@pytest.mark.parametrize("kind", [Event, PureEvent], ids=["compiled", "reference"])
def test_event_of_a_disabled_trace_is_not_even_timed(queue: FakeQueue, kind: type[Event]) -> None:
    epsagon.init(disable=True)
    with epsagon.trace("run"), kind("charge", "t", "o", "python") as event:
        event.metadata["k"] = "v"
        assert current.anywhere() is current.current_place()
    assert (event.start_time, event.duration) == (0.0, 0.0)
    assert (queue.records, queue.counts) == ([], {})


@pytest.mark.parametrize("kind", [Event, PureEvent], ids=["compiled", "reference"])
def test_clocks_are_those_of_python_and_may_be_set(queue: FakeQueue, kind: type[Event]) -> None:
    with epsagon.trace("run"):
        begun, counted = time.time(), time.perf_counter_ns()
        with kind("timed", "t", "o", "python") as event:
            # As far as floats tell two moments apart.
            assert begun - 1e-6 <= event.start_time <= time.time() + 1e-6
            assert counted <= event.entered_ns <= time.perf_counter_ns()
            event.duration = 77.0
        assert 0 <= event.duration <= (time.perf_counter_ns() - counted) / 1e9
        with kind("set", "t", "o", "python") as other:
            other.start_time = 5
        other.duration = 8
    bodies = queue.bodies(Kind.EVENT)
    assert [body["start_time"] for body in bodies] == [event.start_time, 5]
    assert bodies[0]["duration"] == pytest.approx(event.duration, abs=1e-9)
    assert (other.start_time, other.duration) == (5, 8)


@pytest.mark.parametrize("kind", [Event, PureEvent], ids=["compiled", "reference"])
@pytest.mark.parametrize("name", ["plain", "\ud800"], ids=["as it is", "made encodable"])
@pytest.mark.parametrize(("url", "of"), [("otlp+http://127.0.0.1:1", int), ("http://127.0.0.1:1", float)])
def test_times_are_whole_nanoseconds_where_the_backend_takes_them(
    queue: FakeQueue, kind: type[Event], name: str, url: str, of: type
) -> None:
    epsagon.init(collector_url=url)
    begun_ns = time.time_ns()
    with epsagon.trace("run") as tracer:
        with kind(name, "t", "o", "python") as event:
            # As far as floats tell two moments apart.
            assert event.start_time == pytest.approx(begun_ns / 1e9, abs=60)
        with pytest.raises(KeyError), kind("failed", "t", "o", "python"):
            raise KeyError
        tracer.add_exception(ValueError())
        tracer.add_error("E", "message")
    assert isinstance((tracer.runner_event or {})["start_time"], float)
    events = queue.bodies(Kind.EVENT)
    thrown = [events[1]["exception"], *queue.bodies(Kind.EXCEPTION), *queue.bodies(Kind.ERROR)]
    told = [each["start_time"] for each in (queue.bodies(Kind.OPEN)[0]["runner"], *events)]
    told += [each["time"] for each in thrown]
    assert [type(each) for each in told] == [of] * 6
    exact = [each if of is int else each * 1e9 for each in told]
    assert all(begun_ns - 1000 <= each <= time.time_ns() + 1000 for each in exact)
    # A float of a short time has all its nanoseconds, and no more.
    assert all(len(f"{Decimal(repr(each['duration'])):f}".partition(".")[2]) <= 9 for each in events)


# Between the two calls of `stat` only blocks are entered and left. What is pushed fits into the ring.
TRACED = """
import os
import epsagon_fast as epsagon

def blocks(count):
    for _ in range(count):
        with epsagon.event("charge", type="http", operation="POST") as event:
            event.metadata["card"] = "visa"

epsagon.init(token="t", collector_url="http://127.0.0.1:1", runtime_dir=".", ring_bytes=16 << 20)
with epsagon.trace("run"):
    blocks(100)
    os.access("/begin", 0)
    blocks(10_000)
    os.access("/end", 0)
os._exit(0)
"""
# A block that made one would make 10,000. The once-a-second look at the collector makes some 16, and on a busy machine
# there are several.
CALLS_MOST = 1000


def test_event_blocks_make_no_system_call(tmp_path: Path) -> None:
    lines = system_calls(TRACED, tmp_path).partition('"/begin"')[2].partition('"/end"')[0].splitlines()
    # Memory that the interpreter takes and gives back comes in large pieces.
    counts = Counter(line.split("(")[0] for line in lines[1:-1])
    for name in ("brk", "mmap", "munmap"):
        counts.pop(name, 0)
    assert sum(counts.values()) <= CALLS_MOST, counts


@pytest.mark.parametrize("options", [{"disable": True}, {"token": ""}], ids=["disabled", "without token"])
def test_what_has_no_trace_is_counted_also_where_nothing_is_recorded(
    untraced: None, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "epsagon_fast")
    epsagon.init(**options)
    for count in range(3):
        with epsagon.event("lost"):
            assert process.refusals() == ({"no_trace": count} if count else {})
    with epsagon.trace("run"), epsagon.event("inside"):
        pass
    epsagon.trace(lambda: epsagon.event("inside").__enter__().__exit__(None, None, None))()
    with epsagon.event("in a child") as event:
        assert exit_code(in_child(lambda: event.__exit__(None, None, None) or len(process.refusals()))) == 0
    assert process.refusals() == {"no_trace": 4}
    assert [record.message for record in caplog.records if "no trace is open" in record.message] != []
    process.reset()
    assert process.refusals() == {}


@pytest.mark.parametrize("kind", [Event, PureEvent], ids=["compiled", "reference"])
@pytest.mark.parametrize("name", ["plain", "\ud800"], ids=["as it is", "made encodable"])
@pytest.mark.parametrize("nothing", ["", None])
def test_an_event_whose_id_is_taken_away_gets_another(
    queue: FakeQueue, kind: type[Event], name: str, nothing: Any
) -> None:
    event = kind(name, "t", "o", "python")
    first = event.id
    event.id = nothing
    with epsagon.trace("run"), event, kind("inner", "t", "o", "python"):
        pass
    inner, outer = queue.bodies(Kind.EVENT)
    assert outer["id"] == event.id == inner["parent_id"] != first
    assert len(event.id) == 16


@pytest.mark.parametrize("kind", [Event, PureEvent], ids=["compiled", "reference"])
@pytest.mark.parametrize("given", ["00000000000000aa", ""])
def test_work_inside_names_the_id_that_was_set_in_the_block(queue: FakeQueue, kind: type[Event], given: str) -> None:
    with epsagon.trace("run") as tracer, kind("outer", "t", "o", "python") as event:
        event.id = given
        sent = inject({})
        tracer.add_event({"id": "ready"})
        with kind("inner", "t", "o", "python"):
            pass
    event.id = "too late"
    ready, inner, outer = queue.bodies(Kind.EVENT)
    assert ready["parent_id"] == inner["parent_id"] == outer["id"]
    assert sent is not None and sent.parent_id == outer["id"]
    assert outer["id"] == (given or outer["id"]) != "too late"
