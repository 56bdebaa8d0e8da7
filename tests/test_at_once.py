"""A trace that opens and closes at once, in C, leaves the same records as one for which Python does it step by step."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from in_ring import Read, recorded, told
from rings import exit_code, in_child

import epsagon_fast as epsagon
from epsagon_fast import Config, Outcome, Tracer
from epsagon_fast.producer import exiting, scope
from epsagon_fast.producer.context import TraceContext, left_by
from epsagon_fast.producer.current import within
from epsagon_fast.producer.fast_path import FastPath, PureFastPath
from epsagon_fast.producer.place import PassingPlace
from epsagon_fast.producer.process import process
from epsagon_fast.producer.runner import new_runner
from epsagon_fast.producer.states import ABANDONED, CLOSED, OPEN, REFUSED
from epsagon_fast.protocol import Kind
from epsagon_fast.queue import layout, settlements
from epsagon_fast.testing import capture_traces

pytestmark = pytest.mark.skipif(FastPath is PureFastPath, reason="the reference does everything step by step")


@pytest.fixture
def read(untraced: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Read]:
    with recorded(monkeypatch, tmp_path) as reader:
        yield reader


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tells which of a trace's steps Python did."""
    done: list[str] = []
    for name in ("_open", "_push_close"):
        whole = getattr(Tracer, name)

        def noted(tracer: Tracer, *arguments: Any, name: str = name, whole: Callable[..., Any] = whole) -> Any:
            done.append(name)
            return whole(tracer, *arguments)

        monkeypatch.setattr(Tracer, name, noted)
    return done


def step_by_step(patch: pytest.MonkeyPatch) -> None:
    """Let Python do everything from now on."""
    patch.setattr(Tracer, "_open_at_once", lambda tracer: False)
    patch.setattr(Tracer, "_close_at_once", lambda tracer, news=b"": False)
    patch.setattr(scope, "Block", scope.PureBlock)
    patch.setattr(scope, "blocks_for", scope.pure_blocks_for)


# Of more than 32 bits, the one that stands for "unchanged" in a CLOSE, and an unsigned one that fits as a signed one.
STRANGE_CODES = [2**64, -1, 0x80004005]


@epsagon.trace
def traced(number: int) -> int:
    return number


def decorated() -> None:
    function = epsagon.trace("decorated")(lambda: epsagon.label("k", "v"))
    function()


def failing() -> None:
    with pytest.raises(ValueError, match="no"), epsagon.trace("failing"):
        raise ValueError("no")


def nested() -> None:
    with epsagon.trace("outer") as outer, epsagon.event("e"), epsagon.trace("own", new=True) as own:
        epsagon.add_event({"id": "1"})
        with epsagon.event("inside"):
            pass
    assert (outer.stopped, own.stopped, outer.running) == (True, True, False)


def started(**options: Any) -> None:
    tracer = epsagon.create_tracer(Config(**options) if options else None)
    tracer.start()
    tracer.add_event({"id": "1"})
    tracer.send_stop_signal()
    tracer.send_stop_signal()


def of_a_runner(context: TraceContext | None = None, name: str = "r", **metadata: Any) -> Tracer:
    tracer = Tracer(process.config(), new_runner(name, "t", "o", metadata, 1_700_000_000_000_000_001))
    tracer.context = context
    tracer.start()
    assert tracer._state is OPEN
    runner = tracer.runner_event
    assert runner is not None and runner["id"] == tracer.trace_id
    return tracer


def called(state: str = "") -> None:
    of_a_runner(TraceContext("ab" * 16, "cd" * 8, 1, state), http_trace_id="ab" * 16).send_stop_signal()


def measured() -> None:
    tracer = of_a_runner()
    tracer.predate(5)
    tracer.stop_clock(1_500_000_005)
    tracer.send_stop_signal()


def restated() -> None:
    tracer = of_a_runner()
    runner = tracer.runner_event
    assert runner is not None
    tracer.restate_and_close({**runner, "duration": 2.5, "error_code": 2})


def of_a_strange_end(code: Any) -> None:
    """Restate and update a runner with an error code that its 32 bits do not hold."""
    for change in (lambda tracer, runner: tracer.restate_and_close(runner), update_alone):
        tracer = of_a_runner()
        runner = tracer.runner_event
        assert runner is not None
        change(tracer, {**runner, "error_code": code})
        tracer.send_stop_signal()


def update_alone(tracer: Tracer, runner: dict[str, Any]) -> None:
    tracer.update_runner(error_code=runner["error_code"])


def unfinished() -> None:
    of_a_runner().abandon()


def with_a_caller() -> None:
    with within(PassingPlace(None, TraceContext("ab" * 16, "cd" * 8))), epsagon.trace("called"):
        pass


def in_a_left_place() -> None:
    with epsagon.trace("left", new=True) as tracer:
        place = tracer.place
    with within(place), epsagon.trace("later"):
        pass


