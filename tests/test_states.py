"""Every call on a real tracer in every state, held to the table."""

from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeQueue
from rings import exit_code, in_child

import epsagon_fast as epsagon
from epsagon_fast import Config, Outcome, Tracer
from epsagon_fast.producer import tracer as tracer_module
from epsagon_fast.producer.process import process
from epsagon_fast.producer.states import (
    ABANDONED,
    CLOSED,
    ITS_OWN,
    LEFT,
    LEFT_OUT,
    LEFT_OUT_CLOSED,
    NEW,
    OPEN,
    REFUSED,
    REFUSED_CLOSED,
    SILENT,
    SILENT_CLOSED,
    STARTING,
    TABLE,
    UNSTARTED,
    State,
)
from epsagon_fast.queue.layout import FULL

COMPLETE = {
    "id": "1",
    "start_time": 1.5,
    "resource": {"name": "n", "type": "t", "operation": "o", "metadata": {}},
    "origin": "o",
    "duration": 0.5,
    "error_code": 0,
    "exception": None,
}


def started(config: Config | None = None) -> Tracer:
    tracer = epsagon.create_tracer(config)
    tracer.start()
    return tracer


def interrupted() -> Tracer:
    """Return a tracer whose start an exception from outside has ended."""

    def limit(*_: object) -> None:
        raise TimeoutError

    tracer = epsagon.create_tracer()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TimeoutError):
        patch.setattr(tracer_module, "fitted_opening", limit)
        tracer.start()
    return tracer


def refused(queue: FakeQueue) -> Tracer:
    queue.codes.append(FULL)
    return started()


def then(tracer: Tracer, call: Callable[[Tracer], Any]) -> Tracer:
    call(tracer)
    return tracer


stop, abandon = Tracer.send_stop_signal, Tracer.abandon
# How an application comes to a tracer in each state.
MADE: dict[State, Callable[[FakeQueue], Tracer]] = {
    NEW: lambda _: epsagon.create_tracer(),
    STARTING: lambda _: interrupted(),
    OPEN: lambda _: started(),
    SILENT: lambda _: started(Config(disable=True)),
    LEFT_OUT: lambda _: started(Config(sample_rate=0)),
    REFUSED: refused,
    LEFT: lambda _: then(epsagon.attach(started().handle()), lambda tracer: tracer.abandon()),
    UNSTARTED: lambda _: then(epsagon.create_tracer(), stop),
    CLOSED: lambda _: then(started(), stop),
    ABANDONED: lambda _: then(started(), abandon),
    SILENT_CLOSED: lambda _: then(started(Config(disable=True)), stop),
    LEFT_OUT_CLOSED: lambda _: then(started(Config(sample_rate=0)), stop),
    REFUSED_CLOSED: lambda queue: then(refused(queue), abandon),
}
CALLS = {
    "start": lambda tracer: tracer.start(),
    "stop": lambda tracer: tracer.send_stop_signal(),
    "abandon": lambda tracer: tracer.abandon(),
}


def seen(tracer: Tracer, queue: FakeQueue) -> tuple[bool, bool, bool, dict[str, int], Outcome]:
    """Return what an application can tell of a tracer's state: no two states look alike."""
    writers = [queue, *queue.others.values()]
    pushed, refused = sum(len(writer.records) for writer in writers), process.refusals()
    tracer.add_event({})
    tracer.add_label("k", "v")
    taken = sum(len(writer.records) for writer in writers) - pushed
    counted = dict(process.refusals() - refused)
    facts = (tracer.running, tracer.stopped, taken == 2, counted)
    return (*facts, tracer.stop(0.0))


def told(state: State) -> tuple[bool, bool, bool, dict[str, int], Outcome]:
    """Return the same as the table has it."""
    row = TABLE[state]
    reason = "queue_full" if row.refusal == ITS_OWN else row.refusal
    outcome = TABLE[row.stop].outcome or Outcome.PENDING
    return row.running, row.stopped, state is OPEN, {reason: 2} if reason else {}, outcome


def test_the_table_has_a_row_for_each_state_and_no_two_look_alike() -> None:
    assert set(TABLE) == set(MADE) == set(State)
    assert len({repr(told(state)) for state in State}) == len(State)


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_tracer_shows_its_state(queue: FakeQueue, state: State) -> None:
    assert seen(MADE[state](queue), queue) == told(state)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_call_does_what_the_table_says(queue: FakeQueue, state: State, call: str) -> None:
    after = getattr(TABLE[state], call)
    tracer = MADE[state](queue)
    CALLS[call](tracer)
    # A start that nothing interrupts goes on.
    assert seen(tracer, queue) == told(OPEN if (state, after) == (NEW, STARTING) else after)


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_forked_child_abandons_without_closing(queue: FakeQueue, state: State) -> None:
    tracer = MADE[state](queue)

    def leave() -> None:
        tracer.abandon()
        expected = told(TABLE[state].leave)
        # It cannot stop the trace, and hears nothing of what becomes of one that is open elsewhere.
        outcome = TABLE[TABLE[state].leave].outcome or Outcome.PENDING
        assert seen(tracer, queue) == (*expected[:4], outcome)

    assert exit_code(in_child(leave)) == 0


def test_handler_that_stops_a_trace_as_it_opens_has_it_stopped(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = epsagon.create_tracer()
    push = queue.push

    def push_and_be_interrupted(kind: int, flags: int, trace_id: bytes, payload: bytes) -> int:
        monkeypatch.setattr(queue, "push", push)
        code = push(kind, flags, trace_id, payload)
        tracer.send_stop_signal()
        return code

    monkeypatch.setattr(queue, "push", push_and_be_interrupted)
    tracer.start()
    assert tracer.stopped
    assert queue.kinds == ["OPEN", "CLOSE"]
    # Complete, so that the fast path would take it.
    tracer.add_event(COMPLETE)
    assert queue.kinds == ["OPEN", "CLOSE"]
    assert queue.counts == {"misuse": 1}
