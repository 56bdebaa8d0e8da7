"""Sampling in a collector's passes: what is left out, what is kept together, what a death of the collector changes."""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from arrivals import runner
from hypothesis import given, settings
from passes import Folder, Process, made_folder, passes
from records import RING, closed, opened, own_runner
from strategies import json_shaped

from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.sampling import waiting
from epsagon_fast.collector.sampling.sampling import Sampling
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue.overview import look
from epsagon_fast.queue.settlements import Settlements

NOTHING = "rate=0"
SHARED_ID = bytes(range(16))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    with made_folder(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No trace waits for others."""
    monkeypatch.setattr(waiting, "LONGEST_S", 0.0)


def trace(process: Process, name: str, error_code: int = 0, shared_id: bytes = b"", sampling: str = NOTHING) -> bytes:
    """Open and close a trace; return its id."""
    trace_id = process.open(name, shared_id=shared_id, sampling=sampling)
    process.add(trace_id, 1)
    process.close(trace_id, error_code=error_code)
    return trace_id


def metadata(body: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = runner(body)["resource"]["metadata"]
    return found


def told(process: Process) -> list[Outcome]:
    return [outcome for _, outcome in Settlements(process.ring).news()]


def test_trace_that_is_left_out_is_no_loss(folder: Folder, impatient: None) -> None:
    loop, process = folder.collector(), Process(folder)
    trace(process, "left out")
    passes(loop, lambda: loop.counts["sampled"])
    assert told(process) == [Outcome.SAMPLED]
    trace(process, "failed", error_code=2)
    passes(loop, lambda: process.counts() == (2, 2))
    arrived = folder.arrived()
    assert [*arrived] == ["failed"]
    assert metadata(arrived["failed"]) == {
        "labels": "{}",
        "sampling": "error",
        "sampling_weight": "1",
        "tracestate": "ot=th:0",
    }
    assert loop.counts["kept_error"] == 1
    assert folder.state.counters()["sampled"] == 1
    assert (loop.unsettled, loop.held_bytes, len(loop.sampling.waiting)) == (0, 0, 0)


def test_process_is_told_at_once_and_traces_of_a_request_are_kept_together(folder: Folder) -> None:
    loop, process = folder.collector(), Process(folder)
    trace(process, "called", shared_id=SHARED_ID)
    trace(process, "of another request")
    passes(loop, lambda: process.counts() == (2, 2))
    assert told(process) == [Outcome.SAMPLED] * 2
    assert (loop.counts["sampled"], len(loop.sampling.waiting)) == (0, 2)
    # A server that ends waits until nothing is pending.
    loop.publish()
    assert look(str(folder.path)).gauges["pending"] == 0
    trace(process, "failed", error_code=2, shared_id=SHARED_ID)
    trace(process, "later", shared_id=SHARED_ID)
    passes(loop, lambda: loop.counts["delivered"] == 3)
    arrived = folder.arrived()
    assert {name: metadata(body)["sampling"] for name, body in arrived.items()} == {
        "called": "company",
        "failed": "error",
        "later": "company",
    }
    assert {metadata(body)["sampling_weight"] for body in arrived.values()} == {"1"}
    assert len(loop.sampling.waiting) == 1
    assert told(process)[2:] == [Outcome.DELIVERED] * 3
    assert process.counts() == (4, 4)


def test_what_comes_after_a_request_was_left_out_does_not_wait(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, process = folder.collector(), Process(folder)
    with monkeypatch.context() as context:
        context.setattr(waiting, "LONGEST_S", 0.0)
        trace(process, "first", shared_id=SHARED_ID)
        passes(loop, lambda: loop.counts["sampled"] == 1)
    trace(process, "second", shared_id=SHARED_ID)
    passes(loop, lambda: loop.counts["sampled"] == 2)
    trace(process, "failed", error_code=2, shared_id=SHARED_ID)
    trace(process, "last", shared_id=SHARED_ID)
    passes(loop, lambda: loop.counts["delivered"] == 2)
    assert folder.arrived().keys() == {"failed", "last"}


def test_trace_that_waited_may_be_dropped_in_the_same_pass(folder: Folder) -> None:
    loop, process = folder.collector(), Process(folder)
    too_big = process.open("called", shared_id=SHARED_ID, sampling=NOTHING, max_trace_size_bytes=10)
    process.close(too_big)
    trace(process, "failed", error_code=2, shared_id=SHARED_ID)
    passes(loop, lambda: loop.counts["delivered"] == 1)
    assert [*folder.arrived()] == ["failed"]
    assert told(process) == [Outcome.SAMPLED, Outcome.DROPPED.because("too_big"), Outcome.DELIVERED]
    assert (loop.counts["dropped_too_big"], loop.unsettled, loop.held_bytes) == (1, 0, 0)


def test_next_collector_decides_alike(folder: Folder) -> None:
    first, process = folder.collector(), Process(folder)
    trace(process, "called", shared_id=SHARED_ID)
    other = os.urandom(16)
    trace(process, "sent", error_code=2, shared_id=other)
    passes(first, lambda: first.counts["delivered"] == 1 and len(first.sampling.waiting) == 1)
    second = folder.collector()
    trace(process, "failed", error_code=2, shared_id=SHARED_ID)
    trace(process, "follows", shared_id=other)
    passes(second, lambda: second.counts["delivered"] == 3)
    assert folder.arrived().keys() == {"called", "sent", "failed", "follows"}
    assert process.counts() == (4, 4)


def test_next_collector_leaves_out_what_its_predecessor_let_wait(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, process = folder.collector(), Process(folder)
    trace(process, "left out")
    passes(first, lambda: process.counts() == (1, 1))
    monkeypatch.setattr(waiting, "LONGEST_S", 0.0)
    second = folder.collector()
    passes(second, lambda: second.counts["sampled"])
    assert second.counts["sampled"] == 1
    assert (process.counts(), second.unsettled) == ((1, 1), 0)
    third = folder.collector()
    third.one_pass()
    assert third.unsettled == 0


def test_waiting_traces_take_their_share_of_memory_and_no_more(folder: Folder) -> None:
    loop, process = folder.collector(), Process(folder)
    loop.sampling.waiting.most_bytes = 20_000
    for number in range(40):
        trace(process, f"trace {number}")
        loop.one_pass()
        assert loop.sampling.waiting.held_bytes <= 20_000
        assert loop.held_bytes >= loop.sampling.waiting.held_bytes
    passes(loop, lambda: process.counts() == (40, 40))
    assert 0 < len(loop.sampling.waiting) < 40
    assert loop.counts["sampled"] == 40 - len(loop.sampling.waiting)


def test_end_of_a_collector_without_a_successor_decides_at_once(folder: Folder) -> None:
    loop, process = folder.collector(), Process(folder)
    trace(process, "left out")
    passes(loop, lambda: process.counts() == (1, 1))
    loop.finish()
    folder.loops.remove(loop)
    assert loop.counts["sampled"] == 1
    assert not [name for name in os.listdir(folder.path) if name.startswith("journal-")]


def test_collector_that_hands_over_leaves_the_decision_to_its_successor(folder: Folder) -> None:
    first, process = folder.collector(), Process(folder)
    trace(process, "called", shared_id=SHARED_ID)
    passes(first, lambda: len(first.sampling.waiting) == 1)
    first.finish(hands_over=True)
    folder.loops.remove(first)
    second = folder.collector()
    trace(process, "failed", error_code=2, shared_id=SHARED_ID)
    passes(second, lambda: second.counts["delivered"] == 2)
    assert folder.arrived().keys() == {"called", "failed"}


def test_process_that_died_is_kept(folder: Folder, impatient: None) -> None:
    loop, process = folder.collector(), Process(folder)
    process.open("died", sampling=NOTHING)
    process.open("of another application")
    loop.one_pass()
    os.unlink(folder.path / process.name)
    loop.assembly.ring_died(bytes.fromhex(process.name[:32]), 1.0)
    passes(loop, lambda: loop.counts["delivered"] == 2)
    arrived = folder.arrived()
    assert runner(arrived["died"])["exception"]["type"] == "ProcessDied"
    assert metadata(arrived["died"])["sampling"] == "error"
    assert "sampling" not in metadata(arrived["of another application"])


def test_rules_that_cannot_be_read_keep_everything(folder: Folder) -> None:
    loop, process = folder.collector(), Process(folder)
    process.open("broken", sampling=[1])
    trace(process, "kept", sampling="of another version")
    passes(loop, lambda: loop.counts["delivered"] == 1)
    assert [*folder.arrived()] == ["kept"]


def closed_trace(shared_id: bytes, sampling: str) -> OpenTrace:
    """A closed trace of a request, as the assembly gives it."""
    assembly, trace_id = Assembly(), os.urandom(16)
    for each in (opened(own_runner(http_trace_id=shared_id.hex()), sampling=sampling), closed()):
        assembly.feed(RING, each._replace(trace_id=trace_id), 0.0)
    return [*assembly.end_pass(0.0), *assembly.end_pass(0.0)][0]


@pytest.fixture
def sampling(tmp_path: Path) -> Iterator[Sampling]:
    folder_fd = os.open(tmp_path, os.O_RDONLY)
    made = Sampling(folder_fd, 2**30, Counter())
    yield made
    made.close()
    os.close(folder_fd)


def test_budget_counts_each_trace_of_a_request_once(sampling: Sampling) -> None:
    ids, kept = random.Random(6), Counter[int]()
    for number in range(12 * 60):
        shared_id, now = ids.randbytes(16), number / 60
        kept[int(now)] += sum(len(sampling.judge(closed_trace(shared_id, "budget=30/s"), now)) for _ in range(3))
    assert sum(kept[second] for second in range(6, 12)) / 6 == pytest.approx(30, rel=0.3)


def test_requests_stay_whole_when_a_budgets_rate_rises(sampling: Sampling) -> None:
    ids, text = random.Random(7), "budget=5/s"
    for _ in range(300):
        sampling.judge(closed_trace(ids.randbytes(16), text), 1.0)
    requests = [ids.randbytes(16) for _ in range(40)]
    first = [len(sampling.judge(closed_trace(each, text), 2.5)) for each in requests]
    for quiet in (3.6, 4.7, 5.8):
        sampling.judge(closed_trace(ids.randbytes(16), text), quiet)
    second = [len(sampling.judge(closed_trace(each, text), 5.9)) for each in requests]
    assert {*zip(first, second, strict=True)} == {(0, 0), (0, 2)} | ({(1, 1)} if any(first) else set())


@settings(max_examples=40)
@given(json_shaped(), json_shaped(), json_shaped())
def test_runner_may_hold_anything(
    tmp_path_factory: pytest.TempPathFactory, inner: Any, shared_id: Any, duration: Any
) -> None:
    metadata = {"http_trace_id": shared_id, "tracestate": inner}
    odd = {"resource": {"name": inner, "metadata": metadata}, "duration": duration, "error_code": inner}
    folder_fd = os.open(tmp_path_factory.getbasetemp(), os.O_RDONLY)
    sampling = Sampling(folder_fd, 2**20, Counter())
    for said in (odd, {"resource": inner}, {"resource": {"metadata": inner}}):
        opening = opened(sampling="rate=0, slower=1s, slowest=1%, least=1/min")
        payload = json.dumps({**orjson.loads(opening.payload), "runner": said}).encode()
        assembly = Assembly()
        for each in (opening._replace(payload=payload), closed()):
            assembly.feed(RING, each, 0.0)
        (only,) = [*assembly.end_pass(0.0), *assembly.end_pass(0.0)]
        assert only in sampling.judge(only, 1.0) or len(sampling.waiting)
    sampling.close()
    os.close(folder_fd)


def test_spans_of_otlp_say_the_threshold_in_their_tracestate(folder: Folder) -> None:
    loop, process = folder.collector(), Process(folder)
    trace_id = process.open("checkout", sampling="rate=100%", collector_url="otlp+" + folder.server.url)
    process.add(trace_id, 1)
    process.close(trace_id)
    passes(loop, lambda: loop.counts["delivered"] == 1)
    (request,) = folder.server.requests
    (scopes,) = orjson.loads(request.body)["resourceSpans"]
    spans = [span for scope in scopes["scopeSpans"] for span in scope["spans"]]
    assert [span["traceState"] for span in spans] == ["ot=th:0"] * 2