def waited_for() -> None:
    tracer = of_a_runner()
    assert tracer.stop(0.0) == Outcome.PENDING


SCENES: dict[str, Callable[[], object]] = {
    "a function": lambda: traced(1),
    "a decorated function": decorated,
    "a failing block": failing,
    "nested blocks": nested,
    "a tracer without a runner": started,
    "a runner": lambda: of_a_runner().send_stop_signal(),
    "a caller": called,
    "a caller with a state": lambda: called("epsagon=th:8,v=1"),
    "an own clock": measured,
    "a runner that is restated": restated,
    **{f"a code of {code!r}": partial(of_a_strange_end, code) for code in STRANGE_CODES},
    "abandoned": unfinished,
    "no Unicode": lambda: of_a_runner(name="\ud800").send_stop_signal(),
    "a long name": lambda: of_a_runner(name="n" * 1_000_000).send_stop_signal(),
    "a caller's ids alone": with_a_caller,
    "after a trace": in_a_left_place,
    "waited for": waited_for,
    "debug": lambda: started(debug=True),
    "strict": lambda: started(privacy="strict"),
    "disabled": lambda: started(disable=True),
    "left out": lambda: started(sample_rate=1e-9),
    "OTLP": lambda: started(collector_url="otlp+http://127.0.0.1:1", token=""),
    "in memory": lambda: started(test_mode=True),
    "with values": lambda: started(metadata_only=False),
}
# What each of both ways cannot keep.
LOSSES = {"a long name": {"cut": 2}, f"a code of {2**64}": {"malformed": 2}}
# In these, Python does a step.
LONG = {
    "abandoned": ["_push_close"],
    "no Unicode": ["_open"],
    "a long name": ["_open"],
    "debug": ["_open", "_push_close"],
    "strict": ["_open", "_push_close"],
    "disabled": [],
    "left out": [],
    "OTLP": ["_open"],
    "in memory": ["_open", "_push_close"],
    "with values": ["_open"],
}


@pytest.mark.parametrize("scene", SCENES)
def test_records_are_those_of_the_long_way(
    read: Read, monkeypatch: pytest.MonkeyPatch, steps: list[str], scene: str
) -> None:
    SCENES[scene]()
    at_once = told(read())
    assert steps == LONG.get(scene, [])
    assert not process.open_traces
    with epsagon.trace("in between"):
        pass
    read()
    step_by_step(monkeypatch)
    SCENES[scene]()
    assert told(read()) == at_once
    assert not process.open_traces
    assert process.refusals() == LOSSES.get(scene, {})


def public(tracer: Tracer) -> dict[str, Any]:
    own = ("trace_id", "span_id", "_id", "_opened_ns", "_runner", "_own_runner", "_place")
    found = {name: getattr(tracer, name) for name in vars(FastPath) if not callable(getattr(tracer, name))}
    return {name: value for name, value in found.items() if name not in own and not name.startswith("__")}


def shines(tracer: Tracer) -> bool:
    return bool(tracer._beacon) and tracer._beacons.shows(tracer._beacon, tracer._id)


def test_trace_of_a_block_knows_what_one_of_the_class_knows(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    with epsagon.trace("a", new=True) as at_once:
        inside = public(at_once), at_once.place.tracer is at_once, shines(at_once)
    after = public(at_once), at_once.place.tracer, at_once.place.context, shines(at_once)
    assert at_once.place.context == TraceContext(at_once.trace_id, at_once.span_id)
    step_by_step(monkeypatch)
    with epsagon.trace("a", new=True) as long:
        assert (public(long), long.place.tracer is long, shines(long)) == inside
    assert (public(long), long.place.tracer) == after[:2]
    assert (after[0]["_state"], inside[2], after[3]) == (CLOSED, True, False)
    assert len({at_once._id, long._id, bytes(16)}) == 3
    assert at_once._id.hex() == at_once.trace_id == at_once.span_id + at_once.trace_id[16:]


def one() -> None:
    with epsagon.trace("one"):
        pass


Unusual = Callable[[], object]
# What makes the next trace take the long way, in its start or its end.
UNUSUAL: dict[str, tuple[Unusual, list[str]]] = {
    "a look is due": (lambda: setattr(process.own.footing, "next_look_s", 0.0), ["_open"]),
    "the writer has said BYE": (lambda: process.own.writers._current.bye(), ["_open"]),
    "another config is in force": (lambda: epsagon.init(token="other"), ["_open"]),
    "the process ends": (lambda: setattr(process.own, "is_exiting", True), ["_open"]),
    "some were left out": (lambda: setattr(process.own, "left_out", 1), ["_open"]),
    "some were refused": (lambda: process.own.early_refusals.update({"no_trace": 1}), ["_open"]),
    "it was shut down": (lambda: setattr(process, "is_shut_down", True), []),
    "it was disabled": (lambda: epsagon.init(disable=True), []),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_whatever_is_unusual_is_left_to_python(
    read: Read, monkeypatch: pytest.MonkeyPatch, steps: list[str], what: str
) -> None:
    monkeypatch.setattr(exiting, "wait_until_safe", lambda: None)
    unusual, expected = UNUSUAL[what]
    one()
    assert steps == []
    unusual()
    one()
    assert steps == expected


def test_captured_trace_is_not_in_the_ring(read: Read) -> None:
    with capture_traces() as traces:
        one()
    assert len(traces) == 1
    assert read() == []
    one()
    assert len(read()) == 2


def test_record_without_a_trace_is_counted_before_the_next_one(read: Read, steps: list[str]) -> None:
    epsagon.add_event({})
    assert process.refusals() == {"no_trace": 1}
    one()
    assert steps == []


def test_full_ring_refuses_a_trace(read: Read, steps: list[str]) -> None:
    tracers: list[Tracer] = []
    while not tracers or tracers[-1]._state is OPEN:
        tracers.append(epsagon.create_tracer())
        tracers[-1].start()
    with epsagon.trace("one", new=True) as refused:
        assert refused._state is REFUSED
    assert process.refusals() == {"queue_full": 2}
    for tracer in tracers:
        tracer.send_stop_signal()
    assert steps == []
    assert not process.open_traces
    kinds = [record.kind for record in read()]
    assert kinds.count(Kind.OPEN) == kinds.count(Kind.CLOSE) == len(tracers) - 1


def test_writer_looks_after_each_64_kib(read: Read, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    monkeypatch.setattr(process.own.writers._current, "_look_busily", lambda: looks.append(True))
    before = process.own.writers._current._ring.head
    while len(looks) < 4:
        with epsagon.trace("one", new=True):
            pass
        read()
    pushed = process.own.writers._current._ring.head - before
    assert 3 << layout.LOOK_SHIFT < pushed < 5 << layout.LOOK_SHIFT
    assert steps == []
    assert not process.refusals()
    assert not process.open_traces


def test_full_page_leaves_a_trace_without_a_sign(read: Read, steps: list[str]) -> None:
    tracers = [of_a_runner() for _ in range(layout.PLACES)]
    assert [bool(tracer._beacon) for tracer in tracers[-2:]] == [True, False]
    for tracer in tracers:
        tracer.send_stop_signal()
    assert steps == []
    assert not any(map(shines, tracers))
    assert len(read()) == 2 * len(tracers)


def test_flush_hears_of_a_trace_that_closes_meanwhile(read: Read) -> None:
    class Flushed:
        def __init__(self) -> None:
            self.later: set[bytes] = set()

    flushed = Flushed()
    process.begin_flush(flushed)
    with epsagon.trace("one") as tracer:
        pass
    assert flushed.later == {tracer._id}


def test_child_opens_its_own_and_closes_none_of_its_parent(read: Read) -> None:
    with epsagon.trace("parents") as tracer:

        def child() -> None:
            assert not tracer._close_at_once()
            tracer.send_stop_signal()
            assert tracer._state is OPEN
            with epsagon.trace("childs") as own:
                assert own is not tracer and own.owner_pid == os.getpid()
            with epsagon.trace("childs") as own:
                assert shines(own)

        assert exit_code(in_child(child)) == 0
        assert shines(tracer)
    assert [record.trace_id for record in read()] == [tracer._id] * 2


def test_interrupted_report_leaves_nothing_open(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(process.own.writers._current, "recent_settlements", limit)
    # So that there is something to report.
    settlements.publish(process.own.writers._current._ring, [bytes(16)], Outcome.DELIVERED)
    with pytest.raises(TimeoutError), epsagon.trace("one", new=True) as tracer:
        assert shines(tracer)
    assert tracer._state is CLOSED and CLOSED is not ABANDONED
    assert not shines(tracer)
    assert tracer.place.tracer is None
    assert [Kind(record.kind).name for record in read()] == ["OPEN", "CLOSE"]


def test_news_are_looked_for_when_there_are_some(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    writer = process.own.writers._current
    monkeypatch.setattr(writer, "recent_settlements", lambda: looks.append(True) or [])
    told = partial(settlements.publish, writer._ring, [bytes(16)], Outcome.DELIVERED)
    refused = partial(writer.refuse, "queue_full")
    for happens, expected in ((list, 0), (told, 1), (list, 1), (refused, 2), (list, 2)):
        happens()
        one()
        assert len(looks) == expected


@pytest.mark.parametrize("context", [None, TraceContext("ab" * 16, "cd" * 8, 0, "v=1")])
def test_place_of_an_ended_trace_has_the_context_that_it_left(read: Read, context: TraceContext | None) -> None:
    tracer = of_a_runner(context)
    place = tracer.place
    assert place.context is None
    tracer.send_stop_signal()
    assert place.context == place.heritage() == left_by(tracer)
    place.context = None
    assert place.heritage() is None
